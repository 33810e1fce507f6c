"""State of an unfinished run as bytes: the same for checkpoints, ranks and job arrays.

Safetensors with a JSON note; written in one step, so that a kill leaves the last whole state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from clipneurons.bundle.folders import write_atomic


@dataclass(frozen=True)
class State:
    """Tensors by name ("layer8.scores"), and a note that JSON can hold."""

    tensors: Mapping[str, Tensor]
    note: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The same state gives the same bytes."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.tensors.items()}
        return save(tensors, {"note": json.dumps(self.note, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes, device: torch.device | str = "cpu") -> State:
        """The inverse of `to_bytes`."""
        size = int.from_bytes(data[:8], "little")
        note = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["note"])
        return cls({k: v.to(device) for k, v in load(data).items()}, note)

    def save(self, path: Path) -> None:
        """Write in one step."""
        write_atomic(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> State | None:
        """The state in a file; None where there is none."""
        return cls.from_bytes(path.read_bytes(), device) if path.is_file() else None

    def of(self, layer: int) -> dict[str, Tensor]:
        """Tensors of one layer, without the prefix."""
        prefix = f"layer{layer}."
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def by_layer(states: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of all layers under `layer{l}.` names."""
    return {f"layer{layer}.{k}": v for layer, state in states.items() for k, v in state.items()}
