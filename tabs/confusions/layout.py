"""The components of the tab "Confusions"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.server.uploads import MOST_IMAGES
from tabs.ui.plots import html

TITLE = "Confusions"
MOST_CLASSES = 20
_LEDE = (
    '<p class="cn-lede">Which of your classes does the model confuse, and which neurons are behind '
    "it? Bring labelled images: a folder of class folders, or zip files of them.</p>"
)
_NOTE = (
    f'<p class="cn-note">At most {MOST_IMAGES} images of {MOST_CLASSES} classes. The folder that '
    "an image lies in is its class; a zip file without folders is one class. A zip file may have "
    "10 MB; the images of a folder are sent one by one.</p>"
)
_FOLDER = (
    '<label class="cn-folder">Choose a folder<input type="file" webkitdirectory multiple '
    'id="confusions-folder"></label>'
)


@dataclass(frozen=True)
class Widgets:
    """What the handlers read and write; `classified` and `handed` are held in the session."""

    source: gr.Dropdown
    files: gr.File
    go: gr.Button
    sample: gr.Button
    progress: gr.HTML
    classified: gr.State
    found: gr.Column
    matrix: gr.HTML
    details: gr.Column
    pair: gr.Radio
    images: gr.Gallery
    units: gr.HTML
    ablate: gr.Button
    ablation: gr.HTML
    download: gr.DownloadButton
    command: gr.Textbox
    handed: gr.State

    @property
    def results(self) -> list:
        """What a classification fills."""
        return [self.progress, self.classified, self.found, self.matrix, self.details, self.pair,
                self.images, self.units, self.ablation, self.download, self.command]  # fmt: skip


def layout(source: gr.Dropdown) -> Widgets:
    """Files, the matrix, the pairs with their images and units, what to do next."""
    gr.HTML(_LEDE)
    with gr.Row():
        with gr.Column(scale=3, min_width=260):
            files = gr.File(
                label="Zip files or images", file_count="multiple", file_types=[".zip", "image"],
                height=120, elem_id="confusions-files",
            )  # fmt: skip
        with gr.Column(scale=2, min_width=200):
            html(_FOLDER)
            go = gr.Button("Find confusions", variant="primary", elem_id="confusions-go")
            sample = gr.Button("Try the example", elem_id="confusions-example")
    gr.HTML(_NOTE)
    progress = html(elem_id="confusions-progress")
    with gr.Column(visible=False, elem_id="confusions-found") as found:
        matrix = html(elem_id="confusions-matrix")
        with gr.Column(visible=False) as details:
            pair = gr.Radio(
                [("", 0)], value=0, label="Confused most often", elem_id="confusions-pair",
                info="Correct class → predicted class, with the number of images.",
            )  # fmt: skip
            with gr.Row():
                with gr.Column(min_width=280):
                    gr.HTML('<p class="cn-note">Choose an image to open it in Edit.</p>')
                    images = gr.Gallery(
                        label="Images of this confusion", columns=5, height="auto",
                        allow_preview=False, buttons=[], show_label=False,
                        elem_id="confusions-images",
                    )  # fmt: skip
                with gr.Column(min_width=280):
                    units = html(elem_id="confusions-units")
                    ablate = gr.Button("Ablate these on all images", elem_id="confusions-ablate")
                    ablation = html(elem_id="confusions-ablation")
        with gr.Row():
            download = gr.DownloadButton("Download JSON", elem_id="confusions-json")
        command = gr.Textbox(
            label="Go on with the whole data set: units found on one half, measured on the other",
            interactive=False, buttons=["copy"], lines=1, elem_classes="cn-command",
            elem_id="confusions-command",
        )  # fmt: skip
    # Gradio would refuse what the choices of another result were.
    pair.preprocess = lambda number: number if isinstance(number, int) else 0
    return Widgets(
        source=source, files=files, go=go, sample=sample, progress=progress, classified=gr.State(),
        found=found, matrix=matrix, details=details, pair=pair, images=images, units=units,
        ablate=ablate, ablation=ablation, download=download, command=command, handed=gr.State(),
    )  # fmt: skip
