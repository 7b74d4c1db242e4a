"""Who is measured: one contract, one function a library.

    name           as it stands in the table
    structures     the covariance structures that it can fit
    available()    its version, a string; raises ImportError where it is not there, and is then skipped with a line saying so
    run(problem, iterations, *, n_threads=1) -> Run
    beyond(case)   about how many bytes it takes beyond the rows, so that `scaling.py` knows what fits

`run` fits from `problem.start` with exactly that many iterations (M steps), with nothing added to the covariances and no rule
that stops sooner. The clock covers the call that a user would make, from arrays to the fitted model.
"""

import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from time import perf_counter
from types import ModuleType
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

import emfuse
from bench.cases import Case


class Run(NamedTuple):
    """A fit: wall-clock seconds, means (K, D) and, called outside the clock, the library's own log-likelihood, nats a row."""

    seconds: float
    means: np.ndarray
    log_likelihood: Callable[[], float]


class Peer(NamedTuple):
    name: str
    structures: tuple[str, ...]
    available: Callable[[], str]
    run: Callable[..., Run]
    beyond: Callable[[Case], float] = lambda case: 0.0  # a few MB, whatever the rows


def scikit_learn_version():
    import sklearn.mixture

    return sklearn.__version__


def run_scikit_learn(problem, iterations, *, n_threads=1):
    """One thread comes from `threadpoolctl`, which every program here holds around everything."""
    from sklearn.mixture import GaussianMixture

    with threadpool_limits(n_threads) if n_threads > 1 else nullcontext():
        return fit_estimator(GaussianMixture, problem, iterations)


def scikit_learn_beyond(case):
    """Five arrays of rows x components and three of rows x features, float64."""
    return 8.0 * case.rows * (5 * case.K + 3 * case.D)


def run_emfuse_estimator(problem, iterations):
    return fit_estimator(emfuse.GaussianMixture, problem, iterations, n_threads=1)


def fit_estimator(estimator, problem, iterations, **own):
    from sklearn.exceptions import ConvergenceWarning

    X, start = problem.X, problem.start
    # In the rows' own type: a float64 start would silently turn all of the work on float32 rows into float64.
    weights, means, precisions = (array.astype(X.dtype) for array in (start.weights, start.means, problem.precisions))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        began = perf_counter()
        model = estimator(
            problem.case.K,
            covariance_type=problem.case.structure,
            tol=0.0,  # it stops where the change is less than this: never
            reg_covar=0.0,
            max_iter=iterations,
            weights_init=weights,
            means_init=means,
            precisions_init=precisions,
            **own,
        ).fit(X)
        seconds = perf_counter() - began
    return Run(seconds, model.means_, lambda: float(model.score(X)))


def emfuse_version():
    return emfuse.__version__


def run_emfuse(problem, iterations, *, n_threads=1, build=None):
    X, start = problem.X, problem.start
    with emfuse.kernels.use(build or emfuse.kernels.active()):
        began = perf_counter()
        parameters = emfuse.Parameters(start.weights, start.means, start.covariances, problem.case.structure)
        fit = emfuse.em(X, parameters, stop=iterations, n_threads=n_threads)
        seconds = perf_counter() - began
    return Run(seconds, fit.parameters.means, lambda: fit.log_likelihood / len(X))


def run_emfuse_fit(problem, iterations):
    X, start, case = problem.X, problem.start, problem.case
    began = perf_counter()
    parameters = emfuse.Parameters(start.weights, start.means, start.covariances, case.structure)
    fit = emfuse.fit(X, case.K, structure=case.structure, init=parameters, stop=iterations, n_threads=1)
    seconds = perf_counter() - began
    return Run(seconds, fit.parameters.means, lambda: fit.log_likelihood / len(X))


def onedal_version():
    # Only the core is wanted: the copies of scikit-learn's classes that it brings along fail beside a newer scikit-learn.
    sys.modules.setdefault("daal4py.sklearn", ModuleType("daal4py.sklearn"))
    import daal4py  # noqa: F401

    return version("daal4py")


def run_onedal(problem, iterations, *, n_threads=1):
    import daal4py

    daal4py.daalinit(n_threads)
    began = perf_counter()
    result = onedal(problem, iterations)
    seconds = perf_counter() - began
    # Its goal function is the log-likelihood before the last M step, so one more iteration tells what these parameters score.
    return Run(seconds, result.means, lambda: onedal(problem, iterations + 1).goalFunction.item() / len(problem.X))


def onedal(problem, iterations):
    from daal4py import em_gmm

    X, start, structure = problem.X, problem.start, problem.case.structure
    algorithm = em_gmm(
        fptype="float" if X.dtype == np.float32 else "double",
        nComponents=problem.case.K,
        maxIterations=iterations,
        accuracyThreshold=0.0,
        regularizationFactor=0.0,
        covarianceStorage={"full": "full", "diag": "diagonal"}[structure],
    )
    covariances = list(start.covariances if structure == "full" else start.covariances[:, None])
    return algorithm.compute(X, start.weights[None], start.means, covariances)


ALL = ("full", "tied", "diag", "spherical")
EMFUSE = Peer("emfuse", ALL, emfuse_version, run_emfuse)
OTHERS = (
    Peer("scikit-learn", ALL, scikit_learn_version, run_scikit_learn, scikit_learn_beyond),
    Peer("oneDAL", ("full", "diag"), onedal_version, run_onedal),
)


def find_peers():
    """Return (peer, version) for those that are here, emfuse last, and a line for each that is not."""
    found, skipped = [], []
    for peer in OTHERS:
        try:
            found.append((peer, peer.available()))
        except ImportError as error:
            skipped.append(f"{peer.name} is skipped: {error}")
    return [*found, (EMFUSE, EMFUSE.available())], skipped
