"""What a bundle says of itself: its files' names, `config.json` as a type, and its errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
CONFIG, NEURONS, DECOMPOSITION = "config.json", "neurons.safetensors", "decomposition.safetensors"
TEXTS, EXAMPLES, METRICS = "texts.txt", "examples/thumbnails.safetensors", "metrics.json"
CARD, OPENING = "README.md", "examples/opening.json"
LABELS, CUES = "labels.safetensors", "cues.safetensors"
BUNDLE_FILES = (CONFIG, NEURONS, DECOMPOSITION, TEXTS, EXAMPLES, METRICS, CARD)
# What later commands add; a bundle is whole without them.
ADDED_FILES = (LABELS, CUES, OPENING)
MODEL_CARD = "MODEL.md"
MODEL_FILES = ("open_clip_config.json", "open_clip_model.safetensors", MODEL_CARD)
# A checkpoint of transformers lies in a folder of its own: it has a config.json too.
CHECKPOINT = "model"
CHECKPOINT_FILES = tuple(
    f"{CHECKPOINT}/{name}"
    for name in (
        "config.json", "model.safetensors", "preprocessor_config.json", "processor_config.json",
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
        "vocab.json", "merges.txt", "spiece.model",
    )
)  # fmt: skip
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
class BundleConfig:
    """Everything needed to tell whether a bundle belongs to a model; `config.json` as a type.

    `model` is what `load_clip` takes: an open_clip name, `hf-hub:org/name` or `org/name`; or, when
    the folder holds the weights, "." for those of an open_clip model and "./model" for a
    checkpoint of transformers in the folder `model`.
    `weights_sha256` is `clip.sha256()`; `storage` is "float32" or "float16" (directions,
    means, top norms and text embeddings are rounded on disk, always float32 in memory).
    A unit is a neuron (ViT) or a neuron-head pair, `neuron * heads + head` (ResNet), so
    `units_per_neuron` is 1 or the number of heads. `pooling` is how a ViT's tokens become one
    vector ("token", "mean" or "probe"), `texts` what the model's tokenizer does to a text.
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
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def carries_model(self) -> bool:
        """Whether the weights lie in the bundle's own folder."""
        return self.model in (".", f"./{CHECKPOINT}")

    def model_of(self, folder: Path) -> str | Path:
        """What `load_clip` takes, for a bundle in this folder."""
        return folder / self.model if self.carries_model else self.model

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
        return _typed(cls, values, CONFIG)


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
    """The object in a file's text; `BundleDamaged` for anything else."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BundleDamaged(f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BundleDamaged(f"{name} should hold an object, holds {type(value).__name__}")
    return value


def _typed(cls: type, values: Any, where: str) -> Any:
    """A dataclass from a JSON object; lists become tuples, names must fit exactly."""
    names = {f.name for f in fields(cls)}
    if not isinstance(values, dict) or set(values) != names:
        found = set(values) if isinstance(values, dict) else set()
        missing, unknown = sorted(names - found), sorted(found - names)
        raise BundleDamaged(f"{where} in {CONFIG}: missing {missing}, unknown {unknown}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
