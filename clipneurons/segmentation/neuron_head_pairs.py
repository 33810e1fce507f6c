"""Semantic segmentation with a CLIP-ResNet's neuron-head pairs: arXiv 2509.19943, section 4.

    map_c(i) = Σ_{(n, h) ∈ P_c} z_i^n ⟨d_n^h, t_c⟩ / ‖v_i‖      v_i = Σ_n Σ_h z_i^n d_n^h + bias

    z_i [N]     last stage at position i, positional embedding added
    d_n^h [D]   direction of neuron n through pooling head h
    P_c         the k pairs whose direction has the largest cosine with class c

MaskCLIP (arXiv 2112.01071) sums over all pairs. The few that agree with the class leave out what
the others add by accident. Ours differs in one point: the weights of each class are scaled to the
norm that they have with all pairs, so that classes compare (`class_weights`).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.neuron_head import NeuronHeadEffects
from clipneurons.models.clip import ClipModel
from clipneurons.models.larger_images import stretch_positions

PAIRS = 2000


def pair_maps(
    lens: NeuronHeadEffects,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    count: int = PAIRS,
) -> Float[Tensor, "image class row column"]:
    """The equation above; images may be of any size of at least one position (32 px)."""
    stage = last_stage(lens.clip, images)
    values = position_values(lens, stage)
    maps = position_tokens(lens.clip, stage) @ class_weights(lens, texts, count).T
    return (maps / values.norm(dim=-1, keepdim=True)).mT.unflatten(-1, stage.shape[2:])


def class_weights(
    lens: NeuronHeadEffects, texts: Float[Tensor, "class embed"], count: int = PAIRS
) -> Float[Tensor, "class neuron"]:
    """``Σ_h ⟨d_n^h, t_c⟩`` over the chosen pairs, each class scaled to its norm over all pairs."""
    if count < 1:
        raise ValueError(f"expected at least one pair, not {count}")
    logits = lens.neurons.project(texts)  # [neuron, head, class]
    norms = lens.directions[lens.layers[0]].gram.sqrt().reshape(logits.shape[:2])
    cosines = (logits / norms[..., None].clamp_min(1e-12)).flatten(0, 1)  # [pair, class]
    chosen = cosines.topk(min(count, len(cosines)), dim=0).indices
    keep = torch.zeros_like(cosines).scatter_(0, chosen, 1.0)
    kept = (logits * keep.view_as(logits)).sum(1).T  # [class, neuron]
    total = logits.sum(1).T
    return kept * (total.norm(dim=1) / kept.norm(dim=1).clamp_min(1e-12))[:, None]


@torch.no_grad()
def last_stage(
    clip: ClipModel, images: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image neuron row column"]:
    """Output of the last stage."""
    visual = clip.visual
    stage = visual.stem(images.to(clip.device, clip.dtype))
    for part in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        stage = part(stage)
    return stage.float()


def position_tokens(
    clip: ClipModel, stage: Float[Tensor, "image neuron row column"]
) -> Float[Tensor, "image position neuron"]:
    """z: activations with positional embeddings, which are stretched to other grids."""
    table = clip.visual.attnpool.positional_embedding.float()[1:]
    new = tuple(stage.shape[2:])
    if new != clip.grid:
        table = stretch_positions(table, clip.grid, new)
    return stage.flatten(2).mT + table


def position_values(
    lens: NeuronHeadEffects, stage: Float[Tensor, "image neuron row column"]
) -> Float[Tensor, "image position embed"]:
    """v: the embedding if the pooling read one position alone."""
    pool = lens.clip.visual.attnpool
    values = position_tokens(lens.clip, stage) @ pool.v_proj.weight.float().T
    return values @ pool.c_proj.weight.float().T + lens.bias
