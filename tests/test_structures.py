"""What every covariance structure inherits, whatever it is; then hand-worked numbers, and matrices near the edge.

What the ten of `emfuse.decomposed` have beyond that is in `test_decomposed.py`.
"""

import mpmath as mp
import numpy as np
import pytest

from emfuse import NotPositiveDefinite
from emfuse.structures import ALIASES, ALL_STRUCTURES, REFINE_BELOW, STRUCTURES, structure_named

EPS = np.finfo(np.float64).eps
SIZES = [(1, 1), (1, 3), (3, 1), (2, 2), (3, 4)]  # K, D: one component, one feature, both, neither


@pytest.fixture(params=ALL_STRUCTURES.values(), ids=ALL_STRUCTURES)
def kind(request):
    """Each of the fourteen structures, as an object."""
    return request.param


def random_scatter(kind, K, D, random):
    """Scatters of K components and their masses, in the form that the structure wants."""
    mass = random.uniform(1.0, 5.0, K)
    A = random.standard_normal((K, D, D + 3))
    scatter = mass[:, None, None] * (A @ A.transpose(0, 2, 1)) / (D + 3)
    return (scatter if kind.form == "full" else np.diagonal(scatter, axis1=1, axis2=2).copy()), mass


def expected_log_likelihood(kind, covariances, scatter, mass):
    """sum_k of mass_k log det P_k - tr(P_k' P_k S_k) / 2: what an estimate must maximise."""
    K, D = scatter.shape[:2]
    P, log_det = kind.factor(covariances, K, D)
    square = np.einsum("kab,kac,kbc", P, P, scatter) if kind.form == "full" else (np.square(P) * scatter).sum()
    return float(mass @ log_det - 0.5 * square)


# ------------------------------------------------------------------ laws


@pytest.mark.parametrize(("K", "D"), SIZES)
def test_the_estimate_maximises_the_likelihood(kind, K, D):
    """No covariances of the structure near the estimate, or far from it, explain the scatters better."""
    random = np.random.default_rng(K + 10 * D)
    scatter, mass = random_scatter(kind, K, D, random)
    best = expected_log_likelihood(kind, kind.estimate(scatter, mass), scatter, mass)
    rounding = 100 * EPS * (abs(best) + mass.sum())  # about K D^2 terms of each
    for size in (1e-3, 1e-2, 1e-1, 1.0):
        for _ in range(5):
            other, _ = random_scatter(kind, K, D, random)
            # an estimate of other scatters is any covariance the structure can be
            rival = kind.estimate((1.0 - size) * scatter + size * other, mass)
            assert expected_log_likelihood(kind, rival, scatter, mass) <= best + rounding


@pytest.mark.parametrize(("K", "D"), SIZES)
def test_the_estimate_of_its_own_covariances_is_itself(kind, K, D):
    """Scatters of mass times covariance give that covariance back."""
    scatter, mass = random_scatter(kind, K, D, np.random.default_rng(1))
    covariances = kind.estimate(scatter, mass)
    own = mass[:, None, None] * kind.matrices(covariances, K, D)
    own = own if kind.form == "full" else np.diagonal(own, axis1=1, axis2=2)
    # K + D products and sums; where the estimate is searched for, axes are good to the root of what Newton's method leaves of F
    atol = 0.0 if kind.name in STRUCTURES else 1e-12 * np.abs(covariances).max()
    np.testing.assert_allclose(kind.estimate(own, mass), covariances, rtol=8 * (K + D) * EPS, atol=atol)


@pytest.mark.parametrize(("K", "D"), SIZES)
def test_the_covariance_array_has_the_stated_shape(kind, K, D):
    """estimate(...) has shape(K, D)."""
    scatter, mass = random_scatter(kind, K, D, np.random.default_rng(2))
    assert kind.estimate(scatter, mass).shape == kind.shape(K, D)


@pytest.mark.parametrize(("K", "D"), SIZES)
def test_the_factor_whitens(kind, K, D):
    """P' P is the inverse covariance: P C P' = I; and log det P = -log det C / 2."""
    scatter, mass = random_scatter(kind, K, D, np.random.default_rng(3))
    covariances = kind.estimate(scatter, mass)
    P, log_det = kind.factor(covariances, K, D)
    full = P if kind.form == "full" else P[:, :, None] * np.eye(D)
    C = kind.matrices(covariances, K, D)
    condition = np.linalg.cond(C).max()
    np.testing.assert_allclose(
        full @ C @ full.transpose(0, 2, 1), np.broadcast_to(np.eye(D), (K, D, D)), atol=10 * D * EPS * condition
    )
    np.testing.assert_allclose(log_det, -0.5 * np.linalg.slogdet(C)[1], atol=10 * D * EPS * condition)


def test_a_triangle_is_lower(kind):
    """Kernels read the lower triangle of P alone."""
    scatter, mass = random_scatter(kind, 2, 4, np.random.default_rng(4))
    P, _ = kind.factor(kind.estimate(scatter, mass), 2, 4)
    shapes = {"full": (2, 4, 4), "tied": (1, 4, 4), "diag": (2, 4), "spherical": (2, 1), "EII": (2, 1)}
    assert P.shape == kind.factor_shape(2, 4) == shapes.get(kind.name, shapes[kind.form])
    if kind.form == "full":
        assert not np.triu(P, 1).any()


@pytest.mark.parametrize(("K", "D"), SIZES)
def test_free_parameters_are_the_dimensions_it_can_move_in(kind, K, D):
    """The count is the rank of the covariance matrices as a function of the scatters."""
    random = np.random.default_rng(5)
    scatter, mass = random_scatter(kind, K, D, random)
    here = kind.estimate(scatter, mass)
    moves = []
    for _ in range(K * D * D + 5):
        other, _ = random_scatter(kind, K, D, random)
        there, back = (kind.matrices(kind.estimate(scatter + step * other, mass, here), K, D) for step in (1e-5, -1e-5))
        moves.append((there - back).ravel() / 2e-5)
    # measured: directions that are there have size 0.4 or more; those that are not, 2e-6 or less, by the curvature of the family
    assert np.linalg.matrix_rank(np.array(moves), tol=1e-3) == kind.free_parameters(K, D)


@pytest.mark.parametrize(("K", "D"), SIZES)
def test_variances_are_the_diagonals_of_the_matrices(kind, K, D):
    """variances == diag(matrices), exactly."""
    scatter, mass = random_scatter(kind, K, D, np.random.default_rng(6))
    covariances = kind.estimate(scatter, mass)
    np.testing.assert_array_equal(
        kind.variances(covariances, K, D), np.diagonal(kind.matrices(covariances, K, D), axis1=1, axis2=2)
    )


def test_adding_to_the_diagonal_adds_to_every_variance_alone(kind):
    """matrices(add_to_diagonal(C, v)) = matrices(C) + v I; here exactly, in whole numbers."""
    K, D = 2, 3
    covariances = 2.0 * np.ones(kind.shape(K, D))
    moved = kind.matrices(kind.add_to_diagonal(covariances, 5.0), K, D)
    np.testing.assert_array_equal(moved, kind.matrices(covariances, K, D) + 5.0 * np.eye(D))


@pytest.mark.parametrize("power", [-498, 498])
def test_the_factor_follows_the_scale_of_the_data(kind, power):
    """Data times s: P / s, log det P - D log s. s = 2^498 is 8e149; a power of two, so nothing but the logarithm is rounded."""
    K, D, s = 3, 4, 2.0**power
    scatter, mass = random_scatter(kind, K, D, np.random.default_rng(7))
    covariances = kind.estimate(scatter, mass)
    P, log_det = kind.factor(covariances, K, D)
    scaled_P, scaled_log_det = kind.factor(covariances * s * s, K, D)
    np.testing.assert_array_equal(scaled_P, P / s)
    np.testing.assert_allclose(scaled_log_det, log_det - D * np.log(s), rtol=D * EPS)  # D logarithms added


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_covariances_that_are_not_positive_are_refused_by_name(kind, bad):
    """NotPositiveDefinite carries component and feature, and says both; None and "shared" where all components share one."""
    K, D = 3, 2
    scatter, mass = random_scatter(kind, K, D, np.random.default_rng(8))
    scatter[1:] = bad  # the first component's is right; a shared covariance is spoilt too
    spared = kind.name == "EEV" and bad == 0.0  # a component without scatter has the common volume and shape, however turned
    if kind.shared or spared:
        scatter[0] = bad
    with pytest.raises(NotPositiveDefinite) as caught:
        kind.factor(kind.estimate(scatter, mass), K, D)
    component = None if kind.shared else 0 if spared else 1
    assert (caught.value.component, caught.value.feature) == (component, 0)
    who = "the shared covariance" if kind.shared else f"the covariance of component {component}"
    assert str(caught.value).startswith(f"{who} is not positive definite: feature 0 has variance")


# ------------------------------------------------------------------ literal


@pytest.mark.parametrize(
    ("name", "count"), [("full", 3 * 10), ("tied", 10), ("diag", 3 * 4), ("spherical", 3)]
)  # a symmetric 4 x 4 matrix has 10
def test_free_parameters_by_hand(name, count):
    """K = 3 components in D = 4 features."""
    assert STRUCTURES[name].free_parameters(3, 4) == count


def test_estimates_by_hand():
    """Two components of mass 2 and 4, with scatters [[2, 1], [1, 4]] and [[8, 0], [0, 12]]."""
    scatter, mass = np.array([[[2.0, 1.0], [1.0, 4.0]], [[8.0, 0.0], [0.0, 12.0]]]), np.array([2.0, 4.0])
    squares = np.array([[2.0, 4.0], [8.0, 12.0]])
    np.testing.assert_array_equal(
        STRUCTURES["full"].estimate(scatter, mass), [[[1.0, 0.5], [0.5, 2.0]], [[2.0, 0.0], [0.0, 3.0]]]
    )
    np.testing.assert_allclose(STRUCTURES["tied"].estimate(scatter, mass), [[10 / 6, 1 / 6], [1 / 6, 16 / 6]], rtol=EPS)
    np.testing.assert_array_equal(STRUCTURES["diag"].estimate(squares, mass), [[1.0, 2.0], [2.0, 3.0]])
    np.testing.assert_array_equal(STRUCTURES["spherical"].estimate(squares, mass), [1.5, 2.5])


def test_a_factor_by_hand():
    """[[4, 2], [2, 10]] = L L' with L = [[2, 0], [1, 3]]; its inverse is [[1/2, 0], [-1/6, 1/3]], with determinant 1/6."""
    P, log_det = STRUCTURES["full"].factor(np.array([[[4.0, 2.0], [2.0, 10.0]]]), 1, 2)
    np.testing.assert_allclose(P, [[[0.5, 0.0], [-1 / 6, 1 / 3]]], rtol=2 * EPS)
    np.testing.assert_allclose(log_det, [-np.log(6.0)], rtol=2 * EPS)


@pytest.mark.parametrize("name", ["full", "tied"])
def test_the_feature_that_repeats_others_is_named(name):
    """Feature 2 = feature 0 + feature 1 leaves it no variance, although its own is 2."""
    C = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 2.0]])
    good = np.eye(3)
    covariances, component = (np.array([good, C]), 1) if name == "full" else (C, None)
    with pytest.raises(NotPositiveDefinite, match="feature 2 has variance 0 given the features before it") as caught:
        STRUCTURES[name].factor(covariances, 2, 3)
    assert (caught.value.component, caught.value.feature) == (component, 2)


def test_variance_that_is_rounding_is_none():
    """[[1, 1], [1, 1 + eps]] has a Cholesky decomposition, and feature 1 nothing of its own but the last bit."""
    with pytest.raises(NotPositiveDefinite, match="feature 1 has variance") as caught:
        STRUCTURES["full"].factor(np.array([[[1.0, 1.0], [1.0, 1.0 + EPS]]]), 1, 2)
    assert caught.value.variance == pytest.approx(EPS)


def test_an_indefinite_matrix_is_told_by_its_variance():
    """[[1, 2], [2, 1]]: given feature 0, feature 1 has variance 1 - 2 * 2 = -3."""
    with pytest.raises(NotPositiveDefinite) as caught:
        STRUCTURES["full"].factor(np.array([[[1.0, 2.0], [2.0, 1.0]]]), 1, 2)
    assert (caught.value.component, caught.value.feature, caught.value.variance) == (0, 1, -3.0)


@pytest.mark.parametrize("alias", ALIASES)
def test_the_names_of_mclust_are_understood(alias):
    """VVV, EEE, VVI, VII, and V and E in one dimension."""
    names = {"VVV": "full", "V": "full", "EEE": "tied", "E": "tied", "VVI": "diag", "VII": "spherical"}
    assert structure_named(alias).name == names[alias]


@pytest.mark.parametrize("name", ["banana", "", None, 3, ["full"]])
def test_an_unknown_structure_lists_those_there_are(name):
    """The error says what there is to choose from, and what was given."""
    with pytest.raises(ValueError, match="structure must be one of 'full', 'tied', 'diag', 'spherical', 'EII', 'VEI'"):
        structure_named(name)


# ------------------------------------------------------------------ edge: ill-conditioned matrices


def exact(C, x):
    """Log density of N(0, C) at x, and the squared distance, with 50 digits: the doubles are taken as they are."""
    D = len(C)
    with mp.workdps(50):
        L = mp.cholesky(mp.matrix(C.tolist()))
        y = []
        for a in range(D):
            y.append((mp.mpf(float(x[a])) - mp.fsum(L[a, b] * y[b] for b in range(a))) / L[a, a])
        log_det = mp.fsum(mp.log(L[a, a]) for a in range(D))
        square = mp.fsum(v * v for v in y)
        return float(-square / 2 - log_det - D * mp.log(2 * mp.pi) / 2), float(square)


def ours(C, x):
    """The same from the factor."""
    D = len(C)
    P, log_det = STRUCTURES["full"].factor(C[None], 1, D)
    y = P[0] @ x
    return float(log_det[0] - 0.5 * y @ y - 0.5 * D * np.log(2 * np.pi))


CONDITION_1E9 = np.array(
    [[32.00000007, 35.99999993, 8.00000001], [35.99999993, 40.50000006, 8.99999998], [8.00000001, 8.99999998, 2.00000008]]
)


def test_a_matrix_of_condition_1e9_keeps_its_log_density():
    """Exact for these doubles: 11.185270887249153. A plain Cholesky decomposition keeps 8 digits of it."""
    # 10 digits after the point is what is asked for; one Newton step gives more
    assert ours(CONDITION_1E9, np.zeros(3)) == pytest.approx(11.185270887249153, abs=1e-13)


@pytest.mark.parametrize("power", [-498, 498])
def test_a_matrix_of_condition_1e9_keeps_its_digits_at_any_scale(power):
    """Nothing of the refinement underflows or overflows: data times 2^498 divides P by it, to the last bit."""
    P, _ = STRUCTURES["full"].factor(CONDITION_1E9[None], 1, 3)
    scaled, _ = STRUCTURES["full"].factor(CONDITION_1E9[None] * 4.0**power, 1, 3)
    np.testing.assert_array_equal(scaled, P / 2.0**power)


@pytest.mark.parametrize("D", [2, 3, 5, 8])
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e8, 1e10, 1e12])
def test_ill_conditioned_matrices_keep_their_digits(D, condition):
    """Log density at the mean, and at a row drawn from the matrix, against 50 digits."""
    random = np.random.default_rng(D)
    # The determinant: without a Newton step a decomposition loses 1 / REFINE_BELOW at most; a step squares eps times condition.
    of_log_det = D * EPS * (D + 1.0 / REFINE_BELOW) + D**2 * (EPS * condition) ** 2
    # The distance: P is inverted from L, whose own condition is the square root.
    of_distance = D**2 * EPS * np.sqrt(condition) + of_log_det
    for _ in range(5):
        Q, _ = np.linalg.qr(random.standard_normal((D, D)))
        C = (Q * np.geomspace(1.0, condition, D)) @ Q.T
        C = 0.5 * (C + C.T)
        zero, x = np.zeros(D), np.linalg.cholesky(C) @ random.standard_normal(D)
        assert ours(C, zero) == pytest.approx(exact(C, zero)[0], abs=of_log_det)
        value, square = exact(C, x)
        assert ours(C, x) == pytest.approx(value, abs=of_distance * (1.0 + square))


def test_the_units_of_the_features_do_not_matter():
    """Features of standard deviations 1e-12 to 1e12 have the same factor but for their scale."""
    C = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.3], [0.2, 0.3, 1.0]])
    s = 2.0 ** np.array([-40, 0, 40])  # powers of two: no rounding
    P, log_det = STRUCTURES["full"].factor(C[None], 1, 3)
    scaled, scaled_log_det = STRUCTURES["full"].factor((C * s[:, None] * s)[None], 1, 3)
    np.testing.assert_array_equal(scaled, P / s)
    np.testing.assert_allclose(scaled_log_det, log_det, atol=3 * EPS * 40)  # three logarithms of up to 28 added
