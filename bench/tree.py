"""A sweep on a cluster that nobody here has, simulated: a billion rows, a hundred workers, and messages that come late.

    python -m bench.tree                                  # half a minute; the same figures every time
    python -m bench.tree --constants cluster.json         # with what `python -m bench.cluster --json cluster.json` measured

What is simulated, message by message:

* The client sends the tasks to the scheduler, which is one server, and spends a third of a task's cost when it is told of it, a
  third when it hands it out, and a third when it hears that it is done.
* A worker fetches the parameters from the first that had them, once, before its first task; each fetch takes both ends' wires.
* A worker runs as many tasks at once as it has threads, in the order in which they came.
* A sum waits for all of its terms, runs where the first of them is, and fetches the others. The last one goes home by way of the
  scheduler.

What is injected: a worker is slower than the fastest by up to 5%; the time of a partition varies by 2%; a message comes late by
0.2 ms in the mean, and one of a hundred by 50 ms more. The seeds are fixed; a figure is the median of five.

The first lines of the output are of two workers, as `bench.cluster` measures them, with nothing injected.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass, fields, replace
from heapq import heappop, heappush
from itertools import count
from pathlib import Path

import numpy as np

from emfuse.dask_engine import FAN_IN

SEEDS = range(5)
SLOWER, VARIES = 0.05, 0.02
JITTER, LATE, HOW_MANY_LATE = 0.2e-3, 50e-3, 0.01  # seconds, seconds, of all messages
MESSAGES, TREE_MESSAGES = 8, 16  # one after the other, in a sweep without and with a tree, of two workers
WIDTHS = 2, 4, 8, 16, 32, 64, 1000
TASK_BYTES = 1000  # of a task's description


@dataclass(frozen=True)
class Constants:
    """Seconds, and bytes; of K = 64, D = 32, full. From `python -m bench.cluster`, but for the network, which is assumed."""

    row: float = 50.1e-9 * 64  # a row in one thread
    partition: float = 0.37e-3  # to add a partition's statistics
    adding: float = 0.09e-3  # to add one thread's sums to another's
    task: float = 0.89e-3  # the scheduler's, for one task
    hop: float = 1.5e-3  # a message, from one Python to the next
    worker_byte: float = 1.0e-9  # from worker to worker, without a network
    client_byte: float = 3.4e-9  # from a worker through the scheduler to the client
    parameters: int = 541_459
    sums: int = 1_759_198
    network: float = 1.25e9  # bytes a second: 10 Gbit/s

    @classmethod
    def of(cls, measured):
        """From what `bench.cluster` wrote."""
        thread, task, overhead = measured["thread"], measured["task"]["shared_cpu_seconds"], measured["overhead"]
        both = overhead["base_seconds"] - 2 * task + overhead["tree_seconds"] - 4 * task
        size = next(each for each in measured["bytes"] if (each["D"], each["K"], each["structure"]) == (32, 64, "full"))
        return cls(
            row=1e-9 * thread["ns"] * 64,
            partition=thread["partition_seconds"],
            adding=thread["adding_seconds"],
            task=task,
            hop=both / (MESSAGES + TREE_MESSAGES),
            worker_byte=measured["byte"]["worker_byte_seconds"],
            client_byte=measured["byte"]["client_byte_seconds"],
            parameters=size["parameters"],
            sums=size["sums"],
        )


@dataclass(frozen=True)
class Plan:
    """How the work is laid out. `shared`: one task for each thread, else for each partition; `light`: without a tree."""

    rows: int = 1_000_000_000
    workers: int = 100
    threads: int = 8
    partitions: int = 10_000
    fan_in: int = FAN_IN
    shared: bool = True
    light: bool = False


@dataclass
class Outcome:
    """Seconds of one sweep, from the last thread's end to the answer, and of the scheduler's work; tasks, and bytes sent."""

    seconds: float
    after: float
    scheduler: float
    tasks: int
    sent: int


class Clock:
    """What happens next."""

    def __init__(self):
        self.now, self._ahead, self._number = 0.0, [], count()

    def after(self, seconds, call):
        heappush(self._ahead, (self.now + seconds, next(self._number), call))

    def run(self):
        while self._ahead:
            self.now, _, call = heappop(self._ahead)
            call()


class Simulation:
    """One sweep."""

    def __init__(self, plan, constants, seed, late=1.0):
        self.plan, self.constants, self.late = plan, constants, late
        self.random = np.random.default_rng(seed)
        self.clock = Clock()
        self.free = defaultdict(float)  # when the scheduler, and each worker's wire, has done all that it was asked
        self.busy, self.sent, self.last, self.done = 0.0, 0, 0.0, None
        self.tasks = list(self.lay_out())
        self.has = {0} if not plan.light else set(range(plan.workers))  # the workers with the parameters
        self.waiting, self.queues, self.idle = defaultdict(list), defaultdict(list), [plan.threads] * plan.workers

    def lay_out(self):
        """(worker, seconds) of each task."""
        plan, constants = self.plan, self.constants
        slower = 1.0 + SLOWER * self.random.random(plan.workers)
        varies = 1.0 + VARIES * self.random.standard_normal(plan.partitions)
        each = (plan.rows / plan.partitions * constants.row + constants.partition) * varies
        for worker in range(plan.workers):
            own = each[worker :: plan.workers] * slower[worker]
            if not plan.shared:
                yield from ((worker, seconds) for seconds in own)
                continue
            for thread in range(min(plan.threads, len(own))):
                yield worker, own[thread :: plan.threads].sum()

    # ---- what it is made of

    def message(self, call):
        late = self.random.exponential(JITTER) + LATE * (self.random.random() < HOW_MANY_LATE)
        self.clock.after(self.constants.hop + self.late * late, call)

    def schedule(self, call, tasks=1):
        """Have the scheduler do a third of its work for so many tasks, when it has done all else."""
        seconds = tasks * self.constants.task / 3.0
        self.busy += seconds
        self.free["scheduler"] = max(self.clock.now, self.free["scheduler"]) + seconds
        self.clock.after(self.free["scheduler"] - self.clock.now, call)

    def fetch(self, to, source, size, call):
        """Ask for bytes, which take the wires of both."""
        if to == source:
            call()
            return

        def send():
            begin = max(self.clock.now, self.free[to], self.free[source])
            end = begin + size * (self.constants.worker_byte + 1.0 / self.constants.network)
            self.free[to] = self.free[source] = end
            self.sent += size
            self.clock.after(end - self.clock.now, lambda: self.message(call))

        self.message(send)

    # ---- what happens

    def run(self):
        tasks, width = len(self.tasks), len(self.tasks)
        if not self.plan.light:
            tasks += 1
            while width > 1:
                width = -(-width // self.plan.fan_in)
                tasks += width
        described = TASK_BYTES * tasks + 8 * self.plan.partitions  # numbers of partitions
        described += self.constants.parameters * (tasks if self.plan.light else 1)
        self.sent += described
        seconds = described * self.constants.client_byte
        self.clock.after(seconds, lambda: self.message(lambda: self.schedule(self.begin, tasks)))
        self.clock.run()
        return Outcome(self.done, self.done - self.last, self.busy, tasks, self.sent)

    def begin(self):
        if self.plan.light:
            self.hand_out()
        else:
            self.schedule(lambda: self.message(lambda: self.message(lambda: self.schedule(self.hand_out))))

    def hand_out(self):
        self.left = len(self.tasks)
        self.arrived = defaultdict(list)
        for number, (worker, seconds) in enumerate(self.tasks):
            self.schedule(
                lambda worker=worker, number=number, seconds=seconds: self.message(lambda: self.arrive(worker, number, seconds))
            )

    def arrive(self, worker, number, seconds):
        if worker in self.has:
            self.enqueue(worker, number, seconds)
            return
        self.waiting[worker].append((number, seconds))
        if len(self.waiting[worker]) == 1:
            self.fetch(worker, 0, self.constants.parameters, lambda: self.ready(worker))

    def ready(self, worker):
        self.has.add(worker)
        for number, seconds in self.waiting.pop(worker):
            self.enqueue(worker, number, seconds)

    def enqueue(self, worker, number, seconds):
        self.queues[worker].append((number, seconds))
        self.start(worker)

    def start(self, worker):
        if self.idle[worker] and self.queues[worker]:
            number, seconds = self.queues[worker].pop(0)
            self.idle[worker] -= 1
            self.clock.after(seconds, lambda: self.swept(worker, number))

    def swept(self, worker, number):
        self.last = self.clock.now
        self.idle[worker] += 1
        self.start(worker)
        self.message(lambda: self.schedule(lambda: self.heard(worker, number, 0, len(self.tasks))))

    def heard(self, worker, number, level, width):
        """Of a term of a sum: when it is the last, begin the sum."""
        if self.plan.light:
            self.left -= 1
            if not self.left:
                self.home(len(self.tasks))
            return
        if width == 1:
            self.home(1)
            return
        group = number // self.plan.fan_in
        terms = self.arrived[level, group]
        terms.append(worker)
        if len(terms) == min(self.plan.fan_in, width - group * self.plan.fan_in):
            width = -(-width // self.plan.fan_in)
            self.schedule(lambda: self.message(lambda: self.gather(terms, group, level + 1, width)))

    def gather(self, terms, group, level, width):
        missing, here = len(terms), terms[0]

        def got():
            nonlocal missing
            missing -= 1
            if not missing:
                self.clock.after(len(terms) * self.constants.adding, added)

        def added():
            self.message(lambda: self.schedule(lambda: self.heard(here, group, level, width)))

        for source in terms:
            self.fetch(here, source, self.constants.sums, got)

    def home(self, results):
        """Tell the client, which asks for the results: five messages more."""
        size = results * self.constants.sums
        self.sent += 2 * size

        def steps(left):
            if left:
                self.message(lambda: steps(left - 1))
            else:
                self.clock.after(size * self.constants.client_byte, self.finish)

        steps(5)

    def finish(self):
        self.done = self.clock.now


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.tree", description="A sweep on a cluster that nobody here has.")
    parser.add_argument("--constants", type=Path, metavar="FILE", help="what `python -m bench.cluster --json FILE` wrote")
    options = parser.parse_args(arguments)
    constants = Constants.of(json.loads(options.constants.read_text())) if options.constants else Constants()
    check(constants)
    layouts(constants)
    fans(constants)


def check(constants):
    tiny = replace(constants, row=0.0, partition=0.0, parameters=369, sums=687, network=1e12)
    print("two workers, nothing to sweep: milliseconds of a sweep, which `python -m bench.cluster` measures")
    for light in (True, False):
        plan = Plan(rows=0, workers=2, threads=1, partitions=10, light=light)
        made = Simulation(plan, tiny, 0, late=0.0).run()
        print(f"  {'as it is for so few' if light else 'with a tree of sums':20} {1e3 * made.seconds:6.1f}")


def median_of(plan, constants):
    made = [Simulation(plan, constants, seed).run() for seed in SEEDS]
    return Outcome(*(np.median([getattr(each, field.name) for each in made]) for field in fields(Outcome)))


def layouts(constants):
    plan = Plan()
    ideal = plan.rows * constants.row / (plan.workers * plan.threads)
    print(f"\n{plan.rows:,} rows, {plan.workers} workers of {plan.threads} threads; the tree is {plan.fan_in} wide")
    print("  partitions  a task for each     tasks  seconds  in sweeps  scheduler's  GB sent")
    for partitions in (1_000, 10_000, 100_000):
        for shared in (False, True):
            made = median_of(replace(plan, partitions=partitions, shared=shared), constants)
            print(
                f"  {partitions:10,}  {'thread' if shared else 'partition':15} {int(made.tasks):9,} {made.seconds:8.2f} "
                f"{ideal / made.seconds:10.0%} {made.scheduler:12.2f} {1e-9 * made.sent:8.2f}",
                flush=True,
            )


def fans(constants):
    print("\n10,000 partitions, a task for each thread: seconds, and milliseconds from the last thread's end, by width")
    print("                " + "".join(f"{width:8}" for width in WIDTHS))
    for workers in (100, 1000):
        made = [median_of(Plan(fan_in=width, workers=workers), constants) for width in WIDTHS]
        print(f"  {workers:5} workers " + "".join(f"{each.seconds:8.2f}" for each in made))
        print("                " + "".join(f"{1e3 * each.after:8.0f}" for each in made), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
