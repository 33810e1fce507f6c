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
from tabs.server.session import MODEL
from tabs.ui.neuron_card import json_file, png_file
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


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events; returns what a permanent link fills in."""
    first = registry.first
    layer0, unit0 = start_of(first)
    gr.HTML(
        '<p class="cn-lede">Search for a thing to see which neurons write it into the image’s '
        "description, or leaf through them one by one.</p>"
    )
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
    examples = html(try_html(first), elem_id="dictionary-try")
    results = html(elem_id="dictionary-results")
    with gr.Row(elem_classes="cn-browse"):
        layer = gr.Dropdown(
            list(dictionary_of(first).layers), value=layer0, label="Layer", scale=1, min_width=80,
            elem_id="dictionary-layer", filterable=False,
        )  # fmt: skip
        # No minimum: of a number that is none, the dictionary says which there are.
        unit = gr.Number(
            unit0, label=unit_name(first), precision=0, scale=1, min_width=90,
            elem_id="dictionary-unit",
        )  # fmt: skip
        back = gr.Button("← Previous", scale=1, min_width=90, elem_id="dictionary-previous")
        onward = gr.Button("Next →", scale=1, min_width=90, elem_id="dictionary-next")
        dice = gr.Button("Random", scale=1, min_width=90, elem_id="dictionary-random")
        names = gr.Textbox(
            default_names(first), label="Names to measure its effect on", scale=4, min_width=220,
            max_lines=1, max_length=MOST_LETTERS, elem_id="dictionary-names",
        )  # fmt: skip
    card = html(
        show(first, layer0, unit0, default_names(first), model=False), elem_id="dictionary-card"
    )
    with gr.Row():
        as_json = gr.Button("Save as JSON", size="sm", scale=0, min_width=130)
        as_png = gr.Button("Save as PNG", size="sm", scale=0, min_width=130)
    with gr.Accordion("All neurons of the layer", open=False, elem_id="dictionary-all") as folded:
        table = gr.Dataframe(
            headers=COLUMNS, datatype=["number", "str", "number", "str", "str", *["number"] * 5],
            interactive=False, label="Click a heading to sort, a row to see the neuron",
            max_height=460, elem_id="dictionary-table", show_search="filter", wrap=False,
            column_widths=["6%", "24%", "8%", "7%", "21%", "7%", "7%", "7%", "7%", "6%"],
            buttons=[],
        )  # fmt: skip
    place = gr.Textbox(elem_classes="offstage", label="Permanent link", elem_id="dictionary-here")
    saved = gr.Textbox(elem_classes="offstage", label="Download")

    # The API: plain data in, plain data out.
    def neuron_api(bundle: str, layer: int, unit: int) -> dict:
        """What one neuron says: phrases with signed coefficients, images, figures, neighbours.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            layer: layer, as in the bundle.
            unit: number of the neuron in its layer (for a ResNet: neuron * heads + head).
        """
        return user_errors(neuron)(registry, bundle, layer, unit)

    @on_gpu()
    def search_api(
        bundle: str, query: str, way: str = DIRECTION, top: int = 10, order: str = MATCH
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
        return user_errors(find)(registry, bundle, query, way, top, order)

    gr.api(neuron_api, api_name="neuron")
    gr.api(search_api, api_name="search", concurrency_id=MODEL)

    # The page.
    private = {"api_visibility": "private"}

    @user_errors
    def draw(bundle: str, layer: int, unit: int, names: str, query: str, way: str):
        session = registry[bundle]
        drawn = show(session, layer, unit or 0, names, model=False)
        return drawn, here(session, registry, layer, unit or 0, query, way)

    @on_gpu()
    @user_errors
    def add_what_needs_the_model(bundle: str, layer: int, unit: int, names: str):
        session = registry[bundle]
        if complete(session, layer, unit or 0, names):
            return gr.skip()
        return show(session, layer, unit or 0, names, model=True)

    @on_gpu()
    @user_errors
    def search(bundle: str, query: str, way: str, order: str) -> str:
        return results_html(registry[bundle], query, way, order)

    @user_errors
    def step(bundle: str, layer: int, unit: int, by: int) -> int:
        return (int(unit or 0) + by) % dictionary_of(registry[bundle]).units(layer)

    def shuffle(bundle: str, layer: int) -> int:
        return random.randrange(dictionary_of(registry[bundle]).units(layer))

    def opened(bundle: str):
        session = registry[bundle]
        layer, unit = start_of(session)
        layers = list(dictionary_of(session).layers)
        return (
            gr.update(choices=layers, value=layer), gr.update(value=unit, label=unit_name(session)),
            default_names(session), "", "",
            try_html(session),
        )  # fmt: skip

    card_inputs = [source, layer, unit, names, query, way]

    def then_show(event, restored: bool = False) -> None:
        """Draw the card, put its link into the address bar, then add what needs the model.

        `restored`: the address bar asked for it, so nothing is added to the history.
        """
        drawn = event.then(draw, card_inputs, [card, place], show_progress="hidden", **private)
        drawn.then(None, [place], js=f"(q) => window.cnDrawn(q, {str(restored).lower()})")
        drawn.then(
            add_what_needs_the_model, [source, layer, unit, names], [card],
            concurrency_id=MODEL, show_progress="hidden", **private,
        )  # fmt: skip

    @user_errors
    def address_of(bundle: str, layer: int, unit: int, query: str, way: str) -> str:
        return here(registry[bundle], registry, layer, unit or 0, query, way)

    then_show(gr.on([layer.input, unit.submit, unit.blur, names.submit], lambda: None, **private))
    then_show(
        back.click(lambda b, la, u: step(b, la, u, -1), [source, layer, unit], [unit], **private)
    )
    then_show(
        onward.click(lambda b, la, u: step(b, la, u, 1), [source, layer, unit], [unit], **private)
    )
    then_show(dice.click(shuffle, [source, layer], [unit], **private))
    then_show(
        source.input(opened, [source], [layer, unit, names, query, results, examples], **private)
    )
    searching = gr.on(
        [go.click, query.submit, way.input, order.input], search, [source, query, way, order],
        [results],
        concurrency_id=MODEL, **private,
    )  # fmt: skip
    searching.then(address_of, [source, layer, unit, query, way], [place], **private).then(
        None, [place], js="(q) => window.cnPush(q)"
    )

    for button, make in ((as_json, json_file), (as_png, png_file)):

        @user_errors
        def save(bundle: str, layer: int, unit: int, make=make) -> str:
            session = registry[bundle]
            return make(session.bundle, dictionary_of(session).card(int(layer), int(unit or 0)))

        button.click(save, [source, layer, unit], [saved], **private).then(
            None, [saved], js="(file) => window.cnSave(file)"
        )

    @user_errors
    def fill(bundle: str, layer: int) -> list[list]:
        return table_rows(registry[bundle], int(layer))

    folded.expand(fill, [source, layer], [table], **private)
    layer.change(lambda: gr.Accordion(open=False), None, [folded], **private)

    def chosen(event: gr.SelectData) -> int:
        return int(event.row_value[0])

    then_show(table.select(chosen, None, [unit], **private))

    def then_search(event) -> None:
        event.then(
            search, [source, query, way, order], [results], concurrency_id=MODEL,
            show_progress="hidden", **private,
        )  # fmt: skip

    return Handles(layer, unit, query, way, examples, then_show, then_search)
