"""The answers of mixtools, of mclust, and of exact EM, from the same starts: see tests/reference/README.md."""

from pathlib import Path

import numpy as np
import pytest

from emfuse import CollapsedComponent, Constraints, Parameters, em, from_labels
from emfuse.stopping import GainBelow

REFERENCE = Path(__file__).parent / "reference"


def names(kind):
    """Names of the cases of one kind."""
    return sorted(path.stem for path in (REFERENCE / kind).glob("*.json"))


# mixtools' constraints and its own path are in test_mixtools.py; mclust's other ten models in test_decomposed.py, its tables and
# equal proportions in test_mclust.py. emfuse has no priors and no noise.
NORMALMIX, MVNORMALMIX, MCLUST, HARD = (names(kind) for kind in ("normalmixEM", "mvnormalmixEM", "mclust_me", "hard"))
ONE_FEATURE = ["acidity_q2", "acidity_q3", "dax_q3", "galaxies_q4", "waiting_q2"]  # of mclust's
COLLAPSING = [
    "acidity_k4_collapse",
    "dax_k3_tiny_weights_collapse",
    "dax_tiny_weights",
    "galaxies_outlier_1e6",
    "waiting_dead_component",
    "waiting_remote_component",
]


def each(kind, names):
    """Parametrise a test with cases of one kind."""
    return pytest.mark.parametrize("case", [f"{kind}/{name}" for name in names], indirect=True)


def test_no_case_is_lost():
    """As many as there were: what is missing would otherwise pass."""
    assert [len(names(kind)) for kind in ("normalmixEM", "mvnormalmixEM", "mclust_me", "hard")] == [27, 7, 12, 24]


def start_of(case, structure):
    """The case's start, as Parameters of that structure."""
    weights = np.array(case.start["lambda"], dtype=np.float64)
    weights /= weights.sum()
    mu, sigma = np.array(case.start["mu"], dtype=np.float64), np.array(case.start["sigma"], dtype=np.float64)
    if case.data.shape[1] == 1:
        return Parameters.univariate(weights, mu, sigma, structure)
    if structure == "tied":
        sigma = sigma.reshape(-1, *sigma.shape[-2:])[0]
    elif structure in ("diag", "EEI"):
        sigma = np.diagonal(sigma, axis1=1, axis2=2)
    elif structure in ("spherical", "EII"):
        sigma = sigma[:, 0, 0]
    return Parameters(weights, mu, sigma, structure)


def structure_of(case):
    """What the case calls its covariance, in our words."""
    if "arbvar" in case.options:
        return "full" if case.options["arbvar"] else "tied"
    said = case.options["covariance"]
    return {
        "1-D, free standard deviations": "full",
        "1-D, equal standard deviations": "tied",
        "1-D, known standard deviations": "full",
        "tied_diag": "EEI",
        "tied_spherical": "EII",
    }.get(said, said)


def assert_parameters(p, stated, rtol):
    """Weights, means and covariances as stated; `rtol` is of the largest of each kind."""
    sigma = np.array(stated["sigma"])
    C = np.square(sigma)[:, None, None] if p.n_features == 1 else sigma
    np.testing.assert_allclose(p.weights, stated["lambda"], atol=rtol)
    np.testing.assert_allclose(p.means, np.reshape(stated["mu"], p.means.shape), atol=rtol * np.abs(stated["mu"]).max())
    np.testing.assert_allclose(p.covariance_matrices, C, atol=rtol * np.abs(C).max())


# ------------------------------------------------------------------ mixtools


@each("normalmixEM", NORMALMIX)
def test_textbook_em_is_followed_sweep_by_sweep(case):
    """Every entry of the trace, up to 3,274 steps; measured 4e-15, and 4e-13 for galaxies_k5, whose steps enlarge errors."""
    trace = np.array(case.expected["plain_em"]["all_loglik"])
    made = em(case.data, start_of(case, structure_of(case)), stop=len(trace) - 1)
    np.testing.assert_allclose(made.trace, trace, rtol=1e-12)


@each("normalmixEM", NORMALMIX)
def test_the_first_steps_of_one_dimension_are_exact(case):
    """Parameters and log-likelihood after 0 to 3 steps, against 50 digits: a few roundings of sums of up to 1,859 rows."""
    stated = case.expected["plain_em"]["exact_first_iterations"]
    history = em(case.data, start_of(case, structure_of(case)), stop=3, history=True).history
    assert [step["iteration"] for step in stated] == [0, 1, 2, 3]
    for step, made in zip(stated, history, strict=True):
        assert made.log_likelihood == pytest.approx(step["loglik"], rel=1e-14)
        assert_parameters(made.parameters, step, rtol=1e-13)


@each("normalmixEM", NORMALMIX)
def test_the_same_stopping_rule_stops_after_the_same_step(case):
    """mixtools' rule, an increase of less than epsilon in all, is GainBelow(epsilon)."""
    made = em(case.data, start_of(case, structure_of(case)), stop=GainBelow(case.options["epsilon"]))
    assert len(made.trace) - 1 == case.expected["plain_em"]["iterations"]


# galaxies_k3 apart: there mixtools' two-step variant ends at another maximum than textbook EM
@each("normalmixEM", [name for name in NORMALMIX if name != "galaxies_k3"])
def test_mixtools_ends_at_the_same_maximum(case):
    """Its final log-likelihood; both stopped at a gain of 1e-8, where slow cases are still a few 1e-9 of it away."""
    made = em(case.data, start_of(case, structure_of(case)), stop=GainBelow(case.options["epsilon"]))
    assert made.log_likelihood == pytest.approx(case.expected["loglik"], rel=5e-9)


@each("mvnormalmixEM", MVNORMALMIX)
def test_mvnormalmixem_is_followed_sweep_by_sweep(case):
    """mixtools iterates textbook EM in several dimensions: its own trace, up to 304 steps; measured 1e-15."""
    trace = np.array(case.expected["all_loglik"])
    made = em(case.data, start_of(case, structure_of(case)), stop=len(trace) - 1)
    np.testing.assert_allclose(made.trace, trace, rtol=1e-13)


@each("mvnormalmixEM", MVNORMALMIX)
def test_the_first_steps_of_several_dimensions_are_exact(case):
    """Parameters and log-likelihood after 0 to 2 steps, against 50 digits: a few roundings of sums of up to 272 rows."""
    stated = case.expected["exact_first_iterations"]
    history = em(case.data, start_of(case, structure_of(case)), stop=2, history=True).history
    assert [step["iteration"] for step in stated] == [0, 1, 2]
    for step, made in zip(stated, history, strict=True):
        assert made.log_likelihood == pytest.approx(step["loglik"], rel=1e-14)
        assert_parameters(made.parameters, step, rtol=1e-13)


# ------------------------------------------------------------------ mclust


def each_model(test):
    """Parametrise a test with every partition and model."""
    one, several = ("V", "E"), ("VVV", "EEE", "VVI", "VII")
    pairs = [(f"mclust_me/{name}", model) for name in MCLUST for model in (one if name in ONE_FEATURE else several)]
    return pytest.mark.parametrize(("case", "model"), pairs, indirect=["case"])(test)


def in_our_names(stated):
    """mclust's parameters under mixtools' names; in one dimension it states the variance."""
    sigma = stated["sigma"] if "sigma" in stated else np.sqrt(stated["sigmasq"])
    return {"lambda": stated["pro"], "mu": stated["mean"], "sigma": sigma}


def labels_of(case):
    return np.array(case.start["labels"]) - 1


@each_model
def test_mclusts_m_step_of_a_partition(case, model):
    """from_labels is mclust's mstep, and its log-likelihood that of mclust's estep."""
    stated = case.expected["models"][model]
    p = from_labels(case.data, labels_of(case), model)
    assert_parameters(p, in_our_names(stated["mstep"]), rtol=1e-13)
    assert em(case.data, p, stop=0).log_likelihood == pytest.approx(stated["estep"]["loglik"], rel=1e-13)


@each_model
def test_mclusts_me_is_followed_to_its_end(case, model):
    """Its first five log-likelihoods, its last, and its parameters, after as many steps; measured 3e-15, parameters 4e-14."""
    stated = case.expected["models"][model]["me"]
    # an iteration of `me` is an M step and an E step, so the first is the start made from the labels
    made = em(case.data, from_labels(case.data, labels_of(case), model), stop=stated["iterations"] - 1)
    first = stated["loglik_first5"][: len(made.trace)]
    np.testing.assert_allclose(made.trace[: len(first)], first, rtol=1e-13)
    assert made.log_likelihood == pytest.approx(stated["loglik"], rel=1e-13)
    assert_parameters(made.parameters, in_our_names(stated), rtol=1e-12)


@each_model
def test_mclusts_number_of_parameters(case, model):
    """Covariance parameters, K D means and K - 1 weights."""
    assert from_labels(case.data, labels_of(case), model).free_parameters == case.expected["models"][model]["n_params"]


# ------------------------------------------------------------------ hard data and starts, against 50 digits


@each("hard", [name for name in HARD if name not in COLLAPSING])
def test_hard_cases_follow_exact_em(case):
    """The whole trace, as well as a careful EM in double precision: at most 4 times its error, or 1e-14 where it has less."""
    exact = case.expected["exact"]
    trace = np.array(exact["loglik_trace"])
    known = Constraints(sds=case.options["fix_sd"]) if "fix_sd" in case.options else None
    made = em(case.data, start_of(case, structure_of(case)), stop=exact["iterations"], constraints=known)
    np.testing.assert_allclose(made.trace, trace, rtol=max(4 * exact["double_em_trace_error"], 1e-14))


@each("hard", COLLAPSING)
def test_hard_cases_that_collapse_say_so(case):
    """Exact EM collapses: CollapsedComponent, no later than it does; and until then the trace is exact EM's.

    4 times the error of a careful EM as above; for waiting_dead_component that says "nan" and for dax_tiny_weights 0.99, because
    its own collapse is in it: there, 1e-14.
    """
    exact = case.expected["exact"]
    trace, error = np.array(exact["loglik_trace"]), float(exact["double_em_trace_error"])
    seen = []
    with pytest.raises(CollapsedComponent):
        em(case.data, start_of(case, structure_of(case)), stop=1000, callback=lambda step: seen.append(step.log_likelihood))
    assert 1 <= len(seen) <= exact["iterations"] + 1
    np.testing.assert_allclose(seen, trace[: len(seen)], rtol=max(4 * error if error < 1e-3 else 0.0, 1e-14))


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_a_start_beyond_the_stated_range_is_refused(scale):
    """Eruptions times 1e-160 and 1e160, whose variances no double holds: an error that says the range."""
    with pytest.raises(ValueError, match="sds must lie between 1e-150 and 1e150"):
        Parameters.univariate([0.5, 0.5], scale * np.array([2.0, 4.3]), scale * np.array([0.5, 0.5]))
