"""What each command does: it reads, asks the library, says what came of it, and writes files.

`args` has an attribute for each option, under its name. Of the package itself only public names are used.

Layer 5.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib import resources
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

import emfuse
from emfuse import kernels, report, sources, stopping, tables, threads
from emfuse.report import line
from emfuse.sources import Ask, Source
from emfuse.stopping import Rule
from emfuse.summary import summary

Writer = tuple[str, str, Callable[[str], object]]  # an option that names a file, what the file is called, and what writes it

LONG = 10_000_000  # numbers, times components: a sweep over fewer takes milliseconds


def demo(args: Namespace) -> None:
    """Fit Old Faithful, and draw it."""
    tell = _teller(args)
    table = tables.read(str(resources.files("emfuse").joinpath("faithful.csv")))
    N, names, waiting = len(table.X), cast(list[str], table.names), table.X[:, 1]
    began = _ready()
    start = emfuse.Parameters.univariate([0.5, 0.5], [55.0, 80.0], [5.0, 5.0])
    one = emfuse.em(waiting, start, stop=stopping.GainBelow(1e-8), history=True)
    two = emfuse.fit(table.X, 2, random_state=0)
    seconds = time.perf_counter() - began
    tell(
        f"Old Faithful: {N} eruptions, how long each took and how long it was to the next, in minutes.\n\n"
        "Waiting times, 2 components, from weights 0.5 and 0.5, means 55 and 80, standard deviations 5 and 5:\n\n"
        f"{one.history}\n\n"
        f"{'Converged' if one.converged else 'Stopped'}: {one.reason}.\n\n"
        f"Eruptions and waiting times, 2 components, from k-means:\n\n{report.mixture(two.parameters, names)}\n\n"
        f"log-likelihood {two.log_likelihood:.6f} nats after {two.sweeps} sweeps: {two.reason}.\n\n"
        f"Both fits took {1e3 * seconds:.3g} ms on {N} rows with the '{kernels.active()}' build."
    )
    files = {}
    try:
        left, middle, right = emfuse.plots.panels(3)
    except ImportError:
        tell('For the picture, install matplotlib: pip install "emfuse[plot]"')
    else:
        emfuse.plots.density(one, waiting, ax=left, names=names[1:])
        emfuse.plots.components(two, table.X, ax=middle, names=names)
        emfuse.plots.trace(one, ax=right)
        _save(right.figure, args.out)
        files["out"] = args.out
        tell(f"The picture is in {args.out}")
    if args.json:
        waits = report.model(one.parameters, names[1:], one, N) | {"history": report.history(one.history or emfuse.History())}
        _print_json({"waiting": waits, "both": report.model(two.parameters, names, two, N), "seconds": seconds}, files)


def fit(args: Namespace) -> None:
    """Fit a mixture to the rows of files."""
    tell = _teller(args)
    panels = _panels(args.plot, 2)  # before the fit: what is wrong is better known now
    for path in (args.out, args.labels, args.film, args.checkpoint):
        _require_folder(path)
    _require_film(args.film)
    start, names, _ = _load_model(args.start) if args.start else (None, None, {})
    with ExitStack() as stack:
        source = _source(args, Ask(args.columns, args.weights, names, args.missing), stack)
        if args.standard_errors and source.how != "memory":
            raise ValueError(f"--standard-errors takes rows in memory, and these are read {source.note}; raise --memory-limit")
        began = _ready()
        made = _fitted(args, source, start)
        seconds = time.perf_counter() - began
        p, weight = made.parameters, made.statistics.weight
        rows = source.count if source.count is not None or args.weights else round(weight)
        if args.history:
            tell(f"{made.history}\n")
        if args.summary:
            tell(summary(made, names=source.called))
        else:
            _tell_rows(tell, source, rows, weight if args.weights else None)
            tell(report.of_fit(made, source.called))
            tell(line("time", f"{seconds:.3g} s, build '{kernels.active()}', threads {threads.thread_count(args.threads)}"))
        if not made.converged and args.steps is None:
            longer = "--time-limit" if made.reason.startswith("the time") else "--max-sweeps"
            report.say("warning", f"the fit did not converge: {made.reason}; raise {longer}, or ask for fewer components")
        document = report.model(p, source.names, made, rows)
        writers: list[Writer] = [
            ("out", "model", lambda path: _write_json(document, path)),
            ("labels", "labels", lambda path: _write_labels(source, p, args.threads, path)),
            ("plot", "picture", lambda path: _draw_fit(made, source, panels, path)),
            ("film", "film", lambda path: emfuse.plots.film(made, source.some(), path, names=source.called)),
        ]
        files = _write(args, tell, writers)
        if args.history:
            document["history"] = report.history(made.history or emfuse.History())
        if args.standard_errors:
            options = {"sample_weight": source.weights, "n_threads": args.threads}
            errors = made.standard_errors(source.rows, method=args.standard_errors, **options)
            document["standard_errors"] = report.standard_errors(errors)
            tell(f"\n{errors}")
    if args.json:
        document |= {"data": _data(args, source), "build": kernels.active(), "threads": threads.thread_count(args.threads)}
        _print_json(document | {"seconds": seconds}, files)


def _fitted(args: Namespace, source: Source, start: emfuse.Parameters | None) -> emfuse.Fit:
    K = args.k if start is None else start.n_components
    return emfuse.fit(
        source.rows,
        K,
        structure=args.structure,
        sample_weight=source.weights,
        random_state=args.seed,
        init=args.init if start is None else start,
        n_init=args.n_init,
        stop=_rule(args),
        reg_covar=args.reg_covar,
        variance_floor=args.variance_floor,
        acceleration=None if args.acceleration == "none" else args.acceleration,
        constraints=args.constraints,
        sd=args.sd,
        on_collapse=args.on_collapse,
        history=args.history or args.film is not None,
        n_threads=args.threads,
        verbose=args.verbose or _is_long(source, K),
        checkpoint=args.checkpoint,
    )


def select(args: Namespace) -> None:
    """Fit mixtures of several structures and numbers of components, and choose."""
    tell = _teller(args)
    _require_folder(args.out)
    panels = _panels(args.plot, 1)
    source = sources.read(args.files, Ask(args.columns, args.weights, None, args.missing), whole=True)
    began = _ready()
    found = emfuse.select(
        source.rows,
        args.k,
        args.structures,
        args.criterion,
        n_init=args.n_init,
        init=args.init,
        sample_weight=source.weights,
        random_state=args.seed,
        variance_floor=args.variance_floor,
        n_threads=args.threads,
        verbose=args.verbose or _is_long(source, sum(args.k) * len(args.structures)),
    )
    seconds = time.perf_counter() - began
    p, rows = found.best.parameters, len(source.rows)
    _tell_rows(tell, source, rows, found.best.statistics.weight if args.weights else None)
    tell(line("models", f"{len(found.table)} in {seconds:.3g} s"))
    tell(f"\n{found.table!r}\n")
    tell(line("best", f"K = {found.K}, covariances {found.structure}"))
    tell(report.paragraph("why", report.why(found)))
    tell(f"\n{report.mixture(p, source.called)}\n")
    document = report.model(p, source.names, found.best, rows)
    writers: list[Writer] = [
        ("out", "model", lambda path: _write_json(document, path)),
        ("plot", "picture", lambda path: _save(emfuse.plots.selection(found, ax=panels[0]).figure, path)),
    ]
    files = _write(args, tell, writers)
    if args.json:
        more = {"selection": report.selection(found), "data": _data(args, source), "seconds": seconds}
        _print_json(document | more, files)


def score(args: Namespace) -> None:
    """Compute the log-likelihood of rows under a model."""
    tell = _teller(args)
    _require_folder(args.out)
    p, names, _ = _load_model(args.model)
    ask = Ask(args.columns, None, names, args.missing)
    source = sources.read(args.files, ask, limit=args.memory_limit, n_threads=args.threads)
    _require_features(p, source, args.files[0], "scored")
    want = dict.fromkeys(("labels", "responsibilities"), True) if args.out else {}
    total, N = 0.0, 0
    with tables.replacing(args.out) if args.out else contextlib.nullcontext() as out:
        if out is not None:
            out.write(f"log_density,label,{','.join(f'p{k}' for k in range(p.n_components))}\n".encode())
        for found in source.evaluate(p, n_threads=args.threads, log_density=True, **want):
            assert found.log_density is not None
            total += float(found.log_density.sum())
            N += len(found.log_density)
            if out is None:
                continue
            assert found.labels is not None and found.responsibilities is not None
            each = zip(found.log_density.tolist(), found.labels.tolist(), found.responsibilities.tolist(), strict=True)
            lines = [f"{density!r},{label},{','.join(map(repr, shares))}\n" for density, label, shares in each]
            out.write("".join(lines).encode())
    tell(f"rows                 {N}\ncolumns              {', '.join(source.called)}")
    tell(f"log-likelihood       {total:.6f} nats\nmean log-likelihood  {total / N:.9f} nats a row")
    if args.out:
        tell(f"scores               {args.out}")
    if args.json:
        said = {"rows": N, "columns": source.called, "log_likelihood": total, "mean_log_likelihood": total / N}
        _print_json(said | {"data": _data(args, source)}, {"out": args.out} if args.out else {})


def sample(args: Namespace) -> None:
    """Draw rows from a model."""
    _require_folder(args.out)
    p, names, _ = _load_model(args.model)
    random = np.random.default_rng(args.seed)
    X, _ = p.sample(args.n, random)
    X = X[random.permutation(len(X))]  # they come component by component, and the head of a file should be a sample too
    with tables.replacing(args.out) as out:
        if args.out.endswith(".npy"):
            np.save(out, X)
        else:
            if names:
                out.write(tables.csv_line(names))
            tables.write_rows(X, out)


def plot(args: Namespace) -> None:
    """Draw a model, over rows or not."""
    tell = _teller(args)
    (ax,) = _panels(args.out, 1)
    p, names, content = _load_model(args.model)
    source = None
    if args.files:
        source = sources.read(args.files, Ask(args.columns, None, names, args.missing))
        _require_features(p, source, args.files[0], "drawn")
    kind = args.kind or ("density" if p.n_features == 1 else "components")
    if kind == "trace":
        emfuse.plots.trace(_path(content, args.model), ax=ax)
    elif kind == "responsibilities" and source is None and p.n_features > 1:
        raise ValueError(f"--kind responsibilities of {p.n_features} features is drawn row by row: give a FILE")
    else:
        called = source.called if source is not None else names
        options: dict[str, Any] = {"names": called}
        if args.features:
            options["features"] = tables.choose(args.model, called, p.n_features, args.features, None, None)[0]
        getattr(emfuse.plots, kind)(p, None if source is None else source.some(), ax=ax, **options)
    _save(ax.figure, args.out)
    if args.out not in ("-", "/dev/stdout"):
        tell(f"The picture is in {args.out}")
    if args.json:
        _print_json({"kind": kind, "columns": None if source is None else source.called}, {"out": args.out})


def list_kernels(args: Namespace) -> None:
    """Say which builds of the pass run here."""
    runnable, refused = kernels.runnable(), kernels.not_runnable()
    failure: ValueError | None = None
    try:
        active = kernels.active()
    except ValueError as error:  # the variable names a build that does not run: the table says which ones do
        active, failure = "", error
    versions = {"emfuse": emfuse.__version__, "numpy": np.__version__, "python": platform.python_version()}
    if args.json:
        builds = [{"name": name, "runs": True, "active": name == active, "reason": None} for name in runnable]
        builds += [{"name": name, "runs": False, "active": False, "reason": why} for name, why in refused.items()]
        document = versions | {"platform": platform.platform(), "builds": builds}
        _print_json(document | {"threads": None if failure else threads.thread_count()})
    else:
        print("emfuse {emfuse}, NumPy {numpy}, Python {python}, {0}\n".format(platform.platform(), **versions))
        names = [*runnable, *refused]
        for name in names:
            state = f"no: {refused[name]}" if name in refused else "runs here, in use" if name == active else "runs here"
            note = " (pure NumPy, slow)" if name == kernels.REFERENCE else ""
            print(f"{'*' if name == active else ' '} {name.ljust(max(map(len, names)))}  {state}{note}")
        print(f"\n{kernels.VARIABLE}=NAME chooses another.")
    if failure:
        raise failure
    if not args.json:
        print(f"threads: {threads.thread_count()}; {threads.VARIABLE}=N chooses another number.")


# ---------------------------------------------------------------- what goes in


def _source(args: Namespace, ask: Ask, stack: ExitStack) -> Source:
    """Return the rows of a fit; the cluster that they are on, if they are, ends with the stack."""
    if args.dask is None and args.workers is None:
        return sources.read(args.files, ask, limit=args.memory_limit, n_threads=args.threads)
    return sources.on_workers(args.files, stack.enter_context(sources.cluster(args.dask, args.workers)), ask)


def _is_long(source: Source, components: int) -> bool:
    """Whether a fit takes so long that whoever sits at a terminal wants to see how far it is."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal and (source.how != "memory" or source.rows.size * components >= LONG)


def _rule(args: Namespace) -> Rule | int:
    """Return when to stop."""
    if args.steps is not None:
        return int(args.steps)
    rules: list[Rule] = []
    if args.gain is not None:
        rules.append(stopping.GainBelow(args.gain, per_row=True))
    if args.gain is None or args.within is not None:
        rules.append(stopping.Within(1e-6 if args.within is None else args.within))
    rules.append(stopping.SweepLimit(args.max_sweeps))
    if args.time_limit is not None:
        rules.append(stopping.TimeLimit(args.time_limit))
    return stopping.first_of(*rules)


def _load_model(path: str) -> tuple[emfuse.Parameters, list[str] | None, dict[str, Any]]:
    """Read a model's file: the mixture, the names of its columns where known, and all that is in it."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        p = emfuse.Parameters.from_dict(content)
        names = content.get("columns")
        if names is not None and not (
            isinstance(names, list) and len(names) == p.n_features and all(isinstance(name, str) for name in names)
        ):
            raise ValueError(f'"columns" must be {p.n_features} names, one a feature, got {names!r:.60}')
        return p, names, content
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def _path(content: dict[str, Any], path: str) -> Any:
    """Return what a model's file says of the fit, as `emfuse.plots.trace` wants it."""
    said: Any = content.get("fit")
    with contextlib.suppress(TypeError, KeyError, ValueError):
        trace = np.array(said["trace"], dtype=np.float64)
        if trace.ndim == 1 and trace.size:
            return SimpleNamespace(trace=trace, **{name: said[name] for name in ("sweeps", "reason", "converged")})
    raise ValueError(f"{path}: it does not say how it was fitted, which --kind trace draws; fit it again by 'emfuse fit --out'")


def _require_features(p: emfuse.Parameters, source: Source, file: str, used: str) -> None:
    D = len(source.called)
    if p.n_features != D:
        raise ValueError(
            f"{file}: the model has {p.n_features} feature{'s' * (p.n_features > 1)}, and {D} column{'s' * (D > 1)} "
            f"would be {used}: {', '.join(source.called)}; choose with --columns"
        )


def _require_folder(path: str | None) -> None:
    folder = os.path.dirname(os.path.realpath(path)) if path else "."
    if path and not os.path.exists(path) and not os.path.isdir(folder):
        raise ValueError(f"{path}: there is no folder {folder}")


def _require_film(path: str | None) -> None:
    if path and os.path.splitext(path)[1].lower() not in (".gif", ".mp4", "") and not os.path.isdir(path):
        raise ValueError(f"{path}: a film's name must end with .gif or .mp4, or be a folder's, for PNG files")


def _ready() -> float:
    """Return the time, once what the first mixture loads (SciPy's LAPACK) is loaded: that is no part of a fit."""
    emfuse.Parameters([1.0], [[0.0, 0.0]], [np.eye(2)])
    return time.perf_counter()


# ---------------------------------------------------------------- what comes out


def _teller(args: Namespace) -> Callable[[str], None]:
    """Return what says things to people, which with --json is nothing."""
    return (lambda text: None) if args.json else print


def _tell_rows(tell: Callable[[str], None], source: Source, rows: int | None, weight: float | None) -> None:
    """Say which rows these were; `weight` is the sum of theirs, where they have any."""
    count = "not counted" if rows is None else str(rows)
    tell(line("rows", count if weight is None else f"{count}, of total weight {weight:.10g}"))
    if source.note:
        tell(line("read", source.note))
    tell(line("columns", ", ".join(source.called)))


def _write(args: Namespace, tell: Callable[[str], None], writers: Sequence[Writer]) -> dict[str, str]:
    """Write the files that were asked for, say so, and return them by their options."""
    files: dict[str, str] = {}
    for option, called, write in writers:
        if path := getattr(args, option):
            write(path)
            files[option] = path
            tell(line(called, path))
    return files


def _print_json(document: dict[str, Any], files: dict[str, str] | None = None) -> None:
    """Print the document of --json, with the version, and the files that were written, by their options."""
    print(report.as_json(document | {"emfuse": emfuse.__version__} | ({} if files is None else {"files": files})))


def _data(args: Namespace, source: Source) -> dict[str, Any]:
    return {"files": args.files, "how": source.how, "bytes": source.size, "limit": source.limit}


def _write_json(document: dict[str, Any], path: str) -> None:
    with tables.replacing(path) as out:
        out.write(report.as_json(document).encode() + b"\n")


def _write_labels(source: Source, p: emfuse.Parameters, n_threads: int | None, path: str) -> None:
    with tables.replacing(path) as out:
        out.write(b"label\n")
        for labels in source.predict(p, n_threads=n_threads):
            tables.write_rows(labels[:, None], out)


def _draw_fit(made: emfuse.Fit, source: Source, panels: Sequence[Any], path: str) -> None:
    draw = emfuse.plots.density if made.parameters.n_features == 1 else emfuse.plots.components
    draw(made, source.some(), ax=panels[0], names=source.called)
    emfuse.plots.trace(made, ax=panels[1])
    _save(panels[0].figure, path)


def _panels(path: str | None, count: int) -> list[Any]:
    """Return axes for a picture of that name, where there is one. Raises ValueError where it could not be written."""
    if not path:
        return []
    _require_folder(path)
    panels = emfuse.plots.panels(count)
    if _kind(path) not in (known := panels[0].figure.canvas.get_supported_filetypes()):
        raise ValueError(f"{path}: a picture's name must end with one of {', '.join(known)}")
    return list(panels)


def _save(figure: Any, path: str) -> None:
    with tables.replacing(path) as out:
        figure.savefig(out, format=_kind(path), dpi=150)


def _kind(path: str) -> str:
    return os.path.splitext(path)[1].lstrip(".").lower() or "png"
