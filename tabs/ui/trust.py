"""One line on how far a neuron's words can be trusted: a small bar with the line to beat on it."""

from __future__ import annotations

from clipneurons.bundle.labels import EXPLAINS
from clipneurons.dictionary.dictionary import LabelTrust

NOT_TESTED = "Whether these words predict the neuron was not tested."


def trust_html(trust: LabelTrust | None) -> str:
    """The bar, its value and what it means; of a label that was not tested, just that."""
    if trust is None:
        return f'<p class="cn-trust">{NOT_TESTED}</p>'
    hint = (
        "Correlation of the neuron’s effect, on images kept for this, with what its words foretell:"
        f" {trust.simulation:.3f}, 95 % interval {trust.low:.3f} to {trust.high:.3f}. The line:"
        f" 95 % of the other neurons’ words stay below {trust.shuffled_line:.3f} on it. The paper’s"
        f" decomposition reaches {trust.decomposition:.3f}. Reliable: told from others’ words,"
        f" and explaining {EXPLAINS:.0%} of what it does."
    ).replace("-", "−")
    value = f"{trust.simulation:.2f}".replace("-", "−")
    return (
        f'<p class="cn-trust{"" if trust.told_apart else " cn-unsure"}" title="{hint}">'
        f'<span class="cn-gauge" aria-hidden="true" style="--share:{_share(trust.simulation):.4f};'
        f'--line:{_share(trust.shuffled_line):.4f}"></span>'
        f"<b>{value}</b> {verdict(trust)}</p>"
    )


def verdict(trust: LabelTrust) -> str:
    """How far a label can be relied on, in words."""
    if trust.reliable:
        return "its words predict it"
    if trust.told_apart:
        return "its words predict it a little: it does much else"
    return "no reliable label: other neurons’ words may predict it as well"


def _share(correlation: float) -> float:
    """Of the bar's length; what predicts the opposite has no bar."""
    return min(max(correlation, 0.0), 1.0)
