"""What each token of the image contributes to the embedding, exactly.

The embedding is a sum over heads and MLPs, and each head's output a sum over the tokens it
attends to (2310.05916, section 5); these terms hold what the neurons wrote into each token
before, their second-order effects among it. A token of a late block is itself a mixture of
patches, so its terms are followed back to the patches by attention rollout (2005.00928), whose
rows sum to 1. Nothing is lost on the way: over all patches and the class token the effects add up
to the embedding without its biases.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.contributions import Contributions
from clipneurons.lens.directions import SplitDirections
from clipneurons.lens.make import Lens, make_lens
from clipneurons.lens.pooling import carry_factors, pooling_names, read_pooling
from clipneurons.models.attention import centred_heads
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
    def _factors(self) -> tuple[Tensor, Tensor | None]:
        """What the pooling reads of a token, and what it writes of that (`carry_factors`)."""
        reads, writes = carry_factors(self.clip.anatomy, centred=True)
        return reads.to(self.clip.dtype), None if writes is None else writes.to(self.clip.dtype)

    @cached_property
    def _read_of_heads(self) -> list[Float[Tensor, "head rank reader read"]]:
        """What the pooling reads of each head of each block: weights only, made once."""
        anatomy, reads = self.clip.anatomy, self._factors[0].float()
        return [
            torch.einsum("hrw,qwv->hrqv", centred_heads(block.attention), reads).to(self.clip.dtype)
            for block in anatomy.blocks
        ]

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token embed"]:
        """Effects of all tokens."""
        anatomy, writes = self.clip.anatomy, self._factors[1]
        last, *names = pooling_names(anatomy)
        with record_activations(self.clip.visual, names) as tensors:
            run = run_with_cache(self.clip, images)
        tensors = {**tensors, last: run.blocks[-1].outputs}
        weights = read_pooling(anatomy, tensors).weights.to(run.start.dtype)
        count, tokens = run.start.shape[:2]
        identity = torch.eye(tokens, device=run.start.device, dtype=run.start.dtype)
        origin = identity.expand(count, -1, -1)  # [image, token of the block, input token]
        queries = weights.shape[-1]
        # What the pooling reads that comes from each token: [image, token, reader, read].
        total = run.start.new_zeros(count, tokens, *self._factors[0].shape[::2])
        total[:, :queries] = self._read(run.start[:, :queries], weights)
        for block, read, traced in zip(
            anatomy.blocks, self._read_of_heads, run.blocks, strict=True
        ):
            rows = weights / traced.sigma[:, None, :queries]
            for head in range(block.attention.heads):
                carried = rows @ traced.attention[:, head, :queries]  # [image, reader, token]
                said = torch.einsum("btr,rqv->btqv", traced.values[:, head], read[head])
                total = total + _from(origin, said * carried.mT[..., None])
            origin = (origin + traced.attention.mean(1) @ origin) / 2
            written = self._read(traced.mlp[:, :queries], weights)
            total = total + _from(origin[:, :queries], written)
        if writes is None:
            return total[:, :, 0].float()
        return torch.einsum("btqv,qvd->btd", total, writes).float()

    def _read(self, vectors: Tensor, weights: Tensor) -> Float[Tensor, "image query reader read"]:
        """What the pooling reads of vectors in the final tokens."""
        return torch.einsum("btw,qwv->btqv", vectors, self._factors[0]) * weights.mT[..., None]


def _from(
    origin: Float[Tensor, "image token source"], read: Float[Tensor, "image token reader read"]
) -> Float[Tensor, "image source reader read"]:
    """What is read of tokens, handed to the input tokens that they come from."""
    return (origin.mT @ read.flatten(2)).unflatten(-1, read.shape[2:])


def unit_token_effects(
    mine: Contributions, onto: Float[Tensor, "embed feature"] | None = None
) -> Float[Tensor, "image token feature"]:
    """What all units of a layer write from each token: their effects, kept by token.

    Of a ResNet, whose pairs write the whole embedding but its bias, or of one MLP layer. Projected
    on the columns of ``onto`` where given.
    """
    directions = mine.directions
    if isinstance(directions, SplitDirections):
        directions = directions.whole
    outer = directions.outer if onto is None else directions.outer @ onto.to(directions.outer)
    total = 0.0
    for head in range(directions.heads):
        read = mine.activations @ directions.inner[head]
        total = total + mine.weights[:, head, :, None] * (read @ outer[head])
    return total


def effects_by_patch(
    layers: Iterable[Contributions], onto: Float[Tensor, "embed feature"] | None = None
) -> Float[Tensor, "image patch feature"]:
    """What all units of all layers write from each patch (`unit_token_effects`).

    Layers of no place are left out; where all are, there are no patches.
    """
    layers = list(layers)
    placed = [mine for mine in layers if mine.placed]
    if not placed:
        embed = layers[0].directions.embed
        return torch.zeros(layers[0].images, 0, embed if onto is None else onto.shape[1])
    return sum(unit_token_effects(mine, onto) for mine in placed)[:, placed[0].prefix :]


def additive_maps(
    contributions: Mapping[int, Contributions] | Sequence[Contributions],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class token"]:
    """Each token's exact share of ``⟨Σ_n φ_n, class⟩`` over all neurons of the layers.

    Summed over tokens it is that number (which is the first-order part of later heads that
    reads these neurons). The class token, token 0, has a share as well. Layers of no place, the
    pooling's own MLP, are left out.

    Raises:
        ValueError: contributions with a shared bias, which belongs to no token.
    """
    layers = contributions.values() if isinstance(contributions, Mapping) else contributions
    return sum(_attribution_maps(mine, texts) for mine in layers if mine.placed)


def _attribution_maps(
    mine: Contributions, texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image class token"]:
    if mine.bias is not None:
        raise ValueError("expected contributions without the shared bias, which is of no token")
    chunks = texts.split(_CLASSES)
    return torch.cat(
        [
            # Σ_k weights[k, i] · (Σ_n activations[i, n] · ⟨direction[n, k], class⟩)
            torch.einsum("bki,bikc->bci", mine.weights, token_logits(mine, chunk))
            for chunk in chunks
        ],
        dim=1,
    )


def token_logits(
    mine: Contributions, texts: Float[Tensor, "class embed"]
) -> Float[Tensor, "image token head class"]:
    """What each token's neurons would say about each class if a head read that token alone."""
    directions = mine.directions
    if isinstance(directions, SplitDirections):
        directions = directions.whole
    along = directions.project(texts)  # [neuron, head, class]
    said = mine.activations @ along.flatten(1)
    return said.unflatten(-1, along.shape[1:])


def at_patches(mine: Contributions, patches: Sequence[int]) -> Contributions:
    """The part of every unit's effect that comes from some patches (0 is the first, top left).

    Over all patches and the class token these parts add up to the whole effects, so everything
    that reads contributions can be asked what the neurons say *here*.

    Raises:
        ValueError: a patch outside the image.
    """
    count = mine.activations.shape[1] - mine.prefix
    outside = [patch for patch in patches if not 0 <= patch < count]
    if outside:
        raise ValueError(f"patch {outside[0]} is outside the image: expected 0 to {count - 1}")
    tokens = torch.tensor(patches, dtype=torch.long, device=mine.weights.device) + mine.prefix
    activations, weights = mine.activations[:, tokens], mine.weights[..., tokens]
    return Contributions(None, mine.directions, None, activations, weights, prefix=0)


def token_effects_of(clip: ClipModel) -> Callable[[Tensor], Float[Tensor, "image token embed"]]:
    """For either kind of tower: from images to what each of their tokens writes to the embedding.

    What depends on the weights alone is made once for all the calls.
    """
    return (
        PatchAttribution(clip) if clip.kind == "vit" else partial(pooled_effects, make_lens(clip))
    )


def pooled_effects(
    lens: Lens, images: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image token embed"]:
    """What each position of a ResNet's pooling writes to the embedding."""
    _, contributions = lens(images)
    return sum(unit_token_effects(mine) for mine in contributions.values())
