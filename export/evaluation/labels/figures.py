"""Figures of `evaluate labels` over all units together, and these in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from clipneurons.bundle.labels import SPECIFIC
from clipneurons.labels.assess import LabelScores, LayerAssessment, mean_interval
from clipneurons.labels.simulation import Labels

_HISTOGRAM, _QUANTILES = 40, (0.05, 0.25, 0.5, 0.75, 0.95)


def figures(
    tested: LabelScores, assessed: Mapping[int, LayerAssessment], texts: Sequence[str]
) -> dict:
    """Everything about all units together, and about each layer."""
    return {
        "units": len(tested.simulation_score),
        **method_figures(tested),
        "reliable": _over(tested, tested.reliable),
        "layers": {str(layer): _layer(mine, texts) for layer, mine in assessed.items()},
    }


def method_figures(tested: LabelScores) -> dict:
    """How well labels of one kind predict their units."""
    low, high = mean_interval(tested.draws)
    edges = torch.linspace(-1, 1, _HISTOGRAM + 1)
    scores = tested.simulation_score
    return {
        "simulation_score": rounded(scores.mean()),
        "interval": [rounded(low), rounded(high)],
        "quantiles": [rounded(q) for q in scores.quantile(torch.tensor(_QUANTILES))],
        "histogram": torch.histogram(scores, edges).hist.int().tolist(),
        "significant_share": rounded(tested.significant.float().mean()),
        "specific_share": rounded((tested.specificity >= SPECIFIC).float().mean()),
        "reliable_share": rounded(tested.reliable.float().mean()),
    }  # fmt: skip


def in_words(found: Mapping) -> str:
    """A line a layer, and how many labels are reliable."""
    lines = []
    for layer, figures_of_layer in found["layers"].items():
        common = figures_of_layer["most_frequent"]
        lines.append(
            f"labels   layer {layer}: simulation score {figures_of_layer['simulation_score']:.3f},"
            f" reliable {figures_of_layer['reliable_share']:.1%}; most frequent text"
            f" {common['text']!r} in {common['share']:.1%} of the labels"
        )
        for shared in figures_of_layer["shared"]:
            lines.append(
                f"labels   layer {layer}: {shared['variance']:.0%} of the variance is shared by all"
                f" units ({', '.join(shared['texts'])}; score {shared['simulation_score']:.3f})"
            )
    sure, (low, high) = found["reliable"], found["interval"]
    lines.append(
        f"labels   all: {found['simulation_score']:.3f} ({low:.3f} to {high:.3f}); reliable"
        f" {sure['units']:,} of {found['units']:,} units"
    )
    return "\n".join(lines)


def _layer(assessment: LayerAssessment, texts: Sequence[str]) -> dict:
    tested = assessment.tested
    labels = tested.labels
    carried = labels.indices[labels.coefficients != 0].bincount(minlength=len(texts))
    return {
        "simulation_score": rounded(tested.simulation_score.mean()),
        "reliable_share": rounded(tested.reliable.float().mean()),
        "most_frequent": {
            "text": texts[int(carried.argmax())],
            "share": rounded(carried.max() / len(labels)),
        },
        "whole_effect_score": rounded(assessment.whole_effect.mean()),
        "shared": [
            {
                "variance": rounded(variance),
                "texts": _signed_texts(assessment.shared_label, number, texts),
                "simulation_score": rounded(assessment.shared_score[number]),
            }
            for number, variance in enumerate(assessment.shared.variance)
        ],
    }


def _signed_texts(labels: Labels, number: int, texts: Sequence[str]) -> list[str]:
    pairs = zip(labels.indices[number].tolist(), labels.coefficients[number].tolist(), strict=True)
    return [texts[index] if weight > 0 else f"−{texts[index]}" for index, weight in pairs if weight]


def _over(tested: LabelScores, units: Bool[Tensor, " unit"]) -> dict:
    """How many these units are, and how well their labels predict them."""
    low, high = mean_interval(tested.draws, units)
    return {
        "units": int(units.sum()),
        "share": rounded(units.float().mean()),
        "simulation_score": rounded(tested.simulation_score[units].mean()) if units.any() else None,
        "interval": [rounded(low), rounded(high)] if units.any() else None,
    }


def rounded(value: Tensor | float) -> float:
    """A figure as `metrics.json` has it."""
    return round(float(value), 4)
