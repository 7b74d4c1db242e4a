"""The fused pass in pure NumPy: the definition that every build is tested against, and the fallback where none can run.

Equations, numbered once; everything else cites the number. Rows n, components k, D features; x_n in data units.

    (1)  d_nk = x_n - mu_k                               residual, data units
    (2)  y_nk = P_k d_nk                                 whitened; P_k' P_k = inverse covariance
    (3)  l_nk = c_k - |y_nk|^2 / 2,  c_k = log w_k - (D/2) log 2 pi + log det P_k
    (4)  l_n  = log sum_k exp l_nk                       taken about the largest term
    (5)  r_nk = v_n exp(l_nk - l_n)                      responsibility times row weight v_n
    (6)  mass_k += r_nk;  first_k += r_nk e_nk;  second_k += r_nk e_nk e_nk'     with e_nk = x_n - origin_k
    (7)  w_k = mass_k / sum_n v_n;  mu_k = origin_k + first_k / mass_k
    (8)  S_k = second_k / mass_k - t t'  with t = first_k / mass_k, then the structure's own estimate

P and `second` have one of four shapes, the forms: (K, D, D), "full", a triangle and a scatter for each component; (1, D, D),
"tied", one for all of them; (K, D), "diag", their diagonals; (K, 1), "spherical", one number for all features (of `second`,
the mean).

Sums are taken about an origin, as a rule the mean that the sweep started from, never about zero: near convergence
`first` is almost nothing, so that (8) does not subtract two large squares. (7) and (8) are in `emfuse.maximise`.

Layer 0.
"""

from __future__ import annotations

import numpy as np

from emfuse import statistics
from emfuse._typing import Doubles, Floats, Labels

# The least log2 density there is: an overflowing distance ends here, so that differences stay finite (4).
LEAST = -1e300
LOG2_E = 1.4426950408889634074
LN_2 = 0.69314718055994530942
CHUNK = 1 << 18  # numbers in one temporary array


def sweep(
    *,
    X: Floats,
    weights: Doubles | None,
    means: Doubles,
    P: Doubles,
    log_constant: Doubles,
    origin: Doubles,
    hard: bool,
    mass: Doubles,
    first: Doubles,
    second: Doubles | None,
    single: bool = False,
) -> float:
    """Add the statistics of `X` to `mass`, `first` and `second`.

    X : (N, D) float32 or float64      rows, in data units; finite (the caller has checked)
    weights : (N,) or None             v_n >= 0, no unit; None weighs every row 1
    means : (K, D)                     mu_k
    P : one of the four forms          lower triangles, or their diagonals, of eq. 2
    log_constant : (K,)                c_k of eq. 3
    origin : (K, D)                    what the sums of eq. 6 are taken about
    hard : bool                        give each row whole to its most likely component (k-means), the first of equals
    mass, first, second : float64      (K,), (K, D), and the form of P; added to in place, at the end. Where all components
        share P, `second` may be None: it is then not wanted
    single : bool                      a build may compute rows of float32 in float32, where that loses nothing that float32 has
    Returns sum_n v_n l_n, in nats; below -1e299 where a row's distance overflowed.
    """
    total, own = 0.0, [np.zeros_like(array) for array in (mass, first, mass if second is None else second)]
    for rows in _chunks(X, means):
        x = X[rows].astype(np.float64, copy=False)
        v = np.ones(len(x)) if weights is None else weights[rows]
        l_nk = log2_densities(x, means, P, log_constant)
        top = l_nk.max(axis=1, keepdims=True)
        if hard:
            r = np.zeros_like(l_nk)
            r[np.arange(len(x)), l_nk.argmax(axis=1)] = v
            l_n = LN_2 * top[:, 0]
        else:
            e = np.exp2(l_nk - top)
            sums = e.sum(axis=1, keepdims=True)
            l_n = LN_2 * top[:, 0] + np.log(sums[:, 0])  # (4)
            r = v[:, None] * e / sums  # (5)
        total += float(v @ l_n)
        with np.errstate(over="ignore", invalid="ignore"):
            d = x[:, None, :] - origin  # (N, K, D)
            rd = r[:, :, None] * d
            own[0] += r.sum(axis=0)  # (6)
            own[1] += rd.sum(axis=0)
            if second is not None:
                terms = np.einsum("nka,nkb->kab", rd, d) if second.ndim == 3 else (rd * d).sum(axis=0)
                own[2] += statistics.in_form_of(second, terms)
    mass += own[0]
    first += own[1]
    if second is not None:
        second += own[2]
    return total


def evaluate(
    *,
    X: Floats,
    means: Doubles,
    P: Doubles,
    log_constant: Doubles,
    log_density: Doubles | None = None,
    labels: Labels | None = None,
    responsibilities: Doubles | None = None,
) -> None:
    """Fill whichever outputs are given, row by row: the E half alone.

    X, means, P, log_constant       as in `sweep`
    log_density : (N,) float64      l_n of eq. 4, nats
    labels : (N,) int64             the most likely component, the first of equals
    responsibilities : (N, K) float64    r_nk of eq. 5 with v_n = 1
    """
    for rows in _chunks(X, means):
        l_nk = log2_densities(X[rows].astype(np.float64, copy=False), means, P, log_constant)
        if labels is not None:
            labels[rows] = l_nk.argmax(axis=1)
        top = l_nk.max(axis=1, keepdims=True)
        e = np.exp2(l_nk - top)
        sums = e.sum(axis=1, keepdims=True)
        if log_density is not None:
            log_density[rows] = LN_2 * top[:, 0] + np.log(sums[:, 0])  # (4)
        if responsibilities is not None:
            responsibilities[rows] = e / sums  # (5)


def log2_densities(x: Doubles, means: Doubles, P: Doubles, log_constant: Doubles) -> Doubles:
    """l_nk of eq. 3, (N, K), in units of log2."""
    with np.errstate(over="ignore", invalid="ignore"):
        d = x[:, None, :] - means  # (1)  (N, K, D)
        if P.ndim == 2:
            y = d * P  # (2)
        else:
            triangles = np.broadcast_to(np.tril(P), (*means.shape, means.shape[1]))
            y = np.einsum("kab,nkb->nka", triangles, d)  # (2)
        l_nk = LOG2_E * (log_constant - 0.5 * np.square(y).sum(axis=2))  # (3)
    return np.where(l_nk > LEAST, l_nk, LEAST)  # NaN compares as false


def _chunks(X: Floats, means: Doubles) -> list[slice]:
    step = max(1, CHUNK // means.size)
    return [slice(start, start + step) for start in range(0, len(X), step)]


def factor(
    *, weights: Doubles, means: Doubles, covariances: Doubles, least_left: float, P: Doubles, log_constant: Doubles
) -> bool:
    """Fill `P` and `log_constant` (eqs. 2, 3) from a mixture, if a build has a way quicker than NumPy; return whether it did.

    covariances      in the form of P
    least_left       the least share of a variance that may be left over by the features before; with less it is left alone
    Here it never is done: `emfuse.structures` is the definition.
    """
    return False


def maximise(
    *,
    structure: str,
    before: Doubles | None,
    origin: Doubles,
    mass: Doubles,
    first: Doubles,
    second: Doubles,
    reg_covar: float,
    spare_mass: float,
    floor: Doubles | None,
    floor_rows: float,
    most_floor: float,
    far: float,
    least_left: float,
    most_rounding: float,
    least_sd: float,
    weights: Doubles,
    means: Doubles,
    covariances: Doubles,
    P: Doubles,
    log_constant: Doubles,
) -> int:
    """Fill `weights`, `means`, `covariances`, `P` and `log_constant` from statistics, if a build has a way quicker than NumPy.

    structure, before                its name, and the covariances from which a search starts, or None
    origin, mass, first, second      statistics, `second` in the form of P
    reg_covar, spare_mass            as in `emfuse.maximise`
    floor, floor_rows, most_floor    a scatter (D,) or None, of so many rows, and how much of a variance may be its: see there
    far                              square of the standard deviations by which a mean may move from its origin
    least_left, most_rounding, least_sd    what is less plain than this is left alone: see there
    Returns 1 where that is done, 2 where it is but some mean has moved too far, 0 where it is not.
    Here it never is: `emfuse.maximise` is the definition.
    """
    return 0


def quasi_newton(**shape_and_constants: object) -> None:
    """Return a `kernels.QuasiNewton`, if a build has one. Here none is: `emfuse.accelerate` is the definition."""
    return None


def climb(**_: object) -> None:
    """Climb by EM without Python in between, if a build can. Here none can: `emfuse.em` is the definition."""
    return None


def climb_many(**_: object) -> None:
    """Fit many data sets, if a build can. Here none can, and nothing is filled: `emfuse.em` is the definition."""
    return None
