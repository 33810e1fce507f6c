"""A map over patches as a picture to lay over an image: what is off goes dark."""

from __future__ import annotations

import numpy as np
from PIL import Image

from clipneurons.images.convert import png_uri

# How dark a patch with nothing gets, of 255; light alone carries the map, no hue.
_DARK = 185


def patch_mask(values: list[list[float]], size: int = 224) -> str:
    """A transparent PNG as the source of an `<img>`; `values` [row, column] in [0, 1].

    A map that is zero everywhere leaves the picture as it is.
    """
    shares = np.clip(np.asarray(values, dtype=np.float32), 0, 1)
    # The square root keeps patches in view that carry a part of what the first one does.
    dark = (1 - np.sqrt(shares)) * _DARK if shares.any() else np.zeros_like(shares)
    small = Image.fromarray(dark.astype(np.uint8))
    alpha = small.resize((size, size), Image.Resampling.BICUBIC)
    picture = Image.merge("LA", (Image.new("L", alpha.size, 12), alpha))
    return png_uri(picture)
