"""A neuron's top-activating images, and weaker ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.neuron import Neuron
from clipneurons.bundle.weaker_images import PAD, sampled
from clipneurons.images.convert import webp_uri
from tabs.explore.atlas import is_photograph
from tabs.ui.plots import empty, folded, link, patch_mask

# Images of the middle and of the weak end of those that a unit's list holds.
_WEAKER = 8
# Images that are drawn large; the others are folded.
_LARGE = 12
_MASK = 64  # pixels of a map's side
# Tabs that a picture can be opened in.
_OPEN_IN = {"concepts": "Concepts", "segmentation": "Segmentation", "edit": "Edit"}
Maps = Mapping[int, list[list[float]]]


@dataclass(frozen=True)
class Gallery:
    """What pictures are drawn from: the bundle, its key, and where the neuron fires (by image)."""

    key: str
    bundle: Bundle
    maps: Maps


def gallery_html(gallery: Gallery, card: Neuron) -> str:
    """The unit's top-activating images, photographs first, the strongest first of each kind."""
    if not card.images:
        return empty("The bundle keeps no image that this unit reacts to strongly.")
    ranked = sorted(card.images, key=lambda image: not is_photograph(image.caption))
    images = [(image.index, image.norm) for image in ranked]
    rest = images[_LARGE:]
    more = folded(f"{len(rest)} more images", _pictures(gallery, rest)) if rest else ""
    return f'<div class="cn-top">{_pictures(gallery, images[:_LARGE])}{more}</div>'


def weaker_images(bundle: Bundle, card: Neuron) -> list[tuple[str, list[tuple[int, float | None]]]]:
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
    bundle: Bundle, card: Neuron
) -> list[tuple[str, list[tuple[int, float | None]]]]:
    """Of the images listed for a unit, some of the middle and the weakest.

    Those that are shown as strongest are in neither; without a thumbnail an image is left out.
    """
    arrays, strong = bundle.layers[card.layer], {image.index for image in card.images}
    images = arrays.top_activating_images[card.unit].tolist()
    count = sum(image >= 0 for image in images)
    kept = [
        (rank, image, norm)
        for rank, (image, norm) in enumerate(
            zip(images, arrays.top_norms[card.unit].tolist(), strict=True)
        )
        if image in bundle.examples and image not in strong
    ]
    weak = kept[-_WEAKER:]
    near = sorted(kept[:-_WEAKER], key=lambda one: abs(one[0] - count // 2))[:_WEAKER]
    found = [
        (f"The middle of its {count} strongest", [one[1:] for one in sorted(near)]),
        (f"The weakest of its {count} strongest", [one[1:] for one in weak]),
    ]
    return [one for one in found if one[1]]


def weaker_html(gallery: Gallery, card: Neuron) -> str:
    """Images to which the unit reacts less, by their range; nothing where none is known."""
    parts = [
        f'<div class="cn-group"><h4><small>{title}</small></h4>{_pictures(gallery, images)}</div>'
        for title, images in weaker_images(gallery.bundle, card)
    ]
    return f'<div class="cn-weaker">{"".join(parts)}</div>' if parts else ""


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
