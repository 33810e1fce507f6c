"""Directions as sparse sums of texts, pursued once for every number of texts that is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from clipneurons.statistics.omp import by_magnitude, omp_sizes, reconstruct
from clipneurons.text.embedding import centre
from export.common.settings import SIZES
from export.common.state import State


@dataclass(frozen=True)
class Pursuit:
    """The texts of each direction in the order they were chosen, and coefficients by their number.

    The choice of a smaller number of texts is the beginning of that of a larger one.
    """

    indices: Int[Tensor, "unit largest"]
    coefficients: Mapping[int, Float[Tensor, "unit _"]]

    def strongest_first(
        self, size: int
    ) -> tuple[Int[Tensor, "unit size"], Float[Tensor, "unit size"]]:
        """`size` texts of each direction, largest coefficient first."""
        indices, coefficients = by_magnitude(self.indices[:, :size], self.coefficients[size])
        return indices.int(), coefficients

    def rebuilt(self, size: int, texts: Float[Tensor, "text embed"]) -> Float[Tensor, "unit embed"]:
        """Each direction from `size` texts."""
        indices, coefficients = self.indices[:, :size], self.coefficients[size]
        return reconstruct(indices.to(texts.device), coefficients.to(texts.device), texts)

    def state(self, note: dict) -> State:
        """For a checkpoint."""
        sizes = {f"coefficients{size}": values for size, values in self.coefficients.items()}
        return State({"indices": self.indices} | sizes, note)

    @classmethod
    def from_state(cls, state: State) -> Pursuit:
        """The inverse of `state`."""
        tensors = dict(state.tensors)
        indices = tensors.pop("indices")
        return cls(indices, {values.shape[1]: values for values in tensors.values()})


def figure_sizes(texts: int, embed: int, sizes: Iterable[int] = SIZES) -> tuple[int, ...]:
    """Numbers of texts that fidelity is measured over; a pool smaller than all is taken whole."""
    most = min(texts, embed)
    return tuple(size for size in sizes if size <= most) or (most,)


def unit_rows(embeddings: Float[Tensor, "text embed"], centred: bool) -> Tensor:
    """A pool's embeddings as they are pursued."""
    # Rows that were rounded to float16 have a norm of 1 only to 1e-4.
    return centre(embeddings) if centred else torch.nn.functional.normalize(embeddings, dim=1)


def pursue(
    directions: Float[Tensor, "unit embed"],
    texts: Float[Tensor, "text embed"],
    sizes: Iterable[int],
    what: str,
) -> Pursuit:
    """Decompose each direction into the largest of `sizes`, and read the smaller ones off it.

    Computed on the texts' device; the result is on the CPU.
    """
    with tqdm(total=len(directions), desc=what, unit="units", disable=None) as bar:
        indices, coefficients = omp_sizes(
            directions.to(texts.device), texts, sorted(set(sizes)), progress=bar.update
        )
    return Pursuit(
        indices.cpu(), {size: values.float().cpu() for size, values in coefficients.items()}
    )


def rounded(values: Tensor, half: bool) -> Tensor:
    """Float32 values as float16 storage will hold them, so that memory and disk agree."""
    return values.half().float() if half else values.float()
