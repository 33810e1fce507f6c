"""One line on a label: its simulation score as a bar, and whether it is reliable."""

from __future__ import annotations

from clipneurons.bundle.labels import EXPLAINS, SPECIFIC, Label

NOT_TESTED = "Labels of this bundle were not tested."


def label_score_html(label: Label | None) -> str:
    """The bar with the line of other units' labels on it, the score, and what it means."""
    if label is None:
        return f'<p class="cn-trust">{NOT_TESTED}</p>'
    hint = (
        "Simulation score: correlation of the neuron’s effect, on held-out images, with what the"
        f" label predicts: {label.simulation_score:.3f}, 95 % interval {label.low:.3f} to"
        f" {label.high:.3f}. The line: 95 % of the other neurons’ labels stay below"
        f" {label.shuffled_line:.3f} on it. The label predicts {label.specificity:.0%} of the"
        f" layer’s other neurons worse. Reliable: significant, r² of at least {EXPLAINS:.0%}, and"
        f" specificity of at least {SPECIFIC:.0%}."
    ).replace("-", "−")
    value = f"{label.simulation_score:.2f}".replace("-", "−")
    return (
        f'<p class="cn-trust{"" if label.reliable else " cn-unsure"}" title="{hint}">'
        f'<span class="cn-gauge" aria-hidden="true" style="--share:'
        f'{_share(label.simulation_score):.4f};--line:{_share(label.shuffled_line):.4f}"></span>'
        f"<b>{value}</b> {verdict(label)}</p>"
    )


def verdict(label: Label) -> str:
    """How far a label can be relied on, in words."""
    if label.reliable:
        return "simulation score: a reliable label"
    if label.significant:
        return "no reliable label: texts predict it only a little"
    return "no reliable label: other neurons’ labels predict it as well"


def _share(correlation: float) -> float:
    """Of the bar's length; what predicts the opposite has no bar."""
    return min(max(correlation, 0.0), 1.0)
