import numpy as np
import pytest
from PIL import Image

from clipneurons.adversarial.attack import Outcome, attack, spurious_cues, success_rate, unchecked
from clipneurons.adversarial.descriptions import Description
from clipneurons.adversarial.image_generator import PRESENT, TARGET_SHOWN, UNCHECKED, GeneratedImage
from clipneurons.adversarial.zero_shot import ZeroShotClassifier
from tests.helpers.models import tiny_resnet, tiny_vit


def generator(true_class, descriptions, seeds):
    """Noise, the same for the same seed."""
    for description, seed in zip(descriptions, seeds, strict=True):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST)
        yield GeneratedImage(image, description, seed)


def outcome(cues, fooled, presence=PRESENT, duplicate=False):
    return Outcome(Description("", cues), 0, None, presence, duplicate, fooled, 0.1, "x")


def test_outcomes_are_the_judges_verdicts_in_order_whatever_the_batch():
    clip, other = tiny_vit(), tiny_resnet()
    classifier, second = (
        ZeroShotClassifier(clip, "zebra", "x", ["tea"]),
        ZeroShotClassifier(other, "zebra", "x"),
    )
    descriptions = [Description(f"picture {i}", ()) for i in range(7)]
    seeds = list(range(7))
    found = [
        [o for batch in attack(classifier, generator, descriptions, seeds, transfer={"rn": second},
                               batch_size=size) for o in batch]
        for size in (1, 3, 7, 50)
    ]  # fmt: skip
    for outcomes in found:
        assert [o.description for o in outcomes] == descriptions
        assert [o.seed for o in outcomes] == seeds
        images = [p.image for p in generator("zebra", descriptions, seeds)]
        verdicts, others = classifier(images), second(images)
        assert [o.fooled for o in outcomes] == verdicts.fooled.tolist()
        assert [o.margin for o in outcomes] == pytest.approx(verdicts.margin.tolist(), abs=1e-5)
        assert [o.predicted for o in outcomes] == verdicts.predicted
        assert [o.transfer["rn"] for o in outcomes] == others.fooled.tolist()
        assert {o.presence for o in outcomes} == {UNCHECKED}
    assert len({round(o.margin, 5) for o in found[0]}) == 7


def test_repeated_images_count_once():
    classifier = ZeroShotClassifier(tiny_vit(), "zebra", "x")
    descriptions = [Description("", ())] * 4
    (outcomes,) = attack(classifier, generator, descriptions, [1, 2, 1, 1])
    assert [o.duplicate for o in outcomes] == [False, False, True, True]
    assert success_rate(outcomes).count == 2


def test_only_images_that_show_what_they_should_count():
    outcomes = [
        outcome((), True), outcome((), False), outcome((), True, TARGET_SHOWN),
        outcome((), True, duplicate=True), outcome((), True, UNCHECKED),
    ]  # fmt: skip
    rate = success_rate(outcomes)
    assert (rate.successes, rate.count) == (2, 3)
    assert [o.success for o in outcomes] == [True, False, False, False, True]
    assert unchecked(list(generator("x", [Description("", ())] * 2, [0, 1]))) == [UNCHECKED] * 2


def test_the_check_sees_every_image_once():
    classifier, seen = ZeroShotClassifier(tiny_vit(), "zebra", "x"), []

    def check(images):
        seen.extend(p.seed for p in images)
        return [TARGET_SHOWN] * len(images)

    batches = attack(
        classifier, generator, [Description("", ())] * 5, range(5), check=check, batch_size=2
    )
    assert all(o.presence == TARGET_SHOWN for batch in batches for o in batch)
    assert seen == list(range(5))


def test_spurious_cues_are_ordered_by_what_they_add():
    outcomes = (
        [outcome(("bone", "sky"), True)] * 3
        + [outcome(("bone",), False)]
        + [outcome(("sky",), False)] * 2
        + [outcome(("bone", "sky"), True, TARGET_SHOWN)]
        + [outcome(("tea",), False)]
    )
    found = spurious_cues(outcomes)
    assert [c.text for c in found] == ["bone", "sky", "tea"]
    assert (found[0].with_cue.successes, found[0].with_cue.count) == (3, 4)
    assert (found[0].without_cue.successes, found[0].without_cue.count) == (0, 3)
    (only,) = spurious_cues([outcome(("bone",), True)])
    assert only.without_cue.count == 0
