"""EM on a stream: as near to the maximum as theory says, whatever the offset; a change is followed; no batch is kept."""

import pickle
import weakref

import numpy as np
import pytest

import emfuse
from emfuse import CollapsedComponent, Constraints, InMemory, OnlineEM, Parameters, em

EPS = np.finfo(np.float64).eps
FIELDS = ("mass", "first", "second", "log_likelihood", "weight")


def assert_same(a, b, rows):
    """The same sums in another order: `rows` eps of the terms' sizes, which sqrt(mass second) bounds for `first`."""
    sizes = {name: np.abs(getattr(b, name)).max() for name in FIELDS}
    sizes["first"] = np.sqrt(sizes["mass"] * sizes["second"])
    for name in FIELDS:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=rows * EPS * sizes[name], err_msg=name)


def stream(batches=200, rows=200, seed=0):
    """Batches of three clusters of the plane, four standard deviations and more apart; and a start that two hundred rows make."""
    random = np.random.default_rng(seed)
    means = 4.0 * np.arange(3)[:, None] * [1.0, -0.5]
    X = means[random.integers(3, size=batches * rows)] + random.standard_normal((batches * rows, 2))
    start = emfuse.initialise.start(InMemory(X[:200]), 3, "full", "kmeans", random)
    return X.reshape(batches, rows, 2), start


def left(X, parameters):
    """How far a mixture is below the maximum of rows, nats a row; and the number of its free parameters."""
    top = emfuse.em(X, parameters, stop=emfuse.stopping.AT_MAXIMUM, acceleration="emqn")
    return (top.log_likelihood - InMemory(X).sweep(parameters.factors).log_likelihood) / len(X), top.free_parameters


# ------------------------------------------------------------------ what is exact


@pytest.mark.parametrize("weighted", [False, True])
def test_sweeps_of_batches_add_up_to_the_sweep_of_all(structure, weighted, mixture):
    """Under the same parameters statistics are exact, whatever the batches: a stream can be watched without keeping any of it."""
    p = mixture(structure, K=3, D=3)
    X = p.sample(1_000, random_state=0)[0]
    v = np.random.default_rng(1).uniform(0.0, 2.0, 1_000) if weighted else None
    total = emfuse.SufficientStatistics.zeros(p.means, p.factors.form)
    for rows in (slice(0, 1), slice(1, 400), slice(400, 1_000)):
        total += InMemory(X[rows], None if v is None else v[rows]).sweep(p.factors)
    assert_same(total, InMemory(X, v).sweep(p.factors), rows=1_000)


def test_scaled_statistics_are_those_of_scaled_weights(structure, mixture):
    """Every row weighs a quarter: to the last bit, as it is a power of two."""
    p = mixture(structure)
    X = p.sample(50, random_state=0)[0]
    for name in FIELDS:
        scaled, weighed = InMemory(X).sweep(p.factors).scaled(0.25), InMemory(X, np.full(50, 0.25)).sweep(p.factors)
        np.testing.assert_array_equal(getattr(scaled, name), getattr(weighed, name), err_msg=name)


def test_the_first_batch_is_a_step_of_em(structure, mixture):
    """There is nothing to average with yet: the M step of its sums, but for the rounding of dividing them by the weight."""
    p = mixture(structure)
    X = p.sample(300, random_state=0)[0]
    once, step = OnlineEM(p).add(X), em(X, p, stop=1).parameters
    for name in ("weights", "means", "covariances"):
        made, expected = getattr(once.parameters, name), getattr(step, name)
        np.testing.assert_allclose(made, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    assert once.log_likelihood == pytest.approx(InMemory(X).sweep(p.factors).log_likelihood / 300, rel=4 * EPS)


def test_kappa_one_weighs_every_row_alike(mixture):
    """Batches of 30, 500 and 70 rows, one of them with weights: the statistics are a plain mean of what each row said."""
    p = mixture("full")
    X = p.sample(600, random_state=0)[0]
    v = np.random.default_rng(0).uniform(0.5, 2.0, 500)
    model, said = OnlineEM(p, kappa=1.0, least_rows=0), []
    for rows, weights in ((X[:30], None), (X[30:530], v), (X[530:], None)):
        said.append(InMemory(rows, weights).sweep(model.parameters.factors))
        model.add(rows, weights)
    mean = said[0].about(model.statistics.origin)
    for other in said[1:]:
        mean += other.about(model.statistics.origin)
    assert_same(model.statistics, mean.scaled(1.0 / mean.weight), rows=600)
    assert (model.n_rows, model.n_batches, model.weight) == (600, 3, 100.0 + v.sum())


def test_the_size_of_a_step_is_what_is_said(mixture):
    """(t + t0)^-kappa with t the weight so far over the batch's; or one size for all: seen in the running log-likelihood."""
    p = mixture("diag")
    X = p.sample(400, random_state=0)[0]
    for how, gamma in (({"kappa": 0.7, "t0": 3.0}, (4.0 + 3.0) ** -0.7), ({"step": 0.3}, 0.3)):
        model = OnlineEM(p, **how).add(X[:300])
        before = model.log_likelihood
        now = InMemory(X[300:]).sweep(model.parameters.factors).log_likelihood / 100.0
        assert model.add(X[300:]).log_likelihood == pytest.approx(before + gamma * (now - before), rel=1e-14)


def test_what_was_fitted_before_counts(mixture):
    """Begun with the statistics of a fit, its rows have been seen: at kappa 1 the weights are those of all rows, by hand."""
    p = mixture("tied")
    X = p.sample(1_000, random_state=0)[0]
    made = em(X[:900], p, stop=3)
    model = OnlineEM(made.parameters, kappa=1.0, statistics=made.statistics).add(X[900:])
    batch = InMemory(X[900:]).sweep(made.parameters.factors)
    np.testing.assert_allclose(model.parameters.weights, (made.statistics.mass + batch.mass) / 1_000.0, rtol=1e-12)
    assert (model.weight, model.n_rows, model.n_batches) == (1_000.0, 100, 1)


# ------------------------------------------------------------------ what is not, and how near it comes


def theory(gamma, p, rows):
    """What is left on average once it goes in circles about the maximum, nats a row, at most; and five standard deviations more.

    In coordinates where the complete-data information is 1, its noise has covariance gamma / (2 rows), so that what is left is
    gamma / (4 rows) times a sum of p squares of normals, each times its share of the information, 1 at most.
    """
    return gamma * p / (4.0 * rows) * (1.0 + 5.0 * np.sqrt(2.0 / p))


@pytest.mark.parametrize("seed", range(3))
def test_a_stationary_stream_comes_as_near_to_the_maximum_as_theory_says(seed):
    """200 batches of 200 rows, seen once: within what the last step's size makes of noise; the start was not near."""
    batches, start = stream(seed=seed)
    X = batches.reshape(-1, 2)
    model = OnlineEM(start)
    for batch in batches:
        model.add(batch)
    missing, p = left(X, model.parameters)
    bound = theory(200.0**-0.6, p, rows=200)
    assert 0.0 <= missing < bound < 0.5 * left(X, start)[0]
    # log densities have a standard deviation of about 1, half that of a chi-square in 2 features; of 2 / gamma batches, 5 of it
    truth = InMemory(X).sweep(model.parameters.factors).log_likelihood / len(X)
    assert model.log_likelihood == pytest.approx(truth, abs=5.0 / np.sqrt(2.0 * 200.0**0.6 * 200))


@pytest.mark.parametrize("name", emfuse.structures.ALL_STRUCTURES)
def test_every_structure_follows_a_stream(name):
    """Those that are found by iteration too: as near to their own maximum as theory says."""
    batches, _ = stream(batches=60)
    X = batches.reshape(-1, 2)
    start = emfuse.initialise.start(InMemory(X[:60]), 3, name, "kmeans", np.random.default_rng(0))
    model = OnlineEM(start)
    for batch in batches:
        model.add(batch)
    assert model.parameters.structure == start.structure
    missing, p = left(X, model.parameters)
    assert missing < theory(60.0**-0.6, p, rows=200) < 0.5 * left(X, start)[0]


def test_a_change_is_followed_by_steps_of_one_size():
    """All clusters move by three standard deviations: 60 batches on, even steps are at the new maximum, falling ones not."""
    batches, start = stream(batches=160)
    batches[100:] += [3.0, 3.0]
    models = {"even": OnlineEM(start, step=0.1), "falling": OnlineEM(start, kappa=0.9)}
    for model in models.values():
        for batch in batches:
            model.add(batch)
    X = batches[100:].reshape(-1, 2)
    missing = {name: left(X, model.parameters)[0] for name, model in models.items()}
    assert missing["even"] < theory(0.1, 17, rows=200) < 0.1 * missing["falling"]


@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical"])
def test_an_offset_moves_the_means_alone(name):
    """x + 1e8: the same covariances, as far as a double can hold means: an eps of 1e8 at each of 100 batches, 4 for squares."""
    batches, _ = stream(batches=100, rows=50)
    batches = np.round(batches * 2.0**25) / 2.0**25  # so few digits that x + 1e8 is exact
    start = emfuse.initialise.start(InMemory(batches[0]), 3, name, "kmeans", np.random.default_rng(0))
    here = OnlineEM(start)
    there = OnlineEM(Parameters(start.weights, start.means + 1e8, start.covariances, name))
    for batch in batches:
        here.add(batch)
        there.add(batch + 1e8)
    tolerance = 4.0 * 100 * EPS * 1e8
    np.testing.assert_allclose(there.parameters.means - 1e8, here.parameters.means, atol=tolerance)
    np.testing.assert_allclose(there.parameters.covariances, here.parameters.covariances, atol=tolerance)


# ------------------------------------------------------------------ the contract


def test_a_stream_is_read_once_and_nothing_of_it_is_kept():
    """A generator will do; each batch is let go before the next is asked for."""
    batches, start = stream(batches=20)
    alive = []

    def once():
        for batch in batches:
            rows = batch.copy()
            alive.append(weakref.ref(rows))
            yield rows
            del rows

    model = OnlineEM(start)
    for rows in once():
        model.add(rows)
        del rows
        assert alive[-1]() is None or len(alive) == 1 or alive[-2]() is None
    assert (len(alive), model.n_batches) == (20, 20)
    listed = OnlineEM(start)
    for batch in batches:
        listed.add(batch)
    assert listed.parameters == model.parameters


def test_no_m_step_before_there_are_enough_rows():
    """Until then rows are seen under the start, and count alike."""
    batches, start = stream(rows=5)
    model = OnlineEM(start, least_rows=18)
    for batch in batches[:3]:
        assert model.add(batch).parameters is start
    assert_same(model.statistics, InMemory(batches[:3].reshape(-1, 2)).sweep(start.factors).scaled(1 / 15), rows=15)
    assert model.add(batches[3]).parameters is not start
    assert OnlineEM(start).least_rows == 2 * 3 * (2 + 1)


def test_weight_two_is_the_row_twice():
    """And a row of weight 0 is absent."""
    batches, start = stream(batches=10, rows=60)
    v = np.arange(60) % 3
    weighted, repeated = OnlineEM(start), OnlineEM(start)
    for batch in batches:
        weighted.add(batch, v)
        repeated.add(np.repeat(batch, v, axis=0))
    np.testing.assert_allclose(weighted.parameters.means, repeated.parameters.means, rtol=1e-11)  # 10 batches of 60 terms
    assert weighted.weight == repeated.weight == 10 * v.sum()


def test_the_same_bits_for_any_number_of_threads():
    """Batches large enough to be shared."""
    X, start = np.random.default_rng(0).normal(size=(3, 30_000, 2)), stream()[1]
    models = [OnlineEM(start, n_threads=n) for n in (1, 3)]
    for model in models:
        for batch in X:
            model.add(batch)
    assert models[0].parameters == models[1].parameters


def test_constraints_hold():
    """What is fixed stays, what goes together goes together."""
    batches, start = stream(batches=20)
    model = OnlineEM(start, constraints=Constraints(means=[[0.0, 0.0], None, None], covariances=["a", "a", "a"]))
    for batch in batches:
        model.add(batch)
    np.testing.assert_array_equal(model.parameters.means[0], 0.0)
    np.testing.assert_array_equal(model.parameters.covariances[0], model.parameters.covariances[2])


def test_reg_covar_is_added_to_every_variance():
    """Also where a batch has no spread at all."""
    model = OnlineEM(Parameters.univariate([0.5, 0.5], [0.0, 1.0], [1.0, 1.0]), step=1.0, reg_covar=0.25, least_rows=0)
    assert model.add([3.0, 3.0]).parameters.variances == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        ([[np.nan, 1.0]], ValueError, "X must be finite, got nan"),
        ([[1.0, 2.0, 3.0]], ValueError, "X has 3 features, but the mixture has 2"),
        (np.empty((0, 2)), ValueError, "X must have at least one row"),
        (np.ones((50, 2)), CollapsedComponent, "has collapsed"),
    ],
)
def test_a_batch_that_cannot_be_used_leaves_everything_as_it_was(batch, error, words):
    """The next batch goes on as if it had not come."""
    batches, start = stream(batches=3)
    model, other = OnlineEM(start, step=1.0), OnlineEM(start, step=1.0)
    model.add(batches[0])
    with pytest.raises(error, match=words):
        model.add(batch)
    model.add(batches[1])
    other.add(batches[0]).add(batches[1])
    assert model.parameters == other.parameters
    assert (model.n_rows, model.n_batches, model.weight) == (400, 2, 400.0)


def test_it_pickles():
    """And goes on: the same but for rounding, since factors are made again."""
    batches, start = stream(batches=3)
    model = OnlineEM(start).add(batches[0]).add(batches[1])
    again = pickle.loads(pickle.dumps(model)).add(batches[2])
    np.testing.assert_allclose(again.parameters.means, model.add(batches[2]).parameters.means, rtol=1e-12)
    assert again.n_rows == 600


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"start": 3}, TypeError, "start must be emfuse.Parameters, got int; `emfuse.fit` finds one from some rows"),
        ({"kappa": 0.5}, ValueError, "kappa must be above 0.5 and at most 1, got 0.5"),
        ({"kappa": 1.5}, ValueError, "kappa must be above 0.5 and at most 1, got 1.5"),
        ({"t0": -1.0}, ValueError, "t0 must be finite and at least 0, got -1.0"),
        ({"step": 0.0}, ValueError, "step must be above 0 and at most 1, or None, got 0.0"),
        ({"reg_covar": np.nan}, ValueError, "reg_covar must be finite and at least 0, got nan"),
        ({"least_rows": -1}, ValueError, "least_rows must be finite and at least 0, got -1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, error, words):
    """The error names the argument and its value."""
    with pytest.raises(error) as caught:
        OnlineEM(**{"start": Parameters.univariate([1.0], [0.0], [1.0]), **arguments})
    assert str(caught.value) == words
