"""Switch neurons off and watch: how an image is read with the effects of its neurons scaled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

import gradio as gr
import numpy as np
from PIL import Image

from tabs.edit.data import edited_data, shown
from tabs.edit.edits import (
    OTHER_MEANS,
    edit_of_file,
    edit_of_text,
    edited,
    fewest,
    for_real,
    with_words,
)
from tabs.edit.example import given_or_example, restored
from tabs.edit.reading import MOST_IMAGES, Reading, read
from tabs.neuron_page import default_names, names_of
from tabs.search import MOST_LETTERS
from tabs.server.events import LATEST, ON_MODEL, PRIVATE
from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.server.uploads import open_image
from tabs.ui.former_result import clear, says_whose
from tabs.ui.image_input import ImageInput
from tabs.ui.plots import empty, html, percent

TITLE = "Edit"
_NOTHING_READ = "Read a picture first."
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


@dataclass(frozen=True)
class Inputs:
    """Widgets of what is read."""

    image: gr.Image
    names: gr.Textbox
    wanted: gr.Dropdown
    go: gr.Button
    sample: gr.Button
    files: gr.File


@dataclass(frozen=True)
class Tools:
    """Widgets of what is done to it."""

    find: gr.Button
    reset: gr.Button
    save: gr.Button
    load: gr.UploadButton
    words: gr.Textbox
    more_than: gr.Number
    off: gr.Button


@dataclass(frozen=True)
class Shown:
    """The reading: in the session, as HTML, its edit; what the model says of it."""

    state: gr.State
    result: gr.HTML
    edit: gr.Textbox
    measure: gr.Button
    measured: gr.JSON


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events; returns what a permanent link fills in."""
    gr.HTML(
        '<p class="cn-lede">What would the model say without this neuron? Turn the neurons that '
        "speak for its answer down, or off, and watch the answer change; or let the fewest that "
        "mislead it be found.</p>"
    )
    handlers = Handlers(registry)
    events = Events(handlers, source, _inputs(registry.first), _tools(), _shown())
    _endpoints(handlers, source, events.inputs, events.shown.edit)
    return events.connect()


# -- layout


def _inputs(session: BundleSession) -> Inputs:
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            image = ImageInput("Your picture", elem_id="edit-image", height=220)
        with gr.Column(scale=3, min_width=260):
            names = gr.Textbox(
                default_names(session), label="Classes to choose from", elem_id="edit-names",
                max_lines=1, max_length=MOST_LETTERS,
            )  # fmt: skip
            with gr.Row(elem_classes="cn-search"):
                wanted = gr.Dropdown(
                    [""], value="", label="It should be", elem_id="edit-wanted", scale=2,
                    allow_custom_value=True, min_width=120,
                )  # fmt: skip
                wanted.api_info = lambda: {"type": "string"}
                go = gr.Button("Read", variant="primary", scale=1, min_width=90, elem_id="edit-go")
                sample = gr.Button("Example", scale=1, min_width=90, elem_id="edit-example")
            with gr.Accordion("More pictures under the same edit", open=False):
                files = gr.File(
                    label=f"Up to {MOST_IMAGES - 1} more", file_count="multiple",
                    file_types=["image"], elem_id="edit-files", height=130,
                )  # fmt: skip
    return Inputs(image, names, wanted, go, sample, files)


def _tools() -> Tools:
    with gr.Row(elem_classes="cn-search cn-edit-tools"):
        find = gr.Button("Find edits for me", variant="primary", elem_id="edit-find", min_width=150)
        reset = gr.Button("All as they were", elem_id="edit-reset", min_width=130)
        save = gr.Button("Save as JSON", elem_id="edit-save", min_width=120)
        load = gr.UploadButton(
            "Load JSON", file_types=[".json"], elem_id="edit-load", min_width=110
        )
    with gr.Row(elem_classes="cn-search cn-edit-tools"):
        words = gr.Textbox(
            label="Switch off all that say", placeholder="red", max_lines=1, max_length=100,
            elem_id="edit-words", min_width=160, scale=3,
        )  # fmt: skip
        more_than = gr.Number(
            0.1, label="with a coefficient above", elem_id="edit-more-than", min_width=150,
            step=0.05, scale=2,
        )  # fmt: skip
        off = gr.Button("Switch off", elem_id="edit-off", min_width=100, scale=1)
    return Tools(find, reset, save, load, words, more_than, off)


def _shown() -> Shown:
    result = html(empty("The example is being read …"), elem_id="edit-result")
    return Shown(
        gr.State(), result, gr.Textbox("", elem_classes="offstage", label="Edit"),
        gr.Button("For real", elem_classes="offstage", elem_id="edit-measure"),
        gr.JSON(visible="hidden", label="For real"),
    )  # fmt: skip


# -- what is done


@dataclass(frozen=True)
class Handlers:
    """What the tab does, over the sessions of a registry."""

    registry: BundleRegistry

    def edit(
        self, bundle: str = "", image: Image.Image | None = None, names: str = "",
        wanted: str = "", edit: str = "",
    ) -> dict:  # fmt: skip
        """How an image is read before and after an edit of neurons, and by whose doing.

        Returns each class's probability (or cosine, of a model without softmax) before the edit,
        after it, and with the same edit made on the activations of the model ("for real"; null
        where that cannot be); and the neurons that speak for the top class and against it, with
        what they add, their words, whether these are reliable, and a map of the patches.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels; without
                one, the bundle's example.
            names: class names with commas between them; "" for the example's.
            wanted: what speaks against the top class; "" for the runner-up.
            edit: JSON of an edit, as this returns it; "" for none. Factors scale about the means
                over the bundle's data.
        """
        session = self.registry[bundle]
        return edited_data(session, given_or_example(session, image, names, wanted, edit))

    def find(
        self, bundle: str = "", image: Image.Image | None = None, names: str = "",
        wanted: str = "",
    ) -> dict:  # fmt: skip
        """The fewest neurons whose mean-ablation turns an image to another class.

        Returns what `edit` does, under that edit, with the number of neurons (`count`) and the
        share of random sets of as many that turn the image as well.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            image: as for `edit`; without one, the bundle's example.
            names: class names with commas between them; "" for the example's.
            wanted: what it should be read as; "" for the runner-up.
        """
        session = self.registry[bundle]
        reading = given_or_example(session, image, names, wanted, "")
        edit, found = fewest(session, reading, wanted)
        return found | edited_data(session, edited(session, reading, edit))

    def read(
        self, old: Reading | None, bundle: str, image: Image.Image | None, names: str, wanted: str,
        files: list[str] | None, text: str,
    ) -> tuple:  # fmt: skip
        """What was brought, under the edit that there is."""
        if image is None:
            raise ValueError("Choose, paste or take a picture first.")
        session, asked = self.registry[bundle], names_of(names)
        more = [open_image(file) for file in (files or [])[:MOST_IMAGES]]
        picture = old.picture if old and _same(image, old.images[0]) else None
        keep = old is not None and old.bundle == session.key
        reading = read(
            session, [image, *more], asked, wanted if wanted in asked else "",
            edit_of_text(text) if keep else None, picture,
        )  # fmt: skip
        return self._drawn(reading)

    def find_fewest(self, old: Reading | None) -> tuple:
        """The edit that turns what is shown."""
        if old is None:
            raise ValueError(_NOTHING_READ)
        edit, found = fewest(self.registry[old.bundle], old, "")
        count = found["count"]
        note = (
            f"Without {count} neuron{'s' * (count > 1)} it is read as “{found['wanted']}”: the "
            f"fewest that turn this picture. Of 1,000 random sets of as many, "
            f"{percent(found['random_turn'])} turn it too. What helps one picture may hurt others: "
            "“export mend” measures that."
        )
        return self._again(old, edit, note)

    def switch_off(
        self, old: Reading | None, words: str, more_than: float | None, text: str
    ) -> tuple:
        """The edit that there is, with all that say some words off."""
        if old is None:
            raise ValueError(_NOTHING_READ)
        return self._again(old, with_words(edit_of_text(text) or old.edit, words, more_than))

    def load(self, old: Reading | None, path: str | None) -> tuple:
        """An edit from a file."""
        if old is None:
            raise ValueError(_NOTHING_READ)
        edit = edit_of_file(path)
        return self._again(old, edit, "" if edit.means == "data" else OTHER_MEANS)

    def run_for_real(self, old: Reading | None, text: str) -> dict:
        """What the model itself says, for the script: with the edit that it was asked of."""
        if old is None or not text:
            return gr.skip()
        try:
            found = for_real(self.registry[old.bundle], old, edit_of_text(text) or old.edit)
        except ValueError as error:  # of a model whose weights cannot hold it
            gr.Info(str(error))
            return {"edit": text, "shares": None}
        return {"edit": text, "shares": found}

    def restore(self, bundle: str, query: str) -> tuple:
        """What an address asks for, where it is one of this tab."""
        given = {name: values[0] for name, values in parse_qs(query.lstrip("?")[:2000]).items()}
        if given.get("tab") != "edit":
            return gr.skip()
        try:
            session = self.registry[given.get("bundle") or bundle]
        except gr.Error:  # the page says so, and shows the first
            session, query = self.registry.first, "?tab=edit"
        reading = restored(session, query)
        return reading.images[0], ", ".join(reading.names), *self._drawn(reading)

    def _drawn(self, reading: Reading, note: str = "") -> tuple:
        wanted = gr.update(choices=["", *reading.names], value=reading.names[reading.wanted])
        page = shown(self.registry[reading.bundle], reading, note)
        return reading, wanted, page, reading.edit.to_json()

    def _again(self, reading: Reading, edit, note: str = "") -> tuple:
        return self._drawn(edited(self.registry[reading.bundle], reading, edit), note)


def _emptied() -> tuple:
    return None, gr.update(choices=[""], value=""), empty("Read a picture."), ""


def _same(one: Image.Image, other: Image.Image) -> bool:
    """Whether the page sent a picture back as it got it, up to how it was packed."""
    if one.size != other.size:
        return False
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean()) < 4


def _endpoints(handlers: Handlers, source: gr.Dropdown, inputs: Inputs, edit: gr.Textbox) -> None:
    data = gr.JSON(visible="hidden", label="Reading")
    given = [source, inputs.image, inputs.names, inputs.wanted]
    for handler, name, more in ((handlers.edit, "edit", [edit]), (handlers.find, "find_edit", [])):
        gr.on(
            [], on_gpu()(user_errors(handler)), [*given, *more], data, api_name=name,
            **ON_MODEL,
        )  # fmt: skip


# -- what leads to what


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
        emptied = self.source.input(_emptied, None, self._outputs, **PRIVATE)
        then_restore(emptied.then, _IF_SHOWN)
        return Handles(
            then_restore, lambda tab: then_restore(tab.select, "() => window.cnEditMissing()")
        )
