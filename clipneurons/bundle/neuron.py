"""What a bundle knows of one unit: `Bundle.neuron`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from clipneurons.bundle.labels import Label
from clipneurons.bundle.stacked_units import StackedUnits
from clipneurons.bundle.thumbnails import shown_images
from clipneurons.bundle.unit_words import neuron_and_head, plain, signed, signed_words, unit_name
from clipneurons.notebook import article, bars, gallery, number

if TYPE_CHECKING:
    from clipneurons.bundle.bundle import Bundle

# Texts of the decomposition, and similar units.
_TEXTS, _SIMILAR = 12, 8
# Top-activating images in a notebook.
_DRAWN = 12


@dataclass(frozen=True)
class SimilarUnit:
    """A unit, the cosine of its direction with another's, and its reliable label's texts."""

    layer: int
    unit: int
    cosine: float
    label: list[str]


@dataclass(frozen=True)
class TopImage:
    """One of a unit's top-activating images.

    Attributes:
        index: its number in the data set.
        norm: the norm of the unit's centred effect on it.
        caption: its caption or file name; empty where the source had none.
        webp: its thumbnail, a WebP file.
    """

    index: int
    norm: float
    caption: str
    webp: bytes = field(repr=False)

    @property
    def thumbnail(self) -> Image.Image:
        """The thumbnail."""
        return Image.open(BytesIO(self.webp)).convert("RGB")


@dataclass(frozen=True)
class Neuron:
    """What is known of one unit of a model: a ViT's neuron, or a ResNet's neuron-head pair.

    Get it from a bundle. Print it, or let a notebook draw it as a dashboard.

    Attributes:
        model, pretrained, weights_sha256, data: the model and the images behind the statistics.
        layer, neuron, head: where the unit is; ``head`` is None for a ViT.
        noun: "neuron"; "feature" of a bundle of features, where ``neuron`` is the latent.
        unit: its number in the layer, ``neuron * heads + head``.
        label: the texts that best predict its effect, with their simulation score; None where
            labels were not tested.
        decomposition: its direction as a sparse sum of texts (the paper's), largest first.
        explained_variance: share of its strongest effects that lies along its direction.
        participation_ratio: share of images that carry its effect.
        threshold: norm of the effect from which an image activates it.
        mean_top_norm: mean norm of its strongest effects, of an embedding of norm 100.
        dead: whether its effect is the same on every image.
        images: top-activating images that the bundle keeps, the largest effect first.
        neighbours: units of any layer with the nearest directions.

    Example:
        >>> neuron = cn.load_bundle("user/name").neuron(9, 115)
        >>> neuron.label.simulation_score, neuron.images[0].thumbnail
    """

    model: str
    pretrained: str | None
    weights_sha256: str
    data: str
    layer: int
    unit: int
    neuron: int
    head: int | None
    noun: str
    label: Label | None
    decomposition: tuple[tuple[str, float], ...]
    explained_variance: float
    participation_ratio: float
    threshold: float
    mean_top_norm: float
    dead: bool
    images: tuple[TopImage, ...]
    neighbours: tuple[SimilarUnit, ...]

    @property
    def place(self) -> str:
        """Where the unit is, in words."""
        return f"Layer {self.layer}, {unit_name(self.neuron, self.head, self.noun)}"

    @property
    def reliable(self) -> bool:
        """Whether its label is reliable; only such a label is shown as its name."""
        return self.label is not None and self.label.reliable

    def to_dict(self) -> dict[str, Any]:
        """In JSON values, as the page's endpoint gives it; images without their pixels."""
        plain = {name: value for name, value in vars(self).items() if name not in _NESTED}
        return plain | {
            "label": self.label and asdict(self.label),
            "decomposition": [{"text": t, "coefficient": c} for t, c in self.decomposition],
            "images": [
                {"index": image.index, "norm": image.norm, "caption": image.caption}
                for image in self.images
            ],
            "neighbours": [asdict(unit) for unit in self.neighbours],
        }

    def __repr__(self) -> str:
        if self.dead:
            return f"{self.place}: dead, its effect is the same on every image"
        texts = ", ".join(f"{text} {number(c)}" for text, c in self.decomposition[:5])
        lines = [
            f"{self.place}: {self._title}",
            f"  {self._score}",
            f"  decomposition: {texts}",
            f"  {self._figures}",
        ]
        if self.neighbours:
            units = (f"{u.layer}·{u.unit} ({number(u.cosine)})" for u in self.neighbours[:5])
            lines.append(f"  similar units: {', '.join(units)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        if self.dead:
            return article(self.place, note="Dead: its effect is the same on every image.")
        images = [(image.thumbnail, f"{image.norm:.2g} {image.caption}") for image in self.images]
        similar = [
            (f"{unit.layer} · {unit.unit}  {', '.join(unit.label)}", unit.cosine)
            for unit in self.neighbours
        ]
        return article(
            f"{self.place}: {self._title}",
            bars("Label: change of the effect where an image shows the text", self._weights),
            bars("Decomposition of its direction", list(self.decomposition)),
            gallery("Top-activating images, with the norm of the effect", images[:_DRAWN]),
            bars("Similar units: cosine of the directions", similar),
            note=f"{self._score}; {self._figures}.",
        )

    @property
    def _title(self) -> str:
        if not self.reliable:
            return "no reliable label"
        return ", ".join(signed(plain(text), weight) for text, weight in self._weights)

    @property
    def _weights(self) -> list[tuple[str, float]]:
        label = self.label
        return list(zip(label.texts, label.weights, strict=True)) if label else []

    @property
    def _score(self) -> str:
        if self.label is None:
            return "labels were not tested"
        low, high = number(self.label.low), number(self.label.high)
        score = number(self.label.simulation_score)
        return f"simulation score {score} ({low} to {high}), {self.label.level}"

    @property
    def _figures(self) -> str:
        return (
            f"{100 * self.explained_variance:.0f} % of its strongest effects along one direction, "
            f"active on {100 * self.participation_ratio:.1f} % of images"
        )


_NESTED = ("label", "decomposition", "images", "neighbours")


def read_unit(bundle: Bundle, layer: int, unit: int) -> Neuron:
    """`Bundle.unit`."""
    units, heads = _units(bundle, layer), bundle.config.units_per_neuron
    if not 0 <= unit < units:
        raise ValueError(f"unit {unit}: layer {layer} has units 0 to {units - 1}")
    config, (neuron, head) = bundle.config, neuron_and_head(unit, heads)
    arrays = bundle.layers[layer]
    images, norms = arrays.top_activating_images[unit], arrays.top_norms[unit]
    return Neuron(
        model=config.model,
        pretrained=config.pretrained,
        weights_sha256=config.weights_sha256,
        data=config.data.name,
        layer=layer,
        unit=unit,
        neuron=neuron,
        head=head,
        noun=config.noun,
        label=bundle.label(layer, unit),
        decomposition=tuple(bundle.phrases(layer, unit, _TEXTS)),
        explained_variance=float(arrays.explained_variance[unit]),
        participation_ratio=float(arrays.participation_ratio[unit]),
        threshold=float(arrays.percentile[unit]),
        mean_top_norm=arrays.mean_top_norm(unit),
        dead=not bool(arrays.directions[unit].any()),
        images=tuple(
            TopImage(image, norm, bundle.examples.caption(image), bundle.examples[image])
            for image, norm in shown_images(images, norms, bundle.examples)
        ),
        neighbours=_similar(bundle, layer, unit),
    )


def unit_of(bundle: Bundle, layer: int, neuron: int, head: int | None) -> int:
    """A unit's number in its layer.

    Raises:
        ValueError: a layer, neuron or head that the bundle does not have.
    """
    heads = bundle.config.units_per_neuron
    neurons = _units(bundle, layer) // heads
    if not 0 <= neuron < neurons:
        noun = bundle.config.noun
        raise ValueError(f"{noun} {neuron}: layer {layer} has {noun}s 0 to {neurons - 1}")
    if heads == 1 and head is not None:
        raise ValueError(f"head {head}: neurons of a ViT have no heads, leave it out")
    if heads > 1 and (head is None or not 0 <= head < heads):
        raise ValueError(f"head {head}: expected 0 to {heads - 1}, a ResNet's units are pairs")
    return neuron * heads + (head or 0)


def _units(bundle: Bundle, layer: int) -> int:
    if layer not in bundle.layers:
        known = ", ".join(map(str, sorted(bundle.layers)))
        raise ValueError(f"layer {layer}: expected one of the bundle's layers {known}")
    return len(bundle.layers[layer].directions)


def _similar(bundle: Bundle, layer: int, unit: int) -> tuple[SimilarUnit, ...]:
    direction = bundle.layers[layer].directions[unit]
    if not direction.any():
        return ()
    units = StackedUnits.of(bundle.layers)
    cosines = units.directions @ direction
    cosines[(units.layer == layer) & (units.unit == unit)] = -torch.inf
    order = cosines.topk(min(_SIMILAR, len(cosines) - 1)).indices
    rows = zip(units.layer[order].tolist(), units.unit[order].tolist(), cosines[order].tolist(),
               strict=True)  # fmt: skip
    return tuple(SimilarUnit(*row, label=signed_words(bundle, *row[:2])) for row in rows)
