"""When a component collapses
==========================

The likelihood of a mixture has no upper bound: a component that shrinks onto equal rows raises it for ever, and EM goes along.
That happens on real data. Among the daily returns of the German share index DAX some are exactly 0, where the index stood still,
as on a holiday. Three components do not notice. The fourth falls into that hole, and you say what is to be done about it.
"""

import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import emfuse
from emfuse.plots import COLOURS

x = 100 * np.loadtxt(Path(sys.argv[0]).parent / "data" / "dax_logret.csv", skiprows=1)  # per cent
print(f"{len(x):,} days, {(x == 0).sum()} of them exactly 0")

# %%
# Four policies
# -------------
# "raise" is an error that says where and what. "restart", the default of `fit`, puts the component elsewhere, three times, and
# then drops it. "drop" does so at once. "floor" lets it rest on the least variance that is allowed. Where a component is missing
# or rests on the floor, there is a warning.

fits = {}
for policy in ("raise", "restart", "drop", "floor"):
    print(f"\non_collapse={policy!r}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            fits[policy] = fit = emfuse.fit(x, 4, on_collapse=policy)
        except emfuse.CollapsedComponent as error:
            print(f"  error: {error}")
            continue
    for sentence in fit.repairs:
        print(f"  repair: {sentence}")
    for warning in said:
        print(f"  warning: {warning.message}")
    print(f"  {fit.parameters.n_components} components, log-likelihood {fit.log_likelihood:.1f}")

# %%
# A log-likelihood that says nothing
# ----------------------------------
# The component on the floor seems to gain much more than any other component would. But it gains as much again and again, each
# time that its standard deviation is divided by ten, and has no end.

print(f"gain by the component on the floor: {fits['floor'].log_likelihood - fits['drop'].log_likelihood:.1f} nats")
resting = fits["floor"].parameters
k = int(resting.sds.argmin())
sds = 10.0 ** np.arange(-8, 1)
heights = []
for sd in sds:
    changed = resting.sds.ravel().copy()
    changed[k] = sd
    heights.append(emfuse.Mixture(emfuse.Parameters.univariate(resting.weights, resting.means.ravel(), changed)).logpdf(x).sum())
for sd, height in zip(sds, heights, strict=True):
    print(f"standard deviation {sd:.0e}%: log-likelihood {height:8.1f}")

# %%
# The remedy is to know one's data. Without the days on which nothing moved four components fit, and BIC says that three are
# enough.

trading = x[x != 0.0]
for K in (3, 4):
    fit = emfuse.fit(trading, K)
    print(
        f"without zeros, {K} components: log-likelihood {fit.log_likelihood:.1f}, BIC {fit.bic:.1f}, {len(fit.repairs)} repairs"
    )

# %%
# The picture
# -----------
# Left: returns near 0, in classes of 0.02%; the days without change stand out, which wider classes would hide. Right: the
# log-likelihood as the component on them gets narrower.

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
left.hist(x, bins=np.arange(-0.51, 0.52, 0.02), color=COLOURS[0])
left.set(xlabel="log return (%)", ylabel="days")
left.annotate(f"{(x == 0).sum()} days without change", (0.01, 75), (0.1, 70), arrowprops={"arrowstyle": "-"})
right.semilogx(sds, heights, "o-", color=COLOURS[1])
right.set(xlabel="standard deviation of the fourth component (%)", ylabel="log-likelihood (nats)")
plt.show()
