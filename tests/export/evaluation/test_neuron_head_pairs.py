"""What `evaluate --pairs` prints is read; all figures go into the bundle."""

import json

from export.__main__ import main
from tests.helpers.tiny import tiny_bundle_folder


def test_figures_are_printed_in_words_and_kept_in_the_bundle(tmp_path, capsys):
    bundle = tiny_bundle_folder(tmp_path / "rn", kind="resnet")
    line = ["evaluate", "--bundle", str(bundle), "--no-fidelity", "--pairs", "--pair-scenes", "6"]
    assert main(line) == 0
    figures = json.loads((bundle / "metrics.json").read_text())["pairs"]
    said = capsys.readouterr().out
    assert figures["command"].startswith("python -m export ")
    assert said.startswith(f"6 scenes, {figures['pairs']:,} neuron-head pairs\n")
    everything = figures["accuracy by pairs kept"]["largest of all images"][str(figures["pairs"])]
    assert f"{everything:.1f}\nvariance explained by one direction: " in said
    for found in figures["sub-concepts"]:
        assert f"neuron {found['neuron']}, {found['explained']:.0%} by one direction" in said
        for group in found["groups"]:
            assert f"{', '.join(group['words'])}: {group['share']:.0%} of the variance" in said
    assert len(said.splitlines()) < 40
