"""The mean effect of each unit over a data set, from which the second pass centres."""

import torch
from jaxtyping import Float64
from torch import Tensor

from clipneurons.lens.contributions import Contributions, MeanEffect


class RunningMean:
    """Mean of the scores (and shared bias) of one layer: sums of batches, added in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.scores: Float64[Tensor, "unit head"] | None = None
        self.bias: Float64[Tensor, " embed"] | None = None

    def update(self, batch: Contributions) -> None:
        """Add a batch."""
        bias = None if batch.bias is None else batch.bias.sum(0, dtype=torch.float64)
        self._add(batch.images, batch.score_sum().double(), bias)

    def merge(self, other: "RunningMean") -> None:
        """Add what another process accumulated."""
        if other.count:
            self._add(other.count, other.scores, other.bias)

    def _add(self, count: int, scores: Tensor, bias: Tensor | None) -> None:
        if self.count == 0:
            self.scores, self.bias = torch.zeros_like(scores), bias if bias is None else bias * 0
        self.count += count
        self.scores += scores
        if bias is not None:
            self.bias += bias

    def mean(self) -> MeanEffect:
        """The mean so far, in float32.

        Raises:
            ValueError: no image was seen, or a score was not finite.
        """
        if self.count == 0:
            raise ValueError("the data set is empty: expected at least one image")
        scores = (self.scores / self.count).float()
        if not scores.isfinite().all():
            raise ValueError("expected finite scores, the mean effect has NaN or infinity")
        bias = None if self.bias is None else (self.bias / self.count).float()
        return MeanEffect(scores, bias)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on."""
        state = {"count": torch.tensor(self.count)}
        if self.scores is not None:
            state["scores"] = self.scores
        if self.bias is not None:
            state["bias"] = self.bias
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from another object's :meth:`state_dict`."""
        self.count = int(state["count"])
        self.scores, self.bias = state.get("scores"), state.get("bias")
