"""The README's table says what the files in `artifacts/` say, and nothing else is in it."""

import shutil
from collections import Counter

import pytest

from clipneurons.shipped import ARTIFACTS, TOWERS
from research.__main__ import main
from research.papers import figures
from research.papers.figures_command import renewed
from tests.helpers.app_server import ROOT

pytestmark = pytest.mark.skipif(
    not (ARTIFACTS / "report" / "results.json").is_file(), reason="no report"
)


def test_the_table_of_the_readme_is_what_was_measured():
    page = (ROOT / "README.md").read_text()
    assert renewed(page, ARTIFACTS) == page, "run `python -m research figures`"


def test_only_what_is_between_the_marks_changes(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{figures.BEGIN}former{figures.END}\nafter")
    assert main(["figures", "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{figures.BEGIN}\n| |")
    assert text.endswith(f"|\n{figures.END}\nafter")
    assert "former" not in text


def test_a_page_without_marks_and_missing_figures_are_one_line(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("no marks")
    assert main(["figures", "--page", str(page)]) == 2
    assert f"expected {figures.BEGIN}" in capsys.readouterr().err
    page.write_text(f"{figures.BEGIN}{figures.END}")
    assert main(["figures", "--page", str(page), "--artifacts", str(tmp_path)]) == 2
    assert "results.json" in capsys.readouterr().err
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "results.json").write_text('{"bundles": {}}')
    for tower in TOWERS:
        (tmp_path / tower).mkdir()
        for name in ("MODEL.md", "metrics.json"):
            shutil.copy(ARTIFACTS / tower / name, tmp_path / tower)
    assert main(["figures", "--page", str(page), "--artifacts", str(tmp_path)]) == 2
    assert "holds no 'mini-vit': measure it first" in capsys.readouterr().err
    assert page.read_text() == f"{figures.BEGIN}{figures.END}"


def test_figures_stand_beside_their_rivals():
    """Of numbers that are known here; a figure that a model lacks is a dash."""
    shares = {"unchanged": 0.5, "ours": 0.8, "ours, for real": 0.7, "linear probe": 0.9}
    conditions = {k: {"worst": v} for k, v in (shares | {"a": 0.6, "b": 0.55}).items()}
    one = figures.Measured(
        card={"openmoji (held out), 396 concepts: top-1 / top-5": "67.2 / 83.5",
              "openmoji (held out), 396 concepts: share of top-1 lost": "–",
              "caltech-101, photographs no training saw, 94 names: share of top-1 lost": "–"},
        metrics={"concepts": {"recall_at_10": {"by_place": 0.5, "nearest_texts": 0.6},
                              "interval_95": {"by_place": [0.4, 0.55]},
                              "ahead_of_nearest_texts_95": {"by_place": [-0.2, 0.05]}},
                 "shift": {"cells": {
                     name: {"ours": share, "MMD": share / 2} for name, share in {
                         "none 200": 0.04, "style 200": 0.6, "background 200": 1.0,
                         "blur 200": 0.8, "vehicles 200": 0.9, "class:0.1 200": 0.4,
                         "mark:0.2 200": 0.75, "mark:0.05 1000": 0.2}.items()}}},
        results={
            "mending": {"rows": [{"conditions": conditions}]},
            "segmentation": {"metrics": ["pixel accuracy", "mIoU"], "blocks": {
                block: {
                    "patch attribution": {
                        "values": [90, 66.3], "low": [89, 64.2], "high": [91, 68.4]},
                    "second-order votes": {"values": [99, 46.8]},
                    "second-order attribution": {"values": [99, 65]},
                    "TextSpan": {"values": [1, 63.7]}, "LRP": {"values": [99, 38.5]},
                } for block in ("without edges", "with edges")}},
        },
        verdicts=Counter({"holds": 3, "not decided": 2}),
    )  # fmt: skip
    rows = {row.what.partition(" ")[0]: row for row in figures.ROWS}
    assert rows["drawings"].cell(one) == "67.2 %"
    assert rows["share"].cell(one) is None
    assert rows["semantic"].cell(one) is None
    assert rows["concepts"].cell(one) == (
        "**50.0 (40.0 to 55.0)**, -20.0 to 5.0 ahead of nearest texts<br>"
        "nearest texts, without neurons 60.0"
    )
    assert rows["segmentation"].cell(one) == (
        "**66.3** (64.2 to 68.4)<br>TextSpan 63.7<br>the paper's: second-order votes 46.8"
    )
    assert rows["shifts"].cell(one) == (
        "**60, 100, 80, 90, 40, 75, 20 (no shift: 4)**<br>"
        "MMD 30, 50, 40, 45, 20, 38, 10 (no shift: 2)"
    )
    assert rows["a"].cell(one) == (
        "50.0 → **80.0** (made in the model itself 70.0)<br>the best control: a 60.0"
    )
    assert rows["claims"].cell(one) == "**3** of 5; 2 undecided"


def test_bundles_that_are_not_the_shipped_ones_have_no_table(tmp_path):
    shutil.copytree(ARTIFACTS / "report", tmp_path / "report")
    with pytest.raises(FileNotFoundError):
        renewed((ROOT / "README.md").read_text(), tmp_path)
