"""Pictures from the middle and the weak range of a unit's effects over the whole data set.

They are places among a few pictures of the gallery, the same for all units, so that they cost a
byte each and no thumbnail. A bundle with the shared bias has none.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Int
from torch import Tensor

from clipneurons.bundle.storage import within
from clipneurons.bundle.thumbnails import Examples

FEW, SAMPLED, PAD = 4, 64, -1
# Of all images by the size of a unit's effect: the middle; what lies below is weak.
MIDDLE = (0.25, 0.75)


def sampled(examples: Examples) -> list[int]:
    """The gallery's pictures that are meant."""
    return examples.spread(SAMPLED)


def weaker_problems(
    columns: Iterable[Int[Tensor, "unit few"] | None], units: int, pictures: int
) -> list[str]:
    """What is wrong with a layer's columns: their shape, pictures that are not there."""
    wrong = []
    for places in columns:
        if places is None:
            continue
        if tuple(places.shape) != (units, FEW):
            wrong.append(f"weaker images are {tuple(places.shape)}, expected {(units, FEW)}")
        elif not within(places, PAD, pictures):
            wrong.append(f"weaker images are not all among {pictures} pictures")
    return wrong
