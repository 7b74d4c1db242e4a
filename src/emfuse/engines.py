"""Where the data is: things that can be swept.

An engine has `n_features`, `weight`, `sweep(factors)` and `evaluate(factors)`. `InMemory` holds one array and sweeps it with
Python threads over a build that releases the GIL: a thread is just a partition, since statistics add.

The rows are cut into groups by the shape of the data alone, and group sums are added in the order of the rows, so how many
threads ran cannot be seen in the result, not even in its last bit.

Layer 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from emfuse import kernels
from emfuse._typing import AnyArray, Doubles, Floats, Labels
from emfuse.parameters import Factors
from emfuse.statistics import SufficientStatistics
from emfuse.threads import in_order, thread_count

OVERFLOWED = -1e280  # a mean log density below this means that some row's squared distance overflowed
MOST_WEIGHT = 1e250  # so that sums over rows stay finite
MOST_GROUPS = 256
POOLED_FROM = 9  # features: with fewer, the scatter of each component costs next to nothing
MOST_AMPLIFIED = 16.0  # times float32's rounding in a whitened row: more, and float32 rows are computed in float64
MOST_BETWEEN = 1e3  # times the scatter within: more would cost more than three digits
MOST_BETWEEN_FLOAT = 1e2  # the same where masses and means carry float32's rounding
GROUP_WORK = 1 << 21  # multiply-adds in a group at least, about 0.2 to 2 ms: far more than handing it to a thread costs
GROUP_ROWS = 1024  # rows in a group at least: packing P and adding its sums to the total cost as much as a few rows
GROUP_ROWS_MANY = 4096  # the same for many features, whose packing and adding cost as much as a hundred rows
MANY_FEATURES = 24
CHECKED_AT_ONCE = 1 << 18  # numbers looked at together for NaN and infinity

Result = TypeVar("Result")


class Engine(Protocol):
    """Data that can be swept."""

    @property
    def n_features(self) -> int:
        """D."""

    @property
    def weight(self) -> float:
        """Sum of the row weights."""

    def sweep(self, factors: Factors, *, origin: Doubles | None = None, hard: bool = False) -> SufficientStatistics:
        """Walk once over the rows under fixed parameters."""


@dataclass
class Evaluation:
    """What `InMemory.evaluate` was asked for; the rest is None.

    log_density : (N,)            nats
    labels : (N,) int64           the most likely component, the first of equals
    responsibilities : (N, K)     rows sum to 1
    """

    log_density: Floats | None = None
    labels: Labels | None = None
    responsibilities: Floats | None = None


class InMemory:
    """Rows in one array, with their weights.

    Parameters
    ----------
    X : (N, D) array-like of real numbers    data units; 1-D is taken as one feature. float32 and float64 are used as they
        are, in any memory order; other types are converted to float64 once.
    sample_weight : (N,) or None             at least 0 and not all 0
    n_threads : int or None                  None: what `threads.thread_count` says; all cores by default
    trusted : bool                           the caller has looked for NaN and infinity already

    Raises TypeError and ValueError that name the argument, the value and its place.
    """

    def __init__(
        self, X: ArrayLike, sample_weight: ArrayLike | None = None, *, n_threads: int | None = None, trusted: bool = False
    ):
        self.X = as_rows(X, trusted=trusted)
        self.sample_weight = as_weights(sample_weight, len(self.X))
        self.n_threads = thread_count(n_threads)

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.X.shape[1])

    @property
    def weight(self) -> float:
        """Sum of the row weights: the number of rows where they weigh 1."""
        return float(len(self.X)) if self.sample_weight is None else float(self.sample_weight.sum())

    @property
    def noise(self) -> float:
        """How far rounding may move a log-likelihood from one sweep to the next, nats a row."""
        if self.X.dtype == np.float32 and len(self.X) > GROUP_ROWS:
            return 4e-8 * (1.0 + self.n_features / 4.0)  # the largest that was seen: 2e-8 in one feature, 1.6e-7 in 16
        return 1e-14

    def sweep(self, factors: Factors, *, origin: Doubles | None = None, hard: bool = False) -> SufficientStatistics:
        """Walk once over the rows under fixed parameters.

        origin : (K, D)    what sums are taken about; None: the means
        hard : bool        each row whole to its most likely component

        Raises ValueError where a row lies so far away that its log density overflows, naming the row.
        """
        self.check_features(factors)
        origin = factors.means if origin is None else np.ascontiguousarray(origin)
        if factors.form == "tied" and self.n_features >= POOLED_FROM:
            total = self._sweep_pooled(factors, origin, hard)
        else:
            total = self._sweep(factors, origin, hard)
        if not total.log_likelihood / total.weight > OVERFLOWED:
            self._report_far_row(factors)
        return total

    def _sweep(
        self, factors: Factors, origin: Doubles, hard: bool, *, scatter: bool = True, in_one: bool = False
    ) -> SufficientStatistics:
        """Sweep every group and add their statistics; without `scatter`, `second` stays 0; `in_one`: all rows are one group."""
        build, form = kernels.load(), factors.form
        # with fewer rows than that, asking whether float32 is safe takes longer than float64
        single = self.X.dtype == np.float32 and len(self.X) > GROUP_ROWS and _safe_in_float(factors)

        def add(rows: slice, sums: SufficientStatistics) -> SufficientStatistics:
            v = None if self.sample_weight is None else self.sample_weight[rows]
            X = self.X[rows]
            sums.log_likelihood += build.sweep(
                X=X,
                weights=v,
                means=factors.means,
                P=factors.P,
                log_constant=factors.log_constant,
                origin=origin,
                hard=hard,
                mass=sums.mass,
                first=sums.first,
                second=sums.second if scatter else None,
                single=single,
            )
            sums.weight += float(len(X)) if v is None else float(v.sum())
            return sums

        groups = [slice(None)] if in_one else cut(len(self.X), factors)
        total = SufficientStatistics.zeros(origin, form)
        if self.n_threads == 1 or len(groups) == 1:
            for rows in groups:  # a build adds a group's sums when it has them all: the same additions as below
                add(rows, total)
            return total
        with closing(in_order(lambda rows: add(rows, SufficientStatistics.zeros(origin, form)), groups, self.n_threads)) as parts:
            for part in parts:
                total += part
        return total

    def _sweep_pooled(self, factors: Factors, origin: Doubles, hard: bool) -> SufficientStatistics:
        """Sweep where components share P: the scatter within them is that of all rows, known, less what lies between them.

        With u_k = origin_k - centre:  sum_k second_k = T - sum_k (first_k u_k' + u_k first_k' + mass_k u_k u_k').
        Where T is so much larger than what is left that digits would be lost, the scatter is added up row by row instead.
        """
        centre, total = self._total_scatter
        most = MOST_BETWEEN_FLOAT if self.X.dtype == np.float32 else MOST_BETWEEN
        if _most_spread(factors.P[0], total / self.weight) <= most:  # rightly about what is left, from the sweep before
            s = self._sweep(factors, origin, hard, scatter=False)
            u = origin - centre
            cross = s.first.T @ u
            within = total - cross - cross.T - (u.T * s.mass) @ u
            with suppress(np.linalg.LinAlgError):  # not positive definite: too much was lost
                if _most_spread(np.linalg.inv(np.linalg.cholesky(within)), total) <= most:
                    s.second[0] = within
                    return s
        return self._sweep(factors, origin, hard)

    @cached_property
    def moments(self) -> tuple[Doubles, Doubles]:
        """Mean and variance of each feature, (D,) each, with the row weights. Raises ValueError where a variance overflows."""
        first = 0 if self.sample_weight is None else int(self.sample_weight.argmax())  # a row of weight 0 may be anywhere
        guess = self.X[first : first + 1].astype(np.float64)
        for _ in range(2):  # about the first row, then about the mean
            s = self._sweep(Factors(guess, np.zeros((1, self.n_features)), np.zeros(1)), guess, False)
            t = s.first / s.mass
            guess = guess + t
        with np.errstate(over="ignore", invalid="ignore"):
            variance = (s.second / s.mass - t * t)[0]
        if not np.isfinite(variance).all():
            d = int((~np.isfinite(variance)).argmax())
            row = int(np.abs(self.X[:, d]).argmax())
            raise ValueError(
                f"row {row} of X has {self.X[row, d]:.6g} in feature {d}, so far from the others that the variance overflows; "
                "the spread must be below about 1e150. Remove the row, or divide the feature by a constant."
            )
        return guess[0], np.asarray(np.maximum(variance, 0.0))

    @cached_property
    def _total_scatter(self) -> tuple[Doubles, Doubles]:
        """The mean of all rows, (D,), and their scatter about it, (D, D)."""
        D = self.n_features
        centre = self.moments[0][None]
        s = self._sweep(Factors(centre, np.zeros((1, D, D)), np.zeros(1)), centre, False)
        return centre[0], s.second[0]

    def evaluate(
        self,
        factors: Factors,
        *,
        log_density: bool = False,
        labels: bool = False,
        responsibilities: bool = False,
        dtype: Any = np.float64,
    ) -> Evaluation:
        """Compute, row by row, what is asked for; `dtype` is that of log densities and responsibilities."""
        self.check_features(factors)
        build = kernels.load()
        N, K = len(self.X), len(factors.means)
        out = Evaluation(
            np.empty(N, dtype) if log_density else None,
            np.empty(N, np.int64) if labels else None,
            np.empty((N, K), dtype) if responsibilities else None,
        )

        def evaluate_group(rows: slice) -> None:
            wanted: dict[str, AnyArray] = {}
            for name in ("log_density", "labels", "responsibilities"):
                if (array := getattr(out, name)) is not None:
                    part = array[rows]
                    wanted[name] = part if part.dtype in (np.float64, np.int64) else np.empty(part.shape)
            build.evaluate(X=self.X[rows], means=factors.means, P=factors.P, log_constant=factors.log_constant, **wanted)
            for name, made in wanted.items():
                getattr(out, name)[rows] = made

        with closing(in_order(evaluate_group, cut(N, factors), self.n_threads)) as parts:
            for _ in parts:
                pass
        return out

    def check_features(self, factors: Factors) -> None:
        """Raise ValueError where a mixture has another number of features."""
        if factors.means.shape[1] != self.n_features:
            raise ValueError(f"X has {self.n_features} features, but the mixture has {factors.means.shape[1]}")

    def _report_far_row(self, factors: Factors) -> None:
        density = self.evaluate(factors, log_density=True).log_density
        assert density is not None
        if self.sample_weight is not None:
            density = np.where(self.sample_weight > 0, density, 0.0)
        row = int(density.argmin())
        raise ValueError(
            f"row {row} of X ({_short(self.X[row])}) lies so many standard deviations from every component that its log density "
            "overflows; it must be below about 1e140 of them. Remove the row, or start from wider covariances."
        )


def evaluate(X: ArrayLike, factors: Factors, *, n_threads: int | None = None, **want: Any) -> Evaluation:
    """Evaluate a mixture on rows: see `InMemory` for X and `InMemory.evaluate` for what may be wanted."""
    return InMemory(X, n_threads=n_threads).evaluate(factors, **want)


def overflowing(variance: Doubles, columns: Sequence[object] | None) -> ValueError:
    """Return the error for variances of features, (D,), that overflow, where the row that does it is not at hand."""
    feature = int((~np.isfinite(variance)).argmax())
    called = "" if columns is None else f" (column {columns[feature]!r})"
    return ValueError(
        f"feature {feature}{called} has rows so far from the others that the variance overflows; the spread must be below about "
        "1e150. Remove them, or divide the feature by a constant."
    )


def as_rows(X: ArrayLike, *, trusted: bool = False) -> Floats:
    """Return X as a 2-D, native, aligned array of float32 or float64, without a copy where it is one already."""
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise TypeError("X is a sparse matrix, and emfuse needs a dense array: pass X.toarray()")
    if isinstance(X, np.ma.MaskedArray) and np.ma.getmaskarray(X).any():
        raise ValueError("X is a masked array with masked values; fill or drop them")
    array = np.asarray(X)
    if array.dtype.kind == "O":
        array = _from_objects(array)
    if array.dtype.kind not in "buif":
        raise TypeError(f"X must be real numbers, got an array of {array.dtype}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(f"X must be 2-D, rows x features (or 1-D, for one feature), got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"X must have at least one row and one feature, got shape {array.shape}")
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative or not array.flags.aligned:
        array = array.astype(np.float32 if array.dtype.newbyteorder("=") == np.float32 else np.float64)
    if any(step % array.itemsize for step in array.strides):
        array = np.ascontiguousarray(array)
    if not trusted:
        _check_finite(array)
    return array


def as_weights(sample_weight: ArrayLike | None, N: int) -> Doubles | None:
    """Return the weights of N rows as float64, or None."""
    if sample_weight is None:
        return None
    v = np.asarray(sample_weight)
    if v.dtype.kind == "O":
        v = _from_objects(v, "sample_weight")
    if v.dtype.kind not in "buif":
        raise TypeError(f"sample_weight must be real numbers, got an array of {v.dtype}")
    v = np.require(v, dtype=np.float64, requirements=["C", "A"])
    if v.shape != (N,):
        raise ValueError(f"sample_weight must have shape ({N},), one number a row of X, got {v.shape}")
    bad = ~(np.isfinite(v) & (v >= 0.0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"sample_weight must be finite and at least 0, got {v[row]} for row {row}")
    if not v.any():
        raise ValueError("sample_weight must be above 0 for some row, but every weight is zero")
    if v.max() > MOST_WEIGHT:
        raise ValueError(
            f"sample_weight must be at most {MOST_WEIGHT:g}, got {v.max():g} for row {int(v.argmax())}; divide by a constant"
        )
    return v


def _from_objects(array: AnyArray, name: str = "X") -> Doubles:
    if any(isinstance(value, (str, bytes, complex)) for value in array.flat):  # astype would read "1.5", and drop imaginary parts
        raise TypeError(f"{name} must be real numbers, got an array with strings or complex numbers")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be real numbers, got objects that are not: {error}") from None


def _check_finite(X: Floats) -> None:
    step = max(1, CHECKED_AT_ONCE // X.shape[1])
    for start in range(0, len(X), step):
        part = X[start : start + step]
        with np.errstate(over="ignore", invalid="ignore"):
            fine = np.isfinite(part.sum())  # a sum is quicker than a look at each, and finite only where they all are
        if not fine and not np.isfinite(part).all():
            row, feature = (int(i) for i in np.argwhere(~np.isfinite(part))[0])
            raise ValueError(
                f"X must be finite, got {part[row, feature]} (NaN or infinity) in row {start + row}, feature {feature}; "
                "drop the row or fill the value in"
            )


def _most_spread(P: Doubles, scatter: Doubles) -> float:
    """The largest variance in the scatter of rows whitened by P, or NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(((P @ scatter) * P).sum(axis=1).max())


def _safe_in_float(factors: Factors) -> bool:
    """Whether float32 rows keep their digits in float32: whitening does not amplify rounding, and squares stay within range."""
    size = np.abs(np.diagonal(factors.P, axis1=1, axis2=2) if factors.P.ndim == 3 else factors.P)
    moderate = size.max() <= 1e12 and size.min() >= 1e-12 and np.abs(factors.means).max() <= 1e30
    return bool(moderate and factors.amplification <= MOST_AMPLIFIED)


def cut(N: int, factors: Factors) -> list[slice]:
    """Cut N rows into groups, by the shape of the data alone."""
    if N <= GROUP_ROWS:
        return [slice(0, N)]
    K, D = factors.means.shape
    work_of_a_row = K * (D * (D + 1) if factors.form == "full" else 6 * D) + 16 * K
    work_of_a_row += D * D * (factors.form == "tied")
    least = GROUP_ROWS if D < MANY_FEATURES else GROUP_ROWS_MANY
    size = max(least, GROUP_WORK // work_of_a_row, -(-N // MOST_GROUPS))
    size = -(-size // 32) * 32
    return [slice(start, min(start + size, N)) for start in range(0, N, size)]


def _short(row: Floats) -> str:
    shown = ", ".join(f"{value:.6g}" for value in row[:4])
    return shown + ", ..." * (len(row) > 4)
