"""Seeded models that tests share: the one the authors' code was run on, and tiny others."""

import json
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import safe_open
from safetensors.torch import load_file

from clipneurons.models.clip import ClipModel, _describe

OFFICIAL = Path(__file__).parents[1] / "fixtures" / "official_second_order_vit.safetensors"


def official_numbers() -> tuple[dict, dict]:
    """Tensors that the authors' published code computed, and how (`tests/fixtures/README.md`)."""
    with safe_open(OFFICIAL, "pt") as file:
        meta = json.loads(file.metadata()["meta"])
    return load_file(OFFICIAL), meta


def official_clip() -> ClipModel:
    """The seeded model the authors' code was run on."""
    numbers, meta = official_numbers()
    model = open_clip.CLIP(**meta["model_cfg"], quick_gelu=meta["activation"] == "quick_gelu")
    visual = {
        name.removeprefix("visual."): tensor
        for name, tensor in numbers.items()
        if name.startswith("visual.")
    }
    model.visual.load_state_dict(visual)
    return as_clip(model)


def tiny_vit(
    *, seed=0, image_size=32, layers=4, width=24, head_width=8, patch_size=8, embed_dim=12,
    quick_gelu=False, **vision,
) -> ClipModel:  # fmt: skip
    """A ViT with random weights, biases and norms, so that no term of a formula vanishes."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(
        embed_dim=embed_dim,
        vision_cfg=dict(
            image_size=image_size, layers=layers, width=width, head_width=head_width,
            patch_size=patch_size, **vision,
        ),
        text_cfg=dict(context_length=16, vocab_size=49408, width=16, heads=2, layers=1),
        quick_gelu=quick_gelu,
    )  # fmt: skip
    randomise(model)
    return as_clip(model)


def tiny_resnet(*, seed=0, image_size=64, width=8, embed_dim=12, heads=4) -> ClipModel:
    """A ModifiedResNet with random weights and running statistics."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(
        embed_dim=embed_dim,
        vision_cfg=dict(
            image_size=image_size, layers=[1, 1, 1, 1], width=width,
            head_width=width * 32 // heads, patch_size=None,
        ),
        text_cfg=dict(context_length=16, vocab_size=49408, width=16, heads=2, layers=1),
    )  # fmt: skip
    randomise(model)
    return as_clip(model)


def randomise(model: torch.nn.Module) -> None:
    """Replace the constant initial values of norms and biases by random ones."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name.startswith("visual."):
            parameter.data += 0.3 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer += torch.rand_like(buffer)


def as_clip(model: torch.nn.Module) -> ClipModel:
    """A model around a model that was built in memory."""
    size = model.visual.image_size
    size = size if isinstance(size, tuple) else (size, size)
    preprocess = PreprocessCfg(size=size)
    model = model.eval().requires_grad_(False)
    open_clip.model.set_model_preprocess_cfg(model, asdict(preprocess))
    return ClipModel(
        model=model,
        name="tiny",
        pretrained=None,
        image_size=size,
        image_mean=tuple(preprocess.mean),
        image_std=tuple(preprocess.std),
        device=torch.device("cpu"),
        dtype=torch.float32,
        preprocess=image_transform_v2(preprocess, is_train=False),
        tokenizer=open_clip.SimpleTokenizer(context_length=model.context_length),
        **_describe(model, "tiny"),
    )


def images(count: int, clip: ClipModel, seed: int = 0) -> torch.Tensor:
    """Seeded noise images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *clip.image_size, generator=generator)


def in_precision(clip: ClipModel, dtype: torch.dtype) -> ClipModel:
    """The model with its weights in another precision."""
    return replace(clip, model=deepcopy(clip.model).to(dtype), dtype=dtype)
