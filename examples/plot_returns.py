"""Stock returns: calm days, wild days, and the tail
=================================================

Daily returns of shares have many small values and a few very large ones, and no normal distribution has both. A mixture of some,
for calm days and for wild days, comes much nearer. It matters in the tail: how much may be lost on a bad day? The data are log
returns of the German index DAX, 1991 to 1998.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import emfuse
from emfuse.plots import COLOURS, LINES

x = 100 * np.loadtxt(Path(sys.argv[0]).parent / "data" / "dax_logret.csv", skiprows=1)  # per cent

# %%
# One normal distribution, two, or three
# --------------------------------------

models = {"one normal": emfuse.fit(x, 1), "two": emfuse.fit(x, 2), "three": emfuse.fit(x, 3)}
print(f"{len(x):,} days")
for name, fit in models.items():
    print(f"{name}: log-likelihood {fit.log_likelihood:.1f}, BIC {fit.bic:.1f}")
    print(fit.parameters)

# %%
# How many days, how bad
# ----------------------
# `fit.mixture` is a distribution with scipy's names. `cdf` says how probable a loss is, and so how many such days to expect.

print("days that lost more than   2%    3%    4%    5%")
limits = np.array([-2.0, -3.0, -4.0, -5.0])
print("observed             ", *(f"{(x < limit).sum():5d}" for limit in limits))
for name, fit in models.items():
    print(f"{name:21s}", *(f"{expected:5.1f}" for expected in len(x) * fit.mixture.cdf(limits)))
for name, fit in models.items():
    print(f"{name}: a day that loses more than 5% comes once in {1 / (250 * fit.mixture.cdf(-5.0)):,.0f} years of 250 days")

# %%
# Value at risk: what a day loses at most, but for the worst one in a hundred, or in a thousand. `ppf` is the quantile.

for share in (0.01, 0.001):
    losses = ", ".join(f"{name} {-fit.mixture.ppf(share):.2f}%" for name, fit in models.items())
    print(f"one day in {1 / share:.0f}: observed {-np.quantile(x, share):.2f}%, {losses}")

# %%
# The picture
# -----------
# Top: each day, coloured by the probability that it was a wild one: they come in spells, though the mixture knows nothing of
# order. Below, left: densities on a log scale. Right: how many days lost more than so much. One normal distribution leaves the
# observed line at 2%, two follow it to 4%, three to the end.

figure = plt.figure(figsize=(11, 7.4), layout="constrained")
top, left, right = figure.subplot_mosaic("AA;BC").values()
wild = models["two"].parameters.sds.ravel().argmax()
days = top.scatter(range(len(x)), x, c=models["two"].predict_proba(x)[:, wild], s=8, cmap="cividis_r", vmin=0, vmax=1)
figure.colorbar(days, ax=top, label="probability of a wild day")
top.set(xlabel="trading day", ylabel="log return (%)")

grid = np.linspace(-10.5, 6.5, 600)
left.hist(x, bins=60, density=True, color="0.85", label="returns")
for i, (name, fit) in enumerate(models.items()):
    style = {"color": COLOURS[i], "linestyle": LINES[i], "lw": 1.8, "label": name}
    left.plot(grid, fit.mixture.pdf(grid), **style)
    right.plot(-grid, len(x) * fit.mixture.cdf(grid), **style)
left.set(yscale="log", ylim=(2e-5, 1), xlabel="log return (%)", ylabel="density (per 1%)")
right.step(-np.sort(x), np.arange(1, len(x) + 1), where="post", color="0.4", lw=2.5, alpha=0.6, label="observed")
right.set(yscale="log", ylim=(0.05, 1000), xlim=(0, 10), xlabel="loss in a day (%)", ylabel="days that lost more")
left.legend(loc="upper left")
right.legend()
plt.show()
