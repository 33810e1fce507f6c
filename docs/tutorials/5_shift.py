# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Has my data shifted?
#
# ![Reference images and new images with a small drawing in the corner](images/5_shift.webp)
#
# You will compare two sets of images. The test says whether they differ. If they do, the report
# says in which texts, units, pixels and places.

# %% tags=["hide-input"]
# On Colab only: fetch and install the code, with the bundled models.
import os
import sys

if "google.colab" in sys.modules:
    os.system("git clone --depth 1 URL clipneurons && pip install --quiet -e clipneurons")
    sys.path.insert(0, "clipneurons")

# %%
import matplotlib.pyplot as plt
import numpy as np

import clipneurons as cn
from clipneurons.shift.planted import planted_mark
from clipneurons.shipped import ARTIFACTS
from clipneurons.synthetic.photographs import load_photographs

bundle = cn.load_bundle(ARTIFACTS / "mini-vit")
reader = cn.Reader(cn.load_clip(ARTIFACTS / "mini-vit"), bundle)

# %% [markdown]
# ## Two sets of photographs
#
# The new set has a small drawing in the corner of some images. With your own data, pass two
# folders: `cn.compare_sets(reader, "yesterday/", "today/")`.

# %%
photographs = load_photographs()
rows = np.random.default_rng(0).permutation(len(photographs))[:120].tolist()
pictures = [photographs.square(row, 128) for row in rows]
reference, new, word = planted_mark(pictures, bundle.texts)

fig, axes = plt.subplots(2, 6, figsize=(8, 2.8))
for line, (name, side) in enumerate((("reference", reference), ("new", new))):
    for column, axis in enumerate(axes[line]):
        axis.imshow(side[column])
        axis.axis("off")
    axes[line, 0].set_title(name, loc="left", fontsize=9)
print("planted:", word)

# %% [markdown]
# ## Compare

# %%
comparison = cn.compare_sets(reader, reference, new, permutations=200)
comparison

# %%
print({test: round(p, 3) for test, p in comparison.tests.items()})

# %% [markdown]
# The tests for places notice the mark. The crop of that place is then read by itself:

# %%
place = comparison.localised
print(place.where, [row.text for row in place.texts[:5]])

# %% [markdown]
# ## No difference, no list
#
# Two halves of the same photographs do not differ. The report then has a p-value and nothing
# else, so that chance is not read as a finding.

# %%
cn.compare_sets(reader, reference[::2], reference[1::2], permutations=200)

# %%
assert comparison.significant

# %% [markdown]
# ## Try next
#
# - [Guide to comparing sets](../guide/compare-sets.md): streams, options, limits.
# - [Results](../results.md#shifts): which shifts are found with how many images.
# - On the command line: `python -m export shift --reference A --new B --out report/`
