"""Images of any shape and any list of words: right maps, or a clear message."""

from itertools import pairwise

import pytest
import torch
from PIL import Image

from clipneurons.images.windows import window_starts
from clipneurons.models.preprocess import normalise, whole
from clipneurons.segmentation import sliding_window
from clipneurons.segmentation.masks import min_max
from clipneurons.segmentation.patch_attribution import patch_attribution
from clipneurons.segmentation.segment import BACKGROUND, contrasted, segment
from clipneurons.segmentation.sliding_window import canvas_size, map_in_windows
from clipneurons.text.embedding import embed_texts
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.models import images, in_precision, tiny_resnet, tiny_vit


@pytest.fixture(scope="module")
def clip():
    return tiny_vit()


def picture(width=40, height=28, seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(data.numpy())


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_the_same_maps(make, dtype):
    clip, halved = make(), in_precision(make(), dtype)
    texts, batch = embed_texts(clip, ["a cat", "a dog"]), images(2, clip)
    maps = patch_attribution(halved)(batch, texts)
    assert maps.dtype == torch.float32
    assert relative(maps, patch_attribution(clip)(batch, texts)) < 0.05


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_segment_puts_the_parts_together(make):
    clip = make()
    image, names = picture(), ["a cat", " a  dog ", "a cat"]
    result = segment(clip, image, names, templates="none", contrast=False)
    assert result.names == ("a cat", "a dog"), "each once"
    texts = embed_texts(clip, ["a cat", "a dog"])
    maps = patch_attribution(clip)(whole(clip, image), texts)
    expected = torch.nn.functional.interpolate(maps, (28, 40), mode="bilinear", antialias=True)
    torch.testing.assert_close(result.scores, expected[0])
    torch.testing.assert_close(result.heat, min_max(result.scores))
    assert torch.equal(result.mask(1), result.heat[1] > result.threshold)
    assert torch.equal(result.mask(0, 0.7), result.heat[0] > 0.7)
    assert set(result.labels(none=0.5).unique().tolist()) <= {-1, 0, 1}


def test_contrast_is_against_the_others_and_the_names(clip):
    seen = []

    def spy(batch, texts):
        seen.append(texts)
        return torch.zeros(len(batch), len(texts), *clip.grid)

    segment(clip, picture(), ["cat", "dog"], maps=spy)
    names = embed_texts(clip, ["cat", "dog"], "photo")
    others = embed_texts(clip, list(BACKGROUND), "photo")
    mean = (names.sum(0) + others.sum(0)) / (2 + len(BACKGROUND))
    torch.testing.assert_close(seen[0], names - mean)
    segment(clip, picture(), ["cat"], maps=spy, others=others[:1])
    torch.testing.assert_close(seen[1], names[:1] - (names[0] + others[0]) / 2)
    segment(clip, picture(), ["cat"], maps=spy, contrast=False)
    torch.testing.assert_close(seen[2], names[:1])
    torch.testing.assert_close(contrasted(names, names).sum(0), torch.zeros(12), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "at least one"), (["cat", " "], "name 2 is empty"),
     ([str(i) for i in range(1001)], "at most 1,000"), (["a"] * 100_000, "at most 1,000"),
     (["cat", "x" * 100_000], "at most 300 letters")],
)  # fmt: skip
def test_names_that_make_no_sense(clip, names, message):
    with pytest.raises(ValueError, match=message):
        segment(clip, picture(), names)


def test_hundreds_of_labels(clip):
    names = [f"thing {i}" for i in range(300)]
    result = segment(clip, picture(600, 400), names)
    assert result.scores.numel() <= 2**26
    assert result.mask(299).shape == (400, 600)
    assert 0 <= result.labels(0).max() < 300


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (10, 20000), (3, 1)])
@pytest.mark.parametrize("scale", [None, 2.0])
def test_images_of_any_shape(clip, size, scale):
    image = Image.new("RGB", size, (200, 30, 60))
    result = segment(clip, image, ["cat"], scale=scale)
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
    places = window_starts(length, 32, overlap)
    covered = {i for place in places for i in range(place, place + 32)}
    assert covered >= set(range(length))
    if length > 32:
        assert max(covered) == length - 1
        assert max(b - a for a, b in pairwise(places)) <= 32 * (1 - overlap)
    with pytest.raises(ValueError, match="overlap"):
        window_starts(64, 32, overlap=1.0)


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
