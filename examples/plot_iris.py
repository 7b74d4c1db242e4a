"""Iris: how many clusters, of what shape, and k-means beside it
==============================================================

Fisher's 150 iris flowers, of three species, by the length and width of sepal and petal. The mixture is not told the species. How
many clusters does it find, how do criteria choose, and what does k-means make of the same flowers?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris

import emfuse
from emfuse.plots import COLOURS, MARKERS

X, species = load_iris(return_X_y=True)
names = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]

# %%
# From one to five clusters
# -------------------------
# `select` fits every model. The log-likelihood always rises with more components, so each criterion takes something off for
# their parameters: AIC 2 for each, BIC log 150, which is more. "full" gives each component a covariance matrix of its own; in
# "VEV" they have the same shape, but each its own size and direction.

selection = emfuse.select(X, range(1, 6), structures=("full", "VEV"))
print(selection)
full = [row for row in selection.table if row.structure == "full"]
print(f"full: AIC is best for {min(full, key=lambda row: row.aic).K} components, BIC for {min(full, key=lambda row: row.bic).K}")
vev = {row.K: row.bic for row in selection.table if row.structure == "VEV"}
print(f"VEV: BIC {vev[2]:.1f} for 2 components, {vev[3]:.1f} for 3")

# %%
# AIC is still falling at five. BIC takes two components: setosa is far from the others, and versicolor and virginica touch. But
# in "VEV" three are less than one unit of BIC behind, which is no evidence against them.
#
# Three clusters and three species
# --------------------------------
# Each cluster is called after the species that most of its flowers are of; a flower of another one is misplaced.

mixture = selection.fits["VEV", 3]
k_means = KMeans(3, n_init=10, random_state=0).fit(X)
found = {"mixture": mixture.predict(X), "k-means": k_means.labels_}
clusters = {}
for name, labels in found.items():
    most = np.array([np.bincount(species[labels == k]).argmax() for k in range(3)])
    clusters[name] = most[labels]
    print(f"{name}: {(clusters[name] != species).sum()} of {len(X)} flowers are misplaced")

# %%
# The picture
# -----------
# Left: the criteria. Middle and right: petals, coloured by cluster, with a ring around those that are misplaced. The mixture's
# ellipses, of one and two standard deviations, lean and differ in size. k-means knows no shape, size or weight: it cuts half-way
# between two centres (crosses), and so through the larger cluster.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
for i, criterion in enumerate(("aic", "bic")):
    for structure, line in (("full", "-"), ("VEV", "--")):
        values = [getattr(row, criterion) for row in selection.table if row.structure == structure]
        left.plot(range(1, 6), values, line, marker=MARKERS[i], color=COLOURS[i], label=f"{criterion.upper()}, {structure}")
left.set(xlabel="number of components", ylabel="criterion (smaller is better)")
left.legend()

emfuse.plots.components(mixture, X, ax=middle, features=(2, 3), names=names)
for k in range(3):
    rows = clusters["k-means"] == k
    right.scatter(X[rows, 2], X[rows, 3], s=18, color=COLOURS[k], marker=MARKERS[k], alpha=0.7, linewidths=0)
right.plot(k_means.cluster_centers_[:, 2], k_means.cluster_centers_[:, 3], "kx", markersize=9, markeredgewidth=2)
right.set(xlabel=names[2], ylabel=names[3], xlim=middle.get_xlim(), ylim=middle.get_ylim())
for ax, (name, labels) in zip((middle, right), clusters.items(), strict=True):
    misplaced = labels != species
    ax.scatter(X[misplaced, 2], X[misplaced, 3], s=60, facecolors="none", edgecolors="black", linewidths=1)
    ax.set_title(f"{name}: {misplaced.sum()} misplaced", loc="left", fontsize=10)
plt.show()
