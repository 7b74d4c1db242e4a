"""How one EM iteration grows: with rows, features, components and threads.

    python -m bench.scaling --plot scaling.png              # some twenty minutes; writes results/<machine>/scaling.json
    python -m bench.scaling --quick --plot scaling.png      # under a minute: does it work? No figure to quote
    python -m bench.scaling --from-json FILE --plot scaling.png    # draw again

Answers are checked before the clock, as in the bench. A side ends where its next point would take more than half of the memory
that is free, or where a call of 6 iterations took more than `--limit` seconds; a line says so.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

from threadpoolctl import threadpool_limits

from bench import limits as machine_limits
from bench import machine as machines
from bench.cases import Case, problem
from bench.clock import LEAST_SECONDS_QUICK, LONG, MOST_SECONDS, SHORT, Record, Side, check, take_turns
from bench.peers import EMFUSE, find_peers
from emfuse import threads

MEMORY = 0.5  # of what is free
LIMIT, LIMIT_QUICK = 20.0, 1.0  # seconds
REPEATS, REPEATS_QUICK = 3, 1


class Panel(NamedTuple):
    """One quantity grows and the rest stays; `points` are (how much of it, the case, threads)."""

    of: str
    title: str
    points: list[tuple[int, Case, int]]


def panels(quick):
    """Where D or K is large there are fewer rows, but enough for every covariance and for EM to go on."""
    case = partial(Case, "scaling", structure="full", why="growth")
    rows = [10**3, 10**4, 10**5] if quick else [10**3, 3 * 10**3, 10**4, 3 * 10**4, 10**5, 10**6, 10**7, 10**8]
    features = [1, 4, 16, 64] if quick else [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    components = [1, 8, 64] if quick else [1, 3, 10, 30, 100, 300, 1000]
    cores = threads.thread_count()
    counts = sorted({cores, *(2**i for i in range(cores.bit_length()) if 2**i <= cores)})
    least, most = (4_000, 20_000) if quick else (20_000, 500_000)

    def between(n):
        return int(min(max(n, least), most))

    by_rows = [(n, case(rows=n, D=4, K=8), 1) for n in rows]
    by_features = [(D, case(rows=between(4e6 / D), D=D, K=4), 1) for D in features]
    by_components = [(K, case(rows=between(5e6 / K), D=4, K=K), 1) for K in components]
    middle = case(rows=most // 2, D=10, K=10)
    by_threads = [(n, middle, n) for n in counts]
    fewer = f"{least:,} to {most:,} rows"
    return [
        Panel("rows", "rows (D = 4, K = 8)", by_rows),
        Panel("features", f"features, D (K = 4; {fewer})", by_features),
        Panel("components", f"components, K (D = 4; {fewer})", by_components),
        Panel("threads", f"threads (D = 10, K = 10; {middle.rows:,} rows)", by_threads),
    ]


def main(arguments=None):
    options = parse(arguments)
    if options.from_json:
        content = json.loads(options.from_json.read_text(encoding="utf-8"))
    else:
        content = measure(options)
        if options.json:
            machines.write(options.json, content)
            print(f"written: {options.json}")
    if options.plot:
        draw(content, options.plot)
        print(f"written: {options.plot}")
    return 1 if content["failures"] else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description="How one EM iteration grows.")
    parser.add_argument("--quick", action="store_true", help="under a minute, and no figure to quote; writes only where told to")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help=f"of one call ({LIMIT:g}; {LIMIT_QUICK:g} with --quick)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw it")
    parser.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, draw what was written")
    machines.add_json(parser, "scaling")
    options = parser.parse_args(arguments)
    options.json = options.json or (None if options.quick else machines.results("scaling"))
    options.limit = options.limit or (LIMIT_QUICK if options.quick else LIMIT)
    return options


def measure(options):
    peers, skipped = find_peers()
    limits = machine_limits.measure()
    content = {"machine": machines.describe(peers), "limits": limits, "iterations": [SHORT, LONG], "quick": options.quick}
    content |= {"skipped": skipped, "failures": [], "ended": [], "panels": {}}
    print("ns for each row and component of one whole EM iteration, float64; in brackets, of a whole call of 6, by 6")
    with threadpool_limits(1):
        for panel in panels(options.quick):
            print(f"\n{panel.title}")
            content["panels"][panel.of] = {"title": panel.title, "points": list(points(panel, peers, limits, options, content))}
    print("\n" + "\n".join([*skipped, *content["ended"], *content["failures"]]))
    print(f"{machines.sentence(content['machine'])}; {machine_limits.sentence(limits)}")
    return content


def points(panel, peers, limits, options, content):
    """Yield what was seen at each point, for as long as there is somebody left."""
    left = {peer.name: peer for peer, _ in peers}

    def ends(name, why):
        del left[name]
        content["ended"].append(f"{name} ends {why}")

    for x, case, n_threads in panel.points:
        half = MEMORY * machines.available_memory()
        for name, peer in list(left.items()):
            needed = 8.0 * case.rows * case.D + peer.beyond(case)
            if needed > half:
                ends(name, f"before {x:,} {panel.of}: {needed / 1e9:.3g} GB, and half of what is free is {half / 1e9:.3g} GB")
        if EMFUSE.name not in left:
            return
        record, why = point(case, n_threads, left.values(), limits, options)
        if record is None:
            content["failures"].append(f"{x:,} {panel.of}: not timed: {why}")
            print(content["failures"][-1], flush=True)
            continue
        print(line(x, record), flush=True)
        yield record.as_dict() | {"x": x, "threads": n_threads}
        for name in list(left):
            if record.call(name) > options.limit and x != panel.points[-1][0]:
                ends(name, f"after {x:,} {panel.of}: a call took {record.call(name):.3g} s, and may take {options.limit:g} s")
        del record  # and the rows with it, before there are more


def point(case, n_threads, peers, limits, options):
    given = problem(case)
    sides = [Side(peer.name, given, partial(peer.run, n_threads=n_threads)) for peer in peers]
    checked, why = check(sides)
    if why:
        return None, why
    sides = [side._replace(once=checked[side.name]["check_seconds"] > options.limit) for side in sides]
    turns = take_turns(sides, REPEATS_QUICK if options.quick else REPEATS, LEAST_SECONDS_QUICK, MOST_SECONDS)
    floor = machine_limits.floor(case, limits)
    return Record(case, sides, checked, turns, floor and floor / n_threads), ""


def line(x, record):
    cells = [f"{x:12,} {record.case.rows:12,} rows"]
    for side in record.sides:
        call = 1e9 * record.call(side.name) / LONG / record.case.rows / record.case.K
        cells.append(f"{side.name} {record.shown(side.name)} ({call:.4g})")
    if record.floor:
        cells.append(f"floor {record.floor:.3g}")
    if len(record.sides) == 1:
        cells.append("alone, and so not checked against anybody")
    return "   ".join(cells)


# name -> colour (Okabe & Ito), line, marker: told apart in grey, too
STYLES = {
    "scikit-learn": ("#D55E00", "--", "^"),
    "oneDAL": ("#009E73", "-.", "s"),
    "emfuse": ("#0072B2", "-", "o"),
}


def draw(content, path):
    """Draw four panels, both axes logarithmic, all with the same unit upwards."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(9, 7.4), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True)
    for ax, (of, panel) in zip(axes.flat, content["panels"].items(), strict=True):
        for name, (colour, dashes, marker) in STYLES.items():
            seen = [p for p in panel["points"] if name in p["sides"]]
            if not seen:
                continue
            xs, sides = [p["x"] for p in seen], [p["sides"][name] for p in seen]
            ns = [side["ns"] for side in sides]
            ax.plot(xs, ns, color=colour, linestyle=dashes, marker=marker, ms=5, lw=1.8, label=name)
            if of == "rows":
                calls = [1e9 * side["call_seconds"] / LONG / p["rows"] / p["K"] for side, p in zip(sides, seen, strict=True)]
                label = f"{name}, whole call"
                ax.plot(xs, calls, color=colour, linestyle=":", marker=marker, ms=4, mfc="white", lw=1, label=label)
        floors = [(p["x"], p["floor_ns"]) for p in panel["points"] if p["floor_ns"]]
        if floors:
            ax.plot(*zip(*floors, strict=True), color="0.7", lw=4, solid_capstyle="butt", label="floor", zorder=1)
        ax.set(xscale="log", yscale="log")
        ax.set_title(panel["title"], loc="left", fontsize=10)
        ax.grid(which="major", color="0.88", lw=0.6)
        if of != "rows":
            xs = [p["x"] for p in panel["points"]]
            ax.set_xticks(xs, [str(x) for x in xs])
            ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter("{x:,g}")
    figure.supylabel("one EM iteration: ns for each row and component", fontsize=10)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    machine = content["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in STYLES if name in machine["versions"])
    made = f"{machine['cpu']}, {machine['cores']} cores, {machine['build']}; {versions}; one thread but for the last panel"
    how = f"whole call: with {LONG} iterations, by {LONG}" + ("; a quick run: no figures to quote" if content["quick"] else "")
    notes = [made, how, *content["ended"]]
    figure.supxlabel("\n".join(notes), fontsize=7, ha="left", x=0.01)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=92, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    raise SystemExit(main())
