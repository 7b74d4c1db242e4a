"""Pictures: what is drawn, on which axes, and that nothing else changes.

`tests/pictures/` keeps how each of them looked when somebody last looked: after a change that was meant, look at what
`python tests/test_plots.py --record` writes there.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Ellipse
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import emfuse
from emfuse import plots
from emfuse.stopping import Limit

ONE = emfuse.Parameters.univariate([0.25, 0.75], [0.0, 10.0], [1.0, 2.0])
TWO = emfuse.Parameters([0.25, 0.75], [[0.0, 0.0], [10.0, 5.0]], [[[1.0, 0.0], [0.0, 9.0]], [[4.0, 1.0], [1.0, 1.0]]])
FIVE = emfuse.Parameters([0.4, 0.6], [[0.0] * 5, [5.0] * 5], [1.0, 4.0], "spherical")
DRAWERS = {  # of a picture: whose fit and rows it shows, and how it is drawn
    "density": (ONE, lambda fit, X, ax: plots.density(fit, X, ax=ax)),
    "density of two": (TWO, lambda fit, X, ax: plots.density(fit, X, ax=ax)),
    "components": (TWO, lambda fit, X, ax: plots.components(fit, X, ax=ax)),
    "matrix": (FIVE, lambda fit, X, ax: plots.components(fit, X, ax=ax)),
    "trace": (TWO, lambda fit, X, ax: plots.trace(fit, ax=ax)),
    "gap": (TWO, lambda fit, X, ax: plots.trace(fit, ax=ax, gap=True)),
    "history": (FIVE, lambda fit, X, ax: plots.history(fit, ax=ax, feature=1)),
    "uncertainty": (ONE, lambda fit, X, ax: plots.uncertainty(fit, X, ax=ax)),
    "uncertainty of two": (TWO, lambda fit, X, ax: plots.uncertainty(fit, X, ax=ax)),
    "responsibilities": (ONE, lambda fit, X, ax: plots.responsibilities(fit, X, ax=ax)),
    "strips": (TWO, lambda fit, X, ax: plots.responsibilities(fit, X, ax=ax)),
    "selection": (TWO, lambda fit, X, ax: plots.selection(chosen_from(), ax=ax)),
    "bootstrap": (TWO, lambda fit, X, ax: plots.bootstrap(outcome([1.0, 2.0, 4.0], 3.0), ax=ax)),
}
SEVERAL = ("matrix", "history")  # panels in the place of the axes


PICTURES = Path(__file__).parent / "pictures"
LIKENED = [name for name in DRAWERS if name != "strips"]  # whose one edge falls a dot lower with another matplotlib
MOST_APART = 3.0  # of 255, root mean square: dashes that change give 5, and matplotlib 3.10 beside 3.11 2


def drawing(name, ax=None):
    """The named picture of a small fit, on axes that may be given."""
    p, drawn = DRAWERS[name]
    X, _ = p.sample(200, 0)
    return drawn(emfuse.em(X, p, stop=3, history=True), X, ax)


def save_without_words(name, path):
    """Words are left out, since every version of the fonts draws them a little differently; other tests read them."""
    figure = drawing(name).figure
    figure.set_size_inches(5.0, 4.0)  # whole dots, which rounding leaves as they are
    for words in [*figure.findobj(Text), *figure.findobj(Legend)]:
        words.set_visible(False)
    figure.savefig(path, dpi=50)


@pytest.fixture
def draw():
    """Function that draws the named picture of a small fit, on axes that may be given."""
    return drawing


def chosen_from(criterion="bic", structures=("full", "diag"), best=None):
    """A selection: BIC is 100 + (K - 3)^2, and 1 more for every structure after the first; K = 5 of the last failed."""
    rows = [
        SimpleNamespace(K=K, structure=s, bic=100.0 + (K - 3) ** 2 + i) for i, s in enumerate(structures) for K in range(1, 6)
    ]
    rows[-1].bic = np.nan
    return SimpleNamespace(rows=rows, criterion=criterion, best=best)


def outcome(null_statistics, statistic):
    """The outcome of a test."""
    return SimpleNamespace(null_statistics=np.array(null_statistics), statistic=statistic, p_value=0.25)


def line(ax, label):
    """The (x, y) of the line with that label."""
    (found,) = [each for each in ax.lines if each.get_label().startswith(label)]
    return found.get_data()


def ellipses(ax):
    """The ellipses on the axes."""
    return [patch for patch in ax.patches if isinstance(patch, Ellipse)]


def scattered(ax):
    """The points of each component, (n, 2)."""
    return [each.get_offsets() for each in ax.collections if isinstance(each, PathCollection)]


def test_a_density_is_that_of_the_mixture():
    """0.25 N(0, 1) + 0.75 N(10, 4): at a mean the other component has 6e-7 at most, and its own 1 / (sd sqrt(2 pi))."""
    x, y = line(plots.density(ONE, [-1.0, 12.0]), "mixture")
    assert y[x == 0.0] == pytest.approx(0.25 / np.sqrt(2 * np.pi), abs=2e-6)
    assert y[x == 10.0] == pytest.approx(0.75 / np.sqrt(8 * np.pi), abs=2e-6)


def test_weighted_components_sum_to_the_mixture():
    """What is drawn for component k is w_k N_k: eight roundings of shares, products and sums."""
    ax = plots.density(ONE, [-1.0, 12.0])
    total = line(ax, "component 0")[1] + line(ax, "component 1")[1]
    np.testing.assert_allclose(total, line(ax, "mixture")[1], rtol=8 * np.finfo(float).eps)


def test_a_narrow_component_is_drawn_with_its_peak():
    """The grid has the mean of every component, however narrow beside the data."""
    x, _ = line(plots.density(emfuse.Parameters.univariate([0.5, 0.5], [0.0, 1 / 3], [1.0, 1e-9]), [-5.0, 5.0]), "mixture")
    assert 1 / 3 in x


def test_a_peak_far_above_the_bars_is_cut_off_and_it_is_said():
    """A component on one value is 4e8 high: the bars, at most 1 / 2 here, are seen nevertheless."""
    ax = plots.density(emfuse.Parameters.univariate([0.5, 0.5], [0.0, 1 / 3], [1.0, 1e-9]), np.linspace(-2.0, 2.0, 100))
    assert ax.get_ylim()[1] < 2.0
    assert ax.get_title("left") == "the peak of 1.99e+08 is cut off"


def test_bins_hold_equally_many_whole_numbers():
    """A histogram of 0 .. 99, once each, is flat: no bin has a number more than another."""
    heights = plots.density(emfuse.Parameters.univariate([1.0], [50.0], [20.0]), np.arange(100)).patches[0].get_data().values
    assert len(np.unique(heights.round(12))) == 1


def test_a_weighted_histogram_is_that_of_repeated_rows():
    """Weight two is the row twice."""
    x, v = np.array([0.0, 3.5, 11.25]), np.array([1, 2, 2])
    weighted, repeated = plots.density(ONE, x, sample_weight=v), plots.density(ONE, np.repeat(x, v))
    np.testing.assert_allclose(weighted.patches[0].get_data().values, repeated.patches[0].get_data().values)


def test_counts_in_bins_are_drawn_as_they_are():
    """A bar is a bin's share of all rows over its width; open bins have no bar, though their rows count."""
    bins = emfuse.Binned([-np.inf, 0.0, 1.0, 3.0, np.inf], [10, 20, 60, 10])
    bars = plots.density(ONE, bins).patches[0].get_data()
    assert bars.edges.tolist() == [0.0, 1.0, 3.0]
    np.testing.assert_allclose(bars.values, [0.2, 0.3])


def test_the_axis_reaches_both_the_data_and_the_components():
    """Rows from 4 to 6 under components at 0 and 10: half of the data's width more on each side, and no more."""
    ax = plots.density(ONE, [4.0, 6.0])
    assert ax.get_xlim() == pytest.approx((3.0, 7.0))
    assert plots.density(ONE, [-3.1, 19.9]).get_xlim() == pytest.approx((-3.1 - 1.15, 19.9 + 1.15))  # a twentieth, where enough


def test_a_mixture_is_drawn_without_rows():
    """No histogram and no points: only what the parameters say."""
    assert not plots.density(ONE).patches
    assert not scattered(plots.components(TWO))
    assert len(ellipses(plots.components(TWO))) == 4


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_contour_holds_the_share_of_the_mixture_that_is_said(share):
    """Of one Gaussian, the smallest region with that share is an ellipse at sqrt(-2 log(1 - share)) standard deviations.

    Within a hundredth: the view ends at 3.2 standard deviations, and the level is that of one of the grid's points.
    """
    C = np.array([[4.0, 1.0], [1.0, 1.0]])
    ax = plots.density(emfuse.Parameters([1.0], [[10.0, 5.0]], [C]), levels=[share])
    (contour,) = [each for each in ax.collections if isinstance(each, ContourSet)]
    d = contour.get_paths()[0].vertices - [10.0, 5.0]
    distance = np.sqrt(np.einsum("ni,ij,nj->n", d, np.linalg.inv(C), d))
    np.testing.assert_allclose(distance, np.sqrt(-2.0 * np.log(1.0 - share)), rtol=0.01)


def test_many_rows_are_counted_in_hexagons():
    """Of 20,000 rows each is in one of them, and the caption says how many there are."""
    X = TWO.sample(20_000, 0)[0]
    ax = plots.density(TWO, X)
    (hexagons,) = [each for each in ax.collections if isinstance(each, PolyCollection)]
    assert hexagons.get_array().sum() == 20_000
    assert ax.get_title("left").startswith("20,000 rows, counted in hexagons; contours hold 50%, 90% and 99%")


def test_many_components_have_one_line_of_the_legend():
    """Twenty components are drawn, and named together."""
    p = emfuse.Parameters.univariate(np.full(20, 0.05), np.arange(20.0), np.ones(20))
    ax = plots.density(p, np.arange(20.0))
    assert len(ax.lines) == 21
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["20 rows", "mixture", "20 components"]


def test_ellipses_have_1_and_2_standard_deviations():
    """For a diagonal covariance, full axes of 2 and 4 standard deviations: (1, 3) here, in either order of width and height."""
    drawn = ellipses(plots.components(TWO, [[0.0, 0.0]]))
    assert len(drawn) == 4
    assert [sorted((e.width, e.height)) for e in drawn[:2]] == [pytest.approx([2.0, 6.0]), pytest.approx([4.0, 12.0])]


def test_ellipses_are_at_the_levels_asked_for():
    """One for each, as many standard deviations wide as is said; the caption names them with their line styles."""
    ax = plots.components(TWO, [[0.0, 0.0]], levels=[0.5, 3.0, 1.5])
    assert [max(e.width, e.height) for e in ellipses(ax)[:3]] == pytest.approx([3.0, 18.0, 9.0])
    assert "ellipses: 0.5 (solid), 3 (dashed) and 1.5 (dotted) standard deviations" in " ".join(ax.get_title("left").split())
    box = ax.viewLim
    assert box.y0 < -9.0 and box.y1 > 9.0  # 3 standard deviations of 3: nothing is clipped


def test_the_axes_of_an_ellipse_are_eigenvalues():
    """At 1 standard deviation its full axes are twice the square roots of the covariance's eigenvalues, whatever its slant."""
    drawn = ellipses(plots.components(TWO, levels=[1.0]))[1]
    expected = 2.0 * np.sqrt(np.linalg.eigvalsh([[4.0, 1.0], [1.0, 1.0]]))
    np.testing.assert_allclose(sorted((drawn.width, drawn.height)), expected)


def test_more_features_are_drawn_as_a_scatter_matrix():
    """Of five features ten pairs, below five densities; the names stand at the edge only; the axes behind them are empty."""
    ax = plots.components(FIVE, FIVE.sample(50, 0)[0], names=list("abcde"))
    parts = [part for part in ax.figure.axes if part is not ax and part.axison]
    pairs = [part for part in parts if ellipses(part)]
    assert (len(parts), len(pairs)) == (15, 10)
    assert [part.get_xlabel() for part in parts if part.get_xlabel()] == list("abcde")
    assert [part.get_ylabel() for part in parts if part.get_ylabel()] == list("abcde")
    assert not ax.axison and not ax.collections and not ax.lines


def test_of_many_features_the_first_six_are_drawn_and_it_is_said():
    """Nobody reads 50 x 50 panels; any others can be asked for."""
    p = emfuse.Parameters([1.0], [np.arange(50.0)], [1.0], "spherical")
    ax = plots.components(p)
    assert len([part for part in ax.figure.axes if ellipses(part)]) == 15
    assert "the first 6 of 50 features" in ax.get_title("left")
    asked = plots.components(p, features=[40, 41, 42])
    assert [part.get_xlabel() for part in asked.figure.axes if part.axison and part.get_xlabel()] == [
        "feature 40",
        "feature 41",
        "feature 42",
    ]


def test_a_matrix_has_as_many_panels_as_its_place_has_room_for():
    """In axes of a few inches a pair is drawn rather than what nobody could read."""
    ax = Figure(figsize=(3.0, 3.0)).subplots()
    assert plots.components(FIVE, ax=ax) is ax
    assert len(ellipses(ax)) == 4
    assert "the first 2 of 5 features" in ax.get_title("left")


def test_an_ellipse_touches_its_features_standard_deviations():
    """The box around a slanted 1 standard deviation ellipse is the mean and +- 1 standard deviation of each feature."""
    ax = plots.components(TWO, [[0.0, 0.0]])
    outline = ax.patches[2].get_transform().transform_path(ax.patches[2].get_path())
    box = ax.transData.inverted().transform_bbox(outline.get_extents())
    np.testing.assert_allclose(box.get_points(), [[10.0 - 2.0, 5.0 - 1.0], [10.0 + 2.0, 5.0 + 1.0]], rtol=1e-3)  # Bezier arcs


def test_rows_are_drawn_with_their_component():
    """One collection of points for each component that has rows, of as many points as rows."""
    ax = plots.components(TWO, [[0.0, 0.0], [10.0, 5.0], [10.0, 4.0]])
    assert [len(points) for points in scattered(ax)] == [1, 2]


def test_two_of_three_features_are_drawn_as_asked():
    """`features` chooses what goes across and up, and the names with them."""
    p = emfuse.Parameters([1.0], [[1.0, 2.0, 3.0]], [1.0], "spherical")
    ax = plots.components(p, [[10.0, 20.0, 30.0]], features=(2, 0), names=["a", "b", "c"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("c", "a")
    assert scattered(ax)[0].tolist() == [[30.0, 10.0]]


def test_numbers_of_components_do_not_overlap():
    """Components with one and the same mean have their numbers above each other."""
    ax = plots.components(emfuse.Parameters(np.full(3, 1 / 3), np.zeros((3, 2)), np.ones(3), "spherical"), [[0.0, 0.0]])
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the mean
    assert len(boxes) == 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_million_rows_are_thinned_and_it_is_said():
    """5,000 rows are drawn, always the same ones, and the caption says so."""
    X = np.random.default_rng(0).standard_normal((1_000_000, 2))
    drawn = [np.concatenate(scattered(plots.components(TWO, X))) for _ in range(2)]
    assert len(drawn[0]) == 5_000
    np.testing.assert_array_equal(*drawn)
    assert plots.components(TWO, X).get_title("left").startswith("5,000 of 1,000,000 rows, drawn at random")


def test_a_trace_is_the_fits():
    """One point a sweep, in nats."""
    fit = emfuse.em(ONE.sample(100, 0)[0], ONE, stop=3)
    ax = plots.trace(fit)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), fit.trace)
    assert ax.get_ylabel() == "log-likelihood (nats)"


def test_the_gap_is_to_the_last_on_a_log_scale():
    """What is drawn is what is missing to the last one, which itself has no logarithm."""
    fit = emfuse.em(ONE.sample(100, 0)[0], ONE, stop=2)
    ax = plots.trace(fit, gap=True)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), fit.trace[-1] - fit.trace[:-1])
    assert ax.get_yscale() == "log"


def test_a_gap_of_nothing_can_be_drawn():
    """A fit that stopped where it began has nothing below the last: no line, and no logarithm of 0."""
    ax = plots.trace(emfuse.em([0.0, 1.0, 3.0], ONE, stop=lambda trace: "enough"), gap=True)
    ax.figure.draw_without_rendering()
    assert not len(ax.lines[0].get_ydata())


def test_a_step_is_not_called_a_sweep_where_it_is_not_one():
    """With acceleration, or after repairs, there are more sweeps than entries of the trace."""
    fit = emfuse.em(ONE.sample(100, 0)[0], ONE, stop=3)
    assert plots.trace(fit).get_xlabel() == "sweep"
    assert plots.trace(replace(fit, sweeps=5)).get_xlabel() == "step"


def test_a_history_is_the_fits():
    """Weights, means and standard deviations by sweep, a line for each component."""
    fit = emfuse.em(ONE.sample(100, 0)[0], ONE, stop=4, history=True)
    parts = [part for part in plots.history(fit).figure.axes if part.lines]
    assert [part.get_ylabel() for part in parts] == ["weight", "mean", "standard deviation"]
    for part, of in zip(parts, (lambda p: p.weights, lambda p: p.means[:, 0], lambda p: p.sds[:, 0]), strict=True):
        for k in range(2):
            x, y = part.lines[k].get_data()
            assert x.tolist() == [0, 1, 2, 3, 4]
            np.testing.assert_array_equal(y, [of(each.parameters)[k] for each in fit.history])


@pytest.mark.parametrize("p", [ONE, TWO])
def test_uncertainty_is_what_is_missing_to_the_largest_responsibility(p):
    """1 - max_k r_nk of each row; on top are the most uncertain."""
    X = p.sample(50, 0)[0]
    expected = 1.0 - emfuse.engines.evaluate(X, p.factors, responsibilities=True).responsibilities.max(axis=1)
    (points,) = [each for each in plots.uncertainty(p, X).collections if isinstance(each, PathCollection)]
    if p is ONE:
        np.testing.assert_allclose(points.get_offsets()[:, 1], expected, atol=1e-15)  # an eps of a number up to 1
    else:
        np.testing.assert_allclose(points.get_array(), np.sort(expected), atol=1e-15)


def test_responsibilities_of_one_feature_sum_to_one():
    """A curve for each component; at any place they share one row."""
    ax = plots.responsibilities(ONE, [0.0, 5.0, 10.0])
    curves = [each.get_ydata() for each in ax.lines[:2]]
    np.testing.assert_allclose(sum(curves), 1.0, rtol=1e-14)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1"]


def test_strips_have_every_row_by_its_component():
    """Three rows, two of component 1: that of component 0 comes first, then the others, the more certain one before."""
    X = [[10.0, 5.0], [0.0, 0.0], [4.0, 3.0]]
    shown = emfuse.engines.evaluate(X, TWO.factors, responsibilities=True).responsibilities
    np.testing.assert_allclose(plots.responsibilities(TWO, X).images[0].get_array(), shown[[1, 0, 2]].T)


def test_strips_of_many_rows_are_means():
    """5,000 rows have no column each; the mean over a component's strip stays what it is."""
    X = TWO.sample(5_000, 0)[0]
    shown = emfuse.engines.evaluate(X, TWO.factors, responsibilities=True).responsibilities
    strips = plots.responsibilities(TWO, X).images[0].get_array()
    assert strips.shape == (2, plots.MOST_COLUMNS)
    np.testing.assert_allclose(
        strips.mean(axis=1), shown.mean(axis=0), atol=2e-3
    )  # columns of 8 rows weigh as much as those of 9


def test_a_selection_has_a_line_for_each_structure_and_marks_the_best():
    """BIC against K; what failed is a gap; the smallest has a circle, and the caption says which it is."""
    ax = plots.selection(chosen_from())
    np.testing.assert_array_equal(line(ax, "full"), [[1, 2, 3, 4, 5], [104.0, 101.0, 100.0, 101.0, 104.0]])
    np.testing.assert_array_equal(line(ax, "diag")[1], [105.0, 102.0, 101.0, 102.0, np.nan])
    assert [float(value[0]) for value in line(ax, "best")] == [3.0, 100.0]
    assert ax.get_title("left") == "BIC is best for full with 3 components; 1 of 10 fits failed"


def test_what_is_far_worse_does_not_flatten_the_rest():
    """One component alone a thousand worse: the axis ends at twice the upper quartile's distance from the best, and says so."""
    given = chosen_from(structures=["full"])
    given.rows[0].bic, given.rows[-1].bic = 1100.0, 104.0  # 101, 100, 101, 104 between them: an upper quartile of 104
    ax = plots.selection(given)
    assert ax.get_ylim()[1] == pytest.approx(108.0)
    assert ax.get_title("left") == "BIC is best for full with 3 components; above 108 it is cut off"


def test_a_selection_says_itself_which_is_best():
    """`best` may be a row or a fit; rows may be mappings, and come as `table`."""
    row = {"K": 2, "structure": "diag"}
    fit = SimpleNamespace(parameters=SimpleNamespace(n_components=2, structure="diag"))
    for best in (row, fit):
        given = chosen_from(best=best)
        table = [vars(each) for each in given.rows]
        ax = plots.selection(SimpleNamespace(table=table, criterion="BIC", best=best))
        assert [float(value[0]) for value in line(ax, "best")] == [2.0, 102.0]


def test_fourteen_structures_can_be_told_apart():
    """No two lines have colour, style and marker in common."""
    ax = plots.selection(chosen_from(structures=list("abcdefghijklmn")))
    styles = {(each.get_color(), each.get_linestyle(), each.get_marker()) for each in ax.lines[:14]}
    assert len(styles) == 14


def test_a_bootstrap_is_counted_and_the_observed_statistic_drawn():
    """Those that failed are left out, and counted in the caption."""
    ax = plots.bootstrap(outcome([1.0, 2.0, np.nan, 4.0], 3.0))
    assert ax.get_title("left") == "3 bootstrap samples; 1 more failed"
    x, _ = line(ax, "observed: 3, p = 0.25")
    assert list(x) == [3.0, 3.0]


def test_the_picture_that_fits_is_drawn():
    """One feature: density. More: components. A selection and a test: theirs."""
    assert plots.plot(ONE, [1.0]).get_ylabel() == "density"
    assert len(ellipses(plots.plot(TWO))) == 4
    assert plots.plot(chosen_from()).get_xlabel() == "number of components"
    assert plots.plot(outcome([1.0], 2.0)).get_xlabel() == "statistic"


def test_features_are_called_as_columns_are():
    """Of a data frame, and of a series; names that are given come first."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"length (mm)": [0.0, 10.0], "width (mm)": [0.0, 5.0]})
    ax = plots.components(TWO, frame)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length (mm)", "width (mm)")
    assert plots.components(TWO, frame, names=["a", "b"]).get_xlabel() == "a"
    assert plots.density(ONE, frame["width (mm)"]).get_xlabel() == "width (mm)"
    assert plots.density(ONE, [1.0, 2.0], names="time (s)").get_xlabel() == "time (s)"


def test_a_trace_says_why_it_stopped_in_whole():
    """The reason is wrapped, and not a word of it is lost; signs of mathematics in it are plain text."""
    reason = "the cost of $\\frac was more than anyone had thought it could ever be when all of this began, " * 3 + "alas"
    ax = plots.trace(emfuse.em([0.0, 1.0, 3.0], ONE, stop=lambda trace: Limit(reason)))
    ax.figure.draw_without_rendering()
    assert " ".join(ax.get_title("left").split()) == f"Stopped before convergence after 1 sweep: {reason}"


@pytest.mark.parametrize("name", LIKENED)
def test_a_picture_looks_as_it_did(name, tmp_path):
    """Dot by dot, but for its words."""
    kept, made = PICTURES / f"{name.replace(' ', '_')}.png", tmp_path / "made.png"
    save_without_words(name, made)
    assert compare_images(str(kept), str(made), tol=MOST_APART) is None


@pytest.mark.parametrize("name", DRAWERS)
def test_nothing_is_cut_off(name, draw):
    """Every word and every axis lies within the figure."""
    ax = draw(name)
    ax.figure.draw_without_rendering()
    inner, outer = ax.get_tightbbox(), ax.figure.bbox
    assert outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1


@pytest.mark.parametrize("name", DRAWERS)
def test_given_axes_are_drawn_on_and_returned(name, draw):
    """`ax` is where it is drawn; no other figure is made."""
    figure = Figure(figsize=(12.0, 6.0), layout="constrained")
    ax, other = figure.subplots(1, 2)
    assert draw(name, ax) is ax
    assert not other.lines + list(other.collections) + list(other.patches)
    if name in SEVERAL:
        ax = figure.axes[2]
    assert ax.get_ylabel() and ax.lines + list(ax.collections) + list(ax.images) + list(ax.patches)


@pytest.mark.parametrize("name", SEVERAL)
def test_panels_want_a_subplot_to_stand_in(name, draw):
    """Axes that were put somewhere by hand have no place that could be divided."""
    with pytest.raises(ValueError, match="ax must be one of a figure's subplots"):
        draw(name, Figure(figsize=(9.0, 9.0)).add_axes((0.0, 0.0, 1.0, 1.0)))


@pytest.mark.parametrize("name", SEVERAL)
def test_a_caption_does_not_lie_over_the_panels(name, draw):
    """It stands above the first of them, however many lines it has."""
    ax = draw(name)
    ax.figure.draw_without_rendering()
    caption = ax._left_title.get_window_extent()
    assert not any(caption.overlaps(part.bbox) for part in ax.figure.axes if part is not ax and part.axison)


@pytest.mark.parametrize("p", [ONE, TWO])
def test_data_is_not_touched(p):
    """Rows are as before, to the last bit, and may be read-only."""
    X = p.sample(6_000, 0)[0]
    before = X.copy()
    X.flags.writeable = False
    (plots.density if p is ONE else plots.components)(p, X)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("scale", [1e-140, 1.0, 1e140])
def test_any_unit_can_be_drawn(scale):
    """Rows and mixture in units however small or large."""
    x = np.random.default_rng(0).standard_normal((50, 2))
    plots.density(emfuse.Parameters.univariate([1.0], [0.0], [scale]), scale * x[:, 0])
    p = emfuse.Parameters([1.0], [[0.0, 0.0]], [scale * scale], "spherical")
    for picture in (plots.components, plots.density, plots.uncertainty):
        picture(p, scale * x).figure.draw_without_rendering()


def test_one_row_can_be_drawn():
    """Data without any width has a histogram and a scatter too."""
    plots.density(ONE, [1e9])
    for picture in (plots.components, plots.density, plots.uncertainty, plots.responsibilities):
        picture(TWO, [[1e9, 1e9]]).figure.draw_without_rendering()


def test_a_name_longer_than_the_axis_is_cut():
    """A hundred letters would be lost on both sides of the figure."""
    ax = plots.density(ONE, [0.0, 1.0], names="w" * 100)
    ax.figure.draw_without_rendering()
    assert ax.get_xlabel().endswith("…") and len(ax.get_xlabel()) > 30
    assert plots.density(ONE, [0.0, 1.0], names="waiting time (minutes)").get_xlabel() == "waiting time (minutes)"


def test_names_are_plain_text():
    """A column called "$x^{$" is not mathematics."""
    ax = plots.components(TWO, [[0.0, 0.0]], names=["$x^{$", "$y$"])
    ax.figure.draw_without_rendering()
    assert ax.get_xlabel() == "$x^{$"


@pytest.mark.parametrize(
    ("name", "args", "options", "message"),
    [
        ("components", (ONE, [0.0]), {}, "components draws two features, and the mixture has 1; use density"),
        ("components", (TWO, [0.0]), {}, "X has 1 features, but the mixture has 2"),
        ("components", (TWO, [[0.0, 0.0]]), {"features": (0, 2)}, r"features must be two different ones of 0 to 1, got \(0, 2\)"),
        ("components", (TWO, [[0.0, 0.0]]), {"features": (1, 1)}, r"features must be two different ones of 0 to 1, got \(1, 1\)"),
        ("components", (TWO, [[0.0, 0.0]]), {"names": ["a"]}, "names must have 2 entries, one a feature, got 1"),
        ("density", (ONE, [np.nan]), {}, "X must be finite"),
        ("density", (3, [0.0]), {}, "mixture must be emfuse.Fit or emfuse.Parameters, got int"),
        ("density", (TWO, [[0.0, 0.0]]), {"levels": [1.0]}, r"levels must be shares between 0 and 1, got \[1.0\]"),
        ("density", (TWO, [[0.0, 0.0]]), {"features": (0, 0)}, "features must be two different ones of 0 to 1"),
        (
            "components",
            (FIVE,),
            {"features": (0, 1, 5)},
            r"features must be two or more different ones of 0 to 4, got \(0, 1, 5\)",
        ),
        ("components", (TWO,), {"levels": [0.0]}, r"levels must be numbers of standard deviations above 0, got \[0.0\]"),
        ("uncertainty", (TWO, None), {}, "X must be rows, got None: uncertainty is drawn row by row"),
        ("responsibilities", (TWO,), {}, "X must be rows for a mixture of several features, got None"),
        ("history", (emfuse.em([0.0, 1.0, 3.0], ONE, stop=1),), {}, "the fit kept no history: fit again with history=True"),
        ("bootstrap", (outcome([np.nan], 1.0),), {}, "there is nothing to draw: none of 1 null statistics is finite"),
        (
            "selection",
            (SimpleNamespace(rows=[], criterion="bic"),),
            {},
            "there is no BIC to draw: none of 0 fits has a finite one",
        ),
        ("plot", (chosen_from(), [1.0]), {}, "X must be None: a SimpleNamespace is drawn without the rows"),
    ],
)
def test_what_cannot_be_drawn_says_why(name, args, options, message):
    """An error names what was seen and what was needed."""
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(plots, name)(*args, **options)


def test_no_window_and_no_setting_is_touched():
    """pyplot is not imported, rcParams are as before, and `import emfuse` alone does not import matplotlib.

    `backend` is not looked at, because matplotlib imports pyplot to answer.
    """
    code = """
import io, sys, emfuse
assert "matplotlib" not in sys.modules
import matplotlib
settings = lambda: {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
emfuse.plots.density(emfuse.Parameters.univariate([1], [0], [1]), [0.0, 1.0]).figure.savefig(io.BytesIO(), format="png")
p = emfuse.Parameters([1], [[0, 0, 0]], [1], "spherical")
fit = emfuse.em([[0, 0, 0], [1, 1, 2], [0, 1, 0]], p, stop=1, history=True)
emfuse.plots.components(fit).figure.savefig(io.BytesIO(), format="png")
emfuse.plots.history(fit).figure.savefig(io.BytesIO(), format="png")
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_way_to_get_it_is_said():
    """`emfuse.plots` raises ImportError with the command that installs what it needs."""
    code = "import sys; sys.modules['matplotlib'] = None; import emfuse; emfuse.plots"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == 'ImportError: emfuse.plots needs matplotlib: pip install "emfuse[plot]"'


if __name__ == "__main__" and "--record" in sys.argv:
    PICTURES.mkdir(exist_ok=True)
    for each in LIKENED:
        save_without_words(each, PICTURES / f"{each.replace(' ', '_')}.png")
