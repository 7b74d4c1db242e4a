"""What is climbed: mixtures that EM finds easy, hard and nearly impossible, each with a good start and a bad one.

A recipe is a row of data; its rows come from its name and a seed, the same every time, and another seed gives other rows of the
same kind. 50 recipes are for counting sweeps, with 31 to 4,000 rows: one feature, two components 1 to 6 standard deviations
apart; more components, more features, four structures; mixtures that are nearly degenerate; and measurements. LARGE are for
the clock.

The good start has its means at quantiles (one feature) or at k-means++ centres, then five steps of k-means, and the clusters'
common covariance. The bad one has them at random rows drawn half-way to the centre, and the covariance of all rows for everybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np

from emfuse import Parameters

SEED = 20_241_123
DATA = Path(__file__).parents[1] / "tests" / "reference" / "data"
LLOYD_STEPS = 5
START_ROWS = 20_000  # a start looks at no more
MOST_WEIGHT = 3


@dataclass(frozen=True)
class Recipe:
    """K components of one structure to be found in the rows that `make(random)` makes, (N, D).

    weighted : bool    whether rows have weights, whole numbers from 0 to MOST_WEIGHT
    real : bool        whether the rows are measurements, which no seed changes
    """

    name: str
    K: int
    structure: str
    make: Callable[[np.random.Generator], np.ndarray]
    weighted: bool = False
    real: bool = False

    def random(self, seed, purpose):
        return np.random.default_rng([SEED, seed, crc32(self.name.encode()), purpose])

    def rows(self, seed=0):
        """(N, D) float64, data units."""
        return self.make(self.random(seed, 0))

    def weights(self, rows, seed=0):
        """(N,), or None where every row weighs one."""
        return self.random(seed, 1).integers(0, MOST_WEIGHT + 1, len(rows)).astype(np.float64) if self.weighted else None

    def starts(self, rows, seed=0):
        """{"good": Parameters, "bad": Parameters}."""
        random, seen = self.random(seed, 2), rows[:START_ROWS]
        return {"good": good_start(self, seen, random), "bad": bad_start(self, seen, random)}


def line(n, weights, means, sds):
    """One feature: `n` rows of a mixture."""
    weights, means, sds = (np.asarray(each, dtype=np.float64) for each in (weights, means, sds))

    def make(random):
        k = random.choice(len(weights), n, p=weights / weights.sum())
        return (means[k] + sds[k] * random.standard_normal(n))[:, None]

    return make


def cloud(n, D, K, apart, structure):
    """`n` rows of a random mixture: means `apart` from each other in each feature, standard deviations around 1."""

    def make(random):
        weights = random.dirichlet(np.full(K, 4.0))
        means = random.standard_normal((K, D)) * apart / np.sqrt(2.0)
        roots = [square_root(D, structure, random) for _ in range(K)]
        labels, X = random.choice(K, n, p=weights), random.standard_normal((n, D))
        for k in range(K):
            X[labels == k] = X[labels == k] @ roots[k].T + means[k]
        return X

    return make


def square_root(D, structure, random):
    if structure == "full":
        return np.linalg.qr(random.standard_normal((D, D)))[0] * np.exp(0.4 * random.standard_normal(D))
    if structure == "diag":
        return np.diag(np.exp(0.4 * random.standard_normal(D)))
    return np.eye(D) * (np.exp(0.3 * random.standard_normal()) if structure == "spherical" else 1.0)


def spike(random):
    """Two broad components, and 15 rows of 2,000 within a ten-thousandth of a standard deviation."""
    return np.concatenate([line(1985, [1, 1], [0, 3], [1, 1])(random), 1.3 + 1e-4 * random.standard_normal((15, 1))])


def collinear(random):
    """Four features, and a fifth that is their sum to within 1e-4."""
    X = cloud(1200, 4, 3, 2.0, "full")(random)
    return np.column_stack([X, X.sum(axis=1) + 1e-4 * random.standard_normal(len(X))])


def table(name, columns, random):
    """Measurements that lie beside the tests; tests/reference/README.md says whose."""
    return np.loadtxt(DATA / f"{name}.csv", delimiter=",", skiprows=1, ndmin=2)[:, :columns]


def of_scikit_learn(name, random):
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")().data


def digits(random):
    """1,797 handwritten digits in their first 8 principal components."""
    X = of_scikit_learn("digits", random)
    X = X - X.mean(axis=0)
    return X @ np.linalg.eigh(X.T @ X)[1][:, :-9:-1]


def one_feature():
    for sds in (1, 1.5, 2, 3, 4, 6):
        yield Recipe(f"1d_k2_{sds}sd_equal", 2, "full", line(2000, [1, 1], [0, sds], [1, 1]))
        yield Recipe(f"1d_k2_{sds}sd_unequal", 2, "full", line(2000, [8, 2], [0, sds], [1, 0.6]))
    yield Recipe("1d_k2_1.5sd_tied", 2, "tied", line(2000, [6, 4], [0, 1.5], [1, 1]))
    yield Recipe("1d_k2_2sd_tied", 2, "tied", line(2000, [6, 4], [0, 2], [1, 1]))
    yield Recipe("1d_k3_2sd", 3, "full", line(3000, [3, 4, 3], [0, 2, 4], [1, 1, 1]))
    yield Recipe("1d_k4_3sd", 4, "full", line(3000, [1, 1, 1, 1], [0, 3, 6, 9], [1, 0.8, 1.2, 1]))
    yield Recipe("1d_k5_2.5sd", 5, "full", line(4000, [1] * 5, [0, 2.5, 5, 7.5, 10], [1] * 5))
    yield Recipe("1d_k6_4sd", 6, "full", line(4000, [1, 2, 2, 2, 2, 1], [0, 4, 8, 12, 16, 20], [1, 0.7, 1, 1.3, 1, 1]))


def more_features():
    for n, D, K, structure, apart in (
        (2000, 2, 3, "full", 2.0),
        (2000, 2, 4, "full", 5.0),
        (3000, 2, 6, "full", 3.0),
        (3000, 2, 8, "tied", 4.0),
        (2000, 2, 5, "spherical", 3.0),
        (3000, 4, 3, "full", 1.5),
        (3000, 4, 6, "diag", 2.0),
        (2000, 4, 4, "tied", 1.5),
        (3000, 8, 4, "full", 1.2),
        (4000, 8, 12, "diag", 1.5),
        (2000, 8, 5, "spherical", 1.0),
        (3000, 16, 3, "full", 1.0),
        (2000, 16, 6, "tied", 0.8),
        (3000, 16, 8, "diag", 1.0),
    ):
        yield Recipe(f"d{D}_k{K}_{structure}", K, structure, cloud(n, D, K, apart, structure))


NEARLY_DEGENERATE = (
    Recipe("k3_of_2", 3, "full", line(2000, [1, 1], [0, 4], [1, 1])),  # one component too many
    Recipe("k2_of_1_tied", 2, "tied", line(1000, [1], [0], [1])),  # the same: the means meet
    Recipe("spike", 3, "full", spike),
    Recipe("d2_k4_of_2", 4, "full", cloud(1500, 2, 2, 3.0, "full")),  # weights that tend to 0
    Recipe("collinear", 3, "full", collinear),
)
REAL = tuple(
    Recipe(name, K, structure, make, real=True)
    for name, K, structure, make in (
        ("iris_full", 3, "full", partial(of_scikit_learn, "iris")),
        ("iris_tied", 4, "tied", partial(of_scikit_learn, "iris")),
        ("wine_diag", 3, "diag", partial(of_scikit_learn, "wine")),
        ("digits_full", 10, "full", digits),
        ("digits_diag", 10, "diag", digits),
        ("faithful_full", 2, "full", partial(table, "faithful", 2)),
        ("faithful_tied", 3, "tied", partial(table, "faithful", 2)),
        ("acidity", 3, "full", partial(table, "acidity", 1)),
        ("galaxies_tied", 4, "tied", partial(table, "galaxies", 1)),
        ("dax", 3, "full", partial(table, "dax_logret", 1)),
        ("dax_outlier", 3, "full", partial(table, "hard_dax_outlier_60sd", 1)),
        ("airquality_diag", 3, "diag", partial(table, "airquality", 3)),
        ("trees_diag", 2, "diag", partial(table, "trees", 3)),
    )
)
SYNTHETIC = (*one_feature(), *more_features(), *NEARLY_DEGENERATE)
PROBLEMS = (*SYNTHETIC, *REAL)
QUICK = PROBLEMS[::6]


def large():
    for n, name in ((10**5, "1e5"), (10**6, "1e6")):
        yield Recipe(f"1d_k2_1.5sd_{name}", 2, "full", line(n, [1, 1], [0, 1.5], [1, 1]))
    yield Recipe("1d_k2_1.5sd_1e5_weighted", 2, "full", line(10**5, [1, 1], [0, 1.5], [1, 1]), weighted=True)
    for structure in ("full", "tied", "diag", "spherical"):
        yield Recipe(f"d4_k8_{structure}_1e5", 8, structure, cloud(10**5, 4, 8, 2.0, structure))
    yield Recipe("d4_k8_full_1e5_weighted", 8, "full", cloud(10**5, 4, 8, 2.0, "full"), weighted=True)
    yield Recipe("d4_k8_full_1e6", 8, "full", cloud(10**6, 4, 8, 2.0, "full"))


LARGE = tuple(large())
BY_NAME = {recipe.name: recipe for recipe in (*PROBLEMS, *LARGE)}


def good_start(recipe, X, random):
    """Quantiles or k-means++ and five steps of k-means, all in standard deviations of the rows."""
    K, sds = recipe.K, X.std(axis=0)
    Z = X / sds
    if X.shape[1] == 1:
        centres = np.quantile(Z, (np.arange(K) + 0.5) / K)[:, None]
    else:
        centres = Z[random.integers(len(Z))][None]
        while len(centres) < K:
            nearest = squared_distances(Z, centres).min(axis=1)
            centres = np.vstack([centres, Z[random.choice(len(Z), p=nearest / nearest.sum())]])
    for _ in range(LLOYD_STEPS):
        labels = squared_distances(Z, centres).argmin(axis=1)
        centres = np.array([Z[labels == k].mean(axis=0) if (labels == k).any() else centres[k] for k in range(K)])
    labels = squared_distances(Z, centres).argmin(axis=1)
    sizes = np.maximum(np.bincount(labels, minlength=K), 1.0)
    left = (Z - centres[labels]) * sds
    within = left.T @ left / len(X) + 1e-6 * np.diag(X.var(axis=0))
    return Parameters(sizes / sizes.sum(), centres * sds, shared(recipe, within), recipe.structure)


def bad_start(recipe, X, random):
    K, middle = recipe.K, X.mean(axis=0)
    means = middle + 0.5 * (X[random.choice(len(X), K, replace=False)] - middle)
    whole = (X - middle).T @ (X - middle) / len(X)
    return Parameters(np.full(K, 1 / K), means, shared(recipe, whole), recipe.structure)


def squared_distances(Z, centres):
    """(N, K), one centre after another: nothing of size N x K x D."""
    return np.stack([np.square(Z - centre).sum(axis=1) for centre in centres], axis=1)


def shared(recipe, covariance):
    """One covariance matrix (D, D) for every component, in the structure's own shape."""
    K, variances = recipe.K, np.diag(covariance)
    return {
        "full": np.tile(covariance, (K, 1, 1)),
        "tied": covariance,
        "diag": np.tile(variances, (K, 1)),
        "spherical": np.full(K, variances.mean()),
    }[recipe.structure]
