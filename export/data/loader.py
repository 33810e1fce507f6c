"""From entries of a source to batches of tensors, and to what could not be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from clipneurons.images.convert import SCALED
from export.data.dataset import Raw, Source
from export.data.decode import Unreadable, decode, to_rgb


@dataclass(frozen=True)
class LoadedImage:
    """One entry after reading: an upright RGB image, or the reason why there is none."""

    index: int
    name: str
    image: Image.Image | None
    reason: str | None
    digest: bytes
    label: int | None
    caption: str

    @property
    def scaled(self) -> bool:
        """Whether its values were scaled by their own range."""
        return self.image is not None and SCALED in self.image.info


def read(raw: Raw, decoded: bool = True) -> LoadedImage:
    """Load and decode one entry; whatever goes wrong becomes the image's `reason`."""
    image, reason, label, caption = None, None, None, ""
    digest = hashlib.sha256(raw.name.encode())
    try:
        content = raw.load()
        data, label, caption = content.data, content.label, content.caption
        digest.update(data if isinstance(data, bytes) else data.tobytes())
        if decoded:
            image = decode(data) if isinstance(data, bytes) else to_rgb(data)
    except Unreadable as error:
        reason = str(error)
    except IsADirectoryError:
        reason = "a folder, not a file"
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    return LoadedImage(raw.index, raw.name, image, reason, digest.digest(), label, caption)


@dataclass(frozen=True)
class Batch:
    """Images of one batch that could be read, and what became of the others.

    Labels are −1 where the source has no label, or no name for it: a number alone is no class.
    """

    number: int
    ids: Int[Tensor, " image"]
    images: Float[Tensor, "image 3 height width"] | None
    labels: Int[Tensor, " image"]
    captions: list[str]
    skipped: list[tuple[int, str, str]]
    digest: bytes
    scaled: int = 0


def batches(
    source: Source,
    preprocess: Callable[[Image.Image], Tensor],
    numbers: Sequence[int],
    size: int,
    workers: int = 1,
) -> Iterator[Batch]:
    """Batches by number: number n holds entries n·size … n·size + size − 1.

    Threads decode `workers` images at a time, one batch ahead of the model.
    """

    def prepare(raw: Raw) -> tuple[LoadedImage, Tensor | None]:
        loaded = read(raw)
        return loaded, None if loaded.image is None else preprocess(loaded.image)

    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:

        def submit(number: int) -> list:
            entries = range(number * size, min((number + 1) * size, len(source)))
            return [pool.submit(prepare, raw) for raw in source.raws(entries)]

        ahead = None
        for number in [*numbers, None]:
            now, ahead = ahead, None if number is None else (number, submit(number))
            if now is not None:
                yield _collate(now[0], [f.result() for f in now[1]], len(source.class_names))


def _collate(number: int, prepared: list[tuple[LoadedImage, Tensor | None]], classes: int) -> Batch:
    good = [(p, t) for p, t in prepared if t is not None]
    return Batch(
        number=number,
        ids=torch.tensor([p.index for p, _ in good], dtype=torch.int64),
        images=torch.stack([t for _, t in good]) if good else None,
        labels=torch.tensor(
            [-1 if p.label is None or p.label >= classes else p.label for p, _ in good],
            dtype=torch.int64,
        ),
        captions=[p.caption for p, _ in good],
        skipped=[(p.index, p.name, p.reason or "") for p, t in prepared if t is None],
        digest=_joined(p for p, _ in prepared),
        scaled=sum(p.scaled for p, _ in good),
    )


def fingerprint(source: Source, size: int) -> str:
    """SHA-256 over the digests of all batches in order; files are read, not decoded."""
    starts = range(0, len(source), size)
    entries = (source.raws(range(start, min(start + size, len(source)))) for start in starts)
    return joined_digests(_joined(read(raw, decoded=False) for raw in batch) for batch in entries)


def joined_digests(digests: Iterable[bytes]) -> str:
    """One digest of those of the batches in order."""
    return hashlib.sha256("".join(digest.hex() for digest in digests).encode()).hexdigest()


def _joined(images: Iterable[LoadedImage]) -> bytes:
    return hashlib.sha256(b"".join(image.digest for image in images)).digest()
