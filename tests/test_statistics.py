"""Statistics are sums that add, and can be moved to another origin."""

import numpy as np
import pytest

from emfuse import SufficientStatistics

FORMS = ["diag", "full"]


def of_rows(X, origin, form):
    """Statistics of rows that belong whole to one component, about `origin` (1, D), by the definition (equation 6)."""
    d = X - origin
    second = np.einsum("na,nb->ab", d, d) if form == "full" else np.square(d).sum(axis=0)
    return SufficientStatistics(
        origin, np.array([float(len(X))]), d.sum(axis=0)[None], second[None], -1.5 * len(X), float(len(X))
    )


def assert_same(a, b, rtol):
    for name in ("origin", "mass", "first", "second", "log_likelihood", "weight"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, atol=0, err_msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_two_halves_make_the_whole(form):
    """sweep(A) + sweep(B) == sweep(A and B): here to the last bit, because whole numbers add without rounding."""
    X = np.array([[1.0, 2.0], [3.0, -5.0], [7.0, 1.0]])
    origin = np.array([[2.0, -1.0]])
    halves = of_rows(X[:1], origin, form) + of_rows(X[1:], origin, form)
    assert_same(halves, of_rows(X, origin, form), rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_the_zero_of_addition(form):
    """zeros + s == s."""
    s = of_rows(np.array([[1.0, 2.0], [3.0, -5.0]]), np.array([[0.5, 0.25]]), form)
    assert_same(SufficientStatistics.zeros(s.origin, form) + s, s, rtol=0)


def test_adding_leaves_both_terms_as_they_were():
    """`+` makes a new object, which shares no array with its terms; `+=` changes the left one alone."""
    origin = np.zeros((1, 1))
    one, two = (of_rows(np.array([[x]]), origin, "diag") for x in (1.0, 2.0))
    total = one + two
    total += two
    assert_same(one, of_rows(np.array([[1.0]]), origin, "diag"), rtol=0)
    assert_same(two, of_rows(np.array([[2.0]]), origin, "diag"), rtol=0)
    assert_same(total, of_rows(np.array([[1.0], [2.0], [2.0]]), origin, "diag"), rtol=0)


def test_sums_about_different_origins_do_not_add():
    """Sums about two origins are in two units; adding them is refused."""
    a, b = SufficientStatistics.zeros(np.zeros((1, 1)), "diag"), SufficientStatistics.zeros(np.ones((1, 1)), "diag")
    with pytest.raises(ValueError, match="same origin"):
        a + b


@pytest.mark.parametrize("form", FORMS)
def test_moving_the_origin_is_the_sum_about_the_new_origin(form):
    """`about` of sums about one point equals the sums about the other: to the last bit in whole numbers."""
    X = np.array([[1.0, 2.0], [3.0, -5.0], [7.0, 1.0]])
    here, there = np.array([[2.0, -1.0]]), np.array([[-3.0, 4.0]])
    assert_same(of_rows(X, here, form).about(there), of_rows(X, there, form), rtol=0)


def test_moving_the_origin_by_hand():
    """Rows 1 and 3 about 0: first 4, second 10; about 2: first 0, second 2."""
    s = SufficientStatistics(np.zeros((1, 1)), np.array([2.0]), np.array([[4.0]]), np.array([[10.0]])).about(np.array([[2.0]]))
    assert (s.mass[0], s.first[0, 0], s.second[0, 0]) == (2.0, 0.0, 2.0)


@pytest.mark.parametrize(("form", "shape"), [("diag", (3, 2)), ("full", (3, 2, 2))])
def test_the_form_decides_the_shape_of_second(form, shape):
    """`second` is (K, D) for "diag" and (K, D, D) for "full"."""
    assert SufficientStatistics.zeros(np.zeros((3, 2)), form).second.shape == shape
