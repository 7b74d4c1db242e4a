"""Standard errors against derivatives, hand-worked numbers, other programs and each other."""

import json
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kurtosis

import emfuse
from emfuse import Constraints, Parameters, em, from_labels, stopping
from emfuse.mixtools import boot_se, mvnormalmixEM, normalmixEM
from emfuse.structures import structure_named
from emfuse.uncertainty import UncertaintyWarning, matched, standard_errors

REFERENCE = Path(__file__).parent / "reference"
REFITTED = ("bootstrap", "parametric", "weighted")
STRUCTURE_OF = {"V": "full", "E": "tied", "VVV": "full"}


def two_clusters(N=60, D=2, seed=0):
    """Rows about 0 and about 4, more spread there."""
    random = np.random.default_rng([seed, N, D])
    return np.concatenate([random.normal(0.0, 1.0, (N, D)), random.normal(4.0, 1.5, (N, D))])


def at_maximum(X, structure="full", K=2, **options):
    """A fit as near to the maximum as rounding lets it come, so that derivatives there are those of the maximum."""
    start = (
        from_labels(X, np.arange(len(X)) * K // len(X), structure) if K > 1 else emfuse.fit(X, 1, structure=structure).parameters
    )
    return em(
        X, start, acceleration="emqn", stop=stopping.first_of(stopping.Within(1e-13), stopping.SweepLimit(10_000)), **options
    )


@cache
def faithful():
    return np.loadtxt(REFERENCE / "data" / "faithful.csv", delimiter=",", skiprows=1)


def load(kind, name):
    """The rows and what is expected of a reference case."""
    content = json.loads((REFERENCE / kind / f"{name}.json").read_text(encoding="utf-8"))
    path = REFERENCE / "data" / f"{content['dataset']}.csv"
    columns = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    return table[:, [columns.index(name) for name in content["columns"]]], content


# ------------------------------------------------------------------ the information


def unpacked(vector, names, p):
    """Weights, means and covariance matrices of two components from a vector, in extended precision, by its names alone."""
    D = p.n_features
    w, means, C = np.zeros(2, vector.dtype), np.zeros((2, D), vector.dtype), np.zeros((2, D, D), vector.dtype)
    for value, name in zip(vector, names, strict=True):
        what, _, where = name.rstrip("]").partition("[")
        at = [int(i) for i in where.split(",")] if where else []
        if what == "weight":
            w[:] = value, 1 - value
        elif what == "mean":
            means[at[0], at[1] if D > 1 else 0] = value
        else:
            k = slice(None) if p.structure == "tied" else at.pop(0)
            if not at:  # one dimension, or a sphere
                C[k] = value * np.eye(D)
            else:
                C[k, at[0], at[-1]] = C[k, at[-1], at[0]] = value
    return w, means, C


def log_densities(X, w, means, C):
    """log density of each row of a mixture in one or two dimensions, by the explicit inverse of a 2 x 2 matrix."""
    d = X.astype(w.dtype)[:, None] - means
    if X.shape[1] == 1:
        det, square = C[:, 0, 0], d[:, :, 0] ** 2 / C[:, 0, 0]
    else:
        a, b, c = C[:, 0, 0], C[:, 0, 1], C[:, 1, 1]
        det = a * c - b * b
        square = (c * d[:, :, 0] ** 2 - 2 * b * d[:, :, 0] * d[:, :, 1] + a * d[:, :, 1] ** 2) / det
    two_pi = 2 * np.arccos(np.array(-1.0, w.dtype))
    return np.log((w * np.exp(-square / 2) / np.sqrt(two_pi ** X.shape[1] * det)).sum(axis=1))


def vector_of(names, p):
    """The free parameters of a mixture, by their names, in extended precision."""
    values = []
    for name in names:
        what, _, where = name.rstrip("]").partition("[")
        at = [int(i) for i in where.split(",")] if where else []
        if what in ("weight", "mean"):
            values.append({"weight": p.weights, "mean": p.means}[what][tuple(at)].item())
        else:
            k, where = (0, at) if p.structure == "tied" else (at[0], at[1:])
            values.append(p.covariance_matrices[k][where[0] if where else 0, where[-1] if where else 0].item())
    return np.array(values, dtype=np.longdouble)


def second_differences(f, x, h):
    """The Hessian of f by central differences with steps h and 2 h, combined so that an error of h^4 is left."""

    def plain(h):
        steps, n = np.diag(h), len(x)
        H = np.empty((n, n))
        for i in range(n):
            for j in range(i, n):
                a, b = steps[i], steps[j]
                H[i, j] = H[j, i] = (f(x + a + b) - f(x + a - b) - f(x - a + b) + f(x - a - b)) / (4 * h[i] * h[j])
        return H

    return (4 * plain(h) - plain(2 * h)) / 3


@pytest.mark.parametrize("D", [1, 2])
def test_the_information_is_minus_the_second_derivative(structure, D):
    """It is what second differences of the log-likelihood give, in extended precision, at a maximum.

    Steps are a share s of a standard error. Beside H in these units, whose entries are about 1, differences are wrong by about
    s^4 times a sixth derivative, and by the rounding of |L| over s^2; s makes these equal. 100 is for the derivative's size.
    """
    X = two_clusters(40, D)
    fit = at_maximum(X, structure)
    u = standard_errors(fit, X)
    v, names = vector_of(u.names, fit.parameters), u.names
    share = (np.finfo(np.longdouble).eps * abs(fit.log_likelihood)) ** (1 / 6)
    se = np.sqrt(np.diagonal(u.covariance)).astype(np.longdouble)
    H = second_differences(lambda v: log_densities(X, *unpacked(v, names, fit.parameters)).sum(), v, share * se)
    assert len(names) == fit.free_parameters
    information = np.linalg.inv(u.covariance / np.outer(se, se).astype(float))
    np.testing.assert_allclose(information, -H * np.outer(se, se).astype(float), atol=100 * float(share) ** 4)


@pytest.mark.parametrize("D", [1, 2])
def test_the_sandwich_is_made_of_the_rows_scores(structure, D):
    """A^-1 B A^-1, with B from differences of each row's log density; central differences with a step of 1e-4 leave 1e-7."""
    X = two_clusters(40, D)
    fit = at_maximum(X, structure)
    u = standard_errors(fit, X)
    v, inverse = vector_of(u.names, fit.parameters), u.covariance
    scores = []
    for i, se in enumerate(np.sqrt(np.diagonal(inverse))):
        h = np.zeros_like(v)
        h[i] = 1e-4 * se
        up, down = (log_densities(X, *unpacked(v + s * h, u.names, fit.parameters)) for s in (1, -1))
        scores.append(((up - down) / (2 * h[i])).astype(float))
    B = np.array(scores) @ np.array(scores).T
    made = standard_errors(fit, X, method="sandwich").covariance
    size = np.sqrt(np.outer(np.diagonal(made), np.diagonal(made)))
    np.testing.assert_allclose(made / size, inverse @ B @ inverse / size, atol=1e-6)


def test_the_sandwich_of_four_rows():
    """One component, rows 0 0 0 4: mean 1, moments 3, 6 and 21, so that n V is [[3, 6], [6, 21 - 9]]; and the information's is
    [[3, 0], [0, 2 9]]."""
    X = np.array([0.0, 0.0, 0.0, 4.0])
    fit = at_maximum(X, K=1)
    np.testing.assert_allclose(standard_errors(fit, X, method="sandwich").covariance, [[0.75, 1.5], [1.5, 3.0]], rtol=1e-12)
    u = standard_errors(fit, X)
    np.testing.assert_allclose(u.covariance, [[0.75, 0.0], [0.0, 4.5]], rtol=1e-12, atol=1e-12)
    assert u.names == ("mean[0]", "variance[0]")
    assert u.means.item() == pytest.approx(np.sqrt(0.75)) and u.weights.item() == 0.0
    assert u.sds.item() == pytest.approx(np.sqrt(4.5) / (2 * np.sqrt(3.0)))


def test_far_components_are_samples_of_their_own(structure):
    """Labels as good as known: sd / sqrt(n) of a mean, sqrt(w (1 - w) / N) of a weight, sd / sqrt(2 n D) of a sphere's."""
    X = np.concatenate([two_clusters(50)[:50], 1e3 + two_clusters(80)[80:]])
    fit = (
        at_maximum(np.ascontiguousarray(X), structure)
        if structure != "full"
        else em(X, from_labels(X, np.arange(130) > 49), stop=3)
    )
    u, p = standard_errors(fit, X), fit.parameters
    n = 130 * p.weights
    np.testing.assert_allclose(u.means, p.sds / np.sqrt(n)[:, None], rtol=1e-9)
    np.testing.assert_allclose(u.weights, np.sqrt(p.weights.prod() / 130), rtol=1e-9)
    rows = {"full": n[:, None], "tied": 130, "diag": n[:, None], "spherical": 2 * n[:, None]}[structure]
    np.testing.assert_allclose(u.sds, p.sds / np.sqrt(2 * rows), rtol=1e-9)


@pytest.mark.parametrize("name", ["EII", "EEI"])
def test_structures_with_linear_covariances_have_an_information_too(name):
    """Of components so far apart that labels are known: the variance's error is that of all rows."""
    X = np.concatenate([two_clusters(50)[:50], 1e3 + two_clusters(80)[80:]])
    fit = em(X, from_labels(X, np.arange(130) > 49, name), stop=3)
    u = standard_errors(fit, X)
    np.testing.assert_allclose(u.sds, fit.parameters.sds / np.sqrt(2 * 130 * (2 if name == "EII" else 1)), rtol=1e-9)
    assert len(u.names) == fit.free_parameters


@pytest.mark.parametrize("scale", [1e-100, 1e-3, 1e100])
def test_errors_scale_with_the_data_and_do_not_move_with_it(structure, scale):
    """Of a x + b: those of means and standard deviations times a, of variances a^2; percentages of intervals the same."""
    X = two_clusters()
    shift = 0.0 if scale != 1e-3 else 1e3
    one, other = (standard_errors(at_maximum(Y, structure), Y, method="sandwich") for Y in (X, X * scale + shift))
    for name, power in (("weights", 0), ("means", 1), ("sds", 1), ("covariances", 2)):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name) * scale**power, rtol=1e-5)
    assert np.isfinite([[row.lower, row.upper] for row in other.confidence_intervals()]).all()


def test_errors_permute_with_components():
    """Another order of components is another order of errors, and the last weight has one too."""
    X = np.concatenate([two_clusters(40, 1), two_clusters(40, 1) + 9.0])
    fit = at_maximum(X, K=3)
    order = [2, 0, 1]
    p = fit.parameters
    turned = em(X, Parameters(p.weights[order], p.means[order], p.covariances[order]), stop=0)
    one, other = (standard_errors(f, X) for f in (fit, turned))
    for name in ("weights", "means", "covariances", "sds"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name)[order], rtol=1e-8)


@pytest.mark.parametrize("method", ["information", "sandwich"])
def test_weight_two_is_the_row_twice(structure, method):
    """To rounding; and weight zero is the row absent."""
    X = two_clusters()
    v = np.random.default_rng(1).integers(0, 3, len(X))
    repeated = np.repeat(X, v, axis=0)
    fit = at_maximum(repeated, structure)
    one = standard_errors(fit, repeated, method=method)
    other = standard_errors(fit, X, method=method, sample_weight=v)
    np.testing.assert_allclose(other.covariance, one.covariance, rtol=1e-9, atol=1e-9 * np.abs(one.covariance).min())


def test_many_rows_are_walked_in_chunks_and_threads():
    """Sums of chunks are sums of rows: sixty times the rows, errors smaller by its root; the same bits for any threads."""
    X = np.tile(two_clusters(500), (60, 1))
    fit = at_maximum(X[:1000])
    few, many, four = (standard_errors(fit, Y, n_threads=n) for Y, n in ((X[:1000], 1), (X, 1), (X, 4)))
    np.testing.assert_allclose(many.means, few.means / np.sqrt(60), rtol=1e-9)
    np.testing.assert_array_equal(many.covariance, four.covariance)
    single = standard_errors(fit, X[:1000].astype(np.float32))  # other rows, by 1e-7 of a standard deviation
    np.testing.assert_allclose(single.means, few.means, rtol=1e-5)
    np.testing.assert_array_equal(standard_errors(fit, emfuse.InMemory(X)).covariance, many.covariance)


# ------------------------------------------------------------------ constraints


def test_what_is_fixed_has_no_error_and_what_goes_together_has_one():
    """Standard deviations "a" and "2a": the second's error is twice the first's, and one is among the free parameters."""
    X = two_clusters(200, 1)
    fit = at_maximum(X, constraints=Constraints(means=[0.0, None], sds=["a", "2a"]))
    for method in ("information", "sandwich", *REFITTED):
        u = standard_errors(fit, X, method=method, n_resamples=20)
        assert u.names == ("weight[0]", "mean[1]", "variance[0]")
        assert len(u.names) == fit.free_parameters == len(u.covariance)
        assert u.means[0] == 0.0 and u.means[1] > 0.0
        assert u.sds[1] == pytest.approx(2 * u.sds[0], rel=1e-9)
        assert u.confidence_intervals()["mean[0]"].lower == 0.0


def test_a_parameter_known_beforehand_is_one_less_to_find():
    """The free information without its rows and columns: errors given the deviations, which are never above those without."""
    X = two_clusters(200, 1)
    fit = at_maximum(X)
    free = standard_errors(fit, X)
    p = fit.parameters
    held = em(X, p, stop=0, constraints=Constraints(sds=list(p.sds[:, 0]), weights=[None, None]))
    given = standard_errors(held, X)
    at = [free.names.index(name) for name in given.names]
    expected = np.linalg.inv(np.linalg.inv(free.covariance)[np.ix_(at, at)])
    np.testing.assert_allclose(given.covariance, expected, rtol=1e-9)
    assert (given.means < free.means).all()


def test_linked_means_and_weights_have_the_slope_of_their_multiples():
    """Means "a" and "-a", weights "b" and "b" of three: the Jacobian of the constraints on both sides of the free information."""
    random = np.random.default_rng(0)
    X = np.concatenate([random.normal(m, 1, 150) for m in (-4, 4, 12)])[:, None]
    start = Parameters.univariate([1 / 3] * 3, [-4, 4, 12], [1.0] * 3)
    tight = stopping.Within(1e-12)
    fit = em(X, start, stop=tight, constraints=Constraints(means=["a", "-a", None], weights=["b", "b", None]))
    u = standard_errors(fit, X)
    assert u.names == ("weight[0]", "mean[0]", "mean[2]", "variance[0]", "variance[1]", "variance[2]")
    assert u.means[0] == u.means[1] and u.weights[2] == pytest.approx(2 * u.weights[0]) and u.weights[0] == u.weights[1]
    p = fit.parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncertaintyWarning)  # without constraints it is no maximum
        free = standard_errors(em(X, p, stop=0), X)
    J = np.zeros((8, 6))
    J[[0, 1], 0] = 1.0
    J[[2, 3], 1] = 1.0, -1.0
    J[[4, 5, 6, 7], [2, 3, 4, 5]] = 1.0
    np.testing.assert_allclose(np.linalg.inv(u.covariance), J.T @ np.linalg.inv(free.covariance) @ J, rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------ intervals


def test_intervals_stay_inside_and_are_symmetrical_on_their_own_scale():
    """Means: estimate ± 1.96 errors; the logit of weights, the logarithm of deviations, Fisher's transform of correlations."""
    X = faithful()
    u = standard_errors(emfuse.fit(X, 2), X)
    rows = u.confidence_intervals(0.95)
    z = 1.959963984540054
    mean, weight, sd, rho = (rows[name] for name in ("mean[0,0]", "weight[0]", "sd[1,0]", "correlation[0,1,0]"))
    assert mean.upper - mean.estimate == pytest.approx(z * mean.se) == pytest.approx(mean.estimate - mean.lower)
    logit = [np.log(w / (1 - w)) for w in (weight.lower, weight.estimate, weight.upper)]
    assert np.diff(logit) == pytest.approx(z * weight.se / (weight.estimate * (1 - weight.estimate)))
    assert np.diff(np.log([sd.lower, sd.estimate, sd.upper])) == pytest.approx(z * sd.se / sd.estimate)
    assert np.diff(np.arctanh([rho.lower, rho.estimate, rho.upper])) == pytest.approx(z * rho.se / (1 - rho.estimate**2))
    assert len(rows) == 2 + 4 + 4 + 2
    assert u.confidence_intervals(0.5)["mean[0,0]"].upper - mean.estimate == pytest.approx(0.6744897501960817 * mean.se)


def test_a_correlation_s_error_is_that_of_textbooks():
    """(1 - rho^2) / sqrt(n), of one component."""
    X = two_clusters(50)
    rho = standard_errors(at_maximum(X, K=1), X).confidence_intervals()["correlation[0,1,0]"]
    assert rho.estimate == pytest.approx(np.corrcoef(X.T)[0, 1])
    assert rho.se == pytest.approx((1 - rho.estimate**2) / 10)


def test_intervals_are_a_table_and_a_frame():
    """Rows by their names; text with a column each for estimate, error and ends."""
    pandas = pytest.importorskip("pandas")
    X = two_clusters(100, 1)
    u = standard_errors(at_maximum(X, "tied"), X)
    rows = u.confidence_intervals(level=0.9)
    frame = rows.as_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.index) == [row.name for row in rows] == ["weight[0]", "weight[1]", "mean[0]", "mean[1]", "sd"]
    assert frame.loc["sd", "upper"] == rows["sd"].upper
    text = str(rows).splitlines()
    assert text[0].split() == ["parameter", "estimate", "se", "90%", "from", "to"] and len(text) == 6
    assert str(u).startswith("standard errors by 'information'\nparameter")
    with pytest.raises(KeyError, match="no parameter is called 'mu'"):
        rows["mu"]


@pytest.mark.parametrize("method", REFITTED)
def test_percentiles_are_those_of_the_refits(method):
    """Of each weight, mean, standard deviation and correlation; and the errors are the refits' standard deviations."""
    X = faithful()
    fit = emfuse.fit(X, 2)
    u = standard_errors(fit, X, method=method, n_resamples=60)
    weights, means, covariances = u.resampled
    rows = u.confidence_intervals(0.8, "percentile")
    assert len(weights) == 60 - u.failures
    assert (rows["weight[1]"].lower, rows["weight[1]"].upper) == pytest.approx(np.quantile(weights[:, 1], [0.1, 0.9]))
    assert rows["mean[1,0]"].lower == pytest.approx(np.quantile(means[:, 1, 0], 0.1))
    assert rows["sd[0,1]"].upper == pytest.approx(np.quantile(np.sqrt(covariances[:, 0, 1, 1]), 0.9))
    rho = covariances[:, 0, 1, 0] / np.sqrt(covariances[:, 0, 0, 0] * covariances[:, 0, 1, 1])
    assert rows["correlation[0,1,0]"].upper == pytest.approx(np.quantile(rho, 0.9))
    assert rows["correlation[0,1,0]"].se == pytest.approx(rho.std(ddof=1))
    np.testing.assert_allclose(u.means, means.std(axis=0, ddof=1))
    np.testing.assert_allclose(u.covariances, covariances.std(axis=0, ddof=1))
    assert u.covariance[1, 1] == pytest.approx(means[:, 0, 0].var(ddof=1))
    assert f"by {method!r}, 60 resamples" in str(u)


def test_a_fit_gives_intervals_by_itself():
    """From the resamples where there are any, else from the standard errors; the level is looked at before all the work."""
    X = faithful()
    fit = emfuse.fit(X, 2)
    plain, drawn = (
        fit.confidence_intervals(X, 0.9, method="sandwich"),
        fit.confidence_intervals(X, method="weighted", n_resamples=50),
    )
    assert list(plain) == list(standard_errors(fit, X, method="sandwich").confidence_intervals(0.9))
    refits = standard_errors(fit, X, method="weighted", n_resamples=50)
    assert list(drawn) == list(refits.confidence_intervals(0.95, "percentile"))
    assert (plain.level, plain.method, drawn.method) == (0.9, "wald", "percentile")
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        fit.confidence_intervals("not looked at", 95)


# ------------------------------------------------------------------ refits


@pytest.mark.parametrize("method", ["bootstrap", "parametric"])
@pytest.mark.parametrize("name", ["acidity_V2", "faithful_VVV2", "waiting_E2"])
def test_mclusts_standard_errors_are_found_again(name, method):
    """MclustBootstrap's, from 1999 resamples, within what both Monte Carlo errors allow.

    A standard deviation of R numbers has a relative error of sqrt((kurtosis - 1) / 4 R). Up to 16 of them are compared in each of
    6 cases; 4.5 of these errors are passed by chance less than once in 1,000 runs.
    """
    X, content = load("bootstrap_se", name)
    structure, R = STRUCTURE_OF[content["options"]["model"]], 300
    start = from_labels(X, np.array(content["start"]["labels"]) - 1, structure)
    fit = em(X, start, acceleration="emqn", stop=stopping.AT_MAXIMUM)
    assert fit.log_likelihood == pytest.approx(content["expected"]["fit"]["loglik"], abs=1e-6)
    u = standard_errors(fit, X, method=method, n_resamples=R)
    stated = content["expected"]["se_nonparametric" if method == "bootstrap" else "se_parametric"]
    weights, means, covariances = u.resampled
    shape = np.shape(stated["variance"])
    kind, (K, D) = structure_named(structure), fit.parameters.means.shape
    matrices = np.array([kind.matrices(C, K, D) for C in covariances]).reshape(-1, *shape)
    ours = kind.matrices(u.covariances, K, D).reshape(shape)
    samples = {"pro": weights, "mean": means.reshape(len(means), *np.shape(stated["mean"])), "variance": matrices}
    errors = {"pro": u.weights, "mean": u.means.reshape(np.shape(stated["mean"])), "variance": ours}
    for of, drawn in samples.items():
        relative = np.sqrt((kurtosis(drawn, fisher=False) - 1) / 4 * (1 / R + 1 / 1999))
        difference = np.abs(np.log(errors[of] / np.array(stated[of])))
        assert (difference < 4.5 * relative).all(), (of, difference / relative)


def test_all_methods_agree_on_a_model_that_is_right(structure):
    """On 800 rows from a mixture of that structure all five are near each other: 120 refits tell an error to 6.5 % (and with 14
    numbers or fewer, 3.5 of them are rare), and in 800 rows the methods themselves differ by less than 10 %."""
    covariances = {"full": [np.eye(2), np.diag([2, 0.5])], "tied": np.eye(2), "diag": [[1, 1], [2, 0.5]], "spherical": [1, 2]}
    truth = Parameters([0.4, 0.6], [[0, 0], [5, 2]], covariances[structure], structure)
    X, _ = truth.sample(800, 5)
    fit = em(X, truth, acceleration="emqn", stop=stopping.AT_MAXIMUM)
    exact = standard_errors(fit, X)
    for method in ("sandwich", *REFITTED):
        u = standard_errors(fit, X, method=method, n_resamples=120)
        for name in ("weights", "means", "sds"):
            np.testing.assert_allclose(getattr(u, name), getattr(exact, name), rtol=3.5 * 0.065 + 0.1)


@pytest.mark.parametrize("method", REFITTED)
def test_the_seed_makes_the_resamples_and_threads_do_not(method):
    """The same bits for any number of threads; None is a seed of its own; another seed is another sample."""
    X = np.tile(faithful(), (4, 1))  # enough rows for threads
    fit = emfuse.fit(X, 2)
    one, four, other = (
        standard_errors(fit, X, method=method, n_resamples=60, n_threads=n, random_state=seed)
        for n, seed in ((1, None), (4, None), (1, 1))
    )
    for a, b, c in zip(one.resampled, four.resampled, other.resampled, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@pytest.mark.parametrize("method", REFITTED)
def test_refits_know_row_weights(method):
    """Weight two is the row twice: the same errors within 4.5 Monte Carlo errors of 150 refits of each, 5.8 % of a difference
    where estimates are normal, and those here are nearly."""
    X = two_clusters(150, 1)
    v = np.random.default_rng(0).integers(1, 3, len(X))
    repeated = np.repeat(X, v, axis=0)
    fit = at_maximum(repeated)
    one = standard_errors(fit, repeated, method=method, n_resamples=150)
    other = standard_errors(fit, X, method=method, n_resamples=150, sample_weight=v, random_state=1)
    np.testing.assert_allclose(other.means, one.means, rtol=4.5 * np.sqrt(2 / 300))
    np.testing.assert_allclose(other.sds, one.sds, rtol=4.5 * np.sqrt(2 / 300))


def test_any_structure_can_be_refitted():
    """mclust's others too, whose covariances have all entries among the names."""
    X = faithful()
    fit = emfuse.fit(X, 2, structure="VVE")
    u = standard_errors(fit, X, method="weighted", n_resamples=10)
    assert len(u.names) == 1 + 4 + 6 and u.covariance.shape == (11, 11)
    assert u.covariances.shape == (2, 2, 2) and (u.covariances > 0).all()
    with pytest.raises(ValueError, match="method must be 'bootstrap', 'parametric' or 'weighted' for structure 'VVE'"):
        standard_errors(fit, X)


@pytest.mark.parametrize("structure", ["full", "tied", "spherical"])
def test_labels_go_to_the_nearest_component(structure, mixture):
    """A mixture whose components were turned about is put back, covariances and all."""
    p = mixture(structure, K=4)
    order = [2, 0, 3, 1]
    covariances = p.covariances if structure == "tied" else p.covariances[order]
    assert matched(Parameters(p.weights[order], p.means[order], covariances, structure), p) == p


# ------------------------------------------------------------------ what cannot be known


def test_two_components_that_are_one_are_an_error_that_names_the_direction():
    """What lies between equal components is not in the data: their weights."""
    X = two_clusters(60, 1)
    p = at_maximum(X, K=1).parameters
    twice = Parameters([0.5, 0.5], p.means[[0, 0]], p.covariances[[0, 0]])
    with pytest.raises(ValueError, match=r"not positive definite: along the direction \w+\[\d\].* must tell more than nothing"):
        standard_errors(em(X, twice, stop=0), X)
    with pytest.raises(ValueError, match="component 1 has weight 0"):
        standard_errors(em(X, Parameters([1, 0], p.means[[0, 0]], p.covariances[[0, 0]]), stop=0), X)


def test_hardly_apart_is_a_warning_that_names_the_direction():
    """Two components a twentieth of a standard deviation apart: 250 rows are worth less than one with a label."""
    p = Parameters.univariate([0.5, 0.5], [-0.025, 0.025], [1.0, 1.0], "tied")
    grid = np.linspace(-8, 8, 4001)
    v = np.exp(emfuse.engines.evaluate(grid, p.factors, log_density=True).log_density)
    with pytest.warns(UncertaintyWarning, match=r"nearly singular: along the direction .*\[\d\] [+-]1.00"):
        standard_errors(em(grid, p, sample_weight=v, stop=0), grid, sample_weight=v)


def test_away_from_the_maximum_is_a_warning():
    """Other rows, a fit that was stopped early or regularised: the Newton step says how far it is."""
    X = two_clusters(200, 1)
    with pytest.warns(UncertaintyWarning, match=r"not at a maximum .* Newton step moves \w+(\[\d\])? by \d"):
        standard_errors(em(X, from_labels(X, np.arange(400) >= 200), reg_covar=0.1), X)
    with pytest.raises(ValueError, match=r"not at a maximum either: an EM step would gain about [\d.]+ nats"):
        standard_errors(em(X, from_labels(X, np.arange(400) >= 200), reg_covar=0.5), X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        standard_errors(emfuse.fit(X, 2), X)


def test_refits_that_collapse_are_counted_and_told():
    """A component of three rows: the bootstrap loses them often, random weights never."""
    X = np.concatenate([np.random.default_rng(0).normal(0, 1, 60), [20.0, 20.5, 21.0]])[:, None]
    fit = at_maximum(X, K=1)
    fit = em(X, from_labels(X, (X[:, 0] > 10).astype(int)), stop=2)
    with pytest.warns(UncertaintyWarning, match=r"\d+ of 60 refits collapsed, and do not count"):
        u = standard_errors(fit, X, method="bootstrap", n_resamples=60)
    assert 3 < u.failures == 60 - len(u.resampled[0])
    assert f"60 resamples, {u.failures} of which collapsed" in str(u)
    assert standard_errors(fit, X, method="weighted", n_resamples=60).failures == 0


def test_a_matrix_too_large_for_memory_is_an_error():
    """Four components of fifty features have 5,304 numbers."""
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 50))
    p = Parameters(np.full(4, 0.25), random.normal(size=(4, 50)), [np.eye(50)] * 4)
    with pytest.raises(ValueError, match=r"its components have 5304 numbers, and the matrix .* is made for 5000 at most"):
        standard_errors(em(X, p, stop=0), X)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "jackknife"}, ValueError, "method must be one of 'information', 'sandwich', .* got 'jackknife'"),
        ({"method": "bootstrap", "n_resamples": 1}, ValueError, "n_resamples must be a whole number of at least 2, got 1"),
        ({"sample_weight": [1.0]}, ValueError, "sample_weight must have shape"),
        ({"random_state": "x", "method": "weighted"}, TypeError, "random_state must be an int"),
    ],
)
def test_what_is_wrong_with_the_call_is_an_error(options, error, words):
    """Before anything is computed, with name and value."""
    X = two_clusters(30, 1)
    fit = at_maximum(X)
    with pytest.raises(error, match=words):
        standard_errors(fit, X, **options)
    with pytest.raises(TypeError, match=r"fit must be an emfuse\.Fit, got Parameters"):
        standard_errors(fit.parameters, X)
    with pytest.raises(ValueError, match="X has 2 features, but the mixture has 1"):
        standard_errors(fit, two_clusters(30, 2))
    with pytest.raises(ValueError, match="sample_weight must be given to the engine"):
        standard_errors(fit, emfuse.InMemory(X), sample_weight=np.ones(60))
    u = standard_errors(fit, X)
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        u.confidence_intervals(95)
    with pytest.raises(ValueError, match="got 'percentile', which needs resamples"):
        u.confidence_intervals(method="percentile")


# ------------------------------------------------------------------ mixtools' name


def test_boot_se_has_rs_names_and_shapes():
    """Standard errors by the parametric bootstrap, with all refits; of one common standard deviation, one."""
    X = faithful()
    one = boot_se(normalmixEM(X[:, 1], mu=[55, 80], sigma=[5, 5]), B=40)
    assert one.lambda_.shape == one.mu.shape == one.sigma.shape == (40, 2)
    np.testing.assert_allclose(one.mu_se, one.mu.std(axis=0, ddof=1))
    np.testing.assert_allclose(one.sigma_se, one.sigma.std(axis=0, ddof=1))
    common = boot_se(normalmixEM(X[:, 1], mu=[55, 80], sigma=5, arbvar=False), B=20)
    assert (common.sigma[:, 0] == common.sigma[:, 1]).all() and common.sigma_se[0] == common.sigma_se[1]
    several = boot_se(mvnormalmixEM(X, mu=[[2, 55], [4.3, 80]], sigma=[np.diag([0.1, 30.0])] * 2), B=20)
    assert several.mu.shape == (20, 2, 2) and several.sigma.shape == (20, 2, 2, 2) and several.sigma_se.shape == (2, 2, 2)
    with pytest.raises(TypeError, match="em_fit must be what normalmixEM or mvnormalmixEM returns, got list"):
        boot_se([1.0])
