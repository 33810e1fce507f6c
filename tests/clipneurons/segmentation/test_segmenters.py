"""Images of any shape and any list of words: right maps, or a clear message."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from PIL import Image

from clipneurons.lens.make import make_lens
from clipneurons.lens.neuron_head import NeuronHeadLens
from clipneurons.models.preprocess import normalise, whole
from clipneurons.segmentation import sliding_window
from clipneurons.segmentation.masks import min_max
from clipneurons.segmentation.methods import (
    BEST,
    CLASS_AGNOSTIC,
    PAIRS,
    PAPER,
    RESNET,
    method_names,
)
from clipneurons.segmentation.resnet import pair_maps
from clipneurons.segmentation.segmenters import (
    BACKGROUND,
    Segmenter,
    attribution_maps,
    contrasted,
    segment,
    segmenters,
)
from clipneurons.segmentation.sliding_window import canvas_size, map_in_windows, starts
from clipneurons.text.embedding import embed_texts
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.models import images, in_precision, tiny_resnet, tiny_vit


@pytest.fixture(scope="module")
def clip():
    return tiny_vit()


@pytest.fixture(scope="module")
def directions(clip):
    generator = torch.Generator().manual_seed(0)
    return {
        layer: torch.nn.functional.normalize(
            torch.randn(clip.neurons, clip.embed_dim, generator=generator), dim=-1
        )
        for layer in (0, 1, 2)
    }


def picture(width=40, height=28, seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(data.numpy())


def test_every_method_under_one_interface(clip, directions):
    found = segmenters(clip, directions)
    assert sorted(found) == sorted(method_names("vit"))
    assert set(CLASS_AGNOSTIC) < set(found)
    texts = embed_texts(clip, ["a cat", "a dog"])
    for name, method in found.items():
        assert method.name == name
        maps = method.make(images(2, clip), texts)
        assert maps.shape == (2, 2, *(clip.image_size if name == BEST else clip.grid))
        same = torch.equal(maps[:, 0], maps[:, 1])
        assert same == (name in CLASS_AGNOSTIC), name
    assert PAPER not in segmenters(clip), "needs a bundle's directions"


def test_every_method_of_a_resnet_under_the_same_interface():
    clip = tiny_resnet()
    units = clip.neurons * clip.heads
    rows = torch.nn.functional.normalize(torch.randn(units, clip.embed_dim), dim=-1)
    texts = embed_texts(clip, ["a cat"])
    found = segmenters(clip, {4: rows})
    assert sorted(found) == sorted(method_names("resnet"))
    assert method_names("resnet")[0] == BEST
    for name, method in found.items():
        assert method.name == name
        size = clip.image_size if name == BEST else clip.grid
        assert method.make(images(1, clip), texts).shape == (1, 1, *size)
    for name in RESNET:
        result = segment(clip, picture(50, 30), ["a cat", "a dog"], found[name])
        assert result.scores.shape == (2, 30, 50)
        assert 0 <= float(result.heat.min()) <= float(result.heat.max()) <= 1
    # What the paper's method is made of, from the library's own functions.
    pairs = found[PAIRS].make(images(1, clip), texts)
    torch.testing.assert_close(pairs, pair_maps(NeuronHeadLens(clip), images(1, clip), texts))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_half_precision_gives_the_same_maps_or_is_refused(make, dtype):
    clip, halved = make(), in_precision(make(), dtype)
    texts, batch = embed_texts(clip, ["a cat", "a dog"]), images(2, clip)
    texts = torch.cat([texts, -texts])  # GradCAM keeps what speaks for a text
    expected = segmenters(clip)
    for name, method in segmenters(halved).items():
        relevance = name in ("LRP", "Partial-LRP", "Chefer 2021")
        if dtype == torch.float16 and relevance:
            with pytest.raises(ValueError, match="fp32 or bf16"):
                method.make(batch, texts)
            continue
        maps, whole = method.make(batch, texts), expected[name].make(batch, texts)
        assert maps.dtype == torch.float32
        assert maps.isfinite().all()
        # Quotients of small sums say little in eight bits.
        assert relevance or relative(maps, whole) < 0.05, name


def test_attribution_maps_on_a_resnet_are_its_attention():
    """So that they are offered once, under the baseline's name."""
    clip = tiny_resnet()
    texts, batch = embed_texts(clip, ["a cat", "a dog"]), images(2, clip)
    shared = attribution_maps(make_lens(clip), batch, texts)
    torch.testing.assert_close(shared, segmenters(clip)["attention"].make(batch, texts))


def test_segment_puts_the_parts_together(clip):
    method = segmenters(clip)["MaskCLIP"]
    image, names = picture(), ["a cat", " a  dog "]
    result = segment(clip, image, names, method, templates="none")
    assert result.names == ("a cat", "a dog")
    maps = method.make(whole(clip, image), embed_texts(clip, ["a cat", "a dog"]))
    expected = torch.nn.functional.interpolate(maps, (28, 40), mode="bilinear", antialias=True)
    torch.testing.assert_close(result.scores, expected[0])
    torch.testing.assert_close(result.heat, min_max(result.scores))
    assert torch.equal(result.mask(1), result.heat[1] > result.heat[1].mean())
    assert torch.equal(result.mask(0, 0.7), result.heat[0] > 0.7)
    labels = result.labels(none=0.5)
    assert labels.unique().tolist() == [-1, 0, 1] or labels.max() <= 1
    refined = segment(clip, image, names, method, templates="none", refine=True)
    assert refined.scores.shape == result.scores.shape
    assert not torch.equal(refined.scores, result.scores)


def test_contrast_is_against_the_others_and_the_names(clip):
    seen = []

    def spy(batch, texts):
        seen.append(texts)
        return torch.zeros(len(batch), len(texts), *clip.grid)

    segment(clip, picture(), ["cat", "dog"], Segmenter("spy", spy, contrast=True))
    names = embed_texts(clip, ["cat", "dog"], "photo")
    others = embed_texts(clip, list(BACKGROUND), "photo")
    mean = (names.sum(0) + others.sum(0)) / (2 + len(BACKGROUND))
    torch.testing.assert_close(seen[0], names - mean)
    segment(clip, picture(), ["cat"], Segmenter("spy", spy, contrast=True), others=others[:1])
    torch.testing.assert_close(seen[1], names[:1] - (names[0] + others[0]) / 2)
    segment(clip, picture(), ["cat"], Segmenter("spy", spy))
    torch.testing.assert_close(seen[2], names[:1])
    torch.testing.assert_close(contrasted(names, names).sum(0), torch.zeros(12), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "at least one"), (["cat", " "], "name 2 is empty"), (["cat", "a", "cat "], "'cat' is"),
     ([str(i) for i in range(1001)], "at most 1000")],
)  # fmt: skip
def test_names_that_make_no_sense(clip, names, message):
    with pytest.raises(ValueError, match=message):
        segment(clip, picture(), names, segmenters(clip)["MaskCLIP"])


def test_hundreds_of_labels(clip):
    names = [f"thing {i}" for i in range(300)]
    result = segment(clip, picture(600, 400), names, segmenters(clip)["MaskCLIP"])
    assert result.scores.numel() <= 2**26
    assert result.mask(299).shape == (400, 600)
    assert 0 <= result.labels(0).max() < 300


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (10, 20000), (3, 1)])
@pytest.mark.parametrize("scale", [None, 2.0])
def test_images_of_any_shape(clip, size, scale):
    image = Image.new("RGB", size, (200, 30, 60))
    result = segment(clip, image, ["cat"], segmenters(clip)["MaskCLIP"], scale=scale, refine=True)
    assert result.mask().shape == size[::-1]
    assert max(result.scores.shape[1:]) <= 512
    assert result.scores.isfinite().all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L", "CMYK", "I;16", "I", "F"])
def test_images_of_any_mode(clip, mode):
    image = Image.new(mode, (9, 7))
    assert whole(clip, image).shape == (1, 3, *clip.image_size)


def test_whole_is_the_towers_own_preprocessing_for_a_square_of_its_size(clip):
    image = picture(32, 32)
    torch.testing.assert_close(whole(clip, image)[0], clip.preprocess(image))


@pytest.mark.parametrize(("length", "overlap"), [(64, 0.5), (65, 0.0), (200, 0.5), (31, 0.5)])
def test_windows_cover_everything(length, overlap):
    places = starts(length, 32, overlap)
    covered = {i for place in places for i in range(place, place + 32)}
    assert covered >= set(range(length))
    if length > 32:
        assert max(covered) == length - 1
        assert max(b - a for a, b in pairwise(places)) <= 32 * (1 - overlap)
    with pytest.raises(ValueError, match="overlap"):
        starts(64, 32, 1.0)


def test_canvas_keeps_the_shape_within_bounds():
    assert canvas_size((100, 100), (32, 32), 2) == (64, 64)
    assert canvas_size((100, 200), (32, 32), 2) == (64, 128)
    assert canvas_size((10, 20000), (32, 32), 2) == (64, 256)
    assert canvas_size((1, 1), (32, 32), 0.5) == (32, 32)


def test_windows_average_what_they_see(clip, monkeypatch):
    """A map maker that returns the image's brightness gives back the enlarged image."""
    monkeypatch.setattr(sliding_window, "_BATCH", 3)

    def brightness(batch):
        return torch.nn.functional.avg_pool2d(batch.mean(1, keepdim=True), 8)

    image = picture(40, 40)
    found = map_in_windows(brightness, clip, image, scale=2.0)
    canvas = normalise(clip, sliding_window.pixels(image, (64, 64))[None])
    total, seen = torch.zeros(64, 64), torch.zeros(64, 64)
    for top in (0, 16, 32):
        for left in (0, 16, 32):
            window = canvas[:, :, top : top + 32, left : left + 32]
            part = torch.nn.functional.interpolate(brightness(window), (32, 32), mode="bilinear")
            total[top : top + 32, left : left + 32] += part[0, 0]
            seen[top : top + 32, left : left + 32] += 1
    torch.testing.assert_close(found[0], total / seen)


def test_what_there_is_to_choose_is_set_in_every_combination():
    def make(images, texts, power, sharpness):
        return images.new_tensor([power, sharpness])

    plain = Segmenter("m", make, contrast=True, threshold=0.4)
    offered = replace(plain, choices={"power": (1.0, 0.0), "sharpness": (5.0, 14.0)})
    found = offered.variants()
    values = [tuple(one.make(torch.zeros(1), torch.zeros(1)).tolist()) for one in found]
    assert values == [(1, 5), (1, 14), (0, 5), (0, 14)]
    assert [tuple(one.chosen.values()) for one in found] == values
    assert {(one.name, one.contrast, one.threshold) for one in found} == {("m", True, 0.4)}
    (same,) = Segmenter("m", lambda images, texts: images).variants()
    assert same.chosen == {}
    assert same.make(torch.ones(2), torch.zeros(1)).tolist() == [1, 1]
