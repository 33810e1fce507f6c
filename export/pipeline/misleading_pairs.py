"""Which class pairs the page offers first: those whose cues mislead the model most, measured."""

from __future__ import annotations

from clipneurons.adversarial.attack import attack, success_rate
from clipneurons.adversarial.cue_filter import CueFilter
from clipneurons.adversarial.cue_request import CueRequest
from clipneurons.adversarial.cues import find_cues
from clipneurons.adversarial.descriptions import TemplateDescriber
from clipneurons.adversarial.image_generator import picture_seeds
from clipneurons.adversarial.methods import (
    FEW_CUES,
    NO_CUES,
    RANDOM_NEURONS,
    RANDOM_WORDS,
    SIMILAR_WORDS,
    strongest,
)
from clipneurons.adversarial.pictogram_generator import Composer, pictogram_composer
from clipneurons.adversarial.zero_shot import ZeroShotClassifier
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.unit_words import plain
from clipneurons.models.clip import ClipModel
from clipneurons.text.similarity import ClipSimilarity

# Everyday things that there are pictograms of.
CANDIDATES = (
    ("cat", "dog"), ("horse", "automobile"), ("ship", "truck"), ("bird", "frog"),
    ("duck", "rabbit"), ("airplane", "deer"), ("bicycle", "motorcycle"), ("apple", "flower"),
)  # fmt: skip
CONTROLS = (RANDOM_NEURONS, SIMILAR_WORDS, RANDOM_WORDS, NO_CUES)
# The page draws with seed 0: other pictures are shown than those that choose.
PICTURES, SEED = 16, 1


def misleading_pairs(bundle: Bundle, clip: ClipModel) -> list[tuple[str, str]]:
    """The candidates that the bundle's texts name, those first whose `gain` is largest.

    None where there are no two to choose from, or no pictograms.
    """
    known = {plain(text) for text in bundle.texts}
    pairs = [pair for pair in CANDIDATES if known.issuperset(pair)]
    try:
        painter = pictogram_composer(max(clip.image_size)) if len(pairs) > 1 else None
    except FileNotFoundError:
        painter = None
    if painter is None:
        return []
    gains = {pair: gain(bundle, clip, painter, pair) for pair in pairs}
    return sorted(pairs, key=lambda pair: -gains[pair])


def gain(bundle: Bundle, clip: ClipModel, painter: Composer, pair: tuple[str, str]) -> float:
    """By how much the neurons' cues mislead more often than the best of the controls' do."""
    found = rates(bundle, clip, painter, pair)
    return found[strongest(bundle)] - max(found[method] for method in CONTROLS)


def rates(
    bundle: Bundle, clip: ClipModel, painter: Composer, pair: tuple[str, str]
) -> dict[str, float]:
    """By method, the share of pictures with its cues that are read as the target.

    It is 0 where no picture counts.
    """
    classifier = ZeroShotClassifier(clip, *pair)
    similarity = ClipSimilarity(clip, bundle.text_embeddings)
    rules = CueFilter(similarity, drawable=painter.drawable(pair[1]))

    def rate(method: str) -> float:
        request = CueRequest(*pair, words=FEW_CUES, method=method, rules=rules, seed=SEED)
        cues = find_cues(bundle, clip, request, classifier.difference)
        batches = attack(
            classifier, painter, TemplateDescriber()(*pair, cues.words, PICTURES, SEED),
            picture_seeds(PICTURES, SEED),
            check=lambda paintings: [painter.check(one, *pair) for one in paintings],
        )  # fmt: skip
        found = success_rate([outcome for batch in batches for outcome in batch])
        return found.value if found.count else 0.0

    return {method: rate(method) for method in (strongest(bundle), *CONTROLS)}
