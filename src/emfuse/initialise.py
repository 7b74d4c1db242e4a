"""Starts: from data to the first parameters.

k-means runs on the same compiled pass as EM: hard assignment is a sweep with another responsibility, under equal spherical
components in units of each feature's own standard deviation. So features of different units count alike, which
plain k-means does not do.

Layer 3.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from emfuse._typing import Doubles, Floats, Labels, RandomState
from emfuse.climb import Climb
from emfuse.collapse import Repair
from emfuse.engines import InMemory
from emfuse.maximise import CollapsedComponent, maximise
from emfuse.parameters import Factors, Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.structures import Structure, structure_named

KMEANS_SWEEPS = 30
KMEANS_GAIN = 1e-4  # relative fall of the within-cluster sum of squares at which k-means stops
# Starts look at an eighth of the rows, drawn at random, so that 30 sweeps of k-means cost less than 4 over all; but at 10,000 of
# them at least, which take milliseconds, and 100,000 at most. k-means++ makes do with 1,000. What follows them sees all rows.
SHARE, LEAST_SAMPLE, MOST_SAMPLE, SEEDING_SAMPLE = 8, 10_000, 100_000, 1_000
ROWS_A_COMPONENT = 100  # and never with less than so many rows a component
SHORT_RUNS, SHORT_STEPS, SHORT_SAMPLE, LEAST_RUNS = 20, 10, 4_000, 4
SAME = 1e-6  # nats a row: nearer log-likelihoods count as equal
CHUNK = 1 << 18  # numbers in one temporary array
MOST_PAIRED = 12  # features whose products are made for all components at once


def from_labels(
    X: ArrayLike, labels: ArrayLike, structure: str = "full", *, sample_weight: ArrayLike | None = None, reg_covar: float = 0.0
) -> Parameters:
    """Return the parameters that one M step makes of a hard partition.

    X : (N, D) array-like; labels : (N,) whole numbers, of which each of 0 .. K - 1 must occur; sample_weight : (N,) or None
    reg_covar : added to every variance, data units squared

    Raises CollapsedComponent where a cluster has no density (fewer than D + 1 distinct rows, for "full").
    """
    engine = InMemory(X, sample_weight)
    given = np.asarray(labels)
    if given.shape != (len(engine.X),):
        raise ValueError(f"labels must have shape ({len(engine.X)},), one a row of X, got {given.shape}")
    if given.dtype.kind not in "biu" and not (given.dtype.kind == "f" and np.array_equal(given, np.round(given))):
        raise TypeError(f"labels must be whole numbers, got an array of {given.dtype}")
    if given.min() < 0:
        raise ValueError(f"labels must be at least 0, got {given.min()} in row {int(given.argmin())}")
    given = given.astype(np.int64)
    K = int(given.max()) + 1
    missing = np.setdiff1d(np.arange(K), given)
    if missing.size:
        raise ValueError(f"labels must contain each of 0 .. {K - 1}, but {missing[0]} does not occur")
    kind = structure_named(structure)
    return maximise(statistics_of_labels(engine, given, K, kind.form), kind, reg_covar=reg_covar)


def from_responsibilities(
    X: ArrayLike, z: ArrayLike, structure: str = "full", *, sample_weight: ArrayLike | None = None, reg_covar: float = 0.0
) -> Parameters:
    """Return the parameters that one M step makes of responsibilities.

    X : (N, D) array-like; z : (N, K), at least 0, rows that sum to 1; sample_weight : (N,) or None
    reg_covar : added to every variance, data units squared

    Raises CollapsedComponent where a component has no density.
    """
    engine = InMemory(X, sample_weight)
    given = np.asarray(z, dtype=np.float64)
    if given.ndim != 2 or len(given) != len(engine.X):
        raise ValueError(f"z must have shape ({len(engine.X)}, K), one row a row of X, got {given.shape}")
    wrong = ~((given >= 0.0).all(axis=1) & (np.abs(given.sum(axis=1) - 1.0) < 1e-6))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"z must have rows at least 0 that sum to 1, got {given[row].tolist()} in row {row}")
    kind = structure_named(structure)
    return maximise(statistics_of_responsibilities(engine, given, kind.form), kind, reg_covar=reg_covar)


def statistics_of_labels(engine: InMemory, labels: Labels, K: int, form: str) -> SufficientStatistics:
    """Return the statistics of a hard partition into K, about its own means."""
    return _about_means(engine, K, form, lambda rows: _one_hot(labels[rows], K))


def statistics_of_responsibilities(engine: InMemory, z: Doubles, form: str) -> SufficientStatistics:
    """Return the statistics of responsibilities (N, K) about their own means; one without rows stays at the mean of all."""
    return _about_means(engine, z.shape[1], form, lambda rows: z[rows])


def statistics_of_drawn(engine: InMemory, K: int, form: str, draw: Callable[[slice], Doubles]) -> SufficientStatistics:
    """Return the statistics of responsibilities drawn at random while walking, once, about the mean of all rows (near theirs).

    draw : rows (a slice) -> (rows, K), called for one slice after the other
    """
    centre, _ = engine.moments
    return _accumulate(engine, np.repeat(centre[None], K, axis=0), form, draw)


def _about_means(engine: InMemory, K: int, form: str, z_of: Callable[[slice], Doubles]) -> SufficientStatistics:
    centre, _ = engine.moments
    rough = _accumulate(engine, np.repeat(centre[None], K, axis=0), "diag", z_of)
    with np.errstate(divide="ignore", invalid="ignore"):
        move = np.where(rough.mass[:, None] > 0, rough.first / rough.mass[:, None], 0.0)
    return _accumulate(engine, rough.origin + move, form, z_of)


def _accumulate(engine: InMemory, origin: Doubles, form: str, z_of: Callable[[slice], Doubles]) -> SufficientStatistics:
    """Equation 6 with responsibilities given, in NumPy: a start walks over the rows twice, a fit hundreds of times."""
    s = SufficientStatistics.zeros(origin, form)
    K, D = origin.shape
    together = bool((origin == origin[0]).all())  # one residual for all components: sums are products of matrices
    pairs = together and form == "full" and D <= MOST_PAIRED
    step = max(1, CHUNK // ((D * D if pairs else D) + K))
    for start in range(0, len(engine.X), step):
        rows = slice(start, start + step)
        x = engine.X[rows].astype(np.float64, copy=False)
        v = None if engine.sample_weight is None else engine.sample_weight[rows]
        r = z_of(rows) if v is None else z_of(rows) * v[:, None]
        s.mass += r.sum(axis=0)
        s.weight += float(len(x) if v is None else v.sum())
        if together and (pairs or form == "diag"):
            d = x - origin[0]
            s.first += r.T @ d
            terms = (d[:, :, None] * d[:, None, :]).reshape(len(d), -1) if pairs else d * d
            s.second += (r.T @ terms).reshape(s.second.shape)
            continue
        for k in range(K):
            own = np.flatnonzero(r[:, k])
            d = x[own] - origin[k]
            rd = r[own, k, None] * d
            s.first[k] += rd.sum(axis=0)
            s.second[k] += rd.T @ d if form == "full" else (rd * d).sum(axis=0)
    return s


def _one_hot(labels: Labels, K: int) -> Doubles:
    return np.asarray(labels[:, None] == np.arange(K), dtype=np.float64)


def generator(random_state: RandomState) -> np.random.Generator:
    """Return the source of randomness; None is the same one every time, so that the same data gives the same answer."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(np.iinfo(np.int32).max))
    if random_state is not None and (isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer))):
        raise TypeError(f"random_state must be an int, a numpy Generator or RandomState, or None, got {random_state!r}")
    return np.random.default_rng(0 if random_state is None else random_state)


def checked_components(K: object, N: int) -> int:
    """Return the number of components as an int. Raises where it is no whole number from 1 to N."""
    if isinstance(K, bool) or not isinstance(K, (int, np.integer)):
        raise TypeError(f"n_components must be a whole number, got {K!r}")
    if not 1 <= K <= N:
        raise ValueError(f"n_components must be from 1 to the number of rows, {N}, got {K}")
    return int(K)


def checked_count(name: str, number: object, least: int = 1) -> int:
    """Return a number of things as an int. Raises ValueError, which names the argument, where it is none or less than `least`."""
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}")
    return int(number)


def checked_start(start: object, K: int) -> Parameters:
    """Return a start that somebody gave. Raises TypeError or ValueError where it is no mixture of K components."""
    if not isinstance(start, Parameters):
        raise TypeError(f"init must be emfuse.Parameters here, got {type(start).__name__}")
    if start.n_components != K:
        raise ValueError(f"init must have n_components = {K} components, got {start.n_components}")
    return start


def in_one_thread(X: ArrayLike | InMemory, sample_weight: ArrayLike | None = None) -> InMemory:
    """Return rows, or those of an engine, as an engine with one thread, for callers who have the others. Raises as `InMemory`."""
    if not isinstance(X, InMemory):
        if hasattr(X, "sweep"):
            raise TypeError(f"X must be rows in memory, got {type(X).__name__}")
        return InMemory(X, sample_weight, n_threads=1)
    if sample_weight is not None:
        raise ValueError("sample_weight must be given to the engine, not beside it")
    return InMemory(X.X, X.sample_weight, n_threads=1, trusted=True)


def start(engine: InMemory, K: int, structure: str | Structure, init: str, random: np.random.Generator) -> Parameters:
    """Return start parameters for K components.

    init : str
        "kmeans" (k-means from a k-means++ seeding), "kmeans++" (the seeding alone), "random_rows" (K rows drawn), "random"
        (random responsibilities), "quantiles" (one feature: K parts of equal weight), "short_runs" (the best of 20 runs of ten
        EM steps, a third of them from k-means, the others from k-means++: Biernacki, Celeux & Govaert 2003). Rows go to the
        nearest centre, in standard deviations, and where a cluster has no density of its own all of them have one covariance.
        Of more than 10,000 rows, an eighth is looked at, drawn at random: 10,000 to 100,000 of them, and at least 100 a
        component; "kmeans++" looks at 1,000, "short_runs" at 4,000, "random_rows" at all.
    """
    kind = structure_named(structure)
    if init == "short_runs":
        return short_runs(engine, K, kind, random)
    if init == "random":
        engine = sample_rows(engine, _sample_size(engine, K), random)
        return maximise(statistics_of_drawn(engine, K, kind.form, random_responsibilities(engine, K, random)), kind)
    if init == "quantiles":
        engine = sample_rows(engine, _sample_size(engine, K), random)
        s = statistics_of_labels(engine, quantile_labels(engine, K), K, kind.form)
    elif init in CENTRES:
        s = statistics_of_nearest(engine, CENTRES[init](engine, K, random), kind.form)
    else:
        names = ", ".join(map(repr, (*CENTRES, "quantiles", "short_runs", "random")))
        raise ValueError(f"init must be one of {names}, or emfuse.Parameters, got {init!r}")
    try:
        return maximise(s, kind)
    except CollapsedComponent:
        return maximise(pooled(s), kind)


def short_runs(engine: InMemory, K: int, structure: Structure, random: np.random.Generator) -> Parameters:
    """Return what the best of some short runs of EM has come to; runs that collapse do not count.

    With so many components and features that 4,000 rows are too few for them, more rows are looked at, in fewer runs.
    """
    rows = max(SHORT_SAMPLE, K * max(ROWS_A_COMPONENT, 10 * engine.n_features))
    engine = sample_rows(engine, rows, random)
    best, most = None, -np.inf
    for run in range(max(LEAST_RUNS, SHORT_RUNS * SHORT_SAMPLE // rows) if K > 1 else 1):
        with suppress(CollapsedComponent):
            begin = start(engine, K, structure, "kmeans++" if run % 3 else "kmeans", random)
            climb = Climb(engine, begin, stop=SHORT_STEPS, repair=Repair("raise"))
            climb.run()
            if climb.trace[-1] > most + SAME * engine.weight:  # of runs to one maximum the first, whatever rounding says
                best, most = climb.parameters, climb.trace[-1]
    return start(engine, K, structure, "kmeans", random) if best is None else best


def quantile_labels(engine: InMemory, K: int) -> Labels:
    """Return the part of each row, (N,), where K parts of (nearly) equal weight follow each other. One feature."""
    if engine.n_features != 1:
        raise ValueError(f"init='quantiles' needs one feature, got {engine.n_features}; use 'kmeans' or 'short_runs'")
    x = engine.X[:, 0]
    order = np.argsort(x, kind="stable")
    v = np.ones(len(x)) if engine.sample_weight is None else engine.sample_weight[order]
    middle = np.cumsum(v) - 0.5 * v  # of each row's own share of the weight
    labels = np.empty(len(x), dtype=np.int64)
    labels[order] = np.minimum((K * middle / v.sum()).astype(np.int64), K - 1)
    return labels


def pooled(s: SufficientStatistics) -> SufficientStatistics:
    """Return statistics with one covariance for all, and for an empty cluster its centre and a K-th of the weight."""
    K = len(s.mass)
    empty = s.mass == 0
    mass = np.where(empty, s.weight / K, s.mass)
    s = s.about(s.origin + s.first / mass[:, None])  # its means; an empty cluster's is the centre
    within = s.second.sum(axis=0) / s.weight
    second = mass.reshape((K,) + (1,) * within.ndim) * within
    return SufficientStatistics(s.origin, mass, np.zeros_like(s.first), second, weight=s.weight)


def random_responsibilities(engine: InMemory, K: int, random: Any) -> Callable[[slice], Doubles]:
    """Return a function that draws responsibilities (rows, K), uniform then normalised, for one slice of rows after the other.

    random : numpy Generator or RandomState
    """

    def draw(rows: slice) -> Doubles:
        z = random.uniform(size=(len(engine.X[rows]), K)).astype(engine.X.dtype)
        return np.asarray(z / z.sum(axis=1, keepdims=True), dtype=np.float64)

    return draw


def statistics_of_nearest(engine: InMemory, centres: Doubles, form: str) -> SufficientStatistics:
    """Return the statistics of the partition that gives each row to the nearest of the centres (K, D), in standard deviations."""
    factors = nearest(engine, centres)
    if form == "full":
        factors = Factors(factors.means, factors.P[:, :, None] * np.eye(engine.n_features), factors.log_constant)
    return engine.sweep(factors, hard=True)


def nearest(engine: InMemory, centres: Floats) -> Factors:
    """Return factors under which a row's log density is minus half its squared distance, in standard deviations."""
    _, variance = engine.moments
    scale = np.where(variance > 0, 1.0 / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
    return Factors(
        np.ascontiguousarray(centres, dtype=np.float64), np.repeat(scale[None], len(centres), axis=0), np.zeros(len(centres))
    )


def most_rows(K: int) -> int:
    """Return how many rows the starts look at, at most."""
    return max(MOST_SAMPLE, ROWS_A_COMPONENT * K) if isinstance(K, (int, np.integer)) else MOST_SAMPLE


def _sample_size(engine: InMemory, K: int) -> int:
    return max(min(max(LEAST_SAMPLE, len(engine.X) // SHARE), MOST_SAMPLE), ROWS_A_COMPONENT * K)


def sample_rows(engine: InMemory, wanted: int, random: np.random.Generator) -> InMemory:
    """Return an engine of so many rows, drawn from those that weigh anything; or the same engine, where it has no more."""
    v = engine.sample_weight
    N = len(engine.X) if v is None else np.count_nonzero(v)
    if wanted >= N:
        return engine
    rows = np.sort(random.choice(N if v is None else np.flatnonzero(v), wanted, replace=False, shuffle=False))
    return InMemory(engine.X[rows], None if v is None else v[rows], n_threads=engine.n_threads, trusted=True)


def kmeans(engine: InMemory, K: int, random: np.random.Generator) -> Doubles:
    """Return K centres, (K, D) in data units, by Lloyd's iteration on scaled features from a k-means++ seeding.

    Of more than 10,000 rows an eighth is drawn, 10,000 to 100,000 and at least 100 a component, and the centres are theirs.
    """
    engine = sample_rows(engine, _sample_size(engine, K), random)
    factors = nearest(engine, kmeans_plus_plus(engine, K, random))
    before = np.inf
    for _ in range(KMEANS_SWEEPS):
        s = engine.sweep(factors, hard=True)
        centres = s.origin + np.divide(s.first, s.mass[:, None], out=np.zeros_like(s.first), where=s.mass[:, None] > 0)
        empty = np.flatnonzero(s.mass == 0)
        if empty.size:
            centres[empty] = engine.X[_farthest(engine, factors, empty.size)]
        within = -2.0 * s.log_likelihood
        factors = Factors(centres, factors.P, factors.log_constant)
        if not empty.size and before - within <= KMEANS_GAIN * within:
            break
        before = within
    return factors.means


def _farthest(engine: InMemory, factors: Factors, count: int) -> Labels:
    density = engine.evaluate(factors, log_density=True).log_density
    assert density is not None
    if engine.sample_weight is not None:
        density = np.where(engine.sample_weight > 0, density, 0.0)
    return np.argpartition(density, count - 1)[:count]


def kmeans_plus_plus(engine: InMemory, K: int, random: np.random.Generator) -> Doubles:
    """Return K rows as centres, (K, D) in data units, drawn in turn with probability proportional to their squared distance.

    The distance, in standard deviations, is that from the centres before. The best of 2 + log K candidates is taken each time
    (Arthur & Vassilvitskii 2007, section 6). Of more than 1,000 rows (or 100 a component), so many are drawn first.
    """
    engine = sample_rows(engine, max(SEEDING_SAMPLE, ROWS_A_COMPONENT * K), random)
    v = np.ones(len(engine.X)) if engine.sample_weight is None else engine.sample_weight
    z = (engine.X - engine.moments[0]) * nearest(engine, engine.X[:1]).P[0]

    def nearer(distance: Doubles, row: int) -> Doubles:
        """Squared distances once `row` is a centre too."""
        d = z - z[row]
        return np.asarray(np.minimum(distance, np.einsum("ij,ij->i", d, d)))

    rows = [int(_draw(v, random, 1)[0])]
    distance = nearer(np.full(len(z), np.inf), rows[0])
    while len(rows) < K:
        tried = np.unique(_draw(v * distance, random, 2 + int(np.log(K))))
        trials = [(int(row), nearer(distance, int(row))) for row in tried]
        row, distance = min(trials, key=lambda trial: float(v @ trial[1]))
        rows.append(row)
    return np.asarray(engine.X[np.array(rows)], dtype=np.float64)


def random_rows(engine: InMemory, K: int, random: np.random.Generator) -> Doubles:
    """Return K different rows as centres, (K, D) in data units, drawn with probability proportional to their weight."""
    v = engine.sample_weight
    weighted = v is not None and np.count_nonzero(v) >= K
    rows = random.choice(len(engine.X), K, replace=False, p=v / v.sum() if v is not None and weighted else None)
    return np.asarray(engine.X[rows], dtype=np.float64)


def _draw(weight: Doubles, random: np.random.Generator, count: int) -> Labels:
    """Draw rows with probability proportional to `weight`; where all is 0 (every row is a centre already), any rows."""
    sums = np.cumsum(weight)
    if sums[-1] == 0.0:
        return random.integers(len(weight), size=count)
    drawn = np.searchsorted(sums, random.random(count) * sums[-1], side="right")
    return np.asarray(np.minimum(drawn, np.flatnonzero(weight)[-1]))


CENTRES: dict[str, Callable[[InMemory, int, np.random.Generator], Doubles]] = {
    "kmeans": kmeans,
    "kmeans++": kmeans_plus_plus,
    "random_rows": random_rows,
}
