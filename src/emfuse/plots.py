"""Pictures of a mixture, of the fit that found it, and of the choice between several.

Each function draws on the axes it is given, or on a new figure of its own that no window belongs to (`.figure.savefig(...)`
writes it), and returns the axes. A figure of your own wants `layout="constrained"`, which makes room for captions and legends. A
picture of several panels puts them in the place of its axes, which stay behind them, empty. Nothing is estimated here: the
fitted density is evaluated, on a grid and on the rows shown. Components differ in colour (Okabe & Ito's, which colour-blind
readers can tell apart) and in line style or marker as well, so that they can be told apart in grey.

Wherever `names` may be given, they are what the features are called, with their units ("waiting (minutes)"); one string will do
for one feature. None: the columns' names where X is a data frame, else numbers.

Layer 5.
"""

from __future__ import annotations

import importlib
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse import film as films
from emfuse._typing import AnyArray, Doubles, Floats
from emfuse.binned import Binned
from emfuse.em import Fit, History
from emfuse.engines import InMemory, as_rows, as_weights, evaluate
from emfuse.parameters import Parameters

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError('emfuse.plots needs matplotlib: pip install "emfuse[plot]"') from error

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito without black and yellow
LINES: tuple[Any, ...] = ("--", "-.", (0, (1.2, 1.2)), (0, (8, 2)), (0, (5, 1.5, 1, 1.5, 1, 1.5)))
LEVEL_LINES: tuple[Any, ...] = ("-", "--", ":", "-.")
LEVEL_WORDS = ("solid", "dashed", "dotted", "dash-dotted")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
SHADE = "cividis_r"  # from pale to dark, in colour and in grey: the darker the more
MOST_POINTS = 5_000
FEW_POINTS = 2_000  # in each of many panels or frames
MOST_BINS = 100
MOST_COLUMNS = 600  # of a strip: more than there are dots across a small picture
MOST_NAMED = 8  # components that a legend lists one by one
MOST_LISTED = 16  # the same for a legend that stands beside the data
MOST_FEATURES = 6  # of a scatter matrix
MOST_FRAMES = 200
LEAST_PANEL = 0.95  # inches
TALLEST = 10.0  # times the tallest bar: a peak above is cut off, or the bars could not be seen
SMALL = 8.5  # points
LETTER = 0.5 * SMALL / 72.0  # width of a small letter, inches: titles are wrapped by it
WIDE_LETTER = 0.62 * 10.0 / 72.0  # of an axis's label, which is cut by it
FIRST_TWO = (0, 1)
# Places for a number, in its own widths and heights from where it belongs, nearest first.
NEARBY = np.array(sorted(np.ndindex(9, 9), key=lambda at: (at[0] - 4) ** 2 + 0.9 * (at[1] - 4) ** 2)) - 4.0

Names = Sequence[str] | None


class Tested(Protocol):
    """The outcome of a bootstrap test: the statistic of the data, and those of data drawn under the null hypothesis."""

    @property
    def null_statistics(self) -> ArrayLike:
        """(B,); those that are not finite have failed."""

    @property
    def statistic(self) -> float:
        """The observed one."""

    @property
    def p_value(self) -> float:
        """How probable one as large is."""


def plot(thing: Any, X: Any = None, *, ax: Axes | None = None, **options: Any) -> Axes:
    """Draw the picture that fits.

    thing : a mixture (Fit, Parameters, or what has `parameters`): `density` for one feature, `components` for more; what
        `selection` or `bootstrap` draws, which have no X
    options : as that function takes them

    Raises as that function does.
    """
    if hasattr(thing, "null_statistics") or hasattr(thing, "criterion"):
        draw: Callable[..., Axes] = bootstrap if hasattr(thing, "null_statistics") else selection
        if X is not None:
            raise ValueError(f"X must be None: a {type(thing).__name__} is drawn without the rows")
        return draw(thing, ax=ax, **options)
    return (density if _parameters(thing).n_features == 1 else components)(thing, X, ax=ax, **options)


def density(
    mixture: Fit | Parameters,
    X: ArrayLike | InMemory | Binned | None = None,
    *,
    ax: Axes | None = None,
    features: Sequence[int] = FIRST_TWO,
    names: Names | str = None,
    sample_weight: ArrayLike | None = None,
    levels: Sequence[float] = (0.5, 0.9, 0.99),
) -> Axes:
    """Draw the density of a mixture over the rows: curves over their histogram, or contours over their scatter.

    In one dimension: each weighted component, and their sum. In more: contours of two features' density, each around the
    smallest region with a stated share of the mixture; more than 5,000 rows are counted in hexagons, the darker the more.

    mixture : Fit or Parameters         with D features
    X : (N, D) array-like               rows, data units; for one feature also (N,), or `Binned`; None: the mixture alone
    ax : Axes or None                   where to draw; None makes a figure
    features : two ints                 which features, across and up
    names : D str                       what the features are called
    sample_weight : (N,) array-like     row weights of the histogram or of the hexagons
    levels : floats                     shares of the mixture within the contours, between 0 and 1

    Raises ValueError where X, `features`, `names` or `levels` do not fit the mixture.
    """
    p = _parameters(mixture)
    called = _called(names, X, p)
    if p.n_features == 1:
        ax = panels(1)[0] if ax is None else ax
        _curves(ax, p, _Bars([p], X, sample_weight))
        ax.set_xlabel(_short(called[0], _inches(ax)[0]), parse_math=False)
        ax.set_ylabel("density")
        return ax
    shares = [float(share) for share in levels]
    if not all(0.0 < share < 1.0 for share in shares):
        raise ValueError(f"levels must be shares between 0 and 1, got {list(levels)}")
    rows = _rows(p, X)
    v = None if rows is None else as_weights(sample_weight, len(rows))
    pair = _pair(p, features)
    ax = panels(1)[0] if ax is None else ax
    low, high = _view(p, rows, pair, 3.1)
    words = [f"contours hold {_listed([f'{100.0 * share:.6g}%' for share in shares])} of the mixture"] if shares else []
    if rows is not None and len(rows) > MOST_POINTS:
        extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
        counting: dict[str, Any] = {"C": v, "reduce_C_function": np.sum, "mincnt": 1, "bins": "log"}
        look: dict[str, Any] = {"cmap": "Greys", "alpha": 0.55, "linewidths": 0, "zorder": 0, "rasterized": True}
        ax.hexbin(rows[:, pair[0]], rows[:, pair[1]], gridsize=50, extent=extent, **counting, **look)
        words.insert(0, f"{len(rows):,} rows, counted in hexagons")
    elif rows is not None:
        size = float(np.clip(4000.0 / len(rows), 3.0, 14.0))
        ax.scatter(rows[:, pair[0]], rows[:, pair[1]], s=size, color="0.45", alpha=0.5, linewidths=0, rasterized=True, zorder=0)
        words.insert(0, _count(len(rows), "row"))
    _regions(ax, _marginal(p, pair), low, high, shares)
    _frame(ax, low, high, called, pair)
    _caption(ax, "; ".join(words))
    return ax


def components(
    mixture: Fit | Parameters,
    X: ArrayLike | InMemory | None = None,
    *,
    ax: Axes | None = None,
    features: Sequence[int] | None = None,
    names: Names | str = None,
    levels: Sequence[float] = (1.0, 2.0),
) -> Axes:
    """Draw the components of a mixture as ellipses over the rows: of two features, or of more in a scatter matrix.

    A row has the colour and marker of its most likely component, and is paler the less certain that is. Each component has
    ellipses at so many standard deviations, and its number at its mean. Of two features there are faint contours of the
    mixture's density as well, around half of it, 90% and 99%; of more, the density of each on the diagonal. Of more than 5,000
    rows (2,000 in a matrix), so many are drawn, chosen at random, always the same ones.

    mixture : Fit or Parameters      with D features, at least two
    X : (N, D) array-like            rows, data units; None: the mixture alone
    ax : Axes or None                where to draw; None makes a figure
    features : two ints or more      which features: two across and up, more from left to right; None: all of them, or as many,
        from the first, as there is room for, six at most
    names : D str                    what the features are called
    levels : floats                  standard deviations; up to four can be told apart

    Raises ValueError where X, `features`, `names` or `levels` do not fit the mixture, or `ax` has no room for several panels.
    """
    p = _parameters(mixture)
    if p.n_features < 2:
        raise ValueError("components draws two features, and the mixture has 1; use density")
    rows, called, sds = _rows(p, X), _called(names, X, p), _ellipse_levels(levels)
    if features is not None and len(features) != 2:
        shown = _several(p, features)
    elif features is not None:
        shown = _pair(p, features)
    else:
        room = MOST_FEATURES if ax is None else int(np.clip(min(_inches(ax)) / LEAST_PANEL, 2, MOST_FEATURES))
        shown = list(range(min(p.n_features, room)))
    words, contours = [], ""
    if len(shown) == 2:
        ax = panels(1)[0] if ax is None else ax
        few = None if rows is None else _thinned(rows, MOST_POINTS)
        corner = ax
        _scatter(ax, p, few, shown, called, sds, contours=True)
        contours = "; grey: 50%, 90% and 99% of the mixture"
    else:
        if ax is None:
            side = max(4.6, 0.6 + 1.6 * len(shown))
            ax = Figure(figsize=(side, side), layout="constrained").subplots()
        few = None if rows is None else _thinned(rows, FEW_POINTS)
        corner = _matrix(ax, p, rows, few, shown, called, sds)
    if rows is not None and few is not None:
        drawn = f"{len(few):,} of {len(rows):,} rows, drawn at random" if len(few) < len(rows) else _count(len(rows), "row")
        words.append(f"{drawn}, paler where less certain")
    if len(shown) < p.n_features and features is None:
        words.append(f"the first {len(shown)} of {p.n_features} features")
    if sds:
        styles = [f"{level:g} ({_of(LEVEL_WORDS, i)})" for i, level in enumerate(sds)]
        words.append(f"ellipses: {_listed(styles)} standard deviation{'s' * (sds != [1.0])}")
    _caption(ax, "; ".join(words) + contours, corner)
    return ax


def trace(fit: Fit, *, ax: Axes | None = None, gap: bool = False) -> Axes:
    """Draw a fit's log-likelihood, in nats, under the reason why it stopped.

    One point a sweep; with acceleration, or after repairs, one a step, which may have taken several sweeps.

    ax : Axes or None    where to draw; None makes a figure
    gap : bool           draw on a log scale how far each was below the last one, which shows the end as well as the beginning
    """
    ax = panels(1)[0] if ax is None else ax
    reached = np.asarray(fit.trace)
    at, label = np.arange(len(reached)), "log-likelihood (nats)"
    if gap:
        below = reached[-1] - reached
        at, reached, label = at[below > 0.0], below[below > 0.0], "log-likelihood below the last (nats)"
        if len(at):
            ax.set_yscale("log")
    else:
        ax.ticklabel_format(axis="y", useOffset=False, style="plain")
    ax.plot(at, reached, color=COLOURS[0], marker="o" if len(at) <= 100 else "", markersize=3.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("sweep" if fit.sweeps == len(fit.trace) else "step")
    ax.set_ylabel(label)
    state = "Converged" if fit.converged else "Stopped before convergence"
    _caption(ax, f"{state} after {_count(fit.sweeps, 'sweep')}: {fit.reason}")
    return ax


def history(fit: Fit | History, *, ax: Axes | None = None, feature: int = 0, names: Names | str = None) -> Axes:
    """Draw the parameters sweep by sweep, in three panels: weights, and means and standard deviations of one feature.

    fit : Fit or History    one that was asked for `history=True`
    ax : Axes or None       where to draw; None makes a figure
    feature : int           which feature
    names : D str           what the features are called

    Raises ValueError where there is no history or no such feature, or `ax` has no room for several panels.
    """
    kept = _history(fit)
    first = kept[0].parameters
    K, D = first.means.shape
    if not 0 <= feature < D:
        raise ValueError(f"feature must be one of 0 to {D - 1}, got {feature}")
    unit = _called(names, None, first)[feature]
    ax = Figure(figsize=(6.0, 6.4), layout="constrained").subplots() if ax is None else ax
    values = {
        "weight": [each.parameters.weights for each in kept],
        "mean": [each.parameters.means[:, feature] for each in kept],
        "standard deviation": [each.parameters.sds[:, feature] for each in kept],
    }
    parts = _inside(ax, 3, 1)[:, 0]
    at = [each.sweep for each in kept]
    for part, (label, lines) in zip(parts, values.items(), strict=True):
        table = np.array(lines)
        for k in range(K):
            marker = _of(MARKERS, k) if len(kept) == 1 else ""
            part.plot(at, table[:, k], color=_of(COLOURS, k), linestyle=_of(LINES, k), marker=marker, lw=1.6, label=f"{k}")
        part.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        part.tick_params(labelbottom=part is parts[-1])
        part.set_ylabel(label)
    parts[-1].set_xlabel("sweep")
    _legend_beside(parts[0], "component")
    of = "" if D == 1 and names is None else f"; means and standard deviations of {unit}"
    _caption(ax, f"{_count(len(kept), 'sweep')} of {_count(K, 'component')}{of}", parts[0])
    return ax


def uncertainty(
    mixture: Fit | Parameters,
    X: ArrayLike | InMemory,
    *,
    ax: Axes | None = None,
    features: Sequence[int] = FIRST_TWO,
    names: Names | str = None,
) -> Axes:
    """Draw how uncertain it is which component a row is of: 1 - its largest responsibility.

    In one dimension over the feature; in more by colour and size, over two of them, the most uncertain rows on top. Of more than
    5,000 rows, 5,000 are drawn, chosen at random, always the same ones.

    mixture, X, ax, features, names    as in `density`

    Raises ValueError where X, `features` or `names` do not fit the mixture.
    """
    p = _parameters(mixture)
    rows, called = _rows(p, X), _called(names, X, p)
    if rows is None:
        raise ValueError("X must be rows, got None: uncertainty is drawn row by row")
    most = 1.0 - 1.0 / p.n_components or 1.0
    few = _thinned(rows, MOST_POINTS)
    doubt = _doubt(p, few)
    ax = panels(1)[0] if ax is None else ax
    size = float(np.clip(6000.0 / len(few), 5.0, 22.0))
    if p.n_features == 1:
        bars = _Bars([p], rows, None)
        grid = bars.grid(p)
        ax.plot(grid, _doubt(p, grid[:, None]), color="0.6", lw=1.2, zorder=1)
        ax.scatter(few[:, 0], doubt, s=size, color=COLOURS[0], alpha=0.6, linewidths=0, rasterized=True, zorder=2)
        ax.set_ylim(-0.03 * most, 1.03 * most)
        ax.set_xlim(float(grid[0]), float(grid[-1]))
        ax.set_xlabel(_short(called[0], _inches(ax)[0]), parse_math=False)
        ax.set_ylabel("uncertainty: 1 - largest responsibility")
    else:
        pair = _pair(p, features)
        order = np.argsort(doubt, kind="stable")
        drawn = ax.scatter(
            few[order, pair[0]],
            few[order, pair[1]],
            c=doubt[order],
            s=size * (0.6 + 2.4 * doubt[order] / most),
            cmap=SHADE,
            vmin=0.0,
            vmax=most,
            edgecolors="0.5",
            linewidths=0.2,
            rasterized=True,
        )
        figure = ax.get_figure()
        assert figure is not None
        figure.colorbar(drawn, ax=ax, label="uncertainty: 1 - largest responsibility")
        low, high = _view(p, few, pair, 0.0)
        _numbers(ax, p.means[:, pair], (p.means[:, pair] - low) / (high - low))
        _frame(ax, low, high, called, pair)
    _caption(ax, _drawn(len(few), len(rows)))
    return ax


def responsibilities(
    mixture: Fit | Parameters,
    X: ArrayLike | InMemory | None = None,
    *,
    ax: Axes | None = None,
    names: Names | str = None,
) -> Axes:
    """Draw the share that each component has in each row.

    In one dimension: curves over the feature, and the rows below them as ticks. In more: a strip for each component, rows from
    left to right, those of component 0 first, in each component the most certain first. Of more than 5,000 rows, 5,000 are
    drawn, chosen at random, always the same ones.

    mixture, X, ax, names    as in `density`; X may be None in one dimension only

    Raises ValueError where X or `names` do not fit the mixture.
    """
    p = _parameters(mixture)
    K, rows, called = p.n_components, _rows(p, X), _called(names, X, p)
    few = None if rows is None else _thinned(rows, MOST_POINTS)
    if p.n_features == 1:
        ax = panels(1)[0] if ax is None else ax
        grid = _Bars([p], rows, None).grid(p)
        shares = _shares(p, grid[:, None])
        for k in range(K):
            ax.plot(grid, shares[:, k], color=_of(COLOURS, k), linestyle=_of(LINES, k), lw=1.8, label=f"{k}", clip_on=False)
        if few is not None:
            ax.plot(few[:, 0], np.full(len(few), -0.04), "|", color="0.3", markersize=5, alpha=0.4, rasterized=True)
        ax.set_ylim(-0.08, 1.02)
        ax.set_xlim(float(grid[0]), float(grid[-1]))
        ax.set_xlabel(_short(called[0], _inches(ax)[0]), parse_math=False)
        ax.set_ylabel("responsibility")
        _legend_beside(ax, "component")
    else:
        if few is None:
            raise ValueError("X must be rows for a mixture of several features, got None: the strips are drawn row by row")
        ax = panels(1)[0] if ax is None else ax
        shares = _shares(p, few)
        labels = shares.argmax(axis=1)
        order = np.lexsort((-shares.max(axis=1), labels))
        ends = np.linspace(0, len(few), min(len(few), MOST_COLUMNS) + 1).astype(np.int64)
        strips = np.add.reduceat(shares[order], ends[:-1]) / np.diff(ends)[:, None]
        extent = (0.0, float(len(few)), K - 0.5, -0.5)
        picture = ax.imshow(strips.T, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0.0, vmax=1.0, extent=extent)
        for k in range(1, K):
            ax.axhline(k - 0.5, color="0.75", lw=0.8)
        ax.set_yticks(range(K) if K <= 20 else range(0, K, -(-K // 10)))
        ax.set_xlabel("row, by its most likely component")
        ax.set_ylabel("component")
        figure = ax.get_figure()
        assert figure is not None
        figure.colorbar(picture, ax=ax, label="responsibility")
    if rows is not None and few is not None:
        _caption(ax, _drawn(len(few), len(rows)))
    return ax


def selection(selection: Any, *, ax: Axes | None = None) -> Axes:
    """Draw a criterion against the number of components, a line for each structure, and mark the best.

    selection    `rows` or `table`: what was fitted, each with `K`, `structure` and the criterion, as attributes or keys; one that
        is not finite was no fit. `criterion`: its name. `best_row` or `best`: the winner, with `K` and `structure`, or a `Fit`;
        where there is none, the smallest is marked
    ax : Axes or None    where to draw; None makes a figure

    Raises ValueError where no value is finite.
    """
    name = str(selection.criterion)
    entries = [
        (int(_get(row, "K")), str(_get(row, "structure")), float(_get(row, name.lower()))) for row in _fitted_in(selection)
    ]
    finite = [entry for entry in entries if np.isfinite(entry[2])]
    if not finite:
        raise ValueError(f"there is no {name.upper()} to draw: none of {_count(len(entries), 'fit')} has a finite one")
    best = _best_of(selection, finite)
    ax = Figure(figsize=(6.6, 4.6), layout="constrained").subplots() if ax is None else ax
    structures = list(dict.fromkeys(structure for _, structure, _ in entries))
    for i, structure in enumerate(structures):
        line = sorted((K, value) for K, called, value in entries if called == structure)
        ax.plot(
            *np.array(line).T,
            color=_of(COLOURS, i),
            linestyle="-" if i < len(COLOURS) else _of(LINES, i),
            marker=_of(MARKERS, i),
            markersize=4.5,
            lw=1.4,
            label=structure,
        )
    ax.plot(
        best[0],
        best[2],
        "o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor="black",
        markeredgewidth=1.6,
        zorder=5,
        label=f"best: K = {best[0]}, {best[1]}",
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.ticklabel_format(axis="y", useOffset=False, style="plain")
    ax.set_xlabel("number of components")
    ax.set_ylabel(f"{name.upper()} (smaller is better)" if name.lower() in ("aic", "bic", "icl") else name)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize=SMALL, frameon=False)
    values = np.array([value for _, _, value in finite])
    reach = 2.0 * float(np.quantile(values, 0.75) - best[2])
    cut = f"; above {best[2] + reach:.6g} it is cut off" if reach > 0.0 and values.max() > best[2] + 2.0 * reach else ""
    if cut:  # one component alone is often so much worse than the others that these could not be told apart
        ax.set_ylim(min(best[2], values.min()) - 0.06 * reach, best[2] + reach)
    failed = len(entries) - len(finite)
    missing = f"; {failed} of {_count(len(entries), 'fit')} failed" if failed else ""
    _caption(ax, f"{name.upper()} is best for {best[1]} with {_count(best[0], 'component')}{cut}{missing}")
    return ax


def bootstrap(test: Tested, *, ax: Axes | None = None) -> Axes:
    """Draw the statistics found under the null hypothesis as a histogram, and the observed one as a line.

    test    has `null_statistics` (B,), of which those that are not finite have failed, `statistic` and `p_value`; and it may have
        `failures`, how many more did
    ax : Axes or None    where to draw; None makes a figure

    Raises ValueError where no statistic is finite.
    """
    found = np.asarray(test.null_statistics, dtype=np.float64).ravel()
    drawn = found[np.isfinite(found)]
    if not drawn.size:
        raise ValueError(f"there is nothing to draw: none of {len(found)} null statistics is finite")
    ax = panels(1)[0] if ax is None else ax
    counts, _, _ = ax.hist(
        drawn,
        bins=cast(Any, _edges(drawn)),
        histtype="stepfilled",
        facecolor="0.9",
        edgecolor="0.5",
        hatch="///",
        lw=0.8,
        label="under the null hypothesis",
    )
    observed = float(test.statistic)
    peak = float(cast(AnyArray, counts).max())
    label = f"observed: {observed:.4g}, p = {float(test.p_value):.3g}"
    ax.plot([observed, observed], [0.0, 1.03 * peak], color=COLOURS[1], lw=2.2, label=label)
    ax.set_xlabel("statistic")
    ax.set_ylabel("samples")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend_above(ax, 1.03 * peak, columns=1)
    failures = len(found) - len(drawn) + int(getattr(test, "failures", 0))
    failed = f"; {failures} more failed" if failures else ""
    _caption(ax, f"{_count(len(drawn), 'bootstrap sample')}{failed}")
    return ax


def film(
    fit: Fit | History,
    X: ArrayLike | InMemory,
    path: str | os.PathLike[str],
    *,
    fps: float = 10.0,
    levels: Sequence[float] = (1.0, 2.0),
    features: Sequence[int] = FIRST_TWO,
    names: Names | str = None,
    most: int = MOST_FRAMES,
) -> list[int]:
    """Write a film of a fit: a picture for each sweep, with its number and log-likelihood above it.

    In one dimension a frame is what `density` draws, in more what `components` draws of two features, of 2,000 rows at most. The
    first half of the frames are the first sweeps; of the later ones there is a frame for each equal share of what they gain.

    fit : Fit or History    one that was asked for `history=True`
    X : (N, D) array-like   rows, data units
    path : str              ends with .gif, or .mp4 (made by the program ffmpeg), or is a folder's, for PNG files
    fps : float             frames a second; the last frame stays for two seconds
    levels, features, names    as in `components`
    most : int              frames at most, at least 2

    Returns the sweeps drawn, one for each frame.
    Raises ValueError where there is no history, or X, `features` or `names` do not fit it; what `emfuse.film.write` raises.
    """
    sweeps, frame = _frames(fit, X, levels, features, names, most)
    films.write(frame, len(sweeps), path, fps=fps)
    return sweeps


def slider(
    fit: Fit | History,
    X: ArrayLike | InMemory,
    *,
    levels: Sequence[float] = (1.0, 2.0),
    features: Sequence[int] = FIRST_TWO,
    names: Names | str = None,
    most: int = MOST_FRAMES,
) -> Any:
    """Return what `film` writes as a widget for a notebook: a slider of sweeps, and the picture of the one that it stands at.

    fit, X, levels, features, names, most    as in `film`

    Returns an `ipywidgets.VBox`. Raises ImportError where ipywidgets is not installed; ValueError as `film` does.
    """
    try:
        widgets: Any = importlib.import_module("ipywidgets")
    except ImportError as error:
        raise ImportError("a slider needs ipywidgets: pip install ipywidgets. `film` writes the frames to a file.") from error
    sweeps, frame = _frames(fit, X, levels, features, names, most)
    picture = widgets.Image(format="png")
    position = widgets.SelectionSlider(options=sweeps, description="sweep")

    def show(_: object = None) -> None:
        picture.value = films.png(frame(position.index))

    position.observe(show, "index")
    show()
    return widgets.VBox([position, picture])


def _frames(
    fit: Fit | History, X: Any, levels: Sequence[float], features: Sequence[int], names: Names | str, most: int
) -> tuple[list[int], Callable[[int], films.Frame]]:
    """Return the sweeps that are drawn, and the function that draws the i-th of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kept = _history(fit)
    which = films.chosen([each.log_likelihood for each in kept], most)
    last = kept[-1].parameters
    called = _called(names, X, last)
    ax = panels(1)[0]
    figure = cast(Figure, ax.figure)
    canvas: Any = FigureCanvasAgg(figure)
    drawn = [kept[i].parameters for i in which]
    picture = _curve_frames if last.n_features == 1 else _ellipse_frames
    paint = picture(drawn, X, _pair(last, features) if last.n_features > 1 else [0], called, _ellipse_levels(levels))

    def frame(number: int) -> films.Frame:
        ax.clear()
        paint(ax, drawn[number])
        at = kept[which[number]]
        ax.set_title(f"sweep {at.sweep}, log-likelihood {at.log_likelihood:.6f} nats", loc="left", fontsize=SMALL, color="0.25")
        canvas.draw()
        return np.array(canvas.buffer_rgba())

    frame(0)
    figure.set_layout_engine("none")  # what was laid out once stays where it is: a film must not shake
    return [kept[i].sweep for i in which], frame


def panels(count: int) -> list[Axes]:
    """Return `count` axes side by side on a new figure that pyplot does not know, so no window opens and none must be closed."""
    figure = Figure(figsize=(0.8 + 4.6 * count, 4.6), layout="constrained")
    return list(figure.subplots(1, count, squeeze=False)[0])


# ---------------------------------------------------------------- what is asked for


def _parameters(mixture: object) -> Parameters:
    found = mixture if isinstance(mixture, Parameters) else getattr(mixture, "parameters", None)
    if not isinstance(found, Parameters):
        raise TypeError(f"mixture must be emfuse.Fit or emfuse.Parameters, got {type(mixture).__name__}")
    return found


def _history(fit: Fit | History) -> History:
    kept = fit if isinstance(fit, History) else fit.history
    if not kept:
        raise ValueError("the fit kept no history: fit again with history=True")
    return kept


def _rows(p: Parameters, X: Any) -> Floats | None:
    if X is None:
        return None
    rows: Floats = X.X if isinstance(X, InMemory) else as_rows(X)
    if rows.shape[1] != p.n_features:
        raise ValueError(f"X has {rows.shape[1]} features, but the mixture has {p.n_features}")
    return rows


def _called(names: Names | str, X: Any, p: Parameters) -> list[str]:
    """What the features are called: as they are told, else as columns are, else by number."""
    D = p.n_features
    if names is not None:
        found = [names] if isinstance(names, str) else [str(name) for name in names]
        if len(found) != D:
            raise ValueError(f"names must have {D} entries, one a feature, got {len(found)}")
        return found
    columns = getattr(X, "columns", None)
    told = [getattr(X, "name", None)] if columns is None else list(columns)
    found = [name for name in told if isinstance(name, str)]
    if len(found) == len(told) == D:
        return found
    return ["x"] if D == 1 else [f"feature {d}" for d in range(D)]


def _several(p: Parameters, features: Sequence[int]) -> list[int]:
    found = [int(d) for d in features]
    if len(found) < 2 or len(set(found)) < len(found) or not all(0 <= d < p.n_features for d in found):
        raise ValueError(f"features must be two or more different ones of 0 to {p.n_features - 1}, got {tuple(features)}")
    return found


def _pair(p: Parameters, features: Sequence[int]) -> list[int]:
    found = [int(d) for d in features]
    if len(found) != 2 or found[0] == found[1] or not all(0 <= d < p.n_features for d in found):
        raise ValueError(f"features must be two different ones of 0 to {p.n_features - 1}, got {tuple(features)}")
    return found


def _ellipse_levels(levels: Sequence[float]) -> list[float]:
    found = [float(level) for level in levels]
    if not all(0.0 < level < np.inf for level in found):
        raise ValueError(f"levels must be numbers of standard deviations above 0, got {list(levels)}")
    return found


def _fitted_in(selection: Any) -> Iterable[Any]:
    found = getattr(selection, "rows", None)
    return cast(Iterable[Any], selection.table if found is None else found)


def _get(row: Any, name: str) -> Any:
    return row[name] if isinstance(row, Mapping) else getattr(row, name)


def _best_of(selection: Any, finite: list[tuple[int, str, float]]) -> tuple[int, str, float]:
    """The winner's entry; the smallest where `best` does not say."""
    best = getattr(selection, "best_row", None) or getattr(selection, "best", None)
    if best is not None:
        p = getattr(best, "parameters", None)
        K, structure = (_get(best, "K"), _get(best, "structure")) if p is None else (p.n_components, p.structure)
        named = [entry for entry in finite if entry[:2] == (K, structure)]
        if named:
            return named[0]
    return min(finite, key=lambda entry: entry[2])


def _marginal(p: Parameters, features: list[int]) -> Parameters:
    return Parameters(p.weights, p.means[:, features], p.covariance_matrices[:, features][:, :, features])


def _shares(p: Parameters, rows: Floats) -> Floats:
    found = evaluate(rows, p.factors, n_threads=1, responsibilities=True).responsibilities
    assert found is not None
    return found


def _doubt(p: Parameters, rows: Floats) -> Floats:
    return cast(Floats, np.maximum(0.0, 1.0 - _shares(p, rows).max(axis=1)))


def _thinned(rows: Floats, most: int) -> Floats:
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))]


# ---------------------------------------------------------------- one feature


class _Bars:
    """A histogram of one feature, of rows, of counts in bins, or of nothing; and from where to where the axis goes.

    edges, heights     data units, and share of the rows per data unit; None where there is nothing
    low, high : float  ends of the axis, data units: wider than the data where components are, but not so that the data look small
    label : str        how many rows
    """

    def __init__(self, mixtures: Sequence[Parameters], X: Any, sample_weight: ArrayLike | None):
        self.edges: Doubles | None = None
        self.heights: Doubles | None = None
        self.label = ""
        means, sds = (np.concatenate(each) for each in zip(*((p.means[:, 0], p.sds[:, 0]) for p in mixtures), strict=True))
        if X is None:
            self.low, self.high = float((means - 4.0 * sds).min()), float((means + 4.0 * sds).max())
            return
        if isinstance(X, Binned):
            inside = np.isfinite(X.edges[:-1]) & np.isfinite(X.edges[1:])  # no bar is as wide as an open bin
            self.edges, counts, total = X.edges[np.isfinite(X.edges)], X.counts[inside], X.counts.sum()
            self.label = f"{total:,.10g} rows in {len(X.counts)} bins"
        else:
            x = cast(Floats, _rows(mixtures[0], X))[:, 0]
            v = as_weights(sample_weight, len(x))
            if v is None and isinstance(X, InMemory):
                v = X.sample_weight
            self.edges = _edges(x)
            counts = np.histogram(x, self.edges, weights=v)[0].astype(np.float64)
            total = counts.sum()
            self.label = _count(len(x), "row")
        self.heights = counts / total / np.diff(self.edges)
        low, high = float(self.edges[0]), float(self.edges[-1])
        little, much = 0.05 * (high - low), 0.5 * (high - low)
        self.low = float(np.clip((means - 2.5 * sds).min(), low - much, low - little))
        self.high = float(np.clip((means + 2.5 * sds).max(), high + little, high + much))

    def grid(self, p: Parameters) -> Doubles:
        """Return points across the axis, and closer ones about each mean, so that a narrow component is drawn with its peak."""
        about = p.means[:, 0] + p.sds[:, 0] * np.linspace(-4.0, 4.0, 81)[:, None]
        about = about[(about > self.low) & (about < self.high)]
        return np.unique(np.concatenate([np.linspace(self.low, self.high, 401), about]))

    def top(self, peak: float) -> float:
        """How high the axis goes for a curve of that peak: not so far that no bar could be seen."""
        tallest = 0.0 if self.heights is None else float(self.heights.max())
        return max(peak, tallest) if tallest == 0.0 or peak <= TALLEST * tallest else 2.5 * tallest


def _curves(ax: Axes, p: Parameters, bars: _Bars, *, top: float | None = None, bare: bool = False) -> None:
    """Draw bars, weighted components, and their sum; up to `top`, or the peak; `bare` is without a legend."""
    if bars.edges is not None and bars.heights is not None:
        ax.stairs(bars.heights, bars.edges, fill=True, facecolor="0.9", edgecolor="0.75", lw=0.8, label=bars.label)
    grid = bars.grid(p)
    found = evaluate(grid, p.factors, n_threads=1, log_density=True, responsibilities=True)
    assert found.log_density is not None and found.responsibilities is not None
    whole = np.exp(found.log_density)
    thin = 0.6 if bare else 1.0
    ax.plot(grid, whole, color="0.62", lw=4.5 * thin, label="mixture")  # wide: where one component is all of it, both are seen
    parts = whole[:, None] * found.responsibilities
    for k in range(p.n_components):
        if p.n_components <= MOST_NAMED:
            label = f"component {k}, weight {p.weights[k]:.2g}"
        else:
            label = f"{p.n_components} components" if k == 0 else "_nolegend_"
        ax.plot(grid, parts[:, k], color=_of(COLOURS, k), linestyle=_of(LINES, k), lw=1.8 * thin, label=label)
    ax.set_xlim(float(grid[0]), float(grid[-1]))
    peak = float(whole.max())
    top = bars.top(peak) if top is None else top
    if bare:
        ax.set_ylim(0.0, 1.08 * top)
        return
    _legend_above(ax, top)
    if p.n_components > MOST_NAMED:
        places = np.stack([grid[parts.argmax(axis=0)], np.minimum(parts.max(axis=0), top)], axis=1)
        ends = np.array([ax.get_xlim(), ax.get_ylim()]).T
        _numbers(ax, places, (places - ends[0]) / (ends[1] - ends[0]))
    if peak > top:
        _caption(ax, f"the peak of {peak:.3g} is cut off")


def _edges(x: Floats) -> Doubles:
    """Return the edges of about sqrt(N) bins; of whole numbers each bin holds equally many, or the histogram would be a comb."""
    low, high = float(x.min()), float(x.max())
    bins = int(np.clip(np.sqrt(len(x)), 10, MOST_BINS))
    if high - low >= 10.0 and np.array_equal(x, np.round(x)):
        width = max(1.0, np.round((high - low) / bins))
        return np.arange(low - 0.5, high + width, width)
    edges = np.unique(np.linspace(low, high, bins + 1))
    return edges if len(edges) > 1 else low + max(1.0, abs(low)) * np.array([-0.5, 0.5])


# ---------------------------------------------------------------- two features, and more


def _scatter(
    ax: Axes,
    p: Parameters,
    rows: Floats | None,
    pair: list[int],
    called: list[str],
    levels: list[float],
    *,
    contours: bool = False,
    view: tuple[Doubles, Doubles] | None = None,
) -> None:
    """Draw two features: rows by component, ellipses and numbers."""
    if rows is not None:
        _dots(ax, rows[:, pair], _shares(p, rows))
    means, covariances = p.means[:, pair], p.covariance_matrices[:, pair][:, :, pair]
    low, high = _view(p, rows, pair, max([3.1, *levels])) if view is None else view
    if contours:
        _regions(ax, Parameters(p.weights, means, covariances), low, high, [0.5, 0.9, 0.99], faint=True)
    for k in range(p.n_components):
        _ellipses(ax, means[k], covariances[k], _of(COLOURS, k), levels)
    _numbers(ax, means, (means - low) / (high - low))
    _frame(ax, low, high, called, pair)


def _dots(ax: Axes, points: Floats, shares: Floats) -> None:
    """Draw points in the colours of their components; never so pale as to be invisible."""
    labels, certainty = shares.argmax(axis=1), 0.3 + 0.7 * shares.max(axis=1)
    inches = min(_inches(ax))
    size = float(np.clip(6000.0 / len(points), 5.0, 22.0)) * float(np.clip(inches / 4.0, 0.25, 1.0))  # points squared
    opacity = float(np.clip(1000.0 / len(points), 0.3, 0.75))
    for k in range(shares.shape[1]):
        mine = labels == k
        if mine.any():
            style: dict[str, Any] = {"color": _of(COLOURS, k), "marker": _of(MARKERS, k), "alpha": opacity * certainty[mine]}
            ax.scatter(points[mine, 0], points[mine, 1], s=size, linewidths=0, rasterized=True, zorder=1, **style)


def _matrix(
    ax: Axes, p: Parameters, rows: Floats | None, few: Floats | None, shown: list[int], called: list[str], levels: list[float]
) -> Axes:
    """Draw a scatter matrix in the place of `ax`: densities on the diagonal, pairs below, legend above; return the corner."""
    count, last = len(shown), len(shown) - 1
    parts = _inside(ax, count, count)
    ax.set_xlabel(called[shown[0]], parse_math=False)  # not to be seen, but to be asked for
    ax.set_ylabel(called[shown[1]], parse_math=False)
    low, high = _view(p, rows, shown, max([3.1, *levels]))
    for i, j in np.ndindex(count, count):
        part = cast(Axes, parts[i, j])
        if j > i:
            part.set_axis_off()
            continue
        if i == j:
            one = _marginal(p, [shown[i]])
            _curves(part, one, _Bars([one], None if rows is None else rows[:, shown[i]], None), bare=True)
            part.set_xlim(float(low[i]), float(high[i]))
            part.set_yticks([])
        else:
            _scatter(part, p, few, [shown[j], shown[i]], called, levels, view=(low[[j, i]], high[[j, i]]))
            part.yaxis.set_major_locator(MaxNLocator(3))
        part.xaxis.set_major_locator(MaxNLocator(3))
        part.tick_params(labelsize=SMALL - 1.0, labelbottom=i == last, labelleft=j == 0)
        for axis, inches, name in ((part.xaxis, 0, called[shown[j]] * (i == last)), (part.yaxis, 1, called[shown[i]] * (j == 0))):
            axis.offsetText.set_fontsize(SMALL - 1.0)
            axis.offsetText.set_visible(bool(name))
            axis.set_label_text(_short(name, _inches(part)[inches], lines=2), parse_math=False, fontsize=SMALL)
    corner = parts[0, last]
    most = min(MOST_LISTED, max(3, int(last * _inches(corner)[1] / (1.6 * SMALL / 72.0)) - 3))  # or it would cover the diagonal
    keys = [
        Line2D([], [], color=_of(COLOURS, k), marker=_of(MARKERS, k), linestyle=_of(LINES, k), markersize=5)
        for k in range(min(p.n_components, most))
    ]
    _legend_of(corner, "component, weight", keys, [f"{k}, {p.weights[k]:.2g}" for k in range(p.n_components)], loc="upper right")
    corner.get_legend().set_in_layout(False)  # it may lie over its empty neighbours, and no column shall be wider for it
    return cast(Axes, parts[0, 0])


def _view(p: Parameters, rows: Floats | None, pair: list[int], reach: float) -> tuple[Doubles, Doubles]:
    """Lower and upper ends of two axes: around the rows, and `reach` standard deviations of each component."""
    means, far = p.means[:, pair], reach * p.sds[:, pair]
    low, high = (means - far).min(axis=0), (means + far).max(axis=0)
    if rows is not None:
        low, high = np.minimum(low, rows[:, pair].min(axis=0)), np.maximum(high, rows[:, pair].max(axis=0))
    width = np.where(high > low, high - low, np.maximum(1.0, np.abs(low)))
    return low - 0.04 * width, high + 0.04 * width


def _frame(ax: Axes, low: Doubles, high: Doubles, called: list[str], pair: list[int]) -> None:
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    across, up = _inches(ax)
    ax.set_xlabel(_short(called[pair[0]], across), parse_math=False)
    ax.set_ylabel(_short(called[pair[1]], up), parse_math=False)


def _regions(ax: Axes, p: Parameters, low: Doubles, high: Doubles, shares: Sequence[float], *, faint: bool = False) -> None:
    """Draw contours around the smallest regions that hold these shares of a mixture of two features, as its grid sees them."""
    about = np.linspace(-3.5, 3.5, int(np.clip(400 // p.n_components, 9, 41)))[:, None]
    x, y = (
        np.unique(np.clip(np.append(np.linspace(low[d], high[d], 161), p.means[:, d] + about * p.sds[:, d]), low[d], high[d]))
        for d in range(2)
    )
    grid = np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1)
    found = evaluate(grid, p.factors, n_threads=1, log_density=True).log_density
    assert found is not None
    widths, heights = (np.gradient(axis) / (axis[-1] - axis[0]) for axis in (x, y))  # of a grid point's cell, shares of the axis
    mass = np.exp(found - found.max()) * np.outer(heights, widths).ravel()
    order = np.argsort(-found, kind="stable")
    held = np.cumsum(mass[order])
    table = (found - found.max()).reshape(len(y), len(x))
    for i, share in enumerate(shares):
        level = float(table.ravel()[order[min(np.searchsorted(held, share * held[-1]), len(order) - 1)]])
        if table.min() < level < 0.0:
            style: dict[str, Any] = {"colors": "0.7", "linewidths": 0.6, "linestyles": "solid"}
            if not faint:
                style = {"colors": COLOURS[0], "linewidths": 1.7, "linestyles": [_of(LEVEL_LINES, i)]}
            drawn = ax.contour(x, y, table, levels=[level], zorder=0.5 if faint else 2.0, **style)
            if not faint:
                drawn.set_path_effects([withStroke(linewidth=3, foreground="white", alpha=0.7)])


def _ellipses(ax: Axes, mean: Doubles, covariance: Doubles, colour: str, levels: Sequence[float]) -> None:
    variances, directions = np.linalg.eigh(covariance)
    widths = 2.0 * np.sqrt(np.maximum(variances, 0.0))
    angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
    thin = float(np.clip(min(_inches(ax)) / 3.0, 0.5, 1.0))
    for i, sds in enumerate(levels):
        ax.add_patch(
            Ellipse(
                (float(mean[0]), float(mean[1])),
                sds * widths[1],
                sds * widths[0],
                angle=angle,
                fill=False,
                edgecolor=colour,
                linestyle=_of(LEVEL_LINES, i),
                linewidth=1.8 * thin,
                zorder=3,
                path_effects=[withStroke(linewidth=3 * thin, foreground="white", alpha=0.7)],
                in_layout=False,
            )
        )


def _numbers(ax: Axes, means: Doubles, shares: Doubles) -> None:
    """Write each component's number at its mean, or near, where none is yet, with a line from the mean; or not, for want of room.

    shares : (K, 2)    where the means are, in shares of the axes' width and height
    """
    size = 10.0 if min(_inches(ax)) > 2.5 else 7.0
    whole, apart = np.array(_inches(ax)) * 72.0, size * np.array([1.4, 1.2])
    taken = np.empty((0, 2))
    nearby = NEARBY if size > 7.0 else NEARBY[:1]  # in a small panel lines would cover what they lead to
    for k, at in enumerate(shares * whole):
        places = at + nearby * apart
        free = (np.abs(places[:, None] - taken) >= 0.999 * apart).any(axis=2).all(axis=1)
        free &= ((places > 0.5 * apart) & (places < whole - 0.5 * apart)).all(axis=1)
        if not free.any():
            continue
        place = places[free.argmax()]
        taken = np.vstack([taken, place])
        shift = place - at
        drawn = ax.annotate(
            str(k),
            (float(means[k, 0]), float(means[k, 1])),
            xytext=(float(shift[0]), float(shift[1])),
            arrowprops={"arrowstyle": "-", "linewidth": 0.8, "shrinkA": 0.0, "shrinkB": 0.0} if shift.any() else None,
            textcoords="offset points",
            ha="center",
            va="center",
            fontweight="bold",
            fontsize=size,
            zorder=4,
            path_effects=[withStroke(linewidth=3 if size > 7.0 else 2, foreground="white")],
        )
        drawn.set_in_layout(False)  # it lies within the axes, and to find that out takes long


# ---------------------------------------------------------------- frames of a film

Paint = Callable[[Axes, Parameters], None]


def _curve_frames(drawn: list[Parameters], X: Any, pair: list[int], called: list[str], levels: list[float]) -> Paint:
    """Return what draws a frame of one feature, on axes that stay the same."""
    bars = _Bars(drawn, X, None)
    peaks = [
        float(np.exp(cast(Floats, evaluate(bars.grid(p), p.factors, n_threads=1, log_density=True).log_density)).max())
        for p in drawn
    ]
    top = bars.top(max(peaks))

    def paint(ax: Axes, p: Parameters) -> None:
        _curves(ax, p, bars, top=top)
        ax.set_xlabel(_short(called[0], _inches(ax)[0]), parse_math=False)
        ax.set_ylabel("density")

    return paint


def _ellipse_frames(drawn: list[Parameters], X: Any, pair: list[int], called: list[str], levels: list[float]) -> Paint:
    """Return what draws a frame of two features, on axes that stay the same."""
    rows = cast(Floats, _rows(drawn[-1], X))
    few = _thinned(rows, FEW_POINTS)
    ends = np.array([_view(p, None, pair, max([3.1, *levels])) for p in drawn])
    low, high = few[:, pair].min(axis=0), few[:, pair].max(axis=0)
    margin = 0.5 * (high - low)  # a start may have ellipses far larger than the data, which shall be seen
    low = np.minimum(low - 0.1 * margin, np.maximum(ends[:, 0].min(axis=0), low - margin))
    high = np.maximum(high + 0.1 * margin, np.minimum(ends[:, 1].max(axis=0), high + margin))

    def paint(ax: Axes, p: Parameters) -> None:
        _scatter(ax, p, few, pair, called, levels, contours=True, view=(low, high))

    return paint


# ---------------------------------------------------------------- words and places


def _inside(ax: Axes, rows: int, columns: int) -> AnyArray:
    """Return axes, (rows, columns), in the place of `ax`, which is emptied and stays for caption and legend."""
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("ax must be one of a figure's subplots: this picture has several panels, which take its place")
    figure = ax.get_figure()
    assert figure is not None
    ax.set_axis_off()
    inner = place.subgridspec(rows, columns)
    made = np.empty((rows, columns), dtype=object)
    for i in range(rows):
        for j in range(columns):
            made[i, j] = figure.add_subplot(inner[i, j])
    return made


def _of(styles: Sequence[Any], k: int) -> Any:
    return styles[k % len(styles)]


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}{'s' * (number != 1)}"


def _drawn(few: int, all_: int) -> str:
    return f"{few:,} of {all_:,} rows, drawn at random" if few < all_ else _count(all_, "row")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _short(name: str, inches: float, lines: int = 1) -> str:
    """Cut what would not fit along an axis of that length, in so many lines; more than one is small."""
    inches *= 1.3 if lines > 1 else 1.0
    most = max(8, int(inches / WIDE_LETTER))
    if len(name) <= most:
        return name
    return textwrap.fill(name, most, max_lines=lines, placeholder="…") if lines > 1 else f"{name[: most - 1]}…"


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes before the figure is laid out."""
    box, figure = ax.get_position(), ax.get_figure(root=True)
    assert figure is not None
    return box.width * figure.get_figwidth(), box.height * figure.get_figheight()


def _caption(ax: Axes, text: str, panel: Axes | None = None) -> None:
    """Put small words above the axes, wrapped to their width; of several panels, the first is `panel`."""
    wrapped = textwrap.fill(text, max(20, int(_inches(ax)[0] / LETTER)), break_on_hyphens=False)
    ax.set_title(wrapped, loc="left", fontsize=SMALL, color="0.25", parse_math=False)
    if panel is not None and panel is not ax:  # panels know nothing of the axes behind them, and must be told to leave room
        panel.set_title("\n".join(" " * (wrapped.count("\n") + 1)), loc="left", fontsize=SMALL)


def _legend_above(ax: Axes, peak: float, columns: int = 2) -> None:
    """Put the legend inside the axes with as much room over the curves as it needs."""
    handles, labels = ax.get_legend_handles_labels()
    columns = columns if _inches(ax)[0] > 3.5 else 1
    lines = -(-len(handles) // columns)
    room = min(0.6, (lines * 1.6 * SMALL + 12.0) / 72.0 / _inches(ax)[1])
    ax.set_ylim(0.0, peak / (1.0 - room))
    ax.legend(handles, labels, loc="upper center", ncols=columns, fontsize=SMALL, framealpha=0.8, edgecolor="none")


def _legend_beside(ax: Axes, title: str) -> None:
    """Put the legend to the right of the axes, where there is more than one line."""
    handles, labels = ax.get_legend_handles_labels()
    if len(handles) > 1:
        _legend_of(
            ax,
            title,
            handles[:MOST_LISTED],
            labels,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            ncols=1 + (len(handles) > MOST_NAMED),
        )


def _legend_of(ax: Axes, title: str, keys: Sequence[Any], texts: list[str], **options: Any) -> None:
    """Draw a legend of the first lines, and say how many more there are."""
    left = len(texts) - len(keys)
    keys, texts = [*keys, *[Line2D([], [], linestyle="")] * (left > 0)], texts[: len(keys)] + [f"and {left} more"] * (left > 0)
    ax.legend(keys, texts, title=title, fontsize=SMALL, title_fontsize=SMALL, frameon=False, handlelength=2.8, **options)
