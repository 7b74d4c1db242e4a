"""What every test may ask for: each build, each structure, a mixture, a reference case, and how much rounding is allowed."""

import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # of missing builds: the suite runs in pure NumPy too
    import emfuse
    from emfuse.structures import ALL_STRUCTURES, STRUCTURES

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in a shell's background, whose children would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)

EPS = np.finfo(np.float64).eps
REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(params=emfuse.kernels.runnable())
def build(request):
    """Name of a build that runs here, which is in use while the test runs: all of them in turn."""
    with emfuse.kernels.use(request.param):
        yield request.param


@pytest.fixture(params=STRUCTURES)
def structure(request):
    """Name of a covariance structure: all of them in turn."""
    return request.param


@pytest.fixture
def mixture():
    """Function that makes a random mixture whose components are some `apart` standard deviations from each other."""

    def made(structure="full", K=3, D=2, seed=0, apart=3.0):
        random = np.random.default_rng([seed, K, D])
        kind = ALL_STRUCTURES[structure]
        L = random.standard_normal((K, D, D)) / np.sqrt(D) + 2.0 * np.eye(D)
        mass = random.uniform(1.0, 3.0, K)
        scatter = mass[:, None, None] * (L @ L.transpose(0, 2, 1))
        if kind.form == "diag":
            scatter = np.diagonal(scatter, axis1=1, axis2=2)
        means = apart * 2.0 * random.standard_normal((K, D))
        return emfuse.Parameters(mass / mass.sum(), means, kind.estimate(scatter, mass), structure)

    return made


def rounding_of_log_densities(factors, X):
    """Bound on the rounding of l_nk (equation 3), (N, K) in nats, in whatever order it is computed.

    Each y rounds D + 2 times by half an eps of its terms' sizes, and is squared; sums and the constant round again: altogether
    D + 4 eps.
    """
    d = np.asarray(X, dtype=np.float64)[:, None, :] - factors.means
    if factors.P.ndim == 3:
        P = np.broadcast_to(factors.P, (d.shape[1], *factors.P.shape[1:]))
        y, size = np.einsum("kab,nkb->nka", P, d), np.einsum("kab,nkb->nka", np.abs(P), np.abs(d))
    else:
        y, size = d * factors.P, np.abs(d * factors.P)
    return (X.shape[1] + 4) * EPS * ((np.abs(y) * size).sum(axis=2) + np.abs(factors.log_constant))


@pytest.fixture
def density_rounding():
    """Function that bounds the rounding of each row's log densities."""
    return rounding_of_log_densities


@pytest.fixture
def log_likelihood_rounding():
    """Function that bounds the rounding of a total log-likelihood, nats: that of each row's, and that of adding N of them."""

    def bound(p, X):
        l_n = np.abs(emfuse.engines.evaluate(X, p.factors, log_density=True).log_density)
        return float((rounding_of_log_densities(p.factors, X).max(axis=1) + (len(X) + 4) * EPS * l_n).sum())

    return bound


@pytest.fixture
def run():
    """Function that runs lines of Python in a process of its own and returns what it printed; its errors are shown."""

    def run(code, *, env=None, timeout=120):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    return run


@dataclass
class Case:
    """One reference case: see tests/reference/README.md for what its fields mean."""

    name: str
    data: np.ndarray
    start: dict
    options: dict
    expected: dict


@pytest.fixture
def case(request):
    """The reference case of the name "kind/name" that the test is parametrised with."""
    content = json.loads((REFERENCE / f"{request.param}.json").read_text(encoding="utf-8"))
    path = REFERENCE / "data" / f"{content['dataset']}.csv"
    columns = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    data = table[:, [columns.index(name) for name in content["columns"]]]
    return Case(request.param, data, content["start"], content.get("options", {}), content["expected"])


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Function that runs `emfuse` in this process, in a folder of the test's own; returns (exit code, stdout, stderr)."""
    from emfuse.cli import main

    monkeypatch.chdir(tmp_path)

    def made(*argv):
        try:
            code = main([str(arg) for arg in argv])
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return made
