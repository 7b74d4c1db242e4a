"""When a fit stops. A rule is any callable: trace in, reason (a sentence) or None out.

The trace that a rule gets is a list of total log-likelihoods, one a sweep, first the start's; it also carries what else a rule
may want to know (`Trace`). A plain sentence from a rule of your own counts as convergence; a rule that gives up returns
`Limit("...")`.

Layer 2.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from emfuse.maximise import promised_gain
from emfuse.parameters import Parameters


class Limit(str):
    """A reason to stop that is not convergence."""

    __slots__ = ()


class Trace(list[float]):
    """Total log-likelihood after each sweep, nats; and what a rule may ask besides.

    weight : float             sum of row weights; the number of rows where they weigh 1
    parameters : Parameters    what the last entry scores; `previous` are those before it, or None
    sweeps : int               walks over the data so far, those of refused trials included
    promised : float           what the next EM step gains, to second order, nats; inf where nobody has looked (plain EM)
    remaining : float          how much is left up to the maximum, as an acceleration estimates it, nats; inf where it cannot
    settled : bool             whether that estimate is to be trusted
    rounding : float           how much of an entry may be rounding, nats
    started : float            time.monotonic() when the fit began, seconds
    """

    def __init__(
        self,
        entries: Iterable[float] = (),
        *,
        weight: float = 1.0,
        parameters: Parameters | None = None,
        previous: Parameters | None = None,
    ):
        super().__init__(entries)
        self.weight, self.parameters, self.previous = weight, parameters, previous
        self.sweeps = len(self)
        self.promised = self.remaining = float("inf")
        self.settled, self.rounding = False, 0.0
        self.started = time.monotonic()


Rule = Callable[[Trace], str | None]


@dataclass(frozen=True)
class GainBelow:
    """Stop when a sweep changes the log-likelihood by less than `nats`, strictly; in all, or with `per_row` for each row."""

    nats: float
    per_row: bool = False

    def __post_init__(self) -> None:
        if not self.nats >= 0:
            raise ValueError(f"nats must be at least 0, got {self.nats!r}")

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        if len(trace) < 2:
            return None
        gain = trace[-1] - trace[-2]
        if self.per_row:
            gain /= trace.weight
        if abs(gain) < self.nats:
            return (
                f"the last sweep changed the log-likelihood by {gain:.3g} nats{' a row' * self.per_row}, less than {self.nats:g}"
            )
        return None


@dataclass(frozen=True)
class RelativeGainBelow:
    """Stop when |change| / (1 + |log-likelihood|) of a sweep is less than `share`: mclust's rule."""

    share: float

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        if len(trace) < 2:
            return None
        change = abs(trace[-1] - trace[-2]) / (1.0 + abs(trace[-1]))
        return f"the log-likelihood changed by {change:.3g} of itself, less than {self.share:g}" if change < self.share else None


@dataclass(frozen=True)
class ParametersWithin:
    """Stop when no weight moves by `share` or more, and no mean or standard deviation by that many standard deviations."""

    share: float

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        new, old = getattr(trace, "parameters", None), getattr(trace, "previous", None)
        if new is None or old is None:
            return None
        sds = new.sds
        change = max(
            np.abs(new.weights - old.weights).max(),
            (np.abs(new.means - old.means) / sds).max(),
            (np.abs(sds - old.sds) / sds).max(),
        )
        if change < self.share:
            return f"weights, means and standard deviations moved by {change:.3g} at most, less than {self.share:g}"
        return None


@dataclass(frozen=True)
class GradientBelow:
    """Stop when the gradient of a row's mean log-likelihood is shorter than `norm`, a number without units.

    It is measured by the complete-data information, in which EM's step is the gradient: a mean that one step moves by one
    standard deviation is 1, times the root of its component's weight. In plain EM it is that of the step before.
    """

    norm: float

    def __post_init__(self) -> None:
        if not self.norm > 0:
            raise ValueError(f"norm must be above 0, got {self.norm!r}")

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        gain = getattr(trace, "promised", np.inf)
        if not np.isfinite(gain):
            new, old = getattr(trace, "parameters", None), getattr(trace, "previous", None)
            if new is None or old is None:
                return None
            gain = promised_gain(old, new, trace.weight)
        length = float(np.sqrt(2.0 * gain / trace.weight))
        return f"the gradient's length is {length:.3g}, less than {self.norm:g}" if length < self.norm else None


@dataclass(frozen=True)
class Within:
    """Stop at `nats` of the maximum; in plain EM, for each 1,000 rows where there are more than that.

    With an acceleration: when ten times the estimated remaining gain and the gain of the last five steps are both less, and the
    estimate is to be trusted; or when an EM step would gain no more than rounding. In plain EM: when Aitken's extrapolation of
    the last gains says so twice in a row, which is right late and early may be not. No local rule can tell a plateau from a top;
    the tighter `nats`, the fewer plateaus stop it: `python -m bench.acceleration` counts them.
    """

    nats: float = 1e-6

    def __post_init__(self) -> None:
        if not self.nats > 0:
            raise ValueError(f"nats must be above 0, got {self.nats!r}")

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        if np.isfinite(trace.promised):
            most = max(self.nats, 2.0 * trace.rounding)
            if trace.promised <= 1e-3 * trace.rounding:
                return f"an EM step would gain {trace.promised:.3g} nats, no more than rounding"
            if len(trace) > 5 and trace.settled and 10.0 * trace.remaining < most and trace[-1] - trace[-6] < most:
                return (
                    f"{max(trace.remaining, 0.0):.3g} nats are left by estimate, and the last five steps gained "
                    f"{trace[-1] - trace[-6]:.3g}, less than {most:g}"
                )
            return None
        most = max(self.nats * max(1.0, trace.weight / 1000.0), 2.0 * trace.rounding)
        left = [aitken(trace[: len(trace) - back]) for back in (0, 1)]
        if max(left) < most:
            return f"{left[0]:.3g} nats are left by Aitken's estimate, less than {most:g}"
        return None


def aitken(trace: list[float]) -> float:
    """How much is left of gains that fall by a constant ratio, from the last two; inf where they do not fall."""
    if len(trace) < 3:
        return float("inf")
    before, last = trace[-2] - trace[-3], trace[-1] - trace[-2]
    if last <= 0.0:
        return 0.0 if before <= 0.0 else float("inf")
    return last * last / (before - last) if last < before else float("inf")


@dataclass(frozen=True)
class SweepLimit:
    """Stop after `sweeps` sweeps, the start's included: not convergence."""

    sweeps: int

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        done = max(len(trace), getattr(trace, "sweeps", 0))
        return Limit(f"the limit of {self.sweeps} sweeps was reached") if done >= self.sweeps else None


@dataclass(frozen=True)
class TimeLimit:
    """Stop at the first sweep that ends after `seconds` of fitting: not convergence."""

    seconds: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        spent = self.clock() - trace.started
        return Limit(f"the time limit of {self.seconds:g} seconds was reached") if spent >= self.seconds else None


@dataclass(frozen=True)
class Steps:
    """Stop after exactly `steps` M steps: what an integer `stop` means. Not convergence."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"the number of M steps must be at least 0, got {self.steps}")

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        done = len(trace) - 1
        return Limit(f"the {self.steps} M step{'s' * (self.steps != 1)} asked for were done") if done >= self.steps else None


@dataclass(frozen=True)
class FirstOf:
    """Stop when the first of `rules`, in their order, does."""

    rules: tuple[Rule, ...]

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        for each in self.rules:
            reason = each(trace)
            if reason:
                return reason
        return None


def first_of(*rules: Rule) -> Rule:
    """Return the rule that stops when the first of `rules`, in their order, does."""
    return FirstOf(rules)


class AsNumbers:
    """A rule of one's own that a build's own loop can ask for, as `numbers`: some of those in `UNASKED`."""

    def numbers(self) -> dict[str, float | int]:
        """Return what is asked; `gain_before` and `before` are of the sweep before the last, and of the one before the start."""
        raise NotImplementedError


UNASKED: dict[str, float | int] = {
    "within": 0.0,
    "gain": 0.0,
    "gain_a_row": 0.0,
    "relative_gain": 0.0,
    "gain_before": 0.0,
    "before": 0.0,
    "most_sweeps": 0,
    "steps": -1,
}


def numbers_of(rule: Rule) -> dict[str, float | int] | None:
    """Return a rule as the numbers that a build's own loop asks, or None where it is of another kind."""
    numbers: dict[str, float | int] = {}
    if isinstance(rule, AsNumbers):
        return UNASKED | rule.numbers()
    for each in rule.rules if isinstance(rule, FirstOf) else (rule,):
        if type(each) is Within:
            name, number = "within", each.nats
        elif type(each) is GainBelow:
            name, number = "gain_a_row" if each.per_row else "gain", each.nats
        elif type(each) is RelativeGainBelow:
            name, number = "relative_gain", each.share
        elif type(each) is SweepLimit:
            name, number = "most_sweeps", max(1, each.sweeps)
        elif type(each) is Steps:
            name, number = "steps", each.steps
        else:
            return None
        if name in numbers:
            return None
        numbers[name] = number
    return UNASKED | numbers


def as_rule(stop: Rule | int) -> Rule:
    """Return a rule: `stop` itself, or for an integer that many M steps. Raises TypeError for anything else."""
    if isinstance(stop, (int, np.integer)) and not isinstance(stop, bool):
        return Steps(int(stop))
    if callable(stop):
        return stop
    raise TypeError(f"stop must be a rule (trace -> reason or None) or a whole number of M steps, got {stop!r}")


# What `emfuse.em` stops by where it is not told: tight, and with an end.
TIGHT = first_of(GainBelow(1e-8, per_row=True), SweepLimit(10_000))
# What `emfuse.fit` stops by: an estimate of how far the maximum is.
AT_MAXIMUM = first_of(Within(1e-6), SweepLimit(10_000))
