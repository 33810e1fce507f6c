"""Effects of units on the image embedding, kept as scores along fixed directions.

A unit is a ViT neuron, whose *heads* are those of all later layers, which carry its effect, or a
ResNet neuron-head pair, which has exactly one. The effect of a unit on an image is
``Σ_head score · direction``: a few numbers instead of a vector of the embedding's size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.directions import Directions, SplitDirections, chunks

# Numbers that a piece of a batch's scores may have: on a CPU few enough to be worked on in a
# core's cache, elsewhere as many as keep the device busy.
_PIECE = {"cpu": 2**20}
_LARGE_PIECE = 2**26


@dataclass(frozen=True)
class Contributions:
    """Effects of all units of a layer on a batch of images.

    ``given`` are the scores, what each head carries, where they are known already; ``bias``,
    where asked for, is a vector that every unit of the layer shares. ``activations`` and
    ``weights`` are what the scores are summed from, so that an effect can be traced to positions
    of the image: ``scores[image, neuron, head] = Σ_token weights · activations``; the first
    ``prefix`` tokens are no patches: a ViT's class token, a ResNet's mean position. ``weights``
    have a row a head that reads the neurons: in a ViT of every later layer, or of its probe, which
    are the heads of the scores; in a ResNet of the pooling. Units of no place, those of a
    pooling's own MLP, have neither.
    """

    given: Float[Tensor, "image unit head"] | None
    directions: Directions
    bias: Float[Tensor, "image embed"] | None = None
    activations: Float[Tensor, "image token neuron"] | None = None
    weights: Float[Tensor, "image reader token"] | None = None
    prefix: int = 1

    @cached_property
    def scores(self) -> Float[Tensor, "image unit head"]:
        """What each head carries of each unit."""
        if self.given is not None:
            return self.given
        scores = torch.bmm(self.activations.mT, self.weights.mT)
        return scores.reshape(len(scores), self.directions.units, self.directions.heads)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.activations if self.given is None else self.given)

    @property
    def placed(self) -> bool:
        """Whether the effects can be traced to positions of the image."""
        return self.activations is not None

    def score_sum(self) -> Float[Tensor, "unit head"]:
        """Scores summed over the images, without making them where nobody asked for them."""
        if self._known is not None:
            return self._known.sum(0)
        summed = self.activations.flatten(0, 1).T @ self.weights.mT.flatten(0, 1)
        return summed.reshape(self.directions.units, self.directions.heads)

    def pieces(
        self, mean: "MeanEffect | None" = None
    ) -> Iterator[tuple[slice, Float[Tensor, "chosen image head"], Float[Tensor, "chosen image"]]]:
        """Scores and norms of some units at a time, centred on ``mean`` where given.

        Scores that nobody asked for are made here, few enough at a time to stay in a core's cache
        while they are read: those of a whole batch never are. They are overwritten by the next.
        """
        bias, along = self.bias, None
        if bias is not None:
            bias = bias if mean is None else bias - mean.bias
            along = self.directions.project(bias)
        for units, scores in self._scores_in_pieces():
            if mean is not None:
                scores -= mean.scores[units, None]
            squares = self.directions.squares(units, scores)
            if bias is not None:
                squares += 2 * (scores * along[units].mT).sum(-1) + bias.square().sum(-1)
            yield units, scores, squares.clamp_min_(0).sqrt_()

    def _scores_in_pieces(self) -> Iterator[tuple[slice, Float[Tensor, "chosen image head"]]]:
        """Copies, all in one piece of memory: fresh memory costs more than what is done in it."""
        known, images, heads = self._known, self.images, self.directions.heads
        source = self.activations if known is None else known
        # A neuron may be several units: in a ResNet one with each head that reads it.
        each = 1 if known is not None else self.directions.units // source.shape[2]
        most = _PIECE.get(source.device.type, _LARGE_PIECE) // (images * heads * each)
        parts = chunks(self.directions.units, max(1, most) * each)
        room = source.new_empty(images * parts[0].stop * heads)
        for units in parts:
            count = units.stop - units.start
            scores = room[: images * count * heads].view(images, count, heads)
            if known is None:
                activations = self.activations[..., units.start // each : units.stop // each]
                made = scores.view(images, count // each, each * heads)
                torch.bmm(activations.mT, self.weights.mT, out=made)
            else:
                scores.copy_(known[:, units])
            yield units, scores.transpose(0, 1)

    @property
    def _known(self) -> Float[Tensor, "image unit head"] | None:
        return self.given if self.given is not None else vars(self).get("scores")

    def dense(self, units: Int[Tensor, " chosen"]) -> Float[Tensor, "image chosen embed"]:
        """Effects of the chosen units as vectors."""
        effects = torch.einsum("bnk,nkd->bnd", self.scores[:, units], self.directions.dense(units))
        return effects if self.bias is None else effects + self.bias[:, None]

    def norms(self, mean: "MeanEffect | None" = None) -> Float[Tensor, "image unit"]:
        """Norms of the effects, centred on ``mean`` where given."""
        return torch.cat([norms for _, _, norms in self.pieces(mean)]).T

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

    def token_scores(
        self, image: int, units: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "chosen token head"]:
        """Each token's part of the scores of the chosen units; the sum over tokens is the score."""
        activations, weights = self.activations[image], self.weights[image]
        if isinstance(self.directions, SplitDirections):
            heads = self.directions.whole.heads
            return (activations[:, units // heads].T * weights[units % heads])[..., None]
        return activations[:, units].T[..., None] * weights.T[None]


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
