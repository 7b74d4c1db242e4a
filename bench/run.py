"""The bench: all cases against every peer that is here, as a table and as JSON. `clock.py` says how a case is timed."""

import argparse
from functools import partial
from statistics import median

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from bench import limits as machine_limits
from bench import machine as machines
from bench.cases import BY_NAME, CASES, QUICK, problem
from bench.clock import LEAST_SECONDS, LEAST_SECONDS_QUICK, LONG, MOST_SECONDS, SHORT, Record, Side, check, take_turns
from bench.peers import EMFUSE, Peer, find_peers, run_emfuse, run_emfuse_estimator
from emfuse import kernels, threads


def main(arguments=None):
    options = parse(arguments)
    peers, skipped = find_peers()
    for line in skipped:
        print(line)
    limits = machine_limits.measure()
    machine = machines.describe(peers)
    cases = [case.quick() if options.quick else case for case in options.cases]
    records, failures = [], []
    table = Table(peers)
    print(f"\nns for each row and component of one whole EM iteration, one thread, float64; median of {options.repeats} turns")
    print(table.head())
    with threadpool_limits(1):
        pools = [{key: pool.get(key) for key in ("internal_api", "version", "num_threads")} for pool in threadpool_info()]
        for case in cases:
            sides = sides_of(problem(case), peers, options)
            checked, why = check(sides)
            if why:
                failures.append(f"{case.name}: not timed: {why}")
                print(failures[-1])
                continue
            least = LEAST_SECONDS_QUICK if options.quick else LEAST_SECONDS
            turns = take_turns(sides, options.repeats, least, MOST_SECONDS)
            record = Record(case, sides, checked, turns, machine_limits.floor(case, limits))
            records.append(record)
            print(table.row(record), flush=True)
    otherwise = [variants(record) for record in records]
    if any(otherwise):
        print("\nemfuse otherwise: the same unit, and in brackets how many times as fast as emfuse in the table above")
        for record, line in zip(records, otherwise, strict=True):
            print(f"{record.case.name:16} {line}")
    print(f"\n{machines.sentence(machine)}; {machine_limits.sentence(limits)}")
    if options.json:
        content = {"machine": machine, "thread_pools": pools, "limits": limits, "iterations": [SHORT, LONG]}
        content |= {"quick": options.quick, "repeats": options.repeats, "skipped": skipped, "failures": failures}
        content |= {"cases": [record.as_dict() for record in records]}
        machines.write(options.json, content)
    return 1 if failures else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench", description="Time emfuse against others: see bench/README.md.")
    parser.add_argument("--cases", type=named_cases, metavar="A,B", help=f"of {', '.join(BY_NAME)}; all of them")
    parser.add_argument("--repeats", type=int, metavar="N", help="turns of each side (5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows: under a minute, and no figure to quote")
    machines.add_json(parser, "bench")
    parser.add_argument("--builds", action="store_true", help="also every build of emfuse that runs here")
    parser.add_argument("--estimator", action="store_true", help="also emfuse.GaussianMixture, the scikit-learn face")
    parser.add_argument("--threads", action="store_true", help="also emfuse with two threads, and with one for each core")
    parser.add_argument("--float32", action="store_true", help="also every side with the rows as float32")
    options = parser.parse_args(arguments)
    options.repeats = options.repeats or (2 if options.quick else 5)
    options.cases = options.cases or (QUICK if options.quick else CASES)
    return options


def named_cases(text):
    unknown = [name for name in text.split(",") if name not in BY_NAME]
    if unknown:
        raise argparse.ArgumentTypeError(f"no case is called {unknown[0]!r}; there are {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in text.split(",")]


def sides_of(given, peers, options):
    """Every side of a case: first the peers, emfuse last of them, then emfuse otherwise."""
    sides = [Side(peer.name, given, peer.run) for peer, _ in peers if given.case.structure in peer.structures]
    if options.float32:
        sides += [side._replace(name=f"{side.name} float32", problem=given.astype(np.float32)) for side in sides]
    if options.estimator:
        sides.append(Side("GaussianMixture", given, run_emfuse_estimator))
    if options.threads:
        cores = threads.thread_count()
        sides += [Side(f"{n} threads", given, partial(run_emfuse, n_threads=n)) for n in sorted({2, cores} - {1})]
    if options.builds:
        names = [name for name in kernels.runnable() if name != kernels.active()]
        sides += [Side(name, given, partial(run_emfuse, build=name), once=name == kernels.REFERENCE) for name in names]
    return sides


def variants(record):
    names = [side.name for side in record.sides]
    names = names[names.index(EMFUSE.name) + 1 :]
    return "   ".join(f"{name} {record.shown(name)} ({record.times_as_fast(name, EMFUSE.name):.2f})" for name in names)


class Table:
    """The printed table: a column is a title, a width and what stands in it."""

    def __init__(self, peers: list[tuple[Peer, str]]):
        ours = EMFUSE.name
        names = [peer.name for peer, _ in peers]
        self.columns = [
            ("case", 16, lambda r: r.case.name),
            ("rows", 10, lambda r: f"{r.case.rows:,}"),
            ("D", 3, lambda r: r.case.D),
            ("K", 4, lambda r: r.case.K),
            ("form", 9, lambda r: r.case.form),
        ]
        self.columns += [(name, 13, self.of(name, lambda r, n: r.shown(n))) for name in names]
        for name in names[:-1]:
            self.columns.append((f"/ {name}", len(name) + 2, self.of(name, lambda r, n: f"{r.times_as_fast(ours, n):.3g}")))
            self.columns.append(("call", 6, self.of(name, lambda r, n: f"{r.call(n) / r.call(ours):.3g}")))
        self.columns.append(("floor", 6, lambda r: f"{r.floor:.3g}" if r.floor else "?"))
        self.columns.append(("of it", 5, lambda r: f"{r.floor / median(r.ns(ours)):.0%}" if r.floor else "?"))
        for name in names:
            self.columns.append((f"log L {name}", 18, self.of(name, lambda r, n: f"{r.checked[n]['log_likelihood']:.10f}")))

    @staticmethod
    def of(name, show):
        return lambda record: show(record, name) if name in record.checked else "-"

    def head(self):
        return self.line(title for title, _, _ in self.columns)

    def row(self, record):
        return self.line(str(show(record)) for _, _, show in self.columns)

    def line(self, cells):
        sides = ["<" if title in ("case", "form") else ">" for title, _, _ in self.columns]
        padded = [f"{cell:{side}{width}}" for cell, side, (_, width, _) in zip(cells, sides, self.columns, strict=True)]
        return "  ".join(padded).rstrip()
