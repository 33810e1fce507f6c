"""The samples of README and docs run as they are, on a fresh clone without a network."""

import argparse
import re
import shlex

import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from clipneurons.shift.comparison import EmbeddedTextPool
from clipneurons.shift.monitor import Monitor
from clipneurons.shift.profile import Profiler
from export.__main__ import COMMANDS
from export.commands import evaluate
from research.__main__ import COMMANDS as RESEARCH
from research.benchmarks.command import BENCHMARKS
from research.mini_clip.command import STAGES
from tests.helpers.app_server import ROOT

PAGES = {path: path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
BLOCKS = [b for text in PAGES.values() for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]

pytestmark = pytest.mark.skipif(
    not (ROOT / "artifacts" / "mini-vit" / "config.json").is_file(), reason="no bundled model"
)


def block(*words):
    """The one sample that holds all the words."""
    (found,) = [text for text in BLOCKS if all(word in text for word in words)]
    return found


def test_the_five_lines_run_and_their_shapes_are_true(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(block("Lens(", "phrases"), names)
    effects = names["effects"][5]
    assert tuple(effects.norms().shape) == (1, 768)
    assert tuple(effects.dense(torch.tensor([7])).shape) == (1, 1, 128)
    assert load_bundle("artifacts/mini-vit").phrases(5, 7)


def test_the_segmentation_sample_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(block("segmentation.segment"), names)
    with Image.open("artifacts/dictionary.webp") as image:
        assert names["found"].mask(0).shape == image.size[::-1]


def test_the_edit_sample_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(block("WordFactor"), names)
    assert names["factors"][4][7] == 0
    assert all((factor != 1).any() for factor in names["factors"].values())


def test_the_cues_sample_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(block("find_cues"), names)
    assert capsys.readouterr().out.startswith(names["cues"].texts[0])


def test_the_label_sample_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(block("simulation_score"), names)
    assert 1 <= len(names["label"].texts) <= 3


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_monitor_sample_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").symlink_to(ROOT / "artifacts")
    rng = torch.Generator().manual_seed(0)
    names = {
        "load_bundle": load_bundle, "load_clip": load_clip, "Lens": Lens,
        "Profiler": Profiler, "EmbeddedTextPool": EmbeddedTextPool, "Monitor": Monitor,
        "reference_images": torch.randn(20, 3, 64, 64, generator=rng),
        "stream": torch.randn(3, 70, 3, 64, 64, generator=rng),
    }  # fmt: skip
    exec(block("Monitor("), names)
    assert len(names["monitor"].windows) == 1
    assert (tmp_path / "monitor.safetensors").is_file()


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
        said = re.search(r"phrases.*# (.*)", sample)[1]
        assert [f"{t} {c:+.2f}" for t, c in names["bundle"].phrases(layer, unit, 3)] == said.split(
            ", "
        )


def test_every_sample_is_run():
    # The endpoints that the last one calls are tested in test_app.py.
    tested = [block("Lens(", "phrases"), block("segmentation.segment"), block("Monitor("),
              block("gradio_client"), block("WordFactor"), block("find_cues"),
              block("simulation_score")]  # fmt: skip
    assert sorted(BLOCKS) == sorted(tested)


def test_files_that_pages_link_to_are_there():
    for page, text in PAGES.items():
        for name in re.findall(r"\]\((?!http|#)([^)#]+)", text):
            assert (page.parent / name).exists(), (page.name, name)
    linked = re.findall(r"\]\(docs/(\w[\w-]*)\.md", PAGES[ROOT / "README.md"])
    assert set(linked) == {path.stem for path in PAGES} - {"README"}, "every page has a way to it"


def test_commands_that_pages_name_are_there():
    for page, text in PAGES.items():
        for command in re.findall(r"python -m export ([a-z][a-z-]*)", text):
            assert command in COMMANDS, (page.name, command)
        for command in re.findall(r"python -m research ([a-z][a-z-]*)", text):
            assert command in RESEARCH, (page.name, command)
        for stage in re.findall(r"python -m research mini-clip ([a-z]+)", text):
            assert stage in STAGES, (page.name, stage)
        for name in re.findall(r"python -m research benchmark (\w+)", text):
            assert name in BENCHMARKS, (page.name, name)


def test_commands_stand_in_blocks():
    for page, text in PAGES.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        found = re.findall(r"^(?:python|make|pip|torchrun) .*", prose, re.MULTILINE)
        assert not found, f"{page.name}: shown as running text"


def test_uses_of_evaluate_that_pages_name_can_be_read():
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    used = [u for text in PAGES.values() for u in re.findall(r"export evaluate ([^`#\n]+)", text)]
    assert {parser.parse_args(shlex.split(words)).part for words in used} >= {"fidelity", "labels"}
