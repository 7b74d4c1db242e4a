"""Every model in one call keeps its laws: criteria by hand, the smallest wins, more components are never less likely."""

import importlib
import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import emfuse
from emfuse.selection import Row, Table, select
from emfuse.selector import GaussianMixtureSelector
from emfuse.stopping import SweepLimit, Within
from emfuse.structures import ALL_STRUCTURES

EPS = np.finfo(np.float64).eps
FOUR = ("full", "tied", "diag", "spherical")
NUMBERS = ("log_likelihood", "aic", "bic", "icl")


@pytest.fixture
def blobs(mixture):
    """Function that makes rows of a mixture, drawn with a seed of their own."""

    def made(N=300, structure="full", K=3, D=2, seed=0, apart=6.0):
        return mixture(structure, K=K, D=D, seed=seed, apart=apart).sample(N, random_state=seed)[0]

    return made


def numbers_of(selection):
    """What may be compared of each row: all but the seconds."""
    return [(row.K, row.structure, *(getattr(row, name) for name in NUMBERS), row.sweeps, row.reason) for row in selection.table]


# ------------------------------------------------------------------ literal


def test_one_component_scores_what_is_worked_out_by_hand():
    """Rows 0 and 2: mean 1, variance 1, log L = -log 2 pi - 1, two parameters; one component leaves no doubt."""
    (row,) = select([0.0, 2.0], [1], "full").table
    log_likelihood = -np.log(2 * np.pi) - 1.0
    assert (row.K, row.structure, row.free_parameters, row.converged) == (1, "full", 2, True)
    assert row.log_likelihood == pytest.approx(log_likelihood, rel=4 * EPS)
    assert row.aic == pytest.approx(4.0 - 2.0 * log_likelihood, rel=4 * EPS)
    assert row.bic == pytest.approx(2.0 * np.log(2.0) - 2.0 * log_likelihood, rel=4 * EPS)
    assert row.icl == pytest.approx(row.bic, rel=4 * EPS)


@pytest.mark.parametrize("weighted", [False, True])
def test_icl_is_bic_less_twice_the_logs_of_the_largest_responsibilities(blobs, weighted):
    """The definition, from responsibilities that `select` itself never stores."""
    X = blobs(apart=1.0)
    v = np.random.default_rng(0).uniform(0.0, 3.0, len(X)) if weighted else np.ones(len(X))
    found = select(X, [2, 3], FOUR, sample_weight=v if weighted else None)
    for row in found.table:
        fit = found.fits[row.structure, row.K]
        doubt = (v * np.log(fit.predict_proba(X).max(axis=1))).sum()
        assert row.bic == fit.free_parameters * np.log(v.sum()) - 2.0 * fit.log_likelihood
        # two sums of as many rows, each of which rounds by some eps of its size
        assert row.icl == pytest.approx(row.bic - 2.0 * doubt, abs=8 * len(X) * EPS * abs(row.log_likelihood))


# ------------------------------------------------------------------ the best


@pytest.mark.parametrize("criterion", ["aic", "bic", "icl"])
def test_the_best_is_the_smallest_and_is_kept_as_it_was_fitted(blobs, criterion):
    X = blobs(apart=2.0)
    found = select(X, range(1, 6), criterion=criterion)
    values = [getattr(row, criterion) for row in found.table]
    best = found.table[int(np.argmin(values))]
    assert found.best_row is best
    assert (found.K, found.structure) == (best.K, best.structure)
    assert found.best is found.fits[best.structure, best.K]
    assert found.best.score_samples(X).sum() == pytest.approx(best.log_likelihood, rel=len(X) * EPS)
    assert [row.K for row in found.table] == [1, 2, 3, 4, 5] * 4
    assert [row.structure for row in found.table] == [name for name in FOUR for _ in range(5)]
    for row in found.table:
        fit = found.fits[row.structure, row.K]
        assert (row.log_likelihood, row.free_parameters, row.aic) == (fit.log_likelihood, fit.free_parameters, fit.aic)
        assert (row.converged, row.reason, row.sweeps) == (fit.converged, fit.reason, fit.sweeps)
        assert (fit.parameters.structure, fit.parameters.n_components) == (row.structure, row.K)


@pytest.mark.parametrize("K", [1, 2, 4])
def test_it_finds_how_many_well_separated_components_there_are_and_what_shape_they_have(blobs, structure, K):
    X = blobs(N=400, structure=structure, K=K, D=3, apart=8.0, seed=2)
    found = select(X, range(1, 7))
    assert found.K == K
    if K > 1:  # of one component, "tied" is "full"
        assert found.structure == structure


def test_a_selected_fit_is_as_high_as_that_of_fit(blobs):
    """Well separated, there is one maximum that counts; both stop within 1e-6 nats a row of it by estimate."""
    X = blobs(apart=8.0)
    for (structure, K), fit in select(X, [3]).fits.items():
        assert fit.log_likelihood == pytest.approx(emfuse.fit(X, K, structure=structure).log_likelihood, abs=len(X) * 1e-5)


# ------------------------------------------------------------------ laws


@pytest.mark.parametrize(("N", "names"), [(60, FOUR), (300, ("EII", "VEV", "VVE", "EEI")), (11_000, ("full", "spherical"))])
def test_more_components_are_never_less_likely(blobs, N, names):
    """A mixture holds those with fewer components; rows that overlap, so that there are many maxima, and too many components."""
    found = select(blobs(N=N, K=4, apart=1.0), range(1, 7), names)
    assert not any(row.failed for row in found.table)
    for name in names:
        values = [row.log_likelihood for row in found.table if row.structure == name and not row.doubtful]
        assert len(values) > 4
        # a component twice is the same density but for the rounding of its weight
        assert np.diff(values).min() >= -4 * N * EPS * np.abs(values).max()


@pytest.mark.parametrize(("N", "names"), [(200, (*FOUR, "VEV")), (3_500, FOUR), (12_000, ("full", "diag"))])
def test_the_number_of_threads_is_not_in_the_result(blobs, N, names):
    """Side by side, or one after the other with threads inside: the same bits."""
    X = blobs(N=N, apart=2.0)
    first = select(X, range(1, 4), names, n_threads=1)
    for n_threads in (2, 3):
        again = select(X, range(1, 4), names, n_threads=n_threads)
        assert numbers_of(again) == numbers_of(first)
        assert again.best.parameters == first.best.parameters


def test_a_seed_says_all(blobs):
    """The same seed gives the same bits, None always the same; an engine's own generator may be given."""
    X = blobs(apart=1.0)
    assert numbers_of(select(X, 3)) == numbers_of(select(X, 3, random_state=None))
    for seed in (lambda: 7, lambda: np.random.default_rng(7), lambda: np.random.RandomState(7)):
        assert numbers_of(select(X, 3, random_state=seed())) == numbers_of(select(X, 3, random_state=seed()))


def test_weight_two_is_the_row_twice_and_weight_zero_the_row_absent(blobs):
    """For one component, where no start is drawn that matters: every criterion, n being the sum of weights."""
    X = blobs(N=50)
    v = np.arange(50) % 3
    weighted, repeated = select(X, 1, ALL_STRUCTURES, sample_weight=v), select(np.repeat(X, v, axis=0), 1, ALL_STRUCTURES)
    for ours, theirs in zip(weighted.table, repeated.table, strict=True):
        for name in NUMBERS:
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-10), name


def test_all_weights_a_thousand_times_as_large_leave_the_mixtures_alone(blobs):
    """The stops count nats a row."""
    X = blobs()
    v = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    ours, theirs = (select(X, [3], ("full", "diag"), sample_weight=times * v) for times in (1.0, 1e-3))
    for model, fit in ours.fits.items():
        np.testing.assert_allclose(theirs.fits[model].parameters.means, fit.parameters.means, atol=1e-2 * X.std())


@pytest.mark.parametrize("change", ["permuted rows", "scaled and shifted"])
def test_order_and_scale_leave_the_ranking_alone(blobs, change):
    """The log-likelihood of a x + b is less by n D log a, whatever the model; here each has one maximum that counts."""
    X = blobs(N=400, apart=8.0)
    a = 1.0 if change == "permuted rows" else 2.0**20
    other = X[np.random.default_rng(1).permutation(len(X))] if a == 1.0 else a * X + 1000.0 * a
    here, there = select(X, 3, ("full", "diag", "spherical")), select(other, 3, ("full", "diag", "spherical"))
    ranked = [[(row.structure, row.K) for row in found.table.ranked()] for found in (here, there)]
    assert ranked[0] == ranked[1]
    for ours, theirs in zip(here.table, there.table, strict=True):
        assert theirs.log_likelihood + X.size * np.log(a) == pytest.approx(ours.log_likelihood, abs=len(X) * 1e-5)


def test_float32_selects_as_float64_does(blobs):
    X = blobs(N=2000, D=3, apart=5.0).astype(np.float32)
    here, there = select(X, 4, ("full", "diag")), select(X.astype(np.float64), 4, ("full", "diag"))
    assert (here.K, here.structure) == (there.K, there.structure)
    assert here.best_row.icl == pytest.approx(there.best_row.icl, rel=1e-6)


# ------------------------------------------------------------------ failures


def test_a_model_that_cannot_be_fitted_is_a_row_with_the_reason():
    """Two different values: two components collapse onto them; thirty rows are too few for thirty-one."""
    found = select(np.repeat([0.0, 1.0], 15), [1, 2, 31], ("full", "tied"))
    for row in found.table:
        assert row.failed == (row.K > 1)
        if row.failed:
            assert ("too few" if row.K == 31 else "collapsed") in row.reason
            assert np.isnan([row.log_likelihood, row.aic, row.bic, row.icl]).all()
            assert (row.converged, row.sweeps, row.free_parameters) == (False, 0, 0)
    assert set(found.fits) == {("full", 1), ("tied", 1)}
    assert found.K == 1


def test_rows_without_weight_do_not_count_as_rows():
    found = select([0.0, 1.0, 2.0, 4.0], [1, 3], "tied", sample_weight=[1.0, 1.0, 0.0, 0.0])
    assert "2 rows" in found.table[1].reason


def test_where_every_model_fails_there_is_one_error_with_a_reason():
    with pytest.raises(ValueError, match=r"none of 4 models can be fitted; 'full' with 1: .*collapsed"):
        select(np.ones((20, 2)), 2, ("full", "diag"))


def test_a_component_on_a_few_rows_makes_a_model_doubtful_and_keeps_it_from_being_the_best():
    """Four rows in two pairs: the nearer the two of a pair, the higher the likelihood of two components."""
    X = [0.0, 0.001, 1.0, 1.002]
    found = select(X, 2, "full")
    one, two = found.table
    assert two.doubtful and not one.doubtful
    assert two.bic < one.bic and found.K == 1
    assert "has 2 rows' worth of data, fewer than 3" in two.reason
    assert "? doubtful" in repr(found)
    assert select(X, [2], "full").K == 2  # there is nothing else


def test_a_start_that_is_not_doubtful_goes_before_a_higher_one_that_is():
    """Two rows a thousandth apart, beside sixty others: there is another maximum, which is lower and says something."""
    X = np.concatenate([np.random.default_rng(0).normal(size=(60, 2)), [[20.0, 20.0], [20.001, 20.0]]])
    fit = select(X, 2, "spherical").fits["spherical", 2]
    assert fit.statistics.mass.min() > 2.5
    on_two = emfuse.em(X, emfuse.from_labels(X, np.arange(62) >= 60, "spherical"))
    assert on_two.log_likelihood > fit.log_likelihood + 10.0


def test_nothing_is_warned_of_and_a_limit_is_in_the_table(blobs):
    """How a fit ended is a row's matter: collapses, and stops before convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = select(blobs(apart=1.0), 4, stop=SweepLimit(5))
        select(np.round(blobs(N=40)), 9)
    limited = [row for row in found.table if not row.converged]
    assert limited and all("limit of 5 sweeps" in row.reason for row in limited)
    assert "~ stopped before convergence" in repr(found)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"components": []}, ValueError, "components must be one number or several, got none"),
        ({"components": [1, 0]}, ValueError, "components must be at least 1, got 0"),
        ({"components": [1.5]}, TypeError, "components must be whole numbers, got 1.5"),
        ({"components": True}, TypeError, "components must be whole numbers, got True"),
        ({"structures": ()}, ValueError, "structures must be one name or several, got none"),
        ({"structures": ["full", "round"]}, ValueError, "structure must be one of .* got 'round'"),
        ({"criterion": "BIC"}, ValueError, "criterion must be one of 'aic', 'bic', 'icl', got 'BIC'"),
        ({"n_init": 0}, ValueError, "n_init must be a whole number of at least 1, got 0"),
        ({"init": "best"}, ValueError, "init must be one of 'short_runs', .* got 'best'"),
        ({"init": "quantiles"}, ValueError, "init='quantiles' needs one feature, got 2"),
        ({"variance_floor": -1.0}, ValueError, "variance_floor must be finite and at least 0, got -1.0"),
        ({"stop": "soon"}, TypeError, "stop must be a rule"),
        ({"n_threads": 0}, ValueError, "n_threads must be a whole number of at least 1"),
        ({"random_state": 1.5}, TypeError, "random_state must be an int"),
        ({"X": [[1.0, np.nan]]}, ValueError, "X must be finite"),
    ],
)
def test_an_unusable_argument_is_an_error_that_names_it(blobs, arguments, error, words):
    with pytest.raises(error, match=words):
        select(**{"X": blobs(N=20), **arguments})


# ------------------------------------------------------------------ edges


def test_names_are_kept_as_they_were_asked_for_and_each_structure_is_fitted_once(blobs):
    """mclust's names and scikit-learn's are the same structures."""
    found = select(blobs(), [2], ("VVV", "full", "EII"))
    assert list(found.fits) == [("VVV", 2), ("EII", 2)]
    assert found.fits["VVV", 2].parameters.structure == "full"


def test_a_gap_in_the_numbers_of_components_is_walked_over(blobs):
    """From 1 to 4 and back: three components are cut, or left out, one after the other."""
    X = blobs(K=4, apart=8.0, seed=1)
    found = select(X, (4, 1), ("full", "tied", "EVE"))
    assert [row.K for row in found.table] == [1, 4] * 3
    assert found.K == 4


def test_one_number_is_all_up_to_it_and_one_name_is_enough(blobs):
    assert [(row.K, row.structure) for row in select(blobs(), 3, "diag").table] == [(1, "diag"), (2, "diag"), (3, "diag")]


@pytest.mark.parametrize("init", ["short_runs", "kmeans", "kmeans++", "random_rows", "random", "quantiles"])
def test_every_start_leads_there(blobs, init):
    X = blobs(N=200, D=1, apart=6.0)
    assert select(X, 4, ("full", "tied"), init=init, n_init=2).K == 3


def test_many_rows_are_climbed_over_all_of_them(blobs):
    """Of more than 10,000 rows a sample tells starts apart; the fits are of all rows."""
    X = blobs(N=12_000, D=2)
    found = select(X, 4, ("full", "diag"))
    assert (found.K, found.structure) == (3, "full")
    assert all(fit.statistics.weight == len(X) for fit in found.fits.values())
    assert found.best.converged


def test_of_many_rows_a_model_that_cannot_be_the_best_stops_early_and_says_where(blobs):
    """Within a hundredth of what it lacks, and 1e-4 nats a row; so no other is best, and tighter stops gain no more than that."""
    X = blobs(N=12_000, D=2, apart=3.0)
    loose, tight = (select(X, range(1, 7), ("full", "spherical"), stop=stop) for stop in (None, Within(0.01)))
    least = loose.best_row.bic
    for row, nearer in zip(loose.table, tight.table, strict=True):
        allowed = max(0.012, min(0.005 * (row.bic - least), 1e-4 * len(X)))  # 0.012: 1e-6 nats a row
        assert row.distance <= allowed and nearer.distance <= 0.01
        if row.K <= 3:  # more than there are leave plateaus, on which no estimate holds
            assert row.log_likelihood == pytest.approx(nearer.log_likelihood, abs=allowed)
    assert (loose.structure, loose.K) == (tight.structure, tight.K)
    assert sum(row.sweeps for row in loose.table) < sum(row.sweeps for row in tight.table)
    assert loose.best_row.distance <= 0.012


def test_a_rule_of_ones_own_stops_every_fit(blobs):
    found = select(blobs(apart=1.0), [3], stop=Within(1e-8))
    assert all(row.converged for row in found.table)
    assert {row.reason for row in select(blobs(apart=1.0), [3], stop=4).table} == {"the 4 M steps asked for were done"}


def test_each_row_is_told_when_it_is_done(blobs, capsys):
    told = []
    found = select(blobs(), 2, ("full", "diag"), callback=told.append, verbose=True)
    assert sorted(told, key=lambda row: (row.structure, row.K)) == sorted(found.table, key=lambda row: (row.structure, row.K))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all("BIC" in line for line in lines)


# ------------------------------------------------------------------ what is shown


def test_a_data_frame_has_a_row_for_each_model(blobs):
    pandas = pytest.importorskip("pandas")
    found = select(blobs(), 2, ("full", "diag"))
    frame = found.as_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 4
    assert list(frame.columns) == list(Row.__dataclass_fields__)
    assert frame.loc[frame.bic.idxmin(), "K"] == found.K


def test_without_pandas_the_error_says_what_to_do(blobs, monkeypatch):
    table = select(blobs(), 1, "full").table

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match="as_frame needs pandas"):
        table.as_frame()


def test_the_text_is_a_table_that_fits_a_terminal(blobs):
    """80 columns, the best marked, and why there is no fit."""
    X = np.concatenate([blobs(N=30, apart=1e4), np.repeat([[5.0, 5.0]], 30, axis=0)])
    found = select(X, (1, 3, 100))
    lines = repr(found).splitlines()
    assert max(map(len, lines[1:])) <= 80
    (marked,) = [line for line in lines if line.startswith("* ") and "best" not in line]
    assert marked.split()[1:3] == [found.structure, str(found.K)]
    assert sum("too few for 100" in line for line in lines) == 4
    long = repr(Table(found.table.rows * 5))
    assert len(long.splitlines()) < 60 and "and 20 more, of which 20 have no fit" in long
    assert isinstance(found.table[:2], Table) and len(found.table[:2]) == 2


def test_a_plot_is_the_plots_modules_matter(blobs):
    pytest.importorskip("matplotlib")
    axes = select(blobs(), 3).plot()
    assert len(axes.get_lines()) >= 4


def test_a_selection_can_be_pickled(blobs):
    found = select(blobs(), 2)
    again = pickle.loads(pickle.dumps(found))
    assert numbers_of(again) == numbers_of(found)
    assert again.best.parameters == found.best.parameters


# ------------------------------------------------------------------ scikit-learn's face


@parametrize_with_checks([GaussianMixtureSelector(1), GaussianMixtureSelector(2, criterion="icl")])
def test_passes_every_check_that_scikit_learn_has_for_an_estimator(estimator, check):
    check(estimator)


def test_the_estimator_is_the_best_mixture(blobs):
    """It has chosen as `select` does, and answers as the mixture that it has chosen."""
    X = blobs(apart=5.0)
    found = select(X, 5)
    chosen = GaussianMixtureSelector(5, random_state=0).fit(X)
    assert (chosen.n_components_, chosen.covariance_type_) == (found.K, found.structure)
    assert chosen.best_estimator_.fit_ is chosen.selection_.best
    assert isinstance(chosen.best_estimator_, emfuse.GaussianMixture)
    np.testing.assert_array_equal(chosen.predict(X), found.best.predict(X))
    np.testing.assert_allclose(chosen.score_samples(X), found.best.score_samples(X), rtol=1e-12)
    np.testing.assert_allclose(chosen.predict_proba(X).sum(axis=1), 1.0, rtol=1e-12)
    assert chosen.score(X) == pytest.approx(found.best.log_likelihood / len(X), rel=1e-12)
    assert chosen.bic(X) == pytest.approx(found.best.bic, rel=1e-12)
    assert chosen.aic(X) == pytest.approx(found.best.aic, rel=1e-12)
    np.testing.assert_array_equal(chosen.fit_predict(X), found.best.predict(X))
    assert chosen.sample(10)[0].shape == (10, 2)


def test_the_estimator_takes_some_numbers_and_some_types_and_weights(blobs):
    X = blobs(apart=5.0)
    chosen = clone(GaussianMixtureSelector((2, 4), covariance_types=["diag"], criterion="aic")).fit(
        X, sample_weight=np.ones(len(X))
    )
    assert [(row.K, row.structure) for row in chosen.selection_.table] == [(2, "diag"), (4, "diag")]
    assert GaussianMixtureSelector(range(1, 3)).fit(X).n_components_ == 2


def test_the_estimator_is_as_it_was_after_an_error(blobs):
    chosen = GaussianMixtureSelector(2).fit(blobs())
    before = chosen.best_estimator_
    with pytest.raises(ValueError, match="none of 8 models can be fitted"):
        chosen.fit(np.ones((9, 3)))
    assert chosen.best_estimator_ is before and chosen.n_features_in_ == 2
    with pytest.raises(ValueError, match=r"covariance_types must be one or several of .* got 'VVV'"):
        chosen.set_params(covariance_types=["VVV"]).fit(blobs())
    with pytest.raises(NotFittedError):
        clone(chosen).predict(blobs())


def test_the_estimator_warns_where_the_best_has_not_converged(blobs, monkeypatch):
    import emfuse.selection

    monkeypatch.setattr(emfuse.selection, "MOST_SWEEPS", 3)
    with pytest.warns(ConvergenceWarning, match="did not converge: the limit of 3 sweeps"):
        GaussianMixtureSelector([3], covariance_types=["full"]).fit(blobs(apart=1.0))
