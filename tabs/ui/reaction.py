"""What a neuron does on a visitor's picture, as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from clipneurons.dictionary.dashboard import NeuronDashboard
from tabs.ui.neuron_card import place
from tabs.ui.patch_mask import patch_mask
from tabs.ui.plots import figures, percent


@dataclass(frozen=True)
class Reaction:
    """A neuron's effect on a picture; `below` is the share of the data's images below its norm.

    `map` is where it comes from, in [0, 1]; `picture` the source of an `<img>` of what was seen.
    """

    norm: float
    projection: float
    threshold: float
    percentile: float
    below: float
    map: list[list[float]]
    picture: str


def reaction_html(card: NeuronDashboard, reaction: Reaction) -> str:
    """Picture with the map over it, a verdict and the numbers behind it."""
    if reaction.norm <= reaction.threshold:
        verdict = "No reaction to speak of"
    elif reaction.projection >= 0:
        verdict = "It reacts, along its direction"
    else:
        verdict = "It reacts, against its direction"
    numbers = figures(
        [
            (
                f"{reaction.norm:.2g}", "size of its effect",
                f"Norm of the effect less its mean; it counts as activated from "
                f"{reaction.threshold:.2g}",
            ),
            (
                f"{reaction.projection:+.2g}".replace("-", "−"), "along its direction",
                "Projection of the effect on the neuron’s direction, which its words describe",
            ),
            (
                percent(reaction.below), "of the data’s pictures react less",
                f"It counts as activated above {reaction.percentile:g} %",
            ),
        ]
    )  # fmt: skip
    return (
        f'<div class="cn-tried"><div class="cn-lit"><img alt="Your picture as the model sees it" '
        f'src="{reaction.picture}"><img class="cn-map" alt="" src="{patch_mask(reaction.map)}">'
        f'</div><div><h3>{verdict}</h3><p class="cn-note">{escape(place(card))}. Bright is where '
        "the effect comes from; point at the picture to see it plain.</p>"
        f"{numbers}</div></div>"
    )
