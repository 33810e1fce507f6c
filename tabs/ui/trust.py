"""One line on how far a neuron's words can be trusted: a small bar with the line to beat on it."""

from __future__ import annotations

from clipneurons.explore.dictionary import LabelTrust

NOT_TESTED = "Whether these words predict the neuron was not tested."


def trust_html(trust: LabelTrust | None) -> str:
    """The bar, its value and what it means; of a label that was not tested, just that."""
    if trust is None:
        return f'<p class="cn-trust">{NOT_TESTED}</p>'
    verdict = (
        "its words predict it"
        if trust.reliable
        else "no reliable label: other neurons’ words may predict it as well"
    )
    hint = (
        "Correlation of the neuron’s effect, on images kept for this, with what its words foretell:"
        f" {trust.simulation:.3f}, 95 % interval {trust.low:.3f} to {trust.high:.3f}. The line:"
        f" 95 % of the other neurons’ words stay below {trust.shuffled_line:.3f} on it. The paper’s"
        f" decomposition reaches {trust.decomposition:.3f}."
    ).replace("-", "−")
    value = f"{trust.simulation:.2f}".replace("-", "−")
    return (
        f'<p class="cn-trust{"" if trust.reliable else " cn-unsure"}" title="{hint}">'
        f'<span class="cn-gauge" aria-hidden="true" style="--share:{_share(trust.simulation):.4f};'
        f'--line:{_share(trust.shuffled_line):.4f}"></span>'
        f"<b>{value}</b> {verdict}</p>"
    )


def _share(correlation: float) -> float:
    """Of the bar's length; what predicts the opposite has no bar."""
    return min(max(correlation, 0.0), 1.0)
