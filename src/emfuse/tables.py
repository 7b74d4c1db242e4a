"""From a file to rows, and back: the text and array files that the command line reads and writes.

NumPy's parser reads the numbers; only where it fails are the cells walked one by one, to say which is wrong, or to leave out the
rows in which one is missing.

Layer 4.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import math
import os
import shutil
import sys
import warnings
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn, TextIO, cast

import numpy as np

from emfuse import engines

ROWS_AT_ONCE = 100_000  # rows turned into text together
MISSING = ("", "na", "n/a", "null", "none", "nan", "?", "-")
NONE_LEFT = "no row is left without missing values; choose other columns with --columns"


@dataclass
class Table:
    """The numbers of a file.

    X : (N, D)                  float64, or as an array file has them
    names : D str or None       of the columns, from a header
    called : D str              what to call them in any case
    weights : (N,) or None
    """

    X: Any
    names: list[str] | None
    called: list[str]
    weights: Any = None


def read(
    file: str,
    columns: Sequence[str] | None = None,
    *,
    weights: str | None = None,
    prefer: Sequence[str] | None = None,
    missing: str = "raise",
) -> Table:
    """Read rows from a .npy or .npz file ("file.npz:name" for one of several arrays), or text with cells apart; "-" is stdin.

    columns : names from the header, or numbers from 0; None: `prefer` where there is a header, else all but `weights`
    weights : name or number of the column of row weights
    prefer : names
    missing : "raise" an error where a value is empty, NA or NaN, or "drop" such rows

    Raises ValueError that names file, line and column; OSError.
    """
    path, member = _split_member(file)
    names: list[str] | None = None
    drop = missing == "drop"
    if path.endswith((".npy", ".npz")):
        numbers = _load_array(path, member, trusted=drop)
        picked, weighing = choose(file, names, numbers.shape[1], columns, weights, prefer)
        if drop:
            numbers = _complete(path, numbers, picked if weighing is None else [*picked, weighing])
        X = numbers if picked == list(range(numbers.shape[1])) else numbers[:, picked]
        v = None if weighing is None else numbers[:, weighing]
    else:
        source, opened = "standard input" if file == "-" else file, _opener(file)
        try:
            layout = _sniff(source, opened)
            names = layout.names
            picked, weighing = choose(source, names, layout.width, columns, weights, prefer)
            numbers = _parse(source, opened, layout, picked if weighing is None else [*picked, weighing], drop)
        except UnicodeDecodeError:
            raise ValueError(f"{source}: not UTF-8 text; save it as CSV in UTF-8, or as .npy") from None
        except (csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{source}: {error}") from None
        X = numbers[:, : len(picked)]
        v = None if weighing is None else numbers[:, -1]
    called = [f"column {i}" if names is None else names[i] for i in picked]
    return Table(X, None if names is None else called, called, v)


def _split_member(file: str) -> tuple[str, str | None]:
    path, found, member = file.rpartition(".npz:")
    return (path + ".npz", member) if found and not os.path.exists(file) else (file, None)


def _load_array(path: str, member: str | None, *, trusted: bool = False) -> Any:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        there = list(found) if path.endswith(".npz") else []
        if there and (member in there or (member is None and len(there) == 1)):
            found = found[there[0] if member is None else member]
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        raise ValueError(f"{path}: not a whole NumPy file of plain numbers") from None
    if not isinstance(found, np.ndarray):
        seen = f"no array {member!r}" if member is not None else f"{len(there)} arrays"
        raise ValueError(f"{path}: it has {seen}; write {path}:NAME with a name of {', '.join(there)}")
    try:
        return engines.as_rows(found, trusted=trusted)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _complete(path: str, numbers: Any, wanted: list[int]) -> Any:
    """Return the rows in which no wanted column is NaN."""
    kept = ~np.isnan(numbers[:, wanted]).any(axis=1)
    if not kept.any():
        raise ValueError(f"{path}: {NONE_LEFT}")
    numbers = numbers if kept.all() else numbers[kept]
    try:
        engines.as_rows(numbers[:, wanted])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return numbers


@dataclass
class _Layout:
    """How a text file is laid out; `delimiter` None is any white space, `skip` the number of lines before the first row."""

    delimiter: str | None
    names: list[str] | None
    skip: int
    width: int


def _opener(file: str) -> Callable[[], TextIO]:
    """Return what opens the text from its beginning, as often as needed: a pipe is kept in memory."""
    if file == "-" or (os.path.exists(file) and not os.path.isfile(file) and not os.path.isdir(file)):
        if file == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(file, "rb") as pipe:
                content = pipe.read()
        return lambda: io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    if file.endswith(".gz"):
        return lambda: cast(TextIO, gzip.open(file, "rt", encoding="utf-8-sig", newline=""))
    return lambda: open(file, encoding="utf-8-sig", newline="")


def _cells(lines: TextIO, delimiter: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of its line, from 1, and the cells of each row that is not blank."""
    if delimiter is None:
        yield from ((number, line.split()) for number, line in enumerate(lines, 1) if line.strip())
        return
    reader = csv.reader(lines, delimiter=delimiter)
    yield from ((reader.line_num, cells) for cells in reader if cells)


def _sniff(source: str, opened: Callable[[], TextIO]) -> _Layout:
    with opened() as lines:
        first = next((line for line in lines if line.strip()), "")
        second = next((line for line in lines if line.strip()), first)
    bare = "".join(first.split('"')[::2])  # outside quotes
    most = max("\t,;", key=bare.count)
    delimiter = most if most in bare else None if len(second.split()) > 1 else ","
    with opened() as lines:
        rows = _cells(lines, delimiter)
        skip, cells = next(rows, (0, []))
        if not cells:
            raise ValueError(f"{source}: there is nothing in it")
        if any(number(cell) is not None for cell in cells) or all(cell.strip().lower() in MISSING for cell in cells):
            return _Layout(delimiter, None, 0, len(cells))
        names = [cell.strip() for cell in cells]
        line, cells = next(rows, (0, []))
    if not cells:
        raise ValueError(f"{source}: there is a header, and no row of numbers below it")
    if len(cells) != len(names):
        raise ValueError(f"{source}: line {line} has {_cell_count(cells)}, and the header has {len(names)}; they must be as many")
    return _Layout(delimiter, names, skip, len(names))


def _cell_count(cells: list[str]) -> str:
    return f"{len(cells)} cell{'s' * (len(cells) != 1)}"


def number(cell: str) -> float | None:
    """Return the number that a cell holds, or None."""
    if "_" in cell or not cell.isascii():  # Python's numbers, and nobody else's
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def choose(
    source: str,
    names: list[str] | None,
    width: int,
    columns: Sequence[str] | None,
    weights: str | None,
    prefer: Sequence[str] | None,
) -> tuple[list[int], int | None]:
    """Return the places of the columns to use, and that of the weights.

    names : of the `width` columns there are, or None; columns, weights, prefer : as in `read`

    Raises ValueError that names the source and what there is.
    """

    def place(wanted: str, why: str = "") -> int:
        if names is not None and wanted in names:
            if names.count(wanted) > 1:
                raise ValueError(f"{source}: {names.count(wanted)} columns are called {wanted!r}; choose by number, from 0")
            return names.index(wanted)
        if wanted.isdecimal() and int(wanted) < width:
            return int(wanted)
        there = f"0 to {width - 1}" if names is None else ", ".join(names[:30]) + ", ..." * (len(names) > 30)
        raise ValueError(f"{source}: there is no column {wanted!r}{why}; choose from {there}")

    weighing = None if weights is None else place(weights)
    if columns is not None:
        picked = [place(wanted) for wanted in columns]
    elif prefer is not None and names is not None:
        picked = [place(wanted, ", which the model has") for wanted in prefer]
    else:
        picked = [i for i in range(width) if i != weighing]
    if len(set(picked)) < len(picked):
        raise ValueError(f"{source}: a column was chosen twice: {', '.join(columns or [])}")
    if not picked:
        raise ValueError(f"{source}: no column is left beside the weights")
    return picked, weighing


def _parse(source: str, opened: Callable[[], TextIO], layout: _Layout, wanted: list[int], drop: bool) -> Any:
    """Return the wanted columns, (N, len(wanted)) float64, by NumPy's parser; where that fails, find the bad cell and say so.

    drop : bool    leave out rows in which a wanted cell is missing
    """
    everything = wanted == list(range(layout.width))
    try:
        with opened() as lines, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            numbers = np.loadtxt(
                lines,
                delimiter=layout.delimiter,
                skiprows=layout.skip,
                usecols=None if everything else wanted,
                comments=None,
                quotechar='"',
                ndmin=2,
            )
    except ValueError:
        return _walk_cells(source, opened, layout, wanted, drop)
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(numbers.sum())
    return numbers if finite or np.isfinite(numbers).all() else _walk_cells(source, opened, layout, wanted, drop)


def _walk_cells(source: str, opened: Callable[[], TextIO], layout: _Layout, wanted: list[int], drop: bool) -> Any:
    """Return the wanted columns of the rows in which none is missing, cell by cell.

    Raises ValueError for the first cell that is no finite number (and not just missing, where such rows are dropped), and the
    first row that is too short or too long.
    """
    found = array("d")
    with opened() as lines:
        for row, (line, cells) in enumerate(_cells(lines, layout.delimiter)):
            if line <= layout.skip:
                continue
            if len(cells) != layout.width:
                _refuse(source, f"line {line} has {_cell_count(cells)}, and the first row has {layout.width}; correct or drop it")
            if drop and any(cells[i].strip().lower() in MISSING for i in wanted):
                continue
            for i in wanted:
                value = number(cells[i])
                if value is not None and math.isfinite(value):
                    found.append(value)
                    continue
                name = f"column {i}" if layout.names is None else f"column {layout.names[i]!r}"
                what = "is empty" if not cells[i].strip() else f"has {cells[i][:60]!r}, which is not a finite number"
                taken = " (not taken for a header, because other cells are numbers)" if layout.names is None and row == 0 else ""
                advice = "correct or drop the row, or choose other columns with --columns"
                _refuse(source, f"line {line}, {name} {what}{taken}; {advice}")
    if not found:
        _refuse(source, NONE_LEFT)
    return np.array(found).reshape(-1, len(wanted))


def _refuse(source: str, message: str) -> NoReturn:
    raise ValueError(f"{source}: {message}")


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` only when it is whole; "-", a device or a pipe is written to directly."""
    if path in ("-", "/dev/stdout"):
        if sys.stdout is None:
            raise ValueError("standard output is closed")
        sys.stdout.flush()  # what was printed before comes before
        yield sys.stdout.buffer
        return
    there = os.path.exists(path)
    if there and not os.path.isfile(path):
        with open(path, "wb") as out:
            yield out
        return
    target = os.path.realpath(path)  # through a link, which stays
    part = f"{target}.{os.getpid()}.part"
    try:
        with open(part, "wb") as out:
            yield out
        if there:
            shutil.copymode(target, part)
        os.replace(part, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def csv_line(cells: Sequence[str]) -> bytes:
    """Return cells as a line of CSV, quoted where they must be."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def write_rows(X: Any, out: BinaryIO) -> None:
    """Write rows as CSV; every number comes back to the last bit."""
    for start in range(0, len(X), ROWS_AT_ONCE):
        out.write("".join([",".join(map(repr, row)) + "\n" for row in X[start : start + ROWS_AT_ONCE].tolist()]).encode())
