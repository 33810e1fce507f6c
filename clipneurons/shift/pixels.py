"""Low-level properties of images, measured on their pixels.

A change of the camera or the pipeline (darker, grey, blurred, compressed, of another size) has no
text of its own: its nearest texts are misleading. It is measured here and named directly.

For an image with channels R, G, B in [0, 1] and luma Y = 0.299 R + 0.587 G + 0.114 B:

    brightness       mean Y
    contrast         standard deviation of Y
    saturation       Σ (max(R, G, B) - min(R, G, B)) / Σ max(R, G, B)
    blur             1 - q(|Y(x+1) - Y(x)|) / q(|Y(x+4) - Y(x)|), q the 98th percentile
    noise            median |Y * M| / (6 · 0.6745), M = [1 -2 1; -2 4 -2; 1 -2 1] (Immerkær, 1996)
    JPEG blockiness  log (b / i), b and i the median over lines x of the mean |Y(x+1) - Y(x)|, on
                     borders of 8 x 8 blocks and inside them, each plus one grey level
    image size       log2 of the geometric mean side in pixels
    aspect ratio     log2 (width / height)
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

MEASURES = (
    "brightness", "contrast", "saturation", "blur", "noise", "JPEG blockiness",
    "image size", "aspect ratio",
)  # fmt: skip
# Larger images: colours of a reduced copy, edges of the middle, which starts on a block.
_MOST, _BLOCK = 512, 8
_EDGE, _RISE = 98, 4  # percentile of differences that is an edge; pixels over which it may rise
_GREY_LEVEL = 1 / 255


def measure_pixels(image: Image.Image) -> Float[Tensor, " measure"]:
    """The properties of one image, in the order of `MEASURES`."""
    image = image.convert("RGB")
    width, height = image.size
    whole = np.asarray(image.reduce(math.ceil(max(width, height) / _MOST)), np.float64) / 255
    middle = whole if max(width, height) <= _MOST else np.asarray(_middle(image), np.float64) / 255
    light, edges = luma(whole), luma(middle)
    largest = whole.max(-1)
    values = (
        light.mean(),
        light.std(),
        (largest - whole.min(-1)).sum() / max(largest.sum(), 1e-12),
        _blur(edges),
        _noise(edges),
        _blockiness(edges),
        math.log2(width * height) / 2,
        math.log2(width / height),
    )
    return torch.tensor(values, dtype=torch.float32)


def luma(pixels: np.ndarray) -> np.ndarray:
    """Y of pixels [height, width, 3]."""
    return pixels @ np.array([0.299, 0.587, 0.114])


def _middle(image: Image.Image) -> Image.Image:
    left, top = (max(side - _MOST, 0) // 2 // _BLOCK * _BLOCK for side in image.size)
    return image.crop((left, top, min(left + _MOST, image.width), min(top + _MOST, image.height)))


def _differences(light: np.ndarray, step: int) -> np.ndarray:
    """|Y(x + step) - Y(x)| along rows and columns."""
    across = np.abs(light[:, step:] - light[:, :-step]).ravel()
    down = np.abs(light[step:] - light[:-step]).ravel()
    return np.concatenate([across, down])


def _blur(light: np.ndarray) -> float:
    if min(light.shape) <= _RISE:
        return 0.0
    one, rise = (np.percentile(_differences(light, step), _EDGE) for step in (1, _RISE))
    return 1 - one / rise if rise > _GREY_LEVEL else 0.0


def _noise(light: np.ndarray) -> float:
    if min(light.shape) < 3:
        return 0.0
    rows = light[:-2] - 2 * light[1:-1] + light[2:]
    response = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.median(np.abs(response))) / (6 * 0.6745)


def _blockiness(light: np.ndarray) -> float:
    if min(light.shape) <= _BLOCK:
        return 0.0
    border, inside = [], []
    for plane in (light, light.T):
        steps = np.abs(np.diff(plane, axis=1)).mean(0)
        crosses = np.arange(1, plane.shape[1]) % _BLOCK == 0
        border.append(steps[crosses])
        inside.append(steps[~crosses])
    # Medians: an object whose edge lies on one border is no block.
    border, inside = (np.median(np.concatenate(steps)) for steps in (border, inside))
    return math.log((border + _GREY_LEVEL) / (inside + _GREY_LEVEL))
