# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Has my data shifted?
#
# ![A reference image, a new image, and the place where they differ](images/5_shift.webp)
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
from clipneurons.shift.comparison import EmbeddedTextPool
from clipneurons.shift.planted import planted_mark
from clipneurons.shift.profile import Profiler
from clipneurons.shift.report import ImageSet, compare_sets
from clipneurons.shipped import ARTIFACTS
from clipneurons.synthetic.photographs import load_photographs

clip = cn.load_clip(ARTIFACTS / "mini-vit")
bundle = cn.load_bundle(ARTIFACTS / "mini-vit")

# %% [markdown]
# ## Two sets of photographs
#
# The new set has a small drawing in the corner of some images.

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
profiler = Profiler(cn.Lens(clip, bundle.config.layers), bundle)
pool = EmbeddedTextPool.of(bundle)
sides = [ImageSet(profiler.of_images(side), side.__getitem__) for side in (reference, new)]
report = compare_sets(profiler, pool, *sides, permutations=200)
print(f"p = {report['p']:.3f}, significant: {report['significant']}")
print({test: round(p, 3) for test, p in report["tests"].items()})

# %% [markdown]
# The tests for places notice the mark. The crop of that place is then read by itself:

# %%
place = report["localised"]
print(place["where"])
print([row["text"] for row in place["texts"][:5]])

# %% [markdown]
# ## No difference, no list
#
# Two halves of the same photographs do not differ. The report then has a p-value and nothing
# else, so that chance is not read as a finding.

# %%
same = compare_sets(
    profiler, pool, ImageSet(sides[0].profile[::2], reference[::2].__getitem__),
    ImageSet(sides[0].profile[1::2], reference[1::2].__getitem__),
    permutations=200,
)  # fmt: skip
print(f"p = {same['p']:.3f}", same["more"])

# %%
assert report["significant"]

# %% [markdown]
# ## Try next
#
# - [Guide to comparing sets](../guide/compare-sets.md): streams, options, limits.
# - [Results](../results.md#shifts): which shifts are found with how many images.
# - On the command line: `python -m export shift --reference A --new B --out report/`
