"""Draw, judge and count: from descriptions to success rates (2406.04341, section 5.1)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.image_generator import (
    PRESENT,
    UNCHECKED,
    GeneratedImage,
    ImageGenerator,
)
from clipneurons.adversarial.zero_shot import ZeroShotClassifier
from clipneurons.stats.intervals import Rate, wilson

Check = Callable[[Sequence[GeneratedImage]], list[str]]

# A hash of 64 bits: photographs of different things differ in about half of them.
NEAR_DUPLICATE_BITS = 2
NEAR_DUPLICATE_PIXELS = 4.0


@dataclass(frozen=True)
class Outcome:
    """One image and the model's verdict on it.

    Attributes:
        description: what was drawn.
        seed: the generator's seed.
        objects: what the image shows, where that is known.
        presence: `PRESENT`, `MISSING`, `TARGET_SHOWN` or `UNCHECKED`.
        duplicate: a near copy of an earlier image.
        fooled: read as the target class rather than the true one.
        margin: cosine with the target class minus that with the true one.
        predicted: most probable of all classes.
        transfer: by name of another model, whether it is fooled too.
        image: the image, unless it was not kept.
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
        """Whether the image counts: it shows what it should (or was not checked) and is new."""
        return self.presence in (PRESENT, UNCHECKED) and not self.duplicate

    @property
    def success(self) -> bool:
        """An image that counts and is read as the target class."""
        return self.valid and self.fooled


class Duplicates:
    """Remembers images and recognises near copies of them, which count once."""

    def __init__(self) -> None:
        self._bits = np.empty((0, 64), np.uint8)
        self._small = np.empty((0, 16 * 16 * 3), np.int16)

    def seen(self, image: Image.Image) -> bool:
        """Whether an image like this was seen before; remembers it if not.

        Two images are near copies when both their difference hashes and their colours at
        16 × 16 pixels agree: flat grounds make the hash alone too coarse.
        """
        bits = _difference_hash(image)
        small = image.convert("RGB").resize((16, 16), Image.Resampling.BOX)
        small = np.asarray(small, dtype=np.int16).ravel()
        alike = (self._bits != bits).sum(1) <= NEAR_DUPLICATE_BITS
        if alike.any() and (
            np.abs(self._small[alike] - small).mean(1).min() < NEAR_DUPLICATE_PIXELS
        ):
            return True
        self._bits = np.vstack([self._bits, bits])
        self._small = np.vstack([self._small, small])
        return False


def _difference_hash(image: Image.Image) -> UInt8[np.ndarray, " bit"]:
    """Whether brightness grows from each of 8 × 8 cells to the next."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return (grey[:, 1:] > grey[:, :-1]).astype(np.uint8).ravel()


def unchecked(images: Sequence[GeneratedImage]) -> list[str]:
    """The check that looks at nothing."""
    return [UNCHECKED] * len(images)


def attack(
    classifier: ZeroShotClassifier,
    generator: ImageGenerator,
    descriptions: Sequence[Description],
    seeds: Sequence[int],
    *,
    check: Check = unchecked,
    transfer: Mapping[str, ZeroShotClassifier] | None = None,
    duplicates: Duplicates | None = None,
    batch_size: int = 50,
) -> Iterator[list[Outcome]]:
    """Draw each description and judge it; yields the outcomes of a batch at a time.

    Args:
        classifier: the model under attack with its classes, the true one first.
        generator: draws the descriptions.
        descriptions: what to draw.
        seeds: one for each.
        check: says what is in the images.
        transfer: other models that judge the same images.
        duplicates: images to compare with besides those of this call.
        batch_size: images judged together.
    """
    duplicates = duplicates or Duplicates()
    waiting: list[GeneratedImage] = []
    images = generator(classifier.classes[0], descriptions, seeds)
    for number, image in enumerate(images, start=1):
        waiting.append(image)
        if len(waiting) == batch_size or number == len(descriptions):
            yield _judge(classifier, waiting, check, transfer or {}, duplicates)
            waiting = []


def _judge(classifier, generated, check, transfer, duplicates) -> list[Outcome]:
    images = [one.image for one in generated]
    verdicts = classifier(images)
    others = {name: other(images).fooled.tolist() for name, other in transfer.items()}
    return [
        Outcome(
            description=drawn.description,
            seed=drawn.seed,
            objects=drawn.objects,
            image=drawn.image,
            presence=presence,
            duplicate=duplicates.seen(drawn.image),
            fooled=bool(verdicts.fooled[i]),
            margin=float(verdicts.margin[i]),
            predicted=verdicts.predicted[i],
            transfer={name: fooled[i] for name, fooled in others.items()},
        )
        for i, (drawn, presence) in enumerate(zip(generated, check(generated), strict=True))
    ]


def success_rate(outcomes: Sequence[Outcome]) -> Rate:
    """Share of images read as the target class, among those that count."""
    valid = [outcome for outcome in outcomes if outcome.valid]
    return wilson(sum(outcome.fooled for outcome in valid), len(valid))


@dataclass(frozen=True)
class SpuriousCue:
    """How often images with a cue are misread, beside those without it."""

    text: str
    with_cue: Rate
    without_cue: Rate


def spurious_cues(outcomes: Sequence[Outcome]) -> list[SpuriousCue]:
    """Cues by how much more often images with them are misread, strongest first.

    For a defender: what the true class must also be trained with.
    """
    valid = [outcome for outcome in outcomes if outcome.valid]
    texts = {cue for outcome in valid for cue in outcome.description.cues}

    def rate(text: str, present: bool) -> Rate:
        chosen = [o for o in valid if (text in o.description.cues) == present]
        return wilson(sum(o.fooled for o in chosen), len(chosen))

    cues = [SpuriousCue(text, rate(text, True), rate(text, False)) for text in sorted(texts)]
    # A cue that is in every image is compared with nothing, that is with no misreading.
    return sorted(
        cues,
        key=lambda c: (c.without_cue.value if c.without_cue.count else 0.0) - c.with_cue.value,
    )
