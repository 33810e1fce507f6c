"""A bundle in numbers, its limits and its model card, as HTML and Markdown."""

from __future__ import annotations

import re
from html import escape

from clipneurons.bundle.config import FeatureNote
from tabs.server.session import BundleSession
from tabs.ui.plots import Bar, bars, empty, figures, folded, percent, section

_METHODS = {
    "by_place": "neurons, patch by patch",
    "paper": "neurons, the paper’s weights",
    "text_span": "attention heads (TextSpan)",
    "nearest_texts": "nearest texts",
    "nearest_texts_in_windows": "nearest texts in nine windows",
    "all_by_place": "all that is written, patch by patch",
}
# Of the export's conditions, those that say most about the texts.
_REPLACED = ("all effects mean-ablated", "first component", "32 texts", "128 texts")
# Longer tables of the card are opened by whoever wants them.
_ROWS = 8


def overview_html(session: BundleSession) -> str:
    """The bundle in numbers, and how well image concepts were measured to do."""
    config, metrics = session.bundle.config, session.bundle.metrics
    units = sum(len(arrays.directions) for arrays in session.bundle.layers.values())
    numbers = figures(
        [
            (f"{units:,}", config.unit_nouns, f"In layers {', '.join(map(str, config.layers))}"),
            (f"{config.data.count:,}", "images", f"Data set: {config.data.name}"),
            (f"{config.pool.count:,}", "texts", f"{config.pool.name} ({config.pool.licence})"),
            (f"{config.components}", f"texts a {config.noun}", "Terms of the sparse decomposition"),
            (config.activation, "activation", "Of the model's MLPs"),
            *_dictionary(config.features),
        ]
    )  # fmt: skip
    head = f"<header><h2>{escape(session.title)}</h2></header>"
    try:
        measured = f'<div class="cn-columns">{_concepts(metrics)}{_fidelity(metrics)}</div>'
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        measured = empty("The bundle's figures do not have the form that this page reads.")
    return f'<article class="cn-card">{head}{numbers}{measured}</article>'


def _dictionary(note: FeatureNote | None) -> list[tuple[str, str, str]]:
    """Where a bundle's features come from, and what they explain."""
    if note is None:
        return []
    return [
        (
            f"{note.site} {note.block}",
            "read",
            f"In {note.tokens} tokens, by {note.source}",
        ),
        (percent(note.explained_variance, 0), "variance explained", "Of what the features rebuild"),
        (f"{note.active:.0f}", "active a token", f"Of {note.latents:,} features"),
        (f"{note.dead:,}", "dead", "Without effect on any image"),
        (f"{note.dense:,}", "dense", "Active in more than a tenth of the tokens"),
    ]


def _concepts(metrics: dict) -> str:
    found = metrics.get("concepts", {})
    recall = found.get("recall_at_10")
    title = "Are the things in a picture among its ten first concepts?"
    if not recall:
        command = "python -m research concepts"
        return section(title, empty(f"Not measured for this bundle; {command} does."))
    rows = [
        Bar(
            _METHODS.get(name, name), value,
            hint=f"95 % interval {found['interval_95'][name][0]:.3f} to "
            f"{found['interval_95'][name][1]:.3f}",
        )
        for name, value in sorted(recall.items(), key=lambda pair: -pair[1])
    ]  # fmt: skip
    rows.append(Bar("ten texts at random", found["chance"]))
    note = (
        f"Recall at 10 on {found['data']}: no training saw them, and scenes are in a drawing style "
        f"that no training image has. The page starts with the best of those that read neurons."
    )
    body = bars(rows, label=title, digits=3, wide=True)
    return section(title, body, note)


def _fidelity(metrics: dict) -> str:
    """How often the model still chooses the same class, by layer and replacement."""
    title = "Does the model choose the same when its neurons are replaced?"
    rows = [
        Bar(f"{layer}: {condition}", figure["agreement"])
        for layer, conditions in metrics.get("fidelity", {}).get("layers", {}).items()
        for condition, figure in conditions.items()
        if condition in _REPLACED and "agreement" in figure
    ]
    if not rows:
        command = "python -m export evaluate"
        return section(title, empty(f"Not measured for this bundle; {command} does."))
    body = folded("Layer by layer", bars(rows, label=title, digits=3, most=1.0, wide=True))
    shares = [row.value for row in rows]
    note = (
        f"On {100 * min(shares):.0f} to {percent(max(shares), 0)} of images it chooses the same "
        "class; all conditions are in the card below."
    )
    return section(title, body, note)


def card_text(session: BundleSession) -> str:
    """The model card without its YAML head, its long tables folded."""
    card = re.sub(r"\A---\n.*?\n---\n", "", session.bundle.card, flags=re.DOTALL)
    card = _without_html(card)
    return re.sub(r"(?:^\|.*\n?)+", _folded_table, card, flags=re.MULTILINE)


def _without_html(card: str) -> str:
    """Markdown whose tags are text and whose images are links: nothing is fetched unasked."""
    card = re.sub(r"<!--.*?-->\n?", "", card, flags=re.DOTALL)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", card).replace("![", "[")


def _folded_table(found: re.Match) -> str:
    lines = found[0].strip("\n").splitlines()
    rows = len(lines) - 2  # the heading and the line below it
    if rows <= _ROWS:
        return found[0]
    head = " · ".join(cell.strip() for cell in lines[0].strip("|").split("|") if cell.strip())
    title = f"{rows} rows: {head}" if head else f"{rows} rows"
    table = "\n".join(lines)
    return f"<details><summary>{escape(title)}</summary>\n\n{table}\n\n</details>\n\n"


def limits_text(session: BundleSession) -> str:
    """What the bundle's card and its model's own say of what not to trust."""
    sections = re.findall(
        r"^#+ Limits\n+(.*?)(?=^#|\Z)",
        _without_html(session.bundle.card),
        flags=re.MULTILINE | re.DOTALL,
    )
    return "\n\n".join(["### Limits", *map(str.strip, sections)]) if sections else ""
