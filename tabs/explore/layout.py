"""The components of the tab "Explore"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from clipneurons.dictionary.search import DECOMPOSITION, DIRECTION, MATCH, SIMULATION_SCORE
from tabs.explore.atlas import map_html, mosaic_html
from tabs.explore.dashboard import show, start_of, unit_name
from tabs.explore.search import RELIABLE, try_html
from tabs.explore.table import Order
from tabs.server.session import BundleSession
from tabs.ui.image_input import ImageInput
from tabs.ui.plots import html
from tabs.ui.words import MOST_LETTERS

TITLE = "Explore"
WAYS = [("by meaning", DIRECTION), ("by listed words", DECOMPOSITION)]
ORDERS = [
    ("best match", MATCH), ("simulation score", SIMULATION_SCORE),
    ("reliable labels only", RELIABLE),
]  # fmt: skip
_WAYS_HINT = (
    "By meaning: units whose direction points toward the words. By listed words: units that "
    "have them in their decomposition."
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
    atlas: gr.HTML
    mosaic: gr.HTML
    query: gr.Textbox
    way: gr.Radio
    order: gr.Dropdown
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


def layout(source: gr.Dropdown, query: gr.Textbox, session: BundleSession) -> Widgets:
    """The map with the search's results, the dashboard beside it, and images beneath."""
    with gr.Row(elem_id="explore-main", equal_height=False):
        with gr.Column(scale=6, min_width=320, elem_id="explore-left"):
            atlas = html(map_html(session), elem_id="explore-map")
            found = _search(session)
        with gr.Column(scale=5, min_width=320, elem_id="explore-right"):
            shown = _dashboard(session)
        mosaic = html(mosaic_html(session), elem_id="explore-mosaic")
    with gr.Accordion("Try this unit on your image and class names", open=False,
                      elem_id="explore-test"):  # fmt: skip
        names = gr.Textbox(
            "", label="Your class names, with commas between them", max_lines=1,
            max_length=MOST_LETTERS, elem_id="explore-names",
        )  # fmt: skip
        image = ImageInput("Your image", elem_id="explore-image", height=240)
    return Widgets(
        source=source, query=query, atlas=atlas, mosaic=mosaic, names=names, image=image,
        **found, **shown, **_advanced(), tried=html(elem_id="explore-tried"), **_table(),
        here=gr.Textbox(elem_classes="offstage", label="Permanent link", elem_id="explore-here"),
        saved=gr.Textbox(elem_classes="offstage", label="Download"),
    )  # fmt: skip


def _search(session: BundleSession) -> dict:
    """Examples of searches, and what was found."""
    examples = html(try_html(session), elem_id="explore-try")
    results = html(elem_id="explore-results")
    return dict(examples=examples, results=results)


def _advanced() -> dict:
    """How to search, and in what order to list."""
    with (
        gr.Accordion("Advanced search", open=False, elem_id="explore-advanced"),
        gr.Row(elem_classes="cn-search"),
    ):
        way = gr.Radio(
            WAYS, value=DIRECTION, label="Find units", info=_WAYS_HINT,
            elem_id="explore-way", scale=3,
        )  # fmt: skip
        order = gr.Dropdown(
            ORDERS, value=MATCH, label="Order", elem_id="explore-order", scale=2,
            min_width=120, filterable=False,
        )  # fmt: skip
    return dict(way=way, order=order)


def _dashboard(session: BundleSession) -> dict:
    """The opening unit's dashboard, and steps from one to another below it."""
    layer0, unit0 = start_of(session)
    kept = html(elem_id="explore-kept")
    card = html(show(session, layer0, unit0, "", model=False), elem_id="explore-card")
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
            gr.Button(label, scale=1, min_width=70, elem_id=f"explore-{name}")
            for label, name in (
                ("← Previous", "previous"), ("Next →", "next"), ("Random", "random"),
            )
        )  # fmt: skip
    with gr.Row(elem_classes="cn-tools"):
        keep, as_json, as_png = (
            gr.Button(label, size="sm", scale=0, min_width=100, elem_id=f"explore-{name}")
            for label, name in (("☆ Favourite", "keep"), ("Save JSON", "json"), ("Save PNG", "png"))
        )
        fires = gr.Checkbox(
            False, label="Show where it fires in each image", elem_id="explore-fires",
            container=False,
        )  # fmt: skip
    favourites = gr.Textbox(
        "", elem_classes="offstage", label="Favourites", elem_id="explore-favourites"
    )
    return dict(
        kept=kept, card=card, layer=layer, unit=unit, back=back, onward=onward, dice=dice,
        keep=keep, as_json=as_json, as_png=as_png, fires=fires, favourites=favourites,
    )  # fmt: skip


def _table() -> dict:
    """The folded table; it is filled when it is opened."""
    with gr.Accordion("All units of the layer", open=False, elem_id="explore-all") as folded:
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
