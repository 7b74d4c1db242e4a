"""How sure a fit is: standard errors and intervals of its parameters, and how many components there are, by the bootstrap.

The information is exact and takes one walk over the rows. Of the mixture's own coordinates (equation 2: a mean moved by L a and a
covariance L (I + E) L', L = P^-1), every derivative of a component's log density is a polynomial in y, so that the Hessian of the
log-likelihood is made of sums of products of 1, y and y y' (Louis 1982, "Finding the observed information matrix when using the
EM algorithm"): what known labels would tell, less what not knowing them costs. From there to weights, means and covariances, and
to what constraints leave free of them, is a linear map.

Refits of resamples begin at the fit itself, where `emfuse.em` takes 0.1 to 0.2 ms for a few hundred rows, and have a thread each.

The test of k components against k + 1 looks for maxima of k + 1 in the same way in the data and in samples from the fit of k, so
that its p-value is right even where not all maxima are found; and it stops when the answer is clear, with an exact p-value.

Layer 4.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse import initialise, stopping
from emfuse._typing import AnyArray, Doubles, Labels, RandomState
from emfuse.constraints import Constraints, Held
from emfuse.em import VARIANCE_FLOOR, Fit, em
from emfuse.engines import InMemory
from emfuse.maximise import CollapsedComponent
from emfuse.parameters import Parameters
from emfuse.structures import NotPositiveDefinite, Structure, structure_named
from emfuse.threads import in_order, thread_count

METHODS = ("information", "sandwich", "bootstrap", "parametric", "weighted")
LINEAR = ("full", "tied", "diag", "spherical", "EII", "EEI")  # covariances are linear in the free parameters: the Hessian follows
CHUNK = 1 << 19  # numbers in one temporary array of the walk
MOST_NUMBERS = 5_000  # weights, means and entries of covariances of all components: matrices of 200 MB, some of them at a time
MOST_FOR_THREADS = 512  # coordinates: with more, the sums of a chunk are large, and products of matrices have threads themselves
# The least share of the information that known labels would give: rounding of the Hessian leaves ten digits of the largest. And
# how many rows with known labels the data must be worth in every direction: with less than one, a weight's error is a half, or a
# mean's a standard deviation, and the log-likelihood is no parabola so far.
LEAST_SHARE, LEAST_WORTH = 1e-10, 1.0
MOST_SHIFT = 0.1  # standard errors from the maximum: intervals of 95 % have then lost 0.1 % of their coverage
MOST_MISSED = 0.01  # nats that an EM step would gain: a fit at a maximum leaves 1e-6
MOST_FAILURES = 0.05  # of resamples, before it is said

# Of the sequential test: what is unlikely enough to decide, and how often the statistic must be reached before p is above alpha.
UNLIKELY, LEAST_ABOVE = 1e-3, 10
SAME_STATISTIC = 1e-5  # nats: fits stop within 1e-6 of their maxima
LEAST_SD, LEAST_OF_NARROWEST = 0.02, 0.1  # standard deviation of a sound component: of all rows' own, of the narrowest's
ROUGHLY = stopping.first_of(stopping.Within(1e-2), stopping.SweepLimit(2_000))
NEAR, MOST_TOPS = 1.0, 3  # nats below the highest of the rough ends, and how many of them are taken to their top
# Starts of one component more. Measured on samples from fits to six data sets (1 to 4 features, N = 82 to 272): ten that join
# (and the 2 to 6 splits) fall short of the highest maximum known less than half as often as ten from k-means++, and no more often
# than sixty of those.
SPLIT, WIDE, SIZES, PLACES, APART, MOST_LOOKED_AT = 0.8, 1.6, (0.1, 0.3, 1.0), 60, 0.5, 2_000


class UncertaintyWarning(UserWarning):
    """Standard errors were computed, and should not be trusted without a look."""


# ------------------------------------------------------------------ the free parameters


@dataclass(frozen=True)
class _Groups:
    """What K components have of one kind, means or covariances: each fixed (-1), or a multiple of its group's first.

    group : (K,) int64
    multiple : (K,)
    """

    group: Labels
    multiple: Doubles

    @classmethod
    def of(cls, K: int, part: Any = None, shared: bool = False) -> _Groups:
        """One group a component, or one for all, or those of a constraint."""
        if part is None or part.nothing:
            return cls(np.zeros(K, dtype=np.int64) if shared else np.arange(K), np.ones(K))
        multiple = np.ones(K)
        for k in np.flatnonzero(~part.fixed):
            multiple[k] = part.multiple[k] / part.multiple[int((part.group == part.group[k]).argmax())]
        return cls(part.group, multiple)

    @cached_property
    def first(self) -> list[int]:
        """Of each group."""
        return [int((self.group == g).argmax()) for g in range(int(self.group.max(initial=-1)) + 1)]


@dataclass(frozen=True)
class _Free:
    """The vector of free parameters: weights of all but the last free component, means, then distinct entries of covariances.

    Of what goes together the first component's is the parameter. In units of the data: `units`; all linear maps here are from
    the vector in these units to means and covariances in these units.

    kind : Structure
    K, D : int
    of_weights : (K, p_w)           derivatives of the weights
    first_weights : list of int     whose weights are parameters
    means, covariances : _Groups
    feature_units : (D,)            powers of two near the components' standard deviations, data units
    """

    kind: Structure
    K: int
    D: int
    of_weights: Doubles
    first_weights: list[int]
    means: _Groups
    covariances: _Groups
    feature_units: Doubles

    @classmethod
    def of(cls, p: Parameters, held: Held | None) -> _Free:
        """The free parameters of a mixture under constraints."""
        K, D = p.means.shape
        kind = structure_named(p.structure)
        groups = _Groups.of(K, None if held is None else held.weights)
        sizes = np.zeros(len(groups.first))
        np.add.at(sizes, groups.group[groups.group >= 0], groups.multiple[groups.group >= 0])
        of_weights = np.zeros((K, max(0, len(sizes) - 1)))
        for k in np.flatnonzero(groups.group >= 0):
            if groups.group[k] < len(sizes) - 1:
                of_weights[k, groups.group[k]] = groups.multiple[k]
            else:  # the last group has what the others leave
                of_weights[k] = -groups.multiple[k] * sizes[:-1] / sizes[-1]
        return cls(
            kind=kind,
            K=K,
            D=D,
            of_weights=of_weights,
            first_weights=groups.first[:-1],
            means=_Groups.of(K, None if held is None else held.means),
            covariances=_Groups.of(K, None if held is None else held.covariances, kind.shared),
            feature_units=np.exp2(np.round(0.5 * np.log2(p.weights @ p.variances))),
        )

    @cached_property
    def entries(self) -> AnyArray:
        """Row and column of each distinct entry of a component's covariance, (m, 2)."""
        if self.kind.form == "full":
            return np.argwhere(np.tri(self.D, dtype=bool))
        return np.repeat(np.arange(1 if self.spheres else self.D)[:, None], 2, axis=1)

    @property
    def spheres(self) -> bool:
        """Whether a component has one number for all variances."""
        return len(self.kind.shape(self.K, self.D)) == 1

    @cached_property
    def starts(self) -> tuple[int, int, int]:
        """Where means begin in the vector, where covariances, and where it ends."""
        means = self.of_weights.shape[1]
        covariances = means + self.D * len(self.means.first)
        return means, covariances, covariances + len(self.entries) * len(self.covariances.first)

    def columns(self, k: int, of: str) -> slice:
        """Where component k's "means" or "covariances" are in the vector. It must not be fixed."""
        begin, size = (self.starts[0], self.D) if of == "means" else (self.starts[1], len(self.entries))
        g = int(getattr(self, of).group[k])
        return slice(begin + g * size, begin + (g + 1) * size)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the parameters are called."""
        made = [f"weight[{k}]" for k in self.first_weights]
        made += [_name("mean", k, *[d] * (self.D > 1)) for k in self.means.first for d in range(self.D)]
        return (*made, *(self.covariance_name("covariance", k, i, j) for k in self.covariances.first for i, j in self.entries))

    def covariance_name(self, what: str, k: int, i: int, j: int) -> str:
        """Like sd[k,i] or covariance[k,i,j]; without k, i or j where it is the same for all."""
        where = [] if self.kind.shared else [k]
        if self.D > 1 and not self.spheres:
            where += [i] if what == "sd" or self.kind.form == "diag" else [i, j]
        return _name("variance" if what == "covariance" and (self.D == 1 or self.kind.form == "diag") else what, *where)

    @cached_property
    def entry_units(self) -> Doubles:
        """Units of a component's entries, (m,), data units squared; of a sphere the largest."""
        if self.spheres:
            return np.asarray(np.square(self.feature_units.max(keepdims=True)))
        return np.asarray(self.feature_units[self.entries].prod(axis=1))

    @cached_property
    def units(self) -> Doubles:
        """Units of the vector, (p,): 1 for weights, data units for means, their squares for covariances."""
        means = np.tile(self.feature_units, len(self.means.first))
        covariances = np.tile(self.entry_units, len(self.covariances.first))
        return np.concatenate([np.ones(self.starts[0]), means, covariances])

    def entries_of(self, covariances: Doubles) -> Doubles:
        """Distinct entries of each component's covariance, (..., K, m), from the structure's array with any axes before."""
        shape = self.kind.shape(self.K, self.D)
        before = covariances.shape[: covariances.ndim - len(shape)]
        if self.kind.form == "full":
            entries = covariances[..., self.entries[:, 0], self.entries[:, 1]]
            return np.broadcast_to(entries[..., None, :], (*before, self.K, len(self.entries))) if len(shape) == 2 else entries
        return covariances[..., None] if self.spheres else covariances

    def array_of(self, entries: Doubles) -> Doubles:
        """The structure's array from each component's entries, (K, m)."""
        if self.kind.form != "full":
            return np.asarray(entries[:, 0] if self.spheres else entries)
        made = np.empty((self.K, self.D, self.D))
        rows, columns = self.entries.T
        made[:, rows, columns] = made[:, columns, rows] = entries
        return made if len(self.kind.shape(self.K, self.D)) == 3 else made[0]

    def vector(self, weights: Doubles, means: Doubles, covariances: Doubles) -> Doubles:
        """The vectors (..., p) of mixtures, in `units`."""
        entries = self.entries_of(covariances)[..., self.covariances.first, :] / self.entry_units
        parts = [weights[..., self.first_weights]]
        for part in (means[..., self.means.first, :] / self.feature_units, entries):
            parts.append(part.reshape(*part.shape[:-2], -1))
        return np.concatenate(parts, axis=-1)

    def jacobian(self, p: Parameters) -> Doubles:
        """From the vector, in `units`, to the mixture's own coordinates, (K q, p).

        Of each component: log weight; a with mean L a; the distinct entries of E with covariance L (I + E) L'.
        """
        P = p.factors.P
        m = len(self.entries) if self.kind.form == "full" else self.D
        q = 1 + self.D + m
        J = np.zeros((self.K, q, self.starts[2]))
        for k in range(self.K):
            J[k, 0, : self.starts[0]] = self.of_weights[k] / p.weights[k]
            own = (P[k] if len(P) == self.K else P[0]) * self.feature_units
            if P.ndim == 2:
                own = np.diag(np.broadcast_to(own, self.D))
            if self.means.group[k] >= 0:
                J[k, 1 : 1 + self.D, self.columns(k, "means")] = self.means.multiple[k] * own
            if self.covariances.group[k] >= 0:
                J[k, 1 + self.D :, self.columns(k, "covariances")] = self.covariances.multiple[k] * self._whitened(own)
        return J.reshape(self.K * q, -1)

    def _whitened(self, P: Doubles) -> Doubles:
        """From a component's entries to the distinct entries of E = P C P', one column for each entry."""
        if self.kind.form == "full":
            B = _symmetric(self.D)
            return np.asarray((P @ B @ P.T)[:, self.entries[:, 0], self.entries[:, 1]].T)
        squares = np.square(np.diagonal(P))
        if not self.spheres:
            return np.diag(squares)
        return np.asarray((squares * self.entry_units[0] / np.square(self.feature_units))[:, None])


def _name(what: str, *where: int) -> str:
    return f"{what}[{','.join(str(int(i)) for i in where)}]" if where else what


def _symmetric(D: int) -> Doubles:
    """The symmetric matrices with one distinct entry 1, row by row of the lower triangle, (D (D + 1) / 2, D, D)."""
    rows, columns = np.tril_indices(D)
    B = np.zeros((len(rows), D, D))
    at = np.arange(len(rows))
    B[at, rows, columns] = B[at, columns, rows] = 1.0
    return B


# ------------------------------------------------------------------ the information


def _walk(engine: InMemory, p: Parameters, n_threads: int) -> tuple[Doubles, Doubles, Doubles]:
    """Sums over the rows in the mixture's own coordinates, q of each component: log weight, a and E.

    Returns sum v s s' (K q, K q), s the score of a row; sum v r f f' (K, q, q), f the score of a component's log density; and
    sum v s (K q,).
    """
    f = p.factors
    K, D = p.means.shape
    triangle = f.P.ndim == 3
    i, j = np.tril_indices(D)
    halves = np.where(i == j, 0.5, 1.0)
    m = len(i) if triangle else D
    q = 1 + D + m
    step = max(64, CHUNK // (K * q))
    chunks = [slice(begin, begin + step) for begin in range(0, len(engine.X), step)]

    def work(rows: slice) -> tuple[Doubles, Doubles, Doubles]:
        x = engine.X[rows].astype(np.float64, copy=False)
        F = np.empty((K, len(x), q))
        F[:, :, 0] = 1.0
        y = F[:, :, 1 : 1 + D]
        for k in range(K):
            d = x - p.means[k]
            P = f.P[k] if len(f.P) == K else f.P[0]
            y[k] = d @ P.T if triangle else d * P
        log_density = f.log_constant[:, None] - 0.5 * np.square(y).sum(axis=2)  # (3)
        r = np.exp(log_density - log_density.max(axis=0))
        r /= r.sum(axis=0)
        if triangle:
            F[:, :, 1 + D :] = (y[:, :, i] * y[:, :, j] - (i == j)) * halves
        else:
            F[:, :, 1 + D :] = 0.5 * (y * y - 1.0)
        v = np.ones(len(x)) if engine.sample_weight is None else engine.sample_weight[rows]
        S = F * r[:, :, None]
        own = F.transpose(0, 2, 1) @ (S * v[:, None])
        flat = S.transpose(1, 0, 2).reshape(len(x), K * q)
        return (flat * v[:, None]).T @ flat, own, v @ flat

    totals = (np.zeros((K * q, K * q)), np.zeros((K, q, q)), np.zeros(K * q))
    with closing(in_order(work, chunks, n_threads if K * q <= MOST_FOR_THREADS else 1)) as parts:
        for part in parts:
            for total, sums in zip(totals, part, strict=True):
                total += sums
    return totals


def _curvature(own: Doubles, D: int) -> Doubles:
    """The Hessian of sum v r log density in a component's own coordinates, (q, q), from sum v r f f'.

    With respect to a and E it is -n a'a - 2 a' E m + n tr(E E) / 2 - tr(E E Y), n, m and Y the sums of v r times 1, y, y y'.
    """
    q = len(own)
    n, first, Y = own[0, 0], own[0, 1 : 1 + D], own[1 : 1 + D, 1 : 1 + D]
    H = np.zeros((q, q))
    H[0, 0] = -n
    H[1 : 1 + D, 1 : 1 + D] = -n * np.eye(D)
    if q == 1 + 2 * D:  # D = 1 too, whose triangle is its diagonal
        cross = -np.diag(first)
        H[1 + D :, 1 + D :] = np.diag(0.5 * n - np.diagonal(Y))
    else:
        B = _symmetric(D)
        cross = -(B @ first).T
        flat = B.reshape(len(B), -1)
        product = (B @ Y).reshape(len(B), -1) @ flat.T
        H[1 + D :, 1 + D :] = 0.5 * n * (flat @ flat.T) - 0.5 * (product + product.T)
    H[1 : 1 + D, 1 + D :] = cross
    H[1 + D :, 1 : 1 + D] = cross.T
    return H


@dataclass(frozen=True)
class _Information:
    """Of the vector of free parameters, in its units.

    observed : (p, p)    minus the Hessian of the log-likelihood
    complete : (p, p)    what it would be if the labels were known, expected
    scores : (p, p)      sum of v s s', s the score of a row
    gradient : (p,)      sum of v s
    """

    observed: Doubles
    complete: Doubles
    scores: Doubles
    gradient: Doubles


def _information(engine: InMemory, p: Parameters, free: _Free, n_threads: int) -> _Information:
    K, D = p.means.shape
    J = free.jacobian(p)
    q = len(J) // K
    squares, own, gradient = _walk(engine, p, n_threads)
    observed, complete = squares.copy(), np.zeros(len(J))
    square = np.ones(q)  # of E: half of the squares on its diagonal, and each beside it twice
    square[1 + D :] = 0.5
    if q > 1 + 2 * D:
        square[1 + D :][np.not_equal(*np.tril_indices(D))] = 1.0
    for k in range(K):
        at = slice(k * q, (k + 1) * q)
        observed[at, at] -= own[k] + _curvature(own[k], D)
        complete[at] = engine.weight * p.weights[k] * square
    return _Information(_half(J.T @ observed @ J), _half((J.T * complete) @ J), _half(J.T @ squares @ J), J.T @ gradient)


def _half(A: Doubles) -> Doubles:
    """The matrix, symmetric in its last bit too."""
    return np.asarray(0.5 * (A + A.T))


def _inverse(information: _Information, names: Sequence[str], K: int, rows: float) -> Doubles:
    """The inverse of the observed information. Raises ValueError, and warns, naming the direction that is not known."""
    from scipy.linalg import solve_triangular

    if not names:
        return np.zeros((0, 0))
    L = np.linalg.cholesky(information.complete)
    half = solve_triangular(L, information.observed, lower=True)
    shares, Q = np.linalg.eigh(_half(solve_triangular(L, half.T, lower=True)))
    back = solve_triangular(L, Q, lower=True, trans="T")  # directions, in units of the vector
    worth = float(shares[0]) * rows
    if shares[0] <= LEAST_SHARE or worth < LEAST_WORTH:
        alone = np.sqrt(np.square(solve_triangular(L, np.eye(len(L)), lower=True)).sum(axis=0))
        direction = back[:, 0] / alone
        direction = direction / direction[int(np.abs(direction).argmax())]
        most = [i for i in np.argsort(-np.abs(direction), kind="stable")[:4] if abs(direction[i]) > 0.05]
        along = ", ".join(f"{names[i]} {direction[i]:+.2f}" for i in most)
        seen = (
            f"along the direction {along} (in standard errors that known labels would leave) the {rows:g} rows tell as much as "
            f"{worth:.2g} with known labels would"
        )
        todo = f"Ask for fewer components (now {K}), or use method='bootstrap'."
        missed = 0.5 * float(np.square(solve_triangular(L, information.gradient, lower=True)).sum())
        if missed > MOST_MISSED:
            todo = f"The fit is not at a maximum either: an EM step would gain about {missed:.2g} nats. Fit closer to one."
        if shares[0] <= LEAST_SHARE:
            raise ValueError(
                f"the observed information is not positive definite: {seen}, and must tell more than nothing. {todo}"
            )
        warnings.warn(
            f"the observed information is nearly singular: {seen}, and Wald intervals need {LEAST_WORTH:g} at the least. {todo}",
            UncertaintyWarning,
            stacklevel=4,
        )
    return _half((back / shares) @ back.T)


# ------------------------------------------------------------------ what comes back


@dataclass(frozen=True)
class Interval:
    """One number of a mixture: what it is called, what was estimated, its standard error and the ends of an interval."""

    name: str
    estimate: float
    se: float
    lower: float
    upper: float


class Intervals(Sequence[Interval]):
    """Intervals of all weights, means, standard deviations and correlations; `intervals["mean[0]"]` is one of them."""

    def __init__(self, rows: Sequence[Interval], level: float, method: str):
        self.rows, self.level, self.method = list(rows), level, method

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> Any:
        """Return a row by its number or its name."""
        if not isinstance(which, str):
            return self.rows[which]
        for row in self.rows:
            if row.name == which:
                return row
        raise KeyError(f"no parameter is called {which!r}; there are {', '.join(row.name for row in self.rows)}")

    def __iter__(self) -> Iterator[Interval]:
        return iter(self.rows)

    def as_frame(self) -> Any:
        """Return a pandas DataFrame, one row a parameter."""
        import importlib

        pandas = importlib.import_module("pandas")
        columns = {name: [getattr(row, name) for row in self] for name in ("estimate", "se", "lower", "upper")}
        return pandas.DataFrame(columns, index=pandas.Index([row.name for row in self], name="parameter"))

    def __str__(self) -> str:
        head = ["parameter", "estimate", "se", f"{100 * self.level:g}% from", "to"]
        table = [head] + [[r.name, *(f"{x:.6g}" for x in (r.estimate, r.se, r.lower, r.upper))] for r in self]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
            for row in table
        )

    __repr__ = __str__


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Standard errors of a fit's parameters, in their own shapes and units.

    parameters : Parameters     the fit's
    method : str                how they were found
    weights : (K,)              no unit
    means : (K, D)              data units
    covariances                 in the structure's shape, data units squared
    sds : (K, D)                of the standard deviations, data units
    names : tuple of p str      the free parameters: weights but the last, means, distinct entries of the covariances; of what a
        structure or a constraint holds equal the first, and nothing of what is fixed. A structure whose covariances are no linear
        function of its parameters ("VVE") has all entries here
    resampled : tuple or None   weights (R, K), means (R, K, D) and covariances (R, ...) of the refits, labels matched; None where
        there were none
    failures : int              refits that collapsed, and do not count
    """

    parameters: Parameters
    method: str
    weights: Doubles
    means: Doubles
    covariances: Doubles
    sds: Doubles
    names: tuple[str, ...] = field(repr=False)
    resampled: tuple[Doubles, Doubles, Doubles] | None = field(repr=False)
    failures: int
    _free: _Free = field(repr=False)
    _scaled: Doubles | None = field(repr=False)  # of the vector in its units; None: it is in the resamples

    @property
    def covariance(self) -> Doubles:
        """Covariance matrix of the free parameters, (p, p), in the order of `names`.

        Where data units squared, twice squared, are beyond a double's range (standard deviations above 1e75), it overflows; the
        standard errors do not.
        """
        units, scaled = self._free.units, self._scaled
        if scaled is None:
            assert self.resampled is not None
            scaled = np.atleast_2d(np.cov(self._free.vector(*self.resampled), rowvar=False)) if len(units) else np.zeros((0, 0))
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(units[:, None] * scaled * units)

    def confidence_intervals(self, level: float = 0.95, method: str = "wald") -> Intervals:
        """Return intervals that hold each parameter with probability `level`, about.

        method : "wald" (estimate and standard errors; of weights on the logit's scale, of standard deviations on the logarithm's,
            of correlations on Fisher's, so that no interval leaves the parameter's range), or "percentile" (of the resamples)

        Raises ValueError.
        """
        if isinstance(level, bool) or not isinstance(level, (int, float, np.number)) or not 0.0 < level < 1.0:
            raise ValueError(f"level must lie between 0 and 1, got {level!r}")
        if method not in ("wald", "percentile"):
            raise ValueError(f"method must be 'wald' or 'percentile', got {method!r}")
        if method == "percentile" and self.resampled is None:
            raise ValueError(
                f"method must be 'wald' for standard errors by {self.method!r}, got 'percentile', which needs resamples: "
                "standard_errors(..., method='bootstrap')"
            )
        z = NormalDist().inv_cdf(0.5 + 0.5 * level)
        quantiles = (0.5 - 0.5 * level, 0.5 + 0.5 * level)
        rows = []
        for name, estimate, se, samples in self._numbers():
            if method == "percentile":
                assert samples is not None
                lower, upper = np.quantile(samples, quantiles) if se > 0.0 else (estimate, estimate)
            else:
                lower, upper = _wald(name, estimate, z * se)
            rows.append(Interval(name, float(estimate), float(se), float(lower), float(upper)))
        return Intervals(rows, float(level), method)

    def _numbers(self) -> Iterator[tuple[str, float, float, Doubles | None]]:
        """Name, estimate, standard error and resamples of every weight, mean, standard deviation and correlation."""
        free, p = self._free, self.parameters
        weights, means, covariances = (None, None, None) if self.resampled is None else self.resampled
        for k in range(free.K):
            yield f"weight[{k}]", p.weights[k], self.weights[k], None if weights is None else weights[:, k]
        for k in range(free.K):
            for d in range(free.D):
                name = _name("mean", k, *[d] * (free.D > 1))
                yield name, p.means[k, d], self.means[k, d], None if means is None else means[:, k, d]
        entries = free.entries_of(p.covariances)
        sampled = None if covariances is None else free.entries_of(covariances)
        diagonal = {int(i): at for at, (i, j) in enumerate(free.entries) if i == j}
        for k in range(1 if free.kind.shared else free.K):
            for d, at in diagonal.items():
                drawn = None if sampled is None else np.sqrt(sampled[:, k, at])
                yield free.covariance_name("sd", k, d, d), np.sqrt(entries[k, at]), self.sds[k, d], drawn
        for k in range(1 if free.kind.shared else free.K):
            for at, (i, j) in enumerate(free.entries):
                if i != j:
                    rho, se, drawn = self._correlation(k, at, (diagonal[int(i)], diagonal[int(j)]), entries, sampled)
                    yield free.covariance_name("correlation", k, int(i), int(j)), rho, se, drawn

    def _correlation(
        self, k: int, at: int, of: tuple[int, int], entries: Doubles, sampled: Doubles | None
    ) -> tuple[float, float, Doubles | None]:
        free = self._free
        three = [at, *of]
        c, v, w = (entries / free.entry_units)[k, three]
        rho = c / np.sqrt(v * w)
        if sampled is not None:
            drawn = sampled / free.entry_units
            drawn = np.asarray(drawn[:, k, at] / np.sqrt(drawn[:, k, of[0]] * drawn[:, k, of[1]]))
            return float(rho), _sd(drawn), drawn
        if free.covariances.group[k] < 0 or self._scaled is None:
            return float(rho), 0.0, None
        slope = free.covariances.multiple[k] * np.array([1.0 / np.sqrt(v * w), -0.5 * rho / v, -0.5 * rho / w])
        where = np.array(three) + free.columns(k, "covariances").start
        return float(rho), float(np.sqrt(max(0.0, slope @ self._scaled[np.ix_(where, where)] @ slope))), None

    def __str__(self) -> str:
        failed = f", {self.failures} of which collapsed and do not count" if self.failures else ""
        count = "" if self.resampled is None else f", {len(self.resampled[0]) + self.failures} resamples{failed}"
        return f"standard errors by {self.method!r}{count}\n{self.confidence_intervals()}"


def _wald(name: str, estimate: float, half: float) -> tuple[float, float]:
    if half == 0.0:
        return estimate, estimate
    if name.startswith("weight"):
        odds = np.log(estimate) - np.log1p(-estimate)
        half = half / (estimate * (1.0 - estimate))
        return 1.0 / (1.0 + np.exp(half - odds)), 1.0 / (1.0 + np.exp(-half - odds))
    if name.startswith("sd"):
        with np.errstate(over="ignore"):
            return estimate * np.exp(-half / estimate), estimate * np.exp(half / estimate)
    if name.startswith("correlation"):
        half = half / (1.0 - estimate * estimate)
        return np.tanh(np.arctanh(estimate) - half), np.tanh(np.arctanh(estimate) + half)
    return estimate - half, estimate + half


def _sd(samples: Doubles) -> float:
    return float(samples.std(ddof=1))


# ------------------------------------------------------------------ standard errors


def standard_errors(
    fit: Fit,
    X: ArrayLike | InMemory,
    *,
    method: str = "information",
    n_resamples: int = 999,
    sample_weight: ArrayLike | None = None,
    random_state: RandomState = None,
    n_threads: int | None = None,
) -> Uncertainty:
    """Return standard errors of a fit's weights, means and covariances.

    Parameters
    ----------
    fit : Fit                at a maximum; its constraints hold here too
    X : (N, D) array-like    the rows that it was fitted to, data units
    method : str
        "information": the inverse of the observed information, exact, in one walk; right where the model is. "sandwich": the same
        on both sides of the scores' own covariance (White 1982), right where it is not. "parametric": refits of samples from the
        fit. "bootstrap": refits of rows drawn with replacement. "weighted": refits of the rows under random weights, drawn from a
        Dirichlet distribution, which leave no component without rows (O'Hagan, Murphy, Scrucca & Gormley 2019). The first two
        need structure "full", "tied", "diag", "spherical", "EII" or "EEI"
    n_resamples : int        refits, of the last three
    sample_weight : (N,)     row weights; weight two is the row twice
    random_state : int, Generator, RandomState or None    of the last three; None is the same resamples every time
    n_threads : int or None  as everywhere; the result is the same to the last bit

    Refits start at the fit, and their components are given the labels of the nearest of its own; under constraints they keep
    their places. One that collapses does not count.

    Warns UncertaintyWarning where the fit is not at a maximum, the information is nearly singular, or many refits collapse.

    Raises
    ------
    ValueError    the information is not positive definite (the message names the direction), a component has weight 0, fewer
        than two refits are left; or unusable arguments
    TypeError     unusable arguments
    """
    if not isinstance(fit, Fit):
        raise TypeError(f"fit must be an emfuse.Fit, got {type(fit).__name__}; `emfuse.em(X, parameters)` makes one")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    _require_count("n_resamples", n_resamples, 2)
    engine = _rows(X, sample_weight)
    p, threads = fit.parameters, thread_count(n_threads)
    engine.check_features(p.factors)
    if not p.weights.min() > 0.0:
        k = int(p.weights.argmin())
        raise ValueError(f"component {k} has weight 0, so that nothing tells its mean and covariance: drop it and fit again")
    free = _Free.of(p, fit.held)
    if method in ("information", "sandwich"):
        return _by_information(engine, p, free, method, threads)
    return _by_refits(engine, fit, free, method, int(n_resamples), random_state, threads)


def _by_information(engine: InMemory, p: Parameters, free: _Free, method: str, n_threads: int) -> Uncertainty:
    if p.structure not in LINEAR:
        raise ValueError(
            f"method must be 'bootstrap', 'parametric' or 'weighted' for structure {p.structure!r}, got {method!r}, which is for "
            f"{', '.join(map(repr, LINEAR))}"
        )
    numbers = free.K * (1 + free.D + (free.D * (free.D + 1) // 2 if free.kind.form == "full" else free.D))
    if numbers > MOST_NUMBERS:
        raise ValueError(
            f"method must be 'bootstrap', 'parametric' or 'weighted' for so large a mixture, got {method!r}: its "
            f"components have {numbers} numbers, and the matrix of their second derivatives is made for {MOST_NUMBERS} at most"
        )
    information = _information(engine, p, free, n_threads)
    inverse = _inverse(information, free.names, free.K, engine.weight)
    if free.names:
        shift = np.abs(inverse @ information.gradient) / np.sqrt(np.diagonal(inverse))
        worst = int(shift.argmax())
        if not shift[worst] <= MOST_SHIFT:
            warnings.warn(
                f"the fit is not at a maximum of the log-likelihood of X: a Newton step moves {free.names[worst]} by "
                f"{shift[worst]:.2g} standard errors, and should by less than {MOST_SHIFT:g}. Give the rows and weights that it "
                "was fitted to, or fit again with a tighter stop and without reg_covar.",
                UncertaintyWarning,
                stacklevel=3,
            )
    V = inverse if method == "information" else _half(inverse @ information.scores @ inverse)
    first, last, _ = free.starts
    weights = np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", free.of_weights, V[:first, :first], free.of_weights), 0.0))
    of_vector = np.sqrt(np.maximum(np.diagonal(V), 0.0))
    means = _spread(of_vector[first:last], free.means, free.D) * free.feature_units
    entries = _spread(of_vector[last:], free.covariances, len(free.entries)) * free.entry_units
    covariances = free.array_of(entries)
    return Uncertainty(
        parameters=p,
        method=method,
        weights=weights,
        means=means,
        covariances=covariances,
        sds=np.asarray(0.5 * free.kind.variances(covariances, free.K, free.D) / p.sds),
        names=free.names,
        resampled=None,
        failures=0,
        _free=free,
        _scaled=V,
    )


def _spread(of_groups: Doubles, groups: _Groups, size: int) -> Doubles:
    """Standard errors of each component's, (K, size), from those of the groups; 0 where it is fixed."""
    made = np.zeros((len(groups.group), size))
    free = groups.group >= 0
    made[free] = np.abs(groups.multiple[free, None]) * of_groups.reshape(-1, size)[groups.group[free]]
    return made


# ------------------------------------------------------------------ resamples


def _by_refits(
    engine: InMemory, fit: Fit, free: _Free, method: str, n_resamples: int, random_state: RandomState, n_threads: int
) -> Uncertainty:
    p, held = fit.parameters, fit.held
    seed = int(initialise.generator(random_state).integers(1 << 62))
    draw = _DRAWS[method]

    def work(number: int) -> Parameters | None:
        try:
            made = _climb(draw(engine, p, np.random.default_rng([seed, number])), p, held).parameters
        except CollapsedComponent:
            return None
        return made if held is not None else _matched(made, p)

    with closing(in_order(work, range(n_resamples), n_threads)) as outcomes:
        refits = [refit for refit in outcomes if refit is not None]
    failures = n_resamples - len(refits)
    if len(refits) < 2:
        raise ValueError(
            f"{failures} of {n_resamples} refits collapsed, and two must be left: the {engine.weight:g} rows are too few for "
            f"{free.K} components of structure {p.structure!r}. Ask for fewer, or use method='information'."
        )
    if failures > MOST_FAILURES * n_resamples:
        rather = "" if method == "weighted" else ", or use method='weighted'"
        warnings.warn(
            f"{failures} of {n_resamples} refits collapsed, and do not count: the others are not typical, and standard errors "
            f"may be too small. Ask for fewer components (now {free.K}){rather}.",
            UncertaintyWarning,
            stacklevel=3,
        )
    weights, means, covariances = (np.array([getattr(r, of) for r in refits]) for of in ("weights", "means", "covariances"))
    entries = free.entries_of(covariances) / free.entry_units
    se_of_entries = np.atleast_1d(entries.std(axis=0, ddof=1)) * free.entry_units
    diagonal = free.entries[:, 0] == free.entries[:, 1]
    sds = np.sqrt(entries[:, :, diagonal]).std(axis=0, ddof=1) * np.sqrt(free.entry_units[diagonal])
    return Uncertainty(
        parameters=p,
        method=method,
        weights=weights.std(axis=0, ddof=1),
        means=(means / free.feature_units).std(axis=0, ddof=1) * free.feature_units,
        covariances=free.array_of(se_of_entries),
        sds=np.broadcast_to(sds, p.means.shape),
        names=free.names,
        resampled=(weights, means, covariances),
        failures=failures,
        _free=free,
        _scaled=None,
    )


def _rows_of(engine: InMemory) -> int:
    """How many rows a resample has: the sum of the weights."""
    return max(1, round(engine.weight))


def _draw_rows(engine: InMemory, p: Parameters, random: np.random.Generator) -> InMemory:
    """Rows drawn with replacement, as counts of those that were drawn."""
    v = engine.sample_weight
    N = len(engine.X)
    counts = random.multinomial(_rows_of(engine), np.full(N, 1.0 / N) if v is None else v / v.sum())
    drawn = np.flatnonzero(counts)
    return InMemory(engine.X[drawn], counts[drawn].astype(np.float64), n_threads=1, trusted=True)


def _draw_weights(engine: InMemory, p: Parameters, random: np.random.Generator) -> InMemory:
    """All rows, under weights from a Dirichlet distribution with as many parameters as rows, each the row's own weight."""
    v = engine.sample_weight
    drawn = random.standard_exponential(len(engine.X)) if v is None else random.standard_gamma(v)
    return InMemory(engine.X, drawn * (engine.weight / drawn.sum()), n_threads=1, trusted=True)


def _draw_from_fit(engine: InMemory, p: Parameters, random: np.random.Generator) -> InMemory:
    """As many rows from the mixture."""
    return InMemory(p.sample(_rows_of(engine), random)[0], n_threads=1, trusted=True)


_DRAWS: dict[str, Callable[[InMemory, Parameters, np.random.Generator], InMemory]] = {
    "bootstrap": _draw_rows,
    "weighted": _draw_weights,
    "parametric": _draw_from_fit,
}


class _AsBefore(Constraints):
    """The constraints of a fit, as they were held there: what was frozen stays where it was."""

    def __init__(self, held: Held):
        object.__setattr__(self, "_held", held)

    def held(self, start: Parameters) -> Held:
        """The same, whatever the start."""
        return cast(Held, self.__dict__["_held"])


def _climb(engine: InMemory, start: Parameters, held: Held | None, stop: stopping.Rule = stopping.AT_MAXIMUM) -> Fit:
    """Fit from a start, as `emfuse.fit` does. Raises CollapsedComponent."""
    return em(
        engine,
        start,
        stop=stop,
        variance_floor=VARIANCE_FLOOR,
        acceleration="emqn",
        constraints=None if held is None else _AsBefore(held),
        n_threads=1,
    )


def _matched(p: Parameters, to: Parameters) -> Parameters:
    """The mixture with its components in the order of the nearest of another's: squared distance of means and log deviations."""
    K, D = p.means.shape
    if K == 1:
        return p
    sds, others = p.sds[:, None], to.sds
    d = (p.means[:, None] - to.means) / np.sqrt(sds * others)
    cost = np.square(d).sum(axis=2) + 2.0 * np.square(np.log(sds / others)).sum(axis=2)
    if (cost.argmin(axis=0) == np.arange(K)).all():  # nearly always, and quicker than asking
        return p
    from scipy.optimize import linear_sum_assignment

    order = linear_sum_assignment(cost.T)[1]
    kind = structure_named(p.structure)
    covariances = p.covariances if kind.shape(K, D) == kind.shape(K + 1, D) else p.covariances[order]
    return Parameters.unchecked(p.weights[order], p.means[order], covariances, kind)


def _rows(X: ArrayLike | InMemory, sample_weight: ArrayLike | None) -> InMemory:
    """The rows, for one thread: resamples and starts have the others."""
    if not isinstance(X, InMemory):
        if hasattr(X, "sweep"):
            raise TypeError(f"X must be rows in memory, got {type(X).__name__}")
        return InMemory(X, sample_weight, n_threads=1)
    if sample_weight is not None:
        raise ValueError("sample_weight must be given to the engine, not beside it")
    return InMemory(X.X, X.sample_weight, n_threads=1, trusted=True)


def _require_count(name: str, number: object, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}")


# ------------------------------------------------------------------ how many components


@dataclass(frozen=True, eq=False)
class LRT:
    """A bootstrap likelihood-ratio test of k components against k + 1.

    k : int
    statistic : float                    2 (log L of k + 1 components - log L of k), nats; at least 0
    p_value : float                      exact, as far as fits find their maxima: at most p with probability p where k is right
    null_statistics : (resamples,)       the same of each resample of the fit of k components
    resamples : int                      how many were drawn and could be fitted
    reason : str                         why no more were drawn
    failures : int                       resamples that could not be fitted, and do not count
    null, alternative : Fit              of k and of k + 1 components; the same where no maximum of k + 1 counts or is higher
    """

    k: int
    statistic: float
    p_value: float
    null_statistics: Doubles = field(repr=False)
    resamples: int
    reason: str
    failures: int
    null: Fit = field(repr=False)
    alternative: Fit = field(repr=False)

    def __str__(self) -> str:
        failed = f"; {self.failures} more could not be fitted" if self.failures else ""
        return (
            f"{self.k} against {self.k + 1} components: 2 log likelihood ratio {self.statistic:.6g}, p = {self.p_value:.4g} "
            f"from {self.resamples} resamples ({self.reason}){failed}"
        )


def bootstrap_lrt(
    X: ArrayLike | InMemory,
    k: int,
    *,
    structure: str = "full",
    n_resamples: int = 999,
    sequential: bool = True,
    alpha: float = 0.05,
    n_init: int = 10,
    random_state: RandomState = None,
    n_threads: int | None = None,
    constraints: Callable[[int], Constraints | None] | None = None,
) -> LRT:
    """Test whether k components are enough, against k + 1, by refits of samples from the fit of k (McLachlan 1987).

    Parameters
    ----------
    X : (N, D) array-like    rows, data units
    k : int                  components where the hypothesis holds, at least 1
    structure : str          as in `emfuse.fit`
    n_resamples : int        at most so many
    sequential : bool        stop as soon as the number of resamples that reach the statistic would be of probability below 1 in
        1,000 if the p-value were `alpha`: after 135 where none does, at alpha 0.05; above alpha after ten at least. The p-value
        stays exact: each way to stop has its known probability (Besag & Clifford 1991), and p is that of what is as extreme
    alpha : float            the level that a sequential test is to decide; nothing else depends on it
    n_init : int             starts of each fit of k + 1 components, besides those that split one of k in two: k and a new one,
        where the log-likelihood rises most steeply with its weight; also short runs of the fit of k itself
    random_state : int, Generator, RandomState or None    None is the same resamples every time
    n_threads : int or None  as everywhere; the result is the same to the last bit
    constraints : callable   from a number of components to the `Constraints` of that many, or None; the new one is the last

    The likelihood has no upper bound, and maxima of two or three rows are no finding. So a fit of k + 1 does not count where a
    component has fewer rows than parameters of its own, or in some direction a standard deviation below 1/50 of all rows' (and
    below a tenth of the least among the k); in the same way for the data and for the resamples.

    Raises
    ------
    CollapsedComponent    no fit of k components exists; also a ValueError
    ValueError, TypeError    unusable arguments, or no resample could be fitted
    """
    _require_count("n_resamples", n_resamples, 1)
    _require_count("n_init", n_init, 0)
    if not isinstance(alpha, (int, float, np.number)) or isinstance(alpha, bool) or not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha!r}")
    if constraints is not None and not callable(constraints):
        raise TypeError(
            f"constraints must be a function from a number of components to Constraints, got {constraints!r}; "
            "lambda k: Constraints(sds=['a'] * k)"
        )
    kind = structure_named(structure)
    engine = _rows(X, None)
    if engine.sample_weight is not None:
        raise ValueError("X must be rows without weights: samples from the fit have none")
    _require_count("k", k, 1)
    K, N = initialise.checked_components(k, len(engine.X) - 1), len(engine.X)
    seed = int(initialise.generator(random_state).integers(1 << 62))
    search = _Search(kind, int(n_init), constraints or (lambda _: None), thread_count(n_threads))
    null = search.fit(engine, K, np.random.default_rng([seed]))
    alternative = search.one_more(engine, null, search.n_threads)
    statistic = _statistic(null, alternative)
    alone = _Search(kind, int(n_init), search.constraints, 1)

    def work(number: int) -> float:
        random = np.random.default_rng([seed, number])
        drawn = InMemory(null.parameters.sample(N, random)[0], n_threads=1, trusted=True)
        try:
            try:
                fewer = alone.climb(drawn, null.parameters)
            except CollapsedComponent:
                fewer = alone.fit(drawn, K, random)
            return _statistic(fewer, alone.one_more(drawn, fewer, 1))
        except CollapsedComponent:
            return float("nan")

    rule = _SequentialTest(float(alpha), int(n_resamples)) if sequential else None
    nulls, above, failures, reason = list[float](), 0, 0, f"all of {n_resamples}"
    with closing(in_order(work, range(int(n_resamples)), search.n_threads)) as drawn:
        for value in drawn:
            if np.isnan(value):
                failures += 1
                continue
            nulls.append(value)
            above += value >= statistic - SAME_STATISTIC
            side = rule.decided(len(nulls), above) if rule is not None else None
            if side:
                reason = f"p is {side} {alpha:g}"
                break
    if not nulls:
        raise ValueError(
            f"none of {failures} samples from the fit of {K} components could be fitted: each time a component collapsed. Ask "
            "for fewer components, or for a structure that shares covariances."
        )
    p = (1 + above) / (1 + len(nulls)) if rule is None else rule.p_value(len(nulls), above)
    return LRT(K, statistic, p, np.array(nulls), len(nulls), reason, failures, null, alternative)


def _statistic(null: Fit, alternative: Fit) -> float:
    """Twice the log of the likelihood ratio; 0 where k + 1 was found no higher than k, of which k + 1 is a case."""
    return max(0.0, 2.0 * (alternative.log_likelihood - null.log_likelihood))


@dataclass(frozen=True)
class _SequentialTest:
    """When enough resamples were drawn to say on which side of alpha p is, and what p is then, exactly.

    If k components are right, the data and the resamples are exchangeable: of n resamples g reach the data's statistic with
    probability 1 / (n + 1) for each g, and the next one does with probability (g + 1) / (n + 2). So each end of the walk (n, g)
    has a known probability, and p is that of all ends whose (g + 1) / (n + 1) is no larger.
    """

    alpha: float
    most: int

    @cached_property
    def limits(self) -> tuple[Labels, Labels]:
        """The largest g at which p is below alpha, and the least at which it is above, after n = 0 .. most resamples."""
        from scipy.stats import binom

        n = np.arange(1, self.most + 1)
        below = binom.ppf(UNLIKELY, n, self.alpha).astype(np.int64) - 1
        above = np.maximum(binom.isf(UNLIKELY, n, self.alpha).astype(np.int64) + 1, LEAST_ABOVE)
        return np.append(-1, below), np.append(LEAST_ABOVE, above)

    def decided(self, n: int, g: int) -> str | None:
        """On which side of alpha p is, after n resamples of which g reach the statistic; None where that is not clear."""
        below, above = self.limits
        return "below" if g <= below[n] else "above" if g >= above[n] else None

    def p_value(self, n: int, g: int) -> float:
        """The p-value of a walk that ended there, whether decided or for want of resamples."""
        last = self.most if self.decided(n, g) else n
        own, p = (g + 1) / (n + 1), 0.0
        below, above = self.limits
        walking = np.ones(1)  # probability that it has come to g = 0, 1, ... undecided
        for m in range(1, last + 1):
            reached = np.arange(m) + 1.0
            moved = np.zeros(m + 1)
            moved[1:] = walking * reached / (m + 1)
            moved[:-1] += walking * (1.0 - reached / (m + 1))
            g_s = np.arange(m + 1)
            ended = (g_s <= below[m]) | (g_s >= above[m]) | (m == last)
            p += float(moved[ended & ((g_s + 1) / (m + 1) <= own * (1.0 + 1e-12))].sum())
            walking = np.where(ended, 0.0, moved)
        return min(1.0, p)


@dataclass(frozen=True)
class _Search:
    """How maxima are looked for: the same way in the data and in every resample.

    constraints : callable    from a number of components to theirs, or None
    """

    kind: Structure
    n_init: int
    constraints: Callable[[int], Constraints | None]
    n_threads: int

    def climb(self, engine: InMemory, start: Parameters, stop: stopping.Rule = stopping.AT_MAXIMUM) -> Fit:
        """Fit from a start. Raises CollapsedComponent."""
        return em(
            engine,
            start,
            stop=stop,
            variance_floor=VARIANCE_FLOOR,
            acceleration="emqn",
            constraints=self.constraints(start.n_components),
            n_threads=1,
        )

    def fit(self, engine: InMemory, K: int, random: np.random.Generator) -> Fit:
        """Return the best fit of K components: from short runs, and by adding one after the other. Raises CollapsedComponent."""
        grown = self.climb(engine, initialise.start(engine, 1, self.kind, "random_rows", random))
        single = grown.parameters
        for _ in range(1, K):
            grown = self.one_more(engine, grown, self.n_threads)
        if K == 1:
            return grown
        starts = list[Parameters]()
        for _ in range(max(1, self.n_init)):
            try:
                starts.append(initialise.start(engine, K, self.kind, "short_runs", random))
            except CollapsedComponent:
                continue
        best = self.best(engine, starts, single, self.n_threads)
        found = grown if grown.parameters.n_components == K else None
        if best is not None and (found is None or best.log_likelihood > found.log_likelihood):
            found = best
        if found is None:  # only maxima that count for nothing: the highest of them, or what there is to say about the collapse
            ends = [self._tried(engine, start) for start in starts]
            made = [end for end in ends if isinstance(end, Fit)]
            if not made:
                raise next((end for end in ends if isinstance(end, CollapsedComponent)), _no_start(K))
            found = max(made, key=lambda fit: fit.log_likelihood)
        return found

    def one_more(self, engine: InMemory, fit: Fit, n_threads: int) -> Fit:
        """Return the best fit of one component more than a fit has; the fit itself where none counts or is higher."""
        p = fit.parameters
        starts = [*_split(p), *_widened(p), *_joined(p, engine, self.n_init)]
        best = self.best(engine, starts, p, n_threads)
        return fit if best is None or best.log_likelihood < fit.log_likelihood else best

    def best(self, engine: InMemory, starts: Sequence[Parameters], fewer: Parameters, n_threads: int) -> Fit | None:
        """Return the highest end of climbs from the starts that counts: all climb roughly, and the highest to their top."""
        sound = _Sound.of(fewer, engine.weight)
        with closing(in_order(lambda start: self._tried(engine, start, ROUGHLY), starts, n_threads)) as outcomes:
            ends = [end for end in outcomes if isinstance(end, Fit) and sound(end.parameters)]
        ends.sort(key=lambda end: -end.log_likelihood)
        near = [end for end in ends if end.log_likelihood > ends[0].log_likelihood - NEAR]
        tops = [top for end in near[:MOST_TOPS] if isinstance(top := self._tried(engine, end.parameters), Fit)]
        return max((top for top in tops if sound(top.parameters)), key=lambda top: top.log_likelihood, default=None)

    def _tried(self, engine: InMemory, start: Parameters, stop: stopping.Rule = stopping.AT_MAXIMUM) -> Fit | ValueError:
        try:
            return self.climb(engine, start, stop)
        except (CollapsedComponent, NotPositiveDefinite) as collapse:
            return collapse


def _no_start(K: int) -> CollapsedComponent:
    message = f"no start of {K} components has rows for each: ask for fewer components"
    return CollapsedComponent(message, component=None, mass=0.0, feature=None)


@dataclass(frozen=True)
class _Sound:
    """Whether a maximum counts: each component has rows enough, and is not a needle in any direction.

    P : (D, D)        whitens all rows, by the covariance of a mixture that was fitted to them
    least : float     squared standard deviation in any direction of these units
    weight : float    of all rows
    """

    P: Doubles
    least: float
    weight: float

    @classmethod
    def of(cls, fewer: Parameters, weight: float) -> _Sound:
        """By a sound mixture of fewer components."""
        d = fewer.means - fewer.weights @ fewer.means
        C = fewer.covariance_matrices
        P = np.linalg.inv(np.linalg.cholesky(np.tensordot(fewer.weights, C, axes=1) + (d.T * fewer.weights) @ d))
        narrowest = float(np.linalg.eigvalsh(P @ C @ P.T).min())
        return cls(P, min(LEAST_SD**2, LEAST_OF_NARROWEST**2 * narrowest), weight)

    def __call__(self, p: Parameters) -> bool:
        """Whether the mixture counts."""
        kind, D = structure_named(p.structure), p.n_features
        own = D + (0 if kind.shared else kind.free_parameters(1, D))
        if p.weights.min() * self.weight < max(own, D + 1):
            return False
        return bool(np.linalg.eigvalsh(self.P @ p.covariance_matrices @ self.P.T).min() >= self.least)


def _made(kind: Structure, w: Doubles, means: Doubles, matrices: Doubles) -> Parameters:
    """The mixture of a structure that is nearest to one with free covariance matrices, (K, D, D)."""
    w = w / w.sum()
    scatter = w[:, None, None] * matrices
    if kind.form != "full":
        scatter = np.diagonal(scatter, axis1=1, axis2=2)
    return Parameters.unchecked(w, means, kind.estimate(scatter, w), kind)


def _split(p: Parameters) -> Iterator[Parameters]:
    """Each component in two along its longest axis, which together have its mean and covariance."""
    kind, C = structure_named(p.structure), p.covariance_matrices
    for k in range(p.n_components):
        variances, axes = np.linalg.eigh(C[k])
        e = SPLIT * np.sqrt(variances[-1]) * axes[:, -1]
        w, matrices = np.append(p.weights, 0.5 * p.weights[k]), np.concatenate([C, C[[k]]])
        means = np.vstack([p.means, p.means[k] - e])
        w[k] *= 0.5
        means[k] += e
        matrices[[k, -1]] -= np.outer(e, e)
        yield _made(kind, w, means, matrices)


def _widened(p: Parameters) -> Iterator[Parameters]:
    """Each component as a narrow and a wide one about its mean, where covariances are not in common."""
    kind, C = structure_named(p.structure), p.covariance_matrices
    for k in range(0 if kind.shared else p.n_components):
        w, matrices = np.append(p.weights, 0.5 * p.weights[k]), np.concatenate([C, C[[k]] * WIDE])
        w[k] *= 0.5
        matrices[k] *= 2.0 - WIDE
        yield _made(kind, w, np.vstack([p.means, p.means[k]]), matrices)


def _joined(p: Parameters, engine: InMemory, count: int) -> list[Parameters]:
    """A new component beside those there are: `count` times, where the log-likelihood rises most as it comes in.

    With weight w it changes the log-likelihood by sum log(1 + w (ratio - 1)), the ratio of densities: to second order at most by
    g^2 / 2h at w = g / h, g = sum (ratio - 1) and h its squares'. Tried at rows from the most to the least likely (in one
    dimension from the left to the right), as wide as the component that they belong to and narrower.
    """
    if not count:
        return []
    X = engine.X
    if len(X) > MOST_LOOKED_AT:
        X = X[np.linspace(0, len(X) - 1, MOST_LOOKED_AT).round().astype(np.int64)]
    kind, C, f, D = structure_named(p.structure), p.covariance_matrices, p.factors, p.n_features
    looked = InMemory(X, n_threads=1, trusted=True).evaluate(f, log_density=True, labels=True)
    assert looked.log_density is not None and looked.labels is not None
    order = np.argsort(X[:, 0] if D == 1 else -looked.log_density, kind="stable")
    rows = order[np.unique(np.linspace(0, len(X) - 1, PLACES).round().astype(np.int64))]
    P = np.linalg.inv(np.linalg.cholesky(C))
    of = looked.labels[rows]
    log_constant = np.log(np.diagonal(P, axis1=1, axis2=2)).sum(axis=1)[of] - 0.5 * D * np.log(2.0 * np.pi)
    half = np.array([0.5 * np.square((X - X[row]) @ P[k].T).sum(axis=1) for row, k in zip(rows, of, strict=True)])
    tried = list[tuple[float, float, int, float]]()
    for size in (1.0,) if kind.shared else SIZES:
        log_ratio = (log_constant - D * np.log(size))[:, None] - half / size**2 - looked.log_density
        ratio = np.exp(np.minimum(log_ratio, 100.0)) - 1.0
        g, h = ratio.sum(axis=1), np.square(ratio).sum(axis=1)
        w = np.clip(g / h, 2.0 / len(X), 0.5)
        tried += [(float(w[i] * (g[i] - 0.5 * w[i] * h[i])), size, i, float(w[i])) for i in range(len(rows))]
    tried.sort(key=lambda one: -one[0])
    taken, made = list[tuple[float, int]](), list[Parameters]()
    for _, size, i, w in tried:
        k, x = of[i], X[rows[i]].astype(np.float64)
        if any(size == other and np.abs(P[k] @ (x - X[rows[j]])).max() < APART for other, j in taken):
            continue
        taken.append((size, i))
        matrices = np.concatenate([C, size**2 * C[[k]]])
        made.append(_made(kind, np.append(p.weights * (1.0 - w), w), np.vstack([p.means, x]), matrices))
        if len(made) == count:
            break
    return made


# ------------------------------------------------------------------ mixtools' names


@dataclass(frozen=True, eq=False)
class BootComp:
    """What `boot_comp` returns, under R's names.

    p_values : list of float     of 1 against 2 components, 2 against 3, and so on
    log_lik : list of (B,)       twice the log-likelihood ratios of the resamples, nats
    obs_log_lik : list of float  of the data
    """

    p_values: list[float]
    log_lik: list[Doubles]
    obs_log_lik: list[float]


def boot_comp(
    y: ArrayLike,
    max_comp: int = 2,
    B: int = 100,
    sig: float = 0.05,
    arbmean: bool = True,
    arbvar: bool = True,
    mix_type: str = "normalmix",
    random_state: RandomState = None,
    n_threads: int | None = None,
) -> BootComp:
    """Test 1 against 2 components, 2 against 3, ..., as `mixtools::boot.comp` does, up to the first that is not significant.

    y : (N,), or (N, D) for "mvnormalmix"    rows, data units
    max_comp : int        the last test is of max_comp against max_comp + 1
    B : int               resamples of each test
    sig : float           go on while the p-value is below it
    arbmean, arbvar : bool    False: one mean, or one covariance, for all components
    mix_type : "normalmix" or "mvnormalmix"

    By `bootstrap_lrt`. Two things differ from R's: a p-value counts the data among the resamples, (1 + number above) / (1 + B),
    so that it is never 0; and the fit of one component has the maximum-likelihood variance, divisor N.
    """
    if mix_type not in ("normalmix", "mvnormalmix"):
        raise ValueError(f"mix_type must be 'normalmix' or 'mvnormalmix', got {mix_type!r}")
    engine = _rows(y, None)
    if mix_type == "normalmix" and engine.n_features != 1:
        raise ValueError(f"y must be one column for mix_type='normalmix', got {engine.n_features}; 'mvnormalmix' takes several")
    if not arbmean and not arbvar:
        raise ValueError("arbmean=False and arbvar=False together leave all components equal: one of them must be True")
    _require_count("max_comp", max_comp, 1)
    seeds = initialise.generator(random_state)
    made = BootComp([], [], [])
    for k in range(1, int(max_comp) + 1):
        test = bootstrap_lrt(
            engine,
            k,
            structure="full" if arbvar else "tied",
            n_resamples=B,
            sequential=False,
            random_state=seeds,
            n_threads=n_threads,
            constraints=None if arbmean else (lambda K: Constraints(means=["mu"] * K)),
        )
        made.p_values.append(test.p_value)
        made.log_lik.append(test.null_statistics)
        made.obs_log_lik.append(test.statistic)
        if not test.p_value < sig:
            break
    return made


@dataclass(frozen=True, eq=False)
class BootSE:
    """What `boot_se` returns, under R's names; `lambda_` is lambda.

    lambda_ : (B, k), mu : (B, k) or (B, k, D), sigma : (B, k) or (B, k, D, D)    of the refits, in `MixEM`'s shapes
    lambda_se, mu_se, sigma_se    their standard deviations: the standard errors
    """

    lambda_: Doubles
    lambda_se: Doubles
    mu: Doubles
    mu_se: Doubles
    sigma: Doubles
    sigma_se: Doubles


def boot_se(em_fit: Any, B: int = 100, random_state: RandomState = None, n_threads: int | None = None) -> BootSE:
    """Return standard errors of a fit by `normalmixEM` or `mvnormalmixEM`, by the parametric bootstrap, as `mixtools::boot.se`.

    Refits start at the fit, and hold to its constraints; where one collapses there are fewer than B.
    """
    if not hasattr(em_fit, "fit") or not hasattr(em_fit, "x"):
        raise TypeError(f"em_fit must be what normalmixEM or mvnormalmixEM returns, got {type(em_fit).__name__}")
    u = standard_errors(em_fit.fit, em_fit.x, method="parametric", n_resamples=B, random_state=random_state, n_threads=n_threads)
    assert u.resampled is not None
    weights, means, covariances = u.resampled
    p = u.parameters
    if em_fit.ft == "normalmixEM":
        mu = means[:, :, 0]
        sigma = np.sqrt(u._free.entries_of(covariances)[:, :, 0])
        return BootSE(weights, u.weights, mu, u.means[:, 0], sigma, u.sds[:, 0])
    kind = structure_named(p.structure)
    matrices = np.array([kind.matrices(C, *p.means.shape) for C in covariances])
    return BootSE(weights, u.weights, means, u.means, matrices, kind.matrices(u.covariances, *p.means.shape))
