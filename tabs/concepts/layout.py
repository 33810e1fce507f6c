"""The components of the tab "Concepts"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from tabs.ui.image_input import ImageInput
from tabs.ui.plots import html

TITLE = "Your image"
_LEDE = (
    '<p class="cn-lede">Bring an image to see which concepts the model’s neurons recognise in it, '
    "and where. Then look for your own words in it, or edit the neurons behind its class.</p>"
)


@dataclass(frozen=True)
class Widgets:
    """What the handlers read and write; `concepts` and `comparison` hold results as JSON."""

    source: gr.Dropdown
    image: gr.Image
    gallery: gr.Gallery
    go: gr.Button
    result: gr.HTML
    concepts: gr.JSON
    to_words: gr.Button
    to_edit: gr.Button
    handed: gr.State
    files: gr.File
    compare: gr.Button
    compared: gr.HTML
    comparison: gr.JSON


def layout(source: gr.Dropdown, examples: Sequence[tuple[Image.Image, str]]) -> Widgets:
    """An image and examples to try, the result, and the comparison of several images."""
    gr.HTML(_LEDE)
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            image = ImageInput("Your image", elem_id="concepts-image", height=240)
        with gr.Column(scale=3, min_width=260):
            gr.HTML('<p class="cn-note">Or try one of these:</p>')
            gallery = gr.Gallery(
                list(examples), label="Or try one of these", columns=6, height="auto",
                allow_preview=False, object_fit="cover", elem_id="concepts-examples", buttons=[],
                show_label=False,
            )  # fmt: skip
            go = gr.Button("Find concepts", variant="primary", elem_id="concepts-go")
    result = html(elem_id="concepts-result")
    concepts = gr.JSON(visible="hidden", label="Concepts")
    with gr.Row(elem_classes="cn-search"):
        to_words = gr.Button("Find words in this image", elem_id="concepts-to-words")
        to_edit = gr.Button("Edit the neurons behind it", elem_id="concepts-to-edit")
    with gr.Accordion("Compare several images", open=False, elem_id="concepts-several"):
        files = gr.File(
            label="Two to eight images", file_count="multiple", file_types=["image"],
            elem_id="concepts-files", height=150,
        )  # fmt: skip
        compare = gr.Button("Compare", elem_id="concepts-compare")
        compared = html(elem_id="concepts-compared")
        comparison = gr.JSON(visible="hidden", label="Comparison")
    return Widgets(
        source=source, image=image, gallery=gallery, go=go, result=result, concepts=concepts,
        to_words=to_words, to_edit=to_edit, handed=gr.State(), files=files, compare=compare,
        compared=compared, comparison=comparison,
    )  # fmt: skip
