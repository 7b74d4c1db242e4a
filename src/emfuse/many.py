"""Many small data sets at once: one call, whose loop over data sets and sweeps is compiled and threaded.

One mixture for each gene, pixel, guide RNA or bootstrap sample: data sets of some hundred rows, for which a call of `fit` takes
longer than its sweeps. A start, EM and its stop happen here without Python in between; a data set that is not plain arithmetic
(a component collapses, a covariance is near to singular) is fitted again by `emfuse.em`, and one that cannot be is reported.

Layer 4.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emfuse import accelerate, initialise, kernels, stopping
from emfuse._typing import Doubles, Labels, RandomState
from emfuse.climb import DOUBLE_NOISE
from emfuse.em import VARIANCE_FLOOR, em
from emfuse.engines import POOLED_FROM, InMemory
from emfuse.frames import data_frame
from emfuse.maximise import MOST_FLOOR, MOST_ROUNDING, RECENTRE_ABOVE, CollapsedComponent
from emfuse.parameters import FEW_FEATURES, Parameters
from emfuse.stopping import Rule
from emfuse.structures import EPS, structure_named
from emfuse.threads import in_order, thread_count

BETWEEN = 0.1  # seconds between two words about progress
ROWS_AT_ONCE = 20_000  # of a chunk of data sets: some milliseconds for a thread
CONVERGED, AT_LIMIT, NOT_PLAIN = range(3)  # _many.h, where there are more ways not to be plain


@dataclass(frozen=True)
class Fits(Sequence[Parameters]):
    """Mixtures of M data sets; `fits[i]` is the i-th, as `Parameters`.

    weights : (M, K), means : (M, K, D), covariances : (M, ...)    in the structure's shape for one mixture; nan where it failed
    log_likelihood : (M,)    nats
    rows : (M,)              sum of row weights: of rows, where they weigh 1
    converged : (M,) bool    whether the stop was convergence
    distance : (M,)          how far below the maximum it stopped, estimated, nats; inf where nothing is known
    sweeps : (M,) int64      of all starts
    structure : str
    keys : list              what the data sets are called: 0, 1, ... where nobody said
    features : tuple         what the features are called: 0, 1, ... where nobody said
    failures : dict          from the number of a data set that has no fit to a sentence
    seconds : float
    """

    weights: Doubles
    means: Doubles
    covariances: Doubles
    log_likelihood: Doubles
    rows: Doubles
    converged: NDArray[np.bool_]
    distance: Doubles
    sweeps: Labels
    structure: str
    keys: list[Any]
    features: tuple[Any, ...]
    failures: dict[int, str]
    seconds: float = field(repr=False)

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, i: int) -> Parameters:  # type: ignore[override]  # no slices: the columns are arrays
        """Return the i-th mixture. Raises ValueError, with the reason, where there is none."""
        if not isinstance(i, (int, np.integer)):
            raise TypeError(f"fits are numbered from 0 to {len(self) - 1}, got {i!r}; the columns are arrays")
        if not -len(self) <= i < len(self):
            raise IndexError(f"fits are numbered from 0 to {len(self) - 1}, got {i}")
        i = int(i) % len(self)
        if i in self.failures:
            raise ValueError(f"data set {self.keys[i]!r} has no fit: {self.failures[i]}")
        kind = structure_named(self.structure)
        return Parameters.unchecked(self.weights[i].copy(), self.means[i].copy(), self.covariances[i].copy(), kind)

    def __iter__(self) -> Iterator[Parameters]:
        return (self[i] for i in range(len(self)))

    @property
    def free_parameters(self) -> int:
        """Number of free parameters of one mixture."""
        K, D = self.means.shape[1:]
        return int(K - 1 + K * D) + structure_named(self.structure).free_parameters(K, D)

    @property
    def aic(self) -> Doubles:
        """Akaike's criterion of each, (M,), 2 p - 2 log L; smaller is better."""
        return 2.0 * self.free_parameters - 2.0 * self.log_likelihood

    @property
    def bic(self) -> Doubles:
        """Schwarz's criterion of each, (M,), p log n - 2 log L; smaller is better."""
        return np.asarray(self.free_parameters * np.log(self.rows) - 2.0 * self.log_likelihood)

    @property
    def sds(self) -> Doubles:
        """Standard deviation of each feature in each component, (M, K, D), data units."""
        M, K, D = self.means.shape
        kind = structure_named(self.structure)
        return np.sqrt([kind.variances(covariances, K, D) for covariances in self.covariances]).reshape(M, K, D)

    def as_frame(self) -> Any:
        """Return a pandas DataFrame, one row a data set: weights, means and standard deviations, and how it ended.

        Raises ImportError where pandas is not installed.
        """
        K, D = self.means.shape[1:]
        columns: dict[str, Any] = {"rows": self.rows}
        sds = self.sds
        for k in range(K):
            columns[f"weight_{k}"] = self.weights[:, k]
            for d in range(D):
                of = f"{k}" if D == 1 else f"{k}_{self.features[d]}"
                columns[f"mean_{of}"], columns[f"sd_{of}"] = self.means[:, k, d], sds[:, k, d]
        columns |= {"log_likelihood": self.log_likelihood, "bic": self.bic, "converged": self.converged, "sweeps": self.sweeps}
        columns["failure"] = [self.failures.get(i, "") for i in range(len(self))]
        return data_frame(columns, self.keys, "key")

    def __repr__(self) -> str:
        M, K, D = self.means.shape
        return (
            f"Fits: {M} mixtures of {K} component{'s' * (K > 1)} in {D} feature{'s' * (D > 1)}, structure {self.structure!r}; "
            f"{int(self.converged.sum())} converged, {len(self.failures)} failed; {self.seconds:.3g} s"
        )


def fit_many(
    data: Any,
    n_components: int,
    *,
    structure: str = "full",
    init: Parameters | Fits | list[Parameters] | tuple[Parameters, ...] | None = None,
    by: Any = None,
    columns: Sequence[Any] | None = None,
    sample_weight: Any = None,
    n_init: int = 1,
    random_state: RandomState = None,
    stop: Rule | int | None = None,
    acceleration: str | None = "auto",
    variance_floor: float = VARIANCE_FLOOR,
    n_threads: int | None = None,
    callback: Callable[[int, int], object] | None = None,
    verbose: bool = False,
) -> Fits:
    """Fit the same kind of mixture to each of many data sets.

    Parameters
    ----------
    data : list of arrays, array, (values, offsets), DataFrame or groupby
        A list has arrays (N_i, D), or (N_i,) for one feature, of any lengths. An array (M, N) has a data set of one feature in
        each row, (M, N, D) of D features. With (values, offsets), data set i is values[offsets[i]:offsets[i + 1]]. A DataFrame
        of pandas or polars is split by the column or key `by`; a groupby of pandas is taken as it is. Data sets are then in the
        order of their keys.
    n_components : int       K, of each
    structure : str          one of `emfuse.structures`; up to 16 features
    init : Parameters, Fits or list of Parameters    a start for all, or for each, whose structure then counts; None: see n_init
    by : column name or keys (rows,)    what a DataFrame is split by; whatever `groupby` takes, of pandas
    columns : list           columns of a DataFrame or groupby to fit; all others than `by` where it is None. `Fits.features`
        has their names
    sample_weight            row weights in the same form as the data (a list, an array, or values in the order of the rows)
    n_init : int             starts of each: the first from parts of equal size (one feature) or k-means++, then Lloyd's
        iteration; the others from k-means++. The highest end is kept
    random_state : int, Generator, RandomState or None    None is the same starts every time
    stop : Within, GainBelow, RelativeGainBelow, SweepLimit, Steps, or `first_of` them; an integer runs exactly that many M steps.
        Default: `stopping.AT_MAXIMUM`
    acceleration : "auto", "emqn" or None
    variance_floor : float   as in `emfuse.em`
    n_threads : int or None  as everywhere; the result is the same to the last bit
    callback : callable      called with the number of data sets that are done, and of all, now and then
    verbose : bool           show that on stderr: in a terminal a line that changes, elsewhere the last one

    A data set that cannot be fitted (fewer rows than components, nan or infinity, every start collapses) is reported in
    `Fits.failures` and has nan, and the others go on. Raises ValueError and TypeError for what is wrong with the call.
    """
    X, offsets, v, keys, names = _as_sets(data, by, columns, sample_weight)
    M, D = len(offsets) - 1, X.shape[1]
    if D > FEW_FEATURES:
        raise ValueError(f"data must have at most {FEW_FEATURES} features here, got {D}; use `emfuse.fit` for each")
    K, starts = initialise.checked_count("n_components", n_components), initialise.checked_count("n_init", n_init)
    given = None
    if init is not None:
        given, structure, starts = *_given(init, M, K, D, structure), 1
    kind = structure_named(structure)
    if acceleration not in ("auto", "emqn", None):
        raise ValueError(f"acceleration must be 'auto', 'emqn' or None, got {acceleration!r}")
    if not 0.0 <= variance_floor < np.inf:
        raise ValueError(f"variance_floor must be finite and at least 0, got {variance_floor!r}")
    rule = stopping.AT_MAXIMUM if stop is None else stopping.as_rule(stop)
    numbers = stopping.numbers_of(rule)
    if numbers is None:
        raise TypeError(
            f"stop must be one of stopping.Within, GainBelow, RelativeGainBelow, SweepLimit and Steps here, got {stop!r}"
        )
    began = time.monotonic()
    shape = kind.shape(K, D)
    made = Fits(
        weights=np.full((M, K), np.nan),
        means=np.full((M, K, D), np.nan),
        covariances=np.full((M, *shape), np.nan),
        log_likelihood=np.full(M, np.nan),
        rows=np.diff(offsets).astype(np.float64) if v is None else np.array([v[a:b].sum() for a, b in pairwise(offsets)]),
        converged=np.zeros(M, dtype=bool),
        distance=np.full(M, np.inf),
        sweeps=np.zeros(M, dtype=np.int64),
        structure=kind.name,
        keys=keys,
        features=tuple(range(D)) if names is None else names,
        failures={},
        seconds=0.0,
    )
    if given is not None and M:
        made.weights[:], made.means[:], made.covariances[:] = given
    outcome = np.full(M, NOT_PLAIN, dtype=np.int64)
    seed = int(initialise.generator(random_state).integers(1 << 62))
    build, show = kernels.load(), _Progress(M, callback, verbose)

    def fit_chunk(chunk: slice) -> int:
        build.climb_many(
            X=X,
            sample_weight=v,
            offsets=offsets,
            begin=chunk.start,
            end=chunk.stop,
            structure=kind.name,
            K=K,
            from_result=given is not None,
            starts=starts,
            seed=seed,
            by_parts=v is None,
            accelerate=acceleration is not None,
            variance_floor=float(variance_floor),
            most_floor=MOST_FLOOR,
            far=RECENTRE_ABOVE,
            most_rounding=MOST_ROUNDING,
            least_sd=2.0 * EPS,
            **numbers,
            noise=DOUBLE_NOISE,
            warm_up=accelerate.WARM_UP,
            **accelerate.CONSTANTS,
            weights=made.weights,
            means=made.means,
            covariances=made.covariances,
            log_likelihood=made.log_likelihood,
            distance=made.distance,
            sweeps=made.sweeps,
            outcome=outcome,
        )
        return int(chunk.stop - chunk.start)

    if not (kind.name == "tied" and D >= POOLED_FROM):
        with closing(in_order(fit_chunk, _chunks(offsets), thread_count(n_threads))) as parts:
            for count in parts:
                show.add(count)
    options = {"stop": rule, "acceleration": acceleration, "variance_floor": variance_floor}
    for i in (int(i) for i in np.flatnonzero(outcome > AT_LIMIT)):
        rows = slice(offsets[i], offsets[i + 1])
        own = made.weights[i], made.means[i], made.covariances[i]
        start = None if given is None else Parameters.unchecked(own[0].copy(), own[1].copy(), own[2].copy(), kind)
        for column in own:
            column[...] = np.nan
        used = offsets[i + 1] - offsets[i] if v is None else np.count_nonzero(v[rows])
        if used < K:
            made.failures[i] = f"{used} rows are too few for {K} components"
        elif isinstance(init, Fits) and i in init.failures:
            made.failures[i] = f"its start has no fit: {init.failures[i]}"
        else:
            try:
                engine = InMemory(X[rows], None if v is None else v[rows], n_threads=1)
                outcome[i] = _by_itself(made, i, engine, start, K, starts, seed, options)
            except ValueError as error:  # a collapse is one too
                made.failures[i] = str(error)
    made.converged[outcome == CONVERGED] = True
    show.add(0, last=True)
    return replace(made, seconds=time.monotonic() - began)


def _given(init: Any, M: int, K: int, D: int, structure: str) -> tuple[list[Doubles], str]:
    """Weights, means and covariances of the start of each data set, or of one for all; and the structure, if there is a start."""
    if isinstance(init, Fits):
        if (len(init), init.means.shape[1:]) != (M, (K, D)):
            raise ValueError(f"init must have {M} mixtures of {K} components in {D} features, got {init!r}")
        return [init.weights, init.means, init.covariances], init.structure
    one_for_each = isinstance(init, (list, tuple))
    each = list(init) if one_for_each else [init]
    if one_for_each and len(each) != M:
        raise ValueError(f"init must be one start for all, or one for each of {M} data sets, got {len(each)}")
    for start in each:
        if initialise.checked_start(start, K).n_features != D:
            raise ValueError(f"init must have {D} features, as the data, got {start.n_features}")
        if start.structure != each[0].structure:
            raise ValueError(f"init must have one structure, got {each[0].structure!r} and {start.structure!r}")
    numbers = [np.array([getattr(start, of) for start in each]) for of in ("weights", "means", "covariances")]
    return numbers, each[0].structure if each else structure


def _by_itself(
    made: Fits, i: int, engine: InMemory, start: Parameters | None, K: int, starts: int, seed: int, options: dict[str, Any]
) -> int:
    """Fit one data set by `em`, into row i, and return how it ended. Raises ValueError where it cannot be fitted."""
    best, collapse = None, None
    for number in range(1 if start is not None else starts):
        init = "kmeans++" if number else "quantiles" if engine.n_features == 1 else "kmeans"
        random = np.random.default_rng([seed, i, number])
        try:
            begin = initialise.start(engine, K, made.structure, init, random) if start is None else start
            fit = em(engine, begin, **options)
        except CollapsedComponent as error:
            collapse = error
            continue
        made.sweeps[i] += fit.sweeps
        if best is None or fit.trace[-1] > best.trace[-1]:
            best = fit
    if best is None:
        assert collapse is not None
        raise collapse
    p = best.parameters
    made.weights[i], made.means[i], made.covariances[i] = p.weights, p.means, p.covariances
    made.log_likelihood[i], made.distance[i] = best.log_likelihood, best.distance
    return CONVERGED if best.converged else AT_LIMIT


def _chunks(offsets: Labels) -> list[slice]:
    """Cut the data sets into chunks of about so many rows."""
    M = len(offsets) - 1
    chunk_of_set = offsets[:-1] // ROWS_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(chunk_of_set)) + 1).tolist(), M]
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]


class _Progress:
    """Tells whoever wants to know how many data sets are done: at most ten times a second, and at the end."""

    def __init__(self, total: int, callback: Callable[[int, int], object] | None, verbose: bool):
        self.total, self.callback, self.verbose = total, callback, verbose
        self.in_terminal = verbose and sys.stderr.isatty()
        self.done, self.began = 0, time.monotonic()
        self.told = self.began

    def add(self, count: int, *, last: bool = False) -> None:
        self.done += count
        now = time.monotonic()
        if not (self.callback or self.verbose) or (now - self.told < BETWEEN and not last):
            return
        self.told = now
        done = self.total if last else self.done
        if self.callback:
            self.callback(done, self.total)
        if self.in_terminal or (self.verbose and last):
            seconds = now - self.began
            what = f"in {seconds:.3g} s" if last else f"{seconds * (self.total - done) / max(done, 1):.0f} s left"
            line = f"fit_many: {done:,} of {self.total:,}, {what}"
            print(f"\r{line:<60}" if self.in_terminal else line, end="\n" if last else "", file=sys.stderr, flush=True)


# ------------------------------------------------------------------ what the data may be

_Sets = tuple[Doubles, Labels, Doubles | None, list[Any], tuple[Any, ...] | None]


def _as_sets(data: Any, by: Any, columns: Sequence[Any] | None, sample_weight: Any) -> _Sets:
    """Return rows (N, D), offsets (M + 1,), row weights (N,) or None, keys, and names of the features or None."""
    if hasattr(data, "groupby") or hasattr(data, "get_group"):
        return _of_pandas(data, by, columns, sample_weight)
    if hasattr(data, "group_by") and hasattr(data, "get_column"):
        return _of_polars(data, by, columns, sample_weight)
    if by is not None or columns is not None:
        raise TypeError(f"by and columns are for a DataFrame or a groupby, got data of {type(data).__name__}")
    if isinstance(data, tuple) and len(data) == 2 and np.ndim(data[1]) == 1 and np.asarray(data[1]).dtype.kind in "iu":
        X = _rows(data[0])
        offsets = np.ascontiguousarray(data[1], dtype=np.int64)
        if offsets.size < 1 or offsets[0] != 0 or offsets[-1] != len(X) or (np.diff(offsets) < 0).any():
            raise ValueError(
                f"offsets must rise from 0 to the number of rows, {len(X)}, got {offsets[:3].tolist()} to {offsets[-1:].tolist()}"
            )
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    elif isinstance(data, np.ndarray):
        if data.ndim not in (2, 3) or data.dtype.kind not in "biuf":
            raise ValueError(f"data must be an array (M, N) or (M, N, D) of real numbers, got shape {data.shape}, {data.dtype}")
        M, N = data.shape[:2]
        X = np.ascontiguousarray(data, dtype=np.float64).reshape(M * N, -1 if data.size else 1)
        offsets = np.arange(M + 1, dtype=np.int64) * N
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64).reshape(-1)
    else:
        parts = [_rows(part) for part in data]
        D = {part.shape[1] for part in parts if len(part)} or {1}
        if len(D) > 1:
            raise ValueError(f"data sets must have the same number of features, got {sorted(D)}")
        X = np.concatenate([part for part in parts if len(part)] or [np.empty((0, *D))])
        offsets = _offsets(len(part) for part in parts)
        weights = None if sample_weight is None else np.concatenate([np.asarray(w, dtype=np.float64) for w in sample_weight])
    return X, offsets, _weights(weights, len(X)), list(range(len(offsets) - 1)), None


def _rows(part: ArrayLike) -> Doubles:
    array = np.asarray(part)
    if array.dtype.kind not in "biuf" and array.size:
        raise TypeError(f"data must be real numbers, got an array of {array.dtype}")
    array = np.ascontiguousarray(array, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"a data set must have shape (N,) or (N, D), got {np.shape(part)}")
    return array


def _weights(weights: Any, N: int) -> Doubles | None:
    if weights is None:
        return None
    if np.shape(weights) != (N,):
        raise ValueError(f"sample_weight must have one number a row, {N}, got {np.size(weights)}")
    return np.ascontiguousarray(weights, dtype=np.float64)


def _offsets(lengths: Iterable[int]) -> Labels:
    return np.array([0, *accumulate(lengths)], dtype=np.int64)


def _of_pandas(data: Any, by: Any, columns: Sequence[Any] | None, sample_weight: Any) -> _Sets:
    if hasattr(data, "get_group"):  # a groupby
        groups, frame = data, data.obj
        if by is not None:
            raise TypeError("by must be None for a groupby, which is split already")
    else:
        if by is None:
            raise TypeError("by must say what the DataFrame is split by: the name of a column, or a key for each row")
        groups, frame = data.groupby(by, sort=True, observed=True), data
    names: tuple[Any, ...] | None = None
    if frame.ndim > 1:
        keyed = set(groups.exclusions) if hasattr(groups, "exclusions") else set()
        names = tuple(columns) if columns is not None else tuple(name for name in frame.columns if name not in keyed)
        frame = frame[list(names)]
    return _split(frame.to_numpy(), groups.indices, names, sample_weight)


def _of_polars(data: Any, by: Any, columns: Sequence[Any] | None, sample_weight: Any) -> _Sets:
    if by is None:
        raise TypeError("by must say what the DataFrame is split by: the name of a column, or a key for each row")
    key = data.get_column(by) if isinstance(by, str) else by
    values, which = np.unique(np.asarray(key), return_inverse=True)
    if which.shape != (len(data),):
        raise ValueError(f"by must have one key a row, {len(data)}, or be the name of a column, got {np.shape(key)}")
    ends = np.cumsum(np.bincount(which, minlength=len(values)))[:-1]
    where = dict(zip(values.tolist(), np.split(np.argsort(which, kind="stable"), ends), strict=True))
    names = (
        tuple(columns)
        if columns is not None
        else tuple(name for name in data.columns if not (isinstance(by, str) and name == by))
    )
    return _split(data.select(names).to_numpy(), where, names, sample_weight)


def _split(values: Any, where: Mapping[Any, Labels], names: tuple[Any, ...] | None, sample_weight: Any) -> _Sets:
    """Rows sorted by key; `where` has the numbers of each key's rows."""
    keys = list(where)
    order = np.concatenate([where[key] for key in keys]) if keys else np.empty(0, dtype=np.int64)
    weights = _weights(sample_weight, len(values))
    X = _rows(values[order])
    return X, _offsets(len(where[key]) for key in keys), None if weights is None else weights[order], keys, names
