"""What the tab that compares two image sets does: requests in, {component: value} out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from clipneurons.bundle.unit_words import plain
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.server.uploads import open_images
from tabs.shift.layout import Widgets
from tabs.shift.view import (
    ALL_UNITS,
    Compared,
    differences_html,
    example_html,
    images,
    unit_html,
    unit_rows,
    verdict_html,
)

# Told (images read, images in all, what is being done).
Progress = Callable[[int, int, str], object]


@dataclass(frozen=True)
class CompareRequest:
    """Two sets of files to compare with a bundle's model."""

    bundle: str
    reference: list[str] | None
    new: list[str] | None


class Handlers:
    """The page's events; each answers with new values of some widgets."""

    def __init__(self, registry: BundleRegistry, widgets: Widgets) -> None:
        self.registry, self.widgets = registry, widgets
        self.unchanged = {widgets.progress: gr.skip()}  # Gradio takes no empty answer

    def compare(self, request: CompareRequest, progress: Progress) -> dict:
        """Compare the uploaded sets."""
        session = self.registry[request.bundle]
        compared, skipped = compare_request(session, request, progress)
        return self.shown(session, compared, verdict_html(compared.report, skipped))

    def example(self, bundle: str, progress: Progress) -> dict:
        """The bundle's own example."""
        session = self.registry[bundle]
        return self._example_shown(session, *example(session, progress))

    def bundle_changed(self, request: CompareRequest) -> dict:
        """Another bundle was chosen: its example, unless the visitor's own images are here.

        Then the former result stays; the page marks it as one.
        """
        if request.reference or request.new:
            return self.unchanged
        session = self.registry[request.bundle]
        if shipped := shipped_example(session):
            return self._example_shown(session, *shipped)
        return {
            self.widgets.compared: None,
            self.widgets.found: gr.Column(visible=False),
            self.widgets.units: gr.Radio([(ALL_UNITS, 0)], value=0),
        }

    def opened(self, request: CompareRequest, compared: Compared | None) -> dict:
        """The tab was opened: the example, where there is no result yet."""
        return self.unchanged if compared else self.bundle_changed(request)

    def unit_chosen(self, compared: Compared | None, number: int) -> dict:
        """The top-activating images of a unit."""
        if compared is None:
            return {self.widgets.unit: gr.skip()}
        before, after = images(compared, number)
        bundle = compared.report["bundle"]
        return {
            self.widgets.unit: unit_html(compared.report, number, bundle),
            self.widgets.before: before,
            self.widgets.after: after,
        }

    def shown(self, session: BundleSession, compared: Compared, verdict: str) -> dict:
        """A comparison on the page."""
        report, widgets = compared.report, self.widgets
        return {
            widgets.progress: "",
            widgets.compared: compared,
            widgets.found: gr.Column(visible=True),
            widgets.verdict: verdict,
            widgets.differences: differences_html(report),
            widgets.details: gr.Row(visible=report["significant"]),
            widgets.units: gr.Radio(unit_rows(report, session.bundle), value=0),
        } | self.unit_chosen(compared, 0)

    def _example_shown(self, session: BundleSession, compared: Compared, drawing: str) -> dict:
        verdict = verdict_html(compared.report, title="Example")
        return self.shown(session, compared, verdict + example_html(plain(drawing)))


# -- endpoints for programs


def compare_sets(
    registry: BundleRegistry, bundle: str, reference: list[str] | None, new: list[str] | None
) -> dict:
    """Compare two sets of images, each as zip or image files.

    Returns the p-value of the comparison and of each test, and whether the difference is
    significant. If it is: low-level changes of the pixels (brightness, blur, ...), the texts
    matched more and less, the units that changed most (change in standard deviations; q is the
    false-discovery rate), the numbers of the new images that changed most, and the place where
    images differ (left, top, right, bottom, in shares of the image) with its texts, or null.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        reference: zip or image files of the reference set, 2 to 500 images.
        new: zip or image files of the new set, 2 to 500 images.
    """
    request = CompareRequest(bundle, reference, new)
    compared, skipped = compare_request(registry[bundle], request)
    return compared.report | {"skipped": skipped}


def compare_example(registry: BundleRegistry, bundle: str) -> dict:
    """Compare the bundle's own images, with a drawing pasted on some of them.

    Returns what `compare_sets` does, and the name of the drawing.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
    """
    compared, drawing = example(registry[bundle])
    return compared.report | {"drawing": drawing}


# -- comparisons


def compare_request(
    session: BundleSession, request: CompareRequest, progress: Progress = lambda *_: None
) -> tuple[Compared, int]:
    """The comparison of uploaded files, and how many of them could not be read."""
    if not request.reference or not request.new:
        raise ValueError("Choose images for both sides first.")
    (reference, lost), (new, missing) = (
        open_images(files) for files in (request.reference, request.new)
    )
    return compare_images(session, reference, new, progress), lost + missing


def compare_images(
    session: BundleSession,
    reference: list[Image.Image],
    new: list[Image.Image],
    progress: Progress = lambda *_: None,
) -> Compared:
    """Read both sides and compare them."""
    from clipneurons.shift.report import ImageSet, compare_sets

    total, read = len(reference) + len(new), 0
    progress(0, total, "Reading images")

    def count(images: int) -> None:
        nonlocal read
        read += images
        progress(read, total, "Reading images" if read < total else "Comparing the sets")

    profiler, pool = session.reader.profiler, session.reader.text_pool
    sets = [
        ImageSet(profiler.of_images(side, progress=count), side.__getitem__)
        for side in (reference, new)
    ]
    report = compare_sets(profiler, pool, *sets).to_dict()
    return Compared({"bundle": session.key} | report, reference, new)


def example(session: BundleSession, progress: Progress = lambda *_: None) -> tuple[Compared, str]:
    """The example that the bundle ships, else it is compared, once; and the drawing's name."""

    def make() -> tuple[Compared, str]:
        reference, new, drawing = example_sets(session)
        return compare_images(session, reference, new, progress), drawing

    return shipped_example(session) or session.cached("shift compared", make)


def example_sets(session: BundleSession) -> tuple[list[Image.Image], list[Image.Image], str]:
    """Two halves of the bundle's images, a drawing pasted on some of the second half."""
    from clipneurons.shift.planted import IMAGES, planted_mark

    gallery = [session.image(number) for number in session.sample(2 * IMAGES)]
    return planted_mark(gallery, session.bundle.texts)


def shipped_example(session: BundleSession) -> tuple[Compared, str] | None:
    """A comparison of the bundle's own images, and the name of the drawing on some of them.

    Made once, without the model. A bundle may come from a stranger: what does not have the form
    of an example is left out, and images are taken from the gallery alone.
    """
    return session.cached("shipped shift", lambda: _shipped_example(session))


def _shipped_example(session: BundleSession) -> tuple[Compared, str] | None:
    from clipneurons.shift.planted import planted_mark

    try:
        shipped = session.bundle.opening["shift"]
        gallery = [session.image(number) for number in shipped["images"]]
        reference, new, drawing = planted_mark(gallery, session.bundle.texts, shipped["word"])
        compared = Compared({"bundle": session.key} | shipped["report"], reference, new)
        verdict_html(compared.report)
        differences_html(compared.report)
        unit_rows(compared.report, session.bundle)
        images(compared, 0)
        images(compared, len(compared.report["units"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, FileNotFoundError):
        return None
    return compared, drawing
