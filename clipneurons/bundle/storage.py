"""How tensors lie in a bundle's files: no wider than they need."""

import torch
from jaxtyping import Float
from torch import Tensor


def narrow(value: Tensor, half: bool = False) -> Tensor:
    """Whole numbers in 8 or 16 bits where they fit, others in float16 if `half`; see `wide`."""
    if value.is_floating_point():
        return value.half() if half else value
    if not value.numel():
        return value
    low, high = (int(v) for v in value.aminmax())
    for width in (torch.int8, torch.int16):
        if torch.iinfo(width).min <= low <= high <= torch.iinfo(width).max:
            return value.to(width)
    return value.int()


def wide(value: Tensor) -> Tensor:
    """A stored tensor as it is worked with: float32 or int32."""
    return value.float() if value.is_floating_point() else value.int()


def along(
    rows: Float[Tensor, "unit embed"], directions: Float[Tensor, "unit embed"]
) -> Float[Tensor, " unit"] | None:
    """Each row as a multiple of its direction; None unless all are, as exactly as float16 tells.

    So are the mean effects of neuron-head pairs, which write along one vector each.
    """
    square = directions.square().sum(-1).clamp_min(torch.finfo(directions.dtype).tiny)
    sizes = (rows * directions).sum(-1) / square
    apart = (rows - sizes[:, None] * directions).norm(dim=-1)
    half = torch.finfo(torch.float16)
    rounding = half.eps * rows.norm(dim=-1) + half.tiny * half.eps * rows.shape[-1] ** 0.5
    return sizes if bool((apart <= rounding).all()) else None
