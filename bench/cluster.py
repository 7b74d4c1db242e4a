"""What a cluster costs beside its work: a sweep over Dask's partitions, on two worker processes of one thread each.

    python -m bench.cluster              # a few minutes
    python -m bench.cluster --quick      # a tenth of the rows, under a minute: does it work? No figure to quote

1. Partitions of a few rows: a sweep is then nothing but messages. A line through the medians gives what a sweep costs whatever
   it sweeps, and what each partition adds. Beside it, the CPU seconds of a partition: the scheduler's with the client's, which
   all partitions share, and a worker's, which only its own do.
2. Partitions of a million rows: the share of the workers' time that is spent within the tasks that sweep, by their own clocks.
   The answer is checked first.
3. What is sent: parameters to each worker, statistics from each partition.
4. From these constants, a fit that no machine here could hold.

Workers and scheduler share this machine's cores, and no network lies between them: on a cluster, the scheduler has a core of its
own, and bytes take longer.
"""

import argparse
import importlib.util
import pickle
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter, process_time

import numpy as np

from bench import machine
from bench.cases import Case, problem
from emfuse import InMemory, Parameters, SufficientStatistics
from emfuse.dask_engine import FAN_IN, DaskEngine

WORKERS = 2
COUNTS = 10, 100, 1000  # partitions
TINY = Case("tiny", rows=32, D=2, K=2, structure="diag", why="nothing to sweep")
LARGE = Case("large", rows=1_000_000, D=10, K=10, structure="full", why="the middle of the road")
HUGE = Case("huge", rows=1_000_000_000, D=32, K=64, structure="full", why="what no machine here could hold")
HUGE_WORKERS, HUGE_ROWS = 100, 1_000_000  # rows in a partition
NETWORK = 1.25e9  # bytes a second, assumed: 10 Gbit/s
WITHIN = 1e-12  # nats a row: the same sums in another order


def main(arguments=None):
    options = parse(arguments)
    from distributed import Client, LocalCluster, get_task_stream

    peers()
    content = {"machine": machine.describe(), "quick": options.quick, "workers": WORKERS}
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        content["overhead"] = overhead(client, options)
        content["share"] = share(client, partial(get_task_stream, client, plot=False), options)
    content["bytes"] = sizes()
    content["extrapolation"] = extrapolate(content["overhead"], options)
    print(machine.sentence(content["machine"]))
    if options.json:
        machine.write(options.json, content)
    return 0 if content["share"]["apart"] <= WITHIN else 1


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="What a cluster costs beside its work.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, and no figure to quote")
    machine.add_json(parser, "cluster")
    return parser.parse_args(arguments)


def peers():
    """Say who is not here."""
    spark = "not installed" if importlib.util.find_spec("pyspark") is None else "installed, but this program does not run it"
    print(f"skipped: dask-ml (it has no Gaussian mixture), Spark's GaussianMixture ({spark})")


def partitions(case, count):
    """So many partitions, delayed, each with the same rows, which the worker makes."""
    from dask import delayed

    return [delayed(rows_of, pure=False)(case) for _ in range(count)]


def rows_of(case):
    return problem(case).X


def start_of(case):
    start = problem(case if case.rows < 10_000 else replace(case, rows=1)).start
    return Parameters(start.weights, start.means, start.covariances, case.structure)


def sweeps(engine, factors, seconds, least=3):
    """Seconds of one sweep after the other; the first is not counted."""
    engine.sweep(factors)
    samples = []
    while len(samples) < least or sum(samples) < seconds:
        began = perf_counter()
        engine.sweep(factors)
        samples.append(perf_counter() - began)
    return samples


def overhead(client, options):
    factors, samples = start_of(TINY).factors, {}
    print("\none sweep over partitions of 32 rows, milliseconds (median of some, and the least)")
    for count in COUNTS:
        began = perf_counter()
        engine = DaskEngine(partitions(TINY, count), client)
        made = perf_counter() - began
        before = cpu_seconds(client)
        samples[count] = sweeps(engine, factors, 1.0 if options.quick else 10.0)
        used = (cpu_seconds(client) - before) / (1 + len(samples[count])) / count
        of, least = median(samples[count]), min(samples[count])
        print(f"  {count:5,} partitions {1e3 * of:9.1f} {1e3 * least:9.1f}   once, to persist and look: {made:.2f} s", flush=True)
        del engine
    each, base = np.polyfit(COUNTS, [median(samples[count]) for count in COUNTS], 1, w=[1 / count for count in COUNTS])
    shared, own = float(used[0]), float(used[1:].sum())  # of the last, where the rest counts least
    print(f"  {1e3 * base:.1f} ms a sweep, and {1e3 * each:.2f} ms a partition, with {WORKERS} workers on the scheduler's cores")
    print(f"  CPU milliseconds of a partition: {1e3 * shared:.2f} of the scheduler and the client, {1e3 * own:.2f} of a worker")
    seconds = {
        "base_seconds": float(base),
        "partition_seconds": float(each),
        "shared_cpu_seconds": shared,
        "own_cpu_seconds": own,
    }
    return {"samples": samples} | seconds


def cpu_seconds(client):
    """CPU seconds of this process, where the scheduler runs, and of each worker, so far."""
    return np.array([process_time(), *client.run(process_time).values()])


def share(client, stream, options):
    case = replace(LARGE, rows=LARGE.rows // 10) if options.quick else LARGE
    factors, count = start_of(case).factors, 2 * WORKERS
    engine = DaskEngine(partitions(case, count), client)
    alone = InMemory(rows_of(case), n_threads=1).sweep(factors).log_likelihood
    apart = abs(engine.sweep(factors).log_likelihood - count * alone) / (count * case.rows)
    held = [sum(worker == w for w in engine._where.values()) for worker in sorted(set(engine._where.values()))]
    with stream() as tasks:
        samples = sweeps(engine, factors, 1.0 if options.quick else 10.0)
    spans = [span for task in tasks.data if str(task["key"]).startswith("('emfuse-sweep") for span in task["startstops"]]
    inside = sum(span["stop"] - span["start"] for span in spans if span["action"] == "compute")
    inside *= len(samples) / (len(samples) + 1)  # the first is not counted
    part = inside / (WORKERS * sum(samples))
    print(f"\n{count} partitions of {case.rows:,} x {case.D}, K = {case.K}, {case.structure}; on the workers: {held}")
    print(f"  one sweep {1e3 * median(samples):.1f} ms, {part:.1%} of the workers' time within sweeps", end="")
    print(f" (of {WORKERS * max(held) / count:.2f} that the busiest takes, all)" if max(held) * WORKERS > count else "")
    print(f"  the log-likelihood a row is that in memory within {apart:.1e} nats", flush=True)
    return {"rows": case.rows, "samples": samples, "share": part, "held": held, "apart": apart}


def sizes():
    """Bytes of factors and of statistics, pickled."""
    made = []
    print("\nbytes, pickled: factors, to each worker; statistics, from each partition")
    for D, K, structure in (
        (2, 2, "full"),
        (10, 10, "full"),
        (10, 10, "diag"),
        (32, 64, "full"),
        (32, 64, "tied"),
        (32, 64, "diag"),
    ):
        p = start_of(Case("sizes", rows=1, D=D, K=K, structure=structure, why="bytes"))
        down = len(pickle.dumps(p.factors))
        up = len(pickle.dumps(SufficientStatistics.zeros(p.means, p.factors.form)))
        print(f"  D = {D:2}, K = {K:2}, {structure:4} {down:9,} {up:9,}")
        made.append({"D": D, "K": K, "structure": structure, "factors": down, "statistics": up})
    return made


def extrapolate(messages, options):
    """Seconds of one sweep over HUGE, by what was measured here."""
    case = replace(HUGE, rows=8_192 if options.quick else 65_536)
    engine, p = InMemory(rows_of(case), n_threads=1), start_of(HUGE)
    ns = 1e9 * median(sweeps(engine, p.factors, 0.5)) / (case.rows * case.K)
    s = SufficientStatistics.zeros(p.means, p.factors.form)
    adding = median(timed(partial(s.__add__, s)) for _ in range(20))
    size = len(pickle.dumps(s))
    count = HUGE.rows // HUGE_ROWS
    levels = int(np.ceil(np.log(count) / np.log(FAN_IN)))
    kernel = 1e-9 * ns * HUGE.rows * HUGE.K / HUGE_WORKERS
    tree = levels * FAN_IN * (adding + size / NETWORK)
    down = HUGE_WORKERS * len(pickle.dumps(p.factors)) / NETWORK  # as if one after the other; workers pass them on
    sent = messages["base_seconds"] + count * (messages["shared_cpu_seconds"] + messages["own_cpu_seconds"] / HUGE_WORKERS)
    print(
        f"\nextrapolated: {HUGE.rows:,} x {HUGE.D}, K = {HUGE.K}, {HUGE.structure}; {HUGE_WORKERS} workers, {count:,} partitions"
    )
    print(f"  {ns:.1f} ns for each row and component in one thread here, {NETWORK / 1e9:g} GB/s assumed; seconds of one sweep")
    made = {"ns": ns, "adding_seconds": adding, "statistics_bytes": size, "partitions": count}
    for n_threads in (1, 8):
        whole = kernel / n_threads + tree + down + sent
        print(
            f"  {n_threads} thread{'s' * (n_threads > 1)} a worker: {whole:.2f}, of which {kernel / n_threads:.2f} in sweeps, "
            f"{sent:.2f} messages, {tree:.3f} adding, {down:.3f} parameters ({kernel / n_threads / whole:.0%} in sweeps)"
        )
        made[f"seconds_{n_threads}_threads"] = whole
    return made


def timed(call):
    began = perf_counter()
    call()
    return perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
