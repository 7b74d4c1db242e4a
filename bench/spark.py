"""Beside Spark: one EM iteration of its GaussianMixture, of emfuse through Dask, and of emfuse in memory, on the same two cores.

    pip install pyspark pandas pyarrow dask-ml     # and Java 17; whoever is not there is skipped, with a line saying so
    python -m bench.spark                          # three minutes, nearly all of it Spark's
    python -m bench.spark --quick                  # a tenth of the rows: does it work? No figure to quote

Spark takes no start. So emfuse starts from where Spark is after 2 iterations and does the 4 that Spark does next; both then
stand where 6 iterations from Spark's start lead, and the log-likelihood of each side's parameters is printed, by one and the
same program: emfuse in memory. What Spark itself reports stands beside it: that is before its last M step.

Spark adds 2^-52 to each component's density. In 32 features that is far more than the density, so every row belongs to all
components alike, and they become one. That is noticed, and said, and emfuse then starts from the case's own start.

One iteration is (time of 6 - time of 2) / 4 for Spark, whose rows are cached and whose virtual machine is warm, and likewise
(time of 5 - time of 1) / 4 for emfuse, so that what a call costs besides cancels out. Dask has two worker processes of one
thread, Spark is `local[2]`, and in memory there are two threads.

dask-ml has no Gaussian mixture. Its nearest thing is k-means: distances and no densities, no exp, no scatters. One iteration of
that is timed, from the same means.
"""

import argparse
import warnings
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from time import perf_counter

import numpy as np

import emfuse
from bench import machine
from bench.cases import Case, problem

CORES = 2
BEGIN, END = 2, 6  # iterations of Spark
CASES = (
    Case("1d_k2", rows=1_000_000, D=1, K=2, structure="full", why="the commonest mixture"),
    Case("d10_k10", rows=1_000_000, D=10, K=10, structure="full", why="the middle of the road"),
    Case("d32_k16", rows=200_000, D=32, K=16, structure="full", why="matrix work begins to rule"),
)
ONE = 1e-3  # data units: components whose means all lie within that are one
WITHIN = 1e-10  # nats a row, between emfuse through Dask and in memory: the same sums in another order


def main(arguments=None):
    options = parse(arguments)
    content = {"machine": machine.describe(), "quick": options.quick, "cases": {}}
    with ExitStack() as stack:
        sides = {name: found for name, find in FINDERS.items() if (found := here(name, find, stack)) is not None}
        for case in CASES:
            case = replace(case, rows=case.rows // 10) if options.quick else case
            content["cases"][case.name] = measured(case, sides)
    print(machine.sentence(content["machine"]))
    if options.json:
        machine.write(options.json, content)
    apart = [case["apart"] for case in content["cases"].values() if "apart" in case]
    return 0 if all(each <= WITHIN for each in apart) else 1


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench.spark", description="Beside Spark and dask-ml.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, and no figure to quote")
    machine.add_json(parser, "spark")
    return parser.parse_args(arguments)


def here(name, find, stack):
    """A side, or None and a line that says why it is not here."""
    try:
        return find(stack)
    except (ImportError, RuntimeError, OSError) as error:  # no package, or no Java
        print(f"{name} is skipped: {' '.join(str(error).split())[:200]} (what to install: the first lines of this program)")
        return None


def measured(case, sides):
    X, start = problem(case).X, problem(case).start
    start = emfuse.Parameters(start.weights, start.means, start.covariances, case.structure)
    print(f"\n{case.name}: {case.rows:,} rows, D = {case.D}, K = {case.K}; ns for each row, component and iteration", flush=True)
    made = {}
    if "Spark" in sides:
        seconds, begin, end, said = sides["Spark"](X, case)
        if np.ptp(begin.means, axis=0).max() > ONE:
            start = begin
        else:
            print("  Spark's components have become one; emfuse begins elsewhere, and log L is of two different fits")
        made["Spark"] = {"ns": ns(seconds, case), "log_likelihood": mean_log_density(X, end), "said": said}
    for name in ("emfuse through Dask", "emfuse in memory"):
        if name in sides:
            seconds, fit = sides[name](X, start)
            made[name] = {"ns": ns(seconds, case), "log_likelihood": mean_log_density(X, fit.parameters)}
    if "dask-ml's k-means" in sides:
        made["dask-ml's k-means"] = {"ns": ns(sides["dask-ml's k-means"](X, start.means), case)}
    report(made)
    through, within = (made.get(name) for name in ("emfuse through Dask", "emfuse in memory"))
    apart = {"apart": abs(through["log_likelihood"] - within["log_likelihood"])} if through and within else {}
    return {"rows": case.rows, "D": case.D, "K": case.K, "sides": made} | apart


def report(made):
    for name, side in made.items():
        line = f"  {name:20} {side['ns']:9.2f}"
        if name != "Spark" and "Spark" in made:
            line += f"   {made['Spark']['ns'] / side['ns']:7.1f} x Spark"
        if "log_likelihood" in side:
            line += f"   log L of a row {side['log_likelihood']:.9f}"
        if "said" in side:
            line += f"   (by its own account {side['said']:.9f}, an M step earlier)"
        print(line, flush=True)


def ns(seconds, case):
    """Of one iteration, for each row and component."""
    return 1e9 * seconds / ((END - BEGIN) * case.rows * case.K)


def mean_log_density(X, parameters):
    return float(emfuse.InMemory(X).sweep(parameters.factors).log_likelihood / len(X))


def clocked(call):
    began = perf_counter()
    result = call()
    return perf_counter() - began, result


# -------------------------------------------------------------- the sides: each gives seconds of END - BEGIN iterations


def find_spark(stack):
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    builder = SparkSession.builder.master(f"local[{CORES}]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise RuntimeError(f"{error}; it needs Java 17 or later") from error
    stack.callback(session.stop)
    session.sparkContext.setLogLevel("ERROR")
    return partial(spark, session)


def spark(session, X, case):
    """Also parameters after BEGIN and after END iterations, and the log-likelihood of a row that Spark reports."""
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.feature import VectorAssembler

    table = session.createDataFrame(X.reshape(len(X), -1), [f"x{d}" for d in range(case.D)])
    rows = VectorAssembler(inputCols=table.columns, outputCol="features").transform(table).select("features")
    rows = rows.repartition(CORES).cache()
    rows.count()

    def fit(iterations):
        return GaussianMixture(k=case.K, maxIter=iterations, tol=0.0, seed=1).fit(rows)

    fit(BEGIN)  # the first is slow: the virtual machine compiles
    (short, begin), (long, end) = clocked(partial(fit, BEGIN)), clocked(partial(fit, END))
    said = end.summary.logLikelihood / len(X)
    parameters = [spark_parameters(model) for model in (begin, end)]
    rows.unpersist()
    return long - short, *parameters, said


def spark_parameters(model):
    components = model.gaussiansDF.collect()
    means = np.array([each["mean"].toArray() for each in components])
    covariances = np.array([each["cov"].toArray() for each in components])
    weights = np.array(model.weights)
    return emfuse.Parameters(weights / weights.sum(), means, (covariances + covariances.transpose(0, 2, 1)) / 2, "full")


@cache
def dask_client(stack):
    from distributed import Client, LocalCluster

    cluster = stack.enter_context(LocalCluster(n_workers=CORES, threads_per_worker=1, dashboard_address=":0"))
    return stack.enter_context(Client(cluster, set_as_default=False))


def find_through_dask(stack):
    client = dask_client(stack)
    return lambda X, start: em(emfuse.DaskEngine(lazily(X), client), start)


def find_in_memory(stack):
    return lambda X, start: em(emfuse.InMemory(X, n_threads=CORES), start)


def lazily(X):
    import dask.array

    return dask.array.from_array(X, chunks=(-(-len(X) // CORES), X.shape[1]))


def em(engine, start):
    """Also the fit, END - BEGIN iterations from the start."""
    emfuse.em(engine, start, stop=1)
    pairs = []
    for _ in range(5):
        short, _ = clocked(partial(emfuse.em, engine, start, stop=1))
        long, _ = clocked(partial(emfuse.em, engine, start, stop=1 + END - BEGIN))
        pairs.append(long - short)
    return float(np.median(pairs)), emfuse.em(engine, start, stop=END - BEGIN)


def find_dask_ml(stack):
    from dask_ml.cluster import KMeans

    client = dask_client(stack)

    def k_means(X, means):
        rows = client.persist(lazily(X))

        def fit(iterations):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return KMeans(len(means), init=means.copy(), max_iter=iterations, tol=0.0).fit(rows)

        with client.as_current():
            fit(BEGIN)
            return clocked(partial(fit, END))[0] - clocked(partial(fit, BEGIN))[0]

    return k_means


FINDERS = {
    "Spark": find_spark,
    "emfuse through Dask": find_through_dask,
    "emfuse in memory": find_in_memory,
    "dask-ml's k-means": find_dask_ml,
}

if __name__ == "__main__":
    raise SystemExit(main())
