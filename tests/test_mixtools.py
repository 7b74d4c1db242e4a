"""R's face: mixtools' arguments, its results and its path; the reference cases are described in tests/reference/README.md."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import emfuse
from emfuse import CollapsedComponent, CollapseWarning, NotConverged, Parameters, em, fit, from_labels, mixtools
from emfuse.mixtools import Increase, MixEM, mvnormalmixEM, normalmixEM

REFERENCE = Path(__file__).parent / "reference"
TWO_CLUSTERS = np.concatenate([np.linspace(0.0, 1.0, 30), np.linspace(9.0, 12.0, 50)])


def names(folder):
    """Names of the cases in a folder, the folder included."""
    return sorted(f"{folder}/{path.stem}" for path in (REFERENCE / folder).glob("*.json"))


FREE, HELD, OWN = names("normalmixEM"), names("normalmixEM/constrained"), names("normalmixEM/own_path")
SEVERAL, SEVERAL_HELD = names("mvnormalmixEM"), names("mvnormalmixEM/constrained")
DEMO, SWEEP = names("fixed_sd_demo"), names("aic_sweep")
# The M step of linked means has no closed form and the reference no textbook EM for it.
NO_PLAIN = {f"normalmixEM/constrained/{name}" for name in ("acidity_k2_equal_mean", "dax_k2_equal_mean", "dax_k2_mean_opposite")}
PLAIN = [name for name in FREE + HELD if name not in NO_PLAIN]
WRONG_STEP = "normalmixEM/constrained/waiting_k2_sd_double"  # "2a": mixtools' M step is not the maximum, its log-likelihood falls
SLOW = "normalmixEM/constrained/waiting_k3_sd_shared_pair"  # 4,000 iterations, of which the last raise by 1e-8 each
OTHER_TOP = "normalmixEM/own_path/galaxies_k3"  # EM and mixtools' path go to different maxima, from the same start
# What the default ends higher at, by more than the 1e-8 of the stop: waiting_k2_sd_double, by 19.7 nats.


def each(cases):
    """Parametrise a test with reference cases."""
    return pytest.mark.parametrize("case", cases, indirect=True)


_done = {}


def asked(case, **more):
    """What normalmixEM makes of a case of one dimension; each is computed once."""
    key = (case.name, *sorted(more.items()))
    if key not in _done:
        start, options = case.start, {"maxit": 20_000, **case.options, **more}
        _done[key] = normalmixEM(case.data, start["lambda"], start["mu"], start["sigma"], k=len(start["lambda"]), **options)
    return _done[key]


def asked_in_several(case, data=None, **more):
    """What mvnormalmixEM makes of a case."""
    start, options = case.start, {**case.options, **more}
    data = case.data if data is None else data
    return mvnormalmixEM(data, start["lambda"], start["mu"], start["sigma"], k=len(start["lambda"]), **options)


def assert_is(made, stated, rtol):
    """Parameters as stated, relative to the largest of each kind."""
    for mine, name in ((made.lambda_, "lambda"), (made.mu, "mu"), (made.sigma, "sigma")):
        theirs = np.broadcast_to(stated[name], mine.shape)
        np.testing.assert_allclose(mine, theirs, rtol=0.0, atol=rtol * np.abs(theirs).max() + 1e-300)


def test_no_case_is_lost():
    """As many as there were: what is missing would otherwise pass."""
    assert [len(each) for each in (FREE, HELD, OWN, SEVERAL, SEVERAL_HELD, DEMO, SWEEP)] == [27, 10, 29, 7, 2, 3, 3]


# ------------------------------------------------------------------ the default: textbook EM


@each(PLAIN)
def test_the_default_is_textbook_em(case):
    """The trace, entry by entry, and where it stops; measured 6e-15, and 2e-13 for galaxies_k5, whose steps enlarge errors."""
    made, plain = asked(case), case.expected["plain_em"]
    stored = plain["all_loglik"]  # the whole, or its beginning where it is long
    np.testing.assert_allclose(made.all_loglik[: len(stored)], stored, rtol=1e-12)
    assert made.iterations == len(made.all_loglik) - 1 == plain["iterations"]
    assert made.loglik == made.all_loglik[-1] and made.restarts == 0


@each([name for name in PLAIN if name not in (WRONG_STEP, SLOW)])  # the oracle has no linked standard deviations
def test_three_iterations_are_exact(case):
    """Parameters after three steps, against 50 digits: a few roundings of sums of up to 1,859 rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)
        made = asked(case, maxit=3)
    assert_is(made, case.expected["plain_em"]["exact_first_iterations"][3], rtol=1e-13)


@each([name for name in OWN + HELD if name not in (OTHER_TOP, SLOW)])
def test_the_default_ends_as_high_as_mixtools(case):
    """To 1e-6 nats: both stop at a gain of 1e-8, where slow cases are still up to 5e-7 apart."""
    assert asked(case).loglik >= case.expected["loglik"] - 1e-6


@each([SLOW])
def test_a_slow_case_ends_as_high_with_a_tighter_stop(case):
    """Where 4,300 iterations have gained 1e-8 each, EM stops 2e-6 below mixtools' path; with half that epsilon, above it."""
    assert asked(case).loglik == pytest.approx(case.expected["loglik"], abs=3e-6)
    assert asked(case, epsilon=5e-9).loglik > case.expected["loglik"]


@each([OTHER_TOP])
def test_mixtools_path_may_find_another_maximum(case):
    """From one start EM ends at -212.08 and the two-step path at -203.18: both are maxima, and which is found is luck."""
    assert asked(case).loglik == pytest.approx(-212.0804042847424, rel=1e-12)
    assert asked(case, ecm=True).loglik == pytest.approx(case.expected["loglik"], rel=1e-12)


@each([WRONG_STEP])
def test_proportional_deviations_end_far_above_mixtools(case):
    """sd_constr ("a", "2a"): mixtools stops after a fall at -1065.3; both of our paths rise to -1045.56, twice as wide."""
    for ecm in (False, True):
        made = asked(case, ecm=ecm)
        assert made.loglik > case.expected["loglik"] + 19.0
        assert made.sigma[1] == pytest.approx(2.0 * made.sigma[0], rel=1e-14)


# ------------------------------------------------------------------ ecm=True: mixtools' own path


@each([name for name in OWN + HELD if name != WRONG_STEP])
def test_ecm_is_mixtools_own_path(case):
    """Its trace, entry by entry, its parameters, and after how many iterations it stops; measured 6e-15 (galaxies_k5: 2e-13).

    Of the slow case gains shrink by 5e-12 an iteration, as much as they round, so that it may stop a few earlier or later; and
    its parameters still move by 1e-5 each.
    """
    made, stored = asked(case, ecm=True), case.expected["all_loglik"]
    np.testing.assert_allclose(made.all_loglik[: len(stored)], stored, rtol=1e-12)
    assert abs(made.iterations - case.expected["iterations"]) <= (5 if case.name == SLOW else 0)
    assert_is(made, case.expected, rtol=1e-4 if case.name == SLOW else 1e-10)


@each([name for name in OWN + HELD if name != WRONG_STEP and not name.endswith("_fast")])
def test_a_posterior_belongs_to_the_parameters(case):
    """mixtools' own, whose posterior is up to date but with fast=TRUE."""
    theirs = np.array(case.expected["posterior_first20"])
    np.testing.assert_allclose(asked(case, ecm=True).posterior[:20], theirs, atol=1e-4 if case.name == SLOW else 1e-9)


@each(OWN + HELD)
def test_free_parameters_are_counted_as_constraints_leave_them(case):
    """On both paths, whatever structure they compute with."""
    for ecm in (False, True):
        assert asked(case, ecm=ecm).fit.free_parameters == case.expected["n_free_params"]


# ------------------------------------------------------------------ several dimensions


@each(SEVERAL)
def test_mvnormalmixem_is_mixtools(case):
    """Its trace and its number of iterations: it iterates textbook EM itself. Two steps are exact (50 digits). Measured 2e-15."""
    made, stored = asked_in_several(case), case.expected["all_loglik"]
    np.testing.assert_allclose(made.all_loglik, stored, rtol=1e-13)
    assert made.iterations == len(stored) - 1 and made.restarts == 0
    with pytest.warns(NotConverged):
        assert_is(asked_in_several(case, maxit=2), case.expected["exact_first_iterations"][2], rtol=1e-13)


@each(["mvnormalmixEM/constrained/faithful_scaled_k2_equal_mean"])
def test_a_common_mean_ends_higher(case):
    """mixtools puts it at the sample mean and takes a wrong first E step; the maximum is no lower (here, by 2e-9 higher)."""
    scaled = np.round((case.data - case.data.mean(axis=0)) / case.data.std(axis=0, ddof=1), 12)
    made = asked_in_several(case, scaled)
    assert made.loglik >= case.expected["loglik"]
    np.testing.assert_array_equal(made.mu[0], made.mu[1])
    assert made.fit.free_parameters == case.expected["n_free_params"]


@each(["mvnormalmixEM/constrained/faithful_k2_equal_mean_restart"])
def test_a_common_mean_of_several_units_needs_no_restart(case):
    """mixtools mistakes one coordinate for the mean and ends in "Too many tries!"."""
    assert case.expected["error"] == "Too many tries!"
    made = asked_in_several(case)
    assert made.restarts == 0 and made.fit.converged
    assert np.diff(made.all_loglik).min() > -1e-9  # rounding: 272 rows' log densities of 5 nats, a few eps each


# ------------------------------------------------------------------ known standard deviations, and numbers of components


@each(DEMO)
def test_the_classroom_demo_in_one_line(case):
    """fit(x, 2, sd=1, stop=8): pi1, mu1, mu2 and log-likelihood of every step, against 50 digits."""
    start, trace = case.start, case.expected["trace"]
    assert start["sd"] == [1, 1]
    init = Parameters.univariate([start["pi1"], 1.0 - start["pi1"]], start["mu"], [1.0, 1.0])
    history = fit(case.data, 2, init=init, sd=1, stop=case.options["iterations"], history=True, acceleration=None).history
    made = {
        "pi1": [step.parameters.weights[0] for step in history],
        "mu1": [step.parameters.means[0, 0] for step in history],
        "mu2": [step.parameters.means[1, 0] for step in history],
        "loglik": [step.log_likelihood for step in history],
    }
    for name, values in made.items():
        np.testing.assert_allclose(values, trace[name], rtol=1e-12, err_msg=name)


@each(DEMO)
def test_the_classroom_demo_as_r_users_write_it(case):
    """normalmixEM(sd_constr=[1, 1], maxit=8): textbook EM by default, and with ecm=True what mixtools itself does."""
    start, expected = case.start, case.expected
    ask = {"lambda_": [start["pi1"], 1.0 - start["pi1"]], "mu": start["mu"], "sigma": start["sd"], "sd_constr": start["sd"]}
    for ecm, trace, skipped in ((False, expected["trace"], 0), (True, expected["mixtools_sd_constr_trace"], 1)):
        with pytest.warns(NotConverged, match="normalmixEM did not converge: the limit of 8 iterations was reached"):
            made = normalmixEM(case.data, maxit=8, epsilon=-np.inf, ecm=ecm, **ask)
        np.testing.assert_allclose(made.all_loglik[skipped:], trace["loglik"], rtol=1e-12)
        np.testing.assert_allclose([made.lambda_[0], *made.mu], [trace[name][-1] for name in ("pi1", "mu1", "mu2")], rtol=1e-12)
        np.testing.assert_array_equal(made.sigma, 1.0)


@each(SWEEP)
def test_how_many_components_from_stored_partitions(case):
    """mclust's VVV for k = 1 to 6: log-likelihood, AIC and BIC, and the k that each prefers."""
    made = []
    for row in case.expected["rows"]:
        made.append(em(case.data, from_labels(case.data, np.array(row["labels"]) - 1)))
        assert made[-1].free_parameters == row["n_params"]
        assert made[-1].log_likelihood >= row["loglik"] - 1e-6 * abs(row["loglik"])
        assert made[-1].aic == pytest.approx(row["aic"], rel=1e-6) and made[-1].bic == pytest.approx(row["bic"], rel=1e-6)
    assert 1 + int(np.argmin([each.aic for each in made])) == case.expected["best_k_aic"]
    assert 1 + int(np.argmin([each.bic for each in made])) == case.expected["best_k_bic"]


# ------------------------------------------------------------------ arguments, as in R


def test_one_sigma_is_equal_variances():
    """A scalar sigma is arbvar=False, and so is one entry; arbvar=False alone, and with an entry each, means the same model."""
    made = normalmixEM(TWO_CLUSTERS, mu=[0, 10], sigma=2, lambda_=0.5)
    assert made.sigma[0] == made.sigma[1] and made.fit.free_parameters == 4
    for same in ({"sigma": [2.0]}, {"sigma": 2, "arbvar": False}, {"sigma": [2, 2], "arbvar": False}, {"arbvar": False}):
        other = normalmixEM(TWO_CLUSTERS, mu=[0, 10], **{"lambda_": 0.5, **same})
        np.testing.assert_allclose(other.sigma, made.sigma, rtol=1e-6)
        assert other.fit.free_parameters == 4


def test_one_mu_is_a_common_mean():
    """A scalar mu is arbmean=False: one mean, two standard deviations."""
    x = np.concatenate([np.linspace(-1, 1, 60), np.linspace(-9, 9, 40)])
    made = normalmixEM(x, mu=0.5, sigma=[1, 5], lambda_=0.5)
    assert made.mu[0] == made.mu[1] == pytest.approx(0.0, abs=1e-6)  # by symmetry
    assert made.sigma[0] < 1.0 < made.sigma[1] and made.fit.free_parameters == 4
    np.testing.assert_array_equal(normalmixEM(x, mu=[0.5], sigma=[1, 5], lambda_=0.5).mu, made.mu)


def test_lambda_is_repeated_and_normalised():
    """0.5, [1] and [3, 3] are [1/2, 1/2]; [1, 2] of four components is [1, 2, 1, 2] / 6."""
    ask = {"mu": [0, 10], "sigma": [1, 1]}
    traces = [normalmixEM(TWO_CLUSTERS, w, **ask).all_loglik for w in (0.5, [1], [3, 3])]
    assert np.array_equal(traces[0], traces[1]) and np.array_equal(traces[0], traces[2])
    ask = {"mu": [0, 1, 9, 11], "sigma": [1, 1, 1, 1]}
    one, other = (normalmixEM(TWO_CLUSTERS, w, **ask) for w in ([1, 2], np.array([1, 2, 1, 2]) / 6))
    np.testing.assert_array_equal(one.all_loglik, other.all_loglik)


def test_the_number_of_components_is_that_of_mu_or_sigma():
    """As in mixtools, where k is only for when neither says it; a k that says something else is an error."""
    assert len(normalmixEM(TWO_CLUSTERS, mu=[0, 9, 12]).mu) == 3
    assert len(normalmixEM(TWO_CLUSTERS, sigma=[1, 1, 1], k=3).mu) == 3
    with pytest.raises(ValueError, match="k must be 2, as many entries as mu have, or left out, got 4"):
        normalmixEM(TWO_CLUSTERS, mu=[0, 9], k=4)


def test_one_component_is_the_sample():
    """k = 1, which mixtools refuses: mean and standard deviation of all rows, divisor N."""
    for made in (normalmixEM(TWO_CLUSTERS, k=1), normalmixEM(TWO_CLUSTERS, mu=1.0, sigma=3.0, k=1, ecm=True)):
        assert made.mu == pytest.approx(TWO_CLUSTERS.mean(), rel=1e-12)
        assert made.sigma == pytest.approx(TWO_CLUSTERS.std(), rel=1e-6)


def test_constraints_hold_from_a_drawn_start():
    """mean_constr and sd_constr go before arbmean and arbvar, on both paths."""
    for ecm in (False, True):
        made = normalmixEM(TWO_CLUSTERS, mean_constr=[0.5, None], sd_constr=["a", "2a"], arbvar=False, ecm=ecm)
        assert made.mu[0] == 0.5 and made.sigma[1] == pytest.approx(2.0 * made.sigma[0], rel=1e-14)
        assert made.fit.free_parameters == 3 and made.mu[1] > 8.0


def test_lists_of_vectors_and_matrices_are_taken():
    """As an R user has them: mu a list of vectors, sigma a list of matrices; one of them is common."""
    x = np.column_stack([TWO_CLUSTERS, TWO_CLUSTERS**2 + np.sin(40.0 * TWO_CLUSTERS)])
    mu, sigma = [[0.5, 0.5], np.array([10.0, 100.0])], [np.eye(2), np.diag([1.0, 100.0])]
    made = mvnormalmixEM(x, [0.4, 0.6], mu, sigma)
    assert (
        made.mu.shape == (2, 2) and made.sigma.shape == (2, 2, 2) and made.posterior.shape == (80, 2) and made.x.shape == (80, 2)
    )
    tied = mvnormalmixEM(x, mu=mu, sigma=np.eye(2))
    np.testing.assert_array_equal(tied.sigma[0], tied.sigma[1])
    assert tied.fit.free_parameters == 8
    common = mvnormalmixEM(x, mu=[5.0, 50.0], sigma=[np.diag([1.0, 50.0]), np.diag([30.0, 3000.0])])
    np.testing.assert_array_equal(common.mu[0], common.mu[1])
    assert len(mvnormalmixEM(x, lambda_=[0.2, 0.3, 0.5]).mu) == 3


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"k": 2.5}, "k must be a whole number of at least 1, got 2.5"),
        ({"k": 81}, "k must be at most the number of rows, 80, got 81"),
        (
            {"mu": [0, 1], "sigma": [1, 1, 1]},
            "mu and sigma must have equally many entries, one a component, got 2 in mu, 3 in sigma",
        ),
        ({"mu": 1.0, "sigma": 1.0}, "mu and sigma are both common to all 2 components"),
        ({"arbmean": False, "arbvar": False}, "mu and sigma are both common to all 2 components"),
        ({"lambda_": [1, 1, 1]}, r"lambda_ must be at most 2 numbers of at least 0, not all of them 0, got \[1.0, 1.0, 1.0\]"),
        ({"lambda_": [1, -1]}, "lambda_ must be at most 2 numbers of at least 0"),
        ({"lambda_": 0}, "not all of them 0"),
        ({"mu": [0, np.nan]}, "mu must be finite, got nan"),
        ({"mu": [[0, 1], [2, 3]]}, r"mu must have one entry for each component, or one for all, got shape \(2, 2\)"),
        ({"mu": []}, "mu must have one entry for each component"),
        ({"mu": [[0], [1, 2]]}, "mu must have entries of equal shape"),
        ({"sigma": [1, 0]}, "sigma must lie between 1e-150 and 1e150, got 0 to 1"),
        ({"mean_constr": [0, None, None]}, "mean_constr must have one entry for each of the 2 components, got 3"),
        ({"sd_constr": ["a"]}, "sd_constr must have one entry for each of the 2 components, got 1"),
        ({"epsilon": np.nan}, "epsilon must be a number of nats, got nan"),
        ({"maxit": 0}, "maxit must be a whole number of at least 1, got 0"),
        ({"maxrestarts": -1}, "maxrestarts must be a whole number of at least 0, got -1"),
        ({"x": [[1.0, 2.0], [3.0, 4.0]]}, "x must be one column, got 2; mvnormalmixEM takes several"),
    ],
)
def test_what_makes_no_sense_is_said(ask, words):
    """An error names the argument as R's users know it, what was seen and what was needed."""
    with pytest.raises(ValueError, match=words):
        normalmixEM(**{"x": TWO_CLUSTERS, **ask})


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"lambda_": [1.0, 3.0]}, r"lambda_ must be at least 0 and sum to 1, got \[1.0, 3.0\]"),
        ({"lambda_": [0.5, 0.5], "mu": np.zeros((3, 2))}, "lambda_ and mu must have equally many entries"),
        ({"mu": np.zeros((2, 3))}, r"mu must have shape \(2, 2\), or \(2,\) for all, as x has 2 columns; got \(2, 3\)"),
        ({"sigma": np.eye(3)}, r"sigma must have shape \(2, 2, 2\), or \(2, 2\) for all, as x has 2 columns; got \(1, 3, 3\)"),
        ({"mu": [0.0, 0.0], "sigma": np.eye(2)}, "mu and sigma are both common to all 2 components"),
    ],
)
def test_what_makes_no_sense_in_several_dimensions_is_said(ask, words):
    """The same for mvnormalmixEM, whose lambda is used as given."""
    with pytest.raises(ValueError, match=words):
        mvnormalmixEM(np.column_stack([TWO_CLUSTERS, TWO_CLUSTERS[::-1] ** 2]), **ask)


def test_words_are_no_numbers():
    """A TypeError with the argument's name."""
    for ask in ({"sd_constr": "aa"}, {"sd_constr": 1.0}):
        with pytest.raises(TypeError, match="sd_constr must be a sequence, one entry a component"):
            normalmixEM(TWO_CLUSTERS, **ask)
    with pytest.raises(TypeError, match="mu must be real numbers, got 'kmeans'"):
        normalmixEM(TWO_CLUSTERS, mu="kmeans")


# ------------------------------------------------------------------ stopping, starts and restarts


@pytest.mark.parametrize(
    ("trace", "maxit", "reason"),
    [
        ([-9.0], 5, None),
        ([-9.0, -8.0], 5, None),
        ([-9.0, -8.0], 1, "the limit of 1 iterations was reached"),
        ([-9.0, -8.5], 5, "iteration 1 raised the log-likelihood by 0.5 nats, not by more than 0.5"),
        ([-9.0, -8.0, -8.2], 5, "iteration 2 raised the log-likelihood by -0.2 nats, not by more than 0.5"),
        ([-9.0, -8.5], 1, "iteration 1 raised the log-likelihood by 0.5 nats, not by more than 0.5"),
    ],
)
def test_the_rule_is_mixtools(trace, maxit, reason):
    """An increase of epsilon or less stops, a fall too; one iteration is always done, and maxit is not convergence."""
    assert Increase(0.5, maxit)(trace) == reason


@pytest.mark.parametrize("ask", [normalmixEM, mvnormalmixEM])
def test_drawn_starts_are_the_same_every_time(ask):
    """None is one seed; another seed is another start; and the clusters are found from any of them."""
    x = TWO_CLUSTERS if ask is normalmixEM else np.column_stack([TWO_CLUSTERS, np.random.default_rng(0).normal(size=80)])
    made = [ask(x, random_state=seed) for seed in (None, None, 1, np.random.default_rng(1), 2, 3)]
    np.testing.assert_array_equal(made[0].all_loglik, made[1].all_loglik)
    np.testing.assert_array_equal(made[2].all_loglik, made[3].all_loglik)
    assert len({each.all_loglik[0] for each in made}) == 4
    for each_made in made:
        np.testing.assert_allclose(np.sort(each_made.lambda_), [30 / 80, 50 / 80], atol=1e-6)


@pytest.mark.parametrize("data", [TWO_CLUSTERS, np.repeat([1.0, 2.0, 3.0], 5), np.array([0.0, 1.0]), np.arange(4.0) * 1e-12])
def test_a_drawn_start_is_a_mixture(data):
    """Whatever the rows: parts of equal rows, or of one, have the width of all."""
    for seed in range(10):
        p = mixtools._start(data[:, None], 2, "full", (None, None, None), np.random.default_rng(seed))
        assert np.isfinite(p.means).all() and (p.covariances > 0.0).all() and p.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("ecm", [False, True])
@each(["hard/acidity_k4_collapse"])
def test_a_collapse_begins_anew_and_is_counted(case, ecm):
    """From this start one component shrinks onto a row; a drawn start takes its place, and the trace is that one's alone."""
    start = case.start
    with pytest.warns(
        CollapseWarning, match=r"normalmixEM left the start given for a drawn one \(1 restart\): component .* had no v"
    ):
        made = normalmixEM(case.data, start["lambda"], start["mu"], start["sigma"], ecm=ecm)
    assert made.restarts == 1 and made.fit.converged
    assert made.all_loglik[0] != pytest.approx(case.expected["exact"]["loglik_trace"][0], rel=1e-6)
    assert np.isfinite(made.all_loglik).all() and made.sigma.min() > 1e-3


@each(["hard/acidity_k4_collapse"])
def test_no_restart_where_none_may_be(case):
    """maxrestarts=0: the first collapse is the error."""
    start = case.start
    with pytest.raises(CollapsedComponent, match="a component collapsed and maxrestarts is 0: component 2 had no variance left"):
        normalmixEM(case.data, start["lambda"], start["mu"], start["sigma"], maxrestarts=0)


@each(["hard/acidity_k4_collapse"])
def test_a_drawn_start_that_collapses_is_only_counted(case):
    """It was nobody's: no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = normalmixEM(case.data, k=5, random_state=8)
    assert made.restarts == 1 and made.fit.converged


@pytest.mark.parametrize("ask", [{}, {"ecm": True}])
def test_too_many_tries_is_an_error_that_says_what_to_do(ask):
    """Three values and four components: some component always ends on one value alone."""
    with pytest.raises(CollapsedComponent, match="Ask for fewer components") as caught:
        normalmixEM(np.repeat([1.0, 2.0, 3.0], 5), k=4, **ask)
    said = str(caught.value)
    assert said.startswith("a component collapsed in each of 21 tries, of which 20 were drawn anew; in the last component ")
    assert "(now 4)" in said and "arbvar=False" in said
    assert caught.value.component in range(4) and caught.value.mass > 0.0


def test_too_many_tries_in_several_dimensions():
    """A repeated column has no density under any start."""
    with pytest.raises(CollapsedComponent, match="in each of 16 tries, of which 15 were drawn anew"):
        mvnormalmixEM(np.column_stack([TWO_CLUSTERS, TWO_CLUSTERS]))


def test_not_convergent_is_a_warning_at_the_callers_line():
    """And the result is whole."""
    with pytest.warns(
        NotConverged, match=r"mvnormalmixEM did not converge: the limit of 2 iterations was reached\. Raise maxit"
    ) as told:
        made = mvnormalmixEM(np.column_stack([TWO_CLUSTERS, np.sin(TWO_CLUSTERS)]), maxit=2)
    assert told[0].filename == __file__
    assert made.iterations == 2 and not made.fit.converged and len(made.all_loglik) == 3


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_a_small_unit_is_no_collapse(scale):
    """mixtools begins anew below 1e-8 data units; here units do not matter."""
    one, other = (normalmixEM(TWO_CLUSTERS * a, mu=np.array([0, 10]) * a, sigma=np.array([1, 1]) * a) for a in (1.0, scale))
    assert other.restarts == 0
    np.testing.assert_allclose(other.sigma, one.sigma * scale, rtol=1e-9)


# ------------------------------------------------------------------ results, as in R


@pytest.fixture
def waiting():
    """A fit of Old Faithful's waiting times."""
    rows = np.loadtxt(REFERENCE / "data" / "faithful.csv", delimiter=",", skiprows=1)
    return normalmixEM(rows[:, 1], 0.5, [50, 80], [5, 5])


def test_a_result_has_their_fields(waiting):
    """lambda_, mu, sigma, loglik, posterior, all_loglik, restarts, x and ft; all of one mixture; and none can be set."""
    assert waiting.x.shape == (272,) and waiting.posterior.shape == (272, 2) and waiting.ft == "normalmixEM"
    np.testing.assert_allclose(waiting.posterior.sum(axis=1), 1.0, rtol=1e-14)
    p = waiting.fit.parameters
    assert p == Parameters(waiting.lambda_, waiting.mu, p.covariances)
    np.testing.assert_array_equal(waiting.sigma, p.sds[:, 0])
    assert em(waiting.x, p, stop=0).log_likelihood == waiting.loglik
    np.testing.assert_array_equal(waiting.posterior, waiting.fit.predict_proba(waiting.x))
    with pytest.raises(AttributeError):
        waiting.mu = 0.0
    assert repr(waiting) == "MixEM: normalmixEM, 2 components, 23 iterations, 0 restarts, loglik -1034.001750"


def test_the_vignettes_first_fit_is_the_published_one(waiting, capsys):
    """normalmixEM(waiting, lambda = .5, mu = c(55, 80), sigma = 5) of Benaglia et al. (2009), and its summary in R, by column."""
    wait1 = normalmixEM(waiting.x, lambda_=0.5, mu=[55, 80], sigma=5)
    assert wait1.iterations == 9 and round(wait1.loglik, 3) == -1034.002
    np.testing.assert_allclose(wait1.lambda_, [0.3608498, 0.6391502], atol=5e-8)
    np.testing.assert_allclose(wait1.mu, [54.61364, 80.09031], atol=5e-6)
    np.testing.assert_allclose(wait1.sigma, [5.869089, 5.869089], atol=5e-7)
    wait1.summary()
    assert capsys.readouterr().out.splitlines()[1:-1] == [
        "         comp 1   comp 2",
        "lambda  0.36085  0.63915",
        "mu     54.61364 80.09031",
        "sigma   5.86909  5.86909",
    ]


def test_a_summary_reads_as_theirs(waiting, capsys):
    """A table of lambda, mu and sigma by component, which are numbered from 1, and the log-likelihood."""
    assert waiting.summary() is None
    title, head, *rows, last = capsys.readouterr().out.splitlines()
    assert title == "summary of normalmixEM object:" and head.split() == ["comp", "1", "comp", "2"]
    assert [row.split()[0] for row in rows] == ["lambda", "mu", "sigma"]
    np.testing.assert_allclose([float(cell) for cell in rows[1].split()[1:]], [54.6149, 80.0911], atol=1e-4)
    assert last == "loglik at estimate: -1034.001750"
    assert len({len(row) for row in (head, *rows)}) == 1


def test_a_summary_of_several_dimensions_has_deviations(capsys):
    """mu1, mu2 and sd1, sd2: sigma are matrices."""
    made = mvnormalmixEM(np.column_stack([TWO_CLUSTERS, np.sin(9.0 * TWO_CLUSTERS)]))
    made.summary()
    rows = capsys.readouterr().out.splitlines()[2:-1]
    assert [row.split()[0] for row in rows] == ["lambda", "mu1", "mu2", "sd1", "sd2"]
    assert float(rows[-1].split()[2]) == pytest.approx(np.sqrt(made.sigma[1, 1, 1]), rel=1e-5)


def test_a_plot_is_drawn_on_axes(waiting):
    """which=1: the trace; which=2: the histogram with the components, or in several dimensions rows and ellipses."""
    from matplotlib.axes import Axes

    for which in (1, "loglik"):
        ax = waiting.plot(which)
        assert isinstance(ax, Axes)
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), waiting.all_loglik)
    for which in (2, "density"):
        assert waiting.plot(which=which).get_ylabel() == "density"
    assert waiting.plot(1, ax=ax) is ax
    several = mvnormalmixEM(np.column_stack([TWO_CLUSTERS, np.sin(9.0 * TWO_CLUSTERS)]))
    assert several.plot(2).get_ylabel() == "feature 1"
    with pytest.raises(ValueError, match=re.escape("which must be 1 ('loglik') or 2 ('density'), got 3")):
        waiting.plot(3)


def test_importing_it_imports_no_matplotlib(run):
    """Plots are imported when they are drawn."""
    assert run("import sys; from emfuse import mixtools; print('matplotlib' in sys.modules)") == "False"


@pytest.mark.parametrize("ecm", [False, True])
def test_verb_tells_each_iteration(ecm, capsys):
    """A line for the start and each iteration, on stderr; without it nothing is printed."""
    made = normalmixEM(TWO_CLUSTERS, verb=True, ecm=ecm)
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == made.iterations + 1
    assert err.splitlines()[1].startswith(f"iteration 1: log-likelihood {made.all_loglik[1]:.6f}, increase ")
    normalmixEM(TWO_CLUSTERS, ecm=ecm)
    assert capsys.readouterr() == ("", "")


def test_emfuse_knows_the_same_fit(waiting):
    """`fit` is an emfuse.Fit: criteria, samples and labels are at hand."""
    assert isinstance(waiting, MixEM) and isinstance(waiting.fit, emfuse.Fit)
    assert waiting.fit.bic == pytest.approx(5 * np.log(272) - 2 * waiting.loglik, rel=1e-14)
    np.testing.assert_array_equal(waiting.fit.predict(waiting.x), waiting.posterior.argmax(axis=1))
