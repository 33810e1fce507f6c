"""Concepts as the paper weighs them (2406.04341, section 5), to compare with `concepts.concepts`.

w_j = Σ_{n ∈ N(I)} γ_j^n ‖φ_n(I)‖

N(I)    units of all layers whose centred effect exceeds its 98th percentile
γ_j^n   coefficient of text j in the decomposition of unit n
φ_n(I)  effect of unit n on image I, less its mean
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.concepts.concepts import Effects


def paper_weights(bundle: Bundle, effects: dict[int, Effects]) -> Float[Tensor, "image text"]:
    """Weights of all texts of the pool."""
    images = len(next(iter(effects.values())).norms)
    total = torch.zeros(images, len(bundle.texts))
    for layer, of_layer in effects.items():
        arrays = bundle.layers[layer]
        norms = (of_layer.norms * of_layer.activated).cpu()
        image, unit = norms.nonzero(as_tuple=True)
        values = norms[image, unit][:, None] * arrays.coefficients[unit]  # [activated, component]
        text = image[:, None] * total.shape[1] + arrays.indices[unit].long()
        total.view(-1).index_add_(0, text.flatten(), values.flatten())
    return total
