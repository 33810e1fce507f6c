"""Indirect effects: what the embedding loses when a neuron's activation is replaced by its mean.

The baseline that the second-order lens is compared with (2406.04341, section 3.1). Each neuron
of each image takes its own pass through the later blocks, so choose few of either.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clipneurons.lens.base import SCALE
from clipneurons.lens.second_order import activation_name, check_layers
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations


@torch.no_grad()
def mean_activations(clip: ClipModel, batches, layer: int) -> Float[Tensor, "token neuron"]:
    """Mean activation of each neuron at each token over batches of preprocessed images.

    Raises:
        ValueError: no images, or a layer without later blocks.
    """
    check_layers(clip, [layer])
    name, total, count = activation_name(layer), 0.0, 0
    with record_activations(clip.visual, [name]) as tensors:
        for images in batches:
            clip.encode_image(images)
            total = total + tensors[name].sum(0, dtype=torch.float64)
            count += len(images)
    if count == 0:
        raise ValueError("the data set is empty: expected at least one image")
    return (total / count).float()


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
    once. Raises ValueError for a layer without later blocks.
    """
    check_layers(clip, [layer])
    visual = clip.visual
    name, after = activation_name(layer), f"transformer.resblocks.{layer + 1}:input"
    with record_activations(visual, [name, after]) as tensors:
        representation = clip.encode_image(images)
    written = visual.transformer.resblocks[layer].mlp.c_proj.weight  # [width, neuron]
    change = means[:, neurons].to(clip.device) - tensors[name][:, :, neurons].float()
    pairs = torch.cartesian_prod(torch.arange(len(images)), torch.arange(len(neurons)))
    effects = []
    for image, chosen in (part.T for part in pairs.split(batch_size)):
        columns = written[:, neurons[chosen]].T.float()  # [pair, width]
        stream = tensors[after][image] + (
            change[image, :, chosen][..., None] * columns[:, None]
        ).to(clip.dtype)
        for block in visual.transformer.resblocks[layer + 1 :]:
            stream = block(stream)
        ablated = visual.ln_post(stream[:, 0]) @ visual.proj
        effects.append(representation[image] - ablated.float())
    scale = SCALE / representation.norm(dim=-1)
    return torch.cat(effects).unflatten(0, (len(images), -1)) * scale[:, None, None]
