"""Constraints: what is fixed stays, what goes together does, and what is left is the maximum."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import emfuse
from emfuse import Blocks, CollapsedComponent, Constraints, InMemory, Parameters, em, fit, stopping
from emfuse.decomposed import DECOMPOSED
from emfuse.structures import structure_named

MAXIMUM = stopping.first_of(stopping.Within(1e-7), stopping.SweepLimit(5_000))
RANDOM = np.random.default_rng(0)
X1 = np.concatenate([RANDOM.normal(0.0, 1.0, 300), RANDOM.normal(3.0, 2.0, 200), RANDOM.normal(7.0, 0.7, 150)])
START1 = Parameters.univariate([0.3, 0.3, 0.4], [-0.5, 2.0, 6.0], [1.0, 1.5, 1.0])


def log_likelihood(w, means, sds, x):
    """By SciPy."""
    with np.errstate(divide="ignore"):
        return float(logsumexp(np.log(w) + norm.logpdf(x[:, None], means, sds), axis=1).sum())


# Each: constraints, how many free parameters, and the mixture (w, means, sds) of a vector of free numbers; e is exp.
e = np.exp
CASES = {
    "fixed sds": (Constraints(sds=[1.0, 1.5, 1.0]), 5, lambda v: (soft(v[:3]), v[3:6], [1.0, 1.5, 1.0])),
    "one sd for all": (Constraints(sds=["a", "a", "a"]), 6, lambda v: (soft(v[:3]), v[3:6], e(v[6]) * np.ones(3))),
    "proportional sds": (
        Constraints(sds=["a", "2a", "0.5*a"]), 6, lambda v: (soft(v[:3]), v[3:6], e(v[6]) * np.array([1, 2, 0.5]))),
    "two share an sd": (Constraints(sds=["s", None, "s"]), 7, lambda v: (soft(v[:3]), v[3:6], e([v[6], v[7], v[6]]))),
    "fixed mean": (Constraints(means=[0.25, None, None]), 7, lambda v: (soft(v[:3]), [0.25, v[3], v[4]], e(v[5:8]))),
    "equal means": (Constraints(means=["m", "m", None]), 7, lambda v: (soft(v[:3]), [v[3], v[3], v[4]], e(v[5:8]))),
    "opposite means": (Constraints(means=["-m", "m", "3m"]), 6, lambda v: (soft(v[:3]), [-v[3], v[3], 3 * v[3]], e(v[4:7]))),
    "equal means, proportional sds": (
        Constraints(means=["m", "m", None], sds=["a", "2a", None]), 6,
        lambda v: (soft(v[:3]), [v[3], v[3], v[4]], e(v[5]) * np.array([1, 2, 0]) + [0, 0, e(v[6])])),
    "fixed weights": (Constraints(weights=[0.2, 0.3, 0.5]), 6, lambda v: ([0.2, 0.3, 0.5], v[:3], e(v[3:6]))),
    "one weight fixed": (
        Constraints(weights=[None, 0.3, None]), 7,
        lambda v: ([0.7 / (1 + e(v[0])), 0.3, 0.7 * e(v[0]) / (1 + e(v[0]))], v[1:4], e(v[4:7]))),
    "equal weights": (Constraints(weights=["w", "w", "w"]), 6, lambda v: (np.full(3, 1 / 3), v[:3], e(v[3:6]))),
    "linked weights": (
        Constraints(weights=["w", "2w", None]), 7,
        lambda v: (np.array([1, 2, 0]) / 3 / (1 + e(v[0])) + [0, 0, e(v[0]) / (1 + e(v[0]))], v[1:4], e(v[4:7]))),
    "a frozen component": (
        Constraints(frozen=[1]), 6, lambda v: (soft(v[:3]), [v[3], 2.0, v[4]], [e(v[5]), 1.5, e(v[6])])),
    "everything": (
        Constraints(means=[0.0, "m", "2m"], sds=[1.0, "a", "a"], weights=[0.5, None, None]), 3,
        lambda v: ([0.5, 0.5 / (1 + e(v[0])), 0.5 * e(v[0]) / (1 + e(v[0]))], [0, v[1], 2 * v[1]], [1, e(v[2]), e(v[2])])),
}  # fmt: skip


def soft(v):
    """Weights of three numbers."""
    return e(v - logsumexp(v))


@pytest.mark.parametrize("name", CASES)
def test_plain_em_never_lowers_the_log_likelihood_and_holds(name):
    """Each M step is the exact maximum of what is left; and what is held is, at every sweep."""
    constraints, _, _ = CASES[name]
    made = em(X1, START1, constraints=constraints, stop=200, history=True)
    assert np.diff(made.trace).min() > -1e-9  # 650 rows' log densities of 10 nats, a few eps each
    held = constraints.held(START1)
    for sweep in made.history:
        again = held.project(sweep.parameters)
        np.testing.assert_allclose(again.weights, sweep.parameters.weights, rtol=1e-13)
        np.testing.assert_allclose(again.means, sweep.parameters.means, rtol=1e-13)
        np.testing.assert_allclose(again.covariances, sweep.parameters.covariances, rtol=1e-13)


@pytest.mark.parametrize("acceleration", ["emqn", "squarem"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_left_is_the_maximum(name, acceleration):
    """EM under constraints ends where a general optimiser over the free numbers does, the trace never falling; and they hold."""
    constraints, free, mixture = CASES[name]
    made = em(X1, START1, constraints=constraints, acceleration=acceleration, stop=MAXIMUM)
    assert made.converged and made.free_parameters == free
    assert np.diff(made.trace).min() > -1e-9
    p = made.parameters
    w, means, sds = p.weights, p.means[:, 0], p.sds[:, 0]

    def loss(v):
        return -log_likelihood(*mixture(v), X1)

    n = free + (constraints.weights is None)  # soft has a number too many
    best = min(
        (minimize(loss, v, method="BFGS", options={"gtol": 1e-7}) for v in nearest_vectors(mixture, n, (w, means, sds))),
        key=lambda r: r.fun,
    )
    np.testing.assert_allclose(-best.fun, made.log_likelihood, atol=2e-6)  # the stop's and BFGS's own
    for mine, theirs in zip((w, means, sds), mixture(best.x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-3)


def nearest_vectors(mixture, n, target):
    """Vectors whose mixtures are near to one, by least squares from a few beginnings."""
    from scipy.optimize import least_squares

    flat = np.concatenate([np.asarray(part, dtype=float) for part in target])

    def distance(v):
        return np.concatenate([np.asarray(part, dtype=float) for part in mixture(v)]) - flat

    for seed in range(2):
        yield least_squares(distance, np.random.default_rng(seed).normal(size=n) * 0.3).x


def entries(constraints, change):
    """The constraints with each entry of each list that `change(name, entry)` makes."""
    lists = {name: getattr(constraints, name) for name in ("means", "sds", "weights")}
    made = {name: [change(name, entry) for entry in given] for name, given in lists.items() if given is not None}
    return Constraints(**made, frozen=constraints.frozen)


ROWS, ORDER, V = RANDOM.permutation(650), [2, 0, 1], np.arange(650) % 3


@pytest.mark.parametrize("done", ["rows", "blocks", "weights", "scale", "components"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_done_to_the_rows_is_done_to_the_fit(name, done):
    """Constraints change no law: order, cuts, weights and units, for 15 steps; the tolerance is sums of 650 in another order."""
    constraints, p, X = CASES[name][0], START1, X1
    here = em(np.repeat(X, V) if done == "weights" else X, p, constraints=constraints, stop=15)
    order, a = [0, 1, 2], 1.0
    if done in ("rows", "blocks", "weights"):
        X = {"rows": X[ROWS], "blocks": Blocks(np.array_split(X[:, None], 4)), "weights": InMemory(X, V)}[done]
    elif done == "scale":
        a = 2.0**-20
        X = X * a
        constraints = entries(constraints, lambda name, e: e * a if isinstance(e, float) and name != "weights" else e)
    else:
        order = ORDER
        changed = {
            name: [given[k] for k in order] for name in ("means", "sds", "weights") if (given := getattr(constraints, name))
        }
        constraints = Constraints(**changed, frozen=constraints.frozen and [order.index(k) for k in constraints.frozen])
    start = Parameters.univariate(p.weights[order], p.means[order] * a, p.sds[order, 0] * a)
    there = em(X, start, constraints=constraints, stop=15)
    np.testing.assert_allclose(there.trace, here.trace - here.statistics.weight * np.log(a), rtol=1e-12)
    np.testing.assert_allclose(there.parameters.weights, here.parameters.weights[order], rtol=1e-10)
    np.testing.assert_allclose(there.parameters.means, here.parameters.means[order] * a, rtol=1e-10)
    np.testing.assert_allclose(there.parameters.sds, here.parameters.sds[order] * a, rtol=1e-10)
    assert there.free_parameters == here.free_parameters


def test_mixtools_wrong_update_is_not_ours():
    """N(0, 1) + N(5, 9) with sds "a" and "3a": mixtools stops at -5059.9; the maximum is far above."""
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(0, 1, 1000), random.normal(5, 3, 1000)])
    made = fit(x, 2, constraints=Constraints(sds=["a", "3a"]))
    sds = made.parameters.sds[:, 0]
    assert sds[1] == pytest.approx(3.0 * sds[0], rel=1e-12)
    assert sds[0] == pytest.approx(1.0, abs=0.1) and made.free_parameters == 4
    # beside the free fit, which has one parameter more and true values that obey the constraint
    assert made.log_likelihood == pytest.approx(fit(x, 2, init=made.parameters).log_likelihood, abs=4.0)


def test_a_known_standard_deviation_in_one_word():
    """`fit(x, 2, sd=1)` is `sds=[1, 1]`."""
    x = np.concatenate([RANDOM.normal(0, 1, 200), RANDOM.normal(3, 1, 200)])
    one, other = fit(x, 2, sd=1), fit(x, 2, constraints=Constraints(sds=[1, 1]))
    assert one.parameters == other.parameters and one.free_parameters == 3
    np.testing.assert_array_equal(one.parameters.sds, 1.0)
    with pytest.raises(ValueError, match="give one of them"):
        fit(x, 2, sd=1, constraints=Constraints(sds=[1, 1]))


def test_a_start_goes_to_the_components_it_suits():
    """Components that are fixed at 7 and at 0 find their clusters, whatever the order of a start's."""
    made = fit(X1, 3, constraints=Constraints(means=[7.0, None, 0.0]))
    np.testing.assert_array_equal(made.parameters.means[[0, 2], 0], [7.0, 0.0])
    assert 2.0 < made.parameters.means[1, 0] < 4.0 and made.parameters.sds[0, 0] < 1.0


# ------------------------------------------------------------------ several features

X2 = np.concatenate([
    RANDOM.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 200),
    RANDOM.multivariate_normal([0, 0], [[4, -1], [-1, 2]], 200),
    RANDOM.multivariate_normal([5, 5], [[2, 1], [1, 2]], 200),
])  # fmt: skip


@pytest.mark.parametrize("structure", ["full", "diag", "spherical"])
@pytest.mark.parametrize("acceleration", [None, "emqn"])
def test_constraints_hold_in_several_features(structure, acceleration):
    """Equal means with free covariances, a fixed mean, a frozen component and proportional covariances: held, and monotone."""
    start = emfuse.initialise.start(emfuse.InMemory(X2), 3, structure, "kmeans", np.random.default_rng(0))
    how = {"acceleration": acceleration, "stop": MAXIMUM}
    made = em(X2, start, constraints=Constraints(means=["m", "m", [5.0, 5.0]]), **how)
    p = made.parameters
    np.testing.assert_array_equal(p.means[0], p.means[1])
    np.testing.assert_array_equal(p.means[2], [5.0, 5.0])
    assert np.diff(made.trace).min() > -1e-9
    frozen = em(X2, start, constraints=Constraints(frozen=[0]), **how).parameters
    np.testing.assert_array_equal(frozen.means[0], start.means[0])
    np.testing.assert_array_equal(frozen.covariances[0], start.covariances[0])
    linked = em(X2, start, constraints=Constraints(covariances=["a", "2a", None]), **how)
    C = linked.parameters.covariances
    np.testing.assert_allclose(C[1], 2.0 * C[0], rtol=1e-14)
    assert np.diff(linked.trace).min() > -1e-9 and linked.converged


@pytest.mark.parametrize(
    ("structure", "C"),
    [
        ("full", [400.0 * np.eye(2), 1e-3 * np.eye(2)]),
        ("diag", [[400.0, 400.0], [1e-3, 1e-3]]),
        ("spherical", [400.0, 1e-3]),
    ],
)
def test_a_collapse_while_means_are_found_is_told(structure, C):
    """One of two components with opposite means shrinks onto a row: CollapsedComponent, and no error of linear algebra's."""
    X = np.concatenate([X2[:100], np.tile([30.0, 40.0], (3, 1))])
    start = Parameters([0.9, 0.1], [[-30.0, -40.0], [30.0, 40.0]], C, structure)
    with pytest.raises(CollapsedComponent, match="component 1 has collapsed"):
        em(X, start, constraints=Constraints(means=["-m", "m"]), stop=100)


@pytest.mark.parametrize("name", [kind.name for kind in DECOMPOSED])
@pytest.mark.parametrize("acceleration", [None, "emqn"])
def test_means_and_weights_are_held_under_every_structure(name, acceleration):
    """Linked and fixed means and equal weights, with covariances of volumes, shapes and orientations in common: monotone."""
    start = emfuse.from_labels(X2, np.arange(600) // 200, name)
    constraints = Constraints(means=["m", "m", [5.0, 5.0]], weights=["w", "w", None])
    made = em(X2, start, constraints=constraints, acceleration=acceleration, stop=60)
    p = made.parameters
    np.testing.assert_array_equal(p.means[0], p.means[1])
    np.testing.assert_array_equal(p.means[2], [5.0, 5.0])
    assert p.weights[0] == p.weights[1] and p.weights.sum() == pytest.approx(1.0, rel=1e-15)
    assert np.diff(made.trace).min() > -1e-9
    kind = structure_named(name)
    assert made.free_parameters == 1 + 2 + kind.free_parameters(3, 2)
    np.testing.assert_allclose(kind.nearest(p.covariances, p.weights), p.covariances, atol=1e-9)  # of the structure, still


def test_equal_means_by_precision_are_the_maximum():
    """Two covariances about one mean: beside a general optimiser."""
    start = Parameters([0.5, 0.5], [[0.5, 0.0], [-0.5, 0.0]], [np.eye(2), 3.0 * np.eye(2)])
    rows = X2[:400]
    made = em(rows, start, constraints=Constraints(means=["m", "m"]), stop=MAXIMUM, acceleration="emqn")
    p = made.parameters

    def loss(v):
        L = [np.array([[e(a), 0.0], [b, e(c)]]) for a, b, c in (v[3:6], v[6:9])]
        w = e(-np.logaddexp(0.0, [v[0], -v[0]]))
        l_nk = [np.log(w[k]) + multivariate_normal(v[1:3], L[k] @ L[k].T).logpdf(rows) for k in range(2)]
        return -float(logsumexp(l_nk, axis=0).sum())

    Ls = np.linalg.cholesky(p.covariances)
    first = np.concatenate(
        [[np.log(p.weights[1] / p.weights[0])], p.means[0], *([np.log(L[0, 0]), L[1, 0], np.log(L[1, 1])] for L in Ls)]
    )
    best = minimize(loss, first, method="BFGS")
    assert -best.fun <= made.log_likelihood + 1e-6
    assert made.free_parameters == 1 + 2 + 6


def test_known_covariances_are_the_classroom_demo():
    """Fixed covariances in two features: only means and weights move."""
    C = np.array([np.eye(2), [[4.0, -1.0], [-1.0, 2.0]], 2.0 * np.eye(2)])
    made = fit(X2, 3, constraints=Constraints(covariances=list(C)))
    np.testing.assert_array_equal(made.parameters.covariances, C)
    assert made.free_parameters == 2 + 6


def test_scale_moves_what_is_fixed_with_it():
    """Data and constraints in other units: the same fit."""
    one = em(X1, START1, constraints=Constraints(means=[0.25, "m", "2m"]), stop=MAXIMUM)
    a = 1e-3
    start = Parameters.univariate(START1.weights, START1.means * a, START1.sds[:, 0] * a)
    other = em(X1 * a, start, constraints=Constraints(means=[0.25 * a, "m", "2m"]), stop=MAXIMUM)
    np.testing.assert_allclose(other.parameters.means, one.parameters.means * a, rtol=1e-6)
    assert other.log_likelihood == pytest.approx(one.log_likelihood - len(X1) * np.log(a), abs=1e-6)


# ------------------------------------------------------------------ what is wrong is said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"means": ["a+b", None]}, r"means\[0\] must be None, a number, or a letter with a multiple like .*, got 'a\+b'"),
        ({"sds": ["-a", "a"]}, r"sds\[0\] must be a multiple above 0, got '-a'"),
        ({"means": ["0a", "a"]}, r"means\[0\] must be a multiple other than 0, got '0a'"),
        ({"means": [np.inf, None]}, r"means\[0\] must be finite"),
        ({"sds": [1.0, 1.0], "covariances": [1.0, 1.0]}, "sds and covariances say the same thing"),
    ],
)  # fmt: skip
def test_an_entry_that_makes_no_sense_is_an_error_at_once(arguments, words):
    """Before there is any data."""
    with pytest.raises(ValueError, match=words):
        Constraints(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"means": [None, 1.0]}, "means must have one entry for each of the 3 components, got 2"),
        ({"sds": [0.0, None, None]}, r"sds\[0\] must be above 0, got 0"),
        ({"frozen": [3]}, "frozen must be components from 0 to 2, got 3"),
        ({"weights": [0.7, 0.7, None]}, "weights that are fixed must lie from 0 to 1 and sum to 1 at most"),
        ({"weights": [0.2, 0.2, 0.2]}, r"weights that are fixed must lie from 0 to 1 and sum to 1, got"),
        ({"means": [[1.0, 2.0], None, None]}, r"means\[0\] must have shape \(1,\), got \(2,\)"),
    ],
)
def test_what_does_not_fit_the_mixture_is_an_error_when_a_fit_begins(arguments, words):
    """Number of components, features and structure are known then."""
    with pytest.raises(ValueError, match=words):
        em(X1, START1, constraints=Constraints(**arguments))


def test_mixtools_na_is_free():
    """NaN, as NA arrives from elsewhere, is None."""
    one = em(X1, START1, constraints=Constraints(means=[np.nan, 2.0, None]), stop=20)
    other = em(X1, START1, constraints=Constraints(means=[None, 2.0, None]), stop=20)
    assert one.parameters == other.parameters


def test_the_whole_line_of_types_is_checked():
    """A string is not a sequence of entries, and frozen are whole numbers."""
    with pytest.raises(TypeError, match="means must be a sequence"):
        Constraints(means="aa")
    with pytest.raises(TypeError, match="frozen must be numbers of components"):
        Constraints(frozen=[True])
    with pytest.raises(ValueError, match="covariances can be fixed or linked for structures"):
        em(X2, Parameters([0.5, 0.5], np.zeros((2, 2)), np.eye(2), "tied"), constraints=Constraints(covariances=["a", "a"]))
