"""The images that a neuron reacts to, in groups by what they show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

import torch

from clipneurons.bundle import image_groups
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.image_groups import NAMED
from clipneurons.bundle.unit_words import plain
from clipneurons.bundle.weaker_images import PAD, sampled
from clipneurons.dictionary.dashboard import NeuronDashboard
from clipneurons.dictionary.dictionary import Dictionary
from clipneurons.images.convert import webp_uri
from clipneurons.statistics.clustering import clusters
from tabs.ui.patch_mask import patch_mask
from tabs.ui.plots import empty, link, percent

# Images of the middle and of the weak end of those that a unit's list holds.
_WEAKER = 8
_MASK = 64  # pixels of a map's side
# Tabs that a picture can be opened in.
_OPEN_IN = {"concepts": "Concepts", "segmentation": "Segmentation", "edit": "Edit"}
Maps = Mapping[int, list[list[float]]]


@dataclass(frozen=True)
class ImageGroup:
    """Some of the shown images by their places; `name` is empty where no text fits enough."""

    members: tuple[int, ...]
    name: str
    note: str


@dataclass(frozen=True)
class Gallery:
    """What pictures are drawn from: the bundle, its key, and where the neuron fires (by image)."""

    key: str
    bundle: Bundle
    maps: Maps


def shown_images(bundle: Bundle, card: NeuronDashboard) -> list[tuple[int, float]]:
    """Top images that have a thumbnail."""
    arrays = bundle.layers[card.layer]
    images, norms = arrays.top_activating_images[card.unit], arrays.top_norms[card.unit]
    return image_groups.shown_images(images, norms, bundle.examples)


def stored_groups(bundle: Bundle, layer: int, unit: int) -> list[ImageGroup] | None:
    """The groups whose names were tested; None of a bundle that has no such."""
    found = bundle.labels[layer].groups if layer in bundle.labels else None
    if found is None:
        return None
    mine, groups = found.images[unit], []
    for group, text in enumerate(found.text[unit].tolist()):
        if text >= 0:
            members = tuple((mine == group).nonzero().flatten().tolist())
            purity = float(found.purity[unit, group])
            groups.append(ImageGroup(members, *_tested_name(bundle.texts[text], purity)))
    return groups


def _tested_name(text: str, purity: float) -> tuple[str, str]:
    """A name and how far it can be trusted; no name below the least purity."""
    if not isfinite(purity):
        return "", "too few other pictures to test a name"
    share = percent(purity, 0)
    if purity >= NAMED:
        return text, f"{share} of other pictures like these show it"
    return "", f"no name fits: “{text}” is in {share} of other pictures like these"


def group_images(
    embeddings: torch.Tensor, dictionary: Dictionary, mean: torch.Tensor, separation: float,
    images: Sequence[int],
) -> list[ImageGroup]:  # fmt: skip
    """Groups of a gallery's images, from their embeddings: names that nobody tested.

    A group has a name where most of its captions have it; of a bundle without captions, where the
    model itself sees it in most of the images.
    """
    bundle, groups = dictionary.bundle, []
    for group in clusters(embeddings, bundle.texts, bundle.text_embeddings, mean, separation):
        name, share, note = group.texts[0], group.purity, "name not tested"
        if bundle.examples.captions:
            share = _share_captioned(bundle, [images[i] for i in group.members], name)
            note = f"{percent(share, 0)} of their captions say so"
        fits = share >= NAMED
        groups.append(
            ImageGroup(group.members, name if fits else "", note if fits else "no one name fits")
        )
    return groups


def _share_captioned(bundle: Bundle, images: Sequence[int], name: str) -> float:
    """Of some images, those whose caption has a name as whole words."""
    whole = re.compile(rf"\b{re.escape(plain(name))}\b", re.IGNORECASE)
    captions = [bundle.examples.caption(image) for image in images]
    return sum(bool(whole.search(caption)) for caption in captions) / max(len(captions), 1)


def gallery_note(groups: Sequence[ImageGroup] | None) -> str:
    """What the order of the pictures means."""
    order = "Grouped by what they show" if groups and len(groups) > 1 else "The strongest first"
    return f"{order}; below each picture, the size of the effect. Click one for what it shows."


def gallery_html(
    gallery: Gallery, card: NeuronDashboard, groups: Sequence[ImageGroup] | None
) -> str:
    """The unit's top images, in groups where there are several, and weaker ones."""
    images = shown_images(gallery.bundle, card)
    if not images:
        return empty("The bundle keeps no picture that this neuron reacts to strongly.")
    weaker = _weaker_html(gallery, card)
    if not groups or len(groups) < 2:
        return _pictures(gallery, images) + weaker
    parts = []
    for group in groups:
        count = f"{len(group.members)} picture{'s' if len(group.members) > 1 else ''}"
        name = f"{escape(plain(group.name))} " if group.name else ""
        title = f"<h4>{name}<small>{count}, {escape(group.note)}</small></h4>"
        pictures = _pictures(gallery, [images[member] for member in group.members])
        parts.append(f'<div class="cn-group">{title}{pictures}</div>')
    return "".join(parts) + weaker


def weaker_images(
    bundle: Bundle, card: NeuronDashboard
) -> list[tuple[str, list[tuple[int, float | None]]]]:
    """Pictures to which the unit reacts less, by what range they are of; without empty ranges.

    The middle half and the weakest quarter of all images, without the sizes of the effects, where
    the bundle knows such; else the middle and the end of the images that it lists.
    """
    arrays = bundle.layers[card.layer]
    if arrays.middle_images is None or arrays.weak_images is None:
        return _listed_weaker(bundle, card)
    known = sampled(bundle.examples)
    ranges = {
        "From the middle half of all images": arrays.middle_images[card.unit],
        "From the quarter of all images in which it does least": arrays.weak_images[card.unit],
    }
    found = [
        (title, [(known[place], None) for place in places.tolist() if place != PAD])
        for title, places in ranges.items()
    ]
    return [one for one in found if one[1]]


def _listed_weaker(
    bundle: Bundle, card: NeuronDashboard
) -> list[tuple[str, list[tuple[int, float | None]]]]:
    """Of the images listed for a unit, some of the middle and the weakest.

    Those that are shown as strongest are in neither; without a thumbnail an image is left out.
    """
    strong = {image for image, _ in shown_images(bundle, card)}
    count = len(card.images)
    kept = [
        (rank, image, norm)
        for rank, (image, norm) in enumerate(card.images)
        if image in bundle.examples and image not in strong
    ]
    weak = kept[-_WEAKER:]
    near = sorted(kept[:-_WEAKER], key=lambda one: abs(one[0] - count // 2))[:_WEAKER]
    found = [
        (f"The middle of its {count} strongest", [one[1:] for one in sorted(near)]),
        (f"The weakest of its {count} strongest", [one[1:] for one in weak]),
    ]
    return [one for one in found if one[1]]


def _weaker_html(gallery: Gallery, card: NeuronDashboard) -> str:
    parts = [
        f'<div class="cn-group"><h4><small>{title}</small></h4>{_pictures(gallery, images)}</div>'
        for title, images in weaker_images(gallery.bundle, card)
    ]
    if not parts:
        return ""
    return (
        f'<details class="cn-weaker"><summary>Weaker reactions</summary>{"".join(parts)}</details>'
    )


def _pictures(gallery: Gallery, images: Sequence[tuple[int, float | None]]) -> str:
    pictures = "".join(_picture(gallery, *image) for image in images)
    return f'<div class="cn-gallery">{pictures}</div>'


def _picture(gallery: Gallery, image: int, norm: float | None) -> str:
    """A picture that leads to the other tabs, what it shows, and the effect's size if known."""
    examples = gallery.bundle.examples
    caption = escape(examples.caption(image) or f"image {image}")
    fires = gallery.maps.get(image)
    lit = f'<img class="cn-map" alt="" src="{patch_mask(fires, _MASK)}">' if fires else ""
    targets = "".join(
        link(name, tab=tab, picture=image, bundle=gallery.key) for tab, name in _OPEN_IN.items()
    )
    size = "" if norm is None else f"<figcaption>{norm:.2g}</figcaption>"
    return (
        f'<figure title="{caption}"><details name="picture"><summary class="cn-lit">'
        f'<img alt="{caption}" src="{webp_uri(examples[image])}">{lit}</summary>'
        f'<div class="cn-open"><p>{caption}</p><span>Open in</span>{targets}</div></details>'
        f"{size}</figure>"
    )
