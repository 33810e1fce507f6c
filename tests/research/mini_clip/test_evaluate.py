"""The shipped weights load, and their cards say what the evaluation prints."""

import hashlib

import numpy as np
import pytest
import torch

from clipneurons.models.clip import load_clip
from clipneurons.models.open_clip_folder import read_weights
from clipneurons.shipped import ARTIFACTS, TOWERS
from clipneurons.synthetic.photographs import load_photographs
from clipneurons.synthetic.pictograms import load_pictograms
from research.mini_clip import evaluate as mini


@pytest.fixture(scope="module")
def clips():
    return {tower: load_clip(ARTIFACTS / tower, device="cpu") for tower in TOWERS}


def card_cell(tower: str, row: str) -> list[float]:
    """The figures of a row of the shipped card, in the tower's column."""
    text = (ARTIFACTS / tower / "MODEL.md").read_text().split(mini.BEGIN)[1].split(mini.END)[0]
    lines = [line.strip("| ").split(" | ") for line in text.strip().splitlines()]
    column = 1 + TOWERS.index(tower)
    cells = next(line for line in lines if line[0].startswith(row))
    return [float(cell) for cell in cells[column].split(" / ")]


@pytest.mark.parametrize("tower", TOWERS)
def test_card_says_what_the_evaluation_prints(clips, tower):
    """A row of openmoji, recomputed; the whole table is the command's."""
    images, labels = mini.clean(load_pictograms(heldout=True), "openmoji", mini.TEN)
    embedded = mini.embed_images(clips[tower], images)
    figures = mini.top(embedded, mini.embed_classes(clips[tower], mini.TEN), labels)[:1]
    # Kernels differ between machines: one drawing may change sides.
    expected = pytest.approx(figures, abs=100 / len(images) + 0.06)
    assert card_cell(tower, "openmoji (held out), ten classes") == expected


@pytest.mark.parametrize("tower", TOWERS)
def test_photographs_of_every_class_are_read_as_the_card_says(clips, tower, monkeypatch):
    monkeypatch.setattr(mini, "late_effects", lambda *_: {})  # the slowest rows, not asked for here
    pack = load_photographs()
    rows = [row for c in np.unique(pack.label) for row in np.flatnonzero(pack.label == c)[:2]]
    read = mini.photographs(clips[tower], pack.subset(np.array(rows)))
    row = next(name for name in read if name.endswith("top-1 / top-5"))
    assert row.startswith("caltech-101, photographs no training saw")
    # Four standard errors of a share of this many images.
    assert card_cell(tower, row) == pytest.approx(read[row], abs=200 / len(rows) ** 0.5)


def test_a_data_set_that_ships_is_measured_once():
    pack = load_photographs()
    assert len(mini.without(pack, [pack])) == 0
    assert len(mini.without(pack, [])) == len(pack)


def test_towers_share_one_text_tower():
    digests = []
    for tower in TOWERS:
        weights = read_weights(ARTIFACTS / tower)
        digests.append(
            {
                name: hashlib.sha256(value.numpy().tobytes()).hexdigest()
                for name, value in weights.items()
                if not name.startswith("visual.")
            }
        )
    assert digests[0] == digests[1]


def test_weights_are_small():
    files = [ARTIFACTS / tower / "open_clip_model.safetensors" for tower in TOWERS]
    assert sum(file.stat().st_size for file in files) < 45e6


def test_text_space_has_meaning(clips):
    dog, cat, truck, red = clips["mini-vit"].encode_text(["a dog", "a cat", "a truck", "a red dog"])
    assert dog @ cat > dog @ truck
    assert dog @ red > 0.6


def test_accuracy_of_a_perfect_and_a_wrong_classifier():
    rows = torch.eye(8)
    assert mini.top(rows, rows, list(range(8))) == (100, 100)
    assert mini.top(rows, rows, [(i + 1) % 8 for i in range(8)])[0] == 0


def test_table():
    text = mini.table({"a": {"x": [1.0, 2.0]}, "b": {"x": [3.0, 4.04]}})
    assert text.splitlines()[2] == "| x | 1.0 / 2.0 | 3.0 / 4.0 |"


def test_clean_drawings_are_on_white():
    images, labels = mini.clean(load_pictograms(heldout=True), "openmoji", ("cat", "dog"))
    assert set(labels) == {0, 1}
    assert all((image[0, 0] >= 250).all() and np.ptp(image) > 100 for image in images)
