"""All models in one call, against one model: `emfuse.select`, K = 1 .. 9 with four structures, beside scikit-learn's K = 9 alone.

    python -m bench.selection
    python -m bench.selection --quick      # a tenth of the rows, two turns, and no figure to quote

Rows are drawn from six components with covariances of their own, at three distances. emfuse fits all 36 models; scikit-learn
fits nine "full" components, which are one of them, from its default start: to its default tolerance, in turns with emfuse, A B
A B, and once so far as emfuse goes (tol=1e-6; emfuse leaves a hundredth of what nine components lack to the best model, by
estimate, "left", in nats). All use all cores. Times are medians; BIC is that of the nine components, and smaller is better.
"""

import argparse
import warnings
from statistics import median
from time import perf_counter

import numpy as np

import emfuse
from bench import machine
from bench.clock import times_as_fast
from emfuse.selection import select

ROWS, D, K = 100_000, 4, 6
APART = {"overlapping": 1.0, "touching": 2.0, "apart": 4.0}
COLUMNS = ("rows", "emfuse, 36 models", "scikit-learn, K = 9", "times as fast", "scikit-learn as far", "times as fast", "chosen")


def rows(count, apart, seed=0):
    """Rows (count, D): means `apart` standard normals, axes and widths drawn for each component."""
    random = np.random.default_rng(seed)
    means = apart * random.standard_normal((K, D))
    axes = random.standard_normal((K, D, D)) / np.sqrt(D) + 1.5 * np.eye(D)
    axes *= random.uniform(0.5, 1.5, (K, 1, 1))
    label = random.choice(K, count, p=random.dirichlet(np.full(K, 5.0)))
    return means[label] + np.einsum("nij,nj->ni", axes[label], random.standard_normal((count, D)))


def ours(X):
    """Seconds, and what was selected."""
    began = perf_counter()
    found = select(X, range(1, 10))
    return perf_counter() - began, found


def theirs(X, **options):
    """Seconds, BIC and iterations of scikit-learn's nine components."""
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        began = perf_counter()
        model = GaussianMixture(9, random_state=0, **options).fit(X)
        seconds = perf_counter() - began
    return seconds, float(model.bic(X)), int(model.n_iter_)


def measure(name, X, repeats):
    turns = [(ours(X), theirs(X)) for _ in range(repeats)]
    (_, found), (_, bic, iterations) = turns[-1]
    far_seconds, far_bic, far_iterations = theirs(X, tol=1e-6, max_iter=1000)
    return {
        "name": name,
        "rows": len(X),
        "emfuse": {
            "seconds": [ours[0] for ours, _ in turns],
            "bic": found.fits["full", 9].bic,
            "left": found.fits["full", 9].distance,
            "chosen": [found.structure, found.K],
            "sweeps": {f"{row.structure} {row.K}": row.sweeps for row in found.table},
        },
        "scikit-learn": {"seconds": [theirs[0] for _, theirs in turns], "bic": bic, "iterations": iterations},
        "scikit-learn as far": {"seconds": [far_seconds], "bic": far_bic, "iterations": far_iterations},
    }


def line(record):
    sides = {name: record[name] for name in ("emfuse", "scikit-learn", "scikit-learn as far")}
    shown = {}
    for name, side in sides.items():
        steps = f"; {side['iterations']} iterations" if "iterations" in side else f"; left {side['left']:.2g}"
        shown[name] = f"{median(side['seconds']):.2f} s; BIC {side['bic']:.0f}{steps}"
    our_seconds = record["emfuse"]["seconds"]
    ratio = times_as_fast(our_seconds, record["scikit-learn"]["seconds"])
    far = record["scikit-learn as far"]["seconds"][0] / median(our_seconds)
    structure, components = record["emfuse"]["chosen"]
    first, second, third = shown.values()
    return record["name"], first, second, f"{ratio:.2g}", third, f"{far:.2g}", f"{structure}, K = {components}"


def main(arguments=None):
    options = parse(arguments)
    described = machine.describe([])
    count, repeats = (ROWS // 10, 2) if options.quick else (ROWS, options.repeats)
    select(rows(1000, 2.0), 2)  # SciPy is loaded when it is first needed
    print(f"{count} rows, {D} features\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    records = []
    for name, apart in APART.items():
        records.append(measure(name, rows(count, apart), repeats))
        print("| " + " | ".join(line(records[-1])) + " |", flush=True)
    print(f"\n{machine.sentence(described)}; emfuse uses {emfuse.threads.thread_count()} here")
    if options.json:
        machine.write(options.json, {"machine": described, "quick": options.quick, "cases": records})
    return 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.selection", description="All models against one.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, two turns, and no figure to quote")
    parser.add_argument("--repeats", type=int, default=3, help="turns (3)")
    machine.add_json(parser, "selection")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
