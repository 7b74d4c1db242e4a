"""A mixture is a distribution: beside scipy's normals, beside mpmath in the tails, and by the laws that join its parts."""

import itertools
import pickle
from dataclasses import FrozenInstanceError

import mpmath as mp
import numpy as np
import pytest
from scipy import integrate, special, stats

from emfuse import Parameters
from emfuse.density import Estimate, Mixture
from emfuse.structures import ALL_STRUCTURES, structure_named

EPS = np.finfo(np.float64).eps
INF = np.inf
STANDARD_ERRORS = 5.0  # a right answer is farther off once in two million draws


def line(weights, means, sds):
    """A mixture in one feature."""
    return Mixture(Parameters.univariate(weights, means, sds))


TWO = line([0.3, 0.7], [0.0, 4.0], [1.0, 2.0])
LINES = {
    "one": line([1.0], [3.0], [2.0]),
    "two": TWO,
    "a gap": line([0.3, 0.7], [0.0, 1000.0], [1.0, 2.0]),
    "an even gap": line([0.5, 0.5], [-1000.0, 1000.0], [1.0, 1.0]),
    "a spike": line([0.2, 0.3, 0.5], [0.0, 1e-3, 5.0], [1e-6, 100.0, 1.0]),
    "next to nothing": line([1e-20, 1.0 - 1e-20], [0.0, 5.0], [1e3, 1.0]),
    "twenty": line(np.full(20, 0.05), 3.0 * np.arange(20), np.linspace(0.1, 2.0, 20)),
    "one place": line([0.25, 0.75], [1.0, 1.0], [1.0, 1.0]),
    "an offset": line([0.5, 0.5], [1e8, 1e8 + 1.0], [1.0, 1e-3]),
    "a weight of 0": line([0.4, 0.6, 0.0], [0.0, 4.0, 1e200], [1.0, 2.0, 1e-100]),
}


@pytest.fixture(params=LINES)
def univariate(request):
    """A mixture in one feature: all of them in turn."""
    return LINES[request.param]


@pytest.fixture(params=ALL_STRUCTURES)
def named(request):
    """Name of a covariance structure: all fourteen in turn."""
    return request.param


def mixture_of(structure, K=3, D=3, seed=0, apart=1.0):
    """A random mixture of any of the fourteen structures."""
    random, kind = np.random.default_rng([seed, K, D]), structure_named(structure)
    L = random.standard_normal((K, D, D)) / np.sqrt(D) + np.diag(random.uniform(0.5, 2.0, D))
    mass = random.uniform(1.0, 3.0, K)
    scatter = mass[:, None, None] * (L @ L.transpose(0, 2, 1))
    if kind.form == "diag":
        scatter = np.diagonal(scatter, axis1=1, axis2=2)
    return Mixture(Parameters(mass / mass.sum(), apart * random.standard_normal((K, D)), kind.estimate(scatter, mass), kind))


def normals(p, name, x):
    """A method of scipy's normals, summed over components by weight; x (N,)."""
    each = zip(p.weights.tolist(), p.means[:, 0], p.sds[:, 0], strict=True)
    return sum(w * getattr(stats.norm(m, s), name)(x) for w, m, s in each if w > 0.0)


def log_density_of_components(p, X):
    """Log density of every row in every component, by scipy, (N, K)."""
    each = zip(p.means, p.covariance_matrices, strict=True)
    return np.column_stack([stats.multivariate_normal(m, C).logpdf(X).reshape(-1) for m, C in each])


def exact_tail(mixture, x, *, lower):
    """Probability below (or above) x, with 60 digits."""
    with mp.workdps(60):
        p, sign = mixture.parameters, -1 if lower else 1
        total = mp.mpf(0)
        for w, m, s in zip(p.weights.tolist(), p.means[:, 0].tolist(), p.sds[:, 0].tolist(), strict=True):
            total += 0 if w == 0.0 else mp.mpf(w) * mp.erfc(sign * (mp.mpf(float(x)) - m) / (s * mp.sqrt(2))) / 2
        return total / mp.fsum(map(mp.mpf, p.weights.tolist()))


# ------------------------------------------------------------------ literal


def test_a_standard_normal_by_hand():
    """1 / sqrt(2 pi) at its mean, a half on either side, entropy log(2 pi e) / 2."""
    one = line([1.0], [0.0], [1.0])
    assert one.pdf(0.0) == pytest.approx(1.0 / np.sqrt(2.0 * np.pi), rel=4 * EPS)
    assert one.cdf(0.0) == one.sf(0.0) == 0.5
    assert one.median() == 0.0
    assert one.entropy() == (pytest.approx(0.5 * np.log(2.0 * np.pi * np.e), rel=4 * EPS), 0.0)


def test_two_merged_by_hand():
    """Halves at -1 and 1 with variance 1 make mean 0 and variance 1 + 1."""
    merged = line([0.5, 0.5], [-1.0, 1.0], [1.0, 1.0]).merge(0, 1).parameters
    assert (merged.weights, merged.means, merged.covariances) == ([1.0], [[0.0]], [[[2.0]]])
    assert merged.structure == "full"


def test_the_divergence_of_two_normals_by_hand():
    """From N(0, 1) to N(1, 4): (1/4 + 1/4 - 1 + log 4) / 2; the variational one is exact for one component each."""
    value, error = line([1.0], [0.0], [1.0]).kl_divergence(line([1.0], [1.0], [2.0]), "variational")
    assert value == pytest.approx(0.5 * (np.log(4.0) - 0.5), rel=8 * EPS)
    assert np.isnan(error)


def test_the_median_of_two_halves_is_in_the_middle_between_them():
    """A thousand standard deviations from each, where the distribution function is 0.5 to the last bit for 1,900 of them."""
    assert LINES["an even gap"].median() == 0.0


def test_a_conditional_by_hand():
    """Unit variances, correlation 1/2, the first known to be 2: mean 2 / 2, variance 1 - 1/4."""
    given = Mixture(Parameters([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]])).condition(0, 2.0).parameters
    np.testing.assert_allclose(given.means, [[1.0]], rtol=2 * EPS)
    np.testing.assert_allclose(given.covariances, [[[0.75]]], rtol=2 * EPS)


# ------------------------------------------------------------------ density


def test_the_density_is_a_sum_of_scipys(named):
    """sum_k w_k N(x; mean_k, covariance_k), in any leading shape, for every structure."""
    mixture = mixture_of(named)
    x = 3.0 * np.random.default_rng(1).standard_normal((4, 5, 3))
    p = mixture.parameters
    expected = special.logsumexp(log_density_of_components(p, x.reshape(-1, 3)) + np.log(p.weights), axis=1).reshape(4, 5)
    np.testing.assert_allclose(mixture.logpdf(x), expected, rtol=1e-12)  # scipy's eigenvalues round more than a Cholesky factor
    np.testing.assert_allclose(mixture.pdf(x), np.exp(expected), rtol=1e-11)


@pytest.mark.parametrize("name", ["pdf", "cdf", "sf"])
def test_one_feature_is_a_sum_of_scipys(name, univariate):
    """In any shape of x, and for one number a number."""
    p = univariate.parameters
    live = p.weights > 0.0
    means, sds = p.means[live], p.sds[live]
    x = (means[:2] + sds[:2] * np.linspace(-6.0, 6.0, 30)).reshape(-1, 2, 5)
    made = getattr(univariate, name)(x)
    assert made.shape == x.shape
    # z rounds by eps |mean| / sd, and a tail by z times that
    rough = 100 * EPS * (1.0 + np.abs(means).max() / sds.min())
    np.testing.assert_allclose(made, normals(p, name, x), rtol=rough, atol=1e-300)
    assert isinstance(getattr(univariate, name)(float(x[0, 0, 0])), float)


def test_points_of_many_features_are_the_last_axis():
    """(D,) is a point and gives a number; (..., D) gives (...); no points give none."""
    mixture = mixture_of("full")
    assert isinstance(mixture.pdf([0.0, 0.0, 0.0]), float)
    assert mixture.cdf(np.zeros((2, 1, 3))).shape == mixture.logpdf(np.zeros((2, 1, 3))).shape == (2, 1)
    assert mixture.pdf(np.empty((0, 3))).shape == (0,)
    assert mixture.mahalanobis(np.empty((2, 0, 3))).shape == (2, 0, 3)
    assert TWO.pdf([]).shape == TWO.ppf([]).shape == TWO.logcdf(np.empty((0, 2)))[:, 0].shape == (0,)


def test_float32_and_whole_numbers_are_points_too():
    """The same as their values in double precision, to the rounding of a density."""
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    mixture = mixture_of("full")
    for same in (x, x.astype(np.int64), x.tolist(), np.asfortranarray(x), x.astype(">f8")):
        np.testing.assert_allclose(mixture.logpdf(same), mixture.logpdf(x.astype(np.float64)), rtol=10 * EPS)


def test_infinity_has_no_density_and_nan_gives_nan():
    """As scipy has it; nothing warns."""
    at = [-INF, np.nan, INF, 1e300]
    np.testing.assert_array_equal(TWO.pdf(at), [0.0, np.nan, 0.0, 0.0])
    np.testing.assert_array_equal(TWO.logpdf(at), [-INF, np.nan, -INF, -INF])
    np.testing.assert_array_equal(TWO.cdf(at), [0.0, np.nan, 1.0, 1.0])
    np.testing.assert_array_equal(TWO.sf(at), [1.0, np.nan, 0.0, 0.0])
    np.testing.assert_array_equal(TWO.logcdf(at), [-INF, np.nan, 0.0, 0.0])
    np.testing.assert_array_equal(TWO.logsf(at), [0.0, np.nan, -INF, -INF])
    for mixture in (mixture_of("full", D=2), mixture_of("diag"), mixture_of("full")):
        D = mixture.parameters.n_features
        rows = np.zeros((4, D))
        rows[:, -1] = [-INF, np.nan, 0.0, 1e300]
        np.testing.assert_array_equal(np.isnan(mixture.pdf(rows)), [False, True, False, False])
        np.testing.assert_array_equal(np.isnan(mixture.cdf(rows)), [False, True, False, False])
        assert mixture.cdf(rows)[0] == mixture.pdf(rows)[0] == 0.0
        assert mixture.cdf(np.full(D, INF)) == pytest.approx(1.0, abs=2 * EPS)


# ------------------------------------------------------------------ tails


@pytest.mark.parametrize("away", [2.0, 10.0, 40.0, 1000.0])
def test_tails_keep_their_digits_beside_mpmath(univariate, away):
    """Logarithms of both tails on both sides, to scipy's log_ndtr (2e-14 where it is nearly 0) and the rounding of z^2."""
    p = univariate.parameters
    live = p.weights > 0.0
    spread = away * p.sds[live].max()
    for x in (p.means[live].min() - spread, p.means[live].max() + spread):
        z = np.abs((x - p.means[live]) / p.sds[live])
        shift = EPS * (np.abs(x) + np.abs(p.means[live])) / p.sds[live]  # of z
        for name, lower in (("logcdf", True), ("logsf", False)):
            with mp.workdps(60):
                rest = exact_tail(univariate, x, lower=not lower)
                exact = mp.log1p(-rest) if rest < 0.5 else mp.log(exact_tail(univariate, x, lower=lower))
                made = getattr(univariate, name)(x)
                near = float(z.min()) if len(z) == 1 else float(np.min(z + 1.0))
                bound = 2e-14 + float(near * shift.max())
                assert abs(made - exact) <= bound * abs(exact) + 1e-300, name


def test_a_survival_function_is_not_one_less_something():
    """At 20 standard deviations cdf is 1, and sf 2.75e-89 to its last digits; and the other way round."""
    one = line([1.0], [0.0], [1.0])
    with mp.workdps(40):
        assert one.cdf(20.0) == 1.0
        assert one.sf(20.0) == pytest.approx(float(mp.ncdf(-20)), rel=1e-13)  # 20^2 / 2 times eps
        assert one.cdf(-20.0) == pytest.approx(float(mp.ncdf(-20)), rel=1e-13)
        assert one.logcdf(20.0) == pytest.approx(-float(mp.ncdf(-20)), rel=1e-13)


# ------------------------------------------------------------------ quantiles

SHARES = np.array([5e-324, 1e-300, 1e-200, 1e-50, 1e-16, 1e-5, 0.01, 0.1, 0.25, 0.29999, 0.3, 0.30001, 0.4, 0.499999, 0.5])


@pytest.mark.parametrize("lower", [True, False], ids=["ppf", "isf"])
@pytest.mark.parametrize("alone", [True, False], ids=["one by one", "together"])
def test_the_probability_at_a_quantile_is_what_was_asked_for(univariate, lower, alone):
    """cdf(ppf(q)) = q, and sf(isf(q)) = q, beside mpmath: to what one rounding of x, and of log q, makes of it."""
    quantile = univariate.ppf if lower else univariate.isf
    found = np.array([quantile(q) for q in SHARES]) if alone else quantile(SHARES)
    for q, x in zip(SHARES.tolist(), found, strict=True):
        with mp.workdps(60):
            at = exact_tail(univariate, x, lower=lower)
            next_to = [exact_tail(univariate, np.nextafter(x, side), lower=lower) for side in (-INF, INF)]
            bound = abs(next_to[1] - next_to[0]) + 4 * EPS * (4.0 + abs(np.log(q))) * mp.mpf(q)
            assert abs(at - mp.mpf(q)) <= bound, (q, x)


def test_shares_above_a_half_are_those_left_over(univariate):
    """ppf(1 - q) is isf(q) wherever 1 - q is exact."""
    q = np.array([0.25, 0.375, 2.0**-30, 2.0**-53])
    np.testing.assert_allclose(univariate.ppf(1.0 - q), univariate.isf(q), rtol=4 * EPS)
    np.testing.assert_allclose(univariate.isf(1.0 - q), univariate.ppf(q), rtol=4 * EPS)


def test_quantiles_invert_the_distribution_function():
    """ppf(cdf(x)) = x in the lower half, isf(sf(x)) = x in the upper, to the rounding of a probability over its density."""
    x = np.concatenate([-np.geomspace(30.0, 0.1, 20), np.linspace(0.0, 15.0, 40), np.geomspace(16.0, 60.0, 20)])
    for mixture, there, back in ((TWO, "cdf", "ppf"), (TWO, "sf", "isf")):
        share = getattr(mixture, there)(x)
        inside = (share > 1e-300) & (share <= 0.5)
        found = getattr(mixture, back)(share[inside])
        bound = 4 * EPS * ((4.0 - np.log(share)) * share / mixture.pdf(x) + np.abs(x))[inside]
        assert np.all(np.abs(found - x[inside]) <= bound)


def test_the_ends_of_shares():
    """0 and 1 are infinitely far away, what is outside of them nowhere; a number gives a number, any shape itself."""
    np.testing.assert_array_equal(TWO.ppf([0.0, 1.0, -0.1, 1.1, np.nan]), [-INF, INF, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(TWO.isf([0.0, 1.0, -0.1, 1.1, np.nan]), [INF, -INF, np.nan, np.nan, np.nan])
    assert isinstance(TWO.ppf(0.5), float)
    assert TWO.ppf(np.full((2, 3), 0.1)).shape == (2, 3)
    assert np.all(np.diff(LINES["twenty"].ppf(np.linspace(0.0, 1.0, 1001))) > 0.0)


def test_quantiles_of_a_large_array_are_those_of_each_number(univariate):
    """A table narrows the search down where many are asked for; it ends at the same point."""
    q = np.linspace(0.001, 0.999, 400)
    some = slice(None, None, 57)
    np.testing.assert_allclose(univariate.ppf(q)[some], [univariate.ppf(one) for one in q[some]], rtol=1e-13, atol=1e-13)


def test_an_interval_leaves_equal_tails():
    """sf(high) = cdf(low) = (1 - confidence) / 2, whatever the shape."""
    low, high = TWO.interval([0.5, 0.9, 1.0 - 2.0**-40])
    np.testing.assert_allclose(TWO.cdf(low), [0.25, 0.05, 2.0**-41], rtol=100 * EPS)
    np.testing.assert_allclose(TWO.sf(high), [0.25, 0.05, 2.0**-41], rtol=100 * EPS)
    assert TWO.interval(1.0) == (-INF, INF)
    assert TWO.cdf(TWO.median()) == pytest.approx(0.5, rel=4 * EPS)


# ------------------------------------------------------------------ probability in more features


@pytest.mark.parametrize("correlation", [-0.999, -0.5, 0.0, 0.3, 0.95, 1.0 - 1e-12])
def test_two_features_beside_a_quadrature(correlation):
    """P(x <= h, y <= k) = integral up to h of phi(x) Phi((k - r x) / sqrt(1 - r^2)): 1e-13 is the quadrature's."""
    mixture = Mixture(Parameters([1.0], [[0.0, 0.0]], [[[1.0, correlation], [correlation, 1.0]]]))
    root = np.sqrt((1.0 - correlation) * (1.0 + correlation))

    def below(x, k):
        return np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi) * special.ndtr((k - correlation * x) / root)

    for h, k in [(0.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.5, -0.5), (1.0, 2.0), (-2.0, -1.0), (3.0, -3.0), (-0.7, 8.0)]:
        turn = k / correlation if correlation else 0.0
        points = sorted({min(max(at, -12.0), h) for at in (-12.0, turn - 9 * root, turn, turn + 9 * root, h)})
        parts = [integrate.quad(below, a, b, (k,), epsabs=1e-14, epsrel=1e-12)[0] for a, b in itertools.pairwise(points)]
        assert mixture.cdf([h, k]) == pytest.approx(sum(parts), abs=1e-13)


@pytest.mark.parametrize("structure", ["full", "tied", "diag", "VEI", "VVE"])
@pytest.mark.parametrize("D", [2, 3])
def test_the_joint_probability_is_a_sum_of_scipys(structure, D):
    """By multivariate_normal.cdf of each component, which is right to 1e-5."""
    mixture = mixture_of(structure, D=D)
    p, x = mixture.parameters, np.array([np.full(D, 0.4), np.linspace(-1.0, 1.0, D)])
    each = zip(p.weights, p.means, p.covariance_matrices, strict=True)
    expected = sum(w * stats.multivariate_normal(m, C).cdf(x) for w, m, C in each)
    np.testing.assert_allclose(mixture.cdf(x), expected, atol=5e-5)
    np.testing.assert_array_equal(mixture.cdf(x), mixture.cdf(x))
    np.testing.assert_array_equal(mixture.logcdf(x), np.log(mixture.cdf(x)))


# ------------------------------------------------------------------ drawing


def test_draws_have_the_moments_of_the_mixture(named):
    """Mean, variance and covariance of draws in random order, within five standard errors."""
    mixture, N = mixture_of(named, apart=2.0), 40_000
    X = mixture.rvs(N, random_state=3)
    d = X - mixture.mean()
    products = d[:, :, None] * d[:, None, :]
    assert np.all(np.abs(d.mean(axis=0)) < STANDARD_ERRORS * mixture.std() / np.sqrt(N))
    assert np.all(np.abs(products.mean(axis=0) - mixture.covariance()) < STANDARD_ERRORS * products.std(axis=0) / np.sqrt(N))
    np.testing.assert_allclose(mixture.var(), np.diagonal(mixture.covariance()), rtol=20 * EPS)


def test_draws_follow_the_distribution_function():
    """The largest difference between the share of draws below x and cdf(x), by Kolmogorov: below 1.95 once in a thousand."""
    X = np.sort(TWO.rvs(20_000, random_state=0))
    assert np.abs(TWO.cdf(X) - (np.arange(20_000) + 0.5) / 20_000).max() * np.sqrt(20_000) < 1.95


def test_draws_come_in_random_order():
    """Every stretch of rows has each component's share, within five standard errors."""
    high = LINES["a gap"].rvs(10_000, random_state=1) > 500.0
    shares = high.reshape(10, -1).mean(axis=1)
    assert np.all(np.abs(shares - 0.7) < STANDARD_ERRORS * np.sqrt(0.21 / 1000))


def test_draws_have_the_shape_that_was_asked_for():
    """None is one point; one feature adds no axis, more do."""
    many = mixture_of("full", D=3)
    assert isinstance(TWO.rvs(), float)
    assert [TWO.rvs(size).shape for size in (1, (2, 3), 0, ())] == [(1,), (2, 3), (0,), ()]
    assert [many.rvs(size).shape for size in (None, 1, (2, 5), 0)] == [(3,), (1, 3), (2, 5, 3), (0, 3)]
    assert mixture_of("full", D=40).rvs(0).shape == (0, 40)
    assert mixture_of("full", D=40).rvs(3).shape == (3, 40)


@pytest.mark.parametrize("seed", [7, np.random.default_rng, np.random.RandomState], ids=["int", "Generator", "RandomState"])
def test_the_same_seed_draws_the_same_points(seed):
    """An int, a Generator and a RandomState all decide every bit; None is none."""
    draw = [TWO.rvs(50, random_state=seed if isinstance(seed, int) else seed(3)).tobytes() for _ in range(2)]
    assert draw[0] == draw[1]
    assert TWO.rvs() != TWO.rvs()


def test_sample_is_that_of_the_parameters():
    """Rows and labels, to the last bit."""
    for ours, theirs in zip(TWO.sample(20, 5), TWO.parameters.sample(20, 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# ------------------------------------------------------------------ moments and entropy


def test_moments_are_integrals_over_the_density():
    """Mean, variance and entropy by quadrature in one feature."""
    moments = [integrate.quad(lambda x, k=k: x**k * TWO.pdf(x), -40.0, 50.0, points=[0.0, 4.0])[0] for k in (0, 1, 2)]
    assert moments[0] == pytest.approx(1.0, abs=1e-12)
    assert TWO.mean() == pytest.approx(moments[1], rel=1e-12)
    assert TWO.var() == pytest.approx(moments[2] - moments[1] ** 2, rel=1e-11)
    assert TWO.std() == np.sqrt(TWO.var()) == np.sqrt(TWO.covariance()[0, 0])
    entropy = integrate.quad(lambda x: -TWO.pdf(x) * TWO.logpdf(x), -40.0, 50.0, points=[0.0, 4.0])[0]
    value, error = TWO.entropy(20_000, random_state=0)
    assert abs(value - entropy) < STANDARD_ERRORS * error < 0.05


def test_the_entropy_of_one_component_is_exact(named):
    """log det(2 pi e C) / 2, and nothing is drawn."""
    mixture = mixture_of(named, K=1)
    with mp.workdps(40):
        exact = mp.log(mp.det(2 * mp.pi * mp.e * mp.matrix(mixture.parameters.covariance_matrices[0]))) / 2
    assert mixture.entropy(2) == (pytest.approx(float(exact), rel=1e-13), 0.0)


# ------------------------------------------------------------------ fewer features

BECOMES = {"EVI": "diag"} | dict.fromkeys(["EVE", "VVE", "EEV", "VEV", "EVV"], "full")


def assert_of_its_structure(p):
    """The structure's own estimate from these covariances is these covariances."""
    kind, mass = structure_named(p.structure), p.weights
    scatter = mass[:, None, None] * p.covariance_matrices
    if kind.form == "diag":
        scatter = np.diagonal(scatter, axis1=1, axis2=2)
    np.testing.assert_allclose(kind.estimate(scatter, mass), p.covariances, rtol=1e-9, atol=1e-12)


def test_a_marginal_has_those_rows_and_columns(named):
    """Means and covariances of the features in the order given; the structure is one that holds them."""
    mixture = mixture_of(named, D=4)
    p, q = mixture.parameters, mixture.marginal([2, 0, -1]).parameters
    np.testing.assert_array_equal(q.means, p.means[:, [2, 0, 3]])
    np.testing.assert_array_equal(q.covariance_matrices, p.covariance_matrices[:, [2, 0, 3]][:, :, [2, 0, 3]])
    assert q.structure == BECOMES.get(named, named)
    assert_of_its_structure(q)
    assert mixture.marginal(1).parameters.means.shape == (3, 1)


def test_a_marginal_is_the_integral_over_the_others():
    """By quadrature over the second of two features."""
    mixture = mixture_of("full", D=2)
    for x in (-2.0, 0.3, 1.7):
        total = integrate.quad(lambda y, x=x: mixture.pdf([x, y]), -30.0, 30.0, limit=200)[0]
        assert mixture.marginal(0).pdf(x) == pytest.approx(total, rel=1e-7)


def test_a_conditional_is_the_joint_over_the_marginal(named):
    """log f(u | k) = log f(u, k) - log f(k), wherever k is, for every structure, and in one that holds it."""
    mixture = mixture_of(named, D=4)
    u = np.random.default_rng(2).standard_normal((6, 2))
    for known in ([0.1, -0.4], [3.0, 5.0]):
        given = mixture.condition([3, 1], known)
        joint = np.column_stack([u[:, 0], np.full(6, known[1]), u[:, 1], np.full(6, known[0])])
        expected = mixture.logpdf(joint) - mixture.marginal([3, 1]).logpdf(known)
        np.testing.assert_allclose(given.logpdf(u), expected, rtol=1e-11, atol=1e-11)  # 1e4 eps: covariances of condition 100
        assert given.parameters.structure == BECOMES.get(named, named)
        assert_of_its_structure(given.parameters)


def test_a_conditional_integrates_to_one_with_its_own_mean():
    """By quadrature of the joint density along the line of what is known."""
    mixture = mixture_of("full", D=2)
    moments = [integrate.quad(lambda y, k=k: y**k * mixture.pdf([1.2, y]), -30.0, 30.0, limit=200)[0] for k in (0, 1, 2)]
    given = mixture.condition(0, 1.2)
    assert given.mean() == pytest.approx(moments[1] / moments[0], rel=1e-7)
    assert given.var() == pytest.approx(moments[2] / moments[0] - given.mean() ** 2, rel=1e-6)


@pytest.mark.parametrize("far", [1e2, 1e4])
def test_a_conditional_far_out_beside_mpmath(far):
    """Weights far below what densities can hold: exact but for the rounding of z^2 / 2."""
    mixture = mixture_of("full", D=2)
    p = mixture.parameters
    given = mixture.condition(0, far).parameters
    with mp.workdps(50):
        logs = [
            mp.log(mp.mpf(w)) - mp.log(mp.mpf(C[0, 0])) / 2 - (mp.mpf(far) - mp.mpf(m[0])) ** 2 / (2 * mp.mpf(C[0, 0]))
            for w, m, C in zip(p.weights.tolist(), p.means.tolist(), p.covariance_matrices, strict=True)
        ]
        exact = [mp.exp(log - max(logs)) for log in logs]
        exact = np.array([float(e / mp.fsum(exact)) for e in exact])
    z2 = far**2 / p.covariance_matrices[:, 0, 0].min()
    np.testing.assert_allclose(given.weights, exact, rtol=4 * EPS * z2, atol=1e-300)


@pytest.mark.parametrize("far", [1e8, 1e153, 1e200, -1e300])
def test_a_conditional_exists_however_far_out(far, named):
    """One of the widest components has all the weight there, even where the square of the distance overflows; nothing is NaN."""
    p = mixture_of(named, D=2).parameters
    for narrow in (1.0, 1e-40):  # a distance of 1e340 standard deviations is no number
        given = Mixture(Parameters(p.weights, p.means, p.covariances * narrow * narrow, p.structure)).condition(0, far).parameters
        assert np.isfinite(given.means).all()
        assert given.weights.sum() == pytest.approx(1.0, abs=4 * EPS)


def test_the_conditional_of_an_ill_conditioned_component_keeps_its_digits():
    """Correlation 1 - 1e-12: the variance that is left, 2e-12, to 1e-4 of itself, as far as the covariance itself has it."""
    r = 1.0 - 1e-12
    given = Mixture(Parameters([1.0], [[0.0, 0.0]], [[[1.0, r], [r, 1.0]]])).condition(0, 0.5).parameters
    exact = float((1 - mp.mpf(r)) * (1 + mp.mpf(r)))
    assert given.covariances[0, 0, 0] == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize("known", [[1], [2, 0], [0, 1, 2]])
def test_regression_is_the_moments_of_each_rows_conditional(named, known):
    """Mean and covariance of `condition`, row by row; without the covariance the same mean."""
    mixture = mixture_of(named, D=4)
    X = 2.0 * np.random.default_rng(4).standard_normal((4, len(known)))
    mean, covariance = mixture.regress(X, known)
    for row, m, C in zip(X, mean, covariance, strict=True):
        given = mixture.condition(known, row)
        np.testing.assert_allclose(m, np.atleast_1d(given.mean()), rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(C, given.covariance(), rtol=1e-9, atol=1e-10)
    alone = mixture.regress(X, known, covariance=False)
    np.testing.assert_array_equal(alone.mean, mean)
    assert alone.covariance is None


def test_regression_cuts_many_rows_into_chunks():
    """The same rows in one call and in ten, to the last digits."""
    mixture = mixture_of("full", D=4)
    X = np.random.default_rng(5).standard_normal((30_000, 2))
    whole = mixture.regress(X, [0, 1])
    parts = [mixture.regress(part, [0, 1]) for part in np.array_split(X, 10)]
    np.testing.assert_allclose(whole.mean, np.concatenate([part.mean for part in parts]), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(whole.covariance, np.concatenate([part.covariance for part in parts]), rtol=1e-12, atol=1e-13)


def test_regression_finds_what_the_data_do():
    """The mean of draws near a value of what is known, within five standard errors and the width of the slice."""
    mixture = mixture_of("full", D=2, apart=2.0)
    X = mixture.rvs(200_000, random_state=0)
    near = X[np.abs(X[:, 0] - 0.5) < 0.02, 1]
    mean, covariance = mixture.regress([0.5], 0)
    assert abs(mean[0, 0] - near.mean()) < STANDARD_ERRORS * near.std() / np.sqrt(len(near)) + 0.02
    assert covariance[0, 0, 0] == pytest.approx(near.var(), rel=STANDARD_ERRORS * 2.0 / np.sqrt(len(near)))


# ------------------------------------------------------------------ components


def test_distances_are_in_each_components_own_standard_deviations(named):
    """sqrt((x - mean)' C^-1 (x - mean)), in any leading shape; a float32 row is a row."""
    mixture = mixture_of(named)
    p, X = mixture.parameters, np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    d = X[..., None, :] - p.means
    expected = np.sqrt(np.einsum("...ka,kab,...kb->...k", d, np.linalg.inv(p.covariance_matrices), d))
    np.testing.assert_allclose(mixture.mahalanobis(X), expected, rtol=1e-12)


def test_a_merge_keeps_mean_and_covariance(named):
    """Those of the whole mixture, for every structure; the merged component stands in the first one's place."""
    mixture = mixture_of(named, K=4)
    merged = mixture.merge(2, 0)
    assert merged.parameters.structure == "full"
    np.testing.assert_allclose(merged.mean(), mixture.mean(), rtol=20 * EPS, atol=20 * EPS)
    np.testing.assert_allclose(merged.covariance(), mixture.covariance(), rtol=50 * EPS, atol=50 * EPS)
    np.testing.assert_array_equal(merged.parameters.means[[0, 2]], mixture.parameters.means[[1, 3]])


def test_pruning_leaves_what_weighs_enough(named):
    """Weights of what is left are divided by their sum; nothing else changes, the structure neither."""
    p = mixture_of(named, K=4).parameters
    mixture = Mixture(Parameters([0.5, 0.1, 0.4, 0.0], p.means, p.covariances, p.structure))
    left = mixture.prune(0.2).parameters
    np.testing.assert_allclose(left.weights, [5 / 9, 4 / 9], rtol=4 * EPS)
    np.testing.assert_array_equal(left.covariance_matrices, p.covariance_matrices[[0, 2]])
    assert left.structure == p.structure
    assert mixture.prune().parameters.n_components == 3
    assert mixture.prune(0.1).parameters.n_components == 3


def test_match_undoes_a_shuffle_and_a_little_noise(named):
    """other.relabel(match(other)) is this one again."""
    mixture = mixture_of(named, K=6)
    p = mixture.parameters
    order = np.random.default_rng(1).permutation(6)
    moved = Mixture(Parameters(p.weights, p.means + 1e-3, p.covariances, p.structure)).relabel(order)
    np.testing.assert_array_equal(order[mixture.match(moved)], np.arange(6))
    np.testing.assert_array_equal(moved.relabel(mixture.match(moved)).parameters.weights, p.weights)


def test_weights_match_what_lies_in_one_place():
    """Two components that differ in their weights alone."""
    mixture = line([0.2, 0.5, 0.3], [0.0, 0.0, 9.0], [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(mixture.match(mixture.relabel([2, 1, 0])), [2, 1, 0])


def test_the_nearest_is_by_bhattacharyya():
    """Of two with one mean, the one of like spread: d^2 / (8 s^2) + log(s^2 / (a b)) / 2, by hand."""
    mixture = line([0.5, 0.5], [0.0, 0.0], [1.0, 10.0])
    other = line([0.5, 0.5], [1.0, 0.0], [8.0, 2.0])
    np.testing.assert_array_equal(mixture.match(other), [1, 0])


def test_equality_is_up_to_order_and_rounding(named):
    """Any order; a tolerance in units of its standard deviations; other structures of the same covariances."""
    mixture = mixture_of(named, K=4)
    p = mixture.parameters
    shuffled = mixture.relabel([2, 0, 3, 1])
    assert mixture.equals(mixture)
    assert mixture.equals(shuffled) and shuffled.equals(mixture)
    assert mixture.equals(Mixture(Parameters(p.weights, p.means, p.covariance_matrices, "full")))
    near = Mixture(Parameters(p.weights, p.means + 1e-6 * p.sds, p.covariances * (1.0 + 1e-6), p.structure)).relabel([3, 2, 1, 0])
    assert mixture.equals(near, tolerance=2e-6)
    assert not mixture.equals(near, tolerance=0.5e-6)


def test_equality_sees_each_thing_that_differs():
    """A weight, a mean, a variance, a component, a feature; a component of weight 0 is none."""
    mixture = line([0.4, 0.6], [0.0, 1.0], [1.0, 2.0])
    assert mixture.equals(line([0.6, 0.4, 0.0], [1.0, 0.0, 7.0], [2.0, 1.0, 1.0]))
    for other in (
        line([0.5, 0.5], [0.0, 1.0], [1.0, 2.0]),
        line([0.4, 0.6], [0.0, 1.1], [1.0, 2.0]),
        line([0.4, 0.6], [0.0, 1.0], [1.0, 2.1]),
        line([0.6, 0.4], [0.0, 1.0], [1.0, 2.0]),
        line([1.0], [0.0], [1.0]),
        mixture_of("full", K=2, D=2),
    ):
        assert not mixture.equals(other)


# ------------------------------------------------------------------ divergence


def test_a_mixture_is_at_distance_0_from_itself(named):
    """In whatever order its components stand: to rounding, by any method."""
    mixture = mixture_of(named)
    for method in ("monte_carlo", "variational", "bound"):
        value, _ = mixture.kl_divergence(mixture.relabel([2, 0, 1]), method, n=1000, random_state=0)
        assert abs(value) < 1e-13


def test_the_divergence_is_an_integral():
    """By quadrature: Monte Carlo within five standard errors; the variational within a tenth for components well apart, and the
    bound above it, by less than what is known of which component a point is of."""
    f, g = line([0.3, 0.7], [0.0, 12.0], [1.0, 2.0]), line([0.5, 0.5], [1.0, 11.0], [1.5, 2.0])
    exact = integrate.quad(lambda x: f.pdf(x) * (f.logpdf(x) - g.logpdf(x)), -30.0, 50.0, points=[0.0, 12.0], limit=200)[0]
    value, error = f.kl_divergence(g, n=50_000, random_state=0)
    assert abs(value - exact) < STANDARD_ERRORS * error < 0.05
    assert f.kl_divergence(g, "variational").value == pytest.approx(exact, rel=0.1)
    assert exact <= f.kl_divergence(g, "bound").value <= exact + np.log(2.0)
    assert isinstance(f.kl_divergence(g, n=2), Estimate)


def test_the_variational_divergence_of_single_components_is_exact(named):
    """(tr(B^-1 A) + d' B^-1 d - D + log det B / det A) / 2, by plain linear algebra."""
    a, b = mixture_of(named, K=1), mixture_of(named, K=1, seed=9)
    A, B = a.parameters.covariance_matrices[0], b.parameters.covariance_matrices[0]
    d = b.parameters.means[0] - a.parameters.means[0]
    inverse = np.linalg.inv(B)
    expected = 0.5 * (np.trace(inverse @ A) + d @ inverse @ d - 3 + np.log(np.linalg.det(B) / np.linalg.det(A)))
    for method in ("variational", "bound"):
        assert a.kl_divergence(b, method).value == pytest.approx(expected, rel=1e-11)


def test_the_bound_is_never_below_the_divergence(named):
    """Nor above the best matching of components, of which it is the least over all ways to cut them into parts."""
    a, b = mixture_of(named), mixture_of(named, seed=9)
    value, error = a.kl_divergence(b, random_state=0)
    bound, unknown = a.kl_divergence(b, "bound")
    assert bound > value - STANDARD_ERRORS * error and np.isnan(unknown)
    v, w = a.parameters.weights, b.parameters.weights
    single = [[alone(a, i).kl_divergence(alone(b, j), "bound").value for j in range(3)] for i in range(3)]
    for order in itertools.permutations(range(3)):
        assert bound <= sum(v[i] * (np.log(v[i] / w[j]) + single[i][j]) for i, j in enumerate(order)) + 1e-9


def alone(mixture, k):
    """One component, with all the weight."""
    p = mixture.parameters
    covariances = p.covariances if p.structure == "tied" else p.covariances[[k]]
    return Mixture(Parameters([1.0], p.means[[k]], covariances, p.structure))


def test_a_divergence_that_is_infinite_is_said_to_be():
    """Draws where the other's density is 0 beyond any number."""
    assert TWO.kl_divergence(line([1.0], [0.0], [1e-150]), n=10, random_state=0).value == INF
    assert TWO.kl_divergence(line([1.0], [0.0], [1e-150]), "bound").value > 1e290
    assert np.isfinite(TWO.kl_divergence(line([0.5, 0.5], [0.0, 1.0], [1e-150, 1.0]), "bound").value)


# ------------------------------------------------------------------ edges


def test_a_weight_of_zero_is_nothing_anywhere():
    """Every method gives what it gives without that component, however far off it is; nothing is NaN."""
    with_it, without = LINES["a weight of 0"], line([0.4, 0.6], [0.0, 4.0], [1.0, 2.0])
    x, q = np.linspace(-50.0, 50.0, 11), np.linspace(0.01, 0.99, 11)
    for name in ("pdf", "logpdf", "cdf", "sf", "logcdf", "logsf"):
        np.testing.assert_array_equal(getattr(with_it, name)(x), getattr(without, name)(x))
    np.testing.assert_array_equal(with_it.ppf(q), without.ppf(q))
    assert (with_it.mean(), with_it.var(), with_it.median()) == (without.mean(), without.var(), without.median())
    np.testing.assert_array_equal(with_it.rvs(9, 0), without.rvs(9, 0))
    assert with_it.entropy(100, 0) == without.entropy(100, 0)
    assert with_it.kl_divergence(TWO, n=100, random_state=0) == without.kl_divergence(TWO, n=100, random_state=0)
    assert with_it.kl_divergence(TWO, "variational").value == without.kl_divergence(TWO, "variational").value
    assert TWO.kl_divergence(with_it, "variational").value == TWO.kl_divergence(without, "variational").value
    assert TWO.kl_divergence(with_it, "bound").value == TWO.kl_divergence(without, "bound").value
    np.testing.assert_array_equal(with_it.match(with_it), [0, 1, 2])


def test_weights_of_zero_in_more_features(named):
    """Conditional weights, regression, distances, merging of two of them."""
    p = mixture_of(named, K=4).parameters
    mixture = Mixture(Parameters([0.5, 0.5, 0.0, 0.0], p.means, p.covariances, p.structure))
    np.testing.assert_array_equal(mixture.condition(0, 1e5).parameters.weights[2:], 0.0)
    assert all(np.isfinite(part).all() for part in mixture.regress([[0.1], [50.0]], 0))
    assert np.isfinite(mixture.mahalanobis(np.ones(3))).all()
    merged = mixture.merge(3, 2).parameters
    np.testing.assert_array_equal(merged.weights, [0.5, 0.5, 0.0])
    assert merged.means[2] == pytest.approx(0.5 * (p.means[2] + p.means[3]))
    assert np.isfinite(mixture.cdf(np.zeros(3))) and np.isfinite(mixture.covariance()).all()


def test_weights_that_sum_to_nearly_one_are_made_to():
    """Parameters allow 1e-6: the density still integrates to 1; what was given stays as it was."""
    mixture = line([0.3, 0.7 + 9e-7], [0.0, 4.0], [1.0, 2.0])
    assert mixture.cdf(INF) == pytest.approx(1.0, abs=2 * EPS)
    assert mixture.cdf(2.0) + mixture.sf(2.0) == pytest.approx(1.0, abs=2 * EPS)
    assert np.exp(mixture.logpdf(2.0)) == pytest.approx(normals(mixture.parameters, "pdf", 2.0) / (1.0 + 9e-7), rel=20 * EPS)
    assert mixture.parameters.weights.sum() > 1.0 + 8e-7


@pytest.mark.parametrize("scale", [1e-145, 1e145])
def test_the_unit_of_the_data_does_not_matter(scale):
    """Quantiles and probabilities of a x are those of x; a log density is less by log a."""
    p = TWO.parameters
    scaled = Mixture(Parameters(p.weights, scale * p.means, scale * p.covariances * scale))
    q, x = np.array([1e-300, 0.1, 0.5, 0.9]), np.array([-3.0, 1.0, 8.0])
    np.testing.assert_allclose(scaled.ppf(q) / scale, TWO.ppf(q), rtol=1e-14)
    np.testing.assert_allclose(scaled.logsf(x * scale), TWO.logsf(x), rtol=1e-13)
    np.testing.assert_allclose(scaled.logpdf(x * scale), TWO.logpdf(x) - np.log(scale), rtol=1e-13)


def test_it_is_frozen_and_comes_back_from_a_pickle():
    """Equal where its parameters are; printed like them."""
    with pytest.raises(FrozenInstanceError):
        TWO.parameters = None
    again = pickle.loads(pickle.dumps(TWO))
    assert again == TWO and again.ppf(0.3) == TWO.ppf(0.3)
    assert LINES["one"] != TWO
    assert repr(TWO).startswith("Mixture: 2 components, 1 feature, structure 'full'\n  0: weight 0.3000")


def test_scipys_distributions_are_not_imported_with_it(run):
    """Nor by the density of a mixture: only by a probability in three features."""
    code = (
        "import sys, emfuse, emfuse.density as d\n"
        "d.Mixture(emfuse.Parameters.univariate([1.0], [0.0], [1.0])).pdf([1.0])\n"
        "print([name for name in ('scipy.stats', 'scipy.special', 'scipy.optimize') if name in sys.modules])"
    )
    assert run(code) == "[]"


SPACE = mixture_of("full")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Mixture("p"), TypeError, "parameters must be emfuse.Parameters (a fit has them: fit.parameters), got 'p'"),
        (lambda: TWO.pdf("x"), TypeError, "x must be real numbers, got an array of <U1"),
        (lambda: TWO.cdf(1j), TypeError, "x must be real numbers, got an array of complex128"),
        (lambda: TWO.ppf([None]), TypeError, "q must be real numbers, got an array of object"),
        (lambda: TWO.pdf(np.ma.array([1.0], mask=[True])), ValueError, "x is a masked array with masked values"),
        (lambda: SPACE.pdf(1.0), ValueError, "the last axis of x must have the 3 features of the mixture, got shape ()"),
        (lambda: SPACE.cdf(np.ones((3, 2))), ValueError, "the 3 features of the mixture, got shape (3, 2)"),
        (lambda: SPACE.sf([0.0] * 3), ValueError, "sf is for mixtures of one feature, and this one has 3: take a marginal first"),
        (lambda: SPACE.logsf([0.0] * 3), ValueError, "logsf is for mixtures of one feature"),
        (lambda: SPACE.ppf(0.5), ValueError, "ppf is for mixtures of one feature"),
        (lambda: SPACE.median(), ValueError, "median is for mixtures of one feature"),
        (lambda: SPACE.interval(0.5), ValueError, "interval is for mixtures of one feature"),
        (lambda: TWO.interval(95), ValueError, "confidence must be from 0 to 1, got 95"),
        (lambda: TWO.rvs(-1), ValueError, "size must be whole numbers of at least 0, or None, got -1"),
        (lambda: TWO.rvs((2, 0.5)), ValueError, "size must be whole numbers of at least 0, or None, got (2, 0.5)"),
        (lambda: TWO.entropy(1), ValueError, "n must be a whole number of draws, at least 2, got 1"),
        (lambda: TWO.kl_divergence(TWO, n=1.5), ValueError, "n must be a whole number of draws, at least 2, got 1.5"),
        (lambda: SPACE.marginal([]), ValueError, "features must be one or more numbers of features, got []"),
        (lambda: SPACE.marginal([0.5]), TypeError, "features must be numbers of features, 0 to 2, got [0.5]"),
        (lambda: SPACE.marginal([True, False, True]), TypeError, "features must be numbers of features, 0 to 2, got [True"),
        (lambda: SPACE.marginal(3), ValueError, "features must be numbers of features, 0 to 2, got 3"),
        (lambda: SPACE.marginal([0, -3]), ValueError, "features must be distinct, got 0 more than once"),
        (lambda: SPACE.condition([0, 1, 2], [0, 0, 0]), ValueError, "features must leave a feature that is not known, got all 3"),
        (
            lambda: SPACE.condition(0, [1.0, 2.0]),
            ValueError,
            "values must have one number for each of 1 features, got shape",
        ),
        (lambda: SPACE.condition([2, 0], [1.0, INF]), ValueError, "values must be finite, got inf for feature 0"),
        (lambda: SPACE.regress(np.ones((4, 2)), 0), ValueError, "X_known has 2 features, but known names 1"),
        (lambda: SPACE.regress([[np.nan]], 0), ValueError, "nan"),
        (lambda: SPACE.regress([[1.0]], 7), ValueError, "known must be numbers of features, 0 to 2, got 7"),
        (lambda: SPACE.mahalanobis([0.0, np.nan, 0.0]), ValueError, "nan"),
        (lambda: SPACE.merge(1, 1), ValueError, "i and j must be distinct, got 1 more than once"),
        (lambda: SPACE.merge(0, 3), ValueError, "i and j must be numbers of components, 0 to 2, got 3"),
        (lambda: TWO.prune(0.8), ValueError, "no component has a weight of at least 0.8: the largest is 0.7"),
        (lambda: TWO.relabel([0]), ValueError, "order must name each of 2 components once, got 1"),
        (lambda: TWO.relabel([0, 0]), ValueError, "order must be distinct, got 0 more than once"),
        (lambda: TWO.match(LINES["one"]), ValueError, "the mixtures have 2 and 1 components, and need equally many"),
        (lambda: TWO.match(SPACE), ValueError, "the mixtures have 1 and 3 features, and need equally many"),
        (lambda: TWO.kl_divergence(SPACE), ValueError, "the mixtures have 1 and 3 features, and need equally many"),
        (lambda: TWO.kl_divergence(TWO.parameters), TypeError, "other must be a Mixture, got Parameters"),
        (lambda: TWO.equals(1), TypeError, "other must be a Mixture, got 1"),
        (
            lambda: TWO.kl_divergence(TWO, "exact"),
            ValueError,
            "method must be 'monte_carlo', 'variational' or 'bound'",
        ),
    ],
)
def test_what_cannot_be_says_why(call, error, words):
    """One error that names the argument and the value."""
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
