"""Effects of units on the image embedding, kept as scores along fixed directions.

    effect[image, unit] = Σ_head score[image, unit, head] · direction[unit, head] (+ bias[image])

A unit is a ViT neuron, whose *heads* are those of all later layers, which carry its effect, or a
ResNet neuron-head pair, which has exactly one head. An effect is a few numbers instead of a vector
of the embedding's size. :class:`ScoredContributions` holds the scores themselves,
:class:`SpatialContributions` the activations and attention weights that they are sums of.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.directions import Directions, SplitDirections, chunks

# Numbers that a block of a batch's scores may have: on a CPU few enough to be worked on in a
# core's cache, elsewhere as many as keep the device busy.
_BLOCK = {"cpu": 2**20}
_LARGE_BLOCK = 2**26


class Contributions(ABC):
    """Effects of all units of a layer on a batch of images.

    ``bias``, where asked for, is a vector that every unit of the layer shares.
    """

    directions: Directions
    bias: Float[Tensor, "image embed"] | None
    scores: Float[Tensor, "image unit head"]

    @property
    @abstractmethod
    def images(self) -> int:
        """Number of images."""

    @abstractmethod
    def score_sum(self) -> Float[Tensor, "unit head"]:
        """Scores summed over the images."""

    @abstractmethod
    def scored(self) -> "ScoredContributions":
        """The same effects with their scores worked out and nothing else kept."""

    @abstractmethod
    def _block(self, units: slice) -> Float[Tensor, "image chosen head"]:
        """Scores of some units in memory of their own."""

    @property
    def _units_at_once(self) -> int:
        most = _BLOCK.get(self.directions.device.type, _LARGE_BLOCK)
        return max(1, most // (self.images * self.directions.heads))

    def blocks(
        self, mean: "MeanEffect | None" = None
    ) -> Iterator[tuple[slice, Float[Tensor, "chosen image head"], Float[Tensor, "chosen image"]]]:
        """Scores and norms of some units at a time, centred on ``mean`` where given.

        A block is small enough to stay in a core's cache while it is read. It is yours to keep
        or to change.
        """
        bias, along = self.bias, None
        if bias is not None:
            bias = bias if mean is None else bias - mean.bias
            along = self.directions.project(bias)  # [unit, head, image]
        for units in chunks(self.directions.units, self._units_at_once):
            scores = self._block(units).transpose(0, 1)  # [chosen, image, head]
            if mean is not None:
                scores -= mean.scores[units, None]
            squares = self.directions.squares(units, scores)  # [chosen, image]
            if bias is not None:
                squares += 2 * (scores * along[units].mT).sum(-1) + bias.square().sum(-1)
            yield units, scores, squares.clamp_min_(0).sqrt_()

    def norms(self, mean: "MeanEffect | None" = None) -> Float[Tensor, "image unit"]:
        """Norms of the effects, centred on ``mean`` where given."""
        return torch.cat([norms for _, _, norms in self.blocks(mean)]).T

    def dense(self, units: Int[Tensor, " chosen"]) -> Float[Tensor, "image chosen embed"]:
        """Effects of the chosen units as vectors."""
        effects = torch.einsum("bnk,nkd->bnd", self.scores[:, units], self.directions.dense(units))
        return effects if self.bias is None else effects + self.bias[:, None]

    def project(
        self, vectors: Float[Tensor, "unit embed"], mean: "MeanEffect | None" = None
    ) -> Float[Tensor, "image unit"]:
        """Inner product of each unit's effect, centred where ``mean`` is given, with its vector."""
        scores, bias = self._centred(mean)
        projected = torch.einsum("bnk,nk->bn", scores, self.directions.along(vectors))
        return projected if bias is None else projected + bias @ vectors.T

    def sum(
        self,
        keep: Float[Tensor, "image unit"] | None = None,
        mean: "MeanEffect | None" = None,
    ) -> Float[Tensor, "image embed"]:
        """Sum of the effects over all units, centred and weighted by ``keep`` where given."""
        scores, bias = self._centred(mean)
        total = self.directions.sum(scores if keep is None else scores * keep[..., None])
        if bias is not None:
            count = self.directions.units if keep is None else keep.sum(-1, keepdim=True)
            total = total + count * bias
        return total

    def _centred(
        self, mean: "MeanEffect | None"
    ) -> tuple[Float[Tensor, "image unit head"], Float[Tensor, "image embed"] | None]:
        """Scores and shared bias."""
        if mean is None:
            return self.scores, self.bias
        return self.scores - mean.scores, None if self.bias is None else self.bias - mean.bias


@dataclass(frozen=True)
class ScoredContributions(Contributions):
    """Effects of which the scores are given: they cannot be traced to positions of the image."""

    scores: Float[Tensor, "image unit head"]
    directions: Directions
    bias: Float[Tensor, "image embed"] | None = None

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.scores)

    def score_sum(self) -> Float[Tensor, "unit head"]:
        """Scores summed over the images."""
        return self.scores.sum(0)

    def scored(self) -> "ScoredContributions":
        """These effects themselves."""
        return self

    def _block(self, units: slice) -> Float[Tensor, "image chosen head"]:
        return self.scores[:, units].clone()


@dataclass(frozen=True)
class SpatialContributions(Contributions):
    """Effects of which each score is a sum over the tokens of the image.

        score[image, neuron, head] = Σ_token activations[image, token, neuron] ·
                                             weights[image, head, token]

    ``weights`` has one row for each head that reads the neurons: those of all later layers or of
    the probe in a ViT, of the pooling in a ResNet. The first ``prefix`` tokens are not patches: a
    ViT's class token and registers, a ResNet's mean position.
    """

    activations: Float[Tensor, "image token neuron"]
    weights: Float[Tensor, "image head token"]
    directions: Directions
    bias: Float[Tensor, "image embed"] | None = None
    prefix: int = 1

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.activations)

    @cached_property
    def scores(self) -> Float[Tensor, "image unit head"]:
        """What each head carries of each unit."""
        return self._block(slice(0, self.directions.units))

    def scored(self) -> ScoredContributions:
        """The same effects with the sums over tokens done, which frees activations and weights."""
        return ScoredContributions(self.scores, self.directions, self.bias)

    def score_sum(self) -> Float[Tensor, "unit head"]:
        """Scores summed over the images, without the scores of any one image."""
        summed = self.activations.flatten(0, 1).T @ self.weights.mT.flatten(0, 1)
        return summed.reshape(self.directions.units, self.directions.heads)

    def token_scores(
        self, image: int, units: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "chosen token head"]:
        """Each token's part of the scores of the chosen units; the sum over tokens is the score."""
        activations, weights = self.activations[image], self.weights[image]
        if isinstance(self.directions, SplitDirections):
            heads = self._pairs
            return (activations[:, units // heads].T * weights[units % heads])[..., None]
        return activations[:, units].T[..., None] * weights.T[None]

    @property
    def _pairs(self) -> int:
        """Units that each neuron is: in a ResNet one with each head that reads it."""
        return self.directions.units // self.activations.shape[2]

    @property
    def _units_at_once(self) -> int:
        """Whole neurons."""
        return max(1, super()._units_at_once // self._pairs) * self._pairs

    def _block(self, units: slice) -> Float[Tensor, "image chosen head"]:
        neurons = slice(units.start // self._pairs, units.stop // self._pairs)
        scores = torch.bmm(self.activations[..., neurons].mT, self.weights.mT)
        return scores.view(len(scores), -1, self.directions.heads)  # a neuron's pairs as units


@dataclass(frozen=True)
class MeanEffect:
    """Mean over a data set of the scores, and of the shared bias where it is in use."""

    scores: Float[Tensor, "unit head"]
    bias: Float[Tensor, " embed"] | None = None

    @classmethod
    def from_dense(cls, means: Float[Tensor, "unit embed"], directions: Directions) -> "MeanEffect":
        """The inverse of :meth:`dense` without bias: least squares, in float64."""
        parts = []
        for chunk in chunks(directions.units):
            dense = directions.dense(chunk).double()  # [unit, head, embed]
            inverse = torch.linalg.pinv(dense @ dense.mT, hermitian=True)
            parts.append((inverse @ (dense @ means[chunk].double()[..., None]))[..., 0].float())
        return cls(torch.cat(parts))

    def dense(self, directions: Directions) -> Float[Tensor, "unit embed"]:
        """Mean effect of each unit as a vector."""
        means = torch.cat(
            [
                torch.einsum("nk,nkd->nd", self.scores[chunk], directions.dense(chunk))
                for chunk in chunks(directions.units)
            ]
        )
        return means if self.bias is None else means + self.bias
