"""The tables of README and docs say what the files in `artifacts/` say."""

import shutil
from collections import Counter

import pytest

from clipneurons.bundle.bundle import load_bundle
from clipneurons.shipped import ARTIFACTS, TOWERS
from export.pipeline.card import local_name
from export.pipeline.update_bundle import card_of
from research.__main__ import main
from research.papers import figures, result_tables
from research.papers.figures_command import load
from research.papers.result_tables import Measured
from tests.helpers.app_server import ROOT

shipped = pytest.mark.skipif(
    not (ARTIFACTS / "report" / "results.json").is_file(), reason="no report"
)


@shipped
def test_tables_of_the_pages_are_what_was_measured():
    measured = load(ARTIFACTS)
    held = []
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        held += figures.names(text)
        assert figures.renewed(text, measured) == text, f"{page}: run `python -m research figures`"
    assert sorted(held) == sorted(figures.TABLES)


@shipped
def test_only_what_is_between_the_marks_changes(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: claims -->\nformer\n<!-- /figures -->\nafter")
    assert main(["figures", "--pages", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- figures: claims -->\n\n| verdict |")
    assert text.endswith("|\n\n<!-- /figures -->\nafter")
    assert "former" not in text


@shipped
def test_pages_without_marks_and_missing_figures_are_one_line(tmp_path, capsys):
    page = tmp_path / "page.md"
    command = ["figures", "--pages", str(page), "--artifacts", str(tmp_path)]
    page.write_text("no marks")
    assert main(command) == 2
    assert "expected <!-- figures: NAME -->" in capsys.readouterr().err
    page.write_text(text := "<!-- figures: claims -->\n<!-- /figures -->")
    assert main(command) == 2
    assert "results.json" in capsys.readouterr().err
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "results.json").write_text('{"bundles": {}}')
    for tower in TOWERS:
        (tmp_path / tower).mkdir()
        for name in ("MODEL.md", "metrics.json"):
            shutil.copy(ARTIFACTS / tower / name, tmp_path / tower)
    assert main(command) == 2
    assert "holds no 'mini-vit': measure it first" in capsys.readouterr().err
    page.write_text("<!-- figures: unheard -->\n<!-- /figures -->")
    assert main(["figures", "--pages", str(page)]) == 2
    assert "unheard" in capsys.readouterr().err
    assert text != page.read_text()


def test_tables_of_known_numbers():
    """A figure that a model lacks is a dash."""
    shares = {"unchanged": 0.5, "ours": 0.8, "ours, for real": 0.7, "linear probe": 0.9}
    conditions = {name: {"worst": v, "average": v + 0.05} for name, v in shares.items()}
    entry = {"values": [90, 66.32], "low": [89, 64.2], "high": [91, 68.4], "behind": {}}
    ahead = {"patch attribution": {"low": [0, -0.01], "high": [0, 4.2]}}
    one = Measured(
        card={"openmoji (held out), 396 concepts: top-1 / top-5": "67.2 / 83.5"},
        metrics={"shift": {"cells": {
            "mark:0.2 200": {"ours": 0.75, "MMD": 0.375, "embedding mean": 0, "classifier": 1},
            "style 50": {"ours": 0.6, "MMD": 0.3, "embedding mean": 0, "classifier": 1},
        }}, "mending": {"rows": [{"conditions": conditions}]}},
        results={
            "segmentation": {"metrics": ["pixel accuracy", "mIoU"], "blocks": {
                block: {"TextSpan": entry | {"values": [1, 63.7], "behind": ahead},
                        "patch attribution": entry}
                for block in ("without edges", "with edges")}},
        },
        verdicts=Counter({"holds": 3, "not decided": 2}),
    )  # fmt: skip
    shift = result_tables.shift([one, one]).splitlines()
    assert shift[4:6] == [
        "| drawing style | 50 | 60 | 30 | 0 | 100 |",
        "| mark on 20 % | 200 | 75 | 38 | 0 | 100 |",
    ]
    segmentation = result_tables.segmentation([one, one]).splitlines()
    assert segmentation[4:6] == [
        "| **patch attribution (ours)** | 66.3 | 64.2 | 68.4 | – | – |",
        "| TextSpan | 63.7 | 64.2 | 68.4 | 0.0 | 4.2 |",
    ]
    assert result_tables.semantic([one, one]) == ""
    mending = result_tables.mending([one, one])
    assert "| **ours**, in the model | 70.0 | 75.0 | 70.0 | 75.0 |" in mending
    assert result_tables.cosy([one, one]).startswith("Not measured")
    scores = {"auc": 0.8, "auc_interval": [0.79, 0.81], "mad": 1.5, "measured_share": 0.9}
    one.metrics["label_comparison"] = {"methods": {"ours": {"cosy": scores}}}
    row = "| **ours** | 0.800 | 0.790 | 0.810 | 1.50 | 90 | 0.800 | 0.790 | 0.810 | 1.50 | 90 |"
    assert result_tables.cosy([one, one]).splitlines()[2] == row
    claims = result_tables.claims([one, one]).splitlines()
    assert claims[2:4] == ["| holds | 3 | 3 |", "| holds by construction | 0 | 0 |"]
    assert claims[-1] == "| all | 5 | 5 |"


@shipped
def test_bundles_that_are_not_the_shipped_ones_have_no_table(tmp_path):
    shutil.copytree(ARTIFACTS / "report", tmp_path / "report")
    with pytest.raises(FileNotFoundError):
        load(tmp_path)


def test_figures_that_no_command_makes_are_listed():
    page = (
        "# A\nIt takes 0.4 s (arXiv 2406.04341, `0.5`).\n"
        "## B\n12.5 % by `python -m research labels`.\n"
        "## C\n<!-- figures: claims -->\n| 1.5 |\n<!-- /figures -->\nPython 3.11\n```\n7.5\n```\n"
    )
    assert figures.unmade(page) == [(2, "It takes 0.4 s (arXiv 2406.04341, `0.5`).")]


@shipped
def test_tables_that_are_not_measured_are_an_error(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(text := "<!-- figures: claims -->\nformer\n<!-- /figures -->\n0.25\n")
    assert main(["figures", "--check", "--pages", str(page)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("run python -m research figures")
    assert lines[1].endswith("page.md:4: no command makes 0.25")
    assert page.read_text() == text


@shipped
@pytest.mark.parametrize("tower", TOWERS)
def test_cards_print_what_was_measured(monkeypatch, tower):
    monkeypatch.chdir(ROOT)
    folder = ARTIFACTS / tower
    bundle = load_bundle(folder)
    assert card_of(bundle, folder, local_name(folder)) == bundle.card
