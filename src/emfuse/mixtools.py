"""R's face: `mixtools::normalmixEM` and `mvnormalmixEM` by their arguments and results, over `emfuse.em`.

A translator and nothing else, written from mixtools' documentation and from what it returns (version 2.0.0). From the same start
and by the same stopping rule it walks textbook EM; `ecm=True` walks the path that mixtools walks itself. What differs, and why:

- Under `sd_constr` with multiples ("2a") and under a common mean in several dimensions mixtools' M step is not the maximum; here
  it is (`emfuse.Constraints`).
- A component has collapsed where it has no density left beyond rounding, in whatever units; in mixtools below 1e-8 data units.
- `posterior`, `loglik` and the parameters always belong together; components keep the order of the start; `mu` and `sigma` have
  an entry for each component, common or not.
- Nothing is printed without `verb=True`: "number of iterations=" is `iterations`, "WARNING! NOT CONVERGENT!" a `NotConverged`
  warning, a start of yours that is replaced a `CollapseWarning`, and "Too many tries!" a clear error.

Layer 4.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse import initialise, stopping
from emfuse._typing import Doubles, Floats, RandomState
from emfuse.collapse import CollapseWarning
from emfuse.constraints import Constraints, Held
from emfuse.em import Fit, NotConverged, Progress, em
from emfuse.engines import InMemory
from emfuse.lrt import bootstrap_lrt
from emfuse.maximise import CollapsedComponent, maximise
from emfuse.parameters import WEIGHTS_SUM_TO_ONE_WITHIN, Parameters
from emfuse.stopping import Limit, Trace
from emfuse.structures import structure_named
from emfuse.uncertainty import standard_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MV_RESTARTS = 15  # mvnormalmixEM's, which has no argument for it


@dataclass(frozen=True, eq=False, repr=False)
class MixEM:
    """What `normalmixEM` and `mvnormalmixEM` return, under R's names; `lambda_` is lambda, which is a word of Python's.

    x : (N,), or (N, D) of mvnormalmixEM    the rows
    lambda_ : (k,)             weights
    mu : (k,), or (k, D)       means, data units
    sigma : (k,)               standard deviations, data units; of mvnormalmixEM covariance matrices, (k, D, D)
    loglik : float             total log-likelihood of exactly these, nats
    posterior : (N, k)         responsibilities under exactly these
    all_loglik : (iterations + 1,)    log-likelihood of the start and after each iteration, since the last restart, nats
    iterations : int
    restarts : int             how often a component collapsed and all began anew
    ft : str                   the function that was called
    fit : Fit                  the same in emfuse's words, with AIC and BIC, the reason why it stopped, `predict` and `sample`
    """

    x: Floats
    lambda_: Doubles
    mu: Doubles
    sigma: Doubles
    loglik: float
    posterior: Floats
    all_loglik: Doubles
    iterations: int
    restarts: int
    ft: str
    fit: Fit

    def summary(self) -> None:
        """Print lambda, mu and sigma by component, and loglik; in D dimensions mu1 .. muD and standard deviations sd1 .. sdD."""
        p = self.fit.parameters
        one = p.n_features == 1
        rows = {"lambda": p.weights}
        for name, values in (("mu", p.means), ("sigma" if one else "sd", p.sds)):
            rows.update({name if one else f"{name}{d + 1}": values[:, d] for d in range(p.n_features)})
        table = [["", *(f"comp {k + 1}" for k in range(p.n_components))]]
        columns = [_digits(column) for column in np.array(list(rows.values())).T]
        table += [[name, *cells] for name, *cells in zip(rows, *columns, strict=True)]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        print(f"summary of {self.ft} object:")
        for name, *cells in table:
            print(name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)))
        print(f"loglik at estimate: {self.loglik:.6f}")

    def plot(self, which: int | str = 1, *, ax: Axes | None = None) -> Axes:
        """Draw, and return the axes: `emfuse.plots` has what may be done with them. Needs matplotlib.

        which : 1 or "loglik" (log-likelihood by iteration), 2 or "density" (the rows' histogram with the components; in several
            dimensions the first two features with ellipses)
        ax : matplotlib Axes or None    where to draw; None makes a figure that no window belongs to
        """
        plots = importlib.import_module("emfuse.plots")
        if which in (1, "loglik"):
            return cast("Axes", plots.trace(self.fit, ax=ax))
        if which in (2, "density"):
            draw = plots.density if self.fit.parameters.n_features == 1 else plots.components
            return cast("Axes", draw(self.fit, self.x, ax=ax))
        raise ValueError(f"which must be 1 ('loglik') or 2 ('density'), got {which!r}")

    def __repr__(self) -> str:
        k = len(self.lambda_)
        return (
            f"MixEM: {self.ft}, {k} component{'s' * (k != 1)}, {self.iterations} iteration{'s' * (self.iterations != 1)}, "
            f"{self.restarts} restart{'s' * (self.restarts != 1)}, loglik {self.loglik:.6f}"
        )


@dataclass(frozen=True)
class Increase:
    """mixtools' stopping rule: when an iteration raises the log-likelihood by `epsilon` or less, in all, or after `maxit`.

    The increase has a sign, so that a fall stops it too. One iteration is always done.

    epsilon : float    nats
    maxit : int        iterations
    """

    epsilon: float
    maxit: int

    def __post_init__(self) -> None:
        if not isinstance(self.epsilon, (int, float, np.number)) or np.isnan(self.epsilon):
            raise ValueError(f"epsilon must be a number of nats, got {self.epsilon!r}")
        _require_whole("maxit", self.maxit, 1)

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        done = len(trace) - 1
        if done and not trace[-1] - trace[-2] > self.epsilon:
            gain = trace[-1] - trace[-2]
            return f"iteration {done} raised the log-likelihood by {gain:.3g} nats, not by more than {self.epsilon:g}"
        return Limit(f"the limit of {self.maxit} iterations was reached") if done >= self.maxit else None


def normalmixEM(
    x: ArrayLike,
    lambda_: ArrayLike | None = None,
    mu: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    k: int = 2,
    mean_constr: Sequence[Any] | None = None,
    sd_constr: Sequence[Any] | None = None,
    epsilon: float = 1e-8,
    maxit: int = 1000,
    maxrestarts: int = 20,
    arbmean: bool = True,
    arbvar: bool = True,
    random_state: RandomState = None,
    verb: bool = False,
    fast: bool = False,
    ecm: bool = False,
) -> MixEM:
    """Fit a mixture of Gaussians in one dimension, as `mixtools::normalmixEM` is asked to.

    Parameters
    ----------
    x : (N,) array-like       rows, data units; finite
    lambda_ : (k,) or None    start weights, at least 0; repeated up to k, then divided by their sum. None: drawn
    mu : (k,), number or None       start means, data units. One number: one mean for all components (arbmean=False). None: drawn
    sigma : (k,), number or None    start standard deviations, data units, above 0. One number: equal variances (arbvar=False).
        None: drawn
    k : int                   number of components, where neither mu nor sigma says it
    mean_constr, sd_constr : sequence of k, or None    `emfuse.Constraints(means=mean_constr, sds=sd_constr)`: for each component
        None (free), a number (fixed), or "a", "2a", "-a" (linked). They go before arbmean and arbvar. A start that does not hold
        to them is made to first, where mixtools takes an E step from it as it is, and may stop at once, as the next one is lower
    epsilon, maxit            stop when an iteration raises the log-likelihood by epsilon or less (nats, in all), or after maxit
    maxrestarts : int         how often all may be drawn anew after a component has collapsed
    arbmean, arbvar : bool    False: one mean, one standard deviation for all components; also where k of them start it
    random_state : int, Generator, RandomState or None    of what is drawn; None is the same every time
    verb : bool               a line for each iteration on stderr
    fast : bool               by itself nothing: every fit is. With `ecm` and two components, the path of mixtools' fast=TRUE
    ecm : bool                walk the path that mixtools walks itself: its fixed points are EM's, its trace and number of
        iterations are not. Weights and means; E step; weights again and standard deviations; E step. Where means are free and all
        standard deviations go together, or with `fast`: one E step, and deviations are taken from the means before, which may
        lower the log-likelihood and then stops

    What is drawn: the sorted rows are cut into k parts of equally many; each mean is normal about its part's, with the standard
    deviation that this part has; standard deviations are the parts' times a log-normal number; weights are uniform.

    It ends within 1e-6 nats of mixtools' log-likelihood or above it, but for two of 39 cases (tests/test_mixtools.py). From
    one start EM and mixtools' path may lead to different maxima (`galaxies`, k = 3: -212.08 and -203.18); and where thousands of
    iterations gain about epsilon each, EM may stop first (`waiting`, k = 3, sd_constr=[None, "a", "a"]: 2e-6 nats below). With
    `ecm=True` it ends where mixtools does.

    Warns NotConverged where maxit is reached, and CollapseWarning where the start given was left for a drawn one.

    Raises
    ------
    CollapsedComponent    every one of 1 + maxrestarts starts has collapsed; also a ValueError
    ValueError, TypeError    unusable arguments, with name and value
    """
    engine = InMemory(x)
    if engine.n_features != 1:
        raise ValueError(f"x must be one column, got {engine.n_features}; mvnormalmixEM takes several")
    _require_whole("maxrestarts", maxrestarts, 0)
    rule = Increase(epsilon, maxit)
    w, m, s = _numbers(lambda_, "lambda_", 1), _numbers(mu, "mu", 1), _numbers(sigma, "sigma", 1)
    K = _components(k, len(engine.X), {"mu": m, "sigma": s})
    if s is not None and not (s.min() >= 1e-150 and s.max() <= 1e150):
        raise ValueError(f"sigma must lie between 1e-150 and 1e150, got {s.min():g} to {s.max():g}")
    if w is not None:
        if len(w) > K or w.min() < 0.0 or not w.any():
            raise ValueError(f"lambda_ must be at most {K} numbers of at least 0, not all of them 0, got {w.tolist()}")
        w = np.resize(w, K)
        w = w / w.sum()
    means, sds, shared = _common(K, m, s, arbmean, arbvar, mean_constr, sd_constr)
    # the native M step is quicker; for the other path a constraint says the same
    structure = "tied" if shared and not ecm else "full"
    if shared and ecm:
        sds = ["sigma"] * K
    constraints = None if means is None and sds is None else Constraints(means=means, sds=sds)
    callback = _tell if verb else None

    def climb(start: Parameters) -> Fit:
        if ecm:
            own = fast and K == 2 and means is None
            return _two_steps(engine, start, constraints or Constraints(), rule=rule, lagged=own, callback=callback)
        return em(engine, start, stop=rule, constraints=constraints, callback=callback)

    given = (w, None if m is None else m[:, None], None if s is None else np.square(s)[:, None, None])
    return _climbed("normalmixEM", engine, K, structure, given, random_state, climb, maxrestarts)


def mvnormalmixEM(
    x: ArrayLike,
    lambda_: ArrayLike | None = None,
    mu: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    k: int = 2,
    arbmean: bool = True,
    arbvar: bool = True,
    epsilon: float = 1e-8,
    maxit: int = 10_000,
    verb: bool = False,
    random_state: RandomState = None,
) -> MixEM:
    """Fit a mixture of Gaussians in several dimensions, as `mixtools::mvnormalmixEM` is asked to.

    Parameters
    ----------
    x : (N, D) array-like     rows, data units; finite
    lambda_ : (k,) or None    start weights, at least 0; they sum to 1. None: drawn
    mu : (k, D) or list of k (D,), (D,) or None           start means, data units. One (D,): one mean for all (arbmean=False)
    sigma : (k, D, D) or list of k (D, D), (D, D) or None    start covariances, data units squared. One (D, D): one for all
        components (arbvar=False)
    k : int                   number of components, where none of lambda_, mu and sigma says it
    arbmean, arbvar, epsilon, maxit, verb, random_state    as in `normalmixEM`

    What is None is drawn as in `normalmixEM`, with rows sorted along a line that is drawn too, and diagonal covariances. After a
    collapse starts are drawn anew, up to 15 times. Warns and raises as `normalmixEM` does.
    """
    engine = InMemory(x)
    D = engine.n_features
    rule = Increase(epsilon, maxit)
    w, m, C = _numbers(lambda_, "lambda_", 1), _numbers(mu, "mu", 2), _numbers(sigma, "sigma", 3)
    K = _components(k, len(engine.X), {"lambda_": w, "mu": m, "sigma": C})
    for name, given, shape in (("lambda_", w, ()), ("mu", m, (D,)), ("sigma", C, (D, D))):
        if given is not None and given.shape[1:] != shape:
            raise ValueError(f"{name} must have shape {(K, *shape)}, or {shape} for all, as x has {D} columns; got {given.shape}")
    if w is not None and not (w.min() >= 0.0 and abs(w.sum() - 1.0) <= WEIGHTS_SUM_TO_ONE_WITHIN):
        raise ValueError(f"lambda_ must be at least 0 and sum to 1, got {w.tolist()}")
    means, _, shared = _common(K, m, C, arbmean, arbvar, None, None)
    constraints = None if means is None else Constraints(means=means)
    callback = _tell if verb else None

    def climb(start: Parameters) -> Fit:
        return em(engine, start, stop=rule, constraints=constraints, callback=callback)

    return _climbed("mvnormalmixEM", engine, K, "tied" if shared else "full", (w, m, C), random_state, climb, MV_RESTARTS)


def _digits(column: Doubles) -> list[str]:
    """Numbers with equally many decimals, as many as six digits of any need."""
    cells = [f"{value:.6g}" for value in column]
    decimals = max(len(cell.partition(".")[2]) for cell in cells)
    return cells if any("e" in cell for cell in cells) else [f"{value:.{decimals}f}" for value in column]


# ------------------------------------------------------------------ from their arguments to ours

Given = tuple[Doubles | None, Doubles | None, Doubles | None]  # weights, means and covariances that a start must have


def _require_whole(name: str, number: object, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}")


def _numbers(value: ArrayLike | None, name: str, ndim: int) -> Doubles | None:
    """Return float64 with one entry a component, or one entry for all; a lone one gets its first axis."""
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} must have entries of equal shape, one a component: {error}") from error
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must be real numbers, got {value!r}")
    array = array.astype(np.float64)
    if array.ndim == ndim - 1:
        array = array[None]
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} must have one entry for each component, or one for all, got shape {np.shape(value)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return array


def _components(k: int, N: int, given: Mapping[str, Doubles | None]) -> int:
    """Return the number of components: how many entries the arguments have that have several, or else k."""
    _require_whole("k", k, 1)
    lengths = {name: len(values) for name, values in given.items() if values is not None and len(values) > 1}
    if len(set(lengths.values())) > 1:
        seen = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise ValueError(f"{' and '.join(lengths)} must have equally many entries, one a component, got {seen}")
    K = next(iter(lengths.values()), int(k))
    if k not in (2, K):  # 2 is what it is where nobody says anything
        raise ValueError(f"k must be {K}, as many entries as {' and '.join(lengths)} have, or left out, got {k}")
    if K > N:
        raise ValueError(f"k must be at most the number of rows, {N}, got {K}")
    return int(K)


def _common(
    K: int,
    m: Doubles | None,
    s: Doubles | None,
    arbmean: bool,
    arbvar: bool,
    mean_constr: Sequence[Any] | None,
    sd_constr: Sequence[Any] | None,
) -> tuple[Sequence[Any] | None, Sequence[Any] | None, bool]:
    """Return constraints on means and on standard deviations, and whether one covariance is for all."""
    for name, entries in (("mean_constr", mean_constr), ("sd_constr", sd_constr)):
        if entries is not None and (isinstance(entries, str) or not hasattr(entries, "__len__")):
            raise TypeError(f"{name} must be a sequence, one entry a component, got {entries!r}")
        if entries is not None and len(entries) != K:
            raise ValueError(f"{name} must have one entry for each of the {K} components, got {len(entries)}")
    one_mean = K > 1 and mean_constr is None and (not arbmean or (m is not None and len(m) == 1))
    one_sd = K > 1 and sd_constr is None and (not arbvar or (s is not None and len(s) == 1))
    if one_mean and one_sd:
        raise ValueError(
            f"mu and sigma are both common to all {K} components (one entry each, or arbmean=False and arbvar=False), which are "
            f"then one and the same: give one of them {K} entries, or ask for k=1"
        )
    return ["mu"] * K if one_mean else mean_constr, sd_constr, one_sd


def _drawn(X: Floats, K: int, random: np.random.Generator) -> tuple[Doubles, Doubles, Doubles]:
    """Return weights (K,), means (K, D) and diagonal covariances (K, D, D) drawn about those of K parts of the rows."""
    D = X.shape[1]
    spread = X.std(axis=0, dtype=np.float64)
    spread[spread == 0.0] = 1.0
    line = random.standard_normal(D) if D > 1 else np.ones(1)
    parts = np.array_split(X[np.argsort((X - X.mean(axis=0)) / spread @ line, kind="stable")], K)
    means = np.array([part.mean(axis=0, dtype=np.float64) for part in parts])
    sds = np.array([part.std(axis=0, dtype=np.float64) for part in parts])
    sds = np.where(sds > 0.0, sds, spread)  # a part of one row, or of equal ones
    means = means + sds * random.standard_normal((K, D))
    sds = sds * np.exp(0.5 * random.standard_normal((K, D)))
    return random.dirichlet(np.ones(K)), means, np.square(sds)[:, :, None] * np.eye(D)


def _start(X: Floats, K: int, structure: str, given: Given, random: np.random.Generator) -> Parameters:
    """Return a start with what is given, each for all components or for each, and the rest drawn."""
    D = X.shape[1]
    drawn = _drawn(X, K, random) if any(part is None for part in given) else given
    w, m, C = (theirs if part is None else part for part, theirs in zip(given, drawn, strict=True))
    assert w is not None and m is not None and C is not None
    C = np.broadcast_to(C, (K, D, D))
    if structure == "tied":
        C = np.tensordot(w / w.sum(), C, axes=1)
    return Parameters(w, np.broadcast_to(m, (K, D)), C, structure)


# ------------------------------------------------------------------ the climb, again where it collapses


def _climbed(
    ft: str,
    engine: InMemory,
    K: int,
    structure: str,
    given: Given,
    random_state: RandomState,
    climb: Callable[[Parameters], Fit],
    most: int,
) -> MixEM:
    """Climb from what is given, and after a collapse from starts that are all drawn; then put it into their words."""
    random, why = initialise.generator(random_state), None
    for restarts in range(most + 1):
        try:
            fit = climb(_start(engine.X, K, structure, (None, None, None) if restarts else given, random))
            break
        except CollapsedComponent as collapse:
            if restarts == most:
                raise _too_many(collapse, most, K) from collapse
            why = why or collapse
    if why and any(part is not None for part in given):
        warnings.warn(
            f"{ft} left the start given for a drawn one ({restarts} restart{'s' * (restarts > 1)}): {_how(why)}.",
            CollapseWarning,
            stacklevel=3,
        )
    if not fit.converged:
        warnings.warn(
            f"{ft} did not converge: {fit.reason}. Raise maxit, or ask for fewer components (now {K}).",
            NotConverged,
            stacklevel=3,
        )
    p, one = fit.parameters, ft == "normalmixEM"
    return MixEM(
        x=engine.X[:, 0] if one else engine.X,
        lambda_=p.weights.copy(),
        mu=p.means[:, 0].copy() if one else p.means.copy(),
        sigma=p.sds[:, 0].copy() if one else np.array(p.covariance_matrices),
        loglik=fit.log_likelihood,
        posterior=fit.predict_proba(engine.X),
        all_loglik=fit.trace,
        iterations=len(fit.trace) - 1,
        restarts=restarts,
        ft=ft,
        fit=fit,
    )


def _how(collapse: CollapsedComponent) -> str:
    which = "the common variance" if collapse.component is None else f"component {collapse.component}"
    if collapse.feature is None:
        return f"{which} was left without a row"
    return f"{which} had no variance left, with {collapse.mass:.3g} rows' worth of data"


def _too_many(last: CollapsedComponent, most: int, K: int) -> CollapsedComponent:
    tries = f"in each of {most + 1} tries, of which {most} were drawn anew; in the last" if most else "and maxrestarts is 0:"
    common = ", or use arbvar=False: one variance for all does not vanish with one component"
    return CollapsedComponent(
        f"a component collapsed {tries} {_how(last)}. Ask for fewer components (now {K}), give mu and sigma nearer to the data"
        f"{common * (last.component is not None)}.",
        component=last.component,
        mass=last.mass,
        feature=last.feature,
    )


def _tell(progress: Progress) -> None:
    print(
        f"iteration {progress.sweep}: log-likelihood {progress.log_likelihood:.6f}, increase {progress.gain:.3g}", file=sys.stderr
    )


# ------------------------------------------------------------------ mixtools' own path


def _two_steps(
    engine: InMemory,
    start: Parameters,
    constraints: Constraints,
    *,
    rule: Increase,
    lagged: bool,
    callback: Callable[[Progress], object] | None,
) -> Fit:
    """ECM (Meng & Rubin 1993): weights, and means at the standard deviations there are; E step; deviations at those means.

    lagged : bool    both from one E step, so that deviations are from the means before; also where means are free and all
        standard deviations are in one group

    One dimension, structure "full". Raises CollapsedComponent.
    """
    kind = structure_named("full")
    held = constraints.held(start)
    lagged = lagged or bool(held.means.nothing and (held.covariances.group == 0).all())
    p = held.project(start)
    trace = Trace(weight=engine.weight, parameters=p)
    statistics = engine.sweep(p.factors)
    while True:
        trace.append(statistics.log_likelihood)
        if callback is not None:
            gain = trace[-1] - trace[-2] if len(trace) > 1 else float("nan")
            callback(Progress(len(trace) - 1, p, trace[-1], gain, time.monotonic() - trace.started))
        reason = rule(trace)
        if reason:
            break
        moved = maximise(statistics, kind, before=p, held=_fixing(held, covariances=p.covariances))
        about = p
        if not lagged:
            about, statistics = moved, engine.sweep(moved.factors)
        widened = maximise(statistics, kind, before=about, held=_fixing(held, means=about.means))
        p = Parameters.unchecked(widened.weights, moved.means, widened.covariances, kind)
        statistics = engine.sweep(p.factors)
    return Fit(
        parameters=p,
        statistics=statistics,
        trace=np.array(trace),
        history=None,
        reason=str(reason),
        converged=not isinstance(reason, Limit),
        sweeps=1 + (len(trace) - 1) * (1 if lagged else 2),
        seconds=time.monotonic() - trace.started,
        distance=stopping.aitken(trace),
        held=held,
        scores=np.array([statistics.log_likelihood]),
    )


def _fixing(held: Held, **now: Doubles) -> Held:
    """Return constraints that also hold means, or covariances, at what they are now."""
    for name, value in now.items():
        nobody = np.full(len(value), -1)
        part = replace(getattr(held, name), value=value, fixed=nobody < 0, group=nobody)
        held = replace(held, **{name: part})
    return held


# ------------------------------------------------------------------ the bootstrap


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
    engine = initialise.in_one_thread(y)
    if mix_type == "normalmix" and engine.n_features != 1:
        raise ValueError(f"y must be one column for mix_type='normalmix', got {engine.n_features}; 'mvnormalmix' takes several")
    if not arbmean and not arbvar:
        raise ValueError("arbmean=False and arbvar=False together leave all components equal: one of them must be True")
    initialise.checked_count("max_comp", max_comp)
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


def boot_se(em_fit: MixEM, B: int = 100, random_state: RandomState = None, n_threads: int | None = None) -> BootSE:
    """Return standard errors of a fit by `normalmixEM` or `mvnormalmixEM`, by the parametric bootstrap, as `mixtools::boot.se`.

    Refits start at the fit, and hold to its constraints; where one collapses there are fewer than B.
    """
    if not isinstance(em_fit, MixEM):
        raise TypeError(f"em_fit must be what normalmixEM or mvnormalmixEM returns, got {type(em_fit).__name__}")
    u = standard_errors(em_fit.fit, em_fit.x, method="parametric", n_resamples=B, random_state=random_state, n_threads=n_threads)
    assert u.resampled is not None
    weights, means, covariances = u.resampled
    (K, D), kind = u.parameters.means.shape, structure_named(u.parameters.structure)
    if em_fit.ft == "normalmixEM":
        sigma = np.sqrt([kind.variances(C, K, D)[:, 0] for C in covariances])
        return BootSE(weights, u.weights, means[:, :, 0], u.means[:, 0], sigma, u.sds[:, 0])
    matrices = np.array([kind.matrices(C, K, D) for C in covariances])
    return BootSE(weights, u.weights, means, u.means, matrices, kind.matrices(u.covariances, K, D))
