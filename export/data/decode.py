"""From the bytes of an image file to an upright 8-bit RGB image, or the reason why not."""

from __future__ import annotations

import warnings
from contextlib import suppress
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from clipneurons.images import convert
from clipneurons.images.long_texts import decoded
from export.data.quiet_tiff import silence

# Raster formats that Pillow decodes itself: no EPS or PDF, which would start other programs.
_FORMATS = """
AVIF BMP DDS GIF HEIF ICNS ICO JPEG JPEG2000 MPO PCX PNG PPM QOI SGI TGA TIFF WEBP XBM
"""
Image.init()
with suppress(ImportError):  # an optional package reads HEIC
    from pillow_heif import register_heif_opener

    register_heif_opener()
silence()
FORMATS = tuple(name for name in _FORMATS.split() if name in Image.OPEN)
# Pillow refuses twice its warning limit; the same bound, whatever a program set there.
MAX_PIXELS = 178_956_970
# A strip longer than this is cut to its middle: resizing its short side would need gigabytes.
MAX_ASPECT = 20


class Unreadable(Exception):
    """The image cannot be used; the message is the reason, for `skipped.csv`."""


def decode(data: bytes) -> Image.Image:
    """First frame of an image file, orientation applied, transparency on white, as RGB.

    Raises `Unreadable` for what is empty, no image, cut off, damaged or beyond `MAX_PIXELS`.
    """
    if not data:
        raise Unreadable("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes and metadata; sizes are checked here
            return to_rgb(_upright(decoded(_loaded, data)))
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable("not an image that can be read") from None
    except Image.DecompressionBombError as error:
        raise Unreadable(f"decompression bomb: {error}") from None
    except Exception as error:  # decoders raise anything (struct.error, SyntaxError, ...)
        raise Unreadable(f"damaged: {str(error) or type(error).__name__}") from None


def _loaded(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Unreadable(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
    image.load()
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB (`pictures.to_rgb`), and no strip that is too long to be resized."""
    return _at_most(convert.to_rgb(image), MAX_ASPECT)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata: the pixels are fine
        return image


def _at_most(image: Image.Image, aspect: int) -> Image.Image:
    width, height = image.size
    if max(width, height) <= aspect * min(width, height):
        return image
    w, h = min(width, aspect * height), min(height, aspect * width)
    left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h))
