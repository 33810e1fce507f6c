"""Events of the tab "Explore": requests in, results and updates out."""

from __future__ import annotations

import random as chance
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import gradio as gr
from PIL import Image

from clipneurons.dictionary.search import DECOMPOSITION, DIRECTION
from tabs.explore import dashboard, favourites
from tabs.explore.atlas import map_html, mosaic_html
from tabs.explore.dashboard import neuron, show, start_of, unit_name
from tabs.explore.files import json_file, png_file
from tabs.explore.layout import Widgets, layout
from tabs.explore.on_image import tried_html
from tabs.explore.search import (
    results_html,
    search,
    try_html,
    vocabulary_html,
)
from tabs.explore.table import Order, csv_file, table_html
from tabs.server.events import LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import handler
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.former_result import says_whose
from tabs.ui.plots import address

_QUIET = {**PRIVATE, "show_progress": "hidden"}


@dataclass(frozen=True)
class Request:
    """What is shown: the unit, the search, the table's filter, favourites as the address has them.

    In the order of `Widgets.request`.
    """

    bundle: str
    layer: int
    unit: int | None
    names: str
    query: str
    way: str
    order: str
    favourites: str
    fires: bool
    rows_with: str

    @property
    def place(self) -> tuple[int, int]:
        """Layer and number of the unit; 0 for a field that is empty."""
        return int(self.layer), int(self.unit or 0)


@dataclass(frozen=True)
class Tab:
    """The bundles, and the components that a handler's updates are for."""

    registry: BundleRegistry
    widgets: Widgets

    def asks(self, function: Callable, gpu_seconds: int | None = None) -> Callable:
        """A function of the tab and a `Request` as a handler of an event."""
        return handler(self, function, gpu_seconds, Request)

    # -- for the page: links and the address

    @property
    def restored(self) -> list[gr.components.Component]:
        """What `restore` fills in."""
        w = self.widgets
        return [w.layer, w.unit, w.query, w.way, w.examples, w.favourites, w.atlas, w.mosaic]

    def restore(self, session: BundleSession, given: Mapping[str, str]) -> dict:
        """What an address asks for, as updates; numbers that are none are left out."""
        w, (layer, unit) = self.widgets, start_of(session)
        layers, way = session.dictionary.layers, given.get("by")
        asked = number(given.get("layer"), layer)
        updates = {
            w.layer: gr.update(choices=list(layers), value=asked if asked in layers else layer),
            w.unit: gr.update(value=number(given.get("unit"), unit), label=unit_name(session)),
            w.way: way if way in (DIRECTION, DECOMPOSITION) else DIRECTION,
            w.examples: try_html(session),
            w.favourites: given.get("fav", ""),
            w.atlas: map_html(session),
            w.mosaic: mosaic_html(session),
        }
        if "q" in given:  # else what is typed while the page loads would be erased
            updates[w.query] = given["q"]
        return updates

    def then_show(self, event: gr.events.Dependency, restored: bool = False) -> None:
        """Draw the dashboard, put its link into the address bar, then add what needs the model.

        `restored`: the address bar asked for it, so nothing is added to the history.
        """
        drawn = self._then_draw(event)
        js = f"(q) => window.cnDrawn(q, {str(restored).lower()})"
        drawn.then(None, [self.widgets.here], js=js)

    def _then_draw(self, event: gr.events.Dependency) -> gr.events.Dependency:
        w = self.widgets
        drawn = event.then(
            self.asks(draw), w.request, [w.unit, w.card, w.here, w.keep, w.kept], **LATEST, **_QUIET
        )
        drawn.then(
            self.asks(complete, 60), [*w.request, w.image], [w.card, w.tried],
            **ON_MODEL, **LATEST, **_QUIET,
        )  # fmt: skip
        return drawn

    def then_search(self, event: gr.events.Dependency) -> None:
        """Search for what the address asks for."""
        w = self.widgets
        event.then(self.asks(results, 60), w.request, [w.results], **ON_MODEL, **LATEST, **_QUIET)


def number(text: str | None, default: int) -> int:
    """A number from an address, or the default for anything that is none."""
    known = text is not None and text.isascii() and text.isdecimal() and len(text) <= 9
    return int(text) if known else default


def build(registry: BundleRegistry, source: gr.Dropdown, query: gr.Textbox) -> Tab:
    """Components and events; `source` holds the chosen bundle's key, `query` what to search."""
    tab = Tab(registry, layout(source, query, registry.first))
    gr.api(handler(registry, neuron), api_name="neuron")
    gr.api(handler(registry, search, 60), api_name="search", **ON_MODEL)
    _search_events(tab)
    _browse_events(tab)
    _image_events(tab)
    _table_events(tab)
    for button, make in ((tab.widgets.as_json, json), (tab.widgets.as_png, png),
                         (tab.widgets.as_csv, csv)):  # fmt: skip
        button.click(tab.asks(make), tab.widgets.request, [tab.widgets.saved], **PRIVATE).then(
            None, [tab.widgets.saved], js="(file) => window.cnSave(file)"
        )
    return tab


def _search_events(tab: Tab) -> None:
    w = tab.widgets
    gr.on(
        [w.query.submit, w.way.input, w.order.input], tab.asks(results, 60), w.request,
        [w.results], **ON_MODEL, **LATEST, **PRIVATE,
    ).then(tab.asks(link), w.request, [w.here], **LATEST, **PRIVATE).then(
        None, [w.here], js="(q) => window.cnPush(q)"
    )  # fmt: skip
    w.query.input(tab.asks(suggest), w.request, [w.examples], **LATEST, **_QUIET)


def _browse_events(tab: Tab) -> None:
    w = tab.widgets
    chosen = [w.layer.input, w.unit.submit, w.unit.blur, w.names.submit]
    tab.then_show(gr.on(chosen, lambda: None, **LATEST, **PRIVATE))
    for button, by in ((w.back, -1), (w.onward, 1)):
        # The browser counts: of ten quick clicks the tenth unit is shown, without a request each.
        js = f"(layer, unit) => window.cnStep(layer, unit, {by})"
        tab.then_show(button.click(None, [w.layer, w.unit], [w.unit], js=js, **PRIVATE))
    tab.then_show(w.dice.click(tab.asks(random), w.request, [w.unit], **LATEST, **PRIVATE))
    tab.then_show(w.keep.click(tab.asks(keep), w.request, [w.favourites], **PRIVATE))
    opened = w.source.input(
        handler(tab, bundle_changed), [w.source],
        [*tab.restored, w.results],
        **LATEST, **PRIVATE,
    )  # fmt: skip
    tab.then_show(opened)
    tab._then_draw(w.fires.input(lambda: None, None, None, **LATEST, **_QUIET))


def _image_events(tab: Tab) -> None:
    w = tab.widgets
    on_image = w.image.change(
        tab.asks(tried, 60), [*w.request, w.image], [w.tried], show_progress_on=[w.tried],
        **ON_MODEL, **PRIVATE,
    )  # fmt: skip
    # No image: put away, or every dashboard drawn from now on would stumble over it.
    on_image.failure(lambda: None, None, [w.image], **_QUIET)
    says_whose(["explore-tried"], [w.image.input], [on_image])


def _table_events(tab: Tab) -> None:
    w = tab.widgets
    rows = tab.asks(table)
    w.folded.expand(rows, [*w.request, w.rows_order], [w.rows], **PRIVATE)
    w.rows_with.input(rows, [*w.request, w.rows_order], [w.rows], **LATEST, **_QUIET)
    w.rows.click(tab.asks(sort), [*w.request, w.rows_order], [w.rows_order, w.rows], **_QUIET)
    w.layer.change(
        lambda: {w.folded: gr.Accordion(open=False), w.rows: ""}, None, [w.folded, w.rows],
        **PRIVATE,
    )  # fmt: skip


# -- search


def results(tab: Tab, request: Request) -> dict:
    """`search` as HTML."""
    session = tab.registry[request.bundle]
    return {tab.widgets.results: results_html(session, request.query, request.way, request.order)}


def suggest(tab: Tab, request: Request) -> dict:
    """Texts of the vocabulary that go on as the query does; examples while it is empty."""
    return {tab.widgets.examples: vocabulary_html(tab.registry[request.bundle], request.query)}


# -- one unit


def draw(tab: Tab, request: Request) -> dict:
    """The number, the dashboard without what needs the model, its address, and the favourites.

    A number that the layer does not have becomes the nearest one, with a warning.
    """
    w, session = tab.widgets, tab.registry[request.bundle]
    layer, asked = request.place
    last = session.dictionary.units(layer) - 1
    unit = min(max(asked, 0), last)
    if unit != asked:
        gr.Warning(f"Layer {layer} has units 0 to {last}, not {asked}: this is {unit}.")
    kept = favourites.parse(request.favourites)
    updates = {
        w.card: show(session, layer, unit, request.names, model=False),
        w.here: here(tab.registry, replace(request, unit=unit)),
        w.keep: "★ Favourite" if (layer, unit) in kept else "☆ Favourite",
        w.kept: favourites.html_of(session, kept),
    }
    # A field that says what is shown is left alone.
    return updates if request.unit == unit else updates | {w.unit: unit}


def complete(tab: Tab, request: Request, image: Image.Image | None) -> dict:
    """The same dashboard with what needs the model, and the unit on the visitor's image."""
    session, place = tab.registry[request.bundle], request.place
    updates = tried(tab, request, image)
    if request.fires or not dashboard.complete(session, *place, request.names):
        page = show(session, *place, request.names, model=True, fires=request.fires)
        updates[tab.widgets.card] = page
    return updates


def tried(tab: Tab, request: Request, image: Image.Image | None) -> dict:
    """What a unit does on a visitor's image; nothing without one."""
    session = tab.registry[request.bundle]
    return {tab.widgets.tried: tried_html(session, *request.place, image) if image else ""}


def link(tab: Tab, request: Request) -> dict:
    """The permanent link of what is shown."""
    return {tab.widgets.here: here(tab.registry, request)}


def here(registry: BundleRegistry, request: Request) -> str:
    """The address of what is shown."""
    session, query = registry[request.bundle], request.query.strip()
    layer, unit = request.place
    return address(
        tab="explore", layer=layer, unit=unit, q=query,
        by=request.way if request.way != DIRECTION and query else None, fav=request.favourites,
        bundle=session.key if session is not registry.first else None,
    )  # fmt: skip


def keep(tab: Tab, request: Request) -> dict:
    """The favourites with this unit, or without it if it was one."""
    return {tab.widgets.favourites: favourites.toggled(request.favourites, *request.place)}


def random(tab: Tab, request: Request) -> dict:
    """Any unit of a layer."""
    units = tab.registry[request.bundle].dictionary.units(int(request.layer))
    return {tab.widgets.unit: chance.randrange(units)}


def bundle_changed(tab: Tab, bundle: str) -> dict:
    """Another bundle: its layers, its opening unit, its examples; nothing searched for."""
    w, session = tab.widgets, tab.registry[bundle]
    return tab.restore(session, {"q": ""}) | {w.results: ""}


# -- files and the table


def json(tab: Tab, request: Request) -> dict:
    """The dashboard as a JSON file."""
    session = tab.registry[request.bundle]
    return {tab.widgets.saved: json_file(session.bundle.unit(*request.place))}


def png(tab: Tab, request: Request) -> dict:
    """The dashboard as an image."""
    session = tab.registry[request.bundle]
    return {tab.widgets.saved: png_file(session.bundle, session.bundle.unit(*request.place))}


def csv(tab: Tab, request: Request) -> dict:
    """The whole table as a CSV file."""
    return {tab.widgets.saved: csv_file(tab.registry[request.bundle], int(request.layer))}


def table(tab: Tab, request: Request, rows_order: Order) -> dict:
    """The units of a layer."""
    session = tab.registry[request.bundle]
    page = table_html(session, int(request.layer), request.rows_with, rows_order)
    return {tab.widgets.rows: page}


def sort(tab: Tab, request: Request, rows_order: Order, event: gr.EventData) -> dict:
    """The table by the column whose heading was clicked; a second click turns it round."""
    rows_order = rows_order.clicked(event.column)
    return {tab.widgets.rows_order: rows_order} | table(tab, request, rows_order)
