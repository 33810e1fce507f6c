"""Pictures of any mode made plain RGB, and written into a page."""

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

# Least standard deviation of an image's pixels, of 1 for white: below it is one flat colour.
_FLAT = 0.01
# In an image's `info`: its values do not fill their type and were scaled by their own range.
SCALED = "scaled by its own range"
# White of 8, 10, 12, 14 and 16 bits.
_WIDTHS = (255, 1023, 4095, 16383, 65535)
# Values that geographic files write where there is no data.
_NO_DATA, _NO_DATA_FROM = (-9999.0, -32768.0), 1e30


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB; more than 8 bits are scaled, transparency lies on white.

    12-bit values in 16 bits, and numbers beyond 0 to 1, are scaled by their own range; `info` of
    the result then has `SCALED`. Infinity, NaN and values that stand for no data become black.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _from_numbers(image)
    if image.has_transparency_data:
        # Pillow takes the premultiplied modes only to their plain ones.
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def from_pixels(
    pixels: Float[Tensor, "3 height width"], mean: Sequence[float], std: Sequence[float]
) -> Image.Image:
    """A preprocessed image as the model sees it."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    values = (pixels.cpu().float() * std + mean).clamp(0, 1)  # [3, height, width]
    return Image.fromarray((255 * values).round().byte().permute(1, 2, 0).numpy())


def is_flat(pixels: Float[Tensor, "3 height width"], std: Sequence[float]) -> bool:
    """Whether a preprocessed image is one flat colour, in which nothing can be recognised."""
    deviations = pixels.flatten(1).std(dim=1).cpu() * torch.tensor(std)
    return bool(deviations.max() < _FLAT)


def webp_uri(webp: bytes) -> str:
    """A WebP file as the source of an `<img>`."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def png_uri(image: Image.Image) -> str:
    """An image, every pixel of it, as the source of an `<img>`."""
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _from_numbers(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    valid = np.isfinite(values) & (np.abs(values) < _NO_DATA_FROM)
    if image.mode == "F":
        valid &= ~np.isin(values, _NO_DATA)
    low, high, full = _range(values[valid], image.mode)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.where(valid, (values - low) / max(high - low, 1e-12) * 255, 0)
    grey = scaled.clip(0, 255).round().astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    rgb = Image.fromarray(grey).convert("RGB")
    if not full:
        rgb.info[SCALED] = True
    return rgb


def _range(values: np.ndarray, mode: str) -> tuple[float, float, bool]:
    """The values of black and white, and whether they are those of the type rather than its own."""
    if not values.size:
        return 0.0, 1.0, True
    low, high = float(values.min()), float(values.max())
    if mode == "F":  # 0 to 1 is the convention of float images
        return (0.0, 1.0, True) if low >= 0 and high <= 1 else (low, high, False)
    if low < 0 or high > _WIDTHS[-1]:
        return low, high, False
    white = next(width for width in _WIDTHS if high <= width)
    return 0.0, float(white), white in (_WIDTHS[-1], 255 if mode == "I" else None)
