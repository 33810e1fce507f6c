"""Indirect effects: what the embedding loses when a neuron's activation is replaced by its mean.

The baseline that the second-order lens is compared with (arXiv 2406.04341, section 3.1):

    100/‖M(I)‖ · (M(I) − M(I | p^n := mean^n))

    M        [D]     the image embedding
    p, mean  [T, N]  activations of the neurons at each token, and their mean over a data set

Each neuron of each image takes a pass through the later blocks, so choose few of either.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.attribution_patching import mean_by_place
from clipneurons.lens.base import SCALE, check_layers
from clipneurons.models.anatomy import Mlp
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations


@torch.no_grad()
def mean_activations(clip: ClipModel, batches, layer: int) -> Float[Tensor, "token neuron"]:
    """Mean activation of each neuron at each token over batches of preprocessed images.

    Raises:
        ValueError: no images, or a layer without later blocks.
    """
    _check_block(clip, layer)
    return mean_by_place(clip, batches, [layer])[layer]


@torch.no_grad()
def indirect_effects(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    layer: int,
    neurons: Int[Tensor, " chosen"],
    means: Float[Tensor, "token neuron"],
    batch_size: int = 64,
) -> Float[Tensor, "image chosen embed"]:
    """Embedding minus the embedding with the neuron at its per-token mean, scaled like effects.

    ``batch_size`` is the number of (image, neuron) pairs that run through the later blocks at
    once.

    Raises:
        ValueError: a layer without later blocks.
    """
    _check_block(clip, layer)
    anatomy = clip.anatomy
    mlp, after = anatomy.mlp(layer), anatomy.blocks[layer].path
    with record_activations(clip.visual, [mlp.path, after]) as tensors:
        representation = clip.encode_image(images)
    pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(neurons)))
    effects = []
    for image, chosen in (part.T for part in pairs.split(batch_size)):  # [pair] both
        activations, columns = tensors[mlp.path][image], neurons[chosen].to(clip.device)
        change = _change(mlp, activations, columns, means[:, columns.to(means.device)])
        stream = tensors[after][image] + change.to(clip.dtype)  # [pair, token, width]
        for block in anatomy.blocks[layer + 1 :]:
            stream = block.run(stream)
        effects.append(representation[image] - anatomy.read_out(stream).float())
    scale = SCALE / representation.norm(dim=-1)  # [image]
    return torch.cat(effects).unflatten(0, (len(images), -1)) * scale[:, None, None]


def _change(
    mlp: Mlp,
    activations: Float[Tensor, "pair token neuron"],
    neurons: Int[Tensor, " pair"],
    means: Float[Tensor, "token pair"],
) -> Float[Tensor, "pair token width"]:
    """What changes in the stream when each pair's neuron has its mean at every token."""
    means = means.T.to(activations.device)  # [pair, token]
    rows = torch.arange(len(activations))
    if not mlp.norms:
        change = means - activations[rows, :, neurons].float()
        # [pair, token, 1] times [pair, 1, width]
        return change[..., None] * mlp.output.weight.T[neurons].float()[:, None]
    changed = activations.clone()  # a norm divides all neurons by its σ, which changes too
    changed[rows, :, neurons] = means.to(activations.dtype)
    return mlp(changed).float() - mlp(activations).float()


def _check_block(clip: ClipModel, layer: int) -> None:
    check_layers(clip, [layer])
    if layer == clip.anatomy.pooling_layer:
        raise ValueError(f"layer {layer} is the pooling's own MLP: expected the layer of a block")
