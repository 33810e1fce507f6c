"""One vector of every image, whatever order the images come in."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class ImageVectors:
    """Vectors by the number of their image; none where none were given."""

    def __init__(self) -> None:
        self._ids: list[Tensor] = []
        self._vectors: list[Tensor] = []

    def update(self, ids: Int64[Tensor, " image"], vectors: Float[Tensor, "image embed"]) -> None:
        """Add a batch; ``ids`` are the images' numbers in the data set."""
        self._ids.append(ids.to(vectors.device))
        self._vectors.append(vectors)

    def merge(self, other: "ImageVectors") -> None:
        """Add what another process was given."""
        self._ids += other._ids
        self._vectors += other._vectors

    def of(self, ids: Int64[Tensor, "*unit top"]) -> Float[Tensor, "*unit top embed"] | None:
        """The vectors of these images."""
        if not self._vectors:
            return None
        seen, place = torch.cat(self._ids).sort()
        return torch.cat(self._vectors)[place][torch.searchsorted(seen, ids)]

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on."""
        if not self._vectors:
            return {}
        return {"bias_ids": torch.cat(self._ids), "biases": torch.cat(self._vectors)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from another object's :meth:`state_dict`."""
        self._ids = [state["bias_ids"]] if "bias_ids" in state else []
        self._vectors = [state["biases"]] if "biases" in state else []
