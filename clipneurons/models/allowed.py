"""What the files beside a model's weights may ask for: known keys and words, bounded numbers.

Models are shared by strangers, and a configuration could make open_clip or transformers run code,
read other files or take any amount of memory. So every key and every word has to be one that
open_clip's own models or the class in transformers have, numbers are bounded, and a model of more
parameters than its weights file has bytes is not built. Nothing is ever asked to trust remote code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import open_clip
import torch
from torch import nn

from clipneurons.bundle.config import parse_json
from clipneurons.bundle.hub import REPOSITORY

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Of numbers that the size of the weights file alone does not keep small.
_LARGEST = {
    "layers": 128, "num_hidden_layers": 128, "image_size": 1024, "n_queries": 4096,
    "context_length": 512, "max_position_embeddings": 512, "num_patches": 4096,
}  # fmt: skip
_LARGEST_OTHER = 2**20  # the vocabulary of a multilingual model
_MOST_PATCHES = 4096
_MOST_JSON = 64 * 2**20
_PREPROCESSING = {
    "mode": ("RGB",), "interpolation": ("bicubic", "bilinear", "random"),
    "resize_mode": ("shortest", "longest", "squash"), "size": (), "mean": (), "std": (),
    "fill_color": (),
}  # fmt: skip
_ACTIVATIONS = ("gelu", "quick_gelu", "gelu_pytorch_tanh", "gelu_new")
# Without "Fast"; all of them are made of data alone.
_TOKENIZERS = (
    "", "CLIPTokenizer", "SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer", "T5Tokenizer",
    "BertTokenizer", "RobertaTokenizer", "XLMRobertaTokenizer", "NllbTokenizer",
    "PreTrainedTokenizer", "TokenizersBackend",
)  # fmt: skip


def read_json(path: Path) -> dict:
    """The object in a file of moderate size; `ValueError` for anything else."""
    if not path.is_file() or path.stat().st_size > _MOST_JSON:
        raise ValueError(f"{path} is no file of at most {_MOST_JSON // 2**20} MB: expected JSON")
    try:
        return parse_json(path.read_text(), str(path))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not JSON: it is no UTF-8 text") from None


def fitting(build: Callable[[], nn.Module], files: Sequence[Path], name: str) -> None:
    """Refuse a model of more parameters than its weights files have bytes, or one of no sense.

    Raises `ValueError`. On the meta device nothing is allocated.
    """
    try:
        with torch.device("meta"):
            parameters = sum(value.numel() for value in build().parameters())
    except Exception as error:  # whatever open_clip, timm and transformers make of odd numbers
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{name} cannot be built as its configuration says ({reason})") from None
    size = sum(file.stat().st_size for file in files)
    if parameters > size:
        raise ValueError(
            f"the weights of {name} do not fit its configuration, which asks for {parameters:,} "
            f"parameters: expected as many bytes or more, found {size:,}"
        )


# -- open_clip


def check_open_clip(config: dict, name: str, from_hub: bool = False) -> None:
    """Refuse an `open_clip_config.json` that says more than the models open_clip ships do.

    A model `from_hub` may name other repositories there, for its tokenizer and for the
    architecture of its text tower; one in a folder leads nowhere. Raises `ValueError`.
    """
    import timm

    settings, known = config.get("model_cfg"), _known_settings()
    towers = ("vision_cfg", "text_cfg")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(t), dict) for t in towers):
        raise ValueError(f"{name}: open_clip_config.json holds no model_cfg with both towers")
    preprocessing = {"preprocess_cfg": config.get("preprocess_cfg", {})}
    for place, key, value in (*_entries(settings), *_entries(preprocessing)):
        words, text = known.get((place, key)), isinstance(value, str)
        fits = words is not None and (value in words if text else _bounded(key, value))
        if text and key in ("hf_tokenizer_name", "hf_model_name") and from_hub:
            fits = fits or REPOSITORY.fullmatch(value) is not None
        elif text and key == "hf_tokenizer_name":
            fits = True  # a folder's tokenizer is read from the folder, whatever its name
        elif text and key == "timm_model_name":
            fits = timm.is_model(value)
        if not fits:
            raise _not_plain(name, key, value)
    vision = settings["vision_cfg"]
    _check_patches(vision.get("image_size"), vision.get("patch_size"), name)
    for key in ("mean", "std"):
        check_colours(preprocessing["preprocess_cfg"].get(key, [1, 1, 1]), key, name)
    if from_hub and "hf_model_name" in settings["text_cfg"]:
        _check_text_tower(settings["text_cfg"]["hf_model_name"], name)


def check_colours(value: object, key: str, name: str) -> None:
    """Refuse a mean or standard deviation that is not three numbers."""
    if not (isinstance(value, list) and len(value) == 3 and _bounded(key, value)) or (
        "std" in key and 0 in value
    ):
        raise _not_plain(name, key, value)


@cache
def _known_settings() -> dict[tuple[str, str], set[str]]:
    """Every key of open_clip's models by the part that holds it, with the words found there."""
    known = {("preprocess_cfg", key): set(words) for key, words in _PREPROCESSING.items()}
    for model in open_clip.list_models():
        for place, key, value in _entries(open_clip.get_model_config(model)):
            known.setdefault((place, key), set())
            if isinstance(value, str):
                known[place, key].add(value)
    return known


def _entries(settings: dict, place: str = "") -> Iterator[tuple[str, str, object]]:
    """(part, key, value) of settings and of every part in them."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _entries(value, key)
        else:
            yield place, key, value


def _check_text_tower(repository: str, name: str) -> None:
    """Refuse a text tower that needs code of its repository, or is of any depth."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(repository, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the text tower of {name} cannot be had ({reason})") from None
    if not _bounded("layers", getattr(config, "num_hidden_layers", 0)):
        raise _not_plain(name, "num_hidden_layers", config.num_hidden_layers)


# -- transformers


def plain_config(saved: dict, architecture: str, name: str) -> PretrainedConfig:
    """A configuration with the numbers and switches that its class has a use for, nothing else.

    Raises `ValueError` for a value that is neither, where its class expects one.
    """
    import transformers

    kind = getattr(transformers, architecture).config_class
    plain = _numbers(saved, kind(), name)
    towers = [key for key in ("vision_config", "text_config") if hasattr(kind(), key)]
    for tower in towers:
        told = saved.get(tower) or {}
        if not isinstance(told, dict):
            raise _not_plain(name, tower, told)
        plain[tower] = _numbers(told, getattr(kind(), tower), name)
    vision = plain["vision_config"] if towers else plain
    _check_patches(vision.get("image_size"), vision.get("patch_size"), name)
    try:
        return kind.from_dict(plain | {"architectures": [architecture]})
    except Exception as error:  # transformers checks types in its own way
        reason = str(error).replace("\n", " ")
        raise ValueError(f"the config.json of {name} makes no {architecture} ({reason})") from None


def check_tokenizer(folder: Path) -> None:
    """Refuse a saved tokenizer with code, of an unknown class, or that names other files."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    for key, value in read_json(path).items():
        named = key.endswith("_file") and key != "special_tokens_map_file" and value is not None
        kind = value if isinstance(value, str) else ""
        other = key == "tokenizer_class" and kind.removesuffix("Fast") not in _TOKENIZERS
        if key == "auto_map" or named or other:
            raise ValueError(
                f"{path} asks for {key} = {value!r}: code, classes and files of its own are not "
                "opened. Save the tokenizer again with one of transformers' own classes"
            )


def _numbers(saved: dict, defaults: PretrainedConfig, name: str) -> dict:
    from transformers import PretrainedConfig

    kept = {}
    for key in defaults.to_dict().keys() - PretrainedConfig().to_dict().keys():
        value = saved.get(key)
        if value is None or isinstance(value, dict):
            continue
        if not (value in _ACTIVATIONS if key == "hidden_act" else _bounded(key, value)):
            raise _not_plain(name, key, value)
        kept[key] = value
    return kept


# -- both


def _bounded(key: str, value: object) -> bool:
    """Whether a value is nothing, a switch, a number, or a few, of moderate size."""
    parts = value if isinstance(value, list) else [value]
    most = _LARGEST.get(key, _LARGEST_OTHER)
    return 0 < len(parts) <= 4 and all(
        part is None or (isinstance(part, bool | int | float) and abs(part) <= most)
        for part in parts
    )


def _check_patches(image_size: object, patch_size: object, name: str) -> None:
    """Refuse a grid whose attention would take gigabytes; what is no number fails when built."""
    sides, patches = (v if isinstance(v, list) else [v, v] for v in (image_size, patch_size))
    if not all(isinstance(v, int | float) and v > 0 for v in (*sides, *patches)):
        return
    count = math.prod(side / patch for side, patch in zip(sides, patches, strict=False))
    if count > _MOST_PATCHES:
        raise ValueError(
            f"{name} would cut an image into {count:,.0f} patches: at most {_MOST_PATCHES:,} are "
            "read"
        )


def _not_plain(name: str, key: str, value: object) -> ValueError:
    shown = json.dumps(value, ensure_ascii=True)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    return ValueError(
        f"{name} is no plain CLIP that is opened here: its configuration has {key} = {shown}"
    )
