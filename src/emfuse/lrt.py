"""Are k components enough? The bootstrap likelihood-ratio test of k against k + 1.

Maxima of k + 1 are looked for in the same way in the data and in samples from the fit of k (`emfuse.one_more`), so that the
p-value is right even where not all maxima are found; and sampling stops when the answer is clear, with an exact p-value.

Layer 4.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from emfuse import initialise
from emfuse._typing import Doubles, Labels, RandomState
from emfuse.constraints import Constraints
from emfuse.em import Fit
from emfuse.engines import InMemory
from emfuse.maximise import CollapsedComponent
from emfuse.one_more import Search
from emfuse.structures import structure_named
from emfuse.threads import in_order, thread_count

UNLIKELY, LEAST_ABOVE = 1e-3, 10  # what decides a sequential test, and how often the statistic must be reached before p is above
SAME_STATISTIC = 1e-5  # nats: fits stop within 1e-6 of their maxima


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
    initialise.checked_count("n_resamples", n_resamples)
    initialise.checked_count("n_init", n_init, 0)
    if not isinstance(alpha, (int, float, np.number)) or isinstance(alpha, bool) or not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha!r}")
    if constraints is not None and not callable(constraints):
        raise TypeError(
            f"constraints must be a function from a number of components to Constraints, got {constraints!r}; "
            "lambda k: Constraints(sds=['a'] * k)"
        )
    kind = structure_named(structure)
    engine = initialise.in_one_thread(X)
    if engine.sample_weight is not None:
        raise ValueError("X must be rows without weights: samples from the fit have none")
    initialise.checked_count("k", k)
    K, N = initialise.checked_components(k, len(engine.X) - 1), len(engine.X)
    seed = int(initialise.generator(random_state).integers(1 << 62))
    search = Search(kind, int(n_init), constraints or (lambda _: None), thread_count(n_threads))
    null = search.fit(engine, K, np.random.default_rng([seed]))
    alternative = search.one_more(engine, null, search.n_threads)
    statistic = _statistic(null, alternative)
    alone = Search(kind, int(n_init), search.constraints, 1)

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

    rule = SequentialTest(float(alpha), int(n_resamples)) if sequential else None
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
class SequentialTest:
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
