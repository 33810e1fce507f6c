"""The offline painter with photographs: pasted whole as pictures in the picture.

Only names that no photograph has are drawn as pictograms.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipneurons.adversarial.pictogram_generator import Composer, pictogram_sprites
from clipneurons.synthetic.pasted import PastedPhotographs
from clipneurons.synthetic.photographs import load_names, load_photographs
from clipneurons.synthetic.pictograms import load_pictograms


def photograph_composer(size: int = 64, heldout: bool = False) -> Composer:
    """A composer that pastes shipped photographs of a name where there are at least two.

    Args:
        size: side of the pictures in pixels.
        heldout: paste the half of each name's photographs that figures are reported on; the other
            half is for choosing settings.

    Raises:
        FileNotFoundError: outside a checkout, where no photographs lie.
    """
    photographs = PastedPhotographs(load_photographs(), int(heldout))
    pictograms = load_pictograms()
    pasted = {name: _Pasted(photographs, name) for name in photographs.rows}
    sprites = pictogram_sprites(pictograms) | pasted
    return Composer(sprites, pictograms.synonyms, size, load_names())


@dataclass(frozen=True)
class _Pasted(Sequence):
    """A name's photographs, decoded when the first of them is wanted."""

    photographs: PastedPhotographs
    name: str

    def __len__(self) -> int:
        return len(self.photographs.rows[self.name])

    def __getitem__(self, index) -> np.ndarray:
        return self.photographs.variants(self.name, "photograph")[index]
