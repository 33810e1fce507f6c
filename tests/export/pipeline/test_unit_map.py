"""The map of all units: places, dead units, files that are not as they should be."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import BundleDamaged
from export.pipeline.unit_map import unit_places, with_map
from tests.helpers.tiny import tiny_bundle


def test_units_of_one_kind_lie_together():
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(5, 24, generator=generator), dim=1)
    kind = torch.arange(520) % 5
    rows = normalize(centres[kind] + 0.1 * torch.randn(520, 24, generator=generator), dim=1)
    places = unit_places(rows)
    assert places.abs().max() == pytest.approx(1)
    apart = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert (kind[apart.argmin(1)] == kind).float().mean() > 0.98


def test_a_map_is_saved_and_read_again_and_a_wrong_one_refused(tmp_path):
    bundle = tiny_bundle()
    bundle.layers[1].directions[4] = 0
    mapped = with_map(bundle)
    assert mapped.positions[1][4].tolist() == [0, 0]
    read = load_bundle(save_bundle(mapped, tmp_path / "b"))
    for layer, places in mapped.positions.items():
        assert torch.equal(read.positions[layer], places)
    for wrong, message in (
        ({1: mapped.positions[1]}, "a map of"),
        (mapped.positions | {2: mapped.positions[2][:3]}, "a map of"),
        (mapped.positions | {2: mapped.positions[2] * torch.nan}, r"outside \[-1, 1\]"),
    ):
        with pytest.raises(BundleDamaged, match=message):
            save_bundle(replace(mapped, positions=wrong), tmp_path / "c")
