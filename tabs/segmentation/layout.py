"""The tab's components."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.segmentation.view import HINT
from tabs.ui import plots
from tabs.ui.image_input import ImageInput


@dataclass(frozen=True)
class Widgets:
    """All of the tab.

    ``search`` is the last search, ``shown_for`` the bundle whose example is shown. ``maps`` and
    ``more`` are the columns that are hidden until something was searched.
    """

    search: gr.State
    shown_for: gr.State
    image: gr.Image
    sample: gr.Button
    examples: gr.Gallery
    words: gr.Textbox
    anyway: gr.Checkbox
    go: gr.Button
    maps: gr.Column
    unknown: gr.HTML
    presence: gr.HTML
    name: gr.Dropdown
    heat: gr.Image
    mask: gr.Image
    threshold: gr.Slider
    here: gr.HTML
    more: gr.Column
    regions: gr.AnnotatedImage
    voters: gr.HTML
    png: gr.DownloadButton
    coco: gr.DownloadButton

    def results(self) -> list:
        """What a search fills."""
        return [
            self.search, self.maps, self.unknown, self.presence, self.name, self.heat, self.mask,
            self.here, self.more, self.regions, self.voters, self.png, self.coco,
        ]  # fmt: skip


def layout() -> Widgets:
    """The components; results are hidden until there are some."""
    parts = {"search": gr.State(), "shown_for": gr.State("")}
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            parts |= _question()
        with gr.Column(scale=3, min_width=300, visible=False, elem_id="segmentation-found") as maps:
            parts |= _maps()
    with gr.Column(visible=False, elem_id="segmentation-all") as more:
        parts |= _more()
    return Widgets(maps=maps, more=more, **parts)


def _question() -> dict:
    return {
        "image": ImageInput(label="Image", elem_id="segmentation-image", height=300),
        "words": gr.Textbox(
            label="What to look for", placeholder="cat, tree", elem_id="segmentation-words",
            max_length=10_000,
        ),
        "go": gr.Button("Find", variant="primary", elem_id="segmentation-go"),
        "anyway": gr.Checkbox(
            label="Show what is not found too", elem_id="segmentation-anyway"
        ),
        "examples": gr.Gallery(
            label="Images to try", columns=3, height="auto", allow_preview=False,
            object_fit="cover", buttons=[], visible=False, elem_id="segmentation-examples",
        ),
        "sample": gr.Button(
            "Another of the bundle's images", size="sm", elem_id="segmentation-sample"
        ),
    }  # fmt: skip


def _maps() -> dict:
    parts = {
        "unknown": plots.html(elem_id="segmentation-unknown"),
        "presence": plots.html(elem_id="segmentation-presence"),
        "name": gr.Dropdown(
            [], label="Show", interactive=True, visible=False, elem_id="segmentation-name"
        ),
    }
    with gr.Row():
        for label, part in (("Heat map", "heat"), ("Mask", "mask")):
            parts[part] = gr.Image(
                label=label, interactive=False, format="png", elem_id=f"segmentation-{part}",
                buttons=[], min_width=140,
            )  # fmt: skip
    parts["here"] = plots.html(plots.empty(HINT), elem_id="segmentation-here")
    parts["threshold"] = gr.Slider(
        0, 1, 0.5, label="Threshold of the mask", elem_id="segmentation-threshold"
    )
    return parts


def _more() -> dict:
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            regions = gr.AnnotatedImage(label="All names at once", elem_id="segmentation-regions")
        with gr.Column(scale=3, min_width=300):
            with gr.Accordion("Neurons behind it", open=False, elem_id="segmentation-behind"):
                voters = plots.html(elem_id="segmentation-voters")
            with gr.Row():
                png = gr.DownloadButton("Mask (PNG)", elem_id="segmentation-png")
                coco = gr.DownloadButton("All masks (COCO JSON)", elem_id="segmentation-coco")
    return {"regions": regions, "voters": voters, "png": png, "coco": coco}
