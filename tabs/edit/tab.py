"""Switch neurons off and watch: how an image is read with the effects of its neurons scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from tabs.edit import layout
from tabs.edit.handlers import Handlers, emptied
from tabs.edit.layout import Inputs, Shown, Tools
from tabs.server.events import LATEST, ON_MODEL, PRIVATE
from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.ui.former_result import clear, says_whose

TITLE = "Edit"
# In the browser: an address of this tab if it is shown; the last input as the sliders have it.
_IF_SHOWN = "() => new URLSearchParams(location.search).get('tab') === 'edit' ? '?tab=edit' : ''"
_CURRENT = "(...all) => [...all.slice(0, -1), window.cnEdit()]"
_OF_THIS_TAB = "/[?&]tab=edit/.test(window.cnEditAsked)"
_RESULT = ["edit-result"]


@dataclass(frozen=True)
class Handles:
    """What the page fires: `then_restore(event, js)` shows what the query that `js` gives asks for,
    or an example, and nothing where it is of another tab; `when_selected` opens with an example.
    """

    then_restore: Callable[[Callable, str], None]
    when_selected: Callable[[gr.Tab], None]


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events; returns what a permanent link fills in."""
    gr.HTML(
        '<p class="cn-lede">What would the model say without this neuron? Turn the neurons that '
        "speak for its answer down, or off, and watch the answer change; or let the fewest that "
        "mislead it be found.</p>"
    )
    handlers = Handlers(registry)
    widgets = layout.inputs(registry.first), layout.tools(), layout.shown()
    events = Events(handlers, source, *widgets)
    _endpoints(handlers, source, events.inputs, events.shown.edit)
    return events.connect()


def _endpoints(handlers: Handlers, source: gr.Dropdown, inputs: Inputs, edit: gr.Textbox) -> None:
    data = gr.JSON(visible="hidden", label="Reading")
    given = [source, inputs.image, inputs.names, inputs.wanted]
    for handler, name, more in ((handlers.edit, "edit", [edit]), (handlers.find, "find_edit", [])):
        gr.on(
            [], on_gpu()(user_errors(handler)), [*given, *more], data, api_name=name,
            **ON_MODEL,
        )  # fmt: skip


@dataclass(frozen=True)
class Events:
    """Connects widgets with handlers."""

    handlers: Handlers
    source: gr.Dropdown
    inputs: Inputs
    tools: Tools
    shown: Shown

    @property
    def _outputs(self) -> list:
        return [self.shown.state, self.inputs.wanted, self.shown.result, self.shown.edit]

    def connect(self) -> Handles:
        """All events of the tab."""
        inputs, tools, mine = self.inputs, self.tools, self.shown
        given = [
            mine.state, self.source, inputs.image, inputs.names, inputs.wanted, inputs.files,
            mine.edit,
        ]  # fmt: skip
        found = [
            self._read(event, self.handlers.read, given, _CURRENT)
            for event in (inputs.go.click, inputs.image.upload, inputs.names.submit,
                          inputs.wanted.input, inputs.files.change)
        ]  # fmt: skip
        says_whose(_RESULT, [inputs.image.input, inputs.files.change], found)
        self._read(tools.find.click, self.handlers.find_fewest, [mine.state])
        said = [mine.state, tools.words, tools.more_than, mine.edit]
        for event in (tools.off.click, tools.words.submit):
            self._read(event, self.handlers.switch_off, said, _CURRENT)
        self._read(tools.load.upload, self.handlers.load, [mine.state, tools.load])
        self._then_measure(gr.on([mine.measure.click], lambda: None, **PRIVATE))
        for button, call in ((tools.reset, "cnEditReset"), (tools.save, "cnEditSave")):
            button.click(None, None, js=f"() => window.{call}()", **PRIVATE)
        return self._restoring()

    def _read(
        self, event: Callable, handler: Callable, given: list, js: str | None = None,
        outputs: list | None = None,
    ) -> gr.events.Dependency:  # fmt: skip
        """A handler whose answer is a reading, which is then run through the model."""
        read = event(
            on_gpu()(user_errors(handler)), given, outputs or self._outputs, js=js,
            show_progress_on=[self.shown.result], **ON_MODEL, **LATEST, **PRIVATE,
        )  # fmt: skip
        self._then_measure(read)
        return read

    def _then_measure(self, event) -> None:
        """Put the address in place, then ask the model itself."""
        mine = self.shown
        kept = event.success(None, None, js="() => window.cnEditKeep()", **PRIVATE)
        kept.then(
            on_gpu()(user_errors(self.handlers.run_for_real)), [mine.state, mine.edit],
            [mine.measured], js=_CURRENT, show_progress="hidden", **ON_MODEL, **LATEST,
            **PRIVATE,
        ).then(None, [mine.measured], js="(found) => window.cnReal(found)", **PRIVATE)  # fmt: skip

    def _restoring(self) -> Handles:
        address = gr.Textbox(elem_classes="offstage", label="Edit's address")

        def then_restore(event: Callable, js: str) -> None:
            read = self._read(
                event, self.handlers.restore, [self.source, address],
                f"(bundle, _) => [bundle, window.cnEditAsked = ({js})()]",
                [self.inputs.image, self.inputs.names, *self._outputs],
            )  # fmt: skip
            clear(_RESULT, read, _OF_THIS_TAB)

        then_restore(self.inputs.sample.click, "() => '?tab=edit'")
        chosen = self.source.input(emptied, None, self._outputs, **PRIVATE)
        then_restore(chosen.then, _IF_SHOWN)
        return Handles(
            then_restore, lambda tab: then_restore(tab.select, "() => window.cnEditMissing()")
        )
