"""A mixture as a distribution: what one does with it once it is fitted, under the names of `scipy.stats`.

Its one idea: probabilities are sums of positive terms, each with its own sign of the tail, and are never taken from 1. So a
survival function keeps its digits at a thousand standard deviations, and a quantile in the gap between two components, where the
distribution function is flat to the last bit, is where it would be with more of them.

A mixture is not changed: what makes another of it (`marginal`, `condition`, `merge`, `prune`, `relabel`) returns a new one.

Layer 3.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse import engines
from emfuse._typing import AnyArray, Doubles, Floats, Labels, RandomState
from emfuse.covariance import EPS, cholesky
from emfuse.parameters import LOG_2_PI, Parameters
from emfuse.structures import structure_named

CHUNK = 1 << 16  # numbers in one temporary array: it stays in the cache
LEAST_LOG_DENSITY = -1e299  # a build ends here where a squared distance overflows: 1e149 standard deviations
BLAS_ALONE = 1 << 18  # multiply-adds up to which OpenBLAS wakes no threads, which costs more than a small product does
MOST_STEPS = 250  # of a root search, which halves its bracket at least every second step: never reached
NEARLY_ALL = math.log(0.9)  # a component's quantile nearer to 1 than that is rounding, and bounds nothing
FAR = 40.0  # standard deviations beyond which a tail is below the least number there is
NEXT_TO_0 = 1e-300
MOST_ROUNDS, BOUND_WITHIN = 1_000, 1e-9  # of the bound on a divergence, and the share by which a round must lower it
FARTHEST = 1e250  # nats: distances beyond are as good, and sums of these are finite
SLACK = 0.1  # standard deviations between a bracket's end and a root: at the very end, Newton's steps would leave it
KNOWN_AT = np.array([-21.0, -13.0, -8.0, -5.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0])  # standard deviations

# What a structure becomes where features are left out, or known. What is missing here stays what it is: parts, and Schur
# complements, of matrices that are multiples of one another are so too; equal volumes, shapes and common axes are lost.
OF_FEWER_FEATURES = {"EVI": "diag", "EVE": "full", "VVE": "full", "EEV": "full", "VEV": "full", "EVV": "full"}


class Estimate(NamedTuple):
    """A number, and how far it may be off.

    value : float             nats
    standard_error : float    of a Monte Carlo mean, nats; 0 where the value is exact, nan where nothing is known
    """

    value: float
    standard_error: float


class Regression(NamedTuple):
    """What some features say about the others, row by row.

    mean : (N, D_unknown)                            data units
    covariance : (N, D_unknown, D_unknown) or None   data units squared; None where it was not asked for
    """

    mean: Doubles
    covariance: Doubles | None


@dataclass(frozen=True, repr=False)
class Mixture:
    """A Gaussian mixture as a distribution, in the manner of `scipy.stats`. Frozen.

    parameters : Parameters    any structure. Weights are divided by their sum, components of weight 0 count for nothing.

    With one feature it is like `scipy.stats.norm`: `x` has any shape and each number in it is a point. With D features it is
    like `multivariate_normal`: the last axis of `x` has the D features of a point. What comes back has the shape of the points,
    and is a number for one point. A point with a NaN gives NaN.

    Raises TypeError where it is given something else.
    """

    parameters: Parameters

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, Parameters):
            raise TypeError(f"parameters must be emfuse.Parameters (a fit has them: fit.parameters), got {self.parameters!r}")

    def __repr__(self) -> str:
        return "Mixture" + repr(self.parameters).removeprefix("Parameters")

    # -------------------------------------------------------------- density

    def logpdf(self, x: ArrayLike) -> Doubles:
        """Return the log density, nats; -inf from 1e149 standard deviations on. float32 is used as it is, without a copy."""
        rows, shape = self._points(x)
        if not len(rows):
            return np.empty(shape)
        finite = np.asarray(np.isfinite(rows).all(axis=1))
        whole = bool(finite.all())
        if not whole:
            nan = np.asarray(np.isnan(rows).any(axis=1))
            rows = np.where(finite[:, None], rows, self.parameters.means[0])
        engine = engines.InMemory(rows, trusted=True)
        out = cast(Doubles, engine.evaluate(self._live.factors, log_density=True).log_density)
        out[out < LEAST_LOG_DENSITY] = -np.inf
        if not whole:
            out[~finite] = np.where(nan[~finite], np.nan, -np.inf)
        return out.reshape(shape)[()]

    def pdf(self, x: ArrayLike) -> Doubles:
        """Return the density, in 1 / data units to the power D."""
        return cast(Doubles, np.exp(self.logpdf(x)))

    def cdf(self, x: ArrayLike) -> Doubles:
        """Return the probability of at most `x`, in every feature.

        One feature: right to a few eps of its own size in the lower tail. Diagonal structures: likewise. Two features: to 1e-15
        (Owen 1956). More: to about 1e-5, by scipy's quadrature (Genz), point by point, the same for the same points.
        """
        if self._D == 1:
            return self._tail(x, "cdf", lower=True)
        rows, shape = self._points(x)
        nan = np.asarray(np.isnan(rows).any(axis=1))
        points = np.where(nan[:, None], 0.0, rows).astype(np.float64)
        p = self._live
        total = np.zeros(len(points))
        if len(points):
            for k, weight in enumerate(p.weights):
                with np.errstate(over="ignore"):
                    z = (points - p.means[k]) / p.sds[k]
                total += weight * self._joint(z, k)
        total = np.where(nan, np.nan, np.clip(total, 0.0, 1.0))
        return total.reshape(shape)[()]

    def sf(self, x: ArrayLike) -> Doubles:
        """Return the probability of more than `x`, right to a few eps of its own size in the upper tail; one feature only."""
        return self._tail(x, "sf", lower=False)

    def logcdf(self, x: ArrayLike) -> Doubles:
        """Return the log of `cdf`, nats; with one feature right in both tails, however far."""
        if self._D > 1:
            with np.errstate(divide="ignore"):
                return cast(Doubles, np.log(self.cdf(x)))
        return self._log_tail(x, "logcdf", lower=True)

    def logsf(self, x: ArrayLike) -> Doubles:
        """Return the log of `sf`, nats, right in both tails, however far; one feature only."""
        return self._log_tail(x, "logsf", lower=False)

    # -------------------------------------------------------------- quantiles

    def ppf(self, q: ArrayLike) -> Doubles:
        """Return the point below which a share `q` lies: the inverse of `cdf`; one feature only.

        -inf for 0, inf for 1, nan outside. cdf(ppf(q)) is q to the rounding of x, for q down to the least number there is;
        for q near 1 `isf` has digits that q has not.
        """
        return self._quantile(q, "ppf", lower=True)

    def isf(self, q: ArrayLike) -> Doubles:
        """Return the point above which a share `q` lies: the inverse of `sf`; see `ppf`."""
        return self._quantile(q, "isf", lower=False)

    def median(self) -> float:
        """Return the point with half on either side, data units; one feature only."""
        return float(self._quantile(0.5, "median", lower=True))

    def interval(self, confidence: ArrayLike) -> tuple[Doubles, Doubles]:
        """Return the ends of the interval that has this share, from 0 to 1, and leaves equal shares on either side."""
        inside = _real(confidence, "confidence").astype(np.float64)
        if not np.all((inside >= 0.0) & (inside <= 1.0)):
            raise ValueError(f"confidence must be from 0 to 1, got {confidence!r}")
        outside = 0.5 * (1.0 - inside)
        return self._quantile(outside, "interval", lower=True), self._quantile(outside, "interval", lower=False)

    # -------------------------------------------------------------- drawing

    def rvs(self, size: int | tuple[int, ...] | None = None, random_state: RandomState = None) -> Doubles:
        """Draw points in random order, data units.

        size : int, tuple or None    what is drawn has this shape, and with more than one feature (D,) after it; None draws one
            point. Unlike `multivariate_normal.rvs`, size 1 is not squeezed
        random_state : int, numpy Generator or RandomState; None draws differently each time
        """
        shape = () if size is None else (size,) if isinstance(size, (int, np.integer)) else tuple(size)
        if any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0 for n in shape):
            raise ValueError(f"size must be whole numbers of at least 0, or None, got {size!r}")
        p, N = self._live, math.prod(shape)
        random = _generator(random_state)
        counts = random.multinomial(N, p.weights)
        X = random.standard_normal((N, self._D))
        stops = np.cumsum(counts)
        step = _rows_at_once(self._D)
        for k, stop in enumerate(stops):
            for start in range(stop - counts[k], stop, step):
                part = X[start : min(start + step, stop)]
                if self._diagonal:
                    part *= p.sds[k]
                else:
                    part[:] = part @ self._triangles[k].T
                part += p.means[k]
        X = X.take(random.permutation(N), axis=0)
        return cast(Doubles, X.reshape(shape if self._D == 1 else (*shape, self._D))[()])

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> tuple[Doubles, Labels]:
        """Draw rows component by component, with the component of each: see `Parameters.sample`."""
        return self.parameters.sample(n_samples, random_state)

    # -------------------------------------------------------------- moments

    def mean(self) -> Doubles:
        """Return the mean, (D,), or a number where there is one feature; data units."""
        mean = self._live.weights @ self._live.means
        return cast(Doubles, mean[0] if self._D == 1 else mean)

    def var(self) -> Doubles:
        """Return the variance of each feature, (D,), or a number where there is one; data units squared."""
        p = self._live
        variance = p.weights @ (p.variances + np.square(p.means - p.weights @ p.means))
        return cast(Doubles, variance[0] if self._D == 1 else variance)

    def std(self) -> Doubles:
        """Return the standard deviation of each feature, (D,), or a number where there is one; data units."""
        return cast(Doubles, np.sqrt(self.var()))

    def covariance(self) -> Doubles:
        """Return the covariance matrix of the whole mixture, (D, D), data units squared."""
        p = self._live
        d = (p.means - p.weights @ p.means) * np.sqrt(p.weights)[:, None]
        return np.asarray(np.tensordot(p.weights, p.covariance_matrices, 1) + d.T @ d)

    def entropy(self, n: int = 100_000, random_state: RandomState = None) -> Estimate:
        """Return the differential entropy, - mean of log density, nats, from `n` draws; exact where there is one component."""
        _check_draws(n)
        if self._live.n_components == 1:
            return Estimate(0.5 * self._D * (1.0 + LOG_2_PI) + float(self._log_det[0]), 0.0)
        X, _ = self._live.sample(n, random_state)
        return _mean_of(-self._log_density_of_rows(X))

    # -------------------------------------------------------------- fewer features

    def marginal(self, features: ArrayLike) -> Mixture:
        """Return the mixture of some features alone, in the order given.

        features : int or sequence of distinct ints    as numpy counts: -1 is the last

        "full", "tied", "diag", "spherical", "EII", "EEI", "VEI" and "VEE" stay what they are; "EVI" becomes "diag", and "EVE",
        "VVE", "EEV", "VEV" and "EVV" "full".
        """
        p, f = self.parameters, self._features(features, "features")
        kind, C = structure_named(OF_FEWER_FEATURES.get(p.structure, p.structure)), p.covariances
        if C.ndim == 3 or p.structure == "tied":
            C = C[..., f[:, None], f]
        elif C.ndim == 2:
            C = C[:, f]
        return Mixture(Parameters(p.weights, p.means[:, f], C, kind))

    def condition(self, features: ArrayLike, values: ArrayLike) -> Mixture:
        """Return the mixture of the other features, in their order, where these have the given values.

        features : int or sequence of distinct ints    those that are known
        values : (len(features),)                      data units, finite; however far out

        The structure becomes what it does in `marginal`. A component's weight goes with its density of the values, in log space.
        """
        p, known = self.parameters, self._features(features, "features")
        unknown = self._others(known, "features")
        v = _real(values, "values").astype(np.float64).reshape(-1)
        if v.shape != known.shape or np.ndim(values) > 1:
            raise ValueError(f"values must have one number for each of {known.size} features, got shape {np.shape(values)}")
        if not np.isfinite(v).all():
            raise ValueError(f"values must be finite, got {v[~np.isfinite(v)][0]} for feature {known[~np.isfinite(v)][0]}")
        slopes, C, P = self._given(known, unknown)
        d = v - p.means[:, known]
        means = p.means[:, unknown] + np.einsum("kab,kb->ka", slopes, d)
        log_det = np.log(np.diagonal(P, axis1=1, axis2=2)).sum(axis=1)
        unit = max(1.0, float(np.abs(d).max()))  # of y, which may be too long for a number
        weights = _shares(p.weights, log_det, np.einsum("kab,kb->ka", P, d / unit), unit)
        left = self.marginal(unknown).parameters
        C = left.covariances if self._diagonal else C[0] if p.structure == "tied" else C
        return Mixture(Parameters(weights, means, C, left.structure))

    def regress(self, X_known: ArrayLike, known: ArrayLike, *, covariance: bool = True) -> Regression:
        """Return mean and covariance of the other features, in their order, given these: Gaussian mixture regression.

        X_known : (N, len(known)), or (N,) for one    rows, data units, finite
        known : int or sequence of distinct ints      the features that its columns are
        covariance : bool                             False leaves it out, which is N D_unknown^2 numbers

        The same as the moments of `condition` for each row (Ghahramani & Jordan 1994, "Supervised learning from incomplete data
        via an EM approach").
        """
        o = self._features(known, "known")
        u = self._others(o, "known")
        X = engines.as_rows(X_known)
        if X.shape[1] != o.size:
            raise ValueError(f"X_known has {X.shape[1]} features, but known names {o.size}")
        p, there = self._live, Mixture(self._live)
        slopes, C, _ = there._given(o, u)
        r = cast(Doubles, engines.evaluate(X, there.marginal(o).parameters.factors, responsibilities=True).responsibilities)
        N, K, U = len(X), p.n_components, u.size
        mean = np.empty((N, U))
        spread = np.empty((N, U, U)) if covariance else None
        step = max(1, CHUNK // (K * U + U * U))
        for start in range(0, N, step):
            rows = slice(start, start + step)
            own = np.empty((K, *mean[rows].shape))  # each component's conditional mean
            for k in range(K):
                own[k] = (X[rows] - p.means[k, o]) @ slopes[k].T + p.means[k, u]
            mean[rows] = np.einsum("nk,knu->nu", r[rows], own)
            if spread is not None:
                own = (own - mean[rows]) * np.sqrt(r[rows].T)[:, :, None]
                within = (r[rows] @ C.reshape(K, U * U)).reshape(-1, U, U)
                spread[rows] = within + np.einsum("kna,knb->nab", own, own)
        return Regression(mean, spread)

    # -------------------------------------------------------------- components

    def mahalanobis(self, X: ArrayLike) -> Doubles:
        """Return the distance of each point from each component's mean in its own standard deviations, (..., K).

        X : points as in `logpdf`; finite
        """
        rows, shape = self._points(X)
        means, P = self.parameters.factors.means, self.parameters.factors.P
        out = np.empty((len(rows), len(means)))
        if len(rows):
            engines.as_rows(rows)  # raises where one is not finite
        step = _rows_at_once(self._D)
        for start in range(0, len(rows), step):
            part = rows[start : start + step].astype(np.float64, copy=False)
            for k, mean in enumerate(means):
                own = P[k if len(P) > 1 else 0]
                with np.errstate(over="ignore", invalid="ignore"):
                    y = (part - mean) @ np.tril(own).T if P.ndim == 3 else (part - mean) * own
                    out[start : start + step, k] = np.sqrt(np.square(y).sum(axis=1))
        return out.reshape(*shape, len(means))

    def merge(self, i: int, j: int) -> Mixture:
        """Return the mixture with components i and j made one that has their weight, mean and covariance; it stands in i's place.

        Mean and covariance of the whole mixture stay. The structure becomes "full": no other holds what comes of it.
        """
        p = self.parameters
        one, two = self._components([i, j], "i and j")
        total = p.weights[one] + p.weights[two]
        share = p.weights[two] / total if total > 0.0 else 0.5
        d = p.means[two] - p.means[one]
        weights, means, C = p.weights.copy(), p.means.copy(), np.array(p.covariance_matrices)
        weights[one] = total
        means[one] = p.means[one] + share * d
        C[one] = (1.0 - share) * C[one] + share * C[two] + share * (1.0 - share) * np.outer(d, d)
        return Mixture(Parameters(np.delete(weights, two), np.delete(means, two, axis=0), np.delete(C, two, axis=0), "full"))

    def prune(self, least_weight: float = 0.0) -> Mixture:
        """Return the mixture of the components of at least this weight, and above 0, whose weights are divided by their sum."""
        weights = self.parameters.weights
        keep = np.flatnonzero((weights >= least_weight) & (weights > 0.0))
        if not keep.size:
            raise ValueError(f"no component has a weight of at least {least_weight}: the largest is {weights.max():.6g}")
        return Mixture(self._part(keep, weights[keep] / math.fsum(weights[keep])))

    def relabel(self, order: ArrayLike) -> Mixture:
        """Return the mixture with its components in another order: component order[k] becomes the k-th.

        order : (K,)    a permutation of 0 to K - 1
        """
        chosen = self._components(order, "order")
        if chosen.size != self.parameters.n_components:
            raise ValueError(f"order must name each of {self.parameters.n_components} components once, got {chosen.size}")
        return Mixture(self._part(chosen, self.parameters.weights[chosen]))

    def match(self, other: Mixture) -> Labels:
        """Return the order that brings the components of another mixture nearest to these, (K,), for `other.relabel`.

        The sum over components of (Bhattacharyya distance, nats) + (difference of the weights' square roots) squared is least:
        weights tell apart only what lies in one place.

        Raises ValueError where the number of components or of features differs.
        """
        from scipy.optimize import linear_sum_assignment

        self._check_other(other)
        mine, theirs = self.parameters, other.parameters
        if mine.n_components != theirs.n_components:
            raise ValueError(f"the mixtures have {mine.n_components} and {theirs.n_components} components, and need equally many")
        apart = np.square(np.sqrt(mine.weights)[:, None] - np.sqrt(theirs.weights))
        return cast(Labels, linear_sum_assignment(_bhattacharyya(mine, theirs) + apart)[1])

    def equals(self, other: Mixture, tolerance: float = 1e-8) -> bool:
        """Return whether another mixture is this one but for the order of its components, and for rounding.

        tolerance : float    how much may differ: of weights; of means, in this one's standard deviations; of covariances, in
            products of two of them

        Structures may differ where covariances do not; components of weight 0 do not count.
        """
        from scipy.optimize import linear_sum_assignment

        if not isinstance(other, Mixture):
            raise TypeError(f"other must be a Mixture, got {other!r}")
        mine, theirs = self._live, other._live
        if mine.means.shape != theirs.means.shape:
            return False
        A, B, sds = mine.covariance_matrices, theirs.covariance_matrices, mine.sds
        differs = np.abs(mine.weights[:, None] - theirs.weights) > tolerance
        for k, sd in enumerate(sds):
            differs[k] |= (np.abs(theirs.means - mine.means[k]) > tolerance * sd).any(axis=1)
            differs[k] |= (np.abs(B - A[k]) / sd[:, None] / sd > tolerance).any(axis=(1, 2))
        return not differs[linear_sum_assignment(differs)].any()

    # -------------------------------------------------------------- distance

    def kl_divergence(
        self, other: Mixture, method: str = "monte_carlo", n: int = 100_000, random_state: RandomState = None
    ) -> Estimate:
        """Return the Kullback-Leibler divergence of another mixture from this one, mean under this of log(this / other), nats.

        method : str
            "monte_carlo"    a mean of `n` draws from this one, with its standard error; right as n grows
            "variational"    Hershey & Olsen (2007), "Approximating the Kullback Leibler divergence between Gaussian mixture
                models": no draws, from the divergences between components. An approximation and not a bound, as it
                is the difference of two; it may be below 0. Exact for one component each
            "bound"          their variational upper bound, without draws: never below the divergence, and often far above

        Raises ValueError where the number of features differs.
        """
        self._check_other(other)
        f, g = self._live, other._live
        if method == "bound":
            return Estimate(_divergence_bound(f.weights, g.weights, _component_divergences(self, other)), math.nan)
        if method == "variational":
            above = _log_sum_exp(np.log(f.weights) - _component_divergences(self, self))
            below = _log_sum_exp(np.log(g.weights) - _component_divergences(self, other))
            return Estimate(float(f.weights @ (above - below)), math.nan)
        if method != "monte_carlo":
            raise ValueError(f"method must be 'monte_carlo', 'variational' or 'bound', got {method!r}")
        _check_draws(n)
        X, _ = f.sample(n, random_state)
        return _mean_of(self._log_density_of_rows(X) - other._log_density_of_rows(X))

    # -------------------------------------------------------------- what these are made of

    @property
    def _D(self) -> int:
        return self.parameters.n_features

    @cached_property
    def _live(self) -> Parameters:
        """The parameters, without components of weight 0, and with weights that sum to 1."""
        weights = self.parameters.weights
        keep, total = np.flatnonzero(weights), math.fsum(weights)
        if keep.size == weights.size and abs(total - 1.0) <= weights.size * EPS:
            return self.parameters
        return self._part(keep, weights[keep] / total)

    def _part(self, keep: Labels, weights: Doubles) -> Parameters:
        """Some of the components, in some order, with these weights."""
        p = self.parameters
        C = p.covariances if p.structure == "tied" else p.covariances[keep]
        return Parameters.unchecked(weights, p.means[keep], C, structure_named(p.structure))

    @property
    def _diagonal(self) -> bool:
        return structure_named(self.parameters.structure).form == "diag"

    @cached_property
    def _triangles(self) -> Doubles:
        """Lower L with L L' = covariance, of the live components, (K, D, D)."""
        return _triangles_of(self._live.covariance_matrices, self._live.structure)

    @cached_property
    def _log_det(self) -> Doubles:
        """Log determinants of `_triangles`, (K,)."""
        return np.asarray(np.log(np.diagonal(self._triangles, axis1=1, axis2=2)).sum(axis=1))

    @cached_property
    def _line(self) -> tuple[Doubles, Doubles, Doubles]:
        """Weights, means and standard deviations of the live components of one feature, in the order of their means."""
        p = self._live
        order = np.argsort(p.means[:, 0], kind="stable")
        return p.weights[order], p.means[order, 0], p.sds[order, 0]

    def _points(self, x: ArrayLike) -> tuple[Floats, tuple[int, ...]]:
        """Rows, (N, D), and the shape that the points have."""
        array = _real(x, "x")
        if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
            array = array.astype(np.float64)
        if self._D == 1:
            return array.reshape(-1, 1), array.shape
        if array.ndim == 0 or array.shape[-1] != self._D:
            raise ValueError(f"the last axis of x must have the {self._D} features of the mixture, got shape {array.shape}")
        return array.reshape(-1, self._D), array.shape[:-1]

    def _log_density_of_rows(self, X: Doubles) -> Doubles:
        return self.logpdf(X).reshape(-1)

    def _check_one_feature(self, name: str) -> None:
        if self._D > 1:
            raise ValueError(f"{name} is for mixtures of one feature, and this one has {self._D}: take a marginal first")

    def _check_other(self, other: Mixture) -> None:
        if not isinstance(other, Mixture):
            raise TypeError(f"other must be a Mixture, got {other!r}")
        if other._D != self._D:
            raise ValueError(f"the mixtures have {self._D} and {other._D} features, and need equally many")

    def _tail(self, x: ArrayLike, name: str, *, lower: bool) -> Doubles:
        """Probability below (or above) x: sum_k w_k Phi(+-z_k)."""
        from scipy.special import ndtr

        self._check_one_feature(name)
        weights, means, sds = self._line

        def of(x: Doubles) -> Doubles:
            return np.asarray(ndtr(_standardised(x, means, sds, lower)) @ weights)

        return cast(Doubles, np.minimum(_in_chunks(of, _real(x, "x"), len(means)), 1.0)[()])

    def _log_tail(self, x: ArrayLike, name: str, *, lower: bool) -> Doubles:
        """Its log: where it is more than a half, from what is left to 1."""
        from scipy.special import log_ndtr, ndtr

        self._check_one_feature(name)
        weights, means, sds = self._line
        log_weights = np.log(weights)

        def of(x: Doubles) -> Doubles:
            z = _standardised(x, means, sds, lower)
            out = _log_sum_exp(log_weights + log_ndtr(z))
            most = out > -math.log(2.0)
            out[most] = np.log1p(-(ndtr(-z[most]) @ weights))
            return out

        return _in_chunks(of, _real(x, "x"), len(means))[()]

    def _quantile(self, q: ArrayLike, name: str, *, lower: bool) -> Doubles:
        """Where the probability below (or above) is q: by the tail that holds at most a half; 1 - q is exact for the other."""
        self._check_one_feature(name)
        weights, means, sds = self._line
        share = _real(q, "q").astype(np.float64)
        flat = share.reshape(-1)
        out = np.full(flat.shape, np.nan)
        out[flat == 0.0] = -np.inf if lower else np.inf
        out[flat == 1.0] = np.inf if lower else -np.inf
        for small in (True, False):
            at = np.flatnonzero((flat > 0.0) & (flat <= 0.5) if small else (flat > 0.5) & (flat < 1.0))
            left = flat[at] if small else 1.0 - flat[at]
            if lower == small:
                out[at] = _in_chunks(lambda part: _lower_quantiles(weights, means, sds, part), left, len(means))
            else:  # the upper tail is the lower one of the mirrored mixture
                out[at] = -_in_chunks(
                    lambda part: _lower_quantiles(weights[::-1], -means[::-1], sds[::-1], part), left, len(means)
                )
        return cast(Doubles, out.reshape(share.shape)[()])

    def _joint(self, z: Doubles, k: int) -> Doubles:
        """Probability that component k is at most z, in its standard deviations, in every feature; (N,)."""
        from scipy.special import ndtr

        if self._diagonal:
            return cast(Doubles, ndtr(z).prod(axis=1))
        p = self._live
        correlation = p.covariance_matrices[k] / p.sds[k] / p.sds[k][:, None]
        z = np.clip(z, -FAR, FAR)
        if self._D == 2:
            return _bivariate(z, float(correlation[0, 1]), float(self._triangles[k, 1, 1] / p.sds[k, 1]))
        from scipy.stats import multivariate_normal

        # newer versions draw their lattice's shifts at random
        fixed = {"rng": np.random.default_rng(0)} if "rng" in inspect.signature(multivariate_normal.cdf).parameters else {}
        return np.atleast_1d(multivariate_normal.cdf(z, cov=correlation, allow_singular=True, **fixed))

    def _given(self, known: Labels, unknown: Labels) -> tuple[Doubles, Doubles, Doubles]:
        """For each component: slopes (K, U, N), covariances of the unknown given the known (K, U, U), and P (K, N, N) of these.

        From the Cholesky factor of both together, (known, unknown), so that no two matrices are subtracted.
        """
        p = self.parameters
        order = np.concatenate([known, unknown])
        L = _triangles_of(p.covariance_matrices[:, order[:, None], order], p.structure)
        N = known.size
        P, left = _inverses(L[:, :N, :N]), L[:, N:, N:]
        C = left @ left.transpose(0, 2, 1)
        return L[:, N:, :N] @ P, 0.5 * (C + C.transpose(0, 2, 1)), P

    def _features(self, chosen: ArrayLike, name: str) -> Labels:
        return _indexes(chosen, self._D, name, "features")

    def _components(self, chosen: ArrayLike, name: str) -> Labels:
        return _indexes(chosen, self.parameters.n_components, name, "components")

    def _others(self, known: Labels, name: str) -> Labels:
        unknown = np.setdiff1d(np.arange(self._D), known)
        if not unknown.size:
            raise ValueError(f"{name} must leave a feature that is not known, got all {self._D}")
        return unknown


# ------------------------------------------------------------------ one feature


def _standardised(x: Doubles, means: Doubles, sds: Doubles, lower: bool) -> Doubles:
    """Distances above (or below) the means in standard deviations, (N, K)."""
    with np.errstate(over="ignore"):
        z = (x[:, None] - means) / sds
    return z if lower else -z


def _lower_quantiles(weights: Doubles, means: Doubles, sds: Doubles, q: Doubles) -> Doubles:
    """Where a mixture in one feature has probabilities q, (N,), above 0 and at most a half, below it.

    weights, means, sds : (K,)    in the order of the means, weights above 0

    Components whose mean is at most x are counted whole, less their upper tail. What is then the sum of their weights less q is
    exact, and it, the upper tails of those and the lower tails of the others stand, each by its sign, on the two sides of

        A(x) = B(x):   sum_(right) w Phi(z) + max(W - q, 0)  =  sum_(left) w Phi(-z) + max(q - W, 0),   W = sum_(left) w.

    log A - log B rises with x, and has the sign of cdf - q, in the tails and in gaps where cdf is flat to the last bit. Its root
    is found by Newton's method inside a bracket, which is halved where a step leaves it or is not half the one before the last.
    """
    from scipy.special import log_ndtr, ndtr, ndtri_exp

    K, log_weights, log_q = len(means), np.log(weights), np.log(q)
    whole = np.cumsum(np.append(0.0, weights))
    added = np.diff(whole)
    rest = np.cumsum(np.append(0.0, (whole[:-1] - (whole[1:] - added)) + (weights - added)))  # what `whole` has been rounded by

    def ends(log_share: Doubles, slack: float) -> Doubles:
        return np.asarray(means + sds * (ndtri_exp(np.minimum(log_share, NEARLY_ALL)) + slack))

    # Some component has at least its K-th part of q below the root, and none has more than all of it; nor is the root
    # above all the components' own quantiles.
    share = log_q[:, None] - log_weights
    low = ends(share - math.log(K), -SLACK).min(axis=1)
    high = np.where(share <= NEARLY_ALL, ends(share, SLACK), np.inf).min(axis=1)
    high = np.maximum(np.minimum(high, ends(log_q[:, None], SLACK).max(axis=1)), low)

    def balance(x: Doubles, q: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Return log A - log B, its slope, and |log A| + |log B|."""
        z = (x[:, None] - means) / sds
        right = z < 0.0
        n_left = K - right.sum(axis=1)
        over = (whole[n_left] - q) + rest[n_left]
        tails = log_weights + log_ndtr(-np.abs(z))
        peaks = log_weights - 0.5 * (z * z + LOG_2_PI) - np.log(sds)
        sides = []
        for mine, constant in ((right, over), (~right, -over)):
            log_side = np.logaddexp(_log_sum_exp(np.where(mine, tails, -np.inf)), np.log(np.maximum(constant, 0.0)))
            sides.append((log_side, np.exp(_log_sum_exp(np.where(mine, peaks, -np.inf)) - log_side)))
        (log_a, slope_a), (log_b, slope_b) = sides
        return log_a - log_b, slope_a + slope_b, np.abs(log_a) + np.abs(log_b)

    if len(q) >= 4 * K:  # where the probability is known beforehand: an interval of at most a few standard deviations
        known = np.sort((means + sds * KNOWN_AT[:, None]).ravel())
        below = np.maximum.accumulate(ndtr(_standardised(known, means, sds, True)) @ weights)
        after = np.searchsorted(below, q * (1.0 - 1e-9))
        low = np.where(after > 0, np.maximum(low, known[after - 1]), low)
        after = np.searchsorted(below, q * (1.0 + 1e-9), side="right")
        high = np.where(after < known.size, np.minimum(high, known[np.minimum(after, known.size - 1)]), high)
    root: Doubles = 0.5 * (low + high)
    last, before_last = high - low, high - low
    left = np.arange(len(q))
    with np.errstate(all="ignore"):
        for _ in range(MOST_STEPS):
            x, a, b = root[left], low[left], high[left]
            h, slope, size = balance(x, q[left])
            a, b = np.where(h <= 0.0, x, a), np.where(h >= 0.0, x, b)
            newton = x - h / slope
            # rounding of the logarithms, or of x
            settled = (np.abs(h) <= 4.0 * EPS * (1.0 + size)) & np.isfinite(h) | (np.abs(newton - x) <= EPS * np.abs(x))
            inside = (newton >= a) & (newton <= b)
            good = inside & ((np.abs(newton - x) <= 0.5 * before_last[left]) | settled)
            middle = a + 0.5 * (b - a)
            new = np.where(good, newton, np.where(settled, x, middle))
            low[left], high[left], root[left] = a, b, new
            before_last[left], last[left] = last[left], np.abs(new - x)
            left = left[~(settled | (b - a <= EPS * np.maximum(np.abs(a), np.abs(b))))]
            if not left.size:
                break
    return root


def _in_chunks(function: Callable[[Doubles], Doubles], x: AnyArray, K: int) -> Doubles:
    """Apply a function of numbers, which makes an array (N, K) on its way, to numbers in any shape."""
    flat = x.reshape(-1)
    out = np.empty(flat.shape)
    step = max(1, CHUNK // K)
    for start in range(0, flat.size, step):
        out[start : start + step] = function(flat[start : start + step].astype(np.float64, copy=False))
    return out.reshape(x.shape)


def _log_sum_exp(terms: Doubles) -> Doubles:
    """Log of the sum of exponentials over the last axis; -inf where all are."""
    top = terms.max(axis=-1)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(top + np.log(np.exp(terms - top[..., None]).sum(axis=-1)))


# ------------------------------------------------------------------ more features


def _bivariate(z: Doubles, correlation: float, left: float) -> Doubles:
    """Probability that two standard normals of some correlation are at most z, (N, 2): Owen (1956), by his function T.

    left : float    sqrt(1 - correlation^2)
    """
    from scipy.special import ndtr, owens_t

    h, k = np.where(z == 0.0, NEXT_TO_0, z).T  # it is continuous there, and its formula is not
    side = math.copysign(1.0, correlation)
    apart = side * left**2 / (1.0 + abs(correlation))  # side - correlation, which may be next to nothing
    with np.errstate(over="ignore", divide="ignore"):
        t = owens_t(h, (k - side * h + apart * h) / (h * left)) + owens_t(k, (h - side * k + apart * k) / (k * left))
    made = 0.5 * (ndtr(h) + ndtr(k)) - t - 0.5 * ((h < 0.0) != (k < 0.0))
    return cast(Doubles, np.clip(made, 0.0, 1.0))


def _triangles_of(matrices: Doubles, structure: str) -> Doubles:
    """Cholesky factors of covariance matrices, (K, D, D), which are all one where the structure is tied."""
    if structure == "tied":
        return np.broadcast_to(cholesky(matrices[:1]), matrices.shape)
    return cholesky(matrices)


def _rows_at_once(D: int) -> int:
    """Rows to be multiplied by a (D, D) matrix together: so few that BLAS wakes no threads, or enough that they pay."""
    return BLAS_ALONE // D**2 if D <= 32 else 4096


def _inverses(triangles: Doubles) -> Doubles:
    """Inverses of lower triangles, (K, D, D)."""
    from scipy.linalg.lapack import dtrtri

    return np.array([dtrtri(T, lower=1)[0] for T in triangles])


def _shares(weights: Doubles, log_det: Doubles, y: Doubles, unit: float) -> Doubles:
    """Weights times exp(log_det - |unit y|^2 / 2), divided by their sum, (K,); y (K, D). Whatever overflows is 0."""
    live = weights > 0.0
    longest = float(np.abs(y[live]).max()) or 1.0
    squares, length = np.square(y[live] / longest).sum(axis=1), min(longest * unit, 1e300)
    with np.errstate(over="ignore"):
        behind = 0.5 * (squares - squares.min()) * length * length  # 0 for the nearest, however long
    logs = np.log(weights[live]) + log_det[live] - behind
    share = np.exp(logs - logs.max())
    out = np.zeros(len(weights))
    out[live] = share / share.sum()
    return out


def _component_divergences(a: Mixture, b: Mixture) -> Doubles:
    """Kullback-Leibler divergence of each live component of b from each of a, (K_a, K_b), nats."""
    p = a._live
    out = np.empty((p.n_components, b._live.n_components))
    for j, P in enumerate(_inverses(b._triangles)):
        columns = np.concatenate([a._triangles, (b._live.means[j] - p.means)[:, :, None]], axis=2)
        y = P @ columns
        with np.errstate(over="ignore"):
            out[:, j] = 0.5 * (np.square(y).sum(axis=(1, 2)) - a._D) + b._log_det[j] - a._log_det
    return np.maximum(out, 0.0)


def _divergence_bound(v: Doubles, w: Doubles, divergences: Doubles) -> float:
    """The least of Hershey & Olsen's upper bounds, nats, from those of each component of one from each of the other, (K_f, K_g).

    v, w : (K_f,), (K_g,)    weights

    With components cut into parts, phi_ab of the a-th of one and psi_ab of the b-th of the other, it is
    sum phi (log(phi / psi) + divergences). Each of them is at its best given the other, in turn.
    """
    log_psi = np.log(v)[:, None] + np.log(w)
    bound = np.inf
    for _ in range(MOST_ROUNDS):
        parts = log_psi - divergences
        log_sum = _log_sum_exp(parts)
        before, bound = bound, float(v @ (np.log(v) - log_sum))
        if not before - bound > BOUND_WITHIN * abs(bound):
            break
        log_phi = np.log(v)[:, None] + parts - log_sum[:, None]
        of_each = _log_sum_exp(log_phi.T)  # -inf for one that is infinitely far from all
        log_psi = np.where(of_each > -np.inf, np.log(w) + log_phi - np.maximum(of_each, -FARTHEST), -np.inf)
    return bound


def _bhattacharyya(p: Parameters, q: Parameters) -> Doubles:
    """Bhattacharyya distance between each component of p and each of q, (K_p, K_q), nats.

    d' S^-1 d / 8 + log(det S / sqrt(det A det B)) / 2 with S = (A + B) / 2.
    """
    A, B = p.covariance_matrices, q.covariance_matrices
    out = np.empty((len(A), len(B)))

    def log_det(L: Doubles) -> Doubles:
        return np.asarray(np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1))

    own = 0.5 * log_det(_triangles_of(B, q.structure))
    for i, log_det_a in enumerate(0.5 * log_det(_triangles_of(A, p.structure))):
        L = cholesky(0.5 * (A[i] + B))
        y = np.einsum("kab,kb->ka", _inverses(L), q.means - p.means[i])
        with np.errstate(over="ignore"):
            out[i] = 0.125 * np.square(y).sum(axis=1) + log_det(L) - log_det_a - own
    return np.minimum(out, FARTHEST)


# ------------------------------------------------------------------ what is asked for


def _real(x: ArrayLike, name: str) -> AnyArray:
    """Return an array of real numbers. Raises TypeError, and ValueError where some are masked."""
    array = np.asarray(x)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must be real numbers, got an array of {array.dtype}")
    if isinstance(x, np.ma.MaskedArray) and np.ma.getmaskarray(x).any():
        raise ValueError(f"{name} is a masked array with masked values; fill or drop them")
    return array


def _indexes(chosen: ArrayLike, size: int, name: str, what: str) -> Labels:
    """Return distinct indexes from 0 to size - 1, at least one; -1 is the last. Raises TypeError, ValueError."""
    array = np.atleast_1d(np.asarray(chosen))
    if array.size == 0 or array.ndim > 1:
        raise ValueError(f"{name} must be one or more numbers of {what}, got {chosen!r}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be numbers of {what}, 0 to {size - 1}, got {chosen!r}")
    outside = (array < -size) | (array >= size)
    if outside.any():
        raise ValueError(f"{name} must be numbers of {what}, 0 to {size - 1}, got {array[outside][0]}")
    found = array.astype(np.int64) % size
    values, counts = np.unique(found, return_counts=True)
    if counts.max() > 1:
        raise ValueError(f"{name} must be distinct, got {values[counts > 1][0]} more than once")
    return found


def _generator(random_state: RandomState) -> Any:
    """Return what draws: a Generator or RandomState as it is, or a new Generator."""
    own = isinstance(random_state, (np.random.Generator, np.random.RandomState))
    return random_state if own else np.random.default_rng(cast(Any, random_state))


def _check_draws(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 2:
        raise ValueError(f"n must be a whole number of draws, at least 2, got {n!r}")


def _mean_of(terms: Doubles) -> Estimate:
    """Return the mean of independent terms with its standard error; (inf, nan) where one is infinite."""
    if not np.isfinite(terms).all():
        return Estimate(float(terms.mean()), math.nan)
    return Estimate(float(terms.mean()), float(terms.std(ddof=1) / math.sqrt(len(terms))))
