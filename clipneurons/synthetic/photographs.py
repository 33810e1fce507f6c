"""Packed photographs with the names of what they show.

A pack is one safetensors file: WebP bytes end to end (`webp`), their `offsets` [n + 1], `label` [n]
into the header's `classes` (JSON list of `source`, `key`, `name`) and `split` [n] (1 is held out of
training). Nothing is unpickled. `python -m research mini-clip pack` writes the shipped one.
"""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clipneurons.shipped import ARTIFACTS

FILE = ARTIFACTS / "photographs.safetensors"
NAMES = ARTIFACTS / "photograph-names.json"
TENSORS = ("webp", "offsets", "label", "split")


@dataclass(frozen=True)
class Photographs:
    """Photographs, decoded when asked for.

    `classes`: what a label stands for (`source`: data set, `key`: its own name, `name`: in words).
    `label` int [n]; `split` uint8 [n].
    """

    classes: tuple[dict[str, str], ...]
    label: np.ndarray
    split: np.ndarray
    offsets: np.ndarray = field(repr=False)
    webp: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.label)

    def data(self, index: int) -> bytes:
        """The WebP file of one photograph."""
        return self.webp[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def image(self, index: int) -> np.ndarray:
        """One photograph as RGB uint8 [H, W, 3]."""
        with Image.open(io.BytesIO(self.data(index))) as picture:
            return np.asarray(picture.convert("RGB"))

    def square(self, index: int, side: int) -> Image.Image:
        """The middle square of one photograph, side x side."""
        picture = Image.fromarray(self.image(index))
        shorter = min(picture.size)
        left, top = ((length - shorter) // 2 for length in picture.size)
        middle = picture.crop((left, top, left + shorter, top + shorter))
        return middle.resize((side, side), Image.Resampling.BICUBIC)

    def name(self, index: int) -> str:
        """What one photograph shows."""
        return self.classes[self.label[index]]["name"]

    @property
    def by_name(self) -> dict[str, list[int]]:
        """Which photographs show what."""
        found: dict[str, list[int]] = {}
        for row in range(len(self)):
            found.setdefault(self.name(row), []).append(row)
        return found

    @property
    def sources(self) -> np.ndarray:
        """Every photograph's data set [n]."""
        return np.array([entry["source"] for entry in self.classes])[self.label]

    def subset(self, rows: np.ndarray) -> "Photographs":
        """Some photographs, in the order given, with the classes they show."""
        rows = np.asarray(rows).tolist()
        used, label = np.unique(self.label[rows], return_inverse=True)
        files = [self.data(row) for row in rows]
        return Photographs(
            classes=tuple(self.classes[c] for c in used),
            label=label.astype(np.int32),
            split=self.split[rows],
            offsets=np.cumsum([0, *map(len, files)]),
            webp=np.frombuffer(b"".join(files), np.uint8),
        )


def load_photographs(path: str | Path | None = None) -> Photographs:
    """Load a pack, by default the shipped one.

    Raises `FileNotFoundError`, or `ValueError` for a file that is no pack or is cut short.
    """
    path = path or FILE
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no photographs at {path}: expected a safetensors pack; the shipped one lies in "
            "artifacts/ of a checkout, not in the installed package"
        )
    try:
        with safe_open(str(path), framework="numpy") as file:
            classes = json.loads((file.metadata() or {})["classes"])
            tensors = {name: file.get_tensor(name) for name in TENSORS}
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no intact pack of photographs ({type(error).__name__}: {error}): expected"
            f" tensors {', '.join(TENSORS)} and a header with 'classes'"
        ) from None
    count = len(tensors["label"])
    whole = len(tensors["offsets"]) == count + 1 and len(tensors["split"]) == count
    if not whole or tensors["offsets"][-1] != len(tensors["webp"]):
        raise ValueError(f"{path} is no intact pack of photographs: its tensors do not match")
    return Photographs(classes=tuple(classes), **tensors)


def load_names() -> dict[str, list[str]]:
    """What the photographs that the bundled models were trained on show, each with what kind of
    thing it is: "goldfish" is a fish and an animal.

    Raises `FileNotFoundError` outside a checkout.
    """
    return json.loads(NAMES.read_text(encoding="utf-8"))


def save_photographs(path: str | Path, photographs: Photographs) -> None:
    """Write a pack that `load_photographs` reads."""
    tensors = {name: np.ascontiguousarray(getattr(photographs, name)) for name in TENSORS}
    save_file(tensors, str(path), metadata={"classes": json.dumps(list(photographs.classes))})
