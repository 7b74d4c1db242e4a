"""The loop: sweep, M step, ask the rule; over few rows and features by the build's own, without Python in between.

Layer 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import numpy as np

from emfuse import engines, kernels, stopping
from emfuse._typing import Doubles
from emfuse.accelerate import ACCELERATORS, WARM_UP, Accelerator, Emqn, with_factors
from emfuse.collapse import Repair
from emfuse.constraints import Constraints
from emfuse.engines import POOLED_FROM, InMemory, cut
from emfuse.maximise import CollapsedComponent, Floor, maximise, step, what_is_plain
from emfuse.parameters import FEW_FEATURES, Factors, Parameters
from emfuse.statistics import SufficientStatistics
from emfuse.stopping import Limit, Rule, Trace
from emfuse.structures import EPS, STRUCTURES, structure_named

DOUBLE_NOISE = 1e-14  # nats a row: rounding of a log-likelihood in float64
PRIOR = 1e-8  # a floor this high is meant to be felt, and a component that rests on it has not collapsed

Watch = Callable[[Parameters, Trace], object]


class Climb:
    """One fit from a start, which `run` takes up to where a rule says stop.

    Its arguments are those of `emfuse.em`; what it has come to:

    parameters, statistics    a mixture, and the sums of a sweep under it
    trace : Trace             what is maximised after each sweep, since the start or the last repair
    keep : callable or None   (weights, means, covariances, seconds), an entry for each sweep: where `watch` only keeps what it
        sees, a build's own loop tells it here, afterwards
    watch : callable or None  (parameters, trace) -> a true answer stops, after each sweep; it may ask for `state` where the climb
        is `portable`, which then is Python's all the way
    """

    statistics: SufficientStatistics
    accelerator: Accelerator | None
    image: Parameters | None  # of `parameters` under EM, once it is known

    def __init__(
        self,
        engine: Any,
        start: Parameters,
        *,
        stop: Rule | int,
        repair: Repair,
        reg_covar: float = 0.0,
        variance_floor: float = 0.0,
        spare_mass: float = 0.0,
        acceleration: str | None = None,
        warm_up: int = WARM_UP,
        constraints: Constraints | None = None,
        watch: Watch | None = None,
        portable: bool = False,
    ):
        if acceleration not in (None, "auto", *ACCELERATORS):
            raise ValueError(
                f"acceleration must be one of 'auto', {', '.join(map(repr, ACCELERATORS))} or None, got {acceleration!r}"
            )
        if acceleration is not None and reg_covar > 0.0:
            raise ValueError(
                f"acceleration must be None where reg_covar is above 0, got {acceleration!r} and {reg_covar:g}: a step that adds "
                "to the variances maximises nothing that could be watched. Use variance_floor, which can be."
            )
        if isinstance(warm_up, bool) or not isinstance(warm_up, (int, np.integer)) or warm_up < 0:
            raise ValueError(f"warm_up must be a whole number of at least 0, got {warm_up!r}")
        if not isinstance(start, Parameters):
            raise TypeError(f"start must be emfuse.Parameters, got {type(start).__name__}; `emfuse.fit` finds a start by itself")
        for name, number in (("reg_covar", reg_covar), ("variance_floor", variance_floor)):
            if not 0.0 <= number < np.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {number!r}")
        self.engine, self.rule, self.repair, self.watch = engine, stopping.as_rule(stop), repair, watch
        self.start, self.portable = start, portable
        self.keep: Callable[[Doubles, Doubles, Doubles, Doubles], None] | None = None
        self._saved: dict[str, Any] | None = None
        self.acceleration, self.warm_up = "emqn" if acceleration == "auto" else acceleration, int(warm_up)
        self.reg_covar, self.spare_mass = reg_covar, spare_mass
        self.floor = _floor(engine, variance_floor, repair.policy)
        self.structure = structure_named(start.structure)
        self.held = None if constraints is None else constraints.held(start)
        if self.held is not None and repair.policy in ("restart", "drop"):
            repair.policy = "raise"  # a component that is named in a constraint cannot be done without
        self.parameters = start if self.held is None else self.held.project(start)
        self.parameters.factors  # noqa: B018  before the clock starts: the first ones load SciPy
        self.trace = Trace(weight=engine.weight, parameters=start)
        self.noise = float(getattr(engine, "noise", DOUBLE_NOISE))

    @property
    def distance(self) -> float:
        """How far below the maximum it is, estimated, nats; inf where nothing is known."""
        known = np.isfinite(self.trace.remaining)  # else an acceleration has not begun, or there is none
        return max(0.0, self.trace.remaining if known else stopping.aitken(self.trace))

    def run(self) -> str:
        """Climb until the rule says so, mending what collapses, and return the reason."""
        while True:
            try:
                return self._by_the_build() or self._by_python()
            except CollapsedComponent as collapse:
                self.parameters = self.trace.parameters = self.repair.after(collapse, self.parameters)
                self.trace.clear()  # what follows is another climb
                self.trace.previous = None

    def state(self) -> dict[str, Any]:
        """Return what it takes to go on from here in another process, as `emfuse.checkpoint` writes it; for a `watch` to ask."""
        return {
            "start": self.start,
            "parameters": self.parameters,
            "previous": self.trace.previous,
            "image_is_known": self.image is not None,
            "trace": np.array(self.trace),
            "sweeps": self.trace.sweeps,
            "seconds": time.monotonic() - self.trace.started,
            "accelerator": None if self.accelerator is None else self.accelerator.state(),
            "repair": self.repair.state(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Let `run` go on from where `state` was asked for: from there every number is as it would have been, to the last bit.

        One more sweep, which is not counted, brings back the statistics. `run` raises ValueError where it shows that the rows are
        others: where the log-likelihood is not what it was.
        """
        self._saved = state
        self.parameters = self.trace.parameters = state["parameters"]
        self.trace[:] = state["trace"].tolist()
        self.trace.previous = state["previous"]
        self.trace.sweeps = state["sweeps"] - 1  # the last of them is done again
        self.trace.started = time.monotonic() - state["seconds"]
        self.repair.restore(state["repair"])

    def _by_python(self) -> str:
        """EM from `parameters`, which it moves; the definition."""
        trace = self.trace
        self.accelerator = None
        if self.acceleration is not None:
            self.accelerator = ACCELERATORS[self.acceleration](trace.weight, self.warm_up, portable=self.portable)
        self.statistics, self.image = self._sweep(self.parameters), None
        while True:
            answer = self._notice() if self._saved is None else self._go_on()
            trial, asked = None, 0.0
            if self.accelerator is not None:  # rules may ask it how much is left
                image = self._known_image()
                ahead = self.accelerator.step(self.parameters, image, trace[-1] - trace[-2] if len(trace) > 1 else np.inf)
                trial, asked = self._inside(ahead.trial), ahead.asked
                trace.promised, trace.remaining, trace.settled = ahead.promised, ahead.remaining, ahead.settled
            reason = self.rule(trace)
            if answer and not reason:
                reason = Limit(answer if isinstance(answer, str) else "the callback asked to stop")
            if reason:
                return reason
            image = self._known_image()
            trace.previous = self.parameters
            if trial is not None and self.accelerator is not None:
                tried = self._sweep(trial)
                if self._value(trial, tried) >= trace[-1] + asked - trace.rounding:
                    with suppress(CollapsedComponent):  # where EM itself may not be going
                        self.image = self._image(trial, tried)
                        trace.parameters = self.parameters = trial
                        self.statistics = tried
                        continue
                self.accelerator.refuse()
            trace.parameters = self.parameters = image
            self.statistics, self.image = self._sweep(image), None

    def _known_image(self) -> Parameters:
        """EM's image of `parameters`, made once."""
        if self.image is None:
            self.image = self._image(self.parameters, self.statistics)
        return self.image

    def _notice(self) -> object:
        """Put the last sweep on record, and return what whoever watches says to it."""
        trace = self.trace
        trace.append(self._value(self.parameters, self.statistics))
        trace.rounding = self._rounding()
        return self.watch(self.parameters, trace) if self.watch is not None else None

    def _go_on(self) -> object:
        """The same where the sweep was the last before a saved state, so that it is on record and has been shown."""
        trace, saved = self.trace, cast(dict[str, Any], self._saved)
        self._saved = None
        value = self._value(self.parameters, self.statistics)
        if not abs(value - trace[-1]) <= self._rounding():
            raise ValueError(
                f"the mixture in the checkpoint has log-likelihood {value:.9g} on these rows, and had {trace[-1]:.9g} when it "
                "was written: the rows or their weights are others. Give the same, or delete the checkpoint to begin anew."
            )
        trace[-1] = value  # the same to the last bit, unless another build runs
        trace.rounding = self._rounding()
        if saved["image_is_known"]:
            self._known_image()
        trace.sweeps = saved["sweeps"]
        if self.accelerator is not None:
            self.accelerator.restore(saved["accelerator"])
        return None

    def _sweep(self, p: Parameters, origin: Doubles | None = None) -> SufficientStatistics:
        self.trace.sweeps += 1
        made: SufficientStatistics = self.engine.sweep(p.factors, origin=origin)
        return made

    def _value(self, p: Parameters, s: SufficientStatistics) -> float:
        """What is maximised, nats."""
        return s.log_likelihood if self.floor is None else s.log_likelihood - self.floor.penalty(p.factors)

    def _image(self, p: Parameters, s: SufficientStatistics) -> Parameters:
        """The M step; with sums taken again about the new means where these are far from the old."""
        rules: dict[str, Any] = {
            "reg_covar": self.reg_covar,
            "spare_mass": self.spare_mass,
            "floor": self.floor,
            "held": self.held,
        }
        image, far = step(s, self.structure, before=p, **rules)
        return maximise(self._sweep(p, image.means), self.structure, before=p, **rules) if far else image

    def _inside(self, trial: Parameters | None) -> Parameters | None:
        """A trial made to hold, and to have the structure: it does but for rounding, or to first order."""
        if trial is None or (self.held is None and self.structure.name in STRUCTURES):
            return trial
        if self.held is not None:
            return with_factors(self.held.project(trial))
        covariances = self.structure.nearest(trial.covariances, trial.weights)
        return with_factors(Parameters.unchecked(trial.weights, trial.means, covariances, self.structure))

    def _rounding(self) -> float:
        """How much of the trace's last entry may be rounding, nats: of the sum, of rows, and by near-collinear features."""
        p, amplified = self.parameters, 0.0
        if p.factors.P.ndim == 3 and p.n_features > 1:
            K, D = p.means.shape
            amplified = float(np.einsum("kij,kj->ki", np.broadcast_to(np.abs(p.factors.P), (K, D, D)), p.sds).max())
        return 1e-13 * abs(self.trace[-1]) + (self.noise + 4.0 * EPS * amplified) * self.trace.weight

    def _by_the_build(self) -> str | None:
        """The same in compiled code, for few rows and features; None where the rest, or all of it, is left to Python.

        `parameters` and the trace are then what has been come to.
        """
        engine, trace, p = self.engine, self.trace, self.parameters
        if self.portable or self.held is not None or not _is_small(engine, p):
            return None
        if self.watch is not None and self.keep is None:
            return None
        numbers = stopping.numbers_of(self.rule)
        own = Emqn(trace.weight, self.warm_up).build_s_own(p) if self.acceleration == "emqn" else None
        if numbers is None or (self.acceleration is not None and own is None):
            return None
        engine.check_features(p.factors)
        if numbers["most_sweeps"]:
            numbers["most_sweeps"] = max(1, numbers["most_sweeps"] - trace.sweeps)
        mixture = (p.weights, p.means, p.covariances, p.factors.P, p.factors.log_constant)
        weights, means, covariances, P, log_constant = (array.copy() for array in mixture)
        s = SufficientStatistics.zeros(means, p.factors.form)
        record: list[Doubles] | None = None if self.keep is None else []
        done = kernels.load().climb(
            structure=self.structure.name,
            X=engine.X,
            sample_weight=engine.sample_weight,
            weight=engine.weight,
            group=len(engine.X),
            noise=engine.noise,
            weights=weights,
            means=means,
            covariances=covariances,
            P=P,
            log_constant=log_constant,
            mass=s.mass,
            first=s.first,
            second=s.second,
            **what_is_plain(self.reg_covar, self.spare_mass, self.floor),
            floor_constant=0.0 if self.floor is None else self.floor.constant,
            **numbers,
            accelerator=own,
            history=record,
        )
        if done is None:
            return None
        stopped, values, sweeps, trace.promised, trace.remaining, trace.settled, s.log_likelihood = done
        s.weight = engine.weight
        trace[:] = values
        trace.sweeps += sweeps
        if not stopped or len(values) > 1:  # else no step was made, and the start itself is the answer
            trace.parameters = self.parameters = Parameters.unchecked(
                weights, means, covariances, self.structure, Factors(means, P, log_constant)
            )
        reason = None
        if stopped:
            self.statistics = s
            trace.rounding = self._rounding()
            reason = self.rule(trace)
            if reason is None:  # the build saw it an eps nearer
                trace.pop()
        if self.keep is not None and record:
            T, (K, D) = len(trace), means.shape
            w, mu, C = np.split(record[0].reshape(-1, K + K * D + covariances.size)[:T], [K, K + K * D], axis=1)
            self.keep(w, mu.reshape(T, K, D), C.reshape(T, *covariances.shape), record[1][:T])
        return reason


def _is_small(engine: Any, p: Parameters) -> bool:
    """Whether a sweep is one group, in float64, of a mixture that is plain arithmetic."""
    if type(engine) is not InMemory or p.n_features > FEW_FEATURES:
        return False
    if p.structure == "tied" and p.n_features >= POOLED_FROM:
        return False
    in_double = engine.X.dtype == np.float64 or len(engine.X) <= engines.GROUP_ROWS
    return in_double and len(cut(len(engine.X), p.factors)) == 1


def _floor(engine: Any, variance_floor: float, policy: str) -> Floor | None:
    if variance_floor == 0.0:
        if policy == "floor":
            raise ValueError("variance_floor must be above 0 for on_collapse='floor', got 0; 1e-6 is a share to begin with")
        return None
    if not hasattr(engine, "moments"):
        raise TypeError(
            f"variance_floor must be 0 for a {type(engine).__name__}, got {variance_floor:g}: for a floor relative to the data "
            "an engine needs `moments`, the mean and variance of each feature"
        )
    return Floor(engine.moments[1], variance_floor * engine.weight, holds=policy == "floor" or variance_floor >= PRIOR)
