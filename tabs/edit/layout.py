"""The widgets of the tab "Edit"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.edit.reading import MOST_IMAGES
from tabs.server.session import BundleSession
from tabs.ui.image_input import ImageInput
from tabs.ui.plots import empty, html
from tabs.ui.suggestions import default_names
from tabs.ui.words import MOST_LETTERS


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


def inputs(session: BundleSession) -> Inputs:
    """What is read."""
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


def tools() -> Tools:
    """What can be done to it."""
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


def shown() -> Shown:
    """Where the reading stands."""
    result = html(empty("The example is being read …"), elem_id="edit-result")
    return Shown(
        gr.State(), result, gr.Textbox("", elem_classes="offstage", label="Edit"),
        gr.Button("For real", elem_classes="offstage", elem_id="edit-measure"),
        gr.JSON(visible="hidden", label="For real"),
    )  # fmt: skip
