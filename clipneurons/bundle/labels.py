"""`labels.safetensors`: a bundle's tested labels, and how far each can be trusted.

An optional file; a bundle without it has labels that were not tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from jaxtyping import Bool, Float, Int
from safetensors.torch import save
from torch import Tensor

from clipneurons.bundle.storage import narrow, read_fields, wide, within

# A label is told from other units' labels where its q-value is at most this, and reliable where it
# also explains this share of the variance of its unit's effect.
SIGNIFICANT, EXPLAINS = 0.05, 0.05


@dataclass(frozen=True, eq=False)
class LayerLabels:
    """The tested label of every unit of a layer; N units, p texts.

    Everything is measured on images that neither the export nor the choice of the label saw.

    indices, coefficients     the label: texts of the bundle, the largest coefficient first; 0 pads
    simulation                correlation of the unit's effect with what its label predicts
    simulation_low, _high     its 95 % interval (bootstrap over images)
    shuffled_line             what 95 % of the other units' labels stay below on this unit
    q_value                   permutation p-value against them, adjusted by Benjamini-Hochberg
    decomposition             `simulation` of the paper's decomposition of the direction
    concept, concept_iou      text that the unit detects best at its threshold
    monosemanticity           similarity of the unit's top images, weighted by effect
    """

    indices: Int[Tensor, "unit phrase"]
    coefficients: Float[Tensor, "unit phrase"]
    simulation: Float[Tensor, " unit"]
    simulation_low: Float[Tensor, " unit"]
    simulation_high: Float[Tensor, " unit"]
    shuffled_line: Float[Tensor, " unit"]
    q_value: Float[Tensor, " unit"]
    decomposition: Float[Tensor, " unit"]
    concept: Int[Tensor, " unit"]
    concept_iou: Float[Tensor, " unit"]
    monosemanticity: Float[Tensor, " unit"]

    @property
    def told_apart(self) -> Bool[Tensor, " unit"]:
        """Units whose label predicts them better than other units' labels do."""
        return told_apart(self.q_value)

    @property
    def reliable(self) -> Bool[Tensor, " unit"]:
        """Units whose label is told apart and predicts them well."""
        return reliable(self.q_value, self.simulation_low)


def told_apart(q_value: Float[Tensor, " unit"]) -> Bool[Tensor, " unit"]:
    """Whether a label is better than other units' labels, which need not mean good."""
    return q_value <= SIGNIFICANT


def reliable(
    q_value: Float[Tensor, " unit"], simulation_low: Float[Tensor, " unit"]
) -> Bool[Tensor, " unit"]:
    """Whether a label is told apart and explains at least 5 % of its unit's effect.

    The whole interval of the correlation must: with thousands of images any true word is told
    apart, also one that explains a hundredth.
    """
    return told_apart(q_value) & (simulation_low >= EXPLAINS**0.5)


def level(told_apart: bool, reliable: bool) -> str:
    """How far a label can be relied on, in a word or two."""
    return "reliable" if reliable else "weak" if told_apart else "not reliable"


NAMES = tuple(field.name for field in fields(LayerLabels))
_WHOLE = ("indices", "concept")
_MEASURED = ("coefficients", "simulation", "shuffled_line", "q_value")  # never NaN


def to_bytes(labels: Mapping[int, LayerLabels], schema: int, half: bool = False) -> bytes:
    """The file's bytes; the same labels give the same bytes. `half`: coefficients in float16."""
    tensors = {}
    for layer, mine in labels.items():
        for name in NAMES:
            value = narrow(wide(getattr(mine, name)), half and name == "coefficients")
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
    wrong, phrases = [], labels.indices.shape[-1]
    for name in NAMES:
        shape = (units,)
        shape = (units, phrases) if name in ("indices", "coefficients") else shape
        if tuple(getattr(labels, name).shape) != shape:
            found = tuple(getattr(labels, name).shape)
            wrong.append(f"labels' {name} is {found}, expected {shape}")
    for name in _WHOLE:
        if not within(getattr(labels, name), 0, texts):
            wrong.append(f"labels' {name} points outside the {texts} texts")
    for name in NAMES:
        value, measured = getattr(labels, name), name in _MEASURED
        if bool(value.isinf().any()) or (measured and bool(value.isnan().any())):
            wrong.append(f"labels' {name} holds values that are not finite")
    return wrong
