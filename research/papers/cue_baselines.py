"""Baselines of the adversarial table that are no choice for users: their cues are weaker.

"random neurons" takes units by chance and their decompositions, "indirect effect" the
decompositions of indirect effects (2406.04341, section 5.1), "random words" texts by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from clipneurons.adversarial.cue_request import METHODS, SECOND_ORDER, CueRequest
from clipneurons.adversarial.cues import Scorer, TextScores, aligned_units, decomposition_scores
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.stacked_units import StackedUnits
from clipneurons.models.clip import ClipModel
from research.papers.indirect_decomposition import IndirectDecomposition, indirect_decompositions

RANDOM_NEURONS, INDIRECT, RANDOM_WORDS = "random neurons", "indirect effect", "random words"
# The order of the paper's table, and ours after it.
ALL_METHODS = (SECOND_ORDER, RANDOM_NEURONS, INDIRECT, RANDOM_WORDS, *METHODS[1:])


def random_neurons(seed: int) -> Scorer:
    """The formula of the paper over live units by chance."""

    def scorer(bundle: Bundle, request: CueRequest, difference: Tensor) -> TextScores:
        units = StackedUnits.of({layer: bundle.layers[layer] for layer in request.layers})
        live = (units.directions.norm(dim=-1) > 0).nonzero().flatten()
        order = torch.randperm(len(live), generator=torch.Generator().manual_seed(seed))
        units = units.take(live[order[: request.neurons]])
        return decomposition_scores(units, difference, len(bundle.texts))

    return scorer


def random_words(seed: int) -> Scorer:
    """Scores by chance."""

    def scorer(bundle: Bundle, request: CueRequest, difference: Tensor) -> TextScores:
        generator = torch.Generator().manual_seed(seed)
        return TextScores(2 * torch.rand(len(bundle.texts), generator=generator) - 1)

    return scorer


def indirect_effects(
    clip: ClipModel, images: Callable[[], Tensor], components: int
) -> Callable[[int], Scorer]:
    """The formula of the paper with decompositions of indirect effects, made when first asked for.

    Args:
        clip: a ViT.
        images: gives preprocessed images of the data set.
        components: texts of each neuron.
    """

    @cache
    def decompositions(
        bundle: Bundle, layers: tuple[int, ...]
    ) -> Mapping[int, IndirectDecomposition]:
        return indirect_decompositions(clip, images(), layers, bundle.text_embeddings, components)

    def scorer(bundle: Bundle, request: CueRequest, difference: Tensor) -> TextScores:
        units = StackedUnits.of(decompositions(bundle, tuple(request.layers)))
        units = aligned_units(units, difference, request.neurons)
        return decomposition_scores(units, difference, len(bundle.texts))

    return lambda seed: scorer
