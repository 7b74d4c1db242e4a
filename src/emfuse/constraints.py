"""What is known about a mixture beforehand: values that are fixed, and values that go together; and the M step that respects it.

The language is that of mixtools' `mean.constr` and `sd.constr`, one entry for each component: None is free, a number is fixed,
"a" is equal to every other "a", "2a" and "-a" are multiples of it. All of it is a linear subspace of `accelerate.Coordinates`,
so that steps of an acceleration stay inside (but for rounding, and for weights that must sum to 1: `Held.project`).

Layer 2.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emfuse._typing import Doubles, Labels
from emfuse.parameters import Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.structures import NotPositiveDefinite, Structure, structure_named

LABEL = re.compile(r"([+-]?)\s*(\d*\.?\d*(?:[eE][+-]?\d+)?)\s*\*?\s*([A-Za-z_]\w*)")
ROUNDS, SETTLED = 500, 1e-14  # of means that go together, whose covariances matter to them: they are found in turn
MOST_PERMUTED = 4  # components of which every order is tried


@dataclass(frozen=True)
class Constraints:
    """What is known about the components of a mixture: one entry a component, or None where nothing is.

    means : sequence of K        None: free; a number, or (D,) of them: fixed; "a", "2a", "-a": linked; data units
    sds : sequence of K          the same for standard deviations, in one dimension; multiples above 0
    covariances : sequence of K  the same for covariances, each in the structure's shape for one component: (D, D), (D,) for
        "diag" or a number for "spherical"; "2a" is twice the covariance "a", where in `sds` it is twice the standard deviation
    weights : sequence of K      None, a number from 0 to 1, or linked
    frozen : sequence of int     components that keep mean and covariance of the start

    Components that start alike stay alike: where means are linked, a start must tell them apart by their covariances.

    Raises TypeError or ValueError that names the argument and the entry; what depends on K and D, when a fit begins.
    """

    means: Sequence[Any] | None = None
    sds: Sequence[Any] | None = None
    covariances: Sequence[Any] | None = None
    weights: Sequence[Any] | None = None
    frozen: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.sds is not None and self.covariances is not None:
            raise ValueError("sds and covariances say the same thing: give one of them")
        for name in ("means", "sds", "covariances", "weights", "frozen"):
            given = getattr(self, name)
            if given is None:
                continue
            if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
                raise TypeError(f"{name} must be a sequence, one entry a component, got {given!r}")
            entries = tuple(given)
            object.__setattr__(self, name, entries)
            if name == "frozen":
                if any(isinstance(k, bool) or not isinstance(k, (int, np.integer)) for k in entries):
                    raise TypeError(f"frozen must be numbers of components, got {list(entries)!r}")
                continue
            for k, entry in enumerate(entries):
                _parsed(entry, f"{name}[{k}]", positive=name != "means")

    def held(self, start: Parameters) -> Held:
        """Return what this means for the mixtures that come after `start`, and are like it in shape."""
        K, D = start.means.shape
        kind = structure_named(start.structure)
        if self.sds is not None and D > 1:
            raise ValueError(f"sds must be None where there are {D} features; use covariances")
        if (self.sds is not None or self.covariances is not None or self.frozen) and kind.name not in (
            "full",
            "diag",
            "spherical",
        ):
            raise ValueError(
                f"covariances can be fixed or linked for structures 'full', 'diag' and 'spherical', got {kind.name!r}; "
                "covariances=['a', 'a', ...] with 'full' is one covariance for all"
            )
        frozen = tuple(int(k) for k in self.frozen or ())
        for k in frozen:
            if not 0 <= k < K:
                raise ValueError(f"frozen must be components from 0 to {K - 1}, got {k}")
        one = kind.shape(1, D)[1:]  # of a component
        as_variance = self.sds is not None
        means = _groups(self.means, "means", K, (D,))
        covariances = _groups(self.sds if as_variance else self.covariances, "sds" if as_variance else "covariances", K, one)
        if as_variance:
            covariances = [(None if value is None else value * value, label, c * c) for value, label, c in covariances]
        for k in frozen:
            means[k] = (start.means[k], None, 1.0)
            covariances[k] = (start.covariances[k], None, 1.0)
        for k, (value, _, _) in enumerate(covariances):
            if value is not None:
                _check_covariance(value, kind, k, D)
        weights = _groups(self.weights, "weights", K, ())
        fixed = [float(value) for value, _, _ in weights if value is not None]
        free = K - len(fixed)
        if any(not 0.0 <= w <= 1.0 for w in fixed) or sum(fixed) > 1.0 + 1e-9 or (not free and abs(sum(fixed) - 1.0) > 1e-9):
            raise ValueError(
                f"weights that are fixed must lie from 0 to 1 and sum to {'1' if not free else '1 at most'}, got {fixed}"
            )
        return Held(kind, _Part.of(means, start.means.shape), _Part.of(covariances, (K, *one)), _Part.of(weights, (K,)))


@dataclass(frozen=True)
class _Part:
    """Means, covariances or weights of K components: each fixed, or a multiple of what its group has in common.

    value : (K, ...)     what is fixed; elsewhere 0
    fixed : (K,) bool
    group : (K,) int64   numbers from 0; -1 where it is fixed
    multiple : (K,)
    """

    value: Doubles
    fixed: Any
    group: Labels
    multiple: Doubles

    @classmethod
    def of(cls, entries: list[tuple[Any, str | None, float]], shape: tuple[int, ...]) -> _Part:
        value, fixed = np.zeros(shape), np.array([given is not None for given, _, _ in entries])
        labels: dict[object, int] = {}
        group = np.full(shape[0], -1)
        for k, (given, label, _) in enumerate(entries):
            if given is not None:
                value[k] = given
            else:
                group[k] = labels.setdefault(k if label is None else label, len(labels))
        return cls(value, fixed, group, np.array([c for _, _, c in entries]))

    @property
    def free(self) -> int:
        """Number of groups."""
        return int(self.group.max(initial=-1)) + 1

    @property
    def nothing(self) -> bool:
        """Whether nothing is held."""
        return bool(self.free == len(self.group))

    def pooled(self, of_component: Doubles) -> Doubles:
        """Return sums over each group, (groups, ...), of something of each component (K, ...)."""
        sums = np.zeros((self.free, *of_component.shape[1:]))
        np.add.at(sums, self.group[~self.fixed], of_component[~self.fixed])
        return sums

    def spread(self, of_group: Doubles) -> Doubles:
        """Return (K, ...): what is fixed, and elsewhere its multiple of the group's."""
        made = self.value.copy()
        free = ~self.fixed
        made[free] = _by(self.multiple[free], of_group.ndim) * of_group[self.group[free]]
        return made


@dataclass(frozen=True)
class Held:
    """Constraints, for mixtures of one shape: `Constraints.held` makes it."""

    structure: Structure
    means: _Part
    covariances: _Part
    weights: _Part

    @property
    def free_parameters(self) -> int:
        """Number of free parameters."""
        K, D = self.means.value.shape
        covariances = (
            self.structure.free_parameters(K, D)
            if self.covariances.nothing
            else self.covariances.free * self.structure.free_parameters(1, D)
        )
        return int(max(0, self.weights.free - 1) + D * self.means.free + covariances)

    def project(self, p: Parameters) -> Parameters:
        """Return the mixture made to hold, and of its structure: fixed values put in, linked ones averaged, weights of sum 1."""
        w = np.maximum(p.weights, 1e-300)
        means = p.means
        if not self.means.nothing:
            share = _by(w * self.means.multiple**2, 2)
            ratio = np.divide(p.means, _by(self.means.multiple, 2))
            means = self.means.spread(self.means.pooled(share * ratio) / self.means.pooled(np.broadcast_to(share, ratio.shape)))
        covariances = p.covariances
        if self.covariances.nothing:
            covariances = self.structure.nearest(covariances, w)
        else:
            ratio = covariances / _by(self.covariances.multiple, covariances.ndim)
            covariances = self._covariances(ratio, w)
        return Parameters.unchecked(self._weights(w), means, covariances, self.structure)

    def orders(self, p: Parameters) -> Iterator[Parameters]:
        """Yield the mixture with its components in other orders, each made to hold: what is held is not the same for all.

        With up to four components these are all orders, with more the one that suits the fixed values best.
        """
        K = p.n_components
        tied = p.covariances.shape == self.structure.shape(K + 1, p.n_features)
        orders = itertools.permutations(range(K)) if K <= MOST_PERMUTED else [self._order(p)]
        for order in (list(order) for order in orders):
            covariances = p.covariances if tied else p.covariances[order]
            yield self.project(Parameters.unchecked(p.weights[order], p.means[order], covariances, self.structure))

    def _order(self, p: Parameters) -> list[int]:
        from scipy.optimize import linear_sum_assignment

        K = p.n_components
        cost = np.zeros((K, K))  # of component j as the k-th
        for k in np.flatnonzero(self.means.fixed):
            cost[:, k] += np.square((p.means - self.means.value[k]) / p.sds.mean(axis=0)).sum(axis=1)
        for k in np.flatnonzero(self.covariances.fixed):
            variances = self._variances(self.covariances.value)[k]
            cost[:, k] += np.square(np.log(p.sds / np.sqrt(variances))).sum(axis=1)
        for k in np.flatnonzero(self.weights.fixed):
            cost[:, k] += np.square(p.weights - self.weights.value[k])
        return [int(j) for j in linear_sum_assignment(cost.T)[1]]

    def estimate(
        self,
        statistics: SufficientStatistics,
        before: Parameters,
        finish: Callable[[Doubles], tuple[Doubles, Doubles]],
    ) -> Parameters:
        """Return the parameters that maximise the expected log-likelihood of the statistics, of those that hold.

        before     what the statistics were swept under
        finish     from scatters, in the form of `second`, to those that covariances are estimated from, and of how many rows

        Means that go together are a mean by precision, so they and covariances are found in turn, each exactly, until they rest.
        """
        origin, mass, first = statistics.origin, statistics.mass, statistics.first
        own = origin + first / mass[:, None]
        means, covariances = own, before.covariances
        linked = bool(((self.means.group[:, None] == self.means.group) & ~self.means.fixed).sum(axis=1).max(initial=0) > 1)
        for _ in range(ROUNDS if linked else 1):
            if not self.means.nothing:
                try:
                    moved = self._means(own, mass, covariances) if linked else self.means.spread(_of_groups(self.means, own))
                except NotPositiveDefinite:
                    break  # a component has collapsed on the way, and whoever factors the covariances says so
                settled = bool(np.all(np.square(moved - means) <= SETTLED**2 * self._variances(covariances)))
                means = moved
            else:
                settled = True
            t = means - origin
            scatter, held = finish(statistics.scatter(t))
            covariances = (
                self.structure.estimate(scatter, held, before=covariances)
                if self.covariances.nothing
                else self._covariances_of(scatter, held)
            )
            if settled:
                break
        return Parameters.unchecked(self._weights(mass), means, covariances, self.structure)

    def free_covariances(self, covariances: Doubles) -> Doubles:
        """Return the covariances with those that are fixed put back."""
        if self.covariances.nothing:
            return covariances
        made = covariances.copy()
        made[self.covariances.fixed] = self.covariances.value[self.covariances.fixed]
        return made

    def _variances(self, covariances: Doubles) -> Doubles:
        K, D = self.means.value.shape
        return self.structure.variances(covariances, K, D)

    def _means(self, own: Doubles, mass: Doubles, covariances: Doubles) -> Doubles:
        """Means by precision: (sum c^2 mass C^-1)^-1 sum c mass C^-1 mean, over a group. Raises NotPositiveDefinite."""
        K, D = own.shape
        P = self.structure.factor(covariances, K, D)[0]
        P = P if P.ndim == 3 else P[:, :, None] * np.eye(D)
        precision = mass[:, None, None] * (P.transpose(0, 2, 1) @ P)
        c = self.means.multiple
        information = self.means.pooled(_by(c * c, 3) * precision)
        pull = self.means.pooled(_by(c, 2) * (precision @ own[:, :, None])[:, :, 0])
        return self.means.spread(np.asarray(np.linalg.solve(information, pull[:, :, None])[:, :, 0], dtype=np.float64))

    def _covariances_of(self, scatter: Doubles, mass: Doubles) -> Doubles:
        if self.structure.name == "spherical":
            scatter = scatter.mean(axis=1)
        return self._covariances(scatter / _by(mass * self.covariances.multiple, scatter.ndim), mass)

    def _covariances(self, ratio: Doubles, mass: Doubles) -> Doubles:
        """The groups' means of each component's covariance over its multiple, by mass."""
        part = self.covariances
        return part.spread(part.pooled(_by(mass, ratio.ndim) * ratio) / _by(part.pooled(mass), ratio.ndim))

    def _weights(self, mass: Doubles) -> Doubles:
        """Each group's share of what the fixed ones leave, in proportion to its mass."""
        part = self.weights
        left = 1.0 - part.value.sum()
        if not part.free:
            return np.asarray(part.value / part.value.sum())
        masses, multiples = part.pooled(mass), part.pooled(part.multiple)
        return part.spread(max(left, 0.0) * masses / masses.sum() / multiples)


def _of_groups(part: _Part, own: Doubles) -> Doubles:
    """What each group has of a component that is alone in it, whatever its multiple: (groups, ...)."""
    return part.pooled(own / _by(part.multiple, own.ndim))


def _by(numbers: Doubles, ndim: int) -> Doubles:
    """Return (K,) numbers as (K, 1, ...), to multiply something of each component with."""
    return numbers.reshape((-1,) + (1,) * (ndim - 1))


def _parsed(entry: Any, where: str, *, positive: bool) -> tuple[Any, str | None, float]:
    """Return (value, None, 1) where it is fixed, (None, label, multiple) where it is linked, (None, None, 1) where it is free."""
    if entry is None:
        return None, None, 1.0
    if isinstance(entry, str):
        match = LABEL.fullmatch(entry.strip())
        if not match:
            raise ValueError(f"{where} must be None, a number, or a letter with a multiple like 'a', '2a' or '-a', got {entry!r}")
        sign, size, label = match.groups()
        multiple = float(size or 1.0) * (-1.0 if sign == "-" else 1.0)
        if multiple == 0.0 or (positive and multiple < 0.0):
            raise ValueError(f"{where} must be a multiple {'above' if positive else 'other than'} 0, got {entry!r}")
        return None, label, multiple
    value = np.asarray(entry)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"{where} must be None, real numbers, or a letter with a multiple like '2a', got {entry!r}")
    value = value.astype(np.float64)
    if np.isnan(value).all() and value.ndim == 0:  # mixtools' NA
        return None, None, 1.0
    if not np.isfinite(value).all():
        raise ValueError(f"{where} must be finite, got {entry!r}")
    return value, None, 1.0


def _groups(entries: Sequence[Any] | None, name: str, K: int, shape: tuple[int, ...]) -> list[tuple[Any, str | None, float]]:
    if entries is None:
        return [(None, None, 1.0)] * K
    if len(entries) != K:
        raise ValueError(f"{name} must have one entry for each of the {K} components, got {len(entries)}")
    made = []
    for k, entry in enumerate(entries):
        value, label, multiple = _parsed(entry, f"{name}[{k}]", positive=name != "means")
        if value is not None:
            if value.size != int(np.prod(shape)):
                raise ValueError(f"{name}[{k}] must have shape {shape}, got {value.shape}")
            value = value.reshape(shape)
            if name == "sds" and not value > 0.0:
                raise ValueError(f"{name}[{k}] must be above 0, got {value.item():g}")
        made.append((value, label, multiple))
    return made


def _check_covariance(value: Doubles, kind: Structure, k: int, D: int) -> None:
    try:
        kind.factor(np.asarray(value)[None], 1, D)
    except ValueError as error:
        raise ValueError(f"covariances[{k}] must be positive definite: {error}") from error
