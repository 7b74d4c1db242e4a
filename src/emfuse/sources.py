"""Where the rows of a command are: in memory, in files that are read again for every sweep, or on the workers of a cluster.

How much memory the rows of .npy and Parquet files would take stands in their heads and feet. Of text it is known only when it has
been read, so it counts as much as its file.

Layer 4.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import importlib
import logging
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, NamedTuple, cast

import numpy as np

from emfuse import blocks, dask_engine, engines, tables
from emfuse._typing import AnyArray, Floats, Labels
from emfuse.blocks import Blocks
from emfuse.dask_engine import DaskEngine
from emfuse.engines import Evaluation, InMemory
from emfuse.parameters import Parameters
from emfuse.threads import thread_count

PARQUET = (".parquet", ".pq")
ENOUGH = 100_000  # rows for a picture of those that are not in memory
PARTITION_BYTES, A_THREAD = 1 << 27, 4  # of arrays: no partition larger than this, and so many for each thread of the cluster
UNITS = "kMGT"  # of bytes, 1024 of each in the next


class Ask(NamedTuple):
    """What is wanted of files.

    columns : names, or numbers from 0; None: `prefer` where columns have names, else all but `weights`
    weights : name or number of the column of row weights, or None
    prefer : names, or None
    missing : "raise" an error where a value is missing, or "drop" such rows
    """

    columns: Sequence[str] | None = None
    weights: str | None = None
    prefer: Sequence[str] | None = None
    missing: str = "raise"

    def of(self, source: str, names: list[str] | None, width: int) -> tuple[list[int], int | None]:
        """Return the places of the columns among `width`, and that of the weights: see `tables.choose`."""
        return tables.choose(source, names, width, self.columns, self.weights, self.prefer)


EVERYTHING = Ask()


@dataclass
class Source:
    """Rows to fit, to score or to draw.

    rows : (N, D) array, Blocks or DaskEngine
    weights : (N,) or None        row weights of an array; an engine has its own
    count : int or None           how many rows; None: nobody has counted
    names, called                 as in `tables.Table`
    how : str                     "memory", "stream" or "workers"
    note : str                    the same in words, with what decided it; "" where there was nothing to decide
    size, limit : int or None     bytes that the rows take, or would take, in memory, and how many were allowed; None: not asked
    collection                    what a DaskEngine was made of
    """

    rows: Any
    weights: Any
    count: int | None
    names: list[str] | None
    called: list[str]
    how: str = "memory"
    note: str = ""
    size: int | None = None
    limit: int | None = None
    collection: Any = field(default=None, repr=False)

    def evaluate(self, p: Parameters, *, n_threads: int | None = None, **want: bool) -> Iterator[Evaluation]:
        """Yield what `emfuse.engines.evaluate` returns, for some rows at a time, in their order; not of a DaskEngine."""
        if self.how == "stream":
            yield from cast(Blocks, self.rows).evaluate_blocks(p.factors, **want)
            return
        for start in range(0, len(self.rows), tables.ROWS_AT_ONCE):
            part = self.rows[start : start + tables.ROWS_AT_ONCE]
            yield engines.evaluate(part, p.factors, n_threads=n_threads, **want)

    def predict(self, p: Parameters, *, n_threads: int | None = None) -> Iterator[Labels]:
        """Yield the most likely component of each row, for some rows at a time, in their order."""
        if self.how == "workers":
            for part in dask_engine.predict(self.collection, p).to_delayed():
                yield part.compute()
            return
        for found in self.evaluate(p, n_threads=n_threads, labels=True):
            yield cast(Labels, found.labels)

    def some(self) -> InMemory:
        """Return rows in memory, for a picture: all, or so many drawn at random of those that are elsewhere."""
        if self.how == "memory":
            return InMemory(self.rows, self.weights)
        return cast(InMemory, self.rows.sample(ENOUGH, np.random.default_rng(0)))


def read(
    files: Sequence[str], ask: Ask = EVERYTHING, *, limit: int | None = None, whole: bool = False, n_threads: int | None = None
) -> Source:
    """Return the rows of files, one file after the other.

    files : paths of Parquet or .npy files, with wildcards or not, or of folders of them; or what `tables.read` takes
    limit : bytes of rows that are loaded; more are read again for every sweep. None: half of the machine's memory
    whole : bool    load them, however many there are

    Raises ValueError and TypeError that name file and column; ImportError where Parquet takes pyarrow; OSError.
    """
    paths = _expanded(files)
    most = _memory() // 2 if limit is None else limit
    stored = _stored(paths)
    if stored is None:
        return _read_whole(paths, ask, limit)
    picked, weighing = ask.of(paths[0], stored.names, len(stored.single))
    if ask.columns is None and ask.prefer is None:
        picked = [i for i in picked if i not in stored.index]
    single = all(stored.single[i] for i in picked)
    size = stored.rows * ((4 if single else 8) * len(picked) + 8 * (weighing is not None))
    streamed = size > most and not whole
    if stored.names is None and len(paths) == 1 and not streamed:  # mapped into memory as it is
        return _read_whole(paths, ask, limit)
    called: list[Any] = picked if stored.names is None else [stored.names[i] for i in picked]
    weights = None if weighing is None else weighing if stored.names is None else stored.names[weighing]
    made = Blocks.of(paths, columns=called, weights=weights, missing=ask.missing, n_threads=n_threads)
    if streamed:
        note = f"again for every sweep: {in_units(size)}, above the limit of {in_units(most)}"
        count = stored.rows if ask.missing == "raise" else None
        return Source(made, None, count, *_named(stored.names, picked), "stream", note, size, most)
    X, v = _loaded(made, stored.rows, np.float32 if single else np.float64)
    note = f"once, into memory: {in_units(size)}"
    return Source(X, v, len(X), *_named(stored.names, picked), "memory", note, size, most)


def _named(names: list[str] | None, picked: list[int]) -> tuple[list[str] | None, list[str]]:
    """Return the names of the picked columns, where there are any, and what to call them in any case."""
    found = None if names is None else [names[i] for i in picked]
    return found, found or [f"column {i}" for i in picked]


def _read_whole(paths: list[str], ask: Ask, limit: int | None) -> Source:
    """Return the rows of text, or of single arrays, in memory."""
    found: list[tables.Table] = []
    for path in paths:
        size = os.path.getsize(path) if os.path.isfile(path) and not path.endswith(".npy") else 0
        if limit is not None and size > limit:
            raise ValueError(
                f"{path}: it has {in_units(size)}, above the limit of {in_units(limit)}, and only .npy and Parquet can be read "
                "again for every sweep; save it as one of these, or raise --memory-limit"
            )
        found.append(tables.read(path, ask.columns, weights=ask.weights, prefer=ask.prefer, missing=ask.missing))
        if found[-1].called != found[0].called:
            there, here = (", ".join(table.called) for table in (found[0], found[-1]))
            raise ValueError(f"{path}: it has columns {here}, and {paths[0]} {there}; choose with --columns")
    X, v = found[0].X, found[0].weights
    if len(found) > 1:
        X = np.concatenate([table.X for table in found])
        v = None if v is None else np.concatenate([table.weights for table in found])
    return Source(X, v, len(X), found[0].names, found[0].called)


def _loaded(made: Blocks, most_rows: int, dtype: Any) -> tuple[Floats, AnyArray | None]:
    """Return the rows of blocks in memory, `most_rows` at most, and their weights."""
    X: Any = None
    v: Any = None
    count = 0
    with closing(made._walk()) as walk:
        for engine, _, _ in walk:
            if X is None:
                X = np.empty((most_rows, engine.n_features), dtype)
                v = None if engine.sample_weight is None else np.empty(most_rows)
            rows = slice(count, count + len(engine.X))
            X[rows] = engine.X
            if v is not None:
                v[rows] = engine.sample_weight
            count = rows.stop
    return X[:count], None if v is None else v[:count]


# ------------------------------------------------------------------ what files there are, and what is in them


def _expanded(files: Sequence[str]) -> list[str]:
    """Return the files that paths with wildcards, and folders, stand for."""
    paths: list[str] = []
    for file in files:
        if os.path.isdir(file):
            try:
                paths += blocks._files(file)
            except ValueError:  # nothing there that can be read
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file) from None
        elif glob.has_magic(file) and not os.path.exists(file):
            found = sorted(glob.glob(file, recursive=True))
            if not found:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
            paths += found
        else:
            paths.append(file)
    return paths


@dataclass
class _Stored:
    """What .npy or Parquet files say about their rows.

    names : of all columns; None in .npy
    single : list of bool    which of them are float32
    index : list of int      which are an index that pandas kept
    rows : int               how many
    """

    names: list[str] | None
    single: list[bool]
    index: list[int]
    rows: int


def _stored(paths: list[str]) -> _Stored | None:
    """Return what the heads of files say; None for what is only known when it has been read."""
    parquet = [path.endswith(PARQUET) for path in paths]
    if all(parquet):
        return _stored_parquet(paths)
    if any(parquet):
        raise ValueError(f"{paths[0]} and {len(paths) - 1} more: files must be of one kind, and only some of them are Parquet")
    if not all(path.endswith(".npy") for path in paths):
        return None
    rows, width, single = 0, 0, True
    for path in paths:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError):
            return None  # whoever reads it says what is wrong
        if array.ndim not in (1, 2) or array.dtype.kind not in "buif":
            return None
        rows, width = rows + len(array), array.shape[1] if array.ndim == 2 else 1
        single = single and array.dtype == np.float32
    return _Stored(None, [single] * width, [], rows)


def _stored_parquet(paths: list[str]) -> _Stored:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ImportError(f'{paths[0]}: to read Parquet takes pyarrow; pip install "emfuse[parquet]"') from None
    rows, schemas = 0, []
    for path in paths:
        os.stat(path)  # raises with the system's own words
        try:
            with parquet.ParquetFile(path) as opened:
                rows += opened.metadata.num_rows
                schemas.append(opened.schema_arrow)
        except ValueError as error:
            raise ValueError(f"{path}: not a whole Parquet file: {error}") from None
    names = list(schemas[0].names)
    kept = [name for name in (schemas[0].pandas_metadata or {}).get("index_columns", []) if name in names]
    single = [all(name in s.names and str(s.field(name).type) == "float" for s in schemas) for name in names]
    return _Stored(names, single, [names.index(name) for name in kept], rows)


# ------------------------------------------------------------------ memory


def _memory() -> int:
    """Return the bytes of memory of this machine, or of the container that it pretends to be."""
    found = [1 << 40]
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path("/sys/fs/cgroup", limit).read_text(encoding="ascii")))
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on Windows
        found.append(8 << 30)
    return min(found)


def in_units(size: int) -> str:
    """Return bytes in the largest unit of which there is one at least: "1.5M"."""
    power = min(len(UNITS), max(0, (size.bit_length() - 1) // 10))
    return f"{size / 1024**power:.1f}{UNITS[power - 1]}" if power else f"{size} bytes"


# ------------------------------------------------------------------ a cluster


@contextlib.contextmanager
def cluster(address: str | None, n_workers: int | None) -> Generator[Any]:
    """Give a client of the Dask cluster at an address, or of so many processes on this machine, which end with it.

    Raises ImportError where Dask is not installed, OSError where nothing answers at the address.
    """
    distributed = dask_engine._module("distributed")
    with contextlib.ExitStack() as stack:
        where: Any = address
        if n_workers is not None:
            each = max(1, thread_count() // n_workers)
            quiet = dict(dashboard_address=None, silence_logs=logging.CRITICAL)
            with _deaf_to_interrupts():
                made = distributed.LocalCluster(n_workers=n_workers, threads_per_worker=each, **quiet)
            where = stack.enter_context(made)
        yield stack.enter_context(distributed.Client(where, timeout="10s"))


@contextlib.contextmanager
def _deaf_to_interrupts() -> Generator[None]:
    """Have processes that are started here take no notice of Ctrl-C, which a terminal sends them too: they end with the cluster.

    Nor does this one, for the seconds that it takes.
    """
    if current_thread() is not main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def on_workers(files: Sequence[str], client: Any, ask: Ask = EVERYTHING) -> Source:
    """Return the rows of files on the workers of a cluster, which read Parquet and .npy themselves; the rest is sent to them.

    files : as in `read`, and addresses of Parquet files like "s3://bucket/part-*.parquet"; workers must find the same files

    Raises ValueError and TypeError that name column, partition and row; ImportError; OSError.
    """
    remote = any("://" in file for file in files)
    paths = list(files) if remote else [os.path.abspath(path) if os.path.exists(path) else path for path in _expanded(files)]
    stored = None if remote else _stored(paths)
    if remote or (stored is not None and stored.names is not None):
        spread = _frame(paths, ask)
    else:
        spread = _sent(paths, ask, client) if stored is None else _delayed(paths, stored, ask, client)
    engine = DaskEngine(spread.rows, client, sample_weight=spread.weights)
    threads = client.nthreads()
    note = f"by {len(threads)} worker{'s' * (len(threads) != 1)}, {sum(threads.values())} threads in all"
    return Source(engine, None, None, spread.names, spread.called, "workers", note, collection=spread.rows)


class _Spread(NamedTuple):
    """What a DaskEngine is made of: rows and their weights, and what the features are called, as in `tables.Table`."""

    rows: Any
    weights: Any
    names: list[str] | None
    called: list[str]


def _frame(paths: list[str], ask: Ask) -> _Spread:
    """Return Parquet files as a lazy data frame."""
    frame = dask_engine._module("dask.dataframe").read_parquet(paths[0] if len(paths) == 1 else paths)
    names = [str(name) for name in frame.columns]
    picked, weighing = ask.of(paths[0], names, len(names))
    called = [names[i] for i in picked]
    weights = None if weighing is None else names[weighing]
    frame = frame[called if weights is None or weights in called else [*called, weights]]
    frame = frame.dropna() if ask.missing == "drop" else frame
    return _Spread(frame[called], None if weights is None else frame[weights], called, called)


def _delayed(paths: list[str], stored: _Stored, ask: Ask, client: Any) -> _Spread:
    """Return .npy files as parts that the workers read."""
    picked, weighing = ask.of(paths[0], None, len(stored.single))
    wanted = picked if weighing is None else [*picked, weighing]
    load = dask_engine._module("dask").delayed(_load_part, pure=False)
    parts, row_bytes = [], 8 * len(stored.single)
    for path in paths:
        rows = len(np.load(path, mmap_mode="r", allow_pickle=False))
        parts += [load(path, cut, wanted, ask.missing == "drop") for cut in _cuts(rows, row_bytes, client, stored.rows)]
    if weighing is None:
        return _Spread(parts, None, *_named(None, picked))
    return _Spread([part[:, :-1] for part in parts], [part[:, -1] for part in parts], *_named(None, picked))


def _load_part(path: str, rows: slice, wanted: list[int], drop: bool) -> AnyArray:
    """Return some rows and columns of a .npy file, on a worker."""
    x = engines.as_rows(np.load(path, mmap_mode="r", allow_pickle=False)[rows], trusted=True)[:, wanted]
    return x[~np.isnan(x).any(axis=1)] if drop else np.array(x)


def _sent(paths: list[str], ask: Ask, client: Any) -> _Spread:
    """Return other files, which are read here, as parts that are sent to the workers."""
    source = _read_whole(paths, ask, None)
    cuts = _cuts(len(source.rows), 8 * len(source.called), client, len(source.rows))
    weights = None if source.weights is None else [source.weights[cut] for cut in cuts]
    return _Spread([source.rows[cut] for cut in cuts], weights, source.names, source.called)


def _cuts(rows: int, row_bytes: int, client: Any, of: int) -> list[slice]:
    """Cut rows, of so many in all, into partitions."""
    threads = max(1, sum(client.nthreads().values()))
    at_once = max(1, min(-(-of // (A_THREAD * threads)), PARTITION_BYTES // row_bytes))
    return [slice(start, start + at_once) for start in range(0, rows, at_once)]
