import sys

import pytest
import torch
from PIL import Image

from clipneurons.lens.lens import Lens
from clipneurons.plots import plot_ablation, plot_effects, plot_heatmap
from tests.helpers.models import images, tiny_vit


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    yield
    matplotlib.pyplot.close("all")


def test_a_heat_map_lies_over_its_image():
    ax = plot_heatmap(Image.new("RGB", (40, 20)), [[0.0, 1.0]], "cat")
    (drawn,) = ax.images
    assert drawn.get_array().shape == (20, 40, 3)
    assert drawn.get_array()[:, -1].sum() > drawn.get_array()[:, 0].sum()
    assert ax.get_title() == "cat"


def test_effects_are_counted_by_layer():
    clip = tiny_vit()
    effects = Lens(clip, (1, 2))(images(1, clip)).effects
    ax = plot_effects(effects, bins=5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["layer 1", "layer 2"]
    low, high = ax.get_xlim()
    assert low < float(effects[1].norms().median()) < high


def test_ablations_are_lines_with_the_unedited_accuracy():
    ax = plot_ablation([1, 10], {"largest": [0.6, 0.2], "random": [0.6, 0.6]}, unedited=0.64)
    assert [line.get_label() for line in ax.lines] == ["largest", "random", "unedited"]
    with pytest.raises(ValueError, match="largest: 1 accuracies for 2 counts"):
        plot_ablation([1, 10], {"largest": [0.6]})
    assert plot_ablation([1], {"a": [0.5]}, ax=ax) is ax


def test_without_matplotlib_what_brings_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'clipneurons\[plot\]'"):
        plot_heatmap(Image.new("RGB", (4, 4)), torch.zeros(2, 2))
