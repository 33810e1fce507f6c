# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Analyse your own CLIP and publish the bundle
#
# ![The model card of a published bundle](images/6_your_own_clip.webp)
#
# You will analyse a model over images, look at the result, publish it and load it again. Here the
# Hub is a stand-in on this machine, so nothing leaves it.

# %% tags=["hide-input"]
# On Colab only: fetch and install the code, with the bundled models.
import os
import sys

if "google.colab" in sys.modules:
    os.system("git clone --depth 1 URL clipneurons && pip install --quiet -e clipneurons")
    sys.path.insert(0, "clipneurons")

# %%
import os
import tempfile
from pathlib import Path

import clipneurons as cn
from clipneurons.shipped import ARTIFACTS
from export.__main__ import main as export

folder = Path(tempfile.mkdtemp())
os.chdir(ARTIFACTS.parent)

# %% [markdown]
# ## Analyse
#
# On the command line this is one line. Put your own model and images into it:
#
# ```bash
# python -m export run --model ViT-B-32 --pretrained openai --images DIR --out out/mine
# ```
#
# Here the bundled ViT reads 40 scenes, and only one of its layers.

# %%
bundle_folder = folder / "mine"
export(["run", "--model", "artifacts/mini-vit", "--images", "scenes:40", "--layers", "5",
        "--texts", "vocabulary", "--components", "8", "--top-k", "20", "--gallery", "1",
        "--no-evaluate", "--quiet", "--out", str(bundle_folder)])  # fmt: skip

# %%
bundle = cn.load_bundle(bundle_folder)
cn.search(bundle, "a motorcycle", top=3, by="decomposition")

# %% [markdown]
# ## Check and publish
#
# `verify` checks every file, and that the model is the one that was analysed.

# %%
export(["verify", str(bundle_folder)])

# %% [markdown]
# `publish` needs a token of the Hub (`hf auth login`). The stand-in accepts its own.

# %%
from huggingface_hub import constants

from tests.helpers.hub_standin import TOKEN, serve

standin = serve()
hub = standin.__enter__()
os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
constants.HF_HUB_CACHE = str(folder / "cache")

export(["publish", "--bundle", str(bundle_folder), "--repo", "user/mine"])

# %% [markdown]
# ## Load it again
#
# Everyone can now read your neurons by name, without the model:

# %%
published = cn.load_bundle("user/mine")
published.neuron(5, 115)

# %%
standin.__exit__(None, None, None)
assert published.config == bundle.config

# %% [markdown]
# ## Try next
#
# - `python -m export evaluate labels --bundle FOLDER` writes and tests labels.
# - `python app.py --bundle FOLDER` opens the page on your bundle.
# - [Your own CLIP](../guide/your-own-clip.md): what to type for your kind of weights.
# - [Export and publish](../guide/export.md): more images, many processes, limits.
