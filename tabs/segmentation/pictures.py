"""What was found, drawn over the image: a name's heat map and mask, and all names as regions."""

from __future__ import annotations

from PIL import Image

from tabs.segmentation.found import Found

# What scores below this share of a name's best is left blank, at first.
BLANK = 0.3
_REGIONS = 30  # names beyond which regions are not drawn one by one
# Pixels of the longer side that a picture is enlarged to: the page shows none larger, and clicks
# are lost beside one that is smaller than its frame.
SIDE = 512


def drawn(
    found: Found, name: str | None, opacity: float, threshold: float
) -> tuple[Image.Image, Image.Image]:
    """The heat map over the image, and the mask, of one name (by default the first)."""
    from clipneurons.images.heatmap import mask_image, overlay

    result = found.result
    index = result.names.index(name) if name in result.names else 0
    return (
        overlay(found.image, result.heat[index], opacity),
        mask_image(result.mask(index, threshold)),
    )


def enlarged(
    found: Found, name: str | None, opacity: float, threshold: float
) -> tuple[Image.Image, Image.Image]:
    """`drawn` as the page shows it: at least ``SIDE`` pixels wide or high."""
    heat, mask = drawn(found, name, opacity, threshold)
    size = shown_size(heat.size)
    return (
        heat.resize(size, Image.Resampling.BICUBIC),
        mask if max(mask.size) >= SIDE else mask.resize(size, Image.Resampling.NEAREST),
    )


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture enlarged to ``SIDE``; larger ones stay as they are."""
    factor = max(1.0, SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def clicked(found: Found, point: tuple[int, int]) -> tuple[int, int]:
    """The pixel of the image below a point of the enlarged picture."""
    size = found.image.size
    return tuple(
        at * own // shown for at, own, shown in zip(point, size, shown_size(size), strict=True)
    )


def regions(found: Found, none: float) -> tuple:
    """The image with a coloured region for each name that is in it, where it is the best.

    Each name's scores are stretched by themselves: on one scale, what scores low everywhere
    vanished beside the others.
    """
    from clipneurons.segmentation.masks import label_map

    result = found.result
    there = [index for index, presence in enumerate(found.presence) if presence.present]
    if not there:
        return found.image, []
    labels = label_map(result.scores[there], none, shared=False).numpy()
    present = [
        (labels == place, result.names[index])
        for place, index in enumerate(there)
        if (labels == place).any()
    ]
    return found.image, [(mask.astype(float), name) for mask, name in present[:_REGIONS]]
