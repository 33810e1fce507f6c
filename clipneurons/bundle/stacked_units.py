"""Units of several layers one below the other, as rows of one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class Decomposition(Protocol):
    """What is known of a layer's units; `bundle.LayerArrays` is one."""

    directions: Float[Tensor, "unit embed"]
    indices: Int[Tensor, "unit component"]
    coefficients: Float[Tensor, "unit component"]


@dataclass(frozen=True)
class StackedUnits:
    """Units of several layers, each with its place and what its layer's arrays say of it."""

    layer: Int[Tensor, " unit"]
    unit: Int[Tensor, " unit"]
    directions: Float[Tensor, "unit embed"]
    indices: Int[Tensor, "unit component"]
    coefficients: Float[Tensor, "unit component"]

    @classmethod
    def of(cls, layers: Mapping[int, Decomposition]) -> StackedUnits:
        """All units of the layers, in their order, on the CPU."""
        counts = {layer: len(arrays.directions) for layer, arrays in layers.items()}
        arrays = layers.values()
        return cls(
            layer=torch.cat([torch.full((count,), layer) for layer, count in counts.items()]),
            unit=torch.cat([torch.arange(count) for count in counts.values()]),
            directions=torch.cat([a.directions.float().cpu() for a in arrays]),
            indices=torch.cat([a.indices.long().cpu() for a in arrays]),
            coefficients=torch.cat([a.coefficients.float().cpu() for a in arrays]),
        )

    def take(self, rows: Int[Tensor, " row"]) -> StackedUnits:
        """The units of these rows."""
        return StackedUnits(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))
