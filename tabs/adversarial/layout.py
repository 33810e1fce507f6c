"""What stands where in the tab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr

from clipneurons.adversarial.cue_request import FEW_CUES, NEURONS, RECORDED_EFFECTS, SECOND_ORDER
from tabs.adversarial.attacks import (
    AUTOMATIC,
    IMAGES,
    MAX_BLOCKED,
    MAX_CUES,
    MAX_IMAGES,
    MAX_PER_IMAGE,
    MAX_TEXT,
    METHOD_CHOICES,
    PER_IMAGE,
    PICTOGRAMS,
    TEMPLATES,
    AttackQuery,
    describers,
    generators,
    pairs_of,
)
from tabs.server.registry import BundleRegistry
from tabs.ui import plots

_ARROW = " → "
_METHODS = (
    f"{SECOND_ORDER}: the paper's, from the text decompositions of the neurons that tell the two "
    f"classes apart most. {RECORDED_EFFECTS}: what neurons do in images of each cue. "
    f"{AUTOMATIC}: {RECORDED_EFFECTS} where the bundle has them, else {SECOND_ORDER}."
)


@dataclass(frozen=True, eq=False)
class Widgets:
    """All of the tab.

    Attributes:
        fields: by the names of `AttackQuery`'s fields.
        made: the `Attack` that is shown.
        offered: the class pair that the page last wrote into the fields itself.
        pairs: buttons of class pairs.
        draw, look, stop: buttons.
        unknown: a warning about words that the model never saw.
        cues: cues with the units behind them.
        box: holds all of the results that follow.
        gallery, place, rates, saved: images with verdicts, the map of one, success rates, the zip.
        more_cues, described: folded details.
    """

    fields: Mapping[str, gr.components.Component]
    made: gr.State
    offered: gr.State
    pairs: list[gr.Button]
    draw: gr.Button
    look: gr.Button
    stop: gr.Button
    unknown: gr.HTML
    cues: gr.HTML
    box: gr.Column
    gallery: gr.Gallery
    place: gr.Image
    rates: gr.HTML
    saved: gr.DownloadButton
    more_cues: gr.HTML
    described: gr.Textbox

    @property
    def shown(self) -> list[gr.components.Component]:
        """What a request changes."""
        return [
            self.made, self.unknown, self.cues, self.more_cues, self.box, self.gallery, self.place,
            self.rates, self.saved, self.described,
        ]  # fmt: skip

    def query(self, values: Mapping[gr.components.Component, object]) -> AttackQuery:
        """The request of an event whose inputs are `fields`."""
        given = {name: values[component] for name, component in self.fields.items()}
        empty = {
            name: ""
            for name, component in self.fields.items()
            if isinstance(component, gr.Textbox) and given[name] is None
        }
        return AttackQuery(**given | empty)


def pair_label(pair: tuple[str, str]) -> str:
    """The label of a pair's button."""
    return _ARROW.join(pair)


def pair_of(label: str) -> list[str]:
    """The pair of a button's label."""
    return label.split(_ARROW, 1)


def layout(registry: BundleRegistry, source: gr.components.Component) -> Widgets:
    """The tab's components; results are hidden until there are some."""
    offered = pairs_of(registry.first)
    with gr.Row():
        true = gr.Textbox(
            offered[0][0], label="True class", max_length=60, elem_id="adversarial-true"
        )
        target = gr.Textbox(
            offered[0][1], label="Target class", max_length=60, elem_id="adversarial-target"
        )
    with gr.Row(elem_id="adversarial-examples", elem_classes="cn-pairs"):
        pairs = [gr.Button(pair_label(pair), size="sm", min_width=90) for pair in offered]
    with gr.Row():
        draw = gr.Button(
            "Make images", variant="primary", min_width=100, elem_id="adversarial-draw"
        )
        look = gr.Button("Find cues only", min_width=100, elem_id="adversarial-look")
        stop = gr.Button("Stop", variant="stop", min_width=60, elem_id="adversarial-stop")
    unknown = plots.html(elem_id="adversarial-unknown")
    cues = plots.html(elem_id="adversarial-said")
    with gr.Column(visible=False) as box:
        with gr.Row():
            gallery = gr.Gallery(
                label="Images with the model's verdict (choose one for its map)", columns=6,
                height="auto", elem_id="adversarial-gallery", allow_preview=False, buttons=[],
            )  # fmt: skip
            place = gr.Image(
                label="Map", interactive=False, format="png", buttons=[], visible=False,
                elem_id="adversarial-map", scale=0, min_width=280,
            )  # fmt: skip
        rates = plots.html(elem_id="adversarial-rates")
        saved = gr.DownloadButton("Download (zip)", interactive=False, elem_id="adversarial-zip")
    with gr.Accordion("Advanced", open=False, elem_id="adversarial-advanced"):
        settings = _settings(list(registry.first.bundle.layers))
        more_cues = plots.html(elem_id="adversarial-more-cues")
        described = gr.Textbox(
            label="Descriptions, one an image", lines=6, interactive=False,
            elem_id="adversarial-described",
        )  # fmt: skip
    fields = {"bundle": source, "true_class": true, "target_class": target, **settings}
    return Widgets(
        fields=fields, made=gr.State(), offered=gr.State(offered[0]), pairs=pairs, draw=draw,
        look=look, stop=stop, unknown=unknown, cues=cues, box=box, gallery=gallery, place=place,
        rates=rates, saved=saved, more_cues=more_cues, described=described,
    )  # fmt: skip


def _settings(layers: list[int]) -> dict[str, gr.components.Component]:
    describer, generator = describers(), generators()
    return {
        "cues": gr.Textbox(
            "", label="Your own cues", placeholder="bone, leash   (empty: they are found)",
            lines=2, max_length=MAX_TEXT, elem_id="adversarial-cues",
        ),
        "blocked": gr.Textbox(
            "", label="Words that no cue may contain", placeholder="animal, pet",
            max_length=MAX_BLOCKED, elem_id="adversarial-blocked",
        ),
        "method": gr.Radio(
            list(METHOD_CHOICES), value=AUTOMATIC, label="Cues from", info=_METHODS,
            elem_id="adversarial-method",
        ),
        "neurons": gr.Slider(
            1, 1000, NEURONS, step=1, label="Neurons whose decompositions are used",
            visible=False, elem_id="adversarial-neurons",
        ),
        # Other bundles have others: the page may still send the last one's.
        "layers": gr.Dropdown(
            layers, value=layers, label="Layers", multiselect=True, allow_custom_value=True,
            elem_id="adversarial-layers",
        ),
        "count": gr.Slider(
            1, MAX_CUES, FEW_CUES, step=1, label="Cues to find", elem_id="adversarial-count"
        ),
        "cues_per_image": gr.Slider(
            0, MAX_PER_IMAGE, PER_IMAGE, step=1, label="Cues in an image",
            elem_id="adversarial-each",
        ),
        "images": gr.Slider(
            1, MAX_IMAGES, IMAGES, step=1, label="Images", elem_id="adversarial-images"
        ),
        "describer": gr.Radio(
            describer, value=TEMPLATES, label="Described by", visible=len(describer) > 1,
            elem_id="adversarial-describer",
        ),
        "generator": gr.Radio(
            generator, value=PICTOGRAMS, label="Drawn by", visible=len(generator) > 1,
            elem_id="adversarial-generator",
        ),
    }  # fmt: skip
