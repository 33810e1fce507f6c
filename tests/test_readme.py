"""The README's samples run as they are, on a fresh clone without a network."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import load_clip
from clipneurons.shift.comparison import EmbeddedTextPool, Profiler
from clipneurons.shift.monitor import Monitor
from tests.helpers.app_server import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

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
    exec(block("make_lens", "phrases"), names)
    effects = names["effects"][4]
    assert tuple(effects.norms().shape) == (1, 512)
    assert tuple(effects.dense(torch.tensor([7])).shape) == (1, 1, 128)
    assert load_bundle("artifacts/mini-vit").phrases(4, 7)


def test_the_segmentation_sample_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(block("segmenters"), names)
    with Image.open("artifacts/dictionary.webp") as image:
        assert names["found"].mask(0).shape == image.size[::-1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_monitor_sample_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts").symlink_to(ROOT / "artifacts")
    rng = torch.Generator().manual_seed(0)
    names = {
        "load_bundle": load_bundle, "load_clip": load_clip, "make_lens": make_lens,
        "Profiler": Profiler, "EmbeddedTextPool": EmbeddedTextPool, "Monitor": Monitor,
        "reference_images": torch.randn(20, 3, 64, 64, generator=rng),
        "stream": torch.randn(3, 70, 3, 64, 64, generator=rng),
    }  # fmt: skip
    exec(block("Monitor("), names)
    assert len(names["monitor"].windows) == 1
    assert (tmp_path / "monitor.safetensors").is_file()


def test_files_that_it_names_are_there():
    linked = re.findall(r"\]\((?!http|#)([^)]+)\)", README)
    assert len(linked) >= 2
    assert all((ROOT / name).exists() for name in linked)
    modules = re.findall(r"python -m ((?:export|benchmarks)(?:\.\w+)?)", README)
    for module in np.unique(modules):
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
