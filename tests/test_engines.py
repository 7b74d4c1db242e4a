"""Rows in memory: sums that add in any cut, evaluations row by row, and errors that name the row."""

import itertools

import numpy as np
import pytest
from scipy import sparse

import emfuse
from emfuse import InMemory, SufficientStatistics, engines, kernels
from emfuse.parameters import Factors

EPS = np.finfo(np.float64).eps
NAMES = ("mass", "first", "second", "log_likelihood", "weight")


def assert_same_bits(a, b):
    for name in NAMES:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def assert_close(a, b, rows):
    """The same sums in another order: `rows` eps of the terms' sizes, which sqrt(second mass) bounds for `first`."""
    tolerance = rows * EPS
    np.testing.assert_allclose(a.mass, b.mass, rtol=tolerance)
    diagonal = np.diagonal(b.second, axis1=1, axis2=2) if b.second.ndim == 3 else b.second
    size = np.sqrt(diagonal * b.mass[:, None])
    assert np.all(np.abs(a.first - b.first) <= tolerance * size)
    products = np.sqrt(diagonal[:, :, None] * diagonal[:, None, :]) if b.second.ndim == 3 else diagonal
    assert np.all(np.abs(a.second - b.second) <= tolerance * products)
    assert a.log_likelihood == pytest.approx(b.log_likelihood, rel=tolerance)
    assert a.weight == pytest.approx(b.weight, rel=tolerance)


@pytest.fixture
def large(mixture):
    """A mixture, and so many rows that they are cut into several groups."""
    p = mixture("full", K=6, D=6, apart=1.0)
    X = p.sample(30_000, random_state=0)[0]
    assert len(engines.cut(len(X), p.factors)) > 4
    return p, np.random.default_rng(1).permutation(X)


# ------------------------------------------------------------------ law 1: sums add


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 33, 99, 100])
def test_two_halves_make_the_whole(build, structure, cut, mixture):
    """sweep(A) + sweep(B) == sweep(A and B): why threads and files need no code of their own."""
    p = mixture(structure, K=3, D=3)
    X = p.sample(100, random_state=0)[0]
    parts = [InMemory(part).sweep(p.factors) for part in (X[:cut], X[cut:]) if len(part)]
    total = SufficientStatistics.zeros(p.means, p.factors.form)
    for part in parts:
        total += part
    assert_close(total, InMemory(X).sweep(p.factors), rows=100)


def test_partitions_may_come_in_any_order(build, structure, mixture):
    """Four parts, forward and backward and shuffled, have the same sum."""
    p = mixture(structure, K=2, D=2)
    X = p.sample(90, random_state=0)[0]
    parts = [InMemory(part).sweep(p.factors) for part in np.array_split(X, 4)]
    whole = InMemory(X).sweep(p.factors)
    for order in itertools.permutations(parts):
        assert_close(order[0] + order[1] + order[2] + order[3], whole, rows=90)


def test_the_groups_cover_every_row_once(mixture):
    """cut() is a partition of the rows, in order, into multiples of 32 (the last takes the rest), at most 256 of them."""
    for N, K, D in itertools.product((1, 31, 32, 33, 5000, 3_000_001), (1, 20), (1, 40)):
        groups = engines.cut(N, mixture("full", K=K, D=D).factors)
        assert groups[0].start == 0
        assert groups[-1].stop == N
        assert all(a.stop == b.start and (a.stop - a.start) % 32 == 0 for a, b in itertools.pairwise(groups))
        assert len(groups) <= engines.MOST_GROUPS


# ------------------------------------------------------------------ law 4: weights


def test_weight_two_is_the_row_twice(build, structure, mixture):
    """Whole weights count rows."""
    p = mixture(structure, K=3, D=2)
    X = p.sample(60, random_state=0)[0]
    v = np.arange(60) % 3
    assert_close(InMemory(X, v).sweep(p.factors), InMemory(np.repeat(X, v, axis=0)).sweep(p.factors), rows=120)


def test_weight_zero_is_the_row_absent(build, structure, mixture):
    """Even of a row so far away that its square overflows."""
    p = mixture(structure, K=3, D=2)
    X = p.sample(60, random_state=0)[0]
    far = np.vstack([X, np.full((1, 2), 1e200)])
    assert_close(InMemory(far, np.r_[np.ones(60), 0.0]).sweep(p.factors), InMemory(X).sweep(p.factors), rows=60)


def test_the_weight_of_an_engine_is_the_sum_of_its_weights():
    """And the number of rows where there are none."""
    X = np.zeros((4, 1))
    assert (InMemory(X).weight, InMemory(X, [0.5, 0.0, 2.0, 1.0]).weight) == (4.0, 3.5)


@pytest.mark.parametrize("kind", [list, np.float32, np.int32, bool, object])
def test_weights_may_be_any_real_numbers(kind, mixture):
    """Lists, integers, booleans, objects that are numbers: the same as in float64."""
    p = mixture("diag", K=2, D=2)
    X, v = p.sample(20, random_state=0)[0], np.arange(20) % 2
    given = v.tolist() if kind is list else v.astype(kind)
    assert_same_bits(InMemory(X, given).sweep(p.factors), InMemory(X, v.astype(float)).sweep(p.factors))


# ------------------------------------------------------------------ rows in, evaluations out


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.dtype(np.float64).newbyteorder()])
def test_rows_in_floats_are_used_as_they_are(dtype):
    """float32 and float64 are not copied where they are native, and never change their precision."""
    X = np.ones((4, 2), dtype)
    made = InMemory(X).X
    assert made.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.shares_memory(made, X) is np.dtype(dtype).isnative


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, bool, np.float16, np.longdouble])
def test_other_numbers_become_doubles(dtype):
    """Whole numbers, booleans and floats of other sizes are converted once."""
    X = np.array([[0, 1], [1, 1]], dtype)
    assert InMemory(X).X.dtype == np.float64
    np.testing.assert_array_equal(InMemory(X).X, [[0.0, 1.0], [1.0, 1.0]])


def test_one_dimension_is_one_feature():
    """(N,) is taken as (N, 1)."""
    assert InMemory([1.0, 2.0, 3.0]).X.shape == (3, 1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rows_dtype", [np.float64, np.float32])
def test_evaluations_come_in_the_dtype_asked_for(build, large, dtype, rows_dtype):
    """In float32 they are the doubles, rounded once; labels are int64 always."""
    p, X = large
    engine = InMemory(X.astype(rows_dtype))
    doubles = engine.evaluate(p.factors, log_density=True, responsibilities=True)
    out = engine.evaluate(p.factors, log_density=True, labels=True, responsibilities=True, dtype=dtype)
    assert (out.log_density.dtype, out.labels.dtype, out.responsibilities.dtype) == (dtype, np.int64, dtype)
    np.testing.assert_array_equal(out.log_density, doubles.log_density.astype(dtype))
    np.testing.assert_array_equal(out.responsibilities, doubles.responsibilities.astype(dtype))


@pytest.mark.parametrize("wanted", ["log_density", "labels", "responsibilities"])
def test_evaluate_gives_what_was_asked_for_and_no_more(wanted, mixture):
    """The rest is None."""
    p = mixture()
    out = engines.evaluate(p.sample(5, random_state=0)[0], p.factors, **{wanted: True})
    assert [name for name in ("log_density", "labels", "responsibilities") if getattr(out, name) is not None] == [wanted]


def test_the_sweep_and_the_rows_agree(build, structure, mixture):
    """The log-likelihood is the sum of the log densities, and the masses those of the responsibilities."""
    p = mixture(structure, K=3, D=3)
    X = p.sample(300, random_state=0)[0]
    rows = InMemory(X).evaluate(p.factors, log_density=True, responsibilities=True)
    s = InMemory(X).sweep(p.factors)
    assert s.log_likelihood == pytest.approx(rows.log_density.sum(), rel=300 * EPS)
    np.testing.assert_allclose(s.mass, rows.responsibilities.sum(axis=0), rtol=300 * EPS)


# ------------------------------------------------------------------ errors, word for word

NAN = np.array([[0.0, 1.0], [2.0, np.nan]])


@pytest.mark.parametrize(
    ("X", "error", "words"),
    [
        (NAN, ValueError, "X must be finite, got nan (NaN or infinity) in row 1, feature 1; drop the row or fill the value in"),
        (-np.inf * np.ones((1, 1)), ValueError, "X must be finite, got -inf (NaN or infinity) in row 0, feature 0"),
        ([[0.0], [None]], ValueError, "X must be finite, got nan (NaN or infinity) in row 1, feature 0"),
        (np.array([["1.5"], [2.0]], object), TypeError, "X must be real numbers, got an array with strings or complex numbers"),
        ([["a"], ["b"]], TypeError, "X must be real numbers, got an array of <U1"),
        ([[1j]], TypeError, "X must be real numbers, got an array of complex128"),
        (np.array([["2020-01-01"]], "M8[D]"), TypeError, "X must be real numbers, got an array of datetime64[D]"),
        (np.array([[{}]]), TypeError, "X must be real numbers, got objects that are not"),
        (sparse.eye(3).tocsr(), TypeError, "X is a sparse matrix, and emfuse needs a dense array: pass X.toarray()"),
        (sparse.eye_array(3).tocoo(), TypeError, "X is a sparse matrix, and emfuse needs a dense array: pass X.toarray()"),
        (np.ma.masked_equal([[1.0], [2.0]], 2.0), ValueError, "X is a masked array with masked values; fill or drop them"),
        (np.empty((0, 2)), ValueError, "X must have at least one row and one feature, got shape (0, 2)"),
        (np.empty((2, 0)), ValueError, "X must have at least one row and one feature, got shape (2, 0)"),
        ([], ValueError, "X must have at least one row and one feature, got shape (0, 1)"),
        (np.zeros((2, 2, 2)), ValueError, "X must be 2-D, rows x features (or 1-D, for one feature), got shape (2, 2, 2)"),
        (3.0, ValueError, "X must be 2-D, rows x features (or 1-D, for one feature), got shape ()"),
        ("data.csv", TypeError, "X must be real numbers, got an array of <U8"),
        (None, ValueError, "X must be 2-D, rows x features (or 1-D, for one feature), got shape ()"),
    ],
)
def test_rows_that_cannot_be_used_say_why(X, error, words):
    """The error names the argument, the value and its place."""
    with pytest.raises(error) as caught:
        InMemory(X)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("row", [0, 131_071, 131_072, 299_999])
def test_a_nan_is_found_in_whichever_row_it_is(row):
    """Rows are looked at in pieces; the place is counted from the first row of all."""
    X = np.zeros((300_000, 2), np.float32)
    X[row, 1] = np.nan
    with pytest.raises(ValueError, match=f"in row {row}, feature 1;"):
        InMemory(X)


def test_large_finite_rows_are_finite():
    """1e308 + 1e308 overflows in the quick look, and is no reason to refuse; nor is 3e38 in float32."""
    InMemory(np.full((4, 2), 1.7e308))
    InMemory(np.full((4, 2), 3.4e38, np.float32))


def test_a_masked_array_without_masked_values_is_an_array():
    """Only what is masked is in the way."""
    assert InMemory(np.ma.array([[1.0], [2.0]])).X.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("v", "error", "words"),
    [
        ([1.0, np.nan, 1.0], ValueError, "sample_weight must be finite and at least 0, got nan for row 1"),
        ([1.0, 1.0, np.inf], ValueError, "sample_weight must be finite and at least 0, got inf for row 2"),
        ([1.0, -2.0, 1.0], ValueError, "sample_weight must be finite and at least 0, got -2.0 for row 1"),
        ([0.0, 0.0, 0.0], ValueError, "sample_weight must be above 0 for some row, but every weight is zero"),
        ([1.0, 1.0], ValueError, "sample_weight must have shape (3,), one number a row of X, got (2,)"),
        ([[1.0], [1.0], [1.0]], ValueError, "sample_weight must have shape (3,), one number a row of X, got (3, 1)"),
        (1.0, ValueError, "sample_weight must have shape (3,), one number a row of X, got ("),
        (["a", "b", "c"], TypeError, "sample_weight must be real numbers, got an array of <U1"),
        ([1j, 1j, 1j], TypeError, "sample_weight must be real numbers, got an array of complex128"),
        ([1.0, None, 1.0], ValueError, "sample_weight must be finite and at least 0, got nan for row 1"),
        ([1.0, {}, 1.0], TypeError, "sample_weight must be real numbers, got objects that are not"),
    ],
)
def test_weights_that_cannot_be_used_say_why(v, error, words):
    """The error names the argument, the value and the row."""
    with pytest.raises(error) as caught:
        InMemory(np.zeros((3, 1)), v)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(("v", "row"), [(1e200, 17), (-1e308, 17), (1e155, 17)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_row_too_far_away_is_named(build, structure, v, row, weighted, mixture):
    """One error, no warning: which row, what is in it, and what to do."""
    p = mixture(structure, K=2, D=2)
    X = p.sample(60, random_state=0)[0]
    X[row, 1] = v
    weight = np.where(np.arange(60) == 3, 0.0, 2.0) if weighted else None
    X[3] = 1e300 if weighted else X[3]  # a farther row that weighs nothing is not the one
    with pytest.raises(ValueError) as caught:
        InMemory(X, weight).sweep(p.factors)
    assert str(caught.value).startswith(f"row {row} of X ({X[row, 0]:.6g}, {v:.6g}) lies so many standard deviations from every")


def test_a_mixture_of_other_features_is_refused(mixture):
    """Both numbers are in the error, of a sweep and of an evaluation."""
    p, engine = mixture(D=3), InMemory(np.zeros((4, 2)))
    for ask in (engine.sweep, engine.evaluate):
        with pytest.raises(ValueError, match="X has 2 features, but the mixture has 3"):
            ask(p.factors)


# ------------------------------------------------------------------ law 9: memory

MEMORY = """
import resource, sys, numpy as np, emfuse
N, K, D = 400_000, 16, 2
X = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
p = emfuse.Parameters(np.full(K, 1 / K), X[:K], np.ones(K), "spherical")
emfuse.em(X[:10_000], p, stop=2, n_threads=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
emfuse.em(X, p, stop=2, n_threads=2)
unit = 1 if sys.platform == "darwin" else 1024
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / (N * K * 8))
"""


@pytest.mark.parametrize("name", kernels.runnable())
def test_nothing_of_rows_times_components_is_ever_stored(run, name):
    """A fit of 400,000 rows and 16 components takes no more than a quarter of one such array, which is 51 MB."""
    pytest.importorskip("resource")
    # the reference keeps a few temporary arrays of 2 MB for each thread; a compiled build 192 KB
    assert float(run(MEMORY, env={"EMFUSE_KERNEL": name})) < 0.25


def test_factors_made_by_hand_can_be_swept():
    """P of zeros leaves out the distance: what `InMemory.moments` rests on."""
    s = InMemory([1.0, 3.0]).sweep(Factors(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1)))
    assert (s.mass[0], s.first[0, 0], s.second[0, 0], s.log_likelihood) == (2.0, 4.0, 10.0, 0.0)


def test_moments_do_not_look_at_a_row_of_weight_0():
    """However far away it is, and wherever."""
    X = np.array([[1e300], [1.0], [3.0]])
    mean, variance = InMemory(X, [0.0, 1.0, 1.0]).moments
    assert (mean[0], variance[0]) == (2.0, 1.0)


def test_row_weights_need_not_be_aligned():
    """A field of packed records is taken as it is."""
    packed = np.zeros(5, dtype=[("a", "i1"), ("w", "f8")])
    packed["w"] = [1, 2, 3, 4, 5]
    X = np.arange(5.0)
    factors = emfuse.Parameters.univariate([1.0], [2.0], [1.0]).factors
    assert InMemory(X, packed["w"]).sweep(factors).weight == 15.0
