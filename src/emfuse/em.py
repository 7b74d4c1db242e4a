"""The loop: sweep, maximise, ask the rule; and what comes back, a `Fit`.

Layer 3.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse import engines, initialise, stopping
from emfuse._typing import Doubles, Floats, Labels, RandomState
from emfuse.accelerate import ACCELERATORS
from emfuse.engines import Engine, InMemory
from emfuse.maximise import CollapsedComponent, maximise, step
from emfuse.parameters import Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.stopping import Limit, Rule, Trace
from emfuse.structures import structure_named

DOUBLE_NOISE = 1e-14  # nats a row: rounding of a log-likelihood in float64


class NotConverged(UserWarning):
    """A fit ended at a limit and not at a maximum."""


@dataclass(frozen=True)
class Progress:
    """The state of a fit after a sweep.

    sweep : int                 which entry of the trace this is; 0 is the start
    parameters : Parameters     what was swept
    log_likelihood : float      of exactly those parameters, total, nats
    gain : float                over the sweep before, nats; nan for the first
    seconds : float             since the fit began
    """

    sweep: int
    parameters: Parameters
    log_likelihood: float
    gain: float
    seconds: float


class History(list[Progress]):
    """One `Progress` a sweep; prints as a table of weights, means, standard deviations and log-likelihood."""

    def __str__(self) -> str:
        if not self:
            return "no sweeps were kept"
        K, D = self[0].parameters.means.shape
        names = [f"pi{k + 1}" for k in range(K)]
        for letter in ("mu", "sd"):
            names += [f"{letter}{k + 1}" + (f"[{d}]" if D > 1 else "") for k in range(K) for d in range(D)]
        rows = []
        for sweep in self:
            p = sweep.parameters
            rows.append(
                [f"{value:.6g}" for value in (*p.weights, *p.means.ravel(), *p.sds.ravel())] + [f"{sweep.log_likelihood:.6f}"]
            )
        head = ["sweep", *names, "log-likelihood"]
        table = [head] + [[str(sweep.sweep), *row] for sweep, row in zip(self, rows, strict=True)]
        widths = [max(len(row[i]) for row in table) for i in range(len(head))]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table)


@dataclass(frozen=True)
class Fit:
    """A fitted mixture and how it was reached.

    parameters : Parameters
    statistics : SufficientStatistics    the sums of the last sweep, under `parameters`
    trace : (T,) float64                 total log-likelihood after each sweep, nats; [0] is the start's, [-1] `parameters`'
    history : History or None            a record for each entry of the trace, where asked for
    reason : str                         why it stopped, in a sentence
    converged : bool                     whether that reason is convergence, not a limit
    sweeps : int                         walks over the data, all counted
    seconds : float
    distance : float                     how far below the maximum it stopped, estimated, nats; inf where nothing is known
    n_threads : int or None              how many threads `predict` and its like use; None: see `emfuse.threads`
    """

    parameters: Parameters
    statistics: SufficientStatistics = field(repr=False)
    trace: Doubles = field(repr=False)
    history: History | None = field(repr=False)
    reason: str
    converged: bool
    sweeps: int
    seconds: float
    n_threads: int | None = field(default=None, repr=False)
    distance: float = field(default=float("inf"), repr=False)

    @property
    def log_likelihood(self) -> float:
        """Total log-likelihood of exactly `parameters`, nats."""
        return float(self.trace[-1])

    @property
    def free_parameters(self) -> int:
        """Number of free parameters."""
        return self.parameters.free_parameters

    @property
    def aic(self) -> float:
        """Akaike's criterion, 2 p - 2 log L; smaller is better."""
        return 2.0 * self.free_parameters - 2.0 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion, p log n - 2 log L with n the sum of row weights; smaller is better."""
        return self.free_parameters * float(np.log(self.statistics.weight)) - 2.0 * self.log_likelihood

    def predict(self, X: ArrayLike) -> Labels:
        """Return the most likely component of each row, (N,) int64."""
        return cast(Labels, self._evaluate(X, labels=True).labels)

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Return the responsibilities, (N, K); rows sum to 1."""
        return cast(Floats, self._evaluate(X, responsibilities=True).responsibilities)

    def score_samples(self, X: ArrayLike) -> Floats:
        """Return the log density of each row, (N,), nats."""
        return cast(Floats, self._evaluate(X, log_density=True).log_density)

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> tuple[Doubles, Labels]:
        """Draw rows and their components: see `Parameters.sample`."""
        return self.parameters.sample(n_samples, random_state)

    def _evaluate(self, X: ArrayLike, **want: bool) -> engines.Evaluation:
        return engines.evaluate(X, self.parameters.factors, n_threads=self.n_threads, **want)

    def __str__(self) -> str:
        state = "converged" if self.converged else "stopped before convergence"
        return (
            f"{self.parameters!r}\n"
            f"log-likelihood {self.log_likelihood:.6f}, {self.free_parameters} free parameters, "
            f"AIC {self.aic:.4f}, BIC {self.bic:.4f}\n"
            f"{state} after {self.sweeps} sweeps, {self.seconds:.3g} s: {self.reason}"
        )


def em(
    data: ArrayLike | Engine,
    start: Parameters,
    *,
    stop: Rule | int = stopping.TIGHT,
    reg_covar: float = 0.0,
    acceleration: str | None = None,
    history: bool = False,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
    callback: Callable[[Progress], object] | None = None,
    verbose: bool = False,
    spare_mass: float = 0.0,
) -> Fit:
    """Fit a mixture by expectation-maximisation from an explicit start.

    Parameters
    ----------
    data : (N, D) array-like or an engine    rows, data units; 1-D is taken as one feature
    start : Parameters
    stop : rule or int       when to stop (`emfuse.stopping`); an integer runs exactly that many M steps; by default, when a sweep
        gains less than 1e-8 nats a row, or after 10,000 sweeps
    reg_covar : float        added to every variance at every M step, data units squared
    acceleration : str or None    "emqn" ("auto" is the same) or "squarem": see `emfuse.accelerate`; None: plain EM
    history : bool           keep every sweep's parameters
    sample_weight : (N,)     row weights, at least 0; weight two is the row twice
    n_threads : int          None: what `emfuse.threads.thread_count` says; the result is the same to the last bit
    callback : callable      called after each sweep with a `Progress`; a true answer stops, a string is then the reason
    verbose : bool           show progress on stderr (with tqdm where it is installed)
    spare_mass : float       added to every component's mass before dividing by it (scikit-learn adds 10 eps)

    Raises
    ------
    CollapsedComponent    a covariance is no longer positive definite; also a ValueError
    ValueError, TypeError    unusable arguments, or a row so far away that its log density overflows
    """
    if acceleration not in (None, "auto", *ACCELERATORS):
        raise ValueError(
            f"acceleration must be one of 'auto', {', '.join(map(repr, ACCELERATORS))} or None, got {acceleration!r}"
        )
    if acceleration is not None and reg_covar > 0.0:
        raise ValueError(
            f"acceleration must be None where reg_covar is above 0, got {acceleration!r} and {reg_covar:g}: a step that adds to "
            "the variances maximises nothing that could be watched"
        )
    if not isinstance(start, Parameters):
        raise TypeError(f"start must be emfuse.Parameters, got {type(start).__name__}; `emfuse.fit` finds a start by itself")
    if not 0.0 <= reg_covar < np.inf:
        raise ValueError(f"reg_covar must be finite and at least 0, got {reg_covar!r}")
    rule = stopping.as_rule(stop)
    engine = _engine(data, sample_weight, n_threads)
    structure = structure_named(start.structure)
    parameters = start
    parameters.factors  # noqa: B018  before the clock starts: the first ones load SciPy
    trace = Trace(weight=engine.weight, parameters=start)
    accelerator = None if acceleration is None else ACCELERATORS["emqn" if acceleration == "auto" else acceleration](trace.weight)
    noise = float(getattr(engine, "noise", DOUBLE_NOISE))
    kept = History()
    show = _Display(verbose)
    watched = history or verbose or callback is not None

    def watch() -> object:
        """Tell whoever wants to know; the callback's answer."""
        gain = trace[-1] - trace[-2] if len(trace) > 1 else float("nan")
        progress = Progress(len(trace) - 1, parameters, trace[-1], gain, time.monotonic() - trace.started)
        if history:
            kept.append(progress)
        show(progress)
        return callback(progress) if callback is not None else None

    def image_of(statistics: SufficientStatistics) -> Parameters:
        """The M step; with sums taken again about the new means where these are far from the old."""
        image, far = step(statistics, structure, reg_covar=reg_covar, spare_mass=spare_mass)
        if far:
            statistics = sweep(parameters, image.means)
            image = maximise(statistics, structure, reg_covar=reg_covar, spare_mass=spare_mass)
        return image

    def sweep(p: Parameters, origin: Doubles | None = None) -> SufficientStatistics:
        trace.sweeps += 1
        made: SufficientStatistics = engine.sweep(p.factors, origin=origin)
        return made

    try:
        statistics = sweep(parameters)
        while True:
            trace.append(statistics.log_likelihood)
            trace.rounding = 1e-13 * abs(trace[-1]) + noise * trace.weight
            answer = watch() if watched else None
            ahead = None
            if accelerator is not None:  # rules may ask it how much is left
                image = image_of(statistics)
                ahead = accelerator.step(parameters, image, trace[-1] - trace[-2] if len(trace) > 1 else np.inf)
                trace.promised, trace.remaining, trace.settled = ahead.promised, ahead.remaining, ahead.settled
            reason = rule(trace)
            if answer and not reason:
                reason = Limit(answer if isinstance(answer, str) else "the callback asked to stop")
            if reason:
                break
            if accelerator is None:
                image = image_of(statistics)
            trace.previous = parameters
            if accelerator is not None and ahead is not None and ahead.trial is not None:
                tried = sweep(ahead.trial)
                if tried.log_likelihood >= trace[-1] + ahead.asked - trace.rounding:
                    trace.parameters = parameters = ahead.trial
                    statistics = tried
                    continue
                accelerator.refuse()
            trace.parameters = parameters = image
            statistics = sweep(parameters)
    finally:
        show.close()
    return Fit(
        parameters=parameters,
        statistics=statistics,
        trace=np.array(trace),
        history=kept if history else None,
        reason=str(reason),
        converged=not isinstance(reason, Limit),
        sweeps=trace.sweeps,
        seconds=time.monotonic() - trace.started,
        n_threads=n_threads,
        distance=max(0.0, trace.remaining if accelerator is not None else stopping.aitken(trace)),
    )


def fit(
    X: ArrayLike,
    n_components: int,
    *,
    structure: str = "full",
    sample_weight: ArrayLike | None = None,
    random_state: RandomState = None,
    init: str | Parameters = "kmeans",
    n_init: int = 1,
    stop: Rule | int | None = None,
    reg_covar: float = 0.0,
    acceleration: str | None = "auto",
    history: bool = False,
    n_threads: int | None = None,
    callback: Callable[[Progress], object] | None = None,
    verbose: bool = False,
) -> Fit:
    """Fit a mixture: a start, then EM to a tight stop. The one-liner that we recommend.

    Parameters
    ----------
    X : (N, D) array-like    rows, data units; 1-D is taken as one feature
    n_components : int       K
    structure : str          "full", "tied", "diag" or "spherical"
    sample_weight : (N,)     row weights, at least 0
    random_state : int, Generator, RandomState or None    seeds the start; None is the same start every time
    init : str or Parameters    "kmeans", "kmeans++", "random_rows", "random" (see `emfuse.initialise.start`), or a start of your
        own; starts look at 100,000 rows at most, EM at all
    n_init : int             how many starts; the fit with the highest log-likelihood is kept, one that collapses passed over
    stop : rule or int       default: within 1e-6 nats of the maximum by estimate (for each 1,000 rows), or 10,000 sweeps
    acceleration : str or None    as in `em`; "auto" is plain EM where `reg_covar` is above 0
    reg_covar, history, n_threads, callback, verbose    as in `em`

    Warns NotConverged where the default stop's limit is reached first. Raises as `em` does.
    """
    engine = _engine(X, sample_weight, n_threads)
    if not isinstance(engine, InMemory):
        raise TypeError(f"X must be rows in memory, got {type(engine).__name__}; `emfuse.em` takes any engine, from a start")
    K = initialise.checked_components(n_components, len(engine.X))
    if isinstance(n_init, bool) or not isinstance(n_init, (int, np.integer)) or n_init < 1:
        raise ValueError(f"n_init must be a whole number of at least 1, got {n_init!r}")
    generator = initialise.generator(random_state)
    best: Fit | None = None
    collapsed: CollapsedComponent | None = None
    for _ in range(1 if isinstance(init, Parameters) else n_init):
        try:
            start = init if isinstance(init, Parameters) else initialise.start(engine, K, structure, init, generator)
            made = em(
                engine,
                start,
                stop=stopping.AT_MAXIMUM if stop is None else stop,
                reg_covar=reg_covar,
                acceleration=None if acceleration == "auto" and reg_covar > 0.0 else acceleration,
                history=history,
                n_threads=n_threads,
                callback=callback,
                verbose=verbose,
            )
        except CollapsedComponent as error:
            collapsed = error
            continue
        if best is None or made.log_likelihood > best.log_likelihood:
            best = made
    if best is None:
        assert collapsed is not None
        raise collapsed
    if stop is None and not best.converged:
        warnings.warn(
            f"the fit did not converge: {best.reason}. Ask for fewer components, or give a `stop` of your own.",
            NotConverged,
            stacklevel=2,
        )
    return best


def _engine(data: Any, sample_weight: ArrayLike | None, n_threads: int | None) -> Any:
    if not hasattr(data, "sweep"):
        return InMemory(data, sample_weight, n_threads=n_threads)
    if sample_weight is not None:
        raise ValueError("sample_weight must be given to the engine, not beside it")
    return data


class _Display:
    """Progress on stderr: tqdm's bar where it is installed, else a line a second."""

    def __init__(self, wanted: bool):
        self.bar: Any = None
        self.wanted, self.last = wanted, -1.0
        if wanted:
            try:
                from tqdm.auto import tqdm

                self.bar = tqdm(desc="EM", unit=" sweeps")
            except ImportError:
                pass

    def __call__(self, progress: Progress) -> None:
        if self.bar is not None:
            self.bar.set_postfix(log_likelihood=f"{progress.log_likelihood:.6f}", gain=f"{progress.gain:.2e}", refresh=False)
            self.bar.update()
        elif self.wanted and progress.seconds - self.last >= 1.0:
            self.last = progress.seconds
            line = f"EM: sweep {progress.sweep}, log-likelihood {progress.log_likelihood:.6f}, gain {progress.gain:.3g}"
            print(line, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
