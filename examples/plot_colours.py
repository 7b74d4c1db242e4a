"""A photograph in six colours
===========================

Every pixel of a photograph is a row: red, green and blue. A mixture finds the colours that it is made of, with the shape and size
of each cloud; the most likely component of each pixel cuts the picture into parts. And since many pixels have the same colour, it
is enough to fit the different ones, each with its number as its weight: weight two is the row twice.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

import emfuse

photograph = load_sample_image("flower.jpg")
pixels = photograph.reshape(-1, 3) / 255.0

# %%
# Different colours and their numbers
# -----------------------------------
# Three bytes make one number, which is quicker to sort than rows.

codes, numbers = np.unique(photograph.reshape(-1, 3) @ [65536, 256, 1], return_counts=True)
colours = np.column_stack([codes >> 16, codes >> 8 & 255, codes & 255]) / 255.0
print(f"{len(pixels):,} pixels, {len(colours):,} colours")

# %%
# Twice the same fit
# ------------------
# Twenty steps from one start: of all pixels, and of the different colours with weights. The seconds are this machine's.

start = emfuse.fit(colours, 6, sample_weight=numbers, init="kmeans", stop=0).parameters
for name, rows, weights in (("pixels", pixels, None), ("colours", colours, numbers)):
    began = time.perf_counter()
    fit = emfuse.em(rows, start, sample_weight=weights, stop=20)
    seconds = time.perf_counter() - began
    print(f"{name:8s} log-likelihood {fit.log_likelihood:.3f} nats in {seconds:.2f} s")

# %%
# Six colours
# -----------

labels = fit.predict(pixels)
means, weights = fit.parameters.means, fit.parameters.weights
order = np.argsort(-weights)
for k in order:
    red, green, blue = (255 * means[k]).round().astype(int)
    print(f"component {k}: {100 * weights[k]:4.1f}% of the pixels, mean colour ({red}, {green}, {blue})")

# %%
# The picture
# -----------
# Left: the photograph. Middle: each pixel in the mean colour of its component. Right: the share of the pixels in each. Three of
# the components are leaves in the dark, and three are the flower and its shades.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained", width_ratios=(1, 1, 0.55))
left.imshow(photograph)
left.set_title(f"{len(colours):,} colours", fontsize=10)
middle.imshow(means[labels].reshape(photograph.shape))
middle.set_title("6 colours", fontsize=10)
for ax in (left, middle):
    ax.set_axis_off()
right.barh(range(6), 100 * weights[order], color=means[order], edgecolor="0.6")
right.set(xlabel="share of the pixels (%)", ylabel="component", yticks=range(6), yticklabels=order)
right.invert_yaxis()
plt.show()
