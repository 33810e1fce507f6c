# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Read one neuron of your CLIP
#
# ![Four neurons with the images that activate them most](../images/neurons.webp)
#
# You will measure what each neuron contributes to an image embedding. Then you will read one
# neuron as text, and check that reading on images.

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

import clipneurons as cn
from clipneurons.shipped import ARTIFACTS

clip = cn.load_clip(ARTIFACTS / "mini-vit")  # or cn.load_clip("ViT-B-32", "openai")
bundle = cn.load_bundle(ARTIFACTS / "mini-vit")  # what an analysis of this model found
clip.name, bundle.config.layers

# %% [markdown]
# ## What neurons do to one image
#
# A lens runs the model once. It returns the embedding and the effect of every neuron on it.

# %%
photograph = bundle.neuron(5, 115).images[0].thumbnail
result = cn.Lens(clip, layers=bundle.config.layers)(photograph)
norms = result.effects[5].norms()[0]  # [neuron]

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6), width_ratios=(1, 2.4))
left.imshow(photograph)
left.axis("off")
right.hist(norms.numpy(), bins=80, log=True)
right.set(xlabel="norm of the effect (embedding: 100)", ylabel="neurons of layer 5")
plt.tight_layout()

# %% [markdown]
# A few neurons have large effects. Most do almost nothing. These are the largest:

# %%
for unit in norms.topk(5).indices.tolist():
    neuron = bundle.neuron(5, unit)
    label = ", ".join(neuron.label.texts) if neuron.reliable else "no reliable label"
    print(f"neuron {unit:3d}  norm {norms[unit]:.1f}  {label}")

# %% [markdown]
# ## One neuron, in texts
#
# The **label** predicts the neuron's effect on images that it was not written on. The
# **simulation score** says how well (Pearson r). The **decomposition** is the paper's
# description: a sparse sum of texts that equals the direction of the effects.

# %%
bundle.neuron(5, 115)

# %% [markdown]
# ## Search for neurons
#
# The query names what the neuron should push the embedding toward. A minus excludes a text.

# %%
cn.search(bundle, "a sailboat, -water", top=5, embed=clip)

# %% [markdown]
# ## Check the reading
#
# Does neuron 115 respond to motorcycles more than to other things? Compare its effect along its
# direction on photographs of 10 classes.

# %%
from PIL import Image

from clipneurons.synthetic.photographs import load_photographs

photographs = load_photographs()
names = ("motorcycle", "airplane", "leopard", "sunflower", "ketch", "laptop", "chair", "pizza",
         "elephant", "dalmatian")  # fmt: skip
rows = [row for name in names for row in photographs.by_name[name][:6]]
pictures = [Image.fromarray(photographs.image(row)) for row in rows]
effects = cn.Lens(clip, layers=[5])(pictures).effects[5].dense(torch.tensor([115]))[:, 0]
along = (effects @ bundle.layers[5].directions[115]).reshape(len(names), -1).mean(1)

plt.figure(figsize=(6, 2.8))
plt.barh(names, along.numpy())
plt.gca().invert_yaxis()
plt.xlabel("mean effect along the neuron's direction")
plt.tight_layout()

# %%
assert names[int(along.argmax())] == "motorcycle"

# %% [markdown]
# ## Try next
#
# - [Concepts of an image, and where](../guide/concepts.md): all neurons at once.
# - [Analyse your own CLIP](6_your_own_clip.py): make a bundle of your model.
# - [How the lens works](../methods/second-order.md).
