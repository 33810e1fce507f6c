"""Where cues come from, by name: ours, and what they are compared with."""

SECOND_ORDER, RANDOM_NEURONS, INDIRECT = "second-order", "random neurons", "indirect effect"
SIMILAR_WORDS, RANDOM_WORDS, NO_CUES = "similar words", "random words", "no cues"
DENSE_EFFECTS, TESTED_LABELS = "dense effects", "tested labels"
OURS = (SECOND_ORDER, DENSE_EFFECTS, TESTED_LABELS)
METHODS = (*OURS, RANDOM_NEURONS, INDIRECT, SIMILAR_WORDS, RANDOM_WORDS, NO_CUES)
