"""Counts in bins: exact EM for a histogram in one dimension, through the normal's probability of each bin, not its centre.

Rows at bin centres have a variance too large by about a twelfth of the bin's width squared, and a bin in the tail is read in the
wrong place. Here a bin's rows are missing data: the E step takes the mean and the variance of each component within each bin,
and what it adds up are the same sufficient statistics, so that the loop, the M step, stops and accelerations are those of rows.

Within a bin (a, b) a component is looked at from p, the point of the bin that is nearest to its mean, in standard deviations:

    t = (p - mu) / sd,   v = (x - p) / sd,   density at x = density at p * exp(-t v - v^2 / 2)

The second factor is at most 1, falls from p on, and beyond exp(-42) counts no more. So one rule of quadrature serves bins of
any width at any distance, infinite ones too: its terms are all positive, and no tail probabilities are subtracted.

Layer 3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from emfuse import initialise, stopping
from emfuse._typing import Doubles
from emfuse.em import Fit, Progress, em, warn_at_limit
from emfuse.engines import MOST_WEIGHT, OVERFLOWED, InMemory
from emfuse.parameters import Factors, Parameters
from emfuse.statistics import SufficientStatistics, in_form_of
from emfuse.stopping import Rule

NEGLIGIBLE = 42.0  # nats below the largest density in a bin: exp(-42) times 42 squared is 1e-15, its share of a second moment
# Gauss-Legendre nodes in a bin, over which the log density falls by up to GENTLE nats, or by more. On 4,000 bins, from 1e-6
# standard deviations wide to infinite and up to 1e4 away, probability, mean and variance were right to 4e-15 with FEW, and to
# 6e-14 with MANY, which is the rounding of NumPy's nodes; but for that of the distance t itself, t^2 eps nats.
FEW, MANY, GENTLE = 16, 48, 2.0
FARTHEST = 1e153  # standard deviations: the square must be finite
LEAST = -1e300  # nats: the least log probability there is, so that differences stay finite
CHUNK = 1 << 17  # numbers in one temporary array


class Binned:
    """A histogram in one dimension, as an engine: `emfuse.em(Binned(edges, counts), start)`.

    The log-likelihood is that of counts over the bins as they are given,

        sum_j n_j log sum_k w_k [Phi((b_j - mu_k) / sd_k) - Phi((a_j - mu_k) / sd_k)],

    nats, without the multinomial coefficient, which no parameter is in. It is not conditioned on falling into some bin: finite
    edges say that nothing lay outside of them, though it might have. What is known to lie below or above, and how often, goes
    into a bin with an infinite edge.

    Parameters
    ----------
    edges : (B + 1,) array-like    data units; they increase strictly. The first may be -inf and the last inf.
    counts : (B,) array-like       rows in each bin, from edges[j] up to edges[j + 1]: at least 0, not all 0, whole or not

    Raises TypeError and ValueError that name the argument, the value and its place.

    McLachlan & Jones (1988), "Fitting mixture models to grouped and truncated data via the EM algorithm", Biometrics 44, 571-578;
    without truncation.
    """

    n_features = 1
    noise = 1e-14  # nats a row: how far rounding may move a log-likelihood from one sweep to the next

    def __init__(self, edges: ArrayLike, counts: ArrayLike):
        self.edges = _as_edges(edges)
        self.counts = _as_counts(counts, len(self.edges))
        self._taken = np.flatnonzero(self.counts)  # a bin with no rows is no row

    @property
    def weight(self) -> float:
        """Sum of the counts: the number of rows."""
        return float(self.counts.sum())

    def sweep(self, factors: Factors, *, origin: Doubles | None = None, hard: bool = False) -> SufficientStatistics:
        """Walk once over the bins under fixed parameters: expected sums over the rows that were counted.

        origin : (K, 1)    what sums are taken about; None: the means
        hard : bool        each bin whole to its most likely component

        Raises ValueError where a bin lies so far away that its log probability overflows, naming the bin.
        """
        if factors.means.shape[1] != 1:
            raise ValueError(f"a histogram has 1 feature, but the mixture has {factors.means.shape[1]}")
        origin = factors.means if origin is None else np.ascontiguousarray(origin)
        sums = SufficientStatistics.zeros(origin, factors.form)
        per_component = (-1, 1, 1) if sums.second.ndim == 3 else (-1, 1)
        step = max(1, CHUNK // (MANY * len(factors.means)))
        for start in range(0, len(self._taken), step):
            bins = self._taken[start : start + step]
            n, made = self.counts[bins], within_bins(self.edges[bins], self.edges[bins + 1], factors)
            l_jk = made.log_probability
            top = l_jk.max(axis=1, keepdims=True)
            if hard:
                share = np.asarray(l_jk.argmax(axis=1)[:, None] == np.arange(l_jk.shape[1]), dtype=np.float64)
                l_j = top[:, 0]
            else:
                e = np.exp(l_jk - top)
                total = e.sum(axis=1, keepdims=True)
                l_j, share = top[:, 0] + np.log(total[:, 0]), e / total
            if l_j.min() <= OVERFLOWED:
                self._report_far_bin(int(bins[l_j.argmin()]))
            with np.errstate(over="ignore", invalid="ignore"):
                r = n[:, None] * share
                d = made.nearest - origin[:, 0] + made.mean
                rd = r * d
                sums.mass += r.sum(axis=0)
                sums.first += rd.sum(axis=0)[:, None]
                terms = (rd * d + r * made.variance).sum(axis=0)
                sums.second += in_form_of(sums.second, terms.reshape(per_component))
            sums.log_likelihood += float(n @ l_j)
            sums.weight += float(n.sum())
        return sums

    def _report_far_bin(self, j: int) -> None:
        raise ValueError(
            f"bin {j} (from {self.edges[j]:.6g} to {self.edges[j + 1]:.6g}) lies so many standard deviations from every component"
            " that its log probability overflows; it must be below about 1e140 of them. Leave the bin out, or start from wider "
            "variances."
        )


class BinMoments(NamedTuple):
    """Components within bins, each (B, K).

    log_probability      log of w_k times the component's probability of the bin, nats
    nearest              the point of the bin nearest to the component's mean, data units
    mean, variance       of x - nearest, where x is of the component and in the bin; data units, and their square
    """

    log_probability: Doubles
    nearest: Doubles
    mean: Doubles
    variance: Doubles


def within_bins(lower: Doubles, upper: Doubles, factors: Factors) -> BinMoments:
    """Return probability and moments of each component in each bin.

    lower, upper : (B,)    edges, data units; they may be -inf and inf
    factors                of a mixture in one dimension, of any form

    A bin's distance t from a mean, in standard deviations, is right to an eps of itself, and so its log probability to t^2 eps
    nats; beside that, probability and moments are right to about 1e-13 (see `tests/test_binned.py`).
    """
    means, P = factors.means[:, 0], factors.P.reshape(-1)  # (K,), and (K,) or (1,): 1 / standard deviation
    a, b = lower[:, None], upper[:, None]
    nearest = np.clip(means, a, b)
    with np.errstate(over="ignore"):
        t = np.clip((nearest - means) * P, -FARTHEST, FARTHEST)
        low, high = (a - nearest) * P, (b - nearest) * P
    reach = 2.0 * NEGLIGIBLE / (np.abs(t) + np.hypot(t, np.sqrt(2.0 * NEGLIGIBLE)))  # where t v + v^2 / 2 is NEGLIGIBLE
    low, high = np.maximum(low, -reach), np.minimum(high, reach)
    integral, mean, variance = _moments(t.ravel(), low.ravel(), high.ravel())
    with np.errstate(divide="ignore"):
        l_jk = factors.log_constant - np.log(P) - 0.5 * np.square(t) + np.log(integral).reshape(t.shape)
    return BinMoments(
        np.where(l_jk > LEAST, l_jk, LEAST),
        nearest,
        mean.reshape(t.shape) / P,
        variance.reshape(t.shape) / P / P,
    )


def _moments(t: Doubles, low: Doubles, high: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Return the integral of exp(-t v - v^2 / 2) from low to high, and the mean and the variance of v under it; (M,) all.

    v = 0 is where that is largest; being in the interval, it is an end of it or t is 0.
    """
    integral, mean, variance = np.empty_like(t), np.empty_like(t), np.empty_like(t)
    width = high - low
    gentle = width * (np.abs(t) + 0.5 * width) <= GENTLE
    for count, those in ((FEW, gentle), (MANY, ~gentle)):
        y, weights = _nodes(count)
        v = low[those, None] * y[::-1] + high[those, None] * y  # y[::-1] is 1 - y: exact near the end that is 0
        g = weights * np.exp(-v * (t[those, None] + 0.5 * v))
        total = g.sum(axis=1)
        first = np.einsum("mi,mi->m", g, v) / total
        integral[those], mean[those] = width[those] * total, first
        # loses two bits at most: as the density falls from v = 0 on, the square of its mean is at most 3/4 of the mean square
        variance[those] = np.einsum("mi,mi,mi->m", g, v, v) / total - first * first
    return integral, mean, variance


@cache
def _nodes(count: int) -> tuple[Doubles, Doubles]:
    """Nodes of Gauss-Legendre quadrature on (0, 1), and their weights."""
    y, weights = np.polynomial.legendre.leggauss(count)
    return 0.5 + 0.5 * y, 0.5 * weights


def fit_binned(
    edges: ArrayLike,
    counts: ArrayLike,
    n_components: int,
    *,
    structure: str = "full",
    init: Parameters | None = None,
    stop: Rule | int | None = None,
    reg_covar: float = 0.0,
    acceleration: str | None = "auto",
    history: bool = False,
    callback: Callable[[Progress], object] | None = None,
    verbose: bool = False,
) -> Fit:
    """Fit a mixture to a histogram: a start, then exact EM to the maximum.

    A component that shrinks into one bin gains no more once it is inside, unlike one that shrinks onto a row: no variance needs
    a floor.

    Parameters
    ----------
    edges : (B + 1,), counts : (B,)    as in `Binned`, which says what the log-likelihood is
    n_components : int       K, at most the number of bins with rows. The bins tell K components apart only where these are many
        more than the free parameters: 3 K - 1, or 2 K where components share their variance
    structure : str          "full", "diag" or "spherical" (one and the same in one dimension: a variance for each), or "tied"
    init : Parameters        a start of your own, whose structure then counts; by default, k-means on two rows a bin, which have
        the mean and the variance of rows spread evenly over it (a bin with an infinite edge is taken to be as wide as its
        neighbour)
    stop : rule or int       default: within 1e-6 nats of the maximum by estimate, or 10,000 sweeps
    acceleration : str or None    as in `em`; "auto" is plain EM where `reg_covar` is above 0
    reg_covar, history, callback, verbose    as in `em`

    Warns NotConverged where the default stop's limit is reached first. Raises as `em` and `Binned` do.
    """
    data = Binned(edges, counts)
    K = _as_components(n_components, len(data._taken))
    init = _start(data, K, structure) if init is None else initialise.checked_start(init, K)
    made = em(
        data,
        init,
        stop=stopping.AT_MAXIMUM if stop is None else stop,
        reg_covar=reg_covar,
        acceleration=None if acceleration == "auto" and reg_covar > 0.0 else acceleration,
        history=history,
        callback=callback,
        verbose=verbose,
    )
    if stop is None:
        warn_at_limit(made)
    return made


def _start(data: Binned, K: int, structure: str) -> Parameters:
    """Parameters for K components, by k-means on two rows a bin."""
    edges = data.edges.copy()
    if np.isfinite(edges).sum() < 2:
        raise ValueError(
            f"edges must have two finite ones for a start to be found, got {edges.tolist()}: nothing says how far the rows are "
            "spread. Give a start by `init`."
        )
    if np.isneginf(edges[0]):
        edges[0] = 2.0 * edges[1] - edges[2]
    if np.isposinf(edges[-1]):
        edges[-1] = 2.0 * edges[-2] - edges[-3]
    a, b = edges[data._taken], edges[data._taken + 1]
    centre, sd = 0.5 * a + 0.5 * b, (b - a) / np.sqrt(12.0)
    half = 0.5 * data.counts[data._taken]
    rows = InMemory(np.concatenate([centre - sd, centre + sd]), np.concatenate([half, half]))
    return initialise.start(rows, K, structure, "kmeans", initialise.generator(None))


def _as_edges(edges: ArrayLike) -> Doubles:
    """Return the edges as float64; a copy."""
    e = _as_numbers(edges, "edges")
    if e.ndim != 1 or len(e) < 2:
        raise ValueError(f"edges must have shape (B + 1,) for B bins, B at least 1, got {e.shape}")
    wrong = ~(e[1:] > e[:-1])  # NaN compares as false, and so does an infinity that is not at its own end
    if wrong.any():
        j = int(wrong.argmax())
        raise ValueError(
            f"edges must increase strictly, got edges[{j + 1}] = {e[j + 1]} after edges[{j}] = {e[j]}; sort them and merge bins "
            "of no width (only the first may be -inf, and only the last inf)"
        )
    return e


def _as_counts(counts: ArrayLike, n_edges: int) -> Doubles:
    """Return the counts of the bins between so many edges as float64; a copy."""
    n = _as_numbers(counts, "counts")
    if n.shape != (n_edges - 1,):
        raise ValueError(f"counts must have shape ({n_edges - 1},), one number for each bin of {n_edges} edges, got {n.shape}")
    bad = ~(np.isfinite(n) & (n >= 0.0))
    if bad.any():
        raise ValueError(f"counts must be finite and at least 0, got {n[bad.argmax()]} for bin {int(bad.argmax())}")
    if not n.any():
        raise ValueError("counts must be above 0 for some bin, but every count is zero")
    if n.max() > MOST_WEIGHT:
        raise ValueError(
            f"counts must be at most {MOST_WEIGHT:g}, got {n.max():g} for bin {int(n.argmax())}; divide by a constant"
        )
    return n


def _as_numbers(value: ArrayLike, name: str) -> Doubles:
    array = np.asarray(value)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must be real numbers, got an array of {array.dtype}")
    return np.array(array, dtype=np.float64)


def _as_components(K: object, most: int) -> int:
    if isinstance(K, bool) or not isinstance(K, (int, np.integer)):
        raise TypeError(f"n_components must be a whole number, got {K!r}")
    if not 1 <= K <= most:
        raise ValueError(f"n_components must be from 1 to the number of bins with rows, {most}, got {K}")
    return int(K)
