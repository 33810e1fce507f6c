"""The artifact bundle: what an export leaves behind and the app, the Hub and the analyses read.

A folder of safetensors, JSON, text and images; nothing is ever unpickled.
`load_bundle` is the inverse of `save_bundle` and believes no byte that `SHA256SUMS` does not cover.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from clipneurons.bundle import cue_recordings, labels, layer_arrays, unit_map
from clipneurons.bundle.config import (
    ADDED_FILES,
    BUNDLE_FILES,
    CARD,
    CONFIG,
    CUES,
    DECOMPOSITION,
    EXAMPLES,
    FEATURES,
    LABELS,
    MAP,
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
from clipneurons.bundle.folders import (
    CHECKSUMS,
    FolderDamaged,
    checked_files,
    is_snapshot,
    replace_folder,
)
from clipneurons.bundle.hub import resolve
from clipneurons.bundle.labels import Label, LayerLabels
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.bundle.neuron import Neuron, read_unit, unit_of
from clipneurons.bundle.sparse_features import (
    SparseFeatures,
    features_from_bytes,
    features_to_bytes,
)
from clipneurons.bundle.storage import narrow, read_tensor
from clipneurons.bundle.thumbnails import Examples
from clipneurons.bundle.unit_table import unit_table
from clipneurons.bundle.weaker_images import sampled
from clipneurons.extras import extra

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Bundle:
    """A whole artifact in memory, float32 on the CPU; change one with `dataclasses.replace`.

    `labels` is empty where they were not tested (`python -m export evaluate labels`), `cues` is
    None where no pictures of them were read (`evaluate cues`); `opening` holds what a page can show
    before the model is loaded (`export.pipeline.opening`); `features` is the dictionary whose
    latents are the units of a bundle of features; `positions` holds each layer's units on a map of
    all, empty where none was drawn (`export.pipeline.unit_map`).
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
    features: SparseFeatures | None = None
    positions: Mapping[int, Float[Tensor, "unit 2"]] = field(default_factory=dict)

    @property
    def directions(self) -> dict[int, Float[Tensor, "unit embed"]]:
        """The layers' directions."""
        return {layer: arrays.directions for layer, arrays in self.layers.items()}

    def phrases(self, layer: int, unit: int, count: int = 10) -> list[tuple[str, float]]:
        """Phrases of the direction's decomposition (the paper's) with their coefficients.

        The largest first; zero coefficients are left out.
        """
        arrays = self.layers[layer]
        pairs = zip(arrays.indices[unit].tolist(), arrays.coefficients[unit].tolist(), strict=True)
        return [(self.texts[index], c) for index, c in pairs if c != 0][:count]

    def label(self, layer: int, unit: int) -> Label | None:
        """The unit's label with its scores; None where labels were not tested.

        Only a reliable label is shown as a unit's name; see `clipneurons.bundle.unit_words`.
        """
        layer_labels = self.labels.get(layer)
        return layer_labels.of(unit, self.texts) if layer_labels else None

    def neuron(self, layer: int, neuron: int, head: int | None = None) -> Neuron:
        """All that is known of one unit: label, decomposition, top images, similar units.

        Args:
            layer: one of the bundle's layers.
            neuron: number of the neuron in its layer.
            head: of a ResNet's neuron-head pair, the head of the pooling.

        Raises:
            ValueError: a layer, neuron or head that the bundle does not have.

        Example:
            >>> bundle = cn.load_bundle("user/name")
            >>> print(bundle.neuron(9, 115))
        """
        return read_unit(self, layer, unit_of(self, layer, neuron, head))

    def unit(self, layer: int, unit: int) -> Neuron:
        """`neuron`, by the unit's number in its layer, ``neuron * heads + head``.

        Raises:
            ValueError: a layer or unit that the bundle does not have.

        Example:
            >>> bundle = cn.load_bundle("user/name")
            >>> [bundle.unit(hit.layer, hit.unit) for hit in cn.search(bundle, "boat").toward]
        """
        return read_unit(self, layer, unit)

    def to_pandas(self) -> DataFrame:
        """A table of all units, one row each: place, label, scores, decomposition, figures.

        What was not tested is missing. Needs pandas (``pip install 'clipneurons[pandas]'``).

        Example:
            >>> table = cn.load_bundle("user/name").to_pandas()
            >>> table[table.reliable].nlargest(10, "simulation_score")
        """
        with extra("pandas"):
            from pandas import DataFrame

        return DataFrame(unit_table(self))

    def by_layer(self, columns: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Columns with a row a unit, all layers one below the other, cut into the layers."""
        cuts, start = {}, 0
        for layer, arrays in self.layers.items():
            part = slice(start, start + len(arrays.directions))
            cuts[layer] = {name: value[part] for name, value in columns.items()}
            start = part.stop
        return cuts


def load_bundle(source: str | Path, cache_dir: str | Path | None = None) -> Bundle:
    """Read a bundle from a folder, from "user/name" or "user/name@revision" on the Hub.

    Raises `BundleDamaged` for any byte that is not what was exported, and the errors of
    `clipneurons.bundle.hub.resolve` for a Hub repository.
    """
    folder = resolve(source, cache_dir)
    # People edit cards on the Hub's page, which must not make a bundle useless.
    return read_bundle(folder, (CARD,) if is_snapshot(folder) else ())


def read_bundle(folder: Path, editable: tuple[str, ...] = ()) -> Bundle:
    """`load_bundle` of a local folder; the `editable` files need not be as exported."""
    files = _checked(folder, editable)
    config = BundleConfig.from_json(_text(files, CONFIG))
    neurons, decomposition = _tensors(files, NEURONS), _tensors(files, DECOMPOSITION)
    pictures = _tensors(files, EXAMPLES)
    try:
        layers = {
            layer: layer_arrays.from_tensors(neurons, decomposition, layer)
            for layer in config.layers
        }
        bundle = Bundle(
            config=config,
            layers=layers,
            texts=_text(files, TEXTS).split("\n")[:-1],
            text_embeddings=read_tensor(
                decomposition, "text_embeddings", Float[Tensor, "text embed"]
            ),
            examples=Examples.from_tensors(pictures),
            metrics=parse_json(_text(files, METRICS), METRICS),
            card=_text(files, CARD),
            labels=labels.from_tensors(_tensors(files, LABELS), config.layers)
            if LABELS in files
            else {},
            cues=cue_recordings.from_tensors(_tensors(files, CUES), config.layers)
            if CUES in files
            else None,
            opening=parse_json(_text(files, OPENING), OPENING) if OPENING in files else {},
            features=features_from_bytes(files[FEATURES]) if FEATURES in files else None,
            positions=unit_map.from_tensors(_tensors(files, MAP), config.layers)
            if MAP in files
            else {},
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
        mine = layer_arrays.to_tensors(arrays, layer, half)
        neurons |= mine.neurons
        decomposition |= mine.decomposition
    decomposition["text_embeddings"] = narrow(bundle.text_embeddings, half).contiguous()
    header = {"schema_version": str(config.schema_version)}
    more = {}
    if bundle.labels:
        more[LABELS] = labels.to_bytes(bundle.labels, config.schema_version, half)
    if bundle.cues:
        more[CUES] = cue_recordings.to_bytes(bundle.cues, config.schema_version, half)
    if bundle.positions:
        more[MAP] = unit_map.to_bytes(bundle.positions, config.schema_version)
    if bundle.opening:
        more[OPENING] = write_json(dict(bundle.opening)).encode()
    if bundle.features:
        more[FEATURES] = features_to_bytes(bundle.features, half)
    return more | {
        CONFIG: config.to_json().encode(),
        NEURONS: save(neurons, header),
        DECOMPOSITION: save(decomposition, header),
        TEXTS: "".join(f"{text}\n" for text in bundle.texts).encode(),
        EXAMPLES: save(bundle.examples.tensors(), header),
        METRICS: write_json(bundle.metrics).encode(),
        CARD: bundle.card.encode(),
    }


def _check(bundle: Bundle, folder: Path) -> None:
    """Shapes against the config, finite values, indices in range."""
    config = bundle.config
    texts, pool = len(bundle.texts), config.pool.count
    pictures = len(sampled(bundle.examples))
    wrong = []
    if texts != pool or bundle.text_embeddings.shape != (texts, config.embed_dim):
        shape = tuple(bundle.text_embeddings.shape)
        wrong.append(f"{pool} texts in the config, {texts} lines, embeddings {shape}")
    elif not bool(((norms := bundle.text_embeddings.norm(dim=1)).isfinite() & (norms > 0)).all()):
        wrong.append("text_embeddings that are zero or not finite")
    if any("\n" in text or not text for text in bundle.texts):
        wrong.append("a text that is empty or holds a line break")
    if set(bundle.layers) != set(config.layers):
        wrong.append(f"layers {sorted(bundle.layers)}, the config says {sorted(config.layers)}")
    for layer, arrays in bundle.layers.items():
        units = len(arrays.directions)
        mine = layer_arrays.problems(arrays, config, texts, pictures)
        wrong += [f"layer {layer} {w}" for w in mine]
        if layer in bundle.labels:
            mine = labels.problems(bundle.labels[layer], units, texts)
            wrong += [f"layer {layer} {w}" for w in mine]
    wrong += _feature_problems(bundle)
    if bundle.labels and set(bundle.labels) != set(bundle.layers):
        wrong.append(f"labels of layers {sorted(bundle.labels)}, of {sorted(bundle.layers)}")
    units = {layer: len(a.directions) for layer, a in bundle.layers.items()}
    if bundle.positions:
        wrong += unit_map.problems(bundle.positions, units)
    if bundle.cues:
        wrong += cue_recordings.problems(bundle.cues, units, texts, config.embed_dim)
    wrong += bundle.examples.problems()
    if wrong:
        raise BundleDamaged(f"{folder}: {'; '.join(wrong)}. Export the bundle again")


def _feature_problems(bundle: Bundle) -> list[str]:
    """A dictionary without its note, a note without its dictionary, or others than the units."""
    note, features = bundle.config.features, bundle.features
    if (note is None) != (features is None):
        return ["a dictionary without its settings, or settings without their dictionary"]
    if note is None:
        return []
    said = (note.block, note.site, note.tokens, note.latents)
    held = (features.block, features.site, features.tokens, features.latents)
    units = sorted({len(arrays.directions) for arrays in bundle.layers.values()})
    expected = [note.latents * bundle.config.units_per_neuron]
    wrong = [] if said == held else [f"features of {said}, the dictionary is of {held}"]
    return wrong if units == expected else [*wrong, f"{units} units of {expected} features"]


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
