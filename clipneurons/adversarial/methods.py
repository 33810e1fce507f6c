"""Where cues come from, by name: ours, and what they are compared with."""

SECOND_ORDER, RANDOM_NEURONS, INDIRECT = "second-order", "random neurons", "indirect effect"
SIMILAR_WORDS, RANDOM_WORDS, NO_CUES = "similar words", "random words", "no cues"
DENSE_EFFECTS = "dense effects"
OURS = (SECOND_ORDER, DENSE_EFFECTS)
METHODS = (*OURS, RANDOM_NEURONS, INDIRECT, SIMILAR_WORDS, RANDOM_WORDS, NO_CUES)
