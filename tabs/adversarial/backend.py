"""What the adversarial tab does, as data: cues, descriptions, pictures with verdicts, a zip."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from clipneurons.adversarial.methods import (
    DENSE_EFFECTS,
    FEW_CUES,
    NO_CUES,
    RANDOM_NEURONS,
    RANDOM_WORDS,
    RECORDED,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
    SIMILAR_WORDS,
    strongest,
)
from tabs.server.session import BundleSession

if TYPE_CHECKING:
    from PIL import Image

    from clipneurons.adversarial.attack import Outcome
    from clipneurons.adversarial.cue_filter import CueFilter
    from clipneurons.adversarial.cues import Cues
    from clipneurons.adversarial.descriptions import Describer, Description
    from clipneurons.adversarial.image_generator import ImageGenerator
    from clipneurons.adversarial.zero_shot import ZeroShotClassifier
    from clipneurons.bundle.bundle import Bundle

# The server's owner may offer these; a visitor never names a model.
CHAT_MODEL, PAINTER_MODEL = "CLIPNEURONS_CHAT", "CLIPNEURONS_PAINTER"
TEMPLATES, PICTOGRAMS = "templates", "pictograms"
MAX_PICTURES, MAX_CUES, BATCH = 60, 50, 10
# Where nothing else is asked for: pictures, cues, and cues in a picture.
PICTURES, CUES, EACH = 30, FEW_CUES, 3
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
CONTROLS = (RANDOM_NEURONS, SIMILAR_WORDS, RANDOM_WORDS, NO_CUES)
PURPOSE = (
    "These pictures show where a classifier leans on the company an object keeps. They are for "
    "finding and mending that (train with the object in such company); they are not for deceiving "
    "systems that others rely on."
)


@dataclass(frozen=True)
class Forged:
    """Pictures of one class pair with their verdicts, kept for the gallery, the map and the zip."""

    key: str
    true_class: str
    target_class: str
    method: str
    outcomes: tuple[Outcome, ...]


def pairs_of(session: BundleSession) -> list[tuple[str, str]]:
    """Class pairs to try: those that mislead the model most, where the bundle says which."""
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


def describers() -> list[str]:
    """Ways to describe that this server offers."""
    chat = os.environ.get(CHAT_MODEL)
    return [TEMPLATES, chat] if chat else [TEMPLATES]


def painters() -> list[str]:
    """Ways to paint that this server offers."""
    model = os.environ.get(PAINTER_MODEL)
    return [PICTOGRAMS, model] if model else [PICTOGRAMS]


def composer(session: BundleSession):
    """The offline painter for a session's model, made once."""
    from clipneurons.adversarial.pictogram_generator import pictogram_composer

    return session.cached("composer", lambda: pictogram_composer(max(session.clip.image_size)))


def painter_of(session: BundleSession, name: str) -> ImageGenerator:
    """A painter that this server offers, loaded once."""
    _offered(name, painters(), "painter")
    if name == PICTOGRAMS:
        return composer(session)
    from clipneurons.adversarial.image_generator import DiffusersGenerator

    return session.cached("painter", lambda: DiffusersGenerator(name))


def describer_of(session: BundleSession, name: str, cues_each: int) -> Describer:
    """A describer that this server offers, loaded once."""
    from clipneurons.adversarial.descriptions import TemplateDescriber

    _offered(name, describers(), "describer")
    if name == TEMPLATES:
        return TemplateDescriber(int(cues_each))
    from clipneurons.adversarial.chat import ChatDescriber

    return session.cached("chat", lambda: ChatDescriber(name, similarity=similarity_of(session)))


def similarity_of(session: BundleSession):
    """What finds synonyms for a session: the sentence encoder where it is installed."""
    from clipneurons.text.class_names import best_similarity

    def make():
        return best_similarity(session.clip, session.bundle.text_embeddings)

    return session.cached("similarity", make)


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

    _offered(painter, painters(), "painter")
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

    bundle, paint = session.bundle, composer(session)
    if bundle.cues:
        return bundle
    if painter != PICTOGRAMS:
        raise ValueError(
            f"{RECORDED_EFFECTS!r} are recorded in thousands of pictures: choose {PICTOGRAMS!r} "
            "to paint them."
        )

    def make() -> Bundle:
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


def descriptions_of(
    session: BundleSession, true_class: str, target_class: str, words: Sequence[str], count: int,
    seed: int, describer: str = TEMPLATES, cues_each: int = 3,
) -> list[Description]:  # fmt: skip
    """Descriptions of pictures with the given cues."""
    from clipneurons.adversarial.descriptions import checked_words

    if not 1 <= count <= MAX_PICTURES:
        raise ValueError(f"Between 1 and {MAX_PICTURES} pictures, please, not {count}.")
    if len(words) > MAX_CUES:
        raise ValueError(f"At most {MAX_CUES} cues, please, not {len(words)}.")
    describe = describer_of(session, describer, cues_each)
    return describe(true_class, target_class, checked_words(words), int(count), int(seed))


def forge(
    session: BundleSession, true_class: str, target_class: str, descriptions: Sequence[Description],
    seed: int, painter: str = PICTOGRAMS,
) -> Iterator[list[Outcome]]:  # fmt: skip
    """Paint and judge, a few pictures at a time."""
    from clipneurons.adversarial.attack import attack, unchecked
    from clipneurons.adversarial.image_generator import picture_seeds

    paint = painter_of(session, painter)
    exact = painter == PICTOGRAMS

    def check(paintings) -> list[str]:
        return [paint.check(painting, true_class, target_class) for painting in paintings]

    yield from attack(
        classifier_of(session, true_class, target_class), paint, descriptions,
        picture_seeds(len(descriptions), int(seed)), check=check if exact else unchecked,
        batch_size=BATCH if exact else 1,
    )  # fmt: skip


def controls(
    session: BundleSession, true_class: str, target_class: str, count: int, seed: int, *,
    progress: Callable[[float], object] = lambda _share: None, cues_each: int = 3, **options,
) -> dict[str, object]:  # fmt: skip
    """Success rates of the baselines with the same number of pictures, from templates.

    None with a painter that takes seconds for a picture.
    """
    from clipneurons.adversarial.attack import success_rate

    rates, painter = {}, options.get("painter", PICTOGRAMS)
    if painter != PICTOGRAMS:
        return rates
    # Whoever looks at pictures is compared with the same pictures read without the neurons.
    asked = method_of(session, options.get("way", ""), options.get("neurons", 0))
    seen = (RECORDED_EMBEDDINGS,) if asked == RECORDED_EFFECTS else ()
    methods = (*seen, *CONTROLS)
    for done, method in enumerate(methods):
        words = cues_of(
            session, true_class, target_class, method=method, seed=seed, **options
        ).words  # fmt: skip
        descriptions = descriptions_of(
            session, true_class, target_class, words, count, seed, cues_each=cues_each
        )
        batches = forge(session, true_class, target_class, descriptions, seed, painter)
        rates[method] = success_rate([outcome for batch in batches for outcome in batch])
        progress((done + 1) / len(methods))
    return rates


def mistake_overlay(session: BundleSession, forged: Forged, index: int) -> Image.Image:
    """A picture with the patches that speak for the target class in colour."""
    import torch

    from clipneurons.adversarial.zero_shot import mistake_maps
    from clipneurons.images.heatmap import overlay

    image = forged.outcomes[index].image
    classifier = classifier_of(session, forged.true_class, forged.target_class)
    heat = mistake_maps(session.lens, [image], classifier.difference)[0].clamp_min(0)
    heat = heat / heat.max().clamp_min(1e-12)
    shown = image.resize((256, 256))
    heat = torch.nn.functional.interpolate(heat[None, None], size=(256, 256), mode="bilinear")
    return overlay(shown, heat[0, 0], 0.55)


def zip_file(forged: Forged) -> str:
    """Pictures, their descriptions and verdicts, and what they are for, in a zip."""
    folder = Path(tempfile.mkdtemp(prefix="clipneurons-"))
    file = folder / "adversarial.zip"
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["file", "description", "cues", "shows", "read wrongly", "margin", "seed"])
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, outcome in enumerate(forged.outcomes):
            buffer = io.BytesIO()
            outcome.image.save(buffer, "PNG")
            name = f"{number:03d}.png"
            archive.writestr(name, buffer.getvalue())
            writer.writerow([
                name, outcome.description.text, "|".join(outcome.description.cues),
                outcome.presence, outcome.fooled, f"{outcome.margin:.4f}", outcome.seed,
            ])  # fmt: skip
        archive.writestr("pictures.csv", lines.getvalue())
        title = f"{forged.true_class} read as {forged.target_class}, cues: {forged.method}\n\n"
        archive.writestr("README.txt", f"{title}{PURPOSE}\n")
    return str(file)


def split_words(text: str | None) -> list[str]:
    """Words between commas or line breaks, without repetitions; none of an empty field."""
    parts = (text or "").replace("\n", ",").split(",")
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _offered(name: str, offered: list[str], what: str) -> None:
    if name not in offered:
        raise ValueError(f"This server offers the {what}s {', '.join(offered)}, not {name!r}.")
