"""A mixture is checked once, frozen, saved to the last bit, and drawn from."""

import copy
import json
import math
import pickle

import numpy as np
import pytest

from emfuse import NotPositiveDefinite, Parameters
from emfuse.parameters import Factors

EPS = np.finfo(np.float64).eps
HALF = [0.5, 0.5]
EYES = [np.eye(2), np.eye(2)]


def bits(p):
    return [array.tobytes() for array in (p.weights, p.means, p.covariances)]


# ------------------------------------------------------------------ literal


def test_the_constant_of_a_component_by_hand():
    """c = log w - (D / 2) log 2 pi - log det C / 2: for w = 1/2, D = 2, variances 4 and 9 that is log(1/2) - log 2 pi - log 6."""
    factors = Parameters(HALF, [[0, 0], [1, 1]], [[4.0, 9.0], [1.0, 1.0]], "diag").factors
    np.testing.assert_allclose(factors.log_constant, np.log([0.5 / 6.0, 0.5]) - np.log(2 * np.pi), rtol=4 * EPS)
    np.testing.assert_array_equal(factors.P, [[0.5, 1 / 3], [1.0, 1.0]])
    assert factors.form == "diag"


@pytest.mark.parametrize(
    ("structure", "covariances", "count"),
    [
        ("full", EYES, 1 + 4 + 6),
        ("tied", np.eye(2), 1 + 4 + 3),
        ("diag", np.ones((2, 2)), 1 + 4 + 4),
        ("spherical", np.ones(2), 1 + 4 + 2),
    ],
)
def test_free_parameters_by_hand(structure, covariances, count):
    """K - 1 weights, K D means, and those of the structure: for K = D = 2."""
    assert Parameters(HALF, [[0, 0], [1, 1]], covariances, structure).free_parameters == count


@pytest.mark.parametrize(
    ("structure", "sds", "covariances"),
    [
        ("full", [2, 3], [[[4.0]], [[9.0]]]),
        ("V", [2, 3], [[[4.0]], [[9.0]]]),
        ("diag", [2, 3], [[4.0], [9.0]]),
        ("spherical", [2, 3], [4.0, 9.0]),
        ("tied", 2, [[4.0]]),
        ("E", [2, 2], [[4.0]]),
    ],
)
def test_one_dimension_from_standard_deviations(structure, sds, covariances):
    """`univariate` squares them into the structure's own shape, and `sds` gives them back."""
    p = Parameters.univariate(HALF, [10, 20], sds, structure)
    np.testing.assert_array_equal(p.covariances, covariances)
    np.testing.assert_array_equal(p.sds[:, 0], np.broadcast_to(sds, 2))
    np.testing.assert_array_equal(p.means, [[10.0], [20.0]])


def test_it_prints_as_a_table():
    """Weight, mean and standard deviation of each component, in words."""
    text = repr(Parameters.univariate([0.25, 0.75], [10, 20], [2, 3]))
    assert text == (
        "Parameters: 2 components, 1 feature, structure 'full'\n"
        "  0: weight 0.2500, mean ± sd 10 ± 2\n"
        "  1: weight 0.7500, mean ± sd 20 ± 3"
    )


# ------------------------------------------------------------------ errors, word for word


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([0.5, 0.6], [[0], [1]], [1, 1], "spherical"), ValueError, "weights must sum to 1, got a sum of 1.1; divide them by it"),
        (([1.5, -0.5], [[0], [1]], [1, 1], "spherical"), ValueError, "weights must be at least 0, got weights[1] = -0.5"),
        (
            ([[0.5, 0.5]], [[0], [1]], [1, 1], "spherical"),
            ValueError,
            "weights must have shape (K,) with K at least 1, got (1, 2)",
        ),
        (([], [], [], "spherical"), ValueError, "weights must have shape (K,) with K at least 1, got (0,)"),
        (
            (HALF, [[0], [1], [2]], [1, 1], "spherical"),
            ValueError,
            "means must have shape (K, D) with K = 2 as in weights, got (3, 1)",
        ),
        (
            (HALF, np.zeros((2, 0)), [1, 1], "spherical"),
            ValueError,
            "means must have shape (K, D) with K = 2 as in weights, got (2, 0)",
        ),
        ((HALF, [[0], [math.nan]], [1, 1], "spherical"), ValueError, "means must be finite, got nan at [1, 0]"),
        ((HALF, [[0], [1]], [1, math.inf], "spherical"), ValueError, "covariances must be finite, got inf at [1]"),
        ((["a", "b"], [[0], [1]], [1, 1], "spherical"), TypeError, "weights must be real numbers, got an array of <U1"),
        ((HALF, [[0], [1j]], [1, 1], "spherical"), TypeError, "means must be real numbers, got an array of complex128"),
        (
            (HALF, [[0, 0], [1, 1]], np.eye(2), "full"),
            ValueError,
            "covariances must have shape (2, 2, 2) for structure 'full', got (2, 2)",
        ),
        (
            (HALF, [[0, 0], [1, 1]], EYES, "tied"),
            ValueError,
            "covariances must have shape (2, 2) for structure 'tied', got (2, 2, 2)",
        ),
        (
            (HALF, [[0, 0], [1, 1]], [1, 1], "diag"),
            ValueError,
            "covariances must have shape (2, 2) for structure 'diag', got (2,)",
        ),
        (
            ([1.0], [[0, 0]], [[[2.0, 0.5], [0.25, 2.0]]], "full"),
            ValueError,
            "covariances must be symmetric, got 0.5 at [0, 0, 1] and 0.25 at [0, 1, 0]",
        ),
        (
            (HALF, [[0], [1]], [1, 0], "spherical"),
            NotPositiveDefinite,
            "the covariance of component 1 is not positive definite: feature 0 has variance 0 given the features before it, "
            "and must have more than 0",
        ),
    ],
)
def test_a_mixture_that_cannot_be_says_why(arguments, error, words):
    """Errors name the argument, the value and its place."""
    with pytest.raises(error) as caught:
        Parameters(*arguments)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("sds", "structure", "words"),
    [
        ([1.0, 0.0], "V", "sds must lie between 1e-150 and 1e150, got 0 to 1"),
        ([1.0, -1.0], "V", "sds must lie between 1e-150 and 1e150, got -1 to 1"),
        ([1.0, 1e160], "V", "sds must lie between 1e-150 and 1e150, got 1 to 1e"),
        ([1.0, 2.0], "E", "sds must be one number, or 2 equal ones, for structure 'E', got"),
        ([1.0, 2.0, 3.0], "V", "sds must have shape (2,) as weights have, got (3,)"),
        ([1.0, math.nan], "V", "sds must be finite, got nan at [1]"),
    ],
)
def test_standard_deviations_that_cannot_be_say_why(sds, structure, words):
    """Errors speak of `sds`, which is what the caller gave."""
    with pytest.raises(ValueError) as caught:
        Parameters.univariate(HALF, [0, 1], sds, structure)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("sd", [1e-150, 1e150])
def test_the_ends_of_the_stated_range_are_in_it(sd):
    """Standard deviations from 1e-150 to 1e150, both included."""
    assert Parameters.univariate([1.0], [0.0], [sd]).sds[0, 0] == pytest.approx(sd, rel=EPS)


def test_a_weight_of_zero_is_allowed():
    """A component without weight has density 0: its constant is -inf, without a warning."""
    assert Parameters([1.0, 0.0], [[0.0], [1.0]], [1.0, 1.0], "spherical").factors.log_constant[1] == -np.inf


# ------------------------------------------------------------------ law


def test_means_of_one_number_each_are_one_feature():
    """(K,) is taken as (K, 1)."""
    assert Parameters(HALF, [0.0, 1.0], [1.0, 1.0], "spherical").means.shape == (2, 1)


def test_it_is_frozen(mixture):
    """Neither an attribute nor a number in an array can be set."""
    p = mixture()
    with pytest.raises(AttributeError, match="frozen"):
        p.weights = [1.0]
    with pytest.raises(ValueError, match="read-only"):
        p.means[0, 0] = 0.0


def test_the_callers_arrays_stay_the_callers():
    """The mixture holds copies: the caller's array is not locked, and what is written to it is not seen."""
    mine = np.array([0.5, 0.5])
    p = Parameters(mine, [0, 1], [1, 1], "spherical")
    mine[0] = 1.0
    assert p.weights[0] == 0.5


def test_matrices_variances_and_sds_agree(structure, mixture):
    """sds^2 = variances = the diagonals of the matrices."""
    p = mixture(structure, K=3, D=4)
    assert p.covariance_matrices.shape == (3, 4, 4)
    np.testing.assert_array_equal(p.variances, np.diagonal(p.covariance_matrices, axis1=1, axis2=2))
    np.testing.assert_array_equal(p.sds, np.sqrt(p.variances))


def test_save_and_load_keep_every_bit(structure, mixture, tmp_path):
    """load(save(p)) == p, down to the last bit."""
    p = mixture(structure, K=4, D=3)
    p.save(tmp_path / "p.json")
    loaded = Parameters.load(str(tmp_path / "p.json"))
    assert bits(loaded) == bits(p)
    assert loaded.structure == p.structure


def test_the_smallest_and_largest_numbers_survive_a_file(tmp_path):
    """Denormals, and numbers that take 17 digits."""
    p = Parameters([0.1 + 0.2, 1.0 - (0.1 + 0.2)], [5e-324, -1.7976931348623157e308], [1e-300, 1.1e300], "spherical")
    p.save(tmp_path / "p.json")
    assert bits(Parameters.load(tmp_path / "p.json")) == bits(p)


@pytest.mark.parametrize(
    "again", [lambda p: pickle.loads(pickle.dumps(p)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"]
)
def test_pickle_and_copy_keep_it_whole(again, structure, mixture):
    """The same bits, still frozen, still able to make its factors."""
    p = mixture(structure)
    made = again(p)
    assert made == p
    assert bits(made) == bits(p)
    assert not made.means.flags.writeable
    assert made.factors.P.tobytes() == p.factors.P.tobytes()


def test_equality_is_of_every_number():
    """Equal where structure and all numbers are; a mixture is no dictionary key, and no mixture equals something else."""
    p = Parameters(HALF, [[0.0], [1.0]], [1.0, 1.0], "spherical")
    assert p == Parameters(HALF, [[0.0], [1.0]], [1.0, 1.0], "spherical")
    assert p != Parameters(HALF, [[0.0], [np.nextafter(1.0, 2.0)]], [1.0, 1.0], "spherical")
    assert p != Parameters(HALF, [[0.0], [1.0]], [[1.0], [1.0]], "diag")
    assert p != "p"
    with pytest.raises(TypeError, match="unhashable"):
        hash(p)


# ------------------------------------------------------------------ files of others

GOOD = {
    "format": "emfuse.Parameters",
    "version": 1,
    "structure": "spherical",
    "weights": [0.5, 0.5],
    "means": [[0.0], [1.0]],
    "covariances": [1.0, 1.0],
}


def test_the_file_of_these_tests_is_good(tmp_path):
    """What the next tests spoil can be read before they do."""
    (tmp_path / "p.json").write_text(json.dumps(GOOD | {"comment": "other keys are left alone"}))
    assert Parameters.load(tmp_path / "p.json").n_components == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "not a saved mixture"),
        ("null", "not a saved mixture"),
        ('"emfuse.Parameters"', "not a saved mixture"),
        (json.dumps(GOOD)[:-2], "Expecting"),
        (json.dumps(GOOD | {"format": "other"}), "not a saved mixture"),
        (json.dumps(GOOD | {"version": 2}), '"version": 2, and this emfuse reads version 1'),
        (json.dumps({key: GOOD[key] for key in ("format", "version", "weights", "means")}), "lacks structure, covariances"),
        (json.dumps(GOOD | {"weights": [0.5, math.nan]}), "weights must be finite, got nan"),
        (json.dumps(GOOD | {"weights": [2.0, -1.0]}), "weights must be at least 0"),
        (json.dumps(GOOD | {"means": [[0.0], [math.inf]]}), "means must be finite, got inf"),
        (json.dumps(GOOD | {"means": [[0.0], [1.0, 2.0]]}), "inhomogeneous"),
        (json.dumps(GOOD | {"means": [[0.0], [10**400]]}), "means must be real numbers"),
        (json.dumps(GOOD | {"means": [["0"], ["1"]]}), "means must be real numbers"),
        (json.dumps(GOOD | {"means": None}), "means must be real numbers"),
        (json.dumps(GOOD | {"covariances": [1.0, -1.0]}), "not positive definite"),
        (json.dumps(GOOD | {"covariances": {"__reduce__": "os.system"}}), "covariances must be real numbers"),
        (json.dumps(GOOD | {"structure": ["full"]}), "structure must be one of"),
        (json.dumps(GOOD | {"structure": "os.system"}), "structure must be one of"),
        (pickle.dumps(GOOD), ""),
        (b"\x00\xff\xfe", ""),
        ("[" * 100_000, ""),
    ],
)
def test_a_file_that_is_no_mixture_raises_one_error_that_names_it(content, words, tmp_path):
    """Whatever is in it: a ValueError with the path and the fault, and nothing of it is run."""
    path = tmp_path / "p.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as caught:
        Parameters.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    """As everywhere in Python."""
    with pytest.raises(FileNotFoundError):
        Parameters.load(tmp_path / "none.json")


# ------------------------------------------------------------------ drawing


def test_a_sample_has_the_moments_of_the_mixture(structure, mixture):
    """Shares, means and covariances of each component's rows, within five standard errors."""
    p = mixture(structure, K=3, D=2)
    N = 60_000
    X, labels = p.sample(N, random_state=1)
    assert X.shape == (N, 2)
    for k in range(3):
        rows = X[labels == k]
        n = len(rows)
        C = p.covariance_matrices[k]
        assert abs(n / N - p.weights[k]) < 5 * np.sqrt(p.weights[k] * (1 - p.weights[k]) / N)
        assert np.all(np.abs(rows.mean(axis=0) - p.means[k]) < 5 * p.sds[k] / np.sqrt(n))
        error = np.sqrt((np.square(C) + np.outer(np.diag(C), np.diag(C))) / n)  # of a covariance, for a Gaussian
        assert np.all(np.abs(np.cov(rows.T) - C) < 5 * error)


@pytest.mark.parametrize("seed", [7, np.random.default_rng, np.random.RandomState], ids=["int", "Generator", "RandomState"])
def test_the_same_seed_draws_the_same_rows(seed, mixture):
    """An int, a Generator and a RandomState all decide every bit."""
    draw = [mixture().sample(50, random_state=seed if isinstance(seed, int) else seed(3))[0].tobytes() for _ in range(2)]
    assert draw[0] == draw[1]


def test_no_seed_draws_differently_each_time(mixture):
    """None is not a seed."""
    assert not np.array_equal(mixture().sample(5)[0], mixture().sample(5)[0])


@pytest.mark.parametrize("n", [0, -1])
def test_at_least_one_row_is_drawn(n, mixture):
    """The words are scikit-learn's, whose users know them."""
    with pytest.raises(ValueError, match=f"Invalid value for 'n_samples': {n}"):
        mixture().sample(n)


def test_factors_of_every_structure_have_its_form(structure, mixture):
    """What a kernel eats is told by the shape of P alone."""
    factors = mixture(structure).factors
    assert isinstance(factors, Factors)
    assert factors.form == structure
