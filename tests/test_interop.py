"""Other people's formats: data frames of pandas and polars in, pickles, joblib's files, and ONNX by way of scikit-learn."""

import copy
import io
import pickle

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

import emfuse

NAMES = ["sepal length", "sepal width", "petal length", "petal width"]
X, SPECIES = load_iris(return_X_y=True)


@pytest.fixture(params=["pandas", "polars"])
def frame(request):
    """Function that makes a data frame of columns."""
    return pytest.importorskip(request.param).DataFrame


@pytest.fixture
def flowers(frame):
    return frame(dict(zip(NAMES, X.T, strict=True)))


# ------------------------------------------------------------------ data frames


def test_a_frame_is_the_array_that_it_holds(flowers):
    """Fits, selections, tests and evaluations of it are those of the array, to the last bit."""
    fit = emfuse.fit(X, 2)
    assert emfuse.fit(flowers, 2).parameters == fit.parameters
    assert emfuse.em(flowers, fit.parameters, stop=1).parameters == emfuse.em(X, fit.parameters, stop=1).parameters
    assert emfuse.select(flowers, 2, "diag").best.parameters == emfuse.select(X, 2, "diag").best.parameters
    one, other = (emfuse.bootstrap_lrt(rows, 1, structure="tied", n_resamples=3, n_init=1) for rows in (flowers, X))
    np.testing.assert_array_equal(one.null_statistics, other.null_statistics)
    np.testing.assert_array_equal(fit.predict_proba(flowers), fit.predict_proba(X))
    np.testing.assert_array_equal(fit.mixture.logpdf(flowers), fit.mixture.logpdf(X))


@pytest.mark.parametrize("estimator", [emfuse.GaussianMixture(2, random_state=0), emfuse.GaussianMixtureSelector(2)])
def test_estimators_keep_the_names_of_columns_and_look_at_them_again(flowers, estimator):
    """As scikit-learn's do. They have no `set_output`, which is for what transforms rows, and no mixture does."""
    fitted = estimator.fit(flowers)
    assert list(fitted.feature_names_in_) == NAMES
    np.testing.assert_array_equal(fitted.predict(flowers), estimator.fit(X).predict(X))
    fitted = estimator.fit(flowers)
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        fitted.predict(flowers[NAMES[::-1]])
    assert not hasattr(fitted, "set_output") and not hasattr(GaussianMixture, "set_output")


def test_tables_of_standard_errors_have_the_columns_names(flowers):
    """The numbers are the array's; the information and refits name the same."""
    fit = emfuse.fit(X, 2)
    named, numbered = fit.standard_errors(flowers), fit.standard_errors(X)
    np.testing.assert_array_equal(named.covariance, numbered.covariance)
    assert named.names[:3] == ("weight[0]", "mean[0,sepal length]", "mean[0,sepal width]")
    assert numbered.names[:3] == ("weight[0]", "mean[0,0]", "mean[0,1]")
    intervals = fit.standard_errors(flowers, method="weighted", n_resamples=5).confidence_intervals()
    rows = [row.name for row in intervals]
    assert "sd[1,petal width]" in rows and "correlation[0,petal width,sepal length]" in rows
    tied = emfuse.fit(X, 2, structure="tied").standard_errors(flowers).confidence_intervals()
    assert tied["sd[sepal width]"].se > 0.0


def test_many_fits_of_a_frame_are_keyed_by_a_column_or_by_keys_beside_it(frame):
    """The data sets in the order of their keys, whatever order the rows have; row weights go with their rows."""
    order = np.random.default_rng(0).permutation(len(X))
    mixed = frame({"petal length": X[order, 2], "petal width": X[order, 3], "species": SPECIES[order]})
    v = np.arange(len(X)) % 3 + 1.0
    of = [SPECIES[order] == s for s in range(3)]
    sets = [X[order][rows, 2:] for rows in of]
    expected, weighted = emfuse.fit_many(sets, 2), emfuse.fit_many(sets, 2, sample_weight=[v[rows] for rows in of])
    for made in (
        emfuse.fit_many(mixed, 2, by="species"),
        emfuse.fit_many(mixed[["petal length", "petal width"]], 2, by=SPECIES[order]),
        emfuse.fit_many(mixed, 2, by="species", columns=["petal length", "petal width"]),
    ):
        np.testing.assert_array_equal(made.means, expected.means)
        assert made.keys == [0, 1, 2] and made.features == ("petal length", "petal width")
        assert "mean_1_petal width" in made.as_frame().columns
    np.testing.assert_array_equal(emfuse.fit_many(mixed, 2, by="species", sample_weight=v).means, weighted.means)
    with pytest.raises(TypeError, match="by must say what the DataFrame is split by"):
        emfuse.fit_many(mixed, 2)
    with pytest.raises(ValueError, match="sample_weight must have one number a row, 150, got 7"):
        emfuse.fit_many(mixed, 2, by="species", sample_weight=np.ones(7))


# ------------------------------------------------------------------ copies


def through_pickle(thing):
    return pickle.loads(pickle.dumps(thing))


def through_joblib(thing):
    file = io.BytesIO()
    joblib.dump(thing, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("copied", [through_pickle, through_joblib, copy.deepcopy])
def test_whatever_comes_back_can_be_kept(copied):
    """A copy has the same parameters and says the same."""
    fit = emfuse.fit(X, 2, constraints=emfuse.Constraints(weights=[0.5, 0.5]))
    again = copied(fit)
    assert again.parameters == fit.parameters and again.free_parameters == fit.free_parameters
    np.testing.assert_array_equal(again.predict(X), fit.predict(X))
    assert copied(fit.mixture).equals(fit.mixture, 0.0)
    u = emfuse.fit(X, 2).standard_errors(X)
    np.testing.assert_array_equal(copied(u).covariance, u.covariance)
    assert str(copied(u)) == str(u) and str(copied(u.confidence_intervals())) == str(u.confidence_intervals())
    test = emfuse.bootstrap_lrt(X[:, 2], 1, n_resamples=3)
    assert str(copied(test)) == str(test) and copied(test).alternative.parameters == test.alternative.parameters
    many = emfuse.fit_many([X[:, 0], X[:1, 1], X[:, 2]], 2)
    assert copied(many)[2] == many[2] and copied(many).failures == many.failures
    chosen = emfuse.GaussianMixtureSelector(2).fit(X)
    assert copied(chosen).selection_.best.parameters == chosen.selection_.best.parameters
    np.testing.assert_array_equal(copied(chosen).predict_proba(X), chosen.predict_proba(X))


# ------------------------------------------------------------------ scikit-learn


def test_a_fit_is_an_estimator_and_scikit_learns_where_it_is_asked_for(flowers):
    """Public arrays and answers are the fit's own; scikit-learn's object gives the same ones but for rounding."""
    fit = emfuse.fit(flowers, 3, structure="tied")
    estimator = emfuse.GaussianMixture.from_fit(fit, random_state=0)
    assert estimator.fit_ is fit and estimator.converged_ and estimator.covariance_type == "tied"
    np.testing.assert_array_equal(estimator.means_, fit.parameters.means)
    np.testing.assert_array_equal(estimator.predict(X), fit.predict(X))
    assert estimator.bic(X) == pytest.approx(fit.bic, rel=1e-12)
    theirs = fit.to_sklearn()
    assert type(theirs).__module__.startswith("sklearn.mixture")
    # theirs subtracts whitened means from whitened rows: some eps of squares up to 1e4
    np.testing.assert_allclose(theirs.score_samples(X), fit.score_samples(X), atol=1e-10)
    np.testing.assert_array_equal(theirs.predict(X), fit.predict(X))
    assert emfuse.GaussianMixture.from_fit(fit, dtype=np.float32).means_.dtype == np.float32


# ------------------------------------------------------------------ ONNX


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_onnx_gives_the_same_answers_by_way_of_scikit_learn(covariance_type, dtype):
    """`to_sklearn()`, converted by skl2onnx and run by onnxruntime: labels, probabilities and log densities.

    In float32 the converted model's inner products round by 1e-7 of squares of whitened means and rows, up to 1e3 here.
    """
    skl2onnx, runtime = pytest.importorskip("skl2onnx"), pytest.importorskip("onnxruntime")
    ours = emfuse.GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X)
    theirs = ours.to_sklearn()
    model = skl2onnx.to_onnx(theirs, X[:1].astype(dtype), options={id(theirs): {"score_samples": True}})
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, probabilities, densities = session.run(None, {session.get_inputs()[0].name: X.astype(dtype)})
    within = 1e-3 if dtype == np.float32 else 1e-11
    np.testing.assert_array_equal(labels.ravel(), ours.predict(X))
    np.testing.assert_allclose(probabilities, ours.predict_proba(X), atol=within)
    np.testing.assert_allclose(densities.ravel(), ours.score_samples(X), atol=within)
