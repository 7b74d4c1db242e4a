"""One component more: the highest maximum of k + 1 components that can be found from a fit of k, and that counts.

The likelihood of a mixture has no upper bound, so that a maximum counts only where each component has rows enough and is no
needle. Starts are what a fit of k suggests: a component split, or as a narrow and a wide one, and a new one where the
log-likelihood rises most as it comes in.

Layer 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from emfuse import initialise, stopping
from emfuse._typing import Doubles
from emfuse.constraints import Constraints
from emfuse.em import VARIANCE_FLOOR, Fit, em
from emfuse.engines import InMemory
from emfuse.many import fit_many
from emfuse.maximise import CollapsedComponent
from emfuse.parameters import FEW_FEATURES, Parameters
from emfuse.structures import NotPositiveDefinite, Structure, structure_named
from emfuse.threads import in_order

LEAST_SD, LEAST_OF_NARROWEST = 0.02, 0.1  # standard deviation of a sound component: of all rows' own, of the narrowest's
ROUGHLY = stopping.first_of(stopping.Within(1e-2), stopping.SweepLimit(2_000))
FEW_ROWS = 2_000  # of which climbs from all starts are one call: copies of the rows cost nothing then
CLOSE, MOST_TOPS = 1.0, 3  # nats below the highest of the rough ends, and how many of them are taken to their top
# Starts of one component more. Measured on samples from fits to six data sets (1 to 4 features, N = 82 to 272): ten that join
# (and the 2 to 6 splits) fall short of the highest maximum known less than half as often as ten from k-means++, and no more often
# than sixty of those.
SPLIT, WIDE, SIZES, PLACES, APART, MOST_LOOKED_AT = 0.8, 1.6, (0.1, 0.3, 1.0), 60, 0.5, 2_000


@dataclass(frozen=True)
class Search:
    """How maxima are looked for: the same way in the data and in every resample.

    constraints : callable    from a number of components to theirs, or None
    """

    kind: Structure
    n_init: int
    constraints: Callable[[int], Constraints | None]
    n_threads: int

    def climb(self, engine: InMemory, start: Parameters, stop: stopping.Rule = stopping.AT_MAXIMUM) -> Fit:
        """Fit from a start. Raises CollapsedComponent."""
        return em(
            engine,
            start,
            stop=stop,
            variance_floor=VARIANCE_FLOOR,
            acceleration="emqn",
            constraints=self.constraints(start.n_components),
            n_threads=1,
        )

    def fit(self, engine: InMemory, K: int, random: np.random.Generator) -> Fit:
        """Return the best fit of K components: from short runs, and by adding one after the other. Raises CollapsedComponent."""
        grown = self.climb(engine, initialise.start(engine, 1, self.kind, "random_rows", random))
        single = grown.parameters
        for _ in range(1, K):
            grown = self.one_more(engine, grown, self.n_threads)
        if K == 1:
            return grown
        starts = list[Parameters]()
        for _ in range(max(1, self.n_init)):
            try:
                starts.append(initialise.start(engine, K, self.kind, "short_runs", random))
            except CollapsedComponent:
                continue
        best = self.best(engine, starts, single, self.n_threads)
        found = grown if grown.parameters.n_components == K else None
        if best is not None and (found is None or best.log_likelihood > found.log_likelihood):
            found = best
        if found is None:  # only maxima that count for nothing: the highest of them, or what there is to say about the collapse
            ends = [self._tried(engine, start) for start in starts]
            made = [end for end in ends if isinstance(end, Fit)]
            if not made:
                raise next((end for end in ends if isinstance(end, CollapsedComponent)), _no_start(K))
            found = max(made, key=lambda fit: fit.log_likelihood)
        return found

    def one_more(self, engine: InMemory, fit: Fit, n_threads: int) -> Fit:
        """Return the best fit of one component more than a fit has; the fit itself where none counts or is higher."""
        p = fit.parameters
        starts = [*_split(p), *_widened(p), *_joined(p, engine, self.n_init)]
        best = self.best(engine, starts, p, n_threads)
        return fit if best is None or best.log_likelihood < fit.log_likelihood else best

    def best(self, engine: InMemory, starts: Sequence[Parameters], fewer: Parameters, n_threads: int) -> Fit | None:
        """Return the highest end of climbs from the starts that counts: all climb roughly, and the highest to their top."""
        sound = _Sound.of(fewer, engine.weight)
        ends = [end for end in self._rough_ends(engine, starts, n_threads) if sound(end[1])]
        ends.sort(key=lambda end: -end[0])
        near = [p for log_likelihood, p in ends if log_likelihood > ends[0][0] - CLOSE]
        tops = [top for p in near[:MOST_TOPS] if isinstance(top := self._tried(engine, p), Fit)]
        return max((top for top in tops if sound(top.parameters)), key=lambda top: top.log_likelihood, default=None)

    def _rough_ends(self, engine: InMemory, starts: Sequence[Parameters], n_threads: int) -> list[tuple[float, Parameters]]:
        """Climb roughly from each start, and return log-likelihoods and mixtures of those that did not collapse."""
        if not starts:
            return []
        K, (N, D) = starts[0].n_components, engine.X.shape
        if self.constraints(K) is None and N <= FEW_ROWS and D <= FEW_FEATURES:
            M, v = len(starts), engine.sample_weight
            made = fit_many(
                (np.tile(engine.X, (M, 1)), N * np.arange(M + 1)),
                K,
                init=list(starts),
                sample_weight=None if v is None else np.tile(v, M),
                stop=ROUGHLY,
                n_threads=n_threads,
            )
            return [(float(made.log_likelihood[i]), made[i]) for i in range(M) if i not in made.failures]
        with closing(in_order(lambda start: self._tried(engine, start, ROUGHLY), starts, n_threads)) as outcomes:
            return [(end.log_likelihood, end.parameters) for end in outcomes if isinstance(end, Fit)]

    def _tried(self, engine: InMemory, start: Parameters, stop: stopping.Rule = stopping.AT_MAXIMUM) -> Fit | ValueError:
        try:
            return self.climb(engine, start, stop)
        except (CollapsedComponent, NotPositiveDefinite) as collapse:
            return collapse


def _no_start(K: int) -> CollapsedComponent:
    message = f"no start of {K} components has rows for each: ask for fewer components"
    return CollapsedComponent(message, component=None, mass=0.0, feature=None)


@dataclass(frozen=True)
class _Sound:
    """Whether a maximum counts: each component has rows enough, and is not a needle in any direction.

    P : (D, D)        whitens all rows, by the covariance of a mixture that was fitted to them
    least : float     squared standard deviation in any direction of these units
    weight : float    of all rows
    """

    P: Doubles
    least: float
    weight: float

    @classmethod
    def of(cls, fewer: Parameters, weight: float) -> _Sound:
        """By a sound mixture of fewer components."""
        d = fewer.means - fewer.weights @ fewer.means
        C = fewer.covariance_matrices
        P = np.linalg.inv(np.linalg.cholesky(np.tensordot(fewer.weights, C, axes=1) + (d.T * fewer.weights) @ d))
        narrowest = float(np.linalg.eigvalsh(P @ C @ P.T).min())
        return cls(P, min(LEAST_SD**2, LEAST_OF_NARROWEST**2 * narrowest), weight)

    def __call__(self, p: Parameters) -> bool:
        """Whether the mixture counts."""
        kind, D = structure_named(p.structure), p.n_features
        own = D + (0 if kind.shared else kind.free_parameters(1, D))
        if p.weights.min() * self.weight < max(own, D + 1):
            return False
        return bool(np.linalg.eigvalsh(self.P @ p.covariance_matrices @ self.P.T).min() >= self.least)


def _made(kind: Structure, w: Doubles, means: Doubles, matrices: Doubles) -> Parameters:
    """The mixture of a structure that is nearest to one with free covariance matrices, (K, D, D)."""
    w = w / w.sum()
    scatter = w[:, None, None] * matrices
    if kind.form != "full":
        scatter = np.diagonal(scatter, axis1=1, axis2=2)
    return Parameters.unchecked(w, means, kind.estimate(scatter, w), kind)


def _split(p: Parameters) -> Iterator[Parameters]:
    """Each component in two along its longest axis, which together have its mean and covariance."""
    kind, C = structure_named(p.structure), p.covariance_matrices
    for k in range(p.n_components):
        variances, axes = np.linalg.eigh(C[k])
        e = SPLIT * np.sqrt(variances[-1]) * axes[:, -1]
        w, matrices = np.append(p.weights, 0.5 * p.weights[k]), np.concatenate([C, C[[k]]])
        means = np.vstack([p.means, p.means[k] - e])
        w[k] *= 0.5
        means[k] += e
        matrices[[k, -1]] -= np.outer(e, e)
        yield _made(kind, w, means, matrices)


def _widened(p: Parameters) -> Iterator[Parameters]:
    """Each component as a narrow and a wide one about its mean, where covariances are not in common."""
    kind, C = structure_named(p.structure), p.covariance_matrices
    for k in range(0 if kind.shared else p.n_components):
        w, matrices = np.append(p.weights, 0.5 * p.weights[k]), np.concatenate([C, C[[k]] * WIDE])
        w[k] *= 0.5
        matrices[k] *= 2.0 - WIDE
        yield _made(kind, w, np.vstack([p.means, p.means[k]]), matrices)


def _joined(p: Parameters, engine: InMemory, count: int) -> list[Parameters]:
    """A new component beside those there are: `count` times, where the log-likelihood rises most as it comes in.

    With weight w it changes the log-likelihood by sum log(1 + w (ratio - 1)), the ratio of densities: to second order at most by
    g^2 / 2h at w = g / h, g = sum (ratio - 1) and h its squares'. Tried at rows from the most to the least likely (in one
    dimension from the left to the right), as wide as the component that they belong to and narrower.
    """
    if not count:
        return []
    X = engine.X
    if len(X) > MOST_LOOKED_AT:
        X = X[np.linspace(0, len(X) - 1, MOST_LOOKED_AT).round().astype(np.int64)]
    kind, C, f, D = structure_named(p.structure), p.covariance_matrices, p.factors, p.n_features
    looked = InMemory(X, n_threads=1, trusted=True).evaluate(f, log_density=True, labels=True)
    assert looked.log_density is not None and looked.labels is not None
    order = np.argsort(X[:, 0] if D == 1 else -looked.log_density, kind="stable")
    rows = order[np.unique(np.linspace(0, len(X) - 1, PLACES).round().astype(np.int64))]
    P = np.linalg.inv(np.linalg.cholesky(C))
    of = looked.labels[rows]
    log_constant = np.log(np.diagonal(P, axis1=1, axis2=2)).sum(axis=1)[of] - 0.5 * D * np.log(2.0 * np.pi)
    half = np.array([0.5 * np.square((X - X[row]) @ P[k].T).sum(axis=1) for row, k in zip(rows, of, strict=True)])
    tried = list[tuple[float, float, int, float]]()
    for size in (1.0,) if kind.shared else SIZES:
        log_ratio = (log_constant - D * np.log(size))[:, None] - half / size**2 - looked.log_density
        ratio = np.exp(np.minimum(log_ratio, 100.0)) - 1.0
        g, h = ratio.sum(axis=1), np.square(ratio).sum(axis=1)
        w = np.clip(g / h, 2.0 / len(X), 0.5)
        tried += [(float(w[i] * (g[i] - 0.5 * w[i] * h[i])), size, i, float(w[i])) for i in range(len(rows))]
    tried.sort(key=lambda one: -one[0])
    taken, made = list[tuple[float, int]](), list[Parameters]()
    for _, size, i, w in tried:
        k, x = of[i], X[rows[i]].astype(np.float64)
        if any(size == other and np.abs(P[k] @ (x - X[rows[j]])).max() < APART for other, j in taken):
            continue
        taken.append((size, i))
        matrices = np.concatenate([C, size**2 * C[[k]]])
        made.append(_made(kind, np.append(p.weights * (1.0 - w), w), np.vstack([p.means, x]), matrices))
        if len(made) == count:
            break
    return made
