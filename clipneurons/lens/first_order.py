"""First-order effects of a ViT: section 3 of arXiv 2310.05916, for every pooling.

With the norms' σ and a probe's attention held at their values for the image, the embedding is
linear in the residual stream. It is therefore a sum of what each part writes to it:

    M(I) = Σ_l Σ_h head^{l,h} + Σ_l mlp^l + embedding + bias

    head^{l,h} = Σ_q Σ_i A_qi^{l,h} · (W_V^h x_i + b_V^h) W_O^h · C_q
    mlp^l      = Σ_q Σ_j r_qj · m_j^l · C_q            embedding = Σ_q Σ_j r_qj · z_j^0 · C_q

    r_qj       weight of final token j for reader q of the pooling (`pooling_weights`)
    C_q        [W, D], from a final token to the embedding through reader q (`carry`), centred:
               the norms' subtraction of the mean is linear and part of each term
    A_qi^{l,h} Σ_j r_qj a_ji^{l,h}: how much of token i's value is pooled (`attention_to_values`)
    x, z^0, m  normalised input of the block's attention, input of the first block, MLP outputs

The bias holds the output biases of attention and the biases of the pooling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.base import check_finite
from clipneurons.lens.second_order import (
    after_pooling,
    attention_names,
    attention_to_values,
    carry,
    pooling_names,
    pooling_weights,
    post_inverse,
)
from clipneurons.models.anatomy import Anatomy, Block, Mlp
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations


@dataclass(frozen=True)
class FirstOrderEffects:
    """Terms that sum to the image embedding.

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

    Raises:
        ValueError: a ResNet.
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
        weights = pooling_weights(anatomy, tensors)  # r: [image, reader, query]
        heads, mlps = [], []
        bias = _pooling_bias(anatomy, tensors)  # [image, embed]
        for block in anatomy.blocks:
            heads.append(self._heads(block, tensors, weights))
            mlps.append(self._mlp(block.mlp, tensors, weights))
            bias = bias + self._attention_bias(block, tensors, weights)
        if anatomy.pooling.mlp is not None:
            mlp = anatomy.pooling.mlp
            activations = _normed(mlp, tensors)[:, 0]  # [image, neuron]
            mlps.append(activations @ mlp.output.weight.float().T @ anatomy.pooling.readout)
        start = tensors[anatomy.blocks[0].inputs]  # z^0: [image, token, width]
        return FirstOrderEffects(
            heads=torch.stack(heads, 1),
            mlps=torch.stack(mlps, 1),
            embedding=self._written(start, weights),
            bias=bias,
        )

    def _heads(
        self, block: Block, tensors: dict[str, Tensor], weights: Float[Tensor, "image reader query"]
    ) -> Float[Tensor, "image head embed"]:
        """What each head of a block writes."""
        attend, tokens = block.attention, tensors[block.normed].float()  # [image, token, width]
        attention = attention_to_values(block, tensors, weights)  # [image, reader, head, token]
        mixed = torch.einsum("bqht,btw->bqhw", attention, tokens)
        values = torch.einsum("bqhw,hrw->bqhr", mixed, attend.values)
        values = values + attention.sum(-1)[..., None] * attend.value_bias
        written = torch.einsum("bqhr,hrw->bqhw", values, attend.written_centred)
        return torch.einsum("bqhw,qwd->bhd", written, self._carry)

    def _mlp(
        self, mlp: Mlp, tensors: dict[str, Tensor], weights: Float[Tensor, "image reader query"]
    ) -> Float[Tensor, "image embed"]:
        """What an MLP writes, its output bias included."""
        if mlp.outer is not None:
            return self._written(tensors[mlp.outer.path], weights)
        activations = _normed(mlp, tensors)[:, : weights.shape[-1]]  # [image, query, neuron]
        written = (weights @ activations) @ mlp.output.weight.float().T  # [image, reader, width]
        written = written + weights.sum(-1, keepdim=True) * mlp.output.offset
        return torch.einsum("bqw,qwd->bd", written, self._carry)

    def _written(
        self,
        stream: Float[Tensor, "image token width"],
        weights: Float[Tensor, "image reader query"],
    ) -> Float[Tensor, "image embed"]:
        """What vectors in the tokens write to the embedding."""
        pooled = weights @ stream[:, : weights.shape[-1]].float()  # [image, reader, width]
        return torch.einsum("bqw,qwd->bd", pooled, self._carry)

    def _attention_bias(
        self, block: Block, tensors: dict[str, Tensor], weights: Float[Tensor, "image reader query"]
    ) -> Float[Tensor, "image embed"]:
        """What attention writes whatever it attends to, without the values' biases."""
        attention = block.attention
        vector = attention.output.offset  # [width]
        if attention.inner is not None:
            vector = vector + attention.output.weight.float() @ attention.inner.bias
        if attention.outer is None:
            return self._in_all_tokens(vector, weights)
        outputs = tensors[f"{attention.outer.path}:input"][:, : weights.shape[-1]]
        divided = weights / attention.outer.sigma(outputs)[:, None]  # [image, reader, query]
        vector = attention.outer.linear(vector)
        bias = self._in_all_tokens(attention.outer.bias, weights)
        return self._in_all_tokens(vector, divided) + bias

    def _in_all_tokens(
        self, vector: Float[Tensor, " width"], weights: Float[Tensor, "image reader query"]
    ) -> Float[Tensor, "image embed"]:
        """What the same vector in every token writes to the embedding."""
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
        weights = pooling_weights(anatomy, tensors)  # [image, reader, query]
        onto = self._carry @ vectors.T  # [reader, width, vector]
        total = 0.0
        for index in range(self.clip.layers) if layers is None else layers:
            block = anatomy.blocks[index]
            attend, tokens = block.attention, tensors[block.normed].float()
            written = torch.einsum("hrw,qwv->qhrv", attend.written_centred, onto)
            by_width = torch.einsum("hrw,qhrv->qhwv", attend.values, written)
            from_bias = torch.einsum("hr,qhrv->qhv", attend.value_bias, written)
            attention = attention_to_values(block, tensors, weights)  # [image, reader, head, token]
            for reader in range(len(onto)):
                for head in range(anatomy.heads):  # [image, token, vector] at a time
                    scores = tokens @ by_width[reader, head] + from_bias[reader, head]
                    total = total + attention[:, reader, head, :, None] * scores
        return total


def _normed(mlp: Mlp, tensors: dict[str, Tensor]) -> Float[Tensor, "image token neuron"]:
    """Activations as the output weights take them."""
    activations = tensors[mlp.path]
    return (activations if mlp.inner is None else mlp.inner(activations)).float()


def _pooling_bias(anatomy: Anatomy, tensors: dict[str, Tensor]) -> Float[Tensor, "image embed"]:
    """What the pooling's own biases write."""
    pooling, after = anatomy.pooling, after_pooling(anatomy, centred=True)
    vector = after.new_zeros(len(after)) if pooling.norm is None else pooling.norm.bias  # [width]
    if pooling.attention is not None:
        attention = pooling.attention
        values = torch.einsum("hrw,w->hr", attention.values, vector) + attention.value_bias
        vector = torch.einsum("hr,hrw->w", values, attention.written)
        vector = vector + attention.output.offset
    total = post_inverse(anatomy, tensors)[:, None] * (vector @ after)  # [image, embed]
    if pooling.post is not None:
        total = total + pooling.post.bias @ pooling.readout
    if pooling.mlp is not None:
        total = total + pooling.mlp.output.offset @ pooling.readout
    if pooling.projection is not None and pooling.projection.bias is not None:
        total = total + pooling.projection.bias.float()
    return total
