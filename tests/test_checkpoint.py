"""A fit that is killed and begun again ends as one that was left alone: the same bits; and a checkpoint is whole, or refused."""

import json
import random
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import emfuse
from emfuse import Blocks, Checkpoint, CollapsedComponent, Constraints, InMemory, Parameters, em, fit
from emfuse.structures import ALL_STRUCTURES

SOON = 60.0  # seconds in which a process has come to where it is killed; a busy machine takes a few

# What is killed, in the words of a program of its own; after `calls` of its callback it waits for that.
PROGRAM = """
import itertools, sys, time, warnings
import numpy as np
import emfuse
from emfuse import Blocks, Checkpoint, Constraints, Parameters

def made(case, where, path, calls=None):
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 2)) + 1.5 * random.integers(0, 3, size=(600, 1))
    start = emfuse.initialise.start(emfuse.InMemory(X), 3, "full", "kmeans", np.random.default_rng(0))
    how = {
        "plain": {},
        "emqn": {"acceleration": "emqn", "variance_floor": 1e-3},
        "squarem": {"acceleration": "squarem"},
        "constraint": {"acceleration": "emqn", "constraints": Constraints(means=[[0.0, 0.0], None, None])},
        "history": {"history": True},
    }
    if case == "restart":
        X = np.concatenate([random.normal(0.0, 1.0, 200), random.normal(6.0, 1.0, 200)])[:, None]
        start = Parameters.univariate([0.4, 0.4, 0.2], [0.0, 6.0, X[3, 0]], [1.0, 1.0, 1e-6])
        how["restart"] = {"on_collapse": "restart", "acceleration": "emqn"}
    rows = X if where == "memory" else Blocks(lambda: iter(np.array_split(X, 4)))
    number = itertools.count(1)
    common = {"checkpoint": Checkpoint(path, every_sweeps=2), "callback": lambda _: next(number) == calls and time.sleep(100)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if case == "starts":
            return emfuse.fit(rows, 3, init="random_rows", n_init=3, stop=40, on_collapse="drop", **common)
        return emfuse.em(rows, start, stop=60, **how[case], **common)
"""
exec(PROGRAM)  # defines `made`


class Killed(BaseException):
    """What a callback raises in place of a signal."""


def killed_after(calls):
    """A callback that raises at its so many-th call."""
    left = [calls]

    def callback(progress):
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    return callback


def assert_same_fit(one, other):
    """To the last bit."""
    assert one.parameters == other.parameters
    np.testing.assert_array_equal(one.trace, other.trace)
    for name in ("mass", "first", "second", "log_likelihood", "weight"):
        np.testing.assert_array_equal(getattr(one.statistics, name), getattr(other.statistics, name))
    for name in ("sweeps", "reason", "converged", "repairs", "distance", "free_parameters"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_array_equal(one.scores, other.scores)
    assert (one.history is None) == (other.history is None)
    for a, b in zip(one.history or [], other.history or [], strict=True):
        assert (a.sweep, a.log_likelihood, a.parameters) == (b.sweep, b.log_likelihood, b.parameters)


def header_of(path):
    with np.load(path) as arrays:
        return json.loads(bytes(arrays["header"]))


# ------------------------------------------------------------------ law: killed, and gone on with, it is the same fit


@pytest.mark.parametrize("where", ["memory", "blocks"])
@pytest.mark.parametrize("case", ["plain", "emqn", "squarem", "constraint", "history", "restart", "starts"])
def test_a_process_that_is_killed_loses_nothing(case, where, tmp_path):
    """SIGKILL in the middle: past the warm-up of an acceleration, after a restart, in the second start; then the same call."""
    path = tmp_path / "fit.checkpoint"
    calls = 75 if case == "starts" else 35
    code = f"{PROGRAM}\nmade({case!r}, {where!r}, {str(path)!r}, {calls})\nprint('came to its end')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        deadline, seen = time.monotonic() + SOON, {}
        while not seen or seen["climb"]["sweeps"] < 26 or (case == "starts" and not seen["ended"]):
            assert process.poll() is None and time.monotonic() < deadline, f"it was never seen in the middle: {seen}"
            time.sleep(0.005)
            if path.exists():
                seen = header_of(path)["state"]  # whole, whenever it is looked at
    finally:
        process.kill()
        said, _ = process.communicate()
    assert said == b"" and path.exists()
    assert (case == "restart") == bool(seen["climb"]["repair"]["done"])
    resumed, whole = made(case, where, path), made(case, where, tmp_path / "other")  # noqa: F821
    assert_same_fit(resumed, whole)
    assert len(whole.trace) > 20 or case == "restart"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ALL_STRUCTURES)
@pytest.mark.parametrize("acceleration", [None, "emqn", "squarem"])
def test_every_structure_goes_on_as_it_was(name, acceleration, tmp_path):
    """Wherever it is killed: in the warm-up, with few and with all steps remembered, after refusals."""
    X = np.random.default_rng(4).normal(size=(150, 2)) @ [[1, 0.5], [0, 1]]
    X[75:] += [1.5, -1.0]
    start = emfuse.initialise.start(InMemory(X), 2, name, "kmeans", np.random.default_rng(0))
    path, how = tmp_path / "fit", {"acceleration": acceleration, "stop": 40}
    whole = em(X, start, checkpoint=path, **how)
    for calls in (3, 22, 27, 37):
        with pytest.raises(Killed):
            em(X, start, checkpoint=Checkpoint(path, every_sweeps=1), callback=killed_after(calls), **how)
        assert_same_fit(em(X, start, checkpoint=path, **how), whole)


@pytest.mark.parametrize("acceleration", [None, "squarem"])
def test_a_checkpoint_does_not_change_the_fit(acceleration, tmp_path):
    """Beside the same without one, and with a callback, which keeps it in Python too."""
    X = np.random.default_rng(0).normal(size=(300, 3))
    start = emfuse.initialise.start(InMemory(X), 3, "full", "kmeans", np.random.default_rng(0))
    with_one, without = (em(X, start, stop=40, acceleration=acceleration, callback=lambda _: None, **more)
                         for more in ({"checkpoint": tmp_path / "fit"}, {}))  # fmt: skip
    assert_same_fit(with_one, without)


def test_a_checkpoint_changes_emqn_by_rounding_alone(tmp_path):
    """The build's own step keeps its memory to itself, so NumPy's is taken: the same trace to 1e-10, as between the two."""
    X = np.random.default_rng(0).normal(size=(300, 2)) + 2.0 * np.random.default_rng(1).integers(3, size=300)[:, None]
    start = emfuse.initialise.start(InMemory(X), 3, "full", "kmeans", np.random.default_rng(0))
    one, other = (em(X, start, stop=40, acceleration="emqn", checkpoint=path) for path in (tmp_path / "fit", None))
    np.testing.assert_allclose(one.trace, other.trace, rtol=1e-10)


def test_killed_twice_it_goes_on_twice(tmp_path):
    """Seconds and sweeps are those of all runs, and the walk that looks at the rows again is not counted."""
    X = np.random.default_rng(0).normal(size=(300, 2))
    start = emfuse.initialise.start(InMemory(X), 3, "full", "kmeans", np.random.default_rng(0))
    how = {"stop": 30, "checkpoint": Checkpoint(tmp_path / "fit", every_sweeps=1)}
    for calls in (9, 9):
        with pytest.raises(Killed):
            em(X, start, callback=killed_after(calls), **how)
    seconds = header_of(tmp_path / "fit")["state"]["climb"]["seconds"]
    seen = []
    made = em(X, start, callback=seen.append, **how)
    assert (seen[0].sweep, len(seen), made.sweeps) == (16, 15, 31)
    assert seen[0].seconds > seconds
    assert all(progress.rows_per_second > 0.0 for progress in seen)


def test_another_build_goes_on_but_for_rounding(tmp_path):
    """A file from another machine is good: the log-likelihood is the same but for rounding, and so is the end."""
    if emfuse.kernels.active() == "reference":
        pytest.skip("there is no other build here")
    X = np.random.default_rng(0).normal(size=(300, 2)) + 3.0 * np.random.default_rng(1).integers(2, size=300)[:, None]
    start = emfuse.initialise.start(InMemory(X), 2, "full", "kmeans", np.random.default_rng(0))
    how = {"stop": 20, "checkpoint": Checkpoint(tmp_path / "fit", every_sweeps=1)}
    with emfuse.kernels.use("reference"), pytest.raises(Killed):
        em(X, start, callback=killed_after(9), **how)
    made = em(X, start, **how)
    np.testing.assert_allclose(made.trace, em(X, start, stop=20).trace, rtol=1e-12)  # sums of 300 terms in another order
    assert made.trace[-1] == made.log_likelihood


def test_dask_partitions_go_on_too(tmp_path):
    """The same partitions give the same bits, also after a fit is begun again."""
    array = pytest.importorskip("dask.array", reason="partitions are made with dask")
    X = np.random.default_rng(0).normal(size=(600, 2)) + 3.0 * np.random.default_rng(1).integers(2, size=600)[:, None]
    path = Checkpoint(tmp_path / "fit", every_sweeps=1)
    chunks = array.from_array(X, chunks=(250, 2))
    with pytest.raises(Killed):
        fit(chunks, 2, checkpoint=path, callback=killed_after(9))
    assert_same_fit(fit(chunks, 2, checkpoint=path), fit(chunks, 2, checkpoint=tmp_path / "other"))


def test_numbers_of_numpy_are_numbers(tmp_path):
    """Arguments may be float32 or int64, and the weights of a source of another type."""
    X = np.random.default_rng(0).normal(size=(200, 2))
    how = {
        "reg_covar": np.float32(1e-3),
        "n_init": np.int64(2),
        "variance_floor": np.float64(1e-6),
        "stop": 5,
        "history": np.True_,
    }
    path = Checkpoint(tmp_path / "fit", every_sweeps=1)
    with pytest.raises(Killed):
        fit(X, 2, checkpoint=path, callback=killed_after(9), **how)
    assert_same_fit(fit(X, 2, checkpoint=path, **how), fit(X, 2, callback=lambda _: None, **how))


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("init_params", ["kmeans", "random"])
def test_an_estimator_takes_one(tmp_path, init_params, warm_start):
    """Killed, it is as it was before; another one with the same parameters goes on, and ends with the same bits."""
    X = np.random.default_rng(0).normal(size=(400, 2)) + 2.0 * np.repeat([[0, 0], [1, 0]], 200, axis=0)
    options = {
        "n_components": 2,
        "tol": 0.0,
        "max_iter": 30,
        "init_params": init_params,
        "random_state": 0,
        "warm_start": warm_start,
    }
    path = Checkpoint(tmp_path / "fit", every_sweeps=1)

    def made(**more):
        model = emfuse.GaussianMixture(**options, **more)
        with pytest.warns(ConvergenceWarning):
            return model.fit(X)

    killed = emfuse.GaussianMixture(**options, checkpoint=path, callback=killed_after(9))
    with pytest.raises(Killed):
        killed.fit(X)
    assert path.path.exists() and not hasattr(killed, "means_")
    seen = []
    resumed, whole = made(checkpoint=path, callback=lambda _: seen.append(1)), made(callback=lambda _: None)
    assert len(seen) < 30 and not path.path.exists()
    assert_same_fit(resumed.fit_, whole.fit_)
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_", "lower_bounds_", "n_iter_"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))


def test_an_estimators_other_starts_are_refused(tmp_path):
    """Several, for which `fit` is; and one that is drawn anew, by what differs."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(ValueError, match=r"n_init must be 1 with a checkpoint, got 3; `emfuse.fit"):
        emfuse.GaussianMixture(2, n_init=3, checkpoint=tmp_path / "fit").fit(X)
    path = Checkpoint(tmp_path / "fit", every_sweeps=1)
    with pytest.raises(Killed):
        emfuse.GaussianMixture(2, tol=0.0, init_params="random", checkpoint=path, callback=killed_after(4)).fit(X)
    with pytest.raises(ValueError, match="a checkpoint of another fit: start"):
        emfuse.GaussianMixture(2, init_params="random", checkpoint=path).fit(X)


# ------------------------------------------------------------------ when it is written


@pytest.fixture
def given():
    """Rows and a start from which EM takes hundreds of steps."""
    X = np.random.default_rng(0).normal(size=(300, 2))
    return X, emfuse.initialise.start(InMemory(X), 3, "full", "kmeans", np.random.default_rng(0))


def test_it_is_written_as_often_as_is_asked(given, tmp_path, monkeypatch):
    """Every four sweeps, the start's included; by the clock, once the minute is over."""
    X, start = given
    seen, clock = [], [0.0]
    write = emfuse.checkpoint.Keeper.write
    monkeypatch.setattr(
        emfuse.checkpoint.Keeper, "write", lambda keeper, s: (seen.append(s["climb"]["sweeps"]), write(keeper, s))
    )
    em(X, start, stop=11, checkpoint=Checkpoint(tmp_path / "fit", every_sweeps=4))
    assert seen == [4, 8, 12]
    seen.clear()
    monkeypatch.setattr(emfuse.checkpoint, "monotonic", lambda: clock[0])

    def tick(progress):
        clock[0] += 25.0

    em(X, start, stop=8, checkpoint=tmp_path / "fit", callback=tick)
    assert seen == [3, 6, 9]


def test_writing_that_takes_long_is_done_less_often(tmp_path, monkeypatch):
    """By the clock, at most 2% of the time: after a write of 2 seconds it is not due for 100."""
    clock = [0.0]
    monkeypatch.setattr(emfuse.checkpoint, "monotonic", lambda: clock[0])
    keeper = emfuse.checkpoint.Keeper(Checkpoint(tmp_path / "fit", every_seconds=10.0))
    clock[0] = 10.0
    assert keeper.due()
    monkeypatch.setattr(emfuse.checkpoint.os, "fsync", lambda _: clock.__setitem__(0, clock[0] + 2.0))
    keeper.write({})
    clock[0] += 99.0
    assert not keeper.due()
    clock[0] += 2.0
    assert keeper.due()


def test_the_file_is_gone_when_the_fit_has_ended(given, tmp_path):
    """Also by a collapse, which the same call would come to again; not by an error of a callback's."""
    X, start = given
    path = Checkpoint(tmp_path / "fit", every_sweeps=1)
    em(X, start, stop=3, checkpoint=path)
    fit(X, 2, stop=3, checkpoint=path)
    with pytest.raises(CollapsedComponent):
        em(np.append(X[:, 0], 50.0), Parameters.univariate([0.9, 0.1], [0.0, 50.0], [1.0, 0.1]), checkpoint=path)
    with pytest.raises(CollapsedComponent):
        fit(np.zeros((10, 2)), 2, checkpoint=path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Killed):
        em(X, start, checkpoint=path, callback=killed_after(3))
    assert [file.name for file in tmp_path.iterdir()] == ["fit"]


def test_a_collapse_before_the_kill_is_the_one_that_is_raised(tmp_path):
    """What a restarted component's first collapse said is kept, for the error if nothing helps, and counted among the scores."""
    X = np.repeat([0.0, 1.0, 5.0], 20)
    path = Checkpoint(tmp_path / "fit", every_sweeps=1)
    how = {"init": "random_rows", "n_init": 3, "on_collapse": "raise", "variance_floor": 0.0, "checkpoint": path}
    with pytest.raises(CollapsedComponent) as whole:
        fit(X, 2, **how)
    with pytest.raises(Killed):
        fit(X, 2, **how, callback=killed_after(5))
    with pytest.raises(CollapsedComponent) as resumed:
        fit(X, 2, **how)
    assert str(resumed.value) == str(whole.value)


def test_a_disk_that_is_full_does_not_end_the_fit(given, tmp_path, monkeypatch):
    """It warns, and what was written before stays."""
    X, start = given
    how = {"stop": 4, "checkpoint": Checkpoint(tmp_path / "fit", every_sweeps=1)}
    with pytest.raises(Killed):
        em(X, start, callback=killed_after(3), **how)
    before = (tmp_path / "fit").read_bytes()

    def full(*paths):
        assert (tmp_path / "fit").read_bytes() == before
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(emfuse.checkpoint.os, "replace", full)
    with pytest.warns(UserWarning, match=r"the fit goes on, but could not be written to .*fit: .*No space left"):
        made = em(X, start, **how)
    assert_same_fit(made, em(X, start, stop=4, callback=lambda _: None))


# ------------------------------------------------------------------ what is refused


@pytest.fixture
def left(given, tmp_path):
    """A checkpoint that a killed fit has left."""
    X, start = given
    with pytest.raises(Killed):
        em(
            X,
            start,
            acceleration="emqn",
            history=True,
            checkpoint=Checkpoint(tmp_path / "fit", every_sweeps=1),
            callback=killed_after(28),
        )
    return tmp_path / "fit"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"acceleration": None}, "acceleration was 'emqn' and is None"),
        ({"reg_covar": 0.5, "acceleration": None}, "reg_covar was 0.0 and is 0.5"),
        ({"variance_floor": 1e-6}, "variance_floor was 0.0 and is 1e-06"),
        ({"on_collapse": "drop"}, "on_collapse was 'raise' and is 'drop'"),
        ({"history": False}, "history was True and is False"),
        ({"constraints": Constraints(means=[[0.0, 0.0], None, None])}, "constraints was None and is 'Constraints("),
        ({"sample_weight": np.full(300, 2.0)}, "row weight was 300.0 and is 600.0"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(given, left, change, words):
    """The error says what differs, with both values, and what to do; the file stays."""
    X, start = given
    with pytest.raises(ValueError, match="a checkpoint of another fit") as caught:
        em(X, start, **{"acceleration": "emqn", "history": True, "checkpoint": left, **change})
    assert words in str(caught.value) and "or give another path, to begin anew" in str(caught.value)
    assert left.exists()


def test_another_start_another_shape_and_other_starts_are_refused(given, left):
    """Of `em` the start, of `fit` its seeds; and one of them cannot go on with the other's."""
    X, start = given
    how = {"acceleration": "emqn", "history": True, "checkpoint": left}
    with pytest.raises(ValueError, match=r"start was '.{16}' and is '.{16}'"):
        em(X, Parameters(start.weights, start.means + 1e-9, start.covariances), **how)
    with pytest.raises(ValueError, match=r"row weight was 300\.0 and is 299\.0"):
        em(X[1:], start, **how)
    with pytest.raises(ValueError, match="init was None and is 'short_runs'"):
        fit(X, 3, **how)


def test_other_rows_are_found_out(given, left):
    """Of as many rows, by the log-likelihood of the mixture in the file; also if a single value differs by its 1e-6."""
    X, start = given
    X[17, 1] *= 1.0 + 1e-6
    with pytest.raises(ValueError, match=r"the mixture in the checkpoint has log-likelihood .* on these rows, and had"):
        em(X, start, acceleration="emqn", history=True, checkpoint=left)
    assert left.exists()


def test_a_damaged_file_is_one_clear_error(given, left):
    """Cut short anywhere, or with a bit turned over where that can be seen; nothing is begun from half of a state."""
    X, start = given
    how = {"acceleration": "emqn", "history": True, "stop": 30, "checkpoint": left}
    whole, draw, refused = left.read_bytes(), random.Random(0), 0
    expected = em(X, start, **how)
    for turn in range(60):
        content = bytearray(whole)
        if turn % 2:
            content = content[: draw.randrange(len(content))]
        else:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        left.write_bytes(content)
        try:
            assert_same_fit(em(X, start, **how), expected)  # of a time of day, for one, nobody takes notice
        except ValueError as error:
            assert "not a whole checkpoint of this version of emfuse" in str(error) and "to begin anew" in str(error)
            refused += 1
            assert left.read_bytes() == content
    assert refused >= 30 + 20  # all that are cut short, and most of the others: nearly all of the file is checked sums


@pytest.mark.parametrize("kind", ["empty", "text", "npy", "npz", "newer"])
def test_a_file_that_is_none_of_ours_is_left_alone(given, left, kind):
    """It is not overwritten, whatever it is."""
    X, start = given
    header = header_of(left)
    with open(left, "wb") as opened:
        if kind == "npy":
            np.save(opened, X)
        elif kind == "npz":
            np.savez(opened, X=X)
        elif kind == "newer":
            np.savez(opened, header=np.frombuffer(json.dumps({**header, "version": 2}).encode(), np.uint8))
        else:
            opened.write(b"a,b\n1,2\n" if kind == "text" else b"")
    content = left.read_bytes()
    with pytest.raises(ValueError, match="not a whole checkpoint of this version of emfuse"):
        em(X, start, checkpoint=left)
    assert left.read_bytes() == content


def test_what_cannot_be_written_is_known_before_the_first_sweep(given, tmp_path):
    """A folder that is not there, or is the path itself; not even one walk is begun."""
    _, start = given

    def never():
        raise AssertionError("the rows were asked for")

    for path in (tmp_path / "no" / "fit", tmp_path):
        for run in (
            lambda path=path: em(Blocks(never), start, checkpoint=path),
            lambda path=path: fit(Blocks(never), 3, checkpoint=path),
        ):
            with pytest.raises(OSError):
                run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"path": 3}, TypeError, "checkpoint must be a path or an emfuse.Checkpoint, got int"),
        ({"every_seconds": -1.0}, ValueError, "every_seconds must be at least 0, got -1.0"),
        ({"every_sweeps": 0}, ValueError, "every_sweeps must be a whole number of at least 1, or None, got 0"),
        ({"every_sweeps": 2.0}, ValueError, "every_sweeps must be a whole number of at least 1, or None, got 2.0"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(arguments, error, words):
    """The error names the argument."""
    with pytest.raises(error) as caught:
        Checkpoint(**{"path": "fit", **arguments})
    assert str(caught.value) == words


def test_reading_a_checkpoint_executes_nothing(given, left):
    """No array in it is of objects."""
    with np.load(left, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fu" for name in arrays)


def test_a_floor_and_a_rule_of_parameters_know_the_mixture_before(given, tmp_path):
    """A rule that compares with the mixture before has it after a kill too; after a drop it waits for another."""
    X, start = given
    how = {
        "stop": emfuse.stopping.ParametersWithin(1e-3),
        "variance_floor": 1e-4,
        "checkpoint": Checkpoint(tmp_path / "fit", every_sweeps=1),
    }
    whole = em(X, start, **how)
    with pytest.raises(Killed):
        em(X, start, **how, callback=killed_after(len(whole.trace) - 1))
    assert_same_fit(em(X, start, **how), whole)
    x = np.append(X[:, 0], 50.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", emfuse.CollapseWarning)
        two = Parameters.univariate([0.9, 0.1], [0.0, 50.0], [1.0, 0.1])
        assert em(x, two, stop=emfuse.stopping.ParametersWithin(1e-3), on_collapse="drop").converged
