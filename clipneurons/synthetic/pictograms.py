"""Packed pictograms: everyday concepts, each drawn in several open emoji styles.

A pack is one safetensors file: WebP bytes end to end, their offsets, and JSON metadata
in the header (names, styles, licences). Nothing is unpickled. `python -m research mini-clip
pictograms` rebuilds the packs.
"""

import functools
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from clipneurons.shipped import ARTIFACTS

SIZE = 64
SCHEMA = "1"


@dataclass(frozen=True)
class Pictograms:
    """Drawings by concept and style; decoded on first use.

    `concepts`, `styles`: sorted names. `synonyms`, `groups`: by concept.
    `licences`: by style. `entries`: (concept, style) -> ids of its drawings.
    """

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    groups: dict[str, str]
    synonyms: dict[str, tuple[str, ...]]
    licences: dict[str, dict]
    entries: dict[tuple[str, str], tuple[int, ...]]
    offsets: np.ndarray = field(repr=False)
    data: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def _decoded(self) -> dict[int, np.ndarray]:
        return {}

    def image(self, index: int) -> np.ndarray:
        """Drawing `index` as RGBA uint8 [64, 64, 4]."""
        if index not in self._decoded:
            start, stop = self.offsets[index], self.offsets[index + 1]
            with Image.open(io.BytesIO(self.data[start:stop].tobytes())) as picture:
                rgba = np.asarray(picture.convert("RGBA")).copy()
            rgba.flags.writeable = False
            self._decoded[index] = rgba
        return self._decoded[index]

    def variants(self, concept: str, style: str) -> list[np.ndarray]:
        """All drawings of a concept in a style (a cat and a cat's face, say); may be empty."""
        self._check(concept, style)
        return [self.image(i) for i in self.entries.get((concept, style), ())]

    def lookup(self, concept: str, style: str, variant: int = 0) -> np.ndarray:
        """One drawing as RGBA uint8 [64, 64, 4]; an error if the style has none."""
        self._check(concept, style)
        ids = self.entries.get((concept, style), ())
        if not ids:
            raise KeyError(
                f"style {style!r} has no {concept!r}; it is drawn in "
                f"{', '.join(self.styles_of(concept))}"
            )
        return self.image(ids[variant % len(ids)])

    def styles_of(self, concept: str) -> list[str]:
        """The styles that draw a concept."""
        return [style for style in self.styles if (concept, style) in self.entries]

    def _check(self, concept: str, style: str) -> None:
        if concept not in self.groups:
            raise KeyError(f"no concept {concept!r} among {len(self.concepts)}, e.g. dog, car")
        if style not in self.styles:
            raise KeyError(f"no style {style!r}; there are {', '.join(self.styles)}")


def load_pictograms(path: str | Path | None = None, heldout: bool = False) -> Pictograms:
    """Load a pack: the shipped training styles, or with `heldout` the two test styles."""
    if path is None:
        path = ARTIFACTS / (
            "pictograms-heldout.safetensors" if heldout else "pictograms.safetensors"
        )
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no pictogram pack at {path}: the packs lie in artifacts/ of a checkout (python -m "
            "research mini-clip pictograms makes them), not in the installed package"
        )
    with safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("schema") != SCHEMA:
            raise ValueError(
                f"{path}: pictogram schema {metadata.get('schema')!r}, this code reads {SCHEMA!r}"
            )
        offsets, data = file.get_tensor("offsets"), file.get_tensor("bytes")
    head = json.loads(metadata["pictograms"])
    concepts, styles = head["concepts"], head["styles"]
    entries: dict[tuple[str, str], list[int]] = {}
    for index, (concept, style) in enumerate(head["items"]):
        entries.setdefault((concepts[concept], styles[style]), []).append(index)
    return Pictograms(
        concepts=tuple(concepts),
        styles=tuple(styles),
        groups=head["groups"],
        synonyms={name: tuple(words) for name, words in head["synonyms"].items()},
        licences=head["licences"],
        entries={key: tuple(ids) for key, ids in entries.items()},
        offsets=offsets,
        data=data,
    )


def save_pictograms(
    path: str | Path,
    drawings: list[tuple[str, str, bytes]],
    groups: dict[str, str],
    synonyms: dict[str, list[str]],
    licences: dict[str, dict],
) -> None:
    """Write (concept, style, WebP bytes) drawings as one pack that `load_pictograms` reads."""
    concepts, styles = sorted(groups), sorted({style for _, style, _ in drawings})
    drawings = sorted(drawings, key=lambda item: item[:2])
    head = {
        "concepts": concepts,
        "styles": styles,
        "groups": groups,
        "synonyms": synonyms,
        "licences": {style: licences[style] for style in styles},
        "items": [(concepts.index(c), styles.index(s)) for c, s, _ in drawings],
    }
    offsets = np.cumsum([0] + [len(webp) for _, _, webp in drawings]).astype(np.int64)
    data = np.frombuffer(b"".join(webp for _, _, webp in drawings), np.uint8)
    metadata = {"schema": SCHEMA, "pictograms": json.dumps(head, ensure_ascii=False)}
    save_file({"offsets": offsets, "bytes": data}, str(path), metadata=metadata)
