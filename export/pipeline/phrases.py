"""Directions in the words of a text pool, pursued once for every number of words that is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from clipneurons.models.clip import ClipModel
from clipneurons.statistics.effect_statistics import UnitStatistics
from clipneurons.statistics.omp import by_magnitude, omp_sizes, reconstruct
from clipneurons.text.embedding import centre, embed_texts
from clipneurons.text.pools import TextPool
from export.common.settings import SIZES
from export.pipeline.checkpoints import State
from export.pipeline.inputs import Inputs


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
        sizes = {f"coefficients{size}": mine for size, mine in self.coefficients.items()}
        return State({"indices": self.indices} | sizes, note)

    @classmethod
    def from_state(cls, state: State) -> Pursuit:
        """The inverse of `state`."""
        tensors = dict(state.tensors)
        indices = tensors.pop("indices")
        return cls(indices, {mine.shape[1]: mine for mine in tensors.values()})


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
        indices, found = omp_sizes(
            directions.to(texts.device), texts, sorted(set(sizes)), progress=bar.update
        )
    return Pursuit(indices.cpu(), {size: mine.float().cpu() for size, mine in found.items()})


def pursue_layers(
    inputs: Inputs,
    statistics: Mapping[int, UnitStatistics],
    embeddings: Float[Tensor, "text embed"],
    folder: Path,
) -> dict[int, Pursuit]:
    """The phrases of every layer, and those of the figures; each layer is kept in the work folder.

    They are those of the directions as the bundle will hold them.
    """
    settings, pool, half = inputs.settings, inputs.pool, inputs.settings.storage == "float16"
    sizes = {min(settings.components, len(pool))}
    if inputs.heldout is not None:
        sizes |= set(figure_sizes(len(pool), inputs.clip.embed_dim))
    texts = unit_rows(embeddings, settings.centred_pool).to(inputs.clip.device)
    note = {"pool": pool.sha256, "sizes": sorted(sizes)}
    found = {}
    for layer, mine in statistics.items():
        path = folder / f"phrases{layer}.safetensors"
        state = State.load(path)
        if state is None or state.note != note:
            directions = rounded(mine.directions.cpu(), half)
            state = pursue(directions, texts, sizes, f"phrases of layer {layer}").state(note)
            state.save(path)
        found[layer] = Pursuit.from_state(state)
    return found


def embed_pool(clip: ClipModel, pool: TextPool, folder: Path) -> Float[Tensor, "text embed"]:
    """Embeddings of the pool, kept in the work folder as they come."""
    path, step = folder / "texts.safetensors", 4096
    kept = State.load(path)
    done = [] if kept is None or kept.note["pool"] != pool.sha256 else [kept.tensors["texts"]]
    first = sum(map(len, done))
    with tqdm(total=len(pool), initial=first, desc="texts", unit="texts", disable=None) as bar:
        for start in range(first, len(pool), step):
            texts = pool.texts[start : start + step]
            done.append(embed_texts(clip, texts, progress=bar.update).cpu())
            State({"texts": torch.cat(done)}, {"pool": pool.sha256}).save(path)
    return torch.cat(done)


def rounded(values: Tensor, half: bool) -> Tensor:
    """Float32 values as float16 storage will hold them, so that memory and disk agree."""
    return values.half().float() if half else values.float()
