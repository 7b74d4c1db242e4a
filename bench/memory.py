"""How much memory a fit takes beyond its data.

    python -m bench.memory [--sklearn] [--rows N] [--D D] [--K K] [--structure S] [--threads T] [--json FILE]

Each fit runs in a fresh process, which fits a few rows first, so that imports are not counted. Then: the peak of the resident
set over the process's life, less what is resident when the data is loaded. The data is made a few thousand rows at a time, so
that its making does not set the peak; what the allocator keeps in reserve makes the figure right within about 2 MB.
"""

import argparse
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import machine
from bench.cases import Case, problem

ITERATIONS = 3
LEAST_ROWS = 1_000


def main():
    options = parse()
    if sys.platform == "win32":
        raise SystemExit("the peak of the resident set is read with the module `resource`, which Windows lacks")
    if options.child:
        print(json.dumps(measure(options.child, options)))
        return
    data = options.rows * options.D * 8 / 1e6
    shape = f"{options.rows:,} rows, D = {options.D}, K = {options.K}, {options.structure}"
    print(f"{shape}, float64: {data:.0f} MB of data; {ITERATIONS} iterations, {options.threads or 'all'} threads")
    records = []
    for name in [name for name in FITS if options.sklearn or not name.startswith("scikit-learn")]:
        records.append(in_fresh_process("bench.memory", *sys.argv[1:], "--child", name))
        print(f"  {name:36} {records[-1]['beyond_data_mb']:9.1f} MB beyond the data", flush=True)
    if options.json:
        machine.write(options.json, {"machine": machine.describe(), "memory": records})


def parse():
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description="Peak memory of a fit beyond its data.")
    parser.add_argument("--sklearn", action="store_true", help="also scikit-learn's GaussianMixture")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--D", type=int, default=4)
    parser.add_argument("--K", type=int, default=8)
    parser.add_argument("--structure", default="full")
    parser.add_argument("--threads", type=int, help="of emfuse; all cores")
    machine.add_json(parser, "memory")
    parser.add_argument("--child", choices=list(FITS), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(name, options):
    case = Case("memory", options.rows, options.D, options.K, options.structure, why="bytes, not seconds")
    warnings.simplefilter("ignore")  # no fit converges in a few iterations
    beyond = beyond_data_mb(partial(FITS[name], n_threads=options.threads), few(case), case)
    return {"fit": name, "rows": case.rows, "D": case.D, "K": case.K, "beyond_data_mb": beyond}


def few(case):
    """The problem with just enough rows to be fitted."""
    return problem(replace(case, rows=max(LEAST_ROWS, 4 * case.K * case.D)))


def beyond_data_mb(work, first, case):
    """MB that `work(problem)` takes at most beyond the rows of the case; `first`, a small problem, is worked on before."""
    work(first)
    given = problem(case)
    loaded = resident()
    work(given)
    return (peak() - loaded) / 1e6


def in_fresh_process(module, *arguments):
    """Return what `python -m module arguments` writes, which is JSON."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=machine.HERE.parent, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def resident():
    """Bytes that this process holds now; where the system does not tell, the most that it ever held."""
    try:
        import resource

        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak()


def peak():
    """Bytes that this process held at most."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def emfuse_em(given, n_threads):
    import emfuse

    start = emfuse.Parameters(given.start.weights, given.start.means, given.start.covariances, given.case.structure)
    emfuse.em(given.X, start, stop=ITERATIONS, n_threads=n_threads)


def emfuse_fit(given, n_threads):
    import emfuse

    emfuse.fit(given.X, given.case.K, structure=given.case.structure, stop=ITERATIONS, n_threads=n_threads)


def emfuse_estimator(given, n_threads):
    from emfuse import GaussianMixture

    fit_estimator(GaussianMixture, given, n_threads=n_threads)


def emfuse_estimator_from_start(given, n_threads):
    from emfuse import GaussianMixture

    fit_estimator(GaussianMixture, given, n_threads=n_threads, **start_of(given))


def scikit_learn(given, n_threads):  # its BLAS takes what threads it finds
    from sklearn.mixture import GaussianMixture

    fit_estimator(GaussianMixture, given)


def scikit_learn_from_start(given, n_threads):
    from sklearn.mixture import GaussianMixture

    fit_estimator(GaussianMixture, given, **start_of(given))


def fit_estimator(estimator, given, **more):
    structure = given.case.structure
    estimator(given.case.K, covariance_type=structure, max_iter=ITERATIONS, tol=0.0, random_state=0, **more).fit(given.X)


def start_of(given):
    return {"weights_init": given.start.weights, "means_init": given.start.means, "precisions_init": given.precisions}


FITS = {
    "emfuse.em from a start": emfuse_em,
    "emfuse.GaussianMixture from a start": emfuse_estimator_from_start,
    "emfuse.fit": emfuse_fit,
    "emfuse.GaussianMixture": emfuse_estimator,
    "scikit-learn from a start": scikit_learn_from_start,
    "scikit-learn": scikit_learn,
}

if __name__ == "__main__":
    main()
