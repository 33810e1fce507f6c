# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Concepts of an image, and where
#
# ![An image and the maps of its first concepts](images/2_concepts.webp)
#
# You will read an image patch by patch through the effects of its neurons. Each concept gets a
# weight and a map.

# %% tags=["hide-input"]
# On Colab only: fetch and install the code, with the bundled models.
import os
import sys

if "google.colab" in sys.modules:
    os.system("git clone --depth 1 URL clipneurons && pip install --quiet -e clipneurons")
    sys.path.insert(0, "clipneurons")

# %%
import clipneurons as cn
from clipneurons.shipped import ARTIFACTS

clip = cn.load_clip(ARTIFACTS / "mini-vit")
bundle = cn.load_bundle(ARTIFACTS / "mini-vit")
reader = cn.Reader(clip, bundle)
scene = ARTIFACTS.parent / "docs" / "images" / "scene.webp"  # or a photograph of yours

# %% [markdown]
# ## Concepts with their maps
#
# Weights are in per cent of all that the neurons contribute.

# %%
result = reader.concepts(scene)
result

# %% [markdown]
# ## As data
#
# The result is a dataclass. `to_dict()` gives JSON values.

# %%
first = result.concepts[0]
print(first.text, f"{first.weight:.1f} %", "map of", len(first.map), "x", len(first.map[0]))
print("Different meanings:", ", ".join(result.heading))

# %% [markdown]
# ## Compared with the whole embedding
#
# The texts nearest to the embedding see the image as one thing. Small objects are easily lost.

# %%
for nearest in result.zero_shot:
    print(f"{nearest.cosine:.2f}  {', '.join(nearest.texts)}")

# %% [markdown]
# ## The neurons behind it
#
# These neurons are active: their effect is larger than on 98 % of the data set. Read one of them.

# %%
active = next(unit for unit in result.neurons if unit.label)
bundle.neuron(active.layer, active.unit)

# %%
assert any("elephant" in text for text in result.heading)

# %% [markdown]
# ## Try next
#
# - [Segment with words](3_segment.py), if you know what to look for.
# - [Read one neuron](1_read_a_neuron.py) of those above.
# - [Guide to concepts](../guide/concepts.md), with limits.
