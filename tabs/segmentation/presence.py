"""Is it in the picture? Each name on a fixed scale, with the line that it must reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabs.ui import plots

if TYPE_CHECKING:
    from clipneurons.segmentation.presence import Presence

_SHOWN = 30


def presence_html(names: Sequence[str], presence: Sequence[Presence], texts: int) -> str:
    """How well each name fits some part of the picture, among the bundle's texts."""
    from clipneurons.segmentation.presence import PRESENT

    rows = [
        plots.Bar(
            _label(name, one, PRESENT), _length(one.fit, texts),
            f"{name}: {plots.percent(one.fit)} of the bundle’s texts fit less; cosine of the whole "
            f"image {one.cosine:.3f}".replace("-", "−"),
            shown=plots.percent(one.fit),
        )
        for name, one in list(zip(names, presence, strict=True))[:_SHOWN]
    ]  # fmt: skip
    return plots.section(
        "Is it in the picture?",
        plots.bars(
            rows, label="How many texts fit less than each name", most=1.0,
            mark=_length(PRESENT, texts),
        ),
        f"How many of the bundle’s {texts:,} texts fit less well, where the name fits best. A name "
        f"that does not reach the line ({plots.percent(PRESENT, 0)}), or that another one outdoes "
        "there, is not painted below; its heat map then says where it fits least badly.",
    )  # fmt: skip


def _label(name: str, one: Presence, line: float) -> str:
    if one.present:
        return name
    return f"{name} (rather {one.rival})" if one.fit >= line else f"{name} (not found)"


def _length(fit: float, texts: int) -> float:
    """Share of the axis: logarithmic in the texts that fit better, so the last per cent shows."""
    least = 1 / max(texts, 2)
    return math.log(max(1 - fit, least)) / math.log(least)
