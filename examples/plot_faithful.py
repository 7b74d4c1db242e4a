"""Old Faithful: a first fit
=========================

The geyser Old Faithful erupts for a few minutes, then one waits for about an hour. 272 eruptions were timed. How many kinds of
eruption are there, and which kind was each? One line fits a mixture; this page reads and draws what comes back.
"""

import importlib.resources

import matplotlib.pyplot as plt
import numpy as np

import emfuse

with (importlib.resources.files("emfuse") / "faithful.csv").open() as table:  # the data come with emfuse
    X = np.loadtxt(table, delimiter=",", skiprows=1)
names = ["eruption (minutes)", "waiting (minutes)"]
print(f"{len(X)} eruptions of {X[:, 0].min()} to {X[:, 0].max()} minutes")

# %%
# One feature, two components
# ---------------------------
# What is printed: each component's share of the rows, its mean and its standard deviation; the log-likelihood in nats, and the
# criteria made from it; and why the fit stopped.

waiting = X[:, 1]
one = emfuse.fit(waiting, 2)
print(one)

# %%
# Two features
# ------------
# Short eruptions are followed by short waits. With both features each component has a covariance matrix of its own.

two = emfuse.fit(X, 2)
print(two.summary())

# %%
# Which kind is a row?
# --------------------
# `predict` gives the most likely component, `predict_proba` how likely each is. By the wait alone many eruptions are in doubt;
# with both features hardly any is.

for fit, rows, by in ((one, waiting, "waiting alone"), (two, X, "both")):
    doubtful = int((fit.predict_proba(rows).max(axis=1) < 0.95).sum())
    print(f"by {by}: {np.bincount(fit.predict(rows))} eruptions in each component, {doubtful} of them less than 95% certain")

print(f"a wait of 66 minutes: {one.predict_proba([66.0])[0].round(2)}")

# %%
# The picture
# -----------
# Left: the two weighted components and their sum, over the histogram of waits. Where the two curves cross, a wait could be of
# either kind. Right: ellipses of one and two standard deviations around each mean; colour and marker are those of the component
# that a row most likely belongs to.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
emfuse.plots.density(one, waiting, ax=left, names=names[1])
emfuse.plots.components(two, X, ax=right, names=names)
plt.show()
