"""Ten covariance structures between a sphere and a free matrix, by what their components have in common.

Every covariance is a volume, a shape and an orientation,

    Sigma_k = lambda_k Q_k A_k Q_k',    det A_k = 1,  A_k diagonal,  Q_k orthogonal,

and a name has a letter for each: E, equal for all components; V, one's own; I, none at all. Their names are mclust's, and so
are the models (Banfield & Raftery 1993; Celeux & Govaert 1995, "Gaussian parsimonious clustering models"). The other four of the
fourteen, VII, VVI, EEE and VVV, are in `emfuse.structures`.

Every estimate is the maximum of the likelihood: it minimises

    F = sum_k [ share_k log det Sigma_k + tr(W_k Sigma_k^-1) ],    W_k = scatter_k / sum of all masses, share_k likewise.

Along axes that are known, only the diagonals of Q' W_k Q count, and the best variances along them have a closed form, or
(volumes V, shapes E) are found by Newton's method in as many unknowns as there are components: a convex problem, in 3 to 5 steps.
Each component's own axes are its eigenvectors. Axes in common are turned until F has no way down (`common_axes`): from the
sweep's own covariances in 1 to 4 steps of Newton's method. All of it ends within rounding of the minimum.

Layer 0.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cache

import numpy as np

from emfuse._typing import AnyArray, Doubles
from emfuse.covariance import EPS, Matrices, NotPositiveDefinite, Spheres, Structure, Variances, cholesky

# A step of Newton's method that promises less than this, nats per unit of mass, is the last: what is left is its square.
LAST_STEP = 1e-13
LAST_TURN = 1e-8  # the same for axes in common: 1e-16 is left of the value, and of the axes its root
MOST_STEPS = 200
LONGEST_STEP = 4.0  # in the logarithm of a volume: far from the minimum a quadratic model is none
MOST_HALVINGS = 30
MOST_APART = 600.0  # logarithms of volumes: a component that has left the others so far behind has none
LEAST_CURVATURE = 0.05  # of a plane, in whose units its angle is measured
FLAT = 1e-9  # nats per unit of mass and radian squared: a curvature below that is none
GOLDEN = 0.6180339887498949


class Decomposed(Structure):
    """One of the ten; a subclass has the name, the array's shape and the minimiser of F."""

    def estimate(self, scatter: Doubles, mass: Doubles, before: Doubles | None = None) -> Doubles:
        """The minimiser of F, searched for in units of the data's own scale; scatter / mass where there is none."""
        total = mass.sum()
        W, share = scatter / total, mass / total
        variances = np.diagonal(W, axis1=1, axis2=2) if W.ndim == 3 else W
        if variances.shape[1] == 1 and self.name[0] == "E":  # a volume alone, which one component may lack
            return _pooled(W).reshape(self.shape(len(W), 1))
        largest = variances.max()
        if variances.min() >= 0.0 and largest > 0.0 and np.isfinite(W).all():  # NaN is neither
            unit = np.exp2(np.round(np.log2(largest)))  # a power of two: nothing is rounded
            found = self.minimiser(W / unit, share, None if before is None else before / unit)
            if found is not None:
                return np.asarray(found * unit)
        return self.degenerate(W, share)

    @abstractmethod
    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles | None:
        """Return the covariances that minimise F; None where F has no minimum, as its infimum is a singular covariance."""

    def degenerate(self, W: Doubles, share: Doubles) -> Doubles:
        """Return what tells the component and the feature without variance: free covariances."""
        return np.asarray(W / share.reshape(-1, *[1] * (W.ndim - 1)))

    def nearest(self, covariances: Doubles, weights: Doubles) -> Doubles:
        """Those that best explain rows which have these covariances, as many as the weights say."""
        K, D = covariances.shape[0], covariances.shape[-1]
        scatter = weights.reshape(-1, *[1] * (covariances.ndim - 1)) * covariances
        return self.estimate(scatter.reshape(self.factor_shape(K, D)), weights, before=covariances)

    def free_parameters(self, K: int, D: int) -> int:
        """Volumes, 1 or K; D - 1 for each shape; D (D - 1) / 2 for each orientation."""
        volumes, shapes, orientations = ({"E": 1, "V": K, "I": 0}[letter] for letter in self.name)
        return volumes + shapes * (D - 1) + orientations * (D * (D - 1) // 2)


# ------------------------------------------------------------------ along the features


class EII(Decomposed, Spheres):
    """Spheres of one size: Sigma_k = lambda I."""

    name, shared = "EII", True

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles:
        """With lambda = the mean over features of sum_k W_k."""
        return np.full(len(share), W.sum(axis=0).mean())

    def degenerate(self, W: Doubles, share: Doubles) -> Doubles:
        """The same: it is what has no variance."""
        return self.minimiser(W, share, None)


class EEI(Decomposed, Variances):
    """One diagonal matrix: Sigma_k = lambda A."""

    name, shared = "EEI", True

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles:
        """With lambda A = sum_k W_k."""
        return _pooled(W)

    def degenerate(self, W: Doubles, share: Doubles) -> Doubles:
        """The same: it is what has no variance."""
        return _pooled(W)


class VEI(Decomposed, Variances):
    """Diagonal matrices of one shape: Sigma_k = lambda_k A."""

    name = "VEI"

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles | None:
        """lambda_k = tr(W_k A^-1) / (D share_k); A is sum_k W_k / lambda_k, to determinant 1."""
        return _one_shape(W, share, None if before is None else np.log(before).mean(axis=1))


class EVI(Decomposed, Variances):
    """Diagonal matrices of one volume: Sigma_k = lambda A_k."""

    name = "EVI"

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles | None:
        """With lambda = sum_k det(W_k)^(1/D); A_k is W_k, to determinant 1."""
        return _one_volume(W)


# ------------------------------------------------------------------ each component's own axes


class EEV(Decomposed, Matrices):
    """One volume and one shape, each component turned its own way: Sigma_k = lambda Q_k A Q_k'."""

    name = "EEV"

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles:
        """Q_k are the eigenvectors of W_k; lambda A the sum of its eigenvalues, largest with largest."""
        values, axes = eigen(W)
        return along(axes, _pooled(values))


class VEV(Decomposed, Matrices):
    """One shape, each component turned its own way: Sigma_k = lambda_k Q_k A Q_k'."""

    name = "VEV"

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles | None:
        """Q_k are the eigenvectors of W_k; lambda_k and A as in VEI, from its eigenvalues, largest with largest."""
        values, axes = eigen(W)
        variances = _one_shape(values, share, _log_volumes_of(before))
        return None if variances is None else along(axes, variances)


class EVV(Decomposed, Matrices):
    """Free matrices of one volume: Sigma_k = lambda Q_k A_k Q_k'."""

    name = "EVV"

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles | None:
        """With lambda = sum_k det(W_k)^(1/D); the rest is W_k, to determinant 1."""
        try:
            log_volume = log_volumes(W)
        except NotPositiveDefinite:
            return None
        return np.asarray(W * (np.exp(log_volume).sum() * np.exp(-log_volume))[:, None, None])


# ------------------------------------------------------------------ axes in common


class VEE(Decomposed, Matrices):
    """One matrix in K sizes: Sigma_k = lambda_k Q A Q'."""

    name = "VEE"

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles | None:
        """lambda_k = tr(W_k C^-1) / (D share_k); C = Q A Q' is sum_k W_k / lambda_k, to determinant 1."""
        from scipy.linalg.lapack import dtrtri

        K, D = W.shape[:2]

        def parts(t: Doubles) -> tuple[Doubles, Doubles]:
            own = W * t[:, None, None]
            L = np.linalg.cholesky(own.sum(axis=0))
            P = dtrtri(L, lower=1)[0]
            return 2.0 * np.log(np.diagonal(L)).sum(), (P @ own @ P.T).reshape(K, D * D)

        traces = np.trace(W, axis1=1, axis2=2)
        x = _log_inverse_volumes(parts, traces, share, D, _log_volumes_of(before))
        if x is None:
            return None
        t = np.exp(x)
        return np.asarray((W * t[:, None, None]).sum(axis=0) / t[:, None, None])


class EVE(Decomposed, Matrices):
    """One volume and one set of axes, each component its own variances along them: Sigma_k = lambda Q A_k Q'."""

    name = "EVE"

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles | None:
        """Q minimises sum_k det(diag(Q' W_k Q))^(1/D); lambda and A_k as in EVI, along Q."""
        return _along_common(W, None, before, _one_volume)


class VVE(Decomposed, Matrices):
    """One set of axes, each component its own variances along them: Sigma_k = lambda_k Q A_k Q'.

    The common principal components of Flury (1984).
    """

    name = "VVE"

    def minimiser(self, W: Doubles, share: Doubles, before: Doubles | None) -> Doubles | None:
        """Q minimises sum_k share_k log det(diag(Q' W_k Q)); lambda_k A_k = diag(Q' W_k Q) / share_k."""
        return _along_common(W, share, before, lambda w: w / share[:, None])


DECOMPOSED: tuple[Structure, ...] = (EII(), VEI(), EVI(), EEI(), VEE(), EVE(), VVE(), EEV(), VEV(), EVV())


# ------------------------------------------------------------------ variances along known axes


def _pooled(w: Doubles) -> Doubles:
    """The sum over components, K times."""
    return np.repeat(w.sum(axis=0, keepdims=True), len(w), axis=0)


def _one_volume(w: Doubles) -> Doubles | None:
    """Variances of equal product, (K, D), the best for diagonals w."""
    if not w.min() > 0.0:
        return None
    log_volume = np.log(w).mean(axis=1)
    return np.asarray(w * (np.exp(log_volume).sum() * np.exp(-log_volume))[:, None])


def _one_shape(w: Doubles, share: Doubles, log_volume: Doubles | None) -> Doubles | None:
    """Variances in equal proportions, (K, D), the best for diagonals w; `log_volume` (K,) is where the search starts."""
    D = w.shape[1]

    def parts(t: Doubles) -> tuple[Doubles, Doubles]:
        own = w * t[:, None]
        pooled = own.sum(axis=0)
        return np.log(pooled).sum(), own / pooled

    if not w.sum(axis=0).min() > 0.0:
        return None
    x = _log_inverse_volumes(parts, w.sum(axis=1), share, D, log_volume)
    if x is None:
        return None
    t = np.exp(x)
    return np.asarray((w * t[:, None]).sum(axis=0) / t[:, None])


def _log_inverse_volumes(
    parts: Callable[[Doubles], tuple[Doubles, Doubles]], size: Doubles, share: Doubles, D: int, log_volume: Doubles | None
) -> Doubles | None:
    """Return x = -log lambda, (K,), up to a constant, for components of one shape and orientation; None where there is none.

    With the best C for given volumes, S = sum_k W_k / lambda_k, F is log det S - D sum_k share_k x_k, and a constant. It is
    convex: det S is a polynomial in exp(x) whose coefficients (mixed discriminants) are not negative.

    parts : t = exp(x) -> log det S, and t_k W_k whitened by S, flattened, (K, X)    raises LinAlgError where S is singular
    size : (K,)                                                                     tr W_k
    """
    if not size.min() > 0.0:
        return None
    x = np.log(D * share) - np.log(size) if log_volume is None else -log_volume
    x = x - share @ x
    try:
        value, within = parts(np.exp(x))
        for _ in range(MOST_STEPS):
            gram = within @ within.T  # its rows sum to the traces of `within`, as these sum to the identity
            trace = gram.sum(axis=1)
            gradient = trace - D * share
            # F does not change with all of x together; 1 there, and the step has none of it
            step = -np.linalg.solve(np.diag(trace) - gram + 1.0 / len(x), gradient)
            promised = -0.5 * float(gradient @ step)
            step *= LONGEST_STEP / max(LONGEST_STEP, np.abs(step).max())
            if promised < LAST_STEP:
                return np.asarray(x + step)
            for _ in range(MOST_HALVINGS):
                changed, parted = parts(np.exp(x + step))
                if changed - value - D * float(share @ step) <= 0.2 * float(gradient @ step):
                    break
                step = 0.5 * step
            else:
                break  # nothing but rounding is left
            x, value, within = x + step, changed, parted
            if np.ptp(x) > MOST_APART:
                return None
    except np.linalg.LinAlgError:
        return None
    return x


# ------------------------------------------------------------------ axes


def log_volumes(matrices: Doubles) -> Doubles:
    """Return log det / D of each matrix, (K,). Raises NotPositiveDefinite."""
    return np.asarray(2.0 * np.log(np.diagonal(cholesky(matrices), axis1=1, axis2=2)).mean(axis=1))


def _log_volumes_of(before: Doubles | None) -> Doubles | None:
    """The same, where it can be had."""
    try:
        return None if before is None else log_volumes(before)
    except NotPositiveDefinite:
        return None


def along(axes: Doubles, variances: Doubles) -> Doubles:
    """Return Q diag(variances) Q', (K, D, D), exactly symmetric; axes (K, D, D) or (D, D), in columns."""
    half = axes * np.sqrt(variances)[:, None, :]
    made = half @ half.transpose(0, 2, 1)
    return np.asarray(0.5 * (made + made.transpose(0, 2, 1)))


def eigen(W: Doubles) -> tuple[Doubles, Doubles]:
    """Return eigenvalues in decreasing order, (K, D), and eigenvectors in columns, (K, D, D), of scatters that may be singular.

    Features of very different units keep their digits, small eigenvalues theirs: the singular values of a Cholesky factor whose
    rows decrease (measured: 6e-15 of each, for standard deviations from 1e-9 to 1e9, where an eigensolver has no digit).
    """
    order = np.argsort(-np.diagonal(W, axis1=1, axis2=2), axis=1, kind="stable")
    rows = np.arange(len(W))[:, None, None]
    arranged = W[rows, order[:, :, None], order[:, None, :]]
    least = 2.0 * W.shape[1] * EPS * np.diagonal(arranged, axis1=1, axis2=2)
    try:
        L = np.linalg.cholesky(arranged)
        singular = bool((np.square(np.diagonal(L, axis1=1, axis2=2)) <= least).any())
    except np.linalg.LinAlgError:
        singular = True
    if singular:
        L = np.zeros_like(arranged)
        for j in range(W.shape[1]):
            left = arranged[:, j:, j] - (L[:, j:, :j] @ L[:, j, :j, None])[:, :, 0]
            has = left[:, 0] > least[:, j]
            L[:, j:, j] = np.where(has, 1.0 / np.sqrt(np.where(has, left[:, 0], 1.0)), 0.0)[:, None] * left
    U, values, _ = np.linalg.svd(L)
    axes = np.empty_like(U)
    axes[rows[:, :, 0], order] = U
    return np.square(values), axes


# ------------------------------------------------------------------ the search for axes in common


class Diagonality:
    """What common axes minimise, as a function of M_k = Q' W_k Q, (K, D, D): F with the best variances along Q, less a constant.

    With L_k = log det diag M_k it is sum_k share_k L_k, or D log sum_k exp(L_k / D) where volumes are equal (share None).
    """

    def __init__(self, share: Doubles | None):
        self.share = share

    def value(self, M: Doubles) -> float:
        """Nats per unit of mass."""
        L = np.log(np.diagonal(M, axis1=1, axis2=2)).sum(axis=1)
        if self.share is not None:
            return float(self.share @ L)
        D, top = M.shape[1], L.max()
        return float(top + D * np.log(np.exp((L - top) / D).sum()))

    def weights(self, M: Doubles) -> Doubles:
        """Its derivatives by L_k, (K,): they sum to 1."""
        if self.share is not None:
            return self.share
        log_volume = np.log(np.diagonal(M, axis1=1, axis2=2)).mean(axis=1)
        volume = np.exp(log_volume - log_volume.max())
        return np.asarray(volume / volume.sum())

    def turned(self, M: Doubles, axes: Doubles) -> Doubles:
        """Return axes after the best turn in every plane: planes that share no axis at once, in rounds.

        Where volumes are equal, planes are not independent: by Hoelder's inequality none spoils what others gain if, for r
        planes at once, each minimises the sum of products to the power r / D.
        """
        M, axes = M.copy(), axes.copy()
        D = M.shape[1]
        power = 0.0 if self.share is not None else (D // 2) / D
        for a, b in _rounds(D):
            half = 0.5 * _best_angles(M[:, a, a], M[:, b, b], M[:, a, b], self.weights(M), power)
            c, s = np.cos(half), np.sin(half)
            axes[:, a], axes[:, b] = c * axes[:, a] + s * axes[:, b], c * axes[:, b] - s * axes[:, a]
            M[:, :, a], M[:, :, b] = c * M[:, :, a] + s * M[:, :, b], c * M[:, :, b] - s * M[:, :, a]
            c, s = c[:, None], s[:, None]
            M[:, a], M[:, b] = c * M[:, a] + s * M[:, b], c * M[:, b] - s * M[:, a]
        return axes


class Quadratic:
    """`Diagonality` to second order about M, for axes Q exp(E): value + <slope, E> + <E, bent(E)> / 2.

    E, (D, D), has the angle of each plane a < b at E_ab = -E_ba, and <A, B> is the sum over planes. The variance along axis j
    changes by 2 (M E)_jj + (E' M E)_jj + (M E E)_jj.

    slope : (D, D)
    diagonal : (D, D)    the curvature of each plane by itself
    """

    def __init__(self, what: Diagonality, M: Doubles):
        D = M.shape[1]
        w, m = what.weights(M), np.diagonal(M, axis1=1, axis2=2)
        # derivatives: of the value by each variance, twice; of the logarithm of axis b's variance by the angle of plane (a, b)
        self.M, self.over, self.own = M, (2.0 * w[:, None] / m)[:, None, :], 2.0 * M / m[:, None, :]
        pooled = (0.5 * M * self.over).sum(axis=0)
        self.slope, self.both = 2.0 * (pooled - pooled.T), pooled + pooled.T
        ratio = (w[:, None] * m).T @ (1.0 / m) - 0.5 * (w[:, None, None] * np.square(self.own)).sum(axis=0)
        self.diagonal = 2.0 * (ratio + ratio.T) - 4.0
        self.pooled = None
        if what.share is None:  # volumes are equal: the change of each, `slopes`, matters to the others
            self.pooled, slopes = pooled, self.own - self.own.transpose(0, 2, 1)
            self.diagonal += ((w[:, None, None] * np.square(slopes)).sum(axis=0) - np.square(self.slope)) / D
        np.fill_diagonal(self.diagonal, 1.0)  # which are no planes

    def bent(self, E: Doubles) -> Doubles:
        """The Hessian times E."""
        T = self.M @ E
        change = np.diagonal(T, axis1=1, axis2=2)[:, None, :]
        parts = (T - change * self.own) * self.over
        half = -self.both @ E
        if self.pooled is not None:
            first = (change * self.over).sum(axis=2)[:, :, None] / len(E)  # of the log volumes, times their weights
            parts += first * self.own
            half -= 2.0 * first.sum() * self.pooled
        half += parts.sum(axis=0)
        return np.asarray(half - half.T)

    def lowest(self, radius: float) -> tuple[Doubles, float, float]:
        """Return the step E to the least value within `radius`, what it promises to gain, and its length.

        By conjugate gradients, in units of each plane's own curvature, until little is left of the slope; or, where the value
        is not convex that way or the least value lies beyond, at the rim (Steihaug 1983).
        """
        unit = 1.0 / np.sqrt(np.maximum(np.abs(self.diagonal), LEAST_CURVATURE))
        down = -unit * self.slope
        left, way, E = down, down, np.zeros_like(down)
        size = length = _inner(down, down)  # <left, left> and <way, way>
        across = square = 0.0  # <E, way> and <E, E>
        enough = size * min(0.01, size)
        for _ in range(down.size if size else 0):
            curved = unit * self.bent(unit * way)
            curvature, inside = _inner(way, curved), radius * radius - square
            far = inside / (across + (across * across + length * inside) ** 0.5)  # the rim
            convex = curvature > FLAT * length and size < far * curvature
            far = size / curvature if convex else far
            E, left = E + far * way, left - far * curved
            square += far * (2.0 * across + far * length)
            before, size = size, _inner(left, left)
            if not convex or size <= enough:
                break
            again = size / before
            way = left + again * way
            across, length = again * (across + far * length), size + again * again * length
        return unit * E, 0.5 * _inner(down + left, E), square**0.5


def _inner(A: Doubles, B: Doubles) -> float:
    """The sum over planes."""
    return 0.5 * float(np.vdot(A, B))


def common_axes(W: Doubles, share: Doubles | None, axes: Doubles, *, near: bool) -> tuple[Doubles, float]:
    """Return the axes (D, D), in columns, to which `axes` lead downhill, and the value of `Diagonality` there.

    Newton's method in all planes at once, within a region in which its model of the value is trusted. Where the start is not
    `near` the minimum, all planes are first turned one after the other, as turns of any size may lead out of a poor one; so they
    are on a saddle, which has no slope. (Flury & Gautschi 1986 take such turns alone, and for many features need hundreds.)

    Milliseconds for 4 components, measured: from the axes of the M step before 0.5 to 1 for 4 features, 1 to 11 for 32, 4 to 18
    for 64; where there are none, and those of each component and of all are tried, 9, 110 and 430 at most.
    """
    what, D = Diagonality(share), len(axes)

    def at(axes: Doubles) -> tuple[Doubles, Doubles, float]:
        M = axes.T @ W @ axes
        return axes, M, what.value(M)

    here, radius = at(axes), 1.0
    if not near and D > 1:
        here = at(what.turned(here[1], axes))
    for _ in range(MOST_STEPS if D > 1 else 0):
        axes, M, value = here
        local = Quadratic(what, M)
        E, promised, length = local.lowest(radius)
        flat = promised < (LAST_TURN if length < 0.99 * radius else LAST_STEP)
        if flat and local.diagonal.min() > -FLAT:
            return axes @ _rotation(E), value - promised
        there = at(what.turned(M, axes) if flat else axes @ _rotation(E))
        gained = value - there[2]
        if flat and not gained > LAST_STEP:
            break
        if flat or gained > 0.1 * promised:
            here = there
        if flat:
            radius = 1.0
        elif not gained > 0.25 * promised:
            radius = 0.25 * length
        elif gained > 0.75 * promised and length > 0.99 * radius:
            radius = 2.0 * radius
    return here[0], here[2]


def _along_common(
    W: Doubles, share: Doubles | None, before: Doubles | None, best: Callable[[Doubles], Doubles | None]
) -> Doubles | None:
    """Return Q diag(best variances) Q' for the best Q; None where there is none.

    Of several minima it is that of `before`, or else the least that the eigenvectors of a scatter, or of their sum, lead to.
    """
    try:
        cholesky(W)
    except NotPositiveDefinite:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # a variance may still be rounding, and below 0
        if before is None:
            starts = eigen(np.concatenate([W.sum(axis=0, keepdims=True), W]))[1]
            axes, _ = min((common_axes(W, share, start, near=False) for start in starts), key=lambda found: found[1])
        else:
            axes, _ = common_axes(W, share, _axes_of(before), near=True)
    w = np.einsum("ji,kjl,li->ki", axes, W, axes)
    variances = best(w) if w.min() > 0.0 else None
    return None if variances is None else along(axes, variances)


def _axes_of(matrices: Doubles) -> Doubles:
    """Return the common eigenvectors, (D, D), of matrices that have them: those of a sum in which no two coincide by symmetry."""
    weights = 1.0 + np.arange(len(matrices)) * GOLDEN % 1.0
    weights = weights / np.trace(matrices, axis1=1, axis2=2)
    axes: Doubles = eigen((weights[:, None, None] * matrices).sum(axis=0, keepdims=True))[1][0]
    return axes


def _rotation(E: Doubles) -> Doubles:
    """Return the rotation by small angles in all planes: Cayley's, exp(E) to second order."""
    unit = np.eye(len(E))
    return np.asarray(np.linalg.solve(unit - 0.5 * E, unit + 0.5 * E))


@cache
def _rounds(D: int) -> list[tuple[AnyArray, AnyArray]]:
    """Return all planes (a, b), a < b, in rounds of planes that share no axis: a tournament in which the first never moves."""
    seats = list(range(D + D % 2))
    rounds = []
    for _ in seats[1:]:
        pairs = zip(seats[: len(seats) // 2], reversed(seats[len(seats) // 2 :]), strict=True)
        here = np.array(sorted(tuple(sorted(pair)) for pair in pairs if max(pair) < D))
        rounds.append((here[:, 0], here[:, 1]))
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds


def _best_angles(p: Doubles, q: Doubles, o: Doubles, weights: Doubles, power: float) -> Doubles:
    """Return for each plane the doubled angle that makes products of two variances least, (planes,).

    p, q, o : (K, planes)    variances along the plane's two axes, and their covariance
    weights : (K,)           of the components
    power : float            of products whose sum is minimised; 0 for their logarithms

    With t, d, e for p + q and, in units of it, p - q and 2 o, a product at doubled angle phi is t^2 / 4 times
    least + (e cos phi - d sin phi)^2. Its sum is least near what is best for some component, or for all by least squares.
    """
    t = p + q
    d, e, least = (p - q) / t, 2.0 * o / t, 4.0 * np.maximum(p * q - o * o, 0.0) / np.square(t)
    now, weights = np.log(least + e * e), weights[:, None]

    def loss(phi: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Return the loss against angle 0 and its two derivatives, at phi (..., planes)."""
        c, s = np.cos(phi)[..., None, :], np.sin(phi)[..., None, :]
        v, u = e * c - d * s, e * s + d * c
        product = least + v * v
        log = np.log(product) - now
        slope = -2.0 * v * u / product
        curvature = 2.0 * (u * u - v * v) / product - slope * slope
        if not power:
            return (weights * log).sum(axis=-2), (weights * slope).sum(axis=-2), (weights * curvature).sum(axis=-2)
        own = weights * np.exp(power * log)
        curvature = curvature + power * slope * slope
        return (own / power).sum(axis=-2), (own * slope).sum(axis=-2), (own * curvature).sum(axis=-2)

    overall = 0.5 * np.arctan2(2.0 * (weights * d * e).sum(axis=0), (weights * (d * d - e * e)).sum(axis=0))
    tried = np.concatenate([np.zeros((1, len(overall))), overall[None], np.arctan2(e, d)])
    phi: Doubles = tried[loss(tried)[0].argmin(axis=0), np.arange(len(overall))]
    value, slope, curvature = loss(phi)
    for _ in range(3):
        trial = phi - np.clip(slope / np.maximum(np.abs(curvature), FLAT), -0.5, 0.5)
        made = loss(trial)
        better = made[0] < value
        phi, value = np.where(better, trial, phi), np.where(better, made[0], value)
        slope, curvature = np.where(better, made[1], 0.0), np.where(better, made[2], 1.0)
    return phi
