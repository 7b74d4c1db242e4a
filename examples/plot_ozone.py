"""Regression without a formula
============================

How much ozone is in the air of a hot day? How much of a windy one? A mixture of ozone, wind and temperature is a model of all
three, so it answers for each what the others say about it: `condition` with a whole distribution, `regress` with mean and
variance, row by row. Nobody has to say that the line bends, or that the scatter grows. The data are 116 summer days of New York
in 1973.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import emfuse
from emfuse.plots import COLOURS, LINES

X = np.loadtxt(Path(sys.argv[0]).parent / "data" / "airquality.csv", delimiter=",", skiprows=1)
ozone, wind, temperature = range(3)  # parts per billion, miles an hour, degrees Fahrenheit

# %%
# The mixture
# -----------
# Two components, cool days and hot days, are enough for a line that bends. Features 0 to 2 are ozone, wind and temperature.

fit = emfuse.fit(X, 2)
mixture = fit.mixture
print(fit.summary())

# %%
# Mean and variance for each row
# ------------------------------
# Beside a straight line by least squares. Both are judged on the days they were fitted to, the mixture with more parameters.

found = mixture.regress(X[:, [wind, temperature]], [wind, temperature])
design = np.column_stack([np.ones(len(X)), X[:, [wind, temperature]]])
line = np.linalg.lstsq(design, X[:, ozone])[0]
for name, predicted in (("least squares", design @ line), ("mixture", found.mean[:, 0])):
    print(f"{name:13s} root mean square error {np.sqrt(np.mean((X[:, ozone] - predicted) ** 2)):.1f} ppb")
sd = np.sqrt(found.covariance[:, 0, 0])
print(f"standard deviation of a day's ozone, by the mixture: from {sd.min():.1f} to {sd.max():.1f} ppb")

# %%
# A whole distribution
# --------------------
# Given a day's wind and temperature, what is left is a mixture in one dimension: quantiles and probabilities are there.

days = {"15 mph, 65 °F": [15.0, 65.0], "10 mph, 80 °F": [10.0, 80.0], "5 mph, 93 °F": [5.0, 93.0]}
for name, given in days.items():
    day = mixture.condition([wind, temperature], given)
    print(f"{name}: median {day.median():5.1f} ppb, above 85 ppb with probability {day.sf(85.0):.3f}")

# %%
# The picture
# -----------
# Left: ozone against temperature alone, by the same mixture (wind is left out with `marginal`). The line bends, and the band of
# one standard deviation widens. Right: the distribution of ozone on three kinds of day.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
grid = np.linspace(57, 97, 200)
by_heat = mixture.marginal([ozone, temperature]).regress(grid, 1)
middle, spread = by_heat.mean[:, 0], np.sqrt(by_heat.covariance[:, 0, 0])
left.scatter(X[:, temperature], X[:, ozone], s=16, color="0.5")
left.plot(grid, middle, color=COLOURS[0], label="mean, given the temperature")
left.fill_between(grid, middle - spread, middle + spread, color=COLOURS[0], alpha=0.2, label="one standard deviation")
left.set(xlabel="temperature (degrees Fahrenheit)", ylabel="ozone (parts per billion)", ylim=(-10, 175))
left.legend(loc="upper left")
grid = np.linspace(-20, 170, 400)
for i, (name, given) in enumerate(days.items()):
    day = mixture.condition([wind, temperature], given)
    right.plot(grid, day.pdf(grid), color=COLOURS[i], linestyle=LINES[i], lw=1.8, label=name)
right.set(xlabel="ozone (parts per billion)", ylabel="density (per ppb)", ylim=(0, None))
right.legend()
plt.show()
