"""What to do about a component that has collapsed: give up, put it somewhere else, go on without it, or let it rest on the floor.

A likelihood of Gaussians has no upper bound: a component that shrinks onto one row, or onto equal values, raises it forever,
and EM follows. Such a "maximum" says nothing about the data. `emfuse.maximise` finds that it has come to this, and where.

Layer 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emfuse.maximise import MOST_FLOOR, CollapsedComponent, Floor
from emfuse.parameters import Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.structures import structure_named

POLICIES = ("raise", "restart", "drop", "floor")
RESTARTS = 3  # of components of one fit; then they are dropped


class CollapseWarning(UserWarning):
    """A fit ended with fewer components than asked for, with one on the floor of its variance, or not from the start given."""


class Repair:
    """Mixtures to go on with after a collapse, and a record of what was done.

    policy : str                        "raise", "restart", "drop" or "floor"
    random : numpy Generator or None    where a component that is restarted goes; None: the same place every time
    done : list of str                  a sentence for each repair
    """

    def __init__(self, policy: str, random: np.random.Generator | None = None):
        if policy not in POLICIES:
            raise ValueError(f"on_collapse must be one of {', '.join(map(repr, POLICIES))}, got {policy!r}")
        self.policy, self.done = policy, list[str]()
        self._random, self._left = random, RESTARTS
        self._first: CollapsedComponent | None = None

    def after(self, collapse: CollapsedComponent, before: Parameters) -> Parameters:
        """Return a mixture to go on from, where the M step after `before` collapsed. Raises the first one where there is none."""
        self._first = self._first or collapse
        k = collapse.component
        if self.policy in ("raise", "floor") or k is None or before.n_components == 1:
            raise self._first
        where = "without a row" if collapse.feature is None else f"on {collapse.mass:.3g} rows, in feature {collapse.feature}"
        rest = _without(before, k)
        if self.policy == "restart" and self._left:
            self._left -= 1
            self.done.append(f"component {k} of {before.n_components} collapsed {where}, and was started again")
            self._random = np.random.default_rng(0) if self._random is None else self._random
            return _with_another(rest, before, k, self._random)
        self.done.append(f"component {k} of {before.n_components} collapsed {where}, and was dropped")
        return rest

    def state(self) -> dict[str, Any]:
        """Return the record and what it takes to go on with it, as `emfuse.checkpoint` writes it."""
        first = self._first
        return {
            "done": list(self.done),
            "left": self._left,
            "random": None if self._random is None else self._random.bit_generator.state,
            "first": None if first is None else [str(first), first.component, first.mass, first.feature],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the record of which `state` was returned."""
        self.done, self._left = list(state["done"]), state["left"]
        if state["random"] is not None:
            self._random = np.random.default_rng(0)
            self._random.bit_generator.state = state["random"]
        if state["first"] is not None:
            message, component, mass, feature = state["first"]
            self._first = CollapsedComponent(message, component=component, mass=mass, feature=feature)

    def look(self, parameters: Parameters, statistics: SufficientStatistics, floor: Floor | None) -> list[str]:
        """Return a sentence for each thing that whoever reads the fit must know: components dropped, or resting on the floor."""
        told = [sentence for sentence in self.done if sentence.endswith("dropped")]
        if self.policy == "floor" and floor is not None:
            shares = floor.shares(parameters.factors, statistics.mass)
            for k in np.flatnonzero(shares.sum(axis=1) > MOST_FLOOR):
                told.append(
                    f"component {k} rests on the floor of its variance in feature {int(shares[k].argmax())}, "
                    f"with {statistics.mass[k]:.3g} rows: its share of the log-likelihood says nothing about the data"
                )
        return told


def _without(p: Parameters, k: int) -> Parameters:
    kind = structure_named(p.structure)
    K, D = p.means.shape
    others = np.arange(K) != k
    w = p.weights[others]
    covariances = p.covariances if kind.shape(K, D) == kind.shape(K - 1, D) else p.covariances[others]
    total = w.sum()
    weights = w / total if total > 0.0 else np.full(K - 1, 1.0 / (K - 1))
    return Parameters.unchecked(weights, p.means[others], covariances.copy(), kind)


def _with_another(rest: Parameters, before: Parameters, k: int, random: np.random.Generator) -> Parameters:
    """Return `before` with component k anew: a K-th of the weight, at a point drawn from the others, as wide as they are."""
    kind = structure_named(rest.structure)
    K, D = before.means.shape
    means = before.means.copy()
    means[k] = rest.sample(1, random)[0][0]
    weights = np.insert(rest.weights * (1.0 - 1.0 / K), k, 1.0 / K)
    covariances = before.covariances.copy()
    if kind.shape(K, D) != kind.shape(K - 1, D):
        covariances[k] = np.tensordot(rest.weights, rest.covariances, axes=1)
    return Parameters.unchecked(weights, means, covariances, kind)
