"""Many data sets at once: each as if it were alone, whatever the form they come in, and none lost to another's failure."""

import numpy as np
import pytest

import emfuse
from emfuse import fit_many, stopping
from emfuse.decomposed import DECOMPOSED
from emfuse.em import VARIANCE_FLOOR

RANDOM = np.random.default_rng(0)
SETS = [
    np.concatenate([RANDOM.normal(0, 1, n), RANDOM.normal(5 + shift, 1.5, n)])
    for n, shift in ((60, 0), (150, 1), (31, 2), (400, -1), (90, 0))
]
TWO, TWO_DIAG = (emfuse.Parameters.univariate([0.5, 0.5], [0.0, 1.0], [1.0, 1.0], name) for name in ("full", "diag"))


def assert_same(one, other):
    """Bit for bit."""
    for name in ("weights", "means", "covariances", "log_likelihood", "sweeps"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("acceleration", ["auto", None])
@pytest.mark.parametrize("D", [1, 3])
def test_each_is_the_maximum_that_em_finds_from_there(build, structure, D, acceleration):
    """EM from each answer gains nothing; log-likelihood and criteria are those of the parameters."""
    sets = [np.column_stack([x + RANDOM.normal(0, 0.5, len(x)) * d for d in range(D)]) for x in SETS]
    made = fit_many(sets, 2, structure=structure, acceleration=acceleration)
    assert made.converged.all() and not made.failures and made.means.shape == (5, 2, D)
    for i, X in enumerate(sets):
        again = emfuse.em(X, made[i], stop=50)
        assert again.trace[0] == pytest.approx(made.log_likelihood[i], rel=1e-12)
        assert again.log_likelihood == pytest.approx(made.log_likelihood[i], abs=1e-4)  # plain EM's own stop is 1e-6 by estimate
        assert made.bic[i] == pytest.approx(again.parameters.free_parameters * np.log(len(X)) - 2 * made.log_likelihood[i])
        assert made.aic[i] == pytest.approx(2 * made.free_parameters - 2 * made.log_likelihood[i])
        np.testing.assert_allclose(made.sds[i], made[i].sds)


@pytest.mark.parametrize("structure", [kind.name for kind in DECOMPOSED])
def test_mclusts_structures_are_fitted_too(build, structure):
    """EM from each answer gains nothing."""
    sets = [np.column_stack([x, 0.5 * x + RANDOM.normal(0, 0.5, len(x))]) for x in SETS]
    made = fit_many(sets, 2, structure=structure)
    assert made.converged.all() and not made.failures
    for i, X in enumerate(sets):
        again = emfuse.em(X, made[i], stop=50)
        assert again.trace[0] == pytest.approx(made.log_likelihood[i], rel=1e-12)
        assert again.log_likelihood == pytest.approx(made.log_likelihood[i], abs=1e-4)
        assert made.bic[i] == pytest.approx(again.parameters.free_parameters * np.log(len(X)) - 2 * made.log_likelihood[i])


def test_all_forms_of_the_same_data_give_the_same_answer():
    """A list, values with offsets, a DataFrame with a key, a groupby; and equal lengths as an array."""
    pandas = pytest.importorskip("pandas")
    one = fit_many(SETS, 2)
    values, lengths = np.concatenate(SETS), [len(x) for x in SETS]
    assert_same(one, fit_many((values, np.concatenate([[0], np.cumsum(lengths)])), 2))
    names = np.repeat(["a", "b", "c", "d", "e"], lengths)
    frame = pandas.DataFrame({"x": values, "gene": names}).sample(frac=1.0, random_state=0).sort_index()
    by = fit_many(frame, 2, by="gene")
    assert_same(one, by)
    assert by.keys == ["a", "b", "c", "d", "e"]
    assert_same(one, fit_many(frame.groupby("gene"), 2))
    assert_same(one, fit_many(frame.groupby("gene")["x"], 2))
    assert_same(one, fit_many(frame.assign(other=1.0), 2, by="gene", columns=["x"]))
    table = by.as_frame()
    assert list(table.index) == by.keys and table.loc["d", "rows"] == 800 and table["converged"].all()
    equal = np.array([x[:60] for x in SETS if len(x) >= 60])
    assert_same(fit_many(equal, 2), fit_many(list(equal), 2))
    assert_same(fit_many(equal[:, :, None], 2), fit_many(list(equal), 2))


def test_threads_and_neighbours_do_not_matter(build):
    """The same bits for any number of threads; and a data set's answer does not depend on the others'."""
    many = [RANDOM.normal(size=80) + 3.0 * RANDOM.integers(2, size=80) for _ in range(700)]
    if build == "reference":
        many = many[:20]
    one, four = fit_many(many, 2, n_threads=1), fit_many(many, 2, n_threads=4)
    assert_same(one, four)
    few = fit_many(many[:7], 2)
    np.testing.assert_array_equal(few.means, one.means[:7])


def test_more_starts_end_no_lower_and_the_seed_counts():
    """n_init keeps the best; another seed draws other starts."""
    sets = [np.concatenate([RANDOM.normal(m, 0.5, 25) for m in (0, 2, 5, 9)]) for _ in range(40)]
    one, six = fit_many(sets, 4), fit_many(sets, 4, n_init=6)
    assert (six.log_likelihood >= one.log_likelihood - 1e-9).all() and six.log_likelihood.sum() > one.log_likelihood.sum()
    assert (six.sweeps > one.sweeps).all()
    other = fit_many([x[:, None] * [1, 2] + RANDOM.normal(size=(100, 2)) for x in sets], 4, random_state=1)
    same = fit_many([x[:, None] * [1, 2] + 0 for x in sets], 4, random_state=1)
    assert len(other) == len(same) == 40


def test_weights_are_repeated_rows():
    """Weight two is the row twice: the same maximum (starts differ, since parts are of rows)."""
    x = SETS[1]
    v = RANDOM.integers(1, 4, len(x)).astype(float)
    weighted, repeated = fit_many([x], 2, sample_weight=[v]), fit_many([np.repeat(x, v.astype(int))], 2)
    assert weighted.rows[0] == repeated.rows[0] == v.sum()
    assert weighted.log_likelihood[0] == pytest.approx(repeated.log_likelihood[0], abs=1e-5)
    assert_same(fit_many([x], 2, sample_weight=[v]), fit_many((x, [0, len(x)]), 2, sample_weight=v))


def test_one_that_fails_is_reported_and_the_others_go_on(build):
    """Too few rows, nan, no spread at all: a sentence each, nan in its row; the rest is as without them."""
    sets = [SETS[0], np.array([1.0]), np.array([]), np.append(SETS[1], np.nan), np.full(30, 7.0), SETS[2]]
    made = fit_many(sets, 2)
    assert sorted(made.failures) == [1, 2, 3, 4]
    assert made.failures[1] == "1 rows are too few for 2 components"
    assert "must be finite" in made.failures[3] or "NaN" in made.failures[3] or "nan" in made.failures[3]
    assert "collapsed" in made.failures[4]
    assert np.isnan(made.means[1:5]).all() and not made.converged[1:5].any()
    np.testing.assert_array_equal(made.means[[0, 5]], fit_many([SETS[0], SETS[2]], 2).means)
    with pytest.raises(ValueError, match="data set 4 has no fit: component"):
        made[4]
    assert "2 converged, 4 failed" in repr(made)


@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical", "EVE", "VEV"])
def test_a_start_of_ones_own_is_gone_on_from(build, name):
    """One for all, one for each in a list, or other fits: as `em` from there, to the last bit."""
    sets = [np.column_stack([x, 0.5 * x + RANDOM.normal(0, 0.5, len(x))]) for x in SETS]
    start = emfuse.fit(sets[1], 2, structure=name).parameters
    options = {"stop": stopping.AT_MAXIMUM, "acceleration": "auto", "variance_floor": VARIANCE_FLOOR}
    alone = [emfuse.em(X, start, **options) for X in sets]
    one = fit_many(sets, 2, init=start, n_init=3)
    assert [one[i] for i in range(5)] == [fit.parameters for fit in alone]
    assert one.sweeps.tolist() == [fit.sweeps for fit in alone]
    assert_same(one, fit_many(sets, 2, init=[start] * 5))
    again = fit_many(sets, 2, init=one)
    np.testing.assert_allclose(again.log_likelihood, one.log_likelihood, rtol=0, atol=2e-6)
    assert (again.sweeps <= one.sweeps).all() and again.sweeps.sum() < one.sweeps.sum()


def test_a_start_that_is_none_or_does_not_do_is_reported(build):
    """A failure of the fits that it goes on from is one still; a start that collapses leaves nan, and no start behind."""
    first = fit_many([SETS[0], np.ones(9), SETS[1]], 2)
    again = fit_many([SETS[0], SETS[2], SETS[1]], 2, init=first)
    assert list(again.failures) == [1] and again.failures[1].startswith("its start has no fit: component")
    far = emfuse.Parameters.univariate([0.5, 0.5], [0.0, 1e6], [1.0, 1.0])
    made = fit_many([SETS[0], SETS[1]], 2, init=[first[0], far])
    assert list(made.failures) == [1] and "collapsed" in made.failures[1]
    assert np.isnan(made.weights[1]).all() and np.isnan(made.means[1]).all() and np.isnan(made.covariances[1]).all()
    np.testing.assert_allclose(made.means[0], first.means[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("init", "error", "words"),
    [
        ("kmeans", TypeError, "init must be emfuse.Parameters here, got str"),
        (emfuse.Parameters.univariate([1.0], [0.0], [1.0]), ValueError, "init must have n_components = 2 components, got 1"),
        (emfuse.Parameters([0.5, 0.5], np.eye(2), [np.eye(2)] * 2), ValueError, "init must have 1 features, as the data, got 2"),
        ([TWO], ValueError, "init must be one start for all, or one for each of 5 data sets, got 1"),
        ([TWO] * 4 + [TWO_DIAG], ValueError, "init must have one structure, got 'full' and 'diag'"),
        (fit_many(SETS[:2], 2), ValueError, "init must have 5 mixtures of 2 components in 1 features, got Fits: 2 mixtures"),
    ],
)
def test_starts_of_another_kind_are_refused(init, error, words):
    """By what they have and what they need."""
    with pytest.raises(error, match=words):
        fit_many(SETS, 2, init=init)


def test_a_limit_is_not_convergence():
    """A stop by a number of steps, or sweeps, leaves `converged` false."""
    assert not fit_many(SETS, 2, stop=3, acceleration=None).converged.any()
    assert not fit_many(SETS, 2, stop=stopping.SweepLimit(4)).converged.any()
    exact = fit_many(SETS, 2, stop=0)
    assert (exact.sweeps == 1).all()


@pytest.mark.parametrize("scale", [1e-100, 1e-3, 1e100])
def test_scale_does_not_matter(scale):
    """Data in other units: the same up to scale."""
    one, other = fit_many(SETS, 2), fit_many([x * scale for x in SETS], 2)
    np.testing.assert_allclose(other.means, one.means * scale, rtol=1e-4)
    np.testing.assert_allclose(other.log_likelihood, one.log_likelihood - one.rows * np.log(scale), rtol=1e-9)


def test_progress_is_told(capsys, monkeypatch):
    """The callback hears of the end at least; a file gets one line, a terminal one that is written over."""
    heard = []
    fit_many(SETS, 2, callback=lambda done, total: heard.append((done, total)), verbose=True)
    assert heard[-1] == (5, 5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fit_many: 5 of 5, in ")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("emfuse.many.ROWS_AT_ONCE", 100)
    monkeypatch.setattr("emfuse.many.BETWEEN", 0.0)
    fit_many(SETS, 2, verbose=True, n_threads=1)
    first, *_, last = capsys.readouterr().err.split("\r")[1:]
    assert "1 of 5, 0 s left" in first and last.startswith("fit_many: 5 of 5, in ") and last.endswith("\n")


def test_no_data_sets_are_no_fits():
    """An empty list gives an empty answer."""
    for made in (fit_many([], 2), fit_many([], 2, init=[]), fit_many([], 2, init=TWO)):
        assert len(made) == 0 and made.means.shape == (0, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([np.ones(9)], 0), ValueError, "n_components must be a whole number of at least 1, got 0"),
        (([np.ones((9, 20))], 2), ValueError, "data must have at most 16 features here, got 20"),
        (([np.ones((9, 2)), np.ones((9, 3))], 2), ValueError, r"the same number of features, got \[2, 3\]"),
        (((np.ones(9), [0, 4, 8]), 2), ValueError, "offsets must rise from 0 to the number of rows, 9"),
        (([["a", "b"]], 2), TypeError, "data must be real numbers"),
    ],
)
def test_what_is_wrong_with_the_call_is_an_error(arguments, error, words):
    """Before anything is fitted."""
    with pytest.raises(error, match=words):
        fit_many(*arguments)
    with pytest.raises(TypeError, match=r"stop must be one of stopping\.Within"):
        fit_many(SETS, 2, stop=lambda trace: None)
    with pytest.raises(ValueError, match=r"structure must be one of .* got 'VVW'"):
        fit_many(SETS, 2, structure="VVW")
