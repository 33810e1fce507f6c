"""Packs of photographs: what is written is read, the shipped one holds what its notice says."""

import io

import numpy as np
import pytest
from PIL import Image

from clipneurons.synthetic.photographs import (
    Photographs,
    load_names,
    load_photographs,
    save_photographs,
)


def webp(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "WEBP", lossless=True)
    return file.getvalue()


@pytest.fixture
def pack() -> Photographs:
    files = [webp((250, 0, 0)), webp((0, 250, 0)), webp((0, 0, 250))]
    classes = [
        {"source": "a", "key": "x", "name": "cat"},
        {"source": "b", "key": "y", "name": "dog"},
    ]
    return Photographs(
        classes=tuple(classes),
        label=np.array([1, 0, 1], np.int32),
        split=np.array([0, 1, 0], np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        webp=np.frombuffer(b"".join(files), np.uint8),
    )


def test_what_is_written_is_read(pack, tmp_path):
    save_photographs(tmp_path / "pack.safetensors", pack)
    read = load_photographs(tmp_path / "pack.safetensors")
    assert len(read) == 3
    assert read.classes == pack.classes
    assert [read.name(i) for i in range(3)] == ["dog", "cat", "dog"]
    assert list(read.sources) == ["b", "a", "b"]
    assert read.image(1).shape == (48, 64, 3)
    assert tuple(read.image(1)[0, 0]) == (0, 250, 0)
    np.testing.assert_array_equal(read.split, [0, 1, 0])


def test_a_subset_keeps_images_and_names(pack):
    some = pack.subset(np.array([2, 0]))
    assert [some.name(i) for i in range(2)] == ["dog", "dog"]
    assert len(some.classes) == 1
    np.testing.assert_array_equal(some.image(0), pack.image(2))
    np.testing.assert_array_equal(some.image(1), pack.image(0))


def test_a_damaged_pack_is_told_in_one_line(pack, tmp_path):
    path = tmp_path / "pack.safetensors"
    with pytest.raises(FileNotFoundError, match="no photographs at"):
        load_photographs(path)
    save_photographs(path, pack)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"no intact pack .* expected\s+tensors webp"):
        load_photographs(path)
    save_photographs(
        path, Photographs(pack.classes, pack.label[:2], pack.split, pack.offsets, pack.webp)
    )
    with pytest.raises(ValueError, match="do not match"):
        load_photographs(path)


def test_the_shipped_photographs():
    pack = load_photographs()
    assert 1800 <= len(pack) <= 2200
    assert set(pack.sources) == {"caltech-101"}
    assert not {"garfield", "snoopy", "faces", "faces easy"} & {c["name"] for c in pack.classes}
    assert max(max(pack.image(i).shape) for i in range(0, len(pack), 97)) <= 64


def test_every_shipped_photograph_has_a_name_with_kinds():
    names = load_names()
    assert {entry["name"] for entry in load_photographs().classes} <= names.keys()
    assert "animal" in names["leopard"]
    assert all(name not in kinds for name, kinds in names.items())
