"""Groups of a unit's top images in `labels.safetensors`: what a unit of several meanings says.

Optional columns; a bundle without them has groups whose names were not tested.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, fields

from jaxtyping import Float, Int
from torch import Tensor

# Top images of a unit that are grouped, and groups at most.
SHOWN, GROUPS = 24, 4
# A group has a name where at least this share of its images show what it says.
NAMED = 0.5


@dataclass(frozen=True, eq=False)
class ImageGroups:
    """Groups of every unit's top images in a layer, with their names.

    A unit whose top images are all alike has none. Names are measured on held-out images: those
    that excite the unit strongly and are nearest to the group.

    images      the group of each of the unit's first 24 images that have a thumbnail; −1 pads
    text        the group's name, a text of the bundle; −1 where there is no such group
    purity      share of the held-out images of the group that show it; NaN where there are too few
    auc         its area under the ROC curve as a detector of them among all held-out images
    """

    images: Int[Tensor, "unit image"]
    text: Int[Tensor, "unit group"]
    purity: Float[Tensor, "unit group"]
    auc: Float[Tensor, "unit group"]


_NAMES = tuple(field.name for field in fields(ImageGroups))
_WHOLE = ("images", "text")


def group_tensors(layer: int, groups: ImageGroups) -> dict[str, Tensor]:
    """The columns of a layer by their names in the file."""
    columns = {name: getattr(groups, name) for name in _NAMES}
    columns |= {"images": groups.images.char(), "text": groups.text.int()}
    return {f"layer{layer}.group_{name}": value.contiguous() for name, value in columns.items()}


def groups_from(tensors: Mapping[str, Tensor], layer: int) -> ImageGroups | None:
    """The inverse of `group_tensors`; None of a file without them."""
    if f"layer{layer}.group_images" not in tensors:
        return None
    columns = {name: tensors[f"layer{layer}.group_{name}"] for name in _NAMES}
    columns |= {name: columns[name].int() for name in _WHOLE}
    return ImageGroups(**columns)


def group_problems(groups: ImageGroups, units: int, texts: int) -> list[str]:
    """What is wrong with a layer’s groups: shapes, texts and groups that are not there."""
    wrong = []
    for name in _NAMES:
        shape = (units, SHOWN if name == "images" else GROUPS)
        found = tuple(getattr(groups, name).shape)
        if found != shape:
            wrong.append(f"groups' {name} is {found}, expected {shape}")
    for name, count in (("images", GROUPS), ("text", texts)):
        value = getattr(groups, name)
        if value.numel() and not -1 <= int(value.min()) <= int(value.max()) < count:
            wrong.append(f"groups' {name} are not all below {count}")
    return wrong


def shown_images(
    images: Int[Tensor, " top"], norms: Float[Tensor, " top"], kept: Container[int]
) -> list[tuple[int, float]]:
    """A unit's first top images that have a thumbnail, with their effect norms; −1 pads."""
    pairs = zip(images.tolist(), norms.tolist(), strict=True)
    return [(image, norm) for image, norm in pairs if image >= 0 and image in kept][:SHOWN]
