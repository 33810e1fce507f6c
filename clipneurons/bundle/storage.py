"""How tensors lie in a bundle's files: whole numbers no wider than they need."""

import torch
from torch import Tensor


def narrow(value: Tensor) -> Tensor:
    """Whole numbers in 8 or 16 bits where they fit; `wide` widens them again."""
    if value.is_floating_point() or not value.numel():
        return value
    low, high = (int(v) for v in value.aminmax())
    for width in (torch.int8, torch.int16):
        if torch.iinfo(width).min <= low <= high <= torch.iinfo(width).max:
            return value.to(width)
    return value.int()


def wide(value: Tensor) -> Tensor:
    """A stored tensor as it is worked with: float32 or int32."""
    return value.float() if value.is_floating_point() else value.int()
