"""Contributions of ResNet neuron-head pairs: section 3 of arXiv 2509.19943.

A CLIP-ResNet pools the positions of its last stage by attention, which is linear in the values:

    M(I) = Σ_n Σ_h  s_n^h(I) · d_n^h  +  bias

    s_n^h(I) = Σ_i a_i^h z_i^n          score: the neuron's mean under the head's attention
    d_n^h    = W_O^h W_V^h e_n          direction: weights only

of N neurons n, H heads h of rank R, T tokens i (their mean and all positions) and embedding D:

    z        [T, N]     last stage after the ReLU, positional embedding added
    a        [H, T]     attention of the mean position (token 0) to each token
    W_V, W_O [H, R, N], [H, D, R]     value and output weights by head; e_n is the n-th unit vector

The sum is exact. Like the second-order effects of a ViT, contributions carry the published scale
100/‖M(I)‖.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.base import SCALE, check_finite
from clipneurons.lens.contributions import SpatialContributions
from clipneurons.lens.directions import HeadDirections, SplitDirections
from clipneurons.models.clip import ClipModel

# The neurons are the channels of the last of the four stages.
LAYER = 4


@dataclass(frozen=True)
class NeuronHeadEffects:
    """Contributions of the neuron-head pairs of a CLIP-ResNet, from what `Lens` records.

    A unit is a pair of a neuron of the last
    stage and a head of the pooling, ``unit = neuron · heads + head``.

    Raises:
        ValueError: a ViT.
    """

    clip: ClipModel

    def __post_init__(self) -> None:
        if self.clip.kind != "resnet":
            raise ValueError(
                f"expected a ResNet, {self.clip.name} is a {self.clip.kind}: see `Lens`"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The only layer with contributions: the last stage."""
        return (LAYER,)

    @cached_property
    def neurons(self) -> HeadDirections:
        """d: what each neuron writes to the embedding through each head."""
        return self.written_through()

    def written_through(
        self, vectors: Float[Tensor, "unit neuron"] | None = None
    ) -> HeadDirections:
        """What vectors in the last stage write through each head; of each neuron by default."""
        pool, heads = self.clip.visual.attnpool, self.clip.heads
        values = pool.v_proj.weight.float().T  # [neuron, head · rank]
        if vectors is not None:
            values = vectors @ values
        inner = values.unflatten(-1, (heads, -1))  # [unit, head, rank]
        outer = pool.c_proj.weight.float().T.unflatten(0, (heads, -1))  # [head, rank, embed]
        return HeadDirections.of(inner.transpose(0, 1).contiguous(), outer)

    @cached_property
    def directions(self) -> dict[int, SplitDirections]:
        """The same with each neuron-head pair as one unit, by layer."""
        return {LAYER: self.neurons.split()}

    @cached_property
    def bias(self) -> Float[Tensor, " embed"]:
        """The part of every embedding that no neuron writes, without the scale."""
        pool = self.clip.visual.attnpool
        return pool.v_proj.bias.float() @ pool.c_proj.weight.float().T + pool.c_proj.bias.float()

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` needs."""
        return ["attnpool:input"]

    def read(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> dict[int, SpatialContributions]:
        """Contributions from the :attr:`recorded` tensors of a forward pass."""
        check_finite(representation)
        pool, heads = self.clip.visual.attnpool, self.clip.heads
        positions = tensors["attnpool:input"].float().flatten(2).mT  # [image, position, neuron]
        tokens = torch.cat([positions.mean(1, keepdim=True), positions], 1)
        tokens = tokens + pool.positional_embedding.float()  # z: [image, token, neuron]
        query = tokens[:, 0] @ pool.q_proj.weight.float().T + pool.q_proj.bias.float()
        query = query.unflatten(-1, (heads, -1))  # [image, head, rank]
        query = query / query.shape[-1] ** 0.5
        w_key = pool.k_proj.weight.float().unflatten(0, (heads, -1))  # [head, rank, neuron]
        # (W_k z + b_k)·q = z·(W_kᵀ q) + const: the keys of all positions are never formed.
        folded = torch.einsum("bhr,hrw->bhw", query, w_key)  # [image, head, neuron]
        attention = torch.softmax(folded @ tokens.mT, dim=-1)  # a: [image, head, token]
        weights = attention * (SCALE / representation.norm(dim=-1))[:, None, None]
        return {LAYER: SpatialContributions(tokens, weights, self.directions[LAYER])}
