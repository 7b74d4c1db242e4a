"""Pictures: what is drawn, on which axes, and that nothing else changes."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.text import Text

import emfuse
from emfuse import plots
from emfuse.stopping import Limit

ONE = emfuse.Parameters.univariate([0.25, 0.75], [0.0, 10.0], [1.0, 2.0])
TWO = emfuse.Parameters([0.25, 0.75], [[0.0, 0.0], [10.0, 5.0]], [[[1.0, 0.0], [0.0, 9.0]], [[4.0, 1.0], [1.0, 1.0]]])
DRAWERS = ["density", "components", "trace"]


@pytest.fixture
def draw():
    """Function that draws the named plot of a small fit, on axes that may be given."""

    def made(name, ax=None):
        p = ONE if name == "density" else TWO
        X, _ = p.sample(200, 0)
        fit = emfuse.em(X, p, stop=3)
        return plots.trace(fit, ax=ax) if name == "trace" else getattr(plots, name)(fit, X, ax=ax)

    return made


def line(ax, label):
    """The (x, y) of the line with that label."""
    (found,) = [each for each in ax.lines if each.get_label().startswith(label)]
    return found.get_data()


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


def test_bins_hold_equally_many_whole_numbers():
    """A histogram of 0 .. 99, once each, is flat: no bin has a number more than another."""
    heights = plots.density(emfuse.Parameters.univariate([1.0], [50.0], [20.0]), np.arange(100)).patches[0].get_xy()[:, 1]
    assert len(np.unique(heights[heights > 0].round(12))) == 1


def test_a_weighted_histogram_is_that_of_repeated_rows():
    """Weight two is the row twice."""
    x, v = np.array([0.0, 3.5, 11.25]), np.array([1, 2, 2])
    weighted, repeated = plots.density(ONE, x, sample_weight=v), plots.density(ONE, np.repeat(x, v))
    np.testing.assert_allclose(weighted.patches[0].get_xy(), repeated.patches[0].get_xy())


def test_many_components_have_one_line_of_the_legend():
    """Twenty components are drawn, and named together."""
    p = emfuse.Parameters.univariate(np.full(20, 0.05), np.arange(20.0), np.ones(20))
    ax = plots.density(p, np.arange(20.0))
    assert len(ax.lines) == 21
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["20 rows", "mixture", "20 components"]


def test_ellipses_have_1_and_2_standard_deviations():
    """For a diagonal covariance, full axes of 2 and 4 standard deviations: (1, 3) here, in either order of width and height."""
    ellipses = [patch for patch in plots.components(TWO, [[0.0, 0.0]]).patches if isinstance(patch, Ellipse)]
    assert len(ellipses) == 4
    assert [sorted((e.width, e.height)) for e in ellipses[:2]] == [pytest.approx([2.0, 6.0]), pytest.approx([4.0, 12.0])]


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


def test_a_trace_says_why_it_stopped_in_whole():
    """The reason is wrapped, and not a word of it is lost; signs of mathematics in it are plain text."""
    reason = "the cost of $\\frac was more than anyone had thought it could ever be when all of this began, " * 3 + "alas"
    ax = plots.trace(emfuse.em([0.0, 1.0, 3.0], ONE, stop=lambda trace: Limit(reason)))
    ax.figure.draw_without_rendering()
    assert " ".join(ax.get_title("left").split()) == f"Stopped before convergence after 1 sweep: {reason}"


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
    ax = Figure().subplots()
    assert draw(name, ax) is ax
    assert ax.get_xlabel() and ax.get_ylabel() and ax.lines + list(ax.collections)


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
    plots.components(emfuse.Parameters([1.0], [[0.0, 0.0]], [scale * scale], "spherical"), scale * x)


def test_one_row_can_be_drawn():
    """Data without any width has a histogram and a scatter too."""
    plots.density(ONE, [1e9])
    plots.components(TWO, [[1e9, 1e9]])


def test_names_are_plain_text():
    """A column called "$x^{$" is not mathematics."""
    ax = plots.components(TWO, [[0.0, 0.0]], names=["$x^{$", "$y$"])
    ax.figure.draw_without_rendering()
    assert ax.get_xlabel() == "$x^{$"


@pytest.mark.parametrize(
    ("name", "args", "options", "message"),
    [
        ("density", (TWO, [[0.0, 0.0]]), {}, "density draws one feature, and the mixture has 2; use components"),
        ("components", (ONE, [0.0]), {}, "components draws two features, and the mixture has 1; use density"),
        ("components", (TWO, [0.0]), {}, "X has 1 features, but the mixture has 2"),
        ("components", (TWO, [[0.0, 0.0]]), {"features": (0, 2)}, r"features must be two different ones of 0 to 1, got \(0, 2\)"),
        ("components", (TWO, [[0.0, 0.0]]), {"features": (1, 1)}, r"features must be two different ones of 0 to 1, got \(1, 1\)"),
        ("components", (TWO, [[0.0, 0.0]]), {"names": ["a"]}, "names must have 2 entries, one a feature, got 1"),
        ("density", (ONE, [np.nan]), {}, "X must be finite"),
        ("density", (3, [0.0]), {}, "mixture must be emfuse.Fit or emfuse.Parameters, got int"),
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
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_way_to_get_it_is_said():
    """`emfuse.plots` raises ImportError with the command that installs what it needs."""
    code = "import sys; sys.modules['matplotlib'] = None; import emfuse; emfuse.plots"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == 'ImportError: emfuse.plots needs matplotlib: pip install "emfuse[plot]"'
