"""The components of the tab "Explore"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from clipneurons.dictionary.search import DECOMPOSITION, DIRECTION, MATCH, SIMULATION_SCORE
from tabs.explore.dashboard import show, start_of, unit_name
from tabs.explore.search import RELIABLE, try_html
from tabs.explore.table import Order
from tabs.server.session import BundleSession
from tabs.ui.image_input import ImageInput
from tabs.ui.plots import html
from tabs.ui.suggestions import default_names
from tabs.ui.words import MOST_LETTERS

TITLE = "Neuron dictionary"
WAYS = [("by meaning", DIRECTION), ("by listed words", DECOMPOSITION)]
ORDERS = [
    ("best match", MATCH), ("simulation score", SIMULATION_SCORE),
    ("reliable labels only", RELIABLE),
]  # fmt: skip
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
class Widgets:
    """What the handlers read and write.

    `here` holds the address of what is shown, `favourites` holds them as the address does, `saved`
    a file to download; `rows_with`, `rows` and `rows_order` are of the table of all units.
    """

    source: gr.Dropdown
    query: gr.Textbox
    way: gr.Radio
    order: gr.Dropdown
    go: gr.Button
    examples: gr.HTML
    results: gr.HTML
    layer: gr.Dropdown
    unit: gr.Number
    back: gr.Button
    onward: gr.Button
    dice: gr.Button
    names: gr.Textbox
    fires: gr.Checkbox
    favourites: gr.Textbox
    kept: gr.HTML
    card: gr.HTML
    keep: gr.Button
    as_json: gr.Button
    as_png: gr.Button
    image: gr.Image
    tried: gr.HTML
    folded: gr.Accordion
    rows_with: gr.Textbox
    as_csv: gr.Button
    rows: gr.HTML
    rows_order: gr.State
    here: gr.Textbox
    saved: gr.Textbox

    @property
    def request(self) -> list[gr.components.Component]:
        """The inputs of a `Request`, in its order."""
        return [
            self.source, self.layer, self.unit, self.names, self.query, self.way, self.order,
            self.favourites, self.fires, self.rows_with,
        ]  # fmt: skip


def layout(source: gr.Dropdown, session: BundleSession) -> Widgets:
    """The search, the steps between units, the dashboard, and the folded table."""
    return Widgets(
        source=source,
        **_search(session), **_browser(session), **_dashboard(session), **_table(),
        here=gr.Textbox(
            elem_classes="offstage", label="Permanent link", elem_id="explore-here"
        ),
        saved=gr.Textbox(elem_classes="offstage", label="Download"),
    )  # fmt: skip


def _search(session: BundleSession) -> dict:
    """The search, with examples below it."""
    gr.HTML(
        '<p class="cn-lede">Search for a thing to see which neurons write it into the image’s '
        "description, or leaf through them one by one.</p>"
    )
    with gr.Row(elem_classes="cn-search"):
        query = gr.Textbox(
            label="Search by words", placeholder=_PLACEHOLDER, elem_id="explore-query",
            scale=6, max_lines=1, max_length=MOST_LETTERS,
        )  # fmt: skip
        go = gr.Button("Search", variant="primary", scale=1, min_width=90, elem_id="explore-go")
    examples = html(try_html(session), elem_id="explore-try")
    with (
        gr.Accordion("Advanced search", open=False, elem_id="explore-advanced"),
        gr.Row(elem_classes="cn-search"),
    ):
        way = gr.Radio(
            WAYS, value=DIRECTION, label="Find neurons", info=_WAYS_HINT,
            elem_id="explore-way", scale=3,
        )  # fmt: skip
        order = gr.Dropdown(
            ORDERS, value=MATCH, label="Order", elem_id="explore-order", scale=2, min_width=120,
            filterable=False,
        )  # fmt: skip
    return dict(
        query=query, way=way, order=order, go=go, examples=examples,
        results=html(elem_id="explore-results"),
    )  # fmt: skip


def _browser(session: BundleSession) -> dict:
    """Layer, number, steps, and the names that effects are measured on."""
    layer0, unit0 = start_of(session)
    with gr.Row(elem_classes="cn-browse"):
        layer = gr.Dropdown(
            list(session.dictionary.layers), value=layer0, label="Layer", scale=1,
            min_width=80, elem_id="explore-layer", filterable=False,
        )  # fmt: skip
        # No minimum: of a number that is none, the dictionary says which there are.
        unit = gr.Number(
            unit0, label=unit_name(session), precision=0, scale=1, min_width=90,
            elem_id="explore-unit",
        )  # fmt: skip
        back, onward, dice = (
            gr.Button(label, scale=1, min_width=90, elem_id=f"explore-{name}")
            for label, name in (
                ("← Previous", "previous"), ("Next →", "next"), ("Random", "random"),
            )
        )  # fmt: skip
        names = gr.Textbox(
            default_names(session), label="Names to measure its effect on", scale=4, min_width=200,
            max_lines=1, max_length=MOST_LETTERS, elem_id="explore-names",
        )  # fmt: skip
    fires = gr.Checkbox(
        False, label="Show where it fires in each picture", elem_id="explore-fires",
        container=False,
    )  # fmt: skip
    favourites = gr.Textbox(
        "", elem_classes="offstage", label="Favourites", elem_id="explore-favourites"
    )
    return dict(
        layer=layer, unit=unit, back=back, onward=onward, dice=dice, names=names, fires=fires,
        favourites=favourites,
    )  # fmt: skip


def _dashboard(session: BundleSession) -> dict:
    """The opening neuron's card."""
    layer, unit = start_of(session)
    kept = html(elem_id="explore-kept")
    card = html(
        show(session, layer, unit, default_names(session), model=False), elem_id="explore-card"
    )
    with gr.Row():
        keep, as_json, as_png = (
            gr.Button(label, size="sm", scale=0, min_width=130, elem_id=f"explore-{name}")
            for label, name in (
                ("☆ Favourite", "keep"), ("Save as JSON", "json"), ("Save as PNG", "png"),
            )
        )  # fmt: skip
        # The page itself copies the address (`page.js`).
        gr.Button(
            "Copy link", size="sm", scale=0, min_width=130, elem_id="explore-link",
            elem_classes="cn-copy",
        )  # fmt: skip
    with gr.Accordion("Test this neuron on your picture", open=False, elem_id="explore-test"):
        image = ImageInput("Your picture", elem_id="explore-image", height=240)
        tried = html(elem_id="explore-tried")
    return dict(
        kept=kept, card=card, keep=keep, as_json=as_json, as_png=as_png, image=image, tried=tried
    )


def _table() -> dict:
    """The folded table; it is filled when it is opened."""
    with gr.Accordion("All neurons of the layer", open=False, elem_id="explore-all") as folded:
        with gr.Row(elem_classes="cn-search"):
            words = gr.Textbox(
                "", label="Only rows with these words", max_lines=1, max_length=MOST_LETTERS,
                scale=4, elem_id="explore-filter",
            )  # fmt: skip
            as_csv = gr.Button("Save all as CSV", scale=1, min_width=130, elem_id="explore-csv")
        rows = gr.HTML(js_on_load=_HEADINGS, apply_default_css=False, elem_id="explore-table")
    return dict(
        folded=folded, rows_with=words, as_csv=as_csv, rows=rows, rows_order=gr.State(Order())
    )
