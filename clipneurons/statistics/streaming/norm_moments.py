"""How evenly a unit's effects are spread over the images: its participation ratio."""

import torch
from jaxtyping import Float
from torch import Tensor


class NormMoments:
    """``Σ‖φ‖²`` and ``Σ‖φ‖⁴`` of each unit, in float64."""

    def __init__(self, units: int, device: torch.device) -> None:
        self._sums = torch.zeros(2, units, dtype=torch.float64, device=device)

    def update(self, norms: Float[Tensor, "unit image"]) -> None:
        """Add the norms of a batch."""
        squares = norms.square()
        self._sums += torch.stack([squares.sum(1), squares.square_().sum(1)])

    def merge(self, other: "NormMoments") -> None:
        """Add what another process summed."""
        self._sums += other._sums

    def participation_ratio(self, count: int) -> Float[Tensor, " unit"]:
        """``(Σ‖φ‖²)² / (count · Σ‖φ‖⁴)``; zero for a unit without any effect."""
        second, fourth = self._sums
        return torch.where(fourth > 0, second.square() / (count * fourth), 0.0).float()

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on."""
        return {"moments": self._sums}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from another object's :meth:`state_dict`."""
        self._sums = state["moments"].clone()
