"""The information that rows have about a mixture: exact, in one walk.

In the mixture's own coordinates (equation 2: a mean moved by L a and a covariance L (I + E) L', L = P^-1), every derivative of a
component's log density is a polynomial in y, so that the Hessian of the log-likelihood is made of sums of products of 1, y and
y y' (Louis 1982, "Finding the observed information matrix when using the EM algorithm"): what known labels would tell, less what
not knowing them costs. From there to the free parameters is a linear map.

Layer 4.
"""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from emfuse._typing import Doubles
from emfuse.engines import InMemory
from emfuse.free_parameters import Free, symmetric
from emfuse.parameters import Parameters
from emfuse.threads import in_order

CHUNK = 1 << 19  # numbers in one temporary array of the walk
MOST_FOR_THREADS = 512  # coordinates: with more, the sums of a chunk are large, and products of matrices have threads themselves
# The least share of the information that known labels would give: rounding of the Hessian leaves ten digits of the largest. And
# how many rows with known labels the data must be worth in every direction: with less than one, a weight's error is a half, or a
# mean's a standard deviation, and the log-likelihood is no parabola so far.
LEAST_SHARE, LEAST_WORTH = 1e-10, 1.0
MOST_MISSED = 0.01  # nats that an EM step would gain: a fit at a maximum leaves 1e-6


class UncertaintyWarning(UserWarning):
    """Standard errors were computed, and should not be trusted without a look."""


def _walk(engine: InMemory, p: Parameters, n_threads: int) -> tuple[Doubles, Doubles, Doubles]:
    """Sums over the rows in the mixture's own coordinates, q of each component: log weight, a and E.

    Returns sum v s s' (K q, K q), s the score of a row; sum v r f f' (K, q, q), f the score of a component's log density; and
    sum v s (K q,).
    """
    f = p.factors
    K, D = p.means.shape
    triangle = f.P.ndim == 3
    i, j = np.tril_indices(D)
    halves = np.where(i == j, 0.5, 1.0)
    m = len(i) if triangle else D
    q = 1 + D + m
    step = max(64, CHUNK // (K * q))
    chunks = [slice(begin, begin + step) for begin in range(0, len(engine.X), step)]

    def work(rows: slice) -> tuple[Doubles, Doubles, Doubles]:
        x = engine.X[rows].astype(np.float64, copy=False)
        F = np.empty((K, len(x), q))
        F[:, :, 0] = 1.0
        y = F[:, :, 1 : 1 + D]
        for k in range(K):
            d = x - p.means[k]
            P = f.P[k] if len(f.P) == K else f.P[0]
            y[k] = d @ P.T if triangle else d * P
        log_density = f.log_constant[:, None] - 0.5 * np.square(y).sum(axis=2)  # (3)
        r = np.exp(log_density - log_density.max(axis=0))
        r /= r.sum(axis=0)
        if triangle:
            F[:, :, 1 + D :] = (y[:, :, i] * y[:, :, j] - (i == j)) * halves
        else:
            F[:, :, 1 + D :] = 0.5 * (y * y - 1.0)
        v = np.ones(len(x)) if engine.sample_weight is None else engine.sample_weight[rows]
        S = F * r[:, :, None]
        own = F.transpose(0, 2, 1) @ (S * v[:, None])
        flat = S.transpose(1, 0, 2).reshape(len(x), K * q)
        return (flat * v[:, None]).T @ flat, own, v @ flat

    totals = (np.zeros((K * q, K * q)), np.zeros((K, q, q)), np.zeros(K * q))
    with closing(in_order(work, chunks, n_threads if K * q <= MOST_FOR_THREADS else 1)) as parts:
        for part in parts:
            for total, sums in zip(totals, part, strict=True):
                total += sums
    return totals


def _curvature(own: Doubles, D: int) -> Doubles:
    """The Hessian of sum v r log density in a component's own coordinates, (q, q), from sum v r f f'.

    With respect to a and E it is -n a'a - 2 a' E m + n tr(E E) / 2 - tr(E E Y), n, m and Y the sums of v r times 1, y, y y'.
    """
    q = len(own)
    n, first, Y = own[0, 0], own[0, 1 : 1 + D], own[1 : 1 + D, 1 : 1 + D]
    H = np.zeros((q, q))
    H[0, 0] = -n
    H[1 : 1 + D, 1 : 1 + D] = -n * np.eye(D)
    if q == 1 + 2 * D:  # D = 1 too, whose triangle is its diagonal
        cross = -np.diag(first)
        H[1 + D :, 1 + D :] = np.diag(0.5 * n - np.diagonal(Y))
    else:
        B = symmetric(D)
        cross = -(B @ first).T
        flat = B.reshape(len(B), -1)
        product = (B @ Y).reshape(len(B), -1) @ flat.T
        H[1 + D :, 1 + D :] = 0.5 * n * (flat @ flat.T) - 0.5 * (product + product.T)
    H[1 : 1 + D, 1 + D :] = cross
    H[1 + D :, 1 : 1 + D] = cross.T
    return H


@dataclass(frozen=True)
class Information:
    """Of the vector of free parameters, in its units.

    observed : (p, p)    minus the Hessian of the log-likelihood
    complete : (p, p)    what it would be if the labels were known, expected
    scores : (p, p)      sum of v s s', s the score of a row
    gradient : (p,)      sum of v s
    """

    observed: Doubles
    complete: Doubles
    scores: Doubles
    gradient: Doubles


def information_of(engine: InMemory, p: Parameters, free: Free, n_threads: int) -> Information:
    """The information that the rows have about the free parameters of a mixture, which should be at a maximum."""
    K, D = p.means.shape
    J = free.jacobian(p)
    q = len(J) // K
    squares, own, gradient = _walk(engine, p, n_threads)
    observed, complete = squares.copy(), np.zeros(len(J))
    square = np.ones(q)  # of E: half of the squares on its diagonal, and each beside it twice
    square[1 + D :] = 0.5
    if q > 1 + 2 * D:
        square[1 + D :][np.not_equal(*np.tril_indices(D))] = 1.0
    for k in range(K):
        at = slice(k * q, (k + 1) * q)
        observed[at, at] -= own[k] + _curvature(own[k], D)
        complete[at] = engine.weight * p.weights[k] * square
    return Information(
        observed=symmetrised(J.T @ observed @ J),
        complete=symmetrised((J.T * complete) @ J),
        scores=symmetrised(J.T @ squares @ J),
        gradient=J.T @ gradient,
    )


def symmetrised(A: Doubles) -> Doubles:
    """The matrix, symmetric in its last bit too."""
    return np.asarray(0.5 * (A + A.T))


def inverse_of(information: Information, free: Free, rows: float) -> Doubles:
    """The inverse of the observed information. Raises ValueError, and warns, naming the direction that is not known."""
    from scipy.linalg import solve_triangular

    if not free.names:
        return np.zeros((0, 0))
    L = np.linalg.cholesky(information.complete)
    half = solve_triangular(L, information.observed, lower=True)
    shares, Q = np.linalg.eigh(symmetrised(solve_triangular(L, half.T, lower=True)))
    back = solve_triangular(L, Q, lower=True, trans="T")  # directions, in units of the vector
    worth = float(shares[0]) * rows
    if shares[0] <= LEAST_SHARE or worth < LEAST_WORTH:
        alone = np.sqrt(np.square(solve_triangular(L, np.eye(len(L)), lower=True)).sum(axis=0))
        direction = back[:, 0] / alone
        direction = direction / direction[int(np.abs(direction).argmax())]
        most = [i for i in np.argsort(-np.abs(direction), kind="stable")[:4] if abs(direction[i]) > 0.05]
        along = ", ".join(f"{free.names[i]} {direction[i]:+.2f}" for i in most)
        seen = (
            f"along the direction {along} (in standard errors that known labels would leave) the {rows:g} rows tell as much as "
            f"{worth:.2g} with known labels would"
        )
        todo = f"Ask for fewer components (now {free.K}), or use method='bootstrap'."
        missed = 0.5 * float(np.square(solve_triangular(L, information.gradient, lower=True)).sum())
        if missed > MOST_MISSED:
            todo = f"The fit is not at a maximum either: an EM step would gain about {missed:.2g} nats. Fit closer to one."
        if shares[0] <= LEAST_SHARE:
            raise ValueError(
                f"the observed information is not positive definite: {seen}, and must tell more than nothing. {todo}"
            )
        warnings.warn(
            f"the observed information is nearly singular: {seen}, and Wald intervals need {LEAST_WORTH:g} at the least. {todo}",
            UncertaintyWarning,
            stacklevel=5,
        )
    return symmetrised((back / shares) @ back.T)
