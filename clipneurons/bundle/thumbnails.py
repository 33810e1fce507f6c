"""Gallery thumbnails in one file: many small pictures, one after the other."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from clipneurons.bundle.config import BundleDamaged

# Top-activating images of a unit that are shown.
SHOWN = 24


def shown_images(
    images: Int[Tensor, " top"], norms: Float[Tensor, " top"], kept: Container[int]
) -> list[tuple[int, float]]:
    """A unit's first top images that have a thumbnail, with their effect norms; −1 pads."""
    pairs = zip(images.tolist(), norms.tolist(), strict=True)
    return [(image, norm) for image, norm in pairs if image >= 0 and image in kept][:SHOWN]


@dataclass(frozen=True, eq=False)
class Examples(Mapping[int, bytes]):
    """Gallery thumbnails: data set index -> WebP bytes, with one caption each; all in one file.

    webp holds the pictures one after the other, picture i in webp[offsets[i]:offsets[i + 1]].
    """

    ids: Int[Tensor, " example"]
    offsets: Int[Tensor, " edges"]
    webp: UInt8[Tensor, " byte"]
    captions: tuple[str, ...] = ()

    @classmethod
    def build(cls, pictures: Mapping[int, bytes], captions: Mapping[int, str]) -> Examples:
        """From index -> WebP bytes and index -> caption (line breaks become spaces)."""
        ids = sorted(pictures)
        ends = torch.tensor([0] + [len(pictures[i]) for i in ids], dtype=torch.int64).cumsum(0)
        blob = bytearray(b"".join(pictures[i] for i in ids))
        webp = torch.frombuffer(blob, dtype=torch.uint8) if blob else torch.zeros(0).byte()
        lines = tuple(" ".join(captions.get(i, "").split()) for i in ids)
        return cls(torch.tensor(ids, dtype=torch.int32), ends, webp, lines)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Examples:
        """The inverse of `tensors`; raises `BundleDamaged`, and `KeyError` names a missing one."""
        kinds = {
            "ids": Int[Tensor, " example"], "offsets": Int[Tensor, " edges"],
            "webp": UInt8[Tensor, " byte"], "captions": UInt8[Tensor, " character"],
        }  # fmt: skip
        for name, kind in kinds.items():
            if not isinstance(tensors[name], kind):
                shape = tuple(tensors[name].shape)
                raise BundleDamaged(f"thumbnails' {name} are {tensors[name].dtype} of {shape}")
        try:
            captions = bytes(tensors["captions"].tolist()).decode()
        except UnicodeDecodeError as error:
            raise BundleDamaged(f"thumbnails' captions are not UTF-8 text: {error}") from None
        lines = tuple(captions.split("\n")[:-1])
        return cls(tensors["ids"], tensors["offsets"], tensors["webp"], lines)

    def tensors(self) -> dict[str, Tensor]:
        """As they are stored, by name."""
        captions = "".join(f"{line}\n" for line in self.captions).encode()
        return {
            "ids": self.ids,
            "offsets": self.offsets,
            "webp": self.webp,
            "captions": torch.tensor(list(captions), dtype=torch.uint8),
        }

    def problems(self) -> list[str]:
        """What is wrong with the thumbnails, in words: numbers, places and captions."""
        wrong, count = [], len(self.ids)
        if not bool((self.ids.long().diff(prepend=torch.tensor([-1])) > 0).all()):
            wrong.append("thumbnails' ids do not rise from 0")
        steps = self.offsets.long().diff(prepend=torch.tensor([0]))
        ends = bool((steps >= 0).all()) and self.offsets[-1:].tolist() == [len(self.webp)]
        if len(self.offsets) != count + 1 or not ends or int(self.offsets[0]) != 0:
            wrong.append(f"thumbnails' offsets do not cut the file into {count}")
        if len(self.captions) not in (0, count):
            wrong.append(f"{len(self.captions)} captions of {count} thumbnails")
        return wrong

    def __getitem__(self, image: int) -> bytes:
        start, end = self.offsets[self._row(image) :][:2].tolist()
        return self.webp[start:end].numpy().tobytes()

    def caption(self, image: int) -> str:
        """The picture's caption or file name; empty where the source had none."""
        return self.captions[self._row(image)] if self.captions else ""

    def spread(self, count: int) -> list[int]:
        """Numbers of some pictures, spread evenly over all."""
        images = list(self)
        return images[:: max(1, len(images) // count)][:count]

    def _row(self, image: int) -> int:
        row = int(torch.searchsorted(self.ids, image))
        if row == len(self.ids) or int(self.ids[row]) != image:
            raise KeyError(image)
        return row

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids.tolist())

    def __len__(self) -> int:
        return len(self.ids)
