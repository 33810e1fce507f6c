"""Images from visitors: checked before they are decoded, handed on small."""

from __future__ import annotations

import base64
import warnings
from io import BytesIO
from pathlib import Path

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image, ImageOps, UnidentifiedImageError

from clipneurons.pictures import to_rgb, webp_uri

MAX_BYTES = 10 * 2**20
MAX_PIXELS = 40_000_000
# Handlers never get more than this many pixels a side: no tower here reads more.
LARGEST = 1024
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def open_image(file: Path | BytesIO) -> Image.Image:
    """An RGB image of at most `LARGEST` pixels a side, upright.

    Raises `ValueError`, with a message for the visitor, for anything that is not a whole PNG,
    JPEG, WebP, GIF or BMP of at most `MAX_PIXELS` pixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns about the sizes that we refuse below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    raise ValueError(
                        f"This image has {width} × {height} pixels; at most "
                        f"{MAX_PIXELS // 10**6} million are read. Please scale it down first."
                    )
                opened.draft("RGB", (LARGEST, LARGEST))  # JPEG: decode no more than is needed
                image = ImageOps.exif_transpose(opened)
                image.thumbnail((LARGEST, LARGEST))
    except UnidentifiedImageError:
        raise ValueError(
            f"This file is not an image that can be read ({', '.join(FORMATS)} can)."
        ) from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"Images of at most {MAX_PIXELS // 10**6} million pixels, please."
        ) from None
    except (OSError, SyntaxError, EOFError):  # what Pillow's decoders raise for damaged files
        raise ValueError("This image is damaged: it could not be decoded to the end.") from None
    return to_rgb(image)


def image_uri(image: Image.Image, quality: int = 85) -> str:
    """An image as the source of an `<img>`."""
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=quality)
    return webp_uri(buffer.getvalue())


def ImageInput(label: str = "Image", **options) -> gr.Image:
    """A `gr.Image` whose handler gets a checked PIL image, or whose visitor gets a message."""
    options.setdefault("sources", ["upload", "clipboard", "webcam"])
    options.setdefault("buttons", [])
    image = gr.Image(label=label, type="pil", **options)
    # On the instance: Gradio writes a stub file beside the source of every subclass.
    image.preprocess = _preprocess
    return image


def _preprocess(payload: ImageData | None) -> Image.Image | None:
    if payload is None:
        return None
    try:
        if payload.url and payload.url.startswith("data:"):
            encoded = payload.url.partition("base64,")[2]
            return open_image(BytesIO(base64.b64decode(encoded[: 2 * MAX_BYTES])))
        # Gradio has checked that the path is one of its own uploads.
        return open_image(Path(payload.path))
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from None
