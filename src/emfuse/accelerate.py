"""Steps longer than EM's, that never lower the log-likelihood.

A sweep at theta gives its log-likelihood and, through the M step, EM's image of it. So a trial point costs nothing if it is kept:
its sweep is the next iteration's. It is kept where it gains at least what EM's own step promises, else EM's step, already
there, is taken: the likelihood never falls, and the trace is as long as the steps.

"emqn" is EM-preconditioned limited-memory BFGS (Jamshidian & Jennrich 1997, QN2; Lange 1995; two-loop recursion of Nocedal 1980).
In coordinates where the complete-data information is the identity, EM's step is a gradient and its Jacobian symmetric, so that a
quasi-Newton matrix may be built from EM's steps alone. "squarem" is SQUAREM S3 (Varadhan & Roland 2008) in the same coordinates.

For few features a step of "emqn" is the build's own, as the M step is; what is written here is the definition. A build keeps its
memory to itself, so where that has to be written down (`emfuse.checkpoint`) the steps are those here.

Layer 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from emfuse import kernels
from emfuse._typing import Doubles
from emfuse.maximise import promised_gain
from emfuse.parameters import FEW_FEATURES, Factors, Parameters
from emfuse.structures import REFINE_BELOW, NotPositiveDefinite, structure_named

WARM_UP = 20  # plain sweeps first: the first steps decide which maximum is climbed, and EM's are the safest
NEAR = 3  # the same from near a maximum, where another climb ended
PAIRS = 10  # steps remembered
RADIUS = 0.5  # standard deviations: no component moves farther at once, unless EM does; without it one start in four collapses
REBASE = 10  # steps after which coordinates are taken about the point reached
CURVATURE = 1e-8  # pairs less curved than that say nothing
LEAST_WEIGHT = 1e-12  # in the metric only
LOOK_BELOW = 1e-6  # nats: in the warm-up, gains above are not looked at closely
MOST_LOG = 300.0  # beyond, exp overflows
CONSTANTS: dict[str, Any] = {  # as a build's own step is told of them
    "pairs": PAIRS,
    "rebase": REBASE,
    "radius": RADIUS,
    "curvature": CURVATURE,
    "least_weight": LEAST_WEIGHT,
    "look_below": LOOK_BELOW,
    "most_log": MOST_LOG,
    "least_left": REFINE_BELOW,
}


@dataclass(frozen=True)
class Step:
    """What an accelerator makes of a point and its image.

    trial : Parameters or None    where to try; None: take EM's step
    promised : float              what EM's own step gains to second order, nats
    asked : float                 what the trial must gain, nats
    remaining : float             the gain that is left up to the maximum, estimated, nats; inf where nothing is known
    settled : bool                whether the estimate is to be trusted: at least three steps remembered, and none of them refused
    """

    trial: Parameters | None
    promised: float
    asked: float = 0.0
    remaining: float = np.inf
    settled: bool = False


class Accelerator(Protocol):
    """Where to go from a point, given its image under EM.

    It is made by (weight, warm_up, portable=...): the rows' total weight; how many plain sweeps are wanted first; and whether its
    `state` will be asked for.
    """

    def step(self, here: Parameters, image: Parameters, gained: float) -> Step:
        """Return the next trial, and what is known about the way that is left; `gained` is what the last step did, nats."""

    def refuse(self) -> None:
        """Take notice that the last trial did not gain what was asked."""

    def state(self) -> dict[str, Any]:
        """Return all that it remembers, as `emfuse.checkpoint` writes it; it was made `portable`."""

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what `state` returned, and nothing else."""


class Coordinates:
    """Mixtures as vectors in which the complete-data information at a base point is the identity.

    With w, mu, P of the base marked 0, and g the weight of a covariance block (w_k; 1 where it is shared; D w_k for a sphere):

        a_k = sqrt(w0_k) log(w_k / w0_k)       m_k = sqrt(w0_k) P0_k (mu_k - mu0_k)
        Q = P P0^-1, lower triangular:         c_ii = -sqrt(2 g) log Q_ii,  c_ij = -sqrt(g) Q_ij for i > j

    Every vector is a mixture, but for overflow. No unit of the data is left in them.
    """

    def __init__(self, base: Parameters):
        self.base, self.kind = base, structure_named(base.structure)
        K, D = base.means.shape
        w = np.maximum(base.weights, LEAST_WEIGHT)
        self.log_w = np.log(np.maximum(base.weights, 1e-300))
        self.root_w = np.sqrt(w)
        P = base.factors.P
        self.flat = P.ndim == 2 or D == 1  # blocks of one variance each
        if self.flat:
            self.P = P.reshape(len(P), -1)
            blocks = self.P.shape
            g = np.ones(blocks) if len(P) < K else np.broadcast_to(w[:, None] * (D if blocks[1] < D else 1), blocks)
            self.root_g = np.sqrt(2.0 * g)
        else:
            self.P, self.L = P, np.linalg.inv(P)
            g = w if len(P) == K else np.ones(1)
            self.rows, self.columns = np.tril_indices(D)
            self.on = self.rows == self.columns
            self.root_g = np.sqrt(g)[:, None] * np.where(self.on, np.sqrt(2.0), 1.0)
        self.cuts = K, K + K * D

    def pack(self, p: Parameters) -> Doubles:
        """Return the vector of a mixture."""
        a = np.log(np.maximum(p.weights, 1e-300)) - self.log_w
        d = p.means - self.base.means
        if self.flat:
            m = self.P * d
            c = np.log(self.P / p.factors.P.reshape(self.P.shape))
        else:
            m = (self.P @ d[:, :, None])[:, :, 0]
            Q = (p.factors.P @ self.L)[:, self.rows, self.columns]
            Q[:, self.on] = np.log(Q[:, self.on])
            c = -Q
        return np.concatenate([self.root_w * a, (self.root_w[:, None] * m).ravel(), (self.root_g * c).ravel()])

    def unpack(self, x: Doubles) -> Parameters | None:
        """Return the mixture of a vector; None where it has none in double precision."""
        K, D = self.base.means.shape
        to_means, to_covariances = self.cuts
        a = self.log_w + x[:to_means] / self.root_w
        m = x[to_means:to_covariances].reshape(K, D) / self.root_w[:, None]
        c = x[to_covariances:].reshape(self.root_g.shape) / self.root_g
        if not (np.isfinite(a).all() and np.isfinite(m).all() and np.abs(c).max() < MOST_LOG):
            return None
        w = np.exp(a - a.max())
        if self.flat:
            means = self.base.means + m / self.P
            covariances = np.square(np.exp(c) / self.P)
        else:
            Q = np.zeros((len(c), D, D))
            Q[:, self.rows, self.columns] = np.where(self.on, np.exp(-c), -c)
            means = self.base.means + (self.L @ m[:, :, None])[:, :, 0]
            L = self.L @ np.linalg.inv(Q)
            covariances = L @ L.transpose(0, 2, 1)
        shaped = covariances.reshape(self.kind.shape(K, D))
        return with_factors(Parameters.unchecked(w / w.sum(), means, shaped, self.kind))

    def size(self, step: Doubles) -> float:
        """The most that a step moves a component, in units of its own spread: a doubled weight counts 0.35."""
        K, D = self.base.means.shape
        to_means, to_covariances = self.cuts
        m = step[to_means:to_covariances].reshape(K, D)
        c = np.abs(step[to_covariances:].reshape(self.root_g.shape) / self.root_g).max()
        return float(
            max(
                0.5 * np.abs(step[:to_means] / self.root_w).max(),
                np.sqrt((np.square(m).sum(axis=1) / np.square(self.root_w)).max()),
                2.0 * c,
            )
        )


def _promised_early(here: Parameters, image: Parameters, weight: float, gained: float) -> float:
    """What EM's step gains; where the last one gained much more than rounding, that will do: to ask takes time."""
    return gained if gained > LOOK_BELOW else promised_gain(here, image, weight)


class Emqn:
    """EM-preconditioned limited-memory BFGS, without a line search.

    weight : float     sum of row weights, to count gains in nats
    warm_up : int      plain sweeps first; 0 is faster, and ends more often at another maximum than EM's
    portable : bool    whether `state` will be asked for: then no step is the build's own
    """

    def __init__(self, weight: float, warm_up: int = WARM_UP, *, portable: bool = False):
        self.weight, self.left = weight, warm_up
        self.of_build: kernels.QuasiNewton | None = None
        self.asked_build = portable
        self.coordinates: Coordinates | None = None
        self.points: list[tuple[Parameters, Parameters]] = []  # the last PAIRS + 1, with their images
        self.vectors: list[tuple[Doubles, Doubles]] = []  # of each: where it is, and EM's step from there
        self.age = 0
        self.had_pairs = False

    def step(self, here: Parameters, image: Parameters, gained: float) -> Step:
        """Return the next trial, and what is known about the way that is left."""
        own = self.build_s_own(here)
        if own is not None:
            return _step_of_build(own, here, image, gained)
        if self.left:
            self.left -= 1
            return Step(None, _promised_early(here, image, self.weight, gained))
        promised = promised_gain(here, image, self.weight)
        coordinates = self._remember(here, image)
        x, f = self.vectors[-1]
        moves = np.diff([x for x, _ in self.vectors], axis=0)
        bends = -np.diff([f for _, f in self.vectors], axis=0)
        products, lengths = np.einsum("ij,ij->i", moves, bends), np.einsum("ij,ij->i", moves, moves)
        bent = np.einsum("ij,ij->i", bends, bends)
        curved = products > CURVATURE * np.sqrt(lengths * bent)
        self.had_pairs = bool(curved.any())
        if len(moves) and products[-1] < 0.0 and lengths[-1] > bent[-1] > 0.0:
            # The log-likelihood is convex along the last step: a saddle is being left, and SQUAREM's length takes it on.
            stretch = float(np.sqrt(lengths[-1] / bent[-1]))
            d = f * stretch
            size = coordinates.size(d)
            if size > RADIUS:
                d *= max(RADIUS / size, 1.0 / stretch)
            return Step(coordinates.unpack(x + d), promised, promised)
        if not self.had_pairs:
            return Step(None, promised)
        d = _two_loop(f, moves[curved], bends[curved], products[curved])
        remaining = 0.5 * self.weight * float(f @ d)
        size = coordinates.size(d)
        if size > RADIUS:
            d *= max(RADIUS / size, min(1.0, float(np.sqrt((f @ f) / (d @ d)))))
        trial = coordinates.unpack(x + d) if remaining > 0.0 else None
        return Step(trial, promised, promised, remaining, settled=len(moves) >= 3 and bool(curved.all()))

    def refuse(self) -> None:
        """Forget the older half of the memory: what it says led astray."""
        if self.of_build is not None:
            self.of_build.refuse()
        if self.had_pairs:
            kept = max(1, len(self.points) // 2)
            self.points, self.vectors = self.points[-kept:], self.vectors[-kept:]

    def state(self) -> dict[str, Any]:
        """Return all that it remembers; vectors are made again from the points."""
        base = None if self.coordinates is None else self.coordinates.base
        points = [list(point) for point in self.points]
        return {"left": self.left, "age": self.age, "had_pairs": self.had_pairs, "base": base, "points": points}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what `state` returned."""
        self.left, self.age, self.had_pairs = state["left"], state["age"], state["had_pairs"]
        self.coordinates = None if state["base"] is None else Coordinates(state["base"])
        self.points = [(here, image) for here, image in state["points"]]
        self.vectors = [self._vectors(*point) for point in self.points]

    def build_s_own(self, p: Parameters) -> kernels.QuasiNewton | None:
        """Return what the build goes by from `p` on, or None where it leaves that to NumPy."""
        if not self.asked_build:
            self.asked_build, self.of_build = True, self._of_build(p)
        return self.of_build

    def _of_build(self, p: Parameters) -> kernels.QuasiNewton | None:
        K, D = p.means.shape
        if D > FEW_FEATURES or p.covariances.size != p.factors.P.size:
            return None
        return kernels.load().quasi_newton(
            form=p.factors.form,
            K=K,
            D=D,
            weight=self.weight,
            warm_up=self.left,
            **CONSTANTS,
        )

    def _remember(self, here: Parameters, image: Parameters) -> Coordinates:
        if self.coordinates is None or self.age == REBASE:
            self.coordinates, self.age = Coordinates(here), 0
            self.vectors = [self._vectors(*point) for point in self.points]
        self.points = [*self.points, (here, image)][-PAIRS - 1 :]
        self.vectors = [*self.vectors, self._vectors(here, image)][-PAIRS - 1 :]
        self.age += 1
        return self.coordinates

    def _vectors(self, here: Parameters, image: Parameters) -> tuple[Doubles, Doubles]:
        assert self.coordinates is not None
        x = self.coordinates.pack(here)
        return x, self.coordinates.pack(image) - x


def _step_of_build(of_build: kernels.QuasiNewton, here: Parameters, image: Parameters, gained: float) -> Step:
    P = here.factors.P
    K, D = here.means.shape
    weights, means, covariances = np.empty(K), np.empty((K, D)), np.empty(here.covariances.shape)
    factors = Factors(means, np.empty(P.shape), np.empty(K))
    trial, promised, remaining, settled = of_build.step(
        here=(here.weights, here.means, P),
        image=(image.weights, image.means, image.factors.P),
        gained=gained,
        weights=weights,
        means=means,
        covariances=covariances,
        P=factors.P,
        log_constant=factors.log_constant,
    )
    made = None
    if trial:
        kind = structure_named(here.structure)
        made = with_factors(Parameters.unchecked(weights, means, covariances, kind, factors if trial == 1 else None))
    return Step(made, promised, promised, remaining, settled)


def with_factors(p: Parameters) -> Parameters | None:
    """Return the mixture, its factors made; None where it has none."""
    try:
        p.factors  # noqa: B018  raises
    except NotPositiveDefinite:
        return None
    return p


def _two_loop(f: Doubles, moves: Doubles, bends: Doubles, products: Doubles) -> Doubles:
    """The quasi-Newton step from a gradient f, the first matrix being the identity (Nocedal 1980)."""
    d = f.copy()
    shares = np.empty(len(moves))
    for i in range(len(moves) - 1, -1, -1):
        shares[i] = (moves[i] @ d) / products[i]
        d -= shares[i] * bends[i]
    for i in range(len(moves)):
        d += (shares[i] - (bends[i] @ d) / products[i]) * moves[i]
    return d


class Squarem:
    """SQUAREM S3: two EM steps, then one along the parabola through the three points. Needs no memory.

    weight : float    sum of row weights, to count gains in nats
    portable : bool   says nothing here
    """

    def __init__(self, weight: float, warm_up: int = WARM_UP, *, portable: bool = False):
        self.weight, self.left = weight, warm_up
        self.start: Parameters | None = None  # of a cycle
        self.most, self.at_most = 1.0, False

    def step(self, here: Parameters, image: Parameters, gained: float) -> Step:
        """Return the next trial, and what is known about the way that is left."""
        if self.left:
            self.left -= 1
            return Step(None, _promised_early(here, image, self.weight, gained))
        promised = promised_gain(here, image, self.weight)
        start, self.start = self.start, here if self.start is None else None
        if start is None:
            return Step(None, promised)
        coordinates = Coordinates(start)
        x0, x1, x2 = coordinates.pack(start), coordinates.pack(here), coordinates.pack(image)
        r, v = x1 - x0, x2 - 2.0 * x1 + x0
        rr, vv = float(r @ r), float(v @ v)
        length = min(self.most, max(1.0, float(np.sqrt(rr / vv)) if vv > 0.0 else 1.0))
        self.at_most = length == self.most
        if self.at_most:
            self.most *= 4.0
        while length > 1.01 and coordinates.size(2.0 * (length - 1.0) * r + (length * length - 1.0) * v) > RADIUS:
            length = 1.0 + 0.7 * (length - 1.0)
        if length < 1.01:
            return Step(None, promised)
        return Step(coordinates.unpack(x0 + 2.0 * length * r + length * length * v), promised)

    def refuse(self) -> None:
        """Reach less far from now on."""
        if self.at_most:
            self.most = max(1.0, self.most / 16.0)

    def state(self) -> dict[str, Any]:
        """Return all that it remembers."""
        return {"left": self.left, "start": self.start, "most": self.most, "at_most": self.at_most}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember what `state` returned."""
        self.left, self.start, self.most, self.at_most = (state[name] for name in ("left", "start", "most", "at_most"))


ACCELERATORS: dict[str, Callable[..., Accelerator]] = {"emqn": Emqn, "squarem": Squarem}
