"""Local concepts against loops over units, and pictures of heat maps."""

import pytest
import torch
from PIL import Image

from clipneurons.concepts.patch_concepts import patch_at, patch_concepts
from clipneurons.images.heatmap import heat_colours, mask_image, overlay, png
from clipneurons.lens.lens import Lens
from tests.helpers.models import images, tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module")
def reading():
    clip = tiny_vit(embed_dim=24, width=16)
    return clip, tiny_bundle(neurons=clip.neurons, embed=24, clip=clip)


@pytest.mark.parametrize(
    ("point", "patch"), [((0, 0), 0), ((99, 49), 15), ((50, 0), 2), ((0, 12), 0), ((0, 13), 4)]
)
def test_patch_at(point, patch):
    assert patch_at(point, (100, 50), (4, 4)) == patch
    assert patch_at((-5, 900), (100, 50), (4, 4)) == 12, "a click on the border"


def test_local_concepts_against_loops(reading):
    clip, bundle = reading
    _, contributions = Lens(clip, bundle.config.layers)(images(1, clip))
    found = patch_concepts(bundle, contributions, [5, 6], count=4)
    weights, strengths = dict.fromkeys(bundle.texts, 0.0), []
    for layer, arrays in bundle.layers.items():
        mine = contributions[layer]
        for unit in range(len(arrays.directions)):
            effect = mine.directions.dense(torch.tensor([unit]))[0]  # [pair, embed]

            def at(patch, unit=unit, effect=effect, mine=mine, r=arrays.directions[unit]):
                score = mine.weights[0, :, patch + 1] * mine.activations[0, patch + 1, unit]
                return float(score @ effect @ r)

            here = at(5) + at(6)
            strength = here - 2 * sum(at(p) for p in range(16)) / 16
            strengths.append((abs(strength), layer, unit, strength))
            for phrase, coefficient in bundle.phrases(layer, unit):
                weights[phrase] += coefficient * strength
    top = sorted(strengths, reverse=True)[:4]
    assert [(u.layer, u.unit) for u in found.units] == [(layer, unit) for _, layer, unit, _ in top]
    for unit, (_, _, _, strength) in zip(found.units, top, strict=True):
        assert unit.strength == pytest.approx(strength, rel=1e-3, abs=1e-5)
    best = sorted(weights.items(), key=lambda item: -item[1])[: len(found.phrases)]
    assert [phrase for phrase, _ in found.phrases] == [phrase for phrase, _ in best]
    for (_, weight), (_, expected) in zip(found.phrases, best, strict=True):
        assert weight == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_the_whole_image_says_nothing_against_itself(reading):
    clip, bundle = reading
    _, contributions = Lens(clip, bundle.config.layers)(images(1, clip))
    found = patch_concepts(bundle, contributions, range(16))
    assert all(abs(unit.strength) < 1e-4 for unit in found.units)


def test_pictures():
    heat = torch.linspace(0, 1, 12).reshape(3, 4)
    lightness = heat_colours(heat).astype(float) @ [0.3, 0.6, 0.1]
    assert (lightness.ravel()[1:] > lightness.ravel()[:-1]).all()
    image = Image.new("RGB", (20, 10), (10, 200, 30))
    assert overlay(image, heat, 0).tobytes() == image.tobytes()
    assert overlay(image, heat, 1).getpixel((0, 0)) == tuple(heat_colours(heat)[0, 0])
    with pytest.raises(ValueError, match="opacity"):
        overlay(image, heat, 1.5)
    mask = mask_image(heat > 0.5)
    assert mask.size == (4, 3)
    assert set(mask.tobytes()) == {0, 255}
    assert png(mask).startswith(b"\x89PNG")
