"""EM on a stream: each batch of rows is seen once, moves the mixture a step, and is forgotten.

    model = OnlineEM(start)
    for batch in stream:
        model.add(batch)

What is followed are the sufficient statistics of one row, not the parameters: after a batch they are a step nearer to what the
batch says under the mixture so far, and the M step is taken from them (Cappé & Moulines 2009, "On-line expectation-maximization
algorithm for latent data models", JRSS B 71, 593-613). They are sums about the means, and move with these, so that data far from
zero keeps its covariances.

What is exact, and what is not. Statistics of batches under the same parameters add up to those of all rows: so
`SufficientStatistics` can watch a mixture over a stream, exactly. Here each batch is seen once, and under other parameters than
the one before, so the mixture is an estimate. Once it has come near a maximum, it lies below by gamma p / (4 b) nats a row on
average, or less, with steps of gamma, batches of b rows and p free parameters (`tests/test_online.py`). EM over all rows, again
and again, has no such limit.

Layer 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from emfuse.constraints import Constraints
from emfuse.engines import InMemory
from emfuse.maximise import maximise
from emfuse.parameters import Parameters
from emfuse.statistics import SufficientStatistics

KAPPA = 0.6  # of 0.55 to 1, tried over 500 batches: overlapping clusters want less, clusters apart more


class OnlineEM:
    """A mixture that follows a stream of rows.

    Parameters
    ----------
    start : Parameters         what the first rows are seen under
    kappa : float              steps are (t + t0)^-kappa, with t the number of batches so far, this one included: above 0.5 to 1
    t0 : float                 at least 0
    step : float or None       one size for all steps instead, above 0 to 1: for a stream that changes, whose last 1 / step
        batches then count most
    statistics : SufficientStatistics or None    those of rows that have been seen before, under `start`: as of `Fit.statistics`
    reg_covar : float          added to every variance at every M step, data units squared
    constraints : Constraints or None            as in `emfuse.em`
    least_rows : float or None     no M step before rows of so much weight have come; None: 2 K (D + 1)
    n_threads : int or None    as everywhere; the result is the same to the last bit

    Where batches differ in weight, t is the weight of all rows so far over this batch's. So kappa = 1 and t0 = 0 weigh every row
    alike.

    Attributes
    ----------
    parameters : Parameters
    statistics : SufficientStatistics or None    of one row on average, so of weight 1, about the means; None before the first
        batch
    n_rows, n_batches : int    that were added
    weight : float             sum of all row weights, those of the `statistics` that it began with included

    Raises TypeError and ValueError for unusable arguments.

    Examples
    --------
    >>> import numpy as np, emfuse
    >>> random = np.random.default_rng(0)
    >>> model = emfuse.OnlineEM(emfuse.Parameters.univariate([0.5, 0.5], [-1.0, 1.0], [1.0, 1.0]))
    >>> for _ in range(200):
    ...     batch = random.normal(np.repeat([-2.0, 3.0], [30, 70]), 1.0)
    ...     _ = model.add(batch)
    >>> model.parameters.means.round(1).ravel(), model.n_rows
    (array([-2.,  3.]), 20000)
    """

    def __init__(
        self,
        start: Parameters,
        *,
        kappa: float = KAPPA,
        t0: float = 0.0,
        step: float | None = None,
        statistics: SufficientStatistics | None = None,
        reg_covar: float = 0.0,
        constraints: Constraints | None = None,
        least_rows: float | None = None,
        n_threads: int | None = None,
    ):
        if not isinstance(start, Parameters):
            raise TypeError(f"start must be emfuse.Parameters, got {type(start).__name__}; `emfuse.fit` finds one from some rows")
        if not 0.5 < kappa <= 1.0:
            raise ValueError(f"kappa must be above 0.5 and at most 1, got {kappa!r}")
        if not 0.0 <= t0 < np.inf:
            raise ValueError(f"t0 must be finite and at least 0, got {t0!r}")
        if step is not None and not 0.0 < step <= 1.0:
            raise ValueError(f"step must be above 0 and at most 1, or None, got {step!r}")
        for name, number in (("reg_covar", reg_covar), ("least_rows", least_rows)):
            if number is not None and not 0.0 <= number < np.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {number!r}")
        self.kappa, self.t0, self.step, self.reg_covar, self.n_threads = kappa, t0, step, reg_covar, n_threads
        self._held = None if constraints is None else constraints.held(start)
        self.parameters = start if self._held is None else self._held.project(start)
        K, D = start.means.shape
        self.least_rows = 2.0 * K * (D + 1) if least_rows is None else least_rows
        self.statistics: SufficientStatistics | None = None
        self.n_rows = self.n_batches = 0
        self.weight = 0.0
        if statistics is not None:
            self.statistics = statistics.scaled(1.0 / statistics.weight).about(self.parameters.means)
            self.weight = statistics.weight

    @property
    def log_likelihood(self) -> float:
        """What a row scored when it came, averaged by the steps, nats; nan before the first batch."""
        return float("nan") if self.statistics is None else self.statistics.log_likelihood

    def add(self, X: ArrayLike | InMemory, sample_weight: ArrayLike | None = None) -> OnlineEM:
        """See a batch of rows, take a step, and return itself.

        X : (N, D) array-like, data units, 1-D is taken as one feature; or an `InMemory` of them, which has its weights
        sample_weight : (N,) or None, at least 0

        Raises what `InMemory` and its sweep raise, and CollapsedComponent where a component has no density left; it is then as if
        the batch had not come.
        """
        engine = X if isinstance(X, InMemory) else InMemory(X, sample_weight, n_threads=self.n_threads)
        before, p = self.statistics, self.parameters
        batch = engine.sweep(p.factors, origin=None if before is None else before.origin)
        weight = self.weight + batch.weight
        early = before is None or self.weight < self.least_rows  # no M step yet: all rows alike
        t = weight / batch.weight
        gamma = 1.0 / t if early else (t + self.t0) ** -self.kappa if self.step is None else self.step
        s = batch.scaled(1.0 / batch.weight)
        if before is not None:
            s = before.scaled(1.0 - gamma) + s.scaled(gamma)
        if weight >= self.least_rows:
            p = maximise(s, p.structure, reg_covar=self.reg_covar, before=p, held=self._held)
            s = s.about(p.means)
        self.parameters, self.statistics, self.weight = p, s, weight
        self.n_rows += len(engine.X)
        self.n_batches += 1
        return self
