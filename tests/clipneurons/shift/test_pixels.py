"""Low-level properties of images, against float64 loops and known changes."""

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter

from clipneurons.shift.comparison import EmbeddedTextPool, compare
from clipneurons.shift.pixels import MEASURES, measure_pixels
from clipneurons.shift.profile import Profile
from clipneurons.shift.report import changed_pixels


def photograph(seed, width=64, height=64):
    """A few coloured shapes on a gradient, with a little grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / max(width, height)
    pixels = np.stack([120 + 60 * rows, 100 + 80 * columns, 140 - 50 * rows], -1)
    for _ in range(6):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        bottom, right = top + rng.integers(8, 24), left + rng.integers(8, 24)
        pixels[top:bottom, left:right] = rng.integers(0, 256, 3)
    pixels += rng.normal(0, rng.uniform(0, 8), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image, quality=25):
    with BytesIO() as file:
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")


def grain(image):
    pixels = np.asarray(image, float)
    noise = np.random.default_rng(0).normal(0, 10, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


CHANGES = {
    "brightness lower": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "contrast lower": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "saturation lower": lambda image: image.convert("L").convert("RGB"),
    "blur higher": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "noise higher": grain,
    "JPEG blockiness higher": jpeg,
    "image size lower": lambda image: image.resize((48, 48)),
    "aspect ratio higher": lambda image: image.crop((0, 8, 64, 56)).resize((73, 56)),
}


def differences(reference, new):
    rows = [torch.stack([measure_pixels(image) for image in side]) for side in (reference, new)]
    sides = [Profile(torch.ones(len(r), 4), torch.ones(len(r), 3), torch.ones(len(r), 1, 0, 2), r)
             for r in rows]  # fmt: skip
    shift = compare(*sides, EmbeddedTextPool(("a", "b"), torch.eye(4)[:2]), 199)
    return shift.p, changed_pixels(shift, 0.05)


@pytest.mark.parametrize("name", CHANGES)
def test_a_low_level_change_is_named(name):
    images = [photograph(seed) for seed in range(60)]
    p, changes = differences(images[:30], [CHANGES[name](image) for image in images[30:]])
    assert p <= 0.05
    named = {f"{change['measure']} {change['direction']}": change for change in changes}
    assert abs(named[name]["change"]) > 0.5
    assert named[name]["q"] <= 0.05
    sizes = [abs(change["change"]) for change in changes]
    assert sizes == sorted(sizes, reverse=True)


def test_grey_images_differ_in_saturation_first():
    images = [photograph(seed) for seed in range(60)]
    grey = [image.convert("L").convert("RGB") for image in images[30:]]
    _, (first, *_) = differences(images[:30], grey)
    assert (first["measure"], first["direction"]) == ("saturation", "lower")


def test_without_a_change_none_is_named_more_often_than_the_level():
    found = 0
    for run in range(20):
        images = [photograph(100 * run + number, 24, 24) for number in range(24)]
        p, changes = differences(images[:12], images[12:])
        found += bool(changes) and p <= 0.05
    assert found <= 4  # more than 4 of 20 at 0.05: once in 390


def test_measures_are_the_loops_of_their_definitions():
    image = photograph(3, 24, 19)
    pixels = [[[value / 255 for value in pixel] for pixel in row] for row in np.asarray(image)]
    light = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in pixels]
    values = [value for row in light for value in row]
    mean = sum(values) / len(values)
    steps = {
        step: [abs(row[x + step] - row[x]) for row in light for x in range(24 - step)]
        + [abs(light[y + step][x] - light[y][x]) for y in range(19 - step) for x in range(24)]
        for step in (1, 4)
    }
    mask = [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]
    responses = [
        abs(sum(mask[i][j] * light[y + i][x + j] for i in range(3) for j in range(3)))
        for y in range(17) for x in range(22)
    ]  # fmt: skip
    across = [sum(abs(row[x] - row[x - 1]) for row in light) / 19 for x in range(1, 24)]
    down = [sum(abs(light[y][x] - light[y - 1][x]) for x in range(24)) / 24 for y in range(1, 19)]
    lines = [(at % 8 == 0, step) for part in (across, down) for at, step in enumerate(part, 1)]
    border, inside = (np.median([s for b, s in lines if b == kind]) for kind in (True, False))
    expected = {
        "brightness": mean,
        "contrast": math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)),
        "saturation": sum(max(p) - min(p) for row in pixels for p in row)
        / sum(max(p) for row in pixels for p in row),
        "blur": 1 - np.percentile(steps[1], 98) / np.percentile(steps[4], 98),
        "noise": np.median(responses) / (6 * 0.6745),
        "JPEG blockiness": math.log((border + 1 / 255) / (inside + 1 / 255)),
        "image size": math.log2(math.sqrt(24 * 19)),
        "aspect ratio": math.log2(24 / 19),
    }
    assert tuple(expected) == MEASURES
    assert measure_pixels(image).tolist() == pytest.approx(list(expected.values()), rel=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (9, 9), (1300, 40)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_any_image_has_finite_properties(size, mode):
    values = measure_pixels(Image.new(mode, size))
    assert values.isfinite().all()
    assert len(values) == len(MEASURES)
