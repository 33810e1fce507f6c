"""The table of a layer: what clicks on headings do, the filter, the file."""

import base64
import csv
import json

import pytest

from clipneurons.bundle.unit_table import layer_table
from tabs.explore.table import COLUMNS, DRAWN, Order, csv_file, ordered, rows_of, table_html
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return BundleSession("b", tmp_path_factory.mktemp("b"), tiny_bundle(neurons=DRAWN + 3))


def test_columns_are_those_of_the_library(session):
    assert {column.key for column in COLUMNS} <= layer_table(session.bundle, 1)[0].keys()


def test_a_click_sorts_and_a_second_one_turns_round():
    once = Order().clicked("top_norm")
    assert once == Order("top_norm", descending=True), "the strongest first"
    assert once.clicked("top_norm") == Order("top_norm", descending=False)
    assert once.clicked("label") == Order("label", descending=False), "words from A"
    assert once.clicked("nothing") == once


def test_rows_are_sorted_and_what_is_not_known_comes_last():
    rows = [
        dict.fromkeys([column.key for column in COLUMNS], 0) | {"label": "", "decomposition": ""}
        for _ in range(3)
    ]
    for row, value in zip(rows, (0.1, None, 0.7), strict=True):
        row["simulation_score"] = value
    for descending, expected in ((True, [0.7, 0.1, None]), (False, [0.1, 0.7, None])):
        found = ordered(rows, "", Order("simulation_score", descending))
        assert [row["simulation_score"] for row in found] == expected


def test_the_filter_wants_all_words_in_one_text(session):
    rows = rows_of(session, 1)
    found = ordered(rows, "RED car", Order())
    assert found == [row for row in rows if "red car" in row["decomposition"]]
    assert 0 < len(found) < len(rows)
    assert "No neuron" in table_html(session, 1, "xyzzy", Order())


def test_the_page_draws_the_first_rows_and_the_file_has_all(session):
    page = table_html(session, 1, "", Order("top_norm", descending=True))
    assert page.count("<tr>") == DRAWN + 1
    assert f"The first {DRAWN} of {DRAWN + 3}" in page
    assert page.count('aria-sort="descending"') == 1
    strongest = max(rows_of(session, 1), key=lambda row: row["top_norm"])
    assert page.index(f"unit={strongest['unit']}&") == page.index("unit=")
    file = json.loads(csv_file(session, 1))
    text = base64.b64decode(file["uri"].partition("base64,")[2]).decode()
    lines = list(csv.DictReader(text.splitlines()))
    assert len(lines) == DRAWN + 3
    assert float(lines[5]["top_norm"]) == rows_of(session, 1)[5]["top_norm"]


def test_no_text_of_a_bundle_is_a_formula_in_a_spreadsheet(tmp_path):
    bundle = tiny_bundle()
    bundle.texts[:] = [f"=HYPERLINK({text})" for text in bundle.texts]
    bundle.layers[1].coefficients.abs_()
    file = json.loads(csv_file(BundleSession("b", tmp_path, bundle), 1))
    text = base64.b64decode(file["uri"].partition("base64,")[2]).decode()
    assert {row["decomposition"][:2] for row in csv.DictReader(text.splitlines())} == {"'="}


def test_shares_are_written_as_on_the_card(session):
    row = rows_of(session, 1)[0]
    page = table_html(session, 1, "", Order())
    assert f"{100 * row['participation_ratio']:.1f} %" in page
    assert f"{100 * row['explained_variance']:.0f} %" in page
