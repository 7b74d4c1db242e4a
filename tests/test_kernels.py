"""Every build of the pass is the reference's twin; and which of them runs is asked and set in one process."""

import itertools
from functools import cache

import mpmath as mp
import numpy as np
import pytest

from emfuse import InMemory, kernels, reference
from emfuse.parameters import Factors
from emfuse.statistics import SufficientStatistics, in_form_of

EPS, EPS_SINGLE = np.finfo(np.float64).eps, np.finfo(np.float32).eps
COMPILED = [name for name in kernels.runnable() if name != kernels.REFERENCE]
FORMS = ["diag", "full", "tied", "spherical"]
OUTPUTS = ["log_density", "labels", "responsibilities"]
# (K, D): few features, and every remainder of a tile of four; many, and more than a register holds; many components
SHAPES = [(1, 1), (5, 1), (1, 2), (3, 2), (2, 3), (3, 4), (2, 5), (2, 6), (3, 7), (2, 9), (6, 12), (4, 16), (5, 20), (2, 33)]
SHAPES += [(40, 2), (70, 1)]
LANES = 8, 16  # in the widest register there is
PANELS = 32, 64  # rows in a panel of the widest
BLOCKS = 128, 256  # rows in a block of these shapes: see `rows_per_block` in _walk.h


@pytest.fixture(params=COMPILED)
def compiled(request):
    """Each compiled build that runs here, as a module; in use while the test runs."""
    with kernels.use(request.param):
        yield kernels.load()


def sizes():
    """Numbers of rows at the edges of a register, of a panel and of a block: for float32 and float64, few features and many."""
    return sorted({1, *(n + i for n in (*LANES, *PANELS, *BLOCKS) for i in (-1, 0, 1)), 2 * max(BLOCKS) + 3})


@cache
def problem(form, K, D, N, dtype, weighted):
    """Rows, weights and a mixture of that form; means and origins differ, and some rows lie far from every mean."""
    random = np.random.default_rng([K, D, N])
    shape = {"full": (K, D, D), "tied": (1, D, D), "diag": (K, D), "spherical": (K, 1)}[form]
    P = np.tril(random.standard_normal(shape)) + 2.0 * np.eye(D) if len(shape) == 3 else random.uniform(0.5, 2.0, shape)
    means = 3.0 * random.standard_normal((K, D))
    X = (means[random.integers(K, size=N)] + random.standard_normal((N, D))).astype(dtype)
    X[::13] *= 5
    v = random.integers(0, 4, N) * random.uniform(0.5, 1.0, N) if weighted else None
    mixture = {"means": means, "P": P, "log_constant": random.uniform(-3.0, 3.0, K)}
    return X, v, mixture, means + 0.1 * random.standard_normal((K, D))


def sums(build, X, v, mixture, origin, hard=False, single=False):
    """Mass, first, second and log-likelihood of one sweep."""
    out = np.zeros(len(origin)), np.zeros(origin.shape), np.zeros(mixture["P"].shape)
    total = build.sweep(
        X=X, weights=v, origin=origin, hard=hard, mass=out[0], first=out[1], second=out[2], single=single, **mixture
    )
    return *out, np.float64(total)


def evaluation(build, X, mixture):
    """Log density, labels and responsibilities of each row."""
    N, K = len(X), len(mixture["means"])
    out = {"log_density": np.empty(N), "labels": np.empty(N, np.int64), "responsibilities": np.empty((N, K))}
    build.evaluate(X=X, **mixture, **out)
    return out


@cache
def expected(form, K, D, N, dtype, weighted, hard, density_rounding):
    """The reference's sums and how far another order of operations may be from each.

    A responsibility is off by the share that its own and the largest densities are (first order), and by 8 eps for exp, division
    and weight; then N terms are added in another order, N eps of their sizes, and each holds two residuals and two products.
    """
    X, v, mixture, origin = problem(form, K, D, N, dtype, weighted)
    values = sums(reference, X, v, mixture, origin, hard)
    e = evaluation(reference, X, mixture)
    r, delta = e["responsibilities"], 2 * density_rounding(Factors(**mixture), X)  # twice: the reference's and the build's
    mean_delta = (r * delta).sum(axis=1, keepdims=True)
    weight = np.ones(N) if v is None else v
    off = np.zeros((N, K)) if hard else delta + mean_delta + 8 * EPS
    if hard:
        r = np.eye(K)[e["labels"]]
    share = weight[:, None] * r * (off + (N + 8) * EPS)
    size = np.abs(X.astype(np.float64)[:, None, :] - origin)
    first = np.einsum("nk,nka->ka", share, size)
    second = (
        np.einsum("nk,nka,nkb->kab", share, size, size) if values[2].ndim == 3 else np.einsum("nk,nka->ka", share, size * size)
    )
    second = in_form_of(values[2], second)
    l_n = np.abs(e["log_density"]) + mixture["log_constant"].max()
    total = (weight * (delta.max(axis=1) + (N + 8) * EPS * (l_n + np.log(K)))).sum()
    return values, (share.sum(axis=0), first, second, total)


# ------------------------------------------------------------------ twin


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize(("K", "D"), SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_a_build_sweeps_as_the_reference_does(compiled, form, K, D, hard, dtype, weighted, density_rounding):
    """mass, first, second and log-likelihood equal the definition's, within what rounding can explain, at every edge size."""
    for N in sizes():
        values, tolerances = expected(form, K, D, N, dtype, weighted, hard, density_rounding)
        X, v, mixture, origin = problem(form, K, D, N, dtype, weighted)
        made = sums(compiled, X, v, mixture, origin, hard)
        for name, ours, theirs, tolerance in zip(("mass", "first", "second", "sum"), made, values, tolerances, strict=True):
            # 1e-300: where the reference has a denormal responsibility, a build may have 0
            assert np.all(np.abs(ours - theirs) <= tolerance + 1e-300), f"{name} of {N} rows"


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("K", "D"), SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_a_build_sweeps_in_float_as_the_reference_does_in_double(compiled, form, K, D, weighted, density_rounding):
    """Asked to compute rows of float32 in float, a build is as near as double is, counted in float's eps."""
    for N in (1, 63, 65, 600):
        values, tolerances = expected(form, K, D, N, np.float32, weighted, False, density_rounding)
        X, v, mixture, origin = problem(form, K, D, N, np.float32, weighted)
        made = sums(compiled, X, v, mixture, origin, single=True)
        for name, ours, theirs, tolerance in zip(("mass", "first", "second", "sum"), made, values, tolerances, strict=True):
            # 1e-37: where the reference has a responsibility too small for a float, a build may have 0
            assert np.all(np.abs(ours - theirs) <= tolerance * (EPS_SINGLE / EPS) + 1e-37 * N * np.square(X).max()), (
                f"{name} of {N} rows"
            )


@pytest.mark.parametrize(("K", "D"), [(3, 2), (3, 7), (4, 16), (2, 33)])
@pytest.mark.parametrize("form", FORMS)
def test_a_row_too_far_for_float_is_computed_in_double(compiled, form, K, D):
    """One row hundreds of standard deviations away: the sums are those in double, to the last bit."""
    X, v, mixture, origin = problem(form, K, D, 300, np.float32, True)
    X = X.copy()
    X[123] = 500.0
    for ours, theirs in zip(
        sums(compiled, X, v, mixture, origin, single=True), sums(compiled, X, v, mixture, origin), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("D", [2, 7, 16, 33])
def test_the_scatter_that_components_share_may_be_left_out(build, D):
    """Without `second`, the other sums are the same."""
    X, v, mixture, origin = problem("tied", 3, D, 300, np.float64, True)
    mass, first, _, total = sums(kernels.load(), X, v, mixture, origin)
    others = np.zeros_like(mass), np.zeros_like(first)
    without = kernels.load().sweep(
        X=X, weights=v, origin=origin, hard=False, mass=others[0], first=others[1], second=None, **mixture
    )
    np.testing.assert_allclose(without, total, rtol=1e-13)
    for ours, theirs in zip(others, (mass, first), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=300 * 10 * EPS * np.abs(theirs).max())


@pytest.mark.parametrize("form", ["tied", "spherical"])
@pytest.mark.parametrize(("name", "scale", "apart"), [("wide apart", 1.0, 1e5), ("small", 1e-120, 1.0), ("large", 1e120, 1.0)])
def test_what_would_lose_digits_takes_another_way(compiled, form, name, scale, apart, density_rounding):
    """Shared P with means thousands of standard deviations apart, and P far from 1: the reference's sums, as anywhere."""
    K, D, N = 3, 12, 200
    X, v, mixture, _ = problem(form, K, D, N, np.float64, True)
    shift = apart * scale * np.arange(K)[:, None]
    labels = np.arange(N) % K
    X = scale * X + shift[labels]
    mixture = mixture | {"means": scale * mixture["means"] + shift, "P": mixture["P"] / scale}
    ours, theirs = (sums(b, X, v, mixture, mixture["means"]) for b in (compiled, reference))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("D", [8, 20])
def test_sums_about_the_means_are_those_of_any_origin(compiled, D):
    """Spherical sums about the means come out of the distances that the E step has already: the same, moved."""
    X, v, mixture, origin = problem("spherical", 3, D, 300, np.float64, True)
    here, there = (
        SufficientStatistics(o, *sums(compiled, X, v, mixture, o)[:3]).about(origin) for o in (mixture["means"], origin)
    )
    np.testing.assert_allclose(here.first, there.first, rtol=0, atol=1e-12 * np.abs(there.first).max())
    np.testing.assert_allclose(here.second, there.second, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("K", "D"), SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_a_build_evaluates_as_the_reference_does(compiled, form, K, D, dtype, density_rounding):
    """Log densities, labels and responsibilities equal the definition's, row by row, at every edge size."""
    for N in sizes():
        X, _, mixture, _ = problem(form, K, D, N, dtype, False)
        ours, theirs = evaluation(compiled, X, mixture), evaluation(reference, X, mixture)
        delta = 2 * density_rounding(Factors(**mixture), X)
        largest, l_n = delta.max(axis=1), theirs["log_density"]
        assert np.all(np.abs(ours["log_density"] - l_n) <= largest + 4 * EPS * (np.abs(l_n) + 5))  # log of a sum of up to e^5
        off = theirs["responsibilities"] * (delta + largest[:, None] + 8 * EPS)
        assert np.all(np.abs(ours["responsibilities"] - theirs["responsibilities"]) <= off + 1e-300)
        np.testing.assert_array_equal(ours["labels"], theirs["labels"])


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    ("form", "K", "D"), [("full", 2, 200), ("tied", 3, 130), ("diag", 3, 512), ("full", 500, 3), ("spherical", 600, 9)]
)
def test_many_features_and_many_components(compiled, form, K, D, single, density_rounding):
    """D in the hundreds, and K: the same sums as the reference's."""
    N = 70
    values, tolerances = expected(form, K, D, N, np.float32, True, False, density_rounding)
    X, v, mixture, origin = problem(form, K, D, N, np.float32, True)
    made = sums(compiled, X, v, mixture, origin, single=single)
    for ours, theirs, tolerance in zip(made, values, tolerances, strict=True):
        allowed = tolerance * (EPS_SINGLE / EPS if single else 1.0) + 1e-37 * N * np.square(X).max()
        assert np.all(np.abs(ours - theirs) <= allowed)


@pytest.mark.parametrize("wanted", [some for n in (1, 2) for some in itertools.combinations(OUTPUTS, n)])
def test_evaluate_fills_only_what_is_wanted(build, wanted):
    """Each output is the same, to the last bit, whichever others are asked for."""
    X, _, mixture, _ = problem("full", 3, 2, 33, np.float64, False)
    everything = evaluation(kernels.load(), X, mixture)
    some = {name: np.empty_like(everything[name]) for name in wanted}
    kernels.load().evaluate(X=X, **mixture, **some)
    for name in wanted:
        np.testing.assert_array_equal(some[name], everything[name])


def test_responsibilities_sum_to_one(build):
    """sum_k r_nk = 1 within K roundings, for rows near and far."""
    X, _, mixture, _ = problem("full", 40, 2, 300, np.float64, False)
    r = evaluation(kernels.load(), X, mixture)["responsibilities"]
    np.testing.assert_allclose(r.sum(axis=1), 1.0, rtol=0, atol=40 * EPS)
    assert r.min() >= 0.0


# ------------------------------------------------------------------ the functions that are ours: exp and log

ROOT_HALF_LOG2_E = 0.84932180028801904272
LOG2_E = 1.4426950408889634074


@pytest.fixture
def two_densities():
    """Rows x under two components: l = 0 and l = -z(x), with the z that a build computes; exact to the last bit in plain double.

    P of the first is 0, that of the second 1, so z = (x ROOT_HALF_LOG2_E)^2 in units of log2, rounded twice.
    """
    random = np.random.default_rng(0)
    z = np.concatenate([random.uniform(0.0, 1.0, 1000), random.uniform(0.0, 60.0, 2000), random.uniform(60.0, 1020.0, 1000)])
    x = np.sqrt(np.concatenate([z, np.geomspace(1e-18, 1.0, 500)])) / ROOT_HALF_LOG2_E
    y = x * ROOT_HALF_LOG2_E
    return x[:, None], y * y, {"means": np.zeros((2, 1)), "P": np.array([[0.0], [1.0]]), "log_constant": np.zeros(2)}


def test_exp_is_right_to_its_last_bits(compiled, two_densities):
    """2^-z within 1.5 eps, relative; measured 0.9, of which 0.5 are the rounding of the quotient r / r that shows it."""
    X, z, mixture = two_densities
    r = evaluation(compiled, X, mixture)["responsibilities"]
    with mp.workdps(40):
        error = [abs(mp.mpf(b) / mp.mpf(a) * mp.power(2, mp.mpf(power)) - 1) for (a, b), power in zip(r, z, strict=True)]
    assert max(error) <= 1.5 * EPS


def test_exp_of_floats_is_right_to_its_last_bits(compiled):
    """2^-z in float within 1.5 of its eps; each row is swept alone, and its two masses are 1 / (1 + 2^-z) and 2^-z of that."""
    random = np.random.default_rng(1)
    z = np.concatenate([random.uniform(0.0, 1.0, 400), random.uniform(0.0, 40.0, 400), random.uniform(40.0, 120.0, 200)])
    error = []
    for row in np.sqrt(z).astype(np.float32):
        # c = -z in log2, rounded to float: P is 0, so that nothing else rounds
        power = float(np.float32(-(float(row) ** 2)))
        mixture = {"means": np.zeros((2, 1)), "P": np.zeros((2, 1)), "log_constant": np.array([0.0, power / LOG2_E])}
        a, b = sums(compiled, np.zeros((1, 1), np.float32), None, mixture, np.zeros((2, 1)), single=True)[0]
        given = float(np.float32(LOG2_E * mixture["log_constant"][1]))
        error.append(abs(b / a / 2.0**given - 1.0))
    assert max(error) <= 2.0 * EPS_SINGLE  # half an eps of it each for the two products with the row's share


def test_exp_never_rises_with_the_distance_and_ends_in_zero(compiled):
    """From 1 to far below the smallest double, where it is cut to 0: never more for a row farther away."""
    z = np.unique(
        np.concatenate([np.linspace(0.0, 4.0, 20_000), np.linspace(1020.0, 1024.0, 20_000), np.geomspace(1.0, 1e5, 20_000)])
    )
    X = np.sqrt(z)[:, None] / ROOT_HALF_LOG2_E
    mixture = {"means": np.zeros((2, 1)), "P": np.array([[0.0], [1.0]]), "log_constant": np.zeros(2)}
    r = evaluation(compiled, X, mixture)["responsibilities"]
    e = r[:, 1] / r[:, 0]
    # at the seams of the reduction neighbours may differ by their rounding, 1.5 eps each, and one of the quotient's
    assert np.all(e[1:] <= e[:-1] * (1.0 + 4 * EPS))
    assert e[0] == 1.0
    assert e[z > 1022.5].max() == 0.0
    assert e[z < 1021.5].min() > 0.0


def test_log_is_right_to_its_last_bits(build, two_densities):
    """log(1 + 2^-z) within 1 eps: half of it the rounding of 1 + 2^-z, and half that of the logarithm; measured 0.7."""
    X, z, mixture = two_densities
    density = evaluation(kernels.load(), X, mixture)["log_density"]
    with mp.workdps(40):
        error = [abs(mp.mpf(value) - mp.log1p(mp.power(2, -mp.mpf(power)))) for value, power in zip(density, z, strict=True)]
    assert max(error) <= EPS


def test_the_log_of_a_whole_number_is_right_to_its_last_bit(build):
    """K components of the same density 1 have log density log K, within 1 eps of it; log 1 is 0."""
    for K in (*range(1, 130), 1000, 4097):
        X, mixture = np.zeros((1, 1)), {"means": np.zeros((K, 1)), "P": np.zeros((K, 1)), "log_constant": np.zeros(K)}
        value = evaluation(kernels.load(), X, mixture)["log_density"][0]
        with mp.workdps(40):
            assert abs(mp.mpf(value) - mp.log(K)) <= EPS * mp.log(K)


@pytest.mark.parametrize("weighted", [False, True])
def test_many_rows_between_many_components_do_not_overflow(build, weighted):
    """896 rows of density K = 30 each have log-likelihood 896 log 30, although 30^224, a lane of a block, is no double."""
    N, K, D = 896, 30, 6
    mixture = {"means": np.zeros((K, D)), "P": np.ones((K, D)), "log_constant": np.zeros(K)}
    total = sums(kernels.load(), np.zeros((N, D)), np.ones(N) if weighted else None, mixture, mixture["means"])[-1]
    assert total == pytest.approx(N * np.log(K), rel=N * EPS)


def test_a_density_beyond_double_precision_is_zero_beside_another(build):
    """2^-1100 is 0 beside 1, and no NaN."""
    X = np.array([[np.sqrt(1100.0) / ROOT_HALF_LOG2_E]])
    mixture = {"means": np.zeros((2, 1)), "P": np.array([[0.0], [1.0]]), "log_constant": np.zeros(2)}
    np.testing.assert_array_equal(evaluation(kernels.load(), X, mixture)["responsibilities"], [[1.0, 0.0]])


# ------------------------------------------------------------------ edge: rows, layouts, refusals


@pytest.mark.parametrize("form", FORMS)
def test_no_rows_add_nothing(build, form):
    """An empty partition adds nothing."""
    X, _, mixture, origin = problem(form, 3, 2, 1, np.float64, False)
    *arrays, total = sums(kernels.load(), X[:0], None, mixture, origin)
    assert total == 0.0
    assert not any(array.any() for array in arrays)


@pytest.mark.parametrize("form", FORMS)
def test_sums_are_added_to(build, form):
    """A second sweep into the same arrays doubles them: exactly, because doubling does not round."""
    X, _, mixture, origin = problem(form, 3, 2, 20, np.float64, False)
    mass, first, second, _ = sums(kernels.load(), X, None, mixture, origin)
    once = mass.copy(), first.copy(), second.copy()
    kernels.load().sweep(X=X, weights=None, origin=origin, hard=False, mass=mass, first=first, second=second, **mixture)
    for now, before in zip((mass, first, second), once, strict=True):
        np.testing.assert_array_equal(now, 2.0 * before)


@pytest.mark.parametrize("D", [1, 2, 5])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [1e155, 1e200, -1e308])
def test_an_overflowing_row_shows_in_the_sum_and_nowhere_as_nan(build, form, D, value):
    """The log-likelihood falls below -1e299; responsibilities still sum to 1."""
    X, _, mixture, origin = problem(form, 3, D, 20, np.float64, False)
    X = X.copy()
    X[7] = value
    assert sums(kernels.load(), X, None, mixture, origin)[-1] < -1e299
    r = evaluation(kernels.load(), X, mixture)["responsibilities"]
    np.testing.assert_allclose(r.sum(axis=1), 1.0, atol=3 * EPS)


def test_hard_gives_a_tie_to_the_first(build):
    """Of equals the first, in sweeps and in labels."""
    X = np.zeros((40, 1))
    mixture = {"means": np.array([[5.0], [1.0], [-1.0], [1.0]]), "P": np.ones((4, 1)), "log_constant": np.zeros(4)}
    assert sums(kernels.load(), X, None, mixture, mixture["means"], hard=True)[0].tolist() == [0.0, 40.0, 0.0, 0.0]
    assert set(evaluation(kernels.load(), X, mixture)["labels"]) == {1}


def strided(X, rows, columns):
    """X in every `rows`-th row and `columns`-th column of a larger array of NaN."""
    big = np.full((len(X) * rows, X.shape[1] * columns), np.nan, X.dtype)
    big[::rows, ::columns] = X
    return big[::rows, ::columns]


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every third row": lambda X: strided(X, 3, 1),
    "every second column": lambda X: strided(X, 1, 2),
    "both": lambda X: strided(X, 2, 3),
    "rows backwards": lambda X: X[::-1].copy()[::-1],
    "columns backwards": lambda X: X[:, ::-1].copy()[:, ::-1],
    "both backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_the_layout_of_the_rows_does_not_change_a_bit(compiled, form, layout, dtype):
    """Any strides, either sign: sums and evaluations are those of the same rows in C order."""
    X, v, mixture, origin = problem(form, 3, 4, 70, dtype, True)
    other = LAYOUTS[layout](X)
    np.testing.assert_array_equal(other, X)
    for ours, theirs in zip(sums(compiled, other, v, mixture, origin), sums(compiled, X, v, mixture, origin), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, values in evaluation(compiled, other, mixture).items():
        np.testing.assert_array_equal(values, evaluation(compiled, X, mixture)[name])


def memory_mapped(X, folder):
    X.tofile(folder / "rows")
    return np.memmap(folder / "rows", dtype=X.dtype, mode="r", shape=X.shape)


def unaligned(X, folder):
    """The rows as a field of records whose other field is one byte."""
    records = np.zeros(X.shape, dtype=[("byte", "i1"), ("x", X.dtype)])
    records["x"] = X
    return records["x"]


CONTAINERS = {
    "big-endian": lambda X, folder: X.astype(X.dtype.newbyteorder(">")),
    "little-endian": lambda X, folder: X.astype(X.dtype.newbyteorder("<")),
    "memory map": memory_mapped,
    "unaligned field": unaligned,
    "list": lambda X, folder: X.tolist(),
    "tuple of arrays": lambda X, folder: tuple(X),
    "objects": lambda X, folder: X.astype(object),
    "np.matrix": lambda X, folder: np.asmatrix(X),
    **{name: lambda X, folder, change=change: change(X) for name, change in LAYOUTS.items()},
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("container", CONTAINERS)
def test_what_holds_the_rows_does_not_change_a_bit(compiled, container, dtype, mixture, tmp_path):
    """Whatever `InMemory` is given, the sweep is that of the same numbers in C order."""
    p = mixture("full", K=3, D=4)
    X = p.sample(70, random_state=0)[0].astype(dtype)
    held = InMemory(CONTAINERS[container](X, tmp_path))
    ours, theirs = held.sweep(p.factors), InMemory(X.astype(held.X.dtype)).sweep(p.factors)  # Python's numbers become float64
    for name in ("mass", "first", "second", "log_likelihood", "weight"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def arguments():
    """What a sweep of four rows in one feature takes, all of it right."""
    return {
        "X": np.ones((4, 1)),
        "weights": np.ones(4),
        "means": np.zeros((2, 1)),
        "P": np.ones((2, 1)),
        "log_constant": np.zeros(2),
        "origin": np.zeros((2, 1)),
        "hard": False,
        "mass": np.zeros(2),
        "first": np.zeros((2, 1)),
        "second": np.zeros((2, 1)),
    }


WRONG = [
    ("X", lambda: np.ones((4, 1), np.int64)),
    ("X", lambda: np.ones((4, 1), np.float16)),
    ("X", lambda: np.ones((4, 1), np.complex128)),
    ("X", lambda: np.ones((4, 1), np.dtype(np.float64).newbyteorder())),
    ("X", lambda: np.ones(4)),
    ("X", lambda: np.ones((4, 1, 1))),
    ("X", lambda: unaligned(np.ones((4, 1)), None)),
    ("X", lambda: np.ones((4, 2))),  # the mixture has one feature
    ("X", lambda: [[1.0]] * 4),
    ("weights", lambda: np.ones(3)),
    ("weights", lambda: np.ones(4, np.float32)),
    ("weights", lambda: np.ones(8)[::2]),
    ("means", lambda: np.zeros((2, 1), np.float32)),
    ("means", lambda: np.zeros((2, 2))),
    ("means", lambda: np.zeros((2, 1), np.dtype(np.float64).newbyteorder())),
    ("P", lambda: np.ones((2, 1), np.float32)),
    ("P", lambda: np.ones((3, 1))),
    ("log_constant", lambda: np.zeros(3)),
    ("origin", lambda: np.zeros((3, 1))),
    ("mass", lambda: np.zeros(2, np.float32)),
    ("mass", lambda: np.zeros(1)),
    ("mass", lambda: read_only(np.zeros(2))),
    ("first", lambda: np.zeros((4, 1))[::2]),
    ("second", lambda: np.zeros((2, 1, 2))),
]


@pytest.mark.parametrize(("name", "make"), WRONG)
def test_an_array_that_a_kernel_cannot_walk_is_refused(compiled, name, make):
    """TypeError, and nothing read or written beside the arrays that were given."""
    given = {**arguments(), name: make()}
    with pytest.raises(TypeError):
        compiled.sweep(**given)
    assert not any(given[name].any() for name in ("mass", "first", "second"))


WRONG_OUTPUTS = [
    ("log_density", lambda: np.empty(3)),
    ("log_density", lambda: np.empty(4, np.float32)),
    ("labels", lambda: np.empty(4, np.int32)),
    ("labels", lambda: np.empty(8, np.int64)[::2]),
    ("responsibilities", lambda: np.empty((4, 3))),
    ("responsibilities", lambda: np.empty((4, 2), order="F")),
]


@pytest.mark.parametrize(("name", "make"), WRONG_OUTPUTS)
def test_an_output_of_the_wrong_kind_is_refused(compiled, name, make):
    """As in `sweep`: TypeError for another shape, dtype or order."""
    given = {key: arguments()[key] for key in ("X", "means", "P", "log_constant")}
    with pytest.raises(TypeError):
        compiled.evaluate(**given, **{name: make()})


NOTHING = """
import numpy as np, emfuse
for name in ("X", "means", "P", "log_constant", "origin", "mass", "first", "second"):
    given = dict(X=np.ones((4, 1)), weights=None, means=np.zeros((2, 1)), P=np.ones((2, 1)), log_constant=np.zeros(2),
                 origin=np.zeros((2, 1)), hard=False, mass=np.zeros(2), first=np.zeros((2, 1)), second=np.zeros((2, 1)))
    print("now", name, flush=True)
    try: emfuse.kernels.load({build!r}).sweep(**(given | {{name: {value}}}))
    except TypeError: print("refused")
"""


@pytest.mark.parametrize("value", ["None", "np.array(1.0)"])
@pytest.mark.parametrize("build", COMPILED)
def test_what_has_no_rows_at_all_is_refused(run, build, value):
    """None and an array without dimensions are a TypeError; asked in a process of its own, which a careless kernel would kill."""
    assert run(NOTHING.format(build=build, value=value)).count("refused") == 8


def test_a_kernel_takes_keywords_only(build):
    """No argument can stand in another's place."""
    with pytest.raises(TypeError):
        kernels.load().sweep(*arguments().values())


# ------------------------------------------------------------------ which build runs


def test_the_reference_runs_everywhere_and_comes_last():
    """runnable() is from the fastest to pure NumPy."""
    assert kernels.runnable()[-1] == "reference"
    assert kernels.load("reference") is reference


def test_a_build_is_either_runnable_or_has_a_reason():
    """No build is in both lists, and none of the table in neither."""
    from emfuse._isas import ISAS

    assert set(kernels.runnable()) - {"reference"} | set(kernels.not_runnable()) == {isa.name for isa in ISAS}
    assert not set(kernels.runnable()) & set(kernels.not_runnable())


def test_use_is_for_a_while_or_from_now_on(build):
    """`with use(name)` goes back, after an error too; `use(name)` stays."""
    assert kernels.active() == build
    with pytest.raises(KeyError), kernels.use("reference") as name:
        assert name == kernels.active() == "reference"
        raise KeyError
    assert kernels.active() == build
    kernels.use("reference")
    assert kernels.active() == "reference"


def test_a_build_that_does_not_run_lists_those_that_do(build):
    """The error names what was asked for and what there is; the build in use stays."""
    with pytest.raises(ValueError, match=r"build 'sse1' does not run here; these do: .*reference"):
        kernels.use("sse1")
    with pytest.raises(ValueError, match=r"build 'sse1' does not run here"):
        kernels.load("sse1")
    assert kernels.active() == build


@pytest.mark.parametrize("name", ["", "reference", kernels.runnable()[0]])
def test_an_environment_variable_chooses_the_build(run, name):
    """EMFUSE_KERNEL is the build to start with; empty is not set."""
    assert run("import emfuse; print(emfuse.kernels.active())", env={"EMFUSE_KERNEL": name}) == (name or kernels.runnable()[0])


def test_an_environment_variable_that_names_no_build_says_so(run):
    """It is the variable that the error names."""
    code = "import emfuse\ntry: emfuse.kernels.active()\nexcept ValueError as error: print(error)"
    answer = run(code, env={"EMFUSE_KERNEL": "sse1"})
    assert answer.startswith("environment variable EMFUSE_KERNEL 'sse1' does not run here; these do:")


BLOCKED = """
import sys, warnings
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked}: raise {error}
sys.meta_path.insert(0, Hide())
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    import emfuse
print(len(caught), *(f"{{w.category.__name__}}: {{w.message}}" for w in caught))
print(emfuse.kernels.runnable(), emfuse.kernels.not_runnable())
fit = emfuse.em([1.0, 2.0, 7.0, 9.0], emfuse.Parameters.univariate([0.5, 0.5], [1, 8], [1, 1]), stop=2)
print(fit.trace.size)
"""
NOT_THERE = "ModuleNotFoundError('gone', name=name)"


def test_without_any_build_it_warns_and_runs(run):
    """One RuntimeWarning that says how slow it is and what to do; then everything works, in NumPy."""
    names = {f"emfuse._sweep_{name}" for name in (*kernels.runnable(), *kernels.not_runnable())}
    warned, builds, steps = run(BLOCKED.format(blocked=names, error=NOT_THERE)).splitlines()
    assert warned.startswith("1 RuntimeWarning: emfuse has no compiled build of its pass here (not built) and runs in pure NumPy")
    assert builds.startswith("['reference']")
    assert steps == "3"


@pytest.mark.skipif(len(COMPILED) < 2, reason="there is no slower compiled build to fall back to here")
@pytest.mark.parametrize(
    ("error", "why"), [(NOT_THERE, "not built"), ("ImportError('bad magic')", "built, but cannot be imported: bad magic")]
)
def test_without_the_fastest_build_it_warns_and_takes_the_next(run, error, why):
    """The warning names the build that runs, the one that is missing and why."""
    warned, builds, steps = run(BLOCKED.format(blocked={f"emfuse._sweep_{COMPILED[0]}"}, error=error)).splitlines()
    words = f"emfuse runs its '{COMPILED[1]}' build because a faster one is missing: {COMPILED[0]}: {why}"
    assert warned.startswith(f"1 RuntimeWarning: {words}")
    assert builds.startswith(f"['{COMPILED[1]}'")
    assert steps == "3"


@pytest.mark.skipif(len(COMPILED) < 2, reason="this CPU runs the baseline alone")
def test_without_the_baseline_nobody_knows_the_cpu(run):
    """It is the baseline that asks the CPU, so without it no wider build runs; but that is no lack of the CPU's."""
    warned, builds, _ = run(BLOCKED.format(blocked={"emfuse._sweep_baseline"}, error=NOT_THERE)).splitlines()
    assert warned.startswith("1 RuntimeWarning: emfuse has no compiled build of its pass here")
    assert builds.startswith("['reference']")
    assert "lacks" not in builds


OLD_CPU = """
import importlib, sys, warnings, emfuse
emfuse._sweep_baseline.cpu = lambda: 0
wider = [name for name in sys.modules if name.startswith("emfuse._sweep_") and name != "emfuse._sweep_baseline"]
for name in wider: del sys.modules[name]
warnings.simplefilter("error")
kernels = importlib.reload(emfuse.kernels)
print(kernels.runnable(), [name for name in wider if name in sys.modules])
print(*kernels.not_runnable().values(), sep=";")
"""


@pytest.mark.skipif(len(COMPILED) < 2, reason="this CPU runs the baseline alone")
def test_a_build_that_the_cpu_cannot_run_is_not_even_imported(run):
    """Where the CPU says that it is an old one, the baseline runs, without a warning; the reasons say what it lacks."""
    builds, reasons = run(OLD_CPU).splitlines()
    assert builds == "['baseline', 'reference'] []"
    assert all(reason.startswith("this CPU lacks ") for reason in reasons.split(";"))


@pytest.mark.skipif(not COMPILED, reason="no compiled build here")
def test_with_every_build_it_says_nothing(run):
    """No warning where nothing is missing."""
    assert run(BLOCKED.format(blocked=set(), error="None")).splitlines()[0] == "0"
