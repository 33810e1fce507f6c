"""The gallery: thumbnails of the images that units respond to most, as the model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from clipneurons.bundle.thumbnails import Examples
from clipneurons.models.clip import ClipModel
from clipneurons.statistics.effect_statistics import UnitStatistics
from export.data.dataset import Source
from export.data.loader import read

# Longest side, in pixels, and WebP quality of a thumbnail.
LARGEST = 128
QUALITY = 75


def choose(statistics: Mapping[int, UnitStatistics], per_unit: int) -> list[int]:
    """Images among the first `per_unit` of any unit; every unit's first before any second.

    Of the same rank, those that more units share come first.
    """
    chosen: dict[int, None] = {}
    for rank in range(per_unit):
        columns = [
            s.top_activating_images[:, rank]
            for s in statistics.values()
            if s.top_activating_images.shape[1] > rank
        ]
        if columns:
            ids, counts = torch.cat(columns).cpu().unique(return_counts=True)
            order = counts.argsort(descending=True, stable=True)
            chosen |= dict.fromkeys(ids[order].tolist())
    return list(chosen)


def make_gallery(clip: ClipModel, source: Source, ranked: list[int], budget: int) -> Examples:
    """Thumbnails of the first images of `ranked` that fit into `budget` bytes."""
    if not ranked:
        return Examples.build({}, {})
    trial = _thumbnails(clip, source, ranked[:16])
    mean = sum(len(webp) for webp, _ in trial.values()) / max(len(trial), 1)
    thumbnails = trial | _thumbnails(clip, source, ranked[16 : int(1.25 * budget / max(mean, 1))])
    kept, captions, used = {}, {}, 0
    for image in ranked:
        webp, caption = thumbnails.get(image, (b"", ""))
        used += len(webp)
        if used > budget:
            break
        if webp:
            kept[image], captions[image] = webp, caption
    return Examples.build(kept, captions)


def _thumbnails(clip: ClipModel, source: Source, ids: list[int]) -> dict[int, tuple[bytes, str]]:
    thumbnails = {}
    for raw in source.raws(sorted(ids)):
        entry = read(raw)
        if entry.image is not None:
            webp = encode(clip, clip.preprocess(entry.image))
            thumbnails[entry.index] = (webp, entry.caption)
    return thumbnails


def encode(clip: ClipModel, pixels: Tensor) -> bytes:
    """WebP of a preprocessed image [3, height, width], at most `LARGEST` pixels on a side."""
    mean = torch.tensor(clip.image_mean)[:, None, None]
    std = torch.tensor(clip.image_std)[:, None, None]
    bytes_ = ((pixels.cpu() * std + mean) * 255).round().clamp(0, 255).byte()
    image = Image.fromarray(bytes_.permute(1, 2, 0).numpy())  # [height, width, 3]
    image.thumbnail((LARGEST, LARGEST))
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


class DecodedGallery:
    """A bundle's thumbnails as RGB images by their numbers; each is decoded once."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self._decode = cache(self._read)

    def __getitem__(self, number: int) -> Image.Image:
        return self._decode(number)

    def _read(self, number: int) -> Image.Image:
        with Image.open(BytesIO(self.examples[number])) as image:
            return image.convert("RGB")
