"""The tab: what stands where, and what happens on which event."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from clipneurons.adversarial.methods import SECOND_ORDER
from tabs.adversarial import handlers
from tabs.adversarial.layout import Widgets, layout, pair_of
from tabs.adversarial.pictures import PURPOSE
from tabs.server.events import EACH, LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import Handles, handler
from tabs.server.registry import BundleRegistry

TITLE = "Adversarial pictures"
INTRO = (
    "Some neurons that speak for one class also speak for other things: draw those things beside "
    "an object, and the model may take it for that class. Here you find such things, draw them, "
    "and see how often the model falls for it."
)
# Seconds of a GPU, where one is lent: to find cues, and to make pictures.
_FINDING, _MAKING = 60, 120
# The example is the address's bundle's.
_ADDRESSED = "(bundle, ...rest) => [window.cnBundle(bundle), ...rest]"


def build(registry: BundleRegistry, source: gr.components.Component) -> Handles:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    gr.Markdown(f"{INTRO} {PURPOSE}", elem_classes="cn-lede")
    widgets = layout(registry)
    for function, name, seconds in (
        (handlers.find_cues, "find_cues", _FINDING),
        (handlers.attack, "attack", _MAKING),
    ):
        gr.api(handler(registry, function, seconds), api_name=name, **ON_MODEL)
    _follow_the_names(registry, source, widgets)
    return Handles(_makers(registry, source, widgets))


def _makers(registry: BundleRegistry, source, widgets: Widgets) -> Callable:
    """What fills the tab: its buttons, a picture that is chosen, the tab being opened."""
    settings, results = widgets.settings, widgets.results
    names = [source, widgets.true, widgets.target]
    finding = [settings.layers, settings.neurons, settings.words, settings.blocked,
               settings.painter, settings.way]  # fmt: skip
    asked = [widgets.true, widgets.target, widgets.cues, widgets.filled_in, settings.count,
             settings.each, settings.seed, settings.layers, settings.neurons, settings.words,
             settings.blocked, settings.describer, settings.painter, settings.way]  # fmt: skip
    shown = [widgets.forged, results.gallery, results.rates, results.box, widgets.unknown,
             results.described, results.saved, results.place, widgets.cues, widgets.filled_in,
             widgets.behind, widgets.said]  # fmt: skip
    widgets.look.click(
        handler(registry, handlers.find, _FINDING), [*names, *finding],
        [widgets.unknown, widgets.cues, widgets.filled_in, widgets.behind, widgets.said],
        show_progress_on=[widgets.look], **ON_MODEL, **PRIVATE,
    )  # fmt: skip
    made = widgets.draw.click(
        handler(registry, handlers.make, _MAKING), [source, *asked], shown,
        show_progress_on=[widgets.draw], **ON_MODEL, **PRIVATE,
    )  # fmt: skip
    settings.way.change(
        lambda way: gr.Slider(visible=way == SECOND_ORDER), settings.way, settings.neurons,
        show_progress="hidden", **PRIVATE,
    )  # fmt: skip
    number = gr.State()
    results.gallery.select(
        handler(registry, handlers.picked), None, number, show_progress="hidden", **EACH, **PRIVATE
    ).then(
        handler(registry, handlers.explain, _FINDING), [widgets.forged, number], results.place,
        **ON_MODEL, **LATEST, **PRIVATE,
    )  # fmt: skip
    others = [*_chosen(widgets), widgets.stop.click]
    gr.on(others, None, cancels=[made], **PRIVATE)

    def when_selected(tab: gr.Tab) -> None:
        first = tab.select(
            handler(registry, handlers.make_first, _MAKING),
            [source, widgets.forged, widgets.offered, *asked],
            [widgets.true, widgets.target, widgets.offered, *shown],
            show_progress="hidden", js=_ADDRESSED, **ON_MODEL, **PRIVATE,
        )  # fmt: skip
        gr.on([*others, widgets.cues.input], None, cancels=[first], **PRIVATE)

    return when_selected


def _follow_the_names(registry: BundleRegistry, source, widgets: Widgets) -> None:
    """Cues and results are of the names and the bundle above them."""
    cues = [widgets.cues, widgets.filled_in]
    emptied = [widgets.forged, *cues, widgets.results.box, widgets.behind]
    for button in widgets.pairs:
        button.click(pair_of, [button], [widgets.true, widgets.target], **PRIVATE)
    gr.on(
        _chosen(widgets), handler(registry, handlers.change_names),
        cues, emptied, show_progress="hidden", **LATEST, **PRIVATE,
    )  # fmt: skip
    names = [widgets.true, widgets.target, widgets.offered]
    source.change(
        handler(registry, handlers.change_bundle), [source, widgets.forged, *names, *cues],
        [*widgets.pairs, widgets.settings.layers, *names, *emptied], **PRIVATE,
    )  # fmt: skip


def _chosen(widgets: Widgets) -> list[Callable]:
    """A visitor chooses other names; the page itself may write some, which starts nothing."""
    buttons = (button.click for button in widgets.pairs)
    return [widgets.true.input, widgets.target.input, *buttons]
