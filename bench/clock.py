"""The clock: every side fits the same rows from the same start with the same number of iterations, and is checked first.

One iteration is (time of LONG iterations - time of SHORT) / (LONG - SHORT), so that what a call costs besides cancels out. Sides
take turns, A B A B; a turn begins with a call that is not clocked, goes on for some tenths of a second and gives its median. A
table shows the median over turns. A ratio is the median of the ratios of neighbouring turns, so that a machine that slows down
slows both.
"""

from collections.abc import Callable
from math import inf
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np

from bench.cases import Problem
from bench.peers import Run

SHORT, LONG = 1, 6
LEAST_SECONDS, LEAST_SECONDS_QUICK = 0.4, 0.1
MOST_SECONDS = 100  # no further turns of a case begin after so many

# How far two answers may lie apart: nats a row, and data units (a standard deviation is about 1 in every case but `small`).
# In float64 the sides do the same arithmetic in another order, and were seen within 1e-12 of each other; one iteration more or
# less moves the log-likelihood by 4e-6 at least. 1e-9 lies well away from both. scikit-learn and oneDAL add float32 rows up in
# float32, and were seen within 1e-5 and 1e-3 of the answer in float64; in d512 oneDAL within 8e-4 and 2e-2.
WITHIN = {np.dtype(np.float64): (1e-9, 1e-9), np.dtype(np.float32): (1e-3, 3e-2)}
MOVES = 100  # the last iteration must move the log-likelihood by so many tolerances, or the check could not count iterations


class Side(NamedTuple):
    """Somebody with something to fit; `once` for one who is too slow to be asked in every turn. A sample is SHORT and LONG."""

    name: str
    problem: Problem
    run: Callable[[Problem, int], Run]
    once: bool = False

    def warm(self):
        self.run(self.problem, SHORT)

    def sample(self):
        return self.run(self.problem, SHORT).seconds, self.run(self.problem, LONG).seconds


class Call(NamedTuple):
    """Any call, where whole calls are to be compared. A sample is its seconds."""

    name: str
    call: Callable[[], object]
    once: bool = False

    def warm(self):
        self.call()

    def sample(self):
        began = perf_counter()
        self.call()
        return (perf_counter() - began,)


def check(sides):
    """Compare the answers after LONG iterations with the first side's.

    Return, by side, its log-likelihood, its largest difference in a mean and the seconds that it took; and why the case may not
    be timed, or "".
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
        checked[side.name] = {"log_likelihood": log_likelihood, "means_differ_by": moved, "check_seconds": run.seconds}
        nats, units = WITHIN[side.problem.X.dtype]
        if not (apart <= nats and moved <= units):
            return checked, (
                f"{side.name} and {sides[0].name} disagree after {LONG} iterations: log-likelihood a row by {apart:.1e} nats "
                f"(may be {nats:g}), a mean by {moved:.1e} (may be {units:g})"
            )
    ours = next(side for side in sides if side.name.startswith("emfuse"))
    if ours.problem.case.K == 1:  # one iteration is all of EM: nothing there to count
        return checked, ""
    gain = checked[ours.name]["log_likelihood"] - ours.run(ours.problem, LONG - 1).log_likelihood()
    if not gain > MOVES * WITHIN[ours.problem.X.dtype][0]:
        return checked, f"EM has all but stopped (it last gained {gain:.1e} nats a row), so that answers cannot count iterations"
    return checked, ""


def take_turns(sides, repeats, least_seconds, most_seconds=inf):
    """Return the turns of each side, by name; a turn is a list of samples, and there is one at least."""
    turns, began = {side.name: [] for side in sides}, perf_counter()
    for repeat in range(repeats):
        if repeat and perf_counter() - began > most_seconds:
            break
        for side in sides:
            if repeat and side.once:
                continue
            side.warm()  # unclocked: the first call after another side finds cold caches and a trimmed heap
            turn = [side.sample()]
            while sum(map(sum, turn)) < least_seconds:
                turn.append(side.sample())
            turns[side.name].append(turn)
    return turns


def iteration(turn):
    """Seconds of one iteration."""
    return median(long - short for short, long in turn) / (LONG - SHORT)


def whole(turn):
    """Seconds of the longer call of a sample, or of the only one."""
    return median(sample[-1] for sample in turn)


def times_as_fast(ours, theirs):
    """How many times as fast as `theirs` `ours` is; both are figures of one turn after the other."""
    return median(b / a for a, b in zip(ours, theirs, strict=False))


class Record:
    """What was seen in one case."""

    def __init__(self, case, sides, checked, turns, floor=None):
        self.case, self.sides, self.checked, self.turns, self.floor = case, sides, checked, turns, floor

    def ns(self, name):
        """Samples of one iteration, ns for each row and component."""
        return [1e9 * iteration(turn) / (self.case.rows * self.case.K) for turn in self.turns[name]]

    def spread(self, name):
        """Half the range of the samples, as a share of their median."""
        samples = self.ns(name)
        return (max(samples) - min(samples)) / 2 / median(samples)

    def times_as_fast(self, name, other):
        """How many times as fast as `other` `name` runs one iteration."""
        return times_as_fast(self.ns(name), self.ns(other))

    def calls(self, name):
        """Samples of one whole call with LONG iterations, seconds."""
        return [whole(turn) for turn in self.turns[name]]

    def call(self, name):
        """Seconds of one whole call with LONG iterations."""
        return median(self.calls(name))

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
                "turns": [
                    {"calls": len(turn), "short": median(short for short, _ in turn), "long": median(long for _, long in turn)}
                    for turn in self.turns[side.name]
                ],
            }
            for side in self.sides
        }
        shape = {"name": case.name, "rows": case.rows, "D": case.D, "K": case.K, "structure": case.structure, "why": case.why}
        return shape | {"floor_ns": self.floor, "sides": sides}
