"""Contributions of ResNet neuron-head pairs: attention pooling, taken apart exactly."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.base import SCALE, RecordingLens, check_finite
from clipneurons.lens.contributions import Contributions
from clipneurons.lens.directions import HeadDirections, SplitDirections
from clipneurons.models.clip import ClipModel

# The neurons are the channels of the last of the four stages.
LAYER = 4


@dataclass(frozen=True)
class NeuronHeadLens(RecordingLens):
    """Contributions of the neuron-head pairs of a CLIP-ResNet (2509.19943, section 3).

    Call it with preprocessed images ``[image, 3, height, width]``; it returns the image
    embeddings (not normalised) and ``{4: Contributions}``. A unit is a pair of a neuron of the
    last stage and a head of the pooling, ``unit = neuron · heads + head``; all units together
    plus :attr:`bias` are the embedding. Like those of the ViT, contributions carry the scale
    ``100 / ‖embedding‖``.
    """

    clip: ClipModel

    def __post_init__(self) -> None:
        if self.clip.kind != "resnet":
            raise ValueError(
                f"expected a ResNet, {self.clip.name} is a {self.clip.kind}: see `make_lens`"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The one layer whose neurons are read."""
        return (LAYER,)

    @cached_property
    def neurons(self) -> HeadDirections:
        """What each neuron writes through each head: rows of W_V^h W_O^h."""
        pool, heads = self.clip.visual.attnpool, self.clip.heads
        inner = pool.v_proj.weight.float().T.unflatten(-1, (heads, -1))  # [neuron, head, rank]
        outer = pool.c_proj.weight.float().T.unflatten(0, (heads, -1))  # [head, rank, embed]
        return HeadDirections.of(inner.transpose(0, 1).contiguous(), outer)

    @cached_property
    def directions(self) -> dict[int, SplitDirections]:
        """By layer, what each neuron-head pair writes to the embedding."""
        return {LAYER: self.neurons.split()}

    @cached_property
    def bias(self) -> Float[Tensor, " embed"]:
        """The part of every embedding that no neuron writes, before scaling."""
        pool = self.clip.visual.attnpool
        return pool.v_proj.bias.float() @ pool.c_proj.weight.float().T + pool.c_proj.bias.float()

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` needs."""
        return ["attnpool:input"]

    def read(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> dict[int, Contributions]:
        """Contributions from the :attr:`recorded` tensors of a forward pass."""
        check_finite(representation)
        pool, heads = self.clip.visual.attnpool, self.clip.heads
        spatial = tensors["attnpool:input"].float().flatten(2).mT  # [image, position, neuron]
        tokens = torch.cat([spatial.mean(1, keepdim=True), spatial], 1)
        tokens = tokens + pool.positional_embedding.float()
        query = tokens[:, 0] @ pool.q_proj.weight.float().T + pool.q_proj.bias.float()
        query = query.unflatten(-1, (heads, -1))
        query = query / query.shape[-1] ** 0.5
        key_weight = pool.k_proj.weight.float().unflatten(0, (heads, -1))
        # (W_k z + b_k)·q = z·(W_kᵀ q) + const: the keys of all positions are never formed.
        folded = torch.einsum("bhr,hrw->bhw", query, key_weight)
        attention = torch.softmax(folded @ tokens.mT, dim=-1)
        weights = attention * (SCALE / representation.norm(dim=-1))[:, None, None]
        return {
            LAYER: Contributions(
                given=None,
                directions=self.directions[LAYER],
                activations=tokens,
                weights=weights,
            )
        }
