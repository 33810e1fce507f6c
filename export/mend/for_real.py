"""The edit made on the activations of the model: as many units as help the model itself.

Later layers respond to what earlier ones no longer write, so what helps in the picture of effects
may hurt here. The number of units, and the mean that their activations are set to, are chosen by
cross-validation with the model's own answers; none is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.edit.edit import DATA, IMAGES, Edit
from clipneurons.edit.fold import fold, mean_of_units
from clipneurons.edit.mending import (
    CrossValidated,
    FindOptions,
    cross_validated,
    margins,
    strongest_rivals,
)
from clipneurons.images.convert import to_rgb
from clipneurons.lens.base import SCALE
from clipneurons.models.clip import ClipModel
from export.data.grouped import GroupedImages, chunks
from export.mend.mender import Choice, Mender, Observed, group_numbers

# Pictures of the bundle's gallery behind its data's mean activations.
_PICTURES = 512
_SIZES = (1, 4, 16, 64)

Means = Mapping[str, Mapping[int, Float[Tensor, " unit"]]]


@dataclass(frozen=True, eq=False)
class RealChoice:
    """The edit that the model itself gains most from, and what left-out images said of others.

    `tried` are (means, number of units) in the order of `judged`; the first is (DATA, 0).
    """

    edit: Edit
    tried: tuple[tuple[str, int], ...]
    judged: CrossValidated


def unit_means(mender: Mender, images: GroupedImages, numbers: Sequence[int]) -> Means:
    """Mean activations by what they are means over: the bundle's data, the images.

    The bundle's data are its gallery pictures; of a bundle without, there are the images alone.
    """
    clip, layers = mender.clip, list(mender.bundle.layers)
    found = {IMAGES: mean_of_units(clip, (p for _, p in mender.batches(images, numbers)), layers)}
    gallery = list(mender.bundle.examples)
    gallery = gallery[:: max(1, len(gallery) // _PICTURES)][:_PICTURES]
    if gallery:
        pictures = (
            torch.stack([clip.preprocess(_picture(mender, number)) for number in part])
            for part in chunks(gallery, mender.batch)
        )
        found = {DATA: mean_of_units(clip, pictures, layers), **found}
    return found


def folded(mender: Mender, edit: Edit, means: Means) -> ClipModel:
    """The model with an edit in its weights.

    Raises:
        ValueError: a tower into whose weights it cannot be folded.
    """
    return fold(mender.clip, edit.factors(mender.bundle), means.get(edit.means, means[IMAGES]))


def read_by(
    mender: Mender, clip: ClipModel, images: GroupedImages, numbers: Sequence[int]
) -> Float[Tensor, "image class"]:
    """Logits of the images that can be read, by a model."""
    return torch.cat([_logits(mender, clip, pixels)
                      for _, pixels in mender.batches(images, numbers)])  # fmt: skip


def choose_for_real(
    mender: Mender,
    images: GroupedImages,
    seen: Observed,
    choice: Choice,
    means: Means,
    known: bool,
    options: FindOptions,
) -> RealChoice:
    """How many of the units that were taken, and which mean, by the model on left-out images.

    Each fold's images are read by the model without the units found on the other folds.

    Raises:
        ValueError: a tower into whose weights an edit cannot be folded.
    """
    chosen = len(choice.found.units)
    sizes = sorted({*(size for size in _SIZES if size <= options.most), chosen} - {0})
    tried = [(DATA, 0), *((name, size) for size in sizes for name in means)]
    left_out = torch.empty(len(tried), len(seen.labels))
    left_out[0] = _margin(seen.logits, seen.labels)
    rows = {number: row for row, number in enumerate(seen.ids)}
    for left, order in choice.found.folds:
        edits = [mender.edit(order[:size], name) for name, size in tried[1:]]
        factors = [edit.factors(mender.bundle) for edit in edits]
        mine = [seen.ids[i] for i in left.nonzero().flatten().tolist()]
        for ids, pixels in mender.batches(images, mine):
            at = torch.tensor([rows[number] for number in ids])
            for row, (edit, factor) in enumerate(zip(edits, factors, strict=True), start=1):
                model = fold(mender.clip, factor, means[edit.means])
                left_out[row, at] = _margin(_logits(mender, model, pixels), seen.labels[at])
    judged = cross_validated(left_out, group_numbers(seen, known), options)
    name, size = tried[judged.fewest(options)]
    return RealChoice(mender.edit(choice.found.order[:size], name), tuple(tried), judged)


@torch.no_grad()
def _logits(
    mender: Mender, clip: ClipModel, pixels: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image class"]:
    embedded = torch.nn.functional.normalize(clip.encode_image(pixels), dim=1)
    return (SCALE * embedded @ mender.classes.T).cpu()


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    return margins(logits, labels, strongest_rivals(logits, labels))


def _picture(mender: Mender, number: int) -> Image.Image:
    return to_rgb(Image.open(BytesIO(mender.bundle.examples[number])))
