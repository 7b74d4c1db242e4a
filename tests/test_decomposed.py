"""The ten structures of volume, shape and orientation: that each is of its family, and that nothing in it is better.

What they inherit from every structure is in `test_structures.py`. The fits of mclust, from its own partitions, are at the end.
"""

import mpmath as mp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import minimize

import emfuse
from emfuse import Blocks, InMemory, NotPositiveDefinite, Parameters
from emfuse.decomposed import DECOMPOSED, Diagonality, Quadratic, _rounds, common_axes, eigen
from emfuse.parameters import Factors
from emfuse.statistics import in_form_of
from emfuse.structures import ALL_STRUCTURES, structure_named

EPS = np.finfo(np.float64).eps
NAMES = [kind.name for kind in DECOMPOSED]
TURNED = [name for name in NAMES if name[2] != "I"]  # those with an orientation
SIZES = [(1, 1), (3, 1), (1, 3), (2, 2), (3, 4)]  # K, D

each = pytest.mark.parametrize("kind", DECOMPOSED, ids=NAMES)


def random_scatter(kind, K, D, seed):
    """Scatters of K components and their masses, in the kind's form."""
    random = np.random.default_rng(seed)
    mass = random.uniform(5.0, 50.0, K)
    A = random.standard_normal((K, D, D + 3))
    return in_form(kind, mass[:, None, None] * (A @ A.transpose(0, 2, 1)) / (D + 3)), mass


def in_form(kind, matrices):
    """Matrices, or their diagonals for a kind that wants no more."""
    return matrices if kind.form == "full" else np.diagonal(matrices, axis1=1, axis2=2).copy()


def loss(kind, covariances, scatter, mass):
    """Minus twice the expected log-likelihood: sum_k [ mass_k log det Sigma_k + tr(W_k Sigma_k^-1) ], nats."""
    K, D = scatter.shape[:2]
    C = kind.matrices(covariances, K, D)
    W = scatter if kind.form == "full" else scatter[:, :, None] * np.eye(D)
    return float(mass @ np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, W), axis1=1, axis2=2).sum())


def member(name, random, K, D):
    """Random covariance matrices of the family, (K, D, D)."""
    volumes, shapes, turns = ({"E": 1, "V": K, "I": 0}[letter] for letter in name)
    volume = np.exp(random.normal(0.0, 1.0, (volumes, 1, 1)))
    logs = random.normal(0.0, 0.7, (shapes, D)) if shapes else np.zeros((1, D))
    shape = np.exp(logs - logs.mean(axis=1, keepdims=True))[:, :, None] * np.eye(D)
    Q = np.linalg.qr(random.standard_normal((turns, D, D)))[0] if turns else np.eye(D)[None]
    return np.broadcast_to(volume * (Q @ shape @ Q.transpose(0, 2, 1)), (K, D, D))


# ------------------------------------------------------------------ literal


LITERAL = {  # name: scatters, masses, covariances
    "EII": ([[2, 6], [8, 8]], [2, 2], [3, 3]),  # (2 + 6 + 8 + 8) / (2 x 4)
    "EEI": ([[2, 6], [8, 8]], [2, 2], [[2.5, 3.5], [2.5, 3.5]]),
    "VEI": ([[1, 3], [3, 1]], [1, 1], [[2, 2], [2, 2]]),  # mirror images: no feature before the other
    "EVI": ([[2, 8], [16, 4]], [1, 3], [[1.5, 6], [6, 1.5]]),  # roots of determinants 4 and 8, together 3 x 4
    "VEE": ([[[2, 1], [1, 2]], [[2, -1], [-1, 2]]], [1, 1], [[[2, 0], [0, 2]], [[2, 0], [0, 2]]]),  # mirror images again
    "EVE": (  # eigenvalues 8 and 2, 1 and 9, along the same axes; roots of determinants 4 and 3, together 7
        [[[5, 3], [3, 5]], [[5, -4], [-4, 5]]],
        [2, 5],
        [[[1.25, 0.75], [0.75, 1.25]], [[5 / 3, -4 / 3], [-4 / 3, 5 / 3]]],
    ),
    "VVE": ([[[5, 1], [1, 1]], [[5, -1], [-1, 1]]], [1, 1], [[[5, 0], [0, 1]], [[5, 0], [0, 1]]]),  # and again
    "EEV": (  # eigenvalues 8 and 2, 4 and 1: sums 12 and 3, over 3
        [[[5, 3], [3, 5]], [[1, 0], [0, 4]]],
        [1, 2],
        [[[2.5, 1.5], [1.5, 2.5]], [[1, 0], [0, 4]]],
    ),
    "VEV": (  # eigenvalues 8 and 2, 12 and 3, of one shape already
        [[[5, 3], [3, 5]], [[3, 0], [0, 12]]],
        [1, 3],
        [[[5, 3], [3, 5]], [[1, 0], [0, 4]]],
    ),
    "EVV": (  # roots of determinants 2 and 4, together 2 x 3
        [[[1, 0], [0, 4]], [[5, 3], [3, 5]]],
        [1, 2],
        [[[1, 0], [0, 4]], [[2.5, 1.5], [1.5, 2.5]]],
    ),
}


@each
def test_an_estimate_by_hand(kind):
    """Two components in two features, whose answer can be written down."""
    scatter, mass, covariances = (np.array(numbers, dtype=np.float64) for numbers in LITERAL[kind.name])
    np.testing.assert_allclose(kind.estimate(scatter, mass), covariances, rtol=0.0, atol=1e-14 * covariances.max())


@each
def test_free_parameters_are_those_of_mclust(kind):
    """mclust's table for K = 3, D = 4: volumes 1 or 3, shapes of 3 each, orientations of 6 each."""
    table = {"EII": 1, "VEI": 6, "EVI": 10, "EEI": 4, "VEE": 12, "EVE": 16, "VVE": 18, "EEV": 22, "VEV": 24, "EVV": 28}
    assert kind.free_parameters(3, 4) == table[kind.name]


def test_all_fourteen_are_there():
    """Two letters of volume and three of shape and orientation make twelve with an orientation or a shape, and two spheres."""
    fourteen = [v + s + o for v in "EV" for s in "EV" for o in "IEV"] + ["EII", "VII"]
    assert {structure_named(name).name for name in fourteen} == set(ALL_STRUCTURES)
    assert len(ALL_STRUCTURES) == len(set(fourteen)) == 14


# ------------------------------------------------------------------ law: of the family, and the best of it


@pytest.mark.parametrize(("K", "D"), SIZES)
@each
def test_an_estimate_is_of_its_family(kind, K, D):
    """Volumes, shapes and orientations are equal where the letter is E, and none where it is I."""
    scatter, mass = random_scatter(kind, K, D, 1)
    C = kind.matrices(kind.estimate(scatter, mass), K, D)
    volume = np.exp(np.linalg.slogdet(C)[1] / D)
    C = C / volume[:, None, None]
    shape = np.linalg.eigvalsh(C)
    rounding = 100 * EPS * np.abs(C).max() ** 2  # eigenvalues of D x D matrices, and products of two of these
    letters = dict(zip(("volume", "shape", "orientation"), kind.name, strict=True))
    if letters["volume"] == "E":
        np.testing.assert_allclose(volume, volume[:1].repeat(K), rtol=rounding)
    if letters["shape"] == "E":
        np.testing.assert_allclose(shape, shape[:1].repeat(K, axis=0), atol=rounding)
    if letters["shape"] == "I":
        np.testing.assert_allclose(shape, np.ones((K, D)), atol=rounding)
    if letters["orientation"] == "I":
        np.testing.assert_array_equal(C * (1.0 - np.eye(D)), np.zeros((K, D, D)))
    if letters["orientation"] == "E":  # matrices commute where they have their eigenvectors in common
        np.testing.assert_allclose(C[0] @ C, C @ C[0], atol=rounding)


def generic(name, K, D):
    """The number of coordinates of the family, and the function from them to (K, D, D) matrices."""
    volumes, shapes, turns = ({"E": 1, "V": K, "I": 0}[letter] for letter in name)
    upper = np.triu_indices(D, 1)
    cuts = np.cumsum([volumes, shapes * (D - 1), turns * len(upper[0])])

    def matrices(x):
        volume = np.exp(x[: cuts[0]])[:, None, None]
        logs = x[cuts[0] : cuts[1]].reshape(shapes, D - 1) if shapes else np.zeros((1, D - 1))
        shape = np.exp(np.column_stack([logs, -logs.sum(axis=1)]))[:, :, None] * np.eye(D)
        E = np.zeros((max(turns, 1), D, D))
        if turns:
            E[:, upper[0], upper[1]] = x[cuts[1] :].reshape(turns, -1)
        E = E - E.transpose(0, 2, 1)
        Q = np.linalg.solve(np.eye(D) - E, np.eye(D) + E)  # Cayley's: any rotation but half turns
        return np.broadcast_to(volume * (Q @ shape @ Q.transpose(0, 2, 1)), (K, D, D))

    return int(cuts[2]), matrices


@pytest.mark.parametrize(("K", "D", "seed"), [(2, 2, 0), (3, 2, 1), (2, 3, 2)])
@each
def test_a_generic_optimiser_finds_nothing_better(kind, K, D, seed):
    """scipy's BFGS over the family's coordinates, from several starts: no better, and as good to its own tolerance."""
    scatter, mass = random_scatter(kind, K, D, seed)
    scatter, mass = scatter / mass.sum(), mass / mass.sum()
    W = scatter if kind.form == "full" else scatter[:, :, None] * np.eye(D)
    size, matrices = generic(kind.name, K, D)

    def rival(x):
        C = matrices(x)
        return float(mass @ np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, W), axis1=1, axis2=2).sum())

    random = np.random.default_rng(seed)
    best = min(minimize(rival, random.normal(0.0, 0.7, size), method="BFGS").fun for _ in range(4))
    ours = loss(kind, kind.estimate(scatter, mass), scatter, mass)
    assert ours <= best + 1e-13
    assert best <= ours + 1e-8  # it stops at gradients of 1e-5, which are differences themselves


@pytest.mark.parametrize(("K", "D"), SIZES)
@each
def test_what_is_of_the_family_is_recovered(kind, K, D):
    """Scatters of mass times a member's covariances give these back: from nothing, from there and from elsewhere."""
    random = np.random.default_rng(7)
    mass = random.uniform(5.0, 50.0, K)
    C, elsewhere = member(kind.name, random, K, D), member(kind.name, random, K, D)
    scatter = in_form(kind, mass[:, None, None] * C)
    for before in (None, C, elsewhere):
        if before is not None:
            before = kind.estimate(in_form(kind, mass[:, None, None] * before), mass)
        made = kind.matrices(kind.estimate(scatter, mass, before), K, D)
        np.testing.assert_allclose(made, C, atol=1e-12 * np.abs(C).max())  # a search's axes are good to the root of its loss


NESTED = {  # each family: those that have it within them
    "EII": ("VII", "EEI"),
    "VII": ("VEI",),
    "EEI": ("VEI", "EVI", "EEE"),
    "VEI": ("VVI", "VEE"),
    "EVI": ("VVI", "EVE"),
    "VVI": ("VVE",),
    "EEE": ("VEE", "EVE", "EEV"),
    "VEE": ("VVE", "VEV"),
    "EVE": ("VVE", "EVV"),
    "VVE": ("VVV",),
    "EEV": ("VEV", "EVV"),
    "VEV": ("VVV",),
    "EVV": ("VVV",),
}


@pytest.mark.parametrize(("narrow", "wide"), [(narrow, wide) for narrow in NESTED for wide in NESTED[narrow]])
@pytest.mark.parametrize("seed", range(5))
def test_a_wider_family_explains_more(narrow, wide, seed):
    """What holds for every covariance of the narrow one holds for the best of them."""
    random = np.random.default_rng(seed)
    K, D = 3, 3
    mass, A = random.uniform(5.0, 50.0, K), random.standard_normal((K, D, D + 2))
    W = mass[:, None, None] * (A @ A.transpose(0, 2, 1))
    losses = []
    for name in (narrow, wide):
        kind = structure_named(name)
        C = kind.matrices(kind.estimate(in_form(kind, W), mass), K, D)
        losses.append(mass @ np.linalg.slogdet(C)[1] + np.trace(np.linalg.solve(C, W), axis1=1, axis2=2).sum())
    assert losses[1] <= losses[0] + 1e-13 * mass.sum()


# ------------------------------------------------------------------ law: the search starts from what was before


@pytest.mark.parametrize(("K", "D"), SIZES)
@each
def test_what_was_before_is_never_worsened(kind, K, D):
    """From any covariances of the family the estimate is at least as good as these: EM rises."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        scatter, mass = random_scatter(kind, K, D, seed)
        before = kind.estimate(in_form(kind, mass[:, None, None] * member(kind.name, random, K, D)), mass)
        made = kind.estimate(scatter, mass, before)
        assert loss(kind, made, scatter, mass) <= loss(kind, before, scatter, mass) + 1e-13 * mass.sum()


@pytest.mark.parametrize("kind", [k for k in DECOMPOSED if k.name not in ("EVE", "VVE")], ids=lambda k: k.name)
def test_what_was_before_does_not_matter_where_there_is_one_minimum(kind):
    """All but the two that look for common axes have one minimum, and find it from anywhere."""
    scatter, mass = random_scatter(kind, 3, 4, 8)
    cold = kind.estimate(scatter, mass)
    for seed in range(5):
        before = kind.estimate(*random_scatter(kind, 3, 4, 100 + seed))
        np.testing.assert_allclose(kind.estimate(scatter, mass, before), cold, atol=1e-12 * np.abs(cold).max())


@each
def test_what_is_nearest_is_of_the_family(kind):
    """A member is its own; covariances that are off by a millionth are brought back, as far as they were off."""
    random = np.random.default_rng(23)
    C = kind.estimate(*random_scatter(kind, 3, 4, 23))
    weights = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(kind.nearest(C, weights), C, atol=1e-12 * C.max())
    noise = random.normal(0.0, 1e-6, C.shape)
    off = C * (1.0 + (noise + noise.transpose(0, 2, 1) if C.ndim == 3 else noise))
    made = kind.nearest(off, weights)
    np.testing.assert_allclose(made, C, atol=1e-4 * C.max())
    np.testing.assert_allclose(kind.nearest(made, weights), made, atol=1e-12 * C.max())


@each
def test_an_estimate_is_where_the_next_one_stays(kind):
    """The same scatters once more change nothing but the last digits: a fit can settle."""
    scatter, mass = random_scatter(kind, 3, 4, 9)
    here = kind.estimate(scatter, mass)
    np.testing.assert_allclose(kind.estimate(scatter, mass, here), here, atol=1e-12 * np.abs(here).max())


@pytest.mark.parametrize("name", ["EVE", "VVE"])
def test_a_saddle_is_left(name):
    """Between two mirror images the features' own axes have no slope, and are the worst of all; those at 45 degrees are best."""
    kind = structure_named(name)
    W = np.array([[[1.0, 0.5], [0.5, 1.0]], [[1.0, -0.5], [-0.5, 1.0]]])
    for before in (None, np.array([np.eye(2), np.eye(2)]), np.array([np.diag([2.0, 1.0]), np.diag([1.0, 2.0])])):
        np.testing.assert_allclose(kind.estimate(W, np.ones(2), before), W, atol=1e-14)


@pytest.mark.parametrize(("K", "D"), [(3, 2), (3, 4), (5, 8), (4, 40)])
@pytest.mark.parametrize("name", ["EVE", "VVE"])
def test_a_search_from_nearby_takes_few_steps(name, K, D, monkeypatch):
    """Newton's method: at most 5 steps after a tenth of the scatters has changed, and no turn plane by plane."""
    counts = {"lowest": 0, "turned": 0}
    for owner, method in ((Quadratic, "lowest"), (Diagonality, "turned")):
        monkeypatch.setattr(owner, method, counted(getattr(owner, method), counts, method))
    kind = structure_named(name)
    random = np.random.default_rng(1)
    mass = random.uniform(5.0, 50.0, K)
    C = mass[:, None, None] * member(name, random, K, D)
    n = 10 * max(D, 4)
    A, B = (np.linalg.cholesky(C) @ random.standard_normal((K, D, n)) for _ in range(2))
    scatter, other = (C + A @ A.transpose(0, 2, 1) / n, B @ B.transpose(0, 2, 1) / n)
    before = kind.estimate(scatter, mass)
    counts.update(lowest=0, turned=0)
    kind.estimate(0.9 * scatter + 0.1 * other, mass, before)
    assert counts["turned"] == 0 and 1 <= counts["lowest"] <= 5


def counted(method, counts, name):
    """The method, which also counts its calls."""

    def wrapped(*args):
        counts[name] += 1
        return method(*args)

    return wrapped


# ------------------------------------------------------------------ law: what is done to the data is done to the answer


@pytest.mark.parametrize("power", [-498, 7, 498])
@each
def test_the_scale_of_the_data_does_not_matter(kind, power):
    """Data times s: covariances times s^2. s = 2^498 is 8e149; a power of two, so nothing is rounded."""
    scatter, mass = random_scatter(kind, 3, 4, 10)
    once = kind.estimate(scatter, mass)
    before = kind.estimate(*random_scatter(kind, 3, 4, 11))
    then = kind.estimate(scatter, mass, before)
    np.testing.assert_array_equal(kind.estimate(scatter * 4.0**power, mass), once * 4.0**power)
    np.testing.assert_array_equal(kind.estimate(scatter * 4.0**power, mass, before * 4.0**power), then * 4.0**power)


@each
def test_permuted_components_have_permuted_covariances(kind):
    """No component is the first."""
    scatter, mass = random_scatter(kind, 4, 3, 12)
    order = np.array([2, 0, 3, 1])
    made = kind.estimate(scatter, mass)
    np.testing.assert_allclose(kind.estimate(scatter[order], mass[order]), made[order], atol=1e-12 * made.max())


@each
def test_permuted_features_have_permuted_covariances(kind):
    """No feature is the first."""
    K, D, order = 3, 4, np.array([2, 0, 3, 1])
    scatter, mass = random_scatter(kind, K, D, 13)
    moved = scatter[:, order][:, :, order] if kind.form == "full" else scatter[:, order]
    C = kind.matrices(kind.estimate(scatter, mass), K, D)[:, order][:, :, order]
    np.testing.assert_allclose(kind.matrices(kind.estimate(moved, mass), K, D), C, atol=1e-12 * C.max())


@pytest.mark.parametrize("name", TURNED)
def test_turned_data_have_turned_covariances(name):
    """Where there is an orientation, no direction is the first."""
    kind = structure_named(name)
    scatter, mass = random_scatter(kind, 3, 4, 14)
    Q = np.linalg.qr(np.random.default_rng(14).standard_normal((4, 4)))[0]
    turned = Q @ kind.estimate(scatter, mass) @ Q.T
    np.testing.assert_allclose(kind.estimate(Q @ scatter @ Q.T, mass), turned, atol=1e-12 * turned.max())


@pytest.mark.parametrize("name", ["EEI", "VEI", "EVI", "VEE", "EVV"])
def test_the_units_of_the_features_do_not_matter_to_some(name):
    """Scales of 1e-12 to 1e12: families that such scaling keeps follow it; powers of two, so rounding is the only change."""
    kind = structure_named(name)
    scatter, mass = random_scatter(kind, 3, 3, 15)
    s = 2.0 ** np.array([-40, 0, 40])
    scale = s[:, None] * s if kind.form == "full" else s * s
    made = kind.estimate(scatter * scale, mass) / scale
    np.testing.assert_allclose(made, kind.estimate(scatter, mass), rtol=0.0, atol=1e-12 * made.max())


# ------------------------------------------------------------------ edge


@pytest.mark.parametrize("before", [False, True])
@each
def test_one_feature_has_nothing_but_a_volume(kind, before):
    """Equal variances where the first letter is E, even of a component without scatter; free ones where it is V."""
    W, mass = np.array([2.0, 0.0 if kind.name[0] == "E" else 3.0, 12.0]), np.array([1.0, 2.0, 4.0])
    scatter = W.reshape(3, 1, 1) if kind.form == "full" else W[:, None]
    made = kind.estimate(scatter, mass, np.ones(kind.shape(3, 1)) if before else None)
    assert made.shape == kind.shape(3, 1)
    np.testing.assert_allclose(made.ravel(), np.full(3, 2.0) if kind.name[0] == "E" else W / mass, rtol=4 * EPS)


def test_a_sphere_takes_sums_that_are_pooled_over_features():
    """EII has one number for all features in P, and a sweep brings home the mean: (K, 1)."""
    kind = structure_named("EII")
    scatter, mass = random_scatter(kind, 3, 4, 16)
    pooled = kind.estimate(scatter.mean(axis=1, keepdims=True), mass)
    np.testing.assert_allclose(pooled, kind.estimate(scatter, mass), rtol=8 * EPS)


@each
def test_a_component_of_fewer_rows_than_features_is_told_where_it_matters(kind):
    """Of two rows about their mean only a direction is left: common shapes bear it, free ones and common axes name it."""
    scatter, mass = random_scatter(structure_named("full"), 3, 3, 17)
    direction = np.array([1.0, 2.0, -1.0])
    scatter[1], mass[1] = 0.5 * direction[:, None] * direction, 2.0
    C = kind.estimate(in_form(kind, scatter), mass)
    if kind.name in ("EVE", "VVE", "EVV"):
        with pytest.raises(NotPositiveDefinite) as caught:
            kind.factor(C, 3, 3)
        assert (caught.value.component, caught.value.feature) == (1, 1)  # given feature 0 nothing is left of feature 1
    else:
        assert np.isfinite(kind.factor(C, 3, 3)[1]).all()


@each
def test_a_constant_feature_is_named_where_it_matters(kind):
    """Feature 2 has no variance in any component: only spheres have none to want."""
    scatter, mass = random_scatter(kind, 3, 3, 18)
    scatter[:, 2] = 0.0
    if kind.form == "full":
        scatter[:, :, 2] = 0.0
    C = kind.estimate(scatter, mass)
    if kind.name == "EII":
        assert C.min() > 0.0
        return
    with pytest.raises(NotPositiveDefinite) as caught:
        kind.factor(C, 3, 3)
    assert caught.value.feature == 2


def test_a_heavy_component_that_is_flat_has_no_volume():
    """VEI: with 9 of 10 rows on a line along feature 0, the smaller its volume the better, without end."""
    kind = structure_named("VEI")
    C = kind.estimate(np.array([[9.0, 0.0], [1.0, 1.0]]), np.array([9.0, 1.0]))
    with pytest.raises(NotPositiveDefinite) as caught:
        kind.factor(C, 2, 2)
    assert (caught.value.component, caught.value.feature) == (0, 1)


@pytest.mark.parametrize("D", [2, 3, 6])
def test_eigenvalues_keep_their_digits_whatever_the_units(D):
    """Against 60 digits: features' standard deviations from 1e-9 to 1e9, in any order."""
    random = np.random.default_rng(D)
    for _ in range(5):
        B = random.standard_normal((D, D + 4))
        W = B @ B.T * (s := 10.0 ** random.uniform(-9, 9, D)) * s[:, None]
        W = 0.5 * (W + W.T)
        with mp.workdps(60):
            exact = np.sort([float(v) for v in mp.eigsy(mp.matrix(W.tolist()), eigvals_only=True)])[::-1]
        values, axes = eigen(W[None])
        condition = np.linalg.cond(W / np.sqrt(np.outer(np.diag(W), np.diag(W))))  # of the correlations: 1e1 to 1e4 here
        np.testing.assert_allclose(values[0], exact, rtol=10 * D * EPS * condition)
        made = (axes[0] * values[0]) @ axes[0].T
        sds = np.sqrt(np.diag(W))
        np.testing.assert_allclose(made / sds / sds[:, None], W / sds / sds[:, None], atol=10 * D * EPS)


@pytest.mark.parametrize(("name", "narrow"), [("EEV", "EEI"), ("VEV", "VEI"), ("EVE", "EVI"), ("VVE", "VVI")])
def test_features_of_very_different_units_do_not_collapse(name, narrow):
    """Standard deviations of 1e-8, 1 and 1e8: better than without an orientation, and a free matrix is better still."""
    scatter, mass = random_scatter(structure_named("full"), 3, 3, 19)
    s = np.array([1.0, 1e8, 1e-8])  # in no order: a plain eigensolver has no digit of the least
    scatter = scatter * s * s[:, None]
    losses = []
    for kind in map(structure_named, ("VVV", name, narrow)):
        P, log_det = kind.factor(kind.estimate(in_form(kind, scatter), mass), 3, 3)
        P = P if P.ndim == 3 else P[:, :, None] * np.eye(3)
        losses.append(float(np.trace(P @ scatter @ P.transpose(0, 2, 1), axis1=1, axis2=2).sum() - 2.0 * mass @ log_det))
    assert losses == sorted(losses) and len(set(losses)) == 3


# ------------------------------------------------------------------ common axes


@pytest.mark.parametrize("share", [np.array([0.2, 0.5, 0.3]), None], ids=["VVE", "EVE"])
def test_derivatives_are_those_of_the_value(share):
    """Gradient and Hessian against differences over angles of 1e-4: good to 1e-8 times a third or fourth derivative."""
    what, D = Diagonality(share), 4
    A = np.random.default_rng(20).standard_normal((3, D, D + 3))
    M = A @ A.transpose(0, 2, 1)
    upper = np.triu_indices(D, 1)

    def value(x):
        E = np.zeros((D, D))
        E[upper] = x
        R = expm(E - E.T)
        return what.value(R.T @ M @ R)

    local, steps = Quadratic(what, M), 1e-4 * np.eye(len(upper[0]))
    np.testing.assert_allclose(local.slope[upper], [(value(s) - value(-s)) / 2e-4 for s in steps], atol=1e-6)
    differences = [[value(s + t) - value(s - t) - value(t - s) + value(-s - t) for t in steps] for s in steps]
    planes = np.zeros((len(steps), D, D))
    planes[:, *upper] = np.eye(len(steps))
    hessian = np.array([local.bent(E - E.T)[upper] for E in planes])
    np.testing.assert_allclose(hessian, np.array(differences) / 4e-8, atol=1e-5)
    np.testing.assert_allclose(local.diagonal[upper], np.diag(hessian), rtol=1e-12)


@pytest.mark.parametrize("D", [2, 3, 4, 7])
@pytest.mark.parametrize("share", [np.array([0.2, 0.5, 0.3]), None], ids=["VVE", "EVE"])
def test_turns_never_lead_up(share, D):
    """Even where planes that are turned at once depend on each other; and axes stay axes."""
    what = Diagonality(share)
    for seed in range(20):
        A = np.random.default_rng(seed).standard_normal((3, D, D + 1))
        W, axes = A @ A.transpose(0, 2, 1), np.eye(D)
        for _ in range(3):
            M = axes.T @ W @ axes
            turned = what.turned(M, axes)
            assert what.value(turned.T @ W @ turned) <= what.value(M) + 100 * EPS
            np.testing.assert_allclose(turned.T @ turned, np.eye(D), atol=20 * D * EPS)
            axes = turned


@pytest.mark.parametrize("D", [2, 3, 4, 9])
def test_rounds_have_every_plane_once(D):
    """And in one round no axis twice."""
    rounds = [list(zip(a.tolist(), b.tolist(), strict=True)) for a, b in _rounds(D)]
    assert sorted(plane for planes in rounds for plane in planes) == [(a, b) for a in range(D) for b in range(a + 1, D)]
    for planes in rounds:
        axes = [axis for plane in planes for axis in plane]
        assert len(axes) == len(set(axes))


@pytest.mark.parametrize("share", [np.full(3, 1 / 3), None], ids=["VVE", "EVE"])
def test_a_step_is_the_lowest_of_its_region(share):
    """Never longer than it may be, and promised what the quadratic says; with room for it, nearly the minimum."""
    what, D = Diagonality(share), 3
    A = np.random.default_rng(22).standard_normal((3, D, 9))
    M = 0.01 * A @ A.transpose(0, 2, 1) + np.array([np.diag(v) for v in ([1, 2, 4], [3, 1, 2], [1, 1, 5])])
    local, upper = Quadratic(what, M), np.triu_indices(D, 1)
    planes = np.zeros((3, D, D))
    planes[:, *upper] = np.eye(3)
    hessian = np.array([local.bent(E - E.T)[upper] for E in planes])
    g = local.slope[upper]
    for radius in (1e-3, 0.1, 10.0):
        E, promised, length = local.lowest(radius)
        x = E[upper]
        assert length <= radius * (1.0 + 1e-12)
        assert promised == pytest.approx(-(g @ x + 0.5 * x @ hessian @ x), rel=1e-9) and promised > 0.0
    assert np.linalg.eigvalsh(hessian).min() > 0.0  # or there would be no minimum
    assert promised == pytest.approx(0.5 * g @ np.linalg.solve(hessian, g), rel=0.02)  # a tenth of the slope may be left


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("share", [np.full(3, 1 / 3), None], ids=["VVE", "EVE"])
def test_many_features_have_their_axes_found(share, free):
    """40 of them: the slope that is left is rounding, and of matrices that have axes in common these are the ones."""
    D = 40
    random = np.random.default_rng(21)
    Q = np.linalg.qr(random.standard_normal((3, D, D)))[0][: 3 if free else 1]
    W = (Q * np.exp(random.normal(0.0, 1.0, (3, 1, D)))) @ Q.transpose(0, 2, 1)
    axes, value = common_axes(W, share, np.eye(D), near=False)
    M = axes.T @ W @ axes
    assert value == pytest.approx(Diagonality(share).value(M), abs=1e-10)
    assert np.abs(Quadratic(Diagonality(share), M).slope).max() < 1e-6  # the root of what Newton's method leaves of the value
    if not free:
        assert np.abs(M * (1.0 - np.eye(D))).max() < 1e-6 * np.abs(M).max()


# ------------------------------------------------------------------ EM


def em(X, z, kind, steps, *, equal_weights=False):
    """Log-likelihoods of EM from responsibilities z (N, K): of the M step that they make, and of `steps` more."""
    engine, (N, K), D = InMemory(X), z.shape, X.shape[1]
    mass = z.sum(axis=0)
    means = z.T @ X / mass[:, None]
    d = X[:, None, :] - means
    scatter = np.einsum("nk,nka,nkb->kab", z, d, d) if kind.form == "full" else np.einsum("nk,nka->ka", z, d * d)
    covariances, trace = None, []
    for _ in range(steps + 1):
        covariances = kind.estimate(scatter, mass, covariances)
        weights = np.full(K, 1.0 / K) if equal_weights else mass / N
        s = engine.sweep(Factors.of(weights, means, *kind.factor(covariances, K, D)))
        trace.append(s.log_likelihood)
        mass, t = s.mass, s.first / s.mass[:, None]
        means = s.origin + t
        change = t * t if s.second.ndim == 2 else t[:, :, None] * t[:, None, :]
        scatter = s.second - in_form_of(s.second, mass.reshape(-1, *[1] * (change.ndim - 1)) * change)
    return np.array(trace)


@pytest.mark.parametrize("D", [1, 3])
@each
def test_em_never_falls(kind, D):
    """Every step of 60, from random responsibilities; rounding is that of 200 log densities."""
    random = np.random.default_rng(D)
    X = np.concatenate([random.standard_normal((100, D)) * [1.0, 0.3, 2.0][:D], random.standard_normal((100, D)) + 2.0])
    trace = em(X, random.dirichlet(np.ones(3), 200), kind, 60)
    assert np.diff(trace).min() >= -200 * EPS * np.abs(trace).max()
    assert trace[-1] > trace[0]


def rearranged(p, components=slice(None), features=slice(None), scale=1.0, shift=0.0):
    """The mixture of other components and features first, of data times `scale` plus `shift`."""
    C = p.covariances[components] * scale**2
    C = C if C.ndim == 1 else C[:, features] if C.ndim == 2 else C[:, features][:, :, features]
    return Parameters(p.weights[components], p.means[components][:, features] * scale + shift, C, p.structure)


ORDER, TURN, SCALE = np.random.default_rng(5).permutation(150), [2, 0, 1], 2.0**20
V = np.arange(150) % 3
DONE = {  # to the rows; and to the mixture, before and after
    "rows in another order": (lambda X: X[ORDER], {}),
    "rows in three blocks": (lambda X: Blocks(np.array_split(X, 3)), {}),
    "components in another order": (lambda X: X, {"components": TURN}),
    "features in another order": (lambda X: X[:, TURN], {"features": TURN}),
    "a scale": (lambda X: X * SCALE, {"scale": SCALE}),
    "a shift": (lambda X: X + 1024.0, {"shift": 1024.0}),
    "weights": (lambda X: InMemory(X, V), {}),
}


@pytest.mark.parametrize("done", DONE)
@each
def test_what_is_done_to_the_rows_is_done_to_the_fit(kind, done):
    """The laws of every structure, for a whole fit of 15 steps; weight two is the row twice, weight zero the row absent.

    Searches end within 1e-13 nats of the minimum, so that axes are good to 1e-6 and covariances, which rest there, to 1e-12.
    """
    random = np.random.default_rng(6)
    X = np.round(random.standard_normal((150, 3)) @ [[1.0, 0.5, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 2.0]] * 2**20) / 2**20
    X[50:] += 2.0 * (np.arange(100) % 2)[:, None]
    start = emfuse.from_labels(X, np.arange(150) // 50, kind.name)
    change, how = DONE[done]
    here = emfuse.em(np.repeat(X, V, axis=0) if done == "weights" else X, start, stop=15)
    there = emfuse.em(change(X), rearranged(start, **how), stop=15)
    moved = here.statistics.weight * 3 * np.log(how.get("scale", 1.0))
    np.testing.assert_allclose(there.trace, here.trace - moved, rtol=1e-10)
    p, q = rearranged(here.parameters, **how), there.parameters
    np.testing.assert_allclose(q.weights, p.weights, rtol=1e-8)
    np.testing.assert_allclose(q.means, p.means, atol=1e-8 * p.sds.max())
    np.testing.assert_allclose(q.covariances, p.covariances, atol=1e-8 * p.covariances.max())


# ------------------------------------------------------------------ mclust


MCLUST = [
    "airquality_hc2",
    "airquality_hc4",
    "faithful_hc3",
    "faithful_waiting67",
    "iris4_hc2",
    "iris4_species",
    "iris4_species_equalpro",
    "trees_hc2",
]
CLOSED = ("EII", "EEI", "EVI", "EEV", "EVV")
# mclust's VVE leaves out the volumes in its step for the axes; with equal proportions some of its means are wrong as well
WRONG = [("iris4_species_equalpro", name) for name in ("VEE", "EVE", "EVV")] + [(c, "VVE") for c in MCLUST]
FITS = [(c, name) for c in MCLUST for name in NAMES]


def each_fit(pairs):
    """Parametrise a test with cases, and names of structures."""
    return pytest.mark.parametrize(("case", "name"), [(f"mclust_me/decomposed/{c}", n) for c, n in pairs], indirect=["case"])


def fit_of(case, name, steps):
    """EM from the case's partition."""
    labels = np.array(case.start["labels"]) - 1
    z = np.eye(labels.max() + 1)[labels]
    return em(case.data, z, structure_named(name), steps, equal_weights=case.options.get("equalPro", False))


@each_fit([fit for fit in FITS if fit not in WRONG])
def test_the_first_steps_are_those_of_mclust(case, name):
    """Its first five log-likelihoods, where its M steps are right.

    Closed forms to nearly all digits; VEI and VEV as far as mclust iterates, to 1e-10; VEE and EVE, where its inner loop stops
    early, to 2e-4 nats.
    """
    first = case.expected["models"][name]["me"]["loglik_first5"]
    tolerance = 1e-13 if name in CLOSED else 1e-11 if name in ("VEI", "VEV") else 1e-6
    np.testing.assert_allclose(fit_of(case, name, len(first) - 1), first, rtol=tolerance)


@each_fit(FITS)
def test_the_fit_ends_where_mclusts_does(case, name):
    """After as many steps: its log-likelihood, or, where its M step is wrong, that of EM with an exact one."""
    stated = case.expected["models"][name]
    own = stated["me"]["loglik"], stated["me"]["iterations"]
    exact = stated.get("exact", {})
    loglik, iterations = (exact["me_loglik"], exact["me_iterations"]) if exact else own
    trace = fit_of(case, name, iterations - 1)
    np.testing.assert_allclose(trace[-1], loglik, rtol=1e-12 if name in CLOSED else 1e-8)
    assert np.diff(trace).min(initial=0.0) >= -len(case.data) * EPS * np.abs(trace).max()


@pytest.mark.parametrize("case", [f"mclust_me/decomposed/{c}" for c in MCLUST if "equalpro" not in c], indirect=True)
def test_common_axes_are_no_worse_than_the_best_known(case):
    """VVE's M step of the partition: sum_k n_k log det Sigma_k is that of a global search, which mclust's is above."""
    kind, exact = structure_named("VVE"), case.expected["models"]["VVE"]["exact"]
    labels = np.array(case.start["labels"]) - 1
    mass = np.bincount(labels).astype(np.float64)
    groups = [case.data[labels == k] for k in range(len(mass))]
    C = kind.estimate(np.array([(x - x.mean(axis=0)).T @ (x - x.mean(axis=0)) for x in groups]), mass)
    criterion = mass @ np.linalg.slogdet(C)[1]
    assert criterion <= exact["mstep_criterion"] + 1e-10 * mass.sum()
    assert criterion == pytest.approx(exact["mstep_criterion"], abs=1e-8 * mass.sum())
    assert criterion < exact["mclust_mstep_criterion"]


@each_fit(FITS)
def test_parameters_are_counted_as_by_mclust(case, name):
    """Covariance parameters, K D means and K - 1 weights."""
    K, D = max(case.start["labels"]), case.data.shape[1]
    assert structure_named(name).free_parameters(K, D) + K * D + K - 1 == case.expected["models"][name]["n_params"]
