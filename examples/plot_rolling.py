"""A thousand fits in one call: what may be lost tomorrow
======================================================

How much may be lost tomorrow, at worst but for one day in a hundred? A mixture of calm and wild days, fitted to the last 500
trading days, has an answer, and each day another one. That makes more than a thousand data sets of 500 rows each, and `fit_many`
fits them in one call, whose loop over data sets is compiled. Then each answer is held against the day that followed. The data
are log returns of the German share index DAX, 1991 to 1998.
"""

import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

import emfuse
from emfuse.plots import COLOURS

x = 100 * np.loadtxt(Path(sys.argv[0]).parent / "data" / "dax_logret.csv", skiprows=1)  # per cent
x = x[x != 0.0]  # where the index stood still, as on a holiday
days = 500

# %%
# The fits
# --------
# Each row of `windows` is a data set. `fits[i]` is the i-th mixture; `fits.weights`, `fits.means` and the like have them all.

windows = np.lib.stride_tricks.sliding_window_view(x, days)[:-1]
began = time.perf_counter()
fits = emfuse.fit_many(windows, 2)
print(f"{time.perf_counter() - began:.2f} s for {len(fits):,} fits, {len(fits.failures)} failed")

# %%
# The next day
# ------------
# `ppf` is the quantile of a mixture. Beside it stands that of one normal distribution, fitted to the same 500 days.

one_in = 100
after = x[days:]
limit = {
    "two components": np.array([emfuse.Mixture(mixture).ppf(1 / one_in) for mixture in fits]),
    "one normal": windows.mean(axis=1) + windows.std(axis=1) * norm.ppf(1 / one_in),
}
print(f"days that should lose more than was said: {len(after) / one_in:.1f}")
for name, said in limit.items():
    print(f"by {name}: {(after < said).sum()} of {len(after):,} days")

# %%
# The picture
# -----------
# Above: each day, and what was said the day before; a ring around those that lost more than two components said. One normal
# distribution promises too much nearly always, and most of all in wild times. Below: the two standard deviations. A single wild
# day moves the larger one when it comes into the window, and again when it leaves.

figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 7), layout="constrained", height_ratios=(3, 2), sharex=True)
day = np.arange(days, len(x))
top.plot(day, after, ".", color="0.6", markersize=3)
for i, (name, said) in enumerate(limit.items()):
    top.plot(day, said, ("-", "--")[i], color=COLOURS[i], lw=1.5, label=f"one day in {one_in} is below: {name}")
worse = after < limit["two components"]
top.plot(day[worse], after[worse], "o", color="black", markerfacecolor="none", markersize=6)
top.set(ylabel="log return (%)", ylim=(-6.5, 6.5))
top.legend(loc="upper left")
sds = np.sort(fits.sds[:, :, 0], axis=1)
for i, name in enumerate(("calm", "wild")):
    bottom.plot(day, sds[:, i], ("--", "-")[i], color=COLOURS[2 + i], label=name)
bottom.set(xlabel="trading day", ylabel="standard deviation (%)", ylim=(0, None))
bottom.legend(loc="upper right")
plt.show()
