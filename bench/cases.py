"""What is measured: a case is a row of data; its rows and its start are made from a fixed seed, the same every time.

Components overlap: neighbouring means lie about three standard deviations apart (nearer for D < 4), and covariances differ
little. So EM is still moving after the iterations that are timed, and no side gains by leaving out rows that do not matter to a
component: after 6 iterations at most 0.6% of all responsibilities are below 2^-60, in most cases none. Where a component has
few rows for its D^2 numbers, it holds them fast: 9% in d128_k32, 25% in d512; with fewer rows still, more, until EM stops. The
start has its means 0.3 standard deviations from the true ones, variances 1.5 times too large, and equal weights. Rows come in
random order of their components, and are made a few thousand at a time: nothing of size rows x components is ever held.
"""

import csv
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np

SEED = 20_240_601
CHUNK = 8_192


@dataclass(frozen=True)
class Case:
    """rows x D data and K components of one covariance structure; `why` says what the case shows."""

    name: str
    rows: int
    D: int
    K: int
    structure: str
    why: str

    @property
    def form(self):
        return "1-D" if self.D == 1 else self.structure

    def quick(self):
        """The same case with a tenth of the rows, and no more components than leave each rows enough for its covariance."""
        rows = min(self.rows, max(2_000, self.rows // 10))
        return replace(self, rows=rows, K=max(2, min(self.K, rows // (4 * self.D))))


CASES = (
    Case("small", rows=272, D=1, K=2, structure="full", why="Old Faithful's waiting times: what a call costs beside its work"),
    Case("1d_k2", rows=1_000_000, D=1, K=2, structure="full", why="the commonest mixture, and many rows"),
    Case("1d_k8", rows=500_000, D=1, K=8, structure="full", why="one feature, where exp is most of the work"),
    Case("d2_k4", rows=500_000, D=2, K=4, structure="full", why="points in a plane"),
    Case("d4_k8", rows=200_000, D=4, K=8, structure="full", why="a few features, where vectors are short of work"),
    Case("d6_k10", rows=100_000, D=6, K=10, structure="full", why="between a plane and a matrix"),
    Case("d10_k10", rows=100_000, D=10, K=10, structure="full", why="the middle of the road; BLAS panels are tiny here"),
    Case("d16_k16", rows=100_000, D=16, K=16, structure="full", why="where a row is two whole vectors"),
    Case("d32_k16", rows=50_000, D=32, K=16, structure="full", why="matrix work begins to rule"),
    Case("d64_k32", rows=20_000, D=64, K=32, structure="full", why="matrix work alone; where BLAS is at its best"),
    Case("d128_k32", rows=30_000, D=128, K=32, structure="full", why="a component's triangle no longer fits the first cache"),
    Case("d512", rows=20_000, D=512, K=4, structure="full", why="nor the second"),
    Case("k1000", rows=10_000, D=4, K=1000, structure="full", why="many components, few rows each"),
    Case("diag16_k32", rows=100_000, D=16, K=32, structure="diag", why="many components, no matrix work"),
    Case("diag64_k64", rows=50_000, D=64, K=64, structure="diag", why="the same, wide"),
    Case("spherical16_k32", rows=100_000, D=16, K=32, structure="spherical", why="soft k-means"),
    Case("tied32_k16", rows=50_000, D=32, K=16, structure="tied", why="one covariance: whitening once a row would do"),
)
QUICK = tuple(case for case in CASES if case.D < 512)  # with a tenth of its rows, EM stops within 5 iterations at D = 512
SMALL_D2 = Case("small_d2", rows=272, D=2, K=2, structure="full", why="Old Faithful, both measurements")
BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Start:
    """weights (K,), means (K, D) and covariances in the shape that scikit-learn gives the structure; data units."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray


@dataclass(frozen=True)
class Problem:
    """A case with its rows, (rows, D), and its start."""

    case: Case
    X: np.ndarray
    start: Start

    @property
    def precisions(self):
        """The inverse of the start's covariances, in the same shape."""
        flat = self.case.structure in ("diag", "spherical")
        return 1 / self.start.covariances if flat else np.linalg.inv(self.start.covariances)

    def astype(self, dtype):
        """The same problem, with the rows rounded to `dtype`."""
        return replace(self, X=self.X.astype(dtype))


def problem(case):
    if case.name == "small":
        means, covariances = np.array([[50.0], [60.0]]), np.full((2, 1, 1), 100.0)
        return Problem(case, old_faithful("waiting"), Start(np.full(2, 0.5), means, covariances))
    if case.name == "small_d2":
        means, covariances = np.array([[3.0, 60.0], [4.0, 75.0]]), np.array([np.diag([1.0, 100.0])] * 2)
        return Problem(case, old_faithful("eruptions", "waiting"), Start(np.full(2, 0.5), means, covariances))
    random = np.random.default_rng([SEED, case.D, case.K])
    K, D = case.K, case.D
    weights = np.linspace(1.0, 2.0, K) / np.linspace(1.0, 2.0, K).sum()
    means = random.standard_normal((K, D)) / np.sqrt(max(1.0, D / 4))
    roots = square_roots(case, random)
    X = np.empty((case.rows, D))
    for begin in range(0, case.rows, CHUNK):
        chunk = random.standard_normal(out=X[begin : begin + CHUNK])
        labels = random.choice(K, len(chunk), p=weights)
        for k in range(K):
            chunk[labels == k] = chunk[labels == k] @ roots[k].T + means[k]
    moved = means + 0.3 * random.standard_normal((K, D))
    return Problem(case, X, Start(np.full(K, 1 / K), moved, 1.5 * covariances_of(case, roots)))


def square_roots(case, random):
    """Lower triangles L_k with L_k L_k' = covariance k, (K, D, D).

    Their standard deviations lie around 1, by up to 0.3, and features are mildly correlated. Both fade as D grows: else many
    small differences would tell components apart.
    """
    K, D = case.K, case.D
    roots = np.tril(0.3 / D * random.standard_normal((K, D, D)), -1)
    roots += (1.0 + random.uniform(-0.3, 0.3, (K, D, 1)) / np.sqrt(D)) * np.eye(D)
    if case.structure == "tied":
        roots[:] = roots[0]
    elif case.structure == "diag":
        roots *= np.eye(D)
    elif case.structure == "spherical":
        roots = roots[:, :1, :1] * np.eye(D)
    return roots


def covariances_of(case, roots):
    """The covariances of these roots, in the structure's own shape."""
    matrices = roots @ roots.transpose(0, 2, 1)
    if case.structure == "full":
        return matrices
    if case.structure == "tied":
        return matrices[0]
    variances = np.diagonal(matrices, axis1=1, axis2=2)
    return variances.copy() if case.structure == "diag" else variances[:, 0].copy()


def old_faithful(*columns):
    """Eruptions of Old Faithful, (272, columns): how long each was and the wait for it, minutes (Azzalini & Bowman 1990)."""
    with resources.files("emfuse").joinpath("faithful.csv").open(encoding="utf-8") as file:
        return np.array([[float(row[name]) for name in columns] for row in csv.DictReader(file)])
