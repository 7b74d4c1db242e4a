"""Model-based hierarchical clustering: the start that mclust is known for, and that needs no luck.

Rows begin as clusters of one. At each step those two merge that cost the classification likelihood of Gaussians least (Murtagh &
Raftery 1984; Banfield & Raftery 1993). For unconstrained covariances ("VVV") that is what raises

    sum_k n_k log [ det(W_k / n_k) + (tr W_k + tr W / (N D)) / n_k ]

least, with n_k the rows of cluster k, W_k their scatter about their mean, W that of all N rows. The second term (Fraley 1998)
stands in for the determinant of D rows or fewer, which is 0. For spheres of one size ("EII") it is what raises sum_k tr W_k
least: Ward's method.

Determinants and traces are added there, numbers of different units, so the scale of the data matters, and features are first
brought to one (Scrucca & Raftery 2015). The partitions are then mclust's, row by row: see `tests/test_hierarchical.py`.

Layer 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from emfuse._typing import Doubles, Labels
from emfuse.engines import as_rows

MODELS, SCALES = ("VVV", "EII"), ("SVD", "STD", "VARS")
NEGLIGIBLE = 1e-8  # a principal axis with a singular value below this share of the largest is rounding
# Rises, in nats, are rounded to so many decimals. What is equal but for rounding is then equal, and mclust's way of choosing
# among equals, the last pair, can be followed: data of few digits, as `faithful`, have many equal distances.
DIGITS = 9
UNSEEN, TINY = float(np.log(0.05 * 10.0**-DIGITS)), float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False)
class Tree:
    """The merges of a hierarchical clustering, from N clusters of one row to one of all.

    merges : (N - 1, 2) int64    the clusters that merged at each step, each called after its first row, the smaller first
    rises : (N - 1,) float64     by how much each merge raised the criterion: nats for "VVV" (it may fall), the scatter tr W, in
        squares of the scaled data, for "EII"
    model : str                  "VVV" or "EII"
    use : str                    how features were scaled: "SVD", "STD" or "VARS"
    """

    merges: Labels
    rises: Doubles = field(repr=False)
    model: str
    use: str

    @property
    def n_rows(self) -> int:
        """N."""
        return len(self.merges) + 1


def hc(X: ArrayLike, *, use: str = "SVD", model: str = "VVV") -> Tree:
    """Cluster rows from the bottom up, and return all the merges.

    X : (N, D) array-like    rows, data units; 1-D is taken as one feature
    use : str                how features are scaled first: see `scaled`
    model : str              "VVV", covariances of any kind, or "EII", spheres of one size (Ward's method, by SciPy)

    "VVV" holds 8 N^2 bytes, and 8 N D^2 more; its time grows a little faster than N^2 (measured: 1.6 s for N = 2,000, D = 4). Of
    pairs that are equally good, to 1e-9 nats, that with the last second cluster is taken, then that with the last first one.

    Raises TypeError and ValueError as `InMemory` does for X, and for another `use` or `model`.
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(map(repr, MODELS))}, got {model!r}")
    Z = scaled(X, use)
    merges, rises = _ward(Z) if model == "EII" else _unconstrained(Z)
    for array in (merges, rises):
        array.flags.writeable = False
    return Tree(merges, rises, model, use)


def hclass(tree: Tree, G: int) -> Labels:
    """Return the cluster of each row when G are left, (N,): labels 0 .. G - 1, in the order of the clusters' first rows.

    Raises TypeError and ValueError where G is no whole number from 1 to N.
    """
    N = tree.n_rows
    if isinstance(G, bool) or not isinstance(G, (int, np.integer)):
        raise TypeError(f"G must be a whole number, got {G!r}")
    if not 1 <= G <= N:
        raise ValueError(f"G must be from 1 to the number of rows, {N}, got {G}")
    cluster = np.arange(N)
    for first, second in tree.merges[: N - G][::-1]:  # a cluster that was merged away is settled before those it took in
        cluster[second] = cluster[first]
    return np.asarray(np.unique(cluster, return_inverse=True)[1], dtype=np.int64).reshape(N)


def quantile_classes(x: ArrayLike, G: int) -> Labels:
    """Cut one feature at its G - 1 quantiles: labels 0 .. G - 1 in the order of the values, (N,). Equal values stay together.

    x : (N,) or (N, 1) array-like. A value at a quantile belongs above it. Where so many are equal that a class would be empty,
    the quantiles are those of the different values.

    Raises ValueError where x has more than one feature, or fewer than G different values.
    """
    X = as_rows(x)
    if X.shape[1] != 1:
        raise ValueError(f"quantile classes need one feature, got {X.shape[1]}; use hclass(hc(X), G)")
    shares, values = np.arange(1, G) / G, np.asarray(X[:, 0], dtype=np.float64)
    different = np.unique(values)
    if len(different) < G:
        raise ValueError(f"G must be at most the number of different values, {len(different)}, got {G}")
    labels: Labels = np.searchsorted(np.quantile(values, shares), values, side="right").astype(np.int64)
    if len(np.unique(labels)) < G:
        labels = np.searchsorted(np.quantile(different, shares), values, side="right").astype(np.int64)
    return labels


def scaled(X: ArrayLike, use: str) -> Doubles:
    """Return the rows about their mean, (N, D'), on scales that can be compared.

    "SVD"     z V / sqrt(s), where z = U s V' are the rows in standard deviations: principal components, the large ones less
              large. Units, shifts and signs of the features, and their order, are gone
    "STD"     z alone
    "VARS"    data units, as mclust's `hc` alone has them; there, and only there, partitions need not be mclust's: of four data
              sets iris's are, for a reason that the papers do not give

    A constant feature, and an axis on which nothing but rounding is left, is dropped; if all are, one feature of 0 is left.
    """
    if use not in SCALES:
        raise ValueError(f"use must be one of {', '.join(map(repr, SCALES))}, got {use!r}")
    rows = np.asarray(as_rows(X), dtype=np.float64)
    largest = np.abs(rows).max(axis=0)
    unit = np.where(largest > 0.0, largest, 1.0)  # so that no square overflows
    z = rows / unit
    z = z - z.mean(axis=0)
    sd = z.std(axis=0, ddof=min(1, len(z) - 1))
    varies = sd > 4.0 * np.finfo(rows.dtype).eps
    if not varies.any():
        return np.zeros((len(z), 1))
    if use == "VARS":
        return np.asarray((z * unit)[:, varies])
    z = z[:, varies] / sd[varies]
    if use == "STD":
        return np.asarray(z)
    _, s, axes = np.linalg.svd(z, full_matrices=False)
    kept = s > NEGLIGIBLE * s[0]
    return np.asarray(z @ (axes[kept].T / np.sqrt(s[kept])))


def _ward(Z: Doubles) -> tuple[Labels, Doubles]:
    """Merges and rises of "EII"."""
    N = len(Z)
    merges = np.empty((N - 1, 2), dtype=np.int64)
    if N == 1:
        return merges, np.empty(0)
    from scipy.cluster.hierarchy import linkage

    steps = linkage(Z, "ward")
    first = np.concatenate([np.arange(N), np.empty(N - 1, dtype=np.int64)])  # row of SciPy's cluster
    for step, pair in enumerate(steps[:, :2].astype(np.int64)):
        merges[step] = np.sort(first[pair])
        first[N + step] = merges[step, 0]
    return merges, np.asarray(0.5 * np.square(steps[:, 2]))  # SciPy's distance is sqrt(2 x the rise of the scatter)


def _unconstrained(Z: Doubles) -> tuple[Labels, Doubles]:
    """Merges and rises of "VVV".

    Every cluster keeps the best of those before it, so that a step looks at all clusters and not at all pairs.
    """
    N, D = Z.shape
    n, means, trace, W = np.ones(N), Z.copy(), np.zeros(N), np.zeros((N, D, D))
    log_spare = np.log(np.square(Z).sum() / (N * D)) if Z.any() else 0.0
    spare = np.exp(log_spare)
    own = np.full(N, log_spare)
    alive = np.ones(N, dtype=bool)

    def together(i: int, others: Labels) -> tuple[Doubles, Doubles, Doubles]:
        """Rows, trace and criterion of cluster i with each of the others."""
        rows = n[i] + n[others]
        d = means[others] - means[i]
        share = n[i] * n[others] / rows
        traces = trace[i] + trace[others] + share * np.square(d).sum(axis=1)
        log_rows = np.log(rows)
        logs = np.log(traces + spare) - log_rows
        # a determinant is 0 for D rows or fewer, and at most (trace / D)^D: often too little to be seen
        most = D * (np.log(np.maximum(traces / D, TINY)) - log_rows)
        full = np.flatnonzero((rows > D) & (most + log_rows > logs + UNSEEN))
        if full.size:
            some = others[full]
            u = d[full] * np.sqrt(share[full])[:, None]
            joined = (W[i] + W[some] + u[:, :, None] * u[:, None, :]) / rows[full, None, None]
            sign, log_det = np.linalg.slogdet(joined)
            logs[full] = np.logaddexp(logs[full], np.where(sign > 0.0, log_det, -np.inf))
        return rows, traces, rows * logs

    # rise[j, i] of the pair i < j; inf elsewhere, and where either is gone. Two rows have half their squared distance as scatter.
    rise = np.full((N, N), np.inf)
    squares = np.square(Z).sum(axis=1)
    for j in range(1, N):
        half = np.maximum(0.5 * (squares[:j] + squares[j]) - Z[:j] @ Z[j], 0.0)
        rise[j, :j] = 2.0 * (np.log(0.5 * (half + spare) + (0.5 * half if D == 1 else 0.0)) - log_spare)
    np.round(rise, DIGITS, out=rise)
    nearest, least = np.zeros(N, dtype=np.int64), np.full(N, np.inf)

    def look_again(rows: Labels) -> None:
        """Find the best before each of these clusters, the last of equals."""
        nearest[rows] = N - 1 - rise[rows, ::-1].argmin(axis=1)
        least[rows] = rise[rows, nearest[rows]]

    for start in range(0, N, 256):
        look_again(np.arange(start, min(start + 256, N)))
    merges, rises = np.empty((N - 1, 2), dtype=np.int64), np.empty(N - 1)
    for step in range(N - 1):
        j = N - 1 - int(least[::-1].argmin())
        i = int(nearest[j])
        merges[step], rises[step] = (i, j), least[j]
        both, traces, criterion = together(i, np.array([j]))
        d = means[j] - means[i]
        W[i] += W[j] + (n[i] * n[j] / both[0]) * d[:, None] * d
        means[i] += n[j] / both[0] * d
        n[i], trace[i], own[i] = both[0], traces[0], criterion[0]
        alive[j], least[j] = False, np.inf
        rise[j], rise[:, j] = np.inf, np.inf
        others = np.flatnonzero(alive)
        others = others[others != i]
        values = np.round(together(i, others)[2] - own[i] - own[others], DIGITS)
        before = others < i
        rise[i, others[before]] = values[before]
        after, values = others[~before], values[~before]
        rise[after, i] = values
        better = (values < least[after]) | ((values == least[after]) & (nearest[after] <= i))
        nearest[after[better]], least[after[better]] = i, values[better]
        stale = after[~better & ((nearest[after] == i) | (nearest[after] == j))]
        look_again(np.append(stale, i))
    return merges, rises
