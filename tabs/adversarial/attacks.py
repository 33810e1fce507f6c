"""What the tab asks of a bundle: cues of a class pair, images with them, and their verdicts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from reprlib import repr as short
from typing import TYPE_CHECKING

from clipneurons.adversarial.cue_request import (
    BY_NEURONS,
    FEW_CUES,
    NEURONS,
    NO_CUES,
    RECORDED,
    RECORDED_EFFECTS,
    RECORDED_EMBEDDINGS,
    SECOND_ORDER,
    SIMILAR_WORDS,
    CueFilter,
    CueRequest,
    check_name,
    default_method,
)
from tabs.server.session import BundleSession

if TYPE_CHECKING:
    from clipneurons.adversarial.attack import Outcome
    from clipneurons.adversarial.composer import Composer
    from clipneurons.adversarial.cues import Cues
    from clipneurons.adversarial.descriptions import Describer, Description
    from clipneurons.adversarial.image_generator import ImageGenerator
    from clipneurons.adversarial.zero_shot import ZeroShotClassifier
    from clipneurons.bundle.bundle import Bundle
    from clipneurons.stats.intervals import Rate

# The server's owner may offer these models; a visitor never names one.
CHAT_MODEL, IMAGE_MODEL = "CLIPNEURONS_CHAT", "CLIPNEURONS_GENERATOR"
TEMPLATES, PICTOGRAMS = "templates", "pictograms"
AUTOMATIC = "automatic"
METHOD_CHOICES = (AUTOMATIC, *BY_NEURONS)
# Where the bundle does not say which pairs to try.
PAIRS = (("cat", "dog"), ("horse", "automobile"), ("ship", "truck"), ("bird", "frog"))
MAX_CUES, MAX_IMAGES, MAX_PER_IMAGE, MAX_NEURONS = 50, 60, 6, 100_000
MAX_TEXT, MAX_BLOCKED = 4000, 1000  # characters of the fields
IMAGES, PER_IMAGE = 30, 3
_BATCH, _KEPT_PAIRS = 10, 32

Progress = Callable[[float], object]


@dataclass(frozen=True)
class CueQuery:
    """What `/find_cues` is asked for; wrong types and sizes raise `ValueError` with one line."""

    bundle: str = ""
    true_class: str = "cat"
    target_class: str = "dog"
    method: str = AUTOMATIC
    layers: list[int] | None = None
    neurons: int = NEURONS
    count: int = FEW_CUES
    blocked: str = ""
    generator: str = PICTOGRAMS

    def __post_init__(self) -> None:
        if not isinstance(self.bundle, str):
            raise ValueError(f"bundle must be a text, not {type(self.bundle).__name__}")
        for name in ("true_class", "target_class"):
            object.__setattr__(self, name, check_name(getattr(self, name)))
        _check_choice(self.method, METHOD_CHOICES, "method")
        _check_choice(self.generator, generators(), "image generator")
        _check_text(self.blocked, "blocked words", MAX_BLOCKED)
        self._whole("neurons", 1, MAX_NEURONS)
        self._whole("count", 1, MAX_CUES)
        layers = [] if self.layers is None else self.layers
        whole = isinstance(layers, list) and all(type(layer) is int for layer in layers[:1000])
        if not whole or len(layers) > 1000:
            raise ValueError(f"layers must be a list of whole numbers, not {short(layers)}")
        object.__setattr__(self, "layers", layers or None)

    def _whole(self, name: str, low: int, high: int) -> None:
        """Fields of the page give 25.0 for 25."""
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and low <= value <= high and value == int(value)):
            what = name.replace("_", " ")
            raise ValueError(
                f"{what} must be a whole number from {low} to {high}, not {value!r:.40}"
            )
        object.__setattr__(self, name, int(value))

    @property
    def pair(self) -> tuple[str, str]:
        """True class and target class."""
        return self.true_class, self.target_class


@dataclass(frozen=True)
class AttackQuery(CueQuery):
    """What `/attack` is asked for: cues, or the question for them, and images."""

    cues: str = ""
    images: int = IMAGES
    cues_per_image: int = PER_IMAGE
    seed: int = 0
    describer: str = TEMPLATES

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_text(self.cues, "cues", MAX_TEXT)
        _check_choice(self.describer, describers(), "describer")
        self._whole("images", 1, MAX_IMAGES)
        self._whole("cues_per_image", 0, MAX_PER_IMAGE)
        self._whole("seed", 0, 2**31 - 1)
        if len(self.own_cues) > MAX_CUES:
            raise ValueError(f"expected at most {MAX_CUES} cues, not {len(self.own_cues)}")
        for cue in self.own_cues:
            check_name(cue, "cue")

    @property
    def own_cues(self) -> list[str]:
        """The cues that were given; none where they are to be found."""
        return split_texts(self.cues)


@dataclass(frozen=True)
class Attack:
    """Images of one class pair with their verdicts, for the gallery, the map and the zip."""

    key: str
    true_class: str
    target_class: str
    method: str  # empty for a visitor's own cues
    outcomes: tuple[Outcome, ...]


def _check_text(value: object, what: str, most: int) -> None:
    if not isinstance(value, str):
        raise ValueError(f"the {what} must be a text with commas, not {type(value).__name__}")
    if len(value) > most:
        raise ValueError(f"the {what} have {len(value)} characters: expected at most {most}")


def _check_choice(value: object, choices: Sequence[str], what: str) -> None:
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, not {short(value)}")


def split_texts(text: str) -> list[str]:
    """Texts between commas, semicolons or line breaks, without repetitions."""
    parts = text.replace("\n", ",").replace(";", ",").split(",")
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def describers() -> list[str]:
    """Ways to describe that this server offers."""
    chat = os.environ.get(CHAT_MODEL)
    return [TEMPLATES, chat] if chat else [TEMPLATES]


def generators() -> list[str]:
    """Ways to make images that this server offers."""
    model = os.environ.get(IMAGE_MODEL)
    return [PICTOGRAMS, model] if model else [PICTOGRAMS]


def pairs_of(session: BundleSession) -> list[tuple[str, str]]:
    """Class pairs to try, the bundle's own first."""
    shipped = session.bundle.opening.get("pairs")
    rows = shipped if isinstance(shipped, list) else []
    pairs = [tuple(row) for row in rows if isinstance(row, list) and _is_pair(row)]
    return list(dict.fromkeys([*pairs, *PAIRS]))[: len(PAIRS)]


def _is_pair(names: list) -> bool:
    try:
        return len(names) == 2 and bool(CueRequest(*map(check_name, names)))
    except ValueError:
        return False


# -- cues


def method_of(session: BundleSession, query: CueQuery) -> str:
    """The query's method, or the bundle's default."""
    return default_method(session.bundle) if query.method == AUTOMATIC else query.method


def cues_of(
    session: BundleSession,
    query: CueQuery,
    method: str = "",
    progress: Progress = lambda _share: None,
) -> Cues:
    """Cues of a class pair by the query's method or another; see `find_cues`."""
    from clipneurons.adversarial.cues import find_cues

    method = method or method_of(session, query)
    blocked = tuple(check_name(word, "blocked word") for word in split_texts(query.blocked))
    drawable = None
    if query.generator == PICTOGRAMS:
        drawable = composer_of(session).drawable(query.target_class)
    request = CueRequest(
        *query.pair, layers=query.layers, neurons=query.neurons, count=query.count, method=method,
        rules=CueFilter(similarity_of(session), blocked, drawable),
    )  # fmt: skip
    bundle = with_recordings(session, query, progress) if method in RECORDED else session.bundle
    difference = classifier_of(session, *query.pair).difference
    return find_cues(bundle, session.clip, request, difference=difference)


def with_recordings(
    session: BundleSession, query: CueQuery, progress: Progress = lambda _share: None
) -> Bundle:
    """The bundle with its cues recorded; where it has none, they are recorded once.

    Raises:
        ValueError: an image generator that takes seconds for an image, or nothing to draw.
    """
    from clipneurons.adversarial.cue_recorder import record_cues

    bundle = session.bundle
    if bundle.cues:
        return bundle
    if query.generator != PICTOGRAMS:
        raise ValueError(
            f"{RECORDED_EFFECTS!r} takes thousands of images: choose the generator {PICTOGRAMS!r}"
        )

    def make() -> Bundle:
        draw = composer_of(session)
        cues = record_cues(
            bundle, session.lens, draw, draw.concept, draw.concepts, progress=progress
        )
        return replace(bundle, cues=cues)

    return session.cached("bundle with cues", make)


# -- images


def descriptions_of(
    session: BundleSession, query: AttackQuery, cues: Sequence[str], describer: str = ""
) -> list[Description]:
    """Descriptions of images with the given cues."""
    from clipneurons.adversarial.descriptions import checked_cues

    describe = describer_of(session, describer or query.describer, query.cues_per_image)
    return describe(*query.pair, checked_cues(cues), query.images, query.seed)


def draw(
    session: BundleSession, query: AttackQuery, descriptions: Sequence[Description]
) -> Iterator[list[Outcome]]:
    """Draw and judge, a few images at a time."""
    from clipneurons.adversarial.attack import attack, unchecked
    from clipneurons.adversarial.image_generator import image_seeds

    generator = generator_of(session, query.generator)
    exact = query.generator == PICTOGRAMS

    def check(images) -> list[str]:
        return [generator.check(image, *query.pair) for image in images]

    yield from attack(
        classifier_of(session, *query.pair), generator, descriptions,
        image_seeds(len(descriptions), query.seed), check=check if exact else unchecked,
        batch_size=_BATCH if exact else 1,
    )  # fmt: skip


def compared_with(method: str) -> tuple[str, ...]:
    """What cues of a method (none: a visitor's own) are shown beside, its control first."""
    control = (RECORDED_EMBEDDINGS,) if method == RECORDED_EFFECTS else ()
    papers = () if method == SECOND_ORDER else (SECOND_ORDER,)
    return (*control, *papers, SIMILAR_WORDS, NO_CUES)


def baseline_rates(
    session: BundleSession,
    query: AttackQuery,
    method: str,
    progress: Progress = lambda _share: None,
) -> dict[str, Rate]:
    """Success rates of what cues of a method are compared with, with as many images.

    None with a generator that takes seconds for an image.
    """
    from clipneurons.adversarial.attack import success_rate

    rates: dict[str, Rate] = {}
    if query.generator != PICTOGRAMS:
        return rates
    methods = compared_with(method)
    for done, other in enumerate(methods, start=1):
        cues = cues_of(session, query, other).texts
        descriptions = descriptions_of(session, query, cues, TEMPLATES)
        batches = draw(session, query, descriptions)
        rates[other] = success_rate([outcome for batch in batches for outcome in batch])
        progress(done / len(methods))
    return rates


# -- what is loaded once a session


def composer_of(session: BundleSession) -> Composer:
    """The offline image generator for a session's model."""
    from clipneurons.adversarial.composer import pictogram_composer

    return session.cached("composer", lambda: pictogram_composer(max(session.clip.image_size)))


def generator_of(session: BundleSession, name: str) -> ImageGenerator:
    """An image generator that this server offers."""
    if name == PICTOGRAMS:
        return composer_of(session)
    from clipneurons.adversarial.image_generator import DiffusersGenerator

    return session.cached("image generator", lambda: DiffusersGenerator(name))


def describer_of(session: BundleSession, name: str, cues_per_image: int) -> Describer:
    """A describer that this server offers."""
    from clipneurons.adversarial.descriptions import TemplateDescriber

    if name == TEMPLATES:
        return TemplateDescriber(cues_per_image)
    from clipneurons.adversarial.chat import ChatDescriber

    return session.cached("chat", lambda: ChatDescriber(name, similarity=similarity_of(session)))


def similarity_of(session: BundleSession):
    """What finds synonyms for a session: the sentence encoder where it is installed."""
    return session.cached("similarity", lambda: session.reader.similarity)


def classifier_of(session: BundleSession, true_class: str, target_class: str) -> ZeroShotClassifier:
    """What reads images of a pair: the texts of the last few pairs are embedded once."""
    from clipneurons.adversarial.zero_shot import ZeroShotClassifier

    def make():
        return lru_cache(_KEPT_PAIRS)(partial(ZeroShotClassifier, session.clip))

    return session.cached("classifiers", make)(true_class, target_class)
