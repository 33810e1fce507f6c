"""What the experiments on one bundle share: its model, images, classes and statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.statistics.effect_statistics import UnitStatistics, collect_statistics
from export.common.errors import UserError
from export.common.settings import Settings
from export.data.dataset import Content, Raw, Source
from export.data.loader import batches
from export.data.open_source import shipped_spec, ships
from export.evaluation.fidelity import fidelity
from export.evaluation.zero_shot import class_embeddings
from export.pipeline.inputs import heldout_images, open_images
from research.papers.types import Options

# Scores of a batch that may be in memory at once.
_BATCH_BYTES = 2**29


@dataclass
class Chosen:
    """Some entries of a source, renumbered from 0; composed images are composed once."""

    source: Any
    numbers: Sequence[int]
    kept: dict[int, Content] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.numbers)

    def raws(self, indices: Sequence[int]) -> Iterator[Raw]:
        for index, raw in zip(
            indices, self.source.raws([self.numbers[i] for i in indices]), strict=True
        ):
            yield replace(raw, index=index, load=partial(self._load, index, raw))

    def _load(self, index: int, raw: Raw) -> Content:
        if index in self.kept:
            return self.kept[index]
        content = raw.load()
        if isinstance(content.data, Image.Image):  # not the bytes of a file
            self.kept[index] = content
        return content


@dataclass(frozen=True, eq=False)
class EvaluationContext:
    """A bundle on its model, with the images that `images` names (scenes by default)."""

    bundle: Bundle
    folder: Path
    clip: ClipModel
    options: Options
    images: str | None = None
    split: str | None = None
    batch: int = 64
    workers: int = 2
    work: Path = Path(".")

    @cached_property
    def settings(self) -> Settings:
        """Where images come from."""
        images = self.images or shipped_spec(self.bundle.config.data.name)
        if not images:
            raise UserError("--images is needed: which images should be classified?")
        return Settings(images=images, split=self.split)

    @cached_property
    def usual(self) -> Source:
        """Images for statistics, as many as the options say, chosen by chance."""
        source = open_images(self.settings, self.clip)
        return Chosen(source, self._order(len(source))[: self.options.statistics])

    @cached_property
    def judged(self) -> Source:
        """Labelled images that conditions are compared on; none of `usual`."""
        source = heldout_images(self.settings, self.clip)
        order = self._order(len(source))
        if not ships(self.settings.images):
            order = order[self.options.statistics :] or order  # too few to keep them apart
        return Chosen(source, sorted(order[: self.options.images]))

    @staticmethod
    def _order(count: int) -> list[int]:
        return np.random.default_rng(0).permutation(count).tolist()

    @cached_property
    def classifier(self) -> Float[Tensor, "class embed"]:
        """A unit row for each class of the judged images."""
        return class_embeddings(self.judged.class_names, self.clip, self.bundle)

    @property
    def layer(self) -> int:
        """The layer of single-layer experiments: the middle one of the bundle (9 of ViT-B/32)."""
        layers = sorted(self.bundle.layers)
        return layers[len(layers) // 2]

    def pass_over(self, source: Source, what: str, limit: int | None = None) -> Iterator:
        """Batches of `(ids, images, labels)` on the model's device; labels are −1 if unknown."""
        count = len(source) if limit is None else min(limit, len(source))
        numbers = range(-(-count // self.batch))
        with tqdm(total=count, desc=what, unit="images", disable=None, leave=False) as bar:
            for batch in batches(source, self.clip.preprocess, numbers, self.batch, self.workers):
                bar.update(len(batch.ids) + len(batch.skipped))
                if batch.images is not None:
                    keep = batch.ids < count
                    device = self.clip.device
                    images = batch.images[keep].to(device)
                    yield batch.ids[keep], images, batch.labels[keep].to(device)

    def count_readable(self, source: Source) -> int:
        """Images of a source that can be read."""
        return sum(len(ids) for ids, _, _ in self.pass_over(source, "reading"))

    @cached_property
    def groups(self) -> list[tuple[int, ...]]:
        """All layers with effects, in groups whose scores fit memory."""
        if self.clip.kind == "resnet":
            return [(4,)]
        groups: list[tuple[int, ...]] = []
        room = 0
        for layer in self.clip.anatomy.readable_blocks:
            size = 4 * self.clip.neurons * self.clip.anatomy.readers(layer) * self.batch
            if size > room:
                groups.append(())
                room = _BATCH_BYTES
            groups[-1] += (layer,)
            room -= size
        return groups

    def wide(self, layers: tuple[int, ...]) -> Bundle:
        """The bundle with other layers too, whose statistics are computed now; no phrases."""
        bundle, found = self.bundle, {}
        missing = tuple(layer for layer in layers if layer not in bundle.layers)
        if missing:
            found = self._statistics(missing)
        arrays = {
            layer: bundle.layers[layer] if layer in bundle.layers else _arrays(found[layer])
            for layer in layers
        }
        config = replace(bundle.config, layers=layers, centred_pool=False)
        return replace(
            bundle, config=config, layers=arrays, text_embeddings=bundle.text_embeddings[:1]
        )

    def _statistics(self, layers: tuple[int, ...]) -> dict[int, UnitStatistics]:
        config = self.bundle.config
        lens = Lens(self.clip, layers)
        count = self.count_readable(self.usual)
        if not count:
            raise UserError(f"none of the images of {self.usual.name} can be read")
        # The same share of the images as in the bundle.
        top_k = max(2, round(config.top_k * count / max(config.data.count, 1)))
        passes = partial(self.pass_over, self.usual, f"statistics of layers {layers}")
        return collect_statistics(
            lens,
            lambda: ((ids, images) for ids, images, _ in passes()),
            count,
            top_k=top_k,
            percentile=config.percentile,
        )

    def fidelity(self, bundle: Bundle, sizes: tuple[int, ...] = (1,)) -> dict:
        """`export.evaluation.fidelity` of a variant of the bundle on the judged images."""
        return fidelity(
            bundle, self.clip, self.judged, self.classifier,
            sizes=sizes, batch=self.batch, workers=self.workers,
        )  # fmt: skip


def _arrays(found: UnitStatistics) -> LayerArrays:
    """Statistics as a bundle has them, with one empty phrase a unit."""
    count = len(found.directions)
    return LayerArrays(
        directions=found.directions.cpu(),
        means=found.means.cpu(),
        percentile=found.percentile.cpu(),
        threshold=found.threshold.cpu(),
        explained_variance=found.explained_variance.cpu(),
        top_norms=found.top_norms.cpu(),
        top_activating_images=found.top_activating_images.int().cpu(),
        norm_histogram=found.norm_histogram.cpu(),
        participation_ratio=found.participation_ratio.cpu(),
        indices=torch.zeros(count, 1, dtype=torch.int32),
        coefficients=torch.zeros(count, 1),
    )
