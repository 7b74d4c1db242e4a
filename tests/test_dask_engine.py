"""Dask's partitions: the same fit as in memory, rows that stay where they are, workers that are slow or die, errors with a place.

The cluster is a real one, of two processes, which talk over TCP.
"""

import logging
import os
import pickle
import signal
import sys
import threading
import time
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest

dask = pytest.importorskip("dask", reason='dask is not installed; pip install "dask[array,dataframe]" distributed')
distributed = pytest.importorskip("distributed", reason="dask's distributed is not installed; pip install distributed")
pytest.importorskip("dask.array", reason='pip install "dask[array]"')

import dask.array as da  # noqa: E402

import emfuse  # noqa: E402
from emfuse import InMemory, dask_engine, engines, initialise, kernels  # noqa: E402
from emfuse.dask_engine import DaskEngine, predict, predict_proba, score_samples  # noqa: E402

QUIET = dict(dashboard_address=":0", silence_logs=logging.CRITICAL)
LIMIT = 60  # seconds that no test here comes near, unless it hangs
TOLERANCE = 1e-10  # the same sums in another order: some hundred roundings of 1e-16 a sweep, over ten sweeps
CHUNKS = (700, 0, 1, 899, 1100, 300, 0)  # of 3,000 rows


@pytest.fixture(scope="module")
def client():
    """A client of two worker processes of one thread each, which is not Dask's default."""
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "10s"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(params=["cluster", "threads"])
def anywhere(request):
    """A client, or None: the threads of this process."""
    return request.getfixturevalue("client") if request.param == "cluster" else None


@pytest.fixture(autouse=True)
def a_deadlock_is_a_failure():
    """Nothing here waits for ever."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda number, frame: pytest.fail("a deadlock"))
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def rows(mixture):
    """Function that makes a start and 3,000 rows; with ten features, where a shared covariance has a way of its own."""

    def made(structure="full", dtype=np.float64, D=10):
        p = mixture(structure, K=3, D=D, apart=0.7)
        X = np.random.default_rng(1).permutation(p.sample(3_000, random_state=0)[0]).astype(dtype)
        return emfuse.Parameters(p.weights, p.means + 0.3, p.covariances, structure), X

    return made


def assert_same_fit(a, b, tolerance=TOLERANCE):
    """Log-likelihoods a row, and parameters, which are about 1."""
    np.testing.assert_allclose(a.trace / a.statistics.weight, b.trace / b.statistics.weight, rtol=0, atol=tolerance)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(a.parameters, name), getattr(b.parameters, name), rtol=0, atol=tolerance, err_msg=name)


def bits(fit):
    """A fit as bytes."""
    return fit.trace.tobytes(), fit.parameters.means.tobytes(), fit.parameters.covariances.tobytes()


def places(engine, client):
    """The workers of each partition's rows."""
    return {key: set(workers) for key, workers in client.who_has(engine._parts).items()}


# ------------------------------------------------------------------ the same as in memory


def test_a_fit_over_partitions_is_the_fit_in_memory(anywhere, structure, rows):
    """Partitions of different lengths, empty ones among them, and columns in two chunks: sums that add."""
    p, X = rows(structure)
    engine = DaskEngine(da.from_array(X, chunks=(CHUNKS, (4, 6))), anywhere)
    assert (engine.n_features, engine.weight, engine.noise) == (10, 3000.0, InMemory(X).noise)
    assert_same_fit(emfuse.em(engine, p, stop=10), emfuse.em(X, p, stop=10))


def test_float32_stays_float32(client, rows):
    """Up to 1,024 rows are computed in float64, on a worker as in memory; of more, both keep float32's digits."""
    p, X = rows("full", np.float32)
    few = X[:1000]
    engine = DaskEngine(da.from_array(few, chunks=(300, 10)), client)
    assert engine.noise == InMemory(few).noise == 1e-14
    assert_same_fit(emfuse.em(engine, p, stop=10), emfuse.em(few, p, stop=10))
    engine = DaskEngine(da.from_array(X, chunks=(1500, 10)), client)
    assert engine.noise == InMemory(X).noise > 1e-8
    assert engine.sample(5, np.random.default_rng(0)).X.dtype == np.float32
    assert_same_fit(emfuse.em(engine, p, stop=10), emfuse.em(X, p, stop=10), tolerance=1e-5)  # float32's eps is 1e-7


def test_weights_are_partitioned_as_the_rows_are(anywhere, rows):
    """An array, a dask.array in chunks of its own, with a partition in which nothing weighs anything."""
    p, X = rows("diag")
    v = np.random.default_rng(2).integers(0, 3, len(X)).astype(float)
    v[: CHUNKS[0]] = 0.0
    alone = emfuse.em(X, p, stop=5, sample_weight=v)
    for weights in (v, da.from_array(v, chunks=1000)):
        engine = DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), anywhere, sample_weight=weights)
        assert engine.weight == v.sum()
        assert_same_fit(emfuse.em(engine, p, stop=5), alone)


def test_moments_are_those_of_all_rows(anywhere, rows):
    """Though rows lie 1e6 standard deviations from zero, and weigh more or less."""
    _, X = rows()
    X = X + 1e6
    v = np.random.default_rng(2).uniform(0.0, 2.0, len(X))
    engine = DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), anywhere, sample_weight=v)
    for made, alone in zip(engine.moments, InMemory(X, v).moments, strict=True):
        np.testing.assert_allclose(made, alone, rtol=1e-12)  # 3,000 eps
    X[0], v[0] = 1e200, 0.0  # a row that weighs nothing is in nobody's way
    engine = DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), anywhere, sample_weight=v)
    np.testing.assert_allclose(engine.moments, InMemory(X[1:], v[1:]).moments, rtol=1e-12)


def test_what_a_fit_asks_of_an_engine_is_there(client, rows):
    """A floor that has the data's scale, and acceleration: to the same maximum, within the stop."""
    p, X = rows()
    options = dict(variance_floor=1e-6, acceleration="auto", stop=emfuse.stopping.AT_MAXIMUM)
    made = emfuse.em(DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), client), p, **options)
    alone = emfuse.em(X, p, **options)
    assert made.converged
    assert made.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-5)


def test_a_hard_sweep_about_another_origin(client, rows):
    """What k-means, and an M step far from the old means, ask for."""
    p, X = rows()
    engine, origin = DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), client), p.means[:, ::-1].copy() + 1.0
    for hard in (False, True):
        made, alone = (data.sweep(p.factors, origin=origin, hard=hard) for data in (engine, InMemory(X)))
        for name in ("origin", "mass", "first", "second"):
            expected = getattr(alone, name)
            np.testing.assert_allclose(getattr(made, name), expected, rtol=0, atol=3000 * 1e-16 * np.abs(expected).max())
        assert made.first.flags.writeable and made.second.flags.aligned  # though they came in a message


# ------------------------------------------------------------------ the same bits


def test_the_same_bits_twice_and_on_any_number_of_workers(client, rows, monkeypatch):
    """Two processes, three workers in threads of this one, and no cluster with one thread or twenty: no order changes a sum.

    Nor does it if a worker retires in between, whose partitions Dask hands to the others.
    """
    p, X = rows()
    collection = da.from_array(X, chunks=(100, 10))
    engine = DaskEngine(collection, client)
    assert len(set(map(frozenset, places(engine, client).values()))) == 2
    fit = bits(emfuse.em(engine, p, stop=3))
    assert bits(emfuse.em(engine, p, stop=3)) == fit
    assert bits(emfuse.em(DaskEngine(collection, client), p, stop=3)) == fit
    for threads in (1, 20):
        with dask.config.set(num_workers=threads):
            assert bits(emfuse.em(DaskEngine(collection), p, stop=3)) == fit
    monkeypatch.setattr(dask_engine, "ADDED_AT_ONCE", 1)  # partitions one by one, in this process
    assert bits(emfuse.em(DaskEngine(collection), p, stop=3)) == fit
    with (
        distributed.LocalCluster(n_workers=3, threads_per_worker=2, processes=False, **QUIET) as cluster,
        distributed.Client(cluster, set_as_default=False) as other,
    ):
        engine = DaskEngine(collection, other)
        assert len(engine._shares) == 6

        def callback(progress):
            other.retire_workers(list(other.nthreads())[1:])

        assert bits(emfuse.em(engine, p, stop=3, callback=callback)) == fit
        assert len(engine._shares) == 2


def test_workers_of_different_instruction_sets_agree_to_rounding(rows):
    """One runs the plainest compiled build and the other the fastest; each partition's bits are then its worker's."""
    p, X = rows()
    builds = [kernels.runnable()[0], kernels.runnable()[-2:][0]]
    spec = {b: {"cls": distributed.Nanny, "options": {"nthreads": 1, "env": {kernels.VARIABLE: b}}} for b in builds}
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard_address": ":0"}}
    with (
        distributed.SpecCluster(spec, scheduler, silence_logs=logging.CRITICAL) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        engine = DaskEngine(da.from_array(X, chunks=(100, 10)), client)
        build = client.run(kernels.active)
        assert {build[address] for address in engine._where.values()} == set(builds)  # both have some
        assert_same_fit(emfuse.em(engine, p, stop=10), emfuse.em(X, p, stop=10))


def test_fits_side_by_side_on_one_engine(client, rows):
    """Starts in threads, which share the rows: each gets what it gets alone."""
    p, X = rows("diag")
    starts = [p, emfuse.Parameters(p.weights, p.means + 0.5, p.covariances, "diag")]
    engine = DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), client)
    alone = [bits(emfuse.em(engine, start, stop=3)) for start in starts]
    made = {}

    def fit(n):
        made[n] = bits(emfuse.em(engine, starts[n], stop=3))

    beside = threading.Thread(target=fit, args=(0,))
    beside.start()
    fit(1)
    beside.join()
    assert [made[0], made[1]] == alone


def test_sums_are_the_same_bits_in_any_order_and_grouping():
    """Of numbers from 1e-320 to 1e305, of all signs, zeros among them; and right to an eps of the largest term."""
    random = np.random.default_rng(0)
    terms = random.standard_normal((200, 60)) * 10.0 ** random.integers(-15, 15, (200, 60)) * 10.0 ** np.linspace(-305, 288, 60)
    terms[random.random(terms.shape) < 0.1] = 0.0
    terms[:, 3], terms[1:, 4] = 0.0, -terms[0, 4] / 199.0  # nothing, and what comes to nearly that
    made = set()
    for _ in range(20):
        groups = []
        for part in np.split(random.permutation(200), np.sort(random.integers(0, 200, 5))):
            groups.append(dask_engine._Sums(60))
            for some in np.array_split(part, 3):
                if some.size:
                    groups[-1].add(terms[some])
        made |= {dask_engine._sum(groups).value().tobytes() for _ in range(2)}  # twice, as what was added is as it was
    assert len(made) == 1
    exact = [float(sum(map(Fraction, column))) for column in terms.T]
    np.testing.assert_array_less(np.abs(np.frombuffer(made.pop()) - exact), 2.0**-52 * np.abs(terms).max(axis=0) + 5e-324)


def test_sums_that_are_not_finite_come_to_nan():
    """However large, or small, what is added to them after; the sums beside them do not feel it."""
    sums = dask_engine._Sums(3)
    sums.add(np.array([[np.inf, np.nan, 1.0], [1.0, 1.0, 2.0]]))
    sums.add(np.array([[1e300, 1e-300, 3.0]]))
    np.testing.assert_array_equal(sums.value(), [np.nan, np.nan, 6.0])


def test_partitions_are_shared_out_by_their_rows():
    """The largest first, each to the thread that has least; threads without any are left out."""
    assert dask_engine._balanced({0: 9, 2: 3, 3: 5, 5: 4, 6: 3}, 2) == [[0, 2], [3, 5, 6]]
    assert dask_engine._balanced({7: 1}, 3) == [[7]]


# ------------------------------------------------------------------ a sample


@pytest.mark.parametrize("weighted", [False, True])
def test_a_sample_is_the_one_in_memory(anywhere, rows, weighted):
    """The same generator draws the same rows, however they are partitioned; none that weighs nothing."""
    _, X = rows()
    v = np.random.default_rng(2).integers(0, 3, len(X)).astype(float) if weighted else None
    alone = initialise.sample_rows(InMemory(X, v), 500, np.random.default_rng(3))
    for chunks in (CHUNKS, 1000):
        engine = DaskEngine(da.from_array(X, chunks=(chunks, 10)), anywhere, sample_weight=v)
        drawn = engine.sample(500, np.random.default_rng(3))
        np.testing.assert_array_equal(drawn.X, alone.X)
        np.testing.assert_array_equal(drawn.sample_weight, alone.sample_weight)


def test_a_sample_of_more_rows_than_there_are_is_all_of_them(anywhere, rows):
    """In order; and the generator is not asked."""
    _, X = rows()
    engine = DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), anywhere)
    np.testing.assert_array_equal(engine.sample(4000, None).X, X)
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"n_rows must be a whole number of at least 1, got {wrong}"):
            engine.sample(wrong, None)


# ------------------------------------------------------------------ what is on the wire


@pytest.mark.parametrize("light", [True, False])
def test_only_parameters_and_statistics_are_on_the_wire(client, rows, monkeypatch, light):
    """What tasks return is a few kB for each worker; rows stay where they were, once.

    Nor do workers fetch anything from each other but what would be much for the scheduler to send, and for the client to add.
    """
    p, X = rows()
    if not light:
        monkeypatch.setattr(dask_engine, "LIGHT", 0)
    engine = DaskEngine(da.from_array(X, chunks=(100, 10)), client)
    before = places(engine, client)
    client.run(lambda dask_worker: dask_worker.transfer_incoming_log.clear())
    with distributed.get_task_stream(client) as stream:
        made = emfuse.em(engine, p, stop=3)
    assert_same_fit(made, emfuse.em(X, p, stop=3))
    fetched = [log for logs in client.run(lambda dask_worker: list(dask_worker.transfer_incoming_log)).values() for log in logs]
    names = {distributed.utils.key_split(key) for log in fetched for key in log["keys"]}
    assert names == (set() if light else {"emfuse-given", "emfuse-sweep"})
    done = [task for task in stream.data if distributed.utils.key_split(task["key"]) in ("emfuse-sweep", "emfuse-sum")]
    assert len(done) == 4 * (2 if light else 3)
    assert max(task["nbytes"] for task in done) < 10_000  # 26 bytes for each of K (1 + D + D^2) + 2 numbers are 8,710
    assert {task["worker"] for task in done if "sweep" in task["key"][0]} == set(engine._where.values())
    assert places(engine, client) == before
    assert all(len(workers) == 1 for workers in before.values())


def test_a_slow_worker_is_waited_for_and_keeps_its_rows(client, rows):
    """Dask would hand its tasks to the idle one, and rows with them; the bits are the same."""
    p, X = rows()
    engine = DaskEngine(da.from_array(X, chunks=(250, 10)), client)
    fit, before = bits(emfuse.em(engine, p, stop=3)), places(engine, client)
    slow = sorted(engine._where.values())[0]
    busy = client.map(lambda _: time.sleep(0.3), range(5), workers=[slow], pure=False, priority=1)
    assert bits(emfuse.em(engine, p, stop=3)) == fit
    assert places(engine, client) == before
    client.gather(busy)


def test_partitions_that_dask_has_moved_are_found_again(client, rows):
    """It may, to even out the workers' memory; and it tells nobody."""
    p, X = rows()
    engine = DaskEngine(da.from_array(X, chunks=(250, 10)), client)
    fit, there = bits(emfuse.em(engine, p, stop=3)), dict(engine._where)
    one, other = sorted(set(there.values()))
    engine._share({i: other if address == one else one for i, address in there.items()}, engine._threads)
    assert bits(emfuse.em(engine, p, stop=3)) == fit
    assert engine._where == there


def test_partitions_are_as_large_as_dask_thinks():
    """Else it would think nothing of moving them, and know nothing of scarce memory."""
    X = np.zeros((1000, 10))
    part = dask_engine._partition(0, X, np.ones(1000))
    assert X.nbytes + 8000 < sys.getsizeof(part) < X.nbytes + 10_000
    assert sys.getsizeof(dask_engine._partition(0, X[:0], None)) < 2000


def test_a_partition_comes_back_from_disk_as_it_was(rows):
    """Dask writes to disk what memory has no room for, and reads it to an odd address."""
    p, X = rows()
    part = dask_engine._partition(3, X, np.ones(len(X)))
    buffers = []
    data = pickle.dumps(part, protocol=5, buffer_callback=buffers.append)
    odd = []
    for buffer in buffers:
        moved = bytearray(buffer.raw().nbytes + 1)
        moved[1:] = buffer.raw()
        odd.append(memoryview(moved)[1:])
    back, ask = pickle.loads(data, buffers=odd), dask_engine._Ask(p.factors, p.means, False)
    assert odd
    np.testing.assert_array_equal(dask_engine._sweep([back], ask).value(), dask_engine._sweep([part], ask).value())


def test_the_dashboard_shows_what_is_done(rows):
    """Names end before the number of the sweep, so that all sweeps are one bar; a task for each thread, and a tree of sums."""
    p, X = rows()
    with dask.config.set(num_workers=20):
        engine = DaskEngine(da.from_array(X, chunks=(100, 10)))
    ask = dask_engine._Ask(p.factors, p.means, False)
    graph, _, keys = engine._graph("sweep", dask_engine._sweep, ask, heavy=True)
    assert {dask.utils.key_split(name) for name in graph} == {"emfuse-given", "emfuse-sweep", "emfuse-sum"}
    assert (len(graph), len(keys)) == (1 + 20 + 2 + 1, 1)
    graph, _, keys = engine._graph("sweep", dask_engine._sweep, ask, heavy=False)
    assert {dask.utils.key_split(name) for name in graph} == {"emfuse-sweep"}
    assert list(graph) == keys


def test_rows_are_let_go_with_the_engine(client, rows):
    """Nothing else holds them."""
    engine = DaskEngine(da.from_array(rows()[1], chunks=(1000, 10)), client)
    keys = set(places(engine, client))
    assert keys <= set(client.who_has())
    del engine
    until = time.monotonic() + LIMIT
    while keys & set(client.who_has()) and time.monotonic() < until:
        time.sleep(0.02)
    assert not keys & set(client.who_has())


# ------------------------------------------------------------------ workers that die


@contextmanager
def whole_again(client):
    """Wait for both workers to be there before and after; gives a function that kills the one at an address."""
    client.wait_for_workers(2, timeout=30)
    yield lambda address: os.kill(client.run(os.getpid)[address], signal.SIGKILL)
    client.wait_for_workers(2, timeout=30)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a process cannot be killed here")
@pytest.mark.parametrize("light", [True, False])
@pytest.mark.parametrize("when", ["between two sweeps", "in the middle of one"])
def test_a_worker_that_dies_is_not_seen_in_the_fit(client, rows, monkeypatch, when, light):
    """Its partitions are made again from what they were made of, and the bits are the same."""
    p, X = rows()
    if not light:
        monkeypatch.setattr(dask_engine, "LIGHT", 0)
    with whole_again(client) as kill:
        engine = DaskEngine(da.from_array(X, chunks=(250, 10)), client)
        fit = bits(emfuse.em(engine, p, stop=4))
        before, sweeps = dict(engine._where), 0

        def callback(progress):
            nonlocal sweeps
            sweeps += 1
            if sweeps == 3 and when == "between two sweeps":
                kill(before[0])
            elif sweeps == 3:  # the worker is held up, so that it dies with sweeps in its queue
                client.submit(time.sleep, 60, workers=[before[0]], pure=False, priority=1, key="emfuse-test-sleep")
                threading.Timer(0.2, kill, [before[0]]).start()

        assert bits(emfuse.em(engine, p, stop=4, callback=callback)) == fit
        assert before[0] not in engine._where.values()
        assert set(engine._where) == set(range(12))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a process cannot be killed here")
def test_a_partition_that_cannot_be_made_again_is_named(client, rows):
    """Rows that were sent to a worker, and to no other, are gone with it: an error, and no waiting."""
    p, X = rows()
    with whole_again(client) as kill:
        there = sorted(client.scheduler_info(n_workers=-1)["workers"])
        parts = [client.scatter(half, workers=[address]) for half, address in zip((X[:2000], X[2000:]), there, strict=True)]
        engine = DaskEngine(parts, client)
        with pytest.raises(RuntimeError, match="partition 1 was lost with its worker and cannot be made again"):
            emfuse.em(engine, p, stop=4, callback=lambda progress: kill(engine._where[1]))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a process cannot be killed here")
def test_workers_that_die_of_a_sweep_end_the_fit(client, rows, monkeypatch):
    """It would be tried for ever; here it is not even tried again."""
    p, X = rows()
    monkeypatch.setattr(dask_engine, "MOST_LOSSES", 0)
    with whole_again(client) as kill:
        engine = DaskEngine(da.from_array(X, chunks=(250, 10)), client)
        with pytest.raises(
            RuntimeError, match="1 times, a worker was lost in the middle of one sweep: look into the workers' logs"
        ):
            emfuse.em(engine, p, stop=4, callback=lambda progress: kill(engine._where[0]))


# ------------------------------------------------------------------ errors have a place


def test_a_nan_is_named_by_partition_and_row(anywhere, rows):
    """Of several the first one, whichever worker is quicker; as a ValueError with nothing of Dask's in it."""
    _, X = rows()
    X[[703, 2990], [4, 1]] = np.nan
    with pytest.raises(ValueError) as caught:
        DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), anywhere)
    assert str(caught.value) == (
        "X must be finite, got nan (NaN or infinity) in row 2 of partition 3, feature 4; drop the row or fill the value in "
        "(row 703 of all)"
    )
    assert caught.value.__cause__ is None


def test_a_row_too_far_away_is_named_by_partition_and_row(anywhere, rows):
    """A sweep's error is a result like others, and the first is raised."""
    p, X = rows()
    X[[703, 2990], 1] = 1e200
    engine = DaskEngine(da.from_array(X, chunks=(CHUNKS, 10)), anywhere)
    with pytest.raises(ValueError, match=r"^row 2 of partition 3 \(.*\) lies so many standard deviations .* \(row 703 of all\)$"):
        engine.sweep(p.factors)
    with pytest.raises(ValueError, match="feature 1 has rows so far from the others that the variance overflows"):
        engine.moments


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(7), r"sample_weight must have shape \(3000,\), one number a row of X, got \(7,\)"),
        (da.ones(7), r"sample_weight must have shape \(3000,\), one number a row of X, got \(7,\)"),
        (np.zeros(3000), "sample_weight must be above 0 for some row, but every weight is zero"),
        (np.where(np.arange(3000) == 703, -1.0, 1.0), "got -1.0 for row 2 of partition 3 "),
        (np.where(np.arange(3000) == 703, np.nan, 0.0), "got nan for row 2 of partition 3 "),
    ],
)
def test_weights_that_cannot_be_used_say_why(rows, weights, words):
    """By partition and row too."""
    with pytest.raises(ValueError, match=words):
        DaskEngine(da.from_array(rows()[1], chunks=(CHUNKS, 10)), sample_weight=weights)


def of_unknown_lengths(X):
    return da.from_array(X, chunks=(1000, 10))[da.from_array(X[:, 0] < np.inf, chunks=1000)]


@pytest.mark.parametrize(
    ("make", "weights", "error", "words"),
    [
        (lambda X: X, None, TypeError, "X must be a dask.array, a dask.dataframe or a list of delayed arrays, got ndarray"),
        (lambda X: da.ones((2, 3, 4)), None, ValueError, "X must be 2-D, rows x features"),
        (lambda X: da.ones((2, 0)), None, ValueError, "X must have at least one feature"),
        (lambda X: da.ones((0, 2)), None, ValueError, "X must have at least one row, but every partition is empty"),
        (lambda X: [], None, ValueError, "X must have at least one partition, got an empty list"),
        (lambda X: da.ones((4, 2), dtype=complex), None, TypeError, r"an array of complex128 \(partition 0\)"),
        (lambda X: [X[:9], X[:9, 1:]], None, ValueError, r"X must have 10 features, as partition 0 has, got 9 \(partition 1\)"),
        (
            lambda X: [X[:9], X[:9]],
            [np.ones(9)],
            ValueError,
            "must be a list of 2, one array for each partition of X, got a list of 1",
        ),
        (lambda X: [X[:9], X[:9]], [np.ones(9), np.ones(8)], ValueError, r"one number a row of X, got \(8,\) \(partition 1\)"),
        (of_unknown_lengths, np.ones(3000), ValueError, "the partitions of X, whose lengths are unknown, got ndarray"),
        (of_unknown_lengths, da.ones(3000, chunks=500), ValueError, "sample_weight must have 3 partitions, as X has, got 6"),
    ],
)
def test_collections_that_cannot_be_used_say_why(rows, make, weights, error, words):
    """What was seen, what was needed, and which partition."""
    with pytest.raises(error, match=words):
        DaskEngine(make(rows()[1]), sample_weight=weights)


def test_a_partition_that_cannot_be_computed_is_named(client):
    """With what was wrong, and that as the cause."""
    parts = [dask.delayed(np.ones)((3, 2)), dask.delayed(lambda: {}["no such file"])()]
    with pytest.raises(RuntimeError, match="partition 1 cannot be computed: KeyError: 'no such file'") as caught:
        DaskEngine(parts, client)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_mixture_of_other_features_is_refused(rows, mixture):
    """Before a sweep, and before anything is computed lazily."""
    collection, p = da.from_array(rows()[1], chunks=(1000, 10)), mixture(D=3)
    for ask in (DaskEngine(collection).sweep, lambda factors: predict(collection, p)):
        with pytest.raises(ValueError, match="X has 10 features, but the mixture has 3"):
            ask(p.factors)


def test_rows_that_change_are_noticed(rows):
    """A partition that was made again, and has other rows now."""
    p, X = rows()
    engine = DaskEngine(da.from_array(X, chunks=(1000, 10)))
    engine._parts[1] = dask_engine._partition(1, X[:990], None)
    with pytest.raises(ValueError, match="must give the same rows every time, but they weighed 3000 and now weigh 2990"):
        engine.sweep(p.factors)
    X[5, 5] = np.nan
    engine._parts[1] = dask_engine._partition(1, X[:1000], None)
    with pytest.raises(ValueError, match="in row 5 of partition 1, feature 5"):
        engine.sweep(p.factors)


# ------------------------------------------------------------------ collections


def test_a_data_frame_is_its_columns(client, rows):
    """Whole numbers with nulls allowed, booleans, floats: as floats; a Series as one feature, or as weights."""
    pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    _, X = rows()
    frame = pd.DataFrame(
        {"a": X[:, 0], "b": pd.array(np.arange(3000) % 7, dtype="Int64"), "c": X[:, 1] > 0, "w": np.arange(3000) % 3}
    )
    table = frame[["a", "b", "c"]].to_numpy(dtype=float)
    p = emfuse.Parameters([0.5, 0.5], [[0.0, 1.0, 0.0], [1.0, 5.0, 1.0]], np.ones((2, 3)), "diag")
    lazy = dd.from_pandas(frame, npartitions=3)
    engine = DaskEngine(lazy[["a", "b", "c"]], client, sample_weight=lazy["w"])
    assert_same_fit(emfuse.em(engine, p, stop=5), emfuse.em(table, p, stop=5, sample_weight=frame["w"]))
    assert DaskEngine(lazy["a"], client).n_features == 1
    assert DaskEngine(lazy[["a"]].astype("float32"), client).sample(1, np.random.default_rng(0)).X.dtype == np.float32
    labels = predict(lazy[["a", "b", "c"]], p)
    assert (labels.dtype, labels.numblocks) == (np.int64, (3,))
    np.testing.assert_array_equal(labels.compute(), engines.evaluate(table, p.factors, labels=True).labels)


def test_a_data_frame_s_faults_are_named_by_column(client):
    """Null is NaN, and is refused; a column of words is, before anything is computed."""
    pd, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    frame = pd.DataFrame({"a": np.ones(6), "b": pd.array([1, 2, 3, 4, None, 6], dtype="Int64"), "c": list("abcdef")})
    lazy = dd.from_pandas(frame, npartitions=2)
    with pytest.raises(ValueError, match=r"in row 1 of partition 1, feature 1; .* \(row 4 of all, column 'b'\)"):
        DaskEngine(lazy[["a", "b"]], client)
    with pytest.raises(TypeError, match=r"column 'c' holds .*, and must hold numbers; choose by frame\[\['a', 'b'\]\]"):
        DaskEngine(lazy, client)


def test_lists_of_delayed_arrays_of_futures_and_of_arrays(client, rows):
    """One partition each, of whatever length; with weights in a list beside them."""
    p, X = rows()
    v = np.random.default_rng(2).uniform(0.5, 1.5, len(X))
    alone = emfuse.em(X, p, stop=3, sample_weight=v)
    parts, weights = np.split(X, [1200, 1200, 2500]), np.split(v, [1200, 1200, 2500])
    for wrap in (dask.delayed, client.scatter, np.asarray):
        engine = DaskEngine([wrap(part) for part in parts], client, sample_weight=[wrap(part) for part in weights])
        assert_same_fit(emfuse.em(engine, p, stop=3), alone)


def test_the_client_made_last_is_the_default(client, rows):
    """As everywhere in Dask; with its configuration, threads or nothing beside this one."""
    _, X = rows()
    with client.as_current():
        assert DaskEngine(da.from_array(X, chunks=(1000, 10)))._client is client
        for scheduler in ("threads", "synchronous"):
            with dask.config.set(scheduler=scheduler):
                engine = DaskEngine(da.from_array(X, chunks=(1000, 10)))
                assert (engine._client, engine.weight) == (None, 3000.0)


def test_an_asynchronous_client_is_refused():
    """A fit waits for each sweep."""

    class Asynchronous:
        asynchronous = True

    with pytest.raises(ValueError, match="client must not be asynchronous"):
        DaskEngine(da.ones((4, 2)), Asynchronous())


def test_what_is_dasks_is_known_without_dask(run):
    """So that `import emfuse`, and a fit in memory, do without it."""
    code = (
        "import sys, numpy as np\n"
        "from emfuse.dask_engine import is_dask\n"
        "made = [is_dask(x) for x in (np.ones(3), [1.0, 2.0], [], [np.ones(3)], 'x', None)]\n"
        "print(any(made), 'dask' in sys.modules)"
    )
    assert run(code) == "False False"
    delayed = dask.delayed(np.ones)(3)
    assert all(map(dask_engine.is_dask, (da.ones(3), delayed, [delayed, delayed], (delayed,))))


# ------------------------------------------------------------------ row by row


@pytest.mark.parametrize("columns", [10, 4])
def test_evaluations_are_lazy_and_have_the_chunks_of_the_rows(anywhere, rows, columns):
    """Labels int64, log densities and responsibilities float64, whatever the rows'; empty chunks stay empty."""
    p, X = rows(dtype=np.float32)
    collection = da.from_array(X, chunks=(CHUNKS, columns))
    alone = engines.evaluate(X, p.factors, labels=True, log_density=True, responsibilities=True)
    scheduler = anywhere or "threads"
    for make, dtype, tail, expected in (
        (predict, np.int64, (), alone.labels),
        (score_samples, np.float64, (), alone.log_density),
        (predict_proba, np.float64, ((3,),), alone.responsibilities),
    ):
        made = make(collection, p)
        assert isinstance(made, da.Array)
        assert (made.dtype, made.chunks) == (dtype, (CHUNKS, *tail))
        assert made.name == make(collection, p).name  # the same question has the same key
        np.testing.assert_array_equal(made.compute(scheduler=scheduler), expected)


def test_evaluations_compute_nothing_until_they_are_asked():
    """Not even to find out a type."""

    def fail(block):
        raise AssertionError("computed")

    collection = da.ones((6, 2), chunks=(3, 2)).map_blocks(fail, meta=np.empty((0, 2)))
    p = emfuse.Parameters([1.0], [[0.0, 0.0]], [[1.0, 1.0]], "diag")
    for make in (predict, predict_proba, score_samples):
        assert make(collection, p).numblocks[0] == 2


def test_evaluations_of_unknown_lengths_and_of_lists(rows):
    """Chunks of unknown length come out so; a delayed array is a chunk."""
    p, X = rows()
    expected = engines.evaluate(X, p.factors, labels=True).labels
    for collection in (of_unknown_lengths(X), [dask.delayed(X[:1000]), dask.delayed(X[1000:])]):
        made = predict(collection, p)
        assert np.isnan(made.chunks[0]).all()
        np.testing.assert_array_equal(made.compute(scheduler="threads"), expected)
        assert predict_proba(collection, p).compute(scheduler="threads").shape == (3000, 3)


def test_an_evaluation_s_nan_is_named_by_chunk_and_row(rows):
    """When it is computed."""
    p, X = rows()
    X[1234, 5] = np.inf
    made = score_samples(da.from_array(X, chunks=(1000, 10)), p)
    with pytest.raises(ValueError, match=r"got inf .* in row 234 of partition 1, feature 5"):
        made.compute(scheduler="threads")


def test_fit_takes_a_dask_array_and_ends_where_the_array_does():
    """The same rows are drawn for the starts, so the climb is the same, but for the order of sums."""
    X = np.random.default_rng(0).normal(size=(900, 2)) + np.repeat([[0, 0], [6, 0], [0, 9]], 300, axis=0)
    lazy = pytest.importorskip("dask.array").from_array(X, chunks=(250, 2))
    here, there = emfuse.fit(X, 3), emfuse.fit(lazy, 3)
    assert there.converged
    np.testing.assert_allclose(np.sort(there.parameters.means[:, 0]), np.sort(here.parameters.means[:, 0]), atol=1e-4)
    assert there.log_likelihood == pytest.approx(here.log_likelihood, abs=1e-5)  # both stop within 1e-6 by estimate
