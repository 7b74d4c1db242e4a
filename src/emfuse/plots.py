"""Pictures of a mixture, and of the fit that found it.

Each function draws on the axes it is given, or on a new figure of its own that no window belongs to (`.figure.savefig(...)`
writes it), and returns the axes. A figure of your own wants `layout="constrained"`, which makes room for the captions. Nothing is
estimated here: the fitted density is evaluated, on a grid and on the rows shown. Components differ in colour (Okabe & Ito's,
which colour-blind readers can tell apart) and in line style or marker as well, so that they can be told apart in grey.

Layer 5.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from emfuse._typing import AnyArray, Doubles, Floats
from emfuse.em import Fit
from emfuse.engines import as_rows, as_weights, evaluate
from emfuse.parameters import Parameters

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator
except ImportError as error:
    raise ImportError('emfuse.plots needs matplotlib: pip install "emfuse[plot]"') from error

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito without black and yellow
LINES: tuple[Any, ...] = ("--", "-.", (0, (1.2, 1.2)), (0, (8, 2)), (0, (5, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
MOST_POINTS = 5_000
MOST_BINS = 100
MOST_NAMED = 8  # components that a legend lists one by one
SMALL = 8.5  # points
LETTER = 0.5 * SMALL / 72.0  # width of a small letter, inches: titles are wrapped by it


def density(
    mixture: Fit | Parameters,
    X: ArrayLike,
    *,
    ax: Axes | None = None,
    names: Sequence[str] | None = None,
    sample_weight: ArrayLike | None = None,
) -> Axes:
    """Draw a mixture in one dimension over the histogram of the rows: each weighted component, and their sum.

    mixture : Fit or Parameters         with one feature
    X : (N,) or (N, 1) array-like       rows, data units
    ax : Axes or None                   where to draw; None makes a figure
    names : sequence of one str         what the feature is called
    sample_weight : (N,) array-like     row weights of the histogram

    Raises ValueError where the mixture or X has more than one feature.
    """
    p, rows = _parameters(mixture), as_rows(X)
    if p.n_features != 1:
        raise ValueError(f"density draws one feature, and the mixture has {p.n_features}; use components")
    _check(p, rows, names)
    ax = panels(1)[0] if ax is None else ax
    x, v = rows[:, 0], as_weights(sample_weight, len(rows))
    edges = _edges(x)
    heights, _, _ = ax.hist(
        x,
        bins=cast(Any, edges),
        weights=v,
        density=True,
        histtype="stepfilled",
        facecolor="0.9",
        edgecolor="0.75",
        label=f"{len(x):,} row{'s' * (len(x) > 1)}",
    )
    grid = _grid(p, edges[0], edges[-1])
    found = evaluate(grid, p.factors, n_threads=1, log_density=True, responsibilities=True)
    assert found.log_density is not None and found.responsibilities is not None
    whole = np.exp(found.log_density)
    ax.plot(grid, whole, color="0.62", lw=4.5, label="mixture")  # wide: where one component is all of it, both are seen
    for k in range(p.n_components):
        if p.n_components <= MOST_NAMED:
            label = f"component {k}, weight {p.weights[k]:.2g}"
        else:
            label = f"{p.n_components} components" if k == 0 else "_nolegend_"
        ax.plot(grid, whole * found.responsibilities[:, k], color=_of(COLOURS, k), linestyle=_of(LINES, k), lw=1.8, label=label)
    ax.set_xlim(float(grid[0]), float(grid[-1]))
    ax.set_xlabel("x" if names is None else names[0], parse_math=False)
    ax.set_ylabel("density")
    _legend_above(ax, float(max(whole.max(), cast(AnyArray, heights).max())))
    return ax


def components(
    mixture: Fit | Parameters,
    X: ArrayLike,
    *,
    ax: Axes | None = None,
    features: tuple[int, int] = (0, 1),
    names: Sequence[str] | None = None,
) -> Axes:
    """Draw two features of a mixture: rows by component, ellipses, and faint contours of the density.

    A row has the colour and marker of its most likely component, and is paler the less certain that is. Each component has
    ellipses at 1 (solid) and 2 (dashed) standard deviations, and its number at its mean. Contours are those of the mixture's
    density in these two features. Of more than 5,000 rows, 5,000 are drawn, chosen at random, always the same ones.

    mixture : Fit or Parameters      with D features, at least two
    X : (N, D) array-like            rows, data units
    ax : Axes or None                where to draw; None makes a figure
    features : two ints              which features, across and up
    names : sequence of D str        what the features are called

    Raises ValueError where X, `features` or `names` do not fit the mixture.
    """
    p, rows = _parameters(mixture), as_rows(X)
    if p.n_features < 2:
        raise ValueError("components draws two features, and the mixture has 1; use density")
    _check(p, rows, names)
    across, up = (int(d) for d in features)
    if across == up or not (0 <= across < p.n_features and 0 <= up < p.n_features):
        raise ValueError(f"features must be two different ones of 0 to {p.n_features - 1}, got {tuple(features)}")
    ax = panels(1)[0] if ax is None else ax
    shown = _thinned(rows)
    found = evaluate(shown, p.factors, n_threads=1, labels=True, responsibilities=True)
    assert found.labels is not None and found.responsibilities is not None
    certainty = 0.3 + 0.7 * found.responsibilities.max(axis=1)  # never invisible
    size = float(np.clip(6000.0 / len(shown), 5.0, 22.0))  # points squared
    opacity = float(np.clip(1000.0 / len(shown), 0.3, 0.75))
    for k in range(p.n_components):
        mine = found.labels == k
        if mine.any():
            style: dict[str, Any] = {"color": _of(COLOURS, k), "marker": _of(MARKERS, k), "alpha": opacity * certainty[mine]}
            ax.scatter(shown[mine, across], shown[mine, up], s=size, linewidths=0, rasterized=True, zorder=1, **style)

    pair = [across, up]
    means, covariances = p.means[:, pair], p.covariance_matrices[:, pair][:, :, pair]
    reach = 3.1 * p.sds[:, pair]  # room for the outermost contour
    low = np.minimum(shown[:, pair].min(axis=0), (means - reach).min(axis=0))
    high = np.maximum(shown[:, pair].max(axis=0), (means + reach).max(axis=0))
    margin = 0.04 * (high - low)
    low, high = low - margin, high + margin
    _contours(ax, Parameters(p.weights, means, covariances), low, high)
    for k in range(p.n_components):
        _ellipses(ax, means[k], covariances[k], _of(COLOURS, k))
    _numbers(ax, means, (means - low) / (high - low))
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    called = [f"feature {d}" for d in range(p.n_features)] if names is None else names
    ax.set_xlabel(called[across], parse_math=False)
    ax.set_ylabel(called[up], parse_math=False)
    drawn = f"{len(shown):,} of {len(rows):,} rows, drawn at random" if len(shown) < len(rows) else f"{len(rows):,} rows"
    _caption(ax, f"{drawn}, paler where less certain; ellipses at 1 (solid) and 2 (dashed) standard deviations")
    return ax


def trace(fit: Fit, *, ax: Axes | None = None) -> Axes:
    """Draw a fit's log-likelihood, in nats, sweep by sweep, under the reason why it stopped.

    ax : Axes or None    where to draw; None makes a figure
    """
    ax = panels(1)[0] if ax is None else ax
    ax.plot(np.arange(len(fit.trace)), fit.trace, color=COLOURS[0], marker="o" if len(fit.trace) <= 100 else "", markersize=3.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.ticklabel_format(axis="y", useOffset=False, style="plain")
    ax.set_xlabel("sweep")
    ax.set_ylabel("log-likelihood (nats)")
    state = "Converged" if fit.converged else "Stopped before convergence"
    _caption(ax, f"{state} after {fit.sweeps} sweep{'s' * (fit.sweeps != 1)}: {fit.reason}")
    return ax


def panels(count: int) -> list[Axes]:
    """Return `count` axes side by side on a new figure that pyplot does not know, so no window opens and none must be closed."""
    figure = Figure(figsize=(0.8 + 4.6 * count, 4.6), layout="constrained")
    return list(figure.subplots(1, count, squeeze=False)[0])


def _parameters(mixture: object) -> Parameters:
    found = mixture.parameters if isinstance(mixture, Fit) else mixture
    if not isinstance(found, Parameters):
        raise TypeError(f"mixture must be emfuse.Fit or emfuse.Parameters, got {type(mixture).__name__}")
    return found


def _check(p: Parameters, rows: Floats, names: Sequence[str] | None) -> None:
    if rows.shape[1] != p.n_features:
        raise ValueError(f"X has {rows.shape[1]} features, but the mixture has {p.n_features}")
    if names is not None and len(names) != p.n_features:
        raise ValueError(f"names must have {p.n_features} entries, one a feature, got {len(names)}")


def _of(styles: Sequence[Any], k: int) -> Any:
    return styles[k % len(styles)]


def _thinned(rows: Floats) -> Floats:
    if len(rows) <= MOST_POINTS:
        return rows
    return rows[np.sort(np.random.default_rng(0).choice(len(rows), MOST_POINTS, replace=False))]


def _edges(x: Floats) -> Doubles:
    """Return the edges of about sqrt(N) bins; of whole numbers each bin holds equally many, or the histogram would be a comb."""
    low, high = float(x.min()), float(x.max())
    bins = int(np.clip(np.sqrt(len(x)), 10, MOST_BINS))
    if high - low >= 10.0 and np.array_equal(x, np.round(x)):
        width = max(1.0, np.round((high - low) / bins))
        return np.arange(low - 0.5, high + width, width)
    edges = np.unique(np.linspace(low, high, bins + 1))
    return edges if len(edges) > 1 else low + max(1.0, abs(low)) * np.array([-0.5, 0.5])


def _grid(p: Parameters, low: float, high: float) -> Doubles:
    """Return points across the data, and closer ones about each mean, so that a narrow component is drawn with its peak."""
    margin = 0.05 * (high - low)
    about = p.means[:, 0] + p.sds[:, 0] * np.linspace(-4.0, 4.0, 81)[:, None]
    ends = low - margin, high + margin
    return np.unique(np.concatenate([np.linspace(*ends, 401), about[(about > ends[0]) & (about < ends[1])]]))


def _contours(ax: Axes, p: Parameters, low: Doubles, high: Doubles) -> None:
    """Contours where the log density is 1/2, 2 and 9/2 below its peak: 1, 2 and 3 standard deviations of one Gaussian alone."""
    x, y = (np.linspace(low[d], high[d], 200) for d in range(2))
    grid = np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1)
    found = evaluate(grid, p.factors, n_threads=1, log_density=True).log_density
    assert found is not None
    levels = found.max() - np.array([4.5, 2.0, 0.5])
    ax.contour(x, y, found.reshape(200, 200), levels=levels, colors="0.7", linestyles="solid", linewidths=0.6, zorder=0.5)


def _ellipses(ax: Axes, mean: Doubles, covariance: Doubles, colour: str) -> None:
    variances, directions = np.linalg.eigh(covariance)
    widths = 2.0 * np.sqrt(np.maximum(variances, 0.0))
    angle = float(np.degrees(np.arctan2(directions[1, 1], directions[0, 1])))
    for sds, line in ((1, "-"), (2, "--")):
        ax.add_patch(
            Ellipse(
                (float(mean[0]), float(mean[1])),
                sds * widths[1],
                sds * widths[0],
                angle=angle,
                fill=False,
                edgecolor=colour,
                linestyle=line,
                linewidth=1.8,
                zorder=3,
                path_effects=[withStroke(linewidth=3, foreground="white", alpha=0.7)],
            )
        )


def _numbers(ax: Axes, means: Doubles, shares: Doubles) -> None:
    """Write each component's number at its mean, or above the numbers already there, with a line from the mean.

    shares : (K, 2)    where the means are, in shares of the axes' width and height
    """
    taken: list[Doubles] = []
    for k, at in enumerate(shares * _inches(ax) * 72.0):
        place = at.copy()
        while any(abs(place[0] - other[0]) < 14.0 and abs(place[1] - other[1]) < 12.0 for other in taken):
            place[1] += 12.0
        taken.append(place)
        shift = float(place[1] - at[1])
        ax.annotate(
            str(k),
            (float(means[k, 0]), float(means[k, 1])),
            xytext=(0.0, shift),
            arrowprops={"arrowstyle": "-", "linewidth": 0.8, "shrinkA": 0.0, "shrinkB": 0.0} if shift else None,
            textcoords="offset points",
            ha="center",
            va="center",
            fontweight="bold",
            zorder=4,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes before the figure is laid out."""
    box, figure = ax.get_position(), ax.get_figure(root=True)
    assert figure is not None
    return box.width * figure.get_figwidth(), box.height * figure.get_figheight()


def _caption(ax: Axes, text: str) -> None:
    """Put small words above the axes, wrapped to their width."""
    letters = max(20, int(_inches(ax)[0] / LETTER))
    ax.set_title(textwrap.fill(text, letters, break_on_hyphens=False), loc="left", fontsize=SMALL, color="0.25", parse_math=False)


def _legend_above(ax: Axes, peak: float) -> None:
    """Put the legend inside the axes with as much room over the curves as it needs."""
    handles, labels = ax.get_legend_handles_labels()
    columns = 2 if _inches(ax)[0] > 3.5 else 1
    lines = -(-len(handles) // columns)
    room = min(0.6, (lines * 1.6 * SMALL + 12.0) / 72.0 / _inches(ax)[1])
    ax.set_ylim(0.0, peak / (1.0 - room))
    ax.legend(handles, labels, loc="upper center", ncols=columns, fontsize=SMALL, frameon=False)
