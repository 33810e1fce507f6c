"""Events of the tab "Edit": requests in, results and updates out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import gradio as gr
import numpy as np
from PIL import Image

from tabs.edit.layout import MOST_IMAGES, Widgets, layout
from tabs.edit.sources import edit_of_file, edit_of_link, edit_of_text, example, without_words
from tabs.edit.view import Opened, edit_html, part_text, reading_data, top_class
from tabs.server.events import LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import HandedImage, Handles, handler
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.server.uploads import open_image
from tabs.ui.former_result import says_whose
from tabs.ui.image_input import OWN_IMAGE
from tabs.ui.plots import empty, percent
from tabs.ui.words import names_of, untrained

if TYPE_CHECKING:
    from clipneurons.edit.edit import Edit

_NOTHING_OPENED = "Classify an image first."
_CHOOSE = "Choose, paste or take an image first."
_OTHER_MEANS = (
    "This edit was found about the neurons’ means over its own images; here they are scaled about "
    "their means over the bundle’s data."
)
# In the browser: the sliders' edit and this tab's address go along, in the last two inputs.
_CURRENT = "(...all) => [...all.slice(0, -2), '', window.cnEdit()]"
_RESTORED = "(...all) => [...all.slice(0, -2), window.cnEditAsked ?? '', '']"
_OTHER_BUNDLE = "(...all) => [...all.slice(0, -2), window.cnEditOpen() ? '?tab=edit' : '', '']"


@dataclass(frozen=True)
class Tab:
    """The bundles, and the components that a handler's updates are for."""

    registry: BundleRegistry
    widgets: Widgets


@dataclass(frozen=True)
class EditRequest:
    """What the page holds: `opened` is shown already, `edit` is JSON of what the sliders make."""

    bundle: str
    opened: Opened | None = None
    image: Image.Image | None = None
    names: str = ""
    wanted: str = ""
    files: list[str] | None = None
    words: str = ""
    edit_file: str | None = None
    address: str = ""
    edit: str = ""


def build(registry: BundleRegistry, source: gr.Dropdown) -> Handles:
    """Components and events; `source` holds the key of the chosen bundle."""
    widgets = layout(source)
    tab = Tab(registry, widgets)
    _endpoints(tab)
    read = [
        _reads(tab, event, classify)
        for event in (widgets.classify.click, widgets.image.upload, widgets.names.submit,
                      widgets.wanted.input, widgets.files.change)
    ]  # fmt: skip
    _reads(tab, widgets.find.click, find)
    for event in (widgets.off.click, widgets.words.submit):
        _reads(tab, event, switch_off)
    _reads(tab, widgets.load.upload, load)
    restored = _reads(tab, widgets.restore.click, restore, _RESTORED)
    _reads(tab, source.input, bundle_changed, _OTHER_BUNDLE)
    says_whose(["edit-result"], [widgets.image.input, widgets.files.change], [*read, restored])
    measured = widgets.measure.click(
        handler(tab, measure, 60, EditRequest), widgets.request, [widgets.measured], js=_CURRENT,
        show_progress="hidden", **ON_MODEL, **LATEST, **PRIVATE,
    )  # fmt: skip
    measured.success(None, [widgets.measured], js="(data) => window.cnMeasured(data)", **PRIVATE)
    for button, script in (
        (widgets.reset, "window.cnEditReset()"),
        (widgets.save, "window.cnEditSave()"),
        (widgets.sample, "window.cnEditRestore('?tab=edit')"),
    ):
        button.click(None, None, js=f"() => {{ {script} }}", **PRIVATE)

    def receive(handed: gr.events.Dependency, image: gr.State) -> None:
        taken = handed.success(
            handler(tab, take, 60), [image], widgets.results,
            show_progress_on=[widgets.result], **ON_MODEL, **PRIVATE,
        )  # fmt: skip
        taken.success(None, None, js="() => window.cnEditKeep()", **PRIVATE)
        says_whose(["edit-result"], [], [taken])

    def when_selected(gradio_tab: gr.Tab) -> None:
        gradio_tab.select(None, None, js="() => { window.cnEditRestore() }", **PRIVATE)

    return Handles(when_selected, receive=receive)


def _reads(
    tab: Tab, event: Callable, function: Callable, js: str = _CURRENT
) -> gr.events.Dependency:
    """An event that fills the result; then the address names what is shown."""
    read = event(
        handler(tab, function, 60, EditRequest), tab.widgets.request, tab.widgets.results, js=js,
        show_progress_on=[tab.widgets.result], **ON_MODEL, **LATEST, **PRIVATE,
    )  # fmt: skip
    read.success(None, None, js="() => window.cnEditKeep()", **PRIVATE)
    return read


def _endpoints(tab: Tab) -> None:
    """What programs call; nothing on the page triggers it."""
    widgets, data = tab.widgets, gr.JSON(visible="hidden", label="Reading")
    request = [widgets.source, widgets.image, widgets.names, widgets.wanted]
    for function, name, more in ((edit, "edit", [widgets.edit]), (find_edit, "find_edit", [])):
        gr.on(
            [], handler(tab.registry, function, 60), [*request, *more], data, api_name=name,
            **ON_MODEL,
        )  # fmt: skip


# -- requests of programs


def edit(
    registry: BundleRegistry, bundle: str = "", image: Image.Image | None = None, names: str = "",
    wanted: str = "", edit: str = "",
) -> dict:  # fmt: skip
    """How an image is classified before and after an edit of neurons, and by whose doing.

    Returns each class's probability (or cosine, of a model without softmax) before the edit,
    estimated by scaling the neurons' effects, and measured by a forward pass with the same edit
    (null where the model's weights cannot hold it); and the neurons that speak for the top class
    and against it, with what they add, their labels, whether these are reliable, and a map of the
    patches.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels; without
            one, the bundle's example.
        names: class names with commas between them; "" for the model's own first five.
        wanted: the correct class, held against the top class; "" for the runner-up.
        edit: JSON of an edit, as this returns it; "" for none. Factors scale about the means
            over the bundle's data.
    """
    session = registry[bundle]
    return reading_data(_asked_or_example(session, image, names, wanted, edit))


def find_edit(
    registry: BundleRegistry, bundle: str = "", image: Image.Image | None = None, names: str = "",
    wanted: str = "",
) -> dict:  # fmt: skip
    """The fewest neurons whose mean-ablation turns an image to another class, measured.

    Returns what `edit` does, under that edit, with the number of neurons (`count`) and the
    share of random sets of as many that turn the image as well.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        image: as for `edit`; without one, the bundle's example.
        names: class names with commas between them; "" for the model's own first five.
        wanted: what it should be classified as; "" for the runner-up.
    """
    session = registry[bundle]
    opened = _asked_or_example(session, image, names, wanted, "")
    opened, random_share = turned(session, opened, wanted)
    figures = {
        "wanted": opened.wanted, "count": len(opened.reading.edit.units),
        "random_share": random_share,
    }  # fmt: skip
    return figures | reading_data(opened)


# -- readings


def opened_with(
    session: BundleSession,
    images: list[Image.Image],
    names: list[str],
    wanted: str = "",
    edit: Edit | None = None,
    picture: int | None = None,
) -> Opened:
    """Images read by a bundle's model; without names, by the first one's own five classes.

    Raises `ValueError` for too many images and what `EditReader.read` refuses.
    """
    import torch

    from clipneurons.images.convert import is_flat
    from clipneurons.models.preprocess import share_seen

    if len(images) > MOST_IMAGES:
        raise ValueError(f"At most {MOST_IMAGES} images at once, please.")
    reader = session.edit_reader
    pixels = torch.stack([session.clip.preprocess(image) for image in images])
    names = names or reader.top_classes(pixels[0])
    reading = reader.read(pixels, names, wanted, edit)
    return Opened(
        session.key, tuple(images), picture, reading, tuple(untrained(session, names)),
        is_flat(pixels[0], session.clip.image_std), share_seen(session.clip, images[0].size),
    )  # fmt: skip


def edited(session: BundleSession, opened: Opened, edit: Edit) -> Opened:
    """The same images and classes under another edit."""
    reading = opened.reading
    again = session.edit_reader.read(reading.pixels, list(reading.class_names), opened.wanted, edit)
    return replace(opened, reading=again)


def turned(session: BundleSession, opened: Opened, wanted: str = "") -> tuple[Opened, float]:
    """What is shown under the fewest neurons' ablation that turns it to the wanted class.

    And the share of random sets of as many that turn it. Raises `ValueError` where it is
    classified so already, or no edit is found.
    """
    wanted = wanted or opened.wanted
    if wanted == opened.top:
        raise ValueError(f"The image is classified as {wanted} already: choose the correct class.")
    found = session.edit_reader.turn(opened.reading)
    return edited(session, opened, found.edit), found.random_share


def of_address(session: BundleSession, given: dict[str, str]) -> Opened:
    """What the parameters of an address ask for; without an image, the example."""
    names, wanted, picture = names_of(given.get("names", "")), given.get("wanted", ""), None
    if re.fullmatch(r"[0-9]{1,9}", given.get("picture", "")):
        picture = int(given["picture"])
        if picture not in set(session.bundle.examples):
            raise ValueError(f"This bundle has no image {picture}.")
    else:
        picture, known, correct = example(session)
        names, wanted = (names, wanted) if len(names) > 1 else (known, correct)
    edit = edit_of_link(given.get("edit", ""), session)
    wanted = wanted if wanted in names else ""
    return opened_with(session, [session.image(picture)], names, wanted, edit, picture)


def _asked_or_example(
    session: BundleSession, image: Image.Image | None, names: str, wanted: str, edit: str
) -> Opened:
    """What an endpoint was asked to read; without an image, the bundle's example."""
    class_names, asked_edit = names_of(names), edit_of_text(edit)
    if image is not None:
        return opened_with(session, [image], class_names, wanted, asked_edit)
    picture, known, correct = example(session)
    wanted = wanted or ("" if class_names else correct)
    image = session.image(picture)
    return opened_with(session, [image], class_names or known, wanted, asked_edit, picture)


# -- updates of the page


def classify(tab: Tab, request: EditRequest) -> dict:
    """What was brought: another image starts without an edit, and with the model's classes."""
    if request.image is None:
        raise ValueError(_CHOOSE)
    session, opened = tab.registry[request.bundle], request.opened
    more = [open_image(file) for file in (request.files or [])[: MOST_IMAGES - 1]]
    images = [request.image, *more]
    if opened is None or opened.bundle != session.key or not _same(request.image, opened.images[0]):
        return _shown(tab, opened_with(session, images, []))
    names = names_of(request.names)
    wanted = request.wanted if request.wanted in names else ""
    edit = edit_of_text(request.edit)
    return _shown(tab, opened_with(session, images, names, wanted, edit, opened.picture))


def find(tab: Tab, request: EditRequest) -> dict:
    """The edit that turns what is shown."""
    opened = _opened(request)
    opened, random_share = turned(tab.registry[opened.bundle], opened)
    count = len(opened.reading.edit.units)
    return _shown(tab, opened, (
        f"Without {count} neuron{'s' * (count > 1)} it is classified as “{opened.wanted}”, "
        f"measured. Of 20 random sets of as many neurons, {percent(random_share, 0)} do this too. "
        "What helps one image may hurt others."
    ))  # fmt: skip


def switch_off(tab: Tab, request: EditRequest) -> dict:
    """The edit that there is, with all neurons that say some words off."""
    opened = _opened(request)
    session = tab.registry[opened.bundle]
    edit = without_words(edit_of_text(request.edit) or opened.reading.edit, request.words)
    opened = edited(session, opened, edit)
    rule = edit.words[-1]
    part = next(part for part in opened.reading.parts if part.rules == (rule,))
    now = top_class(opened.reading, opened.reading.result())
    still = "still" if now == opened.top else "now"
    return _shown(tab, opened, f"{part_text(part)} off: {still} classified as “{now}”.")


def load(tab: Tab, request: EditRequest) -> dict:
    """An edit from a file."""
    opened = _opened(request)
    edit = edit_of_file(request.edit_file)
    opened = edited(tab.registry[opened.bundle], opened, edit)
    return _shown(tab, opened, "" if edit.means == "data" else _OTHER_MEANS)


def measure(tab: Tab, request: EditRequest) -> dict:
    """What the model says under the sliders' edit, for the script."""
    opened, edit = request.opened, edit_of_text(request.edit)
    if opened is None or edit is None:
        return gr.skip()
    reading = opened.reading
    try:
        rows = tab.registry[opened.bundle].edit_reader.measure(reading, edit)
    except ValueError as error:  # of a model whose weights cannot hold it
        gr.Info(escape(str(error)))
        return {"edit": request.edit, "shares": None}
    return {"edit": request.edit, "shares": [reading.shares(row) for row in rows]}


def take(tab: Tab, handed: HandedImage) -> dict:
    """An image that another tab handed on, with its classes."""
    session = tab.registry[handed.bundle]
    names = list(handed.class_names)
    opened = opened_with(session, [handed.image], names, handed.correct, None, handed.picture)
    return _shown(tab, opened) | {tab.widgets.image: handed.image}


def restore(tab: Tab, request: EditRequest) -> dict:
    """What an address asks for: an image with its classes and its edit, else the example."""
    given = {name: values[0] for name, values in parse_qs(request.address[1:2000]).items()}
    try:
        session = tab.registry[given.get("bundle") or request.bundle]
    except gr.Error:  # the page says so, and shows the first
        session, given = tab.registry.first, {}
    if given.get("picture") == "own":
        return _cleared(tab, OWN_IMAGE) | {tab.widgets.image: None}
    return _shown(tab, of_address(session, given))


def bundle_changed(tab: Tab, request: EditRequest) -> dict:
    """Another bundle was chosen: its example if the tab is open; the visitor's image stays."""
    own = request.opened is None or request.opened.picture is None
    if request.image is not None and own:
        return _cleared(tab, "Press Classify to read the image by this model.")
    if request.address:
        return restore(tab, request)
    return _cleared(tab, "Choose an image.") | {tab.widgets.image: None}


def _cleared(tab: Tab, message: str) -> dict:
    widgets = tab.widgets
    return {
        widgets.opened: None, widgets.names: "", widgets.wanted: gr.update(choices=[""], value=""),
        widgets.result: empty(message),
    }  # fmt: skip


def _opened(request: EditRequest) -> Opened:
    if request.opened is None:
        raise ValueError(_NOTHING_OPENED)
    return request.opened


def _shown(tab: Tab, opened: Opened, note: str = "") -> dict:
    widgets, names = tab.widgets, opened.reading.class_names
    return {
        widgets.opened: opened,
        widgets.result: edit_html(tab.registry[opened.bundle].bundle, opened, note),
        widgets.image: opened.images[0] if opened.picture is not None else gr.skip(),
        widgets.names: ", ".join(names),
        widgets.wanted: gr.update(choices=["", *names], value=opened.wanted),
    }


def _same(image: Image.Image, other: Image.Image) -> bool:
    """Whether the page sent an image back as it got it, up to how it was packed."""
    if image.size != other.size:
        return False
    return float(np.abs(np.asarray(image, int) - np.asarray(other, int)).mean()) < 4
