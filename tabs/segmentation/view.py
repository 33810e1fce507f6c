"""What a search shows: found or not, heat maps, masks, regions, and neurons, as HTML and images."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from clipneurons.bundle.unit_words import plain
from clipneurons.segmentation.image_masks import ImageMasks, verdict
from tabs.ui import plots
from tabs.ui.units import unit_bar

if TYPE_CHECKING:
    from clipneurons.segmentation.presence import Line
    from tabs.server.session import BundleSession

HINT = "Click on the heat map to read what the neurons say at that place."
# Pixels of the longer side that a picture is enlarged to: the page shows none larger, and clicks
# are lost beside one that is smaller than its frame.
SIDE = 512
_BLANK = 0.3  # a region ends where a name's score falls below this share of its best
_NAMES = 30  # that are listed and painted one by one
_VOTERS = 12


@dataclass(frozen=True)
class Search(ImageMasks):
    """A visitor's last search, kept for the slider, clicks and downloads."""

    bundle: str = ""


def presence_html(search: Search, line: Line) -> str:
    """Of each name whether it was found."""
    names = search.result.names
    rows = [
        f'<li><span class="cn-name">{escape(name)}</span> <b>{escape(verdict(presence))}</b></li>'
        for name, presence in list(zip(names, search.presence, strict=True))[:_NAMES]
    ]
    more = f"<p>and {len(names) - _NAMES} more names</p>" if len(names) > _NAMES else ""
    words = (
        "A name that is not found is not painted; tick the box under Find to see its map anyway."
    )
    if line.false_finds is not None:
        words += (
            f" On validation images the line gives {plots.percent(line.false_finds, 0)} false finds"
            f" and finds {plots.percent(line.recall, 0)} of what is there."
        )
    listed = f'<ol class="cn-presence" aria-label="Found or not">{"".join(rows)}</ol>'
    return plots.section("Is it in the image?", listed + more, words)


def drawn(search: Search, name: str | None, threshold: float) -> tuple[Image.Image, Image.Image]:
    """The heat map over the image, and the mask, of one name (by default the first).

    Of a name that is not shown: the image alone, and an empty mask.
    """
    import torch

    from clipneurons.images.heatmap import mask_image, overlay

    result = search.result
    index = result.names.index(name if name in result.names else search.first)
    if index not in search.shown:
        return search.image, mask_image(torch.zeros(result.size, dtype=torch.bool))
    return (
        overlay(search.image, result.heat[index]),
        mask_image(result.mask(index, threshold)),
    )


def enlarged(search: Search, name: str | None, threshold: float) -> list[Image.Image]:
    """`drawn` as the page shows it: at least ``SIDE`` pixels wide or high."""
    heat, mask = drawn(search, name, threshold)
    size = shown_size(heat.size)
    return [
        heat.resize(size, Image.Resampling.BICUBIC),
        mask if max(mask.size) >= SIDE else mask.resize(size, Image.Resampling.NEAREST),
    ]


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture enlarged to ``SIDE``; larger ones stay as they are."""
    factor = max(1.0, SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def clicked(search: Search, point: tuple[int, int]) -> tuple[int, int]:
    """The pixel of the image below a point of the enlarged picture."""
    size = search.image.size
    return tuple(
        at * own // shown for at, own, shown in zip(point, size, shown_size(size), strict=True)
    )


def regions(search: Search) -> tuple:
    """The image with a coloured region for each name that is shown, where it is the best.

    Each name's scores are stretched by themselves: on one scale, what scores low everywhere
    vanished beside the others.
    """
    from clipneurons.segmentation.masks import label_map

    result, shown = search.result, search.shown
    if not shown:
        return search.image, []
    labels = label_map(result.scores[shown], _BLANK, shared=False).numpy()
    painted = [
        ((labels == place).astype(float), result.names[index])
        for place, index in enumerate(shown)
        if (labels == place).any()
    ]
    return search.image, painted[:_NAMES]


def voters_html(session: BundleSession, name: str) -> str:
    """The units most aligned with a name, as bars that lead into the dictionary."""
    from clipneurons.segmentation.neuron_votes import choose_neurons
    from clipneurons.text.embedding import embed_texts

    bundle = session.bundle
    text = embed_texts(session.clip, [name], "photo").cpu()
    votes = choose_neurons(bundle.directions, text, _VOTERS)
    columns = (votes.layers[0], votes.units[0], votes.alignments[0])
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return plots.section(
        f"Neurons that agree most with “{name}”",
        plots.bars(
            [unit_bar(session.key, bundle, *row) for row in rows], label=f"Agreement with {name}",
            wide=True,
        ),
        "Cosine of each neuron's direction with the name.",
    )  # fmt: skip


def here_html(search: Search, session: BundleSession, point: tuple[int, int]) -> str:
    """What the neurons say at a pixel of the image, and which neurons."""
    from clipneurons.concepts.patch_concepts import patch_at, patch_concepts
    from clipneurons.models.preprocess import whole

    clip = session.clip
    patch = patch_at(point, search.image.size, clip.grid)
    _, contributions = session.lens(whole(clip, search.image))
    local = patch_concepts(session.bundle, contributions, [patch])
    row, column = divmod(patch, clip.grid[1])
    concepts = plots.bars(
        [plots.Bar(plain(phrase), weight) for phrase, weight in local.phrases],
        label="Concepts at this place", digits=3,
    )  # fmt: skip
    units = plots.bars(
        [
            unit_bar(session.key, session.bundle, unit.layer, unit.unit, unit.strength)
            for unit in local.units
        ],
        label="Neurons that speak at this place", digits=3, wide=True,
    )  # fmt: skip
    place = f"row {row + 1}, column {column + 1} of {clip.grid[0]} × {clip.grid[1]}"
    return plots.section(
        "What the neurons say here", concepts, f"More than elsewhere in the image ({place})."
    ) + plots.folded("Neurons that say so", units)
