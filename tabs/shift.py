"""The tab that compares two sets of images: what changed, in units, words and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from clipneurons.bundle.unit_words import plain
from tabs.server.events import LATEST, ON_MODEL, PRIVATE
from tabs.server.handlers import Handles, handler
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.server.uploads import MOST_IMAGES, open_images
from tabs.shift_reading import Compared, compare_images, example, opening_shift, pictures
from tabs.ui import plots
from tabs.ui.former_result import says_whose
from tabs.ui.shift_card import WHOLE, unit_html, unit_rows, verdict_html, words_html

TITLE = "Shift"
LEDE = (
    '<p class="cn-lede">Has something changed? Give two sets of images, as they should be and as '
    "they are now. The units whose mean contribution moved are listed, with what they say and what "
    "they saw.</p>"
)
_NOTE = (
    f'<p class="cn-note">Zip files or images of any shape, at most {MOST_IMAGES} a side; with '
    "fewer than 50, only gross changes are found.</p>"
)
_OLD = "This is of the sets before: press Compare for those that you chose last."


@dataclass(frozen=True)
class Widgets:
    """What the handlers read and write."""

    source: gr.components.Component
    reference: gr.File
    new: gr.File
    go: gr.Button
    sample: gr.Button
    compared: gr.State
    found: gr.Column
    verdict: gr.HTML
    words: gr.HTML
    units: gr.Radio
    unit: gr.HTML
    before: gr.Gallery
    after: gr.Gallery

    @property
    def results(self) -> list:
        """What a comparison fills in, as `shown` gives it."""
        return [self.compared, self.found, self.verdict, self.words, self.units, self.unit,
                self.before, self.after]  # fmt: skip


def build(registry: BundleRegistry, source: gr.components.Component) -> Handles:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    widgets = _layout(source)
    asked = [source, widgets.reference, widgets.new]
    one_pill = {"show_progress_on": [widgets.go]}
    compared = widgets.go.click(
        handler(registry, compare_files, 120), asked, widgets.results, **one_pill, **PRIVATE,
        **ON_MODEL,
    )  # fmt: skip
    sampled = widgets.sample.click(
        handler(registry, show_example, 120), [source], widgets.results,
        show_progress_on=[widgets.sample], **PRIVATE, **ON_MODEL,
    )  # fmt: skip
    widgets.units.input(
        handler(registry, turn), [source, widgets.compared, widgets.units],
        [widgets.unit, widgets.before, widgets.after], **LATEST, **PRIVATE,
    )  # fmt: skip
    other = source.change(handler(registry, opened), [source], widgets.results, **PRIVATE)
    brought = [widgets.reference.change, widgets.new.change]
    says_whose(["shift-found"], brought, [compared, sampled, other], _OLD)

    def when_selected(tab: gr.Tab) -> None:
        tab.select(
            handler(registry, selected), [source, widgets.compared], widgets.results,
            show_progress="hidden", **PRIVATE,
        )  # fmt: skip

    # For programs: nothing on the page triggers them.
    data = gr.JSON(visible=False, label="Comparison")
    gr.on(
        [], handler(registry, compare_sets, 120), asked, data, api_name="compare_sets", **ON_MODEL
    )
    gr.api(handler(registry, compare_example, 120), api_name="compare_example", **ON_MODEL)
    return Handles(when_selected)


def _layout(source: gr.components.Component) -> Widgets:
    compared = gr.State()
    gr.HTML(LEDE)
    with gr.Row():
        options = dict(file_count="multiple", file_types=[".zip", "image"], height=120)
        reference = gr.File(label="As it should be", elem_id="shift-reference", **options)
        new = gr.File(label="As it is now", elem_id="shift-new", **options)
    gr.HTML(_NOTE)
    with gr.Row():
        go = gr.Button("Compare", variant="primary", elem_id="shift-go")
        sample = gr.Button("Try the example", elem_id="shift-example")
    with gr.Column(visible=False, elem_id="shift-found") as found:
        verdict = plots.html(elem_id="shift-verdict")
        words = plots.html(elem_id="shift-words")
        with gr.Row():
            units = gr.Radio(
                [(WHOLE, 0)], value=0, elem_id="shift-units", label="Units that changed most",
                info="Difference of the mean contributions, in standard deviations. Choose one to "
                "see the pictures in which it is strongest.",
            )  # fmt: skip
            with gr.Column(min_width=320):
                unit = plots.html(elem_id="shift-unit")
                options = dict(columns=6, height="auto")
                after = gr.Gallery(label="New", elem_id="shift-after", **options)
                before = gr.Gallery(label="Reference", elem_id="shift-before", **options)
    # Gradio would refuse what the choices of another bundle were.
    units.preprocess = lambda place: place if isinstance(place, int) else 0
    return Widgets(
        source, reference, new, go, sample, compared, found, verdict, words, units, unit, before,
        after,
    )  # fmt: skip


# -- handlers


def shown(session: BundleSession, compared: Compared, skipped: int = 0, note: str = "") -> tuple:
    """What the page shows of a comparison, in the order of `Widgets.results`."""
    data = compared.data
    before, after = pictures(compared, 0)
    return (
        compared, gr.Column(visible=True), verdict_html(data, skipped) + note, words_html(data),
        gr.Radio(unit_rows(data, session.bundle), value=0), unit_html(data, 0, session.key),
        before, after,
    )  # fmt: skip


def compare_files(
    registry: BundleRegistry, bundle: str, reference: list[str] | None, new: list[str] | None
):
    """Compare what was sent."""
    session = registry[bundle]
    return shown(session, *_compared(session, reference, new))


def compare_sets(
    registry: BundleRegistry, bundle: str, reference: list[str] | None, new: list[str] | None
) -> dict:
    """Compare two sets of images, each as zip or picture files.

    Returns the p-value of the whole comparison and of each of its tests, the texts said more
    and less, the units that changed most (change in standard deviations, and q, the
    false-discovery rate), the numbers of the new images that carry the change, and the closer
    look: a box (left, top, right, bottom, in shares of the image) with what is said there, or
    null where no place differs.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        reference: zip or picture files as they should be, 2 to 500 images.
        new: zip or picture files as they are now, 2 to 500 images.
    """
    compared, skipped = _compared(registry[bundle], reference, new)
    return compared.data | {"skipped": skipped}


def compare_example(registry: BundleRegistry, bundle: str) -> dict:
    """Compare the bundle's own pictures, with a drawing stuck on some of them.

    Returns what `compare_sets` does, and the name of the drawing.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
    """
    compared, word = _example(registry[bundle])
    return compared.data | {"drawing": word}


def show_example(registry: BundleRegistry, bundle: str):
    """The bundle's own example."""
    session = registry[bundle]
    compared, word = _example(session)
    return shown(session, compared, note=example_note(word))


def _example(session: BundleSession) -> tuple[Compared, str]:
    """The example that the bundle ships, else it is compared, once."""

    def make() -> tuple[Compared, str]:
        old, new, word = example(session)
        return compare_images(session, old, new), word

    return opening_shift(session) or session.cached("shift compared", make)


def example_note(word: str) -> str:
    """What was done to the example's new pictures."""
    from clipneurons.shift.planted import SHARE

    return plots.empty(
        f"A drawing ({plain(word)}) was stuck on the corner of {plots.percent(SHARE, 0)} of the "
        "new pictures."
    )


def turn(registry: BundleRegistry, bundle: str, compared: Compared | None, place: int):
    """The pictures of another unit."""
    if compared is None:
        return gr.skip(), gr.skip(), gr.skip()
    return unit_html(compared.data, place, registry[bundle].key), *pictures(compared, place)


def selected(registry: BundleRegistry, bundle: str, compared: Compared | None) -> tuple:
    """The tab was opened: where nothing has been asked yet, the example that the bundle ships."""
    return (gr.skip(),) * 8 if compared else opened(registry, bundle)


def opened(registry: BundleRegistry, bundle: str) -> tuple:
    """Another bundle was chosen: its shipped example takes the place of what was found before."""
    session = registry[bundle]
    if shipped := opening_shift(session):
        compared, word = shipped
        return shown(session, compared, note=example_note(word))
    return None, gr.Column(visible=False), "", "", gr.Radio([(WHOLE, 0)], value=0), "", [], []


def _compared(
    session: BundleSession, reference: list[str] | None, new: list[str] | None
) -> tuple[Compared, int]:
    if not reference or not new:
        raise ValueError("Choose images for both sides first.")
    (old, lost), (fresh, missing) = open_images(reference), open_images(new)
    return compare_images(session, old, fresh), lost + missing
