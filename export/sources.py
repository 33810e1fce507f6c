"""Where images come from: each source knows its length and gives entries by index.

An entry keeps its index whether or not it can be read, so that batches, shards and resumed runs
see the same numbers.
"""

from __future__ import annotations

import glob
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from export.decode import Unreadable

_SUFFIXES = """
.avif .bmp .dib .gif .ico .jfif .jp2 .j2k .jpe .jpeg .jpg .mpo .pbm .pcx .pgm .png .pnm .ppm .qoi
.sgi .tga .tif .tiff .webp
"""
SUFFIXES = frozenset(_SUFFIXES.split())


SCENES = "scenes"


class SourceError(ValueError):
    """The images cannot be found or listed; the message says what was expected."""


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


class Source(Protocol):
    """A data set: `raws(indices)` gives its entries in the order asked for.

    Labels index `class_names`; `notes` are (name, reason) of files that are no entries.
    """

    name: str
    class_names: tuple[str, ...]
    notes: list[tuple[str, str]]

    def __len__(self) -> int: ...

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]: ...


def open_source(
    spec: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    image_size: int = 64,
    heldout: bool = False,
) -> Source:
    """The source that a user's `--images` names.

    `scenes` or `scenes:COUNT` (composed, of `image_size` pixels), a folder, tar files (a path, a
    glob or `name-{000..012}.tar`), `cifar10:ROOT`, or `hf:owner/name[@revision]`. `limit` keeps
    the first images. Raises `SourceError`.
    """
    kind, _, rest = spec.partition(":")
    if kind == SCENES:
        if rest and not rest.isdigit():
            raise SourceError(f"--images {spec!r}: expected scenes:COUNT")
        source = _scenes(int(rest or limit or 5000), seed, image_size, heldout)
    elif kind == "cifar10":
        source = _cifar10(Path(rest or "."), split or "test")
    elif kind == "hf":
        source = _huggingface(rest, split or "train", limit)
    elif shards := _tar_files(spec):
        source = TarSource(shards, Path(spec).name)
    elif Path(spec).is_dir():
        root = Path(spec) / split if split else Path(spec)
        source = FolderSource(root)
    else:
        raise SourceError(
            f"--images {spec!r} does not exist. Expected a folder, tar files, 'scenes:COUNT',"
            " 'cifar10:FOLDER' or 'hf:owner/name'"
        )
    return Limited(source, limit) if limit and limit < len(source) else source


@dataclass
class FolderSource:
    """Images of a folder at any depth, sorted by path; class names are those of the folders.

    Classes are the images' parent folders, when every image has one below the root. The folder
    names of ImageNet (n01440764, ...) are read as open_clip's names of the 1,000 classes.
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
        parents = [p.split("/")[0] if "/" in p else None for p in self.paths]
        folders = sorted({p for p in parents if p})
        self._labels: list[int | None] = [None] * len(parents)
        if None not in parents and len(folders) > 1:
            number = {f: i for i, f in enumerate(folders)}
            self._labels = [number[p] for p in parents]
            self.class_names = _readable(folders)

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
    """WebDataset shards: tar files whose members `key.jpg`, `key.txt`, `key.cls` form a sample."""

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


@dataclass
class ScenesSource:
    """Scenes composed of pictograms, the same for the same arguments; a caption each."""

    scenes: Any
    name: str = "composed scenes"
    class_names: tuple[str, ...] = ()
    notes: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.scenes)

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for i in indices:
            yield Raw(i, f"scene {i}", partial(self._load, i))

    def _load(self, i: int) -> Content:
        scene = self.scenes[i]
        # A scene with one object has a class, as a photograph of ImageNet has.
        only = scene.objects[0].name if len(scene.objects) == 1 else None
        label = self.class_names.index(only) if only in self.class_names else None
        return Content(Image.fromarray(scene.image), label, scene.caption)


@dataclass
class SequenceSource:
    """Anything indexable that gives (PIL image, label), such as torchvision's data sets."""

    items: Any
    name: str
    class_names: tuple[str, ...] = ()
    notes: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for i in indices:
            yield Raw(i, f"{self.name} {i}", partial(self._load, i))

    def _load(self, i: int) -> Content:
        image, label = self.items[i]
        return Content(image, label, self.class_names[label] if self.class_names else "")


@dataclass
class StreamSource:
    """A Hugging Face data set, streamed: entries come in order, an earlier one starts over."""

    stream: Any
    count: int
    image_column: str
    label_column: str | None
    name: str
    class_names: tuple[str, ...] = ()
    notes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._at, self._rows = 0, iter(())
        self._started = False

    def __len__(self) -> int:
        return self.count

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for i in indices:
            if not self._started or i < self._at:
                self._rows, self._at, self._started = iter(self.stream.skip(i)), i, True
            while self._at < i:
                next(self._rows, None)
                self._at += 1
            row = next(self._rows, None)
            self._at += 1
            if row is None:
                yield Raw(i, f"row {i}", _end)
                continue
            yield Raw(i, f"row {i}", partial(self._load, i, row))

    def _load(self, i: int, row: dict) -> Content:
        label = row.get(self.label_column) if self.label_column else None
        cell = row[self.image_column] or {}
        known = label if isinstance(label, int) and label >= 0 else None
        return Content(_cell(cell), known, str(cell.get("path") or f"row {i}"))


@dataclass
class Limited:
    """The first `count` entries of a source."""

    source: Any
    count: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return self.count


def _readable(folders: Sequence[str]) -> tuple[str, ...]:
    if len(folders) == 1000 and all(re.fullmatch(r"n\d{8}", f) for f in folders):
        from open_clip import IMAGENET_CLASSNAMES

        return tuple(IMAGENET_CLASSNAMES)
    return tuple(f.replace("_", " ") for f in folders)


def _tar_files(spec: str) -> list[Path]:
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


def _scenes(count: int, seed: int, size: int, heldout: bool) -> ScenesSource:
    try:
        from clipneurons.pictograms import load_pictograms
        from clipneurons.scenes import SceneConfig, Scenes

        pack = load_pictograms(heldout=heldout)
    except (ImportError, OSError, ValueError) as error:
        raise SourceError(f"scenes cannot be composed: {error}") from None
    # One object each where they are to be classified.
    objects = (1, 1) if heldout else (1, 3)
    scenes = Scenes(pack, SceneConfig(size=size, objects=objects), count, seed)
    name = "held-out scenes" if heldout else "composed scenes"
    return ScenesSource(scenes, name, tuple(sorted(pack.concepts)))


def _cifar10(root: Path, split: str) -> SequenceSource:
    from torchvision.datasets import CIFAR10

    if split not in ("train", "test"):
        raise SourceError(f"--split of CIFAR-10 is 'train' or 'test', not {split!r}")
    try:
        # torchvision compares the files with the published MD5 sums before it opens them.
        data = CIFAR10(str(root), train=split == "train", download=False)
    except RuntimeError:
        raise SourceError(
            f"{root} holds no intact cifar-10-batches-py: download it there"
        ) from None
    return SequenceSource(data, f"CIFAR-10 {split}", tuple(data.classes))


def _huggingface(spec: str, split: str, limit: int | None) -> StreamSource:
    try:
        import datasets
    except ImportError:
        raise SourceError("'hf:' needs the package datasets: pip install datasets") from None
    name, _, revision = spec.partition("@")
    try:
        stream = datasets.load_dataset(name, split=split, revision=revision or None, streaming=True)
    except Exception as error:  # the package raises its own, the Hub's and the network's errors
        reason = str(error).strip().splitlines()
        raise SourceError(
            f"data set {name!r}, split {split!r}: {reason[0] if reason else type(error).__name__}"
        ) from None
    columns = stream.features or {}
    image = next((c for c, f in columns.items() if isinstance(f, datasets.Image)), None)
    if image is None:
        raise SourceError(f"data set {name!r} has no image column among {list(columns)}")
    label = next((c for c, f in columns.items() if isinstance(f, datasets.ClassLabel)), None)
    known = stream.info.splits.get(split) if stream.info.splits else None
    count = limit or (known.num_examples if known else 0)
    if not count:
        raise SourceError(f"data set {name!r} does not tell its length: give --limit IMAGES")
    return StreamSource(
        stream.cast_column(image, datasets.Image(decode=False)),
        min(count, known.num_examples) if known and known.num_examples else count,
        image,
        label,
        spec,
        tuple(columns[label].names) if label else (),
    )


def _slice(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def _text_of(parts: dict[str, tuple[Path, int, int]], extension: str) -> str:
    return _slice(*parts[extension]).decode(errors="replace").strip() if extension in parts else ""


def _cell(cell: dict) -> bytes:
    if cell.get("bytes") is not None:
        return cell["bytes"]
    if cell.get("path"):
        return Path(cell["path"]).read_bytes()
    raise Unreadable("the row has no image")


def _end() -> Content:
    raise Unreadable("the data set ended before this row")
