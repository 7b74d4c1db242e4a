"""Three roads into emfuse: the loop that everybody writes once, clusters in several dimensions, and the classroom's demo.

    python examples/three_roads.py

Each part prints what it finds, and says why.
"""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris

import emfuse
from emfuse.mixtools import normalmixEM


def by_hand(x, weights, means, sds, steps):
    """EM as textbooks write it: densities, not their logarithms."""
    for _ in range(steps):
        density = weights * np.exp(-0.5 * ((x[:, None] - means) / sds) ** 2) / (sds * np.sqrt(2 * np.pi))
        z = density / density.sum(axis=1, keepdims=True)  # 0 / 0 where every density underflows
        mass = z.sum(axis=0)
        weights, means = mass / len(x), (z * x[:, None]).sum(axis=0) / mass
        sds = np.sqrt((z * (x[:, None] - means) ** 2).sum(axis=0) / mass)
    return weights, means, sds


def the_loop_that_underflows():
    """Daily returns: two components, mu -0.01 and 0.01, sd 0.01 and 0.02; and one day that nobody expected."""
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(-0.01, 0.01, 600), random.normal(0.01, 0.02, 400)])
    start = np.array([0.5, 0.5]), np.array([-0.01, 0.01]), np.array([0.01, 0.02])

    print("1. The loop that everybody writes once\n")
    weights, means, sds = by_hand(x, *start, steps=50)
    r = normalmixEM(x, *start, maxit=50, epsilon=0.0)
    print(f"by hand      weights {weights.round(6)}, means {means.round(6)}, sds {sds.round(6)}")
    print(f"normalmixEM  weights {r.lambda_.round(6)}, means {r.mu.round(6)}, sds {r.sigma.round(6)}")

    crash = np.append(x, -1.5)  # 75 standard deviations away: exp(-2800) is 0, and 0 / 0 is nan
    with np.errstate(invalid="ignore"):
        print(f"\nwith one crash, by hand:  means {by_hand(crash, *start, steps=1)[1]}")
    r = normalmixEM(crash, *start, maxit=1, epsilon=0.0)
    print(f"with one crash, emfuse:   means {r.mu.round(6)}")
    print(
        "A density below 1e-308 is 0, its logarithm is not: emfuse stays in log space, where that row has responsibilities too."
    )

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit = emfuse.fit(crash, 3, on_collapse="floor")
    print(f"\nThree components, one of which has only the crash to live on:\n{fit.parameters}")
    print(f"and emfuse says so: {said[-1].message}\n")


def clusters_in_several_dimensions():
    """Iris without its labels: restarts, a sweep over K by AIC, and k-means beside it."""
    X, species = load_iris(return_X_y=True)
    print("2. Clusters in several dimensions\n")
    print(" K  log-likelihood      AIC      BIC   of 10 random starts, how many ended there")
    fits = [emfuse.fit(X, K, init="random_rows", n_init=10) for K in range(1, 5)]
    for K, fit in enumerate(fits, start=1):
        there = int((fit.scores > fit.log_likelihood - 0.01).sum())
        print(f"{K:2d} {fit.log_likelihood:15.3f} {fit.aic:8.2f} {fit.bic:8.2f}   {there}")
    three = emfuse.fit(X, 3)
    k_means = KMeans(3, n_init=10, random_state=0).fit_predict(X)
    for name, labels in (("a mixture", three.predict(X)), ("k-means", k_means)):
        right = sum(np.bincount(species[labels == k]).max() for k in np.unique(labels))
        print(f"{name}: {right} of 150 flowers are with the most of their species")
    print("What k-means lacks is a shape, a size and a weight for each cluster.\n")


def the_classroom():
    """Two groups whose standard deviation is known to be 1: only means and weight move, a line a sweep."""
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(0.0, 1.0, 60), random.normal(3.0, 1.0, 40)])
    start = emfuse.Parameters.univariate([0.5, 0.5], [-1.0, 1.0], [1.0, 1.0])
    print("3. The classroom: a known standard deviation\n")
    fit = emfuse.fit(x, 2, sd=1, init=start, stop=8, acceleration=None, history=True)
    print(fit.history)


if __name__ == "__main__":
    warnings.simplefilter("ignore", emfuse.NotConverged)
    the_loop_that_underflows()
    clusters_in_several_dimensions()
    the_classroom()
