"""What is not the iteration: scoring rows, the memory that it takes, starts, and importing emfuse.

    python -m bench.evaluate
    python -m bench.evaluate --quick      # under a minute, and no figure to quote

`predict`, `predict_proba`, `score_samples` and `score` of emfuse.GaussianMixture stand beside scikit-learn's with the same
parameters, on one thread, answers checked first. Peaks of memory are read in fresh processes, as `memory.py` does. A start is
counted in sweeps over all of the rows. Imports are whole fresh processes, less Python's own.
"""

import argparse
import subprocess
import sys
import warnings
from functools import partial
from statistics import median

import numpy as np
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import emfuse
from bench import machine
from bench.cases import Case, problem
from bench.clock import LEAST_SECONDS_QUICK, Call, take_turns, times_as_fast, whole
from bench.memory import beyond_data_mb, few, in_fresh_process

THEIRS, OURS = "scikit-learn", "emfuse"
METHODS = ("predict", "predict_proba", "score_samples", "score")
WITHIN = 1e-9  # probabilities, and nats a row; labels must be equal
CASES = tuple(
    Case(f"{structure}{D}_k{K}", rows=100_000, D=D, K=K, structure=structure, why="one of the shapes that the target names")
    for structure, D, K in [*(("full", D, K) for D in (1, 2, 4, 10, 16) for K in (2, 8)), ("diag", 16, 8)]
)
LARGE = Case("large", rows=4_000_000, D=4, K=8, structure="full", why="bytes, not seconds")
STARTS = ("kmeans", "kmeans++")
IMPORTS = ("import numpy", "import emfuse", "from emfuse import GaussianMixture", "from sklearn.mixture import GaussianMixture")


def main(arguments=None):
    options = parse(arguments)
    if options.child:
        print(in_this_process(*options.child, large(options)))
        return 0
    described = machine.describe([(argparse.Namespace(name=THEIRS), sys.modules["sklearn"].__version__)])
    content = {"machine": described, "quick": options.quick, "failures": []}
    with threadpool_limits(1):
        content["evaluate"] = list(evaluate(options, content["failures"]))
        content["memory"] = list(memory(options)) if sys.platform != "win32" else []
        content["starts"] = list(starts(options))
        content["imports"] = imports(options)
    print(f"\n{machine.sentence(described)}")
    if options.json:
        machine.write(options.json, content)
    return 1 if content["failures"] else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.evaluate", description="Scoring rows, starts, imports.")
    parser.add_argument("--quick", action="store_true", help="under a minute, and no figure to quote")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    machine.add_json(parser, "evaluate")
    options = parser.parse_args(arguments)
    options.repeats, options.least = (2, LEAST_SECONDS_QUICK / 4) if options.quick else (5, LEAST_SECONDS_QUICK)
    return options


def evaluate(options, failures):
    print(f"how many times as fast as {THEIRS}, and ns for each row of emfuse; one thread, float64")
    print(f"{'case':10} {'rows':>9}  " + " ".join(f"{method:>22}" for method in METHODS))
    for case in CASES:
        given = problem(case.quick() if options.quick else case)
        pair = models(given)
        record = {"name": case.name, "rows": len(given.X), "D": case.D, "K": case.K, "structure": case.structure, "methods": {}}
        for method in METHODS:
            calls = [Call(name, partial(getattr(model, method), given.X)) for name, model in pair.items()]
            why = disagreement(*(call.call() for call in calls))
            if why:
                failures.append(f"{case.name}: {method} not timed: {why}")
                continue
            turns = take_turns(calls, options.repeats, options.least)
            seconds = {name: [whole(turn) for turn in of] for name, of in turns.items()}
            record["methods"][method] = {"times_as_fast": times_as_fast(seconds[OURS], seconds[THEIRS]), "seconds": seconds}
        cells = [cell(record, method) for method in METHODS]
        print(f"{case.name:10} {len(given.X):9,}  " + " ".join(f"{text:>22}" for text in cells), flush=True)
        yield record
    print("\n".join(failures), end="\n" * bool(failures))


def models(given):
    """Both estimators with the same parameters: scikit-learn's after one iteration, and emfuse's made of it."""
    start, case = given.start, given.case
    options = {"weights_init": start.weights, "means_init": start.means, "precisions_init": given.precisions}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in one
        theirs = GaussianMixture(case.K, covariance_type=case.structure, max_iter=1, **options).fit(given.X)
    return {THEIRS: theirs, OURS: emfuse.GaussianMixture.from_sklearn(theirs).set_params(n_threads=1)}


def disagreement(theirs, ours):
    apart = np.abs(np.subtract(theirs, ours)).max()
    return "" if apart <= (0 if np.asarray(theirs).dtype.kind == "i" else WITHIN) else f"answers lie {apart:.1e} apart"


def cell(record, method):
    if method not in record["methods"]:
        return "wrong"
    seen = record["methods"][method]
    return f"{seen['times_as_fast']:.3g} ({1e9 * median(seen['seconds'][OURS]) / record['rows']:.3g} ns)"


def large(options):
    return LARGE.quick() if options.quick else LARGE


def memory(options):
    rows, D, K = large(options).rows, LARGE.D, LARGE.K
    print(f"\nMB beyond {rows:,} rows, D = {D}, K = {K}, right within about 2")
    quick = ["--quick"] * options.quick
    for method, numbers in zip(METHODS, (rows, rows * K, rows, 1), strict=True):
        seen = {side: in_fresh_process("bench.evaluate", "--child", method, side, *quick) for side in (OURS, THEIRS)}
        peaks = "   ".join(f"{side} {mb:8.1f}" for side, mb in seen.items())
        print(f"{method:14} {peaks}   of that the answer {8e-6 * numbers:8.1f}", flush=True)
        yield {"method": method, "rows": rows, "D": D, "K": K, "answer_mb": 8e-6 * numbers, "beyond_data_mb": seen}


def in_this_process(method, side, case):
    first = few(case)
    model = models(first)[side]
    return beyond_data_mb(lambda given: getattr(model, method)(given.X), first, case)


def starts(options):
    """`emfuse.initialise.start`, one M step included."""
    print("\na start in units of one sweep over all rows (D = 4, K = 8, full, one thread)")
    for rows in (10_000, 100_000) if options.quick else (10_000, 100_000, 1_000_000):
        given = problem(Case("start", rows=rows, D=4, K=8, structure="full", why="starts"))
        engine = emfuse.InMemory(given.X, n_threads=1)
        factors = emfuse.Parameters(given.start.weights, given.start.means, given.start.covariances).factors
        calls = [Call("sweep", partial(engine.sweep, factors)), *(Call(name, partial(start, engine, name)) for name in STARTS)]
        seconds = {name: [whole(turn) for turn in of] for name, of in take_turns(calls, options.repeats, options.least).items()}
        sweeps = {name: times_as_fast(seconds["sweep"], seconds[name]) for name in STARTS}
        print(f"{rows:12,} rows   " + "   ".join(f"{name} {count:.3g}" for name, count in sweeps.items()), flush=True)
        yield {"rows": rows, "D": 4, "K": 8, "sweeps": sweeps, "seconds": seconds}


def start(engine, name):
    return emfuse.initialise.start(engine, 8, "full", name, np.random.default_rng(0))


def imports(options):
    codes = ("pass", *IMPORTS)
    calls = [Call(code, partial(subprocess.run, [sys.executable, "-c", code], check=True)) for code in codes]
    turns = take_turns(calls, 1 if options.quick else 5, 0.0)
    bare = median(map(whole, turns["pass"]))
    seconds = {code: median(map(whole, turns[code])) - bare for code in IMPORTS}
    print(f"\nms of a fresh process beyond Python's own {1e3 * bare:.0f}")
    for code in seconds:
        print(f"  {code:45} {1e3 * seconds[code]:6.0f}   {seconds[code] / seconds['import numpy']:.2f} x import numpy")
    return {"python": bare} | seconds


if __name__ == "__main__":
    raise SystemExit(main())
