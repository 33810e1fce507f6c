"""The components of the tab "About"."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from tabs.about.drawing import method_drawing
from tabs.about.view import card_text, limits_text, overview_html
from tabs.server.session import BundleSession
from tabs.ui.plots import html

TITLE = "About"
_METHOD = """
A neuron of CLIP's image encoder says little by what makes it fire. What it *does* is to write a
vector that later layers carry into the embedding in which images and texts are compared. For one
neuron that vector points, over all images, along nearly one direction, so it can be read: by the
texts that lie along it, and against it. This page shows these words for every neuron, the
pictures that drive it, how far the words foretell it on pictures kept for that, and what follows
from them: concepts of an image, masks, pictures that mislead, and what changed between two sets.
"""
_CITE = """
### How to cite

The methods are those of two papers; please cite the one whose models you look at.

- Yossi Gandelsman, Alexei A. Efros, Jacob Steinhardt: *Interpreting the Second-Order Effects of
  Neurons in CLIP*. ICLR 2025, arXiv 2406.04341. (ViT models)
- Edmund Bu, Yossi Gandelsman: *Interpreting ResNet-based CLIP via Neuron-Attention
  Decomposition*. arXiv 2509.19943, 2025. (ResNet models)
"""


@dataclass(frozen=True)
class Widgets:
    """What changes with the bundle."""

    drawing: gr.HTML
    overview: gr.HTML
    limits: gr.Markdown
    card: gr.Markdown


def layout(session: BundleSession) -> Widgets:
    """The method, then figures, limits and card of a bundle."""
    gr.Markdown(_METHOD, elem_classes="cn-text")
    drawing = html(method_drawing(session.bundle.config.kind), elem_id="about-method")
    overview = html(overview_html(session), elem_id="about-overview")
    limits = gr.Markdown(limits_text(session), elem_id="about-limits", elem_classes="cn-text")
    gr.Markdown(_CITE, elem_classes="cn-text")
    with gr.Accordion("The bundle’s card", open=False, elem_id="about-whole-card"):
        card = gr.Markdown(card_text(session), elem_id="about-card", elem_classes="cn-text")
    return Widgets(drawing=drawing, overview=overview, limits=limits, card=card)
