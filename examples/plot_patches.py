"""Larger than memory: what photographs are made of
================================================

Cut into overlapping squares of 6 x 6 pixels, two photographs become a table that is ten times as large as they are, and those of
a whole archive would fit into no memory. So the squares are written to files and fitted from there: each sweep of EM reads them
again, block by block, one block ahead. What comes out is what the rows in memory would give.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from scipy.fft import dctn, idctn
from sklearn.datasets import load_sample_images

import emfuse
from emfuse.plots import COLOURS

SIDE, STEP, K = 6, 2, 6  # pixels; components


def squares(photograph):
    """Return squares of a photograph, (rows, columns, SIDE² - 1), without their mean brightness: what is left is texture."""
    grey = photograph.mean(axis=2, dtype=np.float32) / 255
    cut = np.lib.stride_tricks.sliding_window_view(grey, (SIDE, SIDE))[::STEP, ::STEP]
    cosines = dctn(cut, axes=(2, 3), norm="ortho")  # the first of which is the mean
    return cosines.reshape(*cut.shape[:2], -1)[:, :, 1:]


# %%
# A folder of files
# -----------------
# `fit` takes a path: a .npy or Parquet file, or a folder of them.

photographs = load_sample_images().images
textures = [squares(photograph) for photograph in photographs]
with tempfile.TemporaryDirectory() as folder:
    for i, texture in enumerate(textures):
        np.save(Path(folder) / f"photograph_{i}.npy", texture.reshape(-1, texture.shape[2]))
    size = sum(file.stat().st_size for file in Path(folder).iterdir())
    fit = emfuse.fit(folder, K, init="kmeans", stop=20)
rows, D = int(fit.statistics.weight), fit.parameters.n_features
print(f"photographs: {sum(photograph.nbytes for photograph in photographs) / 1e6:.1f} MB")
print(f"files: {size / 1e6:.1f} MB, {rows:,} rows of {D} features")

# %%
# The same rows in memory, under the fitted parameters, have the same log-likelihood.

in_memory = emfuse.InMemory(np.concatenate([texture.reshape(rows // 2, D) for texture in textures]))
there = in_memory.sweep(fit.parameters.factors).log_likelihood
print(f"log-likelihood from files {fit.log_likelihood:.6f}, in memory {there:.6f}")

# %%
# Six textures
# ------------
# Components in the order of their contrast. The first, next to nothing, has half of the squares.

p = fit.parameters
contrast = np.sqrt(np.trace(p.covariances, axis1=1, axis2=2) / SIDE**2)
order = contrast.argsort()
for place, k in enumerate(order):
    print(f"texture {place}: {100 * p.weights[k]:4.1f}% of the squares, standard deviation of a pixel {contrast[k]:.3f}")

# %%
# The picture
# -----------
# Above: the photographs, and the most likely texture of each place. Sky, still water and blurred leaves are alike; shades,
# outlines and foliage differ by their contrast, and upright lines have a texture of their own. Below: squares drawn from each
# component, framed in its colour; grey is scaled for each component by itself.

figure = plt.figure(figsize=(13, 5), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
colours = ListedColormap(["#F0F0F0", *COLOURS[:5]])
axes = above.subplots(1, 4)
for i, (photograph, texture) in enumerate(zip(photographs, textures, strict=True)):
    places = order.argsort()[fit.predict(texture.reshape(-1, D))]
    axes[2 * i].imshow(photograph)
    axes[2 * i + 1].imshow(places.reshape(texture.shape[:2]), cmap=colours, interpolation="nearest", vmin=-0.5, vmax=K - 0.5)
for place, (ax, k) in enumerate(zip(below.subplots(1, K), order, strict=True)):
    one = emfuse.Parameters([1.0], p.means[[k]], p.covariances[[k]], p.structure)
    cosines = np.concatenate([np.zeros((25, 1)), one.sample(25, random_state=0)[0]], axis=1)
    drawn = idctn(cosines.reshape(5, 5, SIDE, SIDE), axes=(2, 3), norm="ortho")
    framed = np.pad(drawn, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=np.nan)
    ax.imshow(framed.transpose(0, 2, 1, 3).reshape(5 * (SIDE + 2), -1), cmap="gray")
    ax.set_title(f"texture {place}: {100 * p.weights[k]:.0f}%", fontsize=10)
    ax.add_patch(plt.Rectangle((0, 0), 1, 1, transform=ax.transAxes, fill=False, lw=4, edgecolor=colours(place)))
for ax in figure.axes:
    ax.set(xticks=[], yticks=[])
plt.show()
