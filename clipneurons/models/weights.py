"""A user's own weights file: recognised by its first bytes, opened without code, made to fit."""

from __future__ import annotations

import math
import pickle
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import resize_pos_embed
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

# What wrappers of training put before the names of weights.
_PREFIXES = ("module.", "_orig_mod.", "model.", "clip_model.", "clip.", "net.")
# Where trainers keep the weights among other things.
_INSIDE = ("state_dict", "model", "model_state_dict", "weights")
_POSITIONS = (
    "visual.positional_embedding", "visual.trunk.pos_embed", "visual.attnpool.positional_embedding",
)  # fmt: skip
_LFS, _HTML = b"version https://git-lfs", (b"<!doctype", b"<html")


def load_weights(network: nn.Module, path: Path, name: str, *, resample: bool = False) -> None:
    """Load a file into an open_clip network of this name; every weight has to be there.

    Args:
        resample: whether a file of another resolution is meant to have its positions resampled.

    Raises:
        ValueError: a file that holds no such weights; the message says what it holds instead.
    """
    state = _unwrapped(read_file(path), set(network.state_dict()), path, network)
    _same_grid(network, state, path, name, resample)
    for key in ("logit_scale", "logit_bias"):  # a number or a vector of one
        own = getattr(network, key, None)
        if own is not None and key in state and state[key].numel() == own.numel():
            state[key] = state[key].reshape(own.shape)
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - state), sorted(state.keys() - own)
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or shapes:
        parts = []
        if missing:
            parts.append(f"{len(missing)} of its weights are missing, the first is {missing[0]}")
        if unexpected:
            parts.append(f"{len(unexpected)} are not of it, the first is {unexpected[0]}")
        if shapes:
            key = shapes[0]
            parts.append(f"{key} is {list(state[key].shape)}, expected {list(own[key].shape)}")
        raise ValueError(f"{path} does not fit {name}: {'; '.join(parts)}")
    network.load_state_dict(state)


def check_values(network: nn.Module, name: str) -> None:
    """Raise ValueError for a weight that holds NaN or infinity, naming it."""
    for key, value in network.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(
                f"{key} of {name} holds NaN or infinity: the file is damaged, or training diverged"
            )


def read_file(path: Path) -> dict[str, Tensor]:
    """The weights in a file of safetensors or PyTorch, of which no code is run.

    Raises:
        ValueError: anything else, recognised where that helps.
    """
    read_header(path)
    if path.suffix == ".safetensors":
        return load_file(path)
    content = read_pickle(path)
    for key in _INSIDE:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__}: expected a state dict")
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no weights, but {', '.join(map(str, list(content)[:3]))}")
    return tensors


def read_pickle(path: Path, file: BytesIO | None = None) -> Any:
    """What `torch.save` wrote, of which no code is run; from an open file at its place.

    Raises:
        ValueError: objects other than tensors, numbers, texts and their collections; damage.
    """
    try:
        return torch.load(file or path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than weights, which could be code and is not opened: save "
            "model.state_dict() alone, best as safetensors"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path} is no whole file of weights ({reason})") from None


def read_header(path: Path) -> None:
    """Raise ValueError for a file that is no weights, recognised by its first bytes."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path} is empty: fetch it again")
    if head.startswith(_LFS):
        raise ValueError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull`")
    if head.lower().lstrip().startswith(_HTML):
        raise ValueError(f"{path} is a web page, not weights: the download needs another address")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(member.endswith("constants.pkl") for member in archive.namelist()):
                raise ValueError(
                    f"{path} is a TorchScript archive, which holds code and is not opened. For "
                    "OpenAI's own files give --pretrained openai; else save model.state_dict()"
                )
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is no whole safetensors file ({error}): fetch it again"
            ) from None


def _unwrapped(
    state: dict[str, Tensor], names: set[str], path: Path, network: nn.Module
) -> dict[str, Tensor]:
    """With the network's own names: prefixes are taken off where all names then fit."""
    attempt = state
    while True:
        if names <= attempt.keys():
            return attempt
        converted = convert_state_dict(network, dict(attempt))
        if names <= converted.keys():
            return converted
        for prefix in _PREFIXES:
            inner = {
                key.removeprefix(prefix): value
                for key, value in attempt.items()
                if key.startswith(prefix)
            }
            if len(inner) > len(attempt) / 2:
                attempt = inner
                break
        else:
            break
    visual = {name.removeprefix("visual.") for name in names if name.startswith("visual.")}
    if visual <= state.keys() or all(key.startswith("visual.") for key in attempt):
        raise ValueError(
            f"{path} holds an image tower alone: expected the weights of both towers, without "
            "which no text can be matched"
        )
    if any("lora_" in key for key in state):
        raise ValueError(
            f"{path} holds an adapter (LoRA): merge it first with peft's merge_and_unload(), and "
            "save the whole model"
        )
    return attempt if len(names & attempt.keys()) > len(names & state.keys()) else state


def _same_grid(
    network: nn.Module, state: dict[str, Tensor], path: Path, name: str, resample: bool
) -> None:
    """Refuse positions of another resolution, unless they are meant to be resampled."""
    own = network.state_dict()
    key = next((key for key in _POSITIONS if key in own), None)
    if key is None or key not in state or state[key].shape == own[key].shape:
        return
    here, there = (tensors[key].shape[-2] for tensors in (own, state))
    if own[key].shape[-1] != state[key].shape[-1]:
        return  # another width: said with all shapes
    if resample and key == "visual.positional_embedding":
        resize_pos_embed(state, network)
        return
    sides = [math.isqrt(count) for count in (here, there)]
    patch = _pixels(network)[0] // sides[0]
    pixels = patch * sides[1]
    siblings = _siblings(name, pixels)
    fits = f"load it as {', '.join(siblings)}" if siblings else "give --image-size"
    raise ValueError(
        f"{path} has positions of {sides[1]} x {sides[1]} patches ({pixels} pixels), {name} of "
        f"{sides[0]} x {sides[0]} ({_pixels(network)[0]} pixels): {fits}"
    )


def _pixels(network: nn.Module) -> tuple[int, int]:
    size = network.visual.image_size
    return tuple(size) if isinstance(size, tuple | list) else (size, size)


def _siblings(name: str, pixels: int) -> list[str]:
    """open_clip's names of the same towers at another resolution."""

    def towers(model: str) -> dict:
        config = open_clip.get_model_config(model)
        vision = {k: v for k, v in config["vision_cfg"].items() if k != "image_size"}
        return config | {"vision_cfg": vision}

    return [
        other
        for other in open_clip.list_models()
        if open_clip.get_model_config(other)["vision_cfg"].get("image_size") == pixels
        and towers(other) == towers(name)
    ]
