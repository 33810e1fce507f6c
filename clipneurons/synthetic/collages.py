"""Photographs cut onto other photographs: pictures of photographed things whose masks are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .photographs import Photographs
from .scenes import bounding_box


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
        rows = photographs.by_name
        self.rows = {n: rows[n] for n in names if n in rows} if names else rows
        if len(self.rows) < 2:
            raise ValueError(f"a collage needs two names, {len(self.rows)} have photographs")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Collage:
        if not -self.count <= index < self.count:
            raise IndexError(f"collage {index} of {self.count}")
        rng, photographs = np.random.default_rng((self.seed, index % self.count)), self.photographs
        chosen = [str(name) for name in rng.choice(sorted(self.rows), 2, replace=False)]
        cut, ground = (
            photographs.square(int(rng.choice(self.rows[name])), self.side) for name in chosen
        )
        inside = self._ellipse(rng)
        # The cut photograph is shrunk to the ellipse's frame, so that what it shows stays whole.
        left, top, right, bottom = bounding_box(inside)
        image = np.asarray(ground).copy()
        small = np.asarray(cut.resize((right - left, bottom - top), Image.Resampling.BICUBIC))
        part = inside[top:bottom, left:right]
        image[top:bottom, left:right][part] = small[part]
        return Collage(image, {chosen[0]: inside, chosen[1]: ~inside})

    def _ellipse(self, rng: np.random.Generator) -> np.ndarray:
        """An ellipse of a fifth to two fifths of the picture, wholly inside it."""
        area, ratio = rng.uniform(0.2, 0.4), np.exp(rng.uniform(-0.3, 0.3))
        width, height = np.sqrt(area * 4 / np.pi * ratio), np.sqrt(area * 4 / np.pi / ratio)
        x, y = (rng.uniform(length / 2, 1 - length / 2) for length in (width, height))
        axis = (np.arange(self.side) + 0.5) / self.side
        return ((axis[None] - x) / width) ** 2 + ((axis[:, None] - y) / height) ** 2 < 0.25
