"""What a user asks for, `em` from a start and the one-liner `fit`, and what comes back, a `Fit`.

Layer 3.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse import engines, initialise, stopping
from emfuse._typing import Doubles, Floats, Labels, RandomState
from emfuse.blocks import as_engine
from emfuse.climb import Climb
from emfuse.collapse import CollapseWarning, Repair
from emfuse.constraints import Constraints, Held
from emfuse.dask_engine import DaskEngine, is_dask
from emfuse.density import Mixture
from emfuse.engines import Engine, InMemory, cut
from emfuse.maximise import CollapsedComponent
from emfuse.parameters import Factors, Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.stopping import Limit, Rule, Trace
from emfuse.structures import structure_named
from emfuse.threads import in_order

VARIANCE_FLOOR = 1e-16  # of `fit`: far below what a sound fit feels


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
    trace : (T,) float64                 total log-likelihood after each sweep, nats, less the floor's penalty where there is one:
        what EM never lowers; [0] is the start's (or that after the last repair), [-1] `parameters`'
    history : History or None            a record for each entry of the trace, where asked for
    reason : str                         why it stopped, in a sentence
    converged : bool                     whether that reason is convergence, not a limit
    sweeps : int                         walks over the data, all counted
    seconds : float
    distance : float                     how far below the maximum it stopped, estimated, nats; inf where nothing is known
    repairs : tuple of str               what was done about components that collapsed, a sentence each
    scores : (n_init,) float64           log-likelihood that each start came to, nats; nan where it collapsed
    held : Held or None                  the constraints
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
    repairs: tuple[str, ...] = field(default=(), repr=False)
    scores: Doubles = field(default_factory=lambda: np.empty(0), repr=False)
    held: Held | None = field(default=None, repr=False)

    @property
    def log_likelihood(self) -> float:
        """Total log-likelihood of exactly `parameters`, nats."""
        return self.statistics.log_likelihood

    @property
    def free_parameters(self) -> int:
        """Number of free parameters, as constraints leave them."""
        return self.parameters.free_parameters if self.held is None else self.held.free_parameters

    @property
    def aic(self) -> float:
        """Akaike's criterion, 2 p - 2 log L; smaller is better."""
        return 2.0 * self.free_parameters - 2.0 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion, p log n - 2 log L with n the sum of row weights; smaller is better."""
        return self.free_parameters * float(np.log(self.statistics.weight)) - 2.0 * self.log_likelihood

    @property
    def mixture(self) -> Mixture:
        """The mixture as a distribution: densities, quantiles, marginals, conditionals (`emfuse.Mixture`)."""
        return Mixture(self.parameters)

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

    def standard_errors(self, X: ArrayLike, **options: Any) -> Any:
        """Return how far off the parameters may be: see `emfuse.standard_errors` for methods and options; X are the rows."""
        return _above("uncertainty").standard_errors(self, X, **options)

    def summary(self) -> str:
        """Return the fit in 80 columns, like R's summary()."""
        return str(_above("summary").summary(self))

    def plot(self, X: ArrayLike | None = None, **options: Any) -> Any:
        """Draw the fit, over the rows X where they are given, in the way that suits it; returns matplotlib's Axes.

        See `emfuse.plots.plot` for the options, and `emfuse.plots` for other pictures.
        """
        return _above("plots").plot(self, X, **options)

    def film(self, X: ArrayLike, path: str | os.PathLike[str], **options: Any) -> Any:
        """Write how the fit came about, sweep by sweep, as .gif, .mp4 or a folder of .png; needs `history=True`.

        See `emfuse.plots.film` for the options and the result.
        """
        return _above("plots").film(self, X, path, **options)

    def _repr_html_(self) -> str:
        return str(_above("html").of_fit(self))

    def _evaluate(self, X: ArrayLike, **want: bool) -> engines.Evaluation:
        return engines.evaluate(X, self.parameters.factors, n_threads=self.n_threads, **want)

    def __str__(self) -> str:
        state = "converged" if self.converged else "stopped before convergence"
        return (
            f"{self.parameters!r}\n"
            f"log-likelihood {self.log_likelihood:.6f}, {self.free_parameters} free parameters, "
            f"AIC {self.aic:.4f}, BIC {self.bic:.4f}\n"
            f"{state} after {self.sweeps} sweeps, {self.seconds:.3g} s: {self.reason}"
        ) + "".join(f"\n{sentence}" for sentence in self.repairs)


def _above(name: str) -> Any:
    """A module of a higher layer, when it is asked for: nothing here depends on it."""
    return importlib.import_module(f"emfuse.{name}")


def em(
    data: ArrayLike | Engine,
    start: Parameters,
    *,
    stop: Rule | int = stopping.TIGHT,
    reg_covar: float = 0.0,
    variance_floor: float = 0.0,
    acceleration: str | None = None,
    constraints: Constraints | None = None,
    on_collapse: str = "raise",
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
    reg_covar : float        added to every variance at every M step, data units squared: scikit-learn's
    variance_floor : float   a floor that has the data's scale: each component gets this share of all rows more, spread as these
        are, for its variances. What is maximised, and traced, is then less than the log-likelihood by what
        `emfuse.maximise.Floor` says
    acceleration : str or None    "emqn" ("auto" is the same) or "squarem": see `emfuse.accelerate`; None: plain EM
    constraints : Constraints or None    what is fixed, and what goes together (`emfuse.Constraints`); the start is made to hold
    on_collapse : str        what to do about a component that is left without rows, or whose variance is gone, or more than half
        the floor's (below 1e-8; a higher floor is a prior): "raise" CollapsedComponent; "restart" it elsewhere, three times, then
        drop it; "drop" it and go on with the others; "floor": let it rest on the floor. Warns where one is dropped or rests
    history : bool           keep every sweep's parameters
    sample_weight : (N,)     row weights, at least 0; weight two is the row twice
    n_threads : int          None: what `emfuse.threads.thread_count` says; the result is the same to the last bit
    callback : callable      called after each sweep with a `Progress`; a true answer stops, a string is then the reason
    verbose : bool           show progress on stderr (with tqdm where it is installed)
    spare_mass : float       added to every component's mass before dividing by it (scikit-learn adds 10 eps)

    Raises
    ------
    CollapsedComponent    a covariance is no longer positive definite, and `on_collapse` has no remedy; also a ValueError
    ValueError, TypeError    unusable arguments, or a row so far away that its log density overflows
    """
    engine = _engine(data, sample_weight, n_threads)
    climb = Climb(
        engine,
        start,
        stop=stop,
        repair=Repair(on_collapse),
        reg_covar=reg_covar,
        variance_floor=variance_floor,
        spare_mass=spare_mass,
        acceleration=acceleration,
        constraints=constraints,
    )
    made = _run(climb, history=history, n_threads=n_threads, callback=callback, verbose=verbose)
    for sentence in climb.repair.look(climb.parameters, climb.statistics, climb.floor):
        warnings.warn(sentence, CollapseWarning, stacklevel=2)
    return made


def _run(
    climb: Climb, *, history: bool, n_threads: int | None, callback: Callable[[Progress], object] | None, verbose: bool
) -> Fit:
    """Run a climb, telling whoever wants to know, and return what came of it."""
    trace, kept, show = climb.trace, History(), _Display(verbose)

    def watch(parameters: Parameters, trace: Trace) -> object:
        gain = trace[-1] - trace[-2] if len(trace) > 1 else float("nan")
        progress = Progress(len(trace) - 1, parameters, trace[-1], gain, time.monotonic() - trace.started)
        if progress.sweep == 0:  # or again, after a repair
            kept.clear()
        if history:
            kept.append(progress)
        show(progress)
        return callback(progress) if callback is not None else None

    climb.watch = watch if history or verbose or callback is not None else None
    try:
        reason = climb.run()
    finally:
        show.close()
    return Fit(
        parameters=climb.parameters,
        statistics=climb.statistics,
        trace=np.array(trace),
        history=kept if history else None,
        reason=str(reason),
        converged=not isinstance(reason, Limit),
        sweeps=trace.sweeps,
        seconds=time.monotonic() - trace.started,
        n_threads=n_threads,
        distance=climb.distance,
        repairs=tuple(climb.repair.done),
        held=climb.held,
        scores=np.array([climb.statistics.log_likelihood]),
    )


def fit(
    X: ArrayLike,
    n_components: int,
    *,
    structure: str = "full",
    sample_weight: ArrayLike | None = None,
    random_state: RandomState = None,
    init: str | Parameters = "short_runs",
    n_init: int = 1,
    stop: Rule | int | None = None,
    reg_covar: float = 0.0,
    variance_floor: float = VARIANCE_FLOOR,
    acceleration: str | None = "auto",
    constraints: Constraints | None = None,
    sd: float | None = None,
    on_collapse: str = "restart",
    history: bool = False,
    n_threads: int | None = None,
    callback: Callable[[Progress], object] | None = None,
    verbose: bool = False,
) -> Fit:
    """Fit a mixture: a start, then EM to a tight stop. The one-liner that we recommend.

    Parameters
    ----------
    X : (N, D) array-like, file or engine    rows, data units; 1-D is taken as one feature. A path to an .npy or Parquet file, a
        folder or glob of them, an Arrow table or an h5py or Zarr data set is read again for each sweep (`emfuse.Blocks`); a Dask
        array or data frame is swept where its partitions are (`emfuse.DaskEngine`)
    n_components : int       K
    structure : str          "full", "tied", "diag", "spherical", or one of mclust's fourteen (`emfuse.structures`)
    sample_weight : (N,)     row weights, at least 0
    random_state : int, Generator, RandomState or None    seeds the starts; None is the same starts every time. The first ones of
        many are the same as those of few
    init : str or Parameters    "short_runs", "kmeans", "kmeans++", "quantiles" (one feature), "random_rows", "random" (see
        `emfuse.initialise.start`), or a start of your own; starts look at 100,000 rows at most, EM at all. "short_runs" reaches
        the highest maximum more often; "kmeans" takes a quarter of the time (`python -m bench.starts`)
    n_init : int             how many starts, side by side in threads; the fit with the highest log-likelihood is kept, all
        are in `Fit.scores`, and one that collapses is passed over
    stop : rule or int       default: within 1e-6 nats of the maximum by estimate, or 10,000 sweeps
    acceleration : str or None    as in `em`; "auto" is plain EM where `reg_covar` is above 0
    constraints : Constraints or None    as in `em`; a start's components are put in the order that suits them best
    sd : float or None       short for one known standard deviation: `Constraints(sds=[sd] * K)`; one feature
    on_collapse : str        as in `em`, from where `CollapseWarning` comes too
    reg_covar, variance_floor, history, n_threads, callback, verbose    as in `em`

    Warns NotConverged where the default stop's limit is reached first. Raises as `em` does.
    """
    engine = _engine(X, sample_weight, n_threads)
    seeds = initialise.generator(random_state)
    rows = engine
    if not isinstance(engine, InMemory):  # starts look at a sample; EM at all
        if not hasattr(engine, "sample"):
            raise TypeError(
                f"X must be rows, or an engine that can draw a `sample` of them, got {type(engine).__name__}; `emfuse.em` takes "
                "any engine, from a start"
            )
        rows = engine.sample(initialise.most_rows(n_components), np.random.default_rng(int(seeds.integers(1 << 62))))
    K = initialise.checked_components(n_components, len(rows.X))
    if isinstance(n_init, bool) or not isinstance(n_init, (int, np.integer)) or n_init < 1:
        raise ValueError(f"n_init must be a whole number of at least 1, got {n_init!r}")
    Repair(on_collapse)  # raises
    if sd is not None:
        if constraints is not None:
            raise ValueError("sd is short for constraints=Constraints(sds=[...]): give one of them")
        constraints = Constraints(sds=[sd] * K)
    numbers = [int(seeds.integers(1 << 62)) for _ in range(1 if isinstance(init, Parameters) else n_init)]
    quiet = callback is None and not verbose
    kind, n_starts = structure_named(structure), 1
    shapes = Factors(np.empty((K, engine.n_features)), np.empty(kind.factor_shape(K, engine.n_features)), np.empty(K))
    if quiet and rows is engine and len(cut(len(rows.X), shapes)) == 1:  # a sweep is too short for threads, so starts have them
        n_starts, rows = rows.n_threads, InMemory(rows.X, rows.sample_weight, n_threads=1, trusted=True)
        engine = rows

    def one(number: int) -> tuple[Fit, list[str]] | CollapsedComponent:
        random = np.random.default_rng(number)
        try:
            start = init if isinstance(init, Parameters) else initialise.start(rows, K, kind, init, random)
            if constraints is not None and not isinstance(init, Parameters):
                start = suited(rows, start, constraints)
            climb = Climb(
                engine,
                start,
                stop=stopping.AT_MAXIMUM if stop is None else stop,
                repair=Repair(on_collapse, random),
                reg_covar=reg_covar,
                variance_floor=variance_floor,
                acceleration=None if acceleration == "auto" and reg_covar > 0.0 else acceleration,
                constraints=constraints,
            )
            made = _run(climb, history=history, n_threads=n_threads, callback=callback, verbose=verbose)
            return made, climb.repair.look(climb.parameters, climb.statistics, climb.floor)
        except CollapsedComponent as collapse:
            return collapse

    with closing(in_order(one, numbers, n_starts)) as outcomes:
        ended = list(outcomes)
    made = [outcome for outcome in ended if not isinstance(outcome, CollapsedComponent)]
    if not made:
        assert isinstance(ended[0], CollapsedComponent)
        raise ended[0]
    best, told = max(made, key=lambda pair: pair[0].trace[-1])
    scores = [np.nan if isinstance(outcome, CollapsedComponent) else outcome[0].log_likelihood for outcome in ended]
    best = replace(best, scores=np.array(scores))
    for sentence in told:
        warnings.warn(f"{sentence}. Ask for fewer components, or for another `on_collapse`.", CollapseWarning, stacklevel=2)
    if stop is None:
        warn_at_limit(best)
    return best


def warn_at_limit(made: Fit) -> None:
    """Warn the caller's caller of a fit that the default stop's limit ended."""
    if not made.converged:
        words = f"the fit did not converge: {made.reason}. Ask for fewer components, or give a `stop` of your own."
        warnings.warn(words, NotConverged, stacklevel=3)


def suited(engine: InMemory, start: Parameters, constraints: Constraints) -> Parameters:
    """Return a start, made to hold, with its components in the order in which it then has the highest log-likelihood."""
    few = initialise.sample_rows(engine, initialise.LEAST_SAMPLE, np.random.default_rng(0))
    return max(constraints.held(start).orders(start), key=lambda p: few.sweep(p.factors).log_likelihood)


def _engine(data: Any, sample_weight: ArrayLike | None, n_threads: int | None) -> Any:
    if is_dask(data):
        return DaskEngine(data, sample_weight=sample_weight)
    if not hasattr(data, "sweep"):
        streamed = None if isinstance(data, np.ndarray) else as_engine(data, weights=sample_weight, n_threads=n_threads)
        return InMemory(data, sample_weight, n_threads=n_threads) if streamed is None else streamed
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
