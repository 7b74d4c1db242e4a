"""How many clusters of galaxies?
==============================

82 galaxies in the direction of Corona Borealis, and how fast each moves away. Galaxies at one distance have about one velocity,
so components of a mixture are walls and clusters with voids between them. How many are there? Three answers: a criterion, a look
at what each component rests on, and a test.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import emfuse
from emfuse.plots import COLOURS, MARKERS

velocity = np.loadtxt(Path(sys.argv[0]).parent / "data" / "galaxies.csv", skiprows=1)  # thousands of km/s

# %%
# A criterion
# -----------
# Ten starts for each number of components. BIC hardly tells three from five. But a likelihood grows without bound where a
# component shrinks onto few rows: the last column says how many rows the smallest has, and with five that is two galaxies which
# happen to be next to each other.

fits = {K: emfuse.fit(velocity, K, n_init=10) for K in range(1, 7)}
print("K  log-likelihood     AIC     BIC  galaxies in the smallest component, and its standard deviation")
for K, fit in fits.items():
    k = fit.statistics.mass.argmin()
    few = f"{fit.statistics.mass[k]:.1f}, {1000 * fit.parameters.sds[k, 0]:.0f} km/s"
    print(f"{K} {fit.log_likelihood:15.3f} {fit.aic:7.2f} {fit.bic:7.2f}  {few}")

# %%
# A test
# ------
# Twice the gain in log-likelihood of one component more has no textbook distribution. So samples are drawn from the fit
# without it, and both models are fitted to each. Two against three, and three against four:

tests = {K: emfuse.bootstrap_lrt(velocity, K, n_resamples=99, n_init=1) for K in (2, 3)}
for K, test in tests.items():
    print(f"{K} or {K + 1}: statistic {test.statistic:.2f}, p = {test.p_value:.2f} from {len(test.null_statistics)} samples")

# %%
# How sure are the three?
# -----------------------
# The small groups are well placed, but their standard deviations, from seven and three galaxies, may be off by much.

three = fits[3]
print(three.standard_errors(velocity).confidence_intervals())

# %%
# The picture
# -----------
# Left: the criteria; five and six are bought with components on two rows. Middle: the three groups, with each galaxy as a tick.
# Right: the test of two against three: no sample from two components gains as much as the data do.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
for i, criterion in enumerate(("aic", "bic")):
    values = [getattr(fit, criterion) for fit in fits.values()]
    left.plot(list(fits), values, marker=MARKERS[i], color=COLOURS[i], label=criterion.upper())
left.set(xlabel="number of components", ylabel="criterion (smaller is better)")
left.legend()
emfuse.plots.density(three, velocity, ax=middle, names="velocity (thousands of km/s)")
middle.plot(velocity, np.full(82, -0.004), "|", color="black", markersize=6, alpha=0.5)
middle.set_ylim(bottom=-0.01)
emfuse.plots.bootstrap(tests[2], ax=right)
plt.show()
