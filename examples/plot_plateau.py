"""The crawl: why EM seems to stop, and what to do
===============================================

Where components overlap, EM crawls: each step gains less than the one before, for thousands of steps, and the maximum is still
far. Rules that stop when a step gains little stop on the way. Here: 10,000 numbers of which half come from N(0, 1), half from
N(1.5, 1), fitted from one start in three ways.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.mixture import GaussianMixture

import emfuse
from emfuse.plots import COLOURS

random = np.random.default_rng(0)
x = np.concatenate([random.normal(0.0, 1.0, 5_000), random.normal(1.5, 1.0, 5_000)])
start = emfuse.Parameters.univariate([0.9, 0.1], [0.0, 3.0], [1.0, 1.0])

# %%
# Three ways up
# -------------
# Plain EM to the end; emfuse's accelerated steps ("emqn": a quasi-Newton step that is kept only where it gains as much as EM's
# own would); and scikit-learn, by its own rule: it stops when a step changes the log-likelihood by less than 0.001 nats a row.

end = emfuse.stopping.first_of(emfuse.stopping.Within(1e-6), emfuse.stopping.SweepLimit(100_000))
plain = emfuse.em(x, start, stop=end, history=True)
fast = emfuse.em(x, start, stop=end, acceleration="emqn")
theirs = GaussianMixture(
    2,
    weights_init=start.weights,
    means_init=start.means,
    precisions_init=1.0 / start.covariances,
    reg_covar=0.0,
)
theirs.fit(x[:, None])
their_log_likelihood = theirs.score(x[:, None]) * len(x)
top = max(plain.log_likelihood, fast.log_likelihood)
print(f"plain EM:     {plain.sweeps:5d} sweeps, {top - plain.log_likelihood:.6f} nats below the highest")
print(f"emqn:         {fast.sweeps:5d} sweeps, {top - fast.log_likelihood:.6f} nats below the highest")
print(f"scikit-learn: {theirs.n_iter_:5d} sweeps, {top - their_log_likelihood:.6f} nats below the highest")
print(f"at the maximum:       weights {fast.parameters.weights.round(2)}, means {fast.parameters.means.ravel().round(2)}")
print(f"where that one stops: weights {theirs.weights_.round(2)}, means {theirs.means_.ravel().round(2)}")

# %%
# `distance` is what a fit believes to be left; `emfuse.fit` goes on until that is below 1e-6 nats, and says so.

print(f"emqn stopped because {fast.reason}")

# %%
# The picture
# -----------
# Left: how far below the maximum each way is, both scales logarithmic. Plain EM comes to a plateau and crawls over it; the cross
# is where scikit-learn stops. Right: what is little in nats is much in parameters. At the cross the means have most of their way
# before them; the grey lines are where they end.

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
for i, (name, fit) in enumerate({"plain EM": plain, "emqn": fast}.items()):
    sweeps = np.linspace(1, fit.sweeps, len(fit.trace))  # a step of emqn takes a sweep or two
    left.loglog(sweeps, top - fit.trace, ("-", "o-")[i], color=COLOURS[i], markersize=4, label=f"{name}: {fit.sweeps:,} sweeps")
cross = {"color": "black", "marker": "x", "markersize": 10, "markeredgewidth": 2, "linestyle": "none", "zorder": 3}
left.plot(theirs.n_iter_ + 1, top - their_log_likelihood, **cross, label=f"scikit-learn: stops after {theirs.n_iter_}")
left.set(xlabel="sweeps", ylabel="log-likelihood below the maximum (nats)", ylim=(1e-6, 1e5))
left.legend()

means = np.array([sweep.parameters.means.ravel() for sweep in plain.history])
right.semilogx(np.arange(1, len(means) + 1), means, color=COLOURS[0])
right.plot([theirs.n_iter_ + 1] * 2, theirs.means_.ravel(), **cross)
for mean in fast.parameters.means.ravel():
    right.axhline(mean, color="0.6", lw=1, zorder=0)
right.set(xlabel="sweeps", ylabel="means of the two components")
plt.show()
