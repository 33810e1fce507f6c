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
import clipneurons as cn
from clipneurons.shipped import ARTIFACTS

reader = cn.Reader(cn.load_clip(ARTIFACTS / "mini-vit"), cn.load_bundle(ARTIFACTS / "mini-vit"))
scene = ARTIFACTS.parent / "docs" / "images" / "scene.webp"  # or a photograph of yours

masks = reader.segment(scene, ["elephant", "automobile", "motorcycle", "pizza"])
masks

# %% [markdown]
# ## Found or not
#
# A map shows where a word fits best, even if it fits nowhere. Each word therefore has a score,
# which must reach a line that was chosen for 5 % false finds. There is no pizza here.

# %%
for name, presence in zip(masks.names, masks.presence, strict=True):
    print(f"{name:12s} score {presence.score:5.2f}  {'found' if presence.found else 'not found'}")

# %% [markdown]
# ## Masks as arrays

# %%
elephant = masks.mask("elephant")  # [height, width], bool
print(tuple(elephant.shape), f"{float(elephant.float().mean()):.0%} of the image")

# %% [markdown]
# ## Try next
#
# - [Concepts of an image](2_concepts.py), if you do not know the words.
# - [Guide to segmentation](../guide/segmentation.md): options, ResNets, many images.
# - [Results](../results.md#segmentation) against 15 other methods.
