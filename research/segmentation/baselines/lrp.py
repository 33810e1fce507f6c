"""Layer-wise relevance propagation through a ViT, after Chefer et al. (2012.09838, section 3.1).

A class score's relevance is passed backwards so that each step keeps its sum: linear layers by
the αβ-rule with α = 1, β = 0 (positive contributions only, Montavon et al. 2017), products and
residual sums in proportion to what each side contributed; norms, activations and softmax pass
relevance on unchanged. Biases take no relevance.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.models.anatomy import Block
from clipneurons.models.clip import ClipModel
from clipneurons.models.trace import ActivationCache, BlockActivations, run_with_cache
from research.segmentation.baselines.baseline import Baseline, to_grid

_TINY = 1e-9


def divide(relevance: Tensor, total: Tensor) -> Tensor:
    """``relevance / total``, and 0 where nothing contributed."""
    safe = torch.where(total.abs() < _TINY, torch.ones_like(total), total)
    return torch.where(total.abs() < _TINY, torch.zeros_like(relevance), relevance / safe)


def linear_rule(
    inputs: Float[Tensor, "*token width"],
    weight: Float[Tensor, "out width"],
    relevance: Float[Tensor, "*token out"],
) -> Float[Tensor, "*token width"]:
    """Relevance of the inputs of a linear layer, by their positive contributions."""
    positive, negative = weight.clamp_min(0), weight.clamp_max(0)
    total = F.linear(inputs.clamp_min(0), positive) + F.linear(inputs.clamp_max(0), negative)
    share = divide(relevance, total)
    return inputs.clamp_min(0) * (share @ positive) + inputs.clamp_max(0) * (share @ negative)


def product_rule(left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of the two factors of ``left @ right``, half to each."""
    share = divide(relevance, left @ right) / 2
    return left * (share @ right.mT), right * (left.mT @ share)


def sum_rule(left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of the two terms of ``left + right``, sums kept in proportion (equation 9)."""
    share = divide(relevance, left + right)
    parts = (left * share, right * share)
    dims = tuple(range(1, relevance.ndim))
    sums = [part.sum(dims, keepdim=True) for part in parts]
    whole = relevance.sum(dims, keepdim=True)
    sizes = sums[0].abs() + sums[1].abs()
    first, second = (
        part * divide(divide(total.abs(), sizes) * whole, total)
        for part, total in zip(parts, sums, strict=True)
    )
    return first, second


@dataclass(frozen=True)
class Relevance:
    """Relevance of each block's attention maps, and of the tokens that enter the first block."""

    attention: list[Float[Tensor, "image head token token"]]
    start: Float[Tensor, "image token width"]


@torch.no_grad()
def propagate(
    clip: ClipModel, run: ActivationCache, text: Float[Tensor, " embed"], blocks: int | None = None
) -> Relevance:
    """Relevance of a class score, from the embedding back through the last ``blocks`` blocks.

    Raises:
        ValueError: a model in fp16, whose range the quotients leave, or one without class token
            or of other blocks than CLIP's first.
    """
    if clip.dtype == torch.float16:
        raise ValueError("relevance overflows in fp16: load the model with fp32 or bf16")
    pooling, final = clip.anatomy.pooling, run.blocks[-1].outputs
    # One linear layer from the normalised class token.
    readout = (pooling.readout @ text.to(pooling.readout)).to(final)[None]
    pooled = (pooling.norm or pooling.post)(final[:, 0])
    relevance = torch.zeros_like(final)
    relevance[:, 0] = linear_rule(pooled, readout, pooled.new_ones(len(pooled), 1))
    attention = []
    chosen = list(zip(clip.anatomy.blocks, run.blocks, strict=True))
    for block, traced in reversed(chosen[-(blocks or len(chosen)) :]):
        relevance, of_attention = _block(block, traced, relevance)
        attention.append(of_attention)
    return Relevance(attention[::-1], relevance)


def _block(block: Block, run: BlockActivations, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of a block's inputs and of its attention maps."""
    skipped, mlp = sum_rule(run.middle, run.mlp, relevance)
    mlp = linear_rule(run.activations, block.mlp.output.weight.to(mlp), mlp)
    mlp = linear_rule(run.mlp_normed, block.mlp.input.weight.to(mlp), mlp)
    skipped, attended = sum_rule(run.inputs, run.attended, skipped + mlp)
    mixed = run.attention @ run.values
    attend = block.attention
    attended = linear_rule(
        mixed.transpose(1, 2).flatten(2), attend.output.weight.to(mixed), attended
    )
    attended = attended.unflatten(-1, (mixed.shape[1], -1)).transpose(1, 2)
    of_attention, of_values = product_rule(run.attention, run.values, attended)
    of_queries, of_keys = product_rule(run.queries, run.keys.mT, of_attention)
    projected = torch.cat(
        [part.transpose(1, 2).flatten(2) for part in (of_queries, of_keys.mT, of_values)], -1
    )
    weights = torch.cat([part.weight for part in (attend.query, attend.key, attend.value)])
    return skipped + linear_rule(run.normed, weights.to(mixed), projected), of_attention


def lrp(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Relevance of each embedded patch, followed back through the whole model."""
    run = run_with_cache(clip, images)
    maps = [propagate(clip, run, text).start[:, clip.prefix :].sum(-1) for text in texts]
    return to_grid(clip, torch.stack(maps, 1))


BASELINE = Baseline("LRP", vit=lrp, class_token=True, plain_blocks=True)
