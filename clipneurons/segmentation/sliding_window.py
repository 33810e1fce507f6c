"""Images of any shape, made into what a model reads: whole, or in windows at a finer scale."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.images.windows import window_starts
from clipneurons.models.clip import ClipModel
from clipneurons.models.preprocess import normalise, pixels
from clipneurons.segmentation.masks import upsample

# Longer than this many times its width, an image is squeezed rather than cut.
_LONGEST = 4.0
_BATCH = 16


def canvas_size(size: tuple[int, int], window: tuple[int, int], scale: float) -> tuple[int, int]:
    """Size at which an image ``(height, width)`` is cut: its shorter side is ``scale`` windows."""
    height, width = size
    shape = (height / min(size), width / min(size))
    return tuple(
        max(w, round(w * scale * min(side, _LONGEST)))
        for w, side in zip(window, shape, strict=True)
    )


def window_places(
    clip: ClipModel, image: Image.Image, scale: float, overlap: float = 0.5
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Size of the enlarged image, and the windows' (top, left) in it."""
    window = clip.image_size
    size = canvas_size(image.size[::-1], window, scale)
    places = [
        (top, left)
        for top in window_starts(size[0], window[0], overlap)
        for left in window_starts(size[1], window[1], overlap)
    ]
    return size, places


def cut_windows(
    clip: ClipModel, image: Image.Image, scale: float, overlap: float = 0.5
) -> Float[Tensor, "window 3 height width"]:
    """The windows of an enlarged image, as the model reads them."""
    height, width = clip.image_size
    size, places = window_places(clip, image, scale, overlap)
    canvas = normalise(clip, pixels(image, size)[None])[0]
    return torch.stack([canvas[:, y : y + height, x : x + width] for y, x in places])


def map_in_windows(
    make_maps: Callable[[Tensor], Tensor],
    clip: ClipModel,
    image: Image.Image,
    scale: float = 2.0,
    overlap: float = 0.5,
) -> Float[Tensor, "class height width"]:
    """Maps of the windows of an enlarged image, averaged where they overlap.

    ``make_maps`` takes normalised images and gives maps ``[image, class, row, column]``.
    """
    window = clip.image_size
    size, places = window_places(clip, image, scale, overlap)
    cut = cut_windows(clip, image, scale, overlap)
    total, seen = None, torch.zeros(size)
    for first in range(0, len(places), _BATCH):
        batch = places[first : first + _BATCH]
        maps = upsample(make_maps(cut[first : first + _BATCH]).cpu(), window)
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
