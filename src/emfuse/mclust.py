"""mclust's face: every covariance model for every number of components, from one hierarchical start, and the best by BIC.

The names, the starts, the sign of the BIC and the text of the summary are those of R's mclust 6 (Fraley & Raftery 2002; Scrucca,
Fop, Murphy & Raftery 2016), so that its users find their way. What is under them is emfuse's: EM runs to the maximum and not to
a small step, so a log-likelihood is mclust's or higher; M steps are exact, those of VVE, VEE and EVE too; labels start at 0 and
not, as R's, at 1.

Layer 4.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse import initialise, stopping
from emfuse._typing import AnyArray, Doubles, Floats, Labels, RandomState
from emfuse.constraints import Constraints
from emfuse.em import Fit, NotConverged, em
from emfuse.engines import InMemory
from emfuse.hierarchical import Tree, hc, hclass, quantile_classes
from emfuse.maximise import CollapsedComponent, maximise
from emfuse.parameters import Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.stopping import Rule
from emfuse.structures import NotPositiveDefinite, structure_named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Mclust", "MclustBIC", "MclustFit", "hc", "hclass", "mclustBIC", "mclustICL", "me"]

MODELS = {  # in mclust's order, with its words
    "E": "univariate, equal variance",
    "V": "univariate, unequal variance",
    "EII": "spherical, equal volume",
    "VII": "spherical, varying volume",
    "EEI": "diagonal, equal volume and shape",
    "VEI": "diagonal, equal shape",
    "EVI": "diagonal, equal volume, varying shape",
    "VVI": "diagonal, varying volume and shape",
    "EEE": "ellipsoidal, equal volume, shape and orientation",
    "VEE": "ellipsoidal, equal shape and orientation",
    "EVE": "ellipsoidal, equal volume and orientation",
    "VVE": "ellipsoidal, equal orientation",
    "EEV": "ellipsoidal, equal volume and shape",
    "VEV": "ellipsoidal, equal shape",
    "EVV": "ellipsoidal, equal volume",
    "VVV": "ellipsoidal, varying volume, shape, and orientation",
}
ONE_FEATURE, FOURTEEN = tuple(MODELS)[:2], tuple(MODELS)[2:]
SIX = FOURTEEN[:6]  # for no more rows than features, which leave every free matrix singular
# One component has a volume, a shape and an orientation of its own, whatever the letters: mclust's names, and what is fitted.
SINGLE = {
    "X": ("univariate normal", "V"),
    "XII": ("spherical multivariate normal", "VII"),
    "XXI": ("diagonal multivariate normal", "VVI"),
    "XXX": ("ellipsoidal multivariate normal", "VVV"),
}
# Plain EM first, farther than mclust goes by default (1e-5), and longer steps only from there: they may lead to another maximum,
# but then to none below what mclust reports. Of its 420 fits in tests/reference/mclust_bic (VVE's apart), 4 end lower with longer
# steps from the start, 1 with longer steps from 1e-5, and none from 1e-7; the sweeps are 1, 1.6 and 2.4 times as many.
PLAIN = stopping.first_of(stopping.RelativeGainBelow(1e-7), stopping.SweepLimit(10_000))
MOST_ROWS = 2_000  # of a hierarchical start: more, and so many are drawn, as mclust does
COLUMNS = 7  # of a table that is printed, side by side

Initialization = Tree | Mapping[int, ArrayLike]


class Prediction(NamedTuple):
    """What `MclustFit.predict` returns: the most likely component of each row, (N,), from 0; and all responsibilities, (N, G)."""

    classification: Labels
    z: Floats


@dataclass(frozen=True, repr=False, eq=False)
class MclustBIC:
    """A table of BIC or ICL, mclust's sign (larger is better): rows are numbers of components, columns are models.

    G : tuple of int              numbers of components
    models : tuple of str         mclust's names
    values : (G, models) float64  BIC, 2 log L - p log n, or ICL, that plus 2 sum_n log max_k z_nk; nan where there is no fit
    criterion : str               "BIC" or "ICL"
    fits : dict                   the `Fit` of each (G, model) that there is
    reasons : dict                why there is none, a sentence for each (G, model)
    """

    G: tuple[int, ...]
    models: tuple[str, ...]
    values: Doubles
    criterion: str = "BIC"
    fits: Mapping[tuple[int, str], Fit] = field(default_factory=dict)
    reasons: Mapping[tuple[int, str], str] = field(default_factory=dict)

    def __getitem__(self, key: tuple[int, str]) -> float:
        """One value: table[3, "VVV"]. Raises KeyError where there is no such row or column."""
        G, model = key
        if G not in self.G or model not in self.models:
            raise KeyError(key)
        return float(self.values[self.G.index(G), self.models.index(model)])

    def top(self, count: int = 3) -> list[tuple[str, int, float]]:
        """Return the best as (model, G, value), best first; what is one model under several names, for G = 1, counts once."""
        found: dict[tuple[str, int], float] = {}
        for r, G in enumerate(self.G):
            for c, model in enumerate(self.models):
                if np.isfinite(self.values[r, c]):
                    found.setdefault((_called(model, G), G), float(self.values[r, c]))
        best = sorted(found.items(), key=lambda item: -item[1])
        return [(model, G, value) for (model, G), value in best[:count]]

    def summary(self, count: int = 3) -> str:
        """Return mclust's summary of a table: the best values, and by how much they are below the first."""
        best, below = self.top(count), f"{self.criterion} diff"
        cells = [["", *(f"{model},{G}" for model, G, _ in best)]]
        cells.append([self.criterion.ljust(len(below)), *(_digits(value) for _, _, value in best)])
        cells.append([below, *(f"{value - best[0][2]:.5f}" for _, _, value in best)])
        return "\n".join([f"Best {self.criterion} values:", *_aligned(cells)])

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the values by number of components, a line for each model, and return matplotlib's axes: `plots.selection`.

        With the usual sign, as there: smaller is better. Raises ValueError where no fit has succeeded.
        """
        name = self.criterion.lower()
        rows = [{"K": G, "structure": model, name: -self[G, model]} for G in self.G for model in self.models]
        plots = importlib.import_module("emfuse.plots")  # a layer above, which is needed only here, and brings matplotlib
        return cast("Axes", plots.selection(SimpleNamespace(criterion=self.criterion, rows=rows), ax=ax))

    def as_frame(self) -> Any:
        """Return a pandas DataFrame: index G, a column for each model. Raises ImportError where pandas is not installed."""
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("as_frame needs pandas: pip install pandas; `values`, `G` and `models` need nothing") from error
        return pandas.DataFrame(self.values, index=pandas.Index(self.G, name="G"), columns=list(self.models))

    def __repr__(self) -> str:
        name = {"BIC": "Bayesian Information Criterion (BIC):", "ICL": "Integrated Complete-data Likelihood (ICL) criterion:"}
        lines = [name[self.criterion]]
        finite = self.values[np.isfinite(self.values)]
        decimals = int(np.clip(6 - np.floor(np.log10(max(np.abs(finite).min(initial=np.inf), 1.0))), 0, 4))
        for start in range(0, len(self.models), COLUMNS):
            part = slice(start, start + COLUMNS)
            cells = [["NA" if np.isnan(v) else f"{v:.{decimals}f}" for v in row] for row in self.values[:, part]]
            lines += _aligned([["", *self.models[part]]] + [[str(G), *row] for G, row in zip(self.G, cells, strict=True)])
        best = self.top()
        if best:
            lines += ["", f"Top {f'{len(best)} models' if len(best) > 1 else 'model'} based on the {self.criterion} criterion:"]
            lines += _aligned([[f"{m},{G}" for m, G, _ in best], [f"{value:.{decimals}f}" for _, _, value in best]])
        return "\n".join(lines)


@dataclass(frozen=True, repr=False, eq=False)
class MclustFit:
    """The model that `Mclust` chose.

    model_name : str                  mclust's; for one component "X", "XII", "XXI" or "XXX"
    G, n, d, df : int                 components, rows, features, free parameters
    loglik : float                    nats, total
    bic, icl : float                  mclust's sign: 2 loglik - df log n, and that plus 2 sum_n log max_k z_nk; larger is better
    BIC : MclustBIC                   the whole table
    classification : (n,) int64       the most likely component, labels from 0 (R's are from 1)
    uncertainty : (n,)                1 - its responsibility
    z : (n, G)                        responsibilities; rows sum to 1
    parameters : emfuse.Parameters    weights, means and covariances
    fit : emfuse.Fit                  how it was reached, and its other methods
    data : (n, d)                     the rows
    """

    model_name: str
    G: int
    loglik: float
    df: int
    bic: float
    icl: float
    n: int
    d: int
    BIC: MclustBIC
    classification: Labels
    uncertainty: Floats
    z: Floats
    parameters: Parameters
    fit: Fit
    data: Floats

    def summary(self, *, parameters: bool = False) -> str:
        """Return mclust's summary: the model, its log-likelihood, BIC and ICL, and how many rows each component has.

        parameters : bool    also mixing probabilities, means (a column for each component) and variances
        """
        title = "Gaussian finite mixture model fitted by EM algorithm"
        kind = SINGLE[self.model_name][0] if self.G == 1 else MODELS[self.model_name]
        numbers = [_digits(self.loglik), str(self.n), str(self.df), _digits(self.bic), _digits(self.icl)]
        counts = np.bincount(self.classification, minlength=self.G)
        lines = ["-" * len(title), title, "-" * len(title), ""]
        lines += [f"Mclust {self.model_name} ({kind}) model with {self.G} component{'s' * (self.G > 1)}:", ""]
        lines += _aligned([["log-likelihood", "n", "df", "BIC", "ICL"], numbers])
        lines += ["", "Clustering table:"]
        heads = [str(k) for k in range(self.G)]
        lines += _aligned([heads, [str(count) for count in counts]])
        if parameters:
            p, features = self.parameters, [str(d) for d in range(self.d)]
            numbered = {"Mixing probabilities:": p.weights}
            if self.d == 1:
                numbered |= {"Means:": p.means[:, 0], "Variances:": p.variances[:, 0]}
            for title, values in numbered.items():
                lines += ["", title, *_aligned([heads, [_digits(value) for value in values]])]
            if self.d > 1:
                lines += ["", "Means:", *_aligned([["", *heads], *_numbered(p.means.T)]), "", "Variances:"]
                for k, C in enumerate(p.covariance_matrices):
                    lines += [f"[{k}]", *_aligned([["", *features], *_numbered(C)])]
        return "\n".join(lines)

    def predict(self, newdata: ArrayLike | None = None) -> Prediction:
        """Return classification and responsibilities of other rows, (N, d), or of the data."""
        if newdata is None:
            return Prediction(self.classification, self.z)
        z = self.fit.predict_proba(newdata)
        return Prediction(self.fit.predict(newdata), z)

    def plot(self, what: str | None = None, **options: Any) -> Axes:
        """Draw with `emfuse.plots`, and return matplotlib's axes.

        what : str    one of mclust's pictures. "BIC": the table (`MclustBIC.plot`); "classification": rows by component
            (`plots.components`; one feature: `plots.responsibilities`); "uncertainty" and "density": those of `plots`. None:
            "density" of one feature, "classification" of several
        options       go to that function: ax, names, features

        Raises ValueError for another `what`, ImportError where matplotlib is not installed.
        """
        what = ("density" if self.d == 1 else "classification") if what is None else what
        if what == "BIC":
            return self.BIC.plot(**options)
        drawn = {
            "classification": "responsibilities" if self.d == 1 else "components",
            "uncertainty": "uncertainty",
            "density": "density",
        }
        if what not in drawn:
            raise ValueError(f"what must be 'BIC', {', '.join(map(repr, drawn))} or None, got {what!r}")
        draw = getattr(importlib.import_module("emfuse.plots"), drawn[what])
        return cast("Axes", draw(self.fit, self.data, **options))

    def __repr__(self) -> str:
        return f"'Mclust' model object: ({self.model_name},{self.G})"

    def __str__(self) -> str:
        return self.summary()


def Mclust(
    data: ArrayLike,
    G: int | Iterable[int] = range(1, 10),
    model_names: str | Iterable[str] | None = None,
    *,
    initialization: Initialization | None = None,
    equal_pro: bool = False,
    x: MclustBIC | None = None,
    random_state: RandomState = None,
    n_threads: int | None = None,
    stop: Rule | int | None = None,
    acceleration: str | None = "emqn",
) -> MclustFit:
    """Fit Gaussian mixtures by EM, with every covariance model and number of components asked for, and return the best by BIC.

    Parameters
    ----------
    data : (n, d) array-like    rows, data units; 1-D is taken as one feature
    G : int or several          numbers of components
    model_names : str or several
        mclust's names; None: "E" and "V" for one feature, all fourteen for several, and of these EII VII EEI VEI EVI VVI where
        there are no more rows than features
    initialization : Tree or dict    where EM starts: `hc(data)`, or labels (n,) from 0 for each number of components above 1.
        None: for several features the clusters of `hc(data)` ("EII" where there are no more rows than features), of 2,000 rows
        that are drawn where there are more; for one feature its quantile classes
    equal_pro : bool            hold all weights at 1 / G, which are then no free parameters: mclust's emControl(equalPro=TRUE)
    x : MclustBIC               a table that `mclustBIC` has made of the same data: only the choice is left
    random_state : int, Generator, RandomState or None    seeds that draw; None is the same one every time
    n_threads : int or None     None: what `emfuse.threads.thread_count` says; the result is the same to the last bit
    stop : rule or int          as in `emfuse.em`; None: within 1e-6 nats of the maximum by estimate (for each 1,000 rows)
    acceleration : str or None  as in `emfuse.em`; where `stop` is None, EM is plain until it is farther than mclust goes

    A fit that collapses is nan in the table, and its reason in `BIC.reasons`. Warns NotConverged where the best fit has not
    converged. Raises ValueError where no fit succeeds or an argument is unusable, TypeError likewise.
    """
    engine = InMemory(data, n_threads=n_threads)
    if x is None:
        table = mclustBIC(
            engine.X,
            G,
            model_names,
            initialization=initialization,
            equal_pro=equal_pro,
            random_state=random_state,
            n_threads=n_threads,
            stop=stop,
            acceleration=acceleration,
        )
    else:
        table = x
        if any((fit.statistics.weight, fit.parameters.n_features) != engine.X.shape for fit in x.fits.values()):
            raise ValueError("x must be a table made of the same data, got one of another number of rows or features")
    if not table.fits:
        first = next(iter(table.reasons.values()))
        raise ValueError(f"none of {len(table.reasons)} fits succeeded; the first: {first}")
    row, column = np.unravel_index(int(np.nanargmax(table.values)), table.values.shape)
    components, model = table.G[row], table.models[column]
    fit = table.fits[components, model]
    if stop is None and not fit.converged:
        warnings.warn(f"the best fit did not converge: {fit.reason}. Give a `stop` of your own.", NotConverged, stacklevel=2)
    found = engine.evaluate(fit.parameters.factors, labels=True, responsibilities=True)
    assert found.labels is not None and found.responsibilities is not None
    z = found.responsibilities
    return MclustFit(
        model_name=_called(model, components),
        G=components,
        loglik=fit.log_likelihood,
        df=fit.free_parameters,
        bic=-fit.bic,
        icl=-fit.bic + _certainty(z),
        n=len(engine.X),
        d=engine.n_features,
        BIC=table,
        classification=found.labels,
        uncertainty=np.asarray(1.0 - z.max(axis=1)),
        z=z,
        parameters=fit.parameters,
        fit=fit,
        data=engine.X,
    )


def mclustBIC(
    data: ArrayLike,
    G: int | Iterable[int] = range(1, 10),
    model_names: str | Iterable[str] | None = None,
    *,
    initialization: Initialization | None = None,
    equal_pro: bool = False,
    random_state: RandomState = None,
    n_threads: int | None = None,
    stop: Rule | int | None = None,
    acceleration: str | None = "emqn",
) -> MclustBIC:
    """Return the BIC of every model and number of components, and the fits: arguments as in `Mclust`."""
    engine = InMemory(data, n_threads=n_threads)
    numbers, names = _numbers(G), _names(model_names, *engine.X.shape)
    sample, labels, reasons = _partitions(engine, numbers, initialization, initialise.generator(random_state))
    starts = {G: _Start(sample, labels[G], G) for G in labels}
    pairs = list(dict.fromkeys((G, _fitted(name, G)) for G in numbers if G in labels for name in names))

    def one(G: int, name: str) -> Fit | str:
        try:
            return _fit(engine, starts[G].parameters(name), stop, acceleration, equal_pro)
        except (CollapsedComponent, NotPositiveDefinite, np.linalg.LinAlgError) as error:
            return str(error)

    # one after the other: fits of few rows side by side in threads wait for the interpreter (iris: 0.9 s in two, 0.6 s in one)
    made = {pair: one(*pair) for pair in pairs}
    values, fits = np.full((len(numbers), len(names)), np.nan), {}
    failed: dict[tuple[int, str], str] = {}
    for row, G in enumerate(numbers):
        for column, name in enumerate(names):
            outcome = reasons[G] if G in reasons else made[G, _fitted(name, G)]
            if isinstance(outcome, Fit):
                values[row, column], fits[G, name] = -outcome.bic, outcome
            else:
                failed[G, name] = outcome
    values.flags.writeable = False
    return MclustBIC(numbers, names, values, "BIC", fits, failed)


def mclustICL(data: ArrayLike, *args: Any, **options: Any) -> MclustBIC:
    """Return the table of the integrated complete-data likelihood, BIC + 2 sum_n log max_k z_nk; arguments as for `mclustBIC`."""
    engine = InMemory(data)
    table = mclustBIC(engine.X, *args, **options)
    values = table.values.copy()
    for (G, name), fit in table.fits.items():
        z = engine.evaluate(fit.parameters.factors, responsibilities=True).responsibilities
        assert z is not None
        values[table.G.index(G), table.models.index(name)] += _certainty(z)
    values.flags.writeable = False
    return MclustBIC(table.G, table.models, values, "ICL", table.fits, table.reasons)


def me(
    data: ArrayLike,
    model_name: str,
    z: ArrayLike,
    *,
    equal_pro: bool = False,
    n_threads: int | None = None,
    stop: Rule | int | None = None,
    acceleration: str | None = "emqn",
) -> Fit:
    """Fit one model by EM that begins with an M step, and return the `Fit`.

    data : (n, d) array-like; model_name : str, mclust's
    z : (n, G) responsibilities, rows that sum to 1; or (n,) labels, of which each of 0 .. G - 1 must occur
    equal_pro, n_threads, stop, acceleration : as in `Mclust`

    Raises CollapsedComponent (also a ValueError) where a component has no density, at the start or later.
    """
    engine = InMemory(data, n_threads=n_threads)
    (name,) = _names(SINGLE[model_name][1] if model_name in SINGLE else model_name, 2, engine.n_features)
    given = np.asarray(z)
    start = (initialise.from_labels if given.ndim == 1 else initialise.from_responsibilities)(engine.X, given, name)
    return _fit(engine, start, stop, acceleration, equal_pro)


def _fit(engine: InMemory, start: Parameters, stop: Rule | int | None, acceleration: str | None, equal_pro: bool) -> Fit:
    """EM as `Mclust` says."""
    held = Constraints(weights=["pro"] * start.n_components) if equal_pro else None
    last = stopping.AT_MAXIMUM if stop is None else stop
    if stop is not None or acceleration is None:
        return em(engine, start, stop=last, acceleration=acceleration, constraints=held)
    plain = em(engine, start, stop=PLAIN, constraints=held)
    made = em(engine, plain.parameters, stop=last, acceleration=acceleration, constraints=held)
    trace = np.concatenate([plain.trace, made.trace[1:]])  # both have the sweep between them
    return replace(made, trace=trace, sweeps=plain.sweeps + made.sweeps, seconds=plain.seconds + made.seconds)


class _Start:
    """The starts of all models with one partition: its sums, and an M step of each."""

    def __init__(self, engine: InMemory, labels: Labels, G: int):
        self.engine, self.labels, self.G = engine, labels, G
        self._sums: dict[str, SufficientStatistics] = {}

    def parameters(self, name: str) -> Parameters:
        kind = structure_named(name)
        sums = self._sums.get(kind.form)
        if sums is None:
            sums = self._sums[kind.form] = initialise.statistics_of_labels(self.engine, self.labels, self.G, kind.form)
        return maximise(sums, kind)


def _partitions(
    engine: InMemory, numbers: tuple[int, ...], given: Initialization | None, random: np.random.Generator
) -> tuple[InMemory, dict[int, Labels], dict[int, str]]:
    """Return the rows that starts are made of, their labels for each G, and the reason where there are none."""
    N, D = engine.X.shape
    several = [G for G in numbers if G > 1]
    sample, tree, labels = engine, given if isinstance(given, Tree) else None, {}
    reasons = {G: f"there are {N} rows, fewer than {G} components" for G in several if G > N}
    if tree is not None and tree.n_rows != N:
        raise ValueError(f"initialization must be a tree of all {N} rows, got one of {tree.n_rows}")
    if given is None and D > 1 and several:
        sample = initialise.sample_rows(engine, MOST_ROWS, random)
        tree = hc(sample.X, model="VVV" if N > D else "EII")
    for G in numbers:
        if G in reasons:
            continue
        if G == 1:
            labels[G] = np.zeros(len(sample.X), dtype=np.int64)
        elif tree is not None or given is None:
            try:
                labels[G] = quantile_classes(engine.X, G) if tree is None else hclass(tree, G)
            except ValueError as error:  # too few different values, or rows drawn
                reasons[G] = str(error)
        elif isinstance(given, Mapping) and G in given:
            labels[G] = _labels(given[G], N, G)
        else:
            raise ValueError(f"initialization must have labels for each number of components, got none for {G}")
    return sample, labels, reasons


def _labels(given: ArrayLike, N: int, G: int) -> Labels:
    labels: AnyArray = np.asarray(given)
    if labels.shape != (N,) or labels.dtype.kind not in "iu" or not np.array_equal(np.unique(labels), np.arange(G)):
        raise ValueError(
            f"initialization[{G}] must be {N} labels, each of 0 .. {G - 1} among them; R's start at 1, so subtract 1"
        )
    return labels.astype(np.int64)


def _numbers(G: int | Iterable[int]) -> tuple[int, ...]:
    """Return the numbers of components, in order, each once."""
    given = [G] if isinstance(G, (int, np.integer)) else list(G)
    for number in given:
        if isinstance(number, (bool, np.bool)) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"G must be whole numbers, got {number!r}")
        if number < 1:
            raise ValueError(f"G must be at least 1, got {number}")
    if not given:
        raise ValueError("G must be one number of components or several, got none")
    return tuple(sorted({int(number) for number in given}))


def _names(given: str | Iterable[str] | None, N: int, D: int) -> tuple[str, ...]:
    """Return the names of models, each once."""
    known = ONE_FEATURE if D == 1 else FOURTEEN
    if given is None:
        return SIX if D > 1 and N <= D else known
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in known:
            raise ValueError(f"models of {D} feature{'s' * (D > 1)} are {', '.join(known)}, got {name!r}")
    if not names:
        raise ValueError(f"model_names must be one or several of {', '.join(known)}, got none")
    return tuple(dict.fromkeys(names))


def _called(name: str, G: int) -> str:
    """What mclust calls a model of so many components."""
    if G > 1:
        return name
    return "X" if len(name) == 1 else "XII" if name[1:] == "II" else "XXI" if name[2] == "I" else "XXX"


def _fitted(name: str, G: int) -> str:
    """The model that is fitted for it."""
    return name if G > 1 else SINGLE[_called(name, G)][1]


def _certainty(z: Floats) -> float:
    """What ICL has more than BIC: 2 sum_n log max_k z_nk, at most 0."""
    return float(2.0 * np.log(z.max(axis=1)).sum())


def _digits(value: float) -> str:
    return f"{value:.7g}"


def _numbered(table: Doubles) -> list[list[str]]:
    """Rows of cells, each with its number first."""
    return [[str(row), *(_digits(value) for value in values)] for row, values in enumerate(table)]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Lines in columns, to the right."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    return [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
