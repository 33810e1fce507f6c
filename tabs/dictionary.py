"""The neuron dictionary: search by words, browse, one card a neuron, a table of all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from tabs.neuron_page import (
    complete,
    default_names,
    here,
    neuron,
    show,
    start_of,
    table_rows,
    unit_name,
)
from tabs.search import (
    DECOMPOSITION,
    DIRECTION,
    MATCH,
    MOST_LETTERS,
    RELIABLE,
    TRUST,
    dictionary_of,
    find,
    results_html,
    try_html,
)
from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.server.session import MODEL, BundleSession
from tabs.ui.card_files import json_file, png_file
from tabs.ui.plots import html

TITLE = "Neuron dictionary"
WAYS = [("its direction", DIRECTION), ("its phrases", DECOMPOSITION)]
COLUMNS = [
    "neuron", "label", "predicts it", "reliable", "direction says", "predicts",
    "one direction", "of images", "effective concepts", "strongest",
]  # fmt: skip
ORDERS = [("best match", MATCH), ("most trusted", TRUST), ("reliable labels only", RELIABLE)]
_PLACEHOLDER = "boat, -water   (commas between things; a minus before what should not be there)"


@dataclass(frozen=True)
class Handles:
    """What a permanent link fills in."""

    layer: gr.Dropdown
    unit: gr.Number
    query: gr.Textbox
    way: gr.Radio
    examples: gr.HTML
    then_show: Callable
    then_search: Callable


@dataclass(frozen=True)
class Search:
    """Widgets of the search."""

    query: gr.Textbox
    way: gr.Radio
    order: gr.Dropdown
    go: gr.Button
    examples: gr.HTML
    results: gr.HTML


@dataclass(frozen=True)
class Browser:
    """Widgets that choose a neuron, its card, and the table to choose it from."""

    layer: gr.Dropdown
    unit: gr.Number
    back: gr.Button
    onward: gr.Button
    dice: gr.Button
    names: gr.Textbox
    card: gr.HTML
    as_json: gr.Button
    as_png: gr.Button
    folded: gr.Accordion
    table: gr.Dataframe


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events; returns what a permanent link fills in."""
    gr.HTML(
        '<p class="cn-lede">Search for a thing to see which neurons write it into the image’s '
        "description, or leaf through them one by one.</p>"
    )
    search = _search_widgets(registry.first)
    browser = _browser_widgets(registry.first)
    handlers = Handlers(registry)
    _endpoints(handlers)
    return Events(handlers, source, search, browser).connect()


# -- layout


def _search_widgets(session: BundleSession) -> Search:
    with gr.Row(elem_classes="cn-search"):
        query = gr.Textbox(
            label="Search by words", placeholder=_PLACEHOLDER, elem_id="dictionary-query",
            scale=6, max_lines=1, max_length=MOST_LETTERS,
        )  # fmt: skip
        way = gr.Radio(
            WAYS, value=DIRECTION, label="Compare with", elem_id="dictionary-way", scale=3,
        )  # fmt: skip
        order = gr.Dropdown(
            ORDERS, value=MATCH, label="Order", elem_id="dictionary-order", scale=2, min_width=120,
            filterable=False,
        )  # fmt: skip
        go = gr.Button("Search", variant="primary", scale=1, min_width=90, elem_id="dictionary-go")
    examples = html(try_html(session), elem_id="dictionary-try")
    return Search(query, way, order, go, examples, html(elem_id="dictionary-results"))


def _browser_widgets(session: BundleSession) -> Browser:
    layer0, unit0 = start_of(session)
    with gr.Row(elem_classes="cn-browse"):
        layer = gr.Dropdown(
            list(dictionary_of(session).layers), value=layer0, label="Layer", scale=1,
            min_width=80, elem_id="dictionary-layer", filterable=False,
        )  # fmt: skip
        # No minimum: of a number that is none, the dictionary says which there are.
        unit = gr.Number(
            unit0, label=unit_name(session), precision=0, scale=1, min_width=90,
            elem_id="dictionary-unit",
        )  # fmt: skip
        back, onward, dice = (
            gr.Button(label, scale=1, min_width=90, elem_id=f"dictionary-{name}")
            for label, name in (
                ("← Previous", "previous"), ("Next →", "next"), ("Random", "random"),
            )
        )  # fmt: skip
        names = gr.Textbox(
            default_names(session), label="Names to measure its effect on", scale=4, min_width=220,
            max_lines=1, max_length=MOST_LETTERS, elem_id="dictionary-names",
        )  # fmt: skip
    card = html(
        show(session, layer0, unit0, default_names(session), model=False), elem_id="dictionary-card"
    )
    with gr.Row():
        as_json, as_png = (
            gr.Button(f"Save as {kind}", size="sm", scale=0, min_width=130)
            for kind in ("JSON", "PNG")
        )
    with gr.Accordion("All neurons of the layer", open=False, elem_id="dictionary-all") as folded:
        table = gr.Dataframe(
            headers=COLUMNS, datatype=["number", "str", "number", "str", "str", *["number"] * 5],
            interactive=False, label="Click a heading to sort, a row to see the neuron",
            max_height=460, elem_id="dictionary-table", show_search="filter", wrap=False,
            column_widths=["6%", "24%", "8%", "7%", "21%", "7%", "7%", "7%", "7%", "6%"],
            buttons=[],
        )  # fmt: skip
    return Browser(layer, unit, back, onward, dice, names, card, as_json, as_png, folded, table)


# -- what is done


@dataclass(frozen=True)
class Handlers:
    """What the tab does, over the sessions of a registry; plain data in and out."""

    registry: BundleRegistry

    def neuron(self, bundle: str, layer: int, unit: int) -> dict:
        """What one neuron says: phrases with signed coefficients, images, figures, neighbours.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            layer: layer, as in the bundle.
            unit: number of the neuron in its layer (for a ResNet: neuron * heads + head).
        """
        return neuron(self.registry, bundle, layer, unit)

    def search(
        self, bundle: str, query: str, way: str = DIRECTION, top: int = 10, order: str = MATCH
    ) -> dict:
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

    def results(self, bundle: str, query: str, way: str, order: str) -> str:
        """`search` as HTML."""
        return results_html(self.registry[bundle], query, way, order)

    def draw(
        self, bundle: str, layer: int, unit: int, names: str, query: str, way: str
    ) -> tuple[str, str]:
        """A card without what needs the model, and its address."""
        session = self.registry[bundle]
        drawn = show(session, layer, unit or 0, names, model=False)
        return drawn, self.address(bundle, layer, unit, query, way)

    def complete(self, bundle: str, layer: int, unit: int, names: str):
        """The same card with what needs the model."""
        session = self.registry[bundle]
        if complete(session, layer, unit or 0, names):
            return gr.skip()
        return show(session, layer, unit or 0, names, model=True)

    def address(self, bundle: str, layer: int, unit: int, query: str, way: str) -> str:
        """The permanent link of what is shown."""
        return here(self.registry[bundle], self.registry, layer, unit or 0, query, way)

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
        return dictionary_of(self.registry[bundle]).units(layer)

    def opened(self, bundle: str):
        """Another bundle: its layers, its opening neuron, its examples; nothing searched for."""
        session = self.registry[bundle]
        layer, unit = start_of(session)
        layers = list(dictionary_of(session).layers)
        return (
            gr.update(choices=layers, value=layer), gr.update(value=unit, label=unit_name(session)),
            default_names(session), "", "", try_html(session),
        )  # fmt: skip

    def json(self, bundle: str, layer: int, unit: int) -> str:
        """The card as a JSON file."""
        return json_file(*self._card(bundle, layer, unit))

    def png(self, bundle: str, layer: int, unit: int) -> str:
        """The card as a picture."""
        return png_file(*self._card(bundle, layer, unit))

    def _card(self, bundle: str, layer: int, unit: int):
        session = self.registry[bundle]
        return session.bundle, dictionary_of(session).card(int(layer), int(unit or 0))

    def table(self, bundle: str, layer: int) -> list[list]:
        """All neurons of a layer."""
        return table_rows(self.registry[bundle], int(layer))


def _endpoints(handlers: Handlers) -> None:
    gr.api(user_errors(handlers.neuron), api_name="neuron")
    gr.api(on_gpu()(user_errors(handlers.search)), api_name="search", concurrency_id=MODEL)


def _chosen(event: gr.SelectData) -> int:
    """The neuron of a row of the table."""
    return int(event.row_value[0])


# -- what leads to what

_PRIVATE = {"api_visibility": "private"}


@dataclass(frozen=True)
class Events:
    """Connects widgets with handlers."""

    handlers: Handlers
    source: gr.Dropdown
    search: Search
    browser: Browser

    def connect(self) -> Handles:
        """All events of the tab."""
        place = gr.Textbox(
            elem_classes="offstage", label="Permanent link", elem_id="dictionary-here"
        )
        draw, search = self._drawing(place), self._searching(place)
        self._browsing(draw)
        self._saving()
        mine = self.search
        return Handles(
            self.browser.layer, self.browser.unit, mine.query, mine.way, mine.examples, draw, search
        )

    def _drawing(self, place: gr.Textbox) -> Callable:
        browser, search = self.browser, self.search
        chosen = [self.source, browser.layer, browser.unit, browser.names]
        draw = user_errors(self.handlers.draw)
        complete = on_gpu()(user_errors(self.handlers.complete))

        def then_show(event, restored: bool = False) -> None:
            """Draw the card, put its link into the address bar, then add what needs the model.

            `restored`: the address bar asked for it, so nothing is added to the history.
            """
            drawn = event.then(
                draw, [*chosen, search.query, search.way], [browser.card, place],
                show_progress="hidden", **_PRIVATE,
            )  # fmt: skip
            drawn.then(None, [place], js=f"(q) => window.cnDrawn(q, {str(restored).lower()})")
            drawn.then(
                complete, chosen, [browser.card],
                concurrency_id=MODEL, show_progress="hidden", **_PRIVATE,
            )  # fmt: skip

        return then_show

    def _searching(self, place: gr.Textbox) -> Callable:
        mine, browser = self.search, self.browser
        given = [self.source, mine.query, mine.way, mine.order]
        results = on_gpu()(user_errors(self.handlers.results))
        gr.on(
            [mine.go.click, mine.query.submit, mine.way.input, mine.order.input], results, given,
            [mine.results], concurrency_id=MODEL, **_PRIVATE,
        ).then(
            user_errors(self.handlers.address),
            [self.source, browser.layer, browser.unit, mine.query, mine.way], [place], **_PRIVATE,
        ).then(None, [place], js="(q) => window.cnPush(q)")  # fmt: skip

        def then_search(event) -> None:
            event.then(
                results, given, [mine.results], concurrency_id=MODEL, show_progress="hidden",
                **_PRIVATE,
            )  # fmt: skip

        return then_search

    def _browsing(self, then_show: Callable) -> None:
        browser, search, handlers = self.browser, self.search, self.handlers
        where = [self.source, browser.layer, browser.unit]
        given = [browser.layer.input, browser.unit.submit, browser.unit.blur, browser.names.submit]
        then_show(gr.on(given, lambda: None, **_PRIVATE))
        for button, step in ((browser.back, handlers.previous), (browser.onward, handlers.next)):
            then_show(button.click(user_errors(step), where, [browser.unit], **_PRIVATE))
        then_show(browser.dice.click(handlers.random, where[:2], [browser.unit], **_PRIVATE))
        shown = [browser.layer, browser.unit, browser.names]
        shown += [search.query, search.results, search.examples]
        then_show(self.source.input(handlers.opened, [self.source], shown, **_PRIVATE))
        table = user_errors(handlers.table)
        browser.folded.expand(table, where[:2], [browser.table], **_PRIVATE)
        browser.layer.change(lambda: gr.Accordion(open=False), None, [browser.folded], **_PRIVATE)
        then_show(browser.table.select(_chosen, None, [browser.unit], **_PRIVATE))

    def _saving(self) -> None:
        browser = self.browser
        saved = gr.Textbox(elem_classes="offstage", label="Download")
        for button, make in (
            (browser.as_json, self.handlers.json), (browser.as_png, self.handlers.png),
        ):  # fmt: skip
            button.click(
                user_errors(make), [self.source, browser.layer, browser.unit], [saved], **_PRIVATE
            ).then(None, [saved], js="(file) => window.cnSave(file)")
