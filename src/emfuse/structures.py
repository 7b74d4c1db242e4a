"""What a covariance may be: one class a structure, and their names.

scikit-learn's four are here, under its names and mclust's (VVV, EEE, VVI, VII; V and E in one dimension); the other ten of
mclust's fourteen are in `emfuse.decomposed`. The contract that all of them keep is `emfuse.covariance.Structure`.

Layer 0.
"""

from __future__ import annotations

import numpy as np

from emfuse._typing import Doubles
from emfuse.covariance import (
    EPS,
    REFINE_BELOW,
    Matrices,
    NotPositiveDefinite,
    Spheres,
    Structure,
    Variances,
    factor_matrices,
)
from emfuse.decomposed import DECOMPOSED

__all__ = [
    "ALIASES",
    "ALL_STRUCTURES",
    "EPS",
    "REFINE_BELOW",
    "STRUCTURES",
    "Diagonal",
    "Full",
    "NotPositiveDefinite",
    "Spherical",
    "Structure",
    "Tied",
    "structure_named",
]


class Full(Matrices):
    """Each component has its own covariance matrix (mclust: VVV)."""

    name = "full"

    def estimate(self, scatter: Doubles, mass: Doubles, before: Doubles | None = None) -> Doubles:
        """S_k / mass_k."""
        return scatter / mass[:, None, None]

    def free_parameters(self, K: int, D: int) -> int:
        """K D (D + 1) / 2."""
        return K * D * (D + 1) // 2


class Tied(Structure):
    """All components share one covariance matrix (mclust: EEE)."""

    name, form, shared = "tied", "full", True

    def shape(self, K: int, D: int) -> tuple[int, ...]:
        """(D, D)."""
        return (D, D)

    def factor_shape(self, K: int, D: int) -> tuple[int, ...]:
        """(1, D, D)."""
        return (1, D, D)

    def estimate(self, scatter: Doubles, mass: Doubles, before: Doubles | None = None) -> Doubles:
        """The sum of all scatters over the sum of all masses."""
        return np.asarray(scatter.sum(axis=0) / mass.sum())

    def add_to_diagonal(self, covariances: Doubles, value: float) -> Doubles:
        """Add to the matrix's diagonal."""
        return covariances + value * np.eye(covariances.shape[-1])

    def factor(self, covariances: Doubles, K: int, D: int) -> tuple[Doubles, Doubles]:
        """One P for all components."""
        try:
            P, log_det = factor_matrices(covariances[None])
        except NotPositiveDefinite as error:
            raise NotPositiveDefinite(None, error.feature, error.variance) from None
        return P, np.repeat(log_det, K)

    def matrices(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """The one matrix, K times."""
        return np.broadcast_to(covariances, (K, D, D))

    def variances(self, covariances: Doubles, K: int, D: int) -> Doubles:
        """The one diagonal, K times."""
        return np.broadcast_to(np.diagonal(covariances), (K, D))

    def free_parameters(self, K: int, D: int) -> int:
        """D (D + 1) / 2."""
        return D * (D + 1) // 2


class Diagonal(Variances):
    """Each component has its own variance for each feature (mclust: VVI)."""

    name = "diag"

    def estimate(self, scatter: Doubles, mass: Doubles, before: Doubles | None = None) -> Doubles:
        """S_kd / mass_k."""
        return scatter / mass[:, None]

    def free_parameters(self, K: int, D: int) -> int:
        """K D."""
        return K * D


class Spherical(Spheres):
    """Each component has one variance for all features (mclust: VII)."""

    name = "spherical"

    def estimate(self, scatter: Doubles, mass: Doubles, before: Doubles | None = None) -> Doubles:
        """The mean over features of S_kd / mass_k."""
        return np.asarray(scatter.mean(axis=1) / mass)

    def free_parameters(self, K: int, D: int) -> int:
        """K."""
        return K


# The four that scikit-learn has too, under its names; and all fourteen, the other ten under mclust's.
STRUCTURES: dict[str, Structure] = {s.name: s for s in (Full(), Tied(), Diagonal(), Spherical())}
ALL_STRUCTURES: dict[str, Structure] = {**STRUCTURES, **{s.name: s for s in DECOMPOSED}}
ALIASES = {"VVV": "full", "EEE": "tied", "VVI": "diag", "VII": "spherical", "V": "full", "E": "tied"}


def structure_named(name: str | Structure) -> Structure:
    """Return the structure of that name. Raises ValueError that lists the names there are."""
    if isinstance(name, Structure):
        return name
    found = ALL_STRUCTURES.get(ALIASES.get(name, name)) if isinstance(name, str) else None
    if found is None:
        raise ValueError(
            f"structure must be one of {', '.join(map(repr, ALL_STRUCTURES))} (or {', '.join(ALIASES)}), got {name!r}"
        )
    return found
