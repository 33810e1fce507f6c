"""One neuron on pictures: where it fires in them, and what it does on a visitor's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image

from tabs.search import dictionary_of
from tabs.server.session import BundleSession
from tabs.ui.image_input import image_uri
from tabs.ui.reaction import Reaction, reaction_html

if TYPE_CHECKING:
    from clipneurons.concepts.concepts import ConceptReader, Effects


def fire_maps(
    session: BundleSession, layer: int, unit: int, images: list[int]
) -> dict[int, list[list[float]]]:
    """Where a neuron fires in gallery pictures, each in [0, 1]; one pass of the model."""
    if not images:
        return {}
    reader = _reader(session)
    _, effects = reader(torch.stack([session.pixels(image) for image in images]))
    return {image: _map(reader, effects, layer, unit, i) for i, image in enumerate(images)}


def tried_html(session: BundleSession, layer: int, unit: int, image: Image.Image) -> str:
    """What a neuron does on a visitor's picture: how strongly, how rare that is, and where."""
    from clipneurons.concepts.image_reading import as_seen

    card = dictionary_of(session).card(layer, unit)
    reader = _reader(session)
    _, effects = reader(session.clip.preprocess(image)[None])
    mine, config = effects[layer], session.bundle.config
    reaction = Reaction(
        norm=float(mine.norms[0, unit]),
        projection=float(mine.projections[0, unit]),
        threshold=card.threshold,
        percentile=config.percentile,
        below=_share_below(session, layer, unit, float(mine.norms[0, unit])),
        map=_map(reader, effects, layer, unit, 0),
        picture=image_uri(as_seen(reader, image)),
    )
    return reaction_html(card, reaction)


def _reader(session: BundleSession) -> ConceptReader:
    from clipneurons.concepts.concepts import ConceptReader

    return session.cached("concepts", lambda: ConceptReader(session.lens, session.bundle))


def _map(
    reader: ConceptReader, effects: dict[int, Effects], layer: int, unit: int, place: int
) -> list[list[float]]:
    """The patches that push as the whole picture does, in shares of the largest."""
    side = 1 if float(effects[layer].projections[place, unit]) >= 0 else -1
    share = (side * reader.unit_patches(effects, layer, unit, place)).clamp_min(0)
    return (share / share.amax().clamp_min(1e-12)).tolist()


def _share_below(session: BundleSession, layer: int, unit: int, norm: float) -> float:
    """Of the data's images, the share in bins of the norm histogram that end below a norm."""
    edges = torch.tensor(session.bundle.config.norm_edges)
    counts = session.bundle.layers[layer].norm_histogram[unit].float()
    return float(counts[edges[1:] <= norm].sum() / counts.sum().clamp_min(1))
