"""The artifact bundle: what an export leaves behind and the app, the Hub and the analyses read.

A folder of safetensors, JSON, text and images; nothing is ever unpickled.
`load_bundle` is the inverse of `save_bundle` and believes no byte that `SHA256SUMS` does not cover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load, save
from torch import Tensor

from clipneurons.bundle import cue_recordings, labels
from clipneurons.bundle.config import (
    ADDED_FILES,
    BUNDLE_FILES,
    CARD,
    CONFIG,
    CUES,
    DECOMPOSITION,
    EXAMPLES,
    LABELS,
    METRICS,
    NEURONS,
    OPENING,
    OPTIONAL_FILES,
    TEXTS,
    BundleConfig,
    BundleDamaged,
    parse_json,
    write_json,
)
from clipneurons.bundle.config import BundleError as BundleError
from clipneurons.bundle.cue_recordings import CueRecordings
from clipneurons.bundle.folders import CHECKSUMS, FolderDamaged, checked_files, replace_folder
from clipneurons.bundle.hub import is_remote, resolve
from clipneurons.bundle.labels import LayerLabels
from clipneurons.bundle.storage import along, narrow, wide
from clipneurons.bundle.thumbnails import Examples
from clipneurons.bundle.weaker_images import sampled, weaker_problems

NEURON_TENSORS = (
    "directions",
    "means",
    "percentile",
    "threshold",
    "explained_variance",
    "top_norms",
    "top_activating_images",
    "norm_histogram",
    "participation_ratio",
)
WEAKER = ("middle_images", "weak_images")
# What two of them are called in the files.
_IN_FILES = {"top_activating_images": "top_images", "participation_ratio": "effective_share"}
STORED_HALF = ("directions", "means", "top_norms")
# In place of means that lie along the directions: their lengths.
MEAN_SIZES = "mean_sizes"


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """What is known of every unit of one layer; N units, d embedding, k kept effects, m phrases.

    directions            r_n, unit rows; a zero row is a dead unit (its effect never varies)
    means                 b_n, mean effect over the data set
    percentile            98th percentile (`config.percentile`) of ‖φ_n(I) − b_n‖ over the images
    threshold             k-th largest ‖φ_n(I) − b_n‖
    explained_variance    share of the k centred effects' squared norm along r_n, in [0, 1]
    top_norms, top_activating_images
                          the k largest ‖φ_n(I) − b_n‖, descending, and the images; −1 pads
    norm_histogram        number of images a bin of `config.norm_edges`
    participation_ratio   (Σ‖φ‖²)² / (D Σ‖φ‖⁴) of the centred effects: share of images that carry it
    indices, coefficients r_n ≈ Σ_j coefficients[n, j] · text_embeddings[indices[n, j]],
                          |coefficients| descending
    middle_images, weak_images
                          of the pictures `weaker_images.sampled`, by their places, a few of the
                          middle of ‖φ_n(I) − b_n‖ over the data set, and of what is below; −1 pads;
                          None where the export did not look
    """

    directions: Float[Tensor, "unit embed"]
    means: Float[Tensor, "unit embed"]
    percentile: Float[Tensor, " unit"]
    threshold: Float[Tensor, " unit"]
    explained_variance: Float[Tensor, " unit"]
    top_norms: Float[Tensor, "unit top"]
    top_activating_images: Int[Tensor, "unit top"]
    norm_histogram: Int[Tensor, "unit bin"]
    participation_ratio: Float[Tensor, " unit"]
    indices: Int[Tensor, "unit component"]
    coefficients: Float[Tensor, "unit component"]
    middle_images: Int[Tensor, "unit few"] | None = None
    weak_images: Int[Tensor, "unit few"] | None = None


@dataclass(frozen=True, eq=False)
class Bundle:
    """A whole artifact in memory, float32 on the CPU; change one with `dataclasses.replace`.

    `labels` is empty where they were not tested (`python -m export evaluate --labels`), `cues` is
    None where no pictures of them were read (`--cues`); `opening` holds what a page can show
    before the model is loaded (`export.pipeline.opening`).
    """

    config: BundleConfig
    layers: dict[int, LayerArrays]
    texts: list[str]
    text_embeddings: Float[Tensor, "text embed"]
    examples: Examples
    metrics: dict[str, Any]
    card: str = ""
    labels: Mapping[int, LayerLabels] = field(default_factory=dict)
    cues: CueRecordings | None = None
    opening: Mapping[str, Any] = field(default_factory=dict)

    @property
    def directions(self) -> dict[int, Float[Tensor, "unit embed"]]:
        """The layers' directions."""
        return {layer: arrays.directions for layer, arrays in self.layers.items()}

    def phrases(self, layer: int, unit: int, count: int = 10) -> list[tuple[str, float]]:
        """Phrases of the direction's decomposition (the paper's) with their coefficients.

        The largest first; zero coefficients are left out.
        """
        return self._said(self.layers[layer], unit, count)

    def label(self, layer: int, unit: int, count: int = 10) -> list[tuple[str, float]]:
        """The words that were found to predict the unit best; `phrases` where none were tested."""
        tested = self.labels.get(layer)
        return self._said(tested, unit, count) if tested else self.phrases(layer, unit, count)

    def by_layer(self, columns: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Columns with a row a unit, all layers one below the other, cut into the layers."""
        cuts, start = {}, 0
        for layer, arrays in self.layers.items():
            part = slice(start, start + len(arrays.directions))
            cuts[layer] = {name: value[part] for name, value in columns.items()}
            start = part.stop
        return cuts

    def _said(
        self, words: LayerArrays | LayerLabels, unit: int, count: int
    ) -> list[tuple[str, float]]:
        pairs = zip(words.indices[unit].tolist(), words.coefficients[unit].tolist(), strict=True)
        return [(self.texts[i], c) for i, c in pairs if c != 0][:count]


def load_bundle(source: str | Path, cache_dir: str | Path | None = None) -> Bundle:
    """Read a bundle from a folder, from "user/name" or "user/name@revision" on the Hub.

    Raises `BundleDamaged` for any byte that is not what was exported, and the errors of
    `clipneurons.bundle.hub.resolve` for a Hub repository.
    """
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
            metrics=parse_json(_text(files, METRICS), METRICS),
            card=_text(files, CARD),
            labels=labels.from_tensors(_tensors(files, LABELS), config.layers)
            if LABELS in files
            else {},
            cues=cue_recordings.from_tensors(_tensors(files, CUES), config.layers)
            if CUES in files
            else None,
            opening=parse_json(_text(files, OPENING), OPENING) if OPENING in files else {},
        )
    except KeyError as error:
        raise BundleDamaged(f"{folder}: no tensor {error}; export the bundle again") from None
    _check(bundle, folder)
    return bundle


def save_bundle(
    bundle: Bundle,
    folder: str | Path,
    extra: Mapping[str, bytes | Path] | None = None,
    scratch: Path | None = None,
) -> Path:
    """Write a bundle; whoever looks sees the old folder or the new one, never a part.

    `extra` holds optional files by name, as bytes or as a path to copy. Files in `folder` that
    are no part of a bundle, such as the model's weights, stay. A kill leaves the unfinished copy
    in `scratch`, a folder of the same file system (default: beside `folder`). Raises `BundleError`
    for what `load_bundle` would refuse.
    """
    _check(bundle, Path(folder))
    replace_folder(
        Path(folder),
        bundle_files(bundle) | dict(extra or {}),
        owned=(*BUNDLE_FILES, "skipped.csv", *ADDED_FILES, CHECKSUMS),
        listed=(*BUNDLE_FILES, *OPTIONAL_FILES),
        scratch=scratch,
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
            neurons[f"layer{layer}.{_IN_FILES.get(name, name)}"] = narrow(value).contiguous()
        if half and (sizes := along(arrays.means, arrays.directions)) is not None:
            del neurons[f"layer{layer}.means"]
            neurons[f"layer{layer}.{MEAN_SIZES}"] = sizes.half()
        for name in WEAKER:
            if (places := getattr(arrays, name)) is not None:
                neurons[f"layer{layer}.{name}"] = narrow(places).contiguous()
        decomposition[f"layer{layer}.indices"] = narrow(arrays.indices).contiguous()
        coefficients = arrays.coefficients.half() if half else arrays.coefficients
        decomposition[f"layer{layer}.coefficients"] = coefficients.contiguous()
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
    more = {}
    if bundle.labels:
        more[LABELS] = labels.to_bytes(bundle.labels, config.schema_version, half)
    if bundle.cues:
        more[CUES] = cue_recordings.to_bytes(bundle.cues, config.schema_version, half)
    if bundle.opening:
        more[OPENING] = write_json(dict(bundle.opening)).encode()
    return more | {
        CONFIG: config.to_json().encode(),
        NEURONS: save(neurons, header),
        DECOMPOSITION: save(decomposition, header),
        TEXTS: "".join(f"{text}\n" for text in bundle.texts).encode(),
        EXAMPLES: save(pictures, header),
        METRICS: write_json(bundle.metrics).encode(),
        CARD: bundle.card.encode(),
    }


def _unpack(
    layer: int, neurons: dict[str, Tensor], decomposition: dict[str, Tensor]
) -> LayerArrays:
    arrays = {
        name: neurons[f"layer{layer}.{_IN_FILES.get(name, name)}"]
        for name in NEURON_TENSORS
        if name != "means"
    }
    if (sizes := neurons.get(f"layer{layer}.{MEAN_SIZES}")) is not None:
        arrays["means"] = wide(sizes)[:, None] * wide(arrays["directions"])
    else:
        arrays["means"] = neurons[f"layer{layer}.means"]
    for name in WEAKER:
        if f"layer{layer}.{name}" in neurons:
            arrays[name] = neurons[f"layer{layer}.{name}"]
    for name in ("indices", "coefficients"):
        arrays[name] = decomposition[f"layer{layer}.{name}"]
    return LayerArrays(**{name: wide(value) for name, value in arrays.items()})


def _check(bundle: Bundle, folder: Path) -> None:
    """Shapes against the config, finite values, indices in range."""
    config = bundle.config
    texts, pool = len(bundle.texts), config.pool.count
    pictures = len(sampled(bundle.examples))
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
            **dict.fromkeys(("explained_variance", "participation_ratio"), (units,)),
            **dict.fromkeys(("top_norms", "top_activating_images"), (units, k)),
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
        weaker = weaker_problems((a.middle_images, a.weak_images), units, pictures)
        wrong += [f"layer {layer} {w}" for w in weaker]
        if layer in bundle.labels:
            mine = labels.problems(bundle.labels[layer], units, texts)
            wrong += [f"layer {layer} {w}" for w in mine]
    if bundle.labels and set(bundle.labels) != set(bundle.layers):
        wrong.append(f"labels of layers {sorted(bundle.labels)}, of {sorted(bundle.layers)}")
    if bundle.cues:
        units = {layer: len(a.directions) for layer, a in bundle.layers.items()}
        wrong += cue_recordings.problems(bundle.cues, units, texts, config.embed_dim)
    if len(bundle.examples.offsets) != len(bundle.examples) + 1:
        wrong.append("thumbnail offsets do not fit the ids")
    if wrong:
        raise BundleDamaged(f"{folder}: {'; '.join(wrong)}. Export the bundle again")


def _checked(folder: Path, editable: tuple[str, ...]) -> dict[str, bytes]:
    try:
        return checked_files(folder, BUNDLE_FILES, OPTIONAL_FILES, editable, read=ADDED_FILES)
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
