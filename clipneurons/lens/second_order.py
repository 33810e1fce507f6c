"""Second-order effects of ViT neurons: recorded tensors and weights -> Contributions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.base import SCALE, RecordingLens, check_finite
from clipneurons.lens.contributions import Contributions
from clipneurons.lens.directions import HeadDirections
from clipneurons.lens.pooling import (
    PooledReading,
    after_pooling,
    carry,
    pooling_names,
    read_pooling,
)
from clipneurons.models.anatomy import Anatomy, Attention, Block, Mlp, Norm
from clipneurons.models.attention import carried_attention
from clipneurons.models.clip import ClipModel


def check_layers(clip: ClipModel, layers: Sequence[int]) -> tuple[int, ...]:
    """The layers, sorted and checked to have second-order effects.

    Raises:
        ValueError: no layer, a layer out of range, or the last one where no probe reads it.
    """
    readable, blocks = clip.anatomy.readable, clip.layers
    last = readable[-1]
    if not layers:
        raise ValueError(f"no layer given: expected some of 0 to {last}")
    for layer in layers:
        if layer == blocks - 1 and layer not in readable:
            raise ValueError(
                f"layer {layer} is the last block of {clip.name}: no later attention reads its "
                f"neurons, so they have no second-order effect. Expected layers 0 to {last}"
            )
        if layer not in readable:
            raise ValueError(
                f"layer {layer} is out of range: {clip.name} has blocks 0 to {blocks - 1}, and "
                f"second-order effects in 0 to {last}"
            )
    return tuple(sorted(set(layers)))


@dataclass(frozen=True)
class Reader:
    """Attention that reads the neurons of the layers before it, and what it writes.

    ``first`` is the first layer that it does not read.
    """

    first: int
    norm: Norm | None
    attention: Attention
    outer: Float[Tensor, "head rank embed"]

    @property
    def values(self) -> Float[Tensor, "head rank width"]:
        """What each head reads of a vector in a token, the norm's gain taken in."""
        values = self.attention.values
        return values if self.norm is None else values * self.norm.weight


@dataclass(frozen=True)
class SecondOrderLens(RecordingLens):
    """Second-order effects of the neurons of chosen layers (2406.04341, equation 7).

    Call it with preprocessed images ``[image, 3, height, width]``; it returns the image
    embeddings (not normalised) and, by layer, the :class:`Contributions` of its neurons. Where
    the tower reads a class token, or averages its tokens, the later blocks' heads carry the
    effects, ordered by later layer, then head. Where it attends with a probe, the probe's heads
    do, for the last block too; the hidden neurons of the pooling's own MLP are one more layer,
    which writes straight into the embedding.

    Effects carry the published scale ``100 / ‖embedding‖``. They are the neuron's own part;
    ``shared_bias=True`` adds the part of biases and layer-norm means that the published code
    assigns to each neuron (its appendix A.5), the same vector for all neurons of a layer.
    """

    clip: ClipModel
    layers: tuple[int, ...]
    shared_bias: bool = False

    def __post_init__(self) -> None:
        if self.clip.kind != "vit":
            raise ValueError(
                f"expected a ViT, {self.clip.name} is a {self.clip.kind}: see `make_lens`"
            )
        object.__setattr__(self, "layers", check_layers(self.clip, self.layers))
        if self.shared_bias:
            check_plain(self.clip)

    @property
    def _anatomy(self) -> Anatomy:
        return self.clip.anatomy

    @cached_property
    def _readers(self) -> list[Reader]:
        """Every attention that reads neurons of the chosen layers, in the order of the blocks."""
        anatomy = self._anatomy
        if anatomy.pooling.kind == "probe":
            attention = anatomy.pooling.attention
            outer = attention.written @ after_pooling(anatomy)
            return [Reader(len(anatomy.blocks), anatomy.pooling.norm, attention, outer)]
        written = carry(anatomy)[0]
        return [
            Reader(index, block.norm, block.attention, block.attention.written @ written)
            for index, block in enumerate(anatomy.blocks)
            if index > self.layers[0]
        ]

    @cached_property
    def _outer(self) -> Float[Tensor, "head rank embed"]:
        """What the heads of all readers write to the embedding."""
        return torch.cat([reader.outer for reader in self._readers])

    @cached_property
    def _values(self) -> Float[Tensor, "head rank width"]:
        """What the heads of all readers read of a vector in a token."""
        return torch.cat([reader.values for reader in self._readers])

    @cached_property
    def directions(self) -> dict[int, HeadDirections]:
        """By layer, what each neuron writes to the embedding through each head that reads it."""
        return {layer: self._directions_of(layer) for layer in self.layers}

    def _directions_of(self, layer: int) -> HeadDirections:
        anatomy = self._anatomy
        written = anatomy.mlp(layer).gained  # [neuron, width]
        if layer == anatomy.pooling_layer:
            return HeadDirections.of(written[None], anatomy.pooling.readout[None])
        heads = anatomy.readers(layer)
        values = self._values[-heads:].mT

        def read(units: Int[Tensor, " chosen"] | slice) -> Float[Tensor, "head chosen rank"]:
            return torch.matmul(written[units], values)

        return HeadDirections(read, self._outer[-heads:], len(written))

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` needs."""
        anatomy = self._anatomy
        names = [name for layer in self.layers for name in _mlp_names(anatomy.mlp(layer))]
        if anatomy.pooling.kind != "probe":
            for block in anatomy.blocks[self.layers[0] + 1 :]:
                names += attention_names(block)
        return names + pooling_names(anatomy)

    def read(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> dict[int, Contributions]:
        """Contributions from the :attr:`recorded` tensors of a forward pass."""
        check_finite(representation)
        anatomy = self._anatomy
        reading = read_pooling(anatomy, tensors)
        scale = SCALE / representation.norm(dim=-1)
        by_reader = self._weights(tensors, reading)
        weights = torch.cat(by_reader, 1) * scale[:, None, None]  # [image, head, token]
        result = {}
        for layer in self.layers:
            mlp = anatomy.mlp(layer)
            activations = tensors[mlp.path].float()
            pooled = layer == anatomy.pooling_layer
            mine = scale[:, None, None] if pooled else weights[:, -self.directions[layer].heads :]
            for norm in mlp.norms:
                mine = mine / norm.sigma(tensors[f"{norm.path}:input"])[:, None]
            result[layer] = Contributions(
                given=torch.bmm(activations.mT, mine.mT) if pooled else None,
                directions=self.directions[layer],
                bias=self._shared_bias(layer, tensors, by_reader, reading, scale),
                activations=None if pooled else activations,
                weights=None if pooled else mine,
                prefix=anatomy.prefix,
            )
        return result

    def _weights(
        self, tensors: dict[str, Tensor], reading: PooledReading
    ) -> list[Float[Tensor, "image head token"]]:
        """How much each head of each reader takes of a vector in each token, norms included."""
        anatomy = self._anatomy
        if anatomy.pooling.kind == "probe":
            return [reading.weights]
        found = []
        for block in anatomy.blocks[self.layers[0] + 1 :]:
            carried = carried_block(block, tensors, reading.weights)[:, 0]
            if block.norm is not None:
                carried = carried / block.norm.sigma(tensors[block.inputs])[:, None]
            found.append(carried)
        return found

    def _shared_bias(
        self, layer: int, tensors: dict[str, Tensor], by_reader: list[Tensor],
        reading: PooledReading, scale: Float[Tensor, " image"],
    ) -> Float[Tensor, "image embed"] | None:  # fmt: skip
        """Each neuron's equal share of biases and layer-norm means (2406.04341, A.5)."""
        if not self.shared_bias:
            return None
        anatomy = self._anatomy
        heads, neurons, blocks = anatomy.heads, anatomy.neurons, len(anatomy.blocks)
        final = anatomy.pooling.norm or anatomy.pooling.post
        after, projection = carry(anatomy)[0], anatomy.pooling.readout
        post_mean = final.moments(tensors[anatomy.blocks[-1].path][:, 0])[0][:, None]
        post_inverse = reading.weights[:, 0]  # 1/σ_post, [image, 1]
        written = anatomy.mlp(layer).output.offset / neurons
        total = 0.0
        for reader, weights in zip(self._readers, by_reader, strict=True):
            if reader.first <= layer:
                continue
            block = anatomy.blocks[reader.first]
            terms = (1 + 2 * reader.first) * neurons
            terms_post = terms * (1 + 2 * blocks) * heads
            mean = block.norm.moments(tensors[block.inputs])[0]
            # Σ_i a_i e_i, with a constant μ_i subtracted from every coordinate.
            inverse_sum = weights.sum(-1, keepdim=True)
            mean_sum = (weights * mean[:, None]).sum(-1, keepdim=True)
            read = block.norm.weight * (written * inverse_sum - mean_sum / terms)
            read = read + post_inverse[..., None] * block.norm.bias / terms  # [image, head, width]
            carried = torch.einsum("bhw,hrw->bhr", read, reader.attention.values)
            carried = carried + post_inverse[..., None] * reader.attention.value_bias / terms
            total = total + torch.einsum("bhr,hrd->bd", carried, reader.outer)
            shared = reader.attention.output.offset / terms - heads * post_mean / terms_post
            total = total + post_inverse * (shared @ after)
            total = total + heads * (final.bias / terms_post) @ projection
        return scale[:, None] * total


def attention_names(block: Block) -> list[str]:
    """Tensors to record for `carried_block`."""
    inside = (f"{norm.path}:input" for norm in block.attention.norms)
    return [block.inputs, block.normed, *inside]


def carried_block(
    block: Block, tensors: dict[str, Tensor], reading: Float[Tensor, "image reader query"]
) -> Float[Tensor, "image reader head token"]:
    """How much of each token's value each head of a block brings to what is read of its output."""
    for norm in block.attention.norms:
        queries = tensors[f"{norm.path}:input"][:, : reading.shape[-1]]
        reading = reading / norm.sigma(queries)[:, None]
    return carried_attention(block.attention, tensors[block.normed], reading)


def check_plain(clip: ClipModel) -> None:
    """Raise ValueError unless biases can be shared out as the published code does it."""
    anatomy = clip.anatomy
    normed = any(block.attention.norms + block.mlp.norms for block in anatomy.blocks)
    if anatomy.pooling.kind != "token" or normed:
        raise ValueError(
            f"the shared bias is defined for plain ViTs that read a class token, {clip.name} "
            "is none: leave it out"
        )


def _mlp_names(mlp: Mlp) -> list[str]:
    """Tensors to record for the activations and what norms divide what they write by."""
    return [mlp.path, *(f"{norm.path}:input" for norm in mlp.norms)]
