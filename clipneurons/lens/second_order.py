"""Second-order effects of ViT neurons: recorded tensors and weights -> Contributions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipneurons.lens.base import SCALE, RecordingLens, check_finite
from clipneurons.lens.contributions import Contributions, HeadDirections
from clipneurons.models.clip import ClipModel


def activation_name(layer: int) -> str:
    """Where the activations of a layer's neurons are recorded."""
    return f"transformer.resblocks.{layer}.mlp.gelu"


def check_layers(clip: ClipModel, layers: Sequence[int]) -> tuple[int, ...]:
    """The layers, sorted and checked to have second-order effects.

    Raises:
        ValueError: no layer, a layer out of range, or the last one.
    """
    last = clip.layers - 1
    if not layers:
        raise ValueError(f"no layer given: expected some of 0 to {last - 1}")
    for layer in layers:
        if layer == last:
            raise ValueError(
                f"layer {last} is the last block of {clip.name}: no later attention reads its "
                f"neurons, so they have no second-order effect. Expected layers 0 to {last - 1}"
            )
        if not 0 <= layer < last:
            raise ValueError(
                f"layer {layer} is out of range: {clip.name} has blocks 0 to {last}, and second-"
                f"order effects in 0 to {last - 1}"
            )
    return tuple(sorted(set(layers)))


def class_attention(
    block: nn.Module, tokens: Float[Tensor, "image token width"]
) -> Float[Tensor, "image head token"]:
    """The class token's attention to each token, from the block's normalised input."""
    attn = block.attn
    width = attn.embed_dim
    # In float32 whatever the model's precision, as everything that is read off its tensors.
    tokens, weight = tokens.float(), attn.in_proj_weight.float()
    query_weight, key_weight, _ = weight.split(width)
    query = tokens[:, 0] @ query_weight.T + attn.in_proj_bias[:width].float()
    query = query.unflatten(-1, (attn.num_heads, -1)) / attn.head_dim**0.5  # [image, head, rank]
    # (W_k x + b_k)·q = x·(W_kᵀ q) + const: the keys of all tokens are never formed.
    folded = torch.einsum("bhr,hrw->bhw", query, key_weight.unflatten(0, (attn.num_heads, -1)))
    return torch.softmax(folded @ tokens.mT, dim=-1)


@dataclass(frozen=True)
class SecondOrderLens(RecordingLens):
    """Second-order effects of the neurons of chosen layers (2406.04341, equation 7).

    Call it with preprocessed images ``[image, 3, height, width]``; it returns the image
    embeddings (not normalised) and, by layer, the :class:`Contributions` of its neurons. Pairs
    are ordered by later layer, then head.

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

    @property
    def _blocks(self) -> nn.ModuleList:
        return self.clip.visual.transformer.resblocks

    @cached_property
    def _outer(self) -> Float[Tensor, "head rank embed"]:
        """What each head of each block after the first chosen layer writes to the embedding."""
        visual, heads = self.clip.visual, self.clip.heads
        readout = visual.ln_post.weight.float()[:, None] * visual.proj.float()  # [width, embed]
        return torch.cat(
            [
                # W_O is [width out, heads · rank in].
                (block.attn.out_proj.weight.float().T @ readout).unflatten(0, (heads, -1))
                for block in self._blocks[self.layers[0] + 1 :]
            ]
        )

    @cached_property
    def directions(self) -> dict[int, HeadDirections]:
        """By layer, what each neuron writes to the embedding through each later head."""
        return {layer: self._directions_of(layer) for layer in self.layers}

    def _directions_of(self, layer: int) -> HeadDirections:
        written = self._blocks[layer].mlp.c_proj.weight.float().T  # [neuron, width]
        inner = [
            torch.einsum(
                "nw,hrw->hnr", written * block.ln_1.weight.float(), value_weights(block)[0]
            )
            for block in self._blocks[layer + 1 :]
        ]
        skipped = (layer - self.layers[0]) * self.clip.heads
        return HeadDirections(torch.cat(inner), self._outer[skipped:])

    @property
    def recorded(self) -> list[str]:
        """Names of the tensors that :meth:`read` needs."""
        later = range(self.layers[0] + 1, self.clip.layers)
        return (
            [activation_name(layer) for layer in self.layers]
            + [f"transformer.resblocks.{index}.ln_1:input" for index in later]
            + [f"transformer.resblocks.{index}.ln_1" for index in later]
            + ["ln_post:input"]
        )

    def read(
        self, tensors: dict[str, Tensor], representation: Float[Tensor, "image embed"]
    ) -> dict[int, Contributions]:
        """Contributions from the :attr:`recorded` tensors of a forward pass."""
        check_finite(representation)
        post_mean, post_sigma = moments(self.clip.visual.ln_post, tensors["ln_post:input"][:, 0])
        scale = SCALE / representation.norm(dim=-1)
        reads = []  # per later block: a_i, 1/σ_i, μ_i
        for index in range(self.layers[0] + 1, self.clip.layers):
            name = f"transformer.resblocks.{index}.ln_1"
            mean, sigma = moments(self._blocks[index].ln_1, tensors[f"{name}:input"])
            attention = class_attention(self._blocks[index], tensors[name])
            reads.append((attention, sigma.reciprocal(), mean))
        weights = torch.cat([attention * inverse[:, None] for attention, inverse, _ in reads], 1)
        weights = weights * (scale / post_sigma)[:, None, None]  # [image, head, token]
        result = {}
        for layer in self.layers:
            later = layer - self.layers[0]
            mine = weights[:, later * self.clip.heads :]
            activations = tensors[activation_name(layer)].float()
            bias = None
            if self.shared_bias:
                shared = self._shared_bias(layer, reads[later:], post_mean, post_sigma)
                bias = scale[:, None] * shared
            result[layer] = Contributions(
                scores=torch.bmm(activations.mT, mine.mT),
                directions=self.directions[layer],
                bias=bias,
                activations=activations,
                weights=mine,
            )
        return result

    def _shared_bias(
        self, layer: int, reads: list[tuple[Tensor, Tensor, Tensor]], post_mean, post_sigma
    ) -> Float[Tensor, "image embed"]:
        """Each neuron's equal share of biases and layer-norm means (2406.04341, A.5)."""
        clip, visual = self.clip, self.clip.visual
        heads, neurons = clip.heads, clip.neurons
        gain, proj = visual.ln_post.weight.float(), visual.proj.float()
        written = self._blocks[layer].mlp.c_proj.bias.float() / neurons
        first = layer - self.layers[0]
        total = 0.0
        for offset, (attention, inverse, mean) in enumerate(reads):
            block = self._blocks[layer + 1 + offset]
            terms = (1 + 2 * (layer + 1 + offset)) * neurons
            terms_post = terms * (1 + 2 * clip.layers) * heads
            # Σ_i a_i e_i, with a constant μ_i subtracted from every coordinate.
            inverse_sum = (attention * inverse[:, None]).sum(-1, keepdim=True)
            mean_sum = (attention * (mean * inverse)[:, None]).sum(-1, keepdim=True)
            read = block.ln_1.weight.float() * (written * inverse_sum - mean_sum / terms)
            read = read + block.ln_1.bias.float() / terms  # [image, head, width]
            values, value_bias = value_weights(block)
            carried = torch.einsum("bhw,hrw->bhr", read, values) + value_bias / terms
            mine = slice((first + offset) * heads, (first + offset + 1) * heads)
            out = torch.einsum("bhr,hrd->bd", carried, self._outer[mine])
            out = out + (gain * block.attn.out_proj.bias.float() / terms) @ proj
            out = out - heads * post_mean[:, None] / terms_post * (gain @ proj)
            total = total + out / post_sigma[:, None]
            total = total + heads * (visual.ln_post.bias.float() / terms_post) @ proj
        return total


def value_weights(
    block: nn.Module,
) -> tuple[Float[Tensor, "head rank width"], Float[Tensor, "head rank"]]:
    """Value projection of a block's attention, by head: weights and biases."""
    attn = block.attn
    heads = (attn.num_heads, -1)
    weight = attn.in_proj_weight[2 * attn.embed_dim :].float().unflatten(0, heads)
    return weight, attn.in_proj_bias[2 * attn.embed_dim :].float().unflatten(0, heads)


def moments(
    norm: nn.LayerNorm, inputs: Float[Tensor, "*token width"]
) -> tuple[Float[Tensor, "*token"], Float[Tensor, "*token"]]:
    """Mean and sqrt(variance + eps) of each token, as its layer norm takes them."""
    variance, mean = torch.var_mean(inputs.float(), dim=-1, unbiased=False)
    return mean, (variance + norm.eps).sqrt()
