"""The line from which a name counts as found."""

import numpy as np
import pytest

from clipneurons.bundle.bundle import load_bundle
from clipneurons.segmentation.presence import line_of
from research.__main__ import main
from research.segmentation.presence import at_line, line_at
from tests.helpers.tiny import tiny_bundle_folder


def test_the_line_lets_one_in_twenty_through():
    absent = np.random.default_rng(0).normal(size=1000)
    line = line_at(absent)
    assert 0.04 < (absent >= line).mean() <= 0.05
    row = at_line(line, absent + 2, absent)
    assert row["names"] == 1000
    assert row["false_finds"] == pytest.approx((absent >= line).mean())
    assert row["recall"] == pytest.approx((absent + 2 >= line).mean())


def test_the_command_writes_the_line_that_the_page_reads(tmp_path, capsys):
    bundle = tiny_bundle_folder(tmp_path / "bundle", kind="vit")
    words = ["segmentation", "presence", "--bundle", str(bundle), "--device", "cpu"]
    assert main([*words, "--images", "2"]) == 0
    line = line_of(load_bundle(bundle).metrics)
    assert 0 <= line.false_finds <= 1
    assert f"line {line.score:.2f}" in capsys.readouterr().out
