"""The M step: equations 7 and 8 by hand, from any origin; and what a component that has collapsed says."""

import pickle

import numpy as np
import pytest

import emfuse
from emfuse import CollapsedComponent, InMemory, SufficientStatistics, maximise
from emfuse.decomposed import DECOMPOSED
from emfuse.initialise import statistics_of_labels
from emfuse.maximise import Floor, estimate, step
from emfuse.structures import STRUCTURES

EPS = np.finfo(np.float64).eps


def statistics(mass, first, second, origin=None):
    """Statistics from lists, about 0 where no origin is given."""
    mass, first, second = (np.array(given, dtype=np.float64) for given in (mass, first, second))
    origin = np.zeros_like(first) if origin is None else np.array(origin, dtype=np.float64)
    return SufficientStatistics(origin, mass, first, second, weight=float(mass.sum()))


# ------------------------------------------------------------------ literal


def test_one_feature_by_hand():
    """Rows 1 and 3, and rows 10, 10, 16: means 2 and 12, variances 1 and 8, weights 2/5 and 3/5."""
    p = maximise(statistics([2, 3], [[4], [36]], [[10], [456]]), "diag")
    np.testing.assert_array_equal(p.weights, [0.4, 0.6])
    np.testing.assert_array_equal(p.means, [[2.0], [12.0]])
    np.testing.assert_array_equal(p.covariances, [[1.0], [8.0]])


def test_each_structure_by_hand():
    """Rows (0, 0), (2, 0), (2, 3), (0, 3) and the same moved by 10: mean (1, 1.5), variances 1 and 2.25, no covariance."""
    rows = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 3.0], [0.0, 3.0]])
    first = np.array([rows.sum(axis=0)] * 2)
    squares, products = np.square(rows).sum(axis=0), rows.T @ rows
    origin = [[0.0, 0.0], [10.0, 10.0]]
    diag, full = statistics([4, 4], first, [squares] * 2, origin), statistics([4, 4], first, [products] * 2, origin)
    matrix = np.diag([1.0, 2.25])
    np.testing.assert_array_equal(maximise(full, "full").covariances, [matrix, matrix])
    np.testing.assert_array_equal(maximise(full, "tied").covariances, matrix)
    np.testing.assert_array_equal(maximise(diag, "diag").covariances, [[1.0, 2.25]] * 2)
    np.testing.assert_array_equal(maximise(diag, "spherical").covariances, [1.625, 1.625])
    np.testing.assert_array_equal(maximise(diag, "diag").means, [[1.0, 1.5], [11.0, 11.5]])


def test_regularisation_is_added_to_every_variance():
    """reg_covar is in data units squared, and added after the estimate."""
    p = maximise(statistics([2], [[4]], [[10]]), "diag", reg_covar=0.25)
    np.testing.assert_array_equal(p.covariances, [[1.25]])


def test_spare_mass_is_added_before_dividing(structure):
    """Rows 1 and 3 with 2 spare: mean 4 / 4 = 1; squares about it 0 and 4, over 4."""
    p = maximise(statistics([2], [[4]], [[[10]]] if STRUCTURES[structure].form == "full" else [[10]]), structure, spare_mass=2.0)
    np.testing.assert_array_equal(p.means, [[1.0]])
    np.testing.assert_array_equal(p.variances, [[1.0]])


# ------------------------------------------------------------------ law


@pytest.mark.parametrize("shift", [0.0, 1.0, 30.0])
def test_the_origin_does_not_matter(structure, mixture, shift):
    """Sums about any origin give the same parameters; digits are lost as the square of the distance, in standard deviations."""
    p = mixture(structure, K=2, D=3)
    X = p.sample(50, random_state=0)[0]
    here = maximise(InMemory(X).sweep(p.factors), structure)
    there = maximise(InMemory(X).sweep(p.factors, origin=here.means + shift * here.sds), structure)
    tolerance = 50 * EPS * (1.0 + shift) ** 2 * 10  # 50 terms; 10 for the sizes of variances beside each other
    np.testing.assert_allclose(there.means, here.means, atol=tolerance * here.sds.max())
    np.testing.assert_allclose(there.covariance_matrices, here.covariance_matrices, atol=tolerance * here.variances.max())


def test_the_weights_sum_to_one(structure, mixture):
    """As far as K additions do."""
    p = mixture(structure, K=7, D=2)
    made = maximise(InMemory(p.sample(200, random_state=0)[0]).sweep(p.factors), structure)
    assert made.weights.sum() == pytest.approx(1.0, abs=7 * EPS)


def test_the_parameters_can_be_made_again_by_the_careful_constructor(structure, mixture):
    """What the M step wraps unchecked passes every check."""
    p = mixture(structure, K=3, D=4)
    made = maximise(InMemory(p.sample(300, random_state=0)[0]).sweep(p.factors), structure)
    assert emfuse.Parameters(made.weights, made.means, made.covariances, made.structure) == made


def test_the_statistics_stay_as_they_were(structure, mixture):
    """maximise reads; it changes nothing in place."""
    p = mixture(structure, K=2, D=3)
    s = InMemory(p.sample(60, random_state=0)[0]).sweep(p.factors)
    before = [array.tobytes() for array in (s.origin, s.mass, s.first, s.second)]
    maximise(s, structure, reg_covar=0.1)
    assert [array.tobytes() for array in (s.origin, s.mass, s.first, s.second)] == before


# ------------------------------------------------------------------ collapse


def test_a_component_without_rows_says_so():
    """Which one, and what to do; the fields are for programs."""
    with pytest.raises(CollapsedComponent) as caught:
        maximise(statistics([2, 0], [[4], [0]], [[10], [0]]), "diag")
    assert str(caught.value) == (
        "component 1 has collapsed: no row is left to it. Ask for fewer components (now 2), or start it nearer to the data."
    )
    assert (caught.value.component, caught.value.mass, caught.value.feature) == (1, 0.0, None)


def test_a_component_without_spread_says_where():
    """Which one, how many rows, which feature, and what to do."""
    with pytest.raises(CollapsedComponent) as caught:
        maximise(statistics([10, 4], [[0, 30], [4, 4]], [[5, 90], [8, 8]]), "diag")
    assert str(caught.value) == (
        "component 0 has collapsed: 10 rows' worth of data has variance 0 in feature 1, given the features before it, and must "
        "have more than rounding leaves. Raise reg_covar (now 0), ask for fewer components (now 2), or drop a constant or "
        "repeated column."
    )
    assert (caught.value.component, caught.value.mass, caught.value.feature) == (0, 10.0, 1)


def test_a_shared_covariance_without_spread_has_no_component():
    """The mass is then that of all rows."""
    with pytest.raises(CollapsedComponent, match="the shared covariance has collapsed: 6 rows' worth of data") as caught:
        maximise(statistics([2, 4], [[0], [0]], [[[0]], [[0]]]), "tied")
    assert (caught.value.component, caught.value.mass, caught.value.feature) == (None, 6.0, 0)


@pytest.mark.parametrize(("sd", "collapses"), [(0.0, True), (1.0, True), (2.0, True), (3.0, False)])
def test_spread_that_rounding_makes_up_is_none(structure, sd, collapses):
    """Around a mean of 1 a standard deviation of 2 eps is what rounding the rows makes up; 3 eps is a spread."""
    K, D = 2, 3
    scatter = 5 * (sd * EPS) ** 2 * (np.eye(D) if STRUCTURES[structure].form == "full" else np.ones(D))
    s = statistics([5, 5], np.zeros((K, D)), [scatter] * K, np.ones((K, D)))
    if collapses:
        with pytest.raises(CollapsedComponent):
            maximise(s, structure)
    else:
        np.testing.assert_allclose(maximise(s, structure).sds, 3 * EPS, rtol=4 * EPS)


def test_regularisation_keeps_a_component_of_one_row_alive(structure, mixture):
    """With reg_covar, variance 0 becomes reg_covar."""
    kind = STRUCTURES[structure]
    zeros = np.zeros((2, 3, 3) if kind.form == "full" else (2, 3))
    p = maximise(statistics([1, 1], np.zeros((2, 3)), zeros), structure, reg_covar=1e-6)
    np.testing.assert_array_equal(p.variances, np.full((2, 3), 1e-6))


def test_a_spread_that_overflows_says_so(structure):
    """Variances beyond 1e308 are no collapse."""
    kind = STRUCTURES[structure]
    huge = np.full((1, 1, 1) if kind.form == "full" else (1, 1), np.inf)
    with pytest.raises(ValueError, match="the covariances overflow double precision") as caught:
        maximise(statistics([2], [[0]], huge), structure)
    assert not isinstance(caught.value, CollapsedComponent)


def collapsed():
    """A CollapsedComponent, as `maximise` raises it."""
    try:
        maximise(statistics([2, 0], [[4], [0]], [[10], [0]]), "diag")
    except CollapsedComponent as error:
        return error


def not_positive_definite():
    """A NotPositiveDefinite, as a structure raises it."""
    return emfuse.NotPositiveDefinite(1, 2, -3.0)


@pytest.mark.parametrize("make", [collapsed, not_positive_definite])
def test_an_error_survives_the_way_between_processes(make):
    """A worker's error arrives whole in the process that asked: same class, words and fields."""
    error = make()
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


# ------------------------------------------------------------------ a build's own M step


@pytest.fixture(params=[name for name in emfuse.kernels.runnable() if name != emfuse.kernels.REFERENCE])
def compiled(request):
    """Each compiled build that runs here, in use while the test runs."""
    with emfuse.kernels.use(request.param):
        yield emfuse.kernels.load()


@pytest.mark.parametrize("spare_mass", [0.0, 1e-3])
@pytest.mark.parametrize("reg_covar", [0.0, 0.5])
@pytest.mark.parametrize(("K", "D"), [(1, 1), (3, 1), (2, 2), (4, 3), (1, 5), (3, 16)])
def test_a_builds_own_step_is_the_definitions(compiled, structure, K, D, reg_covar, spare_mass, mixture):
    """For few features weights, means, covariances and factors come from the build: those of `estimate` and of the structure."""
    p = mixture(structure, K=K, D=D)
    kind = STRUCTURES[structure]
    s = InMemory(p.sample(100 * K, random_state=0)[0]).sweep(p.factors, origin=p.means + 0.3)
    made, far = step(s, kind, reg_covar=reg_covar, spare_mass=spare_mass)
    assert not far
    assert "factors" in made.__dict__, "the build left it alone"
    wanted = estimate(s, kind, reg_covar=reg_covar, spare_mass=spare_mass)
    np.testing.assert_allclose(made.weights, wanted.weights, rtol=4 * EPS)
    np.testing.assert_allclose(made.means, wanted.means, rtol=0, atol=8 * EPS * np.abs(wanted.means).max())
    np.testing.assert_allclose(made.covariances, wanted.covariances, rtol=0, atol=32 * EPS * np.abs(wanted.covariances).max())
    P, log_det = kind.factor(made.covariances, K, D)
    np.testing.assert_allclose(made.factors.P, P, rtol=0, atol=100 * D * EPS * np.abs(P).max())  # condition numbers below 100
    log_constant = np.log(made.weights) - 0.5 * D * np.log(2 * np.pi) + log_det
    np.testing.assert_allclose(made.factors.log_constant, log_constant, rtol=0, atol=100 * D * EPS * np.abs(log_constant).max())


@pytest.mark.parametrize("with_floor", [False, True])
@pytest.mark.parametrize(("K", "D"), [(1, 2), (2, 2), (4, 3), (7, 5), (3, 16)])
@pytest.mark.parametrize("kind", DECOMPOSED, ids=lambda kind: kind.name)
def test_a_builds_own_step_has_the_ten_structures_too(compiled, kind, K, D, with_floor, mixture):
    """Searched from the covariances before, which are not the answer's; features have units from 1e-9 to 1e9."""
    p = mixture(kind.name, K=K, D=D)
    X, labels = p.sample(200 * K, random_state=0)
    X = X * np.geomspace(1e-9, 1e9, D)
    start = emfuse.from_labels(X, labels, kind.name)
    s = InMemory(X).sweep(start.factors)
    how = {"before": start, "floor": Floor(X.var(axis=0), 20.0, holds=True) if with_floor else None, "spare_mass": 1e-3}
    made, _ = step(s, kind, **how)
    assert "factors" in made.__dict__, "the build left it alone"
    wanted = estimate(s, kind, **how)
    # axes in common are found to the root of rounding, by either
    np.testing.assert_allclose(
        scaled(made, wanted), scaled(wanted, wanted), rtol=0, atol=1e-7 if kind.name[1:] == "VE" else 1e-11
    )
    np.testing.assert_allclose(made.factors.log_constant, wanted.factors.log_constant, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", DECOMPOSED, ids=lambda kind: kind.name)
def test_where_the_numbers_lie_in_memory_does_not_matter(compiled, kind, mixture):
    """The same bits from arrays at other addresses, so that a fit can be had again: compilers test addresses for overlap."""
    random = np.random.default_rng(0)
    for K, D in ((2, 2), (4, 3), (3, 8)):
        p = mixture(kind.name, K=K, D=D)
        engine = InMemory(p.sample(100 * K, random_state=0)[0])
        for _ in range(5):  # each a search of its own
            s, found = engine.sweep(p.factors), []
            for offset in range(16):
                around = [np.empty(n) for n in random.integers(1, 300, 10)]  # other neighbours on the heap
                covariances = np.empty(p.covariances.size + 16)[offset:][: p.covariances.size].reshape(p.covariances.shape)
                covariances[...] = p.covariances
                found.append(step(s, kind, before=emfuse.Parameters.unchecked(p.weights, p.means, covariances, kind))[0])
                del around
            assert {made.covariances.tobytes() for made in found} == {found[0].covariances.tobytes()}
            p = found[0]


def scaled(p, unit):
    """Covariances in standard deviations of another mixture."""
    sds = unit.sds
    return p.covariance_matrices / sds[:, :, None] / sds[:, None, :]


@pytest.mark.parametrize("kind", DECOMPOSED, ids=lambda kind: kind.name)
def test_a_build_leaves_what_has_no_plain_answer_to_the_definition(compiled, kind, mixture):
    """A component without variance along one direction: the definition's covariances or its error."""
    p = mixture(kind.name, K=2, D=2)
    X, labels = p.sample(100, random_state=0)
    X[labels == 1, 1] = X[labels == 1, 0]
    s = statistics_of_labels(InMemory(X), labels, 2, kind.form)
    outcomes = []
    for name in (emfuse.kernels.active(), emfuse.kernels.REFERENCE):
        with emfuse.kernels.use(name):
            try:
                outcomes.append(step(s, kind, before=p)[0].covariances)
            except CollapsedComponent as error:
                outcomes.append((error.component, error.feature))
    np.testing.assert_allclose(*outcomes, rtol=1e-7)


def test_factors_do_not_depend_on_how_parameters_came(compiled, structure, mixture):
    """Those that the M step made and those made of the same numbers later are the same to the last bit."""
    p = mixture(structure, K=3, D=4)
    made, _ = step(InMemory(p.sample(300, random_state=0)[0]).sweep(p.factors), STRUCTURES[structure])
    again = emfuse.Parameters.from_dict(made.as_dict()).factors
    assert made.factors.P.tobytes() == again.P.tobytes()
    assert made.factors.log_constant.tobytes() == again.log_constant.tobytes()


def test_a_step_says_when_a_mean_moved_far(compiled, structure, mixture):
    """More than two standard deviations from the origin of the sums."""
    p = mixture(structure, K=2, D=3)
    engine = InMemory(p.sample(300, random_state=0)[0])
    for away, expected in ((0.5, False), (4.0, True)):
        assert step(engine.sweep(p.factors, origin=p.means + away * p.sds), STRUCTURES[structure])[1] is expected


@pytest.mark.parametrize(
    ("what", "C"),
    [("near to singular", [[1.0, 0.9999], [0.9999, 1.0]]), ("tiny", np.eye(2) * 1e-290), ("huge", np.eye(2) * 1e290)],
)
def test_what_is_not_plain_is_left_to_the_definition(compiled, what, C):
    """Refined, or near the ends of the range: the factors are the structure's own, to the last bit."""
    C = np.array([C], dtype=np.float64)
    P, log_constant = np.empty((1, 2, 2)), np.empty(1)
    assert not compiled.factor(
        weights=np.ones(1), means=np.zeros((1, 2)), covariances=C, least_left=1e-3, P=P, log_constant=log_constant
    )
    np.testing.assert_array_equal(emfuse.Parameters([1.0], [[0.0, 0.0]], C).factors.P, STRUCTURES["full"].factor(C, 1, 2)[0])


def test_a_component_that_has_shrunk_is_left_to_the_definition(compiled):
    """No mass, or a variance that rounding of the data may have made: the error is the definition's."""
    with pytest.raises(CollapsedComponent, match="no row is left to it"):
        step(statistics([2, 0], [[0], [0]], [[1], [1]]), STRUCTURES["diag"])
    with pytest.raises(CollapsedComponent, match="component 1 has collapsed"):
        step(statistics([5, 5], [[0], [0]], [[1], [1e-31]], [[0], [1]]), STRUCTURES["diag"])
