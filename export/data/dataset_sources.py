"""Data sets that another package reads or composes: scenes, torchvision's, Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from export.common.errors import SourceError
from export.data.dataset import Content, Raw, Truth, readable_names
from export.data.decode import Unreadable


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

    def truth(self, texts: Sequence[str]) -> Truth:
        from clipneurons.synthetic.truth import SceneTruth

        truth = SceneTruth(self.scenes.pack, texts)
        return Truth(truth.known, lambda indices: truth(self.scenes[i] for i in indices))


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
        # Of a path no more than a folder and a name: the rest is this machine's business.
        path = "/".join(Path(cell.get("path") or f"row {i}").parts[-2:])
        return Content(_cell(cell), known, path)


def composed_scenes(count: int, seed: int, size: int, heldout: bool) -> ScenesSource:
    """Scenes of the bundled pictograms; the held-out ones show one object each."""
    try:
        from clipneurons.synthetic.pictograms import load_pictograms
        from clipneurons.synthetic.scenes import SceneConfig, Scenes

        pack = load_pictograms(heldout=heldout)
    except (ImportError, OSError, ValueError) as error:
        raise SourceError(f"scenes cannot be composed: {error}") from None
    # One object each where they are to be classified.
    objects = (1, 1) if heldout else (1, 3)
    scenes = Scenes(pack, SceneConfig(size=size, objects=objects), count, seed)
    name = "held-out scenes" if heldout else "composed scenes"
    return ScenesSource(scenes, name, tuple(sorted(pack.concepts)))


def cifar10(root: Path, split: str) -> SequenceSource:
    """CIFAR-10 as torchvision reads it from a folder."""
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


def huggingface(spec: str, split: str, limit: int | None) -> StreamSource:
    """A data set of the Hub or of a local folder, its first image column and its labels."""
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
    stream = stream.cast_column(image, datasets.Image(decode=False))
    rows = known.num_examples if known else None
    if not rows and Path(name).is_dir():
        rows = sum(1 for _ in stream)  # cheap where nothing is downloaded
    if not (rows or limit):
        raise SourceError(f"data set {name!r} does not tell its length: give --limit IMAGES")
    return StreamSource(
        stream,
        min(count for count in (rows, limit) if count),
        image,
        label,
        spec,
        readable_names(columns[label].names) if label else (),
    )


def _cell(cell: dict) -> bytes:
    if cell.get("bytes") is not None:
        return cell["bytes"]
    if cell.get("path"):
        return Path(cell["path"]).read_bytes()
    raise Unreadable("the row has no image")


def _end() -> Content:
    raise Unreadable("the data set ended before this row")
