"""The `emfuse` command: fit, score and sample mixtures of files, without writing Python.

Results go to stdout, messages to stderr, each in one line. Exit codes: 0 done; 1 the data or the fit failed; 2 the command
line is wrong; 130 interrupted; 141 nobody reads the output. What the command line alone shows is a 2, what took a file a 1.

Only public names of the package are used here.

Layer 5.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, NoReturn, cast

import numpy as np

import emfuse
from emfuse import engines, kernels, stopping, tables, threads
from emfuse.structures import ALIASES, ALL_STRUCTURES

INTERRUPTED, UNREAD = 130, 141  # 128 + SIGINT, 128 + SIGPIPE: what a shell reports


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    argv : arguments without the program's name; None takes those of the process

    Raises SystemExit for --help, --version and a wrong command line, as argparse does.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a plus-minus sign must not end the program on an ASCII terminal
    args = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            args.run(args)
            if sys.stdout is not None:
                sys.stdout.flush()
            return 0
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            _drop_stdout()
            return UNREAD
        except OSError as error:
            _drop_stdout()
            _say("error", f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error)
        except (ValueError, TypeError, ImportError) as error:
            _say("error", error)
        except MemoryError as error:
            _say("error", f"not enough memory: {error}")
    return 1


def _say(kind: str, message: object) -> None:
    print(f"emfuse: {kind}: {' '.join(str(message).split())}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _say("warning", message)


def _drop_stdout() -> None:
    """Send what is still to be written nowhere, or the interpreter would complain about it when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


# ---------------------------------------------------------------- commands


def _demo(args: argparse.Namespace) -> None:
    table = tables.read(str(resources.files("emfuse").joinpath("faithful.csv")))
    names, waiting = cast(list[str], table.names), table.X[:, 1]
    began = _ready()
    start = emfuse.Parameters.univariate([0.5, 0.5], [55.0, 80.0], [5.0, 5.0])
    one = emfuse.em(waiting, start, stop=stopping.GainBelow(1e-8), history=True)
    two = emfuse.fit(table.X, 2, random_state=0)
    seconds = time.perf_counter() - began
    print(
        f"Old Faithful: {len(table.X)} eruptions, how long each took and how long it was to the next, in minutes.\n\n"
        "Waiting times, 2 components, from weights 0.5 and 0.5, means 55 and 80, standard deviations 5 and 5:\n\n"
        f"{one.history}\n\n"
        f"{'Converged' if one.converged else 'Stopped'}: {one.reason}.\n\n"
        f"Eruptions and waiting times, 2 components, from k-means:\n\n{_mixture(two.parameters, names)}\n\n"
        f"log-likelihood {two.log_likelihood:.6f} nats after {two.sweeps} sweeps: {two.reason}.\n\n"
        f"Both fits took {1e3 * seconds:.3g} ms on {len(table.X)} rows with the '{kernels.active()}' build."
    )
    try:
        left, middle, right = emfuse.plots.panels(3)
    except ImportError:
        print('For the picture, install matplotlib: pip install "emfuse[plot]"')
        return
    emfuse.plots.density(one, waiting, ax=left, names=names[1:])
    emfuse.plots.components(two, table.X, ax=middle, names=names)
    emfuse.plots.trace(one, ax=right)
    _save(right.figure, args.out)
    print(f"The picture is in {args.out}")


def _fit(args: argparse.Namespace) -> None:
    for path in (args.out, args.plot, args.labels):  # before the fit: what is wrong is better known now
        _require_folder(path)
    panels = emfuse.plots.panels(2) if args.plot else []
    if panels and _kind(args.plot) not in (known := panels[0].figure.canvas.get_supported_filetypes()):
        raise ValueError(f"{args.plot}: a picture's name must end with one of {', '.join(known)}")
    table = tables.read(args.file, args.columns, weights=args.weights)
    began = _ready()
    fit = emfuse.fit(
        table.X,
        args.k,
        structure=args.structure,
        sample_weight=table.weights,
        random_state=args.seed,
        init=args.init,
        n_init=args.n_init,
        stop=stopping.first_of(stopping.Within(1e-6), stopping.SweepLimit(args.max_sweeps)),
        reg_covar=args.reg_covar,
        history=args.history,
        n_threads=args.threads,
        verbose=args.verbose,
    )
    seconds = time.perf_counter() - began
    p = fit.parameters
    if args.history:
        print(f"{fit.history}\n")
    print(f"rows             {len(table.X)}" + (f", of total weight {fit.statistics.weight:.10g}" if args.weights else ""))
    print(f"columns          {', '.join(table.called)}")
    print(f"components       {p.n_components}, covariances {p.structure}\n\n{_mixture(p, table.called)}\n")
    print(f"log-likelihood   {fit.log_likelihood:.6f} nats, {fit.log_likelihood / fit.statistics.weight:.6f} a row")
    print(f"free parameters  {fit.free_parameters}\nAIC              {fit.aic:.4f}\nBIC              {fit.bic:.4f}")
    print(f"stopped          {'converged' if fit.converged else 'before convergence'}: {fit.reason}")
    print(f"sweeps           {fit.sweeps}")
    print(f"time             {seconds:.3g} s, build '{kernels.active()}', threads {threads.thread_count(args.threads)}")
    if not fit.converged:
        _say("warning", f"the fit did not converge: {fit.reason}; raise --max-sweeps, or ask for fewer components")
    if args.out:
        content = p.as_dict() | ({"columns": table.names} if table.names else {})
        with tables.replacing(args.out) as out:
            out.write(json.dumps(content, indent=1).encode() + b"\n")
        print(f"model            {args.out}")
    if args.labels:
        with tables.replacing(args.labels) as out:
            out.write(b"label\n")
            tables.write_rows(fit.predict(table.X)[:, None], out)
        print(f"labels           {args.labels}")
    if panels:
        if p.n_features == 1:
            emfuse.plots.density(fit, table.X, ax=panels[0], names=table.called, sample_weight=table.weights)
        else:
            emfuse.plots.components(fit, table.X, ax=panels[0], names=table.called)
        emfuse.plots.trace(fit, ax=panels[1])
        _save(panels[0].figure, args.plot)
        print(f"picture          {args.plot}")


def _score(args: argparse.Namespace) -> None:
    _require_folder(args.out)
    p, names = _load_model(args.model)
    table = tables.read(args.file, args.columns, prefer=names)
    N, D = table.X.shape
    if p.n_features != D:
        raise ValueError(
            f"{args.file}: the model has {p.n_features} feature{'s' * (p.n_features > 1)}, and {D} column{'s' * (D > 1)} "
            f"would be scored: {', '.join(table.called)}; choose with --columns"
        )
    log_density = engines.evaluate(table.X, p.factors, log_density=True).log_density
    assert log_density is not None
    total = float(log_density.sum())
    if args.out:
        with tables.replacing(args.out) as out:
            out.write(f"log_density,label,{','.join(f'p{k}' for k in range(p.n_components))}\n".encode())
            for start in range(0, N, tables.ROWS_AT_ONCE):
                part = table.X[start : start + tables.ROWS_AT_ONCE]
                found = engines.evaluate(part, p.factors, log_density=True, labels=True, responsibilities=True)
                assert found.log_density is not None and found.labels is not None and found.responsibilities is not None
                each = zip(found.log_density.tolist(), found.labels.tolist(), found.responsibilities.tolist(), strict=True)
                lines = [f"{density!r},{label},{','.join(map(repr, shares))}\n" for density, label, shares in each]
                out.write("".join(lines).encode())
    print(f"rows                 {N}\ncolumns              {', '.join(table.called)}")
    print(f"log-likelihood       {total:.6f} nats\nmean log-likelihood  {total / N:.9f} nats a row")
    if args.out:
        print(f"scores               {args.out}")


def _sample(args: argparse.Namespace) -> None:
    _require_folder(args.out)
    p, names = _load_model(args.model)
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


def _kernels(args: argparse.Namespace) -> None:
    runnable, refused = kernels.runnable(), kernels.not_runnable()
    failure: ValueError | None = None
    try:
        active = kernels.active()
    except ValueError as error:  # the variable names a build that does not run: the table says which ones do
        active, failure = "", error
    print(f"emfuse {emfuse.__version__}, NumPy {np.__version__}, Python {platform.python_version()}, {platform.platform()}\n")
    names = [*runnable, *refused]
    for name in names:
        state = f"no: {refused[name]}" if name in refused else "runs here, in use" if name == active else "runs here"
        note = " (pure NumPy, slow)" if name == kernels.REFERENCE else ""
        print(f"{'*' if name == active else ' '} {name.ljust(max(map(len, names)))}  {state}{note}")
    print(f"\n{kernels.VARIABLE}=NAME chooses another.")
    if failure:
        raise failure
    print(f"threads: {threads.thread_count()}; {threads.VARIABLE}=N chooses another number.")


def _ready() -> float:
    """Return the time, once what the first mixture loads (SciPy's LAPACK) is loaded: that is no part of a fit."""
    emfuse.Parameters([1.0], [[0.0, 0.0]], [np.eye(2)])
    return time.perf_counter()


def _mixture(p: emfuse.Parameters, names: Sequence[str]) -> str:
    """Return a mixture as a table, components down or across, whichever is narrower."""
    cells = [["component", "weight", *names]]
    for k in range(p.n_components):
        numbers = [f"{mean:.6g} ± {sd:.4g}" for mean, sd in zip(p.means[k], p.sds[k], strict=True)]
        cells.append([str(k), f"{p.weights[k]:.4f}", *numbers])
    if p.n_features > p.n_components:
        cells = [list(column) for column in zip(*cells, strict=True)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, "(mean ± standard deviation)"])


def _load_model(path: str) -> tuple[emfuse.Parameters, list[str] | None]:
    """Read what `fit --out` or `Parameters.save` wrote: the mixture, and the names of its columns where known."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        p = emfuse.Parameters.from_dict(content)
        names = content.get("columns")
        if names is not None and not (
            isinstance(names, list) and len(names) == p.n_features and all(isinstance(name, str) for name in names)
        ):
            raise ValueError(f'"columns" must be {p.n_features} names, one a feature, got {names!r:.60}')
        return p, names
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def _require_folder(path: str | None) -> None:
    folder = os.path.dirname(os.path.realpath(path)) if path else "."
    if path and not os.path.exists(path) and not os.path.isdir(folder):
        raise ValueError(f"{path}: there is no folder {folder}")


def _save(figure: Any, path: str) -> None:
    with tables.replacing(path) as out:
        figure.savefig(out, format=_kind(path), dpi=150)


def _kind(path: str) -> str:
    return os.path.splitext(path)[1].lstrip(".").lower() or "png"


# ---------------------------------------------------------------- the command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"emfuse: error: {message}; see '{self.prog} --help'\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="emfuse",
        description="Fit Gaussian mixtures to files by expectation-maximisation.",
        epilog="example:\n  emfuse fit faithful.csv -k 2 --out model.json --plot fit.png\n\n'emfuse COMMAND --help' has more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"emfuse {emfuse.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")

    def command(name: str, run: Callable[[argparse.Namespace], None], summary: str, example: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        made.set_defaults(run=run)
        return made

    rows = "CSV, TSV or other text (.gz too, header or not), .npy, .npz or FILE.npz:NAME; - is CSV on stdin"
    chosen = "columns to use: names from the header, or numbers from 0"

    demo = command("demo", _demo, "fit the Old Faithful geyser and draw it", "emfuse demo --out faithful.png")
    demo.add_argument("--out", metavar="PNG", default="faithful.png", help="the picture (default: %(default)s)")

    fit = command("fit", _fit, "fit a mixture to the rows of a file", "emfuse fit faithful.csv -k 2 --seed 1 --out model.json")
    fit.add_argument("file", metavar="FILE", help=rows)
    fit.add_argument("-k", metavar="K", type=_count, required=True, help="number of components")
    fit.add_argument("--columns", metavar="A,B", type=_names, help=f"{chosen} (default: all)")
    fit.add_argument("--weights", metavar="COL", help="column of row weights, name or number; weight 2 is the row twice")
    fit.add_argument(
        "--structure",
        metavar="NAME",
        choices=(*ALL_STRUCTURES, *ALIASES),
        default="full",
        help="of covariances: full, tied, diag, spherical, or one of mclust's, such as VVE (default: %(default)s)",
    )
    fit.add_argument("--seed", metavar="N", type=_whole, help="seeds the start (default: the same start every time)")
    fit.add_argument(
        "--init",
        choices=("short_runs", "kmeans", "kmeans++", "quantiles", "random_rows", "random"),
        default="short_runs",
        help="the start (default: %(default)s)",
    )
    fit.add_argument("--n-init", metavar="N", type=_count, default=1, help="starts, of which the best is kept (default: 1)")
    fit.add_argument(
        "--reg-covar", metavar="X", type=_amount, default=0.0, help="added to every variance, data units squared (default: 0)"
    )
    fit.add_argument("--max-sweeps", metavar="N", type=_count, default=10_000, help="walks over the rows (default: %(default)s)")
    fit.add_argument("--threads", metavar="N", type=_count, help="default: all cores; the answer is the same for any number")
    fit.add_argument("--history", action="store_true", help="print weights, means and standard deviations after every sweep")
    fit.add_argument("--out", metavar="JSON", help="write the model, for score and sample")
    fit.add_argument("--plot", metavar="PNG", help="draw the fit (.png, .pdf or .svg)")
    fit.add_argument("--labels", metavar="CSV", help="write the most likely component of each row")
    fit.add_argument("--verbose", action="store_true", help="show progress on stderr")

    score = command(
        "score", _score, "compute the log-likelihood of rows under a model", "emfuse score model.json new.csv --out scores.csv"
    )
    score.add_argument("model", metavar="MODEL", help="what 'fit --out' wrote")
    score.add_argument("file", metavar="FILE", help=rows)
    score.add_argument("--columns", metavar="A,B", type=_names, help=f"{chosen} (default: the model's, by name; else all)")
    score.add_argument("--out", metavar="CSV", help="write log density, label and responsibilities p0, p1, ... of each row")

    sample = command("sample", _sample, "draw rows from a model", "emfuse sample model.json -n 1000 --seed 1 > rows.csv")
    sample.add_argument("model", metavar="MODEL", help="what 'fit --out' wrote")
    sample.add_argument("-n", metavar="N", type=_count, required=True, help="number of rows")
    sample.add_argument("--seed", metavar="S", type=_whole, help="draw the same rows again (default: others each time)")
    sample.add_argument("--out", metavar="FILE", default="-", help=".csv or .npy (default: CSV on stdout)")

    command("kernels", _kernels, "say which builds of the pass run here", f"{kernels.VARIABLE}=baseline emfuse kernels")
    return parser


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _amount(text: str) -> float:
    value = tables.number(text)
    if value is None or not 0.0 <= value < np.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


def _names(text: str) -> list[str]:
    names = [cell.strip() for cell in next(csv.reader([text]), [])]
    if not names or "" in names:
        raise argparse.ArgumentTypeError(f"must be names or numbers with commas between them, got {text!r}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
