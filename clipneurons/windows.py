"""Images of any shape, made into what a tower reads: whole, or in windows at a finer scale."""

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.masks import upsample
from clipneurons.pictures import to_rgb
from clipneurons.towers import Tower

# Longer than this many times its width, an image is squeezed rather than cut.
_LONGEST = 4.0
_BATCH = 16

MapMaker = Callable[[Tensor], Tensor]


def pixels(image: Image.Image, size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    """The whole image, stretched to ``(height, width)``, with values in 0..1."""
    resized = to_rgb(image).resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=3.0)
    data = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    return data.reshape(*size, 3).permute(2, 0, 1).float() / 255


def normalise(
    tower: Tower, values: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image 3 height width"]:
    """Values in 0..1 as the tower was trained to see them."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (tower.image_mean, tower.image_std))
    return (values - mean) / std


def whole(tower: Tower, image: Image.Image) -> Float[Tensor, "1 3 height width"]:
    """The whole image in the tower's size, stretched if it is not of that shape.

    Unlike ``tower.preprocess`` nothing is cropped, so that every pixel gets a value; the
    evaluations of Chefer et al. and its successors stretch likewise.
    """
    return normalise(tower, pixels(image, tower.image_size)[None])


def canvas_size(size: tuple[int, int], window: tuple[int, int], scale: float) -> tuple[int, int]:
    """Size at which an image ``(height, width)`` is cut: its shorter side is ``scale`` windows."""
    height, width = size
    shape = (height / min(size), width / min(size))
    return tuple(
        max(w, round(w * scale * min(side, _LONGEST)))
        for w, side in zip(window, shape, strict=True)
    )


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin so that they cover a length evenly with at least that overlap."""
    if not 0 <= overlap < 1:
        raise ValueError(f"expected an overlap of 0 to below 1, not {overlap}")
    if length <= window:
        return [0]
    steps = ceil((length - window) / (window * (1 - overlap)))
    return [round(i * (length - window) / steps) for i in range(steps + 1)]


def map_in_windows(
    make_maps: MapMaker,
    tower: Tower,
    image: Image.Image,
    scale: float = 2.0,
    overlap: float = 0.5,
) -> Float[Tensor, "class height width"]:
    """Maps of the windows of an enlarged image, averaged where they overlap.

    ``make_maps`` takes normalised images and gives maps ``[image, class, row, column]``.
    """
    window = tower.image_size
    size = canvas_size(image.size[::-1], window, scale)
    canvas = normalise(tower, pixels(image, size)[None])[0]
    places = [
        (top, left)
        for top in starts(size[0], window[0], overlap)
        for left in starts(size[1], window[1], overlap)
    ]
    total, seen = None, torch.zeros(size)
    for first in range(0, len(places), _BATCH):
        batch = places[first : first + _BATCH]
        cut = [canvas[:, y : y + window[0], x : x + window[1]] for y, x in batch]
        maps = upsample(make_maps(torch.stack(cut)).cpu(), window)
        if total is None:
            total = torch.zeros(maps.shape[1], *size)
        for (y, x), mine in zip(batch, maps, strict=True):
            total[:, y : y + window[0], x : x + window[1]] += mine
            seen[y : y + window[0], x : x + window[1]] += 1
    return total / seen


def resize(
    maps: Float[Tensor, "class row column"], size: tuple[int, int]
) -> Float[Tensor, "class height width"]:
    """Maps at another size, averaged when shrinking."""
    return F.interpolate(maps[None], size, mode="bilinear", antialias=True)[0]
