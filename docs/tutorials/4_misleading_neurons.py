# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Which neurons mislead my classifier?
#
# ![Accuracy of each group before and after ablation](images/4_misleading_neurons.webp)
#
# A zero-shot classifier often uses what stands beside an object. You will plant such a cue, find
# the neurons that respond to it, and ablate them.

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
from clipneurons.edit.class_effects import ClassEffects, places
from clipneurons.edit.mending import accuracies, find_units, margins, strongest_rivals
from clipneurons.shipped import ARTIFACTS
from clipneurons.synthetic.pasted import PastedPhotographs
from clipneurons.synthetic.photographs import load_photographs
from clipneurons.synthetic.spurious import SpuriousScenes, SpuriousTask, mostly
from clipneurons.text.embedding import embed_texts

clip = cn.load_clip(ARTIFACTS / "mini-vit")
bundle = cn.load_bundle(ARTIFACTS / "mini-vit")

# %% [markdown]
# ## A classifier with a spurious correlation
#
# Stop signs lie on yellow stripes, rhinoceroses on a blue gradient. One in ten images has the
# other ground.

# %%
task = SpuriousTask(classes=("stop sign", "rhinoceros"), cues=("stripes yellow", "gradient blue"))
halves = [PastedPhotographs(load_photographs(), half) for half in (0, 1)]  # other photographs
found_on = SpuriousScenes(halves[0], task, mostly(120, 0.9), seed=0)
tested_on = SpuriousScenes(halves[1], task, mostly(120, 0.5), seed=1)

fig, axes = plt.subplots(1, 4, figsize=(8, 2.2))
for axis, index in zip(axes, (0, 35, 70, 119), strict=True):
    scene = tested_on[index]
    axis.imshow(scene.image)
    axis.set_title(f"{task.classes[scene.label]}, {task.cues[scene.cue]}", fontsize=9)
    axis.axis("off")

# %%
classes = embed_texts(clip, task.classes, "photo")
read = ClassEffects(bundle, cn.Lens(clip, bundle.config.layers), classes)


def observe(scenes):
    """Margin of each image's class, each unit's part of it, and the image's class and group."""
    items = [scenes[index] for index in range(len(scenes))]
    labels = torch.tensor([item.label for item in items])
    groups = 2 * labels + torch.tensor([item.cue for item in items])
    pixels = torch.stack([clip.preprocess(Image.fromarray(item.image)) for item in items])
    parts = [read(batch)[:2] for batch in pixels.split(50)]
    embeddings, effects = (torch.cat(part) for part in zip(*parts, strict=True))
    logits = embeddings @ classes.T
    rivals = strongest_rivals(logits, labels)
    return margins(logits, labels, rivals), margins(effects, labels, rivals), labels, groups


margin, effects, labels, groups = observe(found_on)

# %% [markdown]
# ## Find the neurons
#
# The search adds neurons greedily by the loss of the worst group. Cross-validation chooses their
# number. An empty answer is allowed.

# %%
chosen = list(find_units(effects, margin, labels, groups).units)
print(f"{len(chosen)} of {effects.shape[1]:,} neurons")
for layer, unit in places(bundle, chosen[:8]):
    neuron = bundle.neuron(layer, unit)
    label = ", ".join(neuron.label.texts) if neuron.reliable else "no reliable label"
    print(f"layer {layer}, neuron {unit:3d}  {label}")

# %% [markdown]
# ## Ablate them, on other images

# %%
margin, effects, labels, groups = observe(tested_on)
before = accuracies(margin > 0, groups)
after = accuracies(margin - effects[:, chosen].sum(1) > 0, groups)

names = [f"{c}\nwith {cue}" for c in task.classes for cue in task.cues]
plt.figure(figsize=(7, 2.8))
positions = torch.arange(4).numpy()
plt.bar(positions - 0.2, before.numpy(), 0.4, label="before")
plt.bar(positions + 0.2, after.numpy(), 0.4, label="after ablation")
plt.xticks(positions, names, fontsize=8)
plt.ylabel("accuracy")
plt.legend()
plt.tight_layout()
print(f"worst group: {before.min():.0%} before, {after.min():.0%} after")

# %%
assert after.min() > before.min()

# %% [markdown]
# The ablation above is exact for the sum of effects. In the model, later layers respond to it.
# `python -m export mend --images DIR --out mended/ --apply model/` measures that too, compares it
# with controls, and writes the edited weights.
#
# ## Try next
#
# - [Guide to edits](../guide/edits.md): your own images, controls, limits.
# - [Adversarial images](../guide/adversarial.md): find cues without knowing them.
# - [Has my data shifted?](5_shift.py)
