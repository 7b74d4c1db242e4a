"""The definition itself, against numbers worked by hand; every build is then held against the definition."""

import numpy as np
import pytest

from emfuse import reference

EPS = np.finfo(np.float64).eps
LOG_2_PI = np.log(2.0 * np.pi)
# Two components of weight 1/2 at -1 and 1, standard deviation 1; and one in two features, with covariance [[4, 2], [2, 10]]
PAIR = {"means": np.array([[-1.0], [1.0]]), "P": np.ones((2, 1)), "log_constant": np.full(2, np.log(0.5) - 0.5 * LOG_2_PI)}
PLANE = {
    "means": np.array([[1.0, -1.0]]),
    "P": np.array([[[0.5, 0.0], [-1 / 6, 1 / 3]]]),
    "log_constant": np.array([-LOG_2_PI - np.log(6.0)]),
}


def sums(X, mixture, *, weights=None, origin=None, hard=False):
    """Log-likelihood, mass, first and second of a sweep into zeros."""
    X = np.array(X, dtype=np.float64)
    means, P = mixture["means"], mixture["P"]
    out = np.zeros(len(means)), np.zeros(means.shape), np.zeros(P.shape)
    weights = None if weights is None else np.array(weights, dtype=np.float64)
    origin = means if origin is None else np.array(origin, dtype=np.float64)
    total = reference.sweep(X=X, weights=weights, origin=origin, hard=hard, mass=out[0], first=out[1], second=out[2], **mixture)
    return total, *out


def test_a_row_in_the_middle_belongs_half_to_each():
    """x = 0 between means -1 and 1: r = 1/2, residuals 1 and -1, density exp(-1/2) / sqrt(2 pi)."""
    total, mass, first, second = sums([[0.0]], PAIR)
    assert total == pytest.approx(-0.5 - 0.5 * LOG_2_PI, rel=4 * EPS)
    np.testing.assert_allclose(mass, [0.5, 0.5], rtol=2 * EPS)
    np.testing.assert_allclose(first, [[0.5], [-0.5]], rtol=2 * EPS)
    np.testing.assert_allclose(second, [[0.5], [0.5]], rtol=2 * EPS)


def test_a_row_on_a_mean_by_hand():
    """x = 1: the other density is e^-2 of this one's, so r = 1 / (1 + e^-2) = 0.8807970779778823."""
    total, mass, first, second = sums([[1.0]], PAIR)
    r = 0.8807970779778823
    assert total == pytest.approx(np.log(0.5 * (1.0 + np.exp(-2.0))) - 0.5 * LOG_2_PI, rel=4 * EPS)
    np.testing.assert_allclose(mass, [1.0 - r, r], rtol=8 * EPS)
    np.testing.assert_allclose(first, [[2.0 * (1.0 - r)], [0.0]], rtol=8 * EPS)
    np.testing.assert_allclose(second, [[4.0 * (1.0 - r)], [0.0]], rtol=8 * EPS)


def test_a_triangle_whitens_by_hand():
    """x - mu = (2, 1), y = (1, 0): the log density is -log 2 pi - log 6 - 1/2."""
    total, mass, first, second = sums([[3.0, 0.0]], PLANE)
    assert total == pytest.approx(-LOG_2_PI - np.log(6.0) - 0.5, rel=4 * EPS)
    assert mass[0] == 1.0
    np.testing.assert_array_equal(first, [[2.0, 1.0]])
    np.testing.assert_array_equal(second, [[[4.0, 2.0], [2.0, 1.0]]])


def test_sums_are_about_the_origin_that_is_given():
    """The same row about (0, 0) instead of the mean: (3, 0)."""
    _, _, first, second = sums([[3.0, 0.0]], PLANE, origin=[[0.0, 0.0]])
    np.testing.assert_array_equal(first, [[3.0, 0.0]])
    np.testing.assert_array_equal(second, [[[9.0, 0.0], [0.0, 0.0]]])


def test_a_weight_multiplies_everything():
    """v = 3 in the middle: mass 3/2 each, three times the log density."""
    total, mass, first, second = sums([[0.0]], PAIR, weights=[3.0])
    assert total == pytest.approx(3.0 * (-0.5 - 0.5 * LOG_2_PI), rel=4 * EPS)
    np.testing.assert_allclose(
        np.concatenate([mass, first.ravel(), second.ravel()]), [1.5, 1.5, 1.5, -1.5, 1.5, 1.5], rtol=4 * EPS
    )


def test_hard_gives_a_row_whole_to_the_nearest():
    """x = 0.5 belongs to the mean 1, residual -1/2, and scores that component's density alone."""
    total, mass, first, second = sums([[0.5]], PAIR, hard=True)
    assert total == pytest.approx(np.log(0.5) - 0.5 * LOG_2_PI - 0.125, rel=4 * EPS)
    np.testing.assert_array_equal(mass, [0.0, 1.0])
    np.testing.assert_array_equal(first, [[0.0], [-0.5]])
    np.testing.assert_array_equal(second, [[0.0], [0.25]])


def test_hard_gives_a_tie_to_the_first():
    """x = 0 is as near to the one as to the other."""
    assert sums([[0.0]], PAIR, hard=True)[1].tolist() == [1.0, 0.0]


def test_sums_are_added_to_and_not_overwritten():
    """What mass, first and second held before is still in them."""
    mass, first, second = np.full(2, 10.0), np.full((2, 1), 20.0), np.full((2, 1), 30.0)
    X = np.zeros((1, 1))
    reference.sweep(X=X, weights=None, origin=PAIR["means"], hard=False, mass=mass, first=first, second=second, **PAIR)
    np.testing.assert_array_equal(np.concatenate([mass, first.ravel(), second.ravel()]), [10.5, 10.5, 20.5, 19.5, 30.5, 30.5])


def test_evaluate_by_hand():
    """Log density, label and responsibilities of x = 0 (a tie: the first) and x = 1."""
    density, labels, r = np.empty(2), np.empty(2, np.int64), np.empty((2, 2))
    reference.evaluate(X=np.array([[0.0], [1.0]]), log_density=density, labels=labels, responsibilities=r, **PAIR)
    np.testing.assert_allclose(density, [-0.5 - 0.5 * LOG_2_PI, np.log(0.5 + 0.5 * np.exp(-2.0)) - 0.5 * LOG_2_PI], rtol=4 * EPS)
    assert labels.tolist() == [0, 1]
    np.testing.assert_allclose(r, [[0.5, 0.5], [1.0 - 0.8807970779778823, 0.8807970779778823]], rtol=8 * EPS)


def test_a_row_without_any_density_in_double_precision_still_has_responsibilities():
    """x = 1e6: both densities are exp(-5e11), which underflows; their ratio is exp(-2e6), and the nearer has it all."""
    total, mass, _, _ = sums([[1e6]], PAIR)
    assert total == pytest.approx(np.log(0.5) - 0.5 * LOG_2_PI - 0.5 * (1e6 - 1.0) ** 2, rel=4 * EPS)
    np.testing.assert_array_equal(mass, [0.0, 1.0])


def test_an_overflowing_distance_is_told_by_the_sum():
    """x = 1e200: the square overflows, and the log-likelihood falls below -1e299 without a warning or a NaN."""
    assert sums([[1e200]], PAIR)[0] < -1e299
    assert sums([[1e200, -1e200]], PLANE)[0] < -1e299


def test_no_rows_add_nothing():
    """An empty partition has log-likelihood 0 and leaves the sums alone."""
    total, mass, first, second = sums(np.empty((0, 1)), PAIR)
    assert total == 0.0
    assert not (mass.any() or first.any() or second.any())


def test_a_component_of_weight_zero_takes_nothing():
    """c = -inf: its responsibility is 0, exactly."""
    mixture = {**PAIR, "log_constant": np.array([-np.inf, -0.5 * LOG_2_PI])}
    total, mass, _, _ = sums([[-1.0]], mixture)
    np.testing.assert_array_equal(mass, [0.0, 1.0])
    assert total == pytest.approx(-2.0 - 0.5 * LOG_2_PI, rel=4 * EPS)
