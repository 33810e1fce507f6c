"""How many effects of each unit have a norm in each of some fixed bins."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Logarithmic bins for histograms of norms; effects have the scale of a norm-100 embedding.
NORM_BINS = np.logspace(-4, 3, 71)


class NormHistogram:
    """Counts by bin; the outer bins hold what lies beyond them too."""

    def __init__(self, units: int, device: torch.device) -> None:
        self._edges = torch.tensor(NORM_BINS[1:-1], dtype=torch.float32, device=device)
        self.counts = torch.zeros(units, len(NORM_BINS) - 1, dtype=torch.int32, device=device)

    def update(self, norms: Float[Tensor, "unit image"]) -> None:
        """Add the norms of a batch."""
        bins = torch.bucketize(norms, self._edges)
        one = torch.ones((), dtype=torch.int32, device=bins.device)
        self.counts.scatter_add_(1, bins, one.expand_as(bins))

    def merge(self, other: "NormHistogram") -> None:
        """Add what another process counted."""
        self.counts += other.counts

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on."""
        return {"histogram": self.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from another object's :meth:`state_dict`."""
        self.counts = state["histogram"].clone()
