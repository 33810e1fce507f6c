"""What stands where in the tab."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from clipneurons.segmentation.methods import BEST, method_names
from tabs.segmentation.found import methods_of
from tabs.segmentation.pictures import BLANK
from tabs.server.registry import BundleRegistry
from tabs.ui import plots
from tabs.ui.image_input import ImageInput

HINT = "Click on the heat map to read what the neurons say at that place."
# Of all kinds of models; those that a bundle's model does not have are refused by `search`.
_EVERY = list(dict.fromkeys([*method_names("vit"), *method_names("resnet")]))


@dataclass(frozen=True)
class Question:
    """What a visitor asks with: a picture, words, and how to look."""

    image: gr.Image
    sample: gr.Button
    examples: gr.Gallery
    words: gr.Textbox
    method: gr.Dropdown
    finer: gr.Checkbox
    refine: gr.Checkbox
    go: gr.Button


@dataclass(frozen=True)
class Maps:
    """One name's heat map and mask, with what changes them, and what is said about both."""

    box: gr.Column
    unknown: gr.HTML
    name: gr.Dropdown
    heat: gr.Image
    mask: gr.Image
    opacity: gr.Slider
    threshold: gr.Slider
    there: gr.HTML
    said: gr.HTML


@dataclass(frozen=True)
class More:
    """All names at once, the neurons behind one, and files."""

    box: gr.Column
    regions: gr.AnnotatedImage
    none: gr.Slider
    voters: gr.HTML
    picture: gr.DownloadButton
    annotations: gr.DownloadButton


@dataclass(frozen=True)
class Comparison:
    """Several methods side by side."""

    methods: gr.Dropdown
    go: gr.Button
    gallery: gr.Gallery


@dataclass(frozen=True)
class Widgets:
    """All of the tab; `found` is the last search, `shown_for` the bundle whose example is shown."""

    found: gr.State
    shown_for: gr.State
    question: Question
    maps: Maps
    more: More
    comparison: Comparison


def layout(registry: BundleRegistry) -> Widgets:
    """The tab's components; results are hidden until there are some."""
    names = list(methods_of(registry.first.bundle.config))
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            question = _question(names)
        with gr.Column(scale=3, min_width=300, visible=False, elem_id="segmentation-found") as box:
            maps = _maps(box)
    with gr.Column(visible=False, elem_id="segmentation-all") as box:
        more = _more(box)
    with gr.Accordion("Compare methods", open=False, elem_id="segmentation-comparison"):
        comparison = _comparison(names)
    return Widgets(gr.State(), gr.State(""), question, maps, more, comparison)


def _question(names: list[str]) -> Question:
    image = ImageInput(label="Image", elem_id="segmentation-image", height=300)
    examples = gr.Gallery(
        label="Pictures to try", columns=3, height="auto", allow_preview=False,
        object_fit="cover", buttons=[], visible=False, elem_id="segmentation-examples",
    )  # fmt: skip
    sample = gr.Button("Another of the bundle's images", size="sm", elem_id="segmentation-sample")
    words = gr.Textbox(
        label="What to look for", placeholder="cat, tree", elem_id="segmentation-words",
        max_length=10_000,
    )  # fmt: skip
    go = gr.Button("Find", variant="primary", elem_id="segmentation-go")
    with gr.Accordion("Advanced", open=False, elem_id="segmentation-advanced"):
        # Custom values are methods of other bundles' towers, which `search` sorts out.
        method = gr.Dropdown(
            names, value=BEST, label="Method", allow_custom_value=True,
            elem_id="segmentation-method",
        )  # fmt: skip
        method.api_info = lambda: {"type": "string", "enum": _EVERY}
        finer = gr.Checkbox(label="Look in windows (finer, slower)", elem_id="segmentation-finer")
        refine = gr.Checkbox(label="Follow the edges", elem_id="segmentation-refine")
    return Question(image, sample, examples, words, method, finer, refine, go)


def _maps(box: gr.Column) -> Maps:
    unknown = plots.html(elem_id="segmentation-unknown")
    name = gr.Dropdown(
        [], label="Show", interactive=True, visible=False, elem_id="segmentation-name"
    )
    with gr.Row():
        heat, mask = (
            gr.Image(
                label=label, interactive=False, format="png", elem_id=f"segmentation-{part}",
                buttons=[], min_width=140,
            )
            for label, part in (("Heat map", "heat"), ("Mask", "mask"))
        )  # fmt: skip
    there = plots.html(elem_id="segmentation-agreement")
    said = plots.html(plots.empty(HINT), elem_id="segmentation-here")
    with gr.Row():
        opacity = gr.Slider(
            0, 1, 0.6, label="Opacity of the heat map", elem_id="segmentation-opacity"
        )
        threshold = gr.Slider(
            0, 1, 0.5, label="Threshold of the mask", elem_id="segmentation-threshold"
        )
    return Maps(box, unknown, name, heat, mask, opacity, threshold, there, said)


def _more(box: gr.Column) -> More:
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            regions = gr.AnnotatedImage(label="All names at once", elem_id="segmentation-regions")
            none = gr.Slider(
                0, 1, BLANK, label="Leave blank what scores below this share of a name’s best",
                elem_id="segmentation-none",
            )  # fmt: skip
        with gr.Column(scale=3, min_width=300):
            with gr.Accordion("Neurons behind it", open=False, elem_id="segmentation-behind"):
                voters = plots.html(elem_id="segmentation-voters")
            with gr.Row():
                picture = gr.DownloadButton("Mask (PNG)", elem_id="segmentation-png")
                annotations = gr.DownloadButton(
                    "All masks (COCO JSON)", elem_id="segmentation-coco"
                )
    return More(box, regions, none, voters, picture, annotations)


def _comparison(names: list[str]) -> Comparison:
    methods = gr.Dropdown(
        names, value=names[:4], label="Methods", multiselect=True, allow_custom_value=True,
        elem_id="segmentation-compared",
    )  # fmt: skip
    methods.api_info = lambda: {"type": "array", "items": {"type": "string", "enum": _EVERY}}
    go = gr.Button("Compare", elem_id="segmentation-compare")
    gallery = gr.Gallery(
        label="The first name, by each method", columns=5, height="auto", visible=False,
        elem_id="segmentation-gallery",
    )  # fmt: skip
    return Comparison(methods, go, gallery)
