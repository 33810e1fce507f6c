"""What is known of a unit, ready to be shown or saved."""

from __future__ import annotations

from dataclasses import dataclass

from clipneurons.bundle.labels import level


@dataclass(frozen=True)
class Hit:
    """A unit that a search found; `score` is a cosine or a coefficient."""

    layer: int
    unit: int
    score: float


@dataclass(frozen=True)
class LabelTrust:
    """How far a unit's label can be trusted; see `clipneurons.bundle.labels.LayerLabels`.

    `told_apart` from other units' labels it may be and still predict little; `reliable` it is where
    it predicts well too. `decomposition` is the correlation of the paper's decomposition, `concept`
    the text that the unit detects best, with intersection over union.
    """

    simulation: float
    low: float
    high: float
    shuffled_line: float
    told_apart: bool
    reliable: bool
    decomposition: float
    concept: str
    concept_iou: float
    monosemanticity: float

    @property
    def level(self) -> str:
        """How far the label can be relied on, in a word or two."""
        return level(self.told_apart, self.reliable)


@dataclass(frozen=True)
class NeuronDashboard:
    """What is known of one unit, ready to be shown or saved.

    `phrases` are the unit's tested label, of a bundle without such the decomposition, with their
    coefficients, largest first; `decomposition` is the paper's; `trust` is None where no label was
    tested; `images` have their centred effect norms;
    `significant_share` is the share of images that carry the effect (participation ratio).
    """

    layer: int
    unit: int
    neuron: int
    head: int | None
    phrases: list[tuple[str, float]]
    decomposition: list[tuple[str, float]]
    trust: LabelTrust | None
    images: list[tuple[int, float]]
    explained_variance: float
    significant_share: float
    threshold: float
    mean_top_norm: float
    neighbours: list[Hit]
    dead: bool
