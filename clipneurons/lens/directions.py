"""The directions that units write along: fixed by the weights, kept as two factors.

    direction[unit, head] = inner[head, unit] @ outer[head]

A unit is a ViT neuron, whose *heads* are those of all later layers, which carry its effect, or a
ResNet neuron-head pair, which has exactly one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Units whose dense directions are held at once.
_CHUNK = 256
# Heads whose inner products with those before them are kept together.
_HEADS = 48


@dataclass(frozen=True)
class HeadDirections:
    """The vector that each head of each neuron writes to the embedding.

    ``inner`` is what a head reads of the neuron (its value weights), ``outer`` what the head
    writes. ``read`` gives ``inner`` of chosen neurons, so that a pass over many layers never holds
    all of it.
    """

    read: Callable[[Int[Tensor, " chosen"] | slice], Float[Tensor, "head chosen rank"]]
    outer: Float[Tensor, "head rank embed"]
    units: int

    @classmethod
    def of(
        cls, inner: Float[Tensor, "head neuron rank"], outer: Float[Tensor, "head rank embed"]
    ) -> "HeadDirections":
        """From both factors."""
        return cls(lambda units: inner[:, units], outer, inner.shape[1])

    @cached_property
    def inner(self) -> Float[Tensor, "head neuron rank"]:
        """What each head reads of every neuron, cached on first use."""
        return self.read(slice(None))

    @property
    def heads(self) -> int:
        """Number of heads of each unit."""
        return self.outer.shape[0]

    @property
    def embed(self) -> int:
        """Size of the joint space."""
        return self.outer.shape[2]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.outer.device

    def dense(
        self, units: Int[Tensor, " chosen"] | slice = slice(None)
    ) -> Float[Tensor, "chosen head embed"]:
        """Directions of the chosen units."""
        inner = self.inner[:, units] if "inner" in vars(self) else self.read(units)
        return torch.matmul(inner, self.outer).transpose(0, 1)  # [chosen, head, embed]

    def along(self, vectors: Float[Tensor, "unit embed"]) -> Float[Tensor, "unit head"]:
        """Inner product of each unit's own vector with each of its directions."""
        parts = [
            torch.einsum("knr,knr->nk", self.inner[:, chunk], vectors[chunk] @ self.outer.mT)
            for chunk in chunks(self.units)
        ]
        return torch.cat(parts)

    def project(self, vectors: Float[Tensor, "vector embed"]) -> Float[Tensor, "unit head vector"]:
        """Inner product of every direction with each vector."""
        return torch.matmul(self.inner, torch.matmul(self.outer, vectors.T)).transpose(0, 1)

    @cached_property
    def gram(self) -> list[Float[Tensor, "unit reaching own"]]:
        """Inner products between the directions of each unit, each pair of heads once.

        The heads are split into groups. A group has the products of its own heads with all heads
        up to its last; products with earlier groups' heads count for both orders and are doubled.
        """
        count = -(-self.heads // _HEADS)
        ends = [self.heads * i // count for i in range(count + 1)]
        shapes = [(self.units, end, end - start) for start, end in pairwise(ends)]
        groups = [self.outer.new_empty(shape) for shape in shapes]
        for chunk in chunks(self.units):
            dense = self.dense(chunk)
            for group in groups:
                own = _own(group)
                torch.bmm(dense[:, : own.stop], dense[:, own].mT, out=group[chunk])
                group[chunk, : own.start] *= 2
        return groups

    def squares(
        self, units: slice, scores: Float[Tensor, "chosen image head"]
    ) -> Float[Tensor, "chosen image"]:
        """Squared norms of the effects that have these scores."""
        total = scores.new_zeros(scores.shape[:2])
        for group in self.gram:
            own = _own(group)
            carried = torch.bmm(scores[..., : own.stop], group[units])
            total += carried.mul_(scores[..., own]).sum(-1)
        return total

    def sum(self, scores: Float[Tensor, "image unit head"]) -> Float[Tensor, "image embed"]:
        """Sum of the effects of all units that have these scores."""
        values = torch.einsum("bnk,knr->bkr", scores, self.inner)  # [image, head, rank]
        return torch.einsum("bkr,krd->bd", values, self.outer)  # [image, embed]

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

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.whole.device

    def dense(
        self, units: Int[Tensor, " chosen"] | slice = slice(None)
    ) -> Float[Tensor, "chosen 1 embed"]:
        """Directions of the chosen units."""
        chosen = torch.arange(self.units, device=self.whole.inner.device)[units]
        neurons, heads = chosen // self.whole.heads, chosen % self.whole.heads
        dense = chosen.new_empty(len(chosen), self.embed, dtype=self.whole.inner.dtype)
        for head in heads.unique().tolist():
            of_head = heads == head
            dense[of_head] = self.whole.inner[head, neurons[of_head]] @ self.whole.outer[head]
        return dense[:, None]

    def along(self, vectors: Float[Tensor, "unit embed"]) -> Float[Tensor, "unit 1"]:
        """Inner product of each unit's own vector with its direction."""
        parts = [
            (self.dense(chunk)[:, 0] * vectors[chunk]).sum(-1, keepdim=True)
            for chunk in chunks(self.units)
        ]
        return torch.cat(parts)

    def project(self, vectors: Float[Tensor, "vector embed"]) -> Float[Tensor, "unit 1 vector"]:
        """Inner product of every direction with each vector."""
        return self.whole.project(vectors).reshape(self.units, 1, -1)

    @cached_property
    def gram(self) -> Float[Tensor, "unit 1 1"]:
        """Squared norm of each direction."""
        # ‖inner @ outer‖² through the rank × rank products of `outer`: no dense directions.
        outer_gram = self.whole.outer @ self.whole.outer.mT  # [head, rank, rank]
        halves = torch.matmul(self.whole.inner, outer_gram)  # [head, neuron, rank]
        squares = (halves * self.whole.inner).sum(-1)  # [head, neuron]
        return squares.clamp_min(0).T.reshape(-1, 1, 1)

    def squares(
        self, units: slice, scores: Float[Tensor, "chosen image 1"]
    ) -> Float[Tensor, "chosen image"]:
        """Squared norms of the effects that have these scores."""
        return (scores.square() * self.gram[units])[..., 0]

    def sum(self, scores: Float[Tensor, "image unit 1"]) -> Float[Tensor, "image embed"]:
        """Sum of the effects of all units that have these scores."""
        return self.whole.sum(scores.reshape(len(scores), self.whole.units, self.whole.heads))


Directions = HeadDirections | SplitDirections


def chunks(units: int, size: int = _CHUNK) -> list[slice]:
    """Parts of the units that are worked on at once."""
    return [slice(start, min(start + size, units)) for start in range(0, units, size)]


def _own(group: Float[Tensor, "unit reaching own"]) -> slice:
    """The heads of a group of inner products."""
    return slice(group.shape[1] - group.shape[2], group.shape[1])
