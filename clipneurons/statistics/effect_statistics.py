"""Statistics of the effects of each unit over a data set: streaming, exact, mergeable.

Two passes: `RunningMean` first, then :class:`EffectStatistics` of the effects centred on that
mean. Both take batches in any order and split, and merge with others of the same data set.
Nothing of size ``[image, unit, embed]`` is ever held.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int32, Int64
from torch import Tensor

from clipneurons.lens.contributions import Contributions, MeanEffect
from clipneurons.lens.directions import Directions
from clipneurons.statistics.principal_component import principal_directions
from clipneurons.statistics.streaming.image_vectors import ImageVectors
from clipneurons.statistics.streaming.norm_histogram import NormHistogram
from clipneurons.statistics.streaming.norm_moments import NormMoments
from clipneurons.statistics.streaming.running_mean import RunningMean
from clipneurons.statistics.streaming.tail_quantile import TailQuantile
from clipneurons.statistics.streaming.top_effects import TopEffects


@dataclass(frozen=True)
class UnitStatistics:
    """What the export keeps of each unit of a layer.

    Norms are those of effects centred on the mean. ``top_norms`` descend; ``threshold`` is
    their last (the k-th largest). ``participation_ratio`` is the participation ratio
    ``(Σ‖φ‖²)² / (images · Σ‖φ‖⁴)``: 1 when an effect is the same on all images, 1/images when
    a single image has it. A unit without any effect has a zero direction.
    """

    means: Float32[Tensor, "unit embed"]
    directions: Float32[Tensor, "unit embed"]
    explained_variance: Float32[Tensor, " unit"]
    top_norms: Float32[Tensor, "unit k"]
    top_activating_images: Int64[Tensor, "unit k"]
    percentile: Float32[Tensor, " unit"]
    norm_histogram: Int32[Tensor, "unit bin"]
    participation_ratio: Float32[Tensor, " unit"]
    count: int

    @property
    def threshold(self) -> Float32[Tensor, " unit"]:
        """The smallest of the top norms of each unit."""
        return self.top_norms[:, -1]


class EffectStatistics:
    """Top effects, percentile and spread of the centred norms of one layer's units.

    Args:
        mean: the mean effect over the whole data set.
        directions: the layer's directions.
        images: size of the whole data set, which fixes how many norms the percentile needs.
        top_k: effects kept for the principal component (the paper's 100).
        percentile: in percent, of the activated-unit threshold (the paper's 98).

    With a shared bias the bias of every image is kept as well (images · embed numbers).
    """

    def __init__(
        self,
        mean: MeanEffect,
        directions: Directions,
        images: int,
        top_k: int = 100,
        percentile: float = 98.0,
    ) -> None:
        if images < 1 or top_k < 1 or not 0 <= percentile <= 100:
            raise ValueError(
                "expected at least one image, top_k of at least 1 and a percentile between 0 and "
                f"100, not {images}, {top_k} and {percentile}"
            )
        units, heads = mean.scores.shape
        device = mean.scores.device
        self.mean, self.directions = mean, directions
        self.images, self.count = images, 0
        self.top = TopEffects(units, heads, min(top_k, images), device)
        self.quantile = TailQuantile(units, images, percentile, device)
        self.histogram = NormHistogram(units, device)
        self.moments = NormMoments(units, device)
        self.biases = ImageVectors()

    @property
    def _of_norms(self) -> tuple[TailQuantile, NormHistogram, NormMoments]:
        """The parts that need nothing but the norms."""
        return self.quantile, self.histogram, self.moments

    @property
    def _parts(self) -> tuple:
        return self.top, *self._of_norms, self.biases

    def update(self, batch: Contributions, ids: Int64[Tensor, " image"]) -> None:
        """Add a batch; ``ids`` are the images' numbers in the data set, each used once.

        Raises:
            ValueError: a norm is NaN or infinite, or more images came than were announced.
        """
        self._count(len(ids))
        pieces = []
        for units, scores, norms in batch.blocks(self.mean):
            self.top.update(units, norms, ids, scores)
            pieces.append(norms)
        norms = torch.cat(pieces)
        if not norms.isfinite().all():
            bad = (~norms.isfinite()).any(0).nonzero()[0].item()
            raise ValueError(f"expected finite effects, image {ids[bad].item()} gives NaN or inf")
        for part in self._of_norms:
            part.update(norms)
        if batch.bias is not None:
            self.biases.update(ids, batch.bias)

    def merge(self, other: "EffectStatistics") -> None:
        """Add what another process saw of the same data set, around the same mean.

        Raises:
            ValueError: the other one was centred on another mean.
        """
        if not torch.equal(self.mean.scores, other.mean.scores):
            raise ValueError("expected statistics around one mean; merge the means first")
        self._count(other.count)
        for mine, theirs in zip(self._parts, other._parts, strict=True):
            mine.merge(theirs)

    def _count(self, more: int) -> None:
        self.count += more
        if self.count > self.images:
            raise ValueError(f"{self.images} images were announced, {self.count} came")

    def finish(self) -> UnitStatistics:
        """Statistics of all units, with the principal direction of their top effects.

        Raises:
            ValueError: fewer images came than were announced.
        """
        if self.count != self.images:
            raise ValueError(f"{self.images} images were announced, {self.count} came")
        norms, ids, rows = self.top.descending(self.count)
        biases = self.biases.of(ids)
        directions, explained = principal_directions(
            rows,
            self.directions,
            None if biases is None else biases.sub_(self.mean.bias),
        )
        return UnitStatistics(
            means=self.mean.dense(self.directions),
            directions=directions,
            explained_variance=explained,
            top_norms=norms,
            top_activating_images=ids,
            percentile=self.quantile.value(),
            norm_histogram=self.histogram.counts,
            participation_ratio=self.moments.participation_ratio(self.count),
            count=self.count,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on (the mean is not among them)."""
        state = {"count": torch.tensor(self.count)}
        for part in self._parts:
            state |= part.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the :meth:`state_dict` of an object made with the same arguments."""
        self.count = int(state["count"])
        for part in self._parts:
            part.load_state_dict(state)


Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def collect_statistics(
    lens: Callable,
    batches: Batches,
    images: int,
    *,
    top_k: int = 100,
    percentile: float = 98.0,
    memory_budget: int = 2**30,
) -> dict[int, UnitStatistics]:
    """Statistics of every layer of a lens over a data set that fits one process.

    ``batches()`` starts a pass over ``(ids [image], images [image, 3, height, width])``. When
    the scores of all images fit ``memory_budget`` bytes the images are run once and the scores
    kept; else they are run twice. The result is the same.

    Raises:
        ValueError: no images, not as many as announced, NaN or infinite activations.
    """
    means: dict[int, RunningMean] = {layer: RunningMean() for layer in lens.directions}
    per_image = sum(4 * d.units * d.heads for d in lens.directions.values())
    cache = [] if per_image * images <= memory_budget else None
    for ids, batch in batches():
        _, contributions = lens(batch)
        if cache is not None:
            contributions = {layer: mine.scored() for layer, mine in contributions.items()}
            cache.append((ids, contributions))
        for layer, mine in contributions.items():
            means[layer].update(mine)
    statistics = {
        layer: EffectStatistics(mean.mean(), lens.directions[layer], images, top_k, percentile)
        for layer, mean in means.items()
    }
    again = cache if cache is not None else ((ids, lens(batch)[1]) for ids, batch in batches())
    for ids, contributions in again:
        for layer, mine in contributions.items():
            statistics[layer].update(mine, ids)
    return {layer: mine.finish() for layer, mine in statistics.items()}
