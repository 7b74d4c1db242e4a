"""When there is only a histogram
==============================

Data often come counted: so many in this class, so many in that one. One may pretend that all of a class lie in its middle, but
then the width of the classes is taken for spread of the data. `fit_binned` maximises the likelihood of the counts themselves.
Here both are tried on Old Faithful's waits, of which the rows are known, in classes of 2 to 12 minutes.
"""

import importlib.resources

import matplotlib.pyplot as plt
import numpy as np

import emfuse
from emfuse.plots import COLOURS, LINES, MARKERS

with (importlib.resources.files("emfuse") / "faithful.csv").open() as table:
    waiting = np.loadtxt(table, delimiter=",", skiprows=1)[:, 1]

# %%
# The answer to compare with: the rows, two components with one standard deviation ("tied").

rows = emfuse.fit(waiting, 2, structure="tied")
truth = float(rows.parameters.sds[0, 0])
print(f"rows: means {np.sort(rows.parameters.means.ravel()).round(2)}, standard deviation {truth:.2f} minutes")

# %%
# Classes
# -------
# Where classes begin is chance, so each width is tried with all its beginnings. Waits are whole minutes, and edges lie between
# them.

widths = [2, 4, 6, 8, 10, 12]
found = {"middles of classes": [], "classes": []}
for width in widths:
    sds = []
    for first in range(width):
        edges = np.arange(42.5 - first, 97.0 + width, width)
        counts = np.histogram(waiting, edges)[0]
        middles = 0.5 * (edges[:-1] + edges[1:])
        pretended = emfuse.fit(middles, 2, structure="tied", sample_weight=counts, init=rows.parameters)
        exact = emfuse.fit_binned(edges, counts, 2, structure="tied")
        sds.append([pretended.parameters.sds[0, 0], exact.parameters.sds[0, 0]])
    for name, sd in zip(found, np.transpose(sds), strict=True):
        found[name].append(sd)
    average = ", ".join(f"{np.mean(found[name][-1]):.2f} by the {name}" for name in found)
    print(f"{width:2d} minutes: standard deviation, on average, {average}")

# %%
# The picture
# -----------
# Left: the standard deviation for each width; a dot for each beginning, and the averages as lines. By the middles it grows
# with the width, as it must: a class of width w adds about w²/12 to the variance (grey). By the classes it stays where the rows
# have it, though it scatters as less is known. Right: the mixture from classes of 10 minutes, over the classes, and that of the
# rows.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
w = np.linspace(0, 13, 50)
left.axhline(truth, color="black", lw=1, label="rows")
left.plot(w, np.sqrt(truth**2 + w**2 / 12), color="0.6", lw=4, alpha=0.5, label="rows, and w²/12")
for i, (name, sds) in enumerate(found.items()):
    style = {"color": COLOURS[1 - i], "marker": MARKERS[i]}
    left.plot(widths, [sd.mean() for sd in sds], linestyle=LINES[i], label=f"by {name}", **style)
    for width, sd in zip(widths, sds, strict=True):
        left.plot(np.full(len(sd), width + 0.15 - 0.3 * i), sd, linestyle="none", markersize=2.5, alpha=0.6, **style)
left.set(xlabel="width of a class, w (minutes)", ylabel="standard deviation (minutes)", xlim=(0, 13))
left.legend(loc="upper left")

edges = np.arange(40.5, 108.0, 10)
counts = np.histogram(waiting, edges)[0]
exact = emfuse.fit_binned(edges, counts, 2, structure="tied")
grid = np.linspace(38, 103, 300)
right.stairs(counts / counts.sum() / 10, edges, fill=True, color="0.88", label="classes of 10 minutes")
right.plot(grid, rows.mixture.pdf(grid), color="black", lw=1, label="from the rows")
right.plot(grid, exact.mixture.pdf(grid), "--", color=COLOURS[0], lw=2, label="from the classes")
right.set(xlabel="waiting (minutes)", ylabel="density (per minute)", ylim=(0, 0.058))
right.legend(loc="upper left")
plt.show()
