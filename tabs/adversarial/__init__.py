"""The tab that makes images of one class that are read as another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import gradio as gr

from clipneurons.adversarial.cue_request import SECOND_ORDER
from tabs.adversarial import handlers
from tabs.adversarial.layout import Widgets, layout, pair_of
from tabs.adversarial.view import PURPOSE
from tabs.server.events import EACH, LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import Handles, handler
from tabs.server.registry import BundleRegistry

TITLE = "Adversarial images"
INTRO = (
    "Neurons that write toward one class also write toward other texts. Draw those beside an "
    "object, and the model may read it as that class. This tab finds such cues, draws them, and "
    "counts how often the model is fooled."
)
# Seconds of a GPU, where one is lent: to find cues, and to make images.
_FINDING, _MAKING = 60, 120


def build(registry: BundleRegistry, source: gr.components.Component) -> Handles:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    gr.Markdown(f"{INTRO} {PURPOSE}", elem_classes="cn-lede")
    widgets = layout(registry, source)
    for function, seconds in ((handlers.find_cues, _FINDING), (handlers.attack, _MAKING)):
        bound = handler(registry, function, seconds)
        gr.api(bound, api_name=function.__name__, **ON_MODEL)
    _follow_the_names(registry, widgets)
    return Handles(_makers(registry, widgets))


def _makers(registry: BundleRegistry, widgets: Widgets) -> Callable[[gr.Tab], None]:
    """What fills the tab: its buttons, an image that is chosen, the tab being opened."""
    fields = set(widgets.fields.values())
    widgets.look.click(
        handler(registry, partial(handlers.find, widgets), _FINDING), fields,
        [widgets.unknown, widgets.cues, widgets.more_cues],
        show_progress_on=[widgets.look], **ON_MODEL, **PRIVATE,
    )  # fmt: skip
    made = widgets.draw.click(
        handler(registry, partial(handlers.make, widgets), _MAKING), fields, widgets.shown,
        show_progress_on=[widgets.draw], **ON_MODEL, **PRIVATE,
    )  # fmt: skip
    widgets.fields["method"].change(
        lambda method: gr.Slider(visible=method == SECOND_ORDER), widgets.fields["method"],
        widgets.fields["neurons"], show_progress="hidden", **PRIVATE,
    )  # fmt: skip
    number = gr.State()
    widgets.gallery.select(
        handler(registry, handlers.picked), None, number, show_progress="hidden", **EACH, **PRIVATE
    ).then(
        handler(registry, handlers.explain, _FINDING), [widgets.made, number], widgets.place,
        **ON_MODEL, **LATEST, **PRIVATE,
    )  # fmt: skip
    others = [*_chosen(widgets), widgets.stop.click]
    gr.on(others, None, cancels=[made], **PRIVATE)

    def when_selected(tab: gr.Tab) -> None:
        inputs = fields | {widgets.made, widgets.offered}
        first = tab.select(
            handler(registry, partial(handlers.make_first, widgets), _MAKING), inputs,
            [*widgets.shown, *_names(widgets)],
            show_progress="hidden", js=_addressed(widgets, inputs), **ON_MODEL, **PRIVATE,
        )  # fmt: skip
        gr.on([*others, widgets.fields["cues"].input], None, cancels=[first], **PRIVATE)

    return when_selected


def _follow_the_names(registry: BundleRegistry, widgets: Widgets) -> None:
    """Results are of the names and the bundle above them."""
    classes = [widgets.fields["true_class"], widgets.fields["target_class"]]
    for button in widgets.pairs:
        button.click(pair_of, [button], classes, **PRIVATE)
    gr.on(
        _chosen(widgets), handler(registry, partial(handlers.clear, widgets)), None,
        widgets.shown, show_progress="hidden", **LATEST, **PRIVATE,
    )  # fmt: skip
    source = widgets.fields["bundle"]
    source.change(
        handler(registry, partial(handlers.change_bundle, widgets)),
        {source, *classes, widgets.made, widgets.offered},
        [*widgets.pairs, widgets.fields["layers"], *_names(widgets), *widgets.shown], **PRIVATE,
    )  # fmt: skip


def _names(widgets: Widgets) -> list[gr.components.Component]:
    return [widgets.fields["true_class"], widgets.fields["target_class"], widgets.offered]


def _chosen(widgets: Widgets) -> list[Callable]:
    """A visitor chooses other names; the page itself may write some, which starts nothing."""
    buttons = (button.click for button in widgets.pairs)
    return [widgets.fields["true_class"].input, widgets.fields["target_class"].input, *buttons]


def _addressed(widgets: Widgets, inputs: set[gr.components.Component]) -> str:
    """Script that makes the example the address's bundle's; Gradio sorts a set by its ids."""
    place = sorted(component._id for component in inputs).index(widgets.fields["bundle"]._id)
    return f"(...values) => Object.assign(values, {{{place}: window.cnBundle(values[{place}])}})"
