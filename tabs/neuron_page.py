"""One neuron of the dictionary: its entry as data, its card, its place in the table."""

from __future__ import annotations

import torch

from clipneurons.bundle.unit_words import plain
from clipneurons.dictionary.dictionary import Phrase
from tabs.neuron_on_image import fire_maps
from tabs.search import DIRECTION, MOST_LETTERS, clearly_said, dictionary_of
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.card_files import card_data
from tabs.ui.neuron_card import card_html
from tabs.ui.plots import address
from tabs.ui.top_images import shown_images

_NAMES, _MOST_NAMES = 6, 12


def start_of(session: BundleSession) -> tuple[int, int]:
    """The neuron that the page opens on."""
    return session.cached("start", lambda: dictionary_of(session).interesting())


def unit_name(session: BundleSession) -> str:
    """What a unit of this bundle is called."""
    return "Neuron" if session.bundle.config.units_per_neuron == 1 else "Pair"


def default_names(session: BundleSession) -> str:
    """Class names to try an effect on: those that neurons say most clearly, and some of all."""
    names = session.bundle.config.data.class_names or tuple(session.bundle.texts)
    said = [name for name in map(plain, clearly_said(session)) if name in names]
    spread = names[:: max(1, len(names) // _NAMES)]
    return ", ".join(list(dict.fromkeys([*said[: _NAMES - 2], *spread]))[:_NAMES])


def neuron(
    registry: BundleRegistry, bundle: str, layer: int | None = None, unit: int | None = None
) -> dict:
    """All that is known of one neuron; by default the one that the page opens on.

    Of another layer than that one's, by default the first.
    """
    session = registry[bundle]
    first = start_of(session)
    layer = first[0] if layer is None else int(layer)
    unit = (first[1] if layer == first[0] else 0) if unit is None else int(unit)
    return card_data(session.bundle, dictionary_of(session).card(layer, unit))


def show(
    session: BundleSession, layer: int, unit: int, names: str, model: bool, fires: bool = False
) -> str:
    """A card; what needs the model is left out unless `model` or it is known already.

    `fires`: with `model`, where in each picture the neuron fires.
    """
    dictionary = dictionary_of(session)
    card = dictionary.card(int(layer), int(unit))
    if card.dead:
        return card_html(session.key, dictionary, card, [])
    wanted = names_of(names)
    effects = None if wanted else []
    new = [name for name in wanted if not dictionary.in_pool(name)]
    if wanted and (model or session.knows_texts(new)):
        vectors = [dictionary.embed([Phrase(name)], session.encode_texts) for name in wanted]
        values = dictionary.effect_on(card.layer, card.unit, torch.stack(vectors)).tolist()
        effects = sorted(zip(wanted, values, strict=True), key=lambda pair: -pair[1])
    images = [image for image, _ in shown_images(session.bundle, card)]
    maps = fire_maps(session, card.layer, card.unit, images) if model and fires else {}
    return card_html(session.key, dictionary, card, effects, maps)


def complete(session: BundleSession, layer: int, unit: int, names: str) -> bool:
    """Whether a card drawn without the model has everything already."""
    dictionary = dictionary_of(session)
    dictionary.row(int(layer), int(unit))
    return session.knows_texts([n for n in names_of(names) if not dictionary.in_pool(n)])


def names_of(text: str) -> list[str]:
    """Class names from a field, with commas between them."""
    names = [" ".join(name.split()) for name in text[:MOST_LETTERS].split(",")]
    return list(dict.fromkeys(name for name in names if name))[:_MOST_NAMES]


def here(
    session: BundleSession, registry: BundleRegistry, layer: int, unit: int, query: str, way: str,
    kept: str = "",
) -> str:  # fmt: skip
    """The permanent link of what is shown."""
    return address(
        tab="dictionary", layer=int(layer), unit=int(unit), q=query.strip(),
        by=way if way != DIRECTION and query.strip() else None, fav=kept,
        bundle=session.key if session is not registry.first else None,
    )  # fmt: skip
