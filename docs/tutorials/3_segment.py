# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Segment with words
#
# ![An image and the masks of three words](images/3_segment.webp)
#
# You will find what words name in an image: a heat map and a mask for each word. No training is
# needed.

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
from PIL import Image

import clipneurons as cn
from clipneurons.segmentation.presence import line_of, presences
from clipneurons.segmentation.segment import segment
from clipneurons.shipped import ARTIFACTS

clip = cn.load_clip(ARTIFACTS / "mini-vit")
bundle = cn.load_bundle(ARTIFACTS / "mini-vit")
image = Image.open(ARTIFACTS.parent / "docs" / "images" / "scene.webp").convert("RGB")
words = ["elephant", "automobile", "motorcycle"]
result = segment(clip, image, words)

# %%
fig, axes = plt.subplots(2, 4, figsize=(9, 4.8))
axes[0, 0].imshow(image)
for column, word in enumerate(words, start=1):
    mask = result.mask(column - 1).numpy()
    axes[0, column].imshow(result.heat[column - 1])
    axes[0, column].set_title(word)
    axes[1, column].imshow(np.where(mask[..., None], np.asarray(image), 235))
for axis in axes.flat:
    axis.axis("off")
plt.tight_layout()

# %% [markdown]
# ## Is it there at all?
#
# A map shows where a word fits best, even if it fits nowhere. `presences` tells these cases
# apart. Its score must reach a line that was chosen for 5 % false finds.

# %%
asked = [*words, "sailboat", "pizza"]
line = line_of(bundle.metrics)
for word, presence in zip(
    asked, presences(clip, image, asked, bundle.text_embeddings, line), strict=True
):
    print(f"{word:12s} score {presence.score:5.2f}  {'found' if presence.found else 'not found'}")

# %% [markdown]
# ## Labels for every pixel
#
# Words compete: each position gets the word with the largest score, or none.

# %%
labels = result.labels()
plt.figure(figsize=(3.4, 3.4))
plt.imshow(np.ma.masked_less(labels.numpy(), 0), cmap="tab10", vmin=0, vmax=9)
plt.axis("off")
{words[index]: f"{float((labels == index).float().mean()):.0%}" for index in range(len(words))}

# %% [markdown]
# ## Try next
#
# - [Concepts of an image](2_concepts.py), if you do not know the words.
# - [Guide to segmentation](../guide/segmentation.md): options, ResNets, many images.
# - [Results](../results.md#segmentation) against 15 other methods.
