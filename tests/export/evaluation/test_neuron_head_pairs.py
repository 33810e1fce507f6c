"""What `evaluate_pairs` prints is read; all figures go where `--out` says."""

import json
import sys

from export.evaluation import neuron_head_pairs
from tests.helpers.tiny import tiny_bundle_folder


def test_figures_are_printed_in_words_and_written_as_json(tmp_path, monkeypatch, capsys):
    bundle, out = tiny_bundle_folder(tmp_path / "rn", kind="resnet"), tmp_path / "f.json"
    line = ["command", "--bundle", str(bundle), "--count", "6", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", line)
    assert neuron_head_pairs.main() == 0
    figures, said = json.loads(out.read_text()), capsys.readouterr().out
    assert said.startswith(f"6 scenes, {figures['pairs']:,} neuron-head pairs\n")
    everything = figures["accuracy by pairs kept"]["largest of all images"][str(figures["pairs"])]
    assert f"{everything:.1f}\nvariance explained by one direction: " in said
    for found in figures["sub-concepts"]:
        assert f"neuron {found['neuron']}, {found['explained']:.0%} by one direction" in said
        for group in found["groups"]:
            assert f"{', '.join(group['words'])}: {group['share']:.0%} of the variance" in said
    assert len(said.splitlines()) < 40
