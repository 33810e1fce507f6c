"""The images of each unit's largest effects, with the scores that the effects consist of."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_LAST_ID = 2**32 - 1


class TopEffects:
    """The ``size`` largest norms of each unit; ties go to the image of the smaller number."""

    def __init__(self, units: int, heads: int, size: int, device: torch.device) -> None:
        self.size = size
        # A key orders by norm, then by image: ties cannot depend on the order of batches.
        empty = -1 - torch.arange(size, device=device)
        self._keys = empty.repeat(units, 1)
        self._rows = torch.zeros(units, size, heads, device=device)
        # Small batches wait here until together they are worth a selection.
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def update(
        self,
        norms: Float[Tensor, "unit image"],
        ids: Int64[Tensor, " image"],
        scores: Float[Tensor, "image unit head"],
    ) -> None:
        """Add a batch; ``ids`` are the images' numbers in the data set."""
        keys = norms.view(torch.int32).long().bitwise_left_shift_(32)
        keys |= _LAST_ID - ids.to(norms.device)
        self._waiting.append((keys, scores))
        if 2 * sum(keys.shape[1] for keys, _ in self._waiting) >= self.size:
            self._select()

    def merge(self, other: "TopEffects") -> None:
        """Add what another process kept."""
        other._select()
        self._keep(other._keys, other._rows)

    def _select(self) -> None:
        if self._waiting:
            keys, scores = zip(*self._waiting, strict=True)
            self._waiting = []
            self._keep(torch.cat(keys, 1), torch.cat(scores).transpose(0, 1))

    def _keep(self, keys: Int64[Tensor, "unit new"], rows: Tensor) -> None:
        """Replace the smallest kept effects by larger new ones."""
        hit = (keys > self._keys.amin(1, keepdim=True)).any(1).nonzero().flatten()
        if not len(hit):
            return
        kept, new = self._keys[hit], keys[hit]
        last = torch.cat([kept, new], 1).topk(self.size, dim=1).values[:, -1:]
        # Keys are distinct, so each unit drops exactly as many as it takes.
        drop, take = (kept < last).nonzero(as_tuple=True), (new >= last).nonzero(as_tuple=True)
        self._keys[hit[drop[0]], drop[1]] = new[take]
        self._rows[hit[drop[0]], drop[1]] = rows[hit[take[0]], take[1]]

    def descending(
        self, count: int
    ) -> tuple[
        Float[Tensor, "unit top"], Int64[Tensor, "unit top"], Float[Tensor, "unit top head"]
    ]:
        """Largest norms of ``count`` images seen, their images, their scores, largest first."""
        self._select()
        filled = min(self.size, count)
        keys, order = self._keys.sort(dim=1, descending=True)
        keys, order = keys[:, :filled], order[:, :filled]
        norms = (keys >> 32).int().view(torch.float32)
        rows = self._rows.gather(1, order[..., None].expand(-1, -1, self._rows.shape[2]))
        return norms, _LAST_ID - (keys & _LAST_ID), rows

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which :meth:`load_state_dict` goes on."""
        self._select()
        return {"keys": self._keys, "rows": self._rows}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the :meth:`state_dict` of an object of the same size."""
        self._waiting = []
        self._keys, self._rows = state["keys"].clone(), state["rows"].clone()
