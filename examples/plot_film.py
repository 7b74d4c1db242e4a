"""A film of a fit
===============

EM is easiest to understand when it is watched. It starts here from two round components in the wrong corners of the plot of Old
Faithful's eruptions. Each sweep asks of every row how much it belongs to each component, and then gives each component the mean
and the covariance of what belongs to it.
"""

import importlib.resources
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import emfuse

with (importlib.resources.files("emfuse") / "faithful.csv").open() as table:
    X = np.loadtxt(table, delimiter=",", skiprows=1)
names = ["eruption (minutes)", "waiting (minutes)"]

# %%
# `em` begins where it is told to, and with `history=True` keeps the parameters of each sweep. Its history prints as a table;
# these are the log-likelihoods, in nats. They never fall.

start = emfuse.Parameters(
    weights=[0.5, 0.5],
    means=[[2.0, 90.0], [4.5, 50.0]],
    covariances=[np.diag([0.3, 60.0])] * 2,
    structure="full",
)
fit = emfuse.em(X, start, history=True)
shown = [0, 1, 20, 25, 27, 38]
for sweep in shown:
    print(f"sweep {sweep:2d}: log-likelihood {fit.history[sweep].log_likelihood:.3f}")
late = fit.log_likelihood - fit.history[20].log_likelihood
print(f"{fit.sweeps} sweeps, of which those after the 20th gained {late:.1f} nats; stopped because {fit.reason}")

# %%
# The film
# --------
# `film` writes a picture for each sweep as a GIF, as an MP4, or as PNG files into a folder.

path = Path(tempfile.gettempdir()) / "old_faithful.gif"
drawn = fit.film(X, path, names=names, most=10, fps=4)
print(f"{path}: {len(drawn)} pictures, of sweeps {drawn}")

# %%
# Six of its pictures
# -------------------
# Sweep 0 is the start. One step makes of both components nearly the same, a long ellipse through everything. For twenty sweeps
# hardly anything happens: the log-likelihood gains about three nats. But the small difference between the two grows all the
# while, and then, in a few sweeps, each takes one kind of eruption. A rule that stops where a sweep gains little could have
# stopped here, far from the end.

figure, axes = plt.subplots(2, 3, figsize=(11, 7), layout="constrained", sharex=True, sharey=True)
for ax, sweep in zip(axes.flat, shown, strict=True):
    at = fit.history[sweep]
    emfuse.plots.components(at.parameters, X, ax=ax, names=names)
    ax.set_title(f"sweep {sweep}: {at.log_likelihood:.1f} nats", loc="left", fontsize=10)
    ax.set(xlim=(1, 5.8), ylim=(38, 102))
    ax.label_outer()
plt.show()
