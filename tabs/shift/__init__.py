"""The tab "Compare sets": whether two sets of images differ, and in what."""

from __future__ import annotations

import gradio as gr

from tabs.server.events import LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import Handles, handler, shown_by
from tabs.server.registry import BundleRegistry
from tabs.shift.handlers import CompareRequest, Handlers, compare_example, compare_sets
from tabs.shift.layout import layout

TITLE = "Compare sets"

_FORMER = "Results for the previous upload. Press Compare for the current images and model."
# A result that is not of the current images and model says so (`style.css`), also one that comes
# when they have been changed since it was asked for.
_SCRIPTS = """() => {{
  const sets = window.cnSets ??= {{ brought: 0, asked: 0 }};
  const found = document.getElementById('shift-found');
  {action}
}}"""
_MARK = f"if (found) found.dataset.former = '{_FORMER}';"
_BROUGHT = _SCRIPTS.format(action="sets.brought += 1; " + _MARK)
_ASKED = _SCRIPTS.format(action="sets.asked = sets.brought;")
_CLEAR = "if (found) delete found.dataset.former;"
_ANSWERED = _SCRIPTS.format(action=f"if (sets.asked === sets.brought) {_CLEAR} else {_MARK}")
_REPLACED = (
    "(key, reference, new_) => { if (!reference && !new_) "
    "delete document.getElementById('shift-found')?.dataset.former; }"
)


def build(registry: BundleRegistry, source: gr.components.Component) -> Handles:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    widgets = layout(source)
    page = Handlers(registry, widgets)

    def compare(_, *request, progress=gr.Progress()):  # noqa: B008  Gradio's way to ask for one
        return page.compare(CompareRequest(*request), shown_by(progress))

    def example(_, bundle, progress=gr.Progress()):  # noqa: B008
        return page.example(bundle, shown_by(progress))

    def bundle_changed(_, *request):
        return page.bundle_changed(CompareRequest(*request))

    def opened(_, compared, *request):
        return page.opened(CompareRequest(*request), compared)

    def unit_chosen(_, compared, number):
        return page.unit_chosen(compared, number)

    asks = dict(show_progress_on=[widgets.progress], **PRIVATE, **ON_MODEL)
    for button, answer, inputs in (
        (widgets.go, compare, widgets.request),
        (widgets.sample, example, [source]),
    ):
        button.click(None, None, js=_ASKED, **PRIVATE)
        answered = button.click(handler(registry, answer, 120), inputs, widgets.results, **asks)
        answered.success(None, None, js=_ANSWERED, **PRIVATE)
    for event in (widgets.reference.change, widgets.new.change, source.change):
        event(None, None, js=_BROUGHT, **PRIVATE)
    changed = source.change(
        handler(registry, bundle_changed), widgets.request, widgets.results,
        show_progress="hidden", **LATEST, **PRIVATE,
    )  # fmt: skip
    changed.success(None, widgets.request, js=_REPLACED, **PRIVATE)
    widgets.units.input(
        handler(registry, unit_chosen), [widgets.compared, widgets.units],
        [widgets.unit, widgets.before, widgets.after], **LATEST, **PRIVATE,
    )  # fmt: skip

    def when_selected(tab: gr.Tab) -> None:
        tab.select(
            handler(registry, opened), [widgets.compared, *widgets.request], widgets.results,
            show_progress="hidden", **PRIVATE,
        )  # fmt: skip

    # For programs: nothing on the page triggers them.
    data = gr.JSON(visible=False, label="Comparison")
    gr.on(
        [], handler(registry, compare_sets, 120), widgets.request, data, api_name="compare_sets",
        **ON_MODEL,
    )  # fmt: skip
    gr.api(handler(registry, compare_example, 120), api_name="compare_example", **ON_MODEL)
    return Handles(when_selected)
