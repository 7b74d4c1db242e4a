"""What CONTRIBUTING says can be added is added here from outside, without a change to the package, and works with the rest.

Each addition is the whole of what its row asks for: one class or function, and its entry in a table where there is one.
"""

import numpy as np
import pytest

import emfuse
from emfuse.accelerate import ACCELERATORS, Coordinates, Step
from emfuse.covariance import Variances
from emfuse.initialise import CENTRES
from emfuse.maximise import promised_gain
from emfuse.structures import ALL_STRUCTURES

RATIO = np.array([1.0, 4.0, 0.25])
# Two fits of the same equations in another order differ by some roundings in each of 30 steps; 7e-15 was seen.
ROUNDING = 1e-12


class KnownShape(Variances):
    """Sigma_k = lambda_k diag(RATIO): each component has a size, and the ratio of its features' variances is known."""

    name = "known_shape"

    def estimate(self, scatter, mass, before=None):
        return ((scatter / RATIO).mean(axis=1) / mass)[:, None] * RATIO

    def free_parameters(self, K, D):
        return K


class Halves:
    """A data source: rows in two places. A half that is swept alone adds up with the other."""

    def __init__(self, *parts):
        self.parts = [emfuse.InMemory(part) for part in parts]
        self.n_features = self.parts[0].n_features
        self.weight = sum(part.weight for part in self.parts)

    def sweep(self, factors, *, origin=None, hard=False):
        first, second = (part.sweep(factors, origin=origin, hard=hard) for part in self.parts)
        return first + second


class Farther:
    """An acceleration: nearly twice as far as EM goes."""

    def __init__(self, weight, warm_up, *, portable=False):
        self.weight = weight

    def step(self, here, image, gained):
        coordinates = Coordinates(here)
        promised = promised_gain(here, image, self.weight)
        return Step(coordinates.unpack(1.8 * coordinates.pack(image)), promised, promised)

    def refuse(self):
        pass

    def state(self):
        return {}

    def restore(self, state):
        pass


def first_rows(engine, K, random):
    """A start: the centres are the first rows."""
    return engine.X[:K].astype(np.float64)


def moved_no_mean(trace):
    """A stopping rule."""
    old, new = trace.previous, trace.parameters
    if old is None or np.abs(new.means - old.means).max() > 1e-4:
        return None
    return "no mean moved by 1e-4"


@pytest.fixture
def X():
    """Two overlapping clusters in three features, whose variances are near RATIO."""
    random = np.random.default_rng(0)
    return np.sqrt(RATIO) * np.concatenate([random.normal(0.0, 1.0, (300, 3)), random.normal(2.0, 1.5, (200, 3))])


@pytest.fixture
def known_shape(monkeypatch):
    """The name of the structure, which has its entry while the test runs."""
    monkeypatch.setitem(ALL_STRUCTURES, KnownShape.name, KnownShape())
    return KnownShape.name


def halved(X, structure):
    """Parameters of the rows cut in two by their first feature."""
    return emfuse.from_labels(X, X[:, 0] > X[:, 0].mean(), structure)


def test_a_structure_of_ones_own_is_spheres_in_other_units(known_shape, X):
    """Dividing each feature by the root of its ratio makes the components spheres; the Jacobian is the whole difference."""
    own = emfuse.em(X, halved(X, known_shape), stop=30)
    unit = X / np.sqrt(RATIO)
    spheres = emfuse.em(unit, halved(unit, "spherical"), stop=30)
    np.testing.assert_allclose(own.parameters.means, spheres.parameters.means * np.sqrt(RATIO), rtol=ROUNDING)
    np.testing.assert_allclose(own.parameters.covariances[:, 0], spheres.parameters.covariances, rtol=ROUNDING)
    jacobian = -0.5 * len(X) * np.log(RATIO).sum()
    np.testing.assert_allclose(own.trace, spheres.trace + jacobian, rtol=ROUNDING)
    assert own.bic - spheres.bic == pytest.approx(-2.0 * jacobian, rel=1e-8)  # a difference of BICs: two digits fewer


def test_all_else_takes_the_new_structure(known_shape, X, tmp_path):
    """`fit` with its starts and acceleration, `select`, files, errors and the distribution know it by its name."""
    fit = emfuse.fit(X, 2, structure=known_shape, n_init=2)
    assert fit.converged
    assert fit.free_parameters == 1 + 6 + 2
    assert (np.diff(fit.trace) > -1e-13 * abs(fit.log_likelihood)).all()
    np.testing.assert_allclose(fit.parameters.covariances / fit.parameters.covariances[:, :1], np.tile(RATIO, (2, 1)), rtol=1e-12)
    fit.parameters.save(tmp_path / "own.json")
    assert emfuse.Parameters.load(tmp_path / "own.json") == fit.parameters
    assert fit.mixture.logpdf(X).sum() == pytest.approx(fit.log_likelihood, rel=1e-12)
    found = emfuse.select(X, (1, 2), structures=(known_shape, "diag", "full"))
    assert (found.structure, found.K) == (known_shape, 2)
    with pytest.raises(ValueError, match="'known_shape'"):
        emfuse.fit(X, 2, structure="of_known_shape")


def test_a_data_source_of_ones_own_gives_the_fit_of_all_rows(X):
    """sweep(A) + sweep(B) == sweep(A and B together), for as many sweeps as a fit takes."""
    start = halved(X, "full")
    whole = emfuse.em(X, start, stop=30)
    parts = emfuse.em(Halves(X[:123], X[123:]), start, stop=30)
    np.testing.assert_allclose(parts.trace, whole.trace, rtol=ROUNDING)
    np.testing.assert_allclose(parts.parameters.means, whole.parameters.means, rtol=ROUNDING)


def test_a_start_of_ones_own_has_a_name_in_fit(monkeypatch, X):
    """Its entry in CENTRES is all that it takes; the clusters are those of the rows nearest to each centre."""
    monkeypatch.setitem(CENTRES, "first_rows", first_rows)
    fit = emfuse.fit(X, 3, init="first_rows", stop=0)
    unit = X / X.std(axis=0)  # a start counts in standard deviations
    nearest = np.square(unit[:, None] - unit[:3]).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(fit.parameters.means, [X[nearest == k].mean(axis=0) for k in range(3)], rtol=1e-12)


def test_an_acceleration_of_ones_own_reaches_the_same_maximum_sooner(monkeypatch, X):
    """A trial is kept only where it gains what it was asked, so that any step is a safe one."""
    monkeypatch.setitem(ACCELERATORS, "farther", Farther)
    plain, own = (emfuse.em(X, halved(X, "full"), acceleration=name) for name in (None, "farther"))
    assert own.sweeps < plain.sweeps
    assert (np.diff(own.trace) > -1e-13 * abs(own.log_likelihood)).all()
    # both stop where a sweep gains less than 1e-8 nats a row, 5e-6 in all, and EM's gains fall by a fifth: 2.5e-5 is left
    assert own.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-4)


def test_a_stopping_rule_of_ones_own_says_why(X):
    """Any callable that takes the trace is one; what it says is the fit's reason, and counts as convergence."""
    fit = emfuse.em(X, halved(X, "full"), stop=moved_no_mean, history=True)
    assert fit.converged
    assert fit.reason == "no mean moved by 1e-4"
    last, before, earlier = (progress.parameters.means for progress in fit.history[:-4:-1])
    assert np.abs(last - before).max() <= 1e-4 < np.abs(before - earlier).max()
