"""All units of a bundle as rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipneurons.bundle.unit_words import neuron_and_head, signed, signed_words

if TYPE_CHECKING:
    from clipneurons.bundle.bundle import Bundle

# Texts of a decomposition in a row.
_TEXTS = 4


def unit_table(bundle: Bundle) -> list[dict[str, Any]]:
    """A row a unit of every layer; what was not tested is None.

    Labels and decompositions are texts with commas between them, a minus before those that the
    unit writes against; a label that is not reliable is empty.
    """
    return [row for layer in sorted(bundle.layers) for row in layer_table(bundle, layer)]


def layer_table(bundle: Bundle, layer: int) -> list[dict[str, Any]]:
    """The rows of one layer."""
    arrays, heads = bundle.layers[layer], bundle.config.units_per_neuron
    explained, ratio = arrays.explained_variance.tolist(), arrays.participation_ratio.tolist()
    norms, rows = arrays.top_norms[:, 0].tolist(), []
    for unit in range(len(arrays.directions)):
        label, (neuron, head) = bundle.label(layer, unit), neuron_and_head(unit, heads)
        texts = (signed(text, c) for text, c in bundle.phrases(layer, unit, _TEXTS))
        rows.append(
            {
                "layer": layer,
                "unit": unit,
                "neuron": neuron,
                "head": head,
                "label": ", ".join(signed_words(bundle, layer, unit)),
                "simulation_score": label and label.simulation_score,
                "reliable": label and label.reliable,
                "specificity": label and label.specificity,
                "decomposition": ", ".join(texts),
                "decomposition_score": label and label.decomposition_score,
                "explained_variance": explained[unit],
                "participation_ratio": ratio[unit],
                "top_norm": norms[unit],
            }
        )
    return rows
