"""How a named model's images are prepared, and its activation, where a file does not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import open_clip
from open_clip.constants import (
    INCEPTION_MEAN,
    INCEPTION_STD,
    OPENAI_DATASET_MEAN,
    OPENAI_DATASET_STD,
)

from clipneurons.models.allowed import check_colours, read_json

_KEYS = ("mean", "std", "interpolation", "resize_mode")
KNOWN = {
    "clip": (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, "bicubic", "shortest"),
    "siglip": (INCEPTION_MEAN, INCEPTION_STD, "bicubic", "squash"),
}
ACTIVATIONS = ("gelu", "quick_gelu")
_WORDS = {
    "interpolation": ("bicubic", "bilinear"),
    "resize_mode": ("shortest", "longest", "squash"),
}


def preprocessing_of(name: str, preprocess: str | Path | Mapping | None, asking: bool) -> dict:
    """Mean, std, interpolation and resize mode for a name without one of its own tags.

    ``preprocess`` is a name of `KNOWN` or a JSON file with mean, std, interpolation and
    resize_mode. Without it the model's published tags decide where they agree. Where they do not,
    `ValueError` says so if ``asking``, and CLIP's own is taken otherwise.
    """
    if preprocess is None:
        tags = open_clip.list_pretrained_tags_by_model(name)
        published = {tuple(_colours(open_clip.get_pretrained_cfg(name, tag))) for tag in tags}
        if len(published) > 1 and asking:
            raise ValueError(
                f"weights of {name} have been published with {len(published)} kinds of "
                "preprocessing: say which yours were trained with, --preprocess clip (mean 0.48, "
                "0.46, 0.41; cropped), siglip (0.5; squashed) or a JSON file with "
                f"{', '.join(_KEYS)}"
            )
        values = published.pop() if len(published) == 1 else KNOWN["clip"]
    elif isinstance(preprocess, Mapping):
        values = _checked(preprocess, "preprocess")
    elif str(preprocess) in KNOWN:
        values = KNOWN[str(preprocess)]
    elif Path(preprocess).is_file():
        values = _checked(read_json(Path(preprocess)), str(preprocess))
    else:
        raise ValueError(
            f"--preprocess {preprocess}: expected {', '.join(KNOWN)} or a JSON file with "
            f"{', '.join(_KEYS)}"
        )
    return dict(zip(_KEYS, values, strict=True))


def quick_gelu_of(name: str, activation: str | None, asking: bool) -> bool:
    """Whether a model of this name, without one of its tags, is to be built with QuickGELU.

    Raises:
        ValueError: an unknown activation; none given where the name's weights have been
            published with both, or not at all, if ``asking``.
    """
    own = bool(open_clip.get_model_config(name).get("quick_gelu"))
    if activation is not None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r}: expected {' or '.join(ACTIVATIONS)}")
        if own and activation == "gelu":
            raise ValueError(f"{name} has QuickGELU: for gelu load it as {name[:-10]}")
        return activation == "quick_gelu"
    tags = open_clip.list_pretrained_tags_by_model(name)
    published = {bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu")) for tag in tags}
    both = len(published) == 2 or f"{name}-quickgelu" in open_clip.list_models()
    if not own and (both or not published) and asking:
        raise ValueError(
            f"weights of {name} may have been trained with GELU or with QuickGELU, and a file does "
            "not say which: give --activation gelu (most of LAION's and DataComp's) or quick_gelu "
            "(OpenAI's, MetaCLIP's, DFN's, and what was fine-tuned from them)"
        )
    return own


def _colours(config: dict) -> list:
    usual = dict(zip(_KEYS, KNOWN["clip"], strict=True))
    values = [config.get(key) or usual[key] for key in _KEYS]
    return [tuple(value) if isinstance(value, list) else value for value in values]


def _checked(saved: Mapping, name: str) -> tuple:
    for key in ("mean", "std"):
        check_colours(saved.get(key), key, name)
    for key, words in _WORDS.items():
        if saved.get(key) not in words:
            raise ValueError(f"{name}: {key} is {saved.get(key)!r}, expected {' or '.join(words)}")
    return tuple(tuple(v) if isinstance(v, list) else v for v in (saved[key] for key in _KEYS))
