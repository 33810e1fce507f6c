"""How tensors lie in a bundle's files: no wider than they need."""

from collections.abc import Mapping
from typing import Any, get_type_hints

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.config import BundleDamaged


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


def read_fields(cls: type, tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The stored tensors that are fields of a dataclass, `wide`, by the fields' names.

    Raises `BundleDamaged` for one of another kind or other axes than the field's annotation, and
    `KeyError` for one that is missing, unless the field may be None.
    """
    columns = {}
    for name, hint in get_type_hints(cls).items():
        stored = prefix + name
        if stored in tensors or not isinstance(None, hint):
            columns[name] = read_tensor(tensors, stored, hint)
    return columns


def read_tensor(tensors: Mapping[str, Tensor], name: str, hint: Any) -> Tensor:
    """A stored tensor, `wide`; raises as `read_fields` does."""
    value = tensors[name]
    value = value if value.is_complex() else wide(value)
    if not isinstance(value, hint):
        shape = tuple(value.shape)
        raise BundleDamaged(
            f"{name} is {value.dtype} of shape {shape}: expected {getattr(hint, '__name__', hint)}"
        )
    return value


def within(value: Tensor, low: int, end: int) -> bool:
    """Whether all values are from `low` to below `end`."""
    return not value.numel() or low <= int(value.min()) <= int(value.max()) < end


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
