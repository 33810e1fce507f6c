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


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB; more than 8 bits are scaled, transparency lies on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(image))
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


def _eight_bits(image: Image.Image) -> np.ndarray:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode == "F":
        low, high = values.min(), values.max()
        if low >= 0 and high <= 1:  # the convention of float images
            low, high = 0.0, 1.0
    else:
        low, high = 0.0, 65535.0 if values.max() > 255 or image.mode != "I" else 255.0
    scaled = (values - low) / max(high - low, 1e-12) * 255
    return scaled.clip(0, 255).round().astype(np.uint8)
