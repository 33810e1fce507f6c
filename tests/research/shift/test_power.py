"""Samples with known shifts, and the table of power."""

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.shift.profile import Profile
from research.shift.power import SHIFTS, table
from research.shift.scenes import CLASS, MARK, SPOILT, Images, Pools, draw, marked


def test_a_mark_covers_its_corner_and_nothing_else():
    image = np.full((50, 50, 3), 200, np.uint8)
    mark = np.zeros((20, 20, 4), np.uint8)
    mark[..., 3] = 255
    got = marked(image, mark)
    assert (got[:31] == 200).all()
    assert (got[:, :31] == 200).all()
    assert (got[32:48, 32:48] == 0).all()
    elsewhere = marked(image, mark, (0.0, 0.5))
    assert (elsewhere[26:42, 1:17] == 0).all()
    assert (elsewhere[:24] == 200).all()


@pytest.mark.parametrize("how", SPOILT.values(), ids=SPOILT)
def test_what_spoils_an_image_changes_it_a_little(how):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    got = how(image)
    assert (got.size, got.mode) == (image.size, "RGB")
    assert 1 < np.abs(np.asarray(got, int) - np.asarray(image, int)).mean() < 80


def pool(value, count=24):
    rows = torch.full((count, 2), float(value))
    return Images(
        Profile(rows, rows, rows[:, None, None], rows), np.full((count, 4, 4, 3), value, np.uint8)
    )


def test_samples_hold_what_their_shift_says():
    planted = {MARK: {"cat": pool(1), "dog": pool(2)}, CLASS: {"tram": pool(7)}}
    changed = {"style": pool(3), "blur": pool(4)}
    pools = Pools(pool(0), pool(5), pool(6), changed, planted, frozenset({"car"}))

    def new(shift, turn=0):
        return draw(pools, shift, 10, np.random.default_rng(0), turn)

    assert new("none").new.pixels.max() == 0
    assert (new("style").new.pixels == 3).all()
    assert (new("blur").new.pixels == 4).all()
    vehicles = new("vehicles")
    assert set(np.unique(vehicles.new.pixels)) == {5, 6}
    assert vehicles.words == {"car"}
    newcomers = new(f"{CLASS}:0.5")
    assert newcomers.words == {"tram"}
    assert (newcomers.reference.pixels == 5).all(), "the reference has none of the class"
    assert set(np.unique(newcomers.new.pixels)) == {5, 7}
    for turn, (word, value) in enumerate([("cat", 1), ("dog", 2), ("cat", 1)]):
        sample = new("mark:0.5", turn)
        assert sample.words == {word}
        assert set(np.unique(sample.new.pixels)) == {0, value}
        assert len(sample.new) == len(sample.reference) == 10
        assert np.asarray(sample.new.pictures([9])[0]).max() == value
        assert (sample.new.profile.units[:, 0].numpy() == sample.new.pixels[:, 0, 0, 0]).all()


def test_a_cell_needs_as_many_planted_images_as_its_share():
    planted = {MARK: {"cat": pool(1, 20), "dog": pool(2, 19)}}
    pools = Pools(pool(0), pool(5), pool(6), {}, planted, frozenset())
    assert pools.hold("none", 1000)
    assert pools.hold(f"{MARK}:0.19", 100)
    assert not pools.hold(f"{MARK}:0.2", 100)


def test_the_table_has_a_row_a_cell():
    cells = {f"{shift} 50": {"runs": 2, "ours": 0.5} for shift in SHIFTS}
    cells["mark:0.2 50"]["named"] = None
    lines = table(cells).splitlines()
    assert len(lines) == len(SHIFTS) + 2
    assert lines[2] == "| none 50 | 2 | 0.5 |  |"
