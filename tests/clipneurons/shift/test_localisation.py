import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import token_effects_of
from clipneurons.models.preprocess import whole
from clipneurons.shift.comparison import EmbeddedTextPool
from clipneurons.shift.localisation import (
    changed_boxes,
    crop,
    difference,
    examples,
    localise_change,
    where,
)
from clipneurons.shift.places import by_place
from tests.helpers.models import images, tiny_resnet, tiny_vit

TOWERS = {"vit": tiny_vit(), "resnet": tiny_resnet()}


@pytest.fixture(params=TOWERS)
def clip(request):
    return TOWERS[request.param]


def pool(clip, count=12):
    rows = torch.randn(count, clip.embed_dim, generator=torch.Generator().manual_seed(3))
    return EmbeddedTextPool(tuple(f"text {i}" for i in range(count)), F.normalize(rows, dim=-1))


def noise(count, seed, side=64):
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 256, (side, side, 3)).astype(np.uint8))
        for _ in range(count)
    ]


def effects_with_a_change(rows, columns, size=8, strength=5.0):
    """Noise [image, row, column, embed] on both sides, the second changed at some places."""
    generator = torch.Generator().manual_seed(0)
    reference, new = torch.randn(2, 20, size, size, 6, generator=generator)
    new[:, rows, columns, 0] += strength
    return reference, new


def test_boxes_are_squares_around_the_changed_places():
    boxes = changed_boxes(*effects_with_a_change(slice(5, 7), slice(4, 7)))
    assert boxes
    for left, top, right, bottom in boxes:
        assert right - left == pytest.approx(bottom - top)
        assert left <= 4 / 8
        assert top <= 5 / 8
        assert right >= 7 / 8
        assert bottom >= 7 / 8
        assert min(left, top) >= 0
        assert max(right, bottom) <= 1 + 1e-9
    assert boxes[0] == pytest.approx((3.5 / 8, 4.0 / 8, 7.5 / 8, 8 / 8))


def test_the_difference_of_a_place_is_the_loop_over_images():
    reference, new = effects_with_a_change(slice(2, 3), slice(1, 2), size=4)
    ratio = np.zeros((4, 4))
    for row, column in itertools.product(range(4), range(4)):
        before, after = (side[:, row, column].double().numpy() for side in (reference, new))
        change = ((after.mean(0) - before.mean(0)) ** 2).sum()
        ratio[row, column] = change / sum(
            side.var(0, ddof=1).sum() / len(side) for side in (before, after)
        )
    assert np.unravel_index(ratio.argmax(), ratio.shape) == (2, 1)
    rest = np.delete(ratio.flatten(), 2 * 4 + 1)
    assert rest.max() < 0.25 * ratio.max(), "nothing else belongs to the place"
    assert changed_boxes(reference, new)[0] == pytest.approx((0.5 / 4, 1.5 / 4, 2.5 / 4, 3.5 / 4))


def test_a_change_of_everything_has_no_place(clip):
    assert changed_boxes(*effects_with_a_change(slice(0, 8), slice(0, 8))) == []
    dark = [Image.new("RGB", (64, 64), (value, 0, 0)) for value in range(8)]
    light = [Image.new("RGB", (64, 64), (255, 255 - value, 255)) for value in range(8)]
    place = localise_change(clip, dark, light, pool(clip))
    assert place is None or place.box[2] - place.box[0] < 0.8


def test_effects_of_places_add_up_to_those_of_the_tokens(clip):
    batch = images(2, clip)
    found = by_place(token_effects_of(clip)(batch)[:, clip.prefix :], clip.grid)
    rows, columns = found.shape[1:3]
    assert (rows, columns) == clip.grid
    if clip.kind == "resnet":  # whose pairs write all but the bias
        lens = Lens(clip)
        representation, contributions = lens(batch)
        mine = contributions[4]
        by_neuron = lens.method.neurons.inner, lens.method.neurons.outer
        mean_token = sum(
            mine.weights[:, h, :1] * (mine.activations[:, 0] @ by_neuron[0][h] @ by_neuron[1][h])
            for h in range(clip.heads)
        )
        scale = 100 / representation.norm(dim=-1, keepdim=True)
        total = found.sum((1, 2)) + mean_token + scale * lens.method.bias
        torch.testing.assert_close(total, scale * representation, rtol=1e-4, atol=1e-3)


def test_the_texts_are_those_of_the_crops(clip):
    reference, new = noise(12, 0), noise(12, 1)
    for image in new:
        image.paste("red", (40, 40, 64, 64))
    texts = pool(clip)
    place = localise_change(clip, reference, new, texts)
    assert where(place.box) == "lower right"
    means = []
    for side in (reference, new):
        rows = [clip.encode_image(whole(clip, crop(image, place.box)))[0] for image in side]
        means.append(torch.stack([row / row.norm() for row in rows]).mean(0))
    scores = 100 * texts.centred @ (means[1] - means[0])
    best = int(scores.argmax())
    word, score = place.texts.top(1)[0]
    assert word == texts.texts[best]
    assert score == pytest.approx(scores[best].item(), abs=1e-3)


def test_crops_and_examples():
    image = Image.new("RGB", (200, 100))
    assert crop(image, (0.5, 0.25, 1.0, 0.75)).size == (100, 50)
    assert crop(Image.new("RGB", (1, 1)), (0.4, 0.4, 0.6, 0.6)).size == (1, 1)
    assert examples(100, 4) == [0, 25, 50, 75]
    assert examples(3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0.0, 0.0, 0.3, 0.3), "upper left"),
        ((0.6, 0.6, 1.0, 1.0), "lower right"),
        ((0.3, 0.3, 0.7, 0.7), "middle"),
        ((0.3, 0.7, 0.7, 1.0), "lower"),
    ],
)
def test_places_have_names(box, words):
    assert where(box) == words


def test_too_few_images_are_refused(clip):
    with pytest.raises(ValueError, match="at least two images a side, not 1 and 3"):
        localise_change(clip, noise(1, 0), noise(3, 1), pool(clip))


def test_where_nothing_differs_there_is_no_place(clip):
    same = noise(1, 0) * 6
    assert localise_change(clip, same, same, pool(clip)) is None


def test_a_difference_is_counted_in_what_chance_gives():
    reference, new = torch.randn(2, 400, 3, 5, generator=torch.Generator().manual_seed(0))
    assert ((difference(reference, new) > 0.2) & (difference(reference, new) < 3)).all()
    assert (difference(reference, new + 1) > 100).all()
    assert difference(torch.ones(4, 5), torch.ones(4, 5)) == 0
    rounded = torch.ones(4, 5) + 1e-7 * torch.randn(4, 5)
    assert difference(torch.ones(4, 5), rounded) == 0
    assert difference(torch.ones(4, 5), 2 * torch.ones(4, 5)) > 1e6, "the same on every image"
