"""Statistics of the effects of each unit over a data set: streaming, exact, mergeable.

Two passes: :class:`RunningMean` first, then :class:`EffectStatistics` of the effects centred on
that mean. Both take batches in any order and split, and merge with others of the same data set.
Nothing of size ``[image, unit, embed]`` is ever held.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int32, Int64
from torch import Tensor

from clipneurons.analysis.principal_component import principal_directions
from clipneurons.lens.contributions import Contributions, Directions, MeanEffect

# Logarithmic bins for histograms of norms; effects have the scale of a norm-100 embedding.
NORM_BINS = np.logspace(-4, 3, 71)
_LAST_ID = 2**32 - 1


class RunningMean:
    """Mean of the scores (and shared bias) of one layer, accumulated in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.scores: Float64[Tensor, "unit head"] | None = None
        self.bias: Float64[Tensor, " embed"] | None = None

    def update(self, batch: Contributions) -> None:
        """Add a batch."""
        bias = None if batch.bias is None else batch.bias.sum(0, dtype=torch.float64)
        self._add(len(batch.scores), batch.scores.sum(0, dtype=torch.float64), bias)

    def merge(self, other: "RunningMean") -> None:
        """Add what another process accumulated."""
        if other.count:
            self._add(other.count, other.scores, other.bias)

    def _add(self, count: int, scores: Tensor, bias: Tensor | None) -> None:
        if self.count == 0:
            self.scores, self.bias = torch.zeros_like(scores), bias if bias is None else bias * 0
        self.count += count
        self.scores += scores
        if bias is not None:
            self.bias += bias

    def mean(self) -> MeanEffect:
        """The mean so far, in float32.

        Raises:
            ValueError: no image was seen, or a score was not finite.
        """
        if self.count == 0:
            raise ValueError("the data set is empty: expected at least one image")
        scores = (self.scores / self.count).float()
        if not scores.isfinite().all():
            raise ValueError("expected finite scores, the mean effect has NaN or infinity")
        bias = None if self.bias is None else (self.bias / self.count).float()
        return MeanEffect(scores, bias)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on."""
        state = {"count": torch.tensor(self.count)}
        if self.scores is not None:
            state["scores"] = self.scores
        if self.bias is not None:
            state["bias"] = self.bias
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from another object's :meth:`state_dict`."""
        self.count = int(state["count"])
        self.scores, self.bias = state.get("scores"), state.get("bias")


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
        self.images, self.top_k, self.percentile = images, min(top_k, images), percentile
        self.count = 0
        # A key orders by norm, then by image: ties cannot depend on the order of batches.
        empty = -1 - torch.arange(self.top_k, device=device)
        self._keys = empty.repeat(units, 1)
        self._rows = torch.zeros(units, self.top_k, heads, device=device)
        # Small batches wait here until together they are worth a selection.
        self._waiting: list[tuple[Tensor, Tensor]] = []
        # The percentile interpolates between the `tail`-th largest norm and the next.
        self._tail_size = images - floor(percentile / 100 * (images - 1))
        self._tail = torch.full((units, 2 * self._tail_size), -1.0, device=device)
        self._tail_filled = self._tail_size
        self._edges = torch.tensor(NORM_BINS[1:-1], dtype=torch.float32, device=device)
        bins = len(NORM_BINS) - 1
        self._histogram = torch.zeros(units, bins, dtype=torch.int32, device=device)
        self._moments = torch.zeros(2, units, dtype=torch.float64, device=device)
        self._bias_ids: list[Tensor] = []
        self._biases: list[Tensor] = []

    def update(self, batch: Contributions, ids: Int64[Tensor, " image"]) -> None:
        """Add a batch; ``ids`` are the images' numbers in the data set, each used once.

        Raises:
            ValueError: a norm is NaN or infinite, or more images came than were announced.
        """
        norms = batch.norms(self.mean).T.contiguous()
        if not norms.isfinite().all():
            bad = (~norms.isfinite()).any(0).nonzero()[0].item()
            raise ValueError(f"expected finite effects, image {ids[bad].item()} gives NaN or inf")
        self._count(len(ids))
        squares = norms.square()
        self._moments += torch.stack([squares.sum(1), squares.square_().sum(1)])
        bins = torch.bucketize(norms, self._edges)
        one = torch.ones((), dtype=torch.int32, device=bins.device)
        self._histogram.scatter_add_(1, bins, one.expand_as(bins))
        self._keep_tail(norms)
        keys = norms.view(torch.int32).long().bitwise_left_shift_(32)
        keys |= _LAST_ID - ids.to(norms.device)
        self._waiting.append((keys, batch.scores))
        if 2 * sum(keys.shape[1] for keys, _ in self._waiting) >= self.top_k:
            self._select()
        if batch.bias is not None:
            self._bias_ids.append(ids.to(batch.bias.device))
            self._biases.append(batch.bias)

    def merge(self, other: "EffectStatistics") -> None:
        """Add what another process saw of the same data set, around the same mean.

        Raises:
            ValueError: the other one was centred on another mean.
        """
        if not torch.equal(self.mean.scores, other.mean.scores):
            raise ValueError("expected statistics around one mean; merge the means first")
        self._count(other.count)
        self._moments += other._moments
        self._histogram += other._histogram
        self._keep_tail(other._tail[:, : other._tail_filled])
        other._select()
        self._keep_top(other._keys, other._rows)
        self._bias_ids += other._bias_ids
        self._biases += other._biases

    def _count(self, more: int) -> None:
        self.count += more
        if self.count > self.images:
            raise ValueError(f"{self.images} images were announced, {self.count} came")

    def _keep_tail(self, norms: Float[Tensor, "unit image"]) -> None:
        size = self._tail_size
        for part in norms.split(size, dim=1):
            if self._tail_filled + part.shape[1] > 2 * size:
                self._compact_tail()
            self._tail[:, self._tail_filled : self._tail_filled + part.shape[1]] = part
            self._tail_filled += part.shape[1]

    def _compact_tail(self) -> None:
        size = self._tail_size
        self._tail[:, :size] = self._tail[:, : self._tail_filled].topk(size, dim=1).values
        self._tail_filled = size

    def _select(self) -> None:
        if self._waiting:
            keys, scores = zip(*self._waiting, strict=True)
            self._waiting = []
            self._keep_top(torch.cat(keys, 1), torch.cat(scores).transpose(0, 1))

    def _keep_top(self, keys: Int64[Tensor, "unit new"], rows: Tensor) -> None:
        """Replace the smallest kept effects by larger new ones."""
        hit = (keys > self._keys.amin(1, keepdim=True)).any(1).nonzero().flatten()
        if not len(hit):
            return
        kept, new = self._keys[hit], keys[hit]
        last = torch.cat([kept, new], 1).topk(self.top_k, dim=1).values[:, -1:]
        # Keys are distinct, so each unit drops exactly as many as it takes.
        drop, take = (kept < last).nonzero(as_tuple=True), (new >= last).nonzero(as_tuple=True)
        self._keys[hit[drop[0]], drop[1]] = new[take]
        self._rows[hit[drop[0]], drop[1]] = rows[hit[take[0]], take[1]]

    def top(self) -> tuple[Float[Tensor, "unit k"], Int64[Tensor, "unit k"], Tensor]:
        """Largest centred norms, their images, and their scores, largest first."""
        self._select()
        filled = min(self.top_k, self.count)
        keys, order = self._keys.sort(dim=1, descending=True)
        keys, order = keys[:, :filled], order[:, :filled]
        norms = (keys >> 32).int().view(torch.float32)
        rows = self._rows.gather(1, order[..., None].expand(-1, -1, self._rows.shape[2]))
        return norms, _LAST_ID - (keys & _LAST_ID), rows

    def finish(self) -> UnitStatistics:
        """Statistics of all units, with the principal direction of their top effects.

        Raises:
            ValueError: fewer images came than were announced.
        """
        if self.count != self.images:
            raise ValueError(f"{self.images} images were announced, {self.count} came")
        norms, ids, rows = self.top()
        biases = None
        if self._biases:
            seen, place = torch.cat(self._bias_ids).sort()
            by_id = torch.cat(self._biases)[place] - self.mean.bias
            biases = by_id[torch.searchsorted(seen, ids)]
        directions, explained = principal_directions(
            rows - self.mean.scores[:, None], self.directions, biases
        )
        second, fourth = self._moments
        share = torch.where(fourth > 0, second.square() / (self.count * fourth), 0.0)
        return UnitStatistics(
            means=self.mean.dense(self.directions),
            directions=directions,
            explained_variance=explained,
            top_norms=norms,
            top_activating_images=ids,
            percentile=self._interpolated_percentile(),
            norm_histogram=self._histogram,
            participation_ratio=share.float(),
            count=self.count,
        )

    def _interpolated_percentile(self) -> Float[Tensor, " unit"]:
        self._compact_tail()
        descending = self._tail[:, : self._tail_size].sort(dim=1, descending=True).values
        rank = self.percentile / 100 * (self.images - 1)
        low = descending[:, self.images - 1 - floor(rank)]
        high = descending[:, self.images - 1 - ceil(rank)]
        return low + (high - low) * (rank - floor(rank))

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on (the mean is not among them)."""
        self._select()
        state = {
            "count": torch.tensor(self.count),
            "keys": self._keys,
            "rows": self._rows,
            "tail": self._tail[:, : self._tail_filled].contiguous(),
            "histogram": self._histogram,
            "moments": self._moments,
        }
        if self._biases:
            state["bias_ids"] = torch.cat(self._bias_ids)
            state["biases"] = torch.cat(self._biases)
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the :meth:`state_dict` of an object made with the same arguments."""
        self.count = int(state["count"])
        self._waiting = []
        self._keys, self._rows = state["keys"].clone(), state["rows"].clone()
        self._tail_filled = state["tail"].shape[1]
        self._tail[:, : self._tail_filled] = state["tail"]
        self._histogram, self._moments = state["histogram"].clone(), state["moments"].clone()
        self._bias_ids = [state["bias_ids"]] if "bias_ids" in state else []
        self._biases = [state["biases"]] if "biases" in state else []


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
        for layer, mine in contributions.items():
            means[layer].update(mine)
        if cache is not None:
            light = {
                layer: Contributions(mine.scores, mine.directions, mine.bias)
                for layer, mine in contributions.items()
            }
            cache.append((ids, light))
    statistics = {
        layer: EffectStatistics(mean.mean(), lens.directions[layer], images, top_k, percentile)
        for layer, mean in means.items()
    }
    again = cache if cache is not None else ((ids, lens(batch)[1]) for ids, batch in batches())
    for ids, contributions in again:
        for layer, mine in contributions.items():
            statistics[layer].update(mine, ids)
    return {layer: mine.finish() for layer, mine in statistics.items()}
