"""The table of a layer's neurons: its order, its rows as HTML and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

from clipneurons.bundle.unit_table import layer_table
from clipneurons.bundle.unit_words import plain
from tabs.explore.files import file_to_save
from tabs.server.session import BundleSession
from tabs.ui.plots import empty, link, percent

# Rows that are drawn; the rest is found by sorting, by the filter, or in the CSV file.
DRAWN = 200


@dataclass(frozen=True)
class Column:
    """A column of `layer_table`: its heading, what it means, how a value is written."""

    key: str
    title: str
    hint: str
    write: Callable[[Any], str] = str

    @property
    def words(self) -> bool:
        """Whether it holds words, not numbers."""
        return self.write is _words


def _words(label: str) -> str:
    """A label as the cards have it: names without articles."""
    return ", ".join(plain(part) for part in label.split(", "))


COLUMNS = (
    Column("unit", "neuron", "Number in the layer"),
    Column("label", "label", "The texts that predict it best, where they are reliable", _words),
    Column("simulation_score", "score", "Simulation score: correlation of its effect with what the"
           " label predicts, on held-out images", "{:.3f}".format),
    Column("reliable", "reliable", "Significant, r² of at least 5 % and specificity of at least"
           " 95 %", lambda value: "yes" if value else "no"),
    Column("specificity", "specificity", "Share of the layer’s other neurons that the label"
           " predicts worse", lambda value: percent(value, 0)),
    Column("decomposition", "decomposition", "Its direction as a sum of texts", _words),
    Column("decomposition_score", "its score", "Simulation score of the decomposition, cut to as"
           " many texts", "{:.3f}".format),
    Column("explained_variance", "one direction", "Variance of its strongest effects along one"
           " direction", lambda value: percent(value, 0)),
    Column("participation_ratio", "of images", "Share of images that carry it", percent),
    Column("top_norm", "strongest", "Norm of its strongest effect", "{:.2g}".format),
)  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What the rows are sorted by."""

    column: str = "unit"
    descending: bool = False

    def clicked(self, column: str) -> Order:
        """After a click on a heading: numbers come largest first, words and places from the start.

        A second click turns the order round; a heading that is none changes nothing.
        """
        known = {one.key: one for one in COLUMNS}
        if column not in known:
            return self
        if column == self.column:
            return Order(column, not self.descending)
        return Order(column, not (known[column].words or column == "unit"))


def ordered(rows: list[dict], words: str, order: Order) -> list[dict]:
    """Rows with all the words in one of their texts, sorted; what was not tested comes last."""
    wanted = words.lower().split()
    texts = [column.key for column in COLUMNS if column.words]
    chosen = [
        row
        for row in rows
        if any(all(word in row[text].lower() for word in wanted) for text in texts)
    ]
    known = [row for row in chosen if row[order.column] is not None]
    known.sort(key=lambda row: row[order.column], reverse=order.descending)
    return known + [row for row in chosen if row[order.column] is None]


def rows_of(session: BundleSession, layer: int) -> list[dict]:
    """The layer's rows by the columns' keys."""
    return session.cached(
        f"table {layer}",
        lambda: layer_table(session.bundle, layer),
    )


def table_html(session: BundleSession, layer: int, words: str, order: Order) -> str:
    """The first rows; a click on a heading sorts, one on a row shows the neuron."""
    rows = ordered(rows_of(session, layer), words, order)
    if not rows:
        return empty("No neuron of this layer has these words.")
    heads = "".join(_heading(column, order) for column in COLUMNS)
    body = "".join(_row(session, layer, row) for row in rows[:DRAWN])
    note = "Click a heading to sort, a row to see the neuron."
    if len(rows) > DRAWN:
        note += f" The first {DRAWN} of {len(rows):,} are shown."
    return (
        f'<p class="cn-note">{note}</p><div class="cn-scroll"><table class="cn-table cn-sorted">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _heading(column: Column, order: Order) -> str:
    sort, arrow = "none", ""
    if column.key == order.column:
        sort, arrow = ("descending", " ↓") if order.descending else ("ascending", " ↑")
    kind = "" if column.words else ' class="cn-number"'
    return (
        f'<th aria-sort="{sort}"{kind}><button data-column="{column.key}" '
        f'title="{escape(column.hint)}">{column.title}{arrow}</button></th>'
    )


def _row(session: BundleSession, layer: int, row: dict) -> str:
    unit = row["unit"]
    place = link(str(unit), tab="explore", layer=layer, unit=unit, bundle=session.key)
    cells = [f'<td class="cn-number">{place}</td>']
    for column in COLUMNS[1:]:
        value = row[column.key]
        text = "not tested" if value is None else column.write(value)
        text = text if column.words else text.replace("-", "−")
        kind = "" if column.words else ' class="cn-number"'
        cells.append(f"<td{kind}>{escape(text)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _as_text(words: str) -> str:
    """Words that no spreadsheet takes for a formula; texts of a bundle may be a stranger's."""
    return f"'{words}" if words.startswith(("=", "+", "-", "@", "\t", "\r")) else words


def csv_file(session: BundleSession, layer: int) -> str:
    """All rows with unrounded values, for `cnSave` of `page.js`."""
    text = StringIO()
    writer = csv.DictWriter(text, [column.key for column in COLUMNS], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(
        row | {column.key: _as_text(row[column.key]) for column in COLUMNS if column.words}
        for row in rows_of(session, layer)
    )
    return file_to_save(f"layer{layer}.csv", "text/csv", text.getvalue().encode())
