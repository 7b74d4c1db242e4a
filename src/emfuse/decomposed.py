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
sweep's own covariances in 2 to 5 steps of Newton's method. All of it ends within rounding of the minimum.

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
MOST_STEPS = 200
LONGEST_STEP = 4.0  # in the logarithm of a volume: far from the minimum a quadratic model is none
MOST_HALVINGS = 30
MOST_APART = 600.0  # logarithms of volumes: a component that has left the others so far behind has none
MOST_FOR_NEWTON = 32  # features: its matrix has one row for each of D (D - 1) / 2 planes
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
    L = np.zeros_like(arranged)
    for j in range(W.shape[1]):
        left = arranged[:, j:, j] - (L[:, j:, :j] @ L[:, j, :j, None])[:, :, 0]
        has = left[:, 0] > 2.0 * W.shape[1] * EPS * arranged[:, j, j]
        L[:, j:, j] = np.where(has, 1.0 / np.sqrt(np.where(has, left[:, 0], 1.0)), 0.0)[:, None] * left
    U, singular, _ = np.linalg.svd(L)
    axes = np.empty_like(U)
    axes[rows[:, :, 0], order] = U
    return np.square(singular), axes


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

    def derivatives(self, M: Doubles) -> tuple[Doubles, Doubles]:
        """Gradient (P,) and Hessian (P, P) by angles x, for Q exp(E), E_ab = x_ab = -E_ba, where P planes (a, b) are a < b.

        The variance along axis j changes by 2 (M E)_jj + (E' M E)_jj + (M E E)_jj, to second order.
        """
        K, D = M.shape[:2]
        weights = self.weights(M)
        a, b = np.triu_indices(D, 1)
        inverse = 1.0 / np.diagonal(M, axis1=1, axis2=2)
        first = np.zeros((K, D, len(a)))  # of log variances
        planes = np.arange(len(a))
        first[:, b, planes] = 2.0 * M[:, a, b] * inverse[:, b]
        first[:, a, planes] = -2.0 * M[:, a, b] * inverse[:, a]
        by_component = first.sum(axis=1)
        gradient = weights @ by_component
        scaled = np.einsum("k,kj,klm->jlm", weights, inverse, M)
        j = np.arange(D)
        second = np.zeros((D, D, D, D))  # coefficients of E_lj E_mi
        second[:, j, :, j] = scaled  # (E' M E)_jj
        second[:, j, j, :] += scaled[j, j].T[:, None, :]  # (M E E)_ii
        second -= second.transpose(1, 0, 2, 3)
        second -= second.transpose(0, 1, 3, 2)
        half = second[a[:, None], b[:, None], a, b]
        flat = (np.sqrt(weights)[:, None, None] * first).reshape(K * D, len(a))
        hessian = half + half.T - flat.T @ flat
        if self.share is None:
            hessian += (by_component.T * weights @ by_component - gradient[:, None] * gradient) / D
        return gradient, hessian

    def newton(self, M: Doubles) -> tuple[Doubles, float]:
        """Return the step of Newton's method, angles (P,), and what it promises to gain: inf where the value is not convex."""
        from scipy.linalg.lapack import dposv

        gradient, hessian = self.derivatives(M)
        _, step, failed_at = dposv(hessian + FLAT * np.eye(len(gradient)), -gradient)
        return step, np.inf if failed_at else -0.5 * float(gradient @ step)

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


def common_axes(W: Doubles, share: Doubles | None, axes: Doubles, *, near: bool) -> tuple[Doubles, float]:
    """Return the axes (D, D), in columns, to which `axes` lead downhill, and the value of `Diagonality` there.

    Turns in one plane after the other are sure, but slow in the end (Flury & Gautschi 1986 take nothing else); Newton's method in
    all planes at once is quick where the value is convex, and is tried first; not at the very start unless that is `near` the
    minimum, as turns of any size may lead out of a poor one.
    """
    what, D = Diagonality(share), len(axes)

    def at(axes: Doubles) -> tuple[Doubles, Doubles, float]:
        M = axes.T @ W @ axes
        return axes, M, what.value(M)

    here = at(axes)
    for _ in range(MOST_STEPS if D > 1 else 0):
        axes, M, value = here
        x, promised = what.newton(M) if near and D <= MOST_FOR_NEWTON else (M, np.inf)
        if promised < LAST_STEP:
            return axes @ _rotation(x, D), value - promised
        for length in (1.0, 0.25) if promised < np.inf else ():
            there = at(axes @ _rotation(length * x, D))
            if value - there[2] > 0.2 * length * promised:
                break
        else:
            there = at(what.turned(M, axes))
        gained = value - there[2]
        here = there if gained > 0.0 else here
        if near and not gained > LAST_STEP:
            break
        near = True
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


def _rotation(x: Doubles, D: int) -> Doubles:
    """Return the rotation by small angles x in all planes a < b: Cayley's, exp(E) to second order."""
    E = np.zeros((D, D))
    E[np.triu_indices(D, 1)] = 0.5 * x
    E = E - E.T
    return np.asarray(np.linalg.solve(np.eye(D) - E, np.eye(D) + E))


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
