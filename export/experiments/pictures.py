"""Pictures as data URIs, so that the report is one file."""

from __future__ import annotations

import base64
import io

from PIL import Image


def thumbnail(image: Image.Image, side: int = 96) -> str:
    """A small WebP of an image."""
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=70)
    return webp_uri(buffer.getvalue())


def webp_uri(data: bytes) -> str:
    """WebP bytes as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
