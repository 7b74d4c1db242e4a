"""The digit that it never saw
===========================

A mixture gives every row a density, and a row of low density is unusual. Here a mixture learns the handwritten digits 0 to 9, all
but 4. Then it sees new digits, among them fours. Are these the least probable ones?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score, roc_curve

import emfuse
from emfuse.plots import COLOURS

digits = load_digits()
random = np.random.default_rng(0)
known = random.permutation(np.flatnonzero(digits.target != 4))
learnt, held_out = known[:1000], known[1000:]
new = np.concatenate([held_out, np.flatnonzero(digits.target == 4)])
is_four = digits.target[new] == 4
print(f"learnt from {len(learnt)} digits; of {len(new)} new ones {is_four.sum()} are fours")

# %%
# One cloud, or twelve
# --------------------
# The images of 8 x 8 pixels become 16 principal components. One normal distribution is a single cloud around an average digit
# that nobody writes. Twelve with a common covariance matrix have room for nine digits, and for more than one way to write some.
#
# `score_samples` is the log density of each row. The area under the ROC curve is how often a four, drawn at random, is less
# probable than one of the other new digits.

reduced = PCA(16, random_state=0).fit(digits.data[learnt])
X, X_new = reduced.transform(digits.data[learnt]), reduced.transform(digits.data[new])
models = {"one normal": emfuse.fit(X, 1), "twelve, tied": emfuse.fit(X, 12, structure="tied")}
density = {name: fit.score_samples(X_new) for name, fit in models.items()}
for name, fit in models.items():
    area = roc_auc_score(is_four, -density[name])
    print(f"{name:12s} BIC {fit.bic:9.1f}, area under the ROC curve {area:.3f}")

# %%
# The fifty least probable of the new digits:

least = np.argsort(density["twelve, tied"])[:50]
print(f"of the 50 least probable, {is_four[least].sum()} are fours, where {50 * is_four.mean():.0f} would be there by chance")

# %%
# The picture
# -----------
# Left: log densities under the mixture; the fours lie to the left. Middle: the ROC curves. Right: the means of the twelve
# components as images, more or less the digits that it knows.

figure = plt.figure(figsize=(13, 4.4), layout="constrained")
left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
bins = np.histogram_bin_edges(density["twelve, tied"], 40)
for i, (name, rows) in enumerate({"other new digits": ~is_four, "fours": is_four}.items()):
    left.hist(density["twelve, tied"][rows], bins, color=COLOURS[i], alpha=0.6, density=True, label=name, hatch=("", "///")[i])
left.set(xlabel="log density (nats)", ylabel="share of the digits, per nat", ylim=(0, 0.19))
left.legend(loc="upper left")
for i, name in enumerate(models):
    alarm, hit, _ = roc_curve(is_four, -density[name])
    middle.plot(alarm, hit, color=COLOURS[1 - i], linestyle=("--", "-")[i], label=name)
middle.plot([0, 1], [0, 1], color="0.7", lw=1)
middle.set(xlabel="share of the other digits below a threshold", ylabel="share of the fours below it")
middle.legend(loc="lower right")
means = reduced.inverse_transform(models["twelve, tied"].parameters.means).reshape(3, 4, 8, 8)
right.imshow(np.block([[np.pad(image, 1) for image in row] for row in means]), cmap="gray_r", vmin=0, vmax=16)
right.set_title("means of the twelve components", fontsize=10)
right.set_axis_off()
plt.show()
