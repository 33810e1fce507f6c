"""The components of the tab "Edit"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.ui.image_input import ImageInput
from tabs.ui.plots import empty, html
from tabs.ui.words import MOST_LETTERS

TITLE = "Edit"
MOST_IMAGES = 8
_LEDE = (
    '<p class="cn-lede">What would the model say without these neurons? Scale the neurons behind '
    "its answer, or switch them off, and see the answer change. Or let the page find the fewest "
    "that mislead it.</p>"
)


@dataclass(frozen=True)
class Widgets:
    """What the handlers read and write; `opened` holds what is shown, `edit` an edit's JSON."""

    source: gr.Dropdown
    image: gr.Image
    names: gr.Textbox
    wanted: gr.Dropdown
    classify: gr.Button
    sample: gr.Button
    files: gr.File
    find: gr.Button
    reset: gr.Button
    save: gr.Button
    load: gr.UploadButton
    words: gr.Textbox
    off: gr.Button
    opened: gr.State
    result: gr.HTML
    edit: gr.Textbox
    measure: gr.Button
    measured: gr.JSON
    restore: gr.Button
    address: gr.Textbox

    @property
    def request(self) -> list:
        """The inputs of a handler, in the order of `EditRequest`."""
        return [self.source, self.opened, self.image, self.names, self.wanted, self.files,
                self.words, self.load, self.address, self.edit]  # fmt: skip

    @property
    def results(self) -> list:
        """What a reading fills."""
        return [self.result, self.opened, self.image, self.names, self.wanted]


def layout(source: gr.Dropdown) -> Widgets:
    """An image with its classes, what can be done to the neurons, the result."""
    gr.HTML(_LEDE)
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            image = ImageInput("Your image", elem_id="edit-image", height=220)
        with gr.Column(scale=3, min_width=260):
            names = gr.Textbox(
                "", label="Classes", elem_id="edit-names", max_lines=1, max_length=MOST_LETTERS,
                placeholder="cat, dog",
                info="With commas between. A new image brings the model’s own first five.",
            )  # fmt: skip
            with gr.Row(elem_classes="cn-search"):
                wanted = gr.Dropdown(
                    [""], value="", label="Correct class", elem_id="edit-wanted", scale=2,
                    allow_custom_value=True, min_width=120,
                )  # fmt: skip
                wanted.api_info = lambda: {"type": "string"}
                classify = gr.Button(
                    "Classify", variant="primary", scale=1, min_width=90, elem_id="edit-go"
                )
                sample = gr.Button("Example", scale=1, min_width=90, elem_id="edit-example")
            with gr.Accordion("More images under the same edit", open=False):
                files = gr.File(
                    label=f"Up to {MOST_IMAGES - 1} more", file_count="multiple",
                    file_types=["image"], elem_id="edit-files", height=130,
                )  # fmt: skip
    with gr.Row(elem_classes="cn-search cn-edit-tools"):
        find = gr.Button("Find edits", variant="primary", elem_id="edit-find", min_width=120)
        reset = gr.Button("Reset", elem_id="edit-reset", min_width=90)
        save = gr.Button("Save edit", elem_id="edit-save", min_width=110)
        load = gr.UploadButton(
            "Load edit", file_types=[".json"], elem_id="edit-load", min_width=110
        )
        words = gr.Textbox(
            label="Switch off all neurons that say", placeholder="red", max_lines=1,
            max_length=100, elem_id="edit-words", min_width=160, scale=3,
        )  # fmt: skip
        off = gr.Button("Switch off", elem_id="edit-off", min_width=100, scale=1)
    offstage = dict(elem_classes="offstage")
    return Widgets(
        source=source, image=image, names=names, wanted=wanted, classify=classify, sample=sample,
        files=files, find=find, reset=reset, save=save, load=load, words=words, off=off,
        opened=gr.State(), result=html(empty("Choose an image."), elem_id="edit-result"),
        edit=gr.Textbox("", label="Edit", **offstage),
        measure=gr.Button("Measure", elem_id="edit-measure", **offstage),
        measured=gr.JSON(visible="hidden", label="Measured"),
        restore=gr.Button("Restore", elem_id="edit-restore", **offstage),
        address=gr.Textbox(label="Edit's address", **offstage),
    )  # fmt: skip
