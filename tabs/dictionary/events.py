"""What leads to what on the dictionary's tab."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from tabs.dictionary.handlers import Handlers
from tabs.dictionary.widgets import (
    Browser,
    Card,
    Search,
    Table,
    browser_widgets,
    card_widgets,
    search_widgets,
    table_widgets,
)
from tabs.server.events import LATEST, ON_MODEL, PRIVATE
from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.ui.former_result import says_whose

_QUIET = {**PRIVATE, "show_progress": "hidden"}


@dataclass(frozen=True)
class Handles:
    """What a permanent link fills in."""

    layer: gr.Dropdown
    unit: gr.Number
    query: gr.Textbox
    way: gr.Radio
    examples: gr.HTML
    favourites: gr.Textbox
    then_show: Callable
    then_search: Callable


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events; returns what a permanent link fills in."""
    first = registry.first
    search, browser = search_widgets(first), browser_widgets(first)
    card, table = card_widgets(first), table_widgets()
    handlers = Handlers(registry)
    gr.api(user_errors(handlers.neuron), api_name="neuron")
    gr.api(on_gpu()(user_errors(handlers.search)), api_name="search", **ON_MODEL)
    return Events(handlers, source, search, browser, card, table).connect()


@dataclass(frozen=True)
class Events:
    """Connects widgets with handlers."""

    handlers: Handlers
    source: gr.Dropdown
    search: Search
    browser: Browser
    card: Card
    table: Table

    def connect(self) -> Handles:
        """All events of the tab."""
        place = gr.Textbox(
            elem_classes="offstage", label="Permanent link", elem_id="dictionary-here"
        )
        draw, search = self._drawing(place), self._searching(place)
        self._browsing(draw)
        self._listing()
        self._saving()
        return Handles(
            self.browser.layer, self.browser.unit, self.search.query, self.search.way,
            self.search.examples, self.browser.favourites, draw, search,
        )  # fmt: skip

    @property
    def _unit(self) -> list[gr.components.Component]:
        return [self.source, self.browser.layer, self.browser.unit]

    @property
    def _link(self) -> list[gr.components.Component]:
        """What an address holds beside the unit."""
        return [self.search.query, self.search.way, self.browser.favourites]

    def _drawing(self, place: gr.Textbox) -> Callable:
        browser, card = self.browser, self.card
        chosen = [*self._unit, browser.names]
        draw, given = user_errors(self.handlers.draw), [*chosen, *self._link]
        drawn_to = [browser.unit, card.card, place, card.keep, card.kept]
        complete = on_gpu()(user_errors(self.handlers.complete))
        whole, completed = [*chosen, browser.fires, card.image], [card.card, card.tried]

        def then_show(event, restored: bool = False) -> None:
            """Draw the card, put its link into the address bar, then add what needs the model.

            `restored`: the address bar asked for it, so nothing is added to the history.
            """
            drawn = event.then(draw, given, drawn_to, **LATEST, **_QUIET)
            drawn.then(None, [place], js=f"(q) => window.cnDrawn(q, {str(restored).lower()})")
            drawn.then(complete, whole, completed, **ON_MODEL, **LATEST, **_QUIET)

        browser.fires.input(draw, given, drawn_to, **LATEST, **_QUIET).then(
            complete, whole, completed, **ON_MODEL, **LATEST, **_QUIET
        )
        tried = card.image.change(
            on_gpu()(user_errors(self.handlers.tried)), [*self._unit, card.image], [card.tried],
            show_progress_on=[card.tried], **ON_MODEL, **PRIVATE,
        )  # fmt: skip
        # No picture: put away, or every card drawn from now on would stumble over it.
        tried.failure(lambda: None, None, [card.image], **_QUIET)
        says_whose(["dictionary-tried"], [card.image.input], [tried])
        return then_show

    def _searching(self, place: gr.Textbox) -> Callable:
        mine = self.search
        given = [self.source, mine.query, mine.way, mine.order]
        results = on_gpu()(user_errors(self.handlers.results))
        address = user_errors(self.handlers.address)
        gr.on(
            [mine.go.click, mine.query.submit, mine.way.input, mine.order.input], results, given,
            [mine.results], **ON_MODEL, **LATEST, **PRIVATE,
        ).then(address, [*self._unit, *self._link], [place], **LATEST, **PRIVATE).then(
            None, [place], js="(q) => window.cnPush(q)"
        )  # fmt: skip
        mine.query.input(
            user_errors(self.handlers.suggest), [self.source, mine.query], [mine.examples],
            **LATEST, **_QUIET,
        )  # fmt: skip

        def then_search(event) -> None:
            event.then(results, given, [mine.results], **ON_MODEL, **LATEST, **_QUIET)

        return then_search

    def _browsing(self, then_show: Callable) -> None:
        browser, search, handlers = self.browser, self.search, self.handlers
        given = [browser.layer.input, browser.unit.submit, browser.unit.blur, browser.names.submit]
        then_show(gr.on(given, lambda: None, **LATEST, **PRIVATE))
        for button, step in ((browser.back, handlers.previous), (browser.onward, handlers.next)):
            stepped = button.click(
                user_errors(step), self._unit, [browser.unit], **LATEST, **PRIVATE
            )
            then_show(stepped)
        then_show(browser.dice.click(handlers.random, self._unit[:2], [browser.unit], **PRIVATE))
        favourites = [browser.favourites]
        then_show(
            self.card.keep.click(
                handlers.keep, [browser.layer, browser.unit, *favourites], favourites, **PRIVATE
            )
        )
        shown = [browser.layer, browser.unit, browser.names]
        shown += [search.query, search.results, search.examples, *favourites]
        then_show(self.source.input(handlers.opened, [self.source], shown, **LATEST, **PRIVATE))

    def _listing(self) -> None:
        table = self.table
        given = [self.source, self.browser.layer, table.words, table.order]
        rows = user_errors(self.handlers.table)
        table.folded.expand(rows, given, [table.rows], **PRIVATE)
        table.words.input(rows, given, [table.rows], **LATEST, **_QUIET)
        table.rows.click(
            user_errors(self.handlers.sort), given, [table.order, table.rows], **_QUIET
        )
        self.browser.layer.change(
            lambda: (gr.Accordion(open=False), ""), None, [table.folded, table.rows], **PRIVATE
        )

    def _saving(self) -> None:
        saved = gr.Textbox(elem_classes="offstage", label="Download")
        for button, make, given in (
            (self.card.as_json, self.handlers.json, self._unit),
            (self.card.as_png, self.handlers.png, self._unit),
            (self.table.as_csv, self.handlers.csv, self._unit[:2]),
        ):
            button.click(user_errors(make), given, [saved], **PRIVATE).then(
                None, [saved], js="(file) => window.cnSave(file)"
            )
