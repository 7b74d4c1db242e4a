"""The loop that everybody writes once
===================================

EM for a mixture of normal distributions fits on a page, and most people who use it have written it themselves. Here is that
loop, on daily returns of the German share index DAX, beside R's `normalmixEM` as emfuse has it. From the same start both walk
the same path, to the last digit printed. Then one day is mistyped.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import emfuse
from emfuse.mixtools import normalmixEM
from emfuse.plots import COLOURS

x = np.loadtxt(Path(sys.argv[0]).parent / "data" / "dax_logret.csv", skiprows=1)


def densities(x, weights, means, sds):
    """Each component's weighted density of each row, (N, K), as textbooks write it."""
    return weights * np.exp(-0.5 * ((x[:, None] - means) / sds) ** 2) / (sds * np.sqrt(2 * np.pi))


def by_hand(x, weights, means, sds, steps):
    """EM with densities, not with their logarithms."""
    trace = []
    for _ in range(steps):
        density = densities(x, weights, means, sds)
        trace.append(np.log(density.sum(axis=1)).sum())
        z = density / density.sum(axis=1, keepdims=True)  # 0 / 0 where every density is 0
        mass = z.sum(axis=0)
        weights, means = mass / len(x), (z * x[:, None]).sum(axis=0) / mass
        sds = np.sqrt((z * (x[:, None] - means) ** 2).sum(axis=0) / mass)
    return weights, means, sds, np.array(trace)


# %%
# The same numbers
# ----------------
# A quiet component and a restless one: means -1% and 1%, standard deviations 1% and 2%.

start = np.array([0.5, 0.5]), np.array([-0.01, 0.01]), np.array([0.01, 0.02])
r = normalmixEM(x, *start, epsilon=1e-8)
steps = len(r.all_loglik) - 1
weights, means, sds, trace = by_hand(x, *start, steps)
print(f"{len(x):,} rows, {steps} steps, to log-likelihood {r.loglik:.6f} nats")
print(f"by hand      weights {weights.round(6)}, means {means.round(6)}, sds {sds.round(6)}")
print(f"normalmixEM  weights {r.lambda_.round(6)}, means {r.mu.round(6)}, sds {r.sigma.round(6)}")
print(f"largest difference of log-likelihoods on the way: {np.abs(r.all_loglik[:-1] - trace).max():.1e} nats")
print(f"steps that were spent on the last 0.01 nats: {int((r.loglik - r.all_loglik < 0.01).sum())}")

# %%
# One day in per cent
# -------------------
# The worst day is entered in per cent, and so a hundred times too large. Its density under both components is so small that a
# computer holds it to be 0, and 0 / 0 is not a number: one step, and all is lost. The logarithm of that density is an ordinary
# number. emfuse computes with it, so the row has responsibilities that sum to 1, like any other.

mistyped = np.where(x == x.min(), 100 * x, x)
print(f"worst day {x.min():.4f}, mistyped {mistyped.min():.2f}")
with np.errstate(invalid="ignore", divide="ignore"):
    print(f"by hand, one step:  means {by_hand(mistyped, *start, steps=1)[1]}")
begun = emfuse.Parameters.univariate(*start)
step = emfuse.em(mistyped, begun, stop=1)
print(f"emfuse, one step:   means {step.parameters.means.ravel().round(6)}")
print(f"log density of that row at the start: {emfuse.Mixture(begun).logpdf(mistyped.min()):.1f} nats")

grid = np.linspace(-1.2, 0.1, 1000)
density = densities(grid, *start).sum(axis=1)
lost = grid[density == 0].max()
away = (start[1][1] - lost) / start[2][1]
print(f"by hand, densities are 0 from a return of {lost:.2f} on, {away:.0f} standard deviations away")

# %%
# The picture
# -----------
# Left: how far each step is below the last one; both loops climb alike, and spend most steps on very little. Right: the log
# density of the start, far to the left of the data. By hand it ends where the smallest double is reached; in log space the curve
# goes on.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
left.semilogy(r.loglik - trace, "o", color=COLOURS[1], markersize=7, markerfacecolor="none", markevery=10, label="by hand")
left.semilogy(r.loglik - r.all_loglik[:-1], color=COLOURS[0], label="normalmixEM")
left.set(xlabel="step", ylabel="log-likelihood below the last (nats)")
left.legend()

with np.errstate(divide="ignore"):
    right.plot(grid, np.log(density), color=COLOURS[1], lw=6, alpha=0.5, label="by hand: the density's logarithm")
right.plot(grid, emfuse.Mixture(begun).logpdf(grid), color=COLOURS[0], label="emfuse: the log density")
right.axvspan(x.min(), x.max(), color="0.85", label="all the returns")
right.set(xlabel="daily log return", ylabel="log density (nats)")
right.legend(loc="lower right")
plt.show()
