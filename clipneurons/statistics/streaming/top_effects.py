"""The images of each unit's largest effects, with the centred scores that they consist of."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_LAST_ID = 2**32 - 1
_NONE = torch.iinfo(torch.int64).min
# As many effects as 1 in this of those kept wait to be selected from together.
_WAITING = 8


class TopEffects:
    """The ``size`` largest norms of each unit; ties go to the image of the smaller number.

    Holds the scores of those, and for a while of some (`_WAITING`) that may be among them.
    """

    def __init__(self, units: int, heads: int, size: int, device: torch.device) -> None:
        self.size = size
        # A key orders by norm, then by image: ties cannot depend on the order of batches.
        empty = -1 - torch.arange(size, device=device)
        self._keys = empty.repeat(units, 1)
        self._rows = torch.zeros(units, size, heads, device=device)
        self._least = self._keys[:, -1:].clone()  # of the keys of each unit
        # Units, keys and rows of what may be larger, until together they are worth a selection.
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._count = 0

    def update(
        self,
        units: slice,
        norms: Float[Tensor, "chosen image"],
        ids: Int64[Tensor, " image"],
        scores: Float[Tensor, "chosen image head"],
    ) -> None:
        """Add some units of a batch; ``ids`` are the images' numbers in the data set."""
        keys = norms.view(torch.int32).long().bitwise_left_shift_(32)
        keys |= _LAST_ID - ids.to(norms.device)
        self._add(units, keys, scores)

    def merge(self, other: "TopEffects") -> None:
        """Add what another process kept."""
        other._select()
        self._add(slice(0, len(self._keys)), other._keys, other._rows)

    def _add(
        self,
        units: slice,
        keys: Int64[Tensor, "chosen new"],
        rows: Float[Tensor, "chosen new head"],
    ) -> None:
        """Let those wait that are larger than a kept one, until a selection is worth it."""
        # Those of places that are still empty are negative, also another process's.
        row, place = (keys > self._least[units].clamp_min(-1)).nonzero(as_tuple=True)
        self._waiting.append((row + units.start, keys[row, place], rows[row, place]))
        self._count += len(row)
        if _WAITING * self._count >= self._keys.numel():
            self._select()

    def _select(self) -> None:
        """Replace the smallest kept effects by larger ones that wait."""
        if not self._count:
            return
        units, keys, rows = map(torch.cat, zip(*self._waiting, strict=True))
        self._waiting, self._count = [], 0
        order = units.argsort()
        counts = units.new_zeros(len(self._keys)).index_add_(0, units, torch.ones_like(units))
        first = counts.cumsum(0) - counts  # of each unit's in `order`
        column = torch.arange(len(order), device=order.device) - first[units[order]]
        new = self._keys.new_full((len(counts), int(counts.max())), _NONE)
        new[units[order], column] = keys[order]
        both = torch.cat([self._keys, new], 1)
        self._least = both.topk(self.size, dim=1, sorted=False).values.amin(1, keepdim=True)
        # Keys are distinct, so each unit drops exactly as many as it takes.
        drop = (self._keys < self._least).nonzero(as_tuple=True)
        take = (new >= self._least).nonzero(as_tuple=True)
        self._keys[drop] = new[take]
        self._rows[drop] = rows[order[first[take[0]] + take[1]]]

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
        return {"keys": self._keys, "centred_rows": self._rows}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from the :meth:`state_dict` of an object of the same size."""
        self._waiting, self._count = [], 0
        self._keys, self._rows = state["keys"].clone(), state["centred_rows"].clone()
        self._least = self._keys.amin(1, keepdim=True)
