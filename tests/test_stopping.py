"""Rules: a table of traces and the reasons they must give."""

import numpy as np
import pytest

import emfuse
from emfuse.stopping import (
    GainBelow,
    GradientBelow,
    Limit,
    ParametersWithin,
    RelativeGainBelow,
    Steps,
    SweepLimit,
    TimeLimit,
    Trace,
    Within,
    aitken,
    as_rule,
    first_of,
)

NATS = "the last sweep changed the log-likelihood by {} nats, less than {}"
ROW = "the last sweep changed the log-likelihood by {} nats a row, less than {}"


@pytest.mark.parametrize(
    ("rule", "entries", "weight", "reason"),
    [
        (GainBelow(1.0), [], 1, None),
        (GainBelow(1.0), [-9.0], 1, None),  # one sweep has no gain
        (GainBelow(1.0), [-9.0, -8.0], 1, None),  # strictly less
        (GainBelow(1.0), [-9.0, -8.5], 1, NATS.format("0.5", "1")),
        (GainBelow(1.0), [-9.0, -9.5], 1, NATS.format("-0.5", "1")),  # a fall by rounding is the end too
        (GainBelow(1.0), [-9.0, -19.0], 1, None),  # a real fall is not
        (GainBelow(0.0), [-9.0, -9.0], 1, None),  # nothing is less than 0
        (GainBelow(0.1, per_row=True), [-9.0, -8.0], 10, None),
        (GainBelow(0.1, per_row=True), [-9.0, -8.5], 10, ROW.format("0.05", "0.1")),
        (GainBelow(0.1, per_row=True), [-9.0, -8.5], 4, None),
        (RelativeGainBelow(0.1), [-9.0], 1, None),
        (RelativeGainBelow(0.1), [-10.0, -9.0], 1, None),  # 1 / (1 + 9) is not less than 0.1
        (RelativeGainBelow(0.1), [-9.5, -9.0], 1, "the log-likelihood changed by 0.05 of itself, less than 0.1"),
        (RelativeGainBelow(0.1), [0.0, 0.05], 1, "the log-likelihood changed by 0.0476 of itself, less than 0.1"),
        (SweepLimit(3), [-9.0, -8.0], 1, None),
        (SweepLimit(3), [-9.0, -8.0, -7.0], 1, "the limit of 3 sweeps was reached"),
        (Steps(2), [-9.0, -8.0], 1, None),
        (Steps(2), [-9.0, -8.0, -7.0], 1, "the 2 M steps asked for were done"),
        (Steps(1), [-9.0, -8.0], 1, "the 1 M step asked for were done"),
        (Steps(0), [-9.0], 1, "the 0 M steps asked for were done"),
    ],
)
def test_a_trace_has_this_reason_to_stop(rule, entries, weight, reason):
    """trace -> a reason, in a sentence, or None."""
    assert rule(Trace(entries, weight=weight)) == reason


@pytest.mark.parametrize(
    ("rule", "limit"), [(GainBelow(1.0), False), (RelativeGainBelow(1.0), False), (SweepLimit(2), True), (Steps(1), True)]
)
def test_only_limits_are_limits(rule, limit):
    """A reason is convergence unless it is a `Limit`."""
    assert isinstance(rule(Trace([-9.0, -9.0])), Limit) is limit


@pytest.mark.parametrize("spent", [0.0, 1.9, 2.0, 2.1])
def test_a_time_limit_asks_its_clock(spent):
    """The limit is reached when that many seconds have passed since the trace began, not before."""
    trace = Trace([-9.0])
    reason = TimeLimit(2.0, clock=lambda: trace.started + spent)(trace)
    assert reason == ("the time limit of 2 seconds was reached" if trace.started + spent - trace.started >= 2.0 else None)
    assert reason is None or isinstance(reason, Limit)


def test_parameters_within_measures_in_standard_deviations():
    """Mean 0 -> 0.02 with standard deviation 2 is a move of 0.01."""
    old = emfuse.Parameters([1.0], [0.0], [[4.0]], "diag")
    new = emfuse.Parameters([1.0], [0.02], [[4.0]], "diag")
    trace = Trace([-9.0, -8.0], parameters=new, previous=old)
    assert ParametersWithin(0.01)(trace) is None
    assert ParametersWithin(0.0101)(trace).startswith("weights, means and standard deviations moved by 0.01 at most")
    assert ParametersWithin(1.0)(Trace([-9.0], parameters=new)) is None


@pytest.mark.parametrize(
    "new",
    [
        emfuse.Parameters([0.6, 0.4], [0.0, 1.0], [1.0, 1.0], "spherical"),
        emfuse.Parameters([0.5, 0.5], [0.0, 1.1], [1.0, 1.0], "spherical"),
        emfuse.Parameters([0.5, 0.5], [0.0, 1.0], [1.0, 1.25], "spherical"),
    ],
    ids=["weights", "means", "standard deviations"],
)
def test_parameters_within_looks_at_each_kind_of_parameter(new):
    """A move of 0.1 in any one of weights, means and standard deviations keeps a fit going."""
    old = emfuse.Parameters([0.5, 0.5], [0.0, 1.0], [1.0, 1.0], "spherical")
    assert ParametersWithin(0.09)(Trace([-9.0, -8.0], parameters=new, previous=old)) is None
    assert ParametersWithin(0.12)(Trace([-9.0, -8.0], parameters=new, previous=old))


def test_the_first_rule_that_stops_gives_the_reason():
    """`first_of` asks in the order given."""
    trace = Trace([-9.0, -9.0])
    assert first_of(GainBelow(1.0), Steps(1))(trace).startswith("the last sweep")
    assert first_of(Steps(1), GainBelow(1.0))(trace).startswith("the 1 M step")
    assert first_of(Steps(5), SweepLimit(5))(trace) is None


def test_an_integer_is_that_many_steps():
    """`stop=5` means Steps(5), for numpy's integers too."""
    assert as_rule(5) == as_rule(np.int64(5)) == Steps(5)


@pytest.mark.parametrize("stop", [True, 2.5, "5", None])
def test_what_is_no_rule_is_refused(stop):
    """Anything that is neither a callable nor a whole number raises TypeError."""
    with pytest.raises(TypeError, match="stop must be a rule"):
        as_rule(stop)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GainBelow(-1.0), "nats must be at least 0, got -1.0"),
        (lambda: GainBelow(float("nan")), "nats must be at least 0, got nan"),
        (lambda: Steps(-1), "the number of M steps must be at least 0, got -1"),
    ],
)
def test_a_senseless_rule_is_refused(make, words):
    """Errors say what was seen and what was needed."""
    with pytest.raises(ValueError, match=words):
        make()


# ------------------------------------------------------------------ within so much of the maximum


def trace_of(entries, **known):
    trace = Trace(entries, weight=100.0)
    for name, value in known.items():
        setattr(trace, name, value)
    return trace


def test_aitken_finds_the_limit_of_gains_that_fall_by_a_constant_ratio():
    """-2^-n gains half of what is left each time: what is left is the last gain."""
    assert aitken([-1.0, -0.5, -0.25]) == 0.25
    assert aitken([-1.0, -0.5]) == np.inf
    assert aitken([-3.0, -2.0, -0.5]) == np.inf  # gains that rise
    assert aitken([-1.0, -1.0, -1.0]) == 0.0


def test_within_stops_plain_em_by_aitken_twice_in_a_row():
    """What is left must be less by the last two gains, and by the two before."""
    halving = [-(2.0**-n) for n in range(30)]
    stop = Within(2.0**-10)
    assert next(n for n in range(1, 30) if stop(trace_of(halving[:n]))) == 13  # 2^-11 left; one earlier 2^-10 is not less
    assert Within(1e-3)(trace_of([-5.0, -1.0, -0.999999])) is None


def test_within_stops_an_acceleration_by_its_own_estimate():
    """Ten times what is left, and the gain of five steps, below the mark, by an estimate to be trusted; or rounding."""
    flat = [-1.0 - 1e-9 * n for n in range(9, 0, -1)]
    known = {"promised": 1e-9, "remaining": 1e-8, "settled": True}
    assert "nats are left by estimate" in Within(1e-6)(trace_of(flat, **known))
    for other in ({"settled": False}, {"remaining": 1e-6}):
        assert Within(1e-6)(trace_of(flat, **{**known, **other})) is None
    assert Within(1e-6)(trace_of([-2.0, *flat[-5:]], **known)) is None  # it gained a nat in the last five
    assert "no more than rounding" in Within(1e-6)(trace_of(flat, promised=1e-17, rounding=1e-13))


@pytest.mark.parametrize("nats", [0.0, -1.0, float("nan")])
def test_within_nothing_is_refused(nats):
    """The mark must be above 0."""
    with pytest.raises(ValueError, match="nats must be above 0"):
        Within(nats)


def test_the_gradients_length_is_em_s_step():
    """By hand: a mean that moves by half a standard deviation has length 0.5 times the root of its weight."""
    old = emfuse.Parameters.univariate([0.25, 0.75], [0.0, 9.0], [2.0, 1.0])
    new = emfuse.Parameters.univariate([0.25, 0.75], [1.0, 9.0], [2.0, 1.0])
    trace = Trace([-9.0, -8.0], weight=10.0, parameters=new, previous=old)
    assert GradientBelow(0.2501)(trace) == "the gradient's length is 0.25, less than 0.2501"
    assert GradientBelow(0.2499)(trace) is None
    trace.promised = 0.5 * 10.0 * 0.01**2  # an acceleration has looked
    assert GradientBelow(0.0101)(trace) == "the gradient's length is 0.01, less than 0.0101"
    assert GradientBelow(1.0)(Trace([-9.0])) is None  # the start alone has made no step


@pytest.mark.parametrize("acceleration", [None, "emqn", "squarem"])
def test_a_fit_stops_where_the_gradient_is_short(acceleration):
    """The maximum has no gradient: the shorter it is, the nearer that is; and the reason says how short."""
    X = np.random.default_rng(0).normal(size=600) + np.repeat([0.0, 2.5], 300)
    start = emfuse.Parameters.univariate([0.5, 0.5], [-1.0, 3.0], [1.0, 1.0])
    rough, fine = (emfuse.em(X, start, stop=GradientBelow(n), acceleration=acceleration) for n in (1e-3, 1e-8))
    assert rough.log_likelihood < fine.log_likelihood
    assert fine.converged and fine.reason.startswith("the gradient's length is")
    further = emfuse.em(X, fine.parameters, stop=50)
    assert further.log_likelihood == pytest.approx(fine.log_likelihood, abs=1e-9)


def test_a_norm_must_be_above_0():
    """Nothing is shorter than 0."""
    with pytest.raises(ValueError, match=r"norm must be above 0, got 0\.0"):
        GradientBelow(0.0)
