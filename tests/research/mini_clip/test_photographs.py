"""Photographs for training: who is kept out depends on the photograph alone."""

import numpy as np
import pytest
import torch

from clipneurons.synthetic.photographs import load_photographs, save_photographs
from export.common.errors import UserError
from research.mini_clip import photographs
from research.mini_clip.augment import vary
from research.mini_clip.class_names import plain


@pytest.fixture(scope="module")
def pack():
    return load_photographs().subset(np.arange(0, 1900, 40))


def test_who_is_kept_out_does_not_depend_on_the_files(pack):
    pack.split[:] = 0
    whole = photographs.kept_out(pack)
    assert 0 < whole.sum() < len(pack)
    parts = [pack.subset(np.arange(0, 30)), pack.subset(np.arange(30, len(pack)))]
    np.testing.assert_array_equal(np.concatenate([photographs.kept_out(p) for p in parts]), whole)
    pack.split[:5] = 1
    assert photographs.kept_out(pack)[:5].all()


def test_all_that_ships_is_kept_out():
    """The shipped pack marks its photographs, and would be chosen again."""
    pack = load_photographs()
    assert photographs.kept_out(pack).all()
    again = photographs.shipped(pack)
    assert len(again) == len(pack)
    assert again.data(7) == pack.data(7)


def test_prepared_photographs_are_the_decoded_ones(pack, tmp_path):
    pack.split[:] = np.arange(len(pack)) % 3 == 0
    first, second = pack.subset(np.arange(20)), pack.subset(np.arange(20, len(pack)))
    save_photographs(tmp_path / "a.safetensors", first)
    save_photographs(tmp_path / "b.safetensors", second)
    photographs.prepare([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path)
    classes = sorted({plain(entry["name"]) for entry in pack.classes})
    train, kept = photographs.collections(tmp_path, classes, "cpu")
    rows = np.concatenate([*train.rows.values(), *kept.rows.values()])
    assert sorted(rows) == list(range(len(pack)))
    assert set(np.flatnonzero(pack.split)) <= set(kept.rows["caltech-101"])
    images, labels = train.take(np.array([3, 25]))
    for image, label, row in zip(images, labels, (3, 25), strict=True):
        assert classes[label] == plain(pack.name(row))
        np.testing.assert_array_equal(image, photographs.decoded(pack.data(row)))
    images, labels, source = train.sample(16, np.random.default_rng(0))
    assert images.shape == (16, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert len(labels) == 16
    assert set(source.tolist()) == {0}


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"no pack")
    with pytest.raises(UserError, match="no intact pack of photographs"):
        photographs.prepare([tmp_path / "bad.safetensors"], tmp_path)
    with pytest.raises(UserError, match="no photographs at"):
        photographs.prepare([tmp_path / "absent.safetensors"], tmp_path)


def test_a_crop_of_everything_is_the_image():
    torch.manual_seed(0)
    image = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    varied = vary(image, 0.3, True, 32)
    assert varied.shape == (4, 3, 32, 32)
    assert 0 <= varied.min() <= varied.max() <= 1
    flat = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    # A flat image has no places: only its brightness may change.
    assert vary(flat, 0.3, True, 64).std(dim=(1, 2, 3)).max() < 1e-5
