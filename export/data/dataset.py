"""What a data set of images is to the export: entries by index, each read when it is needed.

An entry keeps its index whether or not it can be read, so that batches, shards and resumed runs
see the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Content:
    """What an entry holds: file bytes or an image, the number of its class, a caption."""

    data: bytes | Image.Image
    label: int | None = None
    caption: str = ""


@dataclass(frozen=True)
class Raw:
    """One entry before it is read; `load` raises `Unreadable` or `OSError` for a broken one."""

    index: int
    name: str
    load: Callable[[], Content]


@dataclass(frozen=True)
class Truth:
    """What is known of a source's images: `known` bool [text], of which texts anything is;
    `rows(indices)` float32 [image, text]: 1 where the text is true of the image."""

    known: np.ndarray
    rows: Callable[[Sequence[int]], np.ndarray]


class Source(Protocol):
    """A data set: `raws(indices)` gives its entries in the order asked for.

    Labels index `class_names`; `notes` are (name, reason) of files that are no entries.
    A source that knows what its images show has `truth(texts)`, a `Truth`; one of files has
    `stamp(index)`, an entry's name and the numbers that change when it is replaced.
    """

    name: str
    class_names: tuple[str, ...]
    notes: list[tuple[str, str]]

    def __len__(self) -> int: ...

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]: ...


@dataclass
class Limited:
    """The first `count` entries of a source."""

    source: Any
    count: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return self.count


def stamps(source: Source) -> dict[str, list[int]]:
    """What changes when an image is replaced, by its name; nothing of images in no files."""
    stamp = getattr(source, "stamp", None)
    return dict(map(stamp, range(len(source)))) if stamp else {}


def readable_names(folders: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as one would say them, from names of folders or of a data set's labels."""
    if all(re.fullmatch(r"n\d{8}", f) for f in folders):
        from open_clip import IMAGENET_CLASSNAMES
        from timm.data import ImageNetInfo

        names = dict(zip(ImageNetInfo().label_names(), IMAGENET_CLASSNAMES, strict=True))
        return tuple(names.get(f, f) for f in folders)
    return tuple(f.replace("_", " ") for f in folders)
