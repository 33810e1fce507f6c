"""`labels.safetensors`: the label of every unit, with the scores of exactly this label.

An optional file. A bundle without it shows its units by number, and their decomposition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

from jaxtyping import Bool, Float, Int
from safetensors.torch import save
from torch import Tensor

from clipneurons.bundle.storage import narrow, read_fields, wide, within

# A label is significant up to this q-value. It is reliable where it also explains this share of
# the variance of its unit's effect, and predicts so many of the layer's other units worse.
SIGNIFICANT, EXPLAINS, SPECIFIC = 0.05, 0.05, 0.95


@dataclass(frozen=True)
class Label:
    """The label of one unit: at most a few texts that predict its effect, and how well they do.

    All scores are of exactly these texts and weights, on images that the label was not written on.

    texts, weights      the most important first; a weight is the change of the effect, in its
                        standard deviations, where an image shows the text
    simulation_score    Pearson r of the effect with Σ weight · (whether the image shows the text)
    low, high           its 95 % interval
    shuffled_line       what 95 % of the other units' labels stay below on this unit
    significant         better than other units' labels (permutation test, FDR 5 %)
    specificity         share of the layer's other units that the label predicts worse
    reliable            significant, r² of at least 5 % over the whole interval, specificity of at
                        least 95 %; only such a label is shown as the unit's name
    decomposition_score `simulation_score` of the direction's decomposition, cut to as many texts
    concept             the text that the unit detects best, with its intersection over union
    monosemanticity     similarity of the unit's top images, weighted by effect
    """

    texts: tuple[str, ...]
    weights: tuple[float, ...]
    simulation_score: float
    low: float
    high: float
    shuffled_line: float
    significant: bool
    specificity: float
    reliable: bool
    decomposition_score: float
    concept: str
    concept_iou: float
    monosemanticity: float

    @property
    def positive(self) -> tuple[str, ...]:
        """Texts that the effect grows with."""
        return tuple(t for t, weight in zip(self.texts, self.weights, strict=True) if weight > 0)

    @property
    def level(self) -> str:
        """How far the label can be relied on, in a word or two."""
        return "reliable" if self.reliable else "weak" if self.significant else "not significant"


@dataclass(frozen=True, eq=False)
class LayerLabels:
    """The labels of a layer's units; N units, k texts. See `Label` for the columns.

    indices, coefficients     texts of the bundle and their weights; weight 0 pads
    q_value                   permutation p-value, adjusted by Benjamini-Hochberg
    """

    indices: Int[Tensor, "unit text"]
    coefficients: Float[Tensor, "unit text"]
    simulation_score: Float[Tensor, " unit"]
    simulation_low: Float[Tensor, " unit"]
    simulation_high: Float[Tensor, " unit"]
    shuffled_line: Float[Tensor, " unit"]
    q_value: Float[Tensor, " unit"]
    specificity: Float[Tensor, " unit"]
    decomposition_score: Float[Tensor, " unit"]
    concept: Int[Tensor, " unit"]
    concept_iou: Float[Tensor, " unit"]
    monosemanticity: Float[Tensor, " unit"]

    @cached_property
    def significant(self) -> Bool[Tensor, " unit"]:
        """Units whose label predicts them better than other units' labels do."""
        return significant(self.q_value)

    @cached_property
    def reliable(self) -> Bool[Tensor, " unit"]:
        """Units whose label is shown as their name."""
        return reliable(self.q_value, self.simulation_low, self.specificity)

    def of(self, unit: int, texts: list[str]) -> Label:
        """The label of one unit; `texts` are the bundle's."""
        pairs = zip(self.indices[unit].tolist(), self.coefficients[unit].tolist(), strict=True)
        kept = [(texts[index], weight) for index, weight in pairs if weight]
        return Label(
            texts=tuple(text for text, _ in kept),
            weights=tuple(weight for _, weight in kept),
            simulation_score=float(self.simulation_score[unit]),
            low=float(self.simulation_low[unit]),
            high=float(self.simulation_high[unit]),
            shuffled_line=float(self.shuffled_line[unit]),
            significant=bool(self.significant[unit]),
            specificity=float(self.specificity[unit]),
            reliable=bool(self.reliable[unit]),
            decomposition_score=float(self.decomposition_score[unit]),
            concept=texts[int(self.concept[unit])],
            concept_iou=float(self.concept_iou[unit]),
            monosemanticity=float(self.monosemanticity[unit]),
        )


def significant(q_value: Float[Tensor, " unit"]) -> Bool[Tensor, " unit"]:
    """Whether a label is better than other units' labels, which need not mean good."""
    return q_value <= SIGNIFICANT


def reliable(
    q_value: Float[Tensor, " unit"],
    simulation_low: Float[Tensor, " unit"],
    specificity: Float[Tensor, " unit"],
) -> Bool[Tensor, " unit"]:
    """Whether a label is significant, explains enough of its unit's effect, and is its own.

    The whole interval of the correlation must explain enough: with thousands of images any true
    text is significant, also one that explains a hundredth.
    """
    explains = simulation_low >= EXPLAINS**0.5
    return significant(q_value) & explains & (specificity >= SPECIFIC)


NAMES = tuple(field.name for field in fields(LayerLabels))
_WHOLE = ("indices", "concept")
# Never NaN.
_MEASURED = ("coefficients", "simulation_score", "shuffled_line", "q_value", "specificity")


def to_bytes(labels: Mapping[int, LayerLabels], schema: int, half: bool = False) -> bytes:
    """The file's bytes; the same labels give the same bytes. `half`: coefficients in float16."""
    tensors = {}
    for layer, layer_labels in labels.items():
        for name in NAMES:
            value = narrow(wide(getattr(layer_labels, name)), half and name == "coefficients")
            tensors[f"layer{layer}.{name}"] = value.contiguous()
    return save(tensors, {"schema_version": str(schema)})


def from_tensors(tensors: Mapping[str, Tensor], layers: tuple[int, ...]) -> dict[int, LayerLabels]:
    """The inverse of `to_bytes`; `KeyError` names a tensor that is missing."""
    return {
        layer: LayerLabels(**read_fields(LayerLabels, tensors, f"layer{layer}."))
        for layer in layers
    }


def problems(labels: LayerLabels, units: int, texts: int) -> list[str]:
    """What is wrong with a layer's labels, in words: shapes, texts that are not there."""
    wrong, size = [], labels.indices.shape[-1]
    for name in NAMES:
        expected = (units, size) if name in ("indices", "coefficients") else (units,)
        shape = tuple(getattr(labels, name).shape)
        if shape != expected:
            wrong.append(f"labels' {name} is {shape}, expected {expected}")
    for name in _WHOLE:
        if not within(getattr(labels, name), 0, texts):
            wrong.append(f"labels' {name} points outside the {texts} texts")
    for name in NAMES:
        value, measured = getattr(labels, name), name in _MEASURED
        if bool(value.isinf().any()) or (measured and bool(value.isnan().any())):
            wrong.append(f"labels' {name} holds values that are not finite")
    return wrong
