"""How sure a fit is: standard errors of its parameters and intervals for them, from the information or from refits.

Refits of resamples begin at the fit itself; of few rows, many of them are one call of `emfuse.fit_many`.

Layer 4.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, cast, overload

import numpy as np
from numpy.typing import ArrayLike

from emfuse import initialise, stopping
from emfuse._typing import Doubles, RandomState
from emfuse.constraints import Constraints, Held
from emfuse.density import Mixture
from emfuse.em import VARIANCE_FLOOR, Fit, em
from emfuse.engines import InMemory
from emfuse.frames import data_frame, feature_names
from emfuse.free_parameters import Free, Groups
from emfuse.information import UncertaintyWarning, information_of, inverse_of, symmetrised
from emfuse.many import ROWS_AT_ONCE, fit_many
from emfuse.maximise import CollapsedComponent
from emfuse.parameters import FEW_FEATURES, Parameters
from emfuse.threads import in_order, side_by_side, thread_count

METHODS = ("information", "sandwich", "bootstrap", "parametric", "weighted")
LINEAR = ("full", "tied", "diag", "spherical", "EII", "EEI")  # covariances are linear in the free parameters: the Hessian follows
MOST_NUMBERS = 5_000  # weights, means and entries of covariances of all components: matrices of 200 MB, some of them at a time
MOST_SHIFT = 0.1  # standard errors from the maximum: intervals of 95 % have then lost 0.1 % of their coverage
MOST_FAILURES = 0.05  # of resamples, before it is said
SIDE_BY_SIDE_FROM = 1_000  # rows of a resample: two threads took 1.3 times as long as one with half of that, 0.75 with twice


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

    @overload
    def __getitem__(self, which: int | str) -> Interval: ...
    @overload
    def __getitem__(self, which: slice) -> list[Interval]: ...
    def __getitem__(self, which: int | str | slice) -> Interval | list[Interval]:
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
        """Return a pandas DataFrame, one row a parameter. Raises ImportError where pandas is not installed."""
        columns = {name: [getattr(row, name) for row in self] for name in ("estimate", "se", "lower", "upper")}
        return data_frame(columns, [row.name for row in self], "parameter")

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
    names : tuple of p str      of the free parameters: weights but the last, means, distinct entries of the covariances; of what
        a structure or a constraint holds equal the first, and nothing of what is fixed. A structure whose covariances are no
        linear function of its parameters ("VVE") has all entries here
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
    _free: Free = field(repr=False)
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
        _check_level(level)
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
                yield free.mean_name(k, d), p.means[k, d], self.means[k, d], None if means is None else means[:, k, d]
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
            return float(rho), float(drawn.std(ddof=1)), drawn
        if free.covariances.group[k] < 0 or self._scaled is None:
            return float(rho), 0.0, None
        slope = free.covariances.multiple[k] * np.array([1.0 / np.sqrt(v * w), -0.5 * rho / v, -0.5 * rho / w])
        where = np.array(three) + free.columns(k, "covariances").start
        return float(rho), float(np.sqrt(max(0.0, slope @ self._scaled[np.ix_(where, where)] @ slope))), None

    def __str__(self) -> str:
        failed = f", {self.failures} of which collapsed and do not count" if self.failures else ""
        count = "" if self.resampled is None else f", {len(self.resampled[0]) + self.failures} resamples{failed}"
        return f"standard errors by {self.method!r}{count}\n{self.confidence_intervals()}"


def _check_level(level: float) -> None:
    if isinstance(level, bool) or not isinstance(level, (int, float, np.number)) or not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")


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
    X : (N, D) array-like    the rows that it was fitted to, data units; a data frame's columns name the features in tables
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
    return _found(fit, X, method, n_resamples, sample_weight, random_state, n_threads)


def confidence_intervals(
    fit: Fit,
    X: ArrayLike | InMemory,
    level: float = 0.95,
    *,
    method: str = "information",
    n_resamples: int = 999,
    sample_weight: ArrayLike | None = None,
    random_state: RandomState = None,
    n_threads: int | None = None,
) -> Intervals:
    """Return intervals that hold each of a fit's parameters with probability `level`, about: a table, with a name for each row.

    X : (N, D) array-like    the rows that it was fitted to, data units
    level : float            between 0 and 1
    method, n_resamples, sample_weight, random_state, n_threads    as in `standard_errors`

    They are taken from the resamples where there are any ("percentile"), else from the standard errors ("wald");
    `standard_errors(...).confidence_intervals(level, ...)` has the choice. Warns and raises as these do.
    """
    _check_level(level)
    found = _found(fit, X, method, n_resamples, sample_weight, random_state, n_threads)
    return found.confidence_intervals(level, "wald" if found.resampled is None else "percentile")


def _found(
    fit: Fit,
    X: ArrayLike | InMemory,
    method: str,
    n_resamples: int,
    sample_weight: ArrayLike | None,
    random_state: RandomState,
    n_threads: int | None,
) -> Uncertainty:
    """What `standard_errors` returns; its warnings are for the caller's caller."""
    if not isinstance(fit, Fit):
        raise TypeError(f"fit must be an emfuse.Fit, got {type(fit).__name__}; `emfuse.em(X, parameters)` makes one")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    initialise.checked_count("n_resamples", n_resamples, 2)
    engine = initialise.in_one_thread(X, sample_weight)
    p, threads = fit.parameters, thread_count(n_threads)
    engine.check_features(p.factors)
    if not p.weights.min() > 0.0:
        k = int(p.weights.argmin())
        raise ValueError(f"component {k} has weight 0, so that nothing tells its mean and covariance: drop it and fit again")
    free = Free.of(p, fit.held, feature_names(X))
    if method in ("information", "sandwich"):
        return _by_information(engine, p, free, method, threads)
    return _by_refits(engine, fit, free, method, int(n_resamples), random_state, threads)


def _by_information(engine: InMemory, p: Parameters, free: Free, method: str, n_threads: int) -> Uncertainty:
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
    information = information_of(engine, p, free, n_threads)
    inverse = inverse_of(information, free, engine.weight)
    if free.names:
        shift = np.abs(inverse @ information.gradient) / np.sqrt(np.diagonal(inverse))
        worst = int(shift.argmax())
        if not shift[worst] <= MOST_SHIFT:
            warnings.warn(
                f"the fit is not at a maximum of the log-likelihood of X: a Newton step moves {free.names[worst]} by "
                f"{shift[worst]:.2g} standard errors, and should by less than {MOST_SHIFT:g}. Give the rows and weights that it "
                "was fitted to, or fit again with a tighter stop and without reg_covar.",
                UncertaintyWarning,
                stacklevel=4,
            )
    V = inverse if method == "information" else symmetrised(inverse @ information.scores @ inverse)
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


def _spread(of_groups: Doubles, groups: Groups, size: int) -> Doubles:
    """Standard errors of each component's, (K, size), from those of the groups; 0 where it is fixed."""
    made = np.zeros((len(groups.group), size))
    free = groups.group >= 0
    made[free] = np.abs(groups.multiple[free, None]) * of_groups.reshape(-1, size)[groups.group[free]]
    return made


# ------------------------------------------------------------------ resamples


def _by_refits(
    engine: InMemory, fit: Fit, free: Free, method: str, n_resamples: int, random_state: RandomState, n_threads: int
) -> Uncertainty:
    p, held = fit.parameters, fit.held
    seed = int(initialise.generator(random_state).integers(1 << 62))
    draw = _DRAWS[method]

    together = max(1, ROWS_AT_ONCE // len(engine.X))

    def work(first: int) -> list[Parameters]:
        numbers = range(first, min(first + together, n_resamples))
        drawn = [draw(engine, p, np.random.default_rng([seed, number])) for number in numbers]
        return [made if held is not None else matched(made, p) for made in _climbed(drawn, p, held)]

    n_threads = side_by_side(n_threads, len(engine.X), SIDE_BY_SIDE_FROM)
    with closing(in_order(work, range(0, n_resamples, together), n_threads)) as outcomes:
        refits = [refit for made in outcomes for refit in made]
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
            stacklevel=4,
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


def _climbed(resamples: list[InMemory], start: Parameters, held: Held | None) -> list[Parameters]:
    """Fit each from a start, as `emfuse.fit` does; those that collapse are left out."""
    if held is None and len(resamples) > 1 and start.n_features <= FEW_FEATURES:
        weights = None if resamples[0].sample_weight is None else [each.sample_weight for each in resamples]
        rows = [each.X for each in resamples]
        made = fit_many(rows, start.n_components, init=start, sample_weight=weights, n_threads=1)
        return [made[i] for i in range(len(made)) if i not in made.failures]
    constraints = None if held is None else _AsBefore(held)
    fits = list[Parameters]()
    for each in resamples:
        with suppress(CollapsedComponent):
            fits.append(
                em(
                    each,
                    start,
                    stop=stopping.AT_MAXIMUM,
                    variance_floor=VARIANCE_FLOOR,
                    acceleration="emqn",
                    constraints=constraints,
                    n_threads=1,
                ).parameters
            )
    return fits


def matched(p: Parameters, to: Parameters) -> Parameters:
    """The mixture with its components in the order of the nearest of another's."""
    sds, others = p.sds[:, None], to.sds
    d = (p.means[:, None] - to.means) / np.sqrt(sds * others)
    apart = np.square(d).sum(axis=2) + 2.0 * np.square(np.log(sds / others)).sum(axis=2)
    if (apart.argmin(axis=0) == np.arange(p.n_components)).all():  # nearly always, and quicker than asking
        return p
    turned = Mixture(p)
    return turned.relabel(Mixture(to).match(turned)).parameters
