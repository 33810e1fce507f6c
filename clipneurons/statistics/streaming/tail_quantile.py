"""An exact quantile of each unit's norms, from the norms above it."""

from math import ceil, floor

import torch
from jaxtyping import Float
from torch import Tensor


class TailQuantile:
    """The ``percentile`` (in percent, linearly interpolated) of ``images`` norms of each unit.

    Holds at most twice the norms above it, and no more than were seen.
    """

    def __init__(self, units: int, images: int, percentile: float, device: torch.device) -> None:
        self.images, self.percentile = images, percentile
        # The percentile interpolates between the `size`-th largest norm and the next.
        self._size = images - floor(percentile / 100 * (images - 1))
        self._tail = torch.empty(units, 0, device=device)
        self._filled = 0

    def update(self, norms: Float[Tensor, "unit image"]) -> None:
        """Add the norms of a batch."""
        for part in norms.split(self._size, dim=1):
            if self._filled + part.shape[1] > 2 * self._size:
                self._compact()
            self._append(part)

    def _append(self, norms: Float[Tensor, "unit image"]) -> None:
        filled, room = self._filled + norms.shape[1], self._tail.shape[1]
        if filled > room:
            grown = self._tail.new_empty(len(norms), min(2 * self._size, max(filled, 2 * room)))
            grown[:, : self._filled] = self._tail[:, : self._filled]
            self._tail = grown
        self._tail[:, self._filled : filled] = norms
        self._filled = filled

    def _compact(self) -> None:
        kept = self._tail[:, : self._filled].topk(self._size, dim=1, sorted=False).values
        self._tail[:, : self._size] = kept
        self._filled = self._size

    def merge(self, other: "TailQuantile") -> None:
        """Add what another process kept of the same data set."""
        self.update(other._tail[:, : other._filled])

    def value(self) -> Float[Tensor, " unit"]:
        """The percentile, once all images were seen."""
        descending = self._tail[:, : self._filled].topk(self._size, dim=1).values
        rank = self.percentile / 100 * (self.images - 1)
        low = descending[:, self.images - 1 - floor(rank)]
        high = descending[:, self.images - 1 - ceil(rank)]
        return low + (high - low) * (rank - floor(rank))

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on."""
        return {"tail": self._tail[:, : self._filled].contiguous()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the :meth:`state_dict` of an object made with the same arguments."""
        self._tail, self._filled = state["tail"].clone(), state["tail"].shape[1]
