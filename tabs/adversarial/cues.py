"""Cues of a class pair, from the neurons or a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from clipneurons.adversarial.methods import (
    DENSE_EFFECTS,
    FEW_CUES,
    RECORDED,
    RECORDED_EFFECTS,
    SECOND_ORDER,
    strongest,
)
from tabs.adversarial.offers import PICTOGRAMS, composer, offered, painters, similarity_of
from tabs.server.session import BundleSession

if TYPE_CHECKING:
    from clipneurons.adversarial.cue_filter import CueFilter
    from clipneurons.adversarial.cues import Cues
    from clipneurons.adversarial.zero_shot import ZeroShotClassifier
    from clipneurons.bundle.bundle import Bundle

# Where nothing else is asked for, and at most.
CUES, MAX_CUES = FEW_CUES, 50
# Where the bundle does not say which classes are taken for one another.
PAIRS = (("cat", "dog"), ("horse", "automobile"), ("ship", "truck"), ("bird", "frog"))
NEURONS = 100  # the paper's
AUTOMATIC = "automatic"
# How the neurons are asked what to draw: by their name, and what each means.
WAYS = {
    AUTOMATIC: f"{RECORDED_EFFECTS} where the bundle has them, else {DENSE_EFFECTS}.",
    DENSE_EFFECTS: "all that every neuron writes along each word, however weak.",
    SECOND_ORDER: "the phrases (sparse decomposition) of the neurons that tell the two names apart "
    "most, as in the paper.",
    RECORDED_EFFECTS: "what the neurons were seen to do in pictures of each thing beside other "
    "objects; where the bundle does not have them, thousands of pictures are read first, once.",
}
_KEPT_PAIRS = 32


def pairs_of(session: BundleSession) -> list[tuple[str, str]]:
    """Class pairs to try: those whose cues score highest, where the bundle says which."""
    shipped = session.bundle.opening.get("pairs")
    rows = shipped if isinstance(shipped, list) else []
    pairs = [tuple(row) for row in rows if isinstance(row, list) and _is_pair(row)]
    return list(dict.fromkeys([*pairs, *PAIRS]))[: len(PAIRS)]


def _is_pair(names: list) -> bool:
    from clipneurons.adversarial.cue_request import CueRequest

    if len(names) != 2 or not all(isinstance(name, str) for name in names):
        return False
    try:
        return bool(CueRequest(*names))
    except ValueError:
        return False


def rules_of(session: BundleSession, target_class: str, blocked: str, painter: str) -> CueFilter:
    """Which phrases may be cues."""
    from clipneurons.adversarial.cue_filter import CueFilter
    from clipneurons.adversarial.cue_request import check_name

    words = tuple(check_name(word, "blocked word") for word in split_words(blocked))
    drawable = composer(session).drawable(target_class) if painter == PICTOGRAMS else None
    return CueFilter(similarity_of(session), words, drawable)


def cues_of(
    session: BundleSession, true_class: str, target_class: str, *,
    layers: Sequence[int] | None = None, neurons: int = 100, words: int = CUES, blocked: str = "",
    painter: str = PICTOGRAMS, way: str = "", method: str = "", seed: int = 0,
    progress: Callable[[float], object] = lambda _share: None,
) -> Cues:  # fmt: skip
    """Cues of a class pair; see `clipneurons.adversarial.cues.find_cues`.

    They are found in one of the `WAYS`, or by a baseline (`method`).
    """
    from clipneurons.adversarial.cue_request import CueRequest
    from clipneurons.adversarial.cues import find_cues

    offered(painter, painters(), "painter")
    method = method or method_of(session, way, neurons)
    request = CueRequest(
        true_class, target_class, own_layers(session, layers), int(neurons) or NEURONS, int(words),
        method, rules_of(session, target_class, blocked, painter), seed=int(seed),
    )  # fmt: skip
    bundle = with_recordings(session, painter, progress) if method in RECORDED else session.bundle
    difference = classifier_of(session, request.true_class, request.target_class).difference
    return find_cues(bundle, session.clip, request, difference)


def method_of(session: BundleSession, way: str = "", neurons: int = 0) -> str:
    """How a way asks this bundle; where none is named, a number of neurons means their phrases."""
    if way == AUTOMATIC or not (way or neurons):
        return strongest(session.bundle)
    return way or SECOND_ORDER


def with_recordings(
    session: BundleSession, painter: str = PICTOGRAMS,
    progress: Callable[[float], object] = lambda _share: None,
) -> Bundle:  # fmt: skip
    """The bundle with what its model does in pictures of all that can be drawn.

    Where it has none they are made once, for all class pairs.

    Raises:
        ValueError: a painter that takes seconds for a picture, or nothing to draw.
    """
    from clipneurons.adversarial.cue_recorder import record_cues

    bundle = session.bundle
    if bundle.cues:
        return bundle
    if painter != PICTOGRAMS:
        raise ValueError(
            f"{RECORDED_EFFECTS!r} are recorded in thousands of pictures: choose {PICTOGRAMS!r} "
            "to paint them."
        )

    def make() -> Bundle:
        paint = composer(session)
        cues = record_cues(
            bundle, session.lens, paint, paint.concept, paint.concepts, progress=progress
        )
        return replace(bundle, cues=cues)

    return session.cached("bundle with cues", make)


def classifier_of(session: BundleSession, true_class: str, target_class: str) -> ZeroShotClassifier:
    """What reads pictures of a pair: the texts of the last few pairs are embedded once."""
    from clipneurons.adversarial.zero_shot import ZeroShotClassifier

    def make():
        return lru_cache(_KEPT_PAIRS)(partial(ZeroShotClassifier, session.clip))

    return session.cached("classifiers", make)(true_class, target_class)


def own_layers(session: BundleSession, layers: Sequence[int | str] | None) -> list[int] | None:
    """The bundle's own of these layers; None, which is all, where it has none of them.

    The page and programs may still send those of the bundle that was shown before.
    """
    wanted = {str(layer) for layer in (layers if isinstance(layers, list | tuple) else [layers])}
    return [layer for layer in session.bundle.layers if str(layer) in wanted] or None


def split_words(text: str | None) -> list[str]:
    """Words between commas or line breaks, without repetitions; none of an empty field."""
    parts = (text or "").replace("\n", ",").split(",")
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))
