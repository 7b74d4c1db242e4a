"""Data on the machines of a cluster: an engine of Dask's partitions, each swept where it is.

    engine = DaskEngine(collection)              # a dask.array, a dask.dataframe, or a list of delayed arrays
    emfuse.em(engine, start)

Statistics are sums, so partitions need no mathematics of their own: a sweep is one task for each thread of each worker, over the
partitions that lie there, and a tree of `+` over the tasks. Parameters go down and statistics come up; rows stay on the workers,
in memory, looked at for NaN once.

What a scheduler costs is counted in tasks and in what they depend on. So a task is told the numbers of its partitions, and
takes them from the memory of its worker, of which the scheduler knows nothing. Which of them lie together is chance, so they are
added by `_Sums`, whose bits no order changes.

A task is bound to its worker. Dask lets it wait for ever where that worker is gone, so this is looked for while waiting; and
where a partition is gone, the task says so. Either way the sweep is asked for again, once Dask has made what was lost anew, from
what it was made of.

Layer 3.
"""

from __future__ import annotations

import importlib
import itertools
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cached_property, partial
from heapq import heappop, heappush
from threading import Semaphore
from typing import Any, NamedTuple, cast

import numpy as np

from emfuse import engines
from emfuse._typing import AnyArray, Doubles, Floats, Labels
from emfuse.engines import InMemory, as_rows, as_weights, overflowing
from emfuse.parameters import Factors, Parameters
from emfuse.statistics import SufficientStatistics

FAN_IN = 16  # sums that one task adds: few enough to be in memory together, and so many that a tree is seldom deeper than 3
LIGHT = 1 << 16  # numbers that a sweep may bring here as they are, 1.7 megabytes, rather than added up on their way
ADDED_AT_ONCE = 1 << 16  # numbers of statistics, half a megabyte: of small partitions many at once, of large ones each
DIGITS, BASE = 3, 2.0**32  # of `_Sums`: 65 bits at least below the largest term, and exact for two million terms
LEAST, MOST = -34, 32  # the digit that float64's smallest number is in, and one that no finite number reaches
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
    Each is swept by one thread: let there be one at least for each thread of the cluster. More cost little, and the scheduler
    nothing (`python -m bench.cluster`). The same partitions give the same bits, wherever they lie, as long as all workers run the
    same build (`emfuse.kernels.active`); of different ones, sums agree to rounding.

    Raises TypeError and ValueError that name the partition and the row in it; on a cluster, RuntimeError where a partition cannot
    be computed, or not again.
    """

    def __init__(self, collection: Any, client: Any = None, *, sample_weight: Any = None):
        chunks, lengths, self.columns = _chunks_of(collection)
        weights = _weights_of(sample_weight, lengths, len(chunks), isinstance(collection, (list, tuple)))
        self._client, self._get = _scheduler(client)
        self._token = uuid.uuid4().hex
        self._asked = itertools.count()
        partition = _module("dask").delayed(_partition, pure=False)
        made = [
            partition(i, X, v, dask_key_name=f"emfuse-rows-{i}-{self._token}")
            for i, (X, v) in enumerate(zip(chunks, weights, strict=True))
        ]
        self._seen: list[_Seen] = []
        if self._client is None:
            self._parts = list(_module("dask").compute(*made, scheduler=self._get))
            self._share(dict.fromkeys(range(len(made)), ""), {"": _threads_of(self._get)})
        else:
            self._parts = self._client.compute(made)
            self._find()
        seen = _merged(self._run("look", _look, None))
        self._seen = [seen[i] for i in range(len(made))]
        self._check()
        self._share(self._where, self._threads)  # again, now that it is known how many rows each partition has

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
        empty = SufficientStatistics.zeros(origin, factors.form)
        heavy = len(self._shares) > FAN_IN or len(self._shares) * _flat(empty).size > LIGHT
        sums = _sum(self._run("sweep", _sweep, _Ask(factors, origin, hard), heavy=heavy))
        if isinstance(sums, _Fault):
            self._raise(sums)
        total = _statistics(sums.value(), empty)
        if not abs(total.weight - self.weight) <= 1e-9 * self.weight:  # sums of weights in another order
            raise ValueError(
                f"the collection must give the same rows every time, but they weighed {self.weight:.9g} and now weigh "
                f"{total.weight:.9g}; a partition was made again, and came out differently"
            )
        return total

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
            raise overflowing(variance, self.columns)
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
        picked = _merged(self._run("sample", _pick, rows))
        X, v = zip(*(picked[i] for i in rows), strict=True)
        return InMemory(np.concatenate(X), None if v[0] is None else np.concatenate(v), trusted=True)

    # -------------------------------------------------------------- graphs

    def _run(self, verb: str, each: Callable[[Iterable[_Partition], Any], Any], given: Any, *, heavy: bool = False) -> list[Any]:
        """Do `each(partitions, given)` in every thread, with the partitions that it has, and return what comes of it.

        given : the argument of all; or a dict from numbers of partitions to what each is given, where only these are wanted
        heavy : bool    what comes of it is added up by `_sum` on its way, FAN_IN at a time, and comes as a list of one; and what
            is given goes to each worker once, which can pass it on. That takes two turns of the scheduler more.
        """
        if self._client is None:
            graph, _, keys = self._graph(verb, each, given, heavy)
            return list(self._get(graph, keys))
        for _ in range(MOST_LOSSES + 1):
            graph, bound, keys = self._graph(verb, each, given, heavy)
            results = self._results(graph, bound, keys)
            if not any(result is None for result in results):
                return results
            self._find()
        raise RuntimeError(
            f"{MOST_LOSSES + 1} times, a worker was lost in the middle of one {verb}: look into the workers' logs. They may have "
            "run out of memory; give them more of it, or make the partitions smaller."
        )

    def _graph(
        self, verb: str, each: Callable[[Iterable[_Partition], Any], Any], given: Any, heavy: bool
    ) -> tuple[dict[Any, Any], dict[Any, str], list[Any]]:
        """Return the tasks of `_run`, the address of the worker that each is bound to, if it is, and the keys of the results."""
        run = f"{next(self._asked)}-{self._token}"  # after the name that the dashboard shows, which ends before a number
        sent = f"emfuse-given-{run}"
        graph: dict[Any, Any] = {sent: (partial(_itself, given),)} if heavy else {}
        bound: dict[Any, str] = {}
        keys: list[Any] = []
        for address, numbers in self._shares:
            own = given
            if isinstance(given, dict):
                own = {i: given[i] for i in numbers if i in given}
                numbers = list(own)
                if not numbers:
                    continue
            key = (f"emfuse-{verb}-{run}", len(keys))
            if self._client is None:
                held = partial(iter, [self._parts[i] for i in numbers])
            else:
                held = partial(_in_memory, self._token, np.array(numbers))
                bound[key] = address
            graph[key] = (partial(_there, each, held), sent) if heavy else (partial(_there, each, held, own),)
            keys.append(key)
        for level in itertools.count() if heavy else ():
            if len(keys) == 1:
                break
            groups = [keys[first : first + FAN_IN] for first in range(0, len(keys), FAN_IN)]
            keys = [(f"emfuse-sum-{run}", level, i) for i in range(len(groups))]
            graph |= {key: (_sum, group) for key, group in zip(keys, groups, strict=True)}
        return graph, bound, keys

    def _share(self, where: dict[int, str], threads: dict[str, int]) -> None:
        """Share out the partitions of each worker to its threads, about as many rows to each.

        where : the address of each partition's worker
        threads : how many each address has
        """
        own: dict[str, list[int]] = {}
        for i, address in where.items():
            own.setdefault(address, []).append(i)
        shares = []
        for address, numbers in own.items():
            rows = {i: 1 + (self._seen[i].rows if self._seen else 0) for i in numbers}
            shares += [(address, share) for share in _balanced(rows, threads.get(address, 1))]
        self._where, self._threads, self._shares = where, threads, shares

    # -------------------------------------------------------------- a cluster, and its losses

    def _results(self, graph: dict[Any, Any], bound: dict[Any, str], keys: list[Any]) -> list[Any]:
        """Have a graph computed by the cluster; None among the results where a worker, or a partition that it had, was lost."""
        high = _module("dask.highlevelgraph")
        layers = {"bound": high.MaterializedLayer({key: graph[key] for key in bound}, annotations={"workers": bound.__getitem__})}
        if free := {key: task for key, task in graph.items() if key not in bound}:
            layers["free"] = free
        futures = self._client.get(high.HighLevelGraph(layers, {name: set() for name in layers}), keys, sync=False)
        fetch = partial(self._client.gather, futures, asynchronous=True)
        done, left, enough = Semaphore(0), len(futures), PATIENCE  # `distributed.wait` would ask the client made last
        for future in futures:
            future.add_done_callback(lambda _: done.release())
        try:
            while True:
                while left and done.acquire(timeout=PATIENCE):
                    left -= 1
                try:
                    if not left:
                        return cast(list[Any], self._client.sync(fetch, callback_timeout=enough))
                except TimeoutError:
                    if any(future.status == "error" for future in futures):  # it was the task's own
                        raise
                    enough *= 2.0
                if not set(bound.values()) <= set(self._client.nthreads()):
                    return [None]
        except (CancelledError, _module("distributed").KilledWorker):  # a result is gone, or workers with it
            return [None]
        finally:
            for future in futures:
                future.release()

    def _find(self) -> None:
        """Wait until every partition is on some worker, and note on which. Raises RuntimeError where one will never be."""
        while True:
            for _ in _module("distributed").as_completed(self._parts, loop=self._client.loop):
                pass
            for number, part in enumerate(self._parts):
                if part.status == "error":
                    error = part.exception()
                    raise RuntimeError(f"partition {number} cannot be computed: {type(error).__name__}: {error}") from error
                if part.status in ("cancelled", "lost"):
                    raise RuntimeError(
                        f"partition {number} was lost with its worker and cannot be made again, as what it was made of is lost "
                        "too. Begin again, with rows that the workers read or compute themselves, and not with scattered ones."
                    )
            holders = self._client.who_has(self._parts)
            if all(holders.get(part.key) for part in self._parts):
                break
            time.sleep(PATIENCE)  # one was lost since
        self._share({i: holders[part.key][0] for i, part in enumerate(self._parts)}, self._client.nthreads())

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
        if self.columns is not None and (feature := re.search(r"\bfeature (\d+)", fault.message)) is not None:
            said.append(f"column {self.columns[int(feature[1])]!r}")
        raise fault.kind(fault.message + (f" ({', '.join(said)})" if said else ""))


# ------------------------------------------------------------------ tasks: what the workers do


@dataclass(frozen=True)
class _Ask:
    """The arguments of a sweep."""

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


class _Gone(Exception):
    """A partition is not in the memory of the worker that had it."""


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


def _in_memory(token: str, numbers: Labels) -> Iterator[_Partition]:
    """Give these partitions, one after the other, from the memory of the worker whose task asks, or from its disk."""
    data = _module("distributed").get_worker().data
    for i in numbers:
        try:
            yield data[f"emfuse-rows-{i}-{token}"]
        except KeyError:
            raise _Gone from None


def _there(each: Callable[..., Any], held: Callable[[], Iterator[_Partition]], given: Any) -> Any:
    """Do `each` with partitions where they are; None where one is there no more."""
    try:
        return each(held(), given)
    except _Gone:
        return None


def _look(partitions: Iterable[_Partition], _: None) -> dict[int, _Seen]:
    return {partition.number: partition.seen for partition in partitions}


def _sweep(partitions: Iterable[_Partition], ask: _Ask) -> _Sums | _Fault:
    """Add up the statistics of partitions, in the order of their numbers; where one has a fault, return that."""
    sums, terms = _Sums(len(_flat(SufficientStatistics.zeros(ask.origin, ask.factors.form)))), []
    for partition in partitions:
        if partition.engine is None:
            if partition.seen.fault is not None:  # it had none once: it was made again, and is another
                return partition.seen.fault
            continue
        try:
            terms.append(_flat(partition.engine.sweep(ask.factors, origin=ask.origin, hard=ask.hard)))
        except ValueError as error:
            return _Fault.of(error, partition.number)
        if len(terms) * terms[0].size >= ADDED_AT_ONCE:
            sums.add(np.stack(terms))
            terms.clear()
    if terms:
        sums.add(np.stack(terms))
    return sums


def _pick(partitions: Iterable[_Partition], rows: dict[int, Labels]) -> dict[int, tuple[Floats, Doubles | None]]:
    """Return rows by their number among those that weigh anything, with their weights, of each partition."""
    return {partition.number: _rows_of(cast(InMemory, partition.engine), rows[partition.number]) for partition in partitions}


def _rows_of(engine: InMemory, rows: Labels) -> tuple[Floats, Doubles | None]:
    if engine.sample_weight is None:
        return engine.X[rows], None
    rows = np.flatnonzero(engine.sample_weight)[rows]
    return engine.X[rows], engine.sample_weight[rows]


def _itself(value: Any) -> Any:
    return value


def _merged(parts: list[dict[int, Any]]) -> dict[int, Any]:
    return {number: value for part in parts for number, value in part.items()}


def _sum(parts: list[Any]) -> Any:
    """Add `_Sums`; where there is a `_Fault`, return that of the first partition; where there is None, return it."""
    if any(part is None for part in parts):
        return None
    faults = [part for part in parts if isinstance(part, _Fault)]
    if faults:
        return min(faults, key=lambda fault: fault.number)
    total = _Sums(parts[0].top.size)
    for part in parts:
        total += part
    return total


def _balanced(rows: dict[int, int], threads: int) -> list[list[int]]:
    """Share out partitions with so many rows each: the largest first, each to the thread that has least."""
    shares: list[list[int]] = [[] for _ in range(threads)]
    least = [(0, thread) for thread in range(threads)]
    for i in sorted(rows, key=lambda i: (-rows[i], i)):
        load, thread = heappop(least)
        shares[thread].append(i)
        heappush(least, (load + rows[i], thread))
    return [sorted(share) for share in shares if share]


# ------------------------------------------------------------------ sums that no order changes


class _Sums:
    """Sums of float64 numbers that are the same to the last bit in whatever order and grouping their terms are added.

    A term is written in base 2^32. Sums of digits are whole numbers, so exact; and the first three digits, counted from the
    highest that any term of this sum has, are all that is kept. Which they are depends on the terms, and not on their order.
    (The idea: Demmel & Nguyen, Parallel reproducible summation, IEEE Trans. Computers 64, 2015.)

    top (n,)          of each sum, the place of its highest digit: that of 2^(32 top)
    digits (3, n)     sums of digits, from the highest; of infinite terms, or NaN, they come to NaN
    """

    def __init__(self, n: int):
        self.top = np.full(n, LEAST, np.int16)
        self.digits = np.zeros((DIGITS, n))

    def add(self, terms: Doubles) -> None:
        """Add terms (m, n): m to each of the sums."""
        largest = np.abs(terms).max(axis=0)
        top = (np.frexp(largest)[1] - 1) >> 5
        top[largest == 0.0] = LEAST
        top[~np.isfinite(largest)] = MOST
        self._raise(top.astype(np.int16))
        with np.errstate(invalid="ignore"):
            left = np.ldexp(terms, -32 * self.top.astype(np.intc))
            for digit in self.digits:
                whole = np.trunc(left)
                digit += whole.sum(axis=0)
                left = (left - whole) * BASE

    def __iadd__(self, other: _Sums) -> _Sums:
        self._raise(other.top)
        moved = _Sums(0)
        moved.top, moved.digits = other.top, other.digits.copy()  # it is some other task's result
        moved._raise(self.top)
        self.digits += moved.digits
        return self

    def __sizeof__(self) -> int:
        """Bytes: what Dask chooses by where to add them."""
        return 500 + self.top.nbytes + self.digits.nbytes

    def value(self) -> Doubles:
        """Return the sums, (n,): their three digits rounded, or NaN."""
        high, middle, low = self.digits.copy()
        with np.errstate(invalid="ignore", over="ignore"):
            for upper, lower in ((middle, low), (high, middle)):  # so that the lower ones are whole digits, and above 0
                carried = np.floor(lower / BASE)
                upper += carried
                lower -= carried * BASE
            return np.ldexp(high + (middle + low / BASE) / BASE, 32 * self.top.astype(np.intc))

    def _raise(self, top: AnyArray) -> None:
        """Let sums begin at a higher digit, where that is higher, and forget their lowest ones."""
        higher = np.flatnonzero(top > self.top)
        if higher.size:
            places, before = (top - self.top)[higher], self.digits[:, higher]
            self.digits[:, higher] = 0.0
            for n in range(1, DIGITS):
                by_n = places == n
                self.digits[n:, higher[by_n]] = before[: DIGITS - n, by_n]
            self.top = np.maximum(self.top, top)


def _flat(s: SufficientStatistics) -> Doubles:
    return np.concatenate([s.mass, s.first.ravel(), s.second.ravel(), [s.log_likelihood, s.weight]])


def _statistics(flat: Doubles, like: SufficientStatistics) -> SufficientStatistics:
    """Undo `_flat`, in the shapes of other statistics, about their origin."""
    sizes = [like.mass.size, like.first.size, like.second.size]
    mass, first, second, (log_likelihood, weight) = np.split(flat, np.cumsum(sizes))
    first, second = first.reshape(like.first.shape), second.reshape(like.second.shape)
    return SufficientStatistics(like.origin, mass, first, second, float(log_likelihood), float(weight))


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


def _threads_of(get: Any) -> int:
    """Return how many threads a scheduler of this process has."""
    if get is _module("dask.local").get_sync:
        return 1
    return int(_module("dask").config.get("num_workers", None) or _module("dask.system").CPU_COUNT)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f'{error}: a DaskEngine takes dask; pip install "dask[array,dataframe]" distributed') from None
