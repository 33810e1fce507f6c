"""Every unit's label and what the test says of it, as the bundle keeps them."""

from __future__ import annotations

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.labels import LayerLabels
from clipneurons.labels.assess import DECOMPOSITION, Assessment, Parts
from clipneurons.labels.detection import best_concept
from clipneurons.labels.properties import monosemanticity, top_weights
from clipneurons.labels.simulation import TOP_SHARE
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
        "shuffled_line": shipped.shuffled.line,
        "q_value": shipped.q_value,
        "decomposition": found.methods[DECOMPOSITION].simulation,
        "concept": concept.text,
        "concept_iou": concept.iou,
        "monosemanticity": monosemanticity(
            top_weights(test.effects, max(10, round(TOP_SHARE * len(test)))),
            without_shared(test.judged),
        ),
    }
    return {layer: LayerLabels(**mine) for layer, mine in bundle.by_layer(columns).items()}
