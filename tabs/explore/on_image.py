"""One neuron on images: where it fires in them, and its effect on a visitor's own."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import torch
from PIL import Image

from clipneurons.images.convert import from_pixels
from tabs.server.session import BundleSession
from tabs.ui.image_input import image_uri
from tabs.ui.plots import figures, patch_mask, percent

if TYPE_CHECKING:
    from clipneurons.concepts.concepts import ConceptReader, Effects


def fire_maps(
    session: BundleSession, layer: int, unit: int, images: list[int]
) -> dict[int, list[list[float]]]:
    """Where a neuron fires in gallery images, each in [0, 1]; one pass of the model."""
    if not images:
        return {}
    reader = session.concept_reader
    _, effects = reader(torch.stack([session.pixels(image) for image in images]))
    return {image: _map(reader, effects, layer, unit, i) for i, image in enumerate(images)}


def tried_html(session: BundleSession, layer: int, unit: int, image: Image.Image) -> str:
    """A neuron's effect on a visitor's image: how large, how rare that is, and where it fires."""
    card = session.bundle.unit(layer, unit)
    reader, clip = session.concept_reader, session.clip
    pixels = clip.preprocess(image)
    _, effects = reader(pixels[None])
    norm = float(effects[layer].norms[0, unit])
    projection = float(effects[layer].projections[0, unit])
    if norm <= card.threshold:
        verdict = "Not activated by this image"
    elif projection >= 0:
        verdict = "Activated, along its direction"
    else:
        verdict = "Activated, against its direction"
    percentile = session.bundle.config.percentile
    numbers = figures(
        [
            (
                f"{norm:.2g}", "norm of its effect",
                f"Of the effect less its mean; the neuron is activated from {card.threshold:.2g}",
            ),
            (
                f"{projection:+.2g}".replace("-", "−"), "along its direction",
                "Projection of the effect on the neuron’s direction",
            ),
            (
                percent(share_below(session, layer, unit, norm)), "of the data have a smaller one",
                f"The neuron is activated above {percentile:g} %",
            ),
        ]
    )  # fmt: skip
    seen = image_uri(from_pixels(pixels, clip.image_mean, clip.image_std))
    mask = patch_mask(_map(reader, effects, layer, unit, 0))
    return (
        '<div class="cn-tried"><div class="cn-lit"><img alt="Your image as the model sees it" '
        f'src="{seen}"><img class="cn-map" alt="" src="{mask}"></div><div><h3>{verdict}</h3>'
        f'<p class="cn-note">{escape(card.place)}. The effect comes from the bright patches; '
        f"point at the image to see it plain.</p>{numbers}</div></div>"
    )


def _map(
    reader: ConceptReader, effects: dict[int, Effects], layer: int, unit: int, image: int
) -> list[list[float]]:
    """The patches of the same sign as the whole effect, in shares of the largest."""
    sign = 1 if float(effects[layer].projections[image, unit]) >= 0 else -1
    share = (sign * reader.unit_map(effects, layer, unit, image)).clamp_min(0)
    return (share / share.amax().clamp_min(1e-12)).tolist()


def share_below(session: BundleSession, layer: int, unit: int, norm: float) -> float:
    """Share of the data's images in bins of the norm histogram that end below a norm."""
    edges = torch.tensor(session.bundle.config.norm_edges)
    counts = session.bundle.layers[layer].norm_histogram[unit].float()
    return float(counts[edges[1:] <= norm].sum() / counts.sum().clamp_min(1))
