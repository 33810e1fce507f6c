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
import matplotlib.pyplot as plt
import torch
from PIL import Image

import clipneurons as cn
from clipneurons.concepts.concepts import ConceptReader, read_image
from clipneurons.images.heatmap import overlay
from clipneurons.shipped import ARTIFACTS

clip = cn.load_clip(ARTIFACTS / "mini-vit")
bundle = cn.load_bundle(ARTIFACTS / "mini-vit")
reader = ConceptReader(cn.Lens(clip, bundle.config.layers), bundle)
image = Image.open(ARTIFACTS.parent / "docs" / "images" / "scene.webp").convert("RGB")
image

# %% [markdown]
# ## Concepts with their maps
#
# Weights are in per cent of all that the neurons contribute.

# %%
result = read_image(reader, clip.preprocess(image))
for concept in result["concepts"][:8]:
    print(f"{concept['weight']:5.1f} %  {concept['text']}")

# %%
shown = [next(c for c in result["concepts"] if c["text"] == text) for text in result["heading"]]
fig, axes = plt.subplots(1, 1 + len(shown), figsize=(2.4 * (1 + len(shown)), 2.7))
axes[0].imshow(image)
axes[0].set_title("image")
for axis, concept in zip(axes[1:], shown, strict=True):
    axis.imshow(overlay(image, torch.tensor(concept["map"])))
    axis.set_title(f"{concept['text']}  {concept['weight']:.0f} %")
for axis in axes:
    axis.axis("off")
plt.tight_layout()

# %% [markdown]
# ## Compared with the whole embedding
#
# The texts nearest to the embedding see the image as one thing. Small objects are lost.

# %%
for nearest in result["zero_shot"]:
    print(f"{nearest['cosine']:.2f}  {', '.join(nearest['texts'])}")

# %% [markdown]
# ## The neurons behind it
#
# These neurons are active: their effect is larger than on 98 % of the data set.

# %%
for active in result["neurons"][:6]:
    neuron = bundle.neuron(active["layer"], active["unit"])
    label = ", ".join(neuron.label.texts) if neuron.reliable else "no reliable label"
    print(f"layer {neuron.layer}, neuron {neuron.neuron:3d}  norm {active['norm']:4.1f}  {label}")

# %% [markdown]
# ## Try next
#
# - [Segment with words](3_segment.py), if you know what to look for.
# - [Read one neuron](1_read_a_neuron.py) of those above.
# - [Guide to concepts](../guide/concepts.md), with limits.
