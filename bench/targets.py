"""What was aimed at and what was reached, as tables in GitHub's markdown.

    python -m bench.targets bench/results/MACHINE/*.json

The files are what `bench`, `bench.small`, `bench.evaluate` and `bench.memory` wrote with --json; others are passed over. Where
several hold the same case, the median of their figures stands. A figure that no file holds is a "?", and so is what hangs on it.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import machine
from bench.cases import CASES
from bench.clock import times_as_fast

# case -> times as fast as scikit-learn and oneDAL, share of the floor: one thread, float64, one whole iteration
TARGETS = {
    "1d_k2": (120, 8, 0.90),
    "1d_k8": (85, 7, 0.90),
    "d2_k4": (95, 3.5, None),
    "d10_k10": (22, 3.4, None),
    "d32_k16": (9, 2.7, 0.60),
    "d64_k32": (5.5, 2.2, 0.65),
    "d128_k32": (None, None, 0.65),
    "diag16_k32": (10, 3.8, 0.80),
    "diag64_k64": (3.6, 2.8, 0.85),
    "tied32_k16": (45, None, None),
}
FLOAT32 = 1.6  # times as fast as our own float64
TWO_THREADS, FROM_ROWS = 1.85, 100_000  # times as fast as our own one thread
SMALL_ITERATION, SMALL_CALL = 20, 5  # times as fast as scikit-learn, 272 rows, 1-D
METHODS, EVALUATE = ("predict", "predict_proba", "score_samples"), 10  # times as fast as scikit-learn at D <= 16
MEMORY = 32 * 2**20 / 1e6  # MB beyond the data, and beyond the answer; K D^2 is nothing beside it here


class Claim(NamedTuple):
    """One line of the second table: figures by where they were seen, all of which must be at least, or at most, the target."""

    what: str
    target: float
    seen: dict[str, float]
    at_most: bool = False


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.targets", description="What was aimed at and what was reached.")
    parser.add_argument("files", nargs="+", type=Path, metavar="RESULTS.json")
    files = parser.parse_args(arguments).files
    read = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in files}
    used = {name: content for name, content in read.items() if is_used(content)}
    contents = list(used.values())
    print("| case | target x scikit-learn | reached | target x oneDAL | reached | target of the floor | reached | met |")
    print("|---|---|---|---|---|---|---|---|")
    timed = [record for record in all_of(contents, "cases") if "emfuse" in record["sides"]]
    for case in CASES:
        print(row_of(case.name, [record for record in timed if record["name"] == case.name]))
    print("\n| besides | target | reached | where | met |")
    print("|---|---|---|---|---|")
    for claim in claims(contents):
        print(row_of_claim(claim))
    print()
    for name, content in used.items():
        quick = "a quick run, no figures to quote: " if content.get("quick") else ""
        print(f"{name}: {quick}{machine.sentence(content['machine'])}  ")


def is_used(content):
    """Whether it is of one of the four programs: others have cases too, but no sides in them."""
    cases = content.get("cases")
    return bool({"memory", "evaluate"} & set(content)) or (isinstance(cases, list) and all("sides" in case for case in cases))


def all_of(contents, key):
    return [entry for content in contents for entry in (content.get(key) or [])]


def row_of(name, records):
    targets = TARGETS.get(name, (None, None, None))
    reached = (
        middle(faster(record, "emfuse", "scikit-learn") for record in records),
        middle(faster(record, "emfuse", "oneDAL") for record in records),
        middle(record["floor_ns"] / record["sides"]["emfuse"]["ns"] if record["floor_ns"] else None for record in records),
    )
    cells, met = [name], []
    for target, figure, form in zip(targets, reached, (".3g", ".3g", ".0%"), strict=True):
        cells += ["" if target is None else f"{target:{form}}", "?" if figure is None else f"{figure:{form}}"]
        if target is not None:
            met.append(None if figure is None else figure >= target)
    return f"| {' | '.join([*cells, verdict(met) if met else ''])} |"


def row_of_claim(claim):
    target = f"{'at most' if claim.at_most else 'at least'} {claim.target:.3g}"
    if not claim.seen:
        return f"| {claim.what} | {target} | ? | | ? |"
    where = (max if claim.at_most else min)(claim.seen, key=claim.seen.get)
    worst = claim.seen[where]
    met = worst <= claim.target if claim.at_most else worst >= claim.target
    others = f", the worst of {len(claim.seen)}" if len(claim.seen) > 1 else ""
    return f"| {claim.what} | {target} | {worst:.3g} | {where}{others} | {verdict([met])} |"


def verdict(met):
    """No where something was missed; else a question where something is not known."""
    return "no" if False in met else "?" if None in met else "yes"


def claims(contents):
    cases, small = all_of(contents, "cases"), {}
    for record in (record for record in cases if record["name"] == "small"):
        for name in ("emfuse.fit", "emfuse.GaussianMixture"):
            if name in record["sides"]:
                small.setdefault(name, []).append(record)
    large = [record for record in cases if record["name"] != "small"]
    yield Claim("float32 rows, times our own float64", FLOAT32, own(large, "emfuse float32"))
    many = [record for record in cases if record["rows"] >= FROM_ROWS]
    yield Claim(f"two threads, times our own one, from {FROM_ROWS:,} rows", TWO_THREADS, own(many, "2 threads"))
    iterations = {name: middle(faster(record, name, "scikit-learn") for record in of) for name, of in small.items()}
    yield Claim("272 rows, 1-D: one iteration, times scikit-learn", SMALL_ITERATION, iterations)
    calls = {name: middle(faster(record, name, "scikit-learn", call) for record in of) for name, of in small.items()}
    yield Claim("272 rows, 1-D: a whole call, times scikit-learn", SMALL_CALL, calls)
    for method in METHODS:
        records = [record for record in all_of(contents, "evaluate") if method in record["methods"]]
        seen = by_name((record["name"], record["methods"][method]["times_as_fast"]) for record in records)
        yield Claim(f"`{method}`, D to 16, times scikit-learn", EVALUATE, seen)
    memory = all_of(contents, "memory")
    scored = [record for record in memory if record.get("method") in METHODS]
    beyond = by_name((record["method"], record["beyond_data_mb"]["emfuse"] - record["answer_mb"]) for record in scored)
    yield Claim("memory of these three beyond data and answer, MB", MEMORY, beyond, True)
    fits = by_name((record["fit"], record["beyond_data_mb"]) for record in memory if record.get("fit", "").startswith("emfuse"))
    for fit, beyond_data in fits.items():
        yield Claim("memory of a fit beyond the data, MB", MEMORY, {fit: beyond_data}, True)


def own(records, side):
    """How many times as fast as emfuse on one thread and float64 `side` is, by case."""
    return by_name((record["name"], faster(record, side, "emfuse")) for record in records)


def by_name(pairs):
    """The median of the figures of each name; those that are None are left out."""
    seen = {}
    for name, figure in pairs:
        if figure is not None:
            seen.setdefault(name, []).append(figure)
    return {name: median(figures) for name, figures in seen.items()}


def middle(figures):
    return by_name(("", figure) for figure in figures).get("")


def iterations_of(side):
    return side["ns_samples"]


def call(side):
    return [turn["long"] for turn in side["turns"]]


def faster(record, ours, theirs, of=iterations_of):
    """How many times as fast as `theirs` `ours` is, or None where one of them is missing."""
    sides = record["sides"]
    return times_as_fast(of(sides[ours]), of(sides[theirs])) if ours in sides and theirs in sides else None


if __name__ == "__main__":
    main()
