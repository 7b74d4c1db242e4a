"""Starts: one M step of labels or responsibilities, k-means on the compiled pass, and the same seed, the same start."""

import tracemalloc

import numpy as np
import pytest

import emfuse
from emfuse import CollapsedComponent, InMemory, em, engines, from_labels, from_responsibilities, initialise
from emfuse.initialise import kmeans, kmeans_plus_plus, nearest

EPS = np.finfo(np.float64).eps
STARTS = ["kmeans", "kmeans++", "random_rows", "random"]


@pytest.fixture(params=STARTS)
def init(request):
    """Name of a start: all of them in turn."""
    return request.param


def start(X, K=3, structure="full", init="kmeans", seed=0, v=None):
    return initialise.start(InMemory(X, v), K, structure, init, initialise.generator(seed))


def bits(p):
    return [array.tobytes() for array in (p.weights, p.means, p.covariances)]


# ------------------------------------------------------------------ labels and responsibilities


def test_labels_by_hand():
    """Rows 1, 3 | 10, 14, 12: weights 2/5 and 3/5, means 2 and 12, variances 1 and 8/3."""
    p = from_labels([1.0, 3.0, 10.0, 14.0, 12.0], [0, 0, 1, 1, 1], "diag")
    np.testing.assert_array_equal(p.weights, [0.4, 0.6])
    np.testing.assert_allclose(p.means, [[2.0], [12.0]], rtol=4 * EPS)
    np.testing.assert_allclose(p.covariances, [[1.0], [8 / 3]], rtol=8 * EPS)


def test_weighted_labels_by_hand():
    """A row of weight 3 counts three times, one of weight 0 not at all."""
    p = from_labels([1.0, 5.0, 99.0, 10.0, 14.0], [0, 0, 0, 1, 1], "diag", sample_weight=[3.0, 1.0, 0.0, 2.0, 2.0])
    np.testing.assert_allclose(p.weights, [0.5, 0.5], rtol=2 * EPS)
    np.testing.assert_allclose(p.means, [[2.0], [12.0]], rtol=4 * EPS)
    np.testing.assert_allclose(p.covariances, [[3.0], [4.0]], rtol=8 * EPS)


def moments_of(X, z):
    """Weights, means and covariance matrices of responsibilities, by the textbook."""
    mass = z.sum(axis=0)
    means = (z.T @ X) / mass[:, None]
    d = X[:, None, :] - means
    return mass / len(X), means, np.einsum("nk,nka,nkb->kab", z, d, d) / mass[:, None, None], mass


def test_responsibilities_give_one_m_step(structure, mixture):
    """Weights, means and covariances are the weighted moments, averaged as the structure says."""
    X = mixture(K=3, D=2).sample(80, random_state=0)[0]
    z = np.random.default_rng(1).dirichlet(np.ones(3), 80)
    p = from_responsibilities(X, z, structure)
    weights, means, C, mass = moments_of(X, z)
    diagonal = C * np.eye(2)
    expected = {
        "full": C,
        "tied": np.broadcast_to(np.einsum("k,kab->ab", mass, C) / mass.sum(), C.shape),
        "diag": diagonal,
        "spherical": np.einsum("kaa->k", C)[:, None, None] / 2 * np.eye(2),
    }[structure]
    tolerance = 80 * EPS  # 80 terms
    np.testing.assert_allclose(p.weights, weights, rtol=tolerance)
    np.testing.assert_allclose(p.means, means, atol=tolerance * np.abs(X).max())
    np.testing.assert_allclose(p.covariance_matrices, expected, atol=tolerance * np.abs(C).max())


def test_labels_are_responsibilities_of_zero_and_one(structure, mixture):
    """from_labels(X, labels) == from_responsibilities(X, one-hot labels), to the last bit."""
    X, labels = mixture(K=3, D=2).sample(80, random_state=0)
    assert bits(from_labels(X, labels, structure)) == bits(from_responsibilities(X, np.eye(3)[labels], structure))


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.float64, list])
def test_labels_may_be_any_whole_numbers(kind, mixture):
    """Integers of any size, and floats that are whole."""
    X, labels = mixture(K=3, D=2).sample(80, random_state=0)
    given = labels.tolist() if kind is list else labels.astype(kind)
    assert bits(from_labels(X, given)) == bits(from_labels(X, labels))


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([0, 1], ValueError, "labels must have shape (4,), one a row of X, got (2,)"),
        ([0, 1, -1, 0], ValueError, "labels must be at least 0, got -1 in row 2"),
        ([0, 0, 2, 2], ValueError, "labels must contain each of 0 .. 2, but 1 does not occur"),
        ([0.0, 0.5, 1.0, 1.0], TypeError, "labels must be whole numbers, got an array of float64"),
        (["a", "b", "a", "b"], TypeError, "labels must be whole numbers, got an array of <U1"),
        ([0.0, np.nan, 1.0, 1.0], TypeError, "labels must be whole numbers, got an array of float64"),
    ],
)
def test_labels_that_cannot_be_say_why(labels, error, words):
    """The error names the value and its row."""
    with pytest.raises(error) as caught:
        from_labels([1.0, 2.0, 3.0, 5.0], labels)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("z", "words"),
    [
        (np.ones((3, 2)) / 2, "z must have shape (4, K), one row a row of X, got (3, 2)"),
        (np.ones(4), "z must have shape (4, K), one row a row of X, got (4,)"),
        ([[1, 0], [0.5, 0.4], [1, 0], [0, 1]], "z must have rows at least 0 that sum to 1, got [0.5, 0.4] in row 1"),
        ([[1, 0], [0.5, 0.5], [1.5, -0.5], [0, 1]], "z must have rows at least 0 that sum to 1, got [1.5, -0.5] in row 2"),
        ([[1, 0], [0.5, 0.5], [1, 0], [np.nan, 0.5]], "z must have rows at least 0 that sum to 1, got [nan, 0.5] in row 3"),
    ],
)
def test_responsibilities_that_cannot_be_say_why(z, words):
    """The error names the value and its row."""
    with pytest.raises(ValueError) as caught:
        from_responsibilities([1.0, 2.0, 3.0, 5.0], z)
    assert str(caught.value) == words


def test_a_cluster_without_spread_is_named():
    """Label 1 has one row: no variance."""
    with pytest.raises(CollapsedComponent, match="component 1 has collapsed: 1 rows' worth of data has variance 0 in feature 0"):
        from_labels([1.0, 2.0, 7.0], [0, 0, 1], "full")


def test_regularisation_starts_a_cluster_without_spread():
    """reg_covar is added to every variance."""
    np.testing.assert_array_equal(from_labels([1.0, 3.0, 7.0], [0, 0, 1], "diag", reg_covar=0.5).covariances, [[1.5], [0.5]])


@pytest.mark.parametrize("offset", [1e6, 1e8])
def test_labels_of_rows_far_from_zero_lose_nothing(structure, offset, mixture):
    """Sums are about the clusters' own means: rows moved by `offset` have the same covariances."""
    X, labels = mixture(K=3, D=2).sample(80, random_state=0)
    X = np.round(X * 2**20) / 2**20  # so that X + offset is exact
    here, there = from_labels(X, labels, structure), from_labels(X + offset, labels, structure)
    # the sums' own rounding is 80 terms'; the means' is eps times offset, and counts squared
    tolerance = 80 * EPS * np.abs(here.covariances).max() + (EPS * offset) ** 2
    np.testing.assert_allclose(there.covariances, here.covariances, rtol=0, atol=tolerance)


# ------------------------------------------------------------------ starts


def test_every_start_works(init, structure, mixture):
    """It is a mixture of K components with finite density for every row."""
    X = mixture(K=3, D=2).sample(200, random_state=0)[0]
    p = start(X, 3, structure, init)
    assert (p.n_components, p.n_features, p.structure) == (3, 2, structure)
    assert np.isfinite(engines.evaluate(X, p.factors, log_density=True).log_density).all()


def test_the_same_seed_gives_the_same_start(init, mixture):
    """To the last bit; and another seed, or the next draw of a generator, gives another."""
    X = mixture(K=3, D=2, apart=0.5).sample(200, random_state=0)[0]
    assert bits(start(X, init=init, seed=5)) == bits(start(X, init=init, seed=5))
    assert bits(start(X, init=init, seed=5)) != bits(start(X, init=init, seed=6))


def test_the_start_does_not_know_the_number_of_threads(init, mixture):
    """The same bits for 1 and 3 threads."""
    X = np.random.default_rng(0).standard_normal((40_000, 8))
    made = [initialise.start(InMemory(X, n_threads=n), 8, "diag", init, initialise.generator(0)) for n in (1, 3)]
    assert bits(made[0]) == bits(made[1])


@pytest.mark.parametrize("seed", [3, np.int64(3)])
def test_an_int_is_a_seed(seed):
    """numpy's integers too."""
    assert initialise.generator(seed).random() == np.random.default_rng(3).random()


def test_none_is_always_the_same_seed():
    """The same data gives the same answer, unless another seed is asked for."""
    assert initialise.generator(None).random() == initialise.generator(None).random()


def test_a_generator_goes_on():
    """It is used, not copied: the second start differs from the first."""
    mine = np.random.default_rng(0)
    assert initialise.generator(mine) is mine
    legacy = np.random.RandomState(0)
    assert initialise.generator(legacy).random() != initialise.generator(legacy).random()


@pytest.mark.parametrize("seed", ["0", 1.5, True])
def test_a_senseless_seed_is_refused(seed):
    """An int, a Generator, a RandomState or None."""
    with pytest.raises(TypeError, match="random_state must be an int, a numpy Generator or RandomState, or None, got"):
        initialise.generator(seed)


def test_an_unknown_start_lists_those_there_are():
    """The error says what there is to choose from."""
    words = (
        r"init must be one of 'kmeans', 'kmeans\+\+', 'random_rows', 'quantiles', 'short_runs', 'random', or emfuse\.Parameters, "
        "got 'pca'"
    )
    with pytest.raises(ValueError, match=words):
        start(np.arange(4.0), 2, init="pca")


@pytest.mark.parametrize("rows", [[1.0, 1.0, 1.0, 2.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
def test_more_components_than_distinct_rows_end(rows, init, structure):
    """A mixture with finite numbers, or CollapsedComponent: never a hang, a NaN or another error."""
    X = np.array(rows)[:, None] * [1.0, 2.0]
    try:
        p = start(X, 4, structure, init)
    except CollapsedComponent:
        return
    assert np.isfinite(np.concatenate([p.weights, p.means.ravel(), p.covariances.ravel()])).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("init", ["kmeans", "kmeans++", "random_rows"])
def test_where_a_cluster_is_one_row_all_start_with_one_covariance(init, seed):
    """Five rows and three clusters: some cluster is one row, and every component gets what is left within clusters."""
    p = start(np.array([[0.0], [0.1], [10.0], [10.1], [20.0]]), 3, "full", init, seed)
    assert p.covariances[0, 0, 0] > 0
    np.testing.assert_allclose(p.covariances, np.full((3, 1, 1), p.covariances[0, 0, 0]), rtol=100 * EPS)


def test_a_row_of_weight_zero_is_not_there(init, structure, mixture):
    """It is no centre, and moves none: a far row that weighs nothing leaves every mean among the others."""
    X = mixture(K=3, D=2).sample(100, random_state=0)[0]
    far = np.vstack([X, np.full((20, 2), 1e6)])
    p = start(far, 3, structure, init, v=np.r_[np.ones(100), np.zeros(20)])
    assert np.all(p.means >= X.min(axis=0)) and np.all(p.means <= X.max(axis=0))


@pytest.mark.parametrize("init", [name for name in STARTS if name != "random"])
def test_features_of_other_units_start_the_same_clusters(init, mixture):
    """k-means is in standard deviations: a feature in millimetres instead of kilometres changes no assignment."""
    X = mixture(K=3, D=2).sample(200, random_state=0)[0]
    units = np.array([1.0, 2.0**20])  # a power of two: nothing else is rounded
    here, there = start(X, init=init), start(X * units, init=init)
    np.testing.assert_array_equal(there.weights, here.weights)
    np.testing.assert_allclose(there.means, here.means * units, rtol=200 * EPS)


def test_a_constant_feature_does_not_count(init):
    """It has no standard deviation to measure with; the others decide, and the start is finite with a spherical covariance."""
    X = np.column_stack([np.r_[np.arange(20.0), 100.0 + np.arange(20.0)], np.full(40, 7.0)])
    p = start(X, 2, "spherical", init)
    assert np.isfinite(p.covariances).all()
    if init == "kmeans":
        np.testing.assert_allclose(sorted(p.means[:, 0]), [9.5, 109.5], rtol=40 * EPS)


# ------------------------------------------------------------------ k-means


class Watched(InMemory):
    """Rows that remember what each hard sweep said: -2 log-likelihood is the sum of squared distances."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.within = []

    def sweep(self, factors, *, origin=None, hard=False):
        s = super().sweep(factors, origin=origin, hard=hard)
        if hard:
            self.within.append(-2.0 * s.log_likelihood)
        return s


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_objective_of_k_means_never_rises(build, seed, weighted):
    """The sum of squared distances falls from the seeding on, each time; beyond the rounding of adding N of them."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((500, 3)) * [1.0, 10.0, 0.1]
    engine = Watched(X, random.integers(0, 3, 500) if weighted else None)
    kmeans(engine, 7, np.random.default_rng(seed))
    within = np.array(engine.within)
    assert len(within) > 2
    assert np.all(np.diff(within) <= 500 * EPS * within[0])


def test_k_means_finds_groups_that_are_far_apart(mixture):
    """Four groups at the corners of a square: their means, whatever the seed."""
    corners = np.array([[0.0, 0.0], [0.0, 100.0], [100.0, 0.0], [100.0, 100.0]])
    X = np.repeat(corners, 25, axis=0) + np.random.default_rng(0).uniform(-1.0, 1.0, (100, 2))
    for seed in range(5):
        centres = kmeans(InMemory(X), 4, np.random.default_rng(seed))
        order = np.lexsort(np.round(centres, -1).T[::-1])
        np.testing.assert_allclose(centres[order], corners, atol=1.0)


def test_the_seeding_draws_rows(mixture):
    """Each centre is a row that weighs something, and no row comes twice while others are left."""
    X = mixture(K=3, D=2).sample(50, random_state=0)[0]
    v = (np.arange(50) % 2).astype(float)
    for seed in range(10):
        centres = kmeans_plus_plus(InMemory(X, v), 5, np.random.default_rng(seed))
        rows = [int(np.flatnonzero((centre == X).all(axis=1))[0]) for centre in centres]
        assert len(set(rows)) == 5
        assert all(v[row] > 0 for row in rows)


def test_the_seeding_prefers_what_is_far():
    """One row 1,000 standard deviations from 99 that are together is among two centres nearly always: in 20 of 20 draws."""
    X = np.r_[np.random.default_rng(0).uniform(0.0, 1e-3, 99), 1.0]
    assert all(1.0 in kmeans_plus_plus(InMemory(X), 2, np.random.default_rng(seed)) for seed in range(20))


def test_moments_by_hand():
    """Mean and variance of 1, 2, 6 with weights 1, 2, 1: 11/4 and 147/16 - ..., that is (1 + 8 + 36) / 4 - (11/4)^2 = 59/16."""
    mean, variance = InMemory([1.0, 2.0, 6.0], [1.0, 2.0, 1.0]).moments
    np.testing.assert_allclose((mean[0], variance[0]), (11 / 4, 59 / 16), rtol=8 * EPS)


def test_moments_of_rows_far_from_zero_lose_nothing():
    """1, 2, 3 about 1e8: variance 2/3, exactly as near zero."""
    assert InMemory(1e8 + np.array([1.0, 2.0, 3.0])).moments[1][0] == pytest.approx(2 / 3, rel=8 * EPS)


def test_nearest_is_the_nearest_in_standard_deviations():
    """Standard deviations 1 and 10: (0, 10) is 1 from (0, 0), and 2 from (2, 10)."""
    X = np.array([[-1.0, -10.0], [1.0, -10.0], [-1.0, 10.0], [1.0, 10.0]])  # sd 1 and 10
    factors = nearest(InMemory(X), np.array([[0.0, 0.0], [2.0, 10.0]]))
    out = engines.evaluate([[0.0, 10.0]], factors, labels=True, log_density=True)
    assert out.labels[0] == 0
    assert out.log_density[0] == pytest.approx(np.log(np.exp(-0.5) + np.exp(-2.0)), rel=8 * EPS)


def test_a_start_stores_nothing_of_rows_times_components(init):
    """50,000 rows and 64 components: less than half of one array of both, which would be 26 MB."""
    N, K = 50_000, 64
    engine = InMemory(np.random.default_rng(0).standard_normal((N, 2)), n_threads=1)
    tracemalloc.start()
    initialise.start(engine, K, "diag", init, initialise.generator(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < N * K * 8 / 2  # ten arrays of N, and pieces of 2 MB: measured 0.25, and 0.31 in pure NumPy


def test_a_start_leads_to_a_fit(init, structure, mixture):
    """Ten M steps from it raise the log-likelihood."""
    X = mixture(K=3, D=2).sample(300, random_state=0)[0]
    fit = em(X, start(X, 3, structure, init), stop=10)
    assert fit.trace[-1] > fit.trace[0]


def test_quantiles_cut_one_feature_into_parts_of_equal_weight():
    """By hand: six rows into three pairs; with weights, parts of (nearly) equal weight."""
    X = np.array([5.0, 1.0, 3.0, 2.0, 6.0, 4.0])
    p = emfuse.initialise.start(InMemory(X), 3, "full", "quantiles", np.random.default_rng(0))
    np.testing.assert_allclose(p.means[:, 0], [1.5, 3.5, 5.5])
    np.testing.assert_allclose(p.weights, 1 / 3)
    heavy = InMemory(X, np.array([1.0, 3.0, 1.0, 1.0, 1.0, 1.0]))
    labels = emfuse.initialise.quantile_labels(heavy, 2)
    np.testing.assert_array_equal(labels, [1, 0, 1, 0, 1, 1])
    with pytest.raises(ValueError, match="init='quantiles' needs one feature, got 2"):
        emfuse.fit(np.ones((9, 2)), 2, init="quantiles")


def test_weights_and_repeated_rows_have_the_same_quantiles():
    """Weight two is the row twice."""
    X = np.random.default_rng(0).normal(size=60)
    v = np.random.default_rng(1).integers(1, 4, 60)
    weighted = emfuse.initialise.start(InMemory(X, v), 3, "full", "quantiles", np.random.default_rng(0))
    means = weighted.means[:, 0]
    repeated = emfuse.initialise.start(InMemory(np.repeat(X, v)), 3, "full", "quantiles", np.random.default_rng(0)).means[:, 0]
    np.testing.assert_allclose(means, repeated, atol=0.05)  # a row on a border stays whole


def test_short_runs_climb_higher_than_the_start_alone(structure):
    """The best of many: after ten steps no lower than ten steps from k-means, which is one of them."""
    X = np.random.default_rng(2).normal(size=(400, 2)) + np.repeat(np.eye(4)[:, :2] * 2.5, 100, axis=0)
    engine, kind = InMemory(X), emfuse.structures.structure_named(structure)
    short = emfuse.initialise.start(engine, 4, structure, "short_runs", np.random.default_rng(0))
    kmeans = emfuse.initialise.start(engine, 4, structure, "kmeans", np.random.default_rng(0))
    ten = emfuse.em(X, kmeans, stop=10).log_likelihood
    assert engine.sweep(short.factors).log_likelihood >= ten - 1e-9
    assert short == emfuse.initialise.start(engine, 4, kind, "short_runs", np.random.default_rng(0))


def test_the_first_of_many_starts_are_those_of_few():
    """Common random numbers: start i is the same whatever n_init is; every start's score is reported, the best is kept."""
    X = np.random.default_rng(0).normal(size=(300, 2)) + np.repeat([[0, 0], [3, 0], [0, 3]], 100, axis=0)
    few, many = (emfuse.fit(X, 5, init="random_rows", n_init=n, random_state=7) for n in (3, 8))
    np.testing.assert_array_equal(many.scores[:3], few.scores)
    assert many.log_likelihood == many.scores.max() and few.log_likelihood == few.scores.max()
    assert emfuse.fit(X, 5, init="random_rows", random_state=7).log_likelihood == few.scores[0]


@pytest.mark.parametrize("N", [300, 3_500, 30_000])
def test_starts_side_by_side_give_the_same_bits(N):
    """Whatever the number of threads, whether they do starts or sweeps."""
    X = np.random.default_rng(0).normal(size=(N, 2))
    one, two = (emfuse.fit(X, 3, n_init=4, random_state=1, stop=25, n_threads=n) for n in (1, 3))
    assert one.parameters == two.parameters
    np.testing.assert_array_equal(one.scores, two.scores)
