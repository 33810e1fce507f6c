"""Images from visitors, one or sets in zip files: checked, and read in memory within bounds."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from clipneurons.images.convert import to_rgb

MAX_BYTES = 10 * 2**20
MAX_PIXELS = 40_000_000
# Handlers never get more than this many pixels a side: no model here reads more.
LARGEST = 1024
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_IMAGES = 500
_MOST_BYTES = 200 * 2**20
_MOST_ENTRIES = 10_000
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


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


def open_images(files: Sequence[str | Path]) -> tuple[list[Image.Image], int]:
    """RGB images of zip files and picture files, and how many entries could not be read.

    Nothing is unpacked to disk, so names inside an archive lead nowhere. What an archive says of
    its sizes is not believed: bytes are counted as they come.

    Raises:
        ValueError: a file that is neither, too much of anything, or fewer than two images.
    """
    images, skipped, total = [], 0, 0
    for data in _contents(files):
        total += len(data)
        if total > _MOST_BYTES:
            raise ValueError(f"More than {_MOST_BYTES // 2**20} MB of images: send fewer.")
        try:
            images.append(open_image(BytesIO(data)))
        except ValueError:
            skipped += 1
        if len(images) > MOST_IMAGES:
            raise ValueError(f"More than {MOST_IMAGES} images: send fewer.")
    if len(images) < 2:
        raise ValueError(f"Expected at least two images that can be read, found {len(images)}.")
    return images, skipped


def _contents(files: Sequence[str | Path]) -> Iterator[bytes]:
    """Each picture's bytes; a longer one than `MAX_BYTES` is cut off, and so cannot be read."""
    for file in map(Path, files):
        if zipfile.is_zipfile(file):
            yield from _unzipped(file)
        else:
            with file.open("rb") as opened:
                yield opened.read(MAX_BYTES)


def _unzipped(file: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise ValueError(
                    f"{len(entries)} files in {file.name}: send at most {MOST_IMAGES}."
                )
            for entry in sorted(entries, key=lambda entry: entry.filename):
                path = Path(entry.filename)
                # What file managers add.
                hidden = path.name.startswith(".") or "__MACOSX" in path.parts
                if entry.is_dir() or hidden or path.suffix.lower() not in _PICTURES:
                    continue
                with archive.open(entry) as opened:
                    yield opened.read(MAX_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{file.name} cannot be unpacked: {error}.") from None
