"""Sets of images from visitors: zip files and pictures, read in memory within bounds."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from tabs.images import MAX_BYTES, open_image

MOST_IMAGES = 500
_MOST_BYTES = 200 * 2**20
_MOST_ENTRIES = 10_000
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


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
