"""From maps on the patch grid to heat maps, masks and label maps of an image, and to files."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

NONE = -1
# Of masks, on the stretched map; chosen on scenes of the validation style.
THRESHOLD = 0.3


def upsample(
    maps: Float[Tensor, "*map row column"], size: tuple[int, int]
) -> Float[Tensor, "*map height width"]:
    """Maps stretched to ``(height, width)`` pixels, bilinearly."""
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(flat, size, mode="bilinear").reshape(*maps.shape[:-2], *size)


def min_max(maps: Float[Tensor, "*map row column"]) -> Float[Tensor, "*map row column"]:
    """Each map stretched to 0..1; a constant map says nothing and becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    span = high - low
    return torch.where(span > 0, (maps - low) / span.where(span > 0, torch.ones_like(span)), 0.0)


def binary_masks(
    heat: Float[Tensor, "*map row column"], threshold: float | None = 0.5
) -> Bool[Tensor, "*map row column"]:
    """Where maps in 0..1 exceed the threshold; None is each map's own mean."""
    return heat > (heat.mean((-2, -1), keepdim=True) if threshold is None else threshold)


def label_map(
    maps: Float[Tensor, "class row column"], none: float = 0.0, shared: bool = True
) -> Int[Tensor, "row column"]:
    """The class with the largest score at each position; -1, "none", where it is low.

    Scores are stretched to 0..1 over all maps together (``shared``, for maps on one scale), or
    each map by itself; "none" is where no class exceeds ``none`` on that scale.
    """
    if shared:
        maps = min_max(maps.reshape(1, -1, maps.shape[-1])).reshape(maps.shape)
    else:
        maps = min_max(maps)
    best, labels = maps.max(0)
    return labels.masked_fill(best <= none, NONE)


def rle(mask: Bool[Tensor, "height width"]) -> dict:
    """The mask as uncompressed COCO run lengths: columns first, starting with background."""
    flat = mask.T.flatten().to(torch.int8)
    edges = (flat.diff() != 0).nonzero().flatten() + 1
    ends = torch.cat([torch.zeros(1).long(), edges.cpu(), torch.tensor([len(flat)])])
    counts = ends.diff().tolist()
    if len(flat) and flat[0]:
        counts = [0, *counts]
    return {"size": list(mask.shape), "counts": counts}


def from_rle(encoded: dict) -> Bool[Tensor, "height width"]:
    """The inverse of :func:`rle`.

    Raises:
        ValueError: run lengths that do not fill the size.
    """
    height, width = encoded["size"]
    counts = torch.tensor(encoded["counts"], dtype=torch.long)
    if counts.sum() != height * width or (counts < 0).any():
        raise ValueError(f"run lengths add up to {int(counts.sum())}, not {height} x {width}")
    values = torch.arange(len(counts)) % 2 == 1
    return values.repeat_interleave(counts).reshape(width, height).T


def coco_annotations(
    masks: Bool[Tensor, "class height width"], names: Sequence[str], file_name: str = "image"
) -> dict:
    """One image's masks in COCO's annotation format, one annotation a class that is present."""
    height, width = masks.shape[1:]
    annotations = []
    for index, mask in enumerate(masks):
        rows, columns = mask.nonzero(as_tuple=True)
        if len(rows) == 0:
            continue
        left, top = int(columns.min()), int(rows.min())
        box = [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 1,
                "category_id": index + 1,
                "segmentation": rle(mask),
                "area": len(rows),
                "bbox": box,
                "iscrowd": 1,  # what COCO calls masks kept as run lengths
            }
        )
    return {
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        "annotations": annotations,
    }
