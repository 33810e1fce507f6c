"""What a bundle says of itself: its files' names, `config.json` as a type, and its errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from clipneurons.shipped import ARTIFACTS, TOWERS

SCHEMA_VERSION = 1
CONFIG, NEURONS, DECOMPOSITION = "config.json", "neurons.safetensors", "decomposition.safetensors"
TEXTS, EXAMPLES, METRICS = "texts.txt", "examples/thumbnails.safetensors", "metrics.json"
CARD, OPENING = "README.md", "examples/opening.json"
LABELS, CUES = "labels.safetensors", "cues.safetensors"
FEATURES, MAP = "features.safetensors", "map.safetensors"
BUNDLE_FILES = (CONFIG, NEURONS, DECOMPOSITION, TEXTS, EXAMPLES, METRICS, CARD)
# What later commands add, the dictionary of a bundle of features, and the map of all units.
ADDED_FILES = (LABELS, CUES, OPENING, FEATURES, MAP)
MODEL_CARD = "MODEL.md"
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "spiece.model",
)  # fmt: skip
MODEL_FILES = (
    "open_clip_config.json", "open_clip_model.safetensors", MODEL_CARD, *_TOKENIZER_FILES,
)  # fmt: skip
# A checkpoint of transformers lies in a folder of its own: it has a config.json too.
CHECKPOINT = "model"
CHECKPOINT_FILES = tuple(
    f"{CHECKPOINT}/{name}"
    for name in (
        "config.json", "model.safetensors", "preprocessor_config.json", "processor_config.json",
        *_TOKENIZER_FILES,
    )
)  # fmt: skip
# Neither "." nor "..", no "/": what passes is a part of no path on this machine.
PART = r"[A-Za-z0-9_][\w.-]{0,95}"
_MODEL = re.compile(rf"\.|\./{CHECKPOINT}|{PART}|(hf-hub:)?{PART}/{PART}", re.ASCII)
_FLAG = re.compile(r"--[a-z_ -]{1,40}")
_LAYERS, _LARGEST_SIDE = 256, 1024
OPTIONAL_FILES = (*MODEL_FILES, *CHECKPOINT_FILES, "skipped.csv", *ADDED_FILES)


class BundleError(ValueError):
    """Something about a bundle that its user can act on; the message says what to do."""


class BundleDamaged(BundleError):
    """A file is missing, was changed after export, or does not hold what the schema says."""


class BundleMismatch(BundleError):
    """The bundle was made with another model, activation or preprocessing than the model's."""


@dataclass(frozen=True)
class Pool:
    """Where the phrases of the decomposition come from."""

    name: str
    source: str
    licence: str
    count: int
    sha256: str


@dataclass(frozen=True)
class DataSet:
    """The images behind the statistics.

    `fingerprint` is a SHA-256 over every image's bytes in order; `skipped` counts the images that
    could not be read, which keep their index and are listed in `skipped.csv`.
    """

    name: str
    count: int
    skipped: int
    fingerprint: str
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelfCheck:
    """Zero-shot classification of a few photographs that ship, before the statistics were taken.

    `right` of `photographs` had their class, one of `classes`, ranked first. `others` are the same
    number under another flag of the export, such as "--activation gelu", where a weights file does
    not say how it is read.
    """

    photographs: int
    classes: int
    right: int
    others: Mapping[str, int]

    @property
    def is_sound(self) -> bool:
        """Whether its numbers can be, and its names are flags."""
        return (
            self.classes > 0 < self.photographs
            and all(0 <= n <= self.photographs for n in (self.right, *self.others.values()))
            and all(_FLAG.fullmatch(name) for name in self.others)
        )


@dataclass(frozen=True)
class FeatureNote:
    """The dictionary behind a bundle of features; `features.safetensors` holds it.

    `block`, `site` and `tokens` say where it sits, `latents` how wide it is, `source` where it
    came from, with the commit of a Hub repository. On images of the bundle, a sample of them,
    `explained_variance` is the share of the variance of its target that it rebuilds, `active` the
    mean number of latents of a token, `dense` the number that are active in more than a tenth of
    the tokens. `dead` is the number without effect on any image.
    """

    block: int
    site: str
    tokens: str
    latents: int
    source: str
    sha256: str
    explained_variance: float
    active: float
    dense: int
    dead: int


@dataclass(frozen=True)
class BundleConfig:
    """Everything needed to tell whether a bundle belongs to a model; `config.json` as a type.

    `model` is what `load_clip` takes: an open_clip name, `hf-hub:org/name` or `org/name`; or, when
    the folder holds the weights, "." for those of an open_clip model and "./model" for a
    checkpoint of transformers in the folder `model`; or the name of a model that ships.
    `weights_sha256` is `clip.sha256()`; `storage` is "float32" or "float16" (directions,
    means, top norms and text embeddings are rounded on disk, always float32 in memory).
    A unit is a neuron (ViT) or a neuron-head pair, `neuron * heads + head` (ResNet), so
    `units_per_neuron` is 1 or the number of heads. With `features` latents are read in place of
    neurons. `pooling` is how a ViT's tokens become one
    vector ("token", "mean" or "probe"), `texts` what the model's tokenizer does to a text.
    `quick_gelu`, `interpolation` and `resize_mode` are how a weights file of the user's own is read
    again, which does not say so itself; `self_check` says how well the model was read, None where
    that was not tried.
    `norm_edges` are the edges of the norm histogram, in units of effect norm (effects are scaled
    by 100 / ‖representation‖).
    """

    kind: str
    model: str
    pretrained: str | None
    weights_sha256: str
    activation: str
    image_size: tuple[int, int]
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    embed_dim: int
    heads: int
    layers: tuple[int, ...]
    units_per_neuron: int
    top_k: int
    percentile: float
    shared_bias: bool
    components: int
    centred_pool: bool
    norm_edges: tuple[float, ...]
    pool: Pool
    data: DataSet
    storage: str = "float32"
    pooling: str = "token"
    texts: str = ""
    quick_gelu: bool = False
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    self_check: SelfCheck | None = None
    features: FeatureNote | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def noun(self) -> str:
        """What a unit is, or with its head makes up: "neuron" or "feature"."""
        return "feature" if self.features else "neuron"

    @property
    def unit_nouns(self) -> str:
        """What its units are: neurons or features, of a ResNet their pairs with a head."""
        return f"{self.noun}-head pairs" if self.units_per_neuron > 1 else f"{self.noun}s"

    @property
    def carries_model(self) -> bool:
        """Whether the weights lie in the bundle's own folder."""
        return self.model in (".", f"./{CHECKPOINT}")

    @property
    def ships_model(self) -> bool:
        """Whether the model is one that ships with clipneurons, beside the bundle."""
        return self.model in TOWERS

    @property
    def at_hand(self) -> bool:
        """Whether the weights are on this machine, wherever the bundle is."""
        return self.carries_model or self.ships_model

    def model_of(self, folder: Path) -> str | Path:
        """What `load_clip` takes, for a bundle in this folder."""
        if self.ships_model:
            return ARTIFACTS / self.model
        return folder / self.model if self.carries_model else self.model

    @property
    def load_options(self) -> dict[str, Any]:
        """Further arguments of `load_clip`: those that a weights file of the user's own needs."""
        if self.pretrained is None or not Path(self.pretrained).is_file():
            return {}
        return {
            "activation": "quick_gelu" if self.quick_gelu else "gelu",
            "preprocess": {
                "mean": list(self.image_mean), "std": list(self.image_std),
                "interpolation": self.interpolation, "resize_mode": self.resize_mode,
            },
            "image_size": self.image_size[0],
        }  # fmt: skip

    def to_json(self) -> str:
        """The text of `config.json`."""
        return write_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BundleConfig:
        """The inverse of `to_json`; `BundleDamaged` names a missing or unknown key."""
        values = parse_json(text, CONFIG)
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{CONFIG} has schema version {version!r}, this clipneurons reads {SCHEMA_VERSION}:"
                " upgrade clipneurons, or export the bundle again"
            )
        values["pool"] = _typed(Pool, values.get("pool"), "pool")
        values["data"] = _typed(DataSet, values.get("data"), "data")
        if (check := values.get("self_check")) is not None:
            values["self_check"] = _typed(SelfCheck, check, "self_check")
        if values.get("features") is not None:
            values["features"] = _typed(FeatureNote, values["features"], "features")
        config = _typed(cls, values, CONFIG)
        if wrong := config._problems():
            raise BundleDamaged(f"{CONFIG}: {'; '.join(wrong)}. Export the bundle again")
        return config

    def _problems(self) -> list[str]:
        """What is wrong with its values, in words."""
        layers, edges, sides = self.layers, self.norm_edges, self.image_size
        least_one = (self.embed_dim, self.heads, self.units_per_neuron, self.top_k, self.components)
        rules = {
            f"model is {self.model!r}: expected a name, or the bundle's own": (
                _MODEL.fullmatch(self.model) is not None
            ),
            f"kind is {self.kind!r}": self.kind in ("vit", "resnet"),
            f"storage is {self.storage!r}": self.storage in ("float32", "float16"),
            f"{len(layers)} layers: expected different ones from 0 to {_LAYERS - 1}": (
                0 < len(layers) == len(set(layers)) and all(0 <= n < _LAYERS for n in layers)
            ),
            f"image_size is {sides}: expected 1 to {_LARGEST_SIDE} pixels": (
                all(0 < side <= _LARGEST_SIDE for side in sides)
            ),
            f"image_std is {self.image_std}": all(value > 0 for value in self.image_std),
            "embed_dim, heads, units_per_neuron, top_k and components are not all 1 or more": (
                min(least_one) >= 1
            ),
            f"percentile is {self.percentile}": 0 <= self.percentile <= 100,
            "norm_edges do not rise": len(edges) > 1 and all(a < b for a, b in pairwise(edges)),
            "counts of images and texts are below 1": (
                min(self.data.count, self.data.skipped + 1, self.pool.count) >= 1
            ),
            "self_check counts more than there are, or names no flag": (
                self.self_check is None or self.self_check.is_sound
            ),
        }
        return [wrong for wrong, holds in rules.items() if not holds]


def check_clip(config: BundleConfig, clip: Any) -> None:
    """Raise `BundleMismatch`, with both values, unless the bundle was made with this model."""
    pairs = [
        ("kind", config.kind, clip.kind),
        ("activation", config.activation, clip.activation),
        ("image size", tuple(config.image_size), tuple(clip.image_size)),
        ("image mean", tuple(config.image_mean), tuple(clip.image_mean)),
        ("image std", tuple(config.image_std), tuple(clip.image_std)),
        ("embedding size", config.embed_dim, clip.embed_dim),
        ("heads", config.heads, clip.heads),
    ]
    if str(clip.dtype) == "torch.float32":  # another precision rounds the weights to other bytes
        name = f"{config.model} ({config.pretrained}), weights {config.weights_sha256[:12]}"
        digest = clip.sha256()
        same = digest == config.weights_sha256
        other = name if same else f"{clip.name} ({clip.pretrained}), weights {digest[:12]}"
        pairs.append(("model", name, other))
    for what, expected, found in pairs:
        if expected != found:
            raise BundleMismatch(
                f"the bundle was made with {what} {expected}, the model has {found}: load the"
                " model the bundle names, or export a bundle for this one"
            )


def write_json(value: Any) -> str:
    """JSON as every file of a bundle has it; NaN is refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def parse_json(text: str, name: str) -> dict[str, Any]:
    """The object in a file's text; `BundleDamaged` for anything else, or numbers out of bounds."""
    try:
        value = json.loads(
            text, parse_int=_moderate, parse_float=_moderate, parse_constant=_moderate
        )
    except (ValueError, RecursionError) as error:
        reason = "its parts lie too deep" if isinstance(error, RecursionError) else error
        raise BundleDamaged(f"{name} is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise BundleDamaged(f"{name} should hold an object, holds {type(value).__name__}")
    return value


def _moderate(text: str) -> int | float:
    """A number that Python's floats can hold; tokenizers write 10^30 for no limit."""
    if len(text) > 40 or not math.isfinite(float(text)):
        raise ValueError(f"the number {text[:20]} is out of bounds")
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _typed(cls: type, values: Any, where: str) -> Any:
    """A dataclass from a JSON object; lists become tuples, names and types must fit exactly."""
    hints = get_type_hints(cls)
    optional = {field.name for field in fields(cls) if field.default is not MISSING}
    found = set(values) if isinstance(values, dict) else set()
    if not isinstance(values, dict) or not hints.keys() - optional <= found <= hints.keys():
        missing, unknown = sorted(hints.keys() - optional - found), sorted(found - hints.keys())
        raise BundleDamaged(f"{where} in {CONFIG}: missing {missing}, unknown {unknown}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, hint in ((name, hints[name]) for name in values):
        if not _is(values[name], hint):
            shown = json.dumps(values[name], default=str)
            raise BundleDamaged(
                f"{name} in {CONFIG} is {shown if len(shown) <= 60 else shown[:60] + '…'}: expected"
                f" {getattr(hint, '__name__', hint) if isinstance(hint, type) else hint}"
            )
    return cls(**values)


def _is(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the type that a dataclass names."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is tuple:
        parts = (
            parts[:1] * len(value) if isinstance(value, tuple) and parts[1:] == (...,) else parts
        )
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_is, value, parts))
    if origin is Mapping:
        return isinstance(value, dict) and all(_is(v, parts[1]) for v in value.values())
    if origin is UnionType:
        return any(_is(value, part) for part in parts)
    if hint in (int, float):
        return type(value) in (int, hint) and abs(value) < 2**53
    return isinstance(value, hint)
