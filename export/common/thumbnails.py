"""Thumbnails as data URIs, so that the report is one file."""

from __future__ import annotations

import io

from PIL import Image

from clipneurons.images.convert import webp_uri


def thumbnail(image: Image.Image, side: int = 96) -> str:
    """A small WebP of an image."""
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=70)
    return webp_uri(buffer.getvalue())
