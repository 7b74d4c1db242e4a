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
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse import dask_engine, initialise, stopping
from emfuse._typing import AnyArray, Doubles, Floats, Labels, RandomState
from emfuse.accelerate import WARM_UP
from emfuse.blocks import as_engine
from emfuse.checkpoint import Checkpoint, Keeper, digest
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
from emfuse.threads import in_order, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from emfuse.uncertainty import Intervals, Uncertainty

Data: TypeAlias = ArrayLike | Engine | os.PathLike[str]  # what can be fitted, or made into what can

VARIANCE_FLOOR = 1e-16  # of `fit`: far below what a sound fit feels
SIDE_BY_SIDE_FROM = 3_000  # rows: two threads took 1.9 times as long as one for ten starts of 272 rows, and 0.9 of 10,000
LINE_EVERY, LINE_EVERY_IN_TERMINAL = 10.0, 0.1  # seconds at least between two lines of progress
LONG_WALK = 1.0  # seconds: of a walk that has taken so long, it is told how much is left


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
    rows_per_second : float     swept since the `Progress` before, M steps and all; in units of row weight
    """

    sweep: int
    parameters: Parameters
    log_likelihood: float
    gain: float
    seconds: float
    rows_per_second: float = float("nan")


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

    def predict(self, X: Any) -> Labels:
        """Return the most likely component of each row, (N,) int64.

        X : (N, D) array-like, or whatever else `fit` takes: of files and blocks the answer is an array too, made block by block;
            of a Dask collection it is a lazy dask.array
        """
        return cast(Labels, self._evaluate(X, "labels"))

    def predict_proba(self, X: Any) -> Floats:
        """Return the responsibilities, (N, K); rows sum to 1. See `predict`."""
        return cast(Floats, self._evaluate(X, "responsibilities"))

    def score_samples(self, X: Any) -> Floats:
        """Return the log density of each row, (N,), nats. See `predict`."""
        return cast(Floats, self._evaluate(X, "log_density"))

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> tuple[Doubles, Labels]:
        """Draw rows and their components: see `Parameters.sample`."""
        return self.parameters.sample(n_samples, random_state)

    @property
    def standard_errors(self) -> Callable[..., Uncertainty]:
        """`fit.standard_errors(X)`, X being the rows, says how far off the parameters may be: see `emfuse.standard_errors`."""
        # that function itself, bound: its warnings then name the caller's line, and no line here
        return cast("Callable[..., Uncertainty]", MethodType(_above("uncertainty").standard_errors, self))

    @property
    def confidence_intervals(self) -> Callable[..., Intervals]:
        """`fit.confidence_intervals(X, level=0.95)`, X being the rows, as a table: see `emfuse.confidence_intervals`."""
        return cast("Callable[..., Intervals]", MethodType(_above("uncertainty").confidence_intervals, self))

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.mixture.GaussianMixture` with the same answers (and so ONNX export)."""
        return _above("estimator").GaussianMixture.from_fit(self).to_sklearn()

    def summary(self) -> str:
        """Return the fit in 80 columns, like R's summary()."""
        return str(_above("summary").summary(self))

    def plot(self, X: ArrayLike | None = None, **options: Any) -> Axes:
        """Draw the fit, over the rows X where they are given, in the way that suits it; returns matplotlib's Axes.

        See `emfuse.plots.plot` for the options, and `emfuse.plots` for other pictures.
        """
        return cast("Axes", _above("plots").plot(self, X, **options))

    def film(self, X: ArrayLike, path: str | os.PathLike[str], **options: Any) -> list[int]:
        """Write how the fit came about, sweep by sweep, as .gif, .mp4 or a folder of .png; needs `history=True`.

        See `emfuse.plots.film` for the options and the result.
        """
        return cast("list[int]", _above("plots").film(self, X, path, **options))

    def _repr_html_(self) -> str:
        return str(_above("html").of_fit(self))

    def _evaluate(self, X: Any, want: str) -> Any:
        if is_dask(X):
            return lazily(X, self.parameters, want)
        return evaluated(_engine(X, None, self.n_threads), self.parameters.factors, want)

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
    data: Data,
    start: Parameters,
    *,
    stop: Rule | int = stopping.TIGHT,
    reg_covar: float = 0.0,
    variance_floor: float = 0.0,
    acceleration: str | None = None,
    warm_up: int = WARM_UP,
    constraints: Constraints | None = None,
    on_collapse: str = "raise",
    history: bool = False,
    sample_weight: ArrayLike | None = None,
    n_threads: int | None = None,
    callback: Callable[[Progress], object] | None = None,
    verbose: bool = False,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
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
    warm_up : int            plain sweeps before the first accelerated step: 3 are enough where another fit ended, near a maximum;
        from farther away few end more often at another maximum than EM's
    constraints : Constraints or None    what is fixed, and what goes together (`emfuse.Constraints`); the start is made to hold
    on_collapse : str        what to do about a component that is left without rows, or whose variance is gone, or more than half
        the floor's (below 1e-8; a higher floor is a prior): "raise" CollapsedComponent; "restart" it elsewhere, three times, then
        drop it; "drop" it and go on with the others; "floor": let it rest on the floor. Warns where one is dropped or rests
    history : bool           keep every sweep's parameters
    sample_weight : (N,)     row weights, at least 0; weight two is the row twice
    n_threads : int          None: what `emfuse.threads.thread_count` says; the result is the same to the last bit
    callback : callable      called after each sweep with a `Progress`; a true answer stops, a string is then the reason
    verbose : bool           show progress on stderr: in a terminal a line that changes, elsewhere one every ten seconds; within a
        long walk over blocks also how much of it is left
    checkpoint : path or Checkpoint    a file to which the fit is written every minute (or as `emfuse.Checkpoint` says), and which
        is removed at its end. Where it is there already, left by a process that was killed, the same call goes on from it and
        ends with the same parameters and trace, to the last bit; `stop`, `n_threads`, `callback` and `verbose` may be others.
        `seconds` and `history` are then of both runs; the walk that shows that the rows are the same is not counted. Steps of
        "emqn" are taken in Python, and are those of a fit without a checkpoint but for rounding
    spare_mass : float       added to every component's mass before dividing by it (scikit-learn adds 10 eps)

    Raises
    ------
    CollapsedComponent    a covariance is no longer positive definite, and `on_collapse` has no remedy; also a ValueError
    ValueError, TypeError    unusable arguments, a row so far away that its log density overflows, or a checkpoint of another fit
    OSError                  the checkpoint cannot be written; before the first sweep
    """
    keeper = None if checkpoint is None else Keeper(checkpoint)
    engine = _engine(data, sample_weight, n_threads)
    with closing(_Display(verbose, engine)) as show:
        climb = Climb(
            engine,
            start,
            stop=stop,
            repair=Repair(on_collapse),
            reg_covar=reg_covar,
            variance_floor=variance_floor,
            spare_mass=spare_mass,
            acceleration=acceleration,
            warm_up=warm_up,
            constraints=constraints,
            portable=keeper is not None,
        )
        saved = None
        if keeper is not None:
            problem = _problem(
                engine,
                start.structure,
                constraints,
                start=digest(start),
                reg_covar=reg_covar,
                variance_floor=variance_floor,
                spare_mass=spare_mass,
                acceleration=acceleration,
                warm_up=warm_up,
                on_collapse=on_collapse,
                history=history,
            )
            saved = keeper.read(problem)
        with keeper or nullcontext():
            made = _run(climb, history, n_threads, callback, show, keeper, saved)
    for sentence in climb.repair.look(climb.parameters, climb.statistics, climb.floor):
        warnings.warn(sentence, CollapseWarning, stacklevel=2)
    return made


def _run(
    climb: Climb,
    history: bool,
    n_threads: int | None,
    callback: Callable[[Progress], object] | None,
    show: _Display,
    keeper: Keeper | None = None,
    saved: dict[str, Any] | None = None,
    ended: list[dict[str, Any]] | None = None,
) -> Fit:
    """Run a climb, telling whoever wants to know, and return what came of it.

    saved : what `keeper` read, where this climb is to go on from it
    ended : starts that came to their end before, as they are to be written beside this climb
    """
    trace, kept = climb.trace, History()
    if saved is not None:
        climb.resume(saved["climb"])
        kept = _history_of(saved["history"], climb.parameters.structure)
    sweeps, seconds = trace.sweeps, time.monotonic() - trace.started

    def watch(parameters: Parameters, trace: Trace) -> object:
        nonlocal sweeps, seconds
        gain = trace[-1] - trace[-2] if len(trace) > 1 else float("nan")
        now = time.monotonic() - trace.started
        rate = (trace.sweeps - sweeps) * trace.weight / max(now - seconds, 1e-9)
        sweeps, seconds = trace.sweeps, now
        progress = Progress(len(trace) - 1, parameters, trace[-1], gain, now, rate)
        if progress.sweep == 0:  # or again, after a repair
            kept.clear()
        if history:
            kept.append(progress)
        show(progress)
        answer = callback(progress) if callback is not None else None
        if keeper is not None and not answer and keeper.due():
            keeper.write({"ended": ended or [], "climb": climb.state(), "history": _history_state(kept if history else None)})
        return answer

    def keep(weights: Doubles, means: Doubles, covariances: Doubles, when: Doubles) -> None:
        nonlocal sweeps, seconds
        # one sweep an entry, as if none had been refused
        values, rates = np.array(trace), trace.weight / np.maximum(np.diff(when, prepend=0.0), 1e-9)
        state = dict(zip(MIXTURE, (weights, means, covariances), strict=True))
        state |= dict(zip(NUMBERS, (values, np.diff(values, prepend=np.nan), seconds + when, rates), strict=True))
        kept[:] = _history_of(state, climb.parameters.structure)
        sweeps, seconds = trace.sweeps, time.monotonic() - trace.started

    for_history_alone = not (show.wanted or callback is not None or keeper is not None)
    climb.watch = watch if history or not for_history_alone else None
    climb.keep = keep if history and for_history_alone else None
    reason = climb.run()
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


def _problem(engine: Any, structure: str, constraints: Constraints | None, **more: Any) -> dict[str, Any]:
    """What must be the same for a fit to go on from a checkpoint: the shape of the data, and all that the path depends on."""
    shape = {"row weight": engine.weight, "features": engine.n_features, "structure": structure_named(structure).name}
    return {**shape, "constraints": None if constraints is None else repr(constraints), **more}


def fit(
    X: Data,
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
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
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
        `emfuse.initialise.start`), or a start of your own, whose structure then counts; starts look at 100,000 rows at most, EM
        at all. "short_runs" comes to the highest maximum more often, "kmeans" in a quarter of the time (`python -m bench.starts`)
    n_init : int             how many starts, side by side in threads where that is quicker; the fit with the highest
        log-likelihood is kept, all are in `Fit.scores`, and one that collapses is passed over
    stop : rule or int       default: within 1e-6 nats of the maximum by estimate, or 10,000 sweeps
    acceleration : str or None    as in `em`; "auto" is plain EM where `reg_covar` is above 0
    constraints : Constraints or None    as in `em`; a start's components are put in the order that suits them best
    sd : float or None       short for one known standard deviation: `Constraints(sds=[sd] * K)`; one feature
    on_collapse : str        as in `em`, from where `CollapseWarning` comes too
    reg_covar, variance_floor, history, n_threads, callback, verbose    as in `em`
    checkpoint : path or Checkpoint    as in `em`; of several starts, those that have ended are in it too. They are then made one
        after the other

    Warns NotConverged where the default stop's limit is reached first. Raises as `em` does.
    """
    keeper = None if checkpoint is None else Keeper(checkpoint)
    engine = _engine(X, sample_weight, n_threads)
    seeds = initialise.generator(random_state)
    with closing(_Display(verbose, engine)):
        rows = rows_for_starts(engine, n_components, seeds)
    K = initialise.checked_components(n_components, len(rows.X))
    if isinstance(n_init, bool) or not isinstance(n_init, (int, np.integer)) or n_init < 1:
        raise ValueError(f"n_init must be a whole number of at least 1, got {n_init!r}")
    Repair(on_collapse)  # raises
    if isinstance(init, Parameters):
        structure = initialise.checked_start(init, K).structure
    kind, n_starts = structure_named(structure), 1
    if sd is not None:
        if constraints is not None:
            raise ValueError("sd is short for constraints=Constraints(sds=[...]): give one of them")
        constraints = Constraints(sds=[sd] * K)
    numbers = [int(seeds.integers(1 << 62)) for _ in range(1 if isinstance(init, Parameters) else n_init)]
    quiet = callback is None and not verbose and keeper is None
    shapes = Factors(np.empty((K, engine.n_features)), np.empty(kind.factor_shape(K, engine.n_features)), np.empty(K))
    if quiet and rows is engine and len(cut(len(rows.X), shapes)) == 1:  # a sweep is too short for threads, so starts have them
        n_starts = side_by_side(rows.n_threads, len(rows.X), SIDE_BY_SIDE_FROM)
        rows = InMemory(rows.X, rows.sample_weight, n_threads=1, trusted=True)
        engine = rows

    saved: dict[str, Any] | None = None
    if keeper is not None:
        problem = _problem(
            engine,
            structure,
            constraints,
            components=K,
            init=digest(init) if isinstance(init, Parameters) else init,
            n_init=n_init,
            random_state=numbers,
            reg_covar=reg_covar,
            variance_floor=variance_floor,
            acceleration=acceleration,
            on_collapse=on_collapse,
            history=history,
        )
        saved = keeper.read(problem)
    written: list[dict[str, Any]] = [] if saved is None else saved["ended"]
    ended = [_outcome_of(state, constraints, n_threads) for state in written]

    def one(number: int) -> _Outcome:
        nonlocal saved
        began, saved = saved, None  # the first of these is in the middle
        random = np.random.default_rng(number)
        try:
            if began is not None:
                start = began["climb"]["start"]
            else:
                start = init if isinstance(init, Parameters) else initialise.start(rows, K, kind, init, random)
                if constraints is not None and not isinstance(init, Parameters):
                    start = suited(rows, start, constraints)
            with closing(_Display(verbose, engine)) as show:
                climb = Climb(
                    engine,
                    start,
                    stop=stopping.AT_MAXIMUM if stop is None else stop,
                    repair=Repair(on_collapse, random),
                    reg_covar=reg_covar,
                    variance_floor=variance_floor,
                    acceleration=None if acceleration == "auto" and reg_covar > 0.0 else acceleration,
                    constraints=constraints,
                    portable=keeper is not None,
                )
                made = _run(climb, history, n_threads, callback, show, keeper, began, written)
            return made, climb.repair.look(climb.parameters, climb.statistics, climb.floor)
        except CollapsedComponent as collapse:
            return collapse

    with keeper or nullcontext(), closing(in_order(one, numbers[len(ended) :], n_starts)) as outcomes:
        for outcome in outcomes:
            ended.append(outcome)
            if keeper is not None:
                written.append(_outcome_state(outcome))
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


def streamed(data: Any, sample_weight: Any = None, n_threads: int | None = None) -> Any:
    """Return the engine of data that is more than rows in memory, as `fit` says, or is one; None for arrays, lists and frames."""
    if is_dask(data):
        return DaskEngine(data, sample_weight=sample_weight)
    if not hasattr(data, "sweep"):
        return None if isinstance(data, np.ndarray) else as_engine(data, weights=sample_weight, n_threads=n_threads)
    if sample_weight is not None:
        raise ValueError("sample_weight must be given to the engine, not beside it")
    return data


def _engine(data: Any, sample_weight: ArrayLike | None, n_threads: int | None) -> Any:
    engine = streamed(data, sample_weight, n_threads)
    return InMemory(data, sample_weight, n_threads=n_threads) if engine is None else engine


def lazily(collection: Any, p: Parameters, want: str) -> Any:
    """Return what `InMemory.evaluate` calls `want`, of each row of a Dask collection, as a lazy dask.array."""
    of = {"labels": dask_engine.predict, "responsibilities": dask_engine.predict_proba, "log_density": dask_engine.score_samples}
    return of[want](collection, p)


def evaluated(engine: Any, factors: Factors, want: str, dtype: Any = np.float64) -> AnyArray:
    """Return what `InMemory.evaluate` calls `want`, of each row of an engine."""
    if hasattr(engine, "evaluate_blocks"):
        with closing(engine.evaluate_blocks(factors, **{want: True})) as parts:
            return np.concatenate([getattr(part, want) for part in parts])
    if not hasattr(engine, "evaluate"):
        raise TypeError(f"X must be rows, got a {type(engine).__name__}; of a DaskEngine give the collection that it was made of")
    return cast(AnyArray, getattr(engine.evaluate(factors, dtype=dtype, **{want: True}), want))


def rows_for_starts(engine: Any, n_components: int, random_state: RandomState) -> InMemory:
    """Return the rows that starts look at: all, where they are in memory, else a sample, for which one number is drawn."""
    if isinstance(engine, InMemory):
        return engine
    if not hasattr(engine, "sample"):
        raise TypeError(
            f"X must be rows, or an engine that can draw a `sample` of them, got {type(engine).__name__}; `emfuse.em` takes "
            "any engine, from a start"
        )
    random = np.random.default_rng(int(initialise.generator(random_state).integers(1 << 62)))
    return cast(InMemory, engine.sample(initialise.most_rows(n_components), random))


# ------------------------------------------------------------------ what stands in a checkpoint beside the climb

_Outcome = tuple[Fit, list[str]] | CollapsedComponent  # of a start: a fit and what must be told of it, or none
MIXTURE = ("weights", "means", "covariances")
NUMBERS = ("log_likelihood", "gain", "seconds", "rows_per_second")  # of `Progress`, in its order


def _outcome_state(outcome: _Outcome) -> dict[str, Any]:
    if isinstance(outcome, CollapsedComponent):
        return {"collapsed": [str(outcome), outcome.component, outcome.mass, outcome.feature]}
    fit, told = outcome
    s = fit.statistics
    plain = {name: getattr(fit, name) for name in ("reason", "converged", "sweeps", "seconds", "distance")}
    return {
        "plain": plain,
        "parameters": fit.parameters,
        "statistics": [s.origin, s.mass, s.first, s.second, s.log_likelihood, s.weight],
        "trace": fit.trace,
        "history": _history_state(fit.history),
        "repairs": list(fit.repairs),
        "told": told,
    }


def _outcome_of(state: dict[str, Any], constraints: Constraints | None, n_threads: int | None) -> _Outcome:
    if "collapsed" in state:
        message, component, mass, feature = state["collapsed"]
        return CollapsedComponent(message, component=component, mass=mass, feature=feature)
    p, statistics = state["parameters"], SufficientStatistics(*state["statistics"])
    fit = Fit(
        parameters=p,
        statistics=statistics,
        trace=state["trace"],
        history=None if state["history"] is None else _history_of(state["history"], p.structure),
        repairs=tuple(state["repairs"]),
        scores=np.array([statistics.log_likelihood]),
        held=None if constraints is None else constraints.held(p),  # which holds already what the start's did
        n_threads=n_threads,
        **state["plain"],
    )
    return fit, state["told"]


def _history_state(history: History | None) -> dict[str, Any] | None:
    """A history as arrays with one entry a sweep."""
    if history is None:
        return None
    mixtures = {name: np.array([getattr(sweep.parameters, name) for sweep in history]) for name in MIXTURE}
    return mixtures | {name: np.array([getattr(sweep, name) for sweep in history]) for name in NUMBERS}


def _history_of(state: dict[str, Any] | None, structure: str) -> History:
    """The history of such arrays, or an empty one."""
    kind, made = structure_named(structure), History()
    if state is not None:
        for i, (w, means, covariances, *numbers) in enumerate(zip(*(state[name] for name in MIXTURE + NUMBERS), strict=True)):
            p = Parameters.unchecked(w, means, covariances, kind)
            made.append(Progress(i, p, *(float(number) for number in numbers)))
    return made


# ------------------------------------------------------------------ progress


class _Display:
    """Progress on stderr: in a terminal one line that is written over, elsewhere a line now and then, and the last.

    While it lasts, an engine of blocks tells it of rows within a walk.
    """

    def __init__(self, wanted: bool, engine: Any):
        self.wanted, self.engine = wanted, engine
        self.line, self.walk, self.told, self.shown = "", "", float("-inf"), ""
        self.in_terminal = wanted and sys.stderr.isatty()
        if wanted and hasattr(engine, "on_rows"):
            self.before, engine.on_rows = engine.on_rows, self.rows

    def __call__(self, progress: Progress) -> None:
        """Show a sweep."""
        self.line = (
            f"EM: sweep {progress.sweep}, log-likelihood {progress.log_likelihood:.6f}, gain {progress.gain:.3g}, "
            f"{progress.rows_per_second:.3g} rows/s"
        )
        self.walk = ""
        self._show()

    def rows(self, done: int, total: int | None, seconds: float) -> None:
        """Show how far a walk has come, where it is a long one."""
        if self.before is not None:
            self.before(done, total, seconds)
        if seconds >= LONG_WALK:
            left = "" if total is None else f" of {total:,}, {seconds * (total - done) / done:.0f} s left"
            self.walk = f"; now {done:,} rows{left}"
            self._show()

    def _show(self, last: bool = False) -> None:
        line, now = (self.line or "EM: reading") + self.walk, time.monotonic()
        due = now - self.told >= (LINE_EVERY_IN_TERMINAL if self.in_terminal else LINE_EVERY)
        if not self.wanted or line == self.shown or not (due or last):
            return
        if self.in_terminal:
            print(f"\r{line:<{len(self.shown)}}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
        self.told, self.shown = now, line

    def close(self) -> None:
        """Show the last sweep, and leave the line and the engine as they were."""
        if not self.wanted:
            return
        self.walk = ""
        if self.line:
            self._show(last=True)
        if self.in_terminal and self.shown:
            print(file=sys.stderr)
        if hasattr(self.engine, "on_rows"):
            self.engine.on_rows = self.before
