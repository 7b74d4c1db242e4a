"""The drop-in: what scikit-learn's users and their code observe, held against scikit-learn itself."""

import pickle
import re
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as Theirs
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import emfuse
from emfuse import CollapsedComponent, GaussianMixture

TYPES = ["full", "tied", "diag", "spherical"]
THEIR_STARTS = ["kmeans", "k-means++", "random", "random_from_data"]
OUR_STARTS = ["emfuse-kmeans", "emfuse-k-means++"]
MODEL = ["weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_"]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def blobs(n=300, D=2, K=3, seed=0, dtype=np.float64, apart=4.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, D)) + apart * rng.integers(0, K, size=(n, 1))).astype(dtype)


def given_start(X, covariance_type, K=3):
    """All three starting values for rows X, in scikit-learn's shapes."""
    D = X.shape[1]
    precisions = {"full": np.repeat(np.eye(D)[None], K, 0), "tied": np.eye(D), "diag": np.ones((K, D)), "spherical": np.ones(K)}
    return {
        "n_components": K,
        "covariance_type": covariance_type,
        "weights_init": np.full(K, 1 / K),
        "means_init": X[:K] + 0.5,
        "precisions_init": precisions[covariance_type],
    }


@parametrize_with_checks(
    [GaussianMixture(covariance_type=kind, init_params=start) for kind in TYPES for start in THEIR_STARTS + OUR_STARTS]
)
def test_passes_every_check_that_scikit_learn_has_for_an_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("max_iter", [1, 2, 7, 100])
@pytest.mark.parametrize("start", THEIR_STARTS)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_same_import_gives_the_same_fit(covariance_type, start, max_iter):
    """Same start from the same random stream, same path: scikit-learn's numbers to 1e-8, iteration by iteration."""
    arguments = dict(n_components=3, covariance_type=covariance_type, init_params=start, max_iter=max_iter, random_state=5)
    X = blobs()
    theirs, ours = Theirs(**arguments).fit(X), GaussianMixture(**arguments).fit(X)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_ == theirs.converged_
    if hasattr(theirs, "lower_bounds_"):  # from scikit-learn 1.7 on
        np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-8)
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-8)
    for name in MODEL:
        # 1e-7 for precisions: scikit-learn's own digits where a variance is 1e-6 beside means of 10
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-7, atol=1e-8, err_msg=name)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-8)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-8)
    assert ours.bic(X) == pytest.approx(theirs.bic(X), rel=1e-9)
    assert ours.aic(X) == pytest.approx(theirs.aic(X), rel=1e-9)
    np.testing.assert_allclose(ours.sample(50)[0], theirs.sample(50)[0], rtol=1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_starting_values_are_used_as_scikit_learn_uses_them(covariance_type):
    X = blobs(D=3)
    arguments = given_start(X, covariance_type)
    for left_out in ([], ["weights_init"], ["means_init"], ["precisions_init"], ["means_init", "precisions_init"]):
        some = {name: value for name, value in arguments.items() if name not in left_out}
        theirs, ours = (cls(**some, random_state=0, max_iter=20).fit(X) for cls in (Theirs, GaussianMixture))
        assert ours.n_iter_ == theirs.n_iter_
        np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-8)
        np.testing.assert_allclose(ours.covariances_, theirs.covariances_, rtol=1e-8, atol=1e-10)


def test_no_random_number_is_drawn_when_the_start_is_given():
    X, random = blobs(), np.random.RandomState(3)
    before = random.get_state()[1].copy()
    GaussianMixture(**given_start(X, "full"), random_state=random).fit(X)
    np.testing.assert_array_equal(random.get_state()[1], before)


def test_a_seed_and_its_random_state_agree():
    X = blobs()
    a, b = (GaussianMixture(3, random_state=seed).fit(X) for seed in (7, np.random.RandomState(7)))
    np.testing.assert_array_equal(a.means_, b.means_)


def test_given_lists_stay_as_they_are():
    X = blobs()
    means = X[:3].tolist()
    estimator = GaussianMixture(3, means_init=means).fit(X)
    assert estimator.means_init is means


def test_the_lower_bound_is_that_before_the_last_step_and_the_fit_knows_the_one_after():
    X = blobs()
    estimator = GaussianMixture(3, random_state=0).fit(X)
    assert estimator.lower_bound_ == estimator.lower_bounds_[-1]
    assert len(estimator.lower_bounds_) == estimator.n_iter_
    assert estimator.score(X) == pytest.approx(estimator.fit_.log_likelihood / len(X), rel=1e-14)
    assert estimator.score(X) > estimator.lower_bound_
    assert len(estimator.history_) == estimator.n_iter_ + 1


def test_one_component_takes_two_iterations():
    assert GaussianMixture(1).fit(blobs()).n_iter_ == 2


def test_tol_zero_never_stops():
    estimator = GaussianMixture(1, tol=0.0, max_iter=12).fit(blobs())
    assert (estimator.n_iter_, estimator.converged_) == (12, False)


def test_converging_on_exactly_the_last_iteration_is_converged():
    X = blobs()
    needed = GaussianMixture(3, random_state=0).fit(X).n_iter_
    assert GaussianMixture(3, random_state=0, max_iter=needed).fit(X).converged_
    assert not GaussianMixture(3, random_state=0, max_iter=needed - 1).fit(X).converged_


def test_max_iter_zero_makes_the_start_the_model(recwarn):
    X = blobs()
    estimator = GaussianMixture(3, random_state=0, max_iter=0).fit(X)
    theirs = Theirs(3, random_state=0, max_iter=0).fit(X)
    assert not [w for w in recwarn if issubclass(w.category, ConvergenceWarning)]
    assert (estimator.n_iter_, estimator.lower_bound_, estimator.lower_bounds_, estimator.converged_) == (0, -np.inf, [], False)
    np.testing.assert_allclose(estimator.covariances_, theirs.covariances_, rtol=1e-10)
    np.testing.assert_allclose(estimator.weights_, theirs.weights_, rtol=1e-12)


@pytest.mark.parametrize("start", ["k-means++", "random_from_data"])
def test_a_start_from_single_rows_has_weights_that_sum_to_their_share(start):
    estimator = GaussianMixture(3, init_params=start, max_iter=0, random_state=0).fit(blobs(n=60))
    assert estimator.weights_.sum() == pytest.approx(3 / 60)
    np.testing.assert_allclose(estimator.covariances_, np.repeat(1e-6 * np.eye(2)[None], 3, 0), rtol=1e-9, atol=1e-20)


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_not_converging_warns_in_scikit_learns_words_and_keeps_the_parameters():
    estimator = GaussianMixture(3, max_iter=1, random_state=0)
    message = (
        "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or check"
    )
    with pytest.warns(ConvergenceWarning, match=re.escape(message)):
        estimator.fit(blobs())
    assert not estimator.converged_
    assert estimator.means_.shape == (3, 2)


def test_n_init_keeps_the_start_with_the_largest_lower_bound():
    X = blobs(n=60, K=5, apart=1.5)
    theirs, ours = (cls(5, n_init=8, init_params="random", random_state=2).fit(X) for cls in (Theirs, GaussianMixture))
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-9)
    assert ours.n_iter_ == theirs.n_iter_


def test_warm_start_goes_on_where_it_stood():
    X = blobs(apart=1.0)
    warm, cold = GaussianMixture(3, warm_start=True, max_iter=3, random_state=0, tol=1e-9), None
    for _ in range(4):
        warm.fit(X)
    cold = GaussianMixture(3, max_iter=12, random_state=0, tol=1e-9).fit(X)
    np.testing.assert_allclose(warm.means_, cold.means_, rtol=1e-9)


def test_refitting_a_converged_warm_start_takes_one_iteration():
    X = blobs()
    estimator = GaussianMixture(3, warm_start=True, random_state=0, n_init=4).fit(X)
    assert estimator.fit(X).n_iter_ == 1
    assert estimator.converged_


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_public_arrays_are_the_model(covariance_type):
    """Set on a fresh object they are enough to score, predict and sample; reordered, the labels follow."""
    X = blobs()
    fitted = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X)
    fresh = GaussianMixture(3, covariance_type=covariance_type, random_state=0)
    for name in MODEL[:-1]:
        setattr(fresh, name, getattr(fitted, name))
    np.testing.assert_array_equal(fresh.score_samples(X), fitted.score_samples(X))
    assert fresh.sample(9)[0].shape == (9, 2)
    order = np.array([2, 0, 1])
    for name in MODEL:
        value = getattr(fitted, name)
        if covariance_type != "tied" or name in ("weights_", "means_"):
            setattr(fitted, name, value[order])
    np.testing.assert_array_equal(order[fitted.predict(X)], fresh.predict(X))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_precisions_cholesky_is_upper_and_squares_to_the_precision(covariance_type):
    fitted = GaussianMixture(2, covariance_type=covariance_type, random_state=0).fit(blobs(D=3))
    U = fitted.precisions_cholesky_
    if covariance_type in ("full", "tied"):
        np.testing.assert_array_equal(np.tril(U, -1), 0.0)
        np.testing.assert_allclose(
            U @ np.swapaxes(U, -1, -2) @ fitted.covariances_, np.broadcast_to(np.eye(3), U.shape), atol=1e-12
        )
    else:
        np.testing.assert_allclose(U**2 * fitted.covariances_, 1.0, rtol=1e-14)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_float32_in_gives_float32_out(covariance_type):
    X = blobs(dtype=np.float32)
    fitted = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X)
    theirs = Theirs(3, covariance_type=covariance_type, random_state=0).fit(X)
    for name in MODEL:
        assert getattr(fitted, name).dtype == np.float32
        np.testing.assert_allclose(getattr(fitted, name), getattr(theirs, name), rtol=2e-3, atol=2e-3)  # theirs sums in float32
    assert fitted.score_samples(X).dtype == fitted.predict_proba(X).dtype == np.float32
    assert fitted.sample(3)[0].dtype == np.float64
    assert type(fitted.score(X)) is float


def test_integer_rows_are_scored_right():
    """scikit-learn truncates them for full and tied."""
    X = blobs(apart=20.0)
    fitted = GaussianMixture(3, random_state=0).fit(X)
    rows = np.round(X).astype(int)
    np.testing.assert_array_equal(fitted.score_samples(rows), fitted.score_samples(rows.astype(float)))


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, 1e3), (np.float32, 1e4), (np.float64, 1e6), (np.float64, 1e8)])
def test_an_offset_does_not_change_the_covariances(covariance_type, dtype, offset):
    """Two clusters, N(0, I) and N(6, I), far from zero: what the data's own digits allow."""
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) + 6.0])
    moved = (X + offset).astype(dtype)
    at_home = (moved.astype(np.float64) - offset).astype(dtype)  # the same digits, so that only the offset differs
    arguments = dict(n_components=2, covariance_type=covariance_type, reg_covar=0.0, tol=1e-8, max_iter=50)
    starts = [GaussianMixture(**arguments, means_init=np.array([[1.0, 1.0], [5.0, 5.0]]) + shift) for shift in (0.0, offset)]
    a, b = (estimator.fit(rows) for estimator, rows in zip(starts, (at_home, moved), strict=True))
    # float32 attributes hold 7 digits; in float64, x - mean is exact but the mean itself is rounded at the offset's last bit
    tolerance = 1e-5 if dtype == np.float32 else 1e-9 + 1e2 * np.finfo(float).eps * offset
    np.testing.assert_allclose(b.covariances_, a.covariances_, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_duplicate_points_raise_without_regularisation_and_pass_with_it(covariance_type):
    X = np.vstack([np.ones((5, 5)), np.zeros((5, 5))])
    estimator = GaussianMixture(10, covariance_type=covariance_type, reg_covar=0.0, random_state=0)
    message = (
        "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance caused by "
        "singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale the input data."
    )
    with pytest.raises(CollapsedComponent, match=re.escape(message)) as caught:
        estimator.fit(X)
    assert isinstance(caught.value, ValueError)
    assert "rows' worth of data" in str(caught.value)
    assert np.isfinite(estimator.set_params(reg_covar=1e-6).fit(X).score(X))


def test_a_fit_that_fails_leaves_the_estimator_as_it_was():
    X = blobs()
    estimator = GaussianMixture(3, random_state=0).fit(X)
    before = {name: getattr(estimator, name) for name in vars(estimator)}
    with pytest.raises(ValueError, match="ill-defined"):
        estimator.set_params(reg_covar=0.0).fit(np.ones((20, 4)))
    after = dict(vars(estimator), reg_covar=before["reg_covar"])
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


BAD = [
    ({"weights_init": [[0.5], [0.5]]}, "The parameter 'weights' should have the shape of (2,), but got (2, 1)"),
    (
        {"weights_init": [1.5, 1.25]},
        "The parameter 'weights' should be in the range [0, 1], but got max value 1.25000, min value 1.50000",
    ),
    ({"weights_init": [0.2, 0.2]}, "The parameter 'weights' should be normalized, but got sum(weights) = 0.40000"),
    ({"means_init": np.zeros((3, 2))}, "The parameter 'means' should have the shape of (2, 2), but got (3, 2)"),
    ({"precisions_init": np.ones((3, 2, 2))}, "The parameter 'full precision' should have the shape of (2, 2, 2)"),
    ({"precisions_init": np.array([np.eye(2), -np.eye(2)])}, "'full precision' should be symmetric, positive-definite"),
    ({"covariance_type": "diag", "precisions_init": -np.ones((2, 2))}, "'diag precision' should be positive"),
    ({"n_components": 0}, "The 'n_components' parameter of GaussianMixture must be an int in the range [1, inf). Got 0 instead."),
    ({"tol": -1.0}, "The 'tol' parameter of GaussianMixture must be a float in the range [0.0, inf). Got -1.0 instead."),
    ({"covariance_type": "round"}, "The 'covariance_type' parameter of GaussianMixture must be a str among"),
    ({"init_params": "guess"}, "The 'init_params' parameter of GaussianMixture must be a str among"),
    ({"n_threads": 0}, "The 'n_threads' parameter of GaussianMixture must be"),
    ({"n_components": 99}, "Expected n_samples >= n_components but got n_components = 99, n_samples = 60"),
]


@pytest.mark.parametrize(("parameters", "message"), BAD)
def test_an_unusable_parameter_is_named_when_fitting_and_not_before(parameters, message):
    estimator = GaussianMixture(**{"n_components": 2, **parameters})
    with pytest.raises(ValueError, match=re.escape(message)):
        estimator.fit(blobs(n=60))


def test_using_it_unfitted_says_so():
    message = (
        "This GaussianMixture instance is not fitted yet. Call 'fit' with appropriate arguments before using this estimator."
    )
    for method in ("predict", "predict_proba", "score", "score_samples", "bic"):
        with pytest.raises(NotFittedError, match=re.escape(message)):
            getattr(GaussianMixture(), method)(np.zeros((2, 2)))
    with pytest.raises(NotFittedError, match="not fitted"):
        GaussianMixture().sample()


def test_asking_for_no_samples_is_an_error():
    with pytest.raises(ValueError, match="Invalid value for 'n_samples'"):
        GaussianMixture().fit(blobs()).sample(0)


def test_weight_two_is_the_row_twice():
    X = blobs(apart=2.0)
    weight = np.random.default_rng(1).integers(0, 4, len(X))
    start = given_start(X, "full")
    weighted = GaussianMixture(**start).fit(X, sample_weight=weight)
    repeated = GaussianMixture(**start).fit(np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-10)
    assert weighted.lower_bound_ == pytest.approx(repeated.lower_bound_, rel=1e-12)


@pytest.mark.parametrize("start", THEIR_STARTS + OUR_STARTS)
def test_every_start_takes_weights(start):
    X = blobs()
    weight = np.where(X[:, 0] > 2.0, 1.0, 0.0)
    fitted = GaussianMixture(2, init_params=start, random_state=0, max_iter=200).fit(X, sample_weight=weight)
    assert fitted.means_[:, 0].min() > 2.0


def test_weights_are_routed_to_fit():
    import sklearn

    X, weight = blobs(), np.ones(300)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), GaussianMixture(3, random_state=0).set_fit_request(sample_weight=True))
        pipeline[0].set_fit_request(sample_weight=False)
        pipeline.fit(X, sample_weight=weight)


def test_it_works_where_estimators_work():
    X = blobs()
    search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 3], "covariance_type": TYPES}).fit(X)
    assert search.best_params_["n_components"] == 3
    assert np.isfinite(cross_val_score(GaussianMixture(3, random_state=0), X)).all()
    assert make_pipeline(StandardScaler(), GaussianMixture(3)).fit(X).predict(X).shape == (300,)


def test_it_clones_and_pickles():
    X = blobs()
    fitted = GaussianMixture(3, random_state=0).fit(X)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(again.fit_.trace, fitted.fit_.trace)
    assert clone(fitted).get_params() == fitted.get_params()


@pytest.mark.parametrize("covariance_type", TYPES)
def test_to_scikit_learn_and_back_gives_the_same_answers(covariance_type):
    X = blobs()
    ours = GaussianMixture(3, covariance_type=covariance_type, init_params="emfuse-kmeans", random_state=0).fit(X)
    theirs = ours.to_sklearn()
    back = GaussianMixture.from_sklearn(theirs)
    assert type(theirs) is Theirs
    np.testing.assert_allclose(theirs.score_samples(X), ours.score_samples(X), rtol=1e-10)
    np.testing.assert_array_equal(back.score_samples(X), ours.score_samples(X))
    assert back.lower_bound_ == theirs.lower_bound_ == ours.lower_bound_


def test_feature_names_are_kept_and_checked():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(blobs(), columns=["a", "b"])
    fitted = GaussianMixture(3).fit(X)
    assert list(fitted.feature_names_in_) == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(X.rename(columns={"a": "c"}))


def test_verbose_speaks_scikit_learns_words_on_stdout(capsys):
    X = blobs()
    arguments = dict(n_components=3, random_state=0, n_init=2, max_iter=6, tol=0.0, verbose=1, verbose_interval=2)
    Theirs(**arguments).fit(X)
    theirs = capsys.readouterr().out
    GaussianMixture(**arguments).fit(X)
    assert capsys.readouterr().out == theirs
    for cls in (Theirs, GaussianMixture):
        cls(**{**arguments, "verbose": 2}).fit(X)
    theirs, ours = re.split(r"(?=Initialization 0)", re.sub(r"time lapse [\d.]+s", "", capsys.readouterr().out))[1:]
    assert ours == theirs


def test_the_callback_sees_every_sweep_and_can_stop():
    seen = []
    estimator = GaussianMixture(
        3, random_state=0, tol=0.0, callback=lambda progress: seen.append(progress.sweep) or progress.sweep == 4
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(blobs())
    assert seen == [0, 1, 2, 3, 4]
    assert estimator.n_iter_ == 4
    assert not estimator.converged_


def test_the_number_of_threads_cannot_be_seen_in_the_result():
    X = blobs(n=60_000, D=4)
    fits = [GaussianMixture(3, random_state=0, n_threads=threads, max_iter=5).fit(X) for threads in (1, 2, 3, 8)]
    for other in fits[1:]:
        for name in MODEL:
            np.testing.assert_array_equal(getattr(other, name), getattr(fits[0], name))


def test_scikit_learns_mixture_code_is_not_called(monkeypatch):
    import sklearn.mixture._base as base
    import sklearn.mixture._gaussian_mixture as module

    def forbidden(*args, **kwargs):
        raise AssertionError("scikit-learn's mixture code was called")

    for name in ("_estimate_gaussian_parameters", "_compute_precision_cholesky", "_estimate_log_gaussian_prob"):
        monkeypatch.setattr(module, name, forbidden)
    monkeypatch.setattr(base.BaseMixture, "fit_predict", forbidden)
    assert GaussianMixture(3, random_state=0).fit(blobs()).converged_
    assert emfuse.GaussianMixture is GaussianMixture


def test_acceleration_reaches_the_maximum_where_plain_em_stops_short():
    """With the same tolerance an accelerated fit ends higher, and its bounds never fall; with reg_covar it is an error."""
    random = np.random.default_rng(0)
    X = np.concatenate([random.normal(0.0, 1.0, 2000), random.normal(1.5, 1.0, 2000)])[:, None]
    plain, fast = (
        GaussianMixture(2, reg_covar=0.0, tol=1e-7, max_iter=300, random_state=0, acceleration=how).fit(X)
        for how in (None, "auto")
    )
    assert fast.score(X) > plain.score(X) + 1e-5
    assert np.diff(fast.lower_bounds_).min() > -1e-12
    with pytest.raises(ValueError, match="acceleration must be None where reg_covar is above 0"):
        GaussianMixture(2, acceleration="emqn").fit(X)


@pytest.mark.parametrize("covariance_type", ["EII", "VEI", "EEE", "EVI", "VEE", "VVE", "EEV", "EVV"])
def test_mclusts_structures_are_covariance_types(covariance_type):
    """They fit, predict, sample, count parameters, and go to scikit-learn with the same answers."""
    X = blobs()
    ours = GaussianMixture(3, covariance_type=covariance_type, random_state=0, reg_covar=0.0).fit(X)
    again = emfuse.em(X, ours.fit_.parameters, stop=0)
    assert ours.score(X) * len(X) == pytest.approx(again.log_likelihood, rel=1e-12)
    assert ours.bic(X) == pytest.approx(again.bic, rel=1e-12)
    assert ours.covariances_.shape == ours.precisions_.shape == again.parameters.covariances.shape
    theirs = ours.to_sklearn()
    np.testing.assert_allclose(theirs.score_samples(X), ours.score_samples(X), rtol=1e-9)
    np.testing.assert_array_equal(theirs.predict(X), ours.predict(X))
    assert ours.sample(5)[0].shape == (5, 2)


def test_constraints_hold_in_the_drop_in():
    """Fixed and linked parameters; the number of free ones is counted without them; a clone has them too."""
    X = blobs()
    constraints = emfuse.Constraints(means=[[0.0, 0.0], None, None], covariances=["a", "a", "a"])
    ours = clone(GaussianMixture(3, constraints=constraints, random_state=0)).fit(X)
    np.testing.assert_array_equal(ours.means_[0], 0.0)
    np.testing.assert_array_equal(ours.covariances_[0], ours.covariances_[2])
    assert ours._n_parameters() == 2 + 4 + 3 == ours.fit_.free_parameters


# ------------------------------------------------------------------ partial_fit


def test_partial_fit_follows_a_stream_and_has_the_attributes_of_fit():
    """Thirty batches: as an `OnlineEM` from the same start goes, and near to what all rows at once say."""
    X = np.random.default_rng(3).permutation(blobs(n=6000, apart=6.0))
    estimator = GaussianMixture(3, random_state=0)
    for batch in np.split(X, 30):
        assert estimator.partial_fit(batch) is estimator
    start = GaussianMixture(3, random_state=0, max_iter=0).fit(X[:200])
    online = emfuse.OnlineEM(start._current_parameters(), reg_covar=1e-6)
    for batch in np.split(X, 30):
        online.add(batch)
    np.testing.assert_allclose(estimator.means_, online.parameters.means, rtol=1e-12)  # the start's factors are made again
    assert (estimator.n_iter_, estimator.converged_, len(estimator.lower_bounds_)) == (30, False, 30)
    assert estimator.lower_bound_ == estimator.lower_bounds_[-1] == estimator.online_.log_likelihood
    assert estimator.n_features_in_ == 2 and estimator.fit_ is None and estimator.history_ is None
    whole = GaussianMixture(3, random_state=0).fit(X)
    gamma, p = 30.0**-0.6, estimator._n_parameters()
    assert whole.score(X) - estimator.score(X) < 3.0 * gamma * p / (4 * 200)  # three times what theory has on average
    np.testing.assert_array_equal(estimator.to_sklearn().predict(X), estimator.predict(X))


def test_partial_fit_begins_from_rows_enough_and_then_takes_any():
    """K of them at least, then even one; fewer, and other features, are refused in scikit-learn's words."""
    X = blobs()
    with pytest.raises(ValueError, match="Expected n_samples >= n_components but got n_components = 3, n_samples = 2"):
        GaussianMixture(3).partial_fit(X[:2])
    estimator = GaussianMixture(3, random_state=0).partial_fit(X[:3])
    assert estimator.partial_fit(X[3:4]).n_iter_ == 2
    with pytest.raises(ValueError, match="X has 1 features, but GaussianMixture is expecting 2 features as input"):
        estimator.partial_fit(X[:, :1])


def test_a_batch_that_fails_leaves_the_estimator_as_it_was():
    """Attributes and what they hold; the next batch goes on."""
    X = blobs()
    estimator, other = (GaussianMixture(3, random_state=0).partial_fit(X[:100]) for _ in range(2))
    before = dict(vars(estimator))
    with pytest.raises(ValueError, match="NaN"):
        estimator.partial_fit(np.full((5, 2), np.nan))
    with pytest.raises(ValueError, match="every weight is zero"):
        estimator.partial_fit(X[:5], sample_weight=np.zeros(5))
    assert vars(estimator).keys() == before.keys() and all(vars(estimator)[name] is before[name] for name in before)
    np.testing.assert_array_equal(estimator.partial_fit(X[100:]).means_, other.partial_fit(X[100:]).means_)
    fresh = GaussianMixture(3)
    with pytest.raises(ValueError, match="NaN"):
        fresh.partial_fit(np.full((5, 2), np.nan))
    assert not [name for name in vars(fresh) if name.endswith("_")]


def test_partial_fit_goes_on_from_a_fit_whose_rows_count():
    """Ten rows after ten thousand: a step of 1001^-0.6, seen in the weights; after arrays alone, new rows are all there is."""
    X = blobs(n=10_000, apart=6.0)
    estimator = GaussianMixture(3, random_state=0, reg_covar=0.0).fit(X)
    fitted, new = estimator.fit_, X[:10]
    share = emfuse.InMemory(new).sweep(fitted.parameters.factors).mass / 10.0
    gamma = 1001.0**-0.6
    expected = (1 - gamma) * fitted.statistics.mass / 10_000.0 + gamma * share
    np.testing.assert_allclose(estimator.partial_fit(new).weights_, expected, rtol=1e-12)
    theirs = GaussianMixture.from_sklearn(Theirs(3, random_state=0).fit(X)).partial_fit(X)
    np.testing.assert_allclose(theirs.online_.statistics.mass, theirs.weights_, rtol=1e-12)


def test_fit_after_partial_fit_begins_anew():
    """Nothing of the stream is left."""
    X = blobs()
    estimator = GaussianMixture(3, random_state=0).partial_fit(X[:50]).fit(X)
    np.testing.assert_array_equal(estimator.means_, GaussianMixture(3, random_state=0).fit(X).means_)
    assert not hasattr(estimator, "online_") and estimator.fit_.converged


def test_partial_fit_pickles_and_goes_on():
    """In another process, for one."""
    X = blobs()
    estimator = GaussianMixture(3, random_state=0).partial_fit(X[:150])
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_allclose(again.partial_fit(X[150:]).means_, estimator.partial_fit(X[150:]).means_, rtol=1e-12)


def test_partial_fit_takes_names_weights_and_constraints():
    """As `fit` takes them."""
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(blobs(), columns=["a", "b"])
    constraints = emfuse.Constraints(means=[[0.0, 0.0], None, None])
    estimator = GaussianMixture(3, random_state=0, constraints=constraints, reg_covar=0.0).partial_fit(X[:150])
    assert list(estimator.feature_names_in_) == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        estimator.partial_fit(X.rename(columns={"a": "c"}))
    estimator.partial_fit(X[150:], sample_weight=np.full(150, 2.0))
    np.testing.assert_array_equal(estimator.means_[0], 0.0)
    assert estimator.online_.weight == 150 + 2 * 150


# ------------------------------------------------------------------ data beyond arrays

SOURCES = ["npy", "Blocks", "engine", "Arrow", "Parquet", "HDF5", "dask array", "dask frame"]


@pytest.fixture
def source(request, tmp_path):
    """The rows of `blobs(n=900, D=3)` as another thing, named by the test's parameter."""
    X, kind = blobs(n=900, D=3), request.param
    if kind == "npy":
        np.save(tmp_path / "rows.npy", X)
        return X, tmp_path / "rows.npy"
    if kind == "Blocks":
        return X, emfuse.Blocks(np.array_split(X, 4))
    if kind == "engine":
        return X, emfuse.InMemory(X)
    if kind in ("Arrow", "Parquet"):
        pyarrow = pytest.importorskip("pyarrow", reason="Arrow and Parquet are read with pyarrow")
        table = pyarrow.table(dict(zip("abc", X.T, strict=True)))
        if kind == "Arrow":
            return X, table
        pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "rows.parquet", row_group_size=200)
        return X, str(tmp_path / "*.parquet")
    if kind == "HDF5":
        h5py = pytest.importorskip("h5py", reason="HDF5 is read with h5py")
        file = h5py.File(tmp_path / "rows.h5", "w")
        request.addfinalizer(file.close)
        return X, file.create_dataset("rows", data=X, chunks=(100, 3))
    array = pytest.importorskip("dask.array", reason="partitions are made with dask").from_array(X, chunks=(400, 3))
    if kind == "dask array":
        return X, array
    return X, pytest.importorskip("dask.dataframe").from_dask_array(array, columns=["a", "b", "c"])


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("source", SOURCES, indirect=True)
def test_what_emfuse_fits_the_estimator_fits(source):
    """From the same start the same mixture as of the array, to 1e-10, and the same answers; of Dask lazily."""
    X, rows = source
    start = given_start(X, "full")
    here, there = (GaussianMixture(**start, max_iter=30).fit(data) for data in (X, rows))
    for name in MODEL:
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-10, atol=1e-10)
    assert there.n_features_in_ == 3 and there.n_iter_ == here.n_iter_
    lazily = hasattr(rows, "__dask_graph__")
    for name in ("predict", "predict_proba", "score_samples"):
        made, expected = getattr(there, name)(rows), getattr(there, name)(X)
        assert hasattr(made, "__dask_graph__") == lazily
        np.testing.assert_array_equal(np.asarray(made), expected)
    assert there.score(rows) == pytest.approx(there.score(X), rel=1e-13)
    assert there.bic(rows) == pytest.approx(there.bic(X), rel=1e-13)
    assert there.aic(rows) == pytest.approx(there.aic(X), rel=1e-13)
    labels = GaussianMixture(**start, max_iter=30).fit_predict(rows)
    np.testing.assert_array_equal(np.asarray(labels), there.predict(X))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("source", ["Arrow", "Parquet", "dask frame"], indirect=True)
def test_names_of_columns_are_kept_and_checked(source, tmp_path):
    """As of a data frame; a source without names is taken as it is."""
    X, rows = source
    estimator = GaussianMixture(3, random_state=0).fit(rows)
    assert estimator.feature_names_in_.tolist() == ["a", "b", "c"]
    pyarrow = pytest.importorskip("pyarrow")
    other = pyarrow.table({"c": X[:, 2], "b": X[:, 1], "a": X[:, 0]})
    with pytest.raises(ValueError, match=r"The feature names should match .*\['a', 'b', 'c'\], got \['c', 'b', 'a'\]"):
        estimator.predict(other)
    np.testing.assert_array_equal(
        estimator.predict(emfuse.Blocks.of(other, columns=["a", "b", "c"])), estimator.predict(X.copy())
    )
    np.save(tmp_path / "rows.npy", X)
    assert not hasattr(estimator.fit(tmp_path / "rows.npy"), "feature_names_in_")


@pytest.mark.parametrize("start", THEIR_STARTS + OUR_STARTS)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_every_start_is_made_from_a_sample_of_a_file(start, covariance_type, tmp_path, monkeypatch):
    """Of 300 of 2,000 rows here; the same seed gives the same fit, and every cluster is found."""
    monkeypatch.setattr(emfuse.initialise, "MOST_SAMPLE", 300)
    X = blobs(n=2_000, apart=8.0, seed=4)
    np.save(tmp_path / "rows.npy", X)
    how = dict(n_components=3, covariance_type=covariance_type, init_params=start, random_state=1, max_iter=300)
    one, other = (GaussianMixture(**how).fit(tmp_path / "rows.npy") for _ in range(2))
    np.testing.assert_array_equal(one.means_, other.means_)
    assert one.means_.dtype == np.float64
    if start in ("kmeans", "emfuse-kmeans"):
        np.testing.assert_allclose(np.sort(one.means_[:, 0]), [0.0, 8.0, 16.0], atol=0.5)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_weights_come_with_the_source(tmp_path):
    """By the name of a column, or in the blocks; scores count them."""
    pyarrow = pytest.importorskip("pyarrow", reason="a table is made with pyarrow")
    X, v = blobs(), np.random.default_rng(0).integers(0, 3, 300).astype(float)
    table = pyarrow.table({"a": X[:, 0], "b": X[:, 1], "v": v})
    start = given_start(X, "full")
    here, there = GaussianMixture(**start).fit(X, sample_weight=v), GaussianMixture(**start).fit(table, sample_weight="v")
    np.testing.assert_allclose(there.means_, here.means_, rtol=1e-10)
    blocks = emfuse.Blocks.of(table, weights="v")
    assert there.score(blocks) == pytest.approx(there.score_samples(X) @ v / v.sum(), rel=1e-12)
    assert there.bic(blocks) == pytest.approx(there.fit_.bic, rel=1e-12)


def test_what_cannot_be_read_twice_is_sent_to_partial_fit():
    """An iterator; and what has no rows to give is refused where rows are asked for."""
    X = blobs()
    with pytest.raises(TypeError, match=r"can be read only once, and EM needs many passes.*`GaussianMixture\.partial_fit`"):
        GaussianMixture(2).fit(iter([X]))
    histogram = emfuse.Binned([0.0, 1.0, 2.0, 3.0], [30, 40, 10])
    with pytest.raises(TypeError, match="or an engine that can draw a `sample` of them, got Binned"):
        GaussianMixture(1).fit(histogram)
    fitted = GaussianMixture(1, weights_init=[1.0], means_init=[[1.0]], precisions_init=[[[1.0]]]).fit(histogram)
    assert fitted.score(histogram) == pytest.approx(fitted.fit_.log_likelihood / 80, rel=1e-12)
    with pytest.raises(TypeError, match="X must be rows, got a Binned"):
        fitted.predict(histogram)


def test_a_source_that_fails_leaves_the_estimator_as_it_was(tmp_path):
    """A file that is missing, of other features, of too few rows, with a NaN."""
    X = blobs()
    estimator = GaussianMixture(3, random_state=0).fit(X)
    before = dict(vars(estimator))
    np.save(tmp_path / "few.npy", X[:2])
    np.save(tmp_path / "wide.npy", blobs(D=5))
    np.save(tmp_path / "nan.npy", np.where(np.arange(300)[:, None] == 7, np.nan, X))
    for run, error, words in [
        (lambda: estimator.fit(tmp_path / "none.npy"), FileNotFoundError, "none.npy"),
        (lambda: estimator.fit(tmp_path / "few.npy"), ValueError, "n_components = 3, n_samples = 2"),
        (lambda: estimator.fit(tmp_path / "nan.npy"), ValueError, "in row 7, feature 0; .*nan.npy"),
        (lambda: estimator.predict(tmp_path / "wide.npy"), ValueError, "X has 5 features, but GaussianMixture is expecting 2"),
        (lambda: estimator.score(tmp_path / "wide.npy"), ValueError, "X has 5 features, but GaussianMixture is expecting 2"),
    ]:
        with pytest.raises(error, match=words):
            run()
        assert vars(estimator).keys() == before.keys() and all(vars(estimator)[name] is before[name] for name in before)
    with pytest.raises(NotFittedError):
        GaussianMixture().predict(tmp_path / "wide.npy")
