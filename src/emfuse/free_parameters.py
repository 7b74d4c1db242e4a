"""The vector of free parameters of a mixture: what is left to estimate once structure and constraints have had their say.

The information, standard errors and intervals speak of this vector, by the names of its entries. Its units are powers of two near
the data's standard deviations, so that data of any scale have the same matrices.

Layer 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emfuse._typing import AnyArray, Doubles, Labels
from emfuse.constraints import Held
from emfuse.parameters import Parameters
from emfuse.structures import Structure, structure_named


@dataclass(frozen=True)
class Groups:
    """What K components have of one kind, means or covariances: each fixed (-1), or a multiple of its group's first.

    group : (K,) int64
    multiple : (K,)
    """

    group: Labels
    multiple: Doubles

    @classmethod
    def of(cls, K: int, part: Any = None, shared: bool = False) -> Groups:
        """One group a component, or one for all, or those of a constraint."""
        if part is None or part.nothing:
            return cls(np.zeros(K, dtype=np.int64) if shared else np.arange(K), np.ones(K))
        multiple = np.ones(K)
        for k in np.flatnonzero(~part.fixed):
            multiple[k] = part.multiple[k] / part.multiple[int((part.group == part.group[k]).argmax())]
        return cls(part.group, multiple)

    @cached_property
    def first(self) -> list[int]:
        """Of each group."""
        return [int((self.group == g).argmax()) for g in range(int(self.group.max(initial=-1)) + 1)]


@dataclass(frozen=True)
class Free:
    """The vector of free parameters: weights of all but the last free component, means, then distinct entries of covariances.

    Of what goes together the first component's is the parameter. In units of the data: `units`; all linear maps here are from
    the vector in these units to means and covariances in these units.

    kind : Structure
    K, D : int
    of_weights : (K, p_w)           derivatives of the weights
    first_weights : list of int     whose weights are parameters
    means, covariances : Groups
    feature_units : (D,)            powers of two near the components' standard deviations, data units
    features : (D,) of str or int   what they are called: 0, 1, ... where nobody said
    """

    kind: Structure
    K: int
    D: int
    of_weights: Doubles
    first_weights: list[int]
    means: Groups
    covariances: Groups
    feature_units: Doubles
    features: tuple[str | int, ...]

    @classmethod
    def of(cls, p: Parameters, held: Held | None, features: Sequence[str] | None = None) -> Free:
        """The free parameters of a mixture under constraints, its features called by their names."""
        K, D = p.means.shape
        kind = structure_named(p.structure)
        groups = Groups.of(K, None if held is None else held.weights)
        sizes = np.zeros(len(groups.first))
        np.add.at(sizes, groups.group[groups.group >= 0], groups.multiple[groups.group >= 0])
        of_weights = np.zeros((K, max(0, len(sizes) - 1)))
        for k in np.flatnonzero(groups.group >= 0):
            if groups.group[k] < len(sizes) - 1:
                of_weights[k, groups.group[k]] = groups.multiple[k]
            else:  # the last group has what the others leave
                of_weights[k] = -groups.multiple[k] * sizes[:-1] / sizes[-1]
        return cls(
            kind=kind,
            K=K,
            D=D,
            of_weights=of_weights,
            first_weights=groups.first[:-1],
            means=Groups.of(K, None if held is None else held.means),
            covariances=Groups.of(K, None if held is None else held.covariances, kind.shared),
            feature_units=np.exp2(np.round(0.5 * np.log2(p.weights @ p.variances))),
            features=tuple(range(D)) if features is None else tuple(features),
        )

    @cached_property
    def entries(self) -> AnyArray:
        """Row and column of each distinct entry of a component's covariance, (m, 2)."""
        if self.kind.form == "full":
            return np.argwhere(np.tri(self.D, dtype=bool))
        return np.repeat(np.arange(1 if self.spheres else self.D)[:, None], 2, axis=1)

    @property
    def spheres(self) -> bool:
        """Whether a component has one number for all variances."""
        return len(self.kind.shape(self.K, self.D)) == 1

    @cached_property
    def starts(self) -> tuple[int, int, int]:
        """Where means begin in the vector, where covariances, and where it ends."""
        means = self.of_weights.shape[1]
        covariances = means + self.D * len(self.means.first)
        return means, covariances, covariances + len(self.entries) * len(self.covariances.first)

    def columns(self, k: int, of: str) -> slice:
        """Where component k's "means" or "covariances" are in the vector. It must not be fixed."""
        begin, size = (self.starts[0], self.D) if of == "means" else (self.starts[1], len(self.entries))
        g = int(getattr(self, of).group[k])
        return slice(begin + g * size, begin + (g + 1) * size)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the parameters are called."""
        made = [f"weight[{k}]" for k in self.first_weights]
        made += [self.mean_name(k, d) for k in self.means.first for d in range(self.D)]
        return (*made, *(self.covariance_name("covariance", k, i, j) for k in self.covariances.first for i, j in self.entries))

    def mean_name(self, k: int, d: int) -> str:
        """Like mean[k,d]; without d where there is one feature."""
        return _name("mean", k, *[self.features[d]] * (self.D > 1))

    def covariance_name(self, what: str, k: int, i: int, j: int) -> str:
        """Like sd[k,i] or covariance[k,i,j]; without k, i or j where it is the same for all."""
        where: list[str | int] = [] if self.kind.shared else [k]
        if self.D > 1 and not self.spheres:
            where += [self.features[d] for d in ((i,) if what == "sd" or self.kind.form == "diag" else (i, j))]
        return _name("variance" if what == "covariance" and (self.D == 1 or self.kind.form == "diag") else what, *where)

    @cached_property
    def entry_units(self) -> Doubles:
        """Units of a component's entries, (m,), data units squared; of a sphere the largest."""
        if self.spheres:
            return np.asarray(np.square(self.feature_units.max(keepdims=True)))
        return np.asarray(self.feature_units[self.entries].prod(axis=1))

    @cached_property
    def units(self) -> Doubles:
        """Units of the vector, (p,): 1 for weights, data units for means, their squares for covariances."""
        means = np.tile(self.feature_units, len(self.means.first))
        covariances = np.tile(self.entry_units, len(self.covariances.first))
        return np.concatenate([np.ones(self.starts[0]), means, covariances])

    def entries_of(self, covariances: Doubles) -> Doubles:
        """Distinct entries of each component's covariance, (..., K, m), from the structure's array with any axes before."""
        shape = self.kind.shape(self.K, self.D)
        before = covariances.shape[: covariances.ndim - len(shape)]
        if self.kind.form == "full":
            entries = covariances[..., self.entries[:, 0], self.entries[:, 1]]
            return np.broadcast_to(entries[..., None, :], (*before, self.K, len(self.entries))) if len(shape) == 2 else entries
        return covariances[..., None] if self.spheres else covariances

    def array_of(self, entries: Doubles) -> Doubles:
        """The structure's array from each component's entries, (K, m)."""
        if self.kind.form != "full":
            return np.asarray(entries[:, 0] if self.spheres else entries)
        made = np.empty((self.K, self.D, self.D))
        rows, columns = self.entries.T
        made[:, rows, columns] = made[:, columns, rows] = entries
        return made if len(self.kind.shape(self.K, self.D)) == 3 else made[0]

    def vector(self, weights: Doubles, means: Doubles, covariances: Doubles) -> Doubles:
        """The vectors (..., p) of mixtures, in `units`."""
        entries = self.entries_of(covariances)[..., self.covariances.first, :] / self.entry_units
        parts = [weights[..., self.first_weights]]
        for part in (means[..., self.means.first, :] / self.feature_units, entries):
            parts.append(part.reshape(*part.shape[:-2], -1))
        return np.concatenate(parts, axis=-1)

    def jacobian(self, p: Parameters) -> Doubles:
        """From the vector, in `units`, to the mixture's own coordinates, (K q, p).

        Of each component: log weight; a with mean L a; the distinct entries of E with covariance L (I + E) L'.
        """
        P = p.factors.P
        m = len(self.entries) if self.kind.form == "full" else self.D
        q = 1 + self.D + m
        J = np.zeros((self.K, q, self.starts[2]))
        for k in range(self.K):
            J[k, 0, : self.starts[0]] = self.of_weights[k] / p.weights[k]
            own = (P[k] if len(P) == self.K else P[0]) * self.feature_units
            if P.ndim == 2:
                own = np.diag(np.broadcast_to(own, self.D))
            if self.means.group[k] >= 0:
                J[k, 1 : 1 + self.D, self.columns(k, "means")] = self.means.multiple[k] * own
            if self.covariances.group[k] >= 0:
                J[k, 1 + self.D :, self.columns(k, "covariances")] = self.covariances.multiple[k] * self._whitened(own)
        return J.reshape(self.K * q, -1)

    def _whitened(self, P: Doubles) -> Doubles:
        """From a component's entries to the distinct entries of E = P C P', one column for each entry."""
        if self.kind.form == "full":
            B = symmetric(self.D)
            return np.asarray((P @ B @ P.T)[:, self.entries[:, 0], self.entries[:, 1]].T)
        squares = np.square(np.diagonal(P))
        if not self.spheres:
            return np.diag(squares)
        return np.asarray((squares * self.entry_units[0] / np.square(self.feature_units))[:, None])


def _name(what: str, *where: str | int) -> str:
    return f"{what}[{','.join(map(str, where))}]" if where else what


def symmetric(D: int) -> Doubles:
    """The symmetric matrices with one distinct entry 1, row by row of the lower triangle, (D (D + 1) / 2, D, D)."""
    rows, columns = np.tril_indices(D)
    B = np.zeros((len(rows), D, D))
    at = np.arange(len(rows))
    B[at, rows, columns] = B[at, columns, rows] = 1.0
    return B
