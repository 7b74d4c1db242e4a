"""Which build of the fused pass runs here.

A build is a module with `sweep`, `evaluate`, `factor`, `maximise`, `quasi_newton`, `climb` and `climb_many`, one keyword-only
signature each; `emfuse.reference` defines them. The fastest that this CPU can run is used; `use` chooses another, in the same
process, and so does the environment variable EMFUSE_KERNEL. The CPU is asked before a build is imported.

Layer 1.
"""

from __future__ import annotations

import importlib
import os
import warnings
from types import TracebackType
from typing import Any, Protocol, cast

from emfuse import _isas, reference
from emfuse._typing import Doubles, Floats, Labels

REFERENCE = "reference"
VARIABLE = "EMFUSE_KERNEL"


class QuasiNewton(Protocol):
    """`emfuse.accelerate.Emqn` for few features, compiled."""

    def step(
        self,
        *,
        here: tuple[Doubles, Doubles, Doubles],
        image: tuple[Doubles, Doubles, Doubles],
        gained: float,
        weights: Doubles,
        means: Doubles,
        covariances: Doubles,
        P: Doubles,
        log_constant: Doubles,
    ) -> tuple[int, float, float, bool]:
        """From a point and its image, each (weights, means, P), fill a trial; return (trial, promised, remaining, settled).

        trial is 0 where there is none, 2 where its factors are left to others, else 1.
        """

    def refuse(self) -> None:
        """Take notice that the last trial did not gain what was asked."""


class Build(Protocol):
    """One build of the pass; see `emfuse.reference` for what the arguments are."""

    def sweep(
        self,
        *,
        X: Floats,
        weights: Doubles | None,
        means: Doubles,
        P: Doubles,
        log_constant: Doubles,
        origin: Doubles,
        hard: bool,
        mass: Doubles,
        first: Doubles,
        second: Doubles | None,
        single: bool = False,
    ) -> float:
        """Add the statistics of `X` to `mass`, `first` and `second`; return the log-likelihood."""

    def evaluate(
        self,
        *,
        X: Floats,
        means: Doubles,
        P: Doubles,
        log_constant: Doubles,
        log_density: Doubles | None = None,
        labels: Labels | None = None,
        responsibilities: Doubles | None = None,
    ) -> None:
        """Fill whichever outputs are given, row by row."""

    def factor(
        self, *, weights: Doubles, means: Doubles, covariances: Doubles, least_left: float, P: Doubles, log_constant: Doubles
    ) -> bool:
        """Fill `P` and `log_constant` from a mixture where that is plain arithmetic; return whether it was."""

    def maximise(
        self,
        *,
        structure: str,
        before: Doubles | None,
        origin: Doubles,
        mass: Doubles,
        first: Doubles,
        second: Doubles,
        reg_covar: float,
        spare_mass: float,
        floor: Doubles | None,
        floor_rows: float,
        most_floor: float,
        far: float,
        least_left: float,
        most_rounding: float,
        least_sd: float,
        weights: Doubles,
        means: Doubles,
        covariances: Doubles,
        P: Doubles,
        log_constant: Doubles,
    ) -> int:
        """Take the M step where it is plain arithmetic; return whether it was (1), with a mean that moved far (2), or not (0)."""

    def quasi_newton(
        self,
        *,
        form: str,
        K: int,
        D: int,
        weight: float,
        warm_up: int,
        pairs: int,
        rebase: int,
        radius: float,
        curvature: float,
        least_weight: float,
        look_below: float,
        most_log: float,
        least_left: float,
    ) -> QuasiNewton | None:
        """Return what goes by the constants of `emfuse.accelerate`, where the build has it."""

    def climb(self, **what: Any) -> tuple[bool, list[float], int, float, float, bool, float] | None:
        """Climb by EM without Python in between: see `_sweep.pxi`, and `emfuse.em`, which is the definition.

        Fills the mixture and its statistics in place. Returns (whether a rule stopped it, trace, sweeps, promised, remaining,
        settled, log-likelihood), or None where the build has no such thing.
        """

    def climb_many(self, **what: Any) -> None:
        """Fit many data sets, into rows of the arrays that are given: see `_sweep.pxi`; `emfuse.many` does what is left."""


_builds: dict[str, Build] = {REFERENCE: cast(Build, reference)}
_why_not: dict[str, str] = {}  # build -> why it does not run here
_active: str | None = None


def _find_builds() -> None:
    """Import what this CPU can run, fastest first; keep the reasons for the rest."""
    level: int | None = None
    found: dict[str, Build] = {}
    for isa in reversed(_isas.isas_of()):  # the baseline first: it knows the CPU
        if isa is not _isas.BASELINE and (level is None or isa.level > level):
            unknown = "the baseline build, which asks the CPU, is missing"
            _why_not[isa.name] = unknown if level is None else f"this CPU lacks {isa.needs}"
            continue
        try:
            module = importlib.import_module(isa.module)
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == isa.module
            _why_not[isa.name] = "not built" if missing else f"built, but cannot be imported: {error}"
            continue
        if isa is _isas.BASELINE:
            level = module.cpu()
        found[isa.name] = cast(Build, module)
    _builds.clear()
    _builds.update({name: found[name] for name in reversed(found)})
    _builds[REFERENCE] = cast(Build, reference)
    for isa in _isas.ISAS:
        if isa.name not in found:
            _why_not.setdefault(isa.name, "not for this architecture")
    if not found:
        warnings.warn(
            f"emfuse has no compiled build of its pass here ({_why_not['baseline']}) and runs in pure NumPy, which is 10 to 100 "
            "times slower. Install a C++ compiler and reinstall emfuse, or use a wheel; `emfuse kernels` shows what there is.",
            RuntimeWarning,
            stacklevel=3,
        )
    elif broken := [name for name, why in _why_not.items() if why.startswith(("not built", "built, but"))]:
        warnings.warn(
            f"emfuse runs its '{next(iter(_builds))}' build because a faster one is missing: "
            + "; ".join(f"{name}: {_why_not[name]}" for name in broken)
            + ". Reinstall emfuse with a newer compiler, or use a wheel.",
            RuntimeWarning,
            stacklevel=3,
        )


def runnable() -> list[str]:
    """Names of the builds that run on this machine, fastest first; "reference" (pure NumPy) is always the last."""
    return list(_builds)


def not_runnable() -> dict[str, str]:
    """The other builds, each with the reason why it does not run here."""
    return dict(_why_not)


def active() -> str:
    """Name of the build in use. Raises ValueError where EMFUSE_KERNEL names one that does not run here."""
    global _active
    if _active is None:
        wanted = os.environ.get(VARIABLE) or next(iter(_builds))
        _active = _checked(wanted, f"environment variable {VARIABLE}")
    return _active


class _Restore:
    """What `use` returns: a context that goes back to the build before."""

    def __init__(self, before: str):
        self._before = before

    def __enter__(self) -> str:
        return active()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        use(self._before)


def use(name: str) -> _Restore:
    """Use another build from now on, or, as `with use(name):`, for a while. Raises ValueError that lists what runs here."""
    global _active
    wanted = _checked(name, "build")
    before = active()
    _active = wanted
    return _Restore(before)


def load(name: str | None = None) -> Build:
    """Return a build: the active one, or the one of that name."""
    return _builds[active() if name is None else _checked(name, "build")]


def _checked(name: str, what: str) -> str:
    if name not in _builds:
        why = f" ({_why_not[name]})" if name in _why_not else ""
        raise ValueError(f"{what} {name!r} does not run here{why}; these do: {', '.join(_builds)}")
    return name


_find_builds()
