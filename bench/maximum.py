"""Time to the maximum: seconds until the log-likelihood is as good as at the best maximum known from that start.

    python -m bench.maximum --plot maximum.png      # some minutes; half an hour where Rscript is on the PATH, and R is asked
    python -m bench.maximum --quick                 # under a minute: does it work? No figure to quote

All begin at the same start, on one thread, with nothing added to the covariances. A side is there when no more than 1e-6 nats are
missing for each 1,000 rows, at least 1e-6. Each is given the number of iterations that it takes to be there, and must then stand
there: emfuse that of a climb before; scikit-learn and mclust, which do the iterations of plain EM, that of emfuse's plain EM;
mixtools, which takes another way in one dimension, that of its own trace. Whoever would take more than MEASURED seconds is timed
for a few iterations and multiplied: "≈". "≥": not there when time was up. "-": cannot do that.

Sides take turns; figures are medians over turns, ratios medians over neighbouring turns.
"""

import argparse
from collections.abc import Callable
from functools import partial
from math import exp, log
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from bench import machine, r
from bench.acceleration import allowed, climb, markdown
from bench.cases import Case, Problem, Start
from bench.clock import LEAST_SECONDS_QUICK, LONG, SHORT, Call, take_turns, times_as_fast, whole
from bench.peers import OTHERS
from bench.problems import BY_NAME
from emfuse import InMemory, em
from emfuse.stopping import SweepLimit

EMQN, EM, SKLEARN = "emfuse", "emfuse, plain EM", "scikit-learn"
CLIMBS = (
    ("faithful_full", "bad"),
    ("faithful_tied", "bad"),
    ("acidity", "good"),
    ("iris_full", "bad"),
    ("digits_full", "good"),
    ("dax", "good"),
    ("1d_k2_1.5sd_equal", "good"),
    ("1d_k2_2sd_unequal", "bad"),
    ("1d_k2_4sd_equal", "good"),
    ("1d_k3_2sd", "good"),
    ("1d_k5_2.5sd", "good"),
    ("k3_of_2", "good"),
    ("d2_k3_full", "good"),
    ("d2_k8_tied", "bad"),
    ("d4_k4_tied", "bad"),
    ("d8_k12_diag", "bad"),
    ("d8_k5_spherical", "good"),
    ("d16_k3_full", "good"),
    ("d16_k8_diag", "good"),
    ("1d_k2_1.5sd_1e5", "good"),
    ("1d_k2_1.5sd_1e6", "good"),
    ("d4_k8_full_1e5", "good"),
    ("d4_k8_tied_1e5", "bad"),
    ("d4_k8_diag_1e5", "good"),
    ("d4_k8_spherical_1e5", "bad"),
    ("d4_k8_full_1e6", "good"),
)
QUICK = CLIMBS[1:10:2]
DRAWN = (("dax", "good"), ("d8_k5_spherical", "good"), ("d4_k8_full_1e5", "good"), ("1d_k2_1.5sd_1e6", "good"))
REPEATS, LEAST_SECONDS = 3, 0.05
MEASURED, TRIAL = 3.0, 0.3  # seconds of one fit: who takes longer is multiplied up, from about so many
ONCE = 0.5  # seconds of one fit: who takes longer has one turn
STEP = 1.03  # from one point of a curve to the next, in time
SAME_PLACE = 0.1  # of what may be missing: how far sides that take the same steps may lie apart


class Seconds(NamedTuple):
    """A side that reads its own clock; `call` returns seconds."""

    name: str
    call: Callable[[], float]
    once: bool = False

    def warm(self):
        pass

    def sample(self):
        return (self.call(),)


class Entrant(NamedTuple):
    """A side of one climb.

    side : Call or Seconds      what takes turns
    mark : str                  "", "≈" where its seconds are multiplied up, "≥" where it was not there in the end
    shares, values : (T,)       how much of its work was done when it had which log-likelihood
    """

    side: Call | Seconds
    mark: str
    shares: np.ndarray
    values: np.ndarray


def main(arguments=None):
    options = parse(arguments)
    packages, skipped = r.find()
    print("\n".join(skipped))
    described = machine.describe([(OTHERS[0], OTHERS[0].available()), *packages])
    content = {"machine": described, "quick": options.quick, "skipped": skipped, "failures": [], "climbs": []}
    names = [EMQN, EM, SKLEARN, *(package.name for package, _ in packages)]
    began = perf_counter()
    with threadpool_limits(1):
        for name, which in QUICK if options.quick else CLIMBS:
            record = climbed(BY_NAME[name], which, [package for package, _ in packages], content["failures"], options)
            content["climbs"].append(record)
            print(f"{perf_counter() - began:5.0f} s  {name}, {which} start", flush=True)
    print("\n" + table(content["climbs"], names))
    print("\n" + "".join(f"FAILED: {line}\n" for line in content["failures"]))
    print(f"{machine.sentence(described)}; {perf_counter() - began:.0f} seconds in all")
    if options.json:
        machine.write(options.json, content)
    if options.plot:
        draw(content, options.plot)
    return 1 if content["failures"] else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.maximum", description="Seconds to the maximum.")
    parser.add_argument("--quick", action="store_true", help="a few small problems, and no figure to quote")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw what is missing against time, for four of them")
    machine.add_json(parser, "maximum")
    return parser.parse_args(arguments)


def climbed(recipe, which, packages, failures, options):
    """One climb by every side: a record for JSON."""
    X = recipe.rows()
    start = recipe.starts(X)[which]
    case = Case(recipe.name, *X.shape, recipe.K, recipe.structure, "time to the maximum")
    given = Problem(case, X, Start(start.weights, start.means, start.covariances))
    engine = InMemory(X, n_threads=1)
    plain, fast = (climb(engine, engine, start, acceleration) for acceleration in (None, "emqn"))
    best = max(plain.top, fast.top)
    level = best - allowed(engine)
    record = {"name": recipe.name, "start": which, "rows": len(X), "D": X.shape[1], "K": recipe.K, "structure": recipe.structure}
    record |= {"maximum": best, "missing": allowed(engine), "tops": {EM: plain.top, EMQN: fast.top}, "sides": {}}
    record |= {"sweeps": {EM: int(plain.sweeps[-1]), EMQN: int(fast.sweeps[-1])}}
    for name, path in ((EM, plain), (EMQN, fast)):
        if path.step_at(level) is not None:
            record["sweeps"][name] = path.sweeps_to(level)
    own = ((EMQN, "emqn", fast), (EM, None, plain))
    entrants = [ours(name, X, start, how, path, level, record, failures) for name, how, path in own]
    # Where plain EM was not there in the end, all that take its steps are timed to where it was.
    steps, mark = (plain.step_at(level), "") if plain.step_at(level) is not None else (len(plain.trace) - 1, "≥")
    entrants.append(of_scikit_learn(given, plain, steps, mark, record, failures))
    with TemporaryDirectory() as folder:
        if packages:
            at_start = em(engine, start, stop=0)
            r.write(folder, X, at_start.parameters, at_start.predict_proba(X))
        for package in packages:
            if r.model_of(recipe.structure, case.D) in package.models:
                entrants.append(of_r(package, folder, case, plain, steps, mark, level, record, failures))
        entrants = [entrant for entrant in entrants if entrant]
        repeats, least = (1, LEAST_SECONDS_QUICK) if options.quick else (REPEATS, LEAST_SECONDS)
        turns = take_turns([entrant.side for entrant in entrants], repeats, least)
    for entrant in entrants:
        samples = [whole(turn) for turn in turns[entrant.side.name]]
        curve = thinned(median(samples) * entrant.shares, entrant.values) if (recipe.name, which) in DRAWN else []
        record["sides"][entrant.side.name] = {"seconds": samples, "mark": entrant.mark, "curve": curve}
    return record


def ours(name, X, start, acceleration, path, level, record, failures):
    """emfuse, from arrays to the fit that is there; what is slow is timed by the climb that it has made already."""
    step = path.step_at(level)
    last = len(path.trace) - 1 if step is None else step
    took, shares = float(path.clock[last]), path.sweeps / path.sweeps[last]
    if step is None or took > MEASURED:
        return Entrant(Seconds(name, lambda: took, once=True), "≥" if step is None else "", shares, path.trace)
    call = partial(em, X, start, acceleration=acceleration, stop=SweepLimit(int(path.sweeps[step])), n_threads=1)
    short = level - call().trace[-1]
    if not short <= SAME_PLACE * record["missing"]:
        failures.append(f"{record['name']}, {record['start']} start: {name} is {short:.2g} nats short of where it was before")
    return Entrant(Call(name, call, once=took > ONCE), "", shares, path.trace)


def of_scikit_learn(given, plain, steps, mark, record, failures):
    """So many iterations, for real where that does not take long: then the answer is checked, too."""

    def seconds(iterations):
        return OTHERS[0].run(given, iterations).seconds

    shares = np.arange(len(plain.trace)) / steps
    try:
        short, long = (min(seconds(iterations) for _ in range(2)) for iterations in (SHORT, LONG))
        each = max(1e-9, (long - short) / (LONG - SHORT))
        if each * steps > MEASURED:
            few = enough(each)
            call = partial(multiplied, seconds, few, steps)
            return Entrant(Seconds(SKLEARN, call, once=each * few > ONCE), mark or "≈", shares, plain.trace)
        run = OTHERS[0].run(given, steps)
    except ValueError as error:
        failures.append(f"{record['name']}, {record['start']} start: {SKLEARN}: {error}")
        return None
    check_place(SKLEARN, run.log_likelihood() * record["rows"], plain, steps, record, failures)
    call = partial(seconds, steps)
    return Entrant(Seconds(SKLEARN, call, once=run.seconds > ONCE), mark, shares, plain.trace)


def enough(each):
    """How many iterations of `each` seconds to measure, where these are to be multiplied up."""
    return max(LONG, int(TRIAL / each))


def multiplied(seconds, few, steps):
    """Seconds of `steps` iterations, from those of `few` and of SHORT: what a call costs besides counts once."""
    short = seconds(SHORT)
    return short + (seconds(few) - short) / (few - SHORT) * (steps - SHORT)


def check_place(name, log_likelihood, plain, steps, record, failures):
    apart = abs(log_likelihood - plain.trace[steps])
    if not apart <= SAME_PLACE * record["missing"]:
        place = f"{record['name']}, {record['start']} start"
        failures.append(f"{place}: {name} is {apart:.2g} nats from plain EM after {steps} iterations")


def of_r(package, folder, case, plain, steps, mark, level, record, failures):
    """mclust takes plain EM's steps; mixtools is asked how many of its own it needs."""
    shape, model = (case.rows, case.D, case.K), r.model_of(case.structure, case.D)

    def ran(iterations, least=0.0):
        return r.run(package, folder, shape, model, (iterations,), least)

    def seconds(iterations, least=0.0):
        return ran(iterations, least).seconds[0]

    try:
        first = ran(LONG)
        each, values = max(1e-6, first.seconds[0] / LONG), plain.trace
        if first.trace is not None and not mark:
            affordable = int(MEASURED / each) + 1
            values = ran(min(2 * steps + 100, affordable)).trace
            high = np.flatnonzero(values >= level)
            if len(high):
                steps = int(high[0])
            elif affordable > 2 * steps + 100:
                record["sides"][package.name] = {"seconds": [], "mark": "another maximum", "curve": []}
                return None
            # else it would take too long to see: its steps are supposed to be as many as plain EM's
        shares = np.arange(len(values)) / steps
        if each * steps > MEASURED:
            call = partial(multiplied, seconds, enough(each), steps)
            return Entrant(Seconds(package.name, call, once=True), mark or "≈", shares, values)
        there = ran(steps)
        if there.trace is None:
            check_place(package.name, there.log_likelihood, plain, steps, record, failures)
        call = partial(seconds, steps, LEAST_SECONDS)
        return Entrant(Seconds(package.name, call, once=there.seconds[0] > ONCE), mark, shares, values)
    except ValueError as error:
        record["sides"][package.name] = {"seconds": [], "mark": str(error), "curve": []}
        return None


def thinned(seconds, values):
    """At most some hundreds of (seconds, log-likelihood), evenly apart in the logarithm of time."""
    kept, last = [], 0.0
    for at, value in zip(seconds.tolist(), values.tolist(), strict=True):
        if at > last * STEP:
            kept.append([at, value])
            last = at
    return kept


def table(records, names):
    head = ["problem", "start", "rows", "D", "K", "form", "sweeps: emfuse", "plain EM", *(f"{name}, s" for name in names)]
    others = [name for name in names if name != EMQN]
    head += [f"{name} / emfuse" for name in others]
    rows = [row(record, names, others) for record in records]
    for title, chosen in groups(records):
        means = []
        for name in others:
            found = [ratio for ratio in (ratio_of(record, name)[0] for record in chosen) if ratio]
            means.append(f"**{exp(mean(map(log, found))):.3g}** ({len(found)})" if found else "-")
        rows.append([f"**geometric mean, {title}**", *[""] * (len(head) - 1 - len(others)), *means])
    return markdown(head, rows)


def groups(records):
    yield "all", records
    yield "rows < 10,000", [record for record in records if record["rows"] < 10_000]
    yield "rows >= 100,000", [record for record in records if record["rows"] >= 100_000]


def row(record, names, others):
    form = "1-D" if record["D"] == 1 and record["structure"] != "tied" else record["structure"]
    cells = [record["name"], record["start"], f"{record['rows']:,}", record["D"], record["K"], form]
    cells += [f"{record['sweeps'][EMQN]:,}", f"{record['sweeps'][EM]:,}"]
    for name in names:
        seen = record["sides"].get(name)
        cells.append("-" if not seen else f"{seen['mark']}{median(seen['seconds']):.3g}" if seen["seconds"] else seen["mark"])
    for name in others:
        ratio, mark = ratio_of(record, name)
        cells.append(f"{mark}{ratio:.3g}" if ratio else "-")
    return cells


def ratio_of(record, name):
    """How many times as long as emfuse `name` took, and its mark; None where one of the two was not there."""
    pair = [record["sides"].get(side) for side in (EMQN, name)]
    if not all(seen and seen["seconds"] for seen in pair) or pair[0]["mark"]:
        return None, ""
    return times_as_fast(pair[0]["seconds"], pair[1]["seconds"]), pair[1]["mark"]


# name -> colour (Okabe & Ito), line: told apart in grey, too
STYLES = {
    EMQN: ("#0072B2", "-", 2.4),
    EM: ("#56B4E9", "--", 1.8),
    SKLEARN: ("#D55E00", "-.", 1.8),
    "mixtools": ("#009E73", ":", 1.8),
    "mclust": ("#CC79A7", (0, (5, 1, 1, 1, 1, 1)), 1.8),
}


def draw(content, path):
    """What is missing to the maximum, nats, against seconds; both axes logarithmic."""
    from matplotlib.figure import Figure

    records = [record for record in content["climbs"] if any(side["curve"] for side in record["sides"].values())]
    if not records:
        print("none of the problems that are drawn was measured")
        return
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    for ax in axes[len(records) :]:
        ax.axis("off")
    for ax, record in zip(axes, records, strict=False):
        floor = record["missing"]
        for name, side in record["sides"].items():
            points = [(at, max(record["maximum"] - value, floor)) for at, value in side["curve"]]
            there = next((i for i, (_, gap) in enumerate(points) if gap == floor), None)
            if points:
                colour, dashes, width = STYLES[name]
                xs, ys = zip(*points[: None if there is None else there + 1], strict=True)
                ax.plot(xs, ys, color=colour, linestyle=dashes, lw=width, label=name)
                if there is not None:
                    ax.plot(xs[-1], ys[-1], "o", color=colour, ms=6)
        ax.axhline(floor, color="0.6", lw=0.8)
        ax.set(xscale="log", yscale="log", ylim=(floor / 3, None))
        form = "1-D" if record["D"] == 1 else f"D = {record['D']}, {record['structure']}"
        ax.set_title(f"{record['name']}: {record['rows']:,} rows, {form}, K = {record['K']}", loc="left", fontsize=10)
        ax.grid(which="major", color="0.88", lw=0.6)
    figure.supylabel("log-likelihood still missing to the maximum, nats", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9, frameon=False)
    described = content["machine"]
    made = f"{described['cpu']}, {described['build']}, one thread. Grey line: where a side counts as there (dot)."
    how = f"Of each side all sweeps are drawn as taking the same time; {SKLEARN} takes plain EM's."
    figure.supxlabel(f"seconds\n{made}\n{how}{' A quick run.' * content['quick']}", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=92, pil_kwargs={"optimize": True})
    print(f"written: {path}")


if __name__ == "__main__":
    raise SystemExit(main())
