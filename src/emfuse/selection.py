"""How many components, and which covariance structure: every model in one call, a table of what came of them, and the best.

Models help each other. Partitions of some rows are found once for each number of components, and every structure makes short runs
of EM from them. In each structure a model then begins once more with the one before it, a component cut in two, and with the one
after it, a component left out: what Ueda, Nakano, Ghahramani & Hinton (2000) do to leave a low maximum. All this happens on an
eighth of the rows where there are many, and one climb of each model over all rows ends it, the nearer to its maximum the nearer
the model is to the best. There, no model is left below the one before it, which it contains.

Layer 4.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields
from functools import partial
from textwrap import shorten
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import numpy as np
from numpy.typing import ArrayLike

from emfuse import initialise, stopping
from emfuse._typing import Doubles, RandomState
from emfuse.accelerate import NEAR, WARM_UP
from emfuse.em import SIDE_BY_SIDE_FROM, VARIANCE_FLOOR, Fit, em
from emfuse.engines import InMemory, cut
from emfuse.frames import data_frame
from emfuse.maximise import CollapsedComponent, maximise
from emfuse.parameters import Factors, Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.stopping import Rule
from emfuse.structures import EPS, STRUCTURES, Structure, structure_named
from emfuse.threads import in_order, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CRITERIA = ("aic", "bic", "icl")
INITS = ("short_runs", *initialise.CENTRES, "quantiles", "random")
# What `select` stops by where it is not told, nats: so near to a maximum that no choice hangs on it. The flat tops of models with
# too many components take a third of the sweeps that they take to the 1e-6 of `emfuse.fit`.
A_ROW, MOST_NATS, MOST_SWEEPS = 1e-6, 0.1, 1_000
SCREEN_A_ROW, SCREEN_SWEEPS = 1e-4, 60  # the same over a sample, to tell starts apart
# Of many rows, a model that cannot be the best stops within this share of the nats that it lacks, as most of a grid do, after a
# third of the sweeps; and no farther from its maximum, in nats a row, than a sample's fit.
SHARE_OF_LACK = 0.01
RUNS = 6  # short runs from partitions; its neighbours give each model some more
MOST_TRIED, MOST_TRIED_SLOW = 8, 3  # components that are cut, or left out, in turn; and of the ten whose M step is slow
HALF = float(np.sqrt(2.0 / np.pi))  # standard deviations from a Gaussian's mean to those of its halves
GENTLE = 0.1  # the same for a cut that changes next to nothing
LEADERS = {"full": ("full", "tied"), "diag": ("diag", "spherical")}  # whose starts the other ten structures take, by form
MOST_LINES, WIDTH = 45, 80  # of a table that is printed


@dataclass(frozen=True)
class Row:
    """One model, fitted or not.

    K : int                     number of components
    structure : str             as it was asked for
    log_likelihood : float      total, nats; nan, as the criteria, where there is no fit
    free_parameters : int       p; 0 where there is no fit
    aic : float                 2 p - 2 log L; smaller is better, as for all three
    bic : float                 p log n - 2 log L, with n the sum of row weights
    icl : float                 BIC - 2 sum_n v_n log max_k r_nk: BIC, and what the rows' doubts about their components cost
    converged : bool            whether EM stopped near a maximum, and not at a limit
    reason : str                why it stopped, and why it is doubtful; or why there is no fit
    doubtful : bool             whether a component has too few rows to tell its covariance: fewer than D + 2, or 3 where it is
        only variances. A density on so few rows may be as high as it likes, and BIC goes along; so such a model is ranked last
    sweeps : int                walks over all rows of the climb that was kept
    seconds : float             spent on this model, but for what is shared
    distance : float            how far below its maximum it stopped, estimated, nats; inf where nothing is known
    """

    K: int
    structure: str
    log_likelihood: float
    free_parameters: int
    aic: float
    bic: float
    icl: float
    converged: bool
    reason: str
    sweeps: int
    seconds: float
    doubtful: bool = False
    distance: float = float("inf")

    @property
    def failed(self) -> bool:
        """Whether there is no fit."""
        return bool(np.isnan(self.log_likelihood))


@dataclass(frozen=True, repr=False)
class Table(Sequence[Row]):
    """A row for each model: the structures in the order they were asked for, and in each the numbers of components, rising."""

    rows: tuple[Row, ...]
    criterion: str = "bic"

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, i: int) -> Row: ...
    @overload
    def __getitem__(self, i: slice) -> Table: ...
    def __getitem__(self, i: int | slice) -> Row | Table:
        return Table(self.rows[i], self.criterion) if isinstance(i, slice) else self.rows[i]

    def as_frame(self) -> Any:
        """Return a pandas DataFrame with the columns of `Row`. Raises ImportError where pandas is not installed."""
        return data_frame({column.name: [getattr(row, column.name) for row in self.rows] for column in fields(Row)})

    def ranked(self) -> list[Row]:
        """Return the rows that have a fit, best first, those that are doubtful last; of equals the first."""
        fitted = [row for row in self.rows if not row.failed]
        return sorted(fitted, key=lambda row: (row.doubtful, float(getattr(row, self.criterion))))

    def __repr__(self) -> str:
        """Return a text table of 80 columns; of many rows the best."""
        ranked = self.ranked()
        shown = self.rows if len(self.rows) <= MOST_LINES else tuple(ranked[:MOST_LINES])
        best = ranked[0] if ranked else None
        sizes = [abs(value) for row in ranked for value in (row.log_likelihood, row.aic, row.bic, row.icl)]
        decimals = int(np.clip(6 - np.floor(np.log10(max(1.0, *sizes, 1.0))), 0, 3))
        cells = [["", "structure", "K", "log-lik.", "p", "AIC", "BIC", "ICL", "sweeps", "seconds"]]
        for row in shown:
            mark = "*" if row is best else "?" if row.doubtful else "" if row.converged or row.failed else "~"
            numbers = [f"{value:.{decimals}f}" for value in (row.log_likelihood, row.aic, row.bic, row.icl)]
            tail = [str(row.sweeps), f"{row.seconds:.3g}"]
            cells.append([mark, row.structure, str(row.K), numbers[0], str(row.free_parameters), *numbers[1:], *tail])
        widths = [max(len(line[c]) for line in cells) for c in range(len(cells[0]))]
        lines = []
        for line, one in zip(cells, (None, *shown), strict=True):
            ends = 3 if one is not None and one.failed else len(line)
            text = " ".join(
                cell.ljust(width) if c == 1 else cell.rjust(width)
                for c, (cell, width) in enumerate(zip(line[:ends], widths, strict=False))
            )
            if one is not None and one.failed:
                text += " " + shorten(one.reason, max(20, WIDTH - len(text) - 1), placeholder=" ...")
            lines.append(text.rstrip())
        if len(shown) < len(self.rows):
            lines.append(f"and {len(self.rows) - len(shown)} more, of which {len(self.rows) - len(ranked)} have no fit")
        notes = [f"* the best by {self.criterion.upper()}"] if best is not None and best in shown else []
        for mark, note in (("~", "stopped before convergence"), ("?", "doubtful: too few rows in a component")):
            notes += [f"{mark} {note}"] if any(line[0] == mark for line in cells) else []
        return "\n".join([*lines, *notes])


@dataclass(frozen=True, repr=False, eq=False)
class Selection:
    """What `select` found.

    table : Table       a `Row` for each model
    fits : dict         the `Fit` of each (structure, K) that there is
    criterion : str     "aic", "bic" or "icl"
    seconds : float     the whole call took
    """

    table: Table
    fits: Mapping[tuple[str, int], Fit]
    criterion: str
    seconds: float

    @property
    def best_row(self) -> Row:
        """The row with the smallest criterion, of those that are not doubtful if there are any; of equals the first."""
        return self.table.ranked()[0]

    @property
    def best(self) -> Fit:
        """That row's fit."""
        return self.fits[self.structure, self.K]

    @property
    def structure(self) -> str:
        """The best model's structure, as it was asked for."""
        return self.best_row.structure

    @property
    def K(self) -> int:
        """The best model's number of components."""
        return self.best_row.K

    def as_frame(self) -> Any:
        """Return the table as a pandas DataFrame."""
        return self.table.as_frame()

    def plot(self, **options: Any) -> Axes:
        """Draw the criterion over K, a line for each structure (`emfuse.plots.selection`), and return matplotlib's axes."""
        plots = importlib.import_module("emfuse.plots")  # a layer above, which is needed only here, and brings matplotlib
        return cast("Axes", plots.selection(self, **options))

    def _repr_html_(self) -> str:
        return str(importlib.import_module("emfuse.html").of_selection(self))

    def __repr__(self) -> str:
        best, failed = self.best_row, sum(row.failed for row in self.table)
        return (
            f"Selection: {len(self.table)} models in {self.seconds:.3g} s{f', {failed} of them without a fit' * (failed > 0)}; "
            f"best by {self.criterion.upper()}: K = {best.K}, {best.structure!r} ({getattr(best, self.criterion):.10g})\n"
            f"{self.table!r}"
        )


def select(
    X: ArrayLike,
    components: int | Iterable[int] = range(1, 10),
    structures: str | Iterable[str] = ("full", "tied", "diag", "spherical"),
    criterion: str = "bic",
    *,
    n_init: int = 1,
    init: str = "short_runs",
    sample_weight: ArrayLike | None = None,
    random_state: RandomState = None,
    stop: Rule | int | None = None,
    variance_floor: float = VARIANCE_FLOOR,
    n_threads: int | None = None,
    callback: Callable[[Row], object] | None = None,
    verbose: bool = False,
) -> Selection:
    """Fit a mixture of every structure with every number of components, and choose by a criterion.

    Parameters
    ----------
    X : (N, D) array-like        rows, data units; 1-D is taken as one feature
    components : several int     numbers of components; one number n is 1 to n
    structures : str or several  any of the fourteen: "full", "tied", "diag", "spherical", or mclust's names
    criterion : str              "bic", "aic" or "icl" (see `Row`); the smallest is best
    n_init : int                 how many starts of each model climb, besides those from its neighbours
    init : str                   as in `emfuse.fit`; a start by "short_runs" is the best of six here
    sample_weight : (N,)         row weights, at least 0; weight two is the row twice
    random_state : int, Generator, RandomState or None    seeds the starts; None is the same starts every time
    stop : rule or int           as in `emfuse.em`; default: within 1e-6 nats a row of the maximum, and 0.1 in all, by estimate;
        or after 1,000 sweeps. Of more than 10,000 rows, and by AIC or BIC, a model that cannot be the best stops within a
        hundredth of the nats that it lacks, and 1e-4 a row: `Row.distance` says where
    variance_floor : float       as in `emfuse.em`
    n_threads : int or None      None: what `emfuse.threads.thread_count` says; the result is the same to the last bit, but for
        `seconds`. Fits go side by side where that is quicker, else one after the other, with threads in each sweep
    callback : callable          called with each `Row` when it is done
    verbose : bool               show the same on stderr

    In each structure the log-likelihood never falls from one K to the next, beyond rounding (a `variance_floor` of 1e-8 or more
    has its own price). A start of which a component collapses counts for nothing; a model whose starts all do, or with more
    components than there are rows, is in the table with the reason and without a fit. EM warns of nothing: how a fit ended is
    in the table too.

    Raises ValueError where no model can be fitted, ValueError or TypeError where an argument is unusable.
    """
    began = time.perf_counter()
    engine = InMemory(X, sample_weight, n_threads=n_threads)
    numbers, named = _numbers(components), _named(structures)
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(map(repr, CRITERIA))}, got {criterion!r}")
    initialise.checked_count("n_init", n_init)
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(map(repr, INITS))}, got {init!r}")
    if init == "quantiles" and engine.n_features > 1:
        raise ValueError(f"init='quantiles' needs one feature, got {engine.n_features}; use 'kmeans' or 'short_runs'")
    if not 0.0 <= variance_floor < np.inf:
        raise ValueError(f"variance_floor must be finite and at least 0, got {variance_floor!r}")
    search = _Search(
        engine,
        numbers,
        list(named.values()),
        init=init,
        n_init=int(n_init),
        criterion=criterion,
        rule=None if stop is None else stopping.as_rule(stop),
        variance_floor=variance_floor,
        seed=int(initialise.generator(random_state).integers(1 << 62)),
        n_threads=n_threads,
    )
    rows: dict[tuple[str, int], Row] = {}
    fits: dict[tuple[str, int], Fit] = {}
    called = {kind.name: name for name, kind in named.items()}
    with closing(search.models()) as models:
        for model in models:
            name = called[model.kind.name]
            row = rows[name, model.K] = _row(name, model)
            if isinstance(model.outcome, Fit):
                fits[name, model.K] = model.outcome
            if callback is not None:
                callback(row)
            if verbose:
                what = row.reason if row.failed else f"{criterion.upper()} {getattr(row, criterion):.10g}"
                of = f"{len(rows)} of {len(named) * len(numbers)}"
                print(f"select: {of}, {name}, K = {row.K}: {what}", file=sys.stderr, flush=True)
    if not fits:
        first = next(iter(rows.values()))
        raise ValueError(f"none of {len(rows)} models can be fitted; {first.structure!r} with {first.K}: {first.reason}")
    table = Table(tuple(rows[name, K] for name in named for K in numbers), criterion)
    return Selection(table, fits, criterion, time.perf_counter() - began)


class _Model(NamedTuple):
    """One model: its fit, or why there is none; its classification log-likelihood, nats; and the seconds it took."""

    kind: Structure
    K: int
    outcome: Fit | str
    hard: float
    seconds: float


def _row(name: str, model: _Model) -> Row:
    made, K = model.outcome, model.K
    if not isinstance(made, Fit):
        nan = float("nan")
        return Row(K, name, nan, 0, nan, nan, nan, False, made, 0, model.seconds, distance=nan)
    doubt = _doubt(model.kind, made)
    return Row(
        K=K,
        structure=name,
        log_likelihood=made.log_likelihood,
        free_parameters=made.free_parameters,
        aic=made.aic,
        bic=made.bic,
        # sum v log max_k r_nk = sum v max_k l_nk - sum v l_n (equations 4 and 5)
        icl=made.bic - 2.0 * min(0.0, model.hard - made.log_likelihood),
        converged=made.converged,
        reason=made.reason if doubt is None else f"{made.reason}; {doubt}",
        sweeps=made.sweeps,
        seconds=model.seconds,
        doubtful=doubt is not None,
        distance=made.distance if K > 1 else 0.0,  # one component is there after a step, with nothing to estimate it from
    )


def _doubt(kind: Structure, made: Fit) -> str | None:
    """Why a fit is doubtful, or None."""
    mass, D = made.statistics.mass, made.parameters.n_features
    least = 0 if kind.shared else D + 2 if kind.form == "full" else 3
    k = int(mass.argmin())
    few = mass[k] < least - 0.5  # shares that go to the others leave a component of three rows a little less than 3
    return f"component {k} has {mass[k]:.3g} rows' worth of data, fewer than {least}" if few else None


@dataclass
class _Found:
    """The best of several fits of one model, how high it is, why others came to nothing, and the seconds all of them took."""

    kind: Structure
    K: int
    fit: Fit | None = None
    height: tuple[bool, float] = (False, -np.inf)  # not doubtful; nats
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def offer(self, made: Fit, nats: float, slack: float = 0.0) -> None:
        """Take a fit that is higher, by more than `slack` nats; one that is not doubtful is higher than all that are."""
        sound = _doubt(self.kind, made) is None
        if self.fit is None or (sound, nats) > (self.height[0], self.height[1] + slack):
            self.fit, self.height = made, (sound, nats)


class _Search:
    """All models of one call: starts on samples of the rows, and the way from one number of components to the next.

    engine : all rows; `sample`: an eighth, on which starts are told apart; `few`: those of the short runs. The same engine where
        it has no more rows than these would have
    """

    def __init__(
        self,
        engine: InMemory,
        numbers: Sequence[int],
        kinds: Sequence[Structure],
        *,
        init: str,
        n_init: int,
        criterion: str,
        rule: Rule | None,
        variance_floor: float,
        seed: int,
        n_threads: int | None,
    ):
        self.engine, self.kinds, self.init, self.n_init = engine, kinds, init, n_init
        self.nats = min(A_ROW * engine.weight, MOST_NATS)
        self.rule = rule or _within(self.nats)
        # half of what the criterion asks for a parameter, nats; 0 where every model is to be climbed alike
        self.price = 0.0 if rule or criterion == "icl" else 0.5 * float(np.log(engine.weight)) if criterion == "bic" else 1.0
        self.least = np.inf  # half of the criterion that some model is known to come below
        self.variance_floor, self.seed, self.n_threads = variance_floor, seed, n_threads
        v, (N, D) = engine.sample_weight, engine.X.shape
        self.n_rows = N if v is None else int(np.count_nonzero(v))
        self.numbers, self.too_many = [K for K in numbers if self.n_rows >= K], [K for K in numbers if self.n_rows < K]
        most = max(self.numbers, default=1)
        size = max(initialise.LEAST_SAMPLE, N // initialise.SHARE, initialise.ROWS_A_COMPONENT * most)
        self.sample = initialise.sample_rows(engine, min(size, initialise.MOST_SAMPLE), np.random.default_rng([seed, 0]))
        self.short = max(initialise.SHORT_SAMPLE, most * max(initialise.ROWS_A_COMPONENT, 10 * D))
        self.few = _in_one_thread(initialise.sample_rows(self.sample, self.short, np.random.default_rng([seed, 1])))
        self.whole = self.sample is engine
        shapes = [Factors(np.empty((most, D)), np.empty(kind.factor_shape(most, D)), np.empty(most)) for kind in kinds]
        # where a sweep has no more parts than fits can go side by side, these are what threads do
        self.aside = max(len(cut(len(self.sample.X), shape)) for shape in shapes) <= min(len(kinds), engine.n_threads)
        nats = SCREEN_A_ROW * self.sample.weight
        self.screen = self.rule if self.whole else stopping.first_of(stopping.Within(nats), stopping.SweepLimit(SCREEN_SWEEPS))
        self.single = _in_one_thread(self.sample)
        self.all_single = self.single if self.whole else _in_one_thread(engine)

    def models(self) -> Generator[_Model]:
        """Yield each model when it is done."""
        for kind in self.kinds:
            for K in self.too_many:
                yield _Model(kind, K, f"there are {self.n_rows} rows, too few for {K} components", float("nan"), 0.0)
        n_threads = side_by_side(self.engine.n_threads, len(self.sample.X), SIDE_BY_SIDE_FROM)
        found: dict[tuple[str, int], _Found] = {}
        with closing(in_order(self._started, self.numbers[::-1], n_threads)) as outcomes:  # the longest first
            for candidates in outcomes:
                found |= {(each.kind.name, each.K): each for each in candidates}
        paths = [[found[kind.name, K] for K in self.numbers] for kind in self.kinds]
        sample, at_once = (self.single, n_threads) if self.aside else (self.sample, 1)
        with closing(in_order(lambda path: self._linked(path, sample), paths, at_once)) as linked:
            paths = list(linked)
        for path in paths:
            self._notice(path)
        for path in paths:
            yield from self._finished(path)

    # ------------------------------------------------------------------ starts, for all structures together

    def _started(self, K: int) -> list[_Found]:
        """Return what the starts of all structures with K components come to on the sample, in one thread."""
        made = {kind.name: _Found(kind, K) for kind in self.kinds}
        followers = [kind for kind in self.kinds if kind.name not in STRUCTURES]
        leading = {name for kind in followers for name in LEADERS[kind.form]} | (made.keys() & STRUCTURES.keys())
        leaders = [kind for name, kind in STRUCTURES.items() if name in leading]
        form = "full" if any(kind.form == "full" for kind in leaders) else "diag"
        for number in range(self.n_init):
            runs = {kind.name: _Found(kind, K) for kind in (*leaders, *followers)}
            for partition in self._partitions(K, number, form):
                for kind in leaders:
                    self._run(runs[kind.name], partial(_first, partition, kind))
            for kind in followers:
                for name in LEADERS[kind.form]:
                    if (leader := runs[name].fit) is not None:
                        self._run(runs[kind.name], partial(_handed, self.few, leader.parameters, kind))
            for name, candidate in made.items():
                self._climb(candidate, runs[name], self.single)
        return list(made.values())

    def _partitions(self, K: int, number: int, form: str) -> Iterator[SufficientStatistics]:
        """Yield the sums of each partition that start `number` of K components makes runs of."""
        short = self.init == "short_runs"
        runs = max(initialise.LEAST_RUNS, RUNS * initialise.SHORT_SAMPLE // self.short) if short and K > 1 else 1
        rows = self.few if short else self.single
        for run in range(runs):
            random = np.random.default_rng([self.seed, K, number, run])
            init = self.init if not short else "kmeans++" if run % 3 else "kmeans"
            if init == "quantiles":
                yield initialise.statistics_of_labels(rows, initialise.quantile_labels(rows, K), K, form)
            elif init == "random":
                yield initialise.statistics_of_drawn(rows, K, form, initialise.random_responsibilities(rows, K, random))
            else:
                yield initialise.statistics_of_nearest(rows, initialise.CENTRES[init](rows, K, random), form)

    def _run(self, runs: _Found, start: Callable[[], Parameters]) -> None:
        """Have a short run of EM over few rows, and keep what it comes to if it is the best."""
        began = time.perf_counter()
        try:
            made = em(self.few, start(), stop=initialise.SHORT_STEPS, variance_floor=self.variance_floor)
            runs.offer(made, made.trace[-1], initialise.SAME * self.few.weight)
        except ValueError as error:  # a collapse, or a row too far from all components
            runs.reasons.append(str(error))
        runs.seconds += time.perf_counter() - began

    def _climb(self, candidate: _Found, runs: _Found, sample: InMemory) -> None:
        """Climb from the best of short runs over the sample: to the end, where that is all rows."""
        began = time.perf_counter()
        outcome: Fit | str = runs.reasons[0] if runs.reasons else "there is no start"
        if runs.fit is not None:
            outcome = self._climbed(sample, runs.fit.parameters, self.screen, WARM_UP - initialise.SHORT_STEPS)
        if not isinstance(outcome, Fit):
            candidate.reasons.append(outcome)
        elif candidate.fit is None or not candidate.height[0] or outcome.trace[-1] > candidate.fit.trace[-1]:
            # where it is a sample, by all rows, most of which it has not seen
            nats = outcome.trace[-1] if self.whole else self.all_single.sweep(outcome.parameters.factors).log_likelihood
            candidate.offer(outcome, nats, initialise.SAME * self.engine.weight)
        candidate.seconds += runs.seconds + time.perf_counter() - began

    def _climbed(self, engine: InMemory, start: Parameters, rule: Rule, warm_up: int) -> Fit | str:
        """Return what EM comes to, or why it does not."""
        options: dict[str, Any] = {"variance_floor": self.variance_floor, "n_threads": self.n_threads}
        try:
            return em(engine, start, stop=rule, acceleration="auto", warm_up=warm_up, **options)
        except ValueError as error:
            return str(error)

    # ------------------------------------------------------------------ from one number of components to the next

    def _linked(self, path: list[_Found], sample: InMemory) -> list[_Found]:
        """Let the models of one structure help each other, on the sample: up by cutting components, down by leaving out, up."""
        tried: dict[tuple[int, int], Fit] = {}
        for way in (path, path[::-1], path):
            before: _Found | None = None
            for candidate in way:
                if before is not None and before.fit is not None and tried.get((before.K, candidate.K)) is not before.fit:
                    tried[before.K, candidate.K] = before.fit
                    runs = _Found(candidate.kind, candidate.K)
                    with suppress(ValueError):
                        self._walk(runs, before.fit.parameters, candidate.K)
                    self._climb(candidate, runs, sample)
                before = candidate if candidate.fit is not None else before
        return path

    def _walk(self, runs: _Found, p: Parameters, K: int) -> None:
        """Make one component more, or less, until there are K, each time the one with which a short run comes highest."""
        most = MOST_TRIED if runs.kind.name in STRUCTURES else MOST_TRIED_SLOW
        while p.n_components != K:
            runs.fit, runs.height = None, (False, -np.inf)
            if p.n_components < K:
                starts = _cuts(runs.kind, p, self.few)[:most]
            else:
                lightest = np.argsort(p.weights, kind="stable")[:most]
                starts = [partial(_without, runs.kind, p, int(k)) for k in lightest]
            for start in starts:
                self._run(runs, start)
            if runs.fit is None:
                return
            p = runs.fit.parameters

    # ------------------------------------------------------------------ over all rows

    def _finished(self, path: list[_Found]) -> Iterator[_Model]:
        """Yield the models of one structure, climbed over all rows, each no lower than the one before."""
        before: _Found | None = None
        for candidate in path:
            began = time.perf_counter()
            found = self._finish(candidate, before)
            hard, outcome = float("nan"), found.fit
            if outcome is not None:
                before = found
                # each row whole to its most likely component: the sweep adds up max_k l_nk
                hard = self.engine.sweep(outcome.parameters.factors, hard=True).log_likelihood
            seconds = candidate.seconds + time.perf_counter() - began
            yield _Model(candidate.kind, candidate.K, outcome or found.reasons[0], hard, seconds)

    def _finish(self, candidate: _Found, before: _Found | None) -> _Found:
        if candidate.fit is None:
            return candidate
        found, rule = candidate, self.rule
        if not self.whole:
            found = _Found(candidate.kind, candidate.K)
            near = min(SHARE_OF_LACK * self._lacks(candidate), SCREEN_A_ROW * self.engine.weight)
            rule = _within(near) if near > self.nats else rule
            self._offer(found, candidate.fit.parameters, rule, NEAR)
        if before is not None and before.fit is not None and found.fit is not None:
            for start in _as_likely(candidate.kind, before.fit.parameters, candidate.K, self.engine):
                if found.height >= before.height:
                    break
                self._offer(found, start, rule, WARM_UP)
        if found.fit is not None and rule is not self.rule and self._lacks(found) < near:  # it may be the best after all
            self._offer(found, found.fit.parameters, self.rule, NEAR)
        self._notice([found])
        return found

    def _lacks(self, found: _Found) -> float:
        """How much a model is known to lack to the best, nats: half of the criteria's difference."""
        assert found.fit is not None
        return self.price * found.fit.free_parameters - found.height[1] - self.least if self.price else 0.0

    def _notice(self, path: Iterable[_Found]) -> None:
        """Take notice of what the best model comes below: its log-likelihood over all rows only rises from there."""
        for found in path:
            if found.fit is not None and found.height[0]:
                self.least = min(self.least, self.price * found.fit.free_parameters - found.height[1])

    def _offer(self, found: _Found, start: Parameters, rule: Rule, warm_up: int) -> None:
        outcome = self._climbed(self.engine, start, rule, warm_up)
        if isinstance(outcome, Fit):
            found.offer(outcome, outcome.trace[-1])
        else:
            found.reasons.append(outcome)


def _in_one_thread(engine: InMemory) -> InMemory:
    made = InMemory(engine.X, engine.sample_weight, n_threads=1, trusted=True)
    made.moments  # noqa: B018  before threads ask for them; raises where a variance overflows
    return made


def _cuts(kind: Structure, p: Parameters, engine: InMemory, apart: float = HALF) -> list[Callable[[], Parameters]]:
    """Return functions that cut one of p's components in two: those first that are spread the most.

    A component is cut across the first principal axis of its own rows, in standard deviations of all (where the structure has no
    axes, across the feature along which it is longest), into two whose means lie `apart` standard deviations from its mean, and
    which together have its mean and its rows' covariance; then an EM step makes them, and the others, of the structure.
    """
    K, D = p.means.shape
    s = engine.sweep(_wide(p, kind))
    mass = np.where(s.mass > 0.0, s.mass, 1.0)
    t = s.first / mass[:, None]
    own = s.scatter(t) / mass.reshape((K,) + (1,) * (s.second.ndim - 1))
    scale = np.sqrt(np.where(engine.moments[1] > 0.0, engine.moments[1], 1.0))
    if kind.form == "full":
        values, axes = np.linalg.eigh(own / (scale[:, None] * scale))
        length, axis = values[:, -1], axes[:, :, -1] * scale
    else:
        values = own / scale**2
        length, axis = values.max(axis=1), np.eye(D)[values.argmax(axis=1)] * scale
    spread = np.where(length > 0.0, s.mass * length, 0.0)
    cuts: list[Callable[[], Parameters]] = []
    for k in (int(k) for k in np.argsort(-spread, kind="stable") if spread[k] > 0.0):
        u = apart * np.sqrt(length[k]) * axis[k]
        cuts.append(partial(_cut, kind, engine, p, k, s.origin[k] + t[k], own[k], u))
    return cuts


def _cut(kind: Structure, engine: InMemory, p: Parameters, k: int, mean: Doubles, own: Doubles, u: Doubles) -> Parameters:
    """Return what one EM step of the structure makes of p with component k cut into mean + u and mean - u."""
    others, left = (p.covariance_matrices, np.outer(u, u)) if kind.form == "full" else (p.variances, u * u)
    weights, means = np.append(p.weights, 0.5 * p.weights[k]), np.concatenate([p.means, (mean - u)[None]])
    covariances = np.ascontiguousarray(np.concatenate([others, (own - left)[None]]))
    weights[k], means[k], covariances[k] = weights[-1], mean + u, covariances[-1]
    halves = Parameters.unchecked(weights, means, covariances, STRUCTURES[kind.form])
    return maximise(engine.sweep(halves.factors), kind)


def _as_likely(kind: Structure, p: Parameters, K: int, engine: InMemory) -> Iterator[Parameters]:
    """Yield starts with K components that are about as likely as p, which has fewer; the last is just as likely."""
    while p.n_components < K - 1:
        p = _doubled(kind, p, int(p.weights.argmax()))
    with suppress(ValueError):
        yield from (start() for start in _cuts(kind, p, engine, GENTLE)[:1])
    yield _doubled(kind, p, int(p.weights.argmax()))


def _doubled(kind: Structure, p: Parameters, k: int) -> Parameters:
    """Return the same density with component k twice, each with half of its weight."""
    K, D = p.means.shape
    weights = np.append(p.weights, 0.5 * p.weights[k])
    weights[k] = weights[-1]
    C = p.covariances
    covariances = C.copy() if kind.shape(K, D) == kind.shape(K + 1, D) else np.concatenate([C, C[k : k + 1]])
    return Parameters.unchecked(weights, np.concatenate([p.means, p.means[k : k + 1]]), covariances, kind)


def _without(kind: Structure, p: Parameters, k: int) -> Parameters:
    """Return p without component k."""
    K, D = p.means.shape
    others = np.arange(K) != k
    weights = p.weights[others] + EPS  # so that they can be divided by their sum
    weights /= weights.sum()
    covariances = p.covariances.copy() if kind.shape(K, D) == kind.shape(K - 1, D) else p.covariances[others]
    return Parameters.unchecked(weights, p.means[others], covariances, kind)


def _first(s: SufficientStatistics, kind: Structure) -> Parameters:
    """Return the M step of a partition; where a cluster has no density of its own, all of them have one covariance."""
    if s.second.ndim == 3 and kind.form == "diag":
        second = np.ascontiguousarray(np.diagonal(s.second, axis1=1, axis2=2))
        s = SufficientStatistics(s.origin, s.mass, s.first, second, s.log_likelihood, s.weight)
    try:
        return maximise(s, kind)
    except CollapsedComponent:
        return maximise(initialise.pooled(s), kind)


def _handed(engine: InMemory, p: Parameters, kind: Structure) -> Parameters:
    """Return the M step of one structure after the E step of another, of the same form."""
    return maximise(engine.sweep(_wide(p, kind)), kind)


def _wide(p: Parameters, kind: Structure) -> Factors:
    """Return factors with a P for each component, (K, D, D) or by the structure's form (K, D), so that sums are such too."""
    K, D = p.means.shape
    P = np.broadcast_to(p.factors.P, (K, D, D) if kind.form == "full" else (K, D))
    return Factors(p.means, np.ascontiguousarray(P), p.factors.log_constant)


def _within(nats: float) -> Rule:
    return stopping.first_of(stopping.Within(nats), stopping.SweepLimit(MOST_SWEEPS))


def _numbers(components: int | Iterable[int]) -> tuple[int, ...]:
    """Return the numbers of components, rising, each once; one number n is 1 to n."""
    given = [components] if isinstance(components, (int, np.integer)) else list(components)
    for number in given:
        if isinstance(number, (bool, np.bool)) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"components must be whole numbers, got {number!r}")
        if number < 1:
            raise ValueError(f"components must be at least 1, got {number}")
    if not given:
        raise ValueError("components must be one number or several, got none")
    if isinstance(components, (int, np.integer)):
        return tuple(range(1, int(components) + 1))
    return tuple(sorted({int(number) for number in given}))


def _named(structures: str | Iterable[str]) -> dict[str, Structure]:
    """Return the structures by the names they were asked for, each once."""
    found: dict[str, Structure] = {}
    for name in [structures] if isinstance(structures, str) else list(structures):
        kind = structure_named(name)
        if kind not in found.values():
            found[name] = kind
    if not found:
        raise ValueError("structures must be one name or several, got none")
    return found
