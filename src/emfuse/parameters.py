"""A whole mixture: weights, means, covariances and the structure they have; and the factors of it that a sweep eats.

Layer 2.
"""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from emfuse import kernels
from emfuse._typing import Doubles, Labels, RandomState
from emfuse.structures import REFINE_BELOW, Structure, structure_named

WEIGHTS_SUM_TO_ONE_WITHIN = 1e-6
LOG_2_PI = float(np.log(2.0 * np.pi))
FEW_FEATURES = 16  # up to these a build's own decomposition is quicker than LAPACK


@dataclass(frozen=True)
class Factors:
    """What a kernel eats: a mixture prepared for a sweep (equations 2 and 3).

    means : (K, D)                  data units
    P                               lower triangles, or their diagonals, with P' P = inverse covariance: (K, D, D), or
        (1, D, D) where components share one; (K, D), or (K, 1) where features do
    log_constant : (K,)             c_k = log w_k - (D / 2) log 2 pi + log det P_k, nats
    """

    means: Doubles
    P: Doubles
    log_constant: Doubles

    @classmethod
    def of(cls, weights: Doubles, means: Doubles, P: Doubles, log_det_P: Doubles) -> Factors:
        """Return the factors of a mixture; a weight of 0 gives a constant of -inf."""
        with np.errstate(divide="ignore"):
            log_constant = np.log(weights) - 0.5 * means.shape[1] * LOG_2_PI + log_det_P
        return cls(means, P, log_constant)

    @property
    def form(self) -> str:
        """The form of P: "full" or "tied" where it is triangles, "diag" or "spherical" where it is their diagonals."""
        if self.P.ndim == 3:
            return "full" if len(self.P) == len(self.means) else "tied"
        return "diag" if self.P.shape == self.means.shape else "spherical"

    @cached_property
    def amplification(self) -> float:
        """How much the rounding of a row grows on its way to y (2): sum_j |P_ij| sd_j, the largest."""
        if self.P.ndim == 2:
            return 1.0
        sds = np.sqrt(np.square(np.linalg.inv(self.P)).sum(axis=2))  # covariance = P^-1 P^-T
        return float(np.einsum("kij,kj->ki", np.abs(self.P), sds).max())


class Parameters:
    """A Gaussian mixture: K components in D features. Frozen; checked once, here.

    Parameters
    ----------
    weights : (K,)    at least 0; they sum to 1
    means : (K, D)    data units; (K,) is taken as one feature
    covariances : array, data units squared
        (K, D, D) for "full", (D, D) for "tied", (K, D) for "diag", (K,) for "spherical", as in scikit-learn
    structure : str
        "full", "tied", "diag" or "spherical"

    Raises ValueError that names the argument and the offending value.
    """

    weights: Doubles
    means: Doubles
    covariances: Doubles
    structure: str

    def __init__(self, weights: ArrayLike, means: ArrayLike, covariances: ArrayLike, structure: str | Structure = "full"):
        kind = structure_named(structure)
        w, m, c = _numbers(weights, "weights"), _numbers(means, "means"), _numbers(covariances, "covariances")
        if w.ndim != 1 or w.size == 0:
            raise ValueError(f"weights must have shape (K,) with K at least 1, got {w.shape}")
        K = w.size
        if m.ndim == 1:
            m = m[:, None]
        if m.ndim != 2 or m.shape[0] != K or m.shape[1] == 0:
            raise ValueError(f"means must have shape (K, D) with K = {K} as in weights, got {m.shape}")
        D = m.shape[1]
        if c.shape != kind.shape(K, D):
            raise ValueError(f"covariances must have shape {kind.shape(K, D)} for structure {kind.name!r}, got {c.shape}")
        if w.min() < 0.0:
            k = int(w.argmin())
            raise ValueError(f"weights must be at least 0, got weights[{k}] = {w[k]}")
        if abs(w.sum() - 1.0) > WEIGHTS_SUM_TO_ONE_WITHIN:
            raise ValueError(f"weights must sum to 1, got a sum of {float(w.sum())!r}; divide them by it")
        if kind.form == "full":
            _check_symmetric(c)
        self._fill(w, m, c, kind)
        self.factors  # noqa: B018  raises where a covariance is not positive definite

    @classmethod
    def unchecked(
        cls, weights: Doubles, means: Doubles, covariances: Doubles, structure: Structure, factors: Factors | None = None
    ) -> Parameters:
        """Wrap arrays that are right by construction; the factors are made, and may fail, when they are first asked for."""
        made = cls.__new__(cls)
        made._fill(weights, means, covariances, structure)
        if factors is not None:
            made.__dict__["factors"] = factors
        return made

    @classmethod
    def univariate(cls, weights: ArrayLike, means: ArrayLike, sds: ArrayLike, structure: str = "full") -> Parameters:
        """Make a mixture in one dimension from standard deviations.

        weights, means : (K,)
        sds : (K,) for structure "full" (or "V"); one number, or K equal ones, for "tied" (or "E")
        """
        s, kind = _numbers(sds, "sds"), structure_named(structure)
        if s.size and not (s.min() >= 1e-150 and s.max() <= 1e150):
            raise ValueError(f"sds must lie between 1e-150 and 1e150, got {s.min():.6g} to {s.max():.6g}")
        K = np.size(np.asarray(weights))
        if kind.shared:
            if s.size not in (1, K) or not np.all(s == s.flat[0]):
                raise ValueError(f"sds must be one number, or {K} equal ones, for structure {structure!r}, got {s.tolist()}")
            s = np.broadcast_to(s.reshape(-1)[:1], int(np.prod(kind.shape(K, 1))))
        elif s.shape != (K,):
            raise ValueError(f"sds must have shape ({K},) as weights have, got {s.shape}")
        return cls(weights, means, np.square(s).reshape(kind.shape(K, 1)), kind)

    def _fill(self, weights: Doubles, means: Doubles, covariances: Doubles, structure: Structure) -> None:
        for name, array in (("weights", weights), ("means", means), ("covariances", covariances)):
            array.flags.writeable = False
            self.__dict__[name] = array
        self.__dict__["structure"] = structure.name

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Parameters are frozen: make new ones instead of setting {name!r}")

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self.weights, self.means, self.covariances, self.structure)

    @property
    def n_components(self) -> int:
        """K."""
        return int(self.means.shape[0])

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.means.shape[1])

    @property
    def covariance_matrices(self) -> Doubles:
        """Covariance matrices whatever the structure, (K, D, D), data units squared."""
        return structure_named(self.structure).matrices(self.covariances, *self.means.shape)

    @property
    def sds(self) -> Doubles:
        """Standard deviation of each feature in each component, (K, D), data units."""
        return np.sqrt(self.variances)

    @property
    def variances(self) -> Doubles:
        """Variance of each feature in each component, (K, D), data units squared."""
        return structure_named(self.structure).variances(self.covariances, *self.means.shape)

    @property
    def free_parameters(self) -> int:
        """Number of free parameters: K - 1 weights, K D means and those of the structure."""
        K, D = self.means.shape
        return int(K - 1 + K * D) + structure_named(self.structure).free_parameters(K, D)

    @cached_property
    def factors(self) -> Factors:
        """The mixture prepared for a sweep. Raises NotPositiveDefinite, naming component and feature."""
        K, D = self.means.shape
        kind = structure_named(self.structure)
        if D <= FEW_FEATURES:
            factors = Factors(self.means, np.empty(kind.factor_shape(K, D)), np.empty(K))
            if factors.P.size == self.covariances.size and kernels.load().factor(
                weights=self.weights,
                means=self.means,
                covariances=self.covariances,
                least_left=REFINE_BELOW,
                P=factors.P,
                log_constant=factors.log_constant,
            ):
                return factors
        P, log_det_P = kind.factor(self.covariances, K, D)
        return Factors.of(self.weights, self.means, P, log_det_P)

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> tuple[Doubles, Labels]:
        """Draw rows: X (n_samples, D) in data units, and the component of each, (n_samples,); rows come component by component.

        random_state : int, numpy Generator or RandomState; None draws differently each time
        """
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. At least one row must be asked for.")
        own = isinstance(random_state, (np.random.Generator, np.random.RandomState))
        generator: Any = random_state if own else np.random.default_rng(random_state)
        counts = generator.multinomial(n_samples, self.weights / self.weights.sum())
        X = generator.standard_normal((n_samples, self.n_features))
        labels = np.repeat(np.arange(self.n_components), counts)
        stops = np.cumsum(counts)
        for k, matrix in enumerate(self.covariance_matrices):
            part = slice(stops[k] - counts[k], stops[k])
            X[part] = X[part] @ np.linalg.cholesky(matrix).T + self.means[k]
        return X, labels

    def as_dict(self) -> dict[str, Any]:
        """Return the mixture in plain lists and numbers, as `save` writes it."""
        return {
            "format": "emfuse.Parameters",
            "version": 1,
            "structure": self.structure,
            "weights": self.weights.tolist(),
            "means": self.means.tolist(),
            "covariances": self.covariances.tolist(),
        }

    @classmethod
    def from_dict(cls, content: object) -> Parameters:
        """Read what `as_dict` gives; other keys are left alone. Raises ValueError that says what is missing or wrong."""
        if not isinstance(content, dict) or content.get("format") != "emfuse.Parameters":
            raise ValueError('not a saved mixture: there must be an object with "format": "emfuse.Parameters"')
        if content.get("version") != 1:
            raise ValueError(f'saved mixture has "version": {content.get("version")!r}, and this emfuse reads version 1')
        missing = [key for key in ("structure", "weights", "means", "covariances") if key not in content]
        if missing:
            raise ValueError(f"saved mixture lacks {', '.join(missing)}")
        return cls(content["weights"], content["means"], content["covariances"], content["structure"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mixture to `path` as JSON; every number comes back to the last bit."""
        Path(path).write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Parameters:
        """Read what `save` wrote, checking all of it and executing none. Raises ValueError that names file and fault."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameters):
            return NotImplemented
        same = (np.array_equal(a, b) for a, b in zip(_arrays(self), _arrays(other), strict=True))
        return self.structure == other.structure and all(same)

    __hash__ = None  # type: ignore[assignment]

    def _repr_html_(self) -> str:
        return str(importlib.import_module("emfuse.html").of_parameters(self))  # a notebook asks; nothing here depends on it

    def __repr__(self) -> str:
        K, D = self.means.shape
        lines = [f"Parameters: {K} component{'s' * (K > 1)}, {D} feature{'s' * (D > 1)}, structure {self.structure!r}"]
        shown, sds = min(D, 6), self.sds
        for k in range(min(K, 20)):
            numbers = ", ".join(f"{mean:.6g} ± {sd:.4g}" for mean, sd in zip(self.means[k, :shown], sds[k, :shown], strict=True))
            lines.append(f"  {k}: weight {self.weights[k]:.4f}, mean ± sd {numbers}{', ...' if shown < D else ''}")
        return "\n".join(lines + ["  ..."] * (K > 20))


def _arrays(p: Parameters) -> tuple[Doubles, Doubles, Doubles]:
    return p.weights, p.means, p.covariances


def _restore(weights: Doubles, means: Doubles, covariances: Doubles, structure: str) -> Parameters:
    return Parameters.unchecked(weights, means, covariances, structure_named(structure))


def _numbers(value: ArrayLike, name: str) -> Doubles:
    """Return a finite float64 copy. Raises TypeError for what are not real numbers, ValueError for NaN and infinity."""
    array = np.asarray(value)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} must be real numbers, got an array of {array.dtype}")
    array = np.array(array, dtype=np.float64, order="C")
    if not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[at]} at {list(at)}")
    return array


def _check_symmetric(matrices: Doubles) -> None:
    sizes = np.sqrt(np.abs(np.diagonal(matrices, axis1=-2, axis2=-1)))
    bound = 1e-8 * sizes[..., :, None] * sizes[..., None, :]
    wrong = np.abs(matrices - np.swapaxes(matrices, -1, -2)) > bound
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        mirrored = (*at[:-2], at[-1], at[-2])
        raise ValueError(
            f"covariances must be symmetric, got {matrices[at]} at {list(at)} and {matrices[mirrored]} at {list(mirrored)}"
        )
