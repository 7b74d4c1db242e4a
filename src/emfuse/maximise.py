"""The M step: statistics in, parameters out (equations 7 and 8 of `emfuse.reference`); and what it means to collapse.

Layer 0.
"""

from __future__ import annotations

import numpy as np

from emfuse._typing import Doubles
from emfuse.parameters import Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.structures import EPS, NotPositiveDefinite, Structure, structure_named

# Sums of rows carry rounding of a few eps. What is left of a feature's variance given the features before it must be 1 / this of
# what that rounding can make there, or more: else the density is made of rounding, as for a column that repeats others.
MOST_ROUNDING = 1e13
LEAST_VARIANCE = 1e-305  # data units squared: below it a double has fewer than 16 digits


class CollapsedComponent(ValueError):
    """A component that has shrunk until it has no density.

    component : int or None    which; None where all components share their covariance
    mass : float               its sum of responsibilities, in rows
    feature : int or None      the feature that has no variance left (given those before it); None where no rows are left
    """

    def __init__(self, message: str, *, component: int | None, mass: float, feature: int | None):
        self.component, self.mass, self.feature = component, mass, feature
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (str(self), self.component, self.mass, self.feature)


def _rebuild(message: str, component: int | None, mass: float, feature: int | None) -> CollapsedComponent:
    return CollapsedComponent(message, component=component, mass=mass, feature=feature)


def maximise(
    statistics: SufficientStatistics, structure: str | Structure, *, reg_covar: float = 0.0, spare_mass: float = 0.0
) -> Parameters:
    """Return the parameters that maximise the expected log-likelihood of `statistics`.

    structure : "full", "tied" (these need `second` of shape (K, D, D)), "diag" or "spherical" (shape (K, D))
    reg_covar : float     added to every variance, data units squared
    spare_mass : float    added to every mass before dividing by it

    Raises CollapsedComponent where a component has no rows or no density left.
    """
    parameters = estimate(statistics, structure_named(structure), reg_covar=reg_covar, spare_mass=spare_mass)
    require_density(parameters, statistics, reg_covar)
    return parameters


def estimate(
    statistics: SufficientStatistics, structure: Structure, *, reg_covar: float = 0.0, spare_mass: float = 0.0
) -> Parameters:
    """As `maximise`, without asking whether the covariances are positive definite."""
    mass = statistics.mass + spare_mass
    if not mass.all():
        k = int(mass.argmin())
        raise CollapsedComponent(
            f"component {k} has collapsed: no row is left to it. Ask for fewer components (now {len(mass)}), or start it "
            "nearer to the data.",
            component=k,
            mass=0.0,
            feature=None,
        )
    origin, first, second = statistics.origin, statistics.first, statistics.second
    t = first / mass[:, None] if not spare_mass else (first - spare_mass * origin) / mass[:, None]
    # The scatter about origin + t, for any t: second - t first' - first t' + mass t t'; with t = first / mass it is (8).
    half = first - (0.5 * statistics.mass)[:, None] * t
    if second.ndim == 2:
        scatter = second - 2.0 * t * half
    else:
        cross = t[:, :, None] * half[:, None, :]
        scatter = second - (cross + cross.transpose(0, 2, 1))
    if spare_mass and structure.name != "full":
        scatter = scatter + _left_by_spare_mass(statistics, mass, spare_mass)
    covariances = structure.estimate(scatter, mass)
    if reg_covar:
        covariances = structure.add_to_diagonal(covariances, reg_covar)
    return Parameters.unchecked(mass / mass.sum(), origin + t, covariances, structure)


def _left_by_spare_mass(statistics: SufficientStatistics, mass: Doubles, spare_mass: float) -> Doubles:
    """What a component of one row keeps of it in scikit-learn, for all types but "full": a scatter of spare_mass mean mean'.

    There it is the difference of two squares, and for a component of many rows no more than their rounding.
    """
    kept = np.where(statistics.mass <= 1.0, spare_mass * statistics.mass / mass, 0.0)
    mean = statistics.origin + statistics.first / np.where(statistics.mass > 0.0, statistics.mass, 1.0)[:, None]
    scaled = kept[:, None] * mean
    return np.asarray(scaled * mean if statistics.second.ndim == 2 else scaled[:, :, None] * mean[:, None, :])


def require_density(parameters: Parameters, statistics: SufficientStatistics, reg_covar: float) -> None:
    """Raise CollapsedComponent unless every covariance is positive definite, beyond what rounding of the data makes up."""
    K = parameters.n_components
    if not np.isfinite(parameters.covariances).all():
        raise ValueError(
            "the covariances overflow double precision: the data's spread must be below about 1e150. Divide X by a constant."
        )
    try:
        parameters.factors  # noqa: B018  raises
        if reg_covar:
            return
        variances, least = parameters.variances, np.maximum(np.square(2.0 * EPS * parameters.means), LEAST_VARIANCE)
        left = variances
        if parameters.factors.form == "full":  # y = P d: relative rounding of S comes back in y^2 times (sum_j |P_ij| sd_j)^2
            P = np.abs(parameters.factors.P)
            left = 1.0 / np.square(np.diagonal(P, axis1=1, axis2=2))
            least = np.maximum(least, left * np.square(np.einsum("kij,kj->ki", P, np.sqrt(variances))) / MOST_ROUNDING)
        if (left > least).all():
            return
        k, d = (int(i) for i in np.argwhere(left <= least)[0])
        failure = NotPositiveDefinite(None if structure_named(parameters.structure).shared else k, d, float(left[k, d]))
    except NotPositiveDefinite as error:
        failure = error
    component, d = failure.component, failure.feature
    mass = float(statistics.mass.sum() if component is None else statistics.mass[component])
    which = "the shared covariance" if component is None else f"component {component}"
    raise CollapsedComponent(
        f"{which} has collapsed: {mass:.6g} rows' worth of data has variance {max(failure.variance, 0.0):.3g} in feature {d}"
        f"{', given the features before it,' * (d > 0)} and must have more than rounding leaves. "
        f"Raise reg_covar (now {reg_covar:g}), ask for fewer components (now {K}), or drop a constant or repeated column"
        f"{', or multiply X by a constant' * (0.0 < failure.variance < LEAST_VARIANCE)}.",
        component=component,
        mass=mass,
        feature=d,
    )
