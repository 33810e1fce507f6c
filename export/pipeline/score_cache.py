"""Scores of the first pass on disk, from which the second one goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clipneurons.lens.contributions import Contributions, ScoredContributions
from export.common.state import State


class ScoreCache:
    """Scores of every batch on disk, so that the second pass needs neither images nor model.

    A file that a kill or a full disk left unusable counts as absent.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device

    def put(self, number: int, ids: Tensor, layers: Mapping[int, Contributions]) -> None:
        """Keep the scores (and shared bias) of batch `number`."""
        tensors = {"ids": ids}
        for layer, contributions in layers.items():
            tensors[f"layer{layer}.scores"] = contributions.scores
            if contributions.bias is not None:
                tensors[f"layer{layer}.bias"] = contributions.bias
        path = self._path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")  # not flushed: a lost batch is computed again
        temporary.write_bytes(State(tensors).to_bytes())
        os.replace(temporary, path)

    def has(self, number: int) -> bool:
        """Whether `get` will succeed."""
        try:
            with safe_open(self._path(number), "pt") as file:
                return "ids" in file.keys()  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError):
            return False

    def get(self, number: int, directions: Mapping[int, Any]) -> tuple[Tensor, dict]:
        """Image ids and contributions of batch `number`."""
        state = State.load(self._path(number), self.device)
        layers = {
            layer: ScoredContributions(state.of(layer)["scores"], d, state.of(layer).get("bias"))
            for layer, d in directions.items()
            if state.of(layer)
        }
        return state.tensors["ids"].cpu(), layers

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.safetensors"
