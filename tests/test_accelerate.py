"""Acceleration: never lower, never another answer, fewer sweeps; in coordinates without units."""

import numpy as np
import pytest

import emfuse
from emfuse import InMemory, Parameters, em, fit, stopping
from emfuse.accelerate import ACCELERATORS, Coordinates, promised_gain

EPS = np.finfo(np.float64).eps
TIGHT = stopping.first_of(stopping.Within(1e-6), stopping.SweepLimit(20_000))


def overlapping(structure="full", K=3, D=2, N=1500, apart=2.0, seed=0):
    """Rows of clusters so near to each other that plain EM crawls, and a start."""
    random = np.random.default_rng([seed, K, D])
    means = apart * np.arange(K)[:, None] * np.array([1.0, -0.5, 0.25])[:D]
    X = means[random.integers(K, size=N)] + random.standard_normal((N, D))
    return X, emfuse.initialise.start(InMemory(X), K, structure, "kmeans", emfuse.initialise.generator(0))


@pytest.mark.parametrize("D", [1, 3])
def test_a_vector_is_a_mixture_and_back(structure, D, mixture):
    """unpack(pack(p)) is p, and the base is the origin."""
    base, p = mixture(structure, K=3, D=D, seed=0), mixture(structure, K=3, D=D, seed=1)
    c = Coordinates(base)
    np.testing.assert_allclose(c.pack(base), 0.0, atol=100 * EPS)
    again = c.unpack(c.pack(p))
    np.testing.assert_allclose(again.weights, p.weights, rtol=1e-12)
    np.testing.assert_allclose(again.means, p.means, rtol=0, atol=1e-12 * np.abs(p.means).max())
    np.testing.assert_allclose(again.covariances, p.covariances, rtol=0, atol=1e-12 * np.abs(p.covariances).max())


@pytest.mark.parametrize("D", [1, 3])
def test_length_is_the_complete_datas_information(structure, D, mixture):
    """(n / 2) |x|^2 of a short step is what EM's step of that length promises."""
    base = mixture(structure, K=3, D=D)
    c = Coordinates(base)
    random = np.random.default_rng(0)
    x = 1e-5 * random.standard_normal(c.pack(base).size)
    x[:3] -= c.root_w * (c.root_w @ x[:3])  # weights that sum to 1: nothing along the redundant direction
    assert promised_gain(base, c.unpack(x), 100.0) == pytest.approx(50.0 * float(x @ x), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1e3, (1e-2, 1.0, 1e2)])
def test_coordinates_know_no_units(structure, scale, mixture):
    """Multiplying features by constants leaves every vector as it is."""
    a = np.broadcast_to(np.asarray(scale, dtype=np.float64), (3,))
    if structure == "spherical" and np.ptp(a) > 0:
        pytest.skip("a sphere is none after its features are scaled differently")

    def scaled(p):
        C = p.covariances
        squares = {"full": a[:, None] * a, "tied": a[:, None] * a, "diag": a * a, "spherical": a[0] * a[0]}[structure]
        return Parameters(p.weights, p.means * a, C * squares, structure)

    base, p = mixture(structure, K=2, D=3, seed=0), mixture(structure, K=2, D=3, seed=1)
    np.testing.assert_allclose(Coordinates(scaled(base)).pack(scaled(p)), Coordinates(base).pack(p), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("acceleration", ACCELERATORS)
@pytest.mark.parametrize("D", [1, 3])
def test_the_maximum_is_em_own_in_fewer_sweeps(build, structure, acceleration, D):
    """The same top within 1e-5 nats, never a fall beyond rounding, and all sweeps counted less than EM's."""
    X, start = overlapping(structure, D=D)
    plain, fast = (em(X, start, stop=TIGHT, acceleration=name) for name in (None, acceleration))
    assert plain.converged
    assert fast.converged
    assert fast.log_likelihood >= plain.log_likelihood - 1e-4  # squarem stops by Aitken's word, as plain EM does
    assert np.diff(fast.trace).min() >= -1e-12 * abs(fast.log_likelihood)
    assert fast.sweeps < plain.sweeps
    assert fast.sweeps >= len(fast.trace)


def test_where_clusters_overlap_a_fit_reaches_the_maximum_and_says_how_near():
    """10,000 rows of N(0, 1) and N(1.5, 1): plain EM takes 5,366 sweeps, `fit` 75; both to the same top."""
    x = np.r_[np.random.default_rng(0).normal(0.0, 1.0, 5000), np.random.default_rng(1).normal(1.5, 1.0, 5000)]
    fast = fit(x, 2)
    plain = em(x, emfuse.initialise.start(InMemory(x), 2, "full", "kmeans", emfuse.initialise.generator(None)), stop=TIGHT)
    assert plain.sweeps > 3000
    assert fast.sweeps < 150
    assert fast.log_likelihood == pytest.approx(plain.log_likelihood, abs=2e-5)  # plain EM's own distance is half of that
    assert fast.converged
    assert fast.distance < 1e-5
    assert plain.distance < 1e-5


def test_a_fit_with_weights_counts_gains_in_their_unit():
    """Every row twice, or weighing two: the same path."""
    X, start = overlapping(D=3, N=400)
    twice, weighed = (
        em(np.r_[X, X], start, stop=TIGHT, acceleration="emqn"),
        em(X, start, stop=TIGHT, acceleration="emqn", sample_weight=np.full(400, 2.0)),
    )
    assert twice.log_likelihood == pytest.approx(weighed.log_likelihood, abs=1e-5)


def test_plain_em_where_something_is_added_to_the_variances():
    """`fit` with reg_covar above 0 takes EM's steps: such a step maximises nothing that an acceleration could watch."""
    X, _ = overlapping(D=3, N=400)
    assert fit(X, 3, reg_covar=0.1).trace[-1] == fit(X, 3, reg_covar=0.1, acceleration=None).trace[-1]
    with pytest.raises(ValueError, match="acceleration must be None where reg_covar is above 0"):
        fit(X, 3, reg_covar=0.1, acceleration="emqn")


@pytest.mark.parametrize("D", [1, 2, 5])
@pytest.mark.parametrize("K", [3, 14])
def test_a_builds_own_step_is_numpys(build, structure, D, K):
    """Driven along the same climb, trials, promises and what is left agree; refusals and a saddle included."""
    X, start = overlapping(structure, K=3, D=min(D, 3), N=600)
    X = np.column_stack([X, np.random.default_rng(1).standard_normal((600, D - X.shape[1]))])
    start = emfuse.initialise.start(InMemory(X), K, structure, "kmeans", np.random.default_rng(0))
    engine, kind = InMemory(X), emfuse.structures.structure_named(structure)
    compiled, plain = ACCELERATORS["emqn"](600.0), ACCELERATORS["emqn"](600.0)
    plain.asked_build = True  # and none was found
    p, gained, compared = start, np.inf, 0
    for turn in range(70):
        image = emfuse.maximise(engine.sweep(p.factors), kind)
        one, other = compiled.step(p, image, gained), plain.step(p, image, gained)
        if other.promised < 1e-12:  # what is left is rounding
            break
        assert one.promised == pytest.approx(other.promised, rel=1e-6, abs=1e-12)
        assert (one.trial is None, one.settled) == (other.trial is None, other.settled)
        if one.trial is None or turn % 7 == 6:
            p = image
            if one.trial is not None:  # as if it had not gained enough
                compiled.refuse()
                plain.refuse()
            continue
        compared += 1
        # differences of points lose digits: a step of size 1e-6 has half of them left
        np.testing.assert_allclose(one.trial.weights, other.trial.weights, rtol=1e-7)
        np.testing.assert_allclose(one.trial.means, other.trial.means, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(one.trial.covariances, other.trial.covariances, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(one.trial.factors.P, other.trial.factors.P, rtol=1e-6, atol=1e-8)
        assert one.remaining == pytest.approx(other.remaining, rel=1e-4, abs=1e-9)
        p = other.trial  # the same for both
    assert compared > 4 and (compiled.of_build is not None) == (build != "reference")
