"""The classroom: a known standard deviation
=========================================

The usual exercise: 100 numbers from two groups, whose standard deviation is known to be 1. Only the means and the weights are
left to estimate, and every sweep of EM fits on a line. The second half asks of real data what such knowledge is worth.
"""

import importlib.resources

import matplotlib.pyplot as plt
import numpy as np

import emfuse
from emfuse.plots import COLOURS, LINES, MARKERS

random = np.random.default_rng(1)
x = np.concatenate([random.normal(0.0, 1.0, 60), random.normal(3.0, 1.0, 40)])

# %%
# The table
# ---------
# `sd=1` holds both standard deviations where they are. `stop=8` takes exactly eight steps, `acceleration=None` those of plain EM.

start = emfuse.Parameters.univariate([0.5, 0.5], [-1.0, 1.0], [1.0, 1.0])
fit = emfuse.fit(x, 2, sd=1, init=start, stop=8, acceleration=None, history=True)
print(fit.history)

# %%
# To the maximum, with standard errors. Those of the means are larger than in two separate samples of 60 and 40 rows, for nobody
# says which row is of which group. The standard deviations, being known, have none.

fit = emfuse.fit(x, 2, sd=1, init=start, history=True, acceleration=None)
print(fit.standard_errors(x))
print(f"means of separate samples would have standard errors {60**-0.5:.3f} and {40**-0.5:.3f}")

# %%
# On real data
# ------------
# Waits for Old Faithful's eruptions: what may be said of the two standard deviations? Free; equal, which costs one parameter
# less; or one the double of the other. Equal ones lose next to nothing, so BIC prefers them; the double does not fit.

with (importlib.resources.files("emfuse") / "faithful.csv").open() as table:
    waiting = np.loadtxt(table, delimiter=",", skiprows=1)[:, 1]
models = {"free": None, "equal": ["a", "a"], "one is double": ["a", "2a"], "both 5 minutes": [5.0, 5.0]}
for name, sds in models.items():
    known = emfuse.fit(waiting, 2, constraints=emfuse.Constraints(sds=sds))
    print(
        f"{name:15s} sds {known.parameters.sds.ravel().round(3)}, log-likelihood {known.log_likelihood:.3f}, "
        f"{known.free_parameters} free parameters, BIC {known.bic:.2f}"
    )

# %%
# The picture
# -----------
# Left: the means of the exercise, sweep by sweep, and in grey the true ones. Most of the way is done in eight sweeps. Right: what
# is found, over the numbers.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
means = np.array([sweep.parameters.means.ravel() for sweep in fit.history])
for k, truth in enumerate((0.0, 3.0)):
    left.axhline(truth, color="0.6", lw=1)
    left.plot(means[:, k], LINES[k], marker=MARKERS[k], markersize=4, color=COLOURS[k], label=f"component {k}")
left.set(xlabel="sweep", ylabel="mean", xticks=range(0, len(means), 3))
left.legend(loc="center right")
emfuse.plots.density(fit, x, ax=right)
plt.show()
