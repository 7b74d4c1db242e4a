"""One EM iteration of each of mclust's structures, beside mclust and mixtools, which Rscript runs where it is on the PATH.

    python -m bench.structures              # some six minutes, with R
    python -m bench.structures --quick      # a tenth of the rows: does it work? No figure to quote

All begin with the M step of one partition, one thread, float64. Log-likelihoods after 6 M steps are compared before the clock.
mclust's inner loops for VEI, VEE, EVE and VEV stop early, and may be off by INNER; its M step for VVE leaves the volumes out and
is not the maximum: shown, and not compared. `normalmixEM` takes two E steps an iteration, and is compared with emfuse's walk of
that path. `mvnormalmixEM` takes a minute an iteration for all rows, and is given FEW of them ("≈").

One iteration is a fifth of 6 less 1, so that what a call costs besides cancels out. Sides take turns; figures are medians.

Last comes all of `mclustBIC`, with defaults: nine K of every model on iris and on Old Faithful. mclust stops by its tolerance,
emfuse at the maximum; its best BIC may be no lower.
"""

import argparse
import warnings
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_limits

from bench import machine, r
from bench.acceleration import markdown
from bench.clock import LEAST_SECONDS, LEAST_SECONDS_QUICK, LONG, SHORT, times_as_fast
from emfuse import NotConverged, em, from_labels, mclust, mixtools
from emfuse.maximise import maximise

OURS = "emfuse"
ROWS = 50_000
SHAPES = ((1, 4), (2, 4), (4, 4), (10, 4))  # D, K
FEW = 500  # rows for mvnormalmixEM
MIXED_UP = 0.3  # share of the labels that are drawn anew, so that EM is still moving
WITHIN = 1e-9  # nats a row: the same arithmetic in another order
INNER = dict.fromkeys(("VEI", "VEE", "EVE", "VEV"), 1e-4)  # the same, where mclust's inner loop stops early
WRONG = "VVE"


def main(arguments=None):
    options = parse(arguments)
    packages, skipped = r.find()
    print("\n".join(skipped))
    described = machine.describe(packages)
    content = {"machine": described, "quick": options.quick, "skipped": skipped, "failures": [], "models": []}
    began = perf_counter()
    with threadpool_limits(1), TemporaryDirectory() as folder:
        for D, K in SHAPES[:3] if options.quick else SHAPES:
            X, labels = clusters(ROWS // 10 if options.quick else ROWS, D, K)
            for model in r.FOURTEEN if D > 1 else ("E", "V"):
                able = [package for package, _ in packages if model in package.models]
                content["models"].append(measured(X, labels, K, model, able, folder, content["failures"], options))
            print(f"{perf_counter() - began:5.0f} s  D = {D}, K = {K}", flush=True)
        print("\nns for each row and component of one whole EM iteration; log-likelihoods after 6 M steps, nats a row\n")
        print(table(content["models"], [OURS, *(package.name for package, _ in packages)]))
        print("\nmclustBIC with defaults, one thread: seconds, and the highest BIC\n")
        content["tables"] = [of_tables(name, X, packages, folder, content["failures"]) for name, X in small_data()]
    print(markdown(list(content["tables"][0]), [[str(cell) for cell in made.values()] for made in content["tables"]]))
    print("\n" + "".join(f"FAILED: {failure}\n" for failure in content["failures"]))
    print(machine.sentence(described))
    if options.json:
        machine.write(options.json, content)
    return 1 if content["failures"] else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.structures", description="One EM iteration of each structure.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, and no figure to quote")
    machine.add_json(parser, "structures")
    options = parser.parse_args(arguments)
    options.repeats, options.least = (1, LEAST_SECONDS_QUICK) if options.quick else (3, LEAST_SECONDS)
    return options


def clusters(rows, D, K):
    """Rows of K clusters that overlap, each with a volume, a shape and axes of its own; and labels, of which some are wrong."""
    random = np.random.default_rng([17, D, K])
    labels = random.integers(K, size=rows)
    roots = (np.eye(D) + 0.5 / np.sqrt(D) * random.standard_normal((K, D, D))) * random.uniform(0.7, 1.4, (K, 1, 1))
    means = 3.0 * random.standard_normal((K, D)) / np.sqrt(max(1.0, D / 4))
    X = means[labels] + np.einsum("nab,nb->na", roots[labels], random.standard_normal((rows, D)))
    mixed = random.random(rows) < MIXED_UP
    return X, np.where(mixed, random.integers(K, size=rows), labels)


def measured(X, labels, K, model, packages, folder, failures, options):
    """One model by every side: a record for JSON."""
    D, start = X.shape[1], from_labels(X, labels, model)
    last = em(X, start, stop=LONG - 1, n_threads=1)  # the first M step made the start
    record = {"rows": len(X), "D": D, "K": K, "model": model, "m_step_ms": 1e3 * of_m_step(last)}
    record["sides"] = {OURS: {"rows": len(X), "log_likelihood": last.log_likelihood / len(X), "ns": []}}
    sides = {OURS: partial(of_ours, X, start, options.least)}
    for package in packages:
        few = X[:FEW] if package is r.MIXTOOLS and D > 1 else X
        there = Path(folder) / package.name
        there.mkdir(exist_ok=True)
        r.write(there, few, start, np.eye(K)[labels[: len(few)]])
        ask = partial(r.run, package, there, (len(few), D, K), model, (SHORT, LONG))
        try:
            ran = ask()
        except ValueError as error:
            failures.append(f"D = {D}, {model}: {package.name}: {error}")
            continue
        found = ran.log_likelihood if ran.trace is None else ran.trace[LONG - 1]
        apart = abs(found - expected(package, few, start, model)) / len(few)
        record["sides"][package.name] = {"rows": len(few), "log_likelihood": found / len(few), "apart": apart, "ns": []}
        within = INNER.get(model, WITHIN) if package is r.MCLUST else WITHIN
        if not apart <= within and (package, model) != (r.MCLUST, WRONG):
            failures.append(f"D = {D}, {model}: {package.name} is {apart:.2g} nats a row from emfuse; not timed")
            continue
        sides[package.name] = partial(of_r, ask, options.least)
    for _ in range(options.repeats):
        for name, seconds in sides.items():
            side = record["sides"][name]
            side["ns"].append(1e9 * seconds() / (side["rows"] * K))
    return record


def of_ours(X, start, least):
    """Seconds of one iteration."""
    samples = []
    while sum(map(sum, samples)) < least:
        samples.append([])
        for iterations in (SHORT, LONG):
            began = perf_counter()
            em(X, start, stop=iterations, n_threads=1)
            samples[-1].append(perf_counter() - began)
    return median(long - short for short, long in samples) / (LONG - SHORT)


def of_r(ask, least):
    short, long = ask(least).seconds
    return (long - short) / (LONG - SHORT)


def of_m_step(fit):
    """Seconds of an M step alone."""
    took = []
    while sum(took) < 0.05:
        began = perf_counter()
        maximise(fit.statistics, fit.parameters.structure, before=fit.parameters)
        took.append(perf_counter() - began)
    return median(took)


def expected(package, X, start, model):
    """The log-likelihood that a package must have, nats."""
    if package is r.MCLUST or X.shape[1] > 1:
        return em(X, start, stop=LONG - 1, n_threads=1).log_likelihood
    sigma = start.sds[0, 0] if model == "E" else start.sds[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        return mixtools.normalmixEM(X, start.weights, start.means[:, 0], sigma, epsilon=-1, maxit=LONG - 1, ecm=True).loglik


def small_data():
    """Names and rows."""
    faithful = np.loadtxt(files("emfuse").joinpath("faithful.csv"), delimiter=",", skiprows=1)
    return ("iris", load_iris().data), ("Old Faithful", faithful)


def of_tables(name, X, packages, folder, failures):
    """`mclustBIC` with its defaults by both sides: a record for JSON."""
    took = []
    for _ in range(3):
        began = perf_counter()
        made = mclust.mclustBIC(X, n_threads=1)
        took.append(perf_counter() - began)
    record = {"data": name, "rows": len(X), OURS: round(median(took), 4), "its best": round(float(np.nanmax(made.values)), 4)}
    if r.MCLUST in [package for package, _ in packages]:
        record["mclust"], record["mclust's best"] = r.mclust_bic(folder, X)
        if record["its best"] < record["mclust's best"] - 1e-3:
            failures.append(f"mclustBIC of {name}: mclust finds more than {record['its best']:.4f}")
    return record


def table(records, names):
    others = names[1:]
    head = ["D", "K", "model", *names, *(f"{name} / {OURS}" for name in others), "M step, ms"]
    rows = []
    for record in records:
        sides = {name: record["sides"].get(name, {"ns": []}) for name in names}
        mine, marks = sides[OURS]["ns"], {name: "≈" * (side.get("rows") == FEW) for name, side in sides.items()}
        row = [record["D"], record["K"], record["model"]]
        row += [f"{marks[name]}{median(side['ns']):.3g}" if side["ns"] else "-" for name, side in sides.items()]
        ratios = {name: times_as_fast(mine, sides[name]["ns"]) for name in others if sides[name]["ns"]}
        row += [f"{marks[name]}{ratios[name]:.3g}" if name in ratios else "-" for name in others]
        row.append(f"{record['m_step_ms']:.2g}")
        row += [f"{side['log_likelihood']:.9f}" if "log_likelihood" in side else "-" for side in sides.values()]
        rows.append(row)
    return markdown([*head, *(f"log L {name}" for name in names)], rows)


if __name__ == "__main__":
    raise SystemExit(main())
