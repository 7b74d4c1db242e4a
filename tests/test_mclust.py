"""mclust's face: its tables from its own starts, its choices, and what a fit of it can be asked."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import emfuse
from emfuse import mclust, stopping
from emfuse.mclust import FOURTEEN, Mclust, hc, mclustBIC, mclustICL, me

REFERENCE = Path(__file__).parent / "reference"
NAMES = sorted(path.stem for path in (REFERENCE / "mclust_bic").glob("*.json"))
QUICK = ("EII", "VII", "EEI", "VVI", "EEE", "VVV")  # models whose M step is a line

each = pytest.mark.parametrize("name", NAMES)


@functools.cache
def reference(name):
    """Data (n, d), partitions of each G from 0, and what mclust says."""
    content = json.loads((REFERENCE / "mclust_bic" / f"{name}.json").read_text(encoding="utf-8"))
    path = REFERENCE / "data" / f"{content['dataset']}.csv"
    columns = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    partitions = {int(G): np.array(labels) - 1 for G, labels in content["start"]["partitions"].items()}
    return table[:, [columns.index(column) for column in content["columns"]]], partitions, content["expected"]


@functools.cache
def icl_of(name):
    """Our table of ICL, from mclust's partitions; its fits are those of the table of BIC, which is computed once."""
    X, partitions, expected = reference(name)
    return mclustICL(X, expected["bic_tight"]["G"], initialization=partitions)


@functools.cache
def bic_of(name):
    """Our table of BIC, from mclust's partitions."""
    table = icl_of(name)
    values = [[-table.fits[G, m].bic if (G, m) in table.fits else np.nan for m in table.models] for G in table.G]
    return mclust.MclustBIC(table.G, table.models, np.array(values), "BIC", table.fits, table.reasons)


def stated(name, kind):
    """A table of mclust's, (G, models); nan where it has none."""
    return np.array(reference(name)[2][kind]["values"], dtype=np.float64)


def blobs(n, d, seed=0):
    """Two groups, six standard deviations apart in each feature."""
    random = np.random.default_rng([seed, n, d])
    return random.standard_normal((n, d)) + 6.0 * (random.random((n, 1)) < 0.4)


# ------------------------------------------------------------------ mclust's own tables, from its own partitions

# What is higher than with mclust's tight stop by more than a millionth. VVE, because mclust's M step is wrong; the others,
# because it stops on a plateau, at a relative gain of 1e-10 or after 2,000 iterations.
HIGHER = {
    "airquality": [(G, "VVE") for G in range(2, 8)],
    "faithful": [(G, "VVE") for G in range(2, 10)] + [(7, "VEI")],
    "galaxies": [(5, "V"), (6, "V")],
    "iris4": [(G, "VVE") for G in (2, 3, 4, 6, 7, 8, 9)],
    "waiting": [(3, "V")],
}
# A plateau, on which the two components are nearly one: 98 higher, or the same, as our stop gets off it or does not.
PLATEAU = {"dax": [(2, "E")]}
# The wrong step of mclust's VVE happens to lead to a better maximum than the right one, from the same partition.
LOWER = {"iris4": [(5, "VVE")]}
# mclust refuses these, for its inner loop or its limits on singular matrices, and we do not.
OURS_ALONE = {"airquality": [(8, "VEE"), (9, "VEE")]}


def where(name, mask):
    table = bic_of(name)
    return [(table.G[r], table.models[c]) for c, r in np.argwhere(mask.T)]


def test_no_case_is_lost():
    """Seven data sets, and 420 fits of mclust's: what is missing would otherwise pass."""
    assert NAMES == ["acidity", "airquality", "dax", "faithful", "galaxies", "iris4", "waiting"]
    assert sum(int(np.isfinite(stated(name, "bic_tight")).sum()) for name in NAMES) == 420


@each
def test_no_fit_ends_below_mclusts(name):
    """With its default stop or its tight one: the same BIC to rounding, or a higher one; all are listed, and one is lower."""
    ours = bic_of(name).values
    for kind in ("bic_default", "bic_tight"):
        assert where(name, ours < stated(name, kind) - 1e-13 * np.abs(ours)) == LOWER.get(name, [])


@each
def test_fits_end_where_mclusts_do(name):
    """Its tight table, to a tenth of a millionth where the BIC is not higher; measured 6e-8."""
    ours, theirs = bic_of(name).values, stated(name, "bic_tight")
    plateau, lower = PLATEAU.get(name, []), LOWER.get(name, [])
    higher = where(name, ours > theirs + 1e-6 * np.abs(theirs))
    assert sorted(pair for pair in higher if pair not in plateau) == sorted(HIGHER.get(name, []))
    same = np.isfinite(theirs)
    for G, model in higher + lower:
        same[bic_of(name).G.index(G), bic_of(name).models.index(model)] = False
    np.testing.assert_allclose(ours[same], theirs[same], rtol=1e-7)


@each
def test_a_fit_that_collapses_is_nan_and_has_its_reason(name):
    """Where mclust has no number either, but for two; each reason is a sentence, and the others have a fit."""
    table, theirs = bic_of(name), stated(name, "bic_tight")
    ours_alone = OURS_ALONE.get(name, [])
    assert where(name, np.isfinite(table.values) & np.isnan(theirs)) == ours_alone
    assert where(name, np.isnan(table.values)) == [pair for pair in where(name, np.isnan(theirs)) if pair not in ours_alone]
    assert set(where(name, np.isnan(table.values))) == set(table.reasons)
    assert all("has collapsed" in reason for reason in table.reasons.values())
    assert set(where(name, np.isfinite(table.values))) == set(table.fits)


@each
def test_parameters_are_counted_as_by_mclust(name):
    """Covariance parameters, G d means and G - 1 weights."""
    table, counts = bic_of(name), reference(name)[2]["n_params"]
    for (G, model), fit in table.fits.items():
        assert fit.free_parameters == counts[table.G.index(G)][table.models.index(model)]


@each
@pytest.mark.parametrize(("kind", "of"), [("bic", bic_of), ("icl", icl_of)])
def test_the_same_model_wins(name, kind, of):
    """By BIC and by ICL, unless a fit that ends higher than mclust's now wins: by ICL, dax may have two components and not one.

    One component is called X, whatever the model.
    """
    best = reference(name)[2][f"best_{kind}_tight"]
    model, G, value = of(name).top(1)[0]
    if (G, model) in HIGHER.get(name, []) + PLATEAU.get(name, []):
        assert value > best["value"] + 1e-6 * abs(best["value"])
    else:
        assert (model, G) == ("X" if best["G"] == 1 else best["model"], best["G"])
        assert value == pytest.approx(best["value"], rel=1e-6)


@each
def test_icl_is_mclusts(name):
    """Where the BIC is the same: to 5e-4, measured 2.4e-4.

    ICL is not at its own maximum there, so that it moves with the root of what is left of the likelihood's.
    """
    bic, theirs = bic_of(name).values, stated(name, "bic_tight")
    same = np.abs(bic - theirs) <= 1e-6 * np.abs(theirs)
    icl = stated(name, "icl_tight")[same]
    off = np.abs(icl_of(name).values[same] / icl - 1.0)
    assert off.max() < 5e-4


@each
def test_traces_never_fall(name):
    """The plain steps and the longer ones after them make one trace, that ends at the log-likelihood."""
    for fit in bic_of(name).fits.values():
        assert fit.trace[-1] == fit.log_likelihood and fit.converged
        assert np.diff(fit.trace).min(initial=0.0) >= -1e-12 * np.abs(fit.trace).max()
        assert len(fit.trace) <= fit.sweeps


# ------------------------------------------------------------------ the default call


@each
def test_default_starts_are_mclusts_partitions(name):
    """Not given any, the same bits come out, for models whose M step is a line; test_hierarchical.py has the partitions."""
    X, _, expected = reference(name)
    models = QUICK if X.shape[1] > 1 else None
    default, given = mclustBIC(X, expected["bic_tight"]["G"], models), bic_of(name)
    for column, model in enumerate(default.models):
        np.testing.assert_array_equal(default.values[:, column], given.values[:, given.models.index(model)])


def test_iris_end_to_end():
    """Mclust(iris, G=1:4): VEV with two components, as in mclust's papers, one of them setosa."""
    made = Mclust(reference("iris4")[0], range(1, 5))
    assert made.BIC.models == FOURTEEN and made.BIC.G == (1, 2, 3, 4)
    assert (made.model_name, made.G, made.n, made.d, made.df) == ("VEV", 2, 150, 4, 26)
    assert made.bic == pytest.approx(-561.7284, abs=1e-4) and made.loglik == pytest.approx(-215.7260, abs=1e-4)
    np.testing.assert_array_equal(made.classification, np.repeat([0, 1], [50, 100]))


@pytest.mark.parametrize(("name", "best"), [("acidity", "E,2"), ("dax", "V,3"), ("galaxies", "V,4"), ("waiting", "E,2")])
def test_one_feature_end_to_end(name, best):
    """Mclust(data) as it is: mclust's choice."""
    made = Mclust(reference(name)[0])
    assert f"{made.model_name},{made.G}" == best and made.BIC.models == ("E", "V")


@pytest.mark.parametrize(("name", "model", "G"), [("airquality", "EVI", 3), ("faithful", "EEE", 3), ("iris4", "VEV", 2)])
def test_the_choice_is_mclusts(name, model, G):
    """From a table that is there; the default starts are the ones it was made from."""
    made = Mclust(reference(name)[0], x=bic_of(name))
    assert (made.model_name, made.G) == (model, G)


@pytest.mark.parametrize(
    ("name", "loglik", "df", "bic", "counts"),
    [
        ("faithful", -1126.326, 11, -2314.316, (40, 97, 135)),
        ("iris4", -215.726, 26, -561.7285, (50, 100)),
        ("acidity", -185.9493, 4, -392.0723, (98, 57)),
    ],
)
def test_published_summaries_are_found_again(name, loglik, df, bic, counts):
    """summary(Mclust(data)) as mclust 6 prints it; of faithful it stops, by its default, 0.01 nats below the maximum.

    There three rows between two components then change sides.
    """
    made = Mclust(reference(name)[0], x=bic_of(name))
    assert made.df == df
    assert made.loglik == pytest.approx(loglik, abs=0.011 if name == "faithful" else 6e-4) and made.loglik > loglik - 6e-4
    assert made.bic == pytest.approx(bic, abs=0.022 if name == "faithful" else 6e-4)
    np.testing.assert_allclose(np.bincount(made.classification), counts, atol=3 if name == "faithful" else 0)


@each
def test_what_comes_back_belongs_together(name):
    """Criteria, responsibilities, labels and parameters are those of one fit."""
    X = reference(name)[0]
    made = Mclust(X, x=bic_of(name))
    assert made.bic == 2 * made.loglik - made.df * np.log(made.n) == made.BIC[made.G, made.model_name]
    assert made.icl == pytest.approx(made.bic + 2 * np.log(made.z.max(axis=1)).sum(), rel=1e-15)
    assert made.icl == pytest.approx(icl_of(name)[made.G, made.model_name], rel=1e-14)
    assert made.parameters is made.fit.parameters and made.parameters.n_components == made.G
    np.testing.assert_allclose(made.z.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_array_equal(made.classification, made.z.argmax(axis=1))
    np.testing.assert_array_equal(made.uncertainty, 1.0 - made.z.max(axis=1))
    assert made.fit.score_samples(X).sum() == pytest.approx(made.loglik, rel=1e-13)


@pytest.mark.parametrize("d", [1, 3])
def test_one_component_is_a_gaussian(d):
    """Models differ in the shape alone, and are called X, XII, XXI and XXX; the log-likelihood is that of mean and covariance."""
    X = blobs(60, d)
    made, names = Mclust(X, 1), ("X",) if d == 1 else ("XII", "XXI", "XXX")
    C = np.atleast_2d(np.cov(X.T, bias=True))
    by_model = {"XII": np.eye(d) * np.trace(C) / d, "XXI": np.diag(np.diag(C))}
    for name, G, value in made.BIC.top(5):
        S = by_model.get(name, C)
        p = d + {"XII": 1, "XXI": d}.get(name, d * (d + 1) // 2)
        log_likelihood = -0.5 * len(X) * (d * np.log(2 * np.pi) + np.linalg.slogdet(S)[1] + np.trace(np.linalg.solve(S, C)))
        assert G == 1 and value == pytest.approx(2 * log_likelihood - p * np.log(len(X)), rel=1e-13)
    assert {name for name, _, _ in made.BIC.top(5)} == set(names)
    np.testing.assert_array_equal(made.classification, np.zeros(60))
    np.testing.assert_array_equal(made.uncertainty, np.zeros(60))


def test_no_more_rows_than_features_leave_six_models():
    """Those without an orientation, from Ward's clusters; with a row more all fourteen are tried."""
    assert mclustBIC(blobs(6, 6), [1, 2]).models == ("EII", "VII", "EEI", "VEI", "EVI", "VVI")
    assert mclustBIC(blobs(7, 6), 1).models == FOURTEEN
    assert Mclust(blobs(20, 30), [1, 2, 3], "EII").G == 2


def test_of_many_rows_some_are_drawn_for_the_start(monkeypatch):
    """The same ones every time, or those of a seed; EM then has all rows."""
    monkeypatch.setattr(mclust, "MOST_ROWS", 100)
    X = blobs(1000, 2)
    made, again = Mclust(X, [1, 2], ("EII", "EEE")), Mclust(X, [1, 2], ("EII", "EEE"), random_state=3)
    assert (made.model_name, made.G, made.n) == ("EII", 2, 1000)
    np.testing.assert_array_equal(Mclust(X, 2, "EII").z, made.z)
    np.testing.assert_allclose(again.z[:, again.classification[:1]], made.z[:, made.classification[:1]], atol=1e-4)


@pytest.mark.parametrize("rows", [80, 3000])
def test_the_number_of_threads_cannot_be_seen(rows, monkeypatch):
    """To the last bit."""
    monkeypatch.setattr(mclust, "MOST_ROWS", 100)
    X = blobs(rows, 3)
    one, two = (mclustBIC(X, [1, 2, 3], QUICK, n_threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.values, two.values)


def test_a_tree_of_ones_own_is_where_fits_start():
    """initialization=hc(data), the default, or another tree."""
    X = reference("faithful")[0]
    np.testing.assert_array_equal(mclustBIC(X, [2, 4], QUICK, initialization=hc(X)).values, mclustBIC(X, [2, 4], QUICK).values)
    ward = mclustBIC(X, 4, "VVV", initialization=hc(X, model="EII")).fits[4, "VVV"].parameters
    assert ward == me(X, "VVV", mclust.hclass(hc(X, model="EII"), 4)).parameters


def test_rules_and_steps_of_ones_own():
    """An integer is that many M steps, plain EM where acceleration is None."""
    X, partitions, _ = reference("iris4")
    plain = mclustBIC(X, 3, "VVV", initialization=partitions, stop=5, acceleration=None).fits[3, "VVV"]
    start = emfuse.from_labels(X, partitions[3], "VVV")
    np.testing.assert_array_equal(plain.trace, emfuse.em(X, start, stop=5).trace)
    assert Mclust(X, 2, "VVV", acceleration=None).bic == pytest.approx(bic_of("iris4")[2, "VVV"], rel=1e-8)


# ------------------------------------------------------------------ me


@pytest.mark.parametrize("case", ["faithful_hc3", "iris4_species", "acidity_q3"])
def test_me_ends_where_mclusts_does(case):
    """From a partition, as labels or as responsibilities of 0 and 1, and not below."""
    content = json.loads((REFERENCE / "mclust_me" / f"{case}.json").read_text(encoding="utf-8"))
    name = {"faithful_hc3": "faithful", "iris4_species": "iris4", "acidity_q3": "acidity"}[case]
    X, labels = reference(name)[0], np.array(content["start"]["labels"]) - 1
    for model, said in content["expected"]["models"].items():
        made = me(X, model, labels)
        assert made.log_likelihood == pytest.approx(said["me"]["loglik"], rel=1e-7)
        assert made.log_likelihood >= said["me"]["loglik"] - 1e-9
        assert me(X, model, np.eye(labels.max() + 1)[labels]).parameters == made.parameters


@pytest.mark.parametrize("model", FOURTEEN)
def test_equal_proportions_end_where_exact_em_does(model):
    """equalPro=TRUE, which mclust computes wrongly for VVI, VEE, EVE, VVE and EVV: the exact answers, and no weights to count.

    iris from its species. Of the last iteration of the reference 1e-10 of the log-likelihood was gained.
    """
    content = json.loads((REFERENCE / "mclust_me" / "decomposed" / "iris4_species_equalpro.json").read_text(encoding="utf-8"))
    labels, said = np.array(content["start"]["labels"]) - 1, content["expected"]["models"][model]
    made = me(reference("iris4")[0], model, labels, equal_pro=True)
    np.testing.assert_allclose(made.parameters.weights, 1 / 3, rtol=1e-15)
    assert made.log_likelihood == pytest.approx(said["exact"]["me_loglik"], rel=1e-7)
    assert made.free_parameters == said["n_params"] - 2
    if said["mclust_wrong"]:
        assert abs(made.log_likelihood - said["me"]["loglik"]) > 0.1


def test_a_table_of_equal_proportions():
    """Mclust(equal_pro=True): one component is the same, and of several the weights are no parameters."""
    X = blobs(100, 2)
    free, equal = (Mclust(X, [1, 2], ("EII", "VVI"), equal_pro=equal_pro) for equal_pro in (False, True))
    np.testing.assert_array_equal(equal.BIC.values[0], free.BIC.values[0])
    np.testing.assert_array_equal(equal.parameters.weights, 0.5)
    assert (free.df, equal.df) == (6, 5) and equal.loglik < free.loglik


def test_me_goes_on_from_a_fit():
    """From its responsibilities it stays; names of one component are understood."""
    X = blobs(100, 2)
    made = Mclust(X, [1, 2], "VVI")
    assert me(X, made.model_name, made.z).log_likelihood == pytest.approx(made.loglik, rel=1e-9)
    one = Mclust(X, 1, "VVI")
    assert me(X, one.model_name, one.z).log_likelihood == pytest.approx(one.loglik, rel=1e-14)


# ------------------------------------------------------------------ what a fit can be asked


def test_the_summary_reads_as_mclusts():
    """Its text for `waiting`, with labels from 0."""
    made = Mclust(reference("waiting")[0], x=bic_of("waiting"))
    assert str(made) == made.summary()
    assert repr(made) == "'Mclust' model object: (E,2)"
    assert made.summary().splitlines() == [
        "-" * 52,
        "Gaussian finite mixture model fitted by EM algorithm",
        "-" * 52,
        "",
        "Mclust E (univariate, equal variance) model with 2 components:",
        "",
        "log-likelihood   n df       BIC       ICL",
        "     -1034.002 272  4 -2090.427 -2099.592",
        "",
        "Clustering table:",
        " 0   1",
        "99 173",
    ]


def test_a_table_reads_as_mclusts():
    """Numbers of components down, models across, NA where there is no fit, and the three best."""
    values = np.array([[-10.5, -10.5], [np.nan, -9.25], [-1000.0, -12.0]])
    table = mclust.MclustBIC((1, 2, 3), ("EEE", "VVV"), values)
    assert repr(table).splitlines() == [
        "Bayesian Information Criterion (BIC):",
        "         EEE      VVV",
        "1   -10.5000 -10.5000",
        "2         NA  -9.2500",
        "3 -1000.0000 -12.0000",
        "",
        "Top 3 models based on the BIC criterion:",
        "  VVV,2    XXX,1    VVV,3",
        "-9.2500 -10.5000 -12.0000",
    ]
    assert table[2, "VVV"] == -9.25 and np.isnan(table[2, "EEE"])
    with pytest.raises(KeyError):
        table[4, "VVV"]


def test_a_wide_table_is_cut_in_two():
    """Fourteen columns would not fit on a line of a terminal."""
    text = repr(bic_of("iris4"))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "VEV,2" in text and len(text.splitlines()) == 1 + 2 * 10 + 1 + 3
    assert repr(icl_of("iris4")).startswith("Integrated Complete-data Likelihood (ICL) criterion:")


def test_a_table_can_be_a_data_frame(monkeypatch):
    """With pandas; without, an error that says what to do."""
    pandas = pytest.importorskip("pandas")
    frame = bic_of("galaxies").as_frame()
    assert isinstance(frame, pandas.DataFrame) and frame.loc[4, "V"] == bic_of("galaxies")[4, "V"]
    assert frame.shape == (9, 2) and frame.index.name == "G"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="as_frame needs pandas: pip install pandas"):
        bic_of("galaxies").as_frame()


def test_other_rows_are_classified():
    """predict: labels and responsibilities; without rows, those of the data."""
    made = Mclust(blobs(100, 2), 2, "EEE")
    labels, z = made.predict([[0.0, 0.0], [6.0, 6.0]])
    np.testing.assert_array_equal(labels, z.argmax(axis=1))
    assert labels[0] != labels[1] and z.max(axis=1).min() > 0.999
    assert made.predict().classification is made.classification


def test_a_summary_has_parameters_where_asked():
    """Mixing probabilities, means with a column a component, and a matrix of variances for each; of one feature only lines."""
    made = Mclust([[1.0, 2.0], [3.0, 2.0], [1.0, 4.0], [3.0, 4.0]], 1, "VVI")
    said = "|Mixing probabilities:|0|1||Means:|  0|0 2|1 3||Variances:|[0]|  0 1|0 1 0|1 0 1"
    assert made.summary(parameters=True) == made.summary() + "\n" + said.replace("|", "\n")
    one = Mclust(reference("waiting")[0], x=bic_of("waiting")).summary(parameters=True)
    heads = "       0       1|54.61363 80.0903||Variances:|       0        1|34.44623 34.44623"
    assert one.endswith("Means:\n" + heads.replace("|", "\n"))


def test_a_table_is_summed_up_by_its_best():
    """summary(BIC): the best values and how far they are below the first."""
    table = mclust.MclustBIC((1, 2), ("EEE", "VVV"), np.array([[-10.5, -10.5], [np.nan, -9.25]]))
    assert table.summary().splitlines() == [
        "Best BIC values:",
        "           VVV,2    XXX,1",
        "BIC        -9.25    -10.5",
        "BIC diff 0.00000 -1.25000",
    ]


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("what", ["BIC", "classification", "uncertainty", "density"])
def test_mclusts_four_pictures_are_drawn(what, d):
    """By emfuse.plots; the table with the usual sign, of which the least is the best."""
    pytest.importorskip("matplotlib")
    made = Mclust(blobs(50, d), [1, 2], "E" if d == 1 else ("EEE", "VVV"))
    axes = made.plot(what)
    if what == "BIC":
        assert axes.get_ylabel() == "BIC (smaller is better)"
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), -made.BIC.values[:, 0])


@pytest.mark.parametrize(("d", "what"), [(1, "density"), (2, "classification"), (3, "classification")])
def test_the_picture_that_fits_is_drawn(d, what):
    """By emfuse.plots, which gets the options; another word is an error that names those there are."""
    pytest.importorskip("matplotlib")
    made = Mclust(blobs(50, d), 2, "E" if d == 1 else "EEE")
    names = ["length", "width", "height"][:d]
    for axes in (made.plot(names=names), made.plot(what, names=names)):
        assert axes.get_xlabel() == "length"
    with pytest.raises(
        ValueError, match="what must be 'BIC', 'classification', 'uncertainty', 'density' or None, got 'boundary'"
    ):
        made.plot("boundary")


# ------------------------------------------------------------------ edge


def test_lists_and_integers_are_data_too():
    """One feature as a list, G as one number, models as one name."""
    made = Mclust([1, 2, 3, 11, 12, 13], 2, "E")
    np.testing.assert_array_equal(made.classification, [0, 0, 0, 1, 1, 1])
    assert made.BIC.values.shape == (1, 1)


def test_numbers_and_names_are_taken_once():
    """In order, and repeated ones once."""
    table = mclustBIC(blobs(30, 2), [2, 1, 2], ["VVV", "EII", "VVV"])
    assert table.G == (1, 2) and table.models == ("VVV", "EII")


def test_more_components_than_rows_or_values_are_reasons():
    """Not errors: other numbers of components may do."""
    table = mclustBIC(blobs(5, 2), [1, 9], "EII")
    assert np.isnan(table[9, "EII"]) and table.reasons == {(9, "EII"): "there are 5 rows, fewer than 9 components"}
    table = mclustBIC([1.0, 1.0, 1.0, 2.0, 2.0, 2.0], [1, 4], "E")
    assert "number of different values, 2, got 4" in table.reasons[4, "E"]


@pytest.mark.parametrize("X", [np.ones((20, 2)), np.ones(20)])
def test_where_nothing_can_be_fitted_there_is_one_error(X):
    """A constant has no density: the error says how many fits there were, and why the first failed."""
    with pytest.raises(ValueError, match=r"none of \d+ fits succeeded; the first: .* has collapsed"):
        Mclust(X, [1, 2])
    assert np.isnan(mclustBIC(X, [1, 2]).values).all()
    assert "Top" not in repr(mclustBIC(X, [1, 2]))


def test_a_best_fit_that_has_not_converged_is_told(monkeypatch):
    """Only with the stop that is ours: with one of your own you know."""
    monkeypatch.setattr(stopping, "AT_MAXIMUM", stopping.SweepLimit(2))
    X = reference("faithful")[0]
    with pytest.warns(emfuse.NotConverged, match="the best fit did not converge: the limit of 2 sweeps was reached"):
        Mclust(X, 3, "VVV")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"G": 0}, ValueError, "G must be at least 1, got 0"),
        ({"G": [1, 2.0]}, TypeError, "G must be whole numbers, got 2.0"),
        ({"G": True}, TypeError, "G must be whole numbers, got True"),
        ({"G": []}, ValueError, "G must be one number of components or several, got none"),
        ({"model_names": "full"}, ValueError, "models of 2 features are EII, VII, .*, VVV, got 'full'"),
        ({"model_names": "E"}, ValueError, "models of 2 features are .*, got 'E'"),
        ({"model_names": []}, ValueError, "model_names must be one or several of EII"),
        ({"initialization": {2: np.zeros(5)}, "G": 2}, ValueError, r"initialization\[2\] must be 30 labels, each of 0 .. 1"),
        ({"initialization": {2: np.arange(30) % 2 + 1}, "G": 2}, ValueError, "R's start at 1, so subtract 1"),
        ({"initialization": {2: np.arange(30) % 2}, "G": [2, 3]}, ValueError, "got none for 3"),
        ({"initialization": "hc", "G": 2}, ValueError, "labels for each number of components, got none for 2"),
        ({"initialization": hc(blobs(9, 2))}, ValueError, "must be a tree of all 30 rows, got one of 9"),
        ({"x": mclustBIC(blobs(9, 2), 1)}, ValueError, "x must be a table made of the same data"),
        ({"acceleration": "fast"}, ValueError, "acceleration must be one of"),
    ],
)
def test_errors_say_what_was_seen_and_what_was_needed(arguments, error, words):
    """In the user's words."""
    with pytest.raises(error, match=words):
        Mclust(blobs(30, 2), **arguments)


def test_models_of_several_features_are_none_of_one():
    """E and V are all there are."""
    with pytest.raises(ValueError, match="models of 1 feature are E, V, got 'VVV'"):
        Mclust([1.0, 2.0, 3.0], 1, "VVV")
    with pytest.raises(ValueError, match=r"labels must contain each of 0 .. 2, but 0 does not occur"):
        me([1.0, 2.0, 3.0, 4.0], "V", [1, 1, 2, 2])
