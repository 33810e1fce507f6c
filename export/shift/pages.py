"""The shift report as one HTML page without scripts or outside files."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image

from clipneurons.shift.comparison import TESTS
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


def comparison_page(report: dict, images: dict[str, list[str]]) -> str:
    """One comparison: the verdict, then what differs: pixels, texts, images and units.

    ``images`` are data URIs: the "changed" ones, the crops of them ("localised"), and the top
    images of unit i on both sides ("reference i", "new i").
    """
    counts = report["images"]
    verdict = (
        f'<p class="alarm">The sets differ (p = {report["p"]:.3g}).</p>'
        if report["significant"]
        else f"<p>No significant difference (p = {report['p']:.3g}).</p>"
    )
    tests = "".join(
        f"<tr><td>{name}</td><td>{TESTS[name]}</td><td>{p:.3g}</td></tr>"
        for name, p in report["tests"].items()
    )
    body = f"""<h1>Comparison of two image sets</h1>
<p>{counts["new"]} new images against {counts["reference"]} reference images.</p>
{verdict}
<table><tr><th>test</th><th>small p-value when</th><th>p</th></tr>{tests}</table>"""
    if report["significant"]:
        body += _differences(report, images)
    return _page("Comparison of two image sets", body)


def _differences(report: dict, images: dict[str, list[str]]) -> str:
    return (
        f"{_pixels(report['pixels'])}"
        f"{_localised(report['localised'], images.get('localised', ()))}"
        f"<h2>Texts matched more</h2>{_texts(report['more'])}"
        f"<h2>Texts matched less</h2>{_texts(report['less'], 'less')}"
        f"<h2>New images that changed most</h2>{_gallery(images['changed'])}"
        f"<h2>Units that changed most</h2><p>{report['units_changed']} units changed at a "
        f"false-discovery rate of {report['level']:g}.</p>{_units(report['units'], images)}"
    )


def _pixels(changes: Sequence[dict]) -> str:
    if not changes:
        return ""
    rows = "".join(
        f"<tr><td>{change['measure']} {change['direction']}</td>"
        f"<td>{change['change']:+.2f} sd</td><td>q = {change['q']:.2g}</td></tr>"
        for change in changes
    )
    return (
        f"<h2>Low-level changes</h2><table>{rows}</table>"
        '<p class="quiet">Texts and units below may follow from these.</p>'
    )


def _units(units: Sequence[dict], images: dict[str, list[str]]) -> str:
    largest = max((abs(unit["change"]) for unit in units), default=1) or 1
    rows = []
    for number, unit in enumerate(units):
        side = "less" if unit["change"] < 0 else ""
        rows.append(
            f'<tr><td>{escape(unit["name"])}<br><span class="quiet">'
            f"{escape(', '.join(unit['label']))}</span></td>"
            f'<td style="width:35%"><span class="bar {side}" '
            f'style="width:{100 * abs(unit["change"]) / largest:.0f}%"></span></td>'
            f"<td>{unit['change']:+.2f} sd</td><td>q = {unit['q']:.2g}</td></tr>"
        )
        for name in ("reference", "new"):
            if shown := images.get(f"{name} {number}"):
                rows.append(f'<tr><td class="quiet">{name}</td><td colspan="3">'
                            f"{_gallery(shown)}</td></tr>")  # fmt: skip
    return f"<table>{''.join(rows)}</table>"


def monitor_page(report: dict, images: Sequence[Sequence[Image.Image]]) -> str:
    """A stream: watched texts over time, then each window's p-value, and texts of the alarms."""
    windows = report["windows"]
    alarms = sum(window["alarm"] for window in windows)
    body = [
        f"<h1>Shift monitor</h1><p>{len(windows)} windows of {report['window']} images against "
        f"{report['reference_images']} reference images; {alarms} alarms at level "
        f"{report['level']:g}.</p>"
    ]
    for text in report["watched"]:
        values = [window["watched"][text] for window in windows]
        body.append(f"<h2>{escape(text)}</h2>{_line(values)}")
    body.append("<h2>Windows</h2><table>")
    for window, shown in zip(windows, images, strict=True):
        state = "alarm" if window["alarm"] else "quiet"
        lines = [_listed(window["texts"])]
        if window["pixels"]:
            changes = [f"{change['measure']} {change['direction']}" for change in window["pixels"]]
            lines.insert(0, escape(", ".join(changes)))
        if place := window["localised"]:
            lines.append(f"{place['where']}: {_listed(place['texts'])}")
        thumbnails = _gallery([thumbnail(image, 96) for image in shown])
        body.append(
            f'<tr><td>{window["first"]} to {window["last"]}</td><td class="{state}">'
            f"p = {window['p']:.3g}</td><td>{'<br>'.join(lines)}<br>{thumbnails}</td></tr>"
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


def _texts(rows: Sequence[dict], side: str = "") -> str:
    largest = max((abs(row["score"]) for row in rows), default=1) or 1
    cells = "".join(
        f'<tr><td>{escape(row["text"])}</td><td style="width:60%"><span class="bar {side}" '
        f'style="width:{100 * abs(row["score"]) / largest:.0f}%"></span></td>'
        f"<td>{row['score']:+.1f}</td></tr>"
        for row in rows[:10]
    )
    return f"<table>{cells}</table>"


def _listed(rows: Sequence[dict]) -> str:
    return escape(", ".join(row["text"] for row in rows[:5]))


def _localised(place: dict | None, crops: Sequence[str]) -> str:
    if place is None:
        return '<p class="quiet">No single place of the images differs clearly.</p>'
    return (
        f"<h2>Where the images differ: {place['where']}</h2>"
        f"{_gallery(crops)}{_texts(place['texts'])}"
    )


def _gallery(uris: Sequence[str]) -> str:
    return "".join(f'<img src="{uri}" alt="" loading="lazy">' for uri in uris)


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
