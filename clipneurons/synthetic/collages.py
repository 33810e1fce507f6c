"""Photographs cut onto other photographs: pictures of photographed things whose masks are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .photographs import Photographs


@dataclass(frozen=True)
class Collage:
    """image uint8 [side, side, 3], and by name bool [side, side]: whose photograph a pixel is of.

    The masks fill the picture: the cut photograph's ellipse, and all around it.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]


class Collages(Sequence[Collage]):
    """`count` collages of two photographs of different names; number i is a function of (seed, i).

    Raises `ValueError` where `names`, or all the photographs', are fewer than two.
    """

    def __init__(
        self,
        photographs: Photographs,
        count: int,
        seed: int = 0,
        side: int = 64,
        names: Sequence[str] | None = None,
    ):
        self.photographs, self.count, self.seed, self.side = photographs, count, seed, side
        rows: dict[str, list[int]] = {}
        for row in range(len(photographs)):
            rows.setdefault(photographs.name(row), []).append(row)
        self.rows = {n: rows[n] for n in names if n in rows} if names else rows
        if len(self.rows) < 2:
            raise ValueError(f"a collage needs two names, {len(self.rows)} have photographs")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Collage:
        if not -self.count <= index < self.count:
            raise IndexError(f"collage {index} of {self.count}")
        rng = np.random.default_rng((self.seed, index % self.count))
        chosen = [str(name) for name in rng.choice(sorted(self.rows), 2, replace=False)]
        cut, ground = (self._square(int(rng.choice(self.rows[name]))) for name in chosen)
        inside = self._ellipse(rng)
        # The cut photograph is shrunk to the ellipse's frame, so that what it shows stays whole.
        top, left, bottom, right = _frame(inside)
        image = np.asarray(ground).copy()
        small = np.asarray(cut.resize((right - left, bottom - top), Image.Resampling.BICUBIC))
        part = inside[top:bottom, left:right]
        image[top:bottom, left:right][part] = small[part]
        return Collage(image, {chosen[0]: inside, chosen[1]: ~inside})

    def _square(self, row: int) -> Image.Image:
        picture = Image.fromarray(self.photographs.image(row))
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        square = picture.crop((left, top, left + side, top + side))
        return square.resize((self.side, self.side), Image.Resampling.BICUBIC)

    def _ellipse(self, rng: np.random.Generator) -> np.ndarray:
        """An ellipse of a fifth to two fifths of the picture, wholly inside it."""
        area, ratio = rng.uniform(0.2, 0.4), np.exp(rng.uniform(-0.3, 0.3))
        width, height = np.sqrt(area * 4 / np.pi * ratio), np.sqrt(area * 4 / np.pi / ratio)
        x, y = (rng.uniform(length / 2, 1 - length / 2) for length in (width, height))
        axis = (np.arange(self.side) + 0.5) / self.side
        return ((axis[None] - x) / width) ** 2 + ((axis[:, None] - y) / height) ** 2 < 0.25


def _frame(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
