"""Small data: what a call costs beside its work, on Old Faithful's 272 eruptions with two components, from a given start.

    python -m bench.small
    python -m bench.small --quick      # some seconds, and no figure to quote

All in one process, A B A B, checked before the clock as in the bench. "besides" is what a call costs that does not grow with its
iterations: checks, the last E step, and for an estimator its attributes. An iteration is a five-hundredth of 501 less 1; a call
with 6 is one with 1, the median of twenty in a row, and five such.
"""

import argparse
from statistics import median

from threadpoolctl import threadpool_limits

from bench import machine
from bench.cases import BY_NAME, SMALL_D2, problem
from bench.clock import LEAST_SECONDS, LEAST_SECONDS_QUICK, LONG, SHORT, Record, Side, check, take_turns, times_as_fast
from bench.peers import OTHERS, run_emfuse, run_emfuse_estimator, run_emfuse_fit

THEIRS = OTHERS[0]
RUNS = {
    THEIRS.name: THEIRS.run,
    "emfuse.em": run_emfuse,
    "emfuse.fit": run_emfuse_fit,
    "emfuse.GaussianMixture": run_emfuse_estimator,
}


MANY = 500
IN_A_ROW = 20


class Many(Side):
    """A side whose iteration is timed by MANY of them: of few it is lost in what a call costs, which varies by as much.

    And its call by some in a row: one that follows MANY iterations of something else finds colder caches than users' do.
    """

    def sample(self):
        short = median(self.run(self.problem, SHORT).seconds for _ in range(IN_A_ROW))
        each = (self.run(self.problem, SHORT + MANY).seconds - short) / MANY
        return short, short + (LONG - SHORT) * each


def main(arguments=None):
    options = parse(arguments)
    described = machine.describe([(THEIRS, THEIRS.available())])
    records, failures = [], []
    print(f"microseconds, one thread; in brackets, how many times as fast as {THEIRS.name}; median of {options.repeats} turns")
    print(f"{'':14} {'':24} {'one iteration':>20} {'besides':>10} {f'a call with {LONG}':>20}")
    with threadpool_limits(1):
        for case in (BY_NAME["small"], SMALL_D2):
            given = problem(case)
            sides = [Many(name, given, run) for name, run in RUNS.items()]
            checked, why = check(sides)
            if why:
                failures.append(f"{case.name}: not timed: {why}")
                print(failures[-1])
                continue
            least = LEAST_SECONDS_QUICK if options.quick else LEAST_SECONDS
            record = Record(case, sides, checked, take_turns(sides, options.repeats, least))
            records.append(record)
            print("\n".join(lines(record)), flush=True)
    print(f"\n{machine.sentence(described)}")
    if options.json:
        content = {"machine": described, "iterations": [SHORT, LONG], "quick": options.quick, "failures": failures}
        machine.write(options.json, content | {"cases": [record.as_dict() for record in records]})
    return 1 if failures else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.small", description="What a call costs beside its work.")
    parser.add_argument("--quick", action="store_true", help="some seconds, and no figure to quote")
    machine.add_json(parser, "small")
    options = parser.parse_args(arguments)
    options.repeats = 2 if options.quick else 9
    return options


def lines(record):
    case = record.case
    for name in RUNS:
        one, call = 1e-3 * median(record.ns(name)) * case.rows * case.K, 1e6 * record.call(name)
        faster = f"({record.times_as_fast(name, THEIRS.name):.3g})"
        faster_call = f"({times_as_fast(record.calls(name), record.calls(THEIRS.name)):.3g})"
        shape = f"{case.rows} x {case.D}, K = {case.K}"
        yield f"{shape:14} {name:24} {one:10.1f} {faster:>9} {call - LONG * one:10.1f} {call:10.1f} {faster_call:>9}"


if __name__ == "__main__":
    raise SystemExit(main())
