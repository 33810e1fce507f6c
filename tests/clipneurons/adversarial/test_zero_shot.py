import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.adversarial.attack import Duplicates
from clipneurons.adversarial.cues import CLASS_TEMPLATES
from clipneurons.adversarial.image_generator import MISSING, PRESENT, TARGET_SHOWN
from clipneurons.adversarial.zero_shot import SecondOpinion, ZeroShotClassifier, mistake_maps
from clipneurons.lens.lens import Lens
from tests.helpers.models import tiny_resnet, tiny_vit


def noise(count, size=32, seed=0):
    rng = np.random.default_rng(seed)
    arrays = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return [Image.fromarray(array) for array in arrays]


def test_verdicts_are_those_of_a_loop_over_images_and_prompts():
    clip, pictures = tiny_vit(), noise(6)
    verdicts = ZeroShotClassifier(clip, "zebra", "whale", others=["boat", "zebra"])(pictures)
    assert verdicts.classes == ("zebra", "whale", "boat")
    for i, picture in enumerate(pictures):
        image = clip.encode_image(clip.preprocess(picture)[None])[0].double()
        cosines = []
        for name in verdicts.classes:
            text = sum(
                clip.encode_text([template.replace("{}", name)])[0].double()
                for template in CLASS_TEMPLATES
            )
            cosines.append(float(image @ text / image.norm() / text.norm()))
        assert verdicts.cosines[i].tolist() == pytest.approx(cosines, abs=1e-6)
        assert verdicts.margin[i] == pytest.approx(cosines[1] - cosines[0], abs=1e-6)
        assert bool(verdicts.fooled[i]) is (cosines[1] > cosines[0])
        assert verdicts.predicted[i] == verdicts.classes[int(np.argmax(cosines))]


def test_a_second_opinion_wants_the_true_class_above_nothing_and_the_target_one():
    clip, pictures = tiny_vit(), noise(4)
    words = ["zebra", "whale", "a red car", "x", "y", "seven", "no", "ox", "tea"]
    neutral, found = ("plain", "dull"), set()
    for true, fooled in itertools.permutations(words, 2):
        opinion = SecondOpinion(clip, true, fooled, neutral)
        texts = {
            name: sum(clip.encode_text([t.replace("{}", name)])[0] for t in CLASS_TEMPLATES)
            for name in (true, fooled)
        } | {name: clip.encode_text([name])[0] for name in neutral}
        expected = []
        for picture in pictures:
            image = clip.encode_image(clip.preprocess(picture)[None])[0]
            cosine = {name: float(image @ t / t.norm()) for name, t in texts.items()}
            if cosine[true] <= max(cosine[n] for n in neutral):
                expected.append(MISSING)
            else:
                expected.append(TARGET_SHOWN if cosine[fooled] > cosine[true] else PRESENT)
        assert opinion(pictures) == expected
        found |= set(expected)
    assert found == {MISSING, TARGET_SHOWN, PRESENT}


def test_near_copies_are_recognised_and_others_are_not():
    duplicates = Duplicates()
    first, second = (p.resize((64, 64), Image.Resampling.BICUBIC) for p in noise(2, size=8))
    assert not duplicates.seen(first)
    assert not duplicates.seen(second)
    brighter = Image.fromarray((np.asarray(first, float) * 0.98).astype(np.uint8))
    assert duplicates.seen(brighter)
    assert duplicates.seen(first.resize((48, 48)))
    # Flat pictures have the same hash whatever their colour.
    assert not duplicates.seen(Image.new("RGB", (64, 64), "red"))
    assert not duplicates.seen(Image.new("RGB", (64, 64), "blue"))
    assert duplicates.seen(Image.new("RGB", (64, 64), "blue"))


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_the_maps_add_up_to_what_the_neurons_write(make):
    clip = make()
    lens = Lens(clip, [0, 2] if clip.kind == "vit" else [])
    pictures = noise(3, size=clip.image_size[0])
    difference = torch.randn(clip.embed_dim, generator=torch.Generator().manual_seed(0))
    maps = mistake_maps(lens, pictures, difference)
    assert maps.shape == (3, *clip.grid)
    batch = torch.stack([clip.preprocess(picture) for picture in pictures])
    _, contributions = lens(batch)
    for i in range(3):
        whole = sum(float(c.sum()[i] @ difference) for c in contributions.values())
        class_token = sum(
            float(
                torch.einsum(
                    "k,n,nkd,d->", c.weights[i, :, 0], c.activations[i, 0],
                    _directions(c), difference,
                )
            )
            for c in contributions.values()
        )  # fmt: skip
        assert float(maps[i].sum()) + class_token == pytest.approx(whole, rel=1e-3, abs=1e-4)


def _directions(contributions):
    directions = contributions.directions
    return getattr(directions, "whole", directions).dense()
