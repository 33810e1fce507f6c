"""Where cues come from, by name: ours, and what they are compared with."""

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
