"""The tab that finds words in an image: heat maps, masks, regions, and the neurons behind them."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from tabs.segmentation import handlers
from tabs.segmentation.layout import Widgets, layout
from tabs.server.events import EACH, LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import Handles, handler
from tabs.server.registry import BundleRegistry
from tabs.ui.former_result import says_whose

__all__ = ["TITLE", "build"]

TITLE = "Segmentation"
INTRO = (
    "Find words in an image: write one or several, separated by commas. Click on the heat map to "
    "read what the neurons say at that place."
)
_SECONDS = 60  # of a GPU, where one is lent
# The example is the address's bundle's; a link that brings a picture leaves no room for it.
# The address may still be that of the tab that is left, with a picture of its own.
_LINKED = """(bundle, shownFor, image, _) => {
  const given = new URLSearchParams(location.search);
  const linked = given.get("tab") === "segmentation" && given.has("picture");
  const brought = window.cnTakesImage("segmentation") || linked;
  return [window.cnBundle(bundle), shownFor, image, brought ? "linked" : ""];
}"""


def build(registry: BundleRegistry, source: gr.components.Component) -> Handles:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    gr.Markdown(INTRO, elem_classes="cn-lede")
    widgets = layout()
    _endpoint(registry, source, widgets)
    _changes(registry, widgets)
    when_selected = _searches(registry, source, widgets)

    def receive(handed: gr.events.Dependency, image: gr.State) -> None:
        taken = handed.success(
            handler(registry, handlers.take_handed), image,
            [widgets.image, widgets.words, widgets.shown_for], **PRIVATE,
        )  # fmt: skip
        taken.success(**_asked(registry, source, widgets, handlers.find))

    return Handles(when_selected, receive=receive)


def _asked(registry: BundleRegistry, source, widgets: Widgets, function: Callable) -> dict:
    """A handler of a `SearchRequest` that updates everything that a search shows."""
    fields = {
        "bundle": source, "image": widgets.image, "words": widgets.words,
        "anyway": widgets.anyway, "threshold": widgets.threshold, "former": widgets.search,
    }  # fmt: skip

    def ask(registry: BundleRegistry, values: dict):
        """`function` on the request that the components hold."""
        request = {name: values[component] for name, component in fields.items()}
        return function(registry, widgets, handlers.SearchRequest(**request))

    return {
        "fn": handler(registry, ask, _SECONDS), "inputs": set(fields.values()),
        "outputs": widgets.results(), **ON_MODEL, **PRIVATE,
    }  # fmt: skip


def _searches(registry: BundleRegistry, source, widgets: Widgets) -> Callable:
    """What fills the whole tab: the button, an example that is chosen, the tab being opened."""
    find = _asked(registry, source, widgets, handlers.find) | LATEST
    find["show_progress_on"] = [widgets.go]
    taken = [widgets.image, widgets.words]
    finds = [gr.on([widgets.go.click, widgets.words.submit, widgets.anyway.input], **find)]
    for event, function in (
        (widgets.sample.click, handlers.take),
        (widgets.examples.select, handlers.choose),
    ):
        chosen = event(
            handler(registry, function, _SECONDS), source, taken, **ON_MODEL, **EACH, **PRIVATE
        )
        finds.append(chosen.success(**find))
    says_whose(["segmentation-found", "segmentation-all"], [widgets.image.input], finds)
    widgets.image.input(lambda: handlers.OWN, None, widgets.shown_for, **PRIVATE)
    widgets.image.input(
        None, [widgets.image], js="(image) => window.cnOwn('segmentation', image)", **PRIVATE
    )
    for event in (widgets.examples.select, widgets.sample.click):
        event(None, None, js="() => window.cnOwn('segmentation', false)", **PRIVATE)
    source.change(
        handler(registry, handlers.change_bundle), [source, widgets.search],
        [widgets.maps, widgets.more], **PRIVATE,
    )  # fmt: skip
    linked = gr.Textbox(elem_classes="offstage", label="A linked picture")

    def when_selected(tab: gr.Tab) -> None:
        ready = tab.select(
            handler(registry, handlers.show_example, _SECONDS),
            [source, widgets.shown_for, widgets.image, linked],
            [widgets.shown_for, widgets.examples, *taken], show_progress="hidden", js=_LINKED,
            **ON_MODEL, **PRIVATE,
        )  # fmt: skip
        first = ready.success(
            **_asked(registry, source, widgets, handlers.find_first), show_progress="hidden"
        )
        own = [widgets.image.input, widgets.words.input]
        gr.on(own, None, cancels=[ready, first], **PRIVATE)

    return when_selected


def _endpoint(registry: BundleRegistry, source, widgets: Widgets) -> None:
    """What programs call; nothing on the page triggers it."""
    gr.on(
        [], handler(registry, handlers.find_masks, _SECONDS),
        [source, widgets.image, widgets.words, widgets.threshold, widgets.anyway],
        gr.JSON(visible=False, label="Masks"), api_name="segment", **ON_MODEL,
    )  # fmt: skip


def _changes(registry: BundleRegistry, widgets: Widgets) -> None:
    """What redraws a part of what was found."""
    search, name, threshold = widgets.search, widgets.name, widgets.threshold
    gr.on(
        [name.change, threshold.change], handler(registry, handlers.redraw),
        [search, name, threshold], [widgets.heat, widgets.mask], show_progress="hidden",
        **LATEST, **PRIVATE,
    )  # fmt: skip
    name.input(
        handler(registry, handlers.rename, _SECONDS), [search, name], widgets.voters,
        **ON_MODEL, **LATEST, **PRIVATE,
    )  # fmt: skip
    threshold.release(
        handler(registry, handlers.rewrite), [search, threshold],
        [widgets.png, widgets.coco], **LATEST, **PRIVATE,
    )  # fmt: skip
    point = gr.State()
    widgets.heat.select(
        handler(registry, handlers.point_at), None, point, show_progress="hidden", **EACH,
        **PRIVATE,
    ).then(
        handler(registry, handlers.listen, _SECONDS), [search, point], widgets.here,
        **ON_MODEL, **LATEST, **PRIVATE,
    )  # fmt: skip
