"""The tab: what stands where, and what happens on which event."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from tabs.segmentation import handlers
from tabs.segmentation.layout import Widgets, layout
from tabs.server.events import EACH, LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import Handles, handler
from tabs.server.registry import BundleRegistry
from tabs.ui.former_result import says_whose

TITLE = "Segmentation"
INTRO = (
    "Find words in an image: write one or several things, separated by commas, and see where the "
    "neurons speak of them; click on the heat map to read what they say at that place."
)
_SECONDS = 60  # of a GPU, where one is lent
# The example is the address's bundle's; a link that brings a picture leaves no room for it.
# The address may still be that of the tab that is left, with a picture of its own.
_LINKED = """(bundle, shownFor, image, _) => {
  const given = new URLSearchParams(location.search);
  const linked = given.get("tab") === "segmentation" && given.has("picture");
  return [window.cnBundle(bundle), shownFor, image, linked ? "linked" : ""];
}"""
_OLD = "This is of the previous picture: press Find to look in the one that you chose last."


def build(registry: BundleRegistry, source: gr.components.Component) -> Handles:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    gr.Markdown(INTRO, elem_classes="cn-lede")
    widgets = layout(registry)
    _endpoints(registry, source, widgets)
    _changes(registry, widgets)
    return Handles(_searches(registry, source, widgets))


def _searches(registry: BundleRegistry, source, widgets: Widgets) -> Callable:
    """What fills the whole tab: the button, an example that is chosen, the tab being opened."""
    question, maps, more = widgets.question, widgets.maps, widgets.more
    asked = [question.image, question.words, question.method, question.finer, question.refine,
             maps.opacity, maps.threshold, more.none]  # fmt: skip
    shown = [widgets.found, maps.box, maps.unknown, maps.name, maps.heat, maps.mask, maps.there,
             maps.said, more.box, more.regions, more.voters, more.picture,
             more.annotations]  # fmt: skip
    taken = [question.image, question.words]
    find = handler(registry, handlers.find, _SECONDS)
    busy = {"show_progress_on": [question.go]}
    finds = [
        gr.on([question.go.click, question.words.submit], find, [source, *asked], shown,
              **busy, **ON_MODEL, **LATEST, **PRIVATE)
    ]  # fmt: skip
    chosen = (
        (question.sample.click, handlers.take),
        (question.examples.select, handlers.choose),
    )
    for event, function in chosen:
        take = event(
            handler(registry, function, _SECONDS), source, taken, **ON_MODEL, **EACH, **PRIVATE
        )
        finds.append(
            take.success(find, [source, *asked], shown, **busy, **ON_MODEL, **LATEST, **PRIVATE)
        )
    says_whose(["segmentation-found", "segmentation-all"], [question.image.input], finds, _OLD)
    question.image.input(lambda: handlers.OWN, None, widgets.shown_for, **PRIVATE)
    source.change(
        handler(registry, handlers.change_bundle), [source, widgets.found],
        [question.method, widgets.comparison.methods, maps.box, more.box], **PRIVATE,
    )  # fmt: skip

    linked = gr.Textbox(elem_classes="offstage", label="A linked picture")

    def when_selected(tab: gr.Tab) -> None:
        ready = tab.select(
            handler(registry, handlers.show_example, _SECONDS),
            [source, widgets.shown_for, question.image, linked],
            [widgets.shown_for, question.examples, *taken], show_progress="hidden", js=_LINKED,
            **ON_MODEL, **PRIVATE,
        )  # fmt: skip
        first = ready.success(
            handler(registry, handlers.find_first, _SECONDS), [source, widgets.found, *asked],
            shown, show_progress="hidden", **ON_MODEL, **PRIVATE,
        )  # fmt: skip
        own = [question.image.input, question.words.input]
        gr.on(own, None, cancels=[ready, first], **PRIVATE)

    return when_selected


def _endpoints(registry: BundleRegistry, source, widgets: Widgets) -> None:
    """What programs call too."""
    question, comparison = widgets.question, widgets.comparison
    how = [question.finer, question.refine]
    gr.on(  # nothing on the page triggers it
        [], handler(registry, handlers.find_masks, _SECONDS),
        [source, question.image, question.words, question.method, *how, widgets.maps.threshold],
        gr.JSON(visible=False, label="Masks"), api_name="segment", **ON_MODEL,
    )  # fmt: skip
    compared = comparison.go.click(
        handler(registry, handlers.side_by_side, _SECONDS),
        [source, question.image, question.words, comparison.methods, *how], comparison.gallery,
        api_name="compare_segmentations", **ON_MODEL,
    ).success(lambda: gr.Gallery(visible=True), None, comparison.gallery, **PRIVATE)  # fmt: skip
    says_whose(["segmentation-gallery"], [question.image.input], [compared])


def _changes(registry: BundleRegistry, widgets: Widgets) -> None:
    """What redraws a part of what was found."""
    maps, more, found = widgets.maps, widgets.more, widgets.found
    gr.on(
        [maps.name.change, maps.opacity.change, maps.threshold.change],
        handler(registry, handlers.redraw), [found, maps.name, maps.opacity, maps.threshold],
        [maps.heat, maps.mask], show_progress="hidden", **LATEST, **PRIVATE,
    )  # fmt: skip
    maps.name.input(
        handler(registry, handlers.rename, _SECONDS), [found, maps.name], more.voters,
        **ON_MODEL, **LATEST, **PRIVATE,
    )  # fmt: skip
    maps.threshold.release(
        handler(registry, handlers.rewrite), [found, maps.threshold],
        [more.picture, more.annotations], **LATEST, **PRIVATE,
    )  # fmt: skip
    more.none.change(
        handler(registry, handlers.relabel), [found, more.none], more.regions,
        show_progress="hidden", **PRIVATE,
    )  # fmt: skip
    point = gr.State()
    maps.heat.select(
        handler(registry, handlers.point_at), None, point, show_progress="hidden", **EACH,
        **PRIVATE,
    ).then(
        handler(registry, handlers.listen, _SECONDS), [found, point], maps.said,
        **ON_MODEL, **LATEST, **PRIVATE,
    )  # fmt: skip
