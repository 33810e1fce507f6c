"""What stands on the dictionary's tab, and where."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.neuron_page import default_names, show, start_of, unit_name
from tabs.neuron_table import Order
from tabs.search import (
    DECOMPOSITION,
    DIRECTION,
    MATCH,
    MOST_LETTERS,
    RELIABLE,
    TRUST,
    dictionary_of,
    try_html,
)
from tabs.server.session import BundleSession
from tabs.ui.image_input import ImageInput
from tabs.ui.plots import html

TITLE = "Neuron dictionary"
WAYS = [("by meaning", DIRECTION), ("by listed words", DECOMPOSITION)]
ORDERS = [("best match", MATCH), ("most trusted", TRUST), ("reliable labels only", RELIABLE)]
_PLACEHOLDER = "boat, -water   (commas between things; a minus before what should not be there)"
_WAYS_HINT = (
    "By meaning: neurons whose direction points toward the words. By listed words: neurons that "
    "have them among their phrases."
)
# A click on a heading of the table, as an event of the page.
_HEADINGS = """
element.addEventListener('click', (event) => {
  const heading = event.target.closest('button[data-column]');
  if (heading) trigger('click', { column: heading.dataset.column });
});"""


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
    """Widgets that choose a neuron; `favourites` holds them as the address does."""

    layer: gr.Dropdown
    unit: gr.Number
    back: gr.Button
    onward: gr.Button
    dice: gr.Button
    names: gr.Textbox
    fires: gr.Checkbox
    favourites: gr.Textbox


@dataclass(frozen=True)
class Card:
    """The neuron's card and what can be done with it."""

    kept: gr.HTML
    card: gr.HTML
    keep: gr.Button
    as_json: gr.Button
    as_png: gr.Button
    image: gr.Image
    tried: gr.HTML


@dataclass(frozen=True)
class Table:
    """All neurons of a layer."""

    folded: gr.Accordion
    words: gr.Textbox
    as_csv: gr.Button
    rows: gr.HTML
    order: gr.State


def search_widgets(session: BundleSession) -> Search:
    """The search, with examples below it."""
    gr.HTML(
        '<p class="cn-lede">Search for a thing to see which neurons write it into the image’s '
        "description, or leaf through them one by one.</p>"
    )
    with gr.Row(elem_classes="cn-search"):
        query = gr.Textbox(
            label="Search by words", placeholder=_PLACEHOLDER, elem_id="dictionary-query",
            scale=6, max_lines=1, max_length=MOST_LETTERS,
        )  # fmt: skip
        go = gr.Button("Search", variant="primary", scale=1, min_width=90, elem_id="dictionary-go")
    examples = html(try_html(session), elem_id="dictionary-try")
    with (
        gr.Accordion("Advanced search", open=False, elem_id="dictionary-advanced"),
        gr.Row(elem_classes="cn-search"),
    ):
        way = gr.Radio(
            WAYS, value=DIRECTION, label="Find neurons", info=_WAYS_HINT,
            elem_id="dictionary-way", scale=3,
        )  # fmt: skip
        order = gr.Dropdown(
            ORDERS, value=MATCH, label="Order", elem_id="dictionary-order", scale=2, min_width=120,
            filterable=False,
        )  # fmt: skip
    return Search(query, way, order, go, examples, html(elem_id="dictionary-results"))


def browser_widgets(session: BundleSession) -> Browser:
    """Layer, number, steps, and the names that effects are measured on."""
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
            default_names(session), label="Names to measure its effect on", scale=4, min_width=200,
            max_lines=1, max_length=MOST_LETTERS, elem_id="dictionary-names",
        )  # fmt: skip
    fires = gr.Checkbox(
        False, label="Show where it fires in each picture", elem_id="dictionary-fires",
        container=False,
    )  # fmt: skip
    favourites = gr.Textbox(
        "", elem_classes="offstage", label="Favourites", elem_id="dictionary-favourites"
    )
    return Browser(layer, unit, back, onward, dice, names, fires, favourites)


def card_widgets(session: BundleSession) -> Card:
    """The opening neuron's card."""
    layer, unit = start_of(session)
    kept = html(elem_id="dictionary-kept")
    card = html(
        show(session, layer, unit, default_names(session), model=False), elem_id="dictionary-card"
    )
    with gr.Row():
        keep, as_json, as_png = (
            gr.Button(label, size="sm", scale=0, min_width=130, elem_id=f"dictionary-{name}")
            for label, name in (
                ("☆ Favourite", "keep"), ("Save as JSON", "json"), ("Save as PNG", "png"),
            )
        )  # fmt: skip
        # The page itself copies the address (`page.js`).
        gr.Button(
            "Copy link", size="sm", scale=0, min_width=130, elem_id="dictionary-link",
            elem_classes="cn-copy",
        )  # fmt: skip
    with gr.Accordion("Test this neuron on your picture", open=False, elem_id="dictionary-test"):
        image = ImageInput("Your picture", elem_id="dictionary-image", height=240)
        tried = html(elem_id="dictionary-tried")
    return Card(kept, card, keep, as_json, as_png, image, tried)


def table_widgets() -> Table:
    """The folded table; it is filled when it is opened."""
    with gr.Accordion("All neurons of the layer", open=False, elem_id="dictionary-all") as folded:
        with gr.Row(elem_classes="cn-search"):
            words = gr.Textbox(
                "", label="Only rows with these words", max_lines=1, max_length=MOST_LETTERS,
                scale=4, elem_id="dictionary-filter",
            )  # fmt: skip
            as_csv = gr.Button("Save all as CSV", scale=1, min_width=130, elem_id="dictionary-csv")
        rows = gr.HTML(js_on_load=_HEADINGS, apply_default_css=False, elem_id="dictionary-table")
    return Table(folded, words, as_csv, rows, gr.State(Order()))
