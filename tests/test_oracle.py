"""Exact EM with 50 digits, and ours beside it, where plain densities are 0 in double precision."""

from functools import cache

import mpmath as mp
import numpy as np
import pytest

from emfuse import InMemory, Parameters, em, engines, from_labels, kernels
from emfuse.structures import STRUCTURES

# ------------------------------------------------------------------ the oracle: textbook EM in numbers that do not round


def exact_numbers(array):
    """The doubles of an array as they are, in nested lists."""
    return [exact_numbers(part) for part in array] if np.ndim(array) else mp.mpf(float(array))


def exact_log_density(x, mean, L):
    """log N(x; mean, L L'), by forward substitution."""
    y = []
    for a in range(len(x)):
        y.append((x[a] - mean[a] - mp.fsum(L[a, b] * y[b] for b in range(a))) / L[a, a])
    log_det = mp.fsum(mp.log(L[a, a]) for a in range(len(x)))
    return -mp.fsum(v * v for v in y) / 2 - log_det - len(x) * mp.log(2 * mp.pi) / 2


def exact_e_step(X, v, weights, means, matrices):
    """Responsibilities times row weights, and the total log-likelihood."""
    factors = [mp.cholesky(mp.matrix(C)) for C in matrices]
    r, total = [], mp.mpf(0)
    for x, v_n in zip(X, v, strict=True):
        logs = [mp.log(w) + exact_log_density(x, mean, L) for w, mean, L in zip(weights, means, factors, strict=True)]
        densities = [mp.exp(value - max(logs)) for value in logs]
        total += v_n * (max(logs) + mp.log(mp.fsum(densities)))
        r.append([v_n * e / mp.fsum(densities) for e in densities])
    return r, total


def exact_m_step(X, v, r, structure):
    """Weights, means and covariance matrices."""
    D, K = len(X[0]), len(r[0])
    mass = [mp.fsum(row[k] for row in r) for k in range(K)]
    means = [[mp.fsum(row[k] * x[a] for row, x in zip(r, X, strict=True)) / mass[k] for a in range(D)] for k in range(K)]
    scatter = []
    for k in range(K):
        d = [[x[a] - means[k][a] for a in range(D)] for x in X]
        scatter.append([[mp.fsum(row[k] * e[a] * e[b] for row, e in zip(r, d, strict=True)) for b in range(D)] for a in range(D)])
    if structure == "tied":
        shared = [[mp.fsum(S[a][b] for S in scatter) / mp.fsum(v) for b in range(D)] for a in range(D)]
        matrices = [shared] * K
    elif structure == "full":
        matrices = [[[S[a][b] / m for b in range(D)] for a in range(D)] for S, m in zip(scatter, mass, strict=True)]
    else:
        matrices = []
        for S, m in zip(scatter, mass, strict=True):
            variances = [S[a][a] / m for a in range(D)]
            variances = [mp.fsum(variances) / D] * D if structure == "spherical" else variances
            matrices.append([[variances[a] if a == b else mp.mpf(0) for b in range(D)] for a in range(D)])
    return [m / mp.fsum(v) for m in mass], means, matrices


def exact_em(X, start, steps, v=None):
    """Trace, and parameters and responsibilities at its end."""
    X, v = exact_numbers(X), [mp.mpf(1)] * len(X) if v is None else exact_numbers(v)
    p = tuple(exact_numbers(array) for array in (start.weights, start.means, start.covariance_matrices))
    r, total = exact_e_step(X, v, *p)
    trace = [total]
    for _ in range(steps):
        p = exact_m_step(X, v, r, start.structure)
        r, total = exact_e_step(X, v, *p)
        trace.append(total)
    return trace, p, r


@pytest.fixture(autouse=True)
def fifty_digits():
    """Every number of the oracle has 50."""
    with mp.workdps(50):
        yield


def doubles(nested):
    return np.array(nested, dtype=object).astype(np.float64)


def assert_follows(X, start, steps, *, rtol, v=None):
    """Trace, parameters and responsibilities of our fit are the oracle's."""
    X = np.asarray(X, dtype=np.float64).reshape(len(X), -1)
    trace, (weights, means, matrices), r = exact_em(X, start, steps, v)
    made = em(X, start, stop=steps, sample_weight=v)
    np.testing.assert_allclose(made.trace, doubles(trace), rtol=rtol)
    np.testing.assert_allclose(made.parameters.weights, doubles(weights), rtol=0, atol=rtol)
    np.testing.assert_allclose(made.parameters.means, doubles(means), rtol=0, atol=rtol * np.abs(X).max())
    C = doubles(matrices)
    np.testing.assert_allclose(made.parameters.covariance_matrices, C, rtol=0, atol=rtol * np.abs(C).max())
    exact_r = doubles(r) / (1.0 if v is None else np.maximum(v, 1e-300)[:, None])
    np.testing.assert_allclose(made.predict_proba(X), exact_r, rtol=0, atol=rtol * 10)  # the whitened distance's share, about 10


# ------------------------------------------------------------------ densities that are 0 in double precision

NARROW = Parameters.univariate([0.5, 0.5], [-0.01, 0.01], [0.01, 0.02])


@pytest.mark.parametrize("far", [60.0, 3000.0, 1e6])
@pytest.mark.parametrize("side", [-1, 1])
def test_rows_without_density_in_double_precision_have_responsibilities(build, far, side):
    """Standard deviations 0.01 and 0.02, a row `far` of the wider ones away: exp(-1800) is 0, and 0 / 0 no responsibility."""
    x = np.array([[side * (0.01 + far * 0.02)], [0.0]])
    made = InMemory(x).evaluate(NARROW.factors, log_density=True, responsibilities=True)
    with np.errstate(under="ignore"):
        assert np.exp(made.log_density[0]) == 0.0  # what a plain E step would divide by
    np.testing.assert_allclose(made.responsibilities.sum(axis=1), 1.0, rtol=0, atol=4e-16)
    (total,), _, r = exact_em(x, NARROW, 0)
    assert made.log_density.sum() == pytest.approx(float(total), rel=1e-12)
    np.testing.assert_allclose(made.responsibilities, doubles(r), rtol=0, atol=1e-12)


@pytest.mark.parametrize("far", [60.0, 3000.0])
def test_a_fit_goes_on_from_rows_without_density(build, far):
    """Six steps on 40 rows near zero and two so far away that both densities underflow."""
    x = np.r_[np.random.default_rng(0).normal(0.0, 0.015, 40), 0.01 + far * 0.02, 0.01 + far * 0.021]
    assert_follows(x, NARROW, 6, rtol=1e-12)


def test_rows_between_two_narrow_components_are_shared():
    """A row 500 standard deviations from each of two components: half to each, and a millionth more on one side is all to one."""
    p = Parameters.univariate([0.5, 0.5], [-0.5, 0.5], [1e-3, 1e-3])
    r = InMemory([0.0, 1e-4, -1e-4]).evaluate(p.factors, responsibilities=True).responsibilities
    # l_1 - l_0 = x / sd^2 = 100 for x = 1e-4, with an error of eps times 125,000 nats, the size of both
    np.testing.assert_allclose(r, [[0.5, 0.5], [np.exp(-100.0), 1.0], [1.0, np.exp(-100.0)]], rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("weight", [1e-12, 1e-100, 1e-300])
def test_a_component_of_next_to_no_weight_is_kept(weight):
    """With a standard deviation wide enough for rows that the other cannot explain, it takes them in one step."""
    x = np.r_[np.random.default_rng(1).normal(0.0, 1.0, 30), 100.0, 104.0, 99.0]
    assert_follows(x, Parameters.univariate([1.0 - weight, weight], [0.0, 80.0], [1.0, 10.0]), 3, rtol=1e-12)


# ------------------------------------------------------------------ each structure


@pytest.fixture(params=[name for name in kernels.runnable() if name != kernels.REFERENCE])
def compiled_build(request):
    """Each compiled build: the reference computes everything in double."""
    with kernels.use(request.param):
        yield request.param


@pytest.mark.parametrize("weighted", [False, True])
def test_each_structure_follows_exact_em(build, structure, weighted, mixture):
    """Five steps on 60 rows in three features, from means that are a standard deviation off in each."""
    X = mixture("full", K=2, D=3, apart=2.0).sample(60, random_state=0)[0]
    p = mixture(structure, K=2, D=3, apart=2.0)
    start = Parameters(p.weights, p.means + p.sds, p.covariances, structure)
    v = np.random.default_rng(0).integers(1, 4, 60).astype(float) if weighted else None
    assert_follows(X, start, 5, rtol=1e-12, v=v)  # measured 1e-14: 60 terms to a sum, and five steps


@cache
def exact_fit_of_floats(structure, D, offset):
    """Rows of float32, a start, and what five exact steps make of them."""
    random = np.random.default_rng([D, 3])
    means, L = 2.0 * random.standard_normal((2, D)), np.tril(0.3 * random.standard_normal((D, D)), -1) + np.eye(D)
    X = (means[np.arange(80) % 2] + random.standard_normal((80, D)) @ L.T + offset).astype(np.float32)
    start = from_labels(X, (np.arange(80) + (np.arange(80) % 5 == 0)) % 2, structure)  # a fifth of the rows on the wrong side
    return X, start, exact_em(X, start, 5)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("D", [1, 3, 9])
def test_rows_of_float32_follow_exact_em_as_near_as_they_are_themselves(compiled_build, structure, D, offset, monkeypatch):
    """Five steps in float32: means and standard deviations within 1e-6 of the latter, log-likelihood within 1e-6 nats a row.

    That is 8 of float32's eps; at an offset of 1,000 standard deviations the rows themselves are rounded by 500.
    """
    X, start, (trace, (weights, means, matrices), _) = exact_fit_of_floats(structure, D, offset)
    monkeypatch.setattr(engines, "GROUP_ROWS", 0)  # so few rows are otherwise computed in float64
    made = em(X, start, stop=5)
    assert not np.array_equal(made.trace, em(X.astype(np.float64), start, stop=5).trace), "it was computed in float64"
    sds = np.sqrt(np.diagonal(doubles(matrices), axis1=1, axis2=2))
    np.testing.assert_allclose(made.trace, doubles(trace), rtol=0, atol=len(X) * 1e-6)
    np.testing.assert_allclose(made.parameters.weights, doubles(weights), rtol=0, atol=1e-6)
    assert np.all(np.abs(made.parameters.means - doubles(means)) <= 1e-6 * sds)
    C = made.parameters.covariance_matrices - doubles(matrices)
    assert np.all(np.abs(C) <= 2e-6 * sds[:, :, None] * sds[:, None, :])


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_far_from_zero_each_structure_follows_exact_em(structure, offset, mixture):
    """Three steps on rows moved by `offset`: the means' own rounding, eps times offset, is all that is lost."""
    X = mixture("full", K=2, D=2, apart=2.0).sample(40, random_state=1)[0] + offset
    p = mixture(structure, K=2, D=2)
    start = Parameters(p.weights, X[[0, 39]], p.covariances, structure)
    assert_follows(X, start, 3, rtol=10 * np.finfo(float).eps * offset)


@pytest.mark.parametrize("structure", [name for name, kind in STRUCTURES.items() if kind.form == "full"])
def test_columns_that_nearly_repeat_follow_exact_em(structure):
    """The second column is the first plus steps of 1e-5: condition number 1e11, of which a factor has the square root."""
    random = np.random.default_rng(2)
    a = np.r_[random.normal(0.0, 1.0, 25), random.normal(5.0, 1.0, 25)]
    X = np.column_stack([a, a + 1e-5 * random.integers(-2, 3, 50)])
    C = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-8]])
    start = Parameters([0.5, 0.5], [[0.0, 0.0], [5.0, 5.0]], C if structure == "tied" else [C, C], structure)
    trace, _, _ = exact_em(X, start, 3)
    np.testing.assert_allclose(em(X, start, stop=3).trace, doubles(trace), rtol=1e-8)  # 1e11 eps squared is left after refining
