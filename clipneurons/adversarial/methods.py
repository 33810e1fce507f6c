"""Where cues come from, by name: ours, and what they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipneurons.bundle.bundle import Bundle

SECOND_ORDER, RANDOM_NEURONS, INDIRECT = "second-order", "random neurons", "indirect effect"
SIMILAR_WORDS, RANDOM_WORDS, NO_CUES = "similar words", "random words", "no cues"
DENSE_EFFECTS, TESTED_LABELS = "dense effects", "tested labels"
RECORDED_EFFECTS, RECORDED_EMBEDDINGS = "recorded effects", "recorded embeddings"
OURS = (SECOND_ORDER, DENSE_EFFECTS, TESTED_LABELS, RECORDED_EFFECTS)
# These need pictures of the cues; the second reads them without the neurons.
RECORDED = (RECORDED_EFFECTS, RECORDED_EMBEDDINGS)
METHODS = (
    *OURS, RANDOM_NEURONS, INDIRECT, SIMILAR_WORDS, RECORDED_EMBEDDINGS, RANDOM_WORDS, NO_CUES,
)  # fmt: skip

# Cues to draw from where pictures are made at once: fewer ones are stronger (docs/results.md).
FEW_CUES = 8


def strongest(bundle: Bundle) -> str:
    """How a bundle's units are asked where nobody says: by pictures, where they were read."""
    return RECORDED_EFFECTS if bundle.cues else DENSE_EFFECTS
