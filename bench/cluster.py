"""What a cluster costs beside its work: a sweep over Dask's partitions, on two worker processes of one thread each.

    python -m bench.cluster              # a few minutes
    python -m bench.cluster --quick      # a tenth of the rows, under a minute: does it work? No figure to quote

1. Partitions of a few rows: a sweep is then nothing but messages, and a few microseconds of each partition in its worker. Beside
   it the CPU seconds: of the scheduler with the client, which all workers share, and of the workers.
2. Tasks that do nothing, a thousand at once: what the scheduler would cost if each partition were a task.
3. The sums of 64 components in 32 features, and ten times as much: what a byte costs from worker to worker, and to the client.
4. Partitions of a million rows: the share of the workers' time that is spent within the tasks that sweep, by their own clocks.
   The answer is checked first.
5. What is sent, in bytes: parameters to each worker, sums from each of its threads.
6. What one thread does alone.

`bench.tree` takes these constants, by `--constants FILE`, to a cluster that nobody here has.

Workers and scheduler share this machine's cores, and no network lies between them: on a cluster, the scheduler has a core of its
own, and bytes take longer.
"""

import argparse
import pickle
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter, process_time

import numpy as np

from bench import machine
from bench.cases import Case, problem
from emfuse import InMemory, Parameters, SufficientStatistics, dask_engine
from emfuse.dask_engine import DaskEngine

WORKERS = 2
COUNTS = 10, 100, 1000  # partitions
TINY = Case("tiny", rows=32, D=2, K=2, structure="diag", why="nothing to sweep")
LARGE = Case("large", rows=1_000_000, D=10, K=10, structure="full", why="the middle of the road")
WIDE = Case("wide", rows=65_536, D=32, K=64, structure="full", why="parameters and sums of half a megabyte and more")
TASKS = 1000
WITHIN = 1e-12  # nats a row: the same sums in another order


def main(arguments=None):
    options = parse(arguments)
    from distributed import Client, LocalCluster, get_task_stream

    content = {"machine": machine.describe(), "quick": options.quick, "workers": WORKERS}
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        content["overhead"] = overhead(client, options)
        content["task"] = task(client)
        content["byte"] = sending(client)
        content["share"] = share(client, partial(get_task_stream, client, plot=False), options)
    content["bytes"] = sizes()
    content["thread"] = thread(options)
    print(machine.sentence(content["machine"]))
    if options.json:
        machine.write(options.json, content)
    return 0 if content["share"]["apart"] <= WITHIN else 1


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="What a cluster costs beside its work.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, and no figure to quote")
    machine.add_json(parser, "cluster")
    return parser.parse_args(arguments)


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
        used = (cpu_seconds(client) - before) / (1 + len(samples[count]))
        of, least = median(samples[count]), min(samples[count])
        print(
            f"  {count:5,} partitions {1e3 * of:9.1f} {1e3 * least:9.1f}   CPU: {1e3 * used[0]:.1f} of the scheduler and the "
            f"client, {1e3 * used[1:].sum():.1f} of the workers; once, to persist and look: {made:.2f} s",
            flush=True,
        )
        if count == COUNTS[0]:
            tree = with_a_tree(engine, factors, options)
        del engine
    base, all_of_them = (median(samples[count]) for count in (COUNTS[0], COUNTS[-1]))
    each = (all_of_them - base) / (COUNTS[-1] - COUNTS[0])
    print(f"  of {COUNTS[-1]:,}, {1e6 * each:.0f} microseconds each, with {WORKERS} workers")
    return {"samples": samples, "base_seconds": base, "tree_seconds": tree, "partition_seconds": each}


def with_a_tree(engine, factors, options):
    """Seconds of a sweep whose sums are added on their way, as where there are many."""
    light, dask_engine.LIGHT = dask_engine.LIGHT, 0
    try:
        seconds = median(sweeps(engine, factors, 1.0 if options.quick else 10.0))
    finally:
        dask_engine.LIGHT = light
    print(f"     {'with a tree of sums':15} {1e3 * seconds:6.1f}", flush=True)
    return seconds


def task(client):
    """CPU seconds of a task that does nothing."""
    before = cpu_seconds(client)
    client.gather(client.map(nothing, range(TASKS), pure=False))
    used = (cpu_seconds(client) - before) / TASKS
    shared, own = float(used[0]), float(used[1:].sum())
    print(f"\na task that does nothing: {1e3 * shared:.2f} CPU ms of the scheduler and the client, {1e3 * own:.2f} of a worker")
    return {"shared_cpu_seconds": shared, "own_cpu_seconds": own}


def nothing(_):
    return None


def cpu_seconds(client):
    """CPU seconds of this process, where the scheduler runs, and of each worker, so far."""
    return np.array([process_time(), *client.run(process_time).values()])


def sending(client):
    """Seconds that a byte takes."""
    here, there = client.nthreads()
    few, many = numbers_in(WIDE), 10 * numbers_in(WIDE)
    seconds = {"worker_byte_seconds": [], "client_byte_seconds": []}
    for name, ask in (
        ("worker_byte_seconds", lambda made: client.submit(size_of, made, workers=[there], pure=False).result()),
        ("client_byte_seconds", lambda made: made.result()),
    ):
        took = []
        for n in (few, many):
            samples = []
            for _ in range(20):
                made = client.submit(sums_of, n, workers=[here], pure=False)
                client.submit(size_of, made, workers=[here], pure=False).result()  # now it is there
                samples.append(timed(partial(ask, made)))
            took.append(median(samples))
        seconds[name] = (took[1] - took[0]) / (26 * (many - few))
    worker, through = (1e9 * each for each in seconds.values())
    print(f"\na byte: {worker:.1f} ns from worker to worker, {through:.1f} ns from a worker through the scheduler to the client")
    return seconds


def size_of(sums):
    return sums.top.size


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
    """Bytes of what a sweep is asked, and of what it answers, pickled."""
    made = []
    print("\nbytes, pickled: parameters, to each worker; sums, from each of its threads")
    for D, K, structure in (
        (2, 2, "full"),
        (10, 10, "full"),
        (10, 10, "diag"),
        (32, 64, "full"),
        (32, 64, "tied"),
        (32, 64, "diag"),
    ):
        case = Case("sizes", rows=1, D=D, K=K, structure=structure, why="bytes")
        p = start_of(case)
        down = len(pickle.dumps(dask_engine._Ask(p.factors, p.means, False)))
        up = len(pickle.dumps(sums_of(numbers_in(case))))
        print(f"  D = {D:2}, K = {K:2}, {structure:4} {down:9,} {up:9,}")
        made.append({"D": D, "K": K, "structure": structure, "parameters": down, "sums": up})
    return made


def numbers_in(case):
    """How many sums a sweep brings home."""
    return dask_engine._flat(SufficientStatistics.zeros(start_of(case).means, case.structure)).size


def sums_of(n):
    sums = dask_engine._Sums(n)
    sums.add(np.ones((1, n)))
    return sums


def thread(options):
    """What one thread does alone: ns for each row and component, and seconds to add one partition, or one thread's sums."""
    case = replace(WIDE, rows=WIDE.rows // 8) if options.quick else WIDE
    engine, p = InMemory(rows_of(case), n_threads=1), start_of(WIDE)
    ns = 1e9 * median(sweeps(engine, p.factors, 0.5)) / (case.rows * case.K)
    flat = dask_engine._flat(engine.sweep(p.factors))[None]
    sums, other = sums_of(flat.size), sums_of(flat.size)
    partition, whole = (median(timed(call) for _ in range(20)) for call in (lambda: sums.add(flat), lambda: sums.__iadd__(other)))
    print(f"\none thread, D = {case.D}, K = {case.K}, {case.structure}: {ns:.1f} ns for each row and component;", end=" ")
    print(f"{1e3 * partition:.2f} ms to add the sums of a partition, {1e3 * whole:.2f} ms those of a thread")
    return {"ns": ns, "partition_seconds": partition, "adding_seconds": whole}


def timed(call):
    began = perf_counter()
    call()
    return perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
