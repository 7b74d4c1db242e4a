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

from emfuse.parameters import Parameters


class Limit(str):
    """A reason to stop that is not convergence."""

    __slots__ = ()


class Trace(list[float]):
    """Total log-likelihood after each sweep, nats; and what a rule may ask besides.

    weight : float             sum of row weights; the number of rows where they weigh 1
    parameters : Parameters    what the last entry scores; `previous` are those before it, or None
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
class SweepLimit:
    """Stop after `sweeps` sweeps, the start's included: not convergence."""

    sweeps: int

    def __call__(self, trace: Trace) -> str | None:
        """Return the reason to stop, or None."""
        return Limit(f"the limit of {self.sweeps} sweeps was reached") if len(trace) >= self.sweeps else None


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


def first_of(*rules: Rule) -> Rule:
    """Return the rule that stops when the first of `rules`, in their order, does."""

    def rule(trace: Trace) -> str | None:
        for each in rules:
            reason = each(trace)
            if reason:
                return reason
        return None

    return rule


def as_rule(stop: Rule | int) -> Rule:
    """Return a rule: `stop` itself, or for an integer that many M steps. Raises TypeError for anything else."""
    if isinstance(stop, (int, np.integer)) and not isinstance(stop, bool):
        return Steps(int(stop))
    if callable(stop):
        return stop
    raise TypeError(f"stop must be a rule (trace -> reason or None) or a whole number of M steps, got {stop!r}")


# What `emfuse.fit` stops by, and `emfuse.em` where it is not told: tight, and with an end.
TIGHT = first_of(GainBelow(1e-8, per_row=True), SweepLimit(10_000))
