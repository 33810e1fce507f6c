"""One neuron of the dictionary: its entry as data, its card, its place in the table."""

from __future__ import annotations

import torch

from clipneurons.explore.dictionary import TABLE, Phrase
from tabs.search import DIRECTION, MOST_LETTERS, dictionary_of
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.card_files import card_data
from tabs.ui.neuron_card import card_html
from tabs.ui.plots import address
from tabs.ui.top_images import group_images, shown_images

_MOST_NAMES = 12


def start_of(session: BundleSession) -> tuple[int, int]:
    """The neuron that the page opens on."""
    return session.cached("start", lambda: dictionary_of(session).interesting())


def unit_name(session: BundleSession) -> str:
    """What a unit of this bundle is called."""
    return "Neuron" if session.bundle.config.units_per_neuron == 1 else "Pair"


def default_names(session: BundleSession) -> str:
    """Class names to try an effect on: those nearest the opening neuron, as far as known."""
    names = session.bundle.config.data.class_names or tuple(session.bundle.texts)
    return ", ".join(names[:: max(1, len(names) // 6)][:6])


def neuron(registry: BundleRegistry, bundle: str, layer: int, unit: int) -> dict:
    """All that is known of one neuron."""
    session = registry[bundle]
    return card_data(session.bundle, dictionary_of(session).card(int(layer), int(unit)))


def show(session: BundleSession, layer: int, unit: int, names: str, model: bool) -> str:
    """A card; what needs the model is left out unless `model` or it is known already."""
    dictionary = dictionary_of(session)
    card = dictionary.card(int(layer), int(unit))
    if card.dead:
        return card_html(session.key, dictionary, card, None, [])
    wanted = names_of(names)
    effects = None if wanted else []
    new = [name for name in wanted if not dictionary.in_pool(name)]
    if wanted and (model or session.knows_texts(new)):
        vectors = [dictionary.embed([Phrase(name)], session.encode_texts) for name in wanted]
        values = dictionary.effect_on(card.layer, card.unit, torch.stack(vectors)).tolist()
        effects = sorted(zip(wanted, values, strict=True), key=lambda pair: -pair[1])
    groups = None
    ids = [image for image, _ in shown_images(session.bundle, card)]
    if ids and (model or (session.ready and session.knows_thumbnails(ids))):
        embeddings = session.encode_thumbnails(ids)
        groups = group_images(embeddings, dictionary, session.mean_thumbnail)
    return card_html(session.key, dictionary, card, groups, effects)


def complete(session: BundleSession, layer: int, unit: int, names: str) -> bool:
    """Whether a card drawn without the model has everything already."""
    dictionary = dictionary_of(session)
    new = [name for name in names_of(names) if not dictionary.in_pool(name)]
    card = dictionary.card(int(layer), int(unit))
    ids = [image for image, _ in shown_images(session.bundle, card)]
    return session.ready and session.knows_texts(new) and session.knows_thumbnails(ids)


def names_of(text: str) -> list[str]:
    """Class names from a field, with commas between them."""
    names = [" ".join(name.split()) for name in text[:MOST_LETTERS].split(",")]
    return list(dict.fromkeys(name for name in names if name))[:_MOST_NAMES]


def here(
    session: BundleSession, registry: BundleRegistry, layer: int, unit: int, query: str, way: str
) -> str:
    """The permanent link of what is shown."""
    return address(
        tab="dictionary", layer=int(layer), unit=int(unit), q=query.strip(),
        by=way if way != DIRECTION and query.strip() else None,
        bundle=session.key if session is not registry.first else None,
    )  # fmt: skip


def table_rows(session: BundleSession, layer: int) -> list[list]:
    """The table of a layer's neurons, rounded for reading."""

    def make() -> list[list]:
        rows = []
        for values in dictionary_of(session).table(layer):
            row = dict(zip(TABLE, values, strict=True))
            rows.append(
                [
                    row["unit"],
                    row["label"],
                    _rounded(row["simulation"], 3),
                    {None: "not tested", True: "yes", False: "no"}[row["reliable"]],
                    row["decomposition"],
                    _rounded(row["decomposition_simulation"], 3),
                    round(row["explained_variance"], 3),
                    round(row["participation_ratio"], 4),
                    round(row["effective_concepts"], 2),
                    round(row["top_norm"], 3),
                ]
            )
        return rows

    return session.cached(f"table {layer}", make)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
