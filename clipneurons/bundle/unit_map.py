"""`map.safetensors`: every unit's place on a map of all, for pages to draw.

An optional file of four bytes a unit: x and y in float16, both in [-1, 1]; (0, 0) for dead units.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from clipneurons.bundle.storage import read_tensor


def to_bytes(positions: Mapping[int, Float[Tensor, "unit 2"]], schema: int) -> bytes:
    """The file's bytes; the same positions give the same bytes."""
    tensors = {f"layer{layer}.positions": xy.half().contiguous() for layer, xy in positions.items()}
    return save(tensors, {"schema_version": str(schema)})


def from_tensors(
    tensors: Mapping[str, Tensor], layers: tuple[int, ...]
) -> dict[int, Float[Tensor, "unit 2"]]:
    """The inverse of `to_bytes`; `KeyError` names a tensor that is missing."""
    return {
        layer: read_tensor(tensors, f"layer{layer}.positions", Float[Tensor, "unit 2"])
        for layer in layers
    }


def problems(
    positions: Mapping[int, Float[Tensor, "unit 2"]], units: Mapping[int, int]
) -> list[str]:
    """What is wrong with a map, in words: other layers or units than the bundle's, values."""
    counts = {layer: len(xy) for layer, xy in positions.items()}
    if counts != dict(units):
        return [f"a map of {counts} units by layer, expected {dict(units)}"]
    outside = [layer for layer, xy in positions.items() if not bool((xy.abs() <= 1).all())]
    return [f"layer {layer} positions on the map outside [-1, 1]" for layer in outside]
