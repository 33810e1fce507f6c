"""Images in files: a folder at any depth, or WebDataset shards."""

from __future__ import annotations

import glob
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from export.common.errors import SourceError
from export.common.settings import read_text
from export.data.dataset import Content, Raw, readable_names

# Beside WebDataset shards, one class a line: the file of CLIP benchmark's data sets.
CLASS_NAMES = "classnames.txt"

_SUFFIXES = """
.avif .bmp .dib .gif .ico .jfif .jp2 .j2k .jpe .jpeg .jpg .mpo .pbm .pcx .pgm .png .pnm .ppm .qoi
.sgi .tga .tif .tiff .webp
"""
SUFFIXES = frozenset(_SUFFIXES.split())


@dataclass
class FolderSource:
    """Images of a folder at any depth, sorted by path; class names are those of the folders.

    An image's class is the folder it lies in, when every image lies in one below the root:
    `train/cat` and `val/cat` are one class. The folder names of ImageNet (n01440764, ...), all or
    some, are read as open_clip's names of its classes.
    """

    root: Path
    name: str = ""
    class_names: tuple[str, ...] = ()
    notes: list[tuple[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or self.root.resolve().name
        for folder, folders, files in os.walk(self.root, onerror=self._unlisted):
            folders.sort()
            folders[:] = [f for f in folders if not f.startswith(".")]
            for name in sorted(folders):
                if Path(name).suffix.lower() in SUFFIXES:
                    self._note(Path(folder, name), "a folder, not a file")
            for name in files:
                path, suffix = Path(folder, name), Path(name).suffix.lower()
                if name.startswith("."):
                    continue
                if suffix and suffix not in SUFFIXES:
                    self._note(path, f"not an image by its name ({suffix})")
                else:
                    self.paths.append(path.relative_to(self.root).as_posix())
        self.paths.sort()
        self.notes.sort()
        if not self.paths:
            raise SourceError(f"{self.root} holds no images ({', '.join(sorted(SUFFIXES))})")
        parents = [p.split("/")[-2] if "/" in p else None for p in self.paths]
        folders = sorted({p for p in parents if p})
        self._labels: list[int | None] = [None] * len(parents)
        if None not in parents and len(folders) > 1:
            number = {f: i for i, f in enumerate(folders)}
            self._labels = [number[p] for p in parents]
            self.class_names = readable_names(folders)

    def __len__(self) -> int:
        return len(self.paths)

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for i in indices:
            yield Raw(i, self.paths[i], partial(self._load, i))

    def _load(self, i: int) -> Content:
        return Content((self.root / self.paths[i]).read_bytes(), self._labels[i], self.paths[i])

    def _note(self, path: Path, reason: str) -> None:
        self.notes.append((path.relative_to(self.root).as_posix(), reason))

    def _unlisted(self, error: OSError) -> None:
        if error.filename == str(self.root):
            raise SourceError(f"{self.root}: {error.strerror}; expected a folder of images")
        self._note(Path(error.filename), f"folder cannot be listed: {error.strerror}")


@dataclass
class TarSource:
    """WebDataset shards: tar files whose members `key.jpg`, `key.txt`, `key.cls` form a sample.

    The numbers in `key.cls` have names where `classnames.txt` beside the shards gives them.
    """

    shards: list[Path]
    name: str
    class_names: tuple[str, ...] = ()
    notes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._samples: list[dict[str, tuple[Path, int, int]]] = []
        self._keys: list[str] = []
        for shard in self.shards:
            self._list(shard)
        if not self._samples:
            raise SourceError(f"no images in {', '.join(map(str, self.shards))}")
        names = self.shards[0].parent / CLASS_NAMES
        if names.is_file():
            self.class_names = _class_names(names)

    def _list(self, shard: Path) -> None:
        samples: dict[str, dict[str, tuple[Path, int, int]]] = {}
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    if member.isfile():
                        key, _, extension = member.name.rpartition("/")[2].partition(".")
                        key = member.name[: len(member.name) - len(extension) - 1]
                        place = (shard, member.offset_data, member.size)
                        samples.setdefault(key, {})[extension.lower()] = place
        except (tarfile.TarError, OSError) as error:
            if not samples:
                raise SourceError(f"{shard} is no uncompressed tar file: {error}") from None
            self.notes.append((shard.name, f"tar file is cut off: {error}"))
        for key, parts in samples.items():
            image = next((e for e in parts if f".{e.rpartition('.')[2]}" in SUFFIXES), None)
            if image is None:
                self.notes.append((f"{shard.name}/{key}", f"no image among {sorted(parts)}"))
            else:
                parts["image"] = parts[image]
                self._samples.append(parts)
                self._keys.append(f"{shard.name}/{key}.{image}")

    def __len__(self) -> int:
        return len(self._samples)

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for i in indices:
            yield Raw(i, self._keys[i], partial(self._load, i))

    def _load(self, i: int) -> Content:
        parts = self._samples[i]
        label = _text_of(parts, "cls")
        number = int(label) if label.isascii() and label.isdigit() else None
        return Content(_slice(*parts["image"]), number, _text_of(parts, "txt") or self._keys[i])


def tar_files(spec: str) -> list[Path]:
    """The shards that a path, a glob, `name-{000..012}.tar` or a folder of tars names, if any."""
    if not spec.endswith(".tar"):
        folder = Path(spec)
        tars = sorted(folder.glob("*.tar")) if folder.is_dir() else []
        others = folder.is_dir() and any(p.suffix.lower() in SUFFIXES for p in folder.iterdir())
        return [] if others else tars
    braces = re.search(r"\{(\d+)\.\.(\d+)\}", spec)
    if braces:
        first, last = braces.groups()
        numbers = range(int(first), int(last) + 1)
        names = [spec.replace(braces[0], str(n).zfill(len(first))) for n in numbers]
    else:
        names = sorted(glob.glob(spec)) or [spec]
    missing = [n for n in names if not Path(n).is_file()]
    if missing:
        raise SourceError(f"{len(missing)} of {len(names)} tar files are missing: {missing[0]}")
    return [Path(n) for n in names]


def _class_names(path: Path) -> tuple[str, ...]:
    """A name a line; doubled ones stay, since ImageNet's own names have two missiles."""
    names = tuple(line.strip() for line in read_text(path).splitlines())
    if "" in names:
        line = names.index("") + 1
        raise SourceError(f"{path}, line {line} is blank: expected the name of a class in each")
    return names


def _slice(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def _text_of(parts: dict[str, tuple[Path, int, int]], extension: str) -> str:
    return _slice(*parts[extension]).decode(errors="replace").strip() if extension in parts else ""
