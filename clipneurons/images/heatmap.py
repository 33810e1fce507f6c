"""Heat maps and masks as pictures."""

import io

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

# Dark violet over red to pale yellow: lightness grows with the value, also without colour vision.
_STOPS = np.array(
    [[8, 6, 36], [74, 12, 107], [142, 36, 99], [207, 68, 70], [246, 122, 32], [251, 188, 56],
     [252, 252, 180]], dtype=np.float32,
)  # fmt: skip


def heat_colours(heat: Float[Tensor, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Colours of values in 0..1."""
    at = heat.clamp(0, 1).cpu().numpy() * (len(_STOPS) - 1)
    low = np.clip(at.astype(int), 0, len(_STOPS) - 2)
    part = (at - low)[..., None]
    return (_STOPS[low] * (1 - part) + _STOPS[low + 1] * part).round().astype(np.uint8)


def overlay(
    image: Image.Image, heat: Float[Tensor, "height width"], opacity: float = 0.6
) -> Image.Image:
    """The heat map over an RGB image, stretched to its size.

    Raises:
        ValueError: an opacity outside 0..1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"expected an opacity of 0 to 1, not {opacity}")
    colours = Image.fromarray(heat_colours(heat)).resize(image.size, Image.Resampling.BILINEAR)
    return Image.blend(image, colours, opacity)


def mask_image(mask: Bool[Tensor, "height width"]) -> Image.Image:
    """The mask in black and white."""
    return Image.fromarray(mask.cpu().numpy().astype(np.uint8) * 255)


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
