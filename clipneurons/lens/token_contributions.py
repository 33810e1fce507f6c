"""What each token of the image contributes to the embedding, exactly.

:class:`PatchAttribution` takes a ViT's embedding apart by input token t. It is the decomposition
by head and token of arXiv 2310.05916 (section 5), followed back through the earlier blocks:

    M(I) = Σ_t effect_t + bias

    effect_t = Σ_q [ r_qt z_t^0 + Σ_l ( Σ_i O_it^l Σ_h A_qi^{l,h} v_i^{l,h} W_O^{l,h}
                                      + Σ_j O_jt^{l+1} r_qj m_j^l ) ] C_q

    r_qj       [Q, J]     weight of final token j for reader q of the pooling (`pooling_weights`)
    C_q        [W, D]     from a final token to the embedding through reader q (`carry_factors`)
    z^0        [T, W]     input of the first block
    A_qi^{l,h} [Q, T]     Σ_j r_qj a_ji / σ_j: how much of the value of token i is pooled
    v^{l,h}    [T, R]     values of head h of block l, their bias included
    W_O^{l,h}  [R, W]     output weights of the head
    m^l        [T, W]     what the MLP of block l writes
    O^l        [T, T]     how much of token i of block l comes from input token t

A token of a late block is itself a mixture. Attention rollout (arXiv 2005.00928) says of what:
O^0 is the identity and O^{l+1} = (mean_h a^{l,h} · O^l + O^l) / 2. Its rows sum to 1, so that
nothing is lost on the way. The rest of this file splits the effects of units, second-order or of
neuron-head pairs, by the token of the layer that they come from:

    effect_i = Σ_h weights_hi · Σ_n activations_in · direction_nh
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.contributions import Contributions, SpatialContributions
from clipneurons.lens.directions import HeadDirections, SplitDirections
from clipneurons.lens.lens import Lens
from clipneurons.lens.second_order import carry_factors, pooling_names, pooling_weights
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations
from clipneurons.models.trace import run_with_cache

# Classes whose [image, token, head, class] shares are held at once.
_CLASSES = 16


@dataclass(frozen=True)
class PatchAttribution:
    """Effect of each input token of a ViT on the embedding, in one pass.

    Call it with preprocessed images for effects ``[image, token, embed]``, tokens before the
    patches first. Summed over tokens: the first-order effects of all heads and of the blocks'
    MLPs and of the input.
    """

    clip: ClipModel

    @cached_property
    def _carry(
        self,
    ) -> tuple[Float[Tensor, "reader width read"], Float[Tensor, "reader read embed"] | None]:
        """C as factors: of rank R where a probe pools, else the first is C itself."""
        reads, writes = carry_factors(self.clip.anatomy, centred=True)
        return reads.to(self.clip.dtype), None if writes is None else writes.to(self.clip.dtype)

    @cached_property
    def _head_reads(self) -> list[Float[Tensor, "head rank reader read"]]:
        """W_O times the first factor of C, by block."""
        reads = self._carry[0].float()
        return [
            torch.einsum("hrw,qwv->hrqv", block.attention.written_centred, reads).to(
                self.clip.dtype
            )
            for block in self.clip.anatomy.blocks
        ]

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token embed"]:
        """Effects of all tokens."""
        anatomy, (reads, writes) = self.clip.anatomy, self._carry
        last, *names = pooling_names(anatomy)
        with record_activations(self.clip.visual, names) as tensors:
            run = run_with_cache(self.clip, images)
        tensors = {**tensors, last: run.blocks[-1].outputs}
        pooled = pooling_weights(anatomy, tensors).to(run.start.dtype)  # r: [image, reader, query]
        queries = pooled.shape[-1]  # the first tokens, which are pooled
        count, tokens = run.start.shape[:2]
        identity = torch.eye(tokens, device=run.start.device, dtype=run.start.dtype)
        origin = identity.expand(count, -1, -1)  # O: [image, token of the block, input token]
        total = run.start.new_zeros(count, tokens, reads.shape[0], reads.shape[2])
        total[:, :queries] = self._read(run.start[:, :queries], pooled)
        for block, head_reads, traced in zip(
            anatomy.blocks, self._head_reads, run.blocks, strict=True
        ):
            by_sigma = pooled / traced.sigma[:, None, :queries]  # [image, reader, query]
            for head in range(block.attention.heads):
                attention = by_sigma @ traced.attention[:, head, :queries]  # [image, reader, token]
                values = torch.einsum("btr,rqv->btqv", traced.values[:, head], head_reads[head])
                total = total + _from_origin(origin, values * attention.mT[..., None])
            origin = (origin + traced.attention.mean(1) @ origin) / 2
            mlp = self._read(traced.mlp[:, :queries], pooled)  # [image, query, reader, read]
            total = total + _from_origin(origin[:, :queries], mlp)
        if writes is None:
            return total[:, :, 0].float()  # [image, token, embed]
        return torch.einsum("btqv,qvd->btd", total, writes).float()  # [image, token, embed]

    def _read(
        self,
        vectors: Float[Tensor, "image query width"],
        pooled: Float[Tensor, "image reader query"],
    ) -> Float[Tensor, "image query reader read"]:
        """What each reader reads of vectors in the final tokens."""
        return torch.einsum("btw,qwv->btqv", vectors, self._carry[0]) * pooled.mT[..., None]


def _from_origin(
    origin: Float[Tensor, "image token source"], read: Float[Tensor, "image token reader read"]
) -> Float[Tensor, "image source reader read"]:
    """What is read of tokens, handed to the input tokens that they come from."""
    return (origin.mT @ read.flatten(2)).unflatten(-1, read.shape[2:])


def unit_token_effects(
    contributions: SpatialContributions, onto: Float[Tensor, "embed feature"] | None = None
) -> Float[Tensor, "image token feature"]:
    """Effects of all units of a layer, summed over units and kept by token.

    Projected on the columns of ``onto`` where given.
    """
    directions = _by_neuron(contributions)
    outer = directions.outer if onto is None else directions.outer @ onto.to(directions.outer)
    total = 0.0
    for head in range(directions.heads):
        values = contributions.activations @ directions.inner[head]  # [image, token, rank]
        written = values @ outer[head]  # [image, token, feature]
        total = total + contributions.weights[:, head, :, None] * written
    return total


def effects_by_patch(
    layers: Iterable[Contributions], onto: Float[Tensor, "embed feature"] | None = None
) -> Float[Tensor, "image patch feature"]:
    """Effects of all units of all layers, summed over units and kept by patch.

    Layers without spatial tokens are left out; without any other there are no patches.
    """
    layers = list(layers)
    spatial = [layer for layer in layers if isinstance(layer, SpatialContributions)]
    if not spatial:
        embed = layers[0].directions.embed
        return torch.zeros(layers[0].images, 0, embed if onto is None else onto.shape[1])
    return sum(unit_token_effects(layer, onto) for layer in spatial)[:, spatial[0].prefix :]


def additive_maps(
    contributions: Mapping[int, Contributions] | Sequence[Contributions],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class token"]:
    """Each token's exact share of ``⟨Σ_n φ_n, class⟩`` over all neurons of the layers.

    Summed over tokens it is that number (which is the first-order part of later heads that
    reads these neurons). The class token, token 0, has a share as well. Layers without spatial
    tokens are left out.

    Raises:
        ValueError: contributions with a shared bias, which belongs to no token.
    """
    layers = contributions.values() if isinstance(contributions, Mapping) else contributions
    return sum(
        _layer_maps(layer, texts) for layer in layers if isinstance(layer, SpatialContributions)
    )


def _layer_maps(
    contributions: SpatialContributions, texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image class token"]:
    if contributions.bias is not None:
        raise ValueError("expected contributions without the shared bias, which is of no token")
    maps = []
    for chunk in texts.split(_CLASSES):
        logits = _token_logits(contributions, chunk)  # [image, token, head, class]
        maps.append(torch.einsum("bki,bikc->bci", contributions.weights, logits))
    return torch.cat(maps, dim=1)  # [image, class, token]


def _token_logits(
    contributions: SpatialContributions, texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image token head class"]:
    """Inner product with each class of what a head would write if it read that token alone."""
    along = _by_neuron(contributions).project(texts)  # [neuron, head, class]
    logits = contributions.activations @ along.flatten(1)  # [image, token, head · class]
    return logits.unflatten(-1, along.shape[1:])  # [image, token, head, class]


def _by_neuron(contributions: SpatialContributions) -> HeadDirections:
    """Directions of the neurons themselves, where units are neuron-head pairs."""
    directions = contributions.directions
    return directions.whole if isinstance(directions, SplitDirections) else directions


def at_patches(contributions: SpatialContributions, patches: Sequence[int]) -> SpatialContributions:
    """The part of every unit's effect that comes from some patches (0 is the first, top left).

    Over all patches and the tokens before them these parts add up to the whole effects, so that
    everything that reads contributions can be asked about a region of the image.

    Raises:
        ValueError: a patch outside the image.
    """
    count = contributions.activations.shape[1] - contributions.prefix
    outside = [patch for patch in patches if not 0 <= patch < count]
    if outside:
        raise ValueError(f"patch {outside[0]} is outside the image: expected 0 to {count - 1}")
    tokens = torch.tensor(patches, dtype=torch.long, device=contributions.weights.device)
    tokens += contributions.prefix
    return SpatialContributions(
        contributions.activations[:, tokens],
        contributions.weights[..., tokens],
        contributions.directions,
        prefix=0,
    )


def token_effects_of(clip: ClipModel) -> Callable[[Tensor], Float[Tensor, "image token embed"]]:
    """For either kind of tower: from images to the effect of each of their tokens.

    What depends on the weights alone is computed once for all calls.
    """
    return PatchAttribution(clip) if clip.kind == "vit" else partial(_pooled_effects, Lens(clip))


def _pooled_effects(
    lens: Lens, images: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image token embed"]:
    """Effect of each position that a ResNet pools."""
    _, contributions = lens(images)
    return sum(unit_token_effects(layer) for layer in contributions.values())
