"""The dashboard of a unit: as data for programs, as HTML with or without the model."""

from __future__ import annotations

import torch

from clipneurons.dictionary.dictionary import Phrase
from tabs.explore.on_image import fire_maps
from tabs.explore.view import Measured, card_html
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.words import names_of

# Texts that a unit promotes, and that it suppresses, as many of each.
_EFFECTS = 4


def start_of(session: BundleSession) -> tuple[int, int]:
    """Layer and number of the unit that the page opens on."""
    return session.cached("start", lambda: session.dictionary.interesting())


def unit_name(session: BundleSession) -> str:
    """What a unit of this bundle is called."""
    config = session.bundle.config
    return config.noun.capitalize() if config.units_per_neuron == 1 else "Pair"


def neuron(
    registry: BundleRegistry, bundle: str = "", layer: int | None = None, unit: int | None = None
) -> dict:
    """What one neuron says: texts with signed weights, images, figures, similar neurons.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        layer: layer, as in the bundle; without one, that of the neuron the page opens on.
        unit: number of the neuron in its layer (for a ResNet: neuron * heads + head); without
            one, the neuron the page opens on if it is of this layer, else the first.
    """
    session = registry[bundle]
    first = start_of(session)
    layer = first[0] if layer is None else int(layer)
    unit = (first[1] if layer == first[0] else 0) if unit is None else int(unit)
    return session.bundle.unit(layer, unit).to_dict()


def show(
    session: BundleSession, layer: int, unit: int, names: str, model: bool, fires: bool = False
) -> str:
    """A dashboard; what needs the model is left out unless `model` or it is known already.

    `fires`: with `model`, where in each image the neuron fires.
    """
    dictionary, source = session.dictionary, session.source
    card = session.bundle.unit(int(layer), int(unit))
    wanted = names_of(names)
    on_names = None if wanted else []
    new = [name for name in wanted if not dictionary.in_pool(name)]
    if wanted and (model or session.knows_texts(new)):
        vectors = [dictionary.embed([Phrase(name)], session.encode_texts) for name in wanted]
        values = dictionary.effect_on(card.layer, card.unit, torch.stack(vectors)).tolist()
        on_names = sorted(zip(wanted, values, strict=True), key=lambda pair: -pair[1])
    images = [image.index for image in card.images]
    maps = fire_maps(session, card.layer, card.unit, images) if model and fires else {}
    promotes, suppresses = nearest_texts(session, card.layer, card.unit)
    more = Measured(promotes, suppresses, on_names, maps)
    return card_html(session.key, source, dictionary, card, more)


def nearest_texts(
    session: BundleSession, layer: int, unit: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The texts that a unit promotes most and those that it suppresses most.

    With what a strong reaction adds to an image's match with each, less the mean over all texts.
    """
    bundle = session.bundle
    values = session.dictionary.effect_on(layer, unit, bundle.text_embeddings)
    values = values - values.mean()
    count = min(_EFFECTS, len(values) // 2)
    ends = (values.topk(count).indices.tolist(), (-values).topk(count).indices.tolist())
    promotes, suppresses = ([(bundle.texts[i], float(values[i])) for i in end] for end in ends)
    return promotes, suppresses


def complete(session: BundleSession, layer: int, unit: int, names: str) -> bool:
    """Whether a dashboard drawn without the model has everything already."""
    dictionary = session.dictionary
    dictionary.row(int(layer), int(unit))
    return session.knows_texts([n for n in names_of(names) if not dictionary.in_pool(n)])
