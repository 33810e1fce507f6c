"""First-order effects of a ViT: what each head and MLP writes to the tokens that are pooled.

The decomposition is exact: with the scales of the norms of the image taken as given, and the
attention of a probe, the image embedding is a sum over heads, MLP layers, the input of the first
block and biases (Gandelsman, Efros, Steinhardt: *Interpreting CLIP's Image Representation*,
2310.05916, for a class token).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.base import check_finite
from clipneurons.lens.pooling import (
    carry,
    pooled_constant,
    pooling_names,
    read_pooling,
)
from clipneurons.lens.second_order import attention_names, carried_block
from clipneurons.models.anatomy import Block, Mlp
from clipneurons.models.attention import centred_heads
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations


@dataclass(frozen=True)
class FirstOrderEffects:
    """Terms that sum to the image embedding: ``heads + mlps + embedding + bias``.

    ``mlps`` are those of the blocks, and last the pooling's own where it has one.
    """

    heads: Float[Tensor, "image layer head embed"]
    mlps: Float[Tensor, "image mlp embed"]
    embedding: Float[Tensor, "image embed"]
    bias: Float[Tensor, "image embed"]

    def sum(self) -> Float[Tensor, "image embed"]:
        """All terms together: the image embedding."""
        return self.heads.sum((1, 2)) + self.mlps.sum(1) + self.embedding + self.bias


@dataclass(frozen=True)
class FirstOrderLens:
    """First-order effects of all heads and MLP layers of a ViT.

    Call it with preprocessed images ``[image, 3, height, width]`` to get the embeddings (not
    normalised) and the :class:`FirstOrderEffects`.
    """

    clip: ClipModel

    def __post_init__(self) -> None:
        if self.clip.kind != "vit":
            raise ValueError(f"expected a ViT, {self.clip.name} is a {self.clip.kind}")

    @cached_property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` and :meth:`token_scores` need."""
        anatomy = self.clip.anatomy
        names = pooling_names(anatomy)
        for block in anatomy.blocks:
            names += [*attention_names(block), block.mlp.path]
            if block.mlp.outer is not None:
                names.append(block.mlp.outer.path)
        return names if anatomy.pooling.mlp is None else [*names, anatomy.pooling.mlp.path]

    @cached_property
    def _carry(self) -> Float[Tensor, "reader width embed"]:
        """From a final token to the embedding, but for the norms' 1/σ."""
        return carry(self.clip.anatomy, centred=True)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[Float[Tensor, "image embed"], FirstOrderEffects]:
        """Image embeddings and their first-order terms."""
        with record_activations(self.clip.visual, self.recorded) as tensors:
            representation = self.clip.encode_image(images)
        check_finite(representation)
        return representation, self.read(tensors)

    def read(self, tensors: dict[str, Tensor]) -> FirstOrderEffects:
        """Effects from the :attr:`recorded` tensors of a forward pass."""
        anatomy = self.clip.anatomy
        reading = read_pooling(anatomy, tensors)
        by_head, by_mlp = [], []
        bias = pooled_constant(anatomy, reading)
        for block in anatomy.blocks:
            by_head.append(self._heads(block, tensors, reading.weights))
            by_mlp.append(self._mlp(block.mlp, tensors, reading.weights))
            bias = bias + self._constant(block, tensors, reading.weights)
        if anatomy.pooling.mlp is not None:
            mlp = anatomy.pooling.mlp
            activations = _normed(mlp, tensors)[:, 0]
            by_mlp.append(activations @ mlp.output.weight.float().T @ anatomy.pooling.readout)
        start = tensors[anatomy.blocks[0].inputs]
        return FirstOrderEffects(
            heads=torch.stack(by_head, 1),
            mlps=torch.stack(by_mlp, 1),
            embedding=self._pooled(start, reading.weights),
            bias=bias,
        )

    def _heads(
        self, block: Block, tensors: dict[str, Tensor], weights: Float[Tensor, "image reader query"]
    ) -> Float[Tensor, "image head embed"]:
        """What each head of a block writes."""
        tokens = tensors[block.normed].float()
        carried = carried_block(block, tensors, weights)  # [image, reader, head, token]
        mixed = torch.einsum("bqht,btw->bqhw", carried, tokens)
        read = torch.einsum("bqhw,hrw->bqhr", mixed, block.attention.values)
        read = read + carried.sum(-1)[..., None] * block.attention.value_bias
        written = torch.einsum("bqhr,hrw->bqhw", read, centred_heads(block.attention))
        return torch.einsum("bqhw,qwd->bhd", written, self._carry)

    def _mlp(
        self, mlp: Mlp, tensors: dict[str, Tensor], weights: Float[Tensor, "image reader query"]
    ) -> Float[Tensor, "image embed"]:
        """What an MLP writes, its output bias included."""
        if mlp.outer is not None:
            return self._pooled(tensors[mlp.outer.path], weights)
        activations = _normed(mlp, tensors)[:, : weights.shape[-1]]
        written = (weights @ activations) @ mlp.output.weight.float().T
        written = written + weights.sum(-1, keepdim=True) * mlp.output.offset
        return torch.einsum("bqw,qwd->bd", written, self._carry)

    def _pooled(
        self, stream: Float[Tensor, "image token width"], weights: Tensor
    ) -> Float[Tensor, "image embed"]:
        """What vectors in the tokens write."""
        read = weights @ stream[:, : weights.shape[-1]].float()
        return torch.einsum("bqw,qwd->bd", read, self._carry)

    def _constant(
        self, block: Block, tensors: dict[str, Tensor], weights: Float[Tensor, "image reader query"]
    ) -> Float[Tensor, "image embed"]:
        """What attention writes whatever it attends to, but for the values' biases."""
        attention = block.attention
        vector = attention.output.offset
        if attention.inner is not None:
            vector = vector + attention.output.weight.float() @ attention.inner.bias
        if attention.outer is None:
            return self._everywhere(vector, weights)
        written = tensors[f"{attention.outer.path}:input"][:, : weights.shape[-1]]
        divided = weights / attention.outer.sigma(written)[:, None]
        vector = attention.outer.linear(vector)
        return self._everywhere(vector, divided) + self._everywhere(attention.outer.bias, weights)

    def _everywhere(
        self, vector: Float[Tensor, " width"], weights: Float[Tensor, "image reader query"]
    ) -> Float[Tensor, "image embed"]:
        """What the same vector in every token writes."""
        return torch.einsum("bq,w,qwd->bd", weights.sum(-1), vector, self._carry)

    def token_scores(
        self,
        tensors: dict[str, Tensor],
        vectors: Float[Tensor, "vector embed"],
        layers: Sequence[int] | None = None,
    ) -> Float[Tensor, "image token vector"]:
        """Each token's share, through the heads of the layers, of ``⟨embedding, vector⟩``.

        Summed over tokens this is the inner product of the heads' effects with the vector.
        By default all layers are used; TextSpan's segmentation uses the last four.
        """
        anatomy = self.clip.anatomy
        reading = read_pooling(anatomy, tensors).weights
        onto = self._carry @ vectors.T  # [reader, width, vector]
        total = 0.0
        for index in range(self.clip.layers) if layers is None else layers:
            block = anatomy.blocks[index]
            tokens = tensors[block.normed].float()
            written = torch.einsum("hrw,qwv->qhrv", centred_heads(block.attention), onto)
            read = torch.einsum("hrw,qhrv->qhwv", block.attention.values, written)
            constant = torch.einsum("hr,qhrv->qhv", block.attention.value_bias, written)
            carried = carried_block(block, tensors, reading)
            for reader in range(len(onto)):
                for head in range(anatomy.heads):  # [image, token, vector] at a time
                    scores = tokens @ read[reader, head] + constant[reader, head]
                    total = total + carried[:, reader, head, :, None] * scores
        return total


def _normed(mlp: Mlp, tensors: dict[str, Tensor]) -> Float[Tensor, "image token neuron"]:
    """Activations as the output weights take them."""
    activations = tensors[mlp.path]
    return (activations if mlp.inner is None else mlp.inner(activations)).float()
