"""What stands where in the tab."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.adversarial.cues import AUTOMATIC, CUES, MAX_CUES, NEURONS, WAYS, pairs_of
from tabs.adversarial.offers import PICTOGRAMS, TEMPLATES, describers, painters
from tabs.adversarial.pictures import EACH, MAX_PICTURES, PICTURES
from tabs.server.registry import BundleRegistry
from tabs.ui import plots

_ARROW = " → "
_WAYS = " ".join(f"{name.capitalize()}: {meaning}" for name, meaning in WAYS.items())


@dataclass(frozen=True)
class Settings:
    """How cues are found and pictures made."""

    way: gr.Radio
    layers: gr.Dropdown
    neurons: gr.Slider
    words: gr.Slider
    each: gr.Slider
    count: gr.Slider
    blocked: gr.Textbox
    describer: gr.Radio
    painter: gr.Radio
    seed: gr.Number


@dataclass(frozen=True)
class Results:
    """The pictures with their verdicts, and the success rates."""

    box: gr.Column
    rates: gr.HTML
    gallery: gr.Gallery
    place: gr.Image
    saved: gr.DownloadButton
    described: gr.Textbox


@dataclass(frozen=True)
class Widgets:
    """All of the tab.

    `forged` is what was made last; `filled_in` and `offered` are the cues and the names that were
    last written into their fields by the page itself: others are the visitor's own.
    """

    forged: gr.State
    filled_in: gr.State
    offered: gr.State
    true: gr.Textbox
    target: gr.Textbox
    pairs: list[gr.Button]
    cues: gr.Textbox
    draw: gr.Button
    look: gr.Button
    stop: gr.Button
    settings: Settings
    unknown: gr.HTML
    results: Results
    behind: gr.Accordion
    said: gr.HTML


def pair_label(pair: tuple[str, str]) -> str:
    """What a pair's button says."""
    return _ARROW.join(pair)


def pair_of(label: str) -> list[str]:
    """The pair of a button that says so."""
    return label.split(_ARROW, 1)


def layout(registry: BundleRegistry) -> Widgets:
    """The tab's components; results are hidden until there are some."""
    offered = pairs_of(registry.first)
    with gr.Row():
        true = gr.Textbox(
            offered[0][0], label="The picture shows", max_length=60, elem_id="adversarial-true"
        )
        target = gr.Textbox(
            offered[0][1], label="It shall be read as", max_length=60,
            elem_id="adversarial-fooled",
        )  # fmt: skip
    with gr.Row(elem_id="adversarial-examples", elem_classes="cn-pairs"):
        pairs = [gr.Button(pair_label(pair), size="sm", min_width=90) for pair in offered]
    cues = gr.Textbox(
        "", label="Things to draw beside it (cues)", lines=2,
        placeholder="bone, leash   (commas between things; left empty, the neurons tell)",
        max_length=4000, elem_id="adversarial-cues",
    )  # fmt: skip
    with gr.Row():
        draw = gr.Button(
            "Make pictures", variant="primary", min_width=100, elem_id="adversarial-draw"
        )
        look = gr.Button("Only find things", min_width=100, elem_id="adversarial-look")
        stop = gr.Button("Stop", variant="stop", min_width=60, elem_id="adversarial-stop")
    unknown = plots.html(elem_id="adversarial-unknown")
    with gr.Column(visible=False) as box:
        results = _results(box)
    with gr.Accordion(
        "The things, and the neurons behind them", open=False, visible=False,
        elem_id="adversarial-behind",
    ) as behind:  # fmt: skip
        said = plots.html(elem_id="adversarial-said")
    with gr.Accordion("Advanced", open=False, elem_id="adversarial-advanced"):
        settings = _settings(list(registry.first.bundle.layers))
    return Widgets(
        gr.State(), gr.State(""), gr.State(offered[0]), true, target, pairs, cues, draw, look, stop,
        settings, unknown, results, behind, said,
    )  # fmt: skip


def _results(box: gr.Column) -> Results:
    rates = plots.html(elem_id="adversarial-rates")
    with gr.Row():
        gallery = gr.Gallery(
            label="Pictures with the model's verdict (choose one for its map)", columns=6,
            height="auto", elem_id="adversarial-gallery", allow_preview=False, buttons=[],
        )  # fmt: skip
        place = gr.Image(
            label="Map", interactive=False, format="png", buttons=[], visible=False,
            elem_id="adversarial-map", scale=0, min_width=280,
        )  # fmt: skip
    saved = gr.DownloadButton("Download (zip)", interactive=False, elem_id="adversarial-zip")
    with gr.Accordion("Descriptions", open=False):
        described = gr.Textbox(
            label="One a picture", lines=6, interactive=False, elem_id="adversarial-described"
        )
    return Results(box, rates, gallery, place, saved, described)


def _settings(known: list[int]) -> Settings:
    way = gr.Radio(
        list(WAYS), value=AUTOMATIC, label="Ask the neurons by", info=_WAYS,
        elem_id="adversarial-way",
    )  # fmt: skip
    # Custom values are those of other bundles, which the handlers sort out.
    layers = gr.Dropdown(
        known, value=known, label="Layers", multiselect=True, allow_custom_value=True,
        elem_id="adversarial-layers",
    )  # fmt: skip
    neurons = gr.Slider(
        1, 1000, NEURONS, step=1, label="Neurons whose phrases are used",
        visible=False, elem_id="adversarial-neurons",
    )  # fmt: skip
    words = gr.Slider(
        1, MAX_CUES, CUES, step=1, label="Things to find",
        elem_id="adversarial-words",
    )  # fmt: skip
    each = gr.Slider(0, 6, EACH, step=1, label="Things in a picture", elem_id="adversarial-each")
    count = gr.Slider(
        1, MAX_PICTURES, PICTURES, step=1, label="Pictures",
        elem_id="adversarial-count",
    )  # fmt: skip
    blocked = gr.Textbox(
        "", label="Words that no thing may contain", placeholder="animal, pet", max_length=1000,
        elem_id="adversarial-blocked",
    )  # fmt: skip
    describer = gr.Radio(
        describers(), value=TEMPLATES, label="Described by",
        elem_id="adversarial-describer",
    )  # fmt: skip
    painter = gr.Radio(
        painters(), value=PICTOGRAMS, label="Painted by",
        elem_id="adversarial-painter",
    )  # fmt: skip
    seed = gr.Number(0, label="Seed", precision=0, elem_id="adversarial-seed")
    return Settings(way, layers, neurons, words, each, count, blocked, describer, painter, seed)
