"""Coverage: how often a 95 % interval holds the truth, for each way of finding standard errors, over simulated data.

    python -m bench.coverage            # half an hour
    python -m bench.coverage --quick    # under a minute: does it work? No figure to quote

Regular problems: components apart, and rows enough, so that the estimates are near to normal. Each data set is fitted from the
truth, so that labels are the truth's; what is asked is how good intervals are at a maximum, not whether it is found. In "wrong
model" the components have more shapes than the model gives them, so that the truth is what the model comes to on a million rows:
there only methods that do not believe the model can be right. "2-D, 2 components" is at the edge of what is regular: with its
500 rows, Wald intervals by the information hold the truth 92 to 93 times in 100, with 2,000 rows 94 to 95.

A figure is the share of intervals that hold the truth, over data sets and parameters of a kind, in percent; ± is twice its
binomial standard error if parameters of one data set went together. Outside of 93 to 97 by more than that it is marked with "!",
but for what "wrong model" says about those who believe the model. Wald intervals are of the logit of weights, the logarithm of
standard deviations and Fisher's transform of correlations.
"""

import argparse
import warnings
from contextlib import closing
from dataclasses import dataclass
from math import sqrt
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from bench import machine
from emfuse import CollapsedComponent, Parameters, em, stopping
from emfuse.threads import in_order, thread_count
from emfuse.uncertainty import UncertaintyWarning, standard_errors

LEVEL = 0.95
AIM = (0.93, 0.97)
KINDS = ("weight", "mean", "sd", "correlation")
BELIEVE = ("information", "parametric")
COLUMNS = (
    ("information", "wald"),
    ("sandwich", "wald"),
    ("parametric", "wald"),
    ("parametric", "percentile"),
    ("bootstrap", "wald"),
    ("bootstrap", "percentile"),
    ("weighted", "wald"),
    ("weighted", "percentile"),
)
MANY = 1_000_000  # rows that tell what a wrong model comes to


@dataclass(frozen=True)
class Problem:
    """A mixture that rows are drawn from, and the structure that is fitted."""

    name: str
    rows: int
    truth: Parameters
    structure: str

    @property
    def wrong(self):
        return self.structure != self.truth.structure

    def start(self):
        """What fits begin at, and intervals should hold."""
        if not self.wrong:
            return self.truth
        X, _ = self.truth.sample(MANY, 1)
        C = np.tensordot(self.truth.weights, self.truth.covariances, axes=1)
        return em(X, Parameters(self.truth.weights, self.truth.means, C, self.structure), acceleration="emqn").parameters


def matrices(*rows):
    return [[[a * a, r * a * b], [r * a * b, b * b]] for a, b, r in rows]


PROBLEMS = (
    Problem("1-D, 2 components", 400, Parameters.univariate([0.4, 0.6], [0.0, 4.0], [1.0, 1.2]), "full"),
    Problem("1-D, 3 of one variance", 600, Parameters.univariate([0.3, 0.3, 0.4], [-3.5, 0.0, 3.5], [1.0], "tied"), "tied"),
    Problem(
        "2-D, 2 components",
        500,
        Parameters([0.5, 0.5], [[0.0, 0.0], [3.0, 1.0]], matrices((1.0, 1.0, 0.5), (1.2, 0.8, -0.3))),
        "full",
    ),
    Problem(
        "2-D, 2 of one covariance",
        400,
        Parameters([0.35, 0.65], [[0.0, 0.0], [3.0, 1.0]], matrices((1, 1, 0.4))[0], "tied"),
        "tied",
    ),
    Problem(
        "3-D, 3 diagonal",
        600,
        Parameters([0.3, 0.3, 0.4], [[0, 0, 0], [3, 0, 1], [0, 3, -1]], [[1, 1, 1], [1.5, 0.5, 1], [0.8, 1.2, 1]], "diag"),
        "diag",
    ),
    Problem(
        "2-D, 3 spheres", 600, Parameters([0.2, 0.3, 0.5], [[0, 0], [4, 0], [0, 4]], [1.0, 1.5, 0.7], "spherical"), "spherical"
    ),
    Problem("1-D, wrong model", 800, Parameters.univariate([0.4, 0.6], [0.0, 4.0], [0.7, 1.4]), "tied"),
)


def main(arguments=None):
    options = parse(arguments)
    described = machine.describe()
    results = []
    with threadpool_limits(1):
        for problem in PROBLEMS[:: 3 if options.quick else 1]:
            began = perf_counter()
            result = cover(problem, options)
            results.append(result)
            print("\n".join(table(problem, result)), flush=True)
            print(f"\n{result['sets']} data sets ({result['left_out']} left out), {options.resamples} resamples; ", end="")
            print(f"{perf_counter() - began:.0f} s\n", flush=True)
    print(machine.sentence(described))
    if options.json:
        machine.write(options.json, {"machine": described, "level": LEVEL, "quick": options.quick, "problems": results})
    return 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description="Coverage of 95 % intervals.")
    parser.add_argument("--quick", action="store_true", help="under a minute, and no figure to quote")
    machine.add_json(parser, "coverage")
    options = parser.parse_args(arguments)
    options.sets, options.refitted, options.resamples = (60, 20, 99) if options.quick else (2_000, 400, 299)
    return options


def cover(problem, options):
    """Counts of intervals and of those that hold the truth, for each column and kind; refits for the first `refitted` sets."""
    start = problem.start()
    truth = dict(named(start))

    def one(number):
        """For each column, pairs (kind, held); None where a component collapsed."""
        random = np.random.default_rng([7, number])
        X, _ = problem.truth.sample(problem.rows, random)
        held = {}
        try:
            fit = em(X, start, acceleration="emqn", stop=stopping.AT_MAXIMUM, n_threads=1)
            for method in dict(COLUMNS):
                if number >= options.refitted and method not in ("information", "sandwich"):
                    continue
                u = standard_errors(fit, X, method=method, n_resamples=options.resamples, random_state=number, n_threads=1)
                for column in (column for column in COLUMNS if column[0] == method):
                    rows = u.confidence_intervals(LEVEL, column[1])
                    held[column] = [(row.name.partition("[")[0], row.lower <= truth[row.name] <= row.upper) for row in rows]
        except CollapsedComponent:
            return None
        return held

    counts = {column: {kind: [0, 0] for kind in KINDS} for column in COLUMNS}
    sets = dict.fromkeys(COLUMNS, 0)
    left_out = 0
    with warnings.catch_warnings(), closing(in_order(one, range(options.sets), thread_count())) as outcomes:
        warnings.simplefilter("ignore", UncertaintyWarning)
        for held in outcomes:
            left_out += held is None
            for column, pairs in (held or {}).items():
                sets[column] += 1
                for kind, holds in pairs:
                    counts[column][kind][0] += 1
                    counts[column][kind][1] += bool(holds)
    rows = [
        {"column": list(column), "kind": kind, "sets": sets[column], "intervals": n, "held": hold}
        for column in COLUMNS
        for kind, (n, hold) in counts[column].items()
        if n
    ]
    return {"problem": problem.name, "rows": problem.rows, "sets": options.sets, "left_out": left_out, "covered": rows}


def named(p):
    """Name and value of what intervals are given for, as `emfuse.uncertainty` names them."""
    K, D = p.means.shape
    shared, spheres = p.structure == "tied", p.structure == "spherical"
    for k in range(K):
        yield f"weight[{k}]", p.weights[k]
        for d in range(D):
            yield f"mean[{k},{d}]" if D > 1 else f"mean[{k}]", p.means[k, d]
            where = [k] * (not shared) + [d] * (D > 1 and not spheres)
            yield f"sd[{','.join(map(str, where))}]" if where else "sd", p.sds[k, d]
            for j in range(d if p.structure in ("full", "tied") else 0):
                C = p.covariance_matrices[k]
                where = [k] * (not shared) + [d, j]
                yield f"correlation[{','.join(map(str, where))}]", C[d, j] / sqrt(C[d, d] * C[j, j])


def table(problem, result):
    yield f"**{problem.name}**, {problem.rows} rows, structure {problem.structure!r}"
    yield ""
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in result["covered"])]
    yield "| | " + " | ".join(kinds) + " | ± |"
    yield "|---|" + "---:|" * (len(kinds) + 1)
    for column in COLUMNS:
        rows = {row["kind"]: row for row in result["covered"] if tuple(row["column"]) == column}
        if not rows:
            continue
        error = 2.0 * sqrt(LEVEL * (1 - LEVEL) / next(iter(rows.values()))["sets"])
        forgiven = problem.wrong and column[0] in BELIEVE
        cells = []
        for kind in kinds:
            share = rows[kind]["held"] / rows[kind]["intervals"]
            missed = not AIM[0] - error <= share <= AIM[1] + error and not forgiven
            cells.append(f"{100 * share:.1f}{'!' * missed}")
        yield f"| {column[0]}, {column[1]} | {' | '.join(cells)} | {100 * error:.1f} |"


if __name__ == "__main__":
    raise SystemExit(main())
