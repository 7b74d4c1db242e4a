"""What a sweep brings home: sums over the rows, which add.

    sweep(A) + sweep(B) == sweep(A and B together)

is the one line that threads, blocks of a file and partitions on other machines rest on. Sums are taken about an origin
near the component's mean, never about zero, so that no two large squares are subtracted later.

Layer 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emfuse._typing import Doubles


@dataclass
class SufficientStatistics:
    """Sums over rows under fixed parameters (equation 6 of `emfuse.reference`); always float64.

    Those of parts add up to those of the whole, exactly but for rounding, where the parameters and the origin were the same: so a
    mixture can be watched on rows that come bit by bit, of which none is kept.

    >>> import numpy as np, emfuse
    >>> X = np.arange(12.0)
    >>> p = emfuse.Parameters.univariate([0.5, 0.5], [2.0, 9.0], [2.0, 2.0])
    >>> parts = [emfuse.InMemory(part).sweep(p.factors) for part in (X[:5], X[5:])]
    >>> watched, whole = parts[0] + parts[1], emfuse.InMemory(X).sweep(p.factors)
    >>> bool(abs(watched.log_likelihood - whole.log_likelihood) < 1e-12), watched.weight
    (True, 12.0)

    origin : (K, D)                  the points that `first` and `second` are taken about, data units
    mass : (K,)                      sum of responsibilities, in units of row weight
    first : (K, D)                   sum of r (x - origin)
    second                           sum of r (x - origin)(x - origin)', in one of the four forms of `emfuse.reference`
    log_likelihood : float           sum of v log density, nats
    weight : float                   sum of row weights v
    """

    origin: Doubles
    mass: Doubles
    first: Doubles
    second: Doubles
    log_likelihood: float = 0.0
    weight: float = 0.0

    @classmethod
    def zeros(cls, origin: Doubles, form: str) -> SufficientStatistics:
        """Return the statistics of no rows, about `origin` (K, D); `form` is "full", "tied", "diag" or "spherical"."""
        K, D = origin.shape
        triangle = form in ("full", "tied")
        shape = (1 if form == "tied" else K, D, D) if triangle else (K, 1 if form == "spherical" else D)
        return cls(origin, np.zeros(K), np.zeros((K, D)), np.zeros(shape))

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        """Return the statistics of both sets of rows. Raises ValueError where the origins differ."""
        total = SufficientStatistics(
            self.origin, self.mass.copy(), self.first.copy(), self.second.copy(), self.log_likelihood, self.weight
        )
        total += other
        return total

    def __iadd__(self, other: SufficientStatistics) -> SufficientStatistics:
        if self.origin is not other.origin and not np.array_equal(self.origin, other.origin):
            raise ValueError("statistics can be added only when they are taken about the same origin; move one with `about`")
        self.mass += other.mass
        self.first += other.first
        self.second += other.second
        self.log_likelihood += other.log_likelihood
        self.weight += other.weight
        return self

    def scaled(self, factor: float) -> SufficientStatistics:
        """Return the statistics of the same rows, each of which weighs `factor` times as much."""
        return SufficientStatistics(
            self.origin,
            factor * self.mass,
            factor * self.first,
            factor * self.second,
            factor * self.log_likelihood,
            factor * self.weight,
        )

    def scatter(self, t: Doubles) -> Doubles:
        """Return the scatters about origin + t, t (K, D), in the form of `second`: second - t first' - first t' + mass t t'.

        For t = first / mass, the means, it is mass times (8).
        """
        half = self.first - (0.5 * self.mass)[:, None] * t
        if self.second.ndim == 2:
            change = 2.0 * t * half
        else:
            cross = t[:, :, None] * half[:, None, :]
            change = cross + cross.transpose(0, 2, 1)
        return np.asarray(self.second - in_form_of(self.second, change))

    def about(self, origin: Doubles) -> SufficientStatistics:
        """Return the same statistics about another origin (K, D).

        Loses digits in `second` where the move is large beside the spread; a new sweep about that origin loses none.
        """
        origin = np.array(origin, dtype=np.float64)
        t = origin - self.origin
        mass = self.mass[:, None]
        first = self.first - mass * t
        if self.second.ndim == 2:
            change = mass * t * t - 2.0 * t * self.first
        else:
            cross = t[:, :, None] * self.first[:, None, :]
            change = (mass * t)[:, :, None] * t[:, None, :] - cross - np.swapaxes(cross, 1, 2)
        second = self.second + in_form_of(self.second, change)
        return SufficientStatistics(origin, self.mass.copy(), first, second, self.log_likelihood, self.weight)


def in_form_of(second: Doubles, terms: Doubles) -> Doubles:
    """Return each component's terms, (K, D, D) or (K, D), as they count in `second`.

    They are summed where that is one for all components, (1, D, D), and averaged where it is one for all features, (K, 1).
    """
    if second.shape == terms.shape:
        return terms
    return np.asarray(terms.sum(axis=0, keepdims=True) if second.ndim == 3 else terms.mean(axis=1, keepdims=True))
