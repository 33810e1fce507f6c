"""What the adapters share: checks that refuse by name, and torch's own attention taken apart."""

import torch
from torch import nn

from clipneurons.models.anatomy import Affine, Attention, Norm, UnsupportedModel

# Class names of the activations, in open_clip, timm and transformers.
_ACTIVATIONS = {
    "GELU": "gelu",
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "QuickGELU": "quick_gelu",
    "QuickGELUActivation": "quick_gelu",
    "SiLU": "swiglu",
}


class Refused(UnsupportedModel):
    """Why a tower is not read, without the model's name, which the loader adds."""


def activation_of(module: nn.Module, where: str) -> str:
    """Name of an activation function; another than those that CLIPs use is refused."""
    name = type(module).__name__
    if name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise Refused(f"{where} uses {name}, not an activation of CLIP ({known})")
    if name == "GELU" and getattr(module, "approximate", "none") == "tanh":
        return "gelu_tanh"
    return _ACTIVATIONS[name]


def norm_of(module: nn.Module, path: str) -> Norm:
    """A layer norm; another norm is refused."""
    if not isinstance(module, nn.LayerNorm) or module.weight is None or module.bias is None:
        raise Refused(f"{path} normalises with {type(module).__name__}, not LayerNorm")
    return Norm(module, path)


def optional_norm(module: nn.Module | None, path: str) -> Norm | None:
    """A layer norm, or None where there is nothing."""
    return None if module is None or isinstance(module, nn.Identity) else norm_of(module, path)


def torch_attention(module: nn.MultiheadAttention, scale: torch.Tensor | None = None) -> Attention:
    """PyTorch's multi-head attention; ``scale`` multiplies what it writes."""
    if module.in_proj_weight is None:  # keys and values of another width than the queries
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    else:
        weights = module.in_proj_weight.chunk(3)
    biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    query, key, value = map(Affine, weights, biases)
    return Attention(module.num_heads, query, key, value, Affine.of(module.out_proj, scale))
