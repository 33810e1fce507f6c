"""The comparison of bundles: what it takes from each, and how it refuses."""

from dataclasses import replace

import pytest
import torch

from export.common.errors import UserError
from research.__main__ import main
from research.features.compare import figures, interval, of_layer, table
from tests.helpers.tiny import tiny_bundle, tiny_bundle_folder, tiny_clip, tiny_labels

ABLATED = {"change": -0.01, "change_interval": [-0.02, 0.005]}


@pytest.fixture(scope="module")
def tested():
    # Things that the composed scenes show, so that recall has what to find.
    bundle = tiny_bundle(neurons=128)
    words = ["cat", "dog", "duck", "rabbit", "airplane", "apple", "flower", "horse"]
    bundle = replace(bundle, texts=words)
    layers = {f"layer {layer}": {"all effects mean-ablated": ABLATED} for layer in bundle.layers}
    metrics = bundle.metrics | {"fidelity": {"layers": layers}}
    return replace(bundle, labels=tiny_labels(bundle), metrics=metrics)


def test_figures_are_those_of_the_layers_live_units(tested, tmp_path):
    clip = tiny_clip(tmp_path)
    arrays = tested.layers[2]
    dead = arrays.directions.clone()
    dead[:5] = 0
    layers = tested.layers | {2: replace(arrays, directions=dead)}
    bundle = of_layer(replace(tested, layers=layers), 2)
    row = figures(bundle, clip, scenes=8)
    scores = tested.labels[2].simulation_score[5:]
    assert (row["units"], row["dead"]) == (128, 5)
    assert row["simulation_score"] == pytest.approx(float(scores.mean()), abs=1e-4)
    low, high = row["simulation_score_interval"]
    assert low < row["simulation_score"] < high
    assert 0 <= row["recall_at_10"] <= 1
    assert "| -1.0 (-2.0 to +0.5) |" in table({"neurons": row})


def test_an_interval_holds_the_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    held = 0
    for seed in range(60):
        low, high = interval(torch.rand(80, generator=generator), seed)
        held += low <= 0.5 <= high
    assert held >= 51


def test_what_was_not_measured_is_named(tested, tmp_path, capsys):
    with pytest.raises(UserError, match=r"has layers \[1, 2\], not 7"):
        of_layer(tested, 7)
    with pytest.raises(UserError, match="no tested labels or no figures"):
        of_layer(replace(tested, labels={}), 2)
    folder = tiny_bundle_folder(tmp_path / "tiny")
    assert main(["features", "--layer", "2", f"neurons={folder}"]) == 2
    assert "no tested labels or no figures" in capsys.readouterr().err
    assert main(["features", "--layer", "2", str(folder)]) == 2
    assert "expected NAME=BUNDLE" in capsys.readouterr().err
