"""What the dictionary's tab does: plain data in and out."""

from __future__ import annotations

import random
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from tabs import favourites, neuron_page
from tabs.neuron_on_image import tried_html
from tabs.neuron_page import default_names, here, neuron, show, start_of, unit_name
from tabs.neuron_table import Order, csv_file, table_html
from tabs.search import (
    DIRECTION,
    MATCH,
    dictionary_of,
    find,
    results_html,
    try_html,
    vocabulary_html,
)
from tabs.server.registry import BundleRegistry
from tabs.ui.card_files import json_file, png_file


@dataclass(frozen=True)
class Handlers:
    """Over the sessions of a registry."""

    registry: BundleRegistry

    # -- endpoints

    def neuron(self, bundle: str = "", layer: int | None = None, unit: int | None = None) -> dict:
        """What one neuron says: phrases with signed coefficients, images, figures, neighbours.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            layer: layer, as in the bundle; without one, that of the neuron the page opens on.
            unit: number of the neuron in its layer (for a ResNet: neuron * heads + head); without
                one, the neuron the page opens on if it is of this layer, else the first.
        """
        return neuron(self.registry, bundle, layer, unit)

    def search(
        self, bundle: str = "", query: str = "", way: str = DIRECTION, top: int = 10,
        order: str = MATCH,
    ) -> dict:  # fmt: skip
        """Neurons that write toward a query and those that write against it, strongest first.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            query: phrases with commas between them; a leading minus for what is unwanted.
            way: "direction" (cosine with the text's embedding) or "phrases" (coefficients).
            top: how many of each, at most 100.
            order: "match", "trust" (of those, the labels that predict best first) or "reliable"
                (neurons with a reliable label alone).
        """
        return find(self.registry, bundle, query, way, top, order)

    # -- search

    def results(self, bundle: str, query: str, way: str, order: str) -> str:
        """`search` as HTML."""
        return results_html(self.registry[bundle], query, way, order)

    def suggest(self, bundle: str, query: str) -> str:
        """Texts of the vocabulary that go on as the query does; examples while it is empty."""
        return vocabulary_html(self.registry[bundle], query)

    # -- one neuron

    def draw(self, bundle: str, layer: int, unit: int, names: str, query: str, way: str, kept: str):
        """The number, the card without what needs the model, its address, and the favourites.

        A number that the layer does not have becomes the nearest one, with a warning.
        """
        session = self.registry[bundle]
        unit, asked = self._existing(bundle, layer, unit), unit
        stays = asked is not None and int(asked) == unit
        mine = favourites.parse(kept)
        return (
            gr.skip() if stays else unit,
            show(session, layer, unit, names, model=False),
            here(session, self.registry, layer, unit, query, way, kept),
            "★ Favourite" if (int(layer), unit) in mine else "☆ Favourite",
            favourites.html_of(session, mine),
        )

    def _existing(self, bundle: str, layer: int, unit: int | None) -> int:
        last = self._units(bundle, layer) - 1
        nearest = min(max(int(unit or 0), 0), last)
        if unit is not None and int(unit) != nearest:
            gr.Warning(f"Layer {layer} has units 0 to {last}, not {int(unit)}: this is {nearest}.")
        return nearest

    def complete(
        self, bundle: str, layer: int, unit: int, names: str, fires: bool,
        image: Image.Image | None,
    ):  # fmt: skip
        """The same card with what needs the model, and the neuron on the visitor's picture."""
        session, tried = self.registry[bundle], self.tried(bundle, layer, unit, image)
        if not fires and neuron_page.complete(session, layer, unit or 0, names):
            return gr.skip(), tried
        return show(session, layer, unit or 0, names, model=True, fires=fires), tried

    def address(self, bundle: str, layer: int, unit: int, query: str, way: str, kept: str) -> str:
        """The permanent link of what is shown."""
        return here(self.registry[bundle], self.registry, layer, unit or 0, query, way, kept)

    def keep(self, layer: int, unit: int, kept: str) -> str:
        """The favourites with this neuron, or without it if it was one."""
        return favourites.toggled(kept, int(layer), int(unit or 0))

    def tried(self, bundle: str, layer: int, unit: int, image: Image.Image | None) -> str:
        """What a neuron does on a visitor's picture; nothing without one."""
        if image is None:
            return ""
        return tried_html(self.registry[bundle], int(layer), int(unit or 0), image)

    def previous(self, bundle: str, layer: int, unit: int) -> int:
        """The neuron before one; before the first comes the last."""
        return (int(unit or 0) - 1) % self._units(bundle, layer)

    def next(self, bundle: str, layer: int, unit: int) -> int:
        """The neuron after one; after the last comes the first."""
        return (int(unit or 0) + 1) % self._units(bundle, layer)

    def random(self, bundle: str, layer: int) -> int:
        """Any neuron of a layer."""
        return random.randrange(self._units(bundle, layer))

    def _units(self, bundle: str, layer: int) -> int:
        return dictionary_of(self.registry[bundle]).units(int(layer))

    def opened(self, bundle: str):
        """Another bundle: its layers, its opening neuron, its examples; nothing searched for."""
        session = self.registry[bundle]
        layer, unit = start_of(session)
        layers = list(dictionary_of(session).layers)
        return (
            gr.update(choices=layers, value=layer), gr.update(value=unit, label=unit_name(session)),
            default_names(session), "", "", try_html(session), "",
        )  # fmt: skip

    # -- files and the table

    def json(self, bundle: str, layer: int, unit: int) -> str:
        """The card as a JSON file."""
        return json_file(*self._card(bundle, layer, unit))

    def png(self, bundle: str, layer: int, unit: int) -> str:
        """The card as a picture."""
        return png_file(*self._card(bundle, layer, unit))

    def _card(self, bundle: str, layer: int, unit: int):
        session = self.registry[bundle]
        return session.bundle, dictionary_of(session).card(int(layer), int(unit or 0))

    def table(self, bundle: str, layer: int, words: str, order: Order) -> str:
        """The neurons of a layer."""
        return table_html(self.registry[bundle], int(layer), words, order)

    def sort(
        self, bundle: str, layer: int, words: str, order: Order, event: gr.EventData
    ) -> tuple[Order, str]:
        """The table by the column whose heading was clicked; a second click turns it round."""
        order = order.clicked(event.column)
        return order, self.table(bundle, layer, words, order)

    def csv(self, bundle: str, layer: int) -> str:
        """The whole table as a CSV file."""
        return csv_file(self.registry[bundle], int(layer))
