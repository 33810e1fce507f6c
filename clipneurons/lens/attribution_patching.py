"""Indirect effects of all neurons at once, to first order: attribution patching (2310.10348).

What mean-ablating a neuron changes, with everything behind it left to respond, is to first order
its activation's deviation from the mean times the gradient: one backward pass, where the exact
effect (`clipneurons.lens.indirect`) takes a forward pass a neuron.
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
    """Mean activation of each neuron at each token over images; 4 is a ResNet's last stage.

    Raises:
        ValueError: no images.
    """
    names, total, count = {layer: _where(clip, layer) for layer in layers}, {}, 0
    with record_activations(clip.visual, list(names.values())) as tensors:
        for images in batches:
            clip.encode_image(images)
            count += len(images)
            for layer, name in names.items():
                values = _by_place(clip, tensors[name])
                total[layer] = total.get(layer, 0.0) + values.sum(0, dtype=torch.float64)
    if count == 0:
        raise ValueError("the data set is empty: expected at least one image")
    return {layer: (sums / count).float() for layer, sums in total.items()}


def attribute(
    clip: ClipModel,
    images: Float[Tensor, "image 3 height width"],
    vectors: Float[Tensor, "image embed"],
    means: Mapping[int, Float[Tensor, "place neuron"]],
) -> dict[int, Float[Tensor, "image neuron"]]:
    """By layer, each neuron's share of ⟨100 y/‖y‖, v⟩: Σ_token (p − mean) · ∂/∂p.

    Args:
        vectors: v, one an image.
        means: by layer, what ablated neurons are set to; see `mean_by_place`. A class token has
            means of its own, and a stream that another constant would overwhelm.
    """
    names = {layer: _where(clip, layer) for layer in means}
    images = images.to(clip.device, clip.dtype).requires_grad_()
    with torch.enable_grad(), record_activations(clip.visual, list(names.values())) as tensors:
        embedding = clip.visual(images).float()
        scaled = SCALE * torch.nn.functional.normalize(embedding, dim=1)
        total = (scaled * vectors.to(scaled)).sum()
        wanted = [tensors[name] for name in names.values()]
        gradients = torch.autograd.grad(total, wanted)
    shares = {}
    for layer, values, gradient in zip(names, wanted, gradients, strict=True):
        deviation = _by_place(clip, values.detach()) - means[layer].to(clip.device)
        shares[layer] = (deviation * _by_place(clip, gradient)).sum(1)
    return shares


def _where(clip: ClipModel, layer: int) -> str:
    return "attnpool:input" if clip.kind == "resnet" else clip.anatomy.mlp(layer).path


def _by_place(clip: ClipModel, values: Tensor) -> Float[Tensor, "image place neuron"]:
    # A ResNet's are [image, neuron, row, column], those of a pooling's own MLP [image, neuron].
    values = values.flatten(2).mT if clip.kind == "resnet" else values
    return (values if values.ndim == 3 else values[:, None]).float()
