"""Threads: how many, the same bits whatever their number, and no deadlock, whoever forks, ends or fits beside."""

import asyncio
import contextlib
import contextvars
import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from contextlib import closing

import numpy as np
import pytest

import emfuse
from emfuse import InMemory, SufficientStatistics, engines, kernels, threads
from emfuse.threads import VARIABLE, in_order, limit, thread_count

NAMES = ("mass", "first", "second", "log_likelihood", "weight")
SOON = 30.0  # seconds in which anything here is done, unless there is a deadlock; a busy machine takes a few


def bits(thing):
    """Statistics, an evaluation or a fit as bytes."""
    if isinstance(thing, emfuse.Fit):
        return bits(thing.statistics), thing.parameters.means.tobytes(), thing.trace.tobytes()
    names = NAMES if isinstance(thing, SufficientStatistics) else ("log_density", "labels", "responsibilities")
    return tuple(np.asarray(getattr(thing, name)).tobytes() for name in names)


@pytest.fixture
def large(mixture):
    """Function that makes a mixture, and so many rows that they are cut into several groups."""

    def made(structure="full"):
        p = mixture(structure, K=6, D=6, apart=1.0)
        X = np.random.default_rng(1).permutation(p.sample(30_000, random_state=0)[0])
        assert len(engines.cut(len(X), p.factors)) > 4
        return p, X

    return made


@pytest.fixture(autouse=True)
def a_deadlock_is_a_failure():
    """Nothing here waits for ever: what takes minutes gets a TimeoutError, and another each second until it ends."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def fail(number, frame):
        raise TimeoutError("a deadlock")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 4 * SOON, 1.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def pool(monkeypatch):
    """A pool without threads, in the place of the one that earlier tests have used."""
    fresh = threads._Pool()
    monkeypatch.setattr(threads, "_pool", fresh)
    return fresh


@pytest.fixture
def cores(monkeypatch):
    """Function that sets how many cores there seem to be; nothing else says how many threads to use."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(threads, "_openmp_threads", math.inf)
    monkeypatch.setattr(threads, "_cores", lambda: 4)
    return lambda n: monkeypatch.setattr(threads, "_cores", lambda: n)


@pytest.fixture
def silent(monkeypatch):
    """An environment that says nothing of threads, for processes of their own."""
    for name in (VARIABLE, threads.OPENMP):
        monkeypatch.delenv(name, raising=False)


def side_by_side(*works):
    """Run functions at once, in a thread each; return what they return, or raise what the first of them raises."""
    ended = [None] * len(works)

    def run(i):
        try:
            ended[i] = (works[i](), None)
        except BaseException as error:
            ended[i] = (None, error)

    started = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(works))]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(SOON)
    assert not any(thread.is_alive() for thread in started), "a deadlock"
    for _, error in ended:
        if error is not None:
            raise error
    return [value for value, _ in ended]


# ------------------------------------------------------------------ law 7: threads cannot be seen


def assert_the_same_for_any_number(p, X, v):
    one = InMemory(X, v, n_threads=1)
    wanted = dict(log_density=True, labels=True, responsibilities=True)
    sums, rows = bits(one.sweep(p.factors)), bits(one.evaluate(p.factors, **wanted))
    for n_threads in (2, 3, 8):
        many = InMemory(X, v, n_threads=n_threads)
        assert bits(many.sweep(p.factors)) == sums
        assert bits(many.evaluate(p.factors, **wanted)) == rows


@pytest.mark.parametrize("weighted", [False, True])
def test_the_same_bits_for_any_number_of_threads(structure, large, weighted):
    """1, 2, 3 and 8 threads: not even the last bit tells them apart."""
    p, X = large(structure)
    assert_the_same_for_any_number(p, X, np.random.default_rng(2).uniform(0.0, 2.0, len(X)) if weighted else None)


def test_the_same_bits_for_any_number_of_threads_in_every_build(build, large):
    """Whichever build runs them."""
    assert_the_same_for_any_number(*large(), None)


def test_small_data_uses_no_threads(pool):
    """272 rows are one group, which the caller does: no thread is started, whatever is asked for."""
    X = np.random.default_rng(0).standard_normal((272, 2))
    before = threading.active_count()
    fit = emfuse.fit(X, 2, n_threads=8)
    fit.predict(X)
    assert (pool.started, threading.active_count()) == (0, before)


# ------------------------------------------------------------------ how many: argument, context, environment, cores


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, "2", True])
def test_a_senseless_number_of_threads_is_refused(n_threads):
    """At least 1, a whole number, or None; and a number in a context."""
    with pytest.raises(ValueError, match="n_threads must be a whole number of at least 1, or None, got"):
        InMemory([1.0], n_threads=n_threads)
    with pytest.raises(ValueError, match="n_threads must be a whole number of at least 1, or None, got"), limit(n_threads):
        pass


@pytest.mark.parametrize("value", ["0", "-2", "two", "", "1.5", "²"])
def test_a_senseless_environment_variable_is_refused(monkeypatch, value):
    """It is the variable that the error names."""
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=f"variable EMFUSE_NUM_THREADS must be a whole number of at least 1, got {value!r}"):
        InMemory([1.0])


def test_who_says_how_many_threads(monkeypatch, cores):
    """The argument, or else the context, or else EMFUSE_NUM_THREADS, or else the cores."""
    cores(7)
    assert InMemory([1.0]).n_threads == 7
    monkeypatch.setenv(VARIABLE, "3")
    assert InMemory([1.0]).n_threads == 3
    with limit(5):
        assert InMemory([1.0]).n_threads == 5
        assert InMemory([1.0], n_threads=np.int64(2)).n_threads == 2
    assert InMemory([1.0]).n_threads == 3


@pytest.mark.parametrize(
    ("said", "expected"), [("2", 2), (" 3 ", 3), ("2,4", 2), ("64", 8), ("", 8), ("0", 8), ("-1", 8), ("x", 8), ("9" * 5000, 8)]
)
def test_openmps_variable_can_only_lower_the_number(monkeypatch, cores, said, expected):
    """OMP_NUM_THREADS, or the first of its list, where it makes sense; it is weaker than all that is said to emfuse."""
    cores(8)
    monkeypatch.setattr(threads, "_openmp_threads", threads._first_of(said))
    assert thread_count() == expected
    with limit(9):
        assert thread_count() == 9


def test_openmps_variable_is_read_at_import(run, silent):
    """As OpenMP's libraries read it: later it may be meant for processes to come, as where dask starts its workers."""
    ask = "import os; {}; import emfuse; {}; print(emfuse.threads.thread_count() == {})"
    put = "os.environ['OMP_NUM_THREADS'] = '1'"
    assert run(ask.format(put, "pass", 1)) == "True"
    assert run(ask.format("pass", put, "emfuse.threads._cores()")) == "True"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a process cannot be bound to a core here")
def test_a_process_bound_to_one_core_uses_one_thread(run, silent):
    """As `taskset` and batch systems bind it, at any time."""
    bind = "import os, emfuse; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(emfuse.threads.thread_count())"
    assert run(bind) == "1"


@pytest.mark.skipif(not hasattr(os, "process_cpu_count"), reason="this Python does not know PYTHON_CPU_COUNT")
def test_pythons_own_variable_is_honoured(run, silent):
    """PYTHON_CPU_COUNT, from Python 3.13 on."""
    assert run("import emfuse; print(emfuse.threads.thread_count())", env={"PYTHON_CPU_COUNT": "1"}) == "1"


# ------------------------------------------------------------------ how many: the limits of control groups


@pytest.fixture
def groups(tmp_path):
    """Function that writes files of control groups, and asks for their limit."""

    def asked(process, files):
        (tmp_path / "process").write_bytes(process.encode("utf-8", "surrogateescape"))
        for name, text in files.items():
            file = tmp_path / "mount" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode("utf-8", "surrogateescape"))
        return threads._cgroup_cores(tmp_path / "process", tmp_path / "mount")

    return asked


@pytest.mark.parametrize(
    ("process", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "400000 100000\n", "a/c/cpu.max": "1 100000"}, 3.0),
        ("0::/docker/1f\n", {"cpu.max": "200000 100000\n"}, 2.0),  # a container that sees its own group as the top
        ("0::/../../b\n", {"cpu.max": "200000 100000\n", "b/cpu.max": "1 100000\n"}, 2.0),
        ("0::/a:b\n", {"a:b/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("3:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("2:cpuset:/\n1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "3", "cpu/cpu.cfs_period_us": "2", "cpu.max": "1 1"}, 1.0),
    ],
)
def test_the_least_limit_of_the_groups_around_a_process_counts(groups, process, files, expected):
    """Version 2 (one file), version 1 (two), and both; a limit holds for all groups inside."""
    assert groups(process, files) == expected


@pytest.mark.parametrize(
    "process", ["", "0", "0::", "::::\n", "0::/\0\n", "\udcff\n", "0::/" + "x" * 300 + "\n", "4:cpu,/../..:/\n"]
)
@pytest.mark.parametrize("limits", ["", "max", "1 0", "0 100000", "-1 100000", "x y", "1e5 100000", "\udcff", "9" * 5000 + " 1"])
def test_files_that_make_no_sense_are_no_limit(groups, process, limits):
    """Whatever they hold, and wherever they are: no error, and all cores."""
    files = {"cpu.max": limits, "cpu/cpu.cfs_quota_us": limits, "cpu/cpu.cfs_period_us": limits}
    assert groups(process, files) == math.inf
    assert groups("0::/\n1:cpu:/\n", files) == math.inf


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path):
    """Other systems have no such files, and a folder is not one either."""
    assert threads._cgroup_cores(tmp_path / "none", tmp_path) == threads._cgroup_cores(tmp_path, tmp_path) == math.inf


@pytest.mark.parametrize(("limit_of_groups", "expected"), [(math.inf, 4), (2.5, 3), (2.0, 2), (1e-9, 1), (1e300, 4)])
def test_cores_are_the_least_of_affinity_and_limit(monkeypatch, silent, limit_of_groups, expected):
    """The limit is rounded up: half a core more is worth a thread."""
    monkeypatch.setattr(threads, "_cgroup_cores_lately", lambda turn: limit_of_groups)
    for name in ("process_cpu_count", "cpu_count"):
        monkeypatch.setattr(os, name, lambda: 4, raising=name == "cpu_count" or hasattr(os, name))
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    assert threads._cores() == expected


def test_control_groups_are_read_once_in_a_while(monkeypatch):
    """A limit that changes is seen some seconds later; in between, asking costs microseconds."""
    now, read = [1e6], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(threads, "_cgroup_cores", lambda: read.append(now[0]) or 1.0)
    threads._cgroup_cores_lately.cache_clear()
    for now[0] in (1e6, 1e6 + 1, 1e6 + threads.SECONDS, 1e6 + threads.SECONDS + 1):
        assert threads._cores() == 1
    threads._cgroup_cores_lately.cache_clear()
    assert read == [1e6, 1e6 + threads.SECONDS]


# ------------------------------------------------------------------ how many: `with limit(n):`


def test_limits_nest_and_end(cores):
    """The inner counts, and each goes back to the one before, also where an exception ends it."""
    with limit(2):
        with limit(3):
            assert thread_count() == 3
        assert thread_count() == 2
        with contextlib.suppress(KeyError), limit(1):
            raise KeyError
        assert thread_count() == 2
    assert thread_count() == 4


def test_a_fit_inside_keeps_to_the_limit(pool, cores, large):
    """As many threads as it says are started, of a fit and of the fit's own evaluations; with one, none."""
    p, X = large()
    with limit(1):
        one = emfuse.em(X, p, stop=2)
        emfuse.fit(X, 2, stop=1)
        one.predict(X)
    assert pool.started == 0
    with limit(2):
        two = emfuse.em(X, p, stop=2)
        two.predict(X)
    assert pool.started == 2
    assert bits(one) == bits(two)


@pytest.mark.parametrize(("locked", "rows", "n_threads"), [(True, 99, 1), (True, 100, 4), (False, 99, 4)])
def test_fits_go_side_by_side_where_that_is_quicker(monkeypatch, locked, rows, n_threads):
    """Not where they are Python more than sweeps, and Python has a lock."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: locked, raising=False)
    assert threads.side_by_side(4, rows, least=100) == n_threads


def test_each_thread_has_its_own_limit(cores):
    """Two threads inside different limits at once see their own."""
    both = threading.Barrier(2, timeout=SOON)

    def held(n):
        with limit(n):
            both.wait()
            seen = thread_count()
            both.wait()
        return seen, thread_count()

    assert side_by_side(lambda: held(2), lambda: held(3)) == [(2, 4), (3, 4)]


def test_a_thread_started_inside_is_held_only_in_a_copy_of_the_context(cores):
    """As with every context variable; free-threaded Python copies it by itself."""
    with limit(2):
        inherits = getattr(sys.flags, "thread_inherit_context", False)
        assert side_by_side(thread_count) == [2 if inherits else 4]
        assert side_by_side(lambda context=contextvars.copy_context(): context.run(thread_count)) == [2]


def test_each_asyncio_task_has_its_own_limit(cores):
    """Tasks that take turns inside different limits see their own; so do the threads of `to_thread`."""

    async def held(n):
        with limit(n):
            await asyncio.sleep(0.001)
            return thread_count(), await asyncio.to_thread(thread_count), thread_count()

    async def all_of_them():
        return await asyncio.gather(held(2), held(3), held(5)), thread_count()

    assert asyncio.run(all_of_them()) == ([(2, 2, 2), (3, 3, 3), (5, 5, 5)], 4)


# ------------------------------------------------------------------ the pool


class Crowd:
    """Work that knows how many do it at once, and at most did; the first `meet` of them wait for each other."""

    def __init__(self, meet=1, seconds=0.002):
        self.lock, self.now, self.most, self.started = threading.Lock(), 0, 0, 0
        self.meeting, self.seconds = threading.Barrier(meet, timeout=SOON), seconds

    def __call__(self, item):
        with self.lock:
            self.now += 1
            self.started += 1
            self.most = max(self.most, self.now)
            first = self.started <= self.meeting.parties
        if first:
            self.meeting.wait()
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        return item


def test_results_come_in_order(pool):
    """Whichever is done first."""
    delays = [0.01, 0.0, 0.005, 0.0, 0.0, 0.003]
    assert list(in_order(lambda i: time.sleep(delays[i]) or i, range(6), 3)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("n_threads", [2, 3])
def test_a_caller_has_as_many_threads_as_it_asks_for(pool, n_threads):
    """No fewer, and no more, even where the pool has grown for somebody else."""
    list(in_order(Crowd(meet=8), range(8), 8))
    crowd = Crowd(meet=n_threads)
    assert list(in_order(crowd, range(12), n_threads)) == list(range(12))
    assert (crowd.most, pool.started) == (n_threads, 8)


def test_many_numbers_of_threads_leave_no_more_than_the_greatest(pool):
    """One pool serves them all; 2 + 3 + ... + 20 threads would be 209."""
    for n_threads in range(2, 21):
        list(in_order(str, range(64), n_threads))
    assert pool.started == 20


def test_no_more_threads_than_there_is_work(pool):
    """n_threads=1000 and three groups: three."""
    assert list(in_order(str, range(3), 1000)) == ["0", "1", "2"]
    assert pool.started == 3


def test_callers_side_by_side_share_the_cores(pool, cores):
    """Four callers that ask for two threads each have the four cores at work, and never more."""
    crowd = Crowd(meet=4)
    side_by_side(*[lambda: list(in_order(crowd, range(8), 2))] * 4)
    assert (crowd.most, pool.started, pool.asked) == (4, 4, 0)


def test_a_caller_with_much_to_do_does_not_keep_others_waiting(pool, cores):
    """Turns are taken in rotation: two items are done long before two thousand are."""
    cores(2)
    much, done = Crowd(seconds=0.005), threading.Event()

    def busy():
        with closing(in_order(much, range(2000), 2)) as parts:
            return any(done.is_set() for _ in parts)

    assert side_by_side(busy, lambda: [list(in_order(str, range(2), 2)), done.set()])[0]


def test_little_is_done_ahead_of_a_slow_reader(pool):
    """Two groups a thread wait to be added at most: what bounds memory."""
    crowd = Crowd(seconds=0.0)
    with closing(in_order(crowd, range(100), 2)) as parts:
        next(parts)
        time.sleep(0.05)
        assert crowd.started <= 2 * 2 + 1


def test_without_threads_the_caller_does_it_all(monkeypatch, pool):
    """Where the system gives no more threads, or not as many as were asked for: the same results."""
    left = [0]

    class Scarce(threading.Thread):
        def start(self):
            if left[0] == 0:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
            super().start()

    monkeypatch.setattr(threads, "Thread", Scarce)
    for left[0] in (0, 1):
        assert list(in_order(str, range(9), 4)) == list("012345678")
        assert (left[0], pool.asked) == (0, 0)
    assert pool.started == 1


def test_no_thread_is_waited_for_when_python_has_ended_them(monkeypatch, pool):
    """A finaliser at the very end finds the pool's threads stopped for good, and does its work itself."""
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    assert list(in_order(str, range(4), 4)) == list("0123")
    assert pool.started == 0


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_worked_on_is_let_go(pool, fails):
    """No thread, queue, or circle through a traceback keeps the data once the sweep is over."""

    class Work:
        def __call__(self, item):
            return 1 // (not fails or item < 2)

    work = Work()
    gone = weakref.ref(work)
    gc.disable()
    try:
        with contextlib.suppress(ZeroDivisionError), closing(in_order(work, range(9), 3)) as parts:
            list(parts)
        del work, parts
        until = time.monotonic() + SOON
        while gone() is not None and time.monotonic() < until:  # a thread may be on its way back to the queue
            time.sleep(0.001)
        assert gone() is None
    finally:
        gc.enable()


class Slow:
    """A build whose sweeps take a while, count themselves, and break at the third where there is an error to raise."""

    def __init__(self, error):
        self.error, self.started, self.ended, self.lock = error, 0, 0, threading.Lock()

    def sweep(self, **given):
        with self.lock:
            self.started += 1
            mine = self.started
        try:
            if mine == 3 and self.error is not None:
                raise self.error
            time.sleep(0.02)
        finally:
            with self.lock:
                self.ended += 1
        return 0.0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("none left")], ids=["Ctrl-C", "an error"])
def test_a_broken_sweep_leaves_no_work_behind(monkeypatch, large, error):
    """When the exception reaches the caller, no group is at work, and none starts later."""
    p, X = large()
    build = Slow(error)
    monkeypatch.setattr(kernels, "load", lambda name=None: build)
    with pytest.raises(type(error)):
        InMemory(X, n_threads=2).sweep(p.factors)
    started = build.started
    assert build.ended == started
    time.sleep(0.1)
    assert build.started == started


def test_a_break_between_two_groups_leaves_no_work_behind(monkeypatch, large):
    """Ctrl-C while sums are added, and not while a group is waited for: the same."""
    p, X = large()
    build = Slow(None)
    monkeypatch.setattr(kernels, "load", lambda name=None: build)

    def interrupted(total, part):
        raise KeyboardInterrupt

    monkeypatch.setattr(SufficientStatistics, "__iadd__", interrupted)
    try:
        InMemory(X, n_threads=2).sweep(p.factors)
    except KeyboardInterrupt:
        started, ended = build.started, build.ended
    assert ended == started
    time.sleep(0.1)
    assert build.started == started


# ------------------------------------------------------------------ several callers, and callbacks


def test_callers_in_several_threads_do_not_disturb_each_other(large):
    """Four threads that fit from different starts at once, with other numbers of threads, each get what one alone gets."""
    p, X = large()
    starts = [emfuse.Parameters(p.weights, p.means + shift, p.covariances) for shift in (0.0, 0.5, 1.0, 1.5)]
    alone = [bits(emfuse.em(X, start, stop=3, n_threads=1)) for start in starts]
    works = [lambda n=n: bits(emfuse.em(X, starts[n], stop=3, n_threads=n + 1)) for n in range(4)]
    assert side_by_side(*works) == alone


def test_callbacks_run_in_the_callers_thread(large):
    """So a fit inside a callback is no fit inside the pool, which would wait for itself."""
    p, X = large()
    seen = []

    def callback(progress):
        seen.append((threading.current_thread(), bits(emfuse.em(X, p, stop=1, n_threads=2))))

    inner = bits(emfuse.em(X, p, stop=1, n_threads=1))
    side_by_side(lambda: emfuse.em(X, p, stop=2, n_threads=2, callback=callback) and seen.append(threading.current_thread()))
    assert seen[:-1] == [(seen[-1], inner)] * (len(seen) - 1)
    assert len(seen) > 2


# ------------------------------------------------------------------ processes: forked, spawned, interrupted, ended

DATA = """
import os, signal, sys, threading, time, warnings, numpy as np, emfuse
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of any fork beside threads
X = np.random.default_rng(0).standard_normal((60_000, 4))
p = emfuse.Parameters([0.5, 0.5], [np.zeros(4), np.ones(4)], [np.eye(4)] * 2)
assert len(emfuse.engines.cut(len(X), p.factors)) > 1
def fit(n_threads=2, stop=2):
    return emfuse.em(X, p, stop=stop, n_threads=n_threads).trace.tobytes()
alone = fit(1)
"""

FORK = """
assert fit() == alone  # the parent's threads exist now, and the child has none of them
child = os.fork()
if child == 0:
    signal.alarm(30)
    sys.exit(fit() != alone)
print(os.waitpid(child, 0)[1], fit() == alone)
"""

FORK_BESIDE_A_FIT = """
over, fine = threading.Event(), []
def fit_on():
    while not over.is_set():
        fine.append(fit() == alone)
beside = threading.Thread(target=fit_on)
beside.start()
while len(fine) < 2:
    time.sleep(0.001)
ends = []
for i in range(20):
    time.sleep(0.0007 * i)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(fit() != alone)
    ends.append(os.waitpid(child, 0)[1])
over.set()
beside.join(30)
print(any(ends), all(fine), beside.is_alive())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("code", [FORK, FORK_BESIDE_A_FIT], ids=["fork", "fork beside a fit"])
def test_it_works_after_a_fork(run, code):
    """A forked child fits with threads of its own, whatever the parent's were doing, and gets the parent's bits; so does it."""
    assert run(DATA + code, timeout=60) in ("0 True", "False True False")


METHODS = """
import multiprocessing
assert fit() == alone
with multiprocessing.get_context({method!r}).Pool(2) as pool:
    fits = [pool.apply_async(emfuse.em, (X, p), dict(stop=2, n_threads=2)) for _ in range(4)]
    print(all(fit.get(timeout=30).trace.tobytes() == alone for fit in fits))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_it_works_in_the_processes_of_multiprocessing(run, method):
    """However they are started, from a process that has fitted with threads itself."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    assert run(DATA + METHODS.format(method=method), timeout=60) == "True"


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_it_works_in_joblibs_workers(run, silent, backend):
    """Processes and threads; loky's know from joblib how many cores are theirs, and threads share one pool."""
    code = """
from joblib import Parallel, cpu_count, delayed, parallel_config
with parallel_config({backend!r}):
    fits = Parallel(2)(delayed(emfuse.em)(X, p, stop=2, n_threads=2) for _ in range(4))
    print(all(fit.trace.tobytes() == alone for fit in fits))
    counts = Parallel(2)(delayed(emfuse.threads.thread_count)() for _ in range(4))
    share = max(1, cpu_count() // 2) if {backend!r} == "loky" else emfuse.threads._cores()
    print(set(counts) == {{share}}, len([t for t in threading.enumerate() if t.name.startswith("emfuse")]) <= max(2, cpu_count()))
"""
    assert run(DATA + code.format(backend=backend), timeout=60).split() == ["True"] * 3


@pytest.mark.parametrize("processes", [True, False])
def test_it_works_in_dasks_workers(run, silent, processes):
    """Those that are processes hold to one thread, as dask tells them; the client is not held, and threads share one pool."""
    pytest.importorskip("distributed", reason="dask's distributed is not installed; pip install distributed")
    code = """
from distributed import Client, LocalCluster
with LocalCluster(n_workers=1, threads_per_worker=2, processes={processes}, dashboard_address=None) as cluster:
    with Client(cluster) as client:
        fits = client.gather([client.submit(emfuse.em, X, p, stop=2, n_threads=2, pure=False) for _ in range(2)])
        count = client.submit(emfuse.threads.thread_count).result()
print(all(fit.trace.tobytes() == alone for fit in fits))
cores = emfuse.threads._cores()
print(emfuse.threads.thread_count() == cores, count == (1 if {processes} else cores))
"""
    assert run(DATA + code.format(processes=processes), timeout=90).split() == ["True"] * 3


CTRL_C = """
swept = threading.Event()
threading.Thread(target=lambda: (swept.wait(), os.kill(os.getpid(), signal.SIGINT))).start()
try:
    emfuse.em(X, p, stop=1_000_000, n_threads=2, callback=lambda progress: swept.set())
except KeyboardInterrupt:
    print("interrupted")
print(emfuse.em(X[:1000], p, stop=2, n_threads=2).trace.size)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="a process cannot send itself Ctrl-C here")
def test_ctrl_c_ends_a_fit_at_once_and_the_next_one_works(run):
    """SIGINT in the middle of a long fit is a KeyboardInterrupt; the process is then as good as new, and ends."""
    assert run(DATA + CTRL_C, timeout=60).split() == ["interrupted", "3"]


ENDS = {
    "idle": "fit(); print('ended')",
    "a thread goes on": "threading.Thread(target=lambda: print(fit(stop=200) and 'ended')).start()",
    "a daemon goes on": "threading.Thread(target=lambda: fit(stop=10**6), daemon=True).start(); time.sleep(0.05); print('ended')",
    "a fit at exit": "import atexit; atexit.register(lambda: print(fit() == alone and 'ended'))",
}


@pytest.mark.parametrize("end", ENDS)
def test_python_ends_where_threads_are_idle_or_at_work(run, end):
    """A thread's fit is finished, also after the main thread has ended; a daemon's is dropped; one at exit works; none hangs."""
    assert run(DATA + ENDS[end], timeout=60) == "ended"
