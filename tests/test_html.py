"""HTML: well-formed, with the numbers, with nothing of a name that a browser would run, and a picture that is right."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import emfuse
from emfuse import html

ONE = emfuse.Parameters.univariate([0.25, 0.75], [0.0, 10.0], [1.0, 2.0])
TWO = emfuse.Parameters([0.25, 0.75], [[0.0, 0.0], [10.0, 5.0]], [[[1.0, 0.0], [0.0, 9.0]], [[4.0, 1.0], [1.0, 1.0]]])
LONE = {"br", "path", "rect", "ellipse"}  # without an end of their own


class Page(HTMLParser):
    """Elements with their attributes, the cells of the table, and all text; an element that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.cells, self.text, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in LONE:
            self._open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self._open):
            self.cells[-1][-1] += data.strip()

    def all(self, tag):
        """Attributes of every element of that kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def mixture(K, D, scale=1.0):
    """A mixture of any size."""
    random = np.random.default_rng([K, D])
    return emfuse.Parameters(np.full(K, 1.0 / K), scale * random.standard_normal((K, D)), np.full(K, scale * scale), "spherical")


@pytest.mark.parametrize("scale", [1e-140, 1.0, 1e140])
@pytest.mark.parametrize(("K", "D"), [(1, 1), (3, 1), (25, 1), (1, 2), (12, 3), (30, 50)])
def test_any_mixture_is_well_formed_and_finite(K, D, scale):
    """Every element is closed in its order, and no number in the picture is none."""
    text = html.of_parameters(mixture(K, D, scale))
    Page(text)
    assert not re.search(r"\b(nan|inf)\b", text)
    assert len(text) < 40_000  # it is kept in the notebook


def test_the_table_has_the_numbers():
    """Component, weight, and mean ± standard deviation by feature."""
    cells = Page(html.of_parameters(TWO, names=["length", "width"])).cells
    assert cells == [
        ["component", "weight", "length", "width"],
        ["0", "0.2500", "0 ± 1", "0 ± 3"],
        ["1", "0.7500", "10 ± 2", "5 ± 1"],
    ]


def test_a_fit_has_its_criteria_and_reason_and_repairs():
    """As in print: log-likelihood, AIC, BIC, why it stopped, what was done."""
    fit = emfuse.em(ONE.sample(100, 0)[0], ONE, stop=3)
    text = "\n".join(Page(html.of_fit(replace(fit, repairs=("component 1 < 2 was dropped",)))).text)
    for expected in (
        f"log-likelihood {fit.log_likelihood:.6f} nats, 5 free parameters, AIC {fit.aic:.4f}, BIC {fit.bic:.4f}",
        f"stopped before convergence after 4 sweeps, {fit.seconds:.3g} s: {fit.reason}",
        "component 1 < 2 was dropped",
    ):
        assert expected in text


@pytest.mark.parametrize("p", [ONE, TWO])
def test_a_name_is_text_and_nothing_else(p):
    """Marks, quotes and ampersands come out as they went in, and make no element."""
    name = "<script>alert('&amp;\"')</script>"
    page = Page(html.of_parameters(p, names=[name] * p.n_features))
    assert not page.all("script")
    assert "<script>alert('&amp;\"…" in page.cells[0][-1] or "<script>alert('&amp;" in page.cells[0][-1]


def test_what_is_not_shown_is_said():
    """Twenty components and eight features are."""
    page = Page(html.of_parameters(mixture(30, 50)))
    assert len(page.cells) == 21 and len(page.cells[0]) == 10
    assert "the first 20 of 30 components, the first 8 of 50 features" in " ".join(page.text)


def curves_of(p):
    """Each path's points, (n, 2), in pixels: the mixture, then the components."""
    paths = [each["d"] for each in Page(html.of_parameters(p)).all("path") if "4H24" not in each["d"]]
    return [np.array(path[1:].split(), dtype=float).reshape(-1, 2) for path in paths]


def test_the_curves_are_the_densities():
    """Heights above the foot are as the densities are: those of the weighted components at their means, and 3 sds away.

    A pixel's tenth: numbers have four digits.
    """
    _, first, second = curves_of(ONE)
    foot = first[:, 1].max()
    assert foot == pytest.approx(html.HEIGHT - html.EDGE, abs=1.0)
    heights = [html.HEIGHT - html.EDGE - curve[:, 1].min() for curve in (first, second)]
    assert heights[0] / heights[1] == pytest.approx((0.25 / 1.0) / (0.75 / 2.0), abs=0.003)
    across = [curve[curve[:, 1].argmin(), 0] for curve in (first, second)]
    low, high = -3.5, 17.0
    expected = [html.EDGE + (mean - low) / (high - low) * (html.WIDTH - 2 * html.EDGE) for mean in (0.0, 10.0)]
    assert across == pytest.approx(expected, abs=0.1)


def test_a_spike_does_not_flatten_the_others():
    """A component a millionth as wide is cut off; the others are still some pixels high."""
    _, first, second, _ = curves_of(emfuse.Parameters.univariate([0.5, 0.45, 0.05], [0.0, 5.0, 5.3], [1.0, 1.0, 1e-6]))
    assert min(html.HEIGHT - html.EDGE - curve[:, 1].min() for curve in (first, second)) > 8.0


def test_the_ellipses_are_the_covariances():
    """Of a diagonal covariance 1 and 2 standard deviations, in pixels of each axis; their middle is the mean."""
    drawn = Page(html.of_parameters(TWO)).all("ellipse")
    assert len(drawn) == 4
    low, high = np.array([-2.1, -6.3]), np.array([14.2, 7.1])
    scale = (np.array([html.WIDTH, html.HEIGHT]) - 2 * html.EDGE) / (high - low)
    for level, ellipse in zip((1.0, 2.0), drawn, strict=False):
        assert sorted((float(ellipse["rx"]), float(ellipse["ry"]))) == pytest.approx(sorted(level * scale * [1.0, 3.0]), rel=1e-3)
        x, y = map(float, re.match(r"translate\((\S+) (\S+)\)", ellipse["transform"]).groups())
        assert (x, y) == pytest.approx((html.EDGE + 2.1 * scale[0], html.EDGE + 7.1 * scale[1]), rel=1e-3)


def test_a_slanted_ellipse_slants_upwards():
    """Features that rise together do so on the screen too, where y counts downwards: its long axis points up and right."""
    p = emfuse.Parameters([1.0], [[0.0, 0.0]], [[[1.0, 0.9], [0.9, 1.0]]])
    ellipse = Page(html.of_parameters(p)).all("ellipse")[0]
    angle = float(re.search(r"rotate\((\S+)\)", ellipse["transform"]).group(1))
    assert float(ellipse["rx"]) > float(ellipse["ry"])
    assert np.tan(np.radians(angle)) < 0.0


def test_the_picture_belongs_to_no_theme():
    """Text and frame have the page's colour; there is no style sheet, no script, and no identifier to meet the page's."""
    for p in (ONE, TWO):
        text = html.of_parameters(p)
        page = Page(text)
        assert not page.all("style") and not page.all("script")
        assert not any("id" in attributes or "class" in attributes for _, attributes in page.elements)
        assert all(each["fill"] == "currentColor" for each in page.all("text"))
        assert set(re.findall(r'stroke="([^"]+)"', text)) <= {*html.COLOURS, "currentColor"}


def test_a_selection_has_its_criterion_for_every_model_and_rings_the_best():
    """Lower in the picture is better; the best is the only bold number, and the ring is where its point is."""
    X = np.concatenate([np.random.default_rng(0).normal(at, 1.0, (60, 2)) for at in (0.0, 8.0)])
    chosen = emfuse.select(X, range(1, 4), ("full", "tied"))
    text = chosen._repr_html_()
    page = Page(text)
    assert page.cells[0] == ["K", "full", "tied"]
    rows = {(row.K, row.structure): f"{row.bic:.2f}" for row in chosen.table}
    assert page.cells[1:] == [[str(K), rows[K, "full"], rows[K, "tied"]] for K in (1, 2, 3)]
    best = chosen.best_row
    assert re.findall("<b>(.*?)</b>", text) == [rows[best.K, best.structure]] and len(page.all("b")) == 1
    *points, ring = page.all("circle")
    assert (ring["cx"], ring["cy"]) in [(point["cx"], point["cy"]) for point in points]
    assert float(ring["cy"]) == max(float(point["cy"]) for point in points)
    assert "2 components" in "".join(page.text) and f"structure '{best.structure}'" in "".join(page.text)


def test_a_model_without_a_fit_has_no_number_and_one_alone_can_be_drawn():
    """Too few rows for three components: a dash. One model: its point and the ring."""
    few = Page(emfuse.select([1.0, 7.0], range(1, 4), "tied", variance_floor=1e-3)._repr_html_())
    assert few.cells[-1] == ["3", "-"] and "1 without a fit" in "".join(few.text)
    alone = Page(emfuse.select([1.0, 2.0, 4.0, 7.0], [1], "full")._repr_html_())
    assert len(alone.all("circle")) == 2 and all(np.isfinite(float(each["cy"])) for each in alone.all("circle"))


@pytest.mark.parametrize("colour", html.COLOURS)
@pytest.mark.parametrize("paper", ["#ffffff", "#111111"])
def test_lines_are_legible_on_light_and_dark_paper(colour, paper):
    """A contrast of 3 at least, as WCAG 2 asks of graphics."""

    def luminance(text):
        c = np.array([int(text[i : i + 2], 16) / 255.0 for i in (1, 3, 5)])
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    light, dark = sorted((luminance(colour) + 0.05, luminance(paper) + 0.05), reverse=True)
    assert light / dark >= 3.0


def test_names_must_be_as_many_as_features():
    """One a feature."""
    with pytest.raises(ValueError, match="names must have 2 entries, one a feature, got 1"):
        html.of_parameters(TWO, names=["a"])


def test_no_picture_needs_matplotlib(run):
    """A notebook without it shows fits nevertheless."""
    code = "import sys, emfuse.html; emfuse.html.of_fit(emfuse.fit([1.0, 2.0, 7.0, 8.0], 1)); print('matplotlib' in sys.modules)"
    assert run(code) == "False"
