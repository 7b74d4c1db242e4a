"""Data on the machines of a cluster: an engine of Dask's partitions, each swept where it is.

    engine = DaskEngine(collection)              # a dask.array, a dask.dataframe, or a list of delayed arrays
    emfuse.em(engine, start)

Statistics are sums, so partitions need no mathematics of their own: a sweep is one task for each, and a tree of `+` in the order
of the partitions. Parameters go down and statistics come up; rows stay on the workers, in memory, looked at for NaN once.

Dask, left alone, hands a task to an idle worker along with a copy of its rows. So tasks are bound to the worker that has them;
and since Dask lets a bound task wait for ever where that worker is gone, this is looked for while waiting, and the sweep is
asked for again once Dask has made the lost partitions anew, from what they were made of.

Layer 3.
"""

from __future__ import annotations

import importlib
import itertools
import re
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cached_property
from threading import Event
from typing import Any, NamedTuple, cast

import numpy as np

from emfuse import engines
from emfuse._typing import AnyArray, Doubles, Floats, Labels
from emfuse.engines import InMemory, as_rows, as_weights, overflowing
from emfuse.parameters import Factors, Parameters
from emfuse.statistics import SufficientStatistics

FAN_IN = 16  # statistics that one task adds: few enough to be in memory together, and so many that a tree is seldom deeper than 3
PATIENCE = 0.5  # seconds between two looks whether the workers are still there; a look is one short message
MOST_LOSSES = 3  # times that a sweep is begun again because a worker was lost: more, and it is the sweep that ends them


class DaskEngine:
    """Rows in the memory of Dask's workers, swept there: an engine for data larger than one machine.

    Parameters
    ----------
    collection : one of
        dask.array (N, D), data units, in chunks of rows; 1-D is taken as one feature. Chunks of columns are rechunked into one,
        which moves rows between workers once, before they are persisted.
        dask.dataframe or Series of numeric columns; null is NaN, which is refused
        list of delayed arrays, futures, or arrays, (N_i, D) each
    client : distributed.Client or None    None: Dask's own choice, which is the client that was made last, or else this process's
        threads
    sample_weight : (N,) or None    row weights, at least 0 and not all 0: a dask.array or Series of the same partitions, a list
        for a list; or an array, where the lengths of the partitions are known

    All rows are persisted here, where Dask puts them, and let go with the engine. A partition may have no rows: it adds nothing.
    Each is swept by one thread, and costs half a millisecond of the scheduler's time a sweep (`python -m bench.cluster`): let
    there be a few for each thread of the cluster, not thousands. The same partitions give the same bits, on however many workers.

    Raises TypeError and ValueError that name the partition and the row in it; on a cluster, RuntimeError where a partition cannot
    be computed, or not again.
    """

    def __init__(self, collection: Any, client: Any = None, *, sample_weight: Any = None):
        chunks, lengths, self._columns = _chunks_of(collection)
        weights = _weights_of(sample_weight, lengths, len(chunks), isinstance(collection, (list, tuple)))
        self._client, self._get = _scheduler(client)
        self._token = uuid.uuid4().hex
        self._asked = itertools.count()
        partition = _module("dask").delayed(_partition, pure=False)
        made = [
            partition(i, X, v, dask_key_name=f"emfuse-rows-{i}-{self._token}")
            for i, (X, v) in enumerate(zip(chunks, weights, strict=True))
        ]
        self._where: dict[int, str] = {}  # the address of each partition's worker
        if self._client is None:
            self._parts = list(_module("dask").compute(*made, scheduler=self._get))
        else:
            self._parts = self._client.compute(made)
            self._find()
        self._seen: list[_Seen] = self._run("look", _look, _join, range(len(chunks)), None)
        self._check()

    @property
    def n_features(self) -> int:
        """D."""
        return cast(int, self._seen[self._taken[0]].n_features)

    @cached_property
    def weight(self) -> float:
        """Sum of the row weights: the number of rows where they weigh 1."""
        return float(sum(seen.weight for seen in self._seen))

    @property
    def noise(self) -> float:
        """How far rounding may move a log-likelihood from one sweep to the next, nats a row."""
        return max(seen.noise for seen in self._seen)

    def sweep(self, factors: Factors, *, origin: Doubles | None = None, hard: bool = False) -> SufficientStatistics:
        """Walk once over the rows under fixed parameters.

        origin : (K, D)    what sums are taken about; None: the means
        hard : bool        each row whole to its most likely component

        Raises ValueError where a row lies so far away that its log density overflows, naming it, and where there are more or
        fewer rows than before; RuntimeError where a lost partition cannot be made again.
        """
        if factors.means.shape[1] != self.n_features:
            raise ValueError(f"X has {self.n_features} features, but the mixture has {factors.means.shape[1]}")
        origin = factors.means if origin is None else np.ascontiguousarray(origin)
        total = self._run("sweep", _sweep, _sum, self._taken, _Ask(factors, origin, hard))
        if isinstance(total, _Fault):
            self._raise(total)
        if not abs(total.weight - self.weight) <= 1e-9 * self.weight:  # sums of weights in another order
            raise ValueError(
                f"the collection must give the same rows every time, but they weighed {self.weight:.9g} and now weigh "
                f"{total.weight:.9g}; a partition was made again, and came out differently"
            )
        mass, first, second = (np.array(sums) for sums in (total.mass, total.first, total.second))  # aligned, and writable
        return SufficientStatistics(origin, mass, first, second, total.log_likelihood, total.weight)

    @cached_property
    def moments(self) -> tuple[Doubles, Doubles]:
        """Mean and variance of each feature, (D,) each, with the row weights. Raises ValueError where a variance overflows."""
        guess, zeros = cast(Doubles, self._seen[self._taken[0]].first)[None], np.zeros((1, self.n_features))
        for _ in range(2):  # about some row, then about the mean
            s = self.sweep(Factors(guess, zeros, np.zeros(1)))
            t = s.first / s.mass
            guess = guess + t
        with np.errstate(over="ignore", invalid="ignore"):
            variance = (s.second / s.mass - t * t)[0]
        if not np.isfinite(variance).all():
            raise overflowing(variance, self._columns)
        return guess[0], np.asarray(np.maximum(variance, 0.0))

    def sample(self, n_rows: int, random: np.random.Generator) -> InMemory:
        """Return so many rows with their weights, drawn uniformly, without replacement, from those that weigh anything.

        They come in the order of the collection, and are all that leaves the workers; all rows, where there are no more. The same
        generator draws the same rows, however they are partitioned, and `initialise.sample_rows` draws them in memory.
        """
        if isinstance(n_rows, bool) or not isinstance(n_rows, (int, np.integer)) or n_rows < 1:
            raise ValueError(f"n_rows must be a whole number of at least 1, got {n_rows!r}")
        stops = np.cumsum([seen.weighing for seen in self._seen])
        N = int(stops[-1])
        drawn = np.arange(N) if n_rows >= N else np.sort(random.choice(N, n_rows, replace=False, shuffle=False))
        own = np.split(drawn, np.searchsorted(drawn, stops[:-1]))
        rows = {i: part - (stops[i] - self._seen[i].weighing) for i, part in enumerate(own) if part.size}
        X, v = self._run("sample", _pick, _stack, list(rows), rows)
        return InMemory(X, None if v is None else _aligned(v), trusted=True)

    # -------------------------------------------------------------- graphs

    def _run(
        self,
        verb: str,
        each: Callable[..., Any],
        join: Callable[[list[Any]], Any],
        numbers: Sequence[int],
        given: Any,
    ) -> Any:
        """Do `each(partition, argument)` where these partitions are, and join what comes of it, in order, FAN_IN at a time.

        given : the argument, which each worker is then sent once; or a dict from numbers of partitions to the argument of each
        """
        if self._client is None:
            graph, _, key = self._graph(verb, each, join, numbers, given)
            return self._get(graph, key)
        for _ in range(MOST_LOSSES + 1):
            graph, bound, key = self._graph(verb, each, join, numbers, given)
            result = self._result(graph, bound, key)
            if result is not None:
                return result
            self._find()
        raise RuntimeError(
            f"{MOST_LOSSES + 1} times, a worker was lost in the middle of one {verb}: look into the workers' logs. They may have "
            "run out of memory; give them more of it, or make the partitions smaller."
        )

    def _graph(
        self,
        verb: str,
        each: Callable[..., Any],
        join: Callable[[list[Any]], Any],
        numbers: Sequence[int],
        given: Any,
    ) -> tuple[dict[Any, Any], dict[Any, str], Any]:
        """Return the tasks of `_run`, the address of the worker that each is bound to, if it is, and the key of the result."""
        run = f"{next(self._asked)}-{self._token}"  # after the name that the dashboard shows, which ends before a number
        graph: dict[Any, Any] = {}
        if not isinstance(given, dict):
            graph[f"emfuse-given-{run}"] = (_itself, given)  # a task too, so that one who has it can pass it on, or make it again
        keys: list[Any] = []
        bound: dict[Any, str] = {}
        for i in numbers:
            key = (f"emfuse-{verb}-{run}", i)
            graph[key] = (each, self._parts[i], given[i] if isinstance(given, dict) else f"emfuse-given-{run}")
            if i in self._where:
                bound[key] = self._where[i]
            keys.append(key)
        for level in itertools.count():
            if len(keys) == 1:
                break
            groups = [keys[first : first + FAN_IN] for first in range(0, len(keys), FAN_IN)]
            keys = [(f"emfuse-sum-{run}", level, i) for i in range(len(groups))]
            graph |= {key: (join, group) for key, group in zip(keys, groups, strict=True)}
        return graph, bound, keys[0]

    # -------------------------------------------------------------- a cluster, and its losses

    def _result(self, graph: dict[Any, Any], bound: dict[Any, str], key: Any) -> Any:
        """Have a graph computed by the cluster; None where a worker, or what it had, was lost meanwhile."""
        high = _module("dask.highlevelgraph")
        sweeps = {name: graph[name] for name in graph if name in bound}
        layers = {
            "free": {name: graph[name] for name in graph if name not in bound},
            "bound": high.MaterializedLayer(sweeps, annotations={"workers": bound.__getitem__}),
        }
        future = self._client.get(high.HighLevelGraph(layers, {name: set() for name in layers}), key, sync=False)
        done, enough = Event(), PATIENCE  # `distributed.wait` would ask the client made last; `enough` seconds to bring it here
        future.add_done_callback(lambda _: done.set())
        try:
            while True:
                try:
                    if done.wait(PATIENCE):
                        return future.result(timeout=enough)
                except TimeoutError:
                    if future.status == "error":  # it was the task's own
                        raise
                    enough *= 2.0
                if not set(bound.values()) <= set(self._client.nthreads()):
                    return None
        except (CancelledError, _module("distributed").KilledWorker):  # a partition is gone, or workers with it
            return None
        finally:
            future.release()

    def _find(self) -> None:
        """Wait until every partition is on some worker, and note on which. Raises RuntimeError where one will never be."""
        for _ in _module("distributed").as_completed(self._parts, loop=self._client.loop):
            pass
        for number, part in enumerate(self._parts):
            if part.status == "error":
                error = part.exception()
                raise RuntimeError(f"partition {number} cannot be computed: {type(error).__name__}: {error}") from error
            if part.status in ("cancelled", "lost"):
                raise RuntimeError(
                    f"partition {number} was lost with its worker and cannot be made again, as what it was made of is lost too. "
                    "Begin again, with rows that the workers read or compute themselves, and not with scattered ones."
                )
        holders = self._client.who_has(self._parts)
        self._where = {i: holders[part.key][0] for i, part in enumerate(self._parts) if holders.get(part.key)}

    # -------------------------------------------------------------- errors

    def _check(self) -> None:
        """Raise where a partition cannot be used, where it has other features than the first, where no row weighs anything."""
        self._first_rows = np.cumsum([0] + [seen.rows for seen in self._seen])
        for seen in self._seen:
            if seen.fault is not None:
                self._raise(seen.fault)
        if self._first_rows[-1] == 0:
            raise ValueError("X must have at least one row, but every partition is empty")
        self._taken = [i for i, seen in enumerate(self._seen) if seen.weight > 0.0]
        if not self._taken:
            raise ValueError("sample_weight must be above 0 for some row, but every weight is zero")
        for i in self._taken:
            if self._seen[i].n_features != self.n_features:
                raise ValueError(
                    f"X must have {self.n_features} features, as partition {self._taken[0]} has, got {self._seen[i].n_features} "
                    f"(partition {i})"
                )

    def _raise(self, fault: _Fault) -> None:
        """Raise a partition's fault as an error that says where in the whole it is."""
        said = [f"row {self._first_rows[fault.number] + fault.row} of all"] if fault.row is not None else []
        if self._columns is not None and (feature := re.search(r"\bfeature (\d+)", fault.message)) is not None:
            said.append(f"column {self._columns[int(feature[1])]!r}")
        raise fault.kind(fault.message + (f" ({', '.join(said)})" if said else ""))


# ------------------------------------------------------------------ tasks: what the workers do


@dataclass(frozen=True)
class _Ask:
    """The arguments of a sweep; no tuple, which Dask would look into for tasks."""

    factors: Factors
    origin: Doubles
    hard: bool

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.factors.means, self.factors.P, self.factors.log_constant, self.origin, self.hard)


def _received(means: Doubles, P: Doubles, log_constant: Doubles, origin: Doubles, hard: bool) -> _Ask:
    return _Ask(Factors(_aligned(means), _aligned(P), _aligned(log_constant)), _aligned(origin), hard)


def _aligned(array: Any) -> Any:
    """Return an array, or a copy where it begins at an odd address, as in a message, or in a file: no build would take it."""
    return array if array.flags.aligned else array.copy()


class _Fault(NamedTuple):
    """What is wrong with the rows of a partition: an error that is a result, so that the first is raised, and as it is.

    row : int or None    which of its rows
    """

    number: int
    kind: type[ValueError] | type[TypeError]
    message: str
    row: int | None

    @classmethod
    def of(cls, error: ValueError | TypeError, number: int) -> _Fault:
        """Return an error about rows in memory as one about the partition."""
        message, kind = str(error), TypeError if isinstance(error, TypeError) else ValueError
        if (row := re.search(r"\brow (\d+)( of X)?", message)) is None:
            return cls(number, kind, f"{message} (partition {number})", None)
        message = f"{message[: row.end(1)]} of partition {number}{message[row.end() :]}"
        return cls(number, kind, message, int(row[1]))


class _Seen(NamedTuple):
    """What a partition is, in a few bytes.

    rows, weighing : int        how many, and how many that weigh anything
    weight : float              sum of their weights
    n_features, first           D, and some row that weighs anything, in float64 (D,); None where none does
    noise : float               of the engine
    fault : _Fault or None
    """

    rows: int
    weighing: int = 0
    weight: float = 0.0
    n_features: int | None = None
    first: Doubles | None = None
    noise: float = 0.0
    fault: _Fault | None = None


class _Partition:
    """Rows as a worker keeps them, ready to be swept; with the scatter of them all, once a sweep has asked for that.

    engine : InMemory or None    None where there are no rows, none weighs anything, or they have a fault
    """

    def __init__(self, number: int, engine: InMemory | None, seen: _Seen):
        self.number, self.engine, self.seen = number, engine, seen

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Come back from the disk, or from another worker."""
        self.__dict__.update(state)
        if self.engine is not None:
            self.engine.X = _aligned(self.engine.X)
            self.engine.sample_weight = None if self.engine.sample_weight is None else _aligned(self.engine.sample_weight)

    def __sizeof__(self) -> int:
        """Bytes: what Dask goes by when memory is scarce."""
        if self.engine is None:
            return 1000
        v = self.engine.sample_weight
        return 1000 + self.engine.X.nbytes + (0 if v is None else v.nbytes)


def _partition(number: int, X: Any, v: Any) -> _Partition:
    """Look at the rows of a chunk once and for all."""
    rows = 0
    try:
        if hasattr(X, "to_numpy"):  # pandas
            X = _numbers(X)
        if np.shape(X)[:1] == (0,):
            return _Partition(number, None, _Seen(0))
        array = as_rows(X, trusted=True)
        rows = len(array)
        engine = InMemory(array, n_threads=1)
        if v is not None:
            v = _numbers(v) if hasattr(v, "to_numpy") else np.asarray(v)
            if v.shape == (rows,) and v.dtype.kind in "buif" and not v.any():  # here all weights may be 0, unlike of the whole
                return _Partition(number, None, _Seen(rows))
            engine.sample_weight = _aligned(as_weights(v, rows))
    except (ValueError, TypeError) as error:
        return _Partition(number, None, _Seen(rows, fault=_Fault.of(error, number)))
    v = engine.sample_weight
    seen = _Seen(
        rows,
        weighing=rows if v is None else int(np.count_nonzero(v)),
        weight=engine.weight,
        n_features=engine.n_features,
        first=engine.X[0 if v is None else int(v.argmax())].astype(np.float64),
        noise=engine.noise,
    )
    return _Partition(number, engine, seen)


def _look(partition: _Partition, _: None) -> list[_Seen]:
    return [partition.seen]


def _sweep(partition: _Partition, ask: _Ask) -> SufficientStatistics | _Fault:
    if partition.engine is None:  # it had rows once: it was made again, and is another
        return partition.seen.fault or SufficientStatistics.zeros(ask.origin, ask.factors.form)
    try:
        return partition.engine.sweep(ask.factors, origin=ask.origin, hard=ask.hard)
    except ValueError as error:
        return _Fault.of(error, partition.number)


def _pick(partition: _Partition, rows: Labels) -> tuple[Floats, Doubles | None]:
    """Return rows by their number among those that weigh anything, with their weights."""
    engine = cast(InMemory, partition.engine)
    if engine.sample_weight is None:
        return engine.X[rows], None
    rows = np.flatnonzero(engine.sample_weight)[rows]
    return engine.X[rows], engine.sample_weight[rows]


def _itself(value: Any) -> Any:
    return value


def _join(parts: list[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(parts))


def _sum(parts: list[SufficientStatistics | _Fault]) -> SufficientStatistics | _Fault:
    """Add statistics in order; of faults, return the first."""
    total: SufficientStatistics | None = None
    for i, part in enumerate(parts):
        if isinstance(part, _Fault):
            return part
        if i < 2:
            total = part if total is None else total + part  # a copy: the first is some other task's result
        else:
            total = cast(SufficientStatistics, total)
            total += part
    return cast(SufficientStatistics, total)


def _stack(parts: list[tuple[Floats, Doubles | None]]) -> tuple[AnyArray, Doubles | None]:
    X: Any = np.concatenate([cast(AnyArray, X) for X, _ in parts])
    return X, None if parts[0][1] is None else np.concatenate([cast(Doubles, v) for _, v in parts])


# ------------------------------------------------------------------ row by row, lazily


def predict(collection: Any, parameters: Parameters) -> Any:
    """Return the most likely component of each row, a lazy dask.array (N,) int64 in the collection's own chunks of rows.

    collection : as in `DaskEngine`; of data frames and delayed arrays, chunks have unknown lengths

    Raises ValueError where the number of features is another; computing it raises as `DaskEngine` does, but for lost partitions.
    """
    return _lazily("predict", collection, parameters, "labels", np.int64)


def predict_proba(collection: Any, parameters: Parameters) -> Any:
    """Return the responsibilities, a lazy dask.array (N, K) float64 in one chunk of columns; see `predict`."""
    return _lazily("proba", collection, parameters, "responsibilities", np.float64, (parameters.n_components,))


def score_samples(collection: Any, parameters: Parameters) -> Any:
    """Return the log density of each row in nats, a lazy dask.array (N,) float64; see `predict`."""
    return _lazily("score", collection, parameters, "log_density", np.float64)


def _lazily(verb: str, collection: Any, parameters: Parameters, want: str, dtype: Any, tail: tuple[int, ...] = ()) -> Any:
    if isinstance(collection, (list, tuple)):
        delayed, D = _module("dask").delayed, parameters.n_features
        array = _module("dask.array")
        blocks = [array.from_delayed(delayed(item), (np.nan, D), dtype=np.float64) for item in collection]
        rows = array.concatenate(blocks, allow_unknown_chunksizes=True)
    else:
        rows, _ = _array_of(collection)
    if rows.shape[1] != parameters.n_features:
        raise ValueError(f"X has {rows.shape[1]} features, but the mixture has {parameters.n_features}")
    name, given = f"emfuse-given-{_module('dask').base.tokenize(parameters)}", _Ask(parameters.factors, parameters.means, False)
    return rows.map_blocks(
        _evaluate,
        ask=_module("dask").delayed(given, name=name, traverse=False),  # a task, so that each worker is sent it once
        want=want,
        token=f"emfuse-{verb}",
        dtype=dtype,
        chunks=(rows.chunks[0], *((n,) for n in tail)),
        drop_axis=[] if tail else 1,
        meta=np.empty((0,) * (1 + len(tail)), dtype),
    )


def _evaluate(X: Any, *, ask: _Ask, want: str, block_id: tuple[int, ...]) -> AnyArray:
    """Evaluate a mixture on the rows of a chunk."""
    factors = ask.factors
    if hasattr(X, "to_numpy"):
        X = _numbers(X)
    if np.shape(X)[:1] == (0,):
        shape = (0, len(factors.means)) if want == "responsibilities" else (0,)
        return np.empty(shape, np.int64 if want == "labels" else np.float64)
    try:
        return cast(AnyArray, getattr(engines.evaluate(X, factors, n_threads=1, **{want: True}), want))
    except (ValueError, TypeError) as error:
        fault = _Fault.of(error, block_id[0])
        raise fault.kind(fault.message) from None


# ------------------------------------------------------------------ collections


def is_dask(data: Any) -> bool:
    """Whether data is Dask's, or a list of what is; found out without importing Dask."""
    if isinstance(data, (list, tuple)):
        return len(data) > 0 and all(is_dask(item) or _is_future(item) for item in data)
    return hasattr(data, "__dask_graph__")


def _is_future(item: Any) -> bool:
    return hasattr(item, "key") and type(item).__module__.partition(".")[0] == "distributed"


def _chunks_of(collection: Any) -> tuple[list[Any], list[float], list[Any] | None]:
    """Return a collection's chunks of rows, delayed; their lengths, NaN where unknown; and the names of columns, if they have."""
    if isinstance(collection, (list, tuple)):
        if not collection:
            raise ValueError("X must have at least one partition, got an empty list")
        return list(collection), [np.nan] * len(collection), None
    rows, columns = _array_of(collection)
    return list(rows.to_delayed().ravel()), list(rows.chunks[0]), columns


def _array_of(collection: Any) -> tuple[Any, list[Any] | None]:
    """Return a collection as a dask.array (N, D) in chunks of rows, and the names of its columns, if it has them."""
    columns = None
    if hasattr(collection, "map_partitions") and hasattr(collection, "npartitions"):  # a data frame, or a Series
        frame = collection.to_frame() if collection.ndim == 1 else collection
        columns = list(frame.columns)
        dtype = _dtype_of(frame)
        rows = frame.map_partitions(_numbers, meta=np.empty((0, len(columns)), dtype))
    elif hasattr(collection, "map_blocks") and hasattr(collection, "chunks") and hasattr(collection, "to_delayed"):
        rows = collection[:, None] if collection.ndim == 1 else collection
    else:
        raise TypeError(
            f"X must be a dask.array, a dask.dataframe or a list of delayed arrays, got {type(collection).__name__}; of "
            "an xarray, give `.data`"
        )
    if rows.ndim != 2:
        raise ValueError(f"X must be 2-D, rows x features (or 1-D, for one feature), got shape {rows.shape}")
    if rows.shape[1] == 0:
        raise ValueError(f"X must have at least one feature, got shape {rows.shape}")
    return rows.rechunk({1: -1}) if len(rows.chunks[1]) > 1 else rows, columns


def _weights_of(sample_weight: Any, lengths: list[float], count: int, listed: bool) -> Sequence[Any]:
    """Return the weights of each chunk of rows, delayed or not; None for each where there are none."""
    if sample_weight is None:
        return [None] * count
    v = sample_weight
    if listed:
        if not isinstance(v, (list, tuple)) or len(v) != count:
            got = f"a list of {len(v)}" if isinstance(v, (list, tuple)) else type(v).__name__
            raise ValueError(f"sample_weight must be a list of {count}, one array for each partition of X, got {got}")
        return list(v)
    known = not np.isnan(lengths).any()
    if hasattr(v, "map_partitions") and hasattr(v, "npartitions"):
        if v.ndim != 1:
            raise ValueError(f"sample_weight must be one column, got {v.ndim}-D; write frame['name']")
        v = v.map_partitions(_numbers, meta=np.empty(0, _dtype_of(v.to_frame())))
    elif not hasattr(v, "__dask_graph__"):
        v = np.asarray(v)
        if not known:
            raise ValueError(
                "sample_weight must be a dask.array or Series with the partitions of X, whose lengths are unknown, got "
                f"{type(sample_weight).__name__}"
            )
        if v.shape != (sum(lengths),):
            raise ValueError(f"sample_weight must have shape ({sum(lengths)},), one number a row of X, got {v.shape}")
        return np.split(v, np.cumsum(lengths[:-1]).astype(np.int64))
    if known and not np.isnan(v.shape[0]):
        if v.shape != (sum(lengths),):
            raise ValueError(f"sample_weight must have shape ({sum(lengths)},), one number a row of X, got {v.shape}")
        v = v.rechunk((tuple(lengths),))
    if v.numblocks != (count,):
        raise ValueError(f"sample_weight must have {count} partitions, as X has, got {v.numblocks[0]}")
    return list(v.to_delayed().ravel())


def _dtype_of(frame: Any) -> Any:
    """Return float32 where all columns of a frame are, else float64. Raises TypeError for a column that holds no numbers."""
    kinds = list(zip(frame.columns, frame.dtypes, strict=True))
    for name, dtype in kinds:
        if getattr(dtype, "kind", "O") not in "buif":
            numeric = [name for name, dtype in kinds if getattr(dtype, "kind", "O") in "buif"]
            raise TypeError(f"column {name!r} holds {dtype}, and must hold numbers; choose by frame[{numeric[:30]}]")
    single = all(dtype.kind == "f" and dtype.itemsize == 4 for _, dtype in kinds)
    return np.dtype(np.float32 if single else np.float64)


def _numbers(frame: Any) -> AnyArray:
    """Return a pandas data frame or Series as floats, null as NaN."""
    dtype = _dtype_of(frame.to_frame() if frame.ndim == 1 else frame)
    return cast(AnyArray, frame.to_numpy(dtype=dtype, na_value=np.nan))


# ------------------------------------------------------------------ Dask itself


def _scheduler(client: Any) -> tuple[Any, Any]:
    """Return the client, or None and a function that computes a graph in this process."""
    if client is None:
        get = _module("dask.base").get_scheduler()  # as Dask itself finds it: by its configuration, or the client made last
        client = getattr(get, "__self__", None)
        if client is None or not hasattr(client, "who_has"):
            alone = get is _module("dask.local").get_sync
            return None, get if alone else _module("dask.threaded").get
    if getattr(client, "asynchronous", False):
        raise ValueError("client must not be asynchronous, since a fit waits for each sweep; make one by distributed.Client(...)")
    return client, None


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'{error}: a DaskEngine takes dask; pip install "dask[array,dataframe]" distributed') from None
