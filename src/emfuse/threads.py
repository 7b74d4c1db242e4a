"""How many threads a fit uses, and the threads themselves.

A sweep is a row of groups, and `in_order` does them in Python threads. A process has one pool of these, however many fits run in
it side by side, so that together they use the cores once and not once each. It is our own and not a `ThreadPoolExecutor`, which
refuses work once the main thread has ended, and would break a fit that another thread is in the middle of.

Layer 1.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, RLock, Thread
from typing import Generic, TypeVar

import numpy as np

VARIABLE = "EMFUSE_NUM_THREADS"
OPENMP = "OMP_NUM_THREADS"
SECONDS = 10  # for which the limits of control groups, once read, are believed: they change seldom, and take 0.1 to 0.3 ms

Item = TypeVar("Item")
Result = TypeVar("Result")

_limit: ContextVar[int | None] = ContextVar("emfuse.threads.limit", default=None)


def thread_count(wanted: int | None = None) -> int:
    """Return how many threads to use: the first of these that says.

    1. `wanted`, the argument `n_threads` of whoever asks.
    2. `with limit(n):`, where the caller is inside one.
    3. The environment variable EMFUSE_NUM_THREADS.
    4. The cores that this process may use: the least of its affinity (`os.process_cpu_count`, where Python has it), the CPU limit
       of its control groups (a container's, on Linux; rounded up), and OMP_NUM_THREADS.

    OMP_NUM_THREADS is how joblib and dask tell the libraries in their worker processes how many cores are theirs. As by those
    libraries, it is read once, at import: dask also leaves it in its client's process, where it is not meant. It can only lower
    the number, and where it makes no sense it is ignored, since it is not ours.

    Fits side by side in threads of one process share one pool, and need no such word. The workers of `multiprocessing.Pool` and
    `ProcessPoolExecutor` are told nothing, and each takes all cores, which costs little, since no thread here waits by spinning;
    one of the variables, set before they start, tells them.

    Raises ValueError where `wanted` or EMFUSE_NUM_THREADS is no whole number of at least 1.
    """
    if wanted is not None:
        return _checked(wanted)
    held = _limit.get()
    if held is not None:
        return held
    given = os.environ.get(VARIABLE)
    if given is None:
        return int(min(_cores(), _openmp_threads))
    if not (given.isascii() and given.isdecimal()) or int(given) < 1:
        raise ValueError(f"environment variable {VARIABLE} must be a whole number of at least 1, got {given!r}")
    return int(given)


def side_by_side(n_threads: int, rows: int, least: int) -> int:
    """Return in how many threads fits of so many rows go on at once: one below `least`, where a fit is Python more than sweeps.

    Threads that run Python take turns, and hand over slowly, unless Python is built without its global lock.
    """
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    return 1 if has_lock and rows < least else n_threads


@contextmanager
def limit(n_threads: int) -> Generator[None]:
    """Hold fits inside to `n_threads` threads, where they are not given a number themselves; `with limit(2): ...`.

    It holds for this thread, or this asyncio task and the tasks it starts, until the block ends; of two around each other the
    inner counts. A thread started inside is not held, unless it runs in a copy of the context (`contextvars`), as those of
    `asyncio.to_thread` do. An `InMemory` keeps the number it was made with.

    Raises ValueError where `n_threads` is no whole number of at least 1.
    """
    before = _limit.set(_checked(n_threads))
    try:
        yield
    finally:
        _limit.reset(before)


def _checked(n_threads: int) -> int:
    if isinstance(n_threads, bool) or not isinstance(n_threads, (int, np.integer)) or n_threads < 1:
        raise ValueError(f"n_threads must be a whole number of at least 1, or None, got {n_threads!r}")
    return int(n_threads)


# ------------------------------------------------------------------ how many cores there are


def _cores() -> int:
    """Return how many cores this process may use: at least 1."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it honours PYTHON_CPU_COUNT
        cores = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    return math.ceil(min(cores or 1, _cgroup_cores_lately(time.monotonic() // SECONDS)))


def _first_of(openmp: str) -> float:
    """Return the number in OMP_NUM_THREADS, or the first in its list, "4,2"; infinity where it says nothing."""
    try:
        first = int(openmp.partition(",")[0])
    except ValueError:
        return math.inf
    return first if first > 0 else math.inf


_openmp_threads = _first_of(os.environ.get(OPENMP, ""))


@lru_cache(maxsize=1)
def _cgroup_cores_lately(_turn: float) -> float:
    return _cgroup_cores()


def _cgroup_cores(process: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the least CPU limit of this process's control groups and of those around them, in cores; infinity if none has any.

    process : which groups the process is in, a line each, "0::/a/b" (version 2) or "3:cpu,cpuacct:/a/b" (version 1)
    mount : where the groups are folders; a container sees its own as the top, whatever `process` says
    """
    least = math.inf
    for line in _text(process).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = [name for name in path.split("/") if name]
        if ".." in names:  # a group outside of what the process sees
            names = []
        for depth in range(len(names) + 1):
            inner = Path(*names[:depth])
            if controllers == "":
                least = min(least, _quota_2(mount / inner))
            elif "cpu" in controllers.split(","):
                least = min(least, _quota_1(mount / "cpu" / inner), _quota_1(mount / controllers / inner))
    return least


def _quota_2(group: Path) -> float:
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _quota_1(group: Path) -> float:
    return _ratio(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float:
    """Return quota / period, microseconds both; infinity where there is no limit ("max", -1) or no sense."""
    try:
        cores = int(quota) / int(period)
    except (ValueError, ArithmeticError):
        return math.inf
    return cores if cores > 0 else math.inf


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):  # none, not ours to read, not text
        return ""


# ------------------------------------------------------------------ the threads


class _Pool:
    """Threads that wait for work, started when they are asked for; they never end, and hold nothing up when Python does."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.lock = RLock()  # a signal's handler or a finaliser may fit something while this thread holds it
        self.asked = 0  # the threads of all callers at work now, added up
        self.started = 0

    def enter(self, n_threads: int) -> bool:
        """Have threads for one caller more, up to the number of cores or what it asks for alone; False if none can be had."""
        with self.lock:
            self.asked += n_threads
            most = self.started if self.started >= self.asked else min(self.asked, max(n_threads, _cores()))
            while self.started < most:
                try:
                    Thread(target=_serve, args=(self.queue,), name=f"emfuse_{self.started}", daemon=True).start()
                except RuntimeError:  # the system gives no more of them, or Python is about to end: fewer do as well
                    break
                self.started += 1
            if self.started == 0:
                self.asked -= n_threads
            return self.started > 0

    def leave(self, n_threads: int) -> None:
        """Take back what `enter` was asked for."""
        with self.lock:
            self.asked -= n_threads


def _serve(queue: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        queue.get()()


class _Turns(Generic[Item, Result]):
    """One caller's items: at most `n_threads` are under way at once, however many threads the pool has."""

    def __init__(self, work: Callable[[Item], Result], n_threads: int, queue: SimpleQueue[Callable[[], None]]):
        self.work, self.free, self.queue = work, n_threads, queue
        self.items: deque[tuple[Future[Result], Item]] = deque()
        self.lock = Lock()

    def add(self, item: Item) -> Future[Result]:
        """Have `work(item)` done when its turn comes."""
        future: Future[Result] = Future()
        with self.lock:
            self.items.append((future, item))
            if self.free == 0:
                return future
            self.free -= 1
        self.queue.put(self.take)
        return future

    def take(self) -> None:
        """Do the next item, in a thread of the pool, and go to the back of its queue, so that every caller has turns."""
        with self.lock:
            if not self.items:
                self.free += 1
                return
            future, item = self.items.popleft()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(self.work(item))
            except BaseException as error:
                future.set_exception(error)
        del future, item  # else an error's traceback would keep them, and they the error
        self.queue.put(self.take)


_pool = _Pool()


def in_order(work: Callable[[Item], Result], items: Sequence[Item], n_threads: int) -> Generator[Result]:
    """Yield `work(item)` for each item, in order; no more are under way or waiting than two a thread.

    One thread, or one item, is done by the caller itself. Close the generator (`contextlib.closing`): then nothing of it goes
    on afterwards, whether it came to its end or not.
    """
    n_threads = min(n_threads, len(items))
    pool = _pool
    # a Python that is ending has stopped all threads but this one
    if n_threads <= 1 or sys.is_finalizing() or not pool.enter(n_threads):
        yield from map(work, items)
        return
    turns = _Turns(work, n_threads, pool.queue)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(waiting) == 2 * n_threads:
                yield waiting.popleft().result()
            waiting.append(turns.add(item))
        while waiting:
            yield waiting.popleft().result()
    finally:  # an error or Ctrl-C: nothing of this goes on behind the caller's back
        pool.leave(n_threads)
        for future in waiting:
            future.cancel()
        for future in waiting:
            if not future.cancelled():
                future.exception()


def _forget() -> None:
    """Start again in a forked child: the parent's threads are not in it, and another thread may have held a lock."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
