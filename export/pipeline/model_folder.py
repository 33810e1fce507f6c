"""An open_clip folder of a model in memory, which open_clip and `load_clip` load."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
from safetensors.torch import save

from clipneurons.bundle.folders import write_together
from clipneurons.models.clip import ClipModel
from clipneurons.models.open_clip_folder import CONFIG_FILE, WEIGHTS_FILE
from export.common.errors import UserError


def save_model_folder(clip: ClipModel, folder: Path) -> None:
    """Write configuration and float32 weights; `UserError` where the folder holds other things.

    The configuration comes last: what a kill leaves without it is written again.
    """
    check_model_folder(folder)
    tensors = {
        name: tensor.detach().float().cpu().contiguous()
        for name, tensor in clip.model.state_dict().items()
    }
    config = {"model_cfg": _model_config(clip), "preprocess_cfg": clip.visual.preprocess_cfg}
    text = (json.dumps(config, indent=2) + "\n").encode()
    write_together({folder / WEIGHTS_FILE: save(tensors), folder / CONFIG_FILE: text})


def check_model_folder(folder: Path) -> None:
    """`UserError` for a folder that holds more than what a kill left of a model's weights."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if any(name != WEIGHTS_FILE and not name.startswith(".") for name in names):
        raise UserError(f"{folder} is not empty: expected a new folder for the model")


def _model_config(clip: ClipModel) -> dict:
    name = f"local-dir:{clip.name}" if Path(clip.name).is_dir() else clip.name
    config = open_clip.get_model_config(name)
    if config is None:
        raise UserError(f"{clip.name}: its configuration is not known, so no folder can be made")
    # OpenAI's weights are named without it.
    return config | {"quick_gelu": True} if clip.activation == "quick_gelu" else config
