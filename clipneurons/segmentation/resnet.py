"""Semantic segmentation with a CLIP-ResNet, without training (2509.19943, section 4).

At each position of the last stage, the pooling's values say something about a class through
every neuron-head pair. MaskCLIP adds up all pairs; here only those whose direction agrees most
with the class have a say, which leaves out what the others say by accident.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.neuron_head import NeuronHeadLens
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations
from clipneurons.models.larger_images import stretch_positions
from clipneurons.segmentation.methods import RESNET

PAIRS = 2000
_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
Maps = Callable[[Tensor, Tensor], Tensor]


def resnet_segmenters(clip: ClipModel) -> dict[str, Maps]:
    """Methods by name: ``method(images, texts) -> [image, class, row, column]``."""
    lens = NeuronHeadLens(clip)
    methods = (pair_maps, maskclip_maps, attention_maps, gradcam_maps)
    return {name: partial(method, lens) for name, method in zip(RESNET, methods, strict=True)}


def pair_counts(clip: ClipModel) -> tuple[int, ...]:
    """Numbers of pairs to choose from: shares of all that the model has."""
    return tuple(max(1, int(share * clip.neurons * clip.heads)) for share in _SHARES)


def pair_maps(
    lens: NeuronHeadLens,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
    count: int = PAIRS,
) -> Float[Tensor, "image class row column"]:
    """What the ``count`` pairs most aligned with each class say about it at each position.

    Alignment is the cosine of a pair's direction with the text. Scores are divided by the norm
    of all that a position says, as in MaskCLIP, so that classes compete at every position.
    """
    stage = last_stage(lens.clip, images)
    tokens = position_tokens(lens.clip, stage)
    # Dividing by the norm of the values needs them; the pairs themselves are only weights.
    spoken = (tokens @ dense_weights(lens) + lens.bias).norm(dim=-1, keepdim=True)
    maps = tokens @ class_weights(lens, texts, count).T / spoken
    return maps.mT.unflatten(-1, stage.shape[2:])


def class_weights(
    lens: NeuronHeadLens, texts: Float[Tensor, "class embed"], count: int = PAIRS
) -> Float[Tensor, "class neuron"]:
    """How much each neuron's activation says about each class, through the chosen pairs only.

    Rows are scaled so that classes with other numbers of strong pairs compare: each has the
    norm that it has with all pairs.
    """
    if count < 1:
        raise ValueError(f"expected at least one pair, not {count}")
    said = lens.neurons.project(texts)  # [neuron, head, class]
    norms = lens.directions[lens.layers[0]].gram.sqrt().reshape(said.shape[:2])
    cosines = (said / norms[..., None].clamp_min(1e-12)).flatten(0, 1)
    chosen = cosines.topk(min(count, len(cosines)), dim=0).indices
    keep = torch.zeros_like(cosines).scatter_(0, chosen, 1.0)
    kept = (said * keep.view_as(said)).sum(1).T
    whole = said.sum(1).T
    return kept * (whole.norm(dim=1) / kept.norm(dim=1).clamp_min(1e-12))[:, None]


def maskclip_maps(
    lens: NeuronHeadLens,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """MaskCLIP (2112.01071) for ResNets: cosine of each position's value with each class."""
    stage = last_stage(lens.clip, images)
    values = position_tokens(lens.clip, stage) @ dense_weights(lens) + lens.bias
    maps = F.normalize(values, dim=-1) @ texts.T
    return maps.mT.unflatten(-1, stage.shape[2:])


def attention_maps(
    lens: NeuronHeadLens,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """Each position's exact share of the embedding's similarity with each class.

    What a position says times the pooling's attention to it, head by head. The images must be of
    the size that the model was made for.
    """
    with record_activations(lens.clip.visual, lens.recorded) as tensors:
        representation = lens.clip.encode_image(images)
    mine = lens.read(tensors, representation)[lens.layers[0]]
    said = lens.neurons.project(texts)  # [neuron, head, class]
    by_head = torch.einsum("bin,nhc->bhic", mine.activations[:, 1:], said)
    maps = torch.einsum("bhi,bhic->bci", mine.weights[..., 1:], by_head)
    return maps.unflatten(-1, tensors["attnpool:input"].shape[2:])


def gradcam_maps(
    lens: NeuronHeadLens,
    images: Float[Tensor, "image 3 height width"],
    texts: Float[Tensor, "class embed"],
) -> Float[Tensor, "image class row column"]:
    """GradCAM (1610.02391) at the last stage: gradients averaged over positions weigh channels.

    The images must be of the size that the model was made for.
    """
    stage = last_stage(lens.clip, images)
    maps = []
    with torch.enable_grad():
        stage.requires_grad_()
        pooled = lens.clip.visual.attnpool(stage.to(lens.clip.dtype))
        embedded = F.normalize(pooled.float(), dim=-1)
        for text in texts:
            (gradient,) = torch.autograd.grad((embedded @ text).sum(), stage, retain_graph=True)
            weights = gradient.mean((2, 3), keepdim=True)
            maps.append((weights * stage).sum(1).clamp_min(0).detach())
    return torch.stack(maps, 1)


@torch.no_grad()
def last_stage(
    clip: ClipModel, images: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image neuron row column"]:
    """Output of the last stage; images may be of any size of at least one position (32 px)."""
    visual = clip.visual
    stage = visual.stem(images.to(clip.device, clip.dtype))
    for part in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        stage = part(stage)
    return stage.float()


def position_tokens(
    clip: ClipModel, stage: Float[Tensor, "image neuron row column"]
) -> Float[Tensor, "image position neuron"]:
    """Activations with positional embeddings, which are stretched to other grids."""
    table = clip.visual.attnpool.positional_embedding.float()[1:]
    new = tuple(stage.shape[2:])
    if new != clip.grid:
        table = stretch_positions(table, clip.grid, new)
    return stage.flatten(2).mT + table


def dense_weights(lens: NeuronHeadLens) -> Float[Tensor, "neuron embed"]:
    """What a neuron writes to the embedding where a position keeps its own value: all heads."""
    pool = lens.clip.visual.attnpool
    return pool.v_proj.weight.float().T @ pool.c_proj.weight.float().T
