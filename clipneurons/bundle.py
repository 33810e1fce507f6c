"""The artifact bundle: what an export leaves behind and the app, the Hub and the analyses read.

A folder of safetensors, JSON, text and images (DESIGN section 5); nothing is ever unpickled.
`load_bundle` is the inverse of `save_bundle` and believes no byte that `SHA256SUMS` does not cover.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load, save
from torch import Tensor

from clipneurons.folders import (
    CHECKSUMS,
    FolderDamaged,
    checked_files,
    replace_folder,
)

SCHEMA_VERSION = 1
CONFIG, NEURONS, DECOMPOSITION = "config.json", "neurons.safetensors", "decomposition.safetensors"
TEXTS, EXAMPLES, METRICS = "texts.txt", "examples/thumbnails.safetensors", "metrics.json"
CARD = "README.md"
BUNDLE_FILES = (CONFIG, NEURONS, DECOMPOSITION, TEXTS, EXAMPLES, METRICS, CARD)
MODEL_FILES = ("open_clip_config.json", "open_clip_model.safetensors", "MODEL.md")
OPTIONAL_FILES = (*MODEL_FILES, "skipped.csv")
NEURON_TENSORS = (
    "directions",
    "means",
    "percentile",
    "threshold",
    "explained_variance",
    "top_norms",
    "top_images",
    "norm_histogram",
    "effective_share",
)
STORED_HALF = ("directions", "means", "top_norms")


class BundleError(ValueError):
    """Something about a bundle that its user can act on; the message says what to do."""


class BundleDamaged(BundleError):
    """A file is missing, was changed after export, or does not hold what the schema says."""


class BundleMismatch(BundleError):
    """The bundle was made with another model, activation or preprocessing than the tower's."""


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
    """Everything needed to tell whether a bundle belongs to a tower; `config.json` as a type.

    `model` is an open_clip name, `hf-hub:org/name`, or "." when the folder holds the weights.
    `weights_sha256` is `tower.sha256()`; `storage` is "float32" or "float16" (directions,
    means, top norms and text embeddings are rounded on disk, always float32 in memory).
    A unit is a neuron (ViT) or a neuron-head pair, `neuron * heads + head` (ResNet), so
    `units_per_neuron` is 1 or the number of heads. `norm_edges` are the edges of the norm
    histogram, in units of effect norm (effects are scaled by 100 / ‖representation‖).
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
    versions: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """The text of `config.json`."""
        return _json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BundleConfig:
        """The inverse of `to_json`; `BundleDamaged` names a missing or unknown key."""
        values = _parse_json(text, CONFIG)
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{CONFIG} has schema version {version!r}, this clipneurons reads {SCHEMA_VERSION}:"
                " upgrade clipneurons, or export the bundle again"
            )
        values["pool"] = _typed(Pool, values.get("pool"), "pool")
        values["data"] = _typed(DataSet, values.get("data"), "data")
        return _typed(cls, values, CONFIG)


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """What is known of every unit of one layer; N units, d embedding, k kept effects, m phrases.

    directions            r_n, unit rows; a zero row is a dead unit (its effect never varies)
    means                 b_n, mean effect over the data set
    percentile            98th percentile (`config.percentile`) of ‖φ_n(I) − b_n‖ over the images
    threshold             k-th largest ‖φ_n(I) − b_n‖
    explained_variance    share of the k centred effects' squared norm along r_n, in [0, 1]
    top_norms, top_images the k largest ‖φ_n(I) − b_n‖, descending, and the images; −1 pads
    norm_histogram        number of images a bin of `config.norm_edges`
    effective_share       (Σ‖φ‖²)² / (D Σ‖φ‖⁴) of the centred effects: share of images that carry it
    indices, coefficients r_n ≈ Σ_j coefficients[n, j] · text_embeddings[indices[n, j]],
                          |coefficients| descending
    """

    directions: Float[Tensor, "unit embed"]
    means: Float[Tensor, "unit embed"]
    percentile: Float[Tensor, " unit"]
    threshold: Float[Tensor, " unit"]
    explained_variance: Float[Tensor, " unit"]
    top_norms: Float[Tensor, "unit top"]
    top_images: Int[Tensor, "unit top"]
    norm_histogram: Int[Tensor, "unit bin"]
    effective_share: Float[Tensor, " unit"]
    indices: Int[Tensor, "unit component"]
    coefficients: Float[Tensor, "unit component"]


@dataclass(frozen=True, eq=False)
class Examples(Mapping[int, bytes]):
    """Gallery thumbnails: data set index -> WebP bytes, with one caption each; all in one file.

    webp holds the pictures one after the other, picture i in webp[offsets[i]:offsets[i + 1]].
    """

    ids: Int[Tensor, " example"]
    offsets: Int[Tensor, " edges"]
    webp: UInt8[Tensor, " byte"]
    captions: tuple[str, ...] = ()

    @classmethod
    def build(cls, pictures: Mapping[int, bytes], captions: Mapping[int, str]) -> Examples:
        """From index -> WebP bytes and index -> caption (line breaks become spaces)."""
        ids = sorted(pictures)
        ends = torch.tensor([0] + [len(pictures[i]) for i in ids], dtype=torch.int64).cumsum(0)
        blob = bytearray(b"".join(pictures[i] for i in ids))
        webp = torch.frombuffer(blob, dtype=torch.uint8) if blob else torch.zeros(0).byte()
        lines = tuple(" ".join(captions.get(i, "").split()) for i in ids)
        return cls(torch.tensor(ids, dtype=torch.int32), ends, webp, lines)

    def __getitem__(self, image: int) -> bytes:
        start, end = self.offsets[self._row(image) :][:2].tolist()
        return self.webp[start:end].numpy().tobytes()

    def caption(self, image: int) -> str:
        """The picture's caption or file name; empty where the source had none."""
        return self.captions[self._row(image)] if self.captions else ""

    def _row(self, image: int) -> int:
        row = int(torch.searchsorted(self.ids, image))
        if row == len(self.ids) or int(self.ids[row]) != image:
            raise KeyError(image)
        return row

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A whole artifact in memory, float32 on the CPU; change one with `dataclasses.replace`."""

    config: BundleConfig
    layers: dict[int, LayerArrays]
    texts: list[str]
    text_embeddings: Float[Tensor, "text embed"]
    examples: Examples
    metrics: dict[str, Any]
    card: str = ""

    def phrases(self, layer: int, unit: int, count: int = 10) -> list[tuple[str, float]]:
        """The unit's phrases with their coefficients, largest first; zero coefficients left out."""
        arrays = self.layers[layer]
        pairs = zip(arrays.indices[unit].tolist(), arrays.coefficients[unit].tolist(), strict=True)
        return [(self.texts[i], c) for i, c in pairs if c != 0][:count]


def load_bundle(source: str | Path, cache_dir: str | Path | None = None) -> Bundle:
    """Read a bundle from a folder, from "user/name" or "user/name@revision" on the Hub.

    Raises `BundleDamaged` for any byte that is not what was exported, and the errors of
    `clipneurons.hub.resolve` for a Hub repository.
    """
    from clipneurons.hub import is_remote, resolve

    folder = resolve(source, cache_dir)
    # People edit cards on the Hub's page, which must not make a bundle useless.
    return read_bundle(folder, (CARD,) if is_remote(folder) else ())


def read_bundle(folder: Path, editable: tuple[str, ...] = ()) -> Bundle:
    """`load_bundle` of a local folder; the `editable` files need not be as exported."""
    files = _checked(folder, editable)
    config = BundleConfig.from_json(_text(files, CONFIG))
    neurons, decomposition = _tensors(files, NEURONS), _tensors(files, DECOMPOSITION)
    pictures = _tensors(files, EXAMPLES)
    captions = bytes(pictures.get("captions", torch.zeros(0).byte()).tolist()).decode()
    try:
        layers = {layer: _unpack(layer, neurons, decomposition) for layer in config.layers}
        bundle = Bundle(
            config=config,
            layers=layers,
            texts=_text(files, TEXTS).split("\n")[:-1],
            text_embeddings=decomposition["text_embeddings"].float(),
            examples=Examples(
                pictures["ids"],
                pictures["offsets"],
                pictures["webp"],
                tuple(captions.split("\n")[:-1]),
            ),
            metrics=_parse_json(_text(files, METRICS), METRICS),
            card=_text(files, CARD),
        )
    except KeyError as error:
        raise BundleDamaged(f"{folder}: no tensor {error}; export the bundle again") from None
    _check(bundle, folder)
    return bundle


def save_bundle(
    bundle: Bundle, folder: str | Path, extra: Mapping[str, bytes | Path] | None = None
) -> Path:
    """Write a bundle; whoever looks sees the old folder or the new one, never a part.

    `extra` holds optional files by name, as bytes or as a path to copy. Files in `folder` that
    are no part of a bundle, such as the model's weights, stay. Raises `BundleError` for what
    `load_bundle` would refuse.
    """
    _check(bundle, Path(folder))
    replace_folder(
        Path(folder),
        bundle_files(bundle) | dict(extra or {}),
        owned=(*BUNDLE_FILES, "skipped.csv", CHECKSUMS),
        listed=(*BUNDLE_FILES, *OPTIONAL_FILES),
    )
    return Path(folder)


def bundle_files(bundle: Bundle) -> dict[str, bytes]:
    """The bundle's own files, name -> bytes; the same bundle gives the same bytes."""
    config, neurons, decomposition = bundle.config, {}, {}
    half = config.storage == "float16"
    for layer, arrays in bundle.layers.items():
        for name in NEURON_TENSORS:
            value = getattr(arrays, name)
            value = value.half() if half and name in STORED_HALF else value
            neurons[f"layer{layer}.{name}"] = _narrow(value).contiguous()
        decomposition[f"layer{layer}.indices"] = _narrow(arrays.indices).contiguous()
        decomposition[f"layer{layer}.coefficients"] = arrays.coefficients.contiguous()
    texts = bundle.text_embeddings.half() if half else bundle.text_embeddings
    decomposition["text_embeddings"] = texts.contiguous()
    captions = "".join(f"{line}\n" for line in bundle.examples.captions).encode()
    pictures = {
        "ids": bundle.examples.ids,
        "offsets": bundle.examples.offsets,
        "webp": bundle.examples.webp,
        "captions": torch.tensor(list(captions), dtype=torch.uint8),
    }
    header = {"schema_version": str(config.schema_version)}
    return {
        CONFIG: config.to_json().encode(),
        NEURONS: save(neurons, header),
        DECOMPOSITION: save(decomposition, header),
        TEXTS: "".join(f"{text}\n" for text in bundle.texts).encode(),
        EXAMPLES: save(pictures, header),
        METRICS: _json(bundle.metrics).encode(),
        CARD: bundle.card.encode(),
    }


def verify_bundle(folder: str | Path, tower: Any = None) -> Bundle:
    """Load a bundle with every check; with `tower`, also check that the two belong together."""
    bundle = load_bundle(folder)
    if tower is not None:
        check_tower(bundle.config, tower)
    return bundle


def check_tower(config: BundleConfig, tower: Any) -> None:
    """Raise `BundleMismatch`, with both values, unless the bundle was made with this tower."""
    pairs = [
        ("kind", config.kind, tower.kind),
        ("activation", config.activation, tower.activation),
        ("image size", tuple(config.image_size), tuple(tower.image_size)),
        ("image mean", tuple(config.image_mean), tuple(tower.image_mean)),
        ("image std", tuple(config.image_std), tuple(tower.image_std)),
        ("embedding size", config.embed_dim, tower.embed_dim),
        ("heads", config.heads, tower.heads),
    ]
    if tower.dtype == torch.float32:  # another precision rounds the weights to other bytes
        name = f"{config.model} ({config.pretrained}), weights {config.weights_sha256[:12]}"
        digest = tower.sha256()
        same = digest == config.weights_sha256
        other = name if same else f"{tower.name} ({tower.pretrained}), weights {digest[:12]}"
        pairs.append(("model", name, other))
    for what, expected, found in pairs:
        if expected != found:
            raise BundleMismatch(
                f"the bundle was made with {what} {expected}, the tower has {found}: load the"
                " tower the bundle names, or export a bundle for this one"
            )


def _unpack(
    layer: int, neurons: dict[str, Tensor], decomposition: dict[str, Tensor]
) -> LayerArrays:
    arrays = {name: neurons[f"layer{layer}.{name}"] for name in NEURON_TENSORS}
    for name in ("indices", "coefficients"):
        arrays[name] = decomposition[f"layer{layer}.{name}"]
    return LayerArrays(
        **{n: a.float() if a.is_floating_point() else a.int() for n, a in arrays.items()}
    )


def _narrow(value: Tensor) -> Tensor:
    """Whole numbers in 16 bits where they fit; `_unpack` widens them again."""
    if value.is_floating_point() or not value.numel():
        return value
    low, high = (int(v) for v in value.aminmax())
    return value.short() if -(2**15) <= low <= high < 2**15 else value.int()


def _check(bundle: Bundle, folder: Path) -> None:
    """Shapes against the config, finite values, indices in range."""
    config = bundle.config
    texts, pool = len(bundle.texts), config.pool.count
    wrong = []
    if texts != pool or bundle.text_embeddings.shape != (texts, config.embed_dim):
        shape = tuple(bundle.text_embeddings.shape)
        wrong.append(f"{pool} texts in the config, {texts} lines, embeddings {shape}")
    if any("\n" in text or not text for text in bundle.texts):
        wrong.append("a text that is empty or holds a line break")
    if set(bundle.layers) != set(config.layers):
        wrong.append(f"layers {sorted(bundle.layers)}, the config says {sorted(config.layers)}")
    for layer, a in bundle.layers.items():
        units, k, m = len(a.directions), config.top_k, config.components
        bins = len(config.norm_edges) - 1
        expected = {
            "directions": (units, config.embed_dim),
            "means": (units, config.embed_dim),
            **dict.fromkeys(("percentile", "threshold"), (units,)),
            **dict.fromkeys(("explained_variance", "effective_share"), (units,)),
            **dict.fromkeys(("top_norms", "top_images"), (units, k)),
            "norm_histogram": (units, bins),
            **dict.fromkeys(("indices", "coefficients"), (units, m)),
        }
        for name, shape in expected.items():
            value = getattr(a, name)
            if tuple(value.shape) != shape:
                wrong.append(f"layer {layer} {name} is {tuple(value.shape)}, expected {shape}")
            elif value.is_floating_point() and not bool(value.isfinite().all()):
                wrong.append(f"layer {layer} {name} holds values that are not finite")
        if units % config.units_per_neuron:
            wrong.append(f"layer {layer}: {units} units, {config.units_per_neuron} a neuron")
        if a.indices.numel() and not 0 <= int(a.indices.min()) <= int(a.indices.max()) < texts:
            wrong.append(f"layer {layer} indices point outside the {texts} texts")
        norms = a.directions.norm(dim=1)
        if bool((((norms - 1).abs() > 1e-3) & (norms > 0)).any()):
            wrong.append(f"layer {layer} directions are neither unit nor zero rows")
    if len(bundle.examples.offsets) != len(bundle.examples) + 1:
        wrong.append("thumbnail offsets do not fit the ids")
    if wrong:
        raise BundleDamaged(f"{folder}: {'; '.join(wrong)}. Export the bundle again")


def _checked(folder: Path, editable: tuple[str, ...]) -> dict[str, bytes]:
    try:
        return checked_files(folder, BUNDLE_FILES, OPTIONAL_FILES, editable)
    except FolderDamaged as error:
        raise BundleDamaged(str(error)) from None


def _tensors(files: dict[str, bytes], name: str) -> dict[str, Tensor]:
    try:
        return load(files[name])
    except Exception as error:  # safetensors has its own exception type a version
        raise BundleDamaged(f"{name} is not a safetensors file: {error}") from None


def _text(files: dict[str, bytes], name: str) -> str:
    try:
        return files[name].decode()
    except UnicodeDecodeError as error:
        raise BundleDamaged(f"{name} is not UTF-8 text: {error}") from None


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _parse_json(text: str, name: str) -> dict[str, Any]:
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
