"""How many different things a unit's phrases say."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Phrases of a unit that count; later ones carry little weight.
_PHRASES = 16
# Units whose phrases are compared at once.
_CHUNK = 1024


def effective_concepts(
    indices: Int[Tensor, "unit component"],
    coefficients: Float[Tensor, "unit component"],
    texts: Float[Tensor, "text embed"],
) -> Float[Tensor, " unit"]:
    """Effective number of distinct phrases of each unit: 1 says one thing.

    Diversity of order 2 that takes similarity into account (Leinster and Cobbold 2012):
    1 / Σ_jk p_j p_k max(0, s_j s_k cos(t_j, t_k)), with p the shares of |γ|, s the signs and
    t the texts (unit rows); a unit that says the same in several words has one meaning. 0 for
    dead units.
    """
    order = coefficients.abs().topk(min(_PHRASES, coefficients.shape[1]), dim=1).indices
    gamma, indices = coefficients.gather(1, order), indices.gather(1, order)
    share = gamma.abs() / gamma.abs().sum(1, keepdim=True).clamp_min(1e-12)
    parts = []
    for start in range(0, len(share), _CHUNK):
        part = slice(start, start + _CHUNK)
        said = texts[indices[part]] * gamma[part].sign()[..., None]
        alike = (said @ said.mT).clamp_min(0)  # [unit, phrase, phrase]
        alike.diagonal(dim1=1, dim2=2).fill_(1.0)
        same = torch.einsum("uj,ujk,uk->u", share[part], alike, share[part])
        parts.append(torch.where(same > 0, 1 / same, 0.0))
    return torch.cat(parts)
