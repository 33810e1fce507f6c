"""Scenes for training: what they show is what their captions' points say."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clipneurons.synthetic.captions import COLOURS, colour_word
from export.common.errors import UserError
from research.mini_clip import scene_bank, scene_batches
from research.mini_clip.scene_batches import Facts, Sprites, compose_batch, points_of
from research.mini_clip.word_space import WEIGHT


def test_colours_have_the_captions_names():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (4000, 3))
    found = scene_batches.colour_indices(torch.from_numpy(rgb).double() / 255)
    assert [list(COLOURS)[i] for i in found] == [colour_word(colour) for colour in rgb]


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_a_batch_holds_together(pack, objects):
    torch.manual_seed(0)
    sprites = Sprites.load([pack], exclude=("fxemoji",))
    image, facts = compose_batch(sprites, 24, objects, np.random.default_rng(0), 0.5)
    assert image.shape == (24, 3, 64, 64)
    assert image.dtype == torch.uint8
    assert ((facts.shown >= 0).sum(1) == objects).all()
    assert facts.shown.max() < len(pack.concepts)
    assert (facts.colour[facts.shown < 0] == -1).all()
    assert ((facts.relation >= 0).sum() > 0) == (objects > 1)
    assert (facts.ground >= 0).any()
    assert (facts.ground[:, 0] < 0).any()


def test_points_are_the_formula():
    generator = torch.Generator().manual_seed(0)
    classes, colours, patterns = (torch.randn(5, 8, generator=generator) for _ in range(3))
    rotations = torch.randn(4, 8, 8, generator=generator)
    facts = Facts(
        shown=torch.tensor([[0, 3, -1], [2, -1, -1]]),
        colour=torch.tensor([[1, -1, -1], [-1, -1, -1]]),
        ground=torch.tensor([[2, 4], [0, 1]]),
        relation=torch.tensor([1, -1]),
    )
    found = points_of(facts, classes, colours, patterns, rotations)
    one = (classes[0] + WEIGHT["colour"] * colours[1] + classes[3]) / 2
    one = one + WEIGHT["background"] * colours[4] + WEIGHT["pattern"] * patterns[2]
    one = one + WEIGHT["relation"] * (rotations[1] @ classes[0] + rotations[0] @ classes[3])
    two = classes[2] + WEIGHT["background"] * colours[1]  # the first pattern, plain, goes unsaid
    torch.testing.assert_close(found, F.normalize(torch.stack([one, two]), dim=1))


def test_who_is_left_of_whom_can_be_said_either_way():
    generator = torch.Generator().manual_seed(0)
    classes, colours, patterns = (torch.randn(5, 8, generator=generator) for _ in range(3))
    rotations = torch.randn(4, 8, 8, generator=generator)
    none = torch.full((2, 3), -1)
    facts = Facts(torch.tensor([[0, 1, -1], [1, 0, -1]]), none, none[:, :2], torch.tensor([0, 1]))
    left, right = points_of(facts, classes, colours, patterns, rotations)
    torch.testing.assert_close(left, right)


def test_a_bank_is_read_as_it_was_made(pack, tmp_path):
    scene_bank.make_bank([pack], ("fxemoji",), tmp_path, 300, "cpu")
    assert np.load(tmp_path / scene_bank.SCENES).shape == (300, 3, 64, 64)
    facts = scene_bank.load_facts(tmp_path)
    assert len(facts.shown) == 300
    assert facts[:4].ground.shape == (4, 2)
    with pytest.raises(UserError, match="research mini-clip scenes"):
        scene_bank.load_facts(tmp_path / "absent")


def test_dilation_is_max_pooling():
    x = torch.rand(2, 1, 64, 64)
    for size in (3, 5, 9):
        assert torch.equal(scene_batches.dilate(x, size), F.max_pool2d(x, size, 1, size // 2))
