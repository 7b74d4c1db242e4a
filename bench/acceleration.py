"""Acceleration: how many sweeps to plain EM's own maximum, whether it is the same one, and whether the stop tells the truth.

    python -m bench.acceleration                # 50 problems from two starts each, and some large ones; some minutes
    python -m bench.acceleration --float32      # also the synthetic problems with float32 rows
    python -m bench.acceleration --seed 1       # other rows of the same kinds
    python -m bench.acceleration --quick        # under half a minute: does it work? No figure to quote

From each start every method climbs until it stands still, and a tight fit from there finds the maximum under which it stands. A
maximum is reached within 1e-6 nats for each 1,000 rows, at least 1e-6. All sweeps count, those of refused trials, too: that is
what is "wasted", besides the few sums that are taken again about new means. "in all" is to everybody's own maximum. Then each
rule stops a fit of its own; what was truly "left" there is read from the longer climb, "promised" is what the rule is about, and
"distance" what the fit says of itself (where it says anything, and no less than rounding); "needed" are the sweeps after which no
more than promised was left. Seconds are of fits up to the maximum, plain EM and emqn in turns. One thread.

float32 rows are held against plain EM with the same rows as float64, and reach a maximum within twice the rounding besides that
the engine states; where fits end and what is left is always computed in float64.

Ends with 1 where a log-likelihood fell by more than rounding, or emqn ended lower than plain EM from more than 5% of the starts.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from statistics import median
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from bench import machine
from bench.clock import Call, take_turns, whole
from bench.problems import LARGE, PROBLEMS, QUICK, SYNTHETIC
from emfuse import CollapsedComponent, InMemory, Parameters, em
from emfuse.stopping import GainBelow, Limit, SweepLimit, Within, first_of

EM, EMQN, SQUAREM = "plain EM", "emqn", "squarem"
METHODS = {EM: None, EMQN: "emqn", SQUAREM: "squarem"}
NATS = 1e-6  # for each 1,000 rows, at least this: nearer than that to a maximum is at it
STILL = 100  # steps
MOST_SWEEPS, MOST_SECONDS = 60_000, 30.0  # of one climb
STOP_SWEEPS = 30_000  # of a fit that a rule is to stop
REPEATS, LEAST_SECONDS, SLOW = 3, 0.02, 1.0  # turns of the clock; how long each is at least; who takes so long is not run again
HARD, EASY = 200, 30  # sweeps of plain EM: so many at least, so many at most
MOST_WORSE = 0.05  # of all starts
SLOWER = 1.5  # times plain EM's seconds: said below the tables
# How far rounding may let a log-likelihood fall: a share of it, and for each row the engine's own word; or, where features are
# nearly collinear, float64's rounding of the row times how much that grows on its way to the density, SPARE times.
ROUNDING, EPS, SPARE = 1e-13, float(np.finfo(np.float64).eps), 4.0
FLOAT_ROWS = 1024  # with no more, float32 rows are computed in float64
STOPS = (
    *((method, Within(nats)) for method in (EMQN, SQUAREM, EM) for nats in (1e-2, 1e-4, 1e-6)),
    *((EM, GainBelow(nats, per_row=True)) for nats in (1e-3, 1e-6, 1e-8)),
    (EMQN, GainBelow(1e-8, per_row=True)),
)
STOP_COLUMNS = ("fired", "promised", "left", "distance", "sweeps", "needed")
LARGE_STOPS = ((EMQN, Within(1e-6)),)


class Follow:
    """A rule that notes when each step was done, and stops where the last STILL of them gained less than `nats`."""

    def __init__(self, nats):
        self.nats, self.sweeps, self.clock, self.began = nats, [], [], perf_counter()

    def __call__(self, trace):
        self.sweeps.append(trace.sweeps)
        self.clock.append(perf_counter() - self.began)
        if len(trace) > STILL and trace[-1] - trace[-1 - STILL] < self.nats:
            return f"{STILL} steps gained less than {self.nats:g} nats"
        if trace.sweeps >= MOST_SWEEPS or self.clock[-1] >= MOST_SECONDS:
            return Limit("it takes too long")
        return None


@dataclass(frozen=True)
class Reach:
    """A rule that stops where the log-likelihood is at least `level`, nats."""

    level: float

    def __call__(self, trace):
        return "there" if trace[-1] >= self.level else None


@dataclass(frozen=True)
class Path:
    """A climb: after each step the log-likelihood, all sweeps so far and seconds; where it ended; the maximum above that."""

    trace: np.ndarray
    sweeps: np.ndarray
    clock: np.ndarray
    end: Parameters
    top: float

    def step_at(self, level):
        """The first step that is as high as `level`; None where none is."""
        high = np.flatnonzero(self.trace >= level)
        return int(high[0]) if len(high) else None

    def sweeps_to(self, level):
        step = self.step_at(level)
        return inf if step is None else int(self.sweeps[step])

    @property
    def fell(self):
        """The largest fall from one step to the next, nats."""
        return max(0.0, float(-np.diff(self.trace).min())) if len(self.trace) > 1 else 0.0


def allowed(engine, nats=NATS):
    """`nats` for each 1,000 rows, at least `nats`."""
    return nats * max(1.0, engine.weight / 1000.0)


def rounding(engine, level, amplification=1.0):
    return ROUNDING * abs(level) + max(engine.noise, SPARE * EPS * amplification) * engine.weight


def climb(engine, double, start, acceleration):
    """Follow `acceleration` until it stands still, then find the maximum above; `double` has the same rows as float64."""
    single = engine is not double
    follow = Follow(rounding(engine, 0.0) if single else 0.01 * allowed(engine))
    fit = em(engine, start, acceleration=acceleration, stop=follow)
    top = max(highest(double, fit.parameters), -inf if single else float(fit.trace.max()))
    return Path(fit.trace, np.array(follow.sweeps), np.array(follow.clock), fit.parameters, top)


def highest(engine, parameters):
    """The maximum above these parameters."""
    try:
        return float(em(engine, parameters, acceleration="emqn", stop=Follow(1e-3 * allowed(engine))).trace.max())
    except CollapsedComponent:  # there is none; what they have is what there is
        return engine.sweep(parameters.factors).log_likelihood


def study(recipe, seed, repeats, *, single=False, stops=STOPS):
    """Yield a record for each start of a recipe; with `single`, of its rows as float32."""
    X = recipe.rows(seed)
    v = recipe.weights(X, seed)
    if single:
        X = np.tile(X, (FLOAT_ROWS // len(X) + 1, 1)).astype(np.float32)
    engine = InMemory(X, v, n_threads=1)
    double = InMemory(X.astype(np.float64), v, n_threads=1) if single else engine
    for which, start in recipe.starts(double.X, seed).items():
        record = {"name": recipe.name, "start": which, "rows": len(X), "D": X.shape[1], "K": recipe.K}
        record |= {"structure": recipe.structure, "weight": engine.weight, "dtype": str(X.dtype), "collapsed": {}}
        paths = {}
        for name, acceleration in METHODS.items():
            try:
                paths[name] = climb(engine, double, start, acceleration)
            except CollapsedComponent as error:
                record["collapsed"][name] = str(error)
        # Plain EM in float64 is what all are held against, those with float32 rows, too: in float32 it stands still too soon.
        plain = climb(double, double, start, None) if single else paths.get(EM)
        yield record | compare(engine, double, start, plain, paths, repeats, stops)


def compare(engine, double, start, plain, paths, repeats, stops):
    """What every path of `paths` needed to reach the maximum of `plain`, and where each of `stops` ends."""
    if plain is None:  # it collapsed: there is nothing to be held against
        return {"methods": {}, "stops": []}
    near = allowed(engine) + (2.0 * rounding(engine, plain.top) if engine is not double else 0.0)
    level = plain.top - near
    methods = {}
    for name, path in paths.items():
        step, own = path.step_at(level), path.step_at(path.top - near)
        gain = path.top - plain.top
        same = abs(gain) <= 10.0 * near + 1e-9 * abs(plain.top)
        sweeps = path.sweeps_to(level)
        methods[name] = {
            "sweeps": finite(sweeps),
            "own_sweeps": finite(path.sweeps_to(path.top - near)),
            "all_sweeps": int(path.sweeps[-1]),
            "wasted": int(path.sweeps[own] - own - 1) if own is not None else int(path.sweeps[-1]) - len(path.sweeps),
            "end": "same" if same else "better" if gain > 0 else "worse",
            "gain": gain,
            "fell": path.fell,
            "may_fall": rounding(engine, plain.top, path.end.factors.amplification),
            "seconds": None if step is None else float(path.clock[step]),
        }
    em_sweeps = plain.sweeps_to(level)
    record = {"maximum": plain.top, "near": near, "em_sweeps": finite(em_sweeps), "em_at_least": int(plain.sweeps[-1])}
    record |= {"methods": methods, "stops": [stop_of(engine, double, start, paths[m], m, r) for m, r in stops if m in paths]}
    if EMQN in paths and EM in paths and all(isfinite(paths[name].sweeps_to(level)) for name in (EM, EMQN)):
        for name, seconds in clocked(engine, start, level, paths, repeats).items():
            methods[name]["seconds"] = seconds
    return record


def finite(number):
    """`number`, or None where it is infinite: JSON knows no infinity."""
    return number if isfinite(number) else None


def stop_of(engine, double, start, path, method, rule):
    """Where a rule stops a fit, what it promised to be left there, what is, and what the fit says; nats."""
    fit = em(engine, start, acceleration=METHODS[method], stop=first_of(rule, SweepLimit(STOP_SWEEPS)))
    here = fit.log_likelihood if engine is double else double.sweep(fit.parameters.factors).log_likelihood
    promised = allowed(engine, rule.nats) if isinstance(rule, Within) else rule.nats * engine.weight
    promised = max(promised, 2.0 * rounding(engine, here))
    return {
        "method": method,
        "rule": type(rule).__name__,
        "nats": rule.nats,
        "fired": fit.converged,
        "promised": promised,
        "left": max(0.0, path.top - here),
        "rounding": rounding(engine, here),
        "distance": finite(fit.distance),
        "sweeps": fit.sweeps,
        "needed": finite(path.sweeps_to(path.top - promised)),
        "reason": fit.reason,
    }


def clocked(engine, start, level, paths, repeats):
    """Median seconds of a fit up to `level`, for plain EM and emqn in turns; of who is slow, what its path took."""
    seconds = {name: float(paths[name].clock[paths[name].step_at(level)]) for name in (EM, EMQN)}
    stop = first_of(Reach(level), SweepLimit(MOST_SWEEPS))
    calls = [
        Call(name, partial(em, engine, start, acceleration=METHODS[name], stop=stop)) for name in seconds if seconds[name] < SLOW
    ]
    return seconds | {name: median(map(whole, turns)) for name, turns in take_turns(calls, repeats, LEAST_SECONDS).items()}


def main(arguments=None):
    options = parse(arguments)
    described = machine.describe()
    content = {"machine": described, "quick": options.quick, "seed": options.seed, "failures": []}
    began = perf_counter()
    with threadpool_limits(1):
        main_set = run(QUICK if options.quick else PROBLEMS, options)
        content["problems"] = main_set
        print(f"## {len(main_set)} starts, float64\n")
        report(main_set, content["failures"])
        if options.float32:
            single = run([r for r in (QUICK if options.quick else SYNTHETIC) if not r.real], options, single=True)
            content["float32"] = single
            print(f"\n## {len(single)} starts with float32 rows, beside plain EM with the same rows as float64\n")
            report(single, content["failures"])
        if not options.quick:
            content["large"] = run(LARGE, options, stops=LARGE_STOPS)
            print("\n## Large\n")
            print(large_table(content["large"]))
            check(content["large"], content["failures"], worse=False)
    print("\n" + "".join(f"FAILED: {line}\n" for line in content["failures"]))
    print(f"{machine.sentence(described)}; {perf_counter() - began:.0f} seconds in all")
    if options.json:
        for name in ("problems", "float32", "large"):
            content[name] = [compact(record) for record in content.get(name, [])]
        machine.write(options.json, content | {"stop_columns": STOP_COLUMNS})
    return 1 if content["failures"] else 0


def compact(record):
    """The record with one list for each stop: a third of the bytes."""
    return record | {"stops": {name_of(stop): [stop[column] for column in STOP_COLUMNS] for stop in record["stops"]}}


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.acceleration", description="Sweeps to the maximum, and honest stops.")
    parser.add_argument("--quick", action="store_true", help="every sixth problem: under half a minute, and no figure to quote")
    parser.add_argument("--float32", action="store_true", help="also the synthetic problems with float32 rows")
    parser.add_argument("--seed", type=int, default=0, help="other rows of the same kinds; measurements stay as they are")
    machine.add_json(parser, "acceleration")
    return parser.parse_args(arguments)


def run(recipes, options, **how):
    recipes = [recipe for recipe in recipes if not (options.seed and recipe.real)]
    repeats = 1 if options.quick or recipes == list(LARGE) else REPEATS
    return [record for recipe in recipes for record in study(recipe, options.seed, repeats, **how)]


def report(records, failures):
    print(sweeps_table(records) + "\n\n" + seconds_table(records) + "\n\n" + stops_table(records), flush=True)
    print("\n".join(["", *remarks(records)]), flush=True)
    check(records, failures)


def check(records, failures, *, worse=True):
    """Add what must not be to `failures`."""
    for record in records:
        for name, seen in record["methods"].items():
            if seen["fell"] > seen["may_fall"]:
                place = f"{record['name']}, {record['start']} start, {record['dtype']}"
                failures.append(f"{place}: {name} fell by {seen['fell']:.2g} nats (may be {seen['may_fall']:.2g})")
    lower = [r for r in records if EMQN in r["collapsed"] or r["methods"].get(EMQN, {}).get("end") == "worse"]
    if worse and len(lower) > MOST_WORSE * len(records):
        failures.append(f"emqn ended lower than plain EM from {len(lower)} of {len(records)} starts")


def markdown(head, rows):
    """A table; the first column to the left, the rest to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def ratios(records, name, least=0, most=inf):
    """Sweeps beside plain EM's, where that needs from `least` to `most`; infinite where plain EM's maximum was not reached."""
    for record in records:
        # Where plain EM itself was not there in the end, what it had done by then: an upper bound.
        of_em = record.get("em_sweeps") or record.get("em_at_least")
        if of_em and name in record["methods"] and least <= of_em <= most:
            yield (record["methods"][name]["sweeps"] or inf) / of_em


def quantile(values, share):
    """The value that is not exceeded by `share` of them; infinity is a value."""
    values = sorted(values)
    return values[min(len(values) - 1, int(np.ceil(share * len(values))) - 1 if share else 0)] if values else float("nan")


def sweeps_table(records):
    hard, easy = (len(list(ratios(records, EM, *between))) for between in ((HARD, inf), (0, EASY)))
    head = ["sweeps beside plain EM's", "q25", "median", "q75", "worst", f"{hard} hard: median", "q90", f"{easy} easy: worst"]
    head += ["in all", "same", "better", "worse", "collapsed", "wasted %", "largest fall / rounding"]
    rows = []
    for name in METHODS:
        seen = [record["methods"][name] for record in records if name in record["methods"]]
        every, difficult = list(ratios(records, name)), list(ratios(records, name, least=HARD))
        figures = [quantile(every, share) for share in (0.25, 0.5, 0.75, 1)]
        figures += [quantile(difficult, 0.5), quantile(difficult, 0.9), quantile(ratios(records, name, most=EASY), 1)]
        total = sum(each["own_sweeps"] or each["all_sweeps"] for each in seen)
        ends = [sum(each["end"] == end for each in seen) for end in ("same", "better", "worse")]
        ends.append(sum(name in record["collapsed"] for record in records))
        wasted = 100.0 * sum(each["wasted"] for each in seen) / total
        fall = max(each["fell"] / each["may_fall"] for each in seen)
        rows.append([name, *(f"{x:.3g}" for x in figures), f"{total:,}", *ends, f"{wasted:.1f}", f"{fall:.2g}"])
    return markdown(head, rows)


def seconds_table(records):
    """Plain EM and emqn up to the same point, where both get there."""
    both = [r for r in records if all(r["methods"].get(name, {}).get("sweeps") for name in (EM, EMQN))]
    rows = []
    for title, least, most in (("all", 0, inf), (f"hard (EM >= {HARD})", HARD, inf), (f"easy (EM <= {EASY})", 0, EASY)):
        chosen = [r["methods"] for r in both if least <= r["methods"][EM]["sweeps"] <= most]
        if chosen:
            seconds = {name: [methods[name]["seconds"] for methods in chosen] for name in (EM, EMQN)}
            shares = [b / a for a, b in zip(*seconds.values(), strict=True)]
            of_sweep = [1e6 * sum(seconds[n]) / sum(m[n]["sweeps"] for m in chosen) for n in (EM, EMQN)]
            figures = [sum(seconds[EM]), sum(seconds[EMQN]), *(quantile(shares, q) for q in (0.25, 0.5, 0.75, 1)), *of_sweep]
            rows.append([title, len(chosen), *(f"{x:.3g}" for x in figures)])
    head = ["seconds to the same point", "starts", "plain EM", "emqn", "emqn / EM: q25", "median", "q75", "worst"]
    return markdown([*head, "plain EM, µs a sweep", "emqn, µs a sweep"], rows)


def stops_table(records):
    head = ["stopped by", "nats", "fired", "left <= promised", "<= 10 x", "worst left / promised"]
    head += ["distance told", "left <= 10 x that", "<= 100 x", "sweeps / needed: median", "q90"]
    rows = []
    for method, rule in STOPS:
        seen = [stop for record in records for stop in record["stops"] if is_of(stop, method, rule)]
        fired = [stop for stop in seen if stop["fired"]]
        if not fired:
            continue
        left = [stop["left"] / stop["promised"] for stop in fired]
        told = [stop for stop in fired if stop["distance"] is not None]
        beyond = [stop["left"] / max(stop["distance"], 2.0 * stop["rounding"]) for stop in told]
        cost = [stop["sweeps"] / stop["needed"] for stop in fired if stop["needed"]]
        unit = "a row" if isinstance(rule, GainBelow) else "for 1,000 rows" if method == EM else ""
        shares = [share(x <= most for x in left) for most in (1, 10)] + [f"{max(left):.2g}", f"{len(told)}/{len(fired)}"]
        shares += [share(x <= most for x in beyond) for most in (10, 100)]
        costs = [f"{quantile(cost, q):.2f}" for q in (0.5, 0.9)]
        rows.append(
            [f"{method}: {type(rule).__name__}", f"{rule.nats:g} {unit}".strip(), f"{len(fired)}/{len(seen)}", *shares, *costs]
        )
    return markdown(head, rows)


def name_of(stop):
    return f"{stop['method']} with {stop['rule']}({stop['nats']:g})"


def is_of(stop, method, rule):
    return (stop["method"], stop["rule"], stop["nats"]) == (method, type(rule).__name__, rule.nats)


def share(answers):
    answers = list(answers)
    return f"{sum(answers) / len(answers):.2f}" if answers else "-"


def remarks(records):
    """What a reader should look into: other maxima, collapses, stops far from the truth, plain EM not at its end."""
    for record in records:
        place = f"{record['name']}, {record['start']} start"
        for name in record["collapsed"]:
            yield f"* {place}: {name} collapsed: {record['collapsed'][name]}"
        if record["methods"] and record["em_sweeps"] is None:
            yield f"* {place}: plain EM was not there after {record['em_at_least']:,} sweeps; ratios are upper bounds"
        for name, seen in record["methods"].items():
            if seen["end"] != "same":
                yield f"* {place}: {name} ended {seen['end']}, by {abs(seen['gain']):.3g} nats, after {seen['own_sweeps']} sweeps"
            if name == EMQN and (seen["sweeps"] or 0) > 1.05 * (record["em_sweeps"] or inf):
                yield f"* {place}: emqn took {seen['sweeps']} sweeps, plain EM {record['em_sweeps']}"
        seconds = [record["methods"].get(name, {}).get("seconds") or inf for name in (EM, EMQN)]
        if inf > seconds[1] > SLOWER * seconds[0]:
            took = [
                f"{1e3 * s:.3g} ms for {record['methods'][n]['sweeps']} sweeps" for n, s in zip((EM, EMQN), seconds, strict=True)
            ]
            yield f"* {place}: emqn took {took[1]}, plain EM {took[0]}"
        for stop in record["stops"]:
            rule = name_of(stop)
            if stop["method"] == EMQN and stop["rule"] == "Within" and stop["fired"] and stop["left"] > 10 * stop["promised"]:
                says = f"{stop['left']:.3g} nats were left, {stop['promised']:.2g} promised, distance {stop['distance']}"
                yield f"* {place}: {rule} stopped after {stop['sweeps']} sweeps where {says}: {stop['reason']}"
            if not stop["fired"]:
                yield f"* {place}: {rule} never stopped: {stop['reason']}"


def large_table(records):
    head = ["problem", "start", "rows", "plain EM: sweeps", "s", "emqn: sweeps", "s", "ends", "squarem: sweeps", "ends"]
    head += ["emqn, Within(1e-6): sweeps", "left / promised", "distance / promised"]
    rows = []
    for record in records:
        seen = {name: record["methods"].get(name) for name in METHODS}
        cells = [record["name"], record["start"], f"{record['rows']:,}"]
        for name in METHODS:
            each = seen[name]
            if each is None:
                cells += ["collapsed", *(["-"] if name != EMQN else ["-", "-"])]
                continue
            sweeps = f"{each['sweeps']:,}" if each["sweeps"] else f"> {each['all_sweeps']:,}"
            cells.append(sweeps)
            if name != SQUAREM:
                cells.append("-" if each["seconds"] is None else f"{each['seconds']:.3g}")
            if name != EM:
                cells.append(each["end"] if each["end"] == "same" else f"{each['end']} by {abs(each['gain']):.2g}")
        for stop in record["stops"]:
            if is_of(stop, EMQN, Within(1e-6)):
                told = "-" if stop["distance"] is None else f"{stop['distance'] / stop['promised']:.2g}"
                cells += [f"{stop['sweeps']:,}", f"{stop['left'] / stop['promised']:.2g}", told]
        rows.append(cells)
    return markdown(head, rows)


if __name__ == "__main__":
    raise SystemExit(main())
