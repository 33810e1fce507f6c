"""The images that a neuron reacts to, in groups by what they show."""

from __future__ import annotations

from html import escape

import torch

from clipneurons.analysis.clustering import Cluster
from clipneurons.bundle.bundle import Bundle
from clipneurons.explore.dashboard import NeuronDashboard
from clipneurons.explore.dictionary import Dictionary
from clipneurons.images.convert import webp_uri
from tabs.ui.plots import empty

SHOWN = 24  # images of a gallery


def gallery_note(card: NeuronDashboard, groups: list[Cluster] | None) -> str:
    """What the order of the pictures means."""
    if groups and len(groups) > 1:
        return "Grouped by what they show; below each picture, the size of the effect."
    return "The strongest first; below each picture, the size of the effect."


def shown_images(bundle: Bundle, card: NeuronDashboard) -> list[tuple[int, float]]:
    """Top images that have a thumbnail."""
    kept = set(bundle.examples)
    return [(image, norm) for image, norm in card.images if image in kept][:SHOWN]


def gallery(bundle: Bundle, card: NeuronDashboard, groups: list[Cluster] | None) -> str:
    """The unit's top images, in groups where there are several."""
    images = shown_images(bundle, card)
    if not images:
        return empty("The bundle keeps no picture that this neuron reacts to strongly.")
    groups = groups or [Cluster(tuple(range(len(images))), ())]
    parts = []
    for group in groups:
        pictures = "".join(_picture(bundle, *images[member]) for member in group.members)
        title = ""
        if len(groups) > 1:
            count = f"{len(group.members)} picture{'s' if len(group.members) > 1 else ''}"
            title = f"<h4>{escape(', '.join(group.texts))} <small>{count}</small></h4>"
        parts.append(f'<div class="cn-group">{title}<div class="cn-gallery">{pictures}</div></div>')
    return "".join(parts)


def _picture(bundle: Bundle, image: int, norm: float) -> str:
    caption = escape(bundle.examples.caption(image) or f"image {image}")
    return (
        f'<figure title="{caption}"><img alt="{caption}" '
        f'src="{webp_uri(bundle.examples[image])}"><figcaption>{norm:.2g}</figcaption></figure>'
    )


def group_images(
    embeddings: torch.Tensor, dictionary: Dictionary, mean: torch.Tensor
) -> list[Cluster]:
    """Groups of a gallery's images, from their embeddings."""
    from clipneurons.analysis.clustering import clusters

    bundle = dictionary.bundle
    return clusters(embeddings, bundle.texts, bundle.text_embeddings, mean)
