"""Where visitors put an image: checked before it is decoded, handed on small."""

from __future__ import annotations

import base64
from abc import ABCMeta
from io import BytesIO
from pathlib import Path

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image

from clipneurons.images.convert import webp_uri
from tabs.server.messages import page_error
from tabs.server.uploads import MAX_BYTES, open_image

OWN_IMAGE = "A link holds no image of your own: choose it again."
# Less of an image than this is read: the page says so.
_WHOLE = 0.98


def image_uri(image: Image.Image, quality: int = 85) -> str:
    """An image as the source of an `<img>`."""
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=quality)
    return webp_uri(buffer.getvalue())


def cropped_html(share: float) -> str:
    """A line about what the model does not see of an image, of which it reads a share."""
    if share >= _WHOLE:
        return ""
    return (
        f'<p class="cn-note cn-cropped">The model reads the square in the middle, {share:.0%} of '
        "this image. Crop it yourself to read another part.</p>"
    )


def ImageInput(label: str = "Image", **options) -> gr.Image:
    """A `gr.Image` whose handler gets a checked PIL image, or whose visitor gets a message."""
    options.setdefault("sources", ["upload", "clipboard", "webcam"])
    options.setdefault("buttons", [])
    options.setdefault("elem_classes", "cn-image-input")
    return _CheckedImage(label=label, type="pil", **options)


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
        raise page_error(str(error)) from None


# A subclass and no attribute of the instance: after an update, Gradio makes a visitor's component
# again from its class. By ABCMeta, since Gradio's own metaclass writes a stub file beside us.
_CheckedImage = ABCMeta.__new__(
    type(gr.Image), "Image", (gr.Image,), {"preprocess": staticmethod(_preprocess)}
)
