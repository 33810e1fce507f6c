"""The small CLIPs: their configurations, and writing an open_clip folder."""

import json
from pathlib import Path

import torch
from torch import nn

from clipneurons.models.open_clip_folder import CONFIG_FILE, read_weights, write_weights
from research.mini_clip.word_space import DIM

VOCABULARY = 49408
TEXT = {"context_length": 24, "vocab_size": VOCABULARY, "width": 128, "heads": 4, "layers": 3}
VISION = {
    "vit": {"image_size": 64, "layers": 8, "width": 192, "head_width": 64, "patch_size": 8},
    "rn": {"image_size": 128, "layers": [2, 2, 2, 2], "width": 24},
}
STATS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
SCALE = 20.0  # logit scale: cosines to logits


def model_config(kind: str) -> dict:
    return {"embed_dim": DIM, "vision_cfg": VISION[kind], "text_cfg": TEXT}


def build(kind: str) -> nn.Module:
    """A fresh open_clip CLIP of this configuration."""
    from open_clip.model import CLIP

    config = model_config(kind)
    return CLIP(config["embed_dim"], dict(config["vision_cfg"]), dict(config["text_cfg"]))


def export(
    kind: str, visual: dict, text: dict, folder: Path, shares_text_of: str | None = None
) -> None:
    """Write an open_clip folder (fp16) from an image tower's and a text tower's weights.

    `shares_text_of`: the folder beside it that holds the same text tower, which is then left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"visual.{name}": value for name, value in visual.items()} | text
    weights["logit_scale"] = torch.tensor(SCALE).log()
    expected = build(kind).state_dict()
    missing, extra = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing or extra:
        raise ValueError(f"{kind}: weights missing {sorted(missing)}, unexpected {sorted(extra)}")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{name}: shape {value.shape}, the model has {expected[name].shape}")
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in weights.items()}
    config = {"model_cfg": model_config(kind),
              "preprocess_cfg": {**STATS, "interpolation": "bicubic"}}  # fmt: skip
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    write_weights(folder, half, shares_text_of)


def visual_of(folder: Path) -> dict:
    """The image tower's weights in an open_clip folder."""
    return {
        name.removeprefix("visual."): value.float() if value.is_floating_point() else value
        for name, value in read_weights(folder).items()
        if name.startswith("visual.")
    }


def text_of(folder: Path) -> dict:
    """The text tower's weights in an open_clip folder."""
    weights = read_weights(folder)
    return {k: v for k, v in weights.items() if not k.startswith(("visual.", "logit_scale"))}
