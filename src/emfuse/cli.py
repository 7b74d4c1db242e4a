"""The `emfuse` command: fit, select, score, sample and draw mixtures of files, without writing Python.

Results go to stdout, messages to stderr, each in one line. Exit codes: 0 done; 1 the data or the fit failed; 2 the command
line is wrong; 130 interrupted; 141 nobody reads the output. What the command line alone shows is a 2, what took a file a 1.

Here are the commands and their options; what their values mean is in `emfuse.options`, what is done in `emfuse.commands`.

Layer 5.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import emfuse
from emfuse import commands, completion, kernels, options, report
from emfuse.accelerate import ACCELERATORS
from emfuse.collapse import POLICIES
from emfuse.em import VARIANCE_FLOOR
from emfuse.selection import CRITERIA, INITS
from emfuse.structures import ALIASES, ALL_STRUCTURES, STRUCTURES
from emfuse.uncertainty import METHODS

Run = Callable[[argparse.Namespace], None]
Check = Callable[[argparse.Namespace, options.Refuse], None]

INTERRUPTED, UNREAD = 130, 141  # 128 + SIGINT, 128 + SIGPIPE: what a shell reports
KINDS = ("density", "components", "uncertainty", "responsibilities", "trace")
MOST_COLUMNS = 100  # of help, however wide the terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    argv : arguments without the program's name; None takes those of the process

    Raises SystemExit for --help, --version and a wrong command line, as argparse does.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a plus-minus sign must not end the program on an ASCII terminal
    args = _parsed(argv)
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
            report.say("error", f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error)
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            report.say("error", error)
        except MemoryError as error:
            report.say("error", f"not enough memory: {error}")
    return 1


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    report.say("warning", message)


def _drop_stdout() -> None:
    """Send what is still to be written nowhere, or the interpreter would complain about it when it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


# ---------------------------------------------------------------- the command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            message += "; write --option=VALUE where it begins with a minus sign"
        self.exit(2, f"emfuse: error: {message}; see '{self.prog} --help'\n")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args, others = parser.parse_known_args(argv)
    if others and (not hasattr(args, "files") or any(other.startswith("-") for other in others)):
        args.parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:  # files after an option, which argparse does not take for more of those before it
        args.files += others
    options.check_stdout(args, args.parser.error)
    if args.check is not None:
        args.check(args, args.parser.error)
    return args


def _parser() -> _Parser:
    parser = _Parser(
        prog="emfuse",
        description="Fit Gaussian mixtures to files by expectation-maximisation.",
        epilog="for example:\n  emfuse fit faithful.csv -k 2 --out model.json\n\n'emfuse COMMAND --help' has more.",
        formatter_class=_help,
        allow_abbrev=False,
    )
    parser.set_defaults(parser=parser)
    parser.add_argument("--version", action="version", version=f"emfuse {emfuse.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for add in (_add_fit, _add_select, _add_score, _add_sample, _add_plot, _add_kernels, _add_demo, _add_completion):
        add(subparsers)
    return parser


def _help(prog: str) -> argparse.HelpFormatter:
    width = min(MOST_COLUMNS, shutil.get_terminal_size().columns)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=26, width=width - 2)


def _command(subparsers: Any, run: Run, usage: str, summary: str, more: str, check: Check | None = None) -> _Parser:
    """Add a command.

    run : function            what it does
    usage, summary, more      how it is written, what it does, and what stands below its options in the help
    check : function or None  (args, error): calls `error` where options contradict each other
    """
    made: _Parser = subparsers.add_parser(
        usage.split()[0],
        help=summary,
        usage=f"emfuse {usage}",
        description=summary[0].upper() + summary[1:] + ".",
        epilog=more,
        formatter_class=_help,
        allow_abbrev=False,
    )
    made.set_defaults(run=run, parser=made, check=check)
    return made


def _add_fit(subparsers: Any) -> None:
    made = _command(
        subparsers,
        commands.fit,
        "fit FILE [FILE ...] -k K [options]",
        "fit a mixture to the rows of files",
        """\
for example:
  emfuse fit faithful.csv -k 2 --out model.json --plot fit.png
  emfuse fit faithful.csv -k 2 --structure VEV --seed 1 --n-init 10 --summary
  emfuse fit faithful.csv -k 2 --columns waiting --sds a,a --film fit.gif
  emfuse fit faithful.csv -k 2 --standard-errors information
  emfuse fit faithful.csv --start model.json --json
  emfuse fit 'data/*.parquet' -k 8 --columns a,b,c --memory-limit 2G
  emfuse fit 'data/*.parquet' -k 8 --columns a,b,c --workers 4 --labels k.csv

entries, one a component (--means, --sds, --covariances, --fix-weights):
  None is free. A number is fixed; of several features, as many numbers with
  spaces between them. A letter is equal to every other one like it; 2a and -a
  are multiples of it.

keys of --json:
  those of a model's file, which --out writes and other commands read: format,
  version, structure, weights, means, covariances, columns (where they have
  names), fit (rows, weight, log_likelihood, free_parameters, aic, bic,
  converged, reason, sweeps, distance, repairs, scores, trace; log-likelihoods
  in nats); data (files, how, bytes, limit), build, threads, seconds, files
  (those written), emfuse (the version). With --history, history (of each sweep:
  sweep, log_likelihood, weights, means, covariances). With --standard-errors,
  standard_errors (method, level, parameters: of each name, estimate,
  standard_error, lower, upper). What is not known is null.
""",
        options.check_fit,
    )
    group = made.add_argument_group("rows")
    _add_rows(group, "all")
    _add_weights(group)

    group = made.add_argument_group("model")
    group.add_argument("-k", metavar="K", type=options.count, help="number of components")
    group.add_argument(
        "--structure",
        metavar="NAME",
        choices=(*ALL_STRUCTURES, *ALIASES),
        help="of covariances: full, tied, diag, spherical, or one of mclust's, such as VVE (default: full)",
    )
    group.add_argument("--sd", metavar="X", type=options.positive, help="known standard deviation of all components; one feature")
    group.add_argument("--sds", metavar="A,B", type=options.entries, help="standard deviations, entries like a,3a; one feature")
    group.add_argument("--means", metavar="A,B", type=options.entries, help="means, entries like 0,None,a")
    group.add_argument("--covariances", metavar="A,B", type=options.entries, help="covariances, entries like a,a,None")
    group.add_argument("--fix-weights", metavar="A,B", type=options.entries, help="weights of components, entries like 0.5,None")
    group.add_argument(
        "--freeze", metavar="K,K", type=options.numbers, help="components, from 0, that stay as they are in --start"
    )
    group.add_argument(
        "--variance-floor",
        metavar="X",
        type=options.amount,
        default=VARIANCE_FLOOR,
        help="share of all rows that each component has more, spread as these are (default: %(default)s)",
    )
    group.add_argument(
        "--reg-covar",
        metavar="X",
        type=options.amount,
        default=0.0,
        help="added to every variance, data units squared (default: 0)",
    )

    group = made.add_argument_group("start")
    group.add_argument("--start", metavar="MODEL", help="begin with this model, instead of -k and all below")
    _add_start(group, default=None)

    group = made.add_argument_group("the way, and its end")
    group.add_argument(
        "--acceleration",
        choices=("auto", *ACCELERATORS, "none"),
        default="auto",
        help="of EM's steps; none is plain EM, as auto is with --reg-covar (default: %(default)s)",
    )
    group.add_argument(
        "--on-collapse",
        choices=POLICIES,
        default="restart",
        help="what to do about a component that shrinks onto a row: fail, start it again elsewhere, go on without it, or let "
        "it rest on the variance floor (default: %(default)s)",
    )
    group.add_argument(
        "--within", metavar="NATS", type=options.positive, help="stop so near the maximum, by estimate (default: 1e-6)"
    )
    group.add_argument(
        "--gain", metavar="NATS", type=options.positive, help="stop when a sweep gains less than this for each row"
    )
    group.add_argument("--steps", metavar="N", type=options.whole, help="stop after exactly N M steps")
    group.add_argument("--max-sweeps", metavar="N", type=options.count, help="walks over the rows at most (default: 10000)")
    group.add_argument(
        "--time-limit", metavar="SECONDS", type=options.positive, help="stop at the first sweep that ends after this"
    )
    _add_threads(group)

    group = made.add_argument_group("more rows than memory holds")
    where = group.add_mutually_exclusive_group()
    _add_memory_limit(where)
    where.add_argument(
        "--workers", metavar="N", type=options.count, help="read and sweep the rows in N processes of this machine, by Dask"
    )
    where.add_argument("--dask", metavar="ADDRESS", help="the same on a Dask cluster: tcp://host:8786")
    group.add_argument(
        "--checkpoint", metavar="PATH", help="write where the fit is from time to time; the same command goes on from there"
    )

    group = made.add_argument_group("output")
    group.add_argument("--out", metavar="JSON", help="write the model, for the other commands")
    group.add_argument("--labels", metavar="CSV", help="write the most likely component of each row that was fitted")
    group.add_argument("--plot", metavar="PNG", help="draw the fit (.png, .pdf or .svg)")
    group.add_argument("--film", metavar="GIF", help="draw how it came about, sweep by sweep (.gif, .mp4 or a folder)")
    group.add_argument("--history", action="store_true", help="print weights, means and standard deviations after every sweep")
    group.add_argument("--standard-errors", choices=METHODS, help="print standard errors, and intervals of 95%%, found this way")
    how = group.add_mutually_exclusive_group()
    how.add_argument("--summary", action="store_true", help="print a summary like R's instead")
    _add_json(how)
    _add_verbose(group)


def _add_select(subparsers: Any) -> None:
    made = _command(
        subparsers,
        commands.select,
        "select FILE [FILE ...] [options]",
        "choose the number of components, and the structure of their covariances",
        """\
for example:
  emfuse select faithful.csv -k 1:6 --plot bic.png --out best.json
  emfuse select faithful.csv -k 1,2,4 --structures full,tied,VEV --criterion icl

keys of --json:
  those of 'emfuse fit --json' for the best model, but for build and threads;
  selection (criterion, components, structure, why, and models: of each K,
  structure, log_likelihood, free_parameters, aic, bic, icl, converged, reason,
  sweeps, seconds, doubtful).
""",
    )
    group = made.add_argument_group("rows")
    _add_rows(group, "all")
    _add_weights(group)

    group = made.add_argument_group("models")
    group.add_argument(
        "-k", metavar="K", type=options.ranges, default=range(1, 10), help="numbers of components: 1:9, or 1,2,4 (default: 1:9)"
    )
    group.add_argument(
        "--structures",
        metavar="A,B",
        type=options.structures,
        default=list(STRUCTURES),
        help="of covariances, or all (default: full,tied,diag,spherical)",
    )
    group.add_argument("--criterion", choices=CRITERIA, default="bic", help="the smallest is best (default: %(default)s)")
    _add_start(group, default="short_runs")
    group.add_argument(
        "--variance-floor",
        metavar="X",
        type=options.amount,
        default=VARIANCE_FLOOR,
        help="as in 'emfuse fit' (default: %(default)s)",
    )
    _add_threads(group)

    group = made.add_argument_group("output")
    group.add_argument("--out", metavar="JSON", help="write the best model")
    group.add_argument("--plot", metavar="PNG", help="draw the criterion (.png, .pdf or .svg)")
    _add_json(group)
    _add_verbose(group)


def _add_score(subparsers: Any) -> None:
    made = _command(
        subparsers,
        commands.score,
        "score MODEL FILE [FILE ...] [options]",
        "compute the log-likelihood of rows under a model",
        """\
for example:
  emfuse score model.json faithful.csv --out scores.csv

keys of --json:
  rows, columns, log_likelihood, mean_log_likelihood (nats), data, files, emfuse
""",
    )
    made.add_argument("model", metavar="MODEL", help="what 'fit --out' wrote")
    _add_rows(made, "the model's, by name; else all")
    _add_memory_limit(made)
    _add_threads(made)
    made.add_argument("--out", metavar="CSV", help="write log density, label and responsibilities p0, p1, ... of each row")
    _add_json(made)


def _add_sample(subparsers: Any) -> None:
    made = _command(
        subparsers,
        commands.sample,
        "sample MODEL -n N [options]",
        "draw rows from a model",
        """\
for example:
  emfuse sample model.json -n 1000 --seed 1 > rows.csv

There is no --json: the rows themselves are for machines.
""",
    )
    made.add_argument("model", metavar="MODEL", help="what 'fit --out' wrote")
    made.add_argument("-n", metavar="N", type=options.count, required=True, help="number of rows")
    made.add_argument("--seed", metavar="S", type=options.whole, help="draw the same rows again (default: others each time)")
    made.add_argument("--out", metavar="FILE", default="-", help=".csv or .npy (default: CSV on stdout)")


def _add_plot(subparsers: Any) -> None:
    made = _command(
        subparsers,
        commands.plot,
        "plot MODEL [FILE ...] --out PNG [options]",
        "draw a model, over rows or by itself",
        """\
for example:
  emfuse plot model.json faithful.csv --out model.png
  emfuse plot model.json faithful.csv --kind uncertainty --out doubt.svg
  emfuse plot model.json --kind trace --out trace.png

kinds:
  density          over a histogram of one feature; contours of two
  components       ellipses of two features, or a scatter matrix of more
  responsibilities of each component for the rows
  uncertainty      which rows are between components
  trace            the log-likelihood by sweep

keys of --json:
  kind, columns, files, emfuse
""",
        options.check_plot,
    )
    made.add_argument("model", metavar="MODEL", help="what 'fit --out' wrote")
    _add_rows(made, "the model's, by name; else all", least="*")
    made.add_argument("--kind", choices=KINDS, help="default: density of one feature, components of more")
    made.add_argument(
        "--features", metavar="A,B", type=options.columns, help="features to draw, by name or number (default: the first)"
    )
    made.add_argument("--out", metavar="PNG", required=True, help="the picture (.png, .pdf or .svg)")
    _add_json(made)


def _add_kernels(subparsers: Any) -> None:
    made = _command(
        subparsers,
        commands.list_kernels,
        "kernels [--json]",
        "say which builds of the pass run here",
        f"""\
for example:
  {kernels.VARIABLE}=baseline emfuse kernels

keys of --json:
  emfuse, numpy, python, platform, threads, builds (of each name, runs, active,
  reason)
""",
    )
    _add_json(made)


def _add_demo(subparsers: Any) -> None:
    made = _command(
        subparsers,
        commands.demo,
        "demo [--out PNG] [--json]",
        "fit the Old Faithful geyser and draw it",
        """\
for example:
  emfuse demo --out faithful.png

keys of --json:
  waiting and both, each with those of a model's file ('emfuse fit --help'), and
  waiting with history; seconds, files, emfuse
""",
    )
    made.add_argument("--out", metavar="PNG", default="faithful.png", help="the picture (default: %(default)s)")
    _add_json(made)


def _add_completion(subparsers: Any) -> None:
    made = _command(
        subparsers,
        lambda args: print(completion.script(args.shell, _parser()), end=""),
        "completion {bash,zsh,fish}",
        "print what makes a shell complete this command",
        """\
for example:
  emfuse completion bash

for good:
  bash   echo 'source <(emfuse completion bash)' >> ~/.bashrc
  zsh    echo 'source <(emfuse completion zsh)' >> ~/.zshrc    (below compinit)
  fish   emfuse completion fish > ~/.config/fish/completions/emfuse.fish
""",
    )
    made.add_argument("shell", choices=completion.SHELLS, help="which shell")


# ---------------------------------------------------------------- options that commands have in common


def _add_rows(group: Any, default: str, least: str = "+") -> None:
    group.add_argument(
        "files",
        metavar="FILE",
        nargs=least,
        help="CSV, TSV or other text (.gz too, header or not), .npy, .npz or FILE.npz:NAME, Parquet; wildcards; a folder of "
        ".npy or Parquet; - is CSV on stdin",
    )
    group.add_argument(
        "--columns",
        metavar="A,B",
        type=options.columns,
        help=f"columns to use: names from the header, or numbers from 0 (default: {default})",
    )
    group.add_argument(
        "--missing",
        choices=("raise", "drop"),
        default="raise",
        help="rows with a value that is empty, null or NaN: fail, or leave them out (default: %(default)s)",
    )


def _add_weights(group: Any) -> None:
    group.add_argument("--weights", metavar="COL", help="column of row weights, name or number; weight 2 is the row twice")


def _add_start(group: Any, default: str | None) -> None:
    """Add how to start; `default` None is short_runs too, where it must be known whether --init was given."""
    group.add_argument("--init", choices=INITS, default=default, help="the start (default: short_runs)")
    group.add_argument(
        "--n-init", metavar="N", type=options.count, default=default and 1, help="starts, of which the best is kept (default: 1)"
    )
    group.add_argument("--seed", metavar="N", type=options.whole, help="seeds the start (default: the same start every time)")


def _add_threads(group: Any) -> None:
    group.add_argument(
        "--threads", metavar="N", type=options.count, help="default: all cores; the answer is the same for any number"
    )


def _add_memory_limit(group: Any) -> None:
    group.add_argument(
        "--memory-limit",
        metavar="BYTES",
        type=options.memory,
        help="load rows up to this, like 500M or 2G; read more of them again for every sweep, from .npy and Parquet (default: "
        "half of memory)",
    )


def _add_json(group: Any) -> None:
    group.add_argument("--json", action="store_true", help="print one JSON document instead, for machines")


def _add_verbose(group: Any) -> None:
    group.add_argument("--verbose", action="store_true", help="show progress on stderr (default: of long work, on a terminal)")


if __name__ == "__main__":
    raise SystemExit(main())
