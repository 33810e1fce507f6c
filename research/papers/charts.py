"""Line, bar and step charts as inline SVG that follow the page's colours (light or dark)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

WIDTH, LEFT, RIGHT, BOTTOM = 640, 56, 16, 44
_PLOT = 240
_ROW = 18
COLOURS = 6  # classes c0 … c5 of the page's style sheet


@dataclass(frozen=True)
class Line:
    """Points with 95 % intervals where known; `dashed` for a reference."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    intervals: Sequence[Sequence[float]] | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """A labelled value with its 95 % interval; `colour` is a class of the page's style sheet."""

    label: str
    value: float
    interval: Sequence[float] | None = None
    colour: int = 0


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    ticks: Sequence[tuple[float, str]] | None = None,
    bottom: float | None = None,
) -> str:
    """Lines over a common axis; values are drawn as they are (give per cent for per cent)."""
    xs = [x for line in lines for x in line.x]
    ends = [e for line in lines for pair in line.intervals or () for e in pair]
    ys = [y for line in lines for y in line.y] + ends
    low = min(ys) if bottom is None else bottom
    y_ticks = nice_ticks(low, max(ys))
    y_low, y_high = min(low, y_ticks[0]), max(max(ys), y_ticks[-1])
    x_low, x_high = min(xs), max(xs)
    legend, top = _legend([(line.label, i, line.dashed) for i, line in enumerate(lines)])

    def px(x: float) -> float:
        span = (x_high - x_low) or 1.0
        return LEFT + 12 + (x - x_low) / span * (WIDTH - LEFT - RIGHT - 24)

    def py(y: float) -> float:
        return top + _PLOT - (y - y_low) / ((y_high - y_low) or 1.0) * _PLOT

    parts = [legend]
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" {_ys(py(y), py(y))}/>')
        parts.append(_text(LEFT - 6, py(y) + 4, _number(y), "end"))
    shown = ticks or [(x, _number(x)) for x in _thin(sorted(set(xs)))]
    for x, name in shown:
        parts.append(_text(px(x), top + _PLOT + 18, name, "middle"))
    parts.append(_text((LEFT + WIDTH) / 2, top + _PLOT + 38, x_label, "middle"))
    parts.append(
        f'<text transform="translate(14 {top + _PLOT / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    for i, line in enumerate(lines):
        colour = f"c{i % COLOURS}"
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        dash = ' stroke-dasharray="6 5"' if line.dashed else ""
        parts.append(f'<polyline class="line {colour}" points="{path}"{dash}/>')
        # Intervals side by side, so that equal values stay readable.
        aside = (i - (len(lines) - 1) / 2) * 1.6
        for n, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
            if line.intervals is not None:
                a, b = (py(e) for e in line.intervals[n])
                at = px(x) + aside
                parts.append(
                    f'<line class="line {colour}" x1="{at:.1f}" x2="{at:.1f}" {_ys(a, b)}/>'
                )
            if not line.dashed:
                title = f"{line.label}: {_number(y)} at {_number(x)}"
                parts.append(
                    f'<circle class="dot {colour}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="3.5">'
                    f"<title>{escape(title)}</title></circle>"
                )
    return _svg(parts, top + _PLOT + BOTTOM, f"{y_label} by {x_label}")


def bar_chart(bars: Sequence[Bar], label: str, *, groups: Sequence[str] = ()) -> str:
    """Horizontal bars from 0; `groups` names the colours in a legend."""
    left = 20 + max(7 * len(bar.label) for bar in bars)
    ends = [bar.value for bar in bars] + [e for bar in bars for e in bar.interval or ()]
    ticks = nice_ticks(min(0.0, *ends), max(0.0, *ends))
    low, high = min(ticks[0], *ends, 0.0), max(ticks[-1], *ends, 0.0)
    legend, top = _legend([(name, i, False) for i, name in enumerate(groups)])
    height = top + len(bars) * (_ROW + 6)

    def px(value: float) -> float:
        return left + (value - low) / ((high - low) or 1.0) * (WIDTH - left - 62)

    parts = [legend]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{px(tick):.1f}" x2="{px(tick):.1f}" '
                     f'{_ys(top, height)}/>')  # fmt: skip
        parts.append(_text(px(tick), height + 16, _number(tick), "middle"))
    parts.append(_text((left + WIDTH) / 2, height + 36, label, "middle"))
    for n, bar in enumerate(bars):
        y = top + n * (_ROW + 6) + 3
        a, b = sorted((px(0.0), px(bar.value)))
        parts.append(_text(left - 8, y + 13, bar.label, "end"))
        if bar.value:
            parts.append(f'<rect class="bar c{bar.colour % COLOURS}" x="{a:.1f}" y="{y}" '
                         f'width="{max(b - a, 1):.1f}" height="{_ROW}" rx="2"/>')  # fmt: skip
        far = b
        if bar.interval is not None:
            one, two = (px(e) for e in bar.interval)
            far = max(b, two)
            parts.append(f'<line class="whisker" x1="{one:.1f}" x2="{two:.1f}" '
                         f'{_ys(y + _ROW / 2, y + _ROW / 2)}/>')  # fmt: skip
        parts.append(_text(far + 5, y + 13, _number(bar.value), "start"))
    return _svg(parts, height + BOTTOM, label)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover the range, from the last one below it."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    size = 10 ** floor(log10(raw))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw * 0.999)
    first = floor(low / step + 1e-9)
    ticks = [round(first * step, 10)]
    while ticks[-1] < high - step * 1e-6:
        ticks.append(round((first + len(ticks)) * step, 10))
    return ticks


def _legend(items: Sequence[tuple[str, int, bool]]) -> tuple[str, float]:
    """Names of the colours in as many rows as they need, and where the plot begins."""
    parts, x, y = [], float(LEFT), 14.0
    for label, colour, dashed in items:
        width = 34 + 7.2 * len(label)
        if x + width > WIDTH and x > LEFT:
            x, y = float(LEFT), y + _ROW
        dash = ' stroke-dasharray="6 5"' if dashed else ""
        parts.append(f'<line class="line c{colour % COLOURS}" x1="{x}" x2="{x + 22}" '
                     f'{_ys(y - 4, y - 4)} stroke-width="4"{dash}/>')  # fmt: skip
        parts.append(_text(x + 28, y, label, "start"))
        x += width + 8
    return "".join(parts), (y + 14 if items else 6.0)


def _thin(values: list[float], most: int = 14) -> list[float]:
    step = -(-len(values) // most)
    return values[::step]


def _number(value: float) -> str:
    """Short: at most two decimals, none where they say nothing."""
    if value and abs(value) < 0.01:
        return f"{value:.1g}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:,.4g}"


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _ys(one: float, two: float) -> str:
    return f'y1="{one:.1f}" y2="{two:.1f}"'


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label, True)}">'
        + "".join(parts)
        + "</svg>"
    )
