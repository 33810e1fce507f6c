"""An edit made for real: the same factors on the activations, folded into the weights.

A neuron that writes w·p with its activation p replaced by m + f·(p − m) writes f·w·p + (1 − f)·m·w:
its output weight scaled, and a constant in the bias. So what a deployed model would do needs no
hooks, and saves as an ordinary model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clipneurons.lens.attribution_patching import mean_by_place
from clipneurons.lens.base import SCALE
from clipneurons.lens.lens import Lens
from clipneurons.lens.neuron_head import LAYER
from clipneurons.models.adapters.registry import anatomy_of
from clipneurons.models.clip import ClipModel, with_visual


@torch.no_grad()
def mean_of_units(
    clip: ClipModel, batches: Iterable[Tensor], layers: Iterable[int]
) -> dict[int, Float[Tensor, " unit"]]:
    """Mean activation m of every unit of the layers, over images.

    `batches` hold images `[image, 3, height, width]`. Of a ViT's neuron it is the mean at the class
    token: weights write the same constant at every token, and one from the patches can be many
    times what the class token's own stream holds. Without a class token it is the mean over tokens,
    of a ResNet's neuron-head pair that of what the head reads, Σ_i a_i z_i.

    Raises:
        ValueError: no images.
    """
    if clip.kind == "vit":
        means = mean_by_place(clip, batches, list(layers))
        return {m: rows[0] if clip.anatomy.prefix else rows.mean(0) for m, rows in means.items()}
    lens, total, count = Lens(clip), 0.0, 0
    for images in batches:
        representation, contributions = lens(images)
        read = contributions[LAYER].scores[..., 0] * representation.norm(dim=-1, keepdim=True)
        total = total + (read / SCALE).sum(0, dtype=torch.float64)
        count += len(images)
    if count == 0:
        raise ValueError("the data set is empty: expected at least one image")
    return {LAYER: (total / count).float()}


@torch.no_grad()
def fold(
    clip: ClipModel,
    factors: Mapping[int, Float[Tensor, " unit"]],
    means: Mapping[int, Float[Tensor, " unit"]],
) -> ClipModel:
    """The model with every activation p replaced by m + f·(p − m); its image tower is copied.

    Args:
        factors: f, by layer.
        means: m, by layer; see `mean_of_units`.

    Raises:
        ValueError: a tower that normalises or scales what its neurons write.
    """
    visual = deepcopy(clip.visual)
    for layer, factor in factors.items():
        factor, mean = factor.to(clip.device), means[layer].to(clip.device)
        if clip.kind == "resnet":
            _fold_values(visual.attnpool.v_proj, factor, mean, clip.heads)
        else:
            _fold_columns(_output_of(clip, visual, layer), factor, mean)
    return with_visual(clip, visual)


def _output_of(clip: ClipModel, visual: nn.Module, layer: int) -> nn.Linear:
    """The linear layer of the copied tower that a layer's neurons write with."""
    mlp = anatomy_of(visual).mlp(layer)
    for module in visual.modules():
        plain = isinstance(module, nn.Linear) and module.bias is not None
        if plain and module.weight is mlp.output.weight and not mlp.norms:
            return module
    raise ValueError(
        f"{clip.name} normalises or scales what the neurons of layer {layer} write: an edit of its"
        " activations cannot be folded into weights. Expected a plain MLP, such as ViT-B-32's"
    )


def _fold_columns(
    linear: nn.Linear, factor: Float[Tensor, " unit"], mean: Float[Tensor, " unit"]
) -> None:
    weight = linear.weight.double()
    linear.bias += (weight @ ((1 - factor) * mean).double()).to(linear.bias)
    linear.weight *= factor.to(linear.weight)


def _fold_values(
    values: nn.Linear, factor: Float[Tensor, " unit"], mean: Float[Tensor, " unit"], heads: int
) -> None:
    """Attention weights sum to one, so a constant in the values is a constant in the output."""
    by_head = values.weight.unflatten(0, (heads, -1)).double()  # [head, rank, neuron]
    factor, mean = (rows.unflatten(0, (-1, heads)).T.double() for rows in (factor, mean))
    constant = torch.einsum("hrn,hn->hr", by_head, (1 - factor) * mean)
    values.bias += constant.flatten().to(values.bias)
    values.weight *= factor[:, None].expand_as(by_head).flatten(0, 1).to(values.weight)
