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
from export.data.decode import FORMATS

# Beside WebDataset shards, one class a line: the file of CLIP benchmark's data sets.
CLASS_NAMES = "classnames.txt"

_SUFFIXES = """
.avif .bmp .dib .gif .ico .jfif .jp2 .j2k .jpe .jpeg .jpg .mpo .pbm .pcx .pgm .png .pnm .ppm .qoi
.sgi .tga .tif .tiff .webp
"""
_HEIC = (".heic", ".heif")
SUFFIXES = frozenset((*_SUFFIXES.split(), *(_HEIC if "HEIF" in FORMATS else ())))
_MAC = "__MACOSX"  # what macOS puts into archives beside their files


@dataclass
class FolderSource:
    """Images of a folder at any depth, sorted by path; class names are those of the folders.

    An image's class is the folder it lies in, when every image lies in one below the root:
    `train/cat` and `val/cat` are one class. The folder names of ImageNet (n01440764, ...), all or
    some, are read as open_clip's names of its classes. A link to a folder elsewhere is followed,
    once; one that leads into what is read anyway is noted.
    """

    root: Path
    name: str = ""
    class_names: tuple[str, ...] = ()
    notes: list[tuple[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or shown(self.root.resolve().name)
        self._trees, self._above = set(), set()
        self._follows(self.root)
        for folder, folders, files in os.walk(self.root, onerror=self._unlisted, followlinks=True):
            folders[:] = [f for f in sorted(folders) if self._enters(Path(folder, f))]
            for name in files:
                path, suffix = Path(folder, name), Path(name).suffix.lower()
                if name.startswith("."):
                    continue
                if suffix in _HEIC and suffix not in SUFFIXES:
                    self._note(path, "HEIC: pip install pillow-heif, and it is read")
                elif suffix and suffix not in SUFFIXES:
                    self._note(path, f"not an image by its name ({suffix})")
                else:
                    self.paths.append(path.relative_to(self.root).as_posix())
        self.paths.sort()
        self.notes.sort()
        if not self.paths:
            heic = sum("HEIC" in reason for _, reason in self.notes)
            also = f", but {heic} HEIC files: pip install pillow-heif" if heic else ""
            raise SourceError(f"{self.root} holds no images ({', '.join(sorted(SUFFIXES))}){also}")
        parents = [p.split("/")[-2] if "/" in p else None for p in self.paths]
        folders = sorted({p for p in parents if p})
        self._labels: list[int | None] = [None] * len(parents)
        if None not in parents and len(folders) > 1:
            number = {f: i for i, f in enumerate(folders)}
            self._labels = [number[p] for p in parents]
            self.class_names = readable_names([shown(folder) for folder in folders])

    def _enters(self, folder: Path) -> bool:
        """Whether a folder is read; what is left out is noted."""
        if folder.name.startswith("."):
            return False
        if folder.name == _MAC:
            self._note(folder, "of macOS, no images")
            return False
        if folder.is_symlink() and not self._follows(folder):
            self._note(folder, "a link to a folder that is read already, or lies around it")
            return False
        if folder.suffix.lower() in SUFFIXES:
            self._note(folder, "a folder, not a file")
        return True

    def _follows(self, folder: Path) -> bool:
        """Whether a tree of folders is a new one: in none that is read, and around none."""
        target = folder.resolve()
        if target in self._above or not self._trees.isdisjoint((target, *target.parents)):
            return False
        self._trees.add(target)
        self._above.update(target.parents)
        return True

    def __len__(self) -> int:
        return len(self.paths)

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for i in indices:
            yield Raw(i, shown(self.paths[i]), partial(self._load, i))

    def stamp(self, i: int) -> tuple[str, list[int]]:
        """The file of an entry, with its size and time of modification."""
        return shown(self.paths[i]), _size_and_time(self.root / self.paths[i])

    def _load(self, i: int) -> Content:
        path = self.paths[i]
        return Content((self.root / path).read_bytes(), self._labels[i], shown(path))

    def _note(self, path: Path, reason: str) -> None:
        self.notes.append((shown(path.relative_to(self.root).as_posix()), reason))

    def _unlisted(self, error: OSError) -> None:
        if error.filename == str(self.root):
            raise SourceError(f"{self.root}: {error.strerror}; expected a folder of images")
        self._note(Path(error.filename), f"folder cannot be listed: {error.strerror}")


@dataclass
class TarSource:
    """WebDataset shards: tar files whose members `key.jpg`, `key.txt`, `key.cls` form a sample.

    The numbers in `key.cls` have names where `classnames.txt` beside the shards gives them. A key
    ends at the first dot of a name. Of several images under one key, `image_key` says which is
    read ("rgb.png"); without it the first.
    """

    shards: list[Path]
    name: str
    image_key: str | None = None
    class_names: tuple[str, ...] = ()
    notes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._samples: list[dict[str, tuple[Path, int, int]]] = []
        self._keys: list[str] = []
        self._times = {shard: _size_and_time(shard) for shard in self.shards}
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
                    folder, _, file = member.name.rpartition("/")
                    if member.isfile() and file[0] != "." and _MAC not in folder.split("/"):
                        stem, _, extension = file.partition(".")
                        parts = samples.setdefault(f"{folder}/{stem}".lstrip("/"), {})
                        if extension.lower() in parts:
                            self._note(shard, member.name, "in it twice, the last one is read")
                        place = (shard, member.offset_data, member.size)
                        parts[extension.lower()] = place
                tar.fileobj.seek(tar.offset)
                if len(tar.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
                    self.notes.append((shown(shard.name), "tar file has no end: it may be cut off"))
        except (tarfile.TarError, OSError) as error:
            if not samples:
                raise SourceError(f"{shard} is no uncompressed tar file: {error}") from None
            self.notes.append((shown(shard.name), f"tar file is cut off: {error}"))
        for key, parts in samples.items():
            images = [e for e in parts if f".{e.rpartition('.')[2]}" in SUFFIXES]
            if self.image_key:
                images = [e for e in images if e == self.image_key.lower().lstrip(".")]
            if not images:
                wanted = self.image_key or "image"
                self._note(shard, key, f"no {wanted} among {sorted(parts)}")
                continue
            if len(images) > 1:
                self._note(
                    shard, key, f"{len(images)} images ({', '.join(images)}), {images[0]} is read:"
                    " --image-key says which; a key ends at the first dot",
                )  # fmt: skip
            self._samples.append(parts | {"image": parts[images[0]]})
            self._keys.append(shown(f"{shard.name}/{key}.{images[0]}"))

    def _note(self, shard: Path, member: str, reason: str) -> None:
        self.notes.append((shown(f"{shard.name}/{member}"), reason))

    def stamp(self, i: int) -> tuple[str, list[int]]:
        """The member of an entry, with its place, and size and time of its archive."""
        shard, offset, size = self._samples[i]["image"]
        return self._keys[i], [offset, size, *self._times[shard]]

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


def shown(name: str) -> str:
    """A file's name as it can be printed and stored: what is no UTF-8 in it is replaced."""
    return os.fsencode(name).decode(errors="replace")


def _size_and_time(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:  # said when it is read
        return []
    return [status.st_size, status.st_mtime_ns]


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
