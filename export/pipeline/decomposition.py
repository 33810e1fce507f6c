"""Decomposition of a run's directions into the texts of its pool, kept in the work folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clipneurons.models.clip import ClipModel
from clipneurons.statistics.effect_statistics import UnitStatistics
from clipneurons.text.embedding import embed_texts
from clipneurons.text.pools import TextPool
from export.common.pursuit import Pursuit, figure_sizes, pursue, rounded, unit_rows
from export.common.state import State
from export.pipeline.inputs import Inputs


def pursue_layers(
    inputs: Inputs,
    statistics: Mapping[int, UnitStatistics],
    embeddings: Float[Tensor, "text embed"],
    folder: Path,
) -> dict[int, Pursuit]:
    """The decomposition of every layer, also at the sizes of the figures.

    The directions are rounded as the bundle will hold them. Each layer is kept in the work folder.
    """
    settings, pool, half = inputs.settings, inputs.pool, inputs.settings.storage == "float16"
    sizes = {min(settings.components, len(pool))}
    if inputs.heldout is not None:
        sizes |= set(figure_sizes(len(pool), inputs.clip.embed_dim))
    texts = unit_rows(embeddings, settings.centred_pool).to(inputs.clip.device)
    note = {"pool": pool.sha256, "sizes": sorted(sizes)}
    pursuits = {}
    for layer, layer_statistics in statistics.items():
        path = folder / f"decomposition{layer}.safetensors"
        state = State.load(path)
        if state is None or state.note != note:
            directions = rounded(layer_statistics.directions.cpu(), half)
            state = pursue(directions, texts, sizes, f"texts of layer {layer}").state(note)
            state.save(path)
        pursuits[layer] = Pursuit.from_state(state)
    return pursuits


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
