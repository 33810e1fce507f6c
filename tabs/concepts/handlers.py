"""Events of the tab "Concepts": requests in, results and updates out."""

from __future__ import annotations

import json
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from clipneurons.bundle.unit_words import plain
from clipneurons.images.convert import from_pixels
from tabs.concepts.examples import examples, opening_concepts
from tabs.concepts.layout import Widgets, layout
from tabs.concepts.view import concepts_html, contrast_html
from tabs.server.events import EACH, LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import HandedImage, Handles, handler
from tabs.server.registry import BundleRegistry
from tabs.server.uploads import open_image
from tabs.ui.former_result import says_whose
from tabs.ui.image_input import OWN_IMAGE, image_uri
from tabs.ui.plots import empty
from tabs.ui.words import untrained

MOST_IMAGES = 8
# An address that brings an image leaves no room for the example.
_SELECTED = """(bundle, concepts, image) => {
  const address = new URLSearchParams(location.search);
  const picture = address.get("tab") === "concepts" && address.get("picture");
  return [bundle, picture ? { linked: picture } : concepts, image];
}"""
_STALE = "These are results for the previous images: press Compare for the ones chosen last."


@dataclass(frozen=True)
class Tab:
    """The bundles, and the components that a handler's updates are for."""

    registry: BundleRegistry
    widgets: Widgets


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events; `source` holds the key of the chosen bundle."""
    widgets = layout(source, examples(registry.first))
    tab = Tab(registry, widgets)
    drawn = _read_events(tab)
    _compare_events(tab)
    shown = [widgets.image, widgets.concepts, widgets.result]
    linked = f"window.cnLinked(bundle, {json.dumps(registry.first.key)})"
    changed = source.change(
        handler(tab, bundle_changed), [source, widgets.concepts], [widgets.gallery, *shown],
        js=f"(bundle, _) => [bundle, {linked} ? {{ linked: true }} : null]", **PRIVATE,
    )  # fmt: skip
    says_whose(["concepts-result"], [widgets.image.input], [*drawn, changed])

    def when_selected(gradio_tab: gr.Tab) -> None:
        gradio_tab.select(
            handler(tab, selected), [source, widgets.concepts, widgets.image], shown,
            show_progress="hidden", js=_SELECTED, **PRIVATE,
        )  # fmt: skip

    hands = [
        (name, button.click(
            handler(tab, hand_on, 60), [source, widgets.image], [widgets.handed],
            **ON_MODEL, **PRIVATE,
        ), widgets.handed)
        for name, button in (("edit", widgets.to_edit), ("segmentation", widgets.to_words))
    ]  # fmt: skip
    widgets.image.input(
        None, [widgets.image], js="(image) => window.cnOwn('concepts', image)", **PRIVATE
    )
    widgets.gallery.select(None, None, js="() => window.cnOwn('concepts', false)", **PRIVATE)
    return Handles(when_selected, hands)


def _read_events(tab: Tab) -> list[gr.events.Dependency]:
    """What reads an image; returns the events that draw the result."""
    widgets, read = tab.widgets, handler(tab.registry, concepts, 60)
    request = [widgets.source, widgets.image]
    options = dict(**ON_MODEL, **LATEST, show_progress_on=[widgets.result])
    asked = gr.on(
        [widgets.go.click, widgets.image.upload], read, request, [widgets.concepts],
        api_name="concepts", **options,
    )  # fmt: skip
    chosen = widgets.gallery.select(
        handler(tab, choose), [widgets.source], [widgets.image], **EACH, **PRIVATE
    ).success(read, request, [widgets.concepts], **options, **PRIVATE)
    return [
        event.success(
            concepts_html, [widgets.source, widgets.concepts], [widgets.result],
            show_progress="hidden", **LATEST, **PRIVATE,
        )
        for event in (asked, chosen)
    ]  # fmt: skip


def _compare_events(tab: Tab) -> None:
    widgets = tab.widgets
    compared = widgets.compare.click(
        handler(tab.registry, compare, 60), [widgets.source, widgets.files], [widgets.comparison],
        api_name="compare", **ON_MODEL, show_progress_on=[widgets.compared],
    ).success(contrast_html, [widgets.comparison], [widgets.compared], **PRIVATE)  # fmt: skip
    says_whose(["concepts-compared"], [widgets.files.change], [compared], _STALE)


# -- requests of programs and of the page


def concepts(registry: BundleRegistry, bundle: str, image: Image.Image | None) -> dict:
    """Concepts of an image: texts with weights and maps over patches, and the neurons behind them.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels.
    """
    if image is None:
        raise ValueError("Choose, paste or take an image first.")
    session = registry[bundle]
    result = session.reader.concepts(image)
    return result.to_dict() | {
        "never_trained": untrained(session, [concept.text for concept in result.concepts]),
        "shown": image_uri(result.image),
    }


def compare(registry: BundleRegistry, bundle: str, files: list[str] | None) -> dict:
    """Concepts that several images have in common, and those that set each apart.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        files: two to eight images.
    """
    import torch

    from clipneurons.concepts.image_concepts import compare_images

    if len(files or []) < 2:
        raise ValueError("Choose at least two images to compare.")
    if len(files) > MOST_IMAGES:
        raise ValueError(f"Choose at most {MOST_IMAGES} images, not {len(files)}.")
    session = registry[bundle]
    clip = session.clip
    pixels = torch.stack([clip.preprocess(open_image(file)) for file in files])
    shown = [image_uri(from_pixels(one, clip.image_mean, clip.image_std)) for one in pixels]
    return compare_images(session.concept_reader, pixels) | {"shown": shown}


# -- updates of the page


def choose(tab: Tab, bundle: str, event: gr.SelectData) -> Image.Image:
    """The example that was clicked."""
    session = tab.registry[bundle]
    return examples(session)[event.index][0]


def hand_on(tab: Tab, bundle: str, image: Image.Image | None) -> HandedImage:
    """The image for another tab; its nearest texts and concepts are the classes."""
    read = concepts(tab.registry, bundle, image)
    nearest = [group["texts"][0] for group in read["zero_shot"]]
    names = dict.fromkeys(map(plain, [*nearest, *read["heading"]]))
    return HandedImage(tab.registry[bundle].key, image, tuple(names))


def selected(tab: Tab, bundle: str, concepts: dict | None, image: Image.Image | None) -> dict:
    """The tab was opened: without an image or a result, the example that the bundle ships."""
    if concepts == {"linked": "own"} and image is None:
        return {tab.widgets.result: empty(OWN_IMAGE)}
    return {tab.widgets.concepts: gr.skip()} if concepts or image else _opening(tab, bundle)


def bundle_changed(tab: Tab, bundle: str, linked: dict | None = None) -> dict:
    """Another bundle was chosen: its images to try, and its example where no link brings one."""
    gallery = {tab.widgets.gallery: examples(tab.registry[bundle])}
    return gallery if linked else gallery | _opening(tab, bundle)


def _opening(tab: Tab, bundle: str) -> dict:
    widgets = tab.widgets
    shipped = opening_concepts(tab.registry[bundle]) or (None, None, "")
    return dict(zip((widgets.image, widgets.concepts, widgets.result), shipped, strict=True))
