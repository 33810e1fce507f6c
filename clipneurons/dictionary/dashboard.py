"""What is known of a unit, ready to be shown or saved."""

from __future__ import annotations

from dataclasses import dataclass

from clipneurons.bundle.labels import Label


@dataclass(frozen=True)
class Hit:
    """A unit that a search found; `score` is a cosine or a coefficient."""

    layer: int
    unit: int
    score: float


@dataclass(frozen=True)
class NeuronDashboard:
    """What is known of one unit, ready to be shown or saved.

    `label` is None where labels were not tested; `decomposition` is the paper's, with its
    coefficients, largest first; `images` have their centred effect norms;
    `participation_ratio` is the share of images that carry the effect.
    """

    layer: int
    unit: int
    neuron: int
    head: int | None
    label: Label | None
    decomposition: list[tuple[str, float]]
    images: list[tuple[int, float]]
    explained_variance: float
    participation_ratio: float
    threshold: float
    mean_top_norm: float
    neighbours: list[Hit]
    dead: bool
