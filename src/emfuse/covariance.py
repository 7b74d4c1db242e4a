"""The contract of a covariance structure, the shapes that its array may have, and how a covariance is factored.

A structure knows the shape of its covariance array, how to estimate it from per-component scatters, how to factor it for
the sweep, and how many free parameters it has. The sweep knows only the shape of P (see `emfuse.reference`).

All but the estimate and the count follow from the array's shape: `Matrices`, `Variances` and `Spheres` have it once, and a
structure is one of them with those two.

Factors come from the covariance's Cholesky decomposition, never from an inverse, so that a component with condition
number 1e9 keeps ten digits of its log density.

Layer 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from emfuse._typing import Doubles

# Below this share of a feature's variance left over by the features before it, the decomposition is refined: plain
# double precision has then lost log10(1 / share) of its 16 digits.
REFINE_BELOW = 1e-3
EPS = float(np.finfo(np.float64).eps)


class NotPositiveDefinite(ValueError):
    """A covariance that has no Cholesky decomposition.

    component : int or None    which; None where all components share it
    feature : int              the first feature whose variance, given those before it, is not above 0
    variance : float           that variance, data units squared
    """

    def __init__(self, component: int | None, feature: int, variance: float):
        self.component, self.feature, self.variance = component, feature, variance
        which = "the shared covariance" if component is None else f"the covariance of component {component}"
        super().__init__(
            f"{which} is not positive definite: feature {feature} has variance {variance:.6g} given the features before it, "
            "and must have more than 0"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return NotPositiveDefinite, (self.component, self.feature, self.variance)


class Structure(ABC):
    """A covariance structure: K components, D features.

    Its `form` is that of one component's scatter: "full", (D, D), or "diag", (D,).
    """

    name: ClassVar[str]
    form: ClassVar[str]
    shared: ClassVar[bool] = False  # one covariance for all components, whether the array holds it once or K times

    @abstractmethod
    def shape(self, K: int, D: int) -> tuple[int, ...]:
        """Return the shape of the covariance array."""

    def factor_shape(self, K: int, D: int) -> tuple[int, ...]:
        """Return the shape of P: that of the covariances, but for tied ones and spheres."""
        return self.shape(K, D)

    @abstractmethod
    def estimate(self, scatter: Doubles, mass: Doubles, before: Doubles | None = None) -> Doubles:
        """Return the covariances that maximise the likelihood (equation 8).

        scatter : sums of r (x - mean)(x - mean)', for each component or in the form of the structure's P
        mass : (K,)    sum of responsibilities, above 0
        before : covariance array or None    what the responsibilities came from: a search starts there, and ends no lower

        Never raises: where no covariance is best, one that is not positive definite comes back, and `factor` says so.
        """

    def nearest(self, covariances: Doubles, weights: Doubles) -> Doubles:
        """Return covariances of this structure near to those given, which have its shape; here, that is all it takes."""
        return covariances

    @abstractmethod
    def add_to_diagonal(self, covariances: Doubles, value: float) -> Doubles:
        """Return the covariances with `value` (data units squared) added to every variance."""

    @abstractmethod
    def factor(self, covariances: Doubles, K: int, D: int) -> tuple[Doubles, Doubles]:
        """Return P, in one of the forms of `emfuse.reference`, with P' P = inverse covariance, and log det P, (K,).

        Raises NotPositiveDefinite.
        """

    @abstractmethod
    def matrices(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """Return the covariance matrices, (K, D, D)."""

    @abstractmethod
    def variances(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """Return the variance of each feature in each component, (K, D)."""

    @abstractmethod
    def free_parameters(self, K: int, D: int) -> int:
        """Return the number of free parameters in the covariances alone."""


class Matrices(Structure):
    """Each component has a covariance matrix, (K, D, D)."""

    form = "full"

    def shape(self, K: int, D: int) -> tuple[int, ...]:
        """(K, D, D)."""
        return (K, D, D)

    def add_to_diagonal(self, covariances: Doubles, value: float) -> Doubles:
        """Add to each matrix's diagonal."""
        return covariances + value * np.eye(covariances.shape[-1])

    def factor(self, covariances: Doubles, K: int, D: int) -> tuple[Doubles, Doubles]:
        """P_k is the inverse of the Cholesky factor of covariance k."""
        return factor_matrices(covariances)

    def matrices(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """They are matrices already."""
        return covariances

    def variances(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """The diagonals."""
        return np.diagonal(covariances, axis1=1, axis2=2)


class Variances(Structure):
    """Each component has a variance for each feature, (K, D)."""

    form = "diag"

    def shape(self, K: int, D: int) -> tuple[int, ...]:
        """(K, D)."""
        return (K, D)

    def add_to_diagonal(self, covariances: Doubles, value: float) -> Doubles:
        """Add to each variance."""
        return covariances + value

    def factor(self, covariances: Doubles, K: int, D: int) -> tuple[Doubles, Doubles]:
        """P_kd is 1 / standard deviation."""
        return factor_variances(covariances, self.shared)

    def matrices(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """Variances on the diagonal, 0 beside it."""
        return covariances[:, :, None] * np.eye(D)

    def variances(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """They are variances already."""
        return covariances


class Spheres(Structure):
    """Each component has one variance for all features, (K,)."""

    form = "diag"

    def shape(self, K: int, D: int) -> tuple[int, ...]:
        """(K,)."""
        return (K,)

    def factor_shape(self, K: int, D: int) -> tuple[int, ...]:
        """(K, 1)."""
        return (K, 1)

    def add_to_diagonal(self, covariances: Doubles, value: float) -> Doubles:
        """Add to each variance."""
        return covariances + value

    def factor(self, covariances: Doubles, K: int, D: int) -> tuple[Doubles, Doubles]:
        """P_k is 1 / standard deviation, one for all features."""
        P, log_det = factor_variances(covariances[:, None], self.shared)
        return P, D * log_det

    def matrices(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """Multiples of the identity."""
        return covariances[:, None, None] * np.eye(D)

    def variances(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """The one variance, D times."""
        return np.broadcast_to(covariances[:, None], (K, D))


def factor_variances(variances: Doubles, shared: bool = False) -> tuple[Doubles, Doubles]:
    """Return 1 / standard deviation, (K, D), and the sum of its logs over features, (K,).

    Raises NotPositiveDefinite, which names no component where they are `shared`.
    """
    bad = ~(variances > 0.0)
    if bad.any():
        k, d = (int(i) for i in np.argwhere(bad)[0])
        raise NotPositiveDefinite(None if shared else k, d, float(variances[k, d]))
    P = 1.0 / np.sqrt(variances)
    return P, np.log(P).sum(axis=1)


def factor_matrices(covariances: Doubles) -> tuple[Doubles, Doubles]:
    """Return P, lower triangles with P' P = inverse covariance, (K, D, D), and log det P, (K,). Raises NotPositiveDefinite."""
    from scipy.linalg.lapack import dtrtri

    if covariances.shape[-1] == 1:
        P, log_det = factor_variances(covariances[:, :, 0])
        return P[:, :, None], log_det
    L = cholesky(covariances)
    P = np.empty_like(L)
    for k, triangle in enumerate(L):
        P[k] = dtrtri(triangle, lower=1)[0]
    return P, -np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)


def cholesky(covariances: Doubles) -> Doubles:
    """Lower L with L L' = covariance, (K, D, D), right to about eps times its own size whatever the condition number.

    Variances are scaled to 1 first, by powers of two, so that the scale of the data does not matter (entries of 1e-300
    are squared on the way). Raises NotPositiveDefinite where a feature has no variance beyond rounding.
    """
    from scipy.linalg.lapack import dpotrf

    D = covariances.shape[-1]
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    if not np.all(variances > 0.0):
        k, d = (int(i) for i in np.argwhere(~(variances > 0.0))[0])
        raise NotPositiveDefinite(k, d, float(variances[k, d]))
    scale = np.exp2(np.round(0.5 * np.log2(variances)))
    scaled = covariances / scale[:, :, None] / scale[:, None, :]
    L = np.empty_like(scaled)
    for k, matrix in enumerate(scaled):
        L[k], failed_at = dpotrf(matrix, lower=1, clean=1)
        if failed_at > 0:
            d = int(failed_at) - 1
            left = float(matrix[d, d] - np.square(L[k, d, :d]).sum())
            raise NotPositiveDefinite(k, d, left * float(variances[k, d] / matrix[d, d]))
    left_over = np.square(np.diagonal(L, axis1=1, axis2=2)) / np.diagonal(scaled, axis1=1, axis2=2)
    if left_over.min() <= 2.0 * D * EPS:
        k, d = (int(i) for i in np.argwhere(left_over <= 2.0 * D * EPS)[0])
        raise NotPositiveDefinite(k, d, float(left_over[k, d] * variances[k, d]))
    for j in np.flatnonzero(left_over.min(axis=1) < REFINE_BELOW):
        L[j] = _refined(scaled[j], L[j])
        if not np.diagonal(L[j]).min() > 0.0:  # too near to singular for a first-order step
            d = int(left_over[j].argmin())
            raise NotPositiveDefinite(int(j), d, float(left_over[j, d] * variances[j, d]))
    return np.asarray(L * scale[:, :, None])


def _refined(A: Doubles, L: Doubles) -> Doubles:
    """One Newton step from a Cholesky factor: L (I + E), E the lower half of L^-1 (A - L L') L^-T, diagonal halved.

    The residual is taken to about twice double precision: L is split into slices of 20 bits, whose products are exact in
    double (Ozaki, Ogita, Oishi & Rump 2012, "Error-free transformations of matrix multiplication").
    """
    from scipy.linalg.lapack import dtrtri

    row_size = np.exp2(np.ceil(np.log2(np.abs(L).max(axis=1, keepdims=True))))
    slices, rest = [], L
    for cut in (2.0**33, 2.0**13):  # adding 1.5 x this x the row's size leaves 20, then 40 bits below that size
        top = (rest + 1.5 * cut * row_size) - 1.5 * cut * row_size
        slices.append(top)
        rest = rest - top
    high, middle = slices
    residual = A - high @ high.T
    cross = high @ middle.T
    residual = (residual - cross) - cross.T
    small = high @ rest.T
    residual = residual - (middle @ middle.T + small + small.T + middle @ rest.T + rest @ middle.T)
    inverse = dtrtri(L, lower=1)[0]  # and not two solutions, for which a BLAS wakes its threads whatever the size
    E = inverse @ residual @ inverse.T
    E = np.tril(E, -1) + np.diag(0.5 * np.diagonal(E))
    return np.asarray(L + L @ E)
