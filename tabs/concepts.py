"""Image concept discovery: the phrases of the neurons that an image activates, and where."""

from __future__ import annotations

import json
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from tabs.image_reading import (
    MOST_IMAGES,
    WAYS,
    contrast,
    default_way,
    discover,
    example_numbers,
    examples_of,
    heads_say,
    picture_of,
)
from tabs.opening import opening_concepts
from tabs.server.events import EACH, LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import Handles, handler
from tabs.server.registry import BundleRegistry
from tabs.server.uploads import open_image
from tabs.ui.concept_card import concepts_html, contrast_html, others_html
from tabs.ui.former_result import says_whose
from tabs.ui.image_input import ImageInput
from tabs.ui.plots import html

TITLE = "Concepts of an image"
LEDE = (
    '<p class="cn-lede">Bring a picture: the model’s neurons tell, in words, what they find in it '
    "and where.</p>"
)
_HOW = (
    "How neurons are weighed. All that neurons write: every neuron counts with exactly what it "
    "adds to the image’s embedding. Place by place: what they add from each place is read like a "
    "picture of its own. Phrases: only the neurons that react strongly count, by the "
    "phrases they are described with; with the sign of their effect, or by its size alone as in "
    "the paper."
)
# A link that brings a picture of its own leaves no room for the example.
_LINKED = """(bundle, found, image) => {
  const given = new URLSearchParams(location.search);
  const linked = given.get("tab") === "concepts" && given.has("picture");
  return [bundle, linked ? { linked } : found, image];
}"""


@dataclass(frozen=True)
class Widgets:
    """What the handlers read and write."""

    source: gr.Dropdown
    image: gr.Image
    gallery: gr.Gallery
    go: gr.Button
    way: gr.Radio
    result: gr.HTML
    data: gr.JSON
    fold: gr.Accordion
    others: gr.HTML
    files: gr.File
    both: gr.Button
    compared: gr.HTML
    compared_data: gr.JSON


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events."""
    widgets = _layout(registry, source)
    drawn = _read_events(registry, widgets)
    _compare_events(registry, widgets)
    shown = [widgets.image, widgets.data, widgets.way, widgets.result, widgets.fold]
    linked = f"window.cnLinked(bundle, {json.dumps(registry.first.key)})"
    other = source.change(
        handler(registry, opened), [source, widgets.data],
        [widgets.gallery, widgets.others, *shown],
        js=f"(bundle, _) => [bundle, {linked} ? {{ linked: true }} : null]", **PRIVATE,
    )  # fmt: skip
    says_whose(["concepts-result", "concepts-others"], [widgets.image.input], [*drawn, other])

    def when_selected(tab: gr.Tab) -> None:
        tab.select(
            handler(registry, selected), [source, widgets.data, widgets.image], shown,
            show_progress="hidden", js=_LINKED, **PRIVATE,
        )  # fmt: skip

    return Handles(when_selected)


# -- layout


def _layout(registry: BundleRegistry, source: gr.Dropdown) -> Widgets:
    first = registry.first
    gr.HTML(LEDE)
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            image = ImageInput("Your picture", elem_id="concepts-image", height=240)
        with gr.Column(scale=3, min_width=260):
            gr.HTML('<p class="cn-note">Or try one of these:</p>')
            gallery = gr.Gallery(
                examples_of(first), label="Or try one of these", columns=6, height="auto",
                allow_preview=False, object_fit="cover", elem_id="concepts-examples", buttons=[],
                show_label=False,
            )  # fmt: skip
            go = gr.Button("Find concepts", variant="primary", elem_id="concepts-go")
            with gr.Accordion("Advanced", open=False, elem_id="concepts-advanced"):
                way = gr.Radio(
                    WAYS, value=default_way(first), label="Weigh neurons by", info=_HOW,
                    elem_id="concepts-way",
                )  # fmt: skip
    result = html(elem_id="concepts-result")
    data = gr.JSON(visible="hidden", label="Concepts")
    title = "The same picture, read in other ways"
    with gr.Accordion(title, open=False, visible=False, elem_id="concepts-others") as fold:
        others = html(elem_id="concepts-other-ways")
    files, both, compared, compared_data = _compare_layout()
    return Widgets(
        source, image, gallery, go, way, result, data, fold, others, files, both, compared,
        compared_data,
    )  # fmt: skip


def _compare_layout() -> tuple[gr.File, gr.Button, gr.HTML, gr.JSON]:
    with gr.Accordion("Compare several pictures", open=False, elem_id="concepts-several"):
        files = gr.File(
            label="Two to eight pictures", file_count="multiple", file_types=["image"],
            elem_id="concepts-files", height=150,
        )  # fmt: skip
        both = gr.Button("Compare", elem_id="concepts-compare")
        compared = html(elem_id="concepts-compared")
        compared_data = gr.JSON(visible="hidden", label="Comparison")
    return files, both, compared, compared_data


# -- events


def _read_events(registry: BundleRegistry, widgets: Widgets) -> list[gr.events.Dependency]:
    """Connects what reads a picture; returns what draws the reading."""
    asked = [widgets.source, widgets.image, widgets.way]
    read = handler(registry, concepts, 60)
    options = dict(**ON_MODEL, **LATEST, show_progress_on=[widgets.result])
    found = gr.on(
        [widgets.go.click, widgets.image.upload], read, asked, [widgets.data],
        api_name="concepts", **options,
    )  # fmt: skip
    again = widgets.way.input(
        handler(registry, read_again, 60), asked, [widgets.data], **options, **PRIVATE
    )
    chosen = widgets.gallery.select(
        handler(registry, choose), [widgets.source], [widgets.image], **EACH, **PRIVATE
    ).success(read, asked, [widgets.data], **options, **PRIVATE)
    drawn = [
        event.success(
            draw, [widgets.source, widgets.data], [widgets.result, widgets.fold, widgets.others],
            show_progress="hidden", **LATEST, **PRIVATE,
        )
        for event in (found, again, chosen)
    ]  # fmt: skip
    widgets.fold.expand(
        handler(registry, other_ways, 120), [widgets.source, widgets.image, widgets.data],
        [widgets.others], **ON_MODEL, **PRIVATE,
    ).success(  # what arrives in a fold for the first time closes it
        lambda: gr.Accordion(open=True), None, [widgets.fold], show_progress="hidden", **PRIVATE
    )  # fmt: skip
    spoken = gr.JSON(visible=False, label="Attention heads")
    gr.on(
        [], handler(registry, text_span, 120), [widgets.source, widgets.image], [spoken],
        api_name="text_span", **ON_MODEL,
    )  # fmt: skip
    return drawn


def _compare_events(registry: BundleRegistry, widgets: Widgets) -> None:
    compared = widgets.both.click(
        handler(registry, compare_images, 60), [widgets.source, widgets.files, widgets.way],
        [widgets.compared_data], api_name="compare", **ON_MODEL,
        show_progress_on=[widgets.compared],
    ).success(contrast_html, [widgets.compared_data], [widgets.compared], **PRIVATE)  # fmt: skip
    says_whose(
        ["concepts-compared"], [widgets.files.change], [compared],
        "This is of the pictures before: press Compare for those that you chose last.",
    )  # fmt: skip


# -- handlers


def concepts(registry: BundleRegistry, bundle: str, image: Image.Image | None, way: str) -> dict:
    """Concepts of an image: texts with weights and maps of patches, and their neurons.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels.
        way: "dense" (all that neurons write), "by-place" (the same, each place of the image read
            by itself), or the phrases of activated neurons: "sparse-projection" (weighed by the
            projection on each neuron's direction) or "sparse-norm" (by norm, as in the paper).
    """
    return discover(registry[bundle], image, way)


def read_again(registry: BundleRegistry, bundle: str, image: Image.Image | None, way: str):
    """The same picture in another way; nothing without one."""
    return gr.skip() if image is None else discover(registry[bundle], image, way)


def choose(registry: BundleRegistry, bundle: str, event: gr.SelectData) -> Image.Image:
    """The example that was clicked."""
    session = registry[bundle]
    return picture_of(session, example_numbers(session)[event.index])


def draw(bundle: str, found: dict | None):
    """The result; what else can be read of the picture is folded, and made when it is opened."""
    if not found:
        return gr.skip(), gr.skip(), gr.skip()
    return concepts_html(bundle, found), gr.Accordion(open=False, visible=True), ""


def other_ways(
    registry: BundleRegistry,
    bundle: str,
    image: Image.Image | None,
    found: dict | None,
    progress=gr.Progress(),  # noqa: B008  Gradio's way to ask for one
) -> str:
    """The other readings of the picture, of which only the heads' takes the model."""
    if not found:
        return ""
    spoken = _heads_say(registry, bundle, image, progress)
    return others_html(found["others"] | {"text_span": spoken})


def text_span(
    registry: BundleRegistry,
    bundle: str,
    image: Image.Image | None,
    progress=gr.Progress(),  # noqa: B008
) -> list[dict]:
    """What the attention heads say of an image (TextSpan): texts with weights; none of a ResNet.

    The first call finds the texts of every head, which takes a minute on a large model.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels.
    """
    return _heads_say(registry, bundle, image, progress) or []


def _heads_say(registry, bundle: str, image: Image.Image | None, progress) -> list[dict] | None:
    def report(done: int, of: int, what: str) -> None:
        progress((done, of), desc=what)

    return heads_say(registry[bundle], image, report)


def compare_images(
    registry: BundleRegistry, bundle: str, files: list[str] | None, way: str
) -> dict:
    """Concepts that several images have in common, and those that set each apart.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        files: two to eight images.
        way: "dense", "by-place", "sparse-projection" or "sparse-norm".
    """
    images = [open_image(file) for file in (files or [])[: MOST_IMAGES + 1]]
    return contrast(registry[bundle], images, way)


def selected(
    registry: BundleRegistry, bundle: str, found: dict | None, image: Image.Image | None
) -> tuple:
    """The tab was opened: without a picture or an answer, the example that the bundle ships."""
    return (gr.skip(),) * 5 if found or image else _opening(registry, bundle)


def opened(registry: BundleRegistry, bundle: str, linked: dict | None = None) -> tuple:
    """Another bundle was chosen: its pictures to try, and its example where no link brings one."""
    shown = (gr.skip(),) * 5 if linked else _opening(registry, bundle)
    return examples_of(registry[bundle]), "", *shown


def _opening(registry: BundleRegistry, bundle: str) -> tuple:
    session = registry[bundle]
    shipped = opening_concepts(session)
    fold = gr.Accordion(open=False, visible=shipped is not None)
    if shipped is None:
        return None, None, default_way(session), "", fold
    image, found, drawn = shipped
    return image, found, found["way"], drawn, fold
