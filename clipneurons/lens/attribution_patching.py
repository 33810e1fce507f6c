"""Indirect effects of all neurons at once, to first order: attribution patching (arXiv 2310.10348).

Mean-ablating neuron n changes ⟨100 M/‖M‖, v⟩, all later layers responding, by about

    −Σ_i (p_i^n − mean_i^n) · ∂⟨100 M/‖M‖, v⟩ / ∂p_i^n

    p, mean  [T, N]     activations at each token, and their mean over a data set
    M, v     [D]        the image embedding, and the vector that it is compared with

One backward pass gives this for all neurons. The exact effect (`clipneurons.lens.indirect`) takes
a forward pass for each.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.base import SCALE
from clipneurons.models.clip import ClipModel
from clipneurons.models.hooks import record_activations


@torch.no_grad()
def mean_by_place(
    clip: ClipModel, batches: Iterable[Tensor], layers: Sequence[int]
) -> dict[int, Float[Tensor, "place neuron"]]:
    """Mean activation of each neuron at each token over images, by layer.

    Layer 4 of a ResNet is its last stage, with positions as tokens.

    Raises:
        ValueError: no images.
    """
    names = {layer: _recorded_name(clip, layer) for layer in layers}
    total, count = {}, 0
    with record_activations(clip.visual, list(names.values())) as tensors:
        for images in batches:
            clip.encode_image(images)
            count += len(images)
            for layer, name in names.items():
                activations = _by_place(clip, tensors[name])  # [image, place, neuron]
                total[layer] = total.get(layer, 0.0) + activations.sum(0, dtype=torch.float64)
    if count == 0:
        raise ValueError("the data set is empty: expected at least one image")
    return {layer: (sums / count).float() for layer, sums in total.items()}


def attribute(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    vectors: Float[Tensor, "image embed"],
    means: Mapping[int, Float[Tensor, "place neuron"]],
) -> dict[int, Float[Tensor, "image neuron"]]:
    """By layer, each neuron's share of ⟨100 M/‖M‖, v⟩: the sum above without its minus.

    Args:
        vectors: v, one for each image.
        means: by layer, what ablated neurons are set to (`mean_by_place`). They differ by token:
            a class token's activations are far from those of patches.
    """
    names = {layer: _recorded_name(clip, layer) for layer in means}
    images = images.to(clip.device, clip.dtype).requires_grad_()
    with torch.enable_grad(), record_activations(clip.visual, list(names.values())) as tensors:
        embedding = clip.visual(images).float()
        scaled = SCALE * torch.nn.functional.normalize(embedding, dim=1)
        total = (scaled * vectors.to(scaled)).sum()
        activations = [tensors[name] for name in names.values()]
        gradients = torch.autograd.grad(total, activations)
    shares = {}
    for layer, values, gradient in zip(names, activations, gradients, strict=True):
        deviation = _by_place(clip, values.detach()) - means[layer].to(clip.device)
        shares[layer] = (deviation * _by_place(clip, gradient)).sum(1)  # [image, neuron]
    return shares


def _recorded_name(clip: ClipModel, layer: int) -> str:
    return "attnpool:input" if clip.kind == "resnet" else clip.anatomy.mlp(layer).path


def _by_place(clip: ClipModel, values: Tensor) -> Float[Tensor, "image place neuron"]:
    # A ResNet records [image, neuron, row, column], a pooling's own MLP [image, neuron].
    values = values.flatten(2).mT if clip.kind == "resnet" else values
    return (values if values.ndim == 3 else values[:, None]).float()
