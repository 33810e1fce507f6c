"""Every unit's label and what the test says of it, as the bundle keeps them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.labels import LayerLabels
from clipneurons.labels import properties
from clipneurons.labels.assess import DECOMPOSITION, Assessment, Parts
from clipneurons.labels.detection import (
    BestConcept,
    auc,
    average_precision,
    best_concept,
)
from clipneurons.labels.simulation import TOP_SHARE, Labels
from clipneurons.stats.centring import without_shared


def by_layer(bundle: Bundle, found: Assessment, parts: Parts) -> dict[int, LayerLabels]:
    """Every unit's label and scores, cut into the bundle's layers."""
    shipped, test = found.shipped, parts.test
    seen = parts.fit.effects
    thresholds = seen.topk(max(1, round(TOP_SHARE * len(seen))), dim=0).values[-1]
    concept = best_concept(test.effects > thresholds, test.present)
    columns = {
        "indices": shipped.labels.indices,
        "coefficients": shipped.labels.coefficients,
        "simulation": shipped.simulation,
        "simulation_low": shipped.limits[0],
        "simulation_high": shipped.limits[1],
        "simulation_top": shipped.top,
        "shuffled_line": shipped.shuffled.line,
        "q_value": shipped.q_value,
        "decomposition": found.methods[DECOMPOSITION].simulation,
        **_detection(shipped.labels, test.effects, test.scores),
        **_concept(concept),
        **_properties(test.effects, test.judged),
    }
    return {layer: LayerLabels(**mine) for layer, mine in bundle.by_layer(columns).items()}


def _detection(
    labels: Labels, effects: Float[Tensor, "image unit"], scores: Float[Tensor, "image text"]
) -> dict[str, Tensor]:
    """Each side's first phrase as a detector of the strongest effects of that sign."""
    count = max(1, round(TOP_SHARE * len(effects)))
    found: dict[str, list[Tensor]] = {"phrase_auc": [], "phrase_auprc": []}
    for side in (1, -1):
        text = labels.first(side)
        values = scores[:, text.clamp_min(0)]
        top = (side * effects).topk(count, dim=0).indices
        strong = torch.zeros_like(effects, dtype=torch.bool).scatter_(0, top, True)
        for name, metric in (("phrase_auc", auc), ("phrase_auprc", average_precision)):
            found[name].append(torch.where(text >= 0, metric(values, strong), torch.nan))
    return {name: torch.stack(sides, dim=1) for name, sides in found.items()}


def _concept(found: BestConcept) -> dict[str, Tensor]:
    return {
        "concept": found.text,
        "concept_iou": found.iou,
        "concept_precision": found.precision,
        "concept_recall": found.recall,
    }


def _properties(
    effects: Float[Tensor, "image unit"], judged: Float[Tensor, "image space"]
) -> dict[str, Tensor]:
    """Properties of units on their strongest 2 % of the images, at least ten."""
    weights = properties.top_weights(effects, max(10, round(TOP_SHARE * len(effects))))
    space = without_shared(judged)
    return {
        name: getattr(properties, name)(weights, space)
        for name in ("monosemanticity", "clarity", "redundancy")
    }
