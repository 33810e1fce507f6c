"""Batches of a long pass over images, kept on disk until all are there: a killed one goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from export.common.state import State


@dataclass(frozen=True)
class KeptBatches:
    """Where batches are kept; `digest` tells what they depend on."""

    folder: Path
    digest: str

    @classmethod
    def beside(cls, folder: Path, name: str, *basis: object) -> KeptBatches:
        """In a hidden folder beside another, named after both."""
        folder = folder.resolve()
        text = json.dumps(basis, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return cls(folder.parent / f".{folder.name}.{name}", digest)

    def get(self, kind: str, number: int) -> State | None:
        """A batch that was kept for the same basis."""
        try:
            state = State.load(self._path(kind, number))
        except (ValueError, KeyError, OSError, SafetensorError):  # what a kill left of a file
            return None
        return state if state and state.note.get("basis") == self.digest else None

    def put(self, kind: str, number: int, tensors: dict[str, Tensor]) -> State:
        """Keep a batch."""
        state = State(tensors, {"basis": self.digest})
        state.save(self._path(kind, number))
        return state

    def remove(self) -> None:
        """Clear up."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, kind: str, number: int) -> Path:
        return self.folder / f"{kind}-{number:06d}.safetensors"
