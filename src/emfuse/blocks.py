"""Data larger than memory: an engine that reads blocks of rows, again for every sweep.

    blocks = Blocks.of("rows.npy")               # or Parquet, Arrow, HDF5, Zarr; Blocks(make) for whatever else can be read
    emfuse.em(blocks, start)

Statistics are sums, so blocks need no mathematics of their own. A thread reads the next blocks while this one is swept. Each is
cut into chunks by the shape of the data alone, threads sweep a chunk each, and sums are added in the order of the rows: how many
threads ran cannot be seen in the result, nor how fast the disk was. No thread waits for the end of a block.

The first walk over the rows looks for NaN and infinity. Later ones do not: such a row makes the log-likelihood NaN, and is then
looked for.

Layer 3.
"""

from __future__ import annotations

import errno
import glob
import importlib
import math
import os
import re
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeVar, cast

import numpy as np

from emfuse._typing import AnyArray, Doubles, Floats, Labels
from emfuse.engines import GROUP_ROWS, OVERFLOWED, Evaluation, InMemory, as_rows, as_weights, cut, overflowing
from emfuse.parameters import Factors
from emfuse.statistics import SufficientStatistics
from emfuse.threads import in_order, thread_count

BLOCK_BYTES = 1 << 25  # 32 MiB: far more than handing it over costs, far less than memory
AHEAD = 2  # blocks that are read before they are asked for: two, so that a slow one does not hold the sweep up at once
CHUNKS = 8  # in a block at most: with those read ahead enough for many threads, and so few that handing them over costs little
MOST_UNPACKED = 1 << 28  # bytes: a chunk of a compressed data set up to this size is a block, since it is unpacked whole anyway
DRAWN_AT_ONCE = 1 << 18  # rows looked at together when a sample is drawn
PAGE = 4096  # bytes
BATCH_BYTES = 1 << 22  # of rows, unpacked at once by Arrow
NUMERIC = ("int", "uint", "halffloat", "float", "double", "bool", "decimal", "null")  # names of Arrow's types begin so
NPY, PARQUET = b"\x93NUM", b"PAR1"  # first bytes of such files

Item = TypeVar("Item")


class Part(NamedTuple):
    """What a source gives at a time.

    X : (N, D) array-like       data units
    weights : (N,) or None
    where : function or None    from a row's number in X to its place in the source, in words
    """

    X: Any
    weights: Any = None
    where: Callable[[int], str] | None = None


@dataclass
class Place:
    """Where the rows of a block come from.

    number : int                of the block, from 0
    first : int                 number of its first row in the source
    where : function or None    see `Part`
    kept : (N,) or None         which of its rows they are, from 0, where some were left out
    """

    number: int
    first: int
    where: Callable[[int], str] | None
    kept: Labels | None = None


class Block(NamedTuple):
    """Rows in memory; one thread sweeps those of a chunk, which begins at row `start` of the block that was read."""

    engine: InMemory
    place: Place
    start: int = 0


class Blocks:
    """Rows that are read in blocks, again for each sweep: an engine for data larger than memory.

    Parameters
    ----------
    make : function, or a list of blocks    `make()` returns a fresh iterator over the blocks, with the same rows every time; it
        is called once a sweep, and runs in a thread of its own. A block is an array-like (N_i, D), or a tuple of it and its row
        weights (N_i,); 1-D is taken as one feature, and an empty one adds nothing
    n_threads : int or None    None: what `threads.thread_count` says; the result is the same to the last bit

    About five blocks are in memory at once (two a thread, where they have too few rows to be shared), so let them be tens of
    megabytes; `Blocks.of` sees to that.

    columns : list of str or None     names of the features, where the source has them
    on_rows : callable or None        to be set: called in every walk, after each block, with the number of rows that have been
        handed out, that of all (None before it is known) and the seconds since the walk began

    Raises TypeError for a generator or another iterator, which can be read only once. Errors in the data come when it is read:
    those of `InMemory`, with the block and the row's number in the source.
    """

    def __init__(self, make: Callable[[], Iterable[Any]] | Iterable[Any], *, n_threads: int | None = None):
        _refuse_one_shot(make)
        if not callable(make) and (not isinstance(make, Iterable) or isinstance(make, str) or hasattr(make, "shape")):
            raise TypeError(f"make must be a function, or a list of blocks, got {type(make).__name__}; see `Blocks.of` for files")
        self._make = make
        self.n_threads = thread_count(n_threads)
        self.columns: list[str] | None = None
        self.on_rows: Callable[[int, int | None, float], object] | None = None
        self._name: str | None = None  # of the source
        self._drop = False  # rows with NaN
        self._rows: int | None = None  # how many, where that is known
        self._weight: float | None = None
        self._checked = False  # whether a whole walk has found all of them finite
        self._features: int | None = None
        self._noise = 0.0

    @classmethod
    def of(
        cls,
        source: Any,
        *,
        columns: Sequence[Any] | None = None,
        weights: Any = None,
        missing: str = "raise",
        block_rows: int | None = None,
        n_threads: int | None = None,
    ) -> Blocks:
        """Return the rows of a file, or of something like an array, to be read in blocks.

        source : one of
            path of a .npy or Parquet file, or of a folder of them, or with wildcards ("part-*.parquet"); or a list of paths
            numpy.memmap, or any array
            pyarrow Table or Dataset, or whatever has `to_batches`; of a Dataset, Arrow itself holds some row groups more
            h5py or Zarr data set, or whatever has a shape, a dtype and slices of rows
        columns : list or None      the features: names in Parquet and Arrow, numbers from 0 in arrays; None: all but the weights
        weights : name or number of the column of row weights; for arrays also an array-like (N,), or the path of a .npy file
        missing : str               "raise" an error where a value is null or NaN, or "drop" such rows
        block_rows : int or None    None: 32 MiB of them, in whole chunks where the data set is stored in chunks
        n_threads : int or None     as in `Blocks`

        Raises TypeError, ValueError and OSError that name file and column; ImportError where a package is missing.
        """
        if missing not in ("raise", "drop"):
            raise ValueError(f"missing must be 'raise' or 'drop', got {missing!r}")
        if block_rows is not None and not (_is_number(block_rows) and block_rows >= 1):
            raise ValueError(f"block_rows must be a whole number of at least 1, or None, got {block_rows!r}")
        if isinstance(columns, str):
            raise TypeError(f"columns must be a list, got {columns!r}; write columns=[{columns!r}]")
        _refuse_one_shot(source)
        ask = _Ask(None if columns is None else list(columns), weights, missing == "drop", block_rows)
        found = _source(source, ask)
        made = cls(found, n_threads=n_threads)
        made.columns, made._name, made._drop = found.columns, found.name, ask.drop
        if found.rows is not None and weights is None and not ask.drop:
            made._rows, made._weight = found.rows, float(found.rows)
        return made

    @property
    def n_features(self) -> int:
        """D. Where nothing has been read yet, the first block is."""
        if self._features is None:
            with closing(self._read(trusted=True)) as blocks:
                next(blocks, None)
        return cast(int, self._features)

    @property
    def weight(self) -> float:
        """Sum of the row weights: the number of rows where they weigh 1. Where it is not known yet, all rows are read."""
        if self._weight is None:
            self.moments  # noqa: B018  walks, and is likely to be asked for next
        return cast(float, self._weight)

    @property
    def noise(self) -> float:
        """How far rounding may move a log-likelihood from one sweep to the next, nats a row."""
        self.n_features  # noqa: B018  so that something has been read
        return self._noise

    def sweep(self, factors: Factors, *, origin: Doubles | None = None, hard: bool = False) -> SufficientStatistics:
        """Walk once over the rows under fixed parameters.

        origin : (K, D)    what sums are taken about; None: the means
        hard : bool        each row whole to its most likely component

        Raises what reading raises, and ValueError where a value is not finite, where a row lies so far away that its log density
        overflows, and where there are more or fewer rows than before.
        """
        origin = factors.means if origin is None else np.ascontiguousarray(origin)

        def swept(chunk: Block) -> tuple[SufficientStatistics, Block]:
            # not `InMemory.sweep`: where components share P, it would want the scatter of the chunk's rows first
            return chunk.engine._sweep(factors, origin, hard, in_one=True), chunk

        total = SufficientStatistics.zeros(origin, factors.form)
        few = self._rows is not None and self._rows <= GROUP_ROWS
        with (
            closing(self._walk()) as blocks,
            closing(_chunks(blocks, factors)) as chunks,
            closing(in_order(swept, _Stream.of(chunks, few), self.n_threads)) as parts,
        ):
            for part, chunk in parts:
                if not part.log_likelihood >= OVERFLOWED * part.weight:
                    self._report(chunk, factors)
                total += part
                del chunk  # its block would stay in memory while the next part is waited for
        return total

    @cached_property
    def moments(self) -> tuple[Doubles, Doubles]:
        """Mean and variance of each feature, (D,) each, with the row weights, in one walk. Raises as `InMemory.moments` does.

        Blocks are joined as by Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample
        variances", Stanford STAN-CS-79-773: no two large squares are subtracted.
        """
        weight, mean, scatter = 0.0, np.zeros(1), np.zeros(1)
        with closing(self._walk()) as blocks, np.errstate(over="ignore", invalid="ignore"):
            for block in blocks:
                added = block.engine.weight
                if added == 0.0:
                    continue
                try:
                    its_mean, its_variance = block.engine.moments
                except ValueError as error:
                    raise self._placed(error, block.place) from None
                d, share = its_mean - mean, added / (weight + added)
                scatter = scatter + added * its_variance + weight * share * d * d
                mean = mean + share * d
                weight += added
            variance = scatter / weight
        if not np.isfinite(variance).all():
            raise overflowing(variance, self.columns)
        return mean, np.asarray(variance)

    def sample(self, n_rows: int, random: np.random.Generator) -> InMemory:
        """Return so many rows with their weights, drawn uniformly, without replacement, from those that weigh anything.

        They come in the order of the source, after one walk over it; all of them, where it has no more. The same generator draws
        the same rows, however the source is cut into blocks. In memory are no more, but for a copy at the end.
        """
        if not (_is_number(n_rows) and n_rows >= 1):
            raise ValueError(f"n_rows must be a whole number of at least 1, got {n_rows!r}")
        drawn = _Drawn(int(n_rows), random)
        with closing(self._walk()) as blocks:
            for block in blocks:
                X, v = block.engine.X, block.engine.sample_weight
                for start in range(0, len(X), DRAWN_AT_ONCE):
                    rows = slice(start, start + DRAWN_AT_ONCE)
                    drawn.look_at(X[rows], None if v is None else v[rows])
        X, v = drawn.rows()
        engine = InMemory(X, n_threads=self.n_threads, trusted=True)
        engine.sample_weight = v
        return engine

    def evaluate_blocks(self, factors: Factors, **want: Any) -> Generator[Evaluation]:
        """Yield, block by block, what `InMemory.evaluate` returns for the same arguments; of an empty block, nothing.

        What is asked for is in memory for one block at a time: K numbers a row for responsibilities, so `block_rows` may have to
        be smaller. Close the generator (`contextlib.closing`) where it is left before its end.
        """
        with closing(self._walk(trusted=False)) as blocks:
            for block in blocks:
                yield block.engine.evaluate(factors, **want)

    # -------------------------------------------------------------- reading

    def _walk(self, *, trusted: bool | None = None) -> Generator[Block]:
        """Yield every block with rows, read ahead. Close it."""
        trusted = self._checked if trusted is None else trusted
        began, done = time.monotonic(), 0
        with closing(ahead(lambda: self._read(trusted=trusted))) as blocks:
            for block in blocks:
                done += len(block.engine.X)
                yield block
                del block  # it would stay in memory while the next is waited for
                if self.on_rows is not None:
                    self.on_rows(done, self._rows, time.monotonic() - began)

    def _read(self, *, trusted: bool) -> Generator[Block]:
        """Yield every block with rows, and take notice of how many there were; `trusted` ones are not looked at."""
        rows, weight, number, first = 0, 0.0, 0, 0
        given = self._make() if callable(self._make) else self._make
        if hasattr(given, "shape"):
            raise TypeError(f"make must return an iterator over blocks, got {type(given).__name__}; return iter([...]) of it")
        parts = iter(given)
        try:
            for part in parts:  # not enumerated, which would hold each until it has the next
                block = self._block(part, number, first, trusted)
                number += 1
                first += np.shape(part[0] if isinstance(part, tuple) else part)[0]
                del part  # it would stay in memory while the next is made
                if block is not None:
                    rows += len(block.engine.X)
                    weight += block.engine.weight
                    yield block
                del block
        finally:
            if hasattr(parts, "close"):
                parts.close()
        if rows == 0:
            raise ValueError(f"X must have at least one row{' without NaN' * self._drop}, got none{self._of_name}")
        if self._rows is not None and rows != self._rows:
            raise ValueError(
                f"the source must give the same rows every time, but there were {self._rows:,} and are now {rows:,}"
                f"{self._of_name}; it must begin again for every sweep, and not change meanwhile"
            )
        if weight == 0.0:
            raise ValueError(f"sample_weight must be above 0 for some row, but every weight is zero{self._of_name}")
        if not trusted:
            self._rows, self._weight, self._checked = rows, weight, True

    def _block(self, part: Any, number: int, first: int, trusted: bool) -> Block | None:
        """Return a block ready to be swept, or None where it has no rows."""
        if isinstance(part, tuple) and not isinstance(part, Part) and len(part) != 2:
            raise ValueError(f"a block must be rows, or a tuple of rows and weights, got a tuple of {len(part)} (block {number})")
        X, v, where = part if isinstance(part, Part) else Part(*part) if isinstance(part, tuple) else Part(part)
        if np.shape(X)[:1] == (0,):
            return None
        place = Place(number, first, where)
        try:
            X = as_rows(X, trusted=True)
            if self._features is None:
                self._features = int(X.shape[1])
            if X.shape[1] != self._features:
                raise ValueError(f"X must have {self._features} features, as the first block has, got {X.shape[1]}")
            if self._drop:
                X, v, place.kept = _without_nan(X, v)
                if len(X) == 0:
                    return None
            engine = InMemory(X, n_threads=self.n_threads, trusted=trusted)
            if v is not None:
                engine.sample_weight = _weights_of_block(v, len(X), trusted)
        except (ValueError, TypeError) as error:
            raise self._placed(error, place) from None
        self._noise = max(self._noise, engine.noise)
        return Block(engine, place)

    # -------------------------------------------------------------- errors

    def _report(self, chunk: Block, factors: Factors) -> NoReturn:
        """Raise for a chunk whose log-likelihood is NaN, or overflowed."""
        try:
            as_rows(chunk.engine.X)
            chunk.engine._report_far_row(factors)
        except ValueError as error:
            raise self._placed(error, chunk.place, chunk.start) from None
        raise AssertionError("no row explains why the log-likelihood is not finite")

    def _placed(self, error: ValueError | TypeError, place: Place, start: int = 0) -> ValueError | TypeError:
        """Return an error about rows from `start` on in a block as one about the source: its row number, file and column."""
        message = str(error)
        said = [f"block {place.number}{self._of_name}"]
        if (row := re.search(r"\brow (\d+)", message)) is not None:
            i = start + int(row[1])
            i = i if place.kept is None else int(place.kept[i])
            message = f"{message[: row.start(1)]}{place.first + i}{message[row.end(1) :]}"
            if place.where is not None:
                said.append(place.where(i))
        if self.columns is not None and (feature := re.search(r"\bfeature (\d+)", message)) is not None:
            said.append(f"column {self.columns[int(feature[1])]!r}")
        return type(error)(f"{message} ({', '.join(said)})")

    @property
    def _of_name(self) -> str:
        return "" if self._name is None else f" of {self._name}"


def as_engine(
    source: Any,
    *,
    columns: Sequence[Any] | None = None,
    weights: Any = None,
    missing: str = "raise",
    block_rows: int | None = None,
    n_threads: int | None = None,
) -> Blocks | None:
    """Return `Blocks.of` its arguments where the source is a file or reads like one; None for arrays, lists and data frames.

    It is one if it is a path or a numpy.memmap, has `to_batches` (Arrow), or `chunks` that it is stored in (h5py, Zarr). Raises
    as `Blocks.of` does, and TypeError for an iterator, which no engine can take.
    """
    if hasattr(source, "sweep") or hasattr(source, "__dask_graph__"):
        return None
    chunked = all(hasattr(source, name) for name in ("shape", "dtype", "chunks", "__getitem__"))
    if not (isinstance(source, (str, os.PathLike, np.memmap, Iterator)) or hasattr(source, "to_batches") or chunked):
        return None
    return Blocks.of(source, columns=columns, weights=weights, missing=missing, block_rows=block_rows, n_threads=n_threads)


# ------------------------------------------------------------------ reading ahead, and what is made of what was read


def ahead(read: Callable[[], Generator[Item]], depth: int = AHEAD) -> Generator[Item]:
    """Yield what `read()` yields, run by another thread, up to `depth` items before they are asked for.

    What `read` raises is raised here. Close the generator (`contextlib.closing`): then that thread has ended, `read()` is closed.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    made: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()

    def work() -> None:
        try:
            with closing(read()) as items:
                while asked.get():
                    made.put((next(items),))
        except StopIteration:  # the end, and nothing else: another one would come out of a generator as a RuntimeError
            made.put(None)
        except BaseException as error:
            made.put(error)

    reader = Thread(target=copy_context().run, args=(work,), name="emfuse_reader", daemon=True)
    try:
        try:
            reader.start()
        except RuntimeError:  # the system gives no more threads, or Python is about to end
            with closing(read()) as items:
                yield from items
            return
        for _ in range(depth):
            asked.put(True)
        while (got := made.get()) is not None:
            if isinstance(got, BaseException):
                try:
                    raise got
                finally:
                    del got  # or the error, its traceback and this frame would keep each other alive, and blocks with them
            asked.put(True)
            yield got[0]
            del got  # it would stay in memory while the next is waited for
    finally:
        asked.put(False)
        # a Python that is ending has stopped the reader for good, and the garbage collector may run this in the reader itself
        if reader.is_alive() and reader is not current_thread() and not sys.is_finalizing():
            reader.join()


class _Stream:
    """Chunks that are still to be read, for `in_order`: of a sequence it wants the items, in order, and whether there are few."""

    def __init__(self, chunks: Iterator[Block], few: bool):
        self.chunks, self.few = chunks, few

    @classmethod
    def of(cls, chunks: Iterator[Block], few: bool) -> Sequence[Block]:
        """Return what `in_order` takes for a sequence."""
        return cast(Sequence[Block], cls(chunks, few))

    def __iter__(self) -> Iterator[Block]:
        return self.chunks

    def __len__(self) -> int:
        return 1 if self.few else sys.maxsize


def _chunks(blocks: Iterable[Block], factors: Factors) -> Generator[Block]:
    """Cut blocks into what one thread sweeps, by the shape of the data alone."""
    for engine, place, _ in blocks:
        engine.check_features(factors)
        groups = cut(len(engine.X), factors)
        together = -(-len(groups) // CHUNKS)
        for i in range(0, len(groups), together):
            rows = slice(groups[i].start, groups[min(i + together, len(groups)) - 1].stop)
            chunk = InMemory(engine.X[rows], n_threads=1, trusted=True)
            if engine.sample_weight is not None:
                chunk.sample_weight = engine.sample_weight[rows]
            yield Block(chunk, place, rows.start)
        del engine, chunk


class _Drawn:
    """A uniform sample of a stream of rows: which of them enter it, in whose place, is drawn ahead, and not row by row.

    Li (1994), "Reservoir-sampling algorithms of time complexity O(n(1 + log(N/n)))", ACM TOMS 20, 481-493: algorithm L. Of the
    largest of n uniform random keys, those of the rows in the sample, only the logarithm is kept: each row that enters lowers it.
    """

    def __init__(self, wanted: int, random: np.random.Generator):
        self.wanted, self.random = wanted, random
        self.first: list[tuple[Floats, Doubles]] = []  # rows and weights, until there are as many as wanted
        self.X: Any = None
        self.v: Any = None
        self.weighted = False
        self.seen = 0  # rows that weigh anything
        self.log_key = 0.0
        self.entering = np.empty(0, np.int64)  # numbers of the next rows that enter
        self.leaving = np.empty(0, np.int64)  # places in the sample that they take
        self.numbers = np.empty(0, np.int64)  # of the rows in the sample

    def look_at(self, X: Floats, v: Doubles | None) -> None:
        """Look at the next rows, (N, D), with weights (N,) or None."""
        self.weighted |= v is not None
        own: Any = slice(0, len(X)) if v is None else np.flatnonzero(v > 0.0)
        weights = np.ones(len(X)) if v is None else v[own]
        before, self.seen = self.seen, self.seen + len(weights)
        room = min(self.wanted - before, len(weights))
        if room > 0:
            self.first.append((X[own][:room].copy(), weights[:room].copy()))
        if self.seen < self.wanted:
            return
        if self.X is None:
            self._join()
        while self.entering[-1] < self.seen:
            self._draw()
        now = np.searchsorted(self.entering, self.seen)
        if now:
            rows, places = self.entering[:now] - before, self.leaving[:now]
            if X.dtype == np.float64:
                self.X = self.X.astype(np.float64, copy=False)
            self.X[places] = X[rows if v is None else own[rows]]  # of rows for one place, NumPy keeps the last
            self.v[places] = weights[rows]
            self.numbers[places] = self.entering[:now]
            self.entering, self.leaving = self.entering[now:], self.leaving[now:]

    def rows(self) -> tuple[Floats, Doubles | None]:
        """Return the sample, (n, D), in the order of the stream, and its weights."""
        if self.X is None:
            self._join()
        order = np.argsort(self.numbers)
        return self.X[order], self.v[order] if self.weighted else None

    def _join(self) -> None:
        self.X, self.v = np.concatenate([X for X, _ in self.first]), np.concatenate([v for _, v in self.first])
        self.first.clear()
        self.numbers = np.arange(len(self.X))
        if len(self.X) == self.wanted:
            self.entering = np.array([self.wanted - 1])  # has entered; those after it are drawn
            self.leaving = np.array([self.wanted - 1])
            self._draw()
            self.entering, self.leaving = self.entering[1:], self.leaving[1:]

    def _draw(self) -> None:
        """Draw which rows enter after the last that is known, as many as the sample has."""
        n = self.wanted
        log_keys = self.log_key + np.cumsum(np.log1p(-self.random.random(n))) / n
        self.log_key = float(log_keys[-1])
        with np.errstate(divide="ignore"):
            skipped = np.floor(np.log1p(-self.random.random(n)) / np.log1p(-np.exp(log_keys)))
        steps = 1 + np.minimum(skipped, (1 << 61) // n).astype(np.int64)
        self.entering = np.append(self.entering, self.entering[-1] + np.cumsum(steps))
        self.leaving = np.append(self.leaving, self.random.integers(n, size=n))


def _without_nan(X: Floats, v: Any) -> tuple[Floats, Any, Labels | None]:
    """Return the rows, and their weights, in which nothing is NaN; and their numbers, where that is not all of them."""
    v = None if v is None else np.asarray(v)
    beside = v if v is not None and v.dtype.kind == "f" and v.shape == (len(X),) else np.zeros(1)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum() + beside.sum()):  # a sum is quicker than a look at each, and finite only where they all are
            return X, v, None
    kept = np.flatnonzero(~(np.isnan(X).any(axis=1) | np.isnan(beside)))
    if len(kept) == len(X):
        return X, v, None
    return X[kept], None if v is None else v[kept], kept


def _weights_of_block(v: Any, N: int, trusted: bool) -> Doubles:
    """Return the weights of a block of N rows; all of them may be 0, as they may not in `as_weights`."""
    if not trusted and np.any(v):
        return cast(Doubles, as_weights(v, N))
    array = np.ascontiguousarray(v, dtype=np.float64)
    if array.shape != (N,):
        raise ValueError(f"sample_weight must have shape ({N},), one number a row of X, got {array.shape}")
    return array


def _refuse_one_shot(source: Any) -> None:
    if isinstance(source, Iterator):
        raise TypeError(
            f"a {type(source).__name__} can be read only once, and EM needs many passes: give `Blocks` a function that returns a "
            "fresh one each time; or its blocks, one by one, to `OnlineEM.add` or `GaussianMixture.partial_fit`, which keep none"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


# ------------------------------------------------------------------ sources: arrays, and what is sliced like one


class _Ask(NamedTuple):
    """The arguments of `Blocks.of`."""

    columns: list[Any] | None
    weights: Any
    drop: bool
    block_rows: int | None


def _source(source: Any, ask: _Ask) -> _Arrays | _Arrow:
    paths = [source] if isinstance(source, (str, os.PathLike)) else source
    if isinstance(paths, (list, tuple)) and paths and all(isinstance(path, (str, os.PathLike)) for path in paths):
        files = [file for path in paths for file in _files(os.fspath(path))]
        kinds = {_first_bytes(file): file for file in reversed(files)}
        if len(kinds) == 1 and PARQUET in kinds:
            return _parquet(files, ask)
        if len(kinds) == 1 and NPY in kinds:
            return _Arrays([_npy(file) for file in files], files, ask)
        other = next((file for start, file in kinds.items() if start not in (NPY, PARQUET)), None)
        if other is None:
            raise ValueError(f"{kinds[NPY]} and {kinds[PARQUET]}: files must be of one kind, all .npy or all Parquet")
        raise ValueError(
            f"{other}: neither a .npy nor a Parquet file. Open HDF5 and Zarr with their packages and give the data set; for "
            "text, give a function: Blocks(lambda: pandas.read_csv(path, chunksize=100_000))"
        )
    if hasattr(source, "to_batches"):
        return _arrow(source, ask)
    if all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__")) and not hasattr(source, "iloc"):
        return _Arrays([lambda: source], None, ask)
    raise TypeError(
        f"rows cannot be read in blocks from a {type(source).__name__}. Give `emfuse.fit` what is in memory as it is, and "
        "`Blocks` a function that returns an iterator over blocks"
    )


def _files(path: str) -> list[str]:
    """Return the files that a path means, in order."""
    if os.path.isdir(path):
        inside = [file for file in sorted(Path(path).rglob("*")) if file.suffix in (".npy", ".parquet", ".pq")]
        found = [str(file) for file in inside if not any(part[0] in "._" for part in file.relative_to(path).parts)]
        if not found:
            raise ValueError(f"{path}: no .npy or .parquet file is in this folder; open a Zarr array with zarr, and give that")
        return found
    found = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return found


def _first_bytes(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(4)


def _npy(file: str) -> Callable[[], Any]:
    """Return what opens a .npy file: anew for each walk, so that none stays open between them."""

    def opened() -> Any:
        try:
            whole = np.load(file, mmap_mode="r", allow_pickle=False)
            return _Windows(whole, open(file, "rb")) if whole.flags.c_contiguous and whole.ndim else whole
        except (ValueError, EOFError):
            raise ValueError(f"{file}: not a whole NumPy file of plain numbers") from None

    return opened


class _Windows:
    """A .npy file of rows one after the other, of which each slice is a mapping of its own: what has been swept is let go."""

    def __init__(self, whole: np.memmap[Any, Any], file: BinaryIO):
        self.shape, self.dtype, self.offset, self.file = whole.shape, whole.dtype, whole.offset, file
        self.row_bytes = whole.dtype.itemsize * math.prod(whole.shape[1:])

    def __del__(self) -> None:
        self.file.close()  # a mapping needs none

    def __getitem__(self, rows: slice) -> AnyArray:
        start, stop, _ = rows.indices(self.shape[0])
        shape = (stop - start, *self.shape[1:])
        if 0 in shape:
            return np.empty(shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", self.offset + start * self.row_bytes, shape)


class _Arrays:
    """Rows of arrays, or of what is sliced like one, one array after the other.

    opened : functions that return one each
    files : their names, or None
    """

    columns = None

    def __init__(self, opened: list[Callable[[], Any]], files: list[str] | None, ask: _Ask):
        self.opened, self.files = opened, files
        self.name = None if files is None else _name_of(files)
        self.rows, self.block_rows = 0, ask.block_rows or 0
        width = 0
        for open_ in opened:
            X = open_()
            if X.shape is None or len(X.shape) not in (1, 2):
                raise ValueError(f"{self} must be 2-D, rows x features (or 1-D, for one feature), got shape {X.shape}")
            self.rows += int(X.shape[0])
            width = int(X.shape[1]) if len(X.shape) == 2 else 1
            if not self.block_rows:
                dtype, stored = np.dtype(X.dtype), (getattr(X, "chunks", None) or (None,))[0]
                row_bytes = width * max(dtype.itemsize, 4 if dtype.kind == "f" else 8)
                self.block_rows = _rows_of_a_block(row_bytes, stored if _is_number(stored) else None)
        self.weighing = int(ask.weights) if _is_number(ask.weights) else None
        self.picked = self._pick(width, ask.columns)
        self.weights = None if ask.weights is None or self.weighing is not None else self._weights(ask.weights)

    def __iter__(self) -> Iterator[Part]:
        v = None if self.weights is None else self.weights()
        before = 0
        for i, open_ in enumerate(self.opened):
            X = open_()
            for start in range(0, X.shape[0], self.block_rows):
                yield self._part(X, v, start, before, None if self.files is None or len(self.files) == 1 else self.files[i])
            before += X.shape[0]

    def __str__(self) -> str:
        return self.name or "X"

    def _part(self, X: Any, v: Any, start: int, before: int, file: str | None) -> Part:
        x = X[start : start + self.block_rows]
        if isinstance(x, np.memmap):
            _touch(x)
        x = np.asarray(x)
        x = x[:, None] if x.ndim == 1 else x
        weights = x[:, self.weighing] if self.weighing is not None else None
        if v is not None:
            weights = v[before + start : before + start + len(x)]
        where = None if file is None else lambda row: f"row {start + row} of {file}"
        return Part(x if self.picked is None else x[:, self.picked], weights, where)

    def _pick(self, width: int, columns: list[Any] | None) -> list[int] | slice | None:
        """Return which columns are the features: as a slice, which needs no copy, where they are side by side; None for all."""
        for column in [*(columns or []), *([] if self.weighing is None else [self.weighing])]:
            if not (_is_number(column) and 0 <= column < width):
                raise ValueError(f"{self}: there is no column {column!r}; choose from 0 to {width - 1}")
        picked = [i for i in range(width) if i != self.weighing] if columns is None else [int(column) for column in columns]
        _check_chosen(str(self), picked)
        if picked == list(range(width)):
            return None
        together = slice(picked[0], picked[-1] + 1)
        return together if picked == list(range(width))[together] else picked

    def _weights(self, weights: Any) -> Callable[[], Any]:
        """Return what opens the row weights."""
        like_array = hasattr(weights, "shape") and hasattr(weights, "__getitem__") and not hasattr(weights, "iloc")
        held = weights if like_array or isinstance(weights, (str, os.PathLike)) else np.asarray(weights)
        opened: Callable[[], Any] = _npy(os.fspath(held)) if isinstance(held, (str, os.PathLike)) else lambda: held
        if tuple(opened().shape) != (self.rows,):
            raise ValueError(f"weights must have shape ({self.rows},), one number a row, got {tuple(opened().shape)}")
        return opened


def _name_of(files: list[str]) -> str:
    return files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")


def _check_chosen(source: str, names: Sequence[Any]) -> None:
    if not names:
        raise ValueError(f"{source}: no column was chosen, or is left beside the weights")
    if len(set(names)) < len(names):
        raise ValueError(f"{source}: a column was chosen twice: {', '.join(map(str, names))}")


def _rows_of_a_block(row_bytes: int, stored: int | None = None) -> int:
    """Return how many rows to read at once; `stored`, where it is known, is how many are unpacked together."""
    rows = max(1, BLOCK_BYTES // max(1, row_bytes))
    if not stored:
        return rows
    if stored > rows:
        return stored if stored * row_bytes <= MOST_UNPACKED else rows
    return rows - rows % stored


def _touch(x: AnyArray) -> None:
    """Look at every page of a slice of a file, in the thread that reads, so that those that sweep need not wait for the disk."""
    x[tuple(slice(None, None, max(1, PAGE // max(1, abs(step)))) for step in x.strides)].copy()


# ------------------------------------------------------------------ sources: Arrow, and Parquet by it


class _Piece(NamedTuple):
    """Rows as Arrow has them: a record batch, what it is of (a row group of a file, or nothing), its first row's number there."""

    batch: Any
    what: str | None
    first: int


def _parquet(files: list[str], ask: _Ask) -> _Arrow:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ImportError(f'{files[0]}: to read Parquet takes pyarrow; pip install "emfuse[parquet]"') from None
    rows, schemas = 0, []
    for file in files:
        try:
            with parquet.ParquetFile(file) as opened:
                rows += opened.metadata.num_rows
                schemas.append(opened.schema_arrow)
        except (ValueError, OSError) as error:
            raise ValueError(f"{file}: not a whole Parquet file: {error}") from None

    def pieces(read: list[str], at_once: int) -> Iterator[_Piece]:
        for file in files:
            with parquet.ParquetFile(file, memory_map=True) as opened:  # else a whole row group is in memory, as it is stored
                for group in range(opened.num_row_groups):
                    first = 0
                    for batch in opened.iter_batches(at_once, row_groups=[group], columns=read):
                        yield _Piece(batch, f"row group {group} of {file}", first)
                        first += batch.num_rows

    return _Arrow(pieces, schemas, files, ask, rows)


def _arrow(source: Any, ask: _Ask) -> _Arrow:
    """Return the rows of a pyarrow Table or Dataset, or of whatever else has `to_batches`."""
    described = source if hasattr(source, "schema") else next(iter(source.to_batches()), None)
    if described is None:
        raise ValueError(f"X must have at least one row, got a {type(source).__name__} without any batch")

    def pieces(read: list[str], at_once: int) -> Iterator[_Piece]:
        if hasattr(source, "get_fragments"):  # a Dataset, which else would read much of many files ahead
            wanted = dict(columns=read, batch_size=at_once, batch_readahead=2, fragment_readahead=1)
            if getattr(getattr(source, "format", None), "default_extname", "") == "parquet":
                options = importlib.import_module("pyarrow.dataset").ParquetFragmentScanOptions
                wanted["fragment_scan_options"] = options(pre_buffer=False, use_buffered_stream=True, buffer_size=BATCH_BYTES)
            batches = source.to_batches(**wanted)
        else:
            batches = (source.select(read) if hasattr(source, "select") else source).to_batches()
        for batch in batches:
            for start in range(0, batch.num_rows, at_once):
                yield _Piece(batch.slice(start, at_once), None, 0)

    return _Arrow(pieces, [described.schema], None, ask, getattr(source, "num_rows", None))


class _Arrow:
    """Rows of Arrow's record batches, joined to blocks; nulls are NaN, or errors.

    pieces : function      from the names of columns, and how many rows there may be at once, to a fresh iterator
    schemas : list         one for each file, or just one
    files : their names, or None
    rows : int or None     how many there are, where that is known
    """

    def __init__(
        self,
        pieces: Callable[[list[str], int], Iterator[_Piece]],
        schemas: list[Any],
        files: list[str] | None,
        ask: _Ask,
        rows: int | None,
    ):
        self.pieces, self.drop, self.weights, self.rows = pieces, ask.drop, ask.weights, rows
        self.name = None if files is None else _name_of(files)
        chosen = [_choose(schema, ask, "X" if files is None else files[i]) for i, schema in enumerate(schemas)]
        for i, names in enumerate(chosen):
            if names != chosen[0] and files is not None:
                raise ValueError(f"{files[0]} has columns {chosen[0]}, and {files[i]} {names}; choose by columns=[...]")
        self.columns: list[str] = chosen[0]
        self.read = self.columns + ([] if ask.weights is None or ask.weights in self.columns else [ask.weights])
        single = all(str(schema.field(name).type) == "float" for schema in schemas for name in self.columns)
        self.dtype = np.dtype(np.float32 if single else np.float64)
        row_bytes = len(self.columns) * self.dtype.itemsize
        self.block_rows = ask.block_rows or _rows_of_a_block(row_bytes)
        self.at_once = max(1, min(self.block_rows, BATCH_BYTES // row_bytes))

    def __iter__(self) -> Iterator[Part]:
        first, block = 0, _Filling(self)
        with closing(cast(Generator[_Piece], self.pieces(self.read, self.at_once))) as pieces:
            for piece in pieces:
                if block.count + piece.batch.num_rows > len(block.X):
                    first += block.count
                    yield block.part()
                    block = _Filling(self)
                block.add(piece, first)
                del piece
        if block.count:
            yield block.part()


class _Filling:
    """A block that is being filled, piece by piece, so that no more than one is held as Arrow has it."""

    def __init__(self, arrow: _Arrow):
        self.arrow = arrow
        rows = arrow.block_rows if arrow.rows is None else min(arrow.block_rows, max(arrow.rows, arrow.at_once))
        self.X = np.empty((rows, len(arrow.columns)), arrow.dtype)
        self.v = None if arrow.weights is None else np.empty(rows)
        self.begins: list[int] = []
        self.places: list[tuple[str | None, int]] = []
        self.count = 0

    def add(self, piece: _Piece, before: int) -> None:
        """Take a piece; `before` is how many rows of the source were in other blocks."""
        batch, what, first = piece
        rows = slice(self.count, self.count + batch.num_rows)
        for name in self.arrow.read:
            column = batch.column(batch.schema.get_field_index(name))
            if column.null_count and not self.arrow.drop:
                row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                where = "" if what is None else f" (row {first + row} of {what})"
                raise ValueError(
                    f"column {name!r} is null in row {before + rows.start + row}{where}; fill the value in, or leave such rows "
                    "out by missing='drop'"
                )
            numbers = _numbers(column)
            if name in self.arrow.columns:
                self.X[rows, self.arrow.columns.index(name)] = numbers
            if name == self.arrow.weights and self.v is not None:
                self.v[rows] = numbers
        self.begins.append(self.count)
        self.places.append((what, first))
        self.count = rows.stop

    def part(self) -> Part:
        """Return what has been taken."""
        begins, places = self.begins, self.places

        def where(row: int) -> str:
            i = bisect_right(begins, row) - 1
            return f"row {places[i][1] + row - begins[i]} of {places[i][0]}"

        v = None if self.v is None else self.v[: self.count]
        return Part(self.X[: self.count], v, where if places[0][0] is not None else None)


def _choose(schema: Any, ask: _Ask, source: str) -> list[str]:
    """Return the names of the features. Raises ValueError for one that is not there, TypeError for one that holds no numbers."""
    if ask.weights is not None and not isinstance(ask.weights, str):
        raise TypeError(f"weights must be the name of a column, got {type(ask.weights).__name__}")
    there: list[str] = list(schema.names)
    index = [name for name in (schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)]
    others = [name for name in there if name != ask.weights and name not in index]  # an index that pandas kept is no feature
    names = others if ask.columns is None else ask.columns
    _check_chosen(source, names)
    for name in [*names, *([] if ask.weights is None else [ask.weights])]:
        if there.count(name) != 1:
            many = f"{there.count(name)} columns are" if name in there else "no column is"
            raise ValueError(f"{source}: {many} called {name!r}; there are {', '.join(there[:30])}{', ...' * (len(there) > 30)}")
        if not (kind := str(schema.field(name).type)).startswith(NUMERIC):
            numeric = [name for name in others if str(schema.field(there.index(name)).type).startswith(NUMERIC)]
            raise TypeError(f"{source}: column {name!r} holds {kind}, and must hold numbers; choose by columns={numeric[:30]}")
    return list(names)


def _numbers(column: Any) -> AnyArray:
    """Return an Arrow array as floats; a null is NaN."""
    if str(column.type) not in ("float", "double"):
        column = column.cast("float64", safe=False)
    return cast(AnyArray, column.to_numpy(zero_copy_only=False))
