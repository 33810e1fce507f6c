"""Effects of units on the image embedding, kept as scores along fixed directions.

A unit is a ViT neuron, whose *heads* are those of all later layers, which carry its effect, or a
ResNet neuron-head pair, which has exactly one. The effect of a unit on an image is
``Σ_head score · direction``: a few numbers instead of a vector of the embedding's size.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Units whose dense directions are held at once.
_CHUNK = 256
# Numbers that a piece of a batch's scores may have, to be worked on in a core's cache.
_CACHED = 2**18


@dataclass(frozen=True)
class HeadDirections:
    """The vector that each head of each neuron writes to the embedding, in factors.

    ``direction[neuron, head] = inner[head, neuron] @ outer[head]``, where ``inner`` is what a
    head reads of the neuron (its value weights) and ``outer`` is what the head writes.
    """

    inner: Float[Tensor, "head neuron rank"]
    outer: Float[Tensor, "head rank embed"]

    @property
    def units(self) -> int:
        """Number of units."""
        return self.inner.shape[1]

    @property
    def heads(self) -> int:
        """Number of heads of each unit."""
        return self.inner.shape[0]

    @property
    def embed(self) -> int:
        """Size of the joint space."""
        return self.outer.shape[2]

    def dense(
        self, units: Int[Tensor, " chosen"] | slice = slice(None)
    ) -> Float[Tensor, "chosen head embed"]:
        """Directions of the chosen units."""
        return torch.matmul(self.inner[:, units], self.outer).transpose(0, 1)

    def project(self, vectors: Float[Tensor, "vector embed"]) -> Float[Tensor, "unit head vector"]:
        """Inner product of every direction with each vector."""
        return torch.matmul(self.inner, torch.matmul(self.outer, vectors.T)).transpose(0, 1)

    @cached_property
    def gram(self) -> Float[Tensor, "unit head head"]:
        """Inner products between the directions of each unit."""
        gram = self.inner.new_empty(self.units, self.heads, self.heads)
        for start in range(0, self.units, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            dense = self.dense(chunk)
            torch.bmm(dense, dense.mT, out=gram[chunk])
        return gram

    def split(self) -> "SplitDirections":
        """The same directions with every neuron-head pair a unit of its own."""
        return SplitDirections(self)


@dataclass(frozen=True)
class SplitDirections:
    """Directions of neuron-head pairs as units: unit = neuron · heads + head, one head each."""

    whole: HeadDirections

    heads = 1

    @property
    def units(self) -> int:
        """Number of units."""
        return self.whole.units * self.whole.heads

    @property
    def embed(self) -> int:
        """Size of the joint space."""
        return self.whole.embed

    def dense(
        self, units: Int[Tensor, " chosen"] | slice = slice(None)
    ) -> Float[Tensor, "chosen 1 embed"]:
        """Directions of the chosen units."""
        chosen = torch.arange(self.units, device=self.whole.inner.device)[units]
        neurons, heads = chosen // self.whole.heads, chosen % self.whole.heads
        dense = chosen.new_empty(len(chosen), self.embed, dtype=self.whole.inner.dtype)
        for head in heads.unique().tolist():
            mine = heads == head
            dense[mine] = self.whole.inner[head, neurons[mine]] @ self.whole.outer[head]
        return dense[:, None]

    def project(self, vectors: Float[Tensor, "vector embed"]) -> Float[Tensor, "unit 1 vector"]:
        """Inner product of every direction with each vector."""
        return self.whole.project(vectors).reshape(self.units, 1, -1)

    @cached_property
    def gram(self) -> Float[Tensor, "unit 1 1"]:
        """Squared norm of each direction."""
        # ‖inner @ outer‖² through the rank × rank products of `outer`: no dense directions.
        squares = torch.matmul(self.whole.inner, self.whole.outer @ self.whole.outer.mT)
        return (squares * self.whole.inner).sum(-1).clamp_min(0).T.reshape(-1, 1, 1)


Directions = HeadDirections | SplitDirections


@dataclass(frozen=True)
class Contributions:
    """Effects of all units of a layer on a batch of images.

    ``scores`` are what each head carries; ``bias``, where asked for, is a vector that every unit
    of the layer shares. ``activations`` and ``weights`` are what the scores were summed from, so
    that an effect can be traced to positions of the image:
    ``scores[image, neuron, head] = Σ_token weights · activations``; the first ``prefix`` tokens
    are no patches: a ViT's class token, a ResNet's mean position. ``weights`` have a row a head
    that reads the neurons: in a ViT of every later layer, or of its probe, which are the heads of
    the scores; in a ResNet of the pooling. Units of no place, those of a pooling's own MLP, have
    neither.
    """

    scores: Float[Tensor, "image unit head"]
    directions: Directions
    bias: Float[Tensor, "image embed"] | None = None
    activations: Float[Tensor, "image token neuron"] | None = None
    weights: Float[Tensor, "image reader token"] | None = None
    prefix: int = 1

    @property
    def placed(self) -> bool:
        """Whether the effects can be traced to positions of the image."""
        return self.activations is not None

    def dense(self, units: Int[Tensor, " chosen"]) -> Float[Tensor, "image chosen embed"]:
        """Effects of the chosen units as vectors."""
        effects = torch.einsum("bnk,nkd->bnd", self.scores[:, units], self.directions.dense(units))
        return effects if self.bias is None else effects + self.bias[:, None]

    def norms(self, mean: "MeanEffect | None" = None) -> Float[Tensor, "image unit"]:
        """Norms of the effects, centred on ``mean`` where given."""
        count, units, heads = self.scores.shape
        gram, bias, along = self.directions.gram, None, None
        if self.bias is not None:
            bias = self.bias if mean is None else self.bias - mean.bias
            along = self.directions.project(bias)
        squares = self.scores.new_empty(units, count)
        for part in _chunks(units, max(1, _CACHED // (count * heads))):
            # [chunk, image, head], small enough to stay in a core's cache.
            scores = self.scores[:, part].transpose(0, 1)
            scores = scores.clone() if mean is None else scores - mean.scores[part, None]
            carried = scores * gram[part] if heads == 1 else torch.bmm(scores, gram[part])
            if along is not None:
                carried += 2 * along[part].mT
            torch.sum(carried.mul_(scores), -1, out=squares[part])
        if bias is not None:
            squares += bias.square().sum(-1)
        return squares.clamp_min_(0).sqrt_().T

    def project(
        self, vectors: Float[Tensor, "unit embed"], mean: "MeanEffect | None" = None
    ) -> Float[Tensor, "image unit"]:
        """Inner product of each unit's effect, centred where ``mean`` is given, with its vector."""
        scores = self.scores if mean is None else self.scores - mean.scores
        projected = torch.einsum("bnk,nk->bn", scores, along(vectors, self.directions))
        if self.bias is not None:
            bias = self.bias if mean is None else self.bias - mean.bias
            projected = projected + bias @ vectors.T
        return projected

    def sum(self, keep: Float[Tensor, "image unit"] | None = None) -> Float[Tensor, "image embed"]:
        """Sum of the effects over all units, each weighted by ``keep`` where given."""
        scores = self.scores if keep is None else self.scores * keep[..., None]
        total = _sum_over_units(scores, self.directions)
        if self.bias is not None:
            count = self.directions.units if keep is None else keep.sum(-1, keepdim=True)
            total = total + count * self.bias
        return total

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
        for chunk in _chunks(directions.units):
            dense = directions.dense(chunk).double()  # [unit, head, embed]
            inverse = torch.linalg.pinv(dense @ dense.mT, hermitian=True)
            parts.append((inverse @ (dense @ means[chunk].double()[..., None]))[..., 0].float())
        return cls(torch.cat(parts))

    def dense(self, directions: Directions) -> Float[Tensor, "unit embed"]:
        """Mean effect of each unit as a vector."""
        means = torch.cat(
            [
                torch.einsum("nk,nkd->nd", self.scores[chunk], directions.dense(chunk))
                for chunk in _chunks(directions.units)
            ]
        )
        return means if self.bias is None else means + self.bias


def along(
    vectors: Float[Tensor, "unit embed"], directions: Directions
) -> Float[Tensor, "unit head"]:
    """Inner product of each unit's own vector with the vector that each of its heads writes."""
    return torch.cat(
        [
            torch.einsum("nkd,nd->nk", directions.dense(chunk), vectors[chunk])
            for chunk in _chunks(directions.units)
        ]
    )


def _chunks(units: int, size: int = _CHUNK) -> list[slice]:
    return [slice(start, start + size) for start in range(0, units, size)]


def _sum_over_units(
    scores: Float[Tensor, "image unit head"], directions: Directions
) -> Float[Tensor, "image embed"]:
    if isinstance(directions, SplitDirections):
        directions = directions.whole
        scores = scores.reshape(len(scores), directions.units, directions.heads)
    read = torch.einsum("bnk,knr->bkr", scores, directions.inner)
    return torch.einsum("bkr,krd->bd", read, directions.outer)
