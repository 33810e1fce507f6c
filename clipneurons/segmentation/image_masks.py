"""What was looked for in one image: whether it is there, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from clipneurons.notebook import article, gallery, lit, painted
from clipneurons.segmentation.masks import THRESHOLD, rle

if TYPE_CHECKING:  # open_clip takes seconds to import
    from clipneurons.segmentation.presence import Presence
    from clipneurons.segmentation.segment import Segmentation


@dataclass(frozen=True)
class ImageMasks:
    """Names looked for in one image: whether each is in it, its heat map and its mask.

    Attributes:
        image: the image, at the size of the heat maps.
        result: the names' maps, whose ``heat`` is in 0 to 1, and the size of the original.
        presence: of each name, whether it is in the image and by what score.
        anyway: whether names that are not in it get a mask too; otherwise theirs is empty.
        threshold: of the masks.
    """

    image: Image.Image = field(repr=False)
    result: Segmentation = field(repr=False)
    presence: tuple[Presence, ...]
    anyway: bool = False
    threshold: float = THRESHOLD

    @property
    def names(self) -> tuple[str, ...]:
        """What was looked for."""
        return self.result.names

    @property
    def shown(self) -> list[int]:
        """Numbers of the names that get a mask."""
        return [i for i, presence in enumerate(self.presence) if self.anyway or presence.found]

    @property
    def first(self) -> str:
        """The first name that gets a mask."""
        return self.names[(self.shown or [0])[0]]

    def mask(self, name: str) -> Bool[Tensor, "height width"]:
        """Where a name is, in the original's size; empty for one that is not in the image.

        Raises:
            ValueError: a name that was not looked for.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} was not looked for: expected one of {list(self.names)}")
        return self.masks(self.threshold)[self.names.index(name)]

    def masks(self, threshold: float) -> Bool[Tensor, "name height width"]:
        """Masks of all names at a threshold."""
        masks = torch.zeros(len(self.names), *self.result.size, dtype=torch.bool)
        for index in self.shown:
            masks[index] = self.result.mask(index, threshold)
        return masks

    def to_dict(self) -> dict[str, Any]:
        """In JSON values, as the page's endpoint gives it: masks as COCO run lengths."""
        rows = zip(self.names, self.presence, self.masks(self.threshold), strict=True)
        return {
            "threshold": self.threshold,
            "classes": [
                {
                    "name": name, "found": presence.found, "mask": rle(mask),
                    "share": mask.float().mean().item(), "cosine": presence.cosine,
                    "score": presence.score, "rival": presence.rival,
                }
                for name, presence, mask in rows
            ],
        }  # fmt: skip

    def __repr__(self) -> str:
        shares = self.masks(self.threshold).float().mean((1, 2)).tolist()
        rows = zip(self.names, self.presence, shares, strict=True)
        return "\n".join(
            f"{name}: {verdict(presence)}" + f", {share:.0%} of the image" * presence.found
            for name, presence, share in rows
        )

    def _repr_html_(self) -> str:
        masks, parts = self.masks(self.threshold), []
        for index in self.shown:
            maps = [
                (lit(self.image, self.result.heat[index]), "heat map"),
                (painted(self.image, masks[index]), f"mask, {masks[index].float().mean():.0%}"),
            ]
            parts.append(gallery(self.names[index], maps))
        verdicts = "; ".join(
            f"{name} {verdict(presence)}"
            for name, presence in zip(self.names, self.presence, strict=True)
        )
        return article(", ".join(self.names), gallery("Image", [(self.image, "")]), *parts,
                       note=verdicts)  # fmt: skip


def verdict(presence: Presence) -> str:
    """Whether a name is in the image, in words."""
    if presence.found:
        return "found"
    return f"not found (rather {presence.rival})" if presence.rival else "not found"
