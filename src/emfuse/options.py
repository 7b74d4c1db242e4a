"""What the words of a command line mean: the values that options take, and which options contradict each other.

Layer 5.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from emfuse import sources, tables
from emfuse.accelerate import ACCELERATORS
from emfuse.constraints import Constraints
from emfuse.structures import ALIASES, ALL_STRUCTURES

MOST_SWEEPS = 10_000
FROM_START = ("k", "structure", "init", "n_init")  # options of `fit` that --start takes the place of

Refuse = Callable[[str], NoReturn]


# ---------------------------------------------------------------- values: from text, or argparse.ArgumentTypeError


def whole(text: str) -> int:
    """Return a whole number of at least 0."""
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def amount(text: str) -> float:
    """Return a finite number of at least 0."""
    value = tables.number(text)
    if value is None or not 0.0 <= value < np.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


def positive(text: str) -> float:
    """Return a finite number above 0."""
    value = tables.number(text)
    if value is None or not 0.0 < value < np.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def columns(text: str) -> list[str]:
    """Return names, or numbers as text, from between commas; a name with a comma has quotes."""
    found = [cell.strip() for cell in next(csv.reader([text]), [])]
    if not found or "" in found:
        raise argparse.ArgumentTypeError(f"must be names or numbers with commas between them, got {text!r}")
    return found


def numbers(text: str) -> list[int]:
    """Return whole numbers from "0,2"."""
    return [whole(cell.strip()) for cell in text.split(",")]


def ranges(text: str) -> list[int]:
    """Return whole numbers from "1:9", "1,2,4" or "1:3,5"."""
    found: list[int] = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        ends = count(first.strip()), count((last if colon else first).strip())
        if ends[0] > ends[1]:
            raise argparse.ArgumentTypeError(f"must rise from its first number to its last, got {part!r}")
        found += range(ends[0], ends[1] + 1)
    return found


def structures(text: str) -> list[str]:
    """Return names of covariance structures; all of them for "all"."""
    found = list(ALL_STRUCTURES) if text == "all" else columns(text)
    for name in found:
        if name not in ALL_STRUCTURES and name not in ALIASES:
            raise argparse.ArgumentTypeError(f"must be of {', '.join((*ALL_STRUCTURES, *ALIASES))}, or all, got {name!r}")
    return found


def memory(text: str) -> int:
    """Return bytes; of "2G", "2GB" and "2GiB" alike, 2 x 1024^3."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([kKMGT])i?)?B?", text.strip())
    if not match or float(match[1]) == 0.0:
        raise argparse.ArgumentTypeError(f"must be bytes, like 500M or 2G, got {text!r}")
    power = sources.UNITS.index(match[2].replace("K", "k")) + 1 if match[2] else 0
    return int(float(match[1]) * 1024**power)


def entries(text: str) -> list[Any]:
    """Return what is said of each component: None, a number, several numbers, or a letter with its multiple."""
    return [_entry(part.strip()) for part in text.split(",")]


def _entry(text: str) -> Any:
    if text.lower() == "none":
        return None
    values = [tables.number(part) for part in text.split()]
    if not text or (None in values and len(values) > 1):
        raise argparse.ArgumentTypeError(f"must be None, numbers, or a letter like a or 2a, for each component, got {text!r}")
    if None in values:
        return text
    return values[0] if len(values) == 1 else values


# ---------------------------------------------------------------- contradictions: `refuse` ends the program


def check_stdout(args: argparse.Namespace, refuse: Refuse) -> None:
    """Refuse files on stdout beside the document of --json."""
    for option in ("out", "labels", "plot"):
        if getattr(args, "json", False) and getattr(args, option, None) in ("-", "/dev/stdout"):
            refuse(f"argument --{option}: must be a file with --json, whose document is all that stdout has")


def check_fit(args: argparse.Namespace, refuse: Refuse) -> None:
    """Refuse what `fit` cannot have together; fill in the defaults that this needed to be without; add `constraints`."""
    if args.start is None and args.k is None:
        refuse("the following arguments are required: -k")
    for name in FROM_START:
        if args.start is not None and getattr(args, name) is not None:
            refuse(f"argument {_written(name)}: not allowed with --start, which takes its place")
    if args.freeze is not None and args.start is None:
        refuse("argument --freeze: needs --start, the model as which components stay")
    args.structure, args.init, args.n_init = args.structure or "full", args.init or "short_runs", args.n_init or 1
    for name in ("within", "gain", "max_sweeps", "time_limit"):
        if args.steps is not None and getattr(args, name) is not None:
            refuse(f"argument --steps: not allowed with {_written(name)}")
    args.max_sweeps = args.max_sweeps or MOST_SWEEPS
    if args.reg_covar > 0.0 and args.acceleration in ACCELERATORS:
        refuse(f"argument --acceleration: {args.acceleration} is not allowed with --reg-covar; --variance-floor is")
    if args.variance_floor == 0.0 and args.on_collapse == "floor":
        refuse("argument --on-collapse: floor needs a --variance-floor above 0")
    if args.standard_errors and (args.workers or args.dask):
        refuse("argument --standard-errors: not allowed with --workers or --dask, since it takes rows in memory")
    args.constraints = _constraints(args, refuse)


def _constraints(args: argparse.Namespace, refuse: Refuse) -> Constraints | None:
    said = {name: getattr(args, name) for name in ("means", "sds", "covariances", "fix_weights")}
    for name, given in said.items():
        if given is not None and args.k not in (None, len(given)):
            refuse(f"argument {_written(name)}: must have one entry for each of the {args.k} components, got {len(given)}")
    if args.freeze is None and all(given is None for given in said.values()):
        return None
    if args.sd is not None:
        refuse("argument --sd: not allowed beside what is said of each component; write --sds with entries like 1,1")
    try:
        return Constraints(weights=said.pop("fix_weights"), frozen=args.freeze, **said)
    except (ValueError, TypeError) as error:
        refuse(str(error))


def check_plot(args: argparse.Namespace, refuse: Refuse) -> None:
    """Refuse rows for a picture that has none, and the other way round."""
    if args.kind == "uncertainty" and not args.files:
        refuse("argument --kind: uncertainty is drawn row by row, and needs a FILE")
    if args.kind == "trace" and (args.files or args.features):
        refuse("argument --kind: trace is of the fit, and takes neither FILE nor --features")
    if args.kind == "responsibilities" and args.features:
        refuse("argument --kind: responsibilities are of all features, and take no --features")


def _written(name: str) -> str:
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
