"""README and docs: their samples run, their links lead somewhere, their commands exist."""

import argparse
import re
import shlex

import pytest

from clipneurons.bundle.bundle import load_bundle
from export.__main__ import COMMANDS
from export.commands import evaluate
from research.__main__ import COMMANDS as RESEARCH
from research.benchmarks.command import BENCHMARKS
from research.mini_clip.command import STAGES
from tests.helpers.app_server import ROOT

DOCS = ROOT / "docs"
PAGES = {
    path: path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
# A page's samples in order, as one program; endpoints are called in test_app.py.
SAMPLES = {
    str(path.relative_to(ROOT)): blocks
    for path, text in PAGES.items()
    if (blocks := [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "gradio_client" not in block
    ])
}  # fmt: skip

shipped = pytest.mark.skipif(
    not (ROOT / "artifacts" / "mini-vit" / "config.json").is_file(), reason="no bundled model"
)


@shipped
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("page", SAMPLES)
def test_samples_run_from_top_to_bottom(page, monkeypatch, tmp_path):
    for folder in ("artifacts", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in SAMPLES[page]:
        exec(block, names)


@shipped
@pytest.mark.parametrize("name", ["mini-vit", "mini-rn"])
def test_the_samples_of_a_card_run_as_the_page_prints_them(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    card = load_bundle(ROOT / "artifacts" / name).card
    samples = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert samples
    for sample in samples:
        names = {}
        exec(sample, names)
        layer, unit = map(int, re.search(r"phrases\((\d+), (\d+)\)", sample).groups())
        expected = re.search(r"phrases.*# (.*)", sample)[1]
        phrases = names["bundle"].phrases(layer, unit, 3)
        assert [f"{text} {c:+.2f}" for text, c in phrases] == expected.split(", ")


def test_links_lead_to_files_and_headings():
    for page, text in PAGES.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose):
            name, _, anchor = target.partition("#")
            file = page if not name else (page.parent / name).resolve()
            assert file.exists(), (page.name, target)
            if anchor and file.suffix == ".md":
                assert anchor in _anchors(file.read_text()), (page.name, target)


def _anchors(text):
    """Anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line and not line.startswith(":"):
                    name = re.sub(r".*<(.*)>", r"\1", line)
                    listed |= set(page.parent.glob(f"{name}.md")) | set(
                        page.parent.glob(f"{name}.py")
                    )
    pages = {page for page in PAGES if page.is_relative_to(DOCS)}
    assert pages - listed == {DOCS / "index.md"}


def test_commands_that_pages_name_exist():
    for page, text in PAGES.items():
        for command in re.findall(r"python -m export ([a-z][a-z-]*)", text):
            assert command in COMMANDS, (page.name, command)
        for command in re.findall(r"python -m research ([a-z][a-z-]*)", text):
            assert command in RESEARCH, (page.name, command)
        for stage in re.findall(r"python -m research mini-clip ([a-z]+)", text):
            assert stage in STAGES, (page.name, stage)
        for name in re.findall(r"python -m research benchmark (\w+)", text):
            assert name in BENCHMARKS, (page.name, name)


def test_uses_of_evaluate_that_pages_name_can_be_read():
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    used = [u for text in PAGES.values() for u in re.findall(r"export evaluate ([^`#\n]+)", text)]
    assert {parser.parse_args(shlex.split(words)).part for words in used} >= {"fidelity", "labels"}
