"""The loop keeps its laws: shift, scale, order, weights, a likelihood that never falls, exact stops, a collapse that is told."""

import io
import itertools
import sys
import types

import numpy as np
import pytest

import emfuse
from emfuse import CollapsedComponent, InMemory, NotConverged, Parameters, em, fit, from_labels
from emfuse.decomposed import DECOMPOSED
from emfuse.stopping import GainBelow, Limit
from emfuse.structures import ALL_STRUCTURES, STRUCTURES

EPS = np.finfo(np.float64).eps


@pytest.fixture
def blobs(mixture):
    """Function that makes rows of three components that overlap a little, and a start from two thirds of the right labels."""

    def made(structure, N=240, D=2, seed=0, digits=None):
        X, labels = mixture("full", K=3, D=D, seed=seed, apart=2.0).sample(N, random_state=seed)
        if digits is not None:
            X = np.round(X * 2.0**digits) / 2.0**digits
        labels[::3] = np.arange(len(labels[::3])) % 3
        return X, from_labels(X, labels, structure)

    return made


def transformed(p, scale, shift):
    """The mixture of scale * x + shift."""
    return Parameters(p.weights, scale * p.means + shift, p.covariances * scale**2, p.structure)


def assert_same_mixture(ours, theirs, tolerance):
    """Equal weights; means and standard deviations within that share of a standard deviation."""
    sds = theirs.sds
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=tolerance)
    assert np.all(np.abs(ours.means - theirs.means) <= tolerance * sds)
    C, size = theirs.covariance_matrices, sds[:, :, None] * sds[:, None, :]
    assert np.all(np.abs(ours.covariance_matrices - C) <= tolerance * size)


# ------------------------------------------------------------------ law 5: shift and scale


@pytest.mark.parametrize("power", [-498, -20, 20, 498])
def test_the_scale_of_the_data_scales_the_answer(build, structure, power, blobs):
    """Fitting a x moves means and covariances with a, and the log-likelihood by -n D log a; 2^498 is about 1e150."""
    X, start = blobs(structure)
    a, steps = 2.0**power, 20
    here, there = em(X, start, stop=steps), em(a * X, transformed(start, a, 0.0), stop=steps)
    # A power of two rounds nothing but the constants, which hold D log a: that share of each responsibility. A step passes on
    # less than half of what it was given, so all of them together come to twice one; twice for two runs, and 4 for the sums.
    tolerance = 16 * EPS * (1.0 + 2 * abs(np.log(a)))
    assert_same_mixture(transformed(there.parameters, 1.0 / a, 0.0), here.parameters, tolerance)
    moved = here.trace - X.size * np.log(a)
    np.testing.assert_allclose(there.trace, moved, rtol=0, atol=len(X) * tolerance)


@pytest.mark.parametrize(
    ("dtype", "offset", "digits"), [(np.float32, 1e3, 13), (np.float32, 1e4, 10), (np.float64, 1e6, 30), (np.float64, 1e8, 25)]
)
def test_an_offset_moves_the_means_alone(build, structure, dtype, offset, digits, blobs):
    """Fitting x + b moves means by b and nothing else; as far as a double can hold the mean of b + x."""
    X, start = blobs(structure, digits=digits)  # so few binary digits that x + b is exact in the data's type
    moved = (X + offset).astype(dtype)
    np.testing.assert_array_equal(moved.astype(np.float64) - offset, X)
    steps = 40
    here, there = em(X, start, stop=steps), em(moved, transformed(start, 1.0, offset), stop=steps)
    # A mean is rounded by up to half an eps of b at every step, and a step passes on less than half of what it was given, so
    # all of them together come to one eps; 4 for the covariances, which hold residuals squared, and 100 for sums of 240 rows.
    # Rows of float32 are computed in float32: 10 of its eps, whatever the offset
    own = 10 * np.finfo(np.float32).eps if dtype is np.float32 else 100 * EPS
    tolerance = 4 * (EPS * offset / here.parameters.sds.min() + own)
    assert_same_mixture(transformed(there.parameters, 1.0, -offset), here.parameters, tolerance)
    np.testing.assert_allclose(there.trace[1:], here.trace[1:], rtol=0, atol=len(X) * tolerance)


def test_float32_converges_where_float64_does(build, structure, mixture):
    """Rows too many to be computed in float64: the trace falls by float32's rounding at most, and ends at the same top."""
    X = mixture("full", K=3, D=4, apart=1.5).sample(3000, random_state=0)[0].astype(np.float32)
    here, there = fit(X, 3, structure=structure), fit(X.astype(np.float64), 3, structure=structure)
    rounding = len(X) * float(np.finfo(np.float32).eps)  # a row's density is off by some eps, and rows cancel
    assert here.converged
    assert np.diff(here.trace).min() >= -rounding
    assert here.log_likelihood == pytest.approx(there.log_likelihood, abs=rounding + len(X) * 1e-7)
    np.testing.assert_allclose(here.parameters.means, there.parameters.means, rtol=0, atol=0.01 * there.parameters.sds.min())


@pytest.mark.parametrize("offset", [1e6, 1e8])
def test_a_fit_of_its_own_start_is_found_again_at_an_offset(structure, offset, mixture):
    """`fit` starts and ends with the same clusters when the data moves."""
    X = mixture("full", K=3, D=2, apart=6.0).sample(300, random_state=0)[0]
    X = np.round(X * 2**25) / 2**25
    here, there = fit(X, 3, structure=structure), fit(X + offset, 3, structure=structure)
    np.testing.assert_array_equal(there.predict(X + offset), here.predict(X))
    # both stop within 1e-8 nats a row of the same maximum
    assert there.log_likelihood == pytest.approx(here.log_likelihood, abs=300 * 1e-7)


def test_a_mean_that_moves_far_in_one_step_keeps_its_covariance(structure, mixture):
    """A start 1e6 standard deviations away: the first step is as exact as from nearby."""
    X = mixture("full", K=1, D=2).sample(200, random_state=0)[0]
    sds = X.std(axis=0)
    far = from_labels(X + 1e6 * sds, np.zeros(200, int), structure)
    made = em(X, far, stop=1)
    assert_same_mixture(made.parameters, from_labels(X, np.zeros(200, int), structure), 200 * EPS * 100)
    assert made.sweeps == 3  # the start, once more about the new mean, and the new parameters


# ------------------------------------------------------------------ law 6: order


def permuted(p, order):
    """The same mixture with its components in another order."""
    covariances = p.covariances if STRUCTURES[p.structure].shared else p.covariances[order]
    return Parameters(p.weights[order], p.means[order], covariances, p.structure)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_components_is_kept(structure, order, blobs):
    """Permuting the start permutes the answer; sums over components are rounded in another order, at each of 20 steps."""
    X, start = blobs(structure)
    here, there = em(X, start, stop=20), em(X, permuted(start, list(order)), stop=20)
    assert_same_mixture(there.parameters, permuted(here.parameters, list(order)), 20 * 240 * EPS)
    np.testing.assert_allclose(there.trace, here.trace, rtol=20 * 240 * EPS)


def test_the_order_of_the_rows_does_not_matter(build, structure, blobs):
    """Permuting the rows changes the order of additions alone."""
    X, start = blobs(structure)
    here, there = em(X, start, stop=20), em(np.random.default_rng(3).permutation(X), start, stop=20)
    assert_same_mixture(there.parameters, here.parameters, 20 * 240 * EPS)
    np.testing.assert_allclose(there.trace, here.trace, rtol=20 * 240 * EPS)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_features_is_kept(structure, order, blobs):
    """Permuting the columns permutes the means' columns, and the covariances' rows and columns."""
    X, start = blobs(structure, D=3)
    order = list(order)
    C = start.covariances
    # arrays that have features have them last: (K, D), (D, D) or (K, D, D)
    C = C if structure == "spherical" else C[..., order] if structure == "diag" else C[..., order, :][..., order]
    here, there = em(X, start, stop=20), em(X[:, order], Parameters(start.weights, start.means[:, order], C, structure), stop=20)
    tolerance = 20 * 240 * EPS * 10  # 10: a decomposition in another order rounds by the condition number's share
    np.testing.assert_allclose(there.parameters.weights, here.parameters.weights, atol=tolerance)
    np.testing.assert_allclose(there.parameters.means, here.parameters.means[:, order], atol=tolerance * X.std())
    matrices = here.parameters.covariance_matrices[:, order][:, :, order]
    np.testing.assert_allclose(there.parameters.covariance_matrices, matrices, atol=tolerance * X.var())
    np.testing.assert_allclose(there.trace, here.trace, rtol=tolerance)


# ------------------------------------------------------------------ law 4: weights


def test_weight_two_is_the_row_twice(build, structure, blobs):
    """A weighted fit is the fit of the repeated rows, step by step; weight 0 leaves a row out."""
    X, start = blobs(structure)
    v = np.arange(240) % 3
    here, there = em(X, start, stop=20, sample_weight=v), em(np.repeat(X, v, axis=0), start, stop=20)
    assert_same_mixture(there.parameters, here.parameters, 20 * 240 * EPS)
    np.testing.assert_allclose(there.trace, here.trace, rtol=20 * 240 * EPS)
    assert here.statistics.weight == there.statistics.weight == v.sum()
    assert here.bic == pytest.approx(there.bic, rel=20 * 240 * EPS)


def test_the_unit_of_the_weights_does_not_matter_to_the_mixture(structure, blobs):
    """All weights times 2^10: the same parameters to the last bit, and 2^10 times the log-likelihood."""
    X, start = blobs(structure)
    v = np.random.default_rng(0).uniform(0.5, 2.0, 240)
    here, there = em(X, start, stop=10, sample_weight=v), em(X, start, stop=10, sample_weight=1024.0 * v)
    assert there.parameters == here.parameters
    np.testing.assert_array_equal(there.trace, 1024.0 * here.trace)


# ------------------------------------------------------------------ law 3: the likelihood never falls


@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("D", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_log_likelihood_never_falls(structure, seed, K, D, mixture, log_likelihood_rounding):
    """Each sweep is at least as high as the one before, but for the rounding of the two sums, which is computed."""
    X = mixture("full", K=3, D=D, seed=seed, apart=1.0).sample(300, random_state=seed)[0]
    start = emfuse.initialise.start(InMemory(X), K, structure, "random", emfuse.initialise.generator(seed))
    made = em(X, start, stop=60, history=True)
    rounding = [log_likelihood_rounding(step.parameters, X) for step in made.history]
    assert np.all(np.diff(made.trace) >= -(np.array(rounding[1:]) + rounding[:-1]))
    assert max(rounding) < 1e-9  # nats: the law would be empty if rounding explained everything


def test_the_last_entry_of_the_trace_scores_the_parameters(build, structure, blobs):
    """trace[-1] is the log-likelihood of fit.parameters, not of those before; to the last bit."""
    X, start = blobs(structure)
    made = em(X, start, stop=7)
    assert made.trace[-1] == made.log_likelihood == InMemory(X).sweep(made.parameters.factors).log_likelihood
    assert made.log_likelihood == pytest.approx(made.score_samples(X).sum(), rel=240 * EPS)


def test_the_statistics_are_those_of_the_parameters(blobs):
    """One more M step can be taken from a fit: maximise(fit.statistics) is where the next step would go."""
    X, start = blobs("full")
    seven, eight = em(X, start, stop=7), em(X, start, stop=8)
    assert emfuse.maximise(seven.statistics, "full") == eight.parameters


# ------------------------------------------------------------------ law 7: the same bits


def test_the_same_bits_for_any_number_of_threads(build, structure):
    """A whole fit, from the seed to the last parameter."""
    X = np.random.default_rng(0).standard_normal((30_000, 3)) + np.random.default_rng(1).integers(0, 3, (30_000, 1)) * 3.0
    one = fit(X, 3, structure=structure, stop=3, random_state=0, n_threads=1)
    many = fit(X, 3, structure=structure, stop=3, random_state=0, n_threads=3)
    assert len(emfuse.engines.cut(len(X), one.parameters.factors)) > 1  # or there would be nothing to share out
    assert many.parameters == one.parameters
    np.testing.assert_array_equal(many.trace, one.trace)
    np.testing.assert_array_equal(many.score_samples(X), one.score_samples(X))


def test_a_chain_of_short_fits_is_one_long_fit(structure, blobs):
    """Two times five steps are ten, to the last bit: nothing is carried over but the parameters."""
    X, start = blobs(structure)
    ten = em(X, start, stop=10)
    five = em(X, start, stop=5)
    assert em(X, five.parameters, stop=5).parameters == ten.parameters


# ------------------------------------------------------------------ stops


@pytest.mark.parametrize("steps", [0, 1, 2, 17])
def test_an_integer_stop_runs_exactly_that_many_steps(steps, blobs):
    """`stop=n` is n M steps: n + 1 entries, n = 0 scores the start; and is no convergence."""
    X, start = blobs("full")
    made = em(X, start, stop=steps, history=True)
    assert (len(made.trace), len(made.history), made.sweeps) == (steps + 1, steps + 1, steps + 1)
    assert not made.converged
    assert (made.parameters is start) is (steps == 0)


def test_a_rule_stops_when_it_says_so(blobs):
    """The gain of the last sweep is below the rule's, that of the sweep before is not; the reason is the rule's."""
    X, start = blobs("full")
    made = em(X, start, stop=GainBelow(1e-3))
    assert made.converged
    assert made.reason == GainBelow(1e-3)(list(made.trace)) and made.reason
    assert np.all(np.diff(made.trace)[:-1] >= 1e-3)


def test_a_rule_of_ones_own_is_any_callable(blobs):
    """A plain sentence is convergence, a Limit is not."""
    X, start = blobs("full")
    for reason, converged in (("enough", True), (Limit("enough"), False)):
        made = em(X, start, stop=lambda trace, reason=reason: reason if len(trace) == 4 else None)
        assert (made.reason, made.converged, len(made.trace)) == ("enough", converged, 4)


def test_a_rule_sees_parameters_and_weight(blobs):
    """The trace that a rule gets carries the sum of weights, and the parameters that the last two entries score."""
    X, start = blobs("diag")
    seen = []

    def rule(trace):
        seen.append((trace.weight, trace.previous, trace.parameters))
        return "enough" if len(trace) == 3 else None

    em(X, start, stop=rule)
    assert [weight for weight, _, _ in seen] == [240.0] * 3
    assert seen[0][1:] == (None, start)
    assert seen[1][1] is start
    assert seen[2][1] is seen[1][2]


@pytest.mark.parametrize(("answer", "reason"), [("that will do", "that will do"), (True, "the callback asked to stop")])
def test_a_callback_can_stop(answer, reason, blobs):
    """A true answer stops after that sweep; a string is the reason; it is no convergence."""
    X, start = blobs("full")
    seen = []
    made = em(X, start, stop=100, callback=lambda progress: seen.append(progress) or (progress.sweep == 3 and answer))
    assert (made.reason, made.converged, len(made.trace)) == (reason, False, 4)
    assert [progress.sweep for progress in seen] == [0, 1, 2, 3]
    assert [progress.log_likelihood for progress in seen] == made.trace.tolist()
    assert seen[-1].parameters is made.parameters
    assert np.isnan(seen[0].gain) and seen[2].gain == made.trace[2] - made.trace[1]


def test_the_rules_reason_is_stronger_than_the_callbacks(blobs):
    """Where both stop at the same sweep, it is the rule that says why, and whether that is convergence."""
    made = em(
        *blobs("full"), stop=lambda trace: "enough" if len(trace) == 3 else None, callback=lambda progress: progress.sweep == 2
    )
    assert (made.reason, made.converged) == ("enough", True)


def test_an_error_in_a_callback_goes_to_the_caller(blobs):
    """Ctrl-C too: it is not swallowed, and the next fit is as if nothing had been."""
    X, start = blobs("full")

    def interrupt(progress):
        if progress.sweep == 2:
            raise KeyboardInterrupt

    before = em(X, start, stop=5)
    with pytest.raises(KeyboardInterrupt):
        em(X, start, stop=5, callback=interrupt)
    assert em(X, start, stop=5).parameters == before.parameters


# ------------------------------------------------------------------ what comes back


def test_the_history_prints_as_a_table():
    """Sweep, weights, means, standard deviations and log-likelihood, one line a sweep: here one step from rows 0, 2, 10, 12."""
    made = em([0.0, 2.0, 10.0, 12.0], Parameters.univariate([0.5, 0.5], [0, 12], [1, 1]), stop=1, history=True)
    head, first, second = str(made.history).splitlines()
    assert head.split() == ["sweep", "pi1", "pi2", "mu1", "mu2", "sd1", "sd2", "log-likelihood"]
    assert first.split() == ["0", "0.5", "0.5", "0", "12", "1", "1", f"{made.trace[0]:.6f}"]
    assert second.split() == ["1", "0.5", "0.5", "1", "11", "1", "1", f"{made.trace[1]:.6f}"]
    # l = 4 log(1/2) - 2 log 2 pi - (0 + 4 + 4 + 0) / 2, and then - (1 + 1 + 1 + 1) / 2; the other component is e^-40 or less
    assert made.trace == pytest.approx(4 * np.log(0.5) - 2 * np.log(2 * np.pi) - np.array([4.0, 2.0]), rel=1e-14)


def test_the_history_of_several_features_names_them():
    """mu2[1] is component 2, feature 1."""
    made = em([[0.0, 1.0], [2.0, 3.0]], Parameters([1.0], [[1, 2]], [[1, 1]], "diag"), stop=0, history=True)
    assert str(made.history).splitlines()[0].split() == ["sweep", "pi1", "mu1[0]", "mu1[1]", "sd1[0]", "sd1[1]", "log-likelihood"]


def test_no_history_where_none_was_asked_for(blobs):
    """It keeps every sweep's parameters, so it is off by default; an empty one says so."""
    assert em(*blobs("full"), stop=2).history is None
    assert str(emfuse.History()) == "no sweeps were kept"


def test_criteria_by_hand():
    """K = 1, D = 1: p = 2, so AIC = 4 - 2 log L and BIC = 2 log n - 2 log L; of rows -1 and 1, log L = -log 2 pi - 1."""
    made = em([-1.0, 1.0], Parameters.univariate([1.0], [0.0], [1.0]), stop=0)
    log_likelihood = -np.log(2 * np.pi) - 1.0
    assert made.free_parameters == 2
    assert made.aic == pytest.approx(4.0 - 2.0 * log_likelihood, rel=4 * EPS)
    assert made.bic == pytest.approx(2.0 * np.log(2.0) - 2.0 * log_likelihood, rel=4 * EPS)


def test_a_fit_predicts_as_its_mixture_does(structure, blobs):
    """Labels are the largest responsibility, which sum to 1; log densities are those of the mixture."""
    X, start = blobs(structure)
    made = em(X, start, stop=5)
    r = made.predict_proba(X)
    np.testing.assert_array_equal(made.predict(X), r.argmax(axis=1))
    np.testing.assert_allclose(r.sum(axis=1), 1.0, atol=3 * EPS)
    direct = sum(
        w * np.exp(-0.5 * np.einsum("na,ab,nb->n", X - mu, np.linalg.inv(C), X - mu)) / np.sqrt(np.linalg.det(2 * np.pi * C))
        for w, mu, C in zip(made.parameters.weights, made.parameters.means, made.parameters.covariance_matrices, strict=True)
    )
    np.testing.assert_allclose(made.score_samples(X), np.log(direct), atol=1e-12)  # an inverse, and densities down to e^-30
    assert made.sample(7, random_state=0)[0].shape == (7, 2)


def test_a_fit_of_a_file_predicts_the_file(blobs, tmp_path):
    """What `fit` takes, `predict` and its like take: a path, blocks, a Dask collection (lazily); not an engine without rows."""
    X, start = blobs("full")
    np.save(tmp_path / "rows.npy", X)
    made = em(X, start, stop=5)
    array = pytest.importorskip("dask.array", reason="partitions are made with dask").from_array(X, chunks=(100, 2))
    for name in ("predict", "predict_proba", "score_samples"):
        expected = getattr(made, name)(X)
        for rows in (tmp_path / "rows.npy", emfuse.Blocks([X[:100], X[100:]]), array):
            np.testing.assert_array_equal(np.asarray(getattr(made, name)(rows)), expected)
    assert hasattr(made.predict(array), "__dask_graph__")
    with pytest.raises(TypeError, match="X must be rows, got a Binned"):
        made.predict(emfuse.Binned([0.0, 1.0, 2.0], [3, 4]))


def test_a_fit_prints_what_it_is(blobs):
    """The mixture, the criteria and the reason."""
    text = str(em(*blobs("full"), stop=2))
    assert "Parameters: 3 components, 2 features, structure 'full'" in text
    assert "stopped before convergence after 3 sweeps" in text
    assert text.endswith("the 2 M steps asked for were done")


class Stderr(io.StringIO):
    """Where progress is written: a terminal, or not."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def clock(monkeypatch):
    """A clock of the display's that is moved by hand: a list of one number, seconds."""
    seconds = [0.0]
    fake = types.SimpleNamespace(monotonic=lambda: seconds[0])
    monkeypatch.setattr(sys.modules["emfuse.em"], "time", fake)
    return seconds


def test_progress_is_shown_on_stderr(blobs, capsys):
    """verbose=True says something there, and nothing on stdout; without it not a word."""
    em(*blobs("full"), stop=2, verbose=True)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("EM: sweep 0, log-likelihood")
    em(*blobs("full"), stop=2)
    assert capsys.readouterr() == ("", "")
    fit(blobs("full")[0], 2, stop=2, n_init=2, verbose=True)
    assert [line[:11] for line in capsys.readouterr().err.splitlines()] == ["EM: sweep 0", "EM: sweep 2"] * 2


def test_progress_in_a_file_is_a_line_every_ten_seconds_and_the_last(blobs, monkeypatch, clock):
    """Sweep, log-likelihood, gain and rows a second: of 240 rows in four seconds, 60."""
    monkeypatch.setattr(sys, "stderr", shown := Stderr(terminal=False))
    made = em(*blobs("full"), stop=8, verbose=True, callback=lambda _: clock.__setitem__(0, clock[0] + 4.0))
    lines = shown.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["EM: sweep 0", "EM: sweep 3", "EM: sweep 6", "EM: sweep 8"]
    gain = made.trace[3] - made.trace[2]
    assert lines[1] == f"EM: sweep 3, log-likelihood {made.trace[3]:.6f}, gain {gain:.3g}, 60 rows/s"


def test_progress_in_a_terminal_is_one_line_that_is_written_over(blobs, monkeypatch, clock):
    """Ten times a second at most; what was longer is wiped out; the line ends with the fit, also by an error."""
    monkeypatch.setattr(sys, "stderr", shown := Stderr(terminal=True))
    em(*blobs("full"), stop=30, verbose=True, callback=lambda _: clock.__setitem__(0, clock[0] + 0.03))
    text = shown.getvalue()
    assert text.endswith("\n") and text.count("\n") == 1
    written = text.rstrip("\n").split("\r")[1:]
    assert [int(line.split(",")[0].split()[-1]) for line in written] == [0, 4, 8, 12, 16, 20, 24, 28, 30]
    assert all(len(after) >= len(before.rstrip()) for before, after in itertools.pairwise(written))
    monkeypatch.setattr(sys, "stderr", shown := Stderr(terminal=True))
    with pytest.raises(ZeroDivisionError):
        em(*blobs("full"), stop=30, verbose=True, callback=lambda _: 1 / 0)
    assert shown.getvalue().endswith("\n")


def test_within_a_long_walk_progress_says_how_much_is_left(blobs, monkeypatch, clock):
    """Of blocks that take two seconds each, from the first walk on; the engine's own listener is told too, and stays."""
    monkeypatch.setattr(sys.modules["emfuse.blocks"], "time", sys.modules["emfuse.em"].time)
    monkeypatch.setattr(sys, "stderr", shown := Stderr(terminal=True))
    X, start = blobs("full")
    heard = []

    blocks = emfuse.Blocks(np.array_split(X, 4))
    blocks.on_rows = listener = lambda *told: (heard.append(told), clock.__setitem__(0, clock[0] + 2.0))
    em(blocks, start, stop=1, verbose=True, variance_floor=1e-6)
    written = [line.strip() for line in shown.getvalue().split("\r")]
    assert "EM: reading; now 120 rows" in written  # in the walk for the moments, when it is not known how many there are
    sweeping = [line for line in written if line.startswith("EM: sweep 0") and "; now" in line]
    assert [line.partition("; ")[2] for line in sweeping] == [
        "now 120 rows of 240, 2 s left",
        "now 180 rows of 240, 1 s left",
        "now 240 rows of 240, 0 s left",
    ]
    assert blocks.on_rows is listener
    assert [told[0] for told in heard] == [60, 120, 180, 240] * 3
    assert {told[1] for told in heard[:2]} == {None}  # and then it may be, as blocks are read ahead
    assert {told[1] for told in heard[4:]} == {240}


def test_rows_per_second_counts_every_walk(blobs, clock):
    """Of an accelerated fit refused trials too: from the first sweep on, rows times walks over seconds."""
    X, start = blobs("full")
    seen = []

    def callback(progress):
        seen.append(progress.rows_per_second)
        clock[0] += 2.0

    made = em(X, start, stop=40, acceleration="emqn", callback=callback, sample_weight=np.full(240, 0.5))
    walks = np.array(seen[1:]) * 2.0 / 120.0
    assert walks.sum() == made.sweeps - 1 and walks.min() == 1.0


def test_warnings_of_standard_errors_name_the_callers_line(blobs):
    """Of a fit that reg_covar keeps from its maximum: the warning is about the line that asked, here and not in the package."""
    X, _ = blobs("full")
    made = em(X, from_labels(X, np.zeros(240, int)), stop=1, reg_covar=1.0)
    for asked in (made.standard_errors, made.confidence_intervals):
        with pytest.warns(emfuse.uncertainty.UncertaintyWarning) as caught:
            asked(X)
        assert caught[0].filename == __file__
    assert "method : str" in made.standard_errors.__doc__


# ------------------------------------------------------------------ fit


def test_the_best_of_several_starts_is_kept(mixture):
    """n_init=8 is the best of its starts, which are drawn one after the other from the seed."""
    X = mixture(K=3, D=2, apart=1.0).sample(200, random_state=0)[0]
    given = {"structure": "tied", "init": "random_rows", "stop": 30}
    generator = np.random.default_rng(4)
    singles = [fit(X, 4, random_state=generator, **given).log_likelihood for _ in range(8)]
    best = fit(X, 4, random_state=np.random.default_rng(4), n_init=8, **given)
    assert best.log_likelihood == max(singles)
    assert len(set(singles)) > 1


def test_a_start_of_ones_own_is_used(blobs):
    """`init=Parameters` is em from there."""
    X, start = blobs("tied")
    assert fit(X, 3, init=start, stop=4, variance_floor=0.0).parameters == em(X, start, stop=4).parameters
    with pytest.raises(ValueError, match="init must have n_components = 2 components, got 3"):
        fit(X, 2, init=start)


def test_a_fit_that_reaches_the_default_limit_warns(blobs, monkeypatch):
    """NotConverged, with the reason; a stop of one's own warns of nothing."""
    monkeypatch.setattr(emfuse.stopping, "AT_MAXIMUM", lambda trace: Limit("the limit was reached"))
    X, _ = blobs("full")
    with pytest.warns(NotConverged, match="the fit did not converge: the limit was reached"):
        fit(X, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_components": 0}, ValueError, "n_components must be from 1 to the number of rows, 4, got 0"),
        ({"n_components": 5}, ValueError, "n_components must be from 1 to the number of rows, 4, got 5"),
        ({"n_components": 2.0}, TypeError, "n_components must be a whole number, got 2.0"),
        ({"n_components": True}, TypeError, "n_components must be a whole number, got True"),
        ({"n_init": 0}, ValueError, "n_init must be a whole number of at least 1, got 0"),
        ({"structure": "round"}, ValueError, "structure must be one of"),
        ({"init": "best"}, ValueError, "init must be one of"),
        ({"reg_covar": -1.0}, ValueError, "reg_covar must be finite and at least 0, got -1.0"),
        ({"reg_covar": np.nan}, ValueError, "reg_covar must be finite and at least 0, got nan"),
        ({"stop": "soon"}, TypeError, "stop must be a rule"),
        ({"n_threads": 0}, ValueError, "n_threads must be a whole number of at least 1, or None, got 0"),
        ({"sample_weight": [1.0]}, ValueError, "sample_weight must have shape (4,)"),
    ],
)
def test_an_argument_of_fit_that_cannot_be_says_why(arguments, error, words):
    """The error names the argument and its value."""
    with pytest.raises(error) as caught:
        fit([1.0, 2.0, 4.0, 8.0], **{"n_components": 1, **arguments})
    assert str(caught.value).startswith(words)


def test_an_argument_of_em_that_cannot_be_says_why():
    """A start must be Parameters of as many features as X has; an engine has its weights already."""
    start = Parameters.univariate([1.0], [0.0], [1.0])
    with pytest.raises(TypeError, match=r"start must be emfuse\.Parameters, got int; `emfuse\.fit` finds a start by itself"):
        em([1.0], 3, stop=1)
    with pytest.raises(ValueError, match="X has 2 features, but the mixture has 1"):
        em([[1.0, 2.0]], start, stop=1)
    with pytest.raises(ValueError, match="sample_weight must be given to the engine, not beside it"):
        em(InMemory([1.0]), start, stop=1, sample_weight=[1.0])
    with pytest.raises(ValueError, match=r"acceleration must be None where reg_covar is above 0, got 'emqn' and 0\.1"):
        em([1.0, 2.0], start, acceleration="emqn", reg_covar=0.1)
    with pytest.raises(ValueError, match=r"acceleration must be one of 'auto', 'emqn', 'squarem',? or None, got 'fast'"):
        em([1.0], start, stop=1, acceleration="fast")


def test_a_far_row_is_named_by_fit_too(structure):
    """One error and no warning, whichever step of a start or a fit meets it first."""
    X = np.random.default_rng(0).standard_normal((60, 2))
    X[17, 1] = 1e200
    with pytest.raises(ValueError, match=r"row 17 of X|spread must be below about 1e150"):
        fit(X, 2, structure=structure)


# ------------------------------------------------------------------ collapse

RANDOM = np.random.default_rng(0).standard_normal((50, 2))
HARD = {
    "all rows the same": np.full((20, 3), 0.1),
    "two distinct rows": np.repeat([[1.0, 2.0], [3.0, 5.0]], 10, axis=0),
    "a constant column": np.column_stack([RANDOM[:, 0], np.full(50, 7.0)]),
    "a repeated column": RANDOM[:, [0, 0, 1]],
    "a column that is a sum": np.column_stack([RANDOM, RANDOM.sum(axis=1)]),
    "fewer rows than features": RANDOM[:6].reshape(3, 4),
    "one row": np.array([[1.0, 2.0]]),
    "one number": np.array([[1.0]]),
    "zeros": np.zeros((10, 2)),
    "whole numbers": np.repeat(np.arange(4.0), 3)[:, None],
    "float32 that rounds": np.full((30, 2), 0.1, np.float32),
}


@pytest.mark.parametrize("init", ["kmeans", "kmeans++", "random_rows", "random"])
@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("name", HARD)
@pytest.mark.filterwarnings("ignore::emfuse.NotConverged", "ignore::emfuse.CollapseWarning")
def test_data_without_spread_collapses_or_fits(structure, name, K, init):
    """CollapsedComponent or a finite result: never a NaN, a hang, a LinAlgError or a warning of NumPy's."""
    X = HARD[name]
    if len(X) < K:
        with pytest.raises(ValueError, match=f"n_components must be from 1 to the number of rows, {len(X)}, got {K}"):
            fit(X, K, structure=structure, init=init)
        return
    try:
        made = fit(X, K, structure=structure, init=init, random_state=0)
    except CollapsedComponent as error:
        assert "Raise reg_covar" in str(error) or "Ask for fewer components" in str(error)
        return
    p = made.parameters
    assert np.isfinite(np.concatenate([p.weights, p.means.ravel(), p.covariances.ravel(), made.trace])).all()


@pytest.mark.parametrize("init", ["kmeans", "random"])
@pytest.mark.parametrize("name", [name for name in HARD if len(HARD[name]) > 1])
@pytest.mark.filterwarnings("ignore::emfuse.NotConverged")
def test_regularisation_fits_data_without_spread(structure, name, init):
    """With reg_covar each of them has an answer, whose variances are at least that."""
    X = HARD[name]
    start = emfuse.from_responsibilities(X, np.full((len(X), 2), 0.5) + [[0.1, -0.1]] * len(X), structure, reg_covar=1e-3)
    made = em(X, start, stop=20, reg_covar=1e-3)
    assert made.parameters.variances.min() >= 1e-3 * (1 - 1e-6)  # the scatter itself may be below 0 by its rounding


def test_a_component_that_shrinks_onto_one_row_is_told(blobs):
    """A start whose second component stands on one row alone: the likelihood has no maximum there."""
    X = np.r_[np.random.default_rng(0).standard_normal(50), 20.0]
    with pytest.raises(CollapsedComponent) as caught:
        em(X, Parameters.univariate([0.9, 0.1], [0.0, 20.0], [1.0, 0.1]), stop=100)
    assert (caught.value.component, caught.value.feature) == (1, 0)
    assert caught.value.mass == pytest.approx(1.0, abs=1e-12)


def test_a_collapse_in_fit_leaves_nothing_half_done(blobs):
    """After the error the same call on other data is as ever."""
    X, _ = blobs("full")
    before = fit(X, 2, stop=5)
    with pytest.raises(CollapsedComponent):
        fit(np.zeros((10, 2)), 2)
    assert fit(X, 2, stop=5).parameters == before.parameters


def test_a_stream_is_no_data():
    """What can be read only once cannot be swept."""
    with pytest.raises((TypeError, ValueError), match="EM needs many passes"):
        em(io.StringIO("1 2 3"), Parameters.univariate([1.0], [0.0], [1.0]), stop=1)


def test_a_start_that_collapses_is_passed_over(monkeypatch):
    """The best of several starts is kept; the error comes only where all of them collapse."""
    X = np.random.default_rng(0).normal(size=40) + np.repeat([0.0, 9.0], 20)
    sound = emfuse.Parameters.univariate([0.5, 0.5], [0.0, 9.0], [1.0, 1.0])
    hopeless = emfuse.Parameters.univariate([0.5, 0.5], [0.0, 99.0], [1.0, 0.01])
    starts = [hopeless, sound, hopeless]
    monkeypatch.setattr(emfuse.initialise, "start", lambda *_: starts.pop())
    made, alone = emfuse.fit(X, 2, n_init=3, on_collapse="raise"), emfuse.fit(X, 2, init=sound)
    assert made.log_likelihood == alone.log_likelihood
    np.testing.assert_array_equal(made.scores, [np.nan, alone.log_likelihood, np.nan])
    with pytest.raises(emfuse.CollapsedComponent):
        emfuse.fit(X, 2, init=hopeless, on_collapse="raise")


@pytest.mark.parametrize("weight", [1e-300, 1e249])
def test_row_weights_of_any_size_give_the_same_mixture(weight):
    """Only their ratios count for the parameters."""
    X = np.random.default_rng(0).normal(size=(100, 1)) + np.repeat([0.0, 5.0], 50)[:, None]
    start = emfuse.Parameters.univariate([0.5, 0.5], [0.0, 5.0], [1.0, 1.0])
    plain = emfuse.em(X, start, stop=10).parameters
    weighted = emfuse.em(X, start, stop=10, sample_weight=np.full(100, weight)).parameters
    np.testing.assert_allclose(weighted.means, plain.means, rtol=1e-12)  # 100 terms in another order
    np.testing.assert_allclose(weighted.covariances, plain.covariances, rtol=1e-12)


def test_data_too_small_for_doubles_is_refused_and_not_rounded():
    """Variances below 1e-305 have fewer digits than 16: an error says to multiply X, and nothing is returned."""
    X = 1e-160 * np.random.default_rng(0).normal(size=(100, 2))
    with pytest.raises(emfuse.CollapsedComponent, match="multiply X by a constant"):
        emfuse.fit(X, 1, structure="diag")


@pytest.mark.parametrize("structure", ["full", "tied"])
def test_a_column_that_repeats_another_but_for_rounding_is_a_collapse(structure):
    """In float32 the copy differs by 6e-8 of itself: what is left of its variance is rounding, and no density."""
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[:, 2] = 1.7 * X[:, 0]
    with pytest.raises(emfuse.CollapsedComponent, match="in feature 2, given the features before it"):
        emfuse.fit(X.astype(np.float32), 2, structure=structure)


@pytest.mark.parametrize("name", emfuse.structures.ALL_STRUCTURES)
@pytest.mark.parametrize("acceleration", [None, "emqn", "squarem"])
def test_every_structure_climbs_and_keeps_its_shape(name, acceleration):
    """Fourteen structures: the trace never falls, its end is the mixture's, and an acceleration ends no lower than EM."""
    X = np.random.default_rng(4).normal(size=(300, 3)) @ [[1, 0.5, 0], [0, 1, 0.3], [0, 0, 2]]
    X[150:] += [2.5, -1.0, 1.0]
    start = emfuse.initialise.start(emfuse.InMemory(X), 2, name, "kmeans", np.random.default_rng(0))
    made = em(X, start, acceleration=acceleration, stop=emfuse.stopping.AT_MAXIMUM)
    assert made.converged and made.parameters.structure == start.structure
    assert np.diff(made.trace).min() > -1e-10 * abs(made.trace[-1])  # iterative M steps end within 1e-12 of their own maximum
    again = emfuse.Parameters(made.parameters.weights, made.parameters.means, made.parameters.covariances, name)
    assert emfuse.InMemory(X).sweep(again.factors).log_likelihood == pytest.approx(made.log_likelihood, rel=1e-12)
    kind = emfuse.structures.structure_named(name)
    p = made.parameters
    inside = kind.estimate(
        (p.weights.reshape((-1,) + (1,) * (p.factors.P.ndim - 1)) * p.covariances.reshape(kind.factor_shape(2, 3)))
        if name != "tied" else p.covariances[None], p.weights, before=p.covariances,
    )  # fmt: skip
    np.testing.assert_allclose(inside, p.covariances, rtol=1e-6, atol=1e-8)  # a member of the family is its own estimate
    assert made.log_likelihood >= em(X, start, stop=300).log_likelihood - 1e-3


# ------------------------------------------------------------------ the build's own loop

RULES = {
    "steps": 25,
    "tight": emfuse.stopping.TIGHT,
    "at the maximum": emfuse.stopping.AT_MAXIMUM,
    "twelve sweeps": emfuse.stopping.SweepLimit(12),
    "mclust's": emfuse.stopping.RelativeGainBelow(1e-7),
    "mixtools'": emfuse.stopping.GainBelow(1e-6),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("acceleration", [None, "emqn"])
@pytest.mark.parametrize("floor", [0.0, 1e-16, 1e-3])
@pytest.mark.parametrize("D", [1, 3])
def test_the_builds_own_loop_is_pythons(build, structure, D, floor, acceleration, rule):
    """Without a callback few rows are climbed in compiled code: the same trace, parameters, reason and count of sweeps."""
    check_the_builds_own_loop(structure, D, floor, acceleration, RULES[rule])


@pytest.mark.parametrize("acceleration", [None, "emqn"])
@pytest.mark.parametrize("floor", [0.0, 1e-3])
@pytest.mark.parametrize("D", [2, 4])
@pytest.mark.parametrize("kind", DECOMPOSED, ids=lambda kind: kind.name)
def test_the_builds_own_loop_is_pythons_for_ten_structures_more(build, kind, D, floor, acceleration):
    """Each has its M step there, and trials of an acceleration are brought back into the family."""
    check_the_builds_own_loop(kind.name, D, floor, acceleration, emfuse.stopping.AT_MAXIMUM)


def check_the_builds_own_loop(structure, D, floor, acceleration, rule):
    random = np.random.default_rng(1)
    X = random.normal(size=(200, D)) + 2.0 * random.integers(3, size=200)[:, None]
    v = random.uniform(0.5, 2.0, 200) if D == 3 else None
    start = emfuse.initialise.start(emfuse.InMemory(X, v), 3, structure, "kmeans", np.random.default_rng(0))
    how = {"stop": rule, "acceleration": acceleration, "variance_floor": floor, "sample_weight": v}
    own, python = em(X, start, **how), em(X, start, **how, callback=lambda _: None)
    assert (own.reason.split()[-3:], own.converged) == (python.reason.split()[-3:], python.converged)
    # penalties are added up in another order; and a step of an acceleration is a quotient of differences of such values
    np.testing.assert_allclose(own.trace, python.trace, rtol=1e-13 if acceleration is None else 1e-10)
    assert own.sweeps == python.sweeps
    np.testing.assert_allclose(own.parameters.means, python.parameters.means, rtol=1e-6)
    np.testing.assert_allclose(own.parameters.covariances, python.parameters.covariances, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(own.statistics.mass, python.statistics.mass, rtol=1e-6)
    assert own.statistics.log_likelihood == own.log_likelihood == pytest.approx(python.log_likelihood, rel=1e-12)
    assert own.distance == pytest.approx(python.distance, rel=0.1, abs=1e-7)


HOSTILE = {
    "units from 1e-9 to 1e9": lambda X: X * np.geomspace(1e-9, 1e9, X.shape[1]),
    "units of 1e-100": lambda X: X * 1e-100,
    "units of 1e100": lambda X: X * 1e100,
    "far from zero": lambda X: X + 1e8,
    "rounded": np.round,
    "nearly collinear": lambda X: np.column_stack([X, X[:, 0] + 1e-7 * X[:, 1]]),
    "collinear": lambda X: np.column_stack([X, 2.0 * X[:, 0]]),
    "a constant": lambda X: np.column_stack([X, np.ones(len(X))]),
    "a repeated row": lambda X: np.concatenate([X, np.repeat(X[:1], 40, axis=0)]),
}


@pytest.mark.parametrize("acceleration", [None, "emqn"])
@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("name", ALL_STRUCTURES)
def test_builds_do_as_the_definition_on_hostile_data(build, name, what, acceleration):
    """The same log-likelihood, or the same error, as in pure NumPy; and it never falls."""
    random = np.random.default_rng(3)
    X = HOSTILE[what](random.normal(size=(90, 4)) + 3.0 * random.integers(3, size=90)[:, None])
    labels = random.integers(3, size=len(X))
    outcomes = []
    for which in (build, emfuse.kernels.REFERENCE):
        with emfuse.kernels.use(which):
            try:
                made = em(X, from_labels(X, labels, name), stop=25, acceleration=acceleration, variance_floor=1e-12)
                assert (np.diff(made.trace) >= -1e-9 * np.abs(made.trace[1:])).all()
                outcomes.append(("fit", made.log_likelihood))
            except CollapsedComponent:  # of which feature, where all are gone, is rounding's choice
                outcomes.append(("collapse", 0.0))
    assert outcomes[0] == (outcomes[1][0], pytest.approx(outcomes[1][1], rel=1e-6))


@pytest.mark.parametrize("acceleration", [None, "emqn"])
@pytest.mark.parametrize("name", [*STRUCTURES, "VEV"])
def test_the_builds_own_loop_keeps_the_history(build, name, acceleration):
    """Every sweep's parameters, log-likelihood and gain, as Python's loop keeps them; times never fall."""
    random = np.random.default_rng(1)
    X = random.normal(size=(200, 2)) + 2.0 * random.integers(3, size=200)[:, None]
    start = emfuse.initialise.start(emfuse.InMemory(X), 3, name, "kmeans", np.random.default_rng(0))
    how = {"stop": 25, "acceleration": acceleration, "history": True}
    own, python = em(X, start, **how).history, em(X, start, **how, callback=lambda _: None).history
    assert [sweep.sweep for sweep in own] == [sweep.sweep for sweep in python] == list(range(26))
    for mine, theirs in zip(own, python, strict=True):
        assert mine.log_likelihood == pytest.approx(theirs.log_likelihood, rel=1e-12)
        assert mine.gain == pytest.approx(theirs.gain, abs=1e-6, nan_ok=True)
        for part in ("weights", "means", "covariances"):
            np.testing.assert_allclose(getattr(mine.parameters, part), getattr(theirs.parameters, part), rtol=1e-5, atol=1e-8)
        assert mine.parameters.factors.log_constant == pytest.approx(theirs.parameters.factors.log_constant, rel=1e-5)
    assert (np.diff([sweep.seconds for sweep in own]) >= 0.0).all() and all(sweep.rows_per_second > 0.0 for sweep in own)


@pytest.mark.parametrize("acceleration", [None, "emqn"])
def test_what_is_not_plain_goes_on_in_python(build, acceleration):
    """Nearly collinear features are left to LAPACK, a collapse and a far row to the errors: as without the build's own loop."""
    random = np.random.default_rng(0)
    x = random.normal(size=300) + np.repeat([0.0, 4.0, 8.0], 100)
    X = np.column_stack([x, x + 1e-5 * random.normal(size=300)])
    start = from_labels(X, np.repeat([0, 1, 2], 100))
    own, python = (em(X, start, stop=30, acceleration=acceleration, callback=c) for c in (None, lambda _: None))
    np.testing.assert_allclose(own.trace, python.trace, rtol=1e-9)
    kept = em(X, start, stop=30, acceleration=acceleration, history=True)
    assert [sweep.log_likelihood for sweep in kept.history] == list(kept.trace) == list(own.trace)
    assert kept.history[-1].parameters == kept.parameters
    with pytest.raises(CollapsedComponent):
        em(np.append(x, 99.0), emfuse.Parameters.univariate([0.9, 0.1], [4.0, 99.0], [3.0, 0.1]), acceleration=acceleration)
    with pytest.raises(ValueError, match="row 300 of X"):
        em(np.append(x, 1e200), emfuse.Parameters.univariate([0.5, 0.5], [0.0, 4.0], [1.0, 1.0]), acceleration=acceleration)


def test_a_start_near_a_maximum_needs_no_warm_up(mixture):
    """From another fit's answer three plain sweeps will do; components apart, it is found in fewer sweeps."""
    p = mixture(K=3)
    X = p.sample(5000, 0)[0]
    near = emfuse.fit(X[::2], 3).parameters
    usual, soon = (em(X, near, acceleration="emqn", stop=emfuse.stopping.AT_MAXIMUM, warm_up=n) for n in (20, 3))
    assert soon.log_likelihood == pytest.approx(usual.log_likelihood, abs=1e-5) and soon.sweeps < usual.sweeps
    with pytest.raises(ValueError, match="warm_up must be a whole number of at least 0, got -1"):
        em(X, near, warm_up=-1)


def test_ctrl_c_ends_the_builds_own_loop(run):
    """A signal is heard while the loop is in compiled code."""
    code = (
        "import _thread, os, threading, numpy as np, emfuse\n"
        "X = np.random.default_rng(0).normal(size=(900, 4))\n"
        "p = emfuse.initialise.start(emfuse.InMemory(X), 9, 'full', 'kmeans', np.random.default_rng(0))\n"
        "threading.Timer(0.3, _thread.interrupt_main).start()\n"
        "try:\n"
        "    emfuse.em(X, p, stop=10**9)\n"
        "except KeyboardInterrupt:\n"
        "    print('heard', flush=True)\n"
        "    os._exit(0)\n"  # under -c Python itself may end by the signal that was heard
    )
    assert run(code, env={"EMFUSE_NUM_THREADS": "1"}) == "heard"


def test_a_fit_draws_itself_and_is_summed_up(tmp_path):
    """`plot`, `film`, `summary` and the notebook's table are a word away."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    X = np.random.default_rng(0).normal(size=80) + np.repeat([0.0, 6.0], 40)
    made = fit(X, 2, init="random_rows", history=True)
    assert made.plot(X).get_xlabel() is not None
    made.film(X, tmp_path / "film.gif")
    assert (tmp_path / "film.gif").stat().st_size > 1000
    assert "log-likelihood" in made.summary().lower()
    assert made._repr_html_().startswith("<") and made.parameters._repr_html_().startswith("<")
