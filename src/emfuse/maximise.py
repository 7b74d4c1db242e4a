"""The M step: statistics in, parameters out (equations 7 and 8 of `emfuse.reference`); and what it means to collapse.

`step` is what a fit takes. For few features it is the build's own, where that is plain arithmetic; `estimate` and
`require_density` are the definition, for any features and for what is not plain.

Layer 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emfuse import kernels
from emfuse._typing import Doubles
from emfuse.constraints import Held
from emfuse.parameters import FEW_FEATURES, Factors, Parameters
from emfuse.statistics import SufficientStatistics, in_form_of
from emfuse.structures import EPS, REFINE_BELOW, NotPositiveDefinite, Structure, structure_named

# Sums of rows carry rounding of a few eps. What is left of a feature's variance given the features before it must be 1 / this of
# what that rounding can make there, or more: else the density is made of rounding, as for a column that repeats others.
MOST_ROUNDING = 1e13
LEAST_VARIANCE = 1e-305  # data units squared: below it a double has fewer than 16 digits

# A mean that moved by more than this many standard deviations, squared, costs a second sweep about the new mean, so that
# equation 8 subtracts no more than a few times what it leaves.
RECENTRE_ABOVE = 4.0

MOST_FLOOR = 0.5  # of a variance: a component that owes more of it to the floor has collapsed


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


@dataclass(frozen=True)
class Floor:
    """A floor that has the data's scale, below the variances: as if each component held a few rows more, spread as all rows are.

    What the M step then maximises is the log-likelihood less rows x sum_k KL(N(0, V) || N(0, covariance_k)), with V diagonal, the
    variances of all rows: an inverse-Wishart prior's mode. EM never lowers that, as it never lowers the log-likelihood alone.

    variances : (D,)    V, data units squared
    rows : float        in units of row weight
    holds : bool        whether a component may rest on it; else one that owes more than half of its variance to it has collapsed
    """

    variances: Doubles
    rows: float
    holds: bool = False

    @cached_property
    def scatter(self) -> Doubles:
        """What each component's scatter has more, on the diagonal, (D,), data units squared times rows."""
        return self.rows * self.variances

    def penalty(self, factors: Factors) -> float:
        """What is taken off the log-likelihood, nats; a feature that does not vary counts as if its variance were 1."""
        P, (K, D) = factors.P, factors.means.shape
        if P.ndim == 3:
            trace = np.einsum("kij,kij,j->", P, P, self.variances)
            log_det = np.log(np.einsum("kii->ki", P)).sum()
        else:
            alike = D if P.shape[1] < D else 1  # features that share a number of P
            trace = np.einsum("ki,ki,i->", P, P, self.variances if alike == 1 else self._total)
            log_det = alike * np.log(P).sum()
        return float(0.5 * self.rows * (K / len(P)) * (trace - 2.0 * log_det - len(P) * self.constant))

    @cached_property
    def _total(self) -> Doubles:
        return np.asarray(self.variances.sum(keepdims=True))

    @cached_property
    def constant(self) -> float:
        """Return log det V + D, of the features that vary."""
        V = self.variances
        return float(np.log(V, where=V > 0.0, out=np.zeros_like(V)).sum() + len(V))

    def shares(self, factors: Factors, mass: Doubles) -> Doubles:
        """How much of a component's variance is the floor's, feature by feature, (K, D): the sum is at most D, and about 0."""
        P, K = factors.P, len(mass)
        squares = np.square(P).sum(axis=1) if P.ndim == 3 else np.square(P)
        held = (mass[:, None] if len(P) == K else mass.mean()) + self.rows
        return np.asarray(np.broadcast_to(squares * self.scatter / held, (K, len(self.scatter))))


def maximise(
    statistics: SufficientStatistics,
    structure: str | Structure,
    *,
    reg_covar: float = 0.0,
    spare_mass: float = 0.0,
    floor: Floor | None = None,
    before: Parameters | None = None,
    held: Held | None = None,
) -> Parameters:
    """Return the parameters that maximise the expected log-likelihood of `statistics`.

    structure : one of `emfuse.structures`; `second` has a scatter for each component, or the form of the structure's P
    reg_covar : float     added to every variance, data units squared
    spare_mass : float    added to every mass before dividing by it
    floor : Floor or None
    before : Parameters or None    what was swept: where structures that are found by iteration start, and constraints
    held : Held or None            constraints; they need `before`

    Raises CollapsedComponent where a component has no rows or no density left.
    """
    kind = structure_named(structure)
    parameters, far = step(statistics, kind, reg_covar=reg_covar, spare_mass=spare_mass, floor=floor, before=before, held=held)
    if far:
        require_density(parameters, statistics, reg_covar, floor)
    return parameters


def step(
    statistics: SufficientStatistics,
    structure: Structure,
    *,
    reg_covar: float = 0.0,
    spare_mass: float = 0.0,
    floor: Floor | None = None,
    before: Parameters | None = None,
    held: Held | None = None,
) -> tuple[Parameters, bool]:
    """As `maximise`; also whether some mean moved so far from the sums' origin that equation 8 cancels.

    The means are then good as the origin of another sweep; the covariances have not been looked at, and are good for nothing.
    """
    if held is None:
        plain = _step_of_build(statistics, structure, reg_covar, spare_mass, floor, before)
        if plain is not None:
            return plain
    parameters = estimate(
        statistics, structure, reg_covar=reg_covar, spare_mass=spare_mass, floor=floor, before=before, held=held
    )
    with np.errstate(over="ignore", invalid="ignore"):
        move = np.square(parameters.means - statistics.origin)
        far = bool((move > RECENTRE_ABOVE * parameters.variances).any())
    if not far:
        require_density(parameters, statistics, reg_covar, floor)
    return parameters, far


def _step_of_build(
    statistics: SufficientStatistics,
    structure: Structure,
    reg_covar: float,
    spare_mass: float,
    floor: Floor | None,
    before: Parameters | None,
) -> tuple[Parameters, bool] | None:
    """The same by the active build, or None where it leaves it alone."""
    origin, second = statistics.origin, statistics.second
    K, D = origin.shape
    if D > FEW_FEATURES:
        return None
    weights, means, covariances = np.empty(K), np.empty((K, D)), np.empty(structure.shape(K, D))
    if second.size != covariances.size:  # a start may come with a scatter for each component, whatever the structure
        return None
    factors = Factors(means, np.empty(second.shape), np.empty(K))
    alike = before is not None and before.covariances.shape == covariances.shape
    done = kernels.load().maximise(
        structure=structure.name,
        before=np.ascontiguousarray(before.covariances) if before is not None and alike else None,
        origin=origin,
        mass=statistics.mass,
        first=statistics.first,
        second=second,
        **what_is_plain(reg_covar, spare_mass, floor),
        weights=weights,
        means=means,
        covariances=covariances,
        P=factors.P,
        log_constant=factors.log_constant,
    )
    return (Parameters.unchecked(weights, means, covariances, structure, factors), done == 2) if done else None


def what_is_plain(reg_covar: float, spare_mass: float, floor: Floor | None) -> dict[str, Any]:
    """Return what a build's own M step must know, besides sums: `emfuse.reference.maximise`."""
    return {
        "reg_covar": reg_covar,
        "spare_mass": spare_mass,
        "floor": None if floor is None else floor.scatter,
        "floor_rows": 0.0 if floor is None else floor.rows,
        "most_floor": np.inf if floor is None or floor.holds else MOST_FLOOR,
        "far": RECENTRE_ABOVE,
        "least_left": REFINE_BELOW,
        "most_rounding": MOST_ROUNDING,
        "least_sd": 2.0 * EPS,
    }


def estimate(
    statistics: SufficientStatistics,
    structure: Structure,
    *,
    reg_covar: float = 0.0,
    spare_mass: float = 0.0,
    floor: Floor | None = None,
    before: Parameters | None = None,
    held: Held | None = None,
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

    def finish(scatter: Doubles) -> tuple[Doubles, Doubles]:
        """With the floor's scatter, and of how many rows it is then."""
        if floor is None:
            return scatter, mass
        added = floor.scatter if scatter.ndim == 2 else np.diag(floor.scatter)
        return scatter + in_form_of(scatter, np.broadcast_to(added, (len(mass), *added.shape))), mass + floor.rows

    if held is not None:
        assert before is not None
        parameters = held.estimate(statistics, before, finish)
        if not reg_covar:
            return parameters
        covariances = held.free_covariances(structure.add_to_diagonal(parameters.covariances, reg_covar))
        return Parameters.unchecked(parameters.weights, parameters.means, covariances, structure)
    origin, first = statistics.origin, statistics.first
    t = first / mass[:, None] if not spare_mass else (first - spare_mass * origin) / mass[:, None]
    scatter = statistics.scatter(t)
    if spare_mass and structure.name != "full":
        scatter = scatter + in_form_of(scatter, _left_by_spare_mass(statistics, mass, spare_mass))
    scatter, rows = finish(scatter)
    covariances = structure.estimate(scatter, rows, before=None if before is None else before.covariances)
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


def require_density(
    parameters: Parameters, statistics: SufficientStatistics, reg_covar: float, floor: Floor | None = None
) -> None:
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
        if parameters.factors.P.ndim == 3:  # y = P d: relative rounding of S comes back in y^2 times (sum_j |P_ij| sd_j)^2
            P = np.broadcast_to(np.abs(parameters.factors.P), (*variances.shape, variances.shape[1]))
            left = 1.0 / np.square(np.diagonal(P, axis1=1, axis2=2))
            least = np.maximum(least, left * np.square(np.einsum("kij,kj->ki", P, np.sqrt(variances))) / MOST_ROUNDING)
        missing, rests = left <= least, False
        if floor is not None and not floor.holds:
            shares = floor.shares(parameters.factors, statistics.mass)
            rest = shares.sum(axis=1, keepdims=True) > MOST_FLOOR
            rests = bool(rest.any())
            missing = missing | (rest & (shares == shares.max(axis=1, keepdims=True)))
        if not missing.any():
            return
        k, d = (int(i) for i in np.argwhere(missing)[0])
        failure = NotPositiveDefinite(None if structure_named(parameters.structure).shared else k, d, float(left[k, d]))
    except NotPositiveDefinite as error:
        failure, rests = error, False
    component, d = failure.component, failure.feature
    mass = float(statistics.mass.sum() if component is None else statistics.mass[component])
    which = "the shared covariance" if component is None else f"component {component}"
    raise CollapsedComponent(
        f"{which} has collapsed: {mass:.6g} rows' worth of data has variance {max(failure.variance, 0.0):.3g} in feature {d}"
        f"{', given the features before it,' * (d > 0)} and must have more than {'its floor' if rests else 'rounding leaves'}. "
        f"Raise reg_covar (now {reg_covar:g}), ask for fewer components (now {K}), or drop a constant or repeated column"
        f"{', or multiply X by a constant' * (0.0 < failure.variance < LEAST_VARIANCE)}.",
        component=component,
        mass=mass,
        feature=d,
    )


def promised_gain(here: Parameters, image: Parameters, weight: float) -> float:
    """What EM's step gains to second order, nats: (n / 2) |image - here|^2 in the complete-data information at `here`."""
    P, w = here.factors.P, here.weights
    K, D = here.means.shape
    d = image.means - here.means
    weights = (np.square(image.weights - w) / np.maximum(w, 1e-290)).sum()
    if P.ndim == 2 or D == 1:
        flat = P.reshape(len(P), -1)
        means = np.square(flat * d).sum(axis=1)
        spread = np.square(np.square(flat / image.factors.P.reshape(flat.shape)) - 1.0)
        # (1, 1): one for all; (K, 1) in D features: one for each sphere, which counts D times; else one for each feature
        of_blocks = spread.sum(axis=1) * (D if flat.shape[1] < D else 1)
    else:
        means = np.square((P @ d[:, :, None])[:, :, 0]).sum(axis=1)
        T = P @ image.covariances.reshape(P.shape) @ P.transpose(0, 2, 1)
        of_blocks = np.square(T - np.eye(D)).sum(axis=(1, 2))
    covariances = of_blocks.sum() if len(of_blocks) < K else w @ of_blocks
    return float(0.5 * weight * (weights + w @ means + 0.5 * covariances))
