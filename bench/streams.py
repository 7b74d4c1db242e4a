"""What a sweep takes whose rows come from files, beside the same rows in memory.

    python -m bench.streams [--gigabytes G] [--folder FOLDER] [--threads T] [--json FILE]
    python -m bench.streams --quick      # a twentieth of a gigabyte, some seconds: does it work? No figure to quote

Rows of float32 are written as one .npy file and as a folder of Parquet, and are then in the system's page cache, if they fit. A
sweep of each takes turns with a sweep of the rows in memory, and its answer is checked first. Beside them stand the rates that
bound it: the page cache's, at which one thread copies the .npy file out of it, and the kernel's, which is that of rows which a
core's own cache holds, on one thread, times the threads (too much, where two of them share a core).

Memory is that of a fresh process which fits three steps from the file, looked at every two milliseconds: its peak beyond what it
was before, pages of the files counted in.
"""

import argparse
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

import emfuse
from bench import machine
from bench.cases import Case, problem
from bench.clock import WITHIN, Call, take_turns, whole
from bench.memory import in_fresh_process
from emfuse import Blocks, InMemory, Parameters

CASES = (
    Case("d4_k2", rows=0, D=4, K=2, structure="full", why="little work a byte: the disk, or the page cache, has to keep up"),
    Case("d10_k10", rows=0, D=10, K=10, structure="full", why="the middle of the road: the kernel has the work"),
)
ROWS_MADE = 250_000  # drawn, and written again and again
IN_CACHE = 2_000  # rows that a core's own cache holds
PARQUET_ROWS = 1_000_000  # in a file
GROUP_ROWS = 250_000  # in a row group of it
BUFFER = 1 << 25
TARGET = 0.8
QUICK_GIGABYTES = 0.05


def main(arguments=None):
    options = parse(arguments)
    if options.child:
        path, K, D = options.child
        print(peak_beyond_mb(path, int(K), int(D), options.threads))
        return 0
    threads = emfuse.threads.thread_count(options.threads)
    described = machine.describe() | {"threads": threads}
    records, failures = [], []
    bytes_wanted = int(1e9 * options.gigabytes)
    if shutil.disk_usage(options.folder or tempfile.gettempdir()).free < 3 * bytes_wanted:
        raise SystemExit(
            f"{options.gigabytes:g} GB take three times as much of the disk; give --folder elsewhere, or less --gigabytes"
        )
    if machine.available_memory() < 4 * bytes_wanted:
        print("the rows do not fit into memory with their files in the page cache: this is the disk's rate, then\n")
    for case in CASES:
        case = replace(case, rows=max(ROWS_MADE, bytes_wanted // (4 * case.D)))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            record = measure(case, Path(folder), threads, options, failures)
        if record:
            records.append(record)
            print("\n".join(lines(record)), flush=True)
    print(f"\n{machine.sentence(described)}")
    if options.json:
        machine.write(options.json, {"machine": described, "quick": options.quick, "failures": failures, "cases": records})
    return 1 if failures else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description="Sweeps of files beside sweeps of memory.")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of rows, in each file (1)")
    parser.add_argument("--folder", help="where the files are made; the system's for temporary files")
    parser.add_argument("--threads", type=int, help="of emfuse; all cores")
    parser.add_argument("--quick", action="store_true", help="some seconds, and no figure to quote")
    machine.add_json(parser, "streams")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.gigabytes = QUICK_GIGABYTES if options.quick else options.gigabytes
    options.repeats = 2 if options.quick else 5
    return options


def measure(case, folder, threads, options, failures):
    made = problem(replace(case, rows=ROWS_MADE)).astype(np.float32)
    start = Parameters(made.start.weights, made.start.means, made.start.covariances, case.structure)
    files = {"npy": npy(made.X, case.rows, folder)}
    try:
        files["Parquet"] = parquet(made.X, case.rows, folder)
    except ImportError as error:
        print(f"Parquet is skipped: {error}")
    engines = {"memory": InMemory(np.load(files["npy"]), n_threads=threads)}
    engines |= {name: Blocks.of(file, n_threads=threads) for name, file in files.items()}
    scores = {name: engine.sweep(start.factors).log_likelihood / case.rows for name, engine in engines.items()}
    within = WITHIN[np.dtype(np.float32)][0]
    if not max(abs(score - scores["memory"]) for score in scores.values()) <= within:
        failures.append(f"{case.name}: log-likelihoods a row differ by more than {within:g}: {scores}")
        print(failures[-1])
        return None
    sides = [Call(name, lambda engine=engine: engine.sweep(start.factors)) for name, engine in engines.items()]
    turns = take_turns(sides, options.repeats, least_seconds=0.0)
    seconds = {name: median(whole(turn) for turn in turns[name]) for name in engines}
    bytes_of_rows = 4 * case.D * case.rows
    few = InMemory(made.X[:IN_CACHE], n_threads=1)
    rates = {name: bytes_of_rows / each / 1e9 for name, each in seconds.items()}
    rates["page cache"] = page_cache_gb_per_s(files["npy"], options.repeats)
    rates["kernel"] = threads * 4 * case.D * IN_CACHE / shortest(lambda: few.sweep(start.factors), 50) / 1e9
    beyond = {name: in_fresh_process("bench.streams", *child(options), "--child", str(file), str(case.K), str(case.D))
              for name, file in files.items()}  # fmt: skip
    shape = {"name": case.name, "rows": case.rows, "D": case.D, "K": case.K, "structure": case.structure, "why": case.why}
    return shape | {"seconds": seconds, "gb_per_s": rates, "beyond_data_mb": beyond, "log_likelihood": scores}


def npy(X, rows, folder):
    """The rows of X, again and again, in a .npy file."""
    file = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float32, (rows, X.shape[1]))
    for begin in range(0, rows, len(X)):
        file[begin : begin + len(X)] = X[: rows - begin]
    file.flush()
    return folder / "rows.npy"


def parquet(X, rows, folder):
    """The same in a folder of Parquet files."""
    import pyarrow
    from pyarrow.parquet import write_table

    (folder / "parquet").mkdir()
    whole_file = np.concatenate([X] * (PARQUET_ROWS // len(X)))
    for i, begin in enumerate(range(0, rows, PARQUET_ROWS)):
        columns = whole_file[: rows - begin].T
        table = pyarrow.table({f"x{d}": column for d, column in enumerate(columns)})
        write_table(table, folder / "parquet" / f"part-{i:05}.parquet", row_group_size=GROUP_ROWS)
    return folder / "parquet"


def page_cache_gb_per_s(file, repeats):
    """How fast one thread copies a file out of the page cache, when it is in there."""
    buffer = memoryview(bytearray(BUFFER))

    def read():
        with open(file, "rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass

    return file.stat().st_size / shortest(read, repeats) / 1e9


def shortest(work, repeats):
    """Seconds that `work` takes, at the least."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


# ------------------------------------------------------------------ memory


def child(options):
    return [] if options.threads is None else ["--threads", str(options.threads)]


def resident_mb():
    """What this process holds in memory, pages of files included, or None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return None


def peak_beyond_mb(path, K, D, n_threads):
    """MiB that three steps of EM over a file take at most; JSON's null where that cannot be read."""
    made = problem(Case("child", ROWS_MADE // 10, D, K, "full", why="")).astype(np.float32)
    start = Parameters(made.start.weights, made.start.means, made.start.covariances, "full")
    emfuse.em(Blocks.of(made.X, n_threads=n_threads), start, stop=1)
    before = resident_mb()
    if before is None:
        return "null"
    most, over = [before], threading.Event()

    def watch():
        while not over.wait(0.002):
            most[0] = max(most[0], resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        emfuse.em(Blocks.of(path, n_threads=n_threads), start, stop=3)
    finally:
        over.set()
        watcher.join()
    return most[0] - before


# ------------------------------------------------------------------ the table


def lines(record):
    seconds, rates = record["seconds"], record["gb_per_s"]
    least = min(rates["page cache"], rates["kernel"])
    size = 4e-9 * record["rows"] * record["D"]
    yield f"{record['name']}: {record['rows']:,} rows, D = {record['D']}, K = {record['K']}, float32, {size:.2f} GB"
    yield f"  page cache {rates['page cache']:.2f} GB/s, kernel {rates['kernel']:.2f} GB/s"
    yield f"  {'':10} {'s a sweep':>10} {'GB/s':>7} {'of memory':>10} {'of the lower rate':>18} {'MiB beyond':>11}"
    for name, each in seconds.items():
        share, beyond = seconds["memory"] / each, record["beyond_data_mb"].get(name)
        said = "" if name != "npy" else f"   target: {TARGET:.0%} of memory's, {'met' if share >= TARGET else 'missed'}"
        held = "" if beyond is None else f"{beyond:.0f}"
        yield f"  {name:10} {each:10.3f} {rates[name]:7.2f} {share:>10.0%} {rates[name] / least:>18.0%} {held:>11}{said}"


if __name__ == "__main__":
    raise SystemExit(main())
