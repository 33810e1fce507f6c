"""The components of the tab that compares two image sets."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.server.uploads import MOST_IMAGES
from tabs.shift.view import ALL_UNITS
from tabs.ui import plots

_LEDE = (
    '<p class="cn-lede">Do two sets of images differ, and in what? Give a reference set and a new '
    "one. The comparison says whether the difference is significant, and shows the low-level "
    "changes, texts, places, units and images that differ most.</p>"
)
_NOTE = (
    f'<p class="cn-note">Zip files or images of any shape, at most {MOST_IMAGES} a side. Fewer '
    "than 50 images show only large differences.</p>"
)


@dataclass(frozen=True)
class Widgets:
    """What the handlers read and write."""

    source: gr.components.Component
    reference: gr.File
    new: gr.File
    go: gr.Button
    sample: gr.Button
    progress: gr.HTML
    compared: gr.State
    found: gr.Column
    verdict: gr.HTML
    differences: gr.HTML
    details: gr.Row
    units: gr.Radio
    unit: gr.HTML
    before: gr.Gallery
    after: gr.Gallery

    @property
    def request(self) -> list:
        """The inputs of a comparison, in the order of `CompareRequest`."""
        return [self.source, self.reference, self.new]

    @property
    def results(self) -> list:
        """The outputs of a comparison."""
        return [self.progress, self.compared, self.found, self.verdict, self.differences,
                self.details, self.units, self.unit, self.before, self.after]  # fmt: skip


def layout(source: gr.components.Component) -> Widgets:
    """The tab's components; ``source`` holds the chosen bundle's key."""
    gr.HTML(_LEDE)
    with gr.Row():
        options = dict(file_count="multiple", file_types=[".zip", "image"], height=120)
        reference = gr.File(label="Reference", elem_id="shift-reference", **options)
        new = gr.File(label="New", elem_id="shift-new", **options)
    gr.HTML(_NOTE)
    with gr.Row():
        go = gr.Button("Compare", variant="primary", elem_id="shift-go")
        sample = gr.Button("Try the example", elem_id="shift-example")
    progress = plots.html(elem_id="shift-progress")
    with gr.Column(visible=False, elem_id="shift-found") as found:
        verdict = plots.html(elem_id="shift-verdict")
        differences = plots.html(elem_id="shift-differences")
        with gr.Row(visible=False) as details:
            units = gr.Radio(
                [(ALL_UNITS, 0)], value=0, elem_id="shift-units", label="Units that changed most",
                info="Change of the mean effect in standard deviations. Choose a unit for its "
                "top-activating images.",
            )  # fmt: skip
            with gr.Column(min_width=320):
                unit = plots.html(elem_id="shift-unit")
                options = dict(columns=6, height="auto")
                after = gr.Gallery(label="New", elem_id="shift-after", **options)
                before = gr.Gallery(label="Reference", elem_id="shift-before", **options)
    # Gradio would refuse what the choices of another bundle were.
    units.preprocess = lambda number: number if isinstance(number, int) else 0
    return Widgets(
        source=source, reference=reference, new=new, go=go, sample=sample, progress=progress,
        compared=gr.State(), found=found, verdict=verdict, differences=differences,
        details=details, units=units, unit=unit, before=before, after=after,
    )  # fmt: skip
