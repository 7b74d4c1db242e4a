"""Components that collapse: found, named, and handled as asked; and the floor under the variances."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import emfuse
from emfuse import CollapsedComponent, CollapseWarning, Parameters, em, fit, stopping
from emfuse.collapse import RESTARTS, Repair
from emfuse.maximise import Floor, maximise, step
from emfuse.statistics import SufficientStatistics


def outlier(N=200, far=40.0, seed=0):
    """Two clusters of rows and, last, one row far from both."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(0.0, 1.0, N), random.normal(6.0, 1.0, N), [far]])


ON_OUTLIER = Parameters.univariate([0.4, 0.4, 0.2], [0.0, 6.0, 40.0], [1.0, 1.0, 0.5])  # the third has one row to live on


def test_raise_names_component_mass_and_feature():
    """The error says which component, how many rows' mass, and which feature."""
    with pytest.raises(CollapsedComponent, match="component 2 has collapsed: 1 rows' worth of data has variance") as caught:
        em(outlier(), ON_OUTLIER)
    assert (caught.value.component, caught.value.feature) == (2, 0)
    assert caught.value.mass == pytest.approx(1.0, abs=1e-6)


def test_drop_goes_on_without_it_and_says_so():
    """One component fewer, the maximum of two components, a warning that names it, and the record in the fit."""
    X = outlier()
    with pytest.warns(CollapseWarning, match="component 2 of 3 collapsed on 1 rows, in feature 0, and was dropped"):
        made = em(X, ON_OUTLIER, on_collapse="drop")
    assert made.parameters.n_components == 2 and made.converged
    assert made.repairs == ("component 2 of 3 collapsed on 1 rows, in feature 0, and was dropped",)
    two = Parameters.univariate([0.5, 0.5], [0.0, 6.0], [1.0, 1.0])
    assert made.log_likelihood == pytest.approx(em(X, two).log_likelihood, rel=1e-7)  # the stop's own tightness
    assert made.free_parameters == 5


def test_restart_puts_it_elsewhere():
    """A component that sat on a single row is used where there are rows."""
    X = outlier()
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        made = em(X[:-1], Parameters.univariate([0.4, 0.4, 0.2], [0.0, 6.0, X[3]], [1.0, 1.0, 1e-6]), on_collapse="restart")
    assert made.parameters.n_components == 3
    assert 1 <= len(made.repairs) <= RESTARTS and all("was started again" in done for done in made.repairs)
    assert made.parameters.sds.min() > 0.01


def test_restart_drops_what_collapses_again(monkeypatch):
    """After so many restarts the component is dropped, with a warning."""
    monkeypatch.setattr("emfuse.collapse._with_another", lambda rest, before, k, random: ON_OUTLIER)
    with pytest.warns(CollapseWarning, match="was dropped"):
        made = em(outlier(), ON_OUTLIER, on_collapse="restart")
    assert len(made.repairs) == RESTARTS + 1 and made.parameters.n_components == 2


def test_floor_keeps_it_and_says_so():
    """The component rests on the floor: a finite answer, its variance the floor's, and a warning that it means nothing."""
    X = outlier()
    with pytest.warns(CollapseWarning, match="component 2 rests on the floor of its variance in feature 0, with 1 rows"):
        made = em(X, ON_OUTLIER, on_collapse="floor", variance_floor=1e-9)
    p = made.parameters
    assert p.n_components == 3
    rows = 1e-9 * len(X)  # the row's own scatter is 0
    assert p.covariances[2, 0, 0] == pytest.approx(rows * X.var() / (1.0 + rows), rel=1e-6)


def test_floor_needs_a_floor():
    """There is nothing to rest on without one."""
    with pytest.raises(ValueError, match="variance_floor must be above 0 for on_collapse='floor', got 0"):
        em(outlier(), ON_OUTLIER, on_collapse="floor")
    with pytest.raises(ValueError, match="on_collapse must be one of 'raise', 'restart', 'drop', 'floor', got 'ignore'"):
        fit(outlier(), 2, on_collapse="ignore")


@pytest.mark.parametrize("name", ["repeated", "constant"])
def test_what_no_repair_can_mend_is_an_error_that_names_the_feature(name):
    """A constant column, or one that repeats another, collapses every component; the error is the first one's."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(0, 1, 100), random.normal(9, 1, 100)])
    X = np.column_stack([x, np.full(200, 7.0) if name == "constant" else x])
    with pytest.raises(CollapsedComponent, match=r"in feature 1.*drop a constant or repeated column"):
        fit(X, 2)


def test_whole_numbers_with_many_ties_are_not_a_success():
    """A component that shrinks onto one value is restarted or dropped, and what comes back has a spread."""
    X = np.random.default_rng(3).poisson(2.0, 400).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = fit(X, 6)
    share = made.parameters.variances / X.var()
    assert made.repairs and share.min() > 1e-10


def test_a_trial_that_collapses_is_refused(monkeypatch):
    """An accelerated step whose M step collapses is undone, and EM's is taken: the fit ends where EM's ends."""
    X = outlier()[:-1]
    two = Parameters.univariate([0.5, 0.5], [0.0, 6.0], [1.0, 1.0])
    doomed = Parameters.univariate([1.0 - 1e-12, 1e-12], [3.0, 6.0], [5.0, 1e-9])
    original = emfuse.accelerate.Emqn.step

    def astray(self, here, image, gained):
        ahead = original(self, here, image, gained)
        return emfuse.accelerate.Step(doomed, ahead.promised, -np.inf)

    monkeypatch.setattr(emfuse.accelerate.Emqn, "step", astray)
    np.testing.assert_array_equal(em(X, two, stop=20, acceleration="emqn").trace, em(X, two, stop=20).trace)


# ------------------------------------------------------------------ the floor


@pytest.mark.parametrize("build_or_numpy", ["build", "numpy"])
def test_the_floor_is_a_scatter_on_the_diagonal(structure, mixture, build_or_numpy, monkeypatch):
    """By hand: covariances are those of the sums with the floor's scatter added to each component's."""
    if build_or_numpy == "numpy":
        monkeypatch.setattr(sys.modules["emfuse.maximise"], "_step_of_build", lambda *_: None)
    p = mixture(structure, K=3, D=3)
    X, _ = p.sample(400, 1)
    s = emfuse.InMemory(X).sweep(p.factors)
    floor = Floor(np.array([5.0, 7.0, 11.0]), rows=30.0, holds=True)
    V, held = np.diag(floor.variances), s.mass + floor.rows
    plain, made = maximise(s, structure), maximise(s, structure, floor=floor)
    by_hand = {
        "full": lambda: (plain.covariances * s.mass[:, None, None] + 30.0 * V) / held[:, None, None],
        "tied": lambda: (plain.covariances * s.mass.sum() + 90.0 * V) / held.sum(),
        "diag": lambda: (plain.covariances * s.mass[:, None] + 30.0 * floor.variances) / held[:, None],
        "spherical": lambda: (plain.covariances * s.mass + 30.0 * floor.variances.mean()) / held,
    }
    np.testing.assert_allclose(made.covariances, by_hand[structure](), rtol=1e-12)
    np.testing.assert_allclose(made.means, plain.means, rtol=1e-15)
    np.testing.assert_allclose(made.weights, plain.weights, rtol=1e-15)
    # sum_k KL(N(0, V) || N(0, C_k)) = (tr(V C^-1) - log det(V C^-1) - D) / 2
    ratios = [V @ np.linalg.inv(C) for C in made.covariance_matrices]
    expected = 30.0 * sum(0.5 * (np.trace(R) - np.log(np.linalg.det(R)) - 3.0) for R in ratios)
    assert floor.penalty(made.factors) == pytest.approx(expected, rel=1e-12)
    of_all = 30.0 * np.array([np.trace(R) for R in ratios])
    rows = np.full(3, held.mean()) if structure == "tied" else held
    np.testing.assert_allclose(floor.shares(made.factors, s.mass).sum(axis=1), of_all / rows, rtol=1e-12)


def test_the_build_and_numpy_find_the_same_collapse(structure):
    """A component whose variance is mostly the floor's has collapsed, in both ways of the M step; one that may rest has not."""
    D, K = 2, 2
    second = {"full": (K, D, D), "tied": (1, D, D), "diag": (K, D), "spherical": (K, 1)}[structure]
    s = SufficientStatistics(np.zeros((K, D)), np.full(K, 10.0), np.zeros((K, D)), np.zeros(second), weight=20.0)
    s.second[:] = 10.0 * np.eye(D) if structure in ("full", "tied") else 10.0
    s.second[-1] *= 1e-9
    floor = Floor(np.ones(D), rows=1e-7)
    with pytest.raises(CollapsedComponent) as caught:
        step(s, emfuse.structures.structure_named(structure), floor=floor)
    assert caught.value.component == (None if structure == "tied" else 1)
    rested, _ = step(s, emfuse.structures.structure_named(structure), floor=Floor(np.ones(D), rows=1e-7, holds=True))
    assert np.isfinite(rested.factors.log_constant).all()


def test_the_penalised_objective_never_falls(structure):
    """With a floor that is felt, EM and its acceleration raise what is traced: log-likelihood less penalty."""
    random = np.random.default_rng(2)
    X = np.concatenate([random.normal(0, 1, (60, 2)), random.normal(3, 1, (60, 2))])
    start = emfuse.initialise.start(emfuse.InMemory(X), 4, structure, "kmeans", np.random.default_rng(0))
    for acceleration in (None, "emqn", "squarem"):
        made = em(X, start, variance_floor=1e-2, acceleration=acceleration, stop=stopping.AT_MAXIMUM)
        assert np.diff(made.trace).min() > -1e-10  # a few eps of 120 rows' log densities
        penalty = Floor(X.var(axis=0), rows=1.2).penalty(made.parameters.factors)
        assert made.trace[-1] == pytest.approx(made.log_likelihood - penalty, abs=1e-10)
    best = em(X, start, variance_floor=1e-2, stop=stopping.first_of(stopping.GainBelow(1e-11), stopping.SweepLimit(20_000)))
    assert made.trace[-1] == pytest.approx(best.trace[-1], abs=1e-5)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-3, 1e6])
@pytest.mark.parametrize("floor", [1e-16, 1e-3])
def test_the_scale_of_the_data_does_not_matter(scale, floor, structure):
    """Data in other units gives the same answer in these units, whatever the floor, and the same number of sweeps."""
    random = np.random.default_rng(5)
    X = np.concatenate([random.normal(0, 1, (150, 2)), random.normal(3, 1, (150, 2))])
    one, other = (fit(each, 3, structure=structure, variance_floor=floor) for each in (X, X * scale))
    np.testing.assert_allclose(other.parameters.means / scale, one.parameters.means, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(other.parameters.covariances / scale**2, one.parameters.covariances, rtol=1e-3, atol=1e-6)
    assert other.log_likelihood == pytest.approx(one.log_likelihood - 600 * np.log(scale), abs=1e-4)


def test_sound_fits_do_not_feel_the_floor():
    """Old Faithful with and without: the same to ten digits."""
    X = np.loadtxt(Path(__file__).parent / "reference" / "data" / "faithful.csv", delimiter=",", skiprows=1)
    one, other = fit(X, 2), fit(X, 2, variance_floor=0.0)
    np.testing.assert_allclose(one.parameters.means, other.parameters.means, rtol=1e-10)
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-9)


def test_repairs_are_the_same_every_time():
    """The same data gives the same answer, repairs included."""
    X = np.random.default_rng(3).poisson(2.0, 400).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = fit(X, 5), fit(X, 5)
    assert one.parameters == other.parameters and one.repairs == other.repairs


def test_a_policy_that_cannot_help_raises():
    """A covariance shared by all, or a component that is alone, has no other to go on with."""
    alone = CollapsedComponent("gone", component=0, mass=1.0, feature=0)
    with pytest.raises(CollapsedComponent, match="gone"):
        Repair("restart").after(alone, Parameters.univariate([1.0], [0.0], [1.0]))
    shared = CollapsedComponent("all gone", component=None, mass=9.0, feature=0)
    with pytest.raises(CollapsedComponent, match="all gone"):
        Repair("drop").after(shared, ON_OUTLIER)
