"""The shift report as one HTML page without scripts or outside files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image

from clipneurons.shift.localisation import where
from export.common.thumbnails import thumbnail

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1f2430; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .25rem .6rem }
tr { border-bottom: 1px solid #e3e6ec } img { width: 72px; margin: 2px; border-radius: 4px }
.bar { display: inline-block; height: .7rem; border-radius: 2px; background: #3b6fd8 }
.bar.less { background: #d8703b } .quiet { color: #667 } .alarm { color: #b3261e; font-weight: 600 }
"""
_EXPLAINED = {
    "spread": "many units move a little",
    "peak": "one unit moves a lot",
    "rare": "one unit moves a lot on few images",
    "words": "what is said moves along a text",
    "kernel": "the distribution of what is said changes shape",
    "embeddings": "the distribution of the embeddings changes shape",
    "places": "what stands at one place of the images changes",
}


def comparison_page(summary: dict, pictures: dict[str, list[str]]) -> str:
    """One comparison: verdict, words, units with bars and pictures of both sides."""
    images = summary["images"]
    verdict = (
        f'<p class="alarm">The sets differ (p = {summary["p"]:.3g}).</p>'
        if summary["shift"]
        else f"<p>No difference found (p = {summary['p']:.3g}).</p>"
    )
    tests = "".join(
        f"<tr><td>{name}</td><td>{_EXPLAINED[name]}</td><td>{p:.3g}</td></tr>"
        for name, p in summary["tests"].items()
    )
    body = f"""<h1>Shift report</h1>
<p>{images["new"]} new images against {images["reference"]} reference images;
{summary["units_changed"]} units changed at a false-discovery rate of {summary["level"]:g}.</p>
{verdict}
<table><tr><th>statistic</th><th>large when</th><th>p</th></tr>{tests}</table>
<h2>Said more</h2>{_words(summary["more"])}
<h2>Said less</h2>{_words(summary["less"], "less")}
<h2>New images that carry the change</h2>{_gallery(pictures["carriers"])}
{_localised(summary["localised"], pictures.get("localised", ())) if summary["shift"] else ""}
<h2>Units that changed most</h2>"""
    largest = max((abs(unit["change"]) for unit in summary["units"]), default=1) or 1
    rows = []
    for unit in summary["units"]:
        side = "less" if unit["change"] < 0 else ""
        rows.append(
            f'<tr><td>{escape(unit["name"])}<br><span class="quiet">'
            f"{escape(', '.join(unit['words']))}</span></td>"
            f'<td style="width:35%"><span class="bar {side}" '
            f'style="width:{100 * abs(unit["change"]) / largest:.0f}%"></span></td>'
            f"<td>{unit['change']:+.2f} sd</td><td>q = {unit['q']:.2g}</td></tr>"
        )
        for name in ("reference", "new"):
            shown = pictures.get(f"{name} {unit['column']}")
            if shown:
                rows.append(f'<tr><td class="quiet">{name}</td><td colspan="3">'
                            f"{_gallery(shown)}</td></tr>")  # fmt: skip
    return _page("Shift report", f"{body}<table>{''.join(rows)}</table>")


def monitor_page(summary: dict, pictures: Sequence[Sequence[Image.Image]]) -> str:
    """A stream: p-values and watched concepts over time, then each window's words and images."""
    windows = summary["windows"]
    alarms = sum(window["alarm"] for window in windows)
    body = [
        f"<h1>Shift monitor</h1><p>{len(windows)} windows of {summary['window']} images against "
        f"{summary['reference_images']} reference images; {alarms} alarms at level "
        f"{summary['level']:g}.</p>"
    ]
    for text in summary["watched"]:
        values = [window["watched"][text] for window in windows]
        body.append(f"<h2>{escape(text)}</h2>{_line(values)}")
    body.append("<h2>Windows</h2><table>")
    for window, shown in zip(windows, pictures, strict=True):
        state = "alarm" if window["alarm"] else "quiet"
        words = _listed(window["words"])
        if window["localised"]:
            words += (
                f"<br>{where(window['localised']['box'])}: {_listed(window['localised']['words'])}"
            )
        thumbnails = _gallery([thumbnail(p, 96) for p in shown]) if window["alarm"] else ""
        body.append(
            f'<tr><td>{window["first"]} to {window["last"]}</td><td class="{state}">'
            f"p = {window['p']:.3g}</td><td>{words}<br>{thumbnails}</td></tr>"
        )
    return _page("Shift monitor", "".join(body) + "</table>")


def _line(values: Sequence[tuple[float, float]]) -> str:
    """A line with error bars of two standard errors, in reference standard deviations."""
    width, height, margin = 720, 140, 30
    top = max(max(abs(v) + 2 * e for v, e in values), 0.5)
    step = (width - 2 * margin) / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return height / 2 - value / top * (height / 2 - 12)

    points = [(margin + i * step, v, e) for i, (v, e) in enumerate(values)]
    bars = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(v - 2 * e):.1f}" y2="{y(v + 2 * e):.1f}" '
        f'stroke="#9ab" /><circle cx="{x:.1f}" cy="{y(v):.1f}" r="3" fill="#3b6fd8" />'
        for x, v, e in points
    )
    path = " ".join(f"{x:.1f},{y(v):.1f}" for x, v, _ in points)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="100%" role="img">'
        f'<line x1="{margin}" x2="{width - margin}" y1="{y(0)}" y2="{y(0)}" stroke="#ccd" />'
        f'<text x="0" y="14" font-size="11">{top:+.1f} sd</text>'
        f'<text x="0" y="{height - 4}" font-size="11">{-top:+.1f} sd</text>'
        f'<polyline points="{path}" fill="none" stroke="#3b6fd8" />{bars}</svg>'
    )


def _words(words: Sequence[tuple[str, float]], side: str = "") -> str:
    largest = max((abs(score) for _, score in words), default=1) or 1
    rows = "".join(
        f'<tr><td>{escape(word)}</td><td style="width:60%"><span class="bar {side}" '
        f'style="width:{100 * abs(score) / largest:.0f}%"></span></td><td>{score:+.1f}</td></tr>'
        for word, score in words[:10]
    )
    return f"<table>{rows}</table>"


def _listed(words: Sequence[tuple[str, float]]) -> str:
    return escape(", ".join(word for word, _ in words[:5]))


def _localised(localised: dict | None, pictures: Sequence[str]) -> str:
    if localised is None:
        return '<p class="quiet">No single place of the images differs clearly.</p>'
    return (
        f"<h2>A closer look: {where(localised['box'])}</h2>"
        f"{_gallery(pictures)}{_words(localised['words'])}"
    )


def _gallery(pictures: Sequence[str]) -> str:
    return "".join(f'<img src="{uri}" alt="" loading="lazy">' for uri in pictures)


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
