"""A stranger's model, looked at before it is built: known parts, bounded numbers, fitting weights.

What open_clip's own configurations do not have at the same place, and what is no number of a CLIP
or SigLIP of transformers, could make either library fetch or run something else.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

from clipneurons.bundle.config import CHECKPOINT, BundleConfig, BundleError

# Of numbers that the shapes of the weights alone do not keep small.
_LARGEST = {
    "layers": 64, "num_hidden_layers": 64, "image_size": 1024, "num_patches": 4096,
    "context_length": 512, "max_position_embeddings": 512,
}  # fmt: skip
_LARGEST_OTHER = 300_000  # a multilingual vocabulary
_ACTIVATIONS = ("gelu", "quick_gelu", "gelu_pytorch_tanh", "gelu_new")
_TOWERS = {"CLIPModel": ("vision_config", "text_config"),
           "SiglipModel": ("vision_config", "text_config"),
           "Siglip2Model": ("vision_config", "text_config"),
           "CLIPVisionModelWithProjection": ()}  # fmt: skip
ON_HUB = "hf-hub:"  # before the name of a repository in open_clip's form
Shapes = dict[str, tuple[int, ...]]


def check_model(config: BundleConfig, folder: Path, most_bytes: int) -> None:
    """Refuse the model in `folder` unless it is one that is read, whole, and of bounded size.

    `folder` is the bundle's own where it carries its model; of another the weights are those of a
    name that open_clip knows, or lie in `folder` as well. Raises `BundleError`.
    """
    import open_clip

    if config.model in open_clip.list_models():
        _check_named(config, most_bytes)
    elif config.model == "." or config.model.startswith(ON_HUB):
        check_open_clip_folder(folder)
    else:
        check_checkpoint(folder)


def _check_named(config: BundleConfig, most_bytes: int) -> None:
    import open_clip

    if config.pretrained not in open_clip.list_pretrained_tags_by_model(config.model):
        raise BundleError(
            f"The bundle was made with weights {config.pretrained!r}, which open_clip does not "
            f"know for {config.model}."
        )
    shapes = _open_clip_shapes(plain_settings(open_clip.get_model_config(config.model)))
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    if size > most_bytes:
        raise BundleError(
            f"{config.model} takes {size / 2**30:.1f} GB of memory; models of at most "
            f"{most_bytes / 2**30:.0f} GB are opened here."
        )


# -- open_clip


def check_open_clip_folder(folder: Path) -> None:
    """Settings that open_clip's own models have, and weights of just their shapes."""
    shapes = _shapes_in(folder / "open_clip_model.safetensors")
    if _open_clip_shapes(plain_settings(_settings(folder))) != shapes:
        raise BundleError("The bundle's weights do not fit its open_clip_config.json.")


def _settings(folder: Path) -> dict:
    try:
        config = json.loads((folder / "open_clip_config.json").read_text())
        settings, pictures = config["model_cfg"], config.get("preprocess_cfg", {})
        side, size = settings["vision_cfg"]["image_size"], pictures.get("size")
        if size is not None and size != side and size != [side, side]:
            raise BundleError("The bundle's model is given pictures of another size than its own.")
        return settings
    except BundleError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BundleError(
            "The bundle says that its model is beside it, but holds no open_clip_config.json that "
            "can be read."
        ) from None


def plain_settings(settings: dict) -> dict:
    """The settings, after a look at every name and value in them."""
    known = _known_settings()
    for place, name, value in _entries(settings):
        words = known.get((place, name))
        if words is None or not (_bounded(name, value) or json.dumps(value) in words):
            raise BundleError(
                f"The bundle's model is no plain CLIP that is opened here: its configuration has "
                f"{name} = {value!r}."
            )
    return settings


@cache
def _known_settings() -> dict[tuple[str, str], set[str]]:
    """Every setting of open_clip's models, with all of its values that are no numbers.

    Text towers of transformers are none of them: they would be fetched by their name.
    """
    import open_clip

    known: dict[tuple[str, str], set[str]] = {}
    for model in open_clip.list_models():
        settings = open_clip.get_model_config(model)
        if "hf_model_name" in settings["text_cfg"] or "multimodal_cfg" in settings:
            continue
        for place, name, value in _entries(settings):
            words = known.setdefault((place, name), set())
            if not _bounded(name, value):
                words.add(json.dumps(value))
    return known


def _entries(settings: dict):
    """(part, name, value) of the settings and those of both towers."""
    for name, value in settings.items():
        if name in ("vision_cfg", "text_cfg") and isinstance(value, dict):
            yield from ((name, inner, part) for inner, part in value.items())
        else:
            yield "", name, value


def _bounded(name: str, value: object) -> bool:
    """Whether a value is a number, or a few, that cannot make a model of any size."""
    parts = value if isinstance(value, list) else [value]
    most = _LARGEST.get(name, _LARGEST_OTHER)
    numbers = all(
        isinstance(part, int | float) and not isinstance(part, bool) and abs(part) <= most
        for part in parts
    )
    return numbers and 0 < len(parts) <= 4


def _open_clip_shapes(settings: dict) -> Shapes:
    """Shapes of a model's weights; on the meta device nothing is allocated."""
    import open_clip
    import torch

    settings = dict(settings)
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    try:
        with torch.device("meta"):
            model = kind(**settings)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, AssertionError) as error:
        raise BundleError(f"The bundle's model cannot be built: {error}") from None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


# -- transformers


def check_checkpoint(folder: Path) -> None:
    """A CLIP or SigLIP of transformers whose configuration is reduced to its plain numbers.

    `config.json` is written again with nothing else in it.
    """
    try:
        saved = json.loads((folder / "config.json").read_text())
        tokenizer = folder / "tokenizer_config.json"
        told = json.loads(tokenizer.read_text()) if tokenizer.is_file() else {}
        architecture = saved["architectures"][0]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise BundleError(
            f"The bundle says that its model is in the folder {CHECKPOINT}, which holds no "
            "config.json of transformers that can be read."
        ) from None
    if architecture not in _TOWERS or "auto_map" in told:
        raise BundleError(
            f"The bundle's model is a {architecture} with {'' if 'auto_map' in told else 'no '}"
            f"code of its own; opened here are {', '.join(_TOWERS)} without."
        )
    plain = plain_checkpoint(saved, architecture)
    found = _shapes_in(folder / "model.safetensors")
    shapes = _checkpoint_shapes(plain, architecture)
    if any(found.get(name) != shape for name, shape in shapes.items()):
        raise BundleError("The bundle's weights do not fit the config.json of its model.")
    path = folder / "config.json"
    path.unlink()  # in the Hub's cache it is a link
    path.write_text(json.dumps(plain))


def plain_checkpoint(saved: dict, architecture: str) -> dict:
    """The numbers of a configuration that its class has a use for, and nothing else."""
    import transformers

    kind = getattr(transformers, architecture).config_class
    plain = _numbers(saved, kind())
    for tower in _TOWERS[architecture]:
        plain[tower] = _numbers(saved.get(tower) or {}, getattr(kind(), tower))
    return plain | {"architectures": [architecture], "model_type": kind.model_type}


def _numbers(saved: dict, defaults) -> dict:
    from transformers import PretrainedConfig

    kept = {}
    for name in set(defaults.to_dict()) - set(PretrainedConfig().to_dict()):
        value = saved.get(name)
        switch = isinstance(value, bool) or (name == "hidden_act" and value in _ACTIVATIONS)
        if switch or (value is not None and _bounded(name, value)):
            kept[name] = value
        elif isinstance(value, str | int | float | list):
            raise BundleError(
                f"The bundle's model is no plain CLIP that is opened here: its configuration has "
                f"{name} = {value!r}."
            )
    return kept


def _checkpoint_shapes(plain: dict, architecture: str) -> Shapes:
    import torch
    import transformers

    kind = getattr(transformers, architecture)
    try:
        with torch.device("meta"):
            model = kind(kind.config_class.from_dict(plain))
    except (TypeError, ValueError, RuntimeError, ArithmeticError, AssertionError) as error:
        raise BundleError(f"The bundle's model cannot be built: {error}") from None
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _shapes_in(file: Path) -> Shapes:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            return {
                name: tuple(opened.get_slice(name).get_shape())
                for name in opened.keys()  # noqa: SIM118
            }
    except (OSError, SafetensorError):
        raise BundleError(
            f"The bundle says that its model is beside it, but holds no {file.name} that can be "
            "read."
        ) from None
