"""Images from visitors, one or sets in zip files: checked, and read in memory within bounds."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps, UnidentifiedImageError

from clipneurons.images.convert import to_rgb
from clipneurons.images.long_texts import decoded

MAX_BYTES = 10 * 2**20
MAX_PIXELS = 40_000_000
# Handlers never get more than this many pixels a side: no model here reads more.
LARGEST = 1024
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_IMAGES = 500
# Between folders in the name of an uploaded file.
FOLDER_MARK = ",,"
_MOST_BYTES = 200 * 2**20
_MOST_ENTRIES = 10_000
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


def open_image(file: str | Path | BytesIO) -> Image.Image:
    """An RGB image of at most `LARGEST` pixels a side, upright.

    Raises `ValueError`, with a message for the visitor, for anything that is not a whole PNG,
    JPEG, WebP, GIF or BMP of at most `MAX_PIXELS` pixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns about the sizes that we refuse below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            data = file.getvalue() if isinstance(file, BytesIO) else Path(file).read_bytes()
            image = decoded(_upright, data)
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


def _upright(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data), formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"This image has {width} × {height} pixels; at most "
                f"{MAX_PIXELS // 10**6} million are read. Please scale it down first."
            )
        opened.draft("RGB", (LARGEST, LARGEST))  # JPEG: decode no more than is needed
        image = ImageOps.exif_transpose(opened)
        image.thumbnail((LARGEST, LARGEST))
        return image


@dataclass(frozen=True)
class UploadedImage:
    """An uploaded file's folders and name, and its image; None where it could not be read."""

    path: tuple[str, ...]
    image: Image.Image | None


def uploaded_images(files: Sequence[str | Path]) -> Iterator[UploadedImage]:
    """The images of zip files and image files, one at a time.

    Nothing is unpacked to disk, so names inside an archive lead nowhere. What an archive says of
    its sizes is not believed: bytes are counted as they come. Links are read as the text they are.

    Raises:
        ValueError: a damaged archive, or too much of anything.
    """
    total = count = 0
    for path, data in _contents(files):
        total += len(data)
        if total > _MOST_BYTES:
            raise ValueError(f"More than {_MOST_BYTES // 2**20} MB of images: send fewer.")
        try:
            image = open_image(BytesIO(data))
        except ValueError:
            image = None
        count += image is not None
        if count > MOST_IMAGES:
            raise ValueError(f"More than {MOST_IMAGES} images: send fewer.")
        yield UploadedImage(path, image)


def open_images(files: Sequence[str | Path]) -> tuple[list[Image.Image], int]:
    """RGB images of zip files and image files, and how many entries could not be read.

    Raises:
        ValueError: what `uploaded_images` refuses, or fewer than two images.
    """
    entries = [uploaded.image for uploaded in uploaded_images(files)]
    images = [image for image in entries if image is not None]
    if len(images) < 2:
        raise ValueError(f"Expected at least two images that can be read, found {len(images)}.")
    return images, len(entries) - len(images)


def _contents(files: Sequence[str | Path]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Each image's path and bytes; a longer one than `MAX_BYTES` is cut off, and so unreadable.

    A browser sends no folders: the page's script writes them into the file's name.
    """
    for file in map(Path, files):
        if zipfile.is_zipfile(file):
            yield from _unzipped(file)
        else:
            with file.open("rb") as opened:
                yield tuple(file.name.split(FOLDER_MARK)), opened.read(MAX_BYTES)


def _unzipped(file: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise ValueError(
                    f"{len(entries)} files in {file.name}: send at most {MOST_IMAGES}."
                )
            for entry in sorted(entries, key=lambda entry: entry.filename):
                path = PurePosixPath(entry.filename)
                # What file managers add.
                hidden = path.name.startswith(".") or "__MACOSX" in path.parts
                if entry.is_dir() or hidden or path.suffix.lower() not in _PICTURES:
                    continue
                with archive.open(entry) as opened:
                    yield (file.stem, *path.parts), opened.read(MAX_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{file.name} cannot be unpacked: {error}.") from None
