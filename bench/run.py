"""The clock: every side fits the same rows from the same start with the same number of iterations, and is checked first.

One iteration is (time of LONG iterations - time of SHORT) / (LONG - SHORT), so that what a call costs besides cancels out. Sides
take turns, A B A B; a turn begins with a call that is not clocked, goes on for LEAST_SECONDS and gives its median. The table
shows the median over turns. A ratio is the median of the ratios of neighbouring turns, so that a machine that slows down slows
both.
"""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import scipy.linalg  # loaded now, so that its BLAS is limited too
from threadpoolctl import threadpool_info, threadpool_limits

from bench import limits as machine_limits
from bench.cases import BY_NAME, CASES, Problem, problem
from bench.peers import EMFUSE, OTHERS, Peer, Run, run_emfuse, run_emfuse_estimator
from emfuse import engines, kernels

SHORT, LONG = 1, 6
LEAST_SECONDS, LEAST_SECONDS_QUICK = 0.4, 0.1

# How far two answers may lie apart: nats a row, and data units (a standard deviation is about 1 in every case but `small`).
# In float64 the sides do the same arithmetic in another order, and were seen within 1e-12 of each other; one iteration more or
# less moves the log-likelihood by 4e-6 at least. 1e-9 lies well away from both. scikit-learn adds float32 rows up in float32, and
# was seen within 1e-5 and 1e-3 of the answer in float64.
WITHIN = {np.dtype(np.float64): (1e-9, 1e-9), np.dtype(np.float32): (1e-4, 1e-2)}
MOVES = 100  # the last iteration must move the log-likelihood by so many tolerances, or the check could not count iterations


class Side(NamedTuple):
    """Somebody with something to fit; `once` for one who is too slow to be asked in every turn."""

    name: str
    problem: Problem
    run: Callable[[Problem, int], Run]
    once: bool = False


class Turn(NamedTuple):
    """Seconds of the calls of one turn: `short` and `long` in pairs, as they were made."""

    short: list[float]
    long: list[float]

    @property
    def iteration(self):
        return median(b - a for a, b in zip(self.short, self.long, strict=True)) / (LONG - SHORT)


def main(arguments=None):
    options = parse(arguments)
    peers, skipped = find_peers()
    for line in skipped:
        print(line)
    limits = machine_limits.measure()
    machine = describe_machine(peers)
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
            turns = take_turns(sides, options.repeats, LEAST_SECONDS_QUICK if options.quick else LEAST_SECONDS)
            record = Record(case, sides, checked, turns, machine_limits.floor(case, limits))
            records.append(record)
            print(table.row(record), flush=True)
    variants = [record.variants() for record in records]
    if any(variants):
        print("\nemfuse otherwise: the same unit, and in brackets how many times as fast as emfuse in the table above")
        for record, line in zip(records, variants, strict=True):
            print(f"{record.case.name:16} {line}")
    print(f"\n{sentence(machine)}; {machine_limits.sentence(limits)}")
    if options.json:
        content = {"machine": machine, "thread_pools": pools, "limits": limits, "iterations": [SHORT, LONG]}
        content |= {"repeats": options.repeats, "skipped": skipped, "failures": failures}
        content |= {"cases": [record.as_dict() for record in records]}
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench", description="Time emfuse against others: see bench/README.md.")
    parser.add_argument("--cases", type=named_cases, default=CASES, metavar="A,B", help=f"of {', '.join(BY_NAME)}; all of them")
    parser.add_argument("--repeats", type=int, metavar="N", help="turns of each side (5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows: under a minute, and no figure to quote")
    parser.add_argument("--json", metavar="FILE", help="write everything, with all samples")
    parser.add_argument("--builds", action="store_true", help="also every build of emfuse that runs here")
    parser.add_argument("--estimator", action="store_true", help="also emfuse.GaussianMixture, the scikit-learn face")
    parser.add_argument("--threads", action="store_true", help="also emfuse with two threads, and with one for each core")
    parser.add_argument("--float32", action="store_true", help="also every side with the rows as float32")
    options = parser.parse_args(arguments)
    options.repeats = options.repeats or (2 if options.quick else 5)
    return options


def named_cases(text):
    unknown = [name for name in text.split(",") if name not in BY_NAME]
    if unknown:
        raise argparse.ArgumentTypeError(f"no case is called {unknown[0]!r}; there are {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in text.split(",")]


def find_peers():
    """Return (peer, version) for those that are here, emfuse last, and a line for each that is not."""
    found, skipped = [], []
    for peer in OTHERS:
        try:
            found.append((peer, peer.available()))
        except ImportError as error:
            skipped.append(f"{peer.name} is skipped: {error}")
    return [*found, (EMFUSE, EMFUSE.available())], skipped


def sides_of(given, peers, options):
    """Every side of a case: first the peers, emfuse last of them, then emfuse otherwise."""
    sides = [Side(peer.name, given, peer.run) for peer, _ in peers if given.case.structure in peer.structures]
    if options.float32:
        sides += [side._replace(name=f"{side.name} float32", problem=given.astype(np.float32)) for side in sides]
    if options.estimator:
        sides.append(Side("GaussianMixture", given, run_emfuse_estimator))
    if options.threads:
        cores = engines.thread_count()
        sides += [Side(f"{n} threads", given, partial(run_emfuse, n_threads=n)) for n in sorted({2, cores} - {1})]
    if options.builds:
        names = [name for name in kernels.runnable() if name != kernels.active()]
        sides += [Side(name, given, partial(run_emfuse, build=name), once=name == kernels.REFERENCE) for name in names]
    return sides


def check(sides):
    """Compare the answers after LONG iterations with the first side's.

    Return, by side, its log-likelihood and its largest difference in a mean; and why the case may not be timed, or "".
    """
    checked, first = {}, None
    for side in sides:
        try:
            run = side.run(side.problem, LONG)
            log_likelihood = run.log_likelihood()
        except Exception as error:
            return checked, f"{side.name} failed: {type(error).__name__}: {error}"
        first = first or (log_likelihood, run.means)
        apart, moved = abs(log_likelihood - first[0]), float(np.abs(run.means - first[1]).max())
        checked[side.name] = {"log_likelihood": log_likelihood, "means_differ_by": moved}
        nats, units = WITHIN[side.problem.X.dtype]
        if not (apart <= nats and moved <= units):
            return checked, (
                f"{side.name} and {sides[0].name} disagree after {LONG} iterations: log-likelihood a row by {apart:.1e} nats "
                f"(may be {nats:g}), a mean by {moved:.1e} (may be {units:g})"
            )
    ours = next(side for side in sides if side.name == EMFUSE.name)
    before = ours.run(ours.problem, LONG - 1).log_likelihood()
    gain = checked[ours.name]["log_likelihood"] - before
    if not gain > MOVES * WITHIN[ours.problem.X.dtype][0]:
        return checked, f"EM has all but stopped (it last gained {gain:.1e} nats a row), so that answers cannot count iterations"
    return checked, ""


def take_turns(sides, repeats, least_seconds):
    """Return the turns of each side, by name."""
    turns = {side.name: [] for side in sides}
    for repeat in range(repeats):
        for side in sides:
            if repeat and side.once:
                continue
            turn = Turn([], [])
            side.run(side.problem, SHORT)  # unclocked: the first call after another side finds cold caches and a trimmed heap
            while not turn.long or sum(turn.short) + sum(turn.long) < least_seconds:
                turn.short.append(side.run(side.problem, SHORT).seconds)
                turn.long.append(side.run(side.problem, LONG).seconds)
            turns[side.name].append(turn)
    return turns


class Record:
    """What was seen in one case."""

    def __init__(self, case, sides, checked, turns, floor):
        self.case, self.sides, self.checked, self.turns, self.floor = case, sides, checked, turns, floor

    def ns(self, name):
        """Samples of one iteration, ns for each row and component."""
        return [1e9 * turn.iteration / (self.case.rows * self.case.K) for turn in self.turns[name]]

    def spread(self, name):
        """Half the range of the samples, as a share of their median."""
        samples = self.ns(name)
        return (max(samples) - min(samples)) / 2 / median(samples)

    def times_as_fast(self, name, other):
        """How many times as fast as `other` `name` runs one iteration."""
        return median(b / a for a, b in zip(self.ns(name), self.ns(other), strict=False))

    def call(self, name):
        """Seconds of one whole call with LONG iterations."""
        return median(seconds for turn in self.turns[name] for seconds in turn.long)

    def variants(self):
        names = [side.name for side in self.sides]
        names = names[names.index(EMFUSE.name) + 1 :]
        return "   ".join(f"{name} {self.shown(name)} ({self.times_as_fast(name, EMFUSE.name):.2f})" for name in names)

    def shown(self, name):
        return f"{median(self.ns(name)):.4g} ±{self.spread(name):.0%}"

    def as_dict(self):
        case = self.case
        sides = {
            side.name: {
                **self.checked[side.name],
                "dtype": str(side.problem.X.dtype),
                "ns": median(self.ns(side.name)),
                "ns_samples": self.ns(side.name),
                "call_seconds": self.call(side.name),
                "turns": [turn._asdict() for turn in self.turns[side.name]],
            }
            for side in self.sides
        }
        shape = {"name": case.name, "rows": case.rows, "D": case.D, "K": case.K, "structure": case.structure, "why": case.why}
        return shape | {"floor_ns": self.floor, "sides": sides}


class Table:
    """The printed table: a column is a title, a width and what stands in it."""

    def __init__(self, peers: list[tuple[Peer, str]]):
        ours = EMFUSE.name
        names = [peer.name for peer, _ in peers]
        self.columns = [
            ("case", 16, lambda r: r.case.name),
            ("rows", 10, lambda r: f"{r.case.rows:,}"),
            ("D", 3, lambda r: r.case.D),
            ("K", 3, lambda r: r.case.K),
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


def describe_machine(peers):
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    return {
        "cpu": cpu_model(),
        "cores": engines.thread_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "build": kernels.active(),
        "threads": 1,
        "versions": versions | {peer.name: version for peer, version in peers},
        "commit": commit(),
    }


def sentence(machine):
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores (load {machine['load']}); build {machine['build']}, "
        f"{machine['threads']} thread; {versions}; commit {machine['commit']}"
    )


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit():
    """The commit of this repository, with "-dirty" where files differ from it."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        here = Path(__file__).parent
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
