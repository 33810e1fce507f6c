"""Directions and texts of neurons by their indirect effects: the adversarial baseline.

The same reading as the bundle's, with second-order effects replaced by what the embedding loses
when the neuron's activation is replaced by its mean (2406.04341, section 5.1, baselines).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.indirect import indirect_effects, mean_activations
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations
from clipneurons.statistics.omp import by_magnitude, omp


@dataclass(frozen=True)
class IndirectDecomposition:
    """One layer's neurons: first principal component of the indirect effects, and its texts."""

    directions: Float[Tensor, "unit embed"]
    indices: Int[Tensor, "unit component"]
    coefficients: Float[Tensor, "unit component"]


@torch.no_grad()
def indirect_decompositions(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    layers: Sequence[int],
    texts: Float[Tensor, "text embed"],
    components: int,
    *,
    top: int = 16,
    batch_size: int = 256,
    progress: Callable[[float], object] = lambda _share: None,
) -> dict[int, IndirectDecomposition]:
    """Decompose every neuron of the layers by its indirect effects.

    Each neuron is ablated on the ``top`` images on which its activation is furthest from its mean
    over ``images``; ablating it on all of them would cost one pass for each image and neuron.

    Args:
        clip: a ViT.
        images: preprocessed images of the data set, at least ``top``.
        layers: MLP layers, each with a later block.
        texts: unit rows of the texts.
        components: texts of each neuron.
        top: images of each neuron.
        batch_size: (image, neuron) pairs in one pass.
        progress: called with the share that is done, 0 to 1.

    Raises:
        ValueError: a ResNet, too few images, or a layer without later blocks.
    """
    if clip.kind != "vit":
        raise ValueError(f"indirect effects are those of a ViT's neurons, not of a {clip.kind}")
    if len(images) < top:
        raise ValueError(f"expected at least {top} images, got {len(images)}")
    images = images.to(clip.device)
    result = {}
    for done, layer in enumerate(layers):
        effects = _top_effects(
            clip, images, layer, top=top, batch_size=batch_size,
            progress=lambda share, done=done: progress((done + share) / len(layers)),
        )  # fmt: skip
        directions = first_component(effects)
        indices, coefficients = by_magnitude(
            *omp(directions.cpu(), texts.float().cpu(), components)
        )
        result[layer] = IndirectDecomposition(directions.cpu(), indices, coefficients)
    return result


def _top_effects(
    clip: ClipModel, images: Tensor, layer: int, *, top: int, batch_size: int, progress
) -> Float[Tensor, "neuron top embed"]:
    means = mean_activations(clip, images.split(batch_size), layer)
    deviations = []
    name = clip.anatomy.mlp(layer).path
    with record_activations(clip.visual, [name]) as tensors:
        for batch in images.split(batch_size):
            clip.encode_image(batch)
            deviations.append((tensors[name].float() - means).norm(dim=1))
    chosen = torch.cat(deviations).topk(top, dim=0).indices  # [top, neuron]
    effects = torch.empty(clip.neurons, top, clip.embed_dim)
    for image in range(len(images)):
        rank, neuron = (chosen == image).nonzero(as_tuple=True)
        if len(neuron):
            mine = indirect_effects(
                clip, images[image : image + 1], layer, neuron, means, batch_size
            )
            effects[neuron.cpu(), rank.cpu()] = mine[0].cpu()
        progress((image + 1) / len(images))
    return effects


def first_component(effects: Float[Tensor, "unit k embed"]) -> Float[Tensor, "unit embed"]:
    """Unit-norm first component, positive for most effects; zero where all effects are."""
    rows = effects.double()
    component = torch.linalg.svd(rows, full_matrices=False).Vh[:, 0]
    projections = (rows @ component[..., None])[..., 0]
    sign = projections.sign().sum(-1).sign()
    sign[sign == 0] = 1.0
    alive = rows.square().sum((1, 2)) > 0
    return (component * (sign * alive)[:, None]).float()
