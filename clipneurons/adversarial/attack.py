"""Paint, judge and count: from descriptions to success rates (2406.04341, section 5.1)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.duplicates import Duplicates
from clipneurons.adversarial.image_generator import GeneratedImage, ImageGenerator
from clipneurons.adversarial.outcomes import PRESENT, UNCHECKED
from clipneurons.adversarial.zero_shot import ZeroShotClassifier
from clipneurons.stats.intervals import Rate, wilson

Check = Callable[[Sequence[GeneratedImage]], list[str]]


@dataclass(frozen=True)
class Outcome:
    """One picture and what became of it.

    Attributes:
        description: what was painted.
        seed: the painter's seed.
        objects: what the picture shows, where that is known.
        presence: one of the findings of `clipneurons.adversarial.outcomes`: what it shows.
        duplicate: a near copy of an earlier picture.
        fooled: read as the target rather than the true class.
        margin: cosine with the target class minus that with the true one.
        predicted: most probable of all classes.
        transfer: by name of another model, whether it is fooled too.
        image: the picture, unless it was not kept.
    """

    description: Description
    seed: int
    objects: tuple[str, ...] | None
    presence: str
    duplicate: bool
    fooled: bool
    margin: float
    predicted: str
    transfer: Mapping[str, bool] = field(default_factory=dict)
    image: Image.Image | None = None

    @property
    def valid(self) -> bool:
        """Whether the picture counts: shows what it should (or nobody looked) and is new."""
        return self.presence in (PRESENT, UNCHECKED) and not self.duplicate

    @property
    def success(self) -> bool:
        """A picture that counts and is read wrongly."""
        return self.valid and self.fooled


def unchecked(paintings: Sequence[GeneratedImage]) -> list[str]:
    """Nobody looked."""
    return [UNCHECKED] * len(paintings)


def attack(
    classifier: ZeroShotClassifier,
    painter: ImageGenerator,
    descriptions: Sequence[Description],
    seeds: Sequence[int],
    *,
    check: Check = unchecked,
    transfer: Mapping[str, ZeroShotClassifier] | None = None,
    duplicates: Duplicates | None = None,
    batch_size: int = 50,
) -> Iterator[list[Outcome]]:
    """Paint each description and judge it; yields the outcomes of a batch at a time.

    Args:
        classifier: the model under attack with its classes, the true one first.
        painter: paints the descriptions.
        descriptions: what to paint.
        seeds: one for each.
        check: says what is in the pictures.
        transfer: other models that judge the same pictures.
        duplicates: pictures to compare with besides those of this call.
        batch_size: pictures judged together.
    """
    duplicates = duplicates or Duplicates()
    waiting: list[GeneratedImage] = []
    paintings = painter(classifier.classes[0], descriptions, seeds)
    for number, painting in enumerate(paintings, start=1):
        waiting.append(painting)
        if len(waiting) == batch_size or number == len(descriptions):
            yield _judge(classifier, waiting, check, transfer or {}, duplicates)
            waiting = []


def _judge(classifier, paintings, check, transfer, duplicates) -> list[Outcome]:
    images = [painting.image for painting in paintings]
    verdicts = classifier(images)
    others = {name: other(images).fooled.tolist() for name, other in transfer.items()}
    return [
        Outcome(
            description=painting.description,
            seed=painting.seed,
            objects=painting.objects,
            image=painting.image,
            presence=presence,
            duplicate=duplicates.seen(painting.image),
            fooled=bool(verdicts.fooled[i]),
            margin=float(verdicts.margin[i]),
            predicted=verdicts.predicted[i],
            transfer={name: fooled[i] for name, fooled in others.items()},
        )
        for i, (painting, presence) in enumerate(zip(paintings, check(paintings), strict=True))
    ]


def success_rate(outcomes: Sequence[Outcome]) -> Rate:
    """Share of successes among the pictures that count."""
    valid = [outcome for outcome in outcomes if outcome.valid]
    return wilson(sum(outcome.fooled for outcome in valid), len(valid))


@dataclass(frozen=True)
class SpuriousCue:
    """How often pictures that hold a cue are misread, beside those that do not."""

    text: str
    with_cue: Rate
    without_cue: Rate


def spurious_cues(outcomes: Sequence[Outcome]) -> list[SpuriousCue]:
    """Cues by how much more often pictures with them are misread, strongest first.

    For a defender: what the true class must also be trained with.
    """
    valid = [outcome for outcome in outcomes if outcome.valid]
    texts = {cue for outcome in valid for cue in outcome.description.cues}

    def rate(text: str, present: bool) -> Rate:
        mine = [o for o in valid if (text in o.description.cues) == present]
        return wilson(sum(o.fooled for o in mine), len(mine))

    found = [SpuriousCue(text, rate(text, True), rate(text, False)) for text in sorted(texts)]
    # A cue that is in every picture is compared with nothing, that is with no misreading.
    return sorted(
        found,
        key=lambda c: (c.without_cue.value if c.without_cue.count else 0.0) - c.with_cue.value,
    )
