"""Images nobody prepared: read right, or skipped with their reason; sources and their order."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
import zlib
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.text.pools import VOCABULARY
from export.common.errors import SourceError, UserError
from export.common.settings import Settings
from export.data import decode as decoding
from export.data.dataset_sources import ScenesSource
from export.data.decode import MAX_ASPECT, Unreadable, decode
from export.data.file_sources import FolderSource, TarSource
from export.data.loader import batches, read
from export.data.open_source import open_source
from export.pipeline.inputs import default_texts, heldout_images
from export.pipeline.plan import classes


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width=12, height=8):
    x = np.linspace(0, 255, width, dtype=np.uint8)
    return Image.fromarray(np.stack([np.tile(x, (height, 1))] * 3, -1))


def assert_alike(image, expected, tolerance=2):
    assert image.mode == "RGB"
    assert image.size == expected.size
    difference = np.abs(np.asarray(image, int) - np.asarray(expected.convert("RGB"), int))
    assert difference.max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM", "TGA", "GIF", "JPEG2000"])
def test_formats(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert_alike(decode(encoded(gradient(16, 16), kind, **options)), gradient(16, 16), 4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_modes(mode):
    image = gradient().convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert_alike(decode(encoded(image, kind)), image.convert("RGB"))


def test_cmyk_jpeg():
    image = gradient(32, 32)
    assert_alike(decode(encoded(image.convert("CMYK"), "JPEG", quality=95)), image, 12)


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    image = decode(encoded(Image.fromarray(values)))
    expected = (values / 257).round().astype(np.uint8)
    assert np.abs(np.asarray(image)[..., 0].astype(int) - expected).max() <= 1


def test_float_images_are_scaled():
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    image = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert (image.min(), image.max()) == (0, 255)
    wide = np.asarray(decode(encoded(Image.fromarray(values * 1000 - 500), "TIFF")))[..., 0]
    assert (wide.min(), wide.max()) == (0, 255)


def test_transparency_lies_on_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (200, 0, 0, 255))
    pixels = np.asarray(decode(encoded(image)))
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert pixels[2, 2].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation):
    upright = Image.new("RGB", (16, 8), "white")
    upright.paste("black", (0, 0, 8, 4))
    back = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = upright if back is None else upright.transpose(back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_alike(decode(encoded(stored, "PNG", exif=exif)), upright)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encoded(first, kind, save_all=True, append_images=[second])
    assert_alike(decode(data), first, 3)


def bomb(width=60000, height=60000):
    """A valid PNG header of 3.6 gigapixels in a few bytes."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, this is no image", "not an image"),
        (b"%PDF-1.4", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image|damaged"),
        (bomb(), "pixels"),
        (encoded(gradient(64, 64), "JPEG")[:400], "damaged|not an image"),
        (encoded(gradient(64, 64), "PNG")[:-30], "damaged"),
    ],
)
def test_what_cannot_be_read_has_a_reason(data, reason):
    with pytest.raises(Unreadable, match=reason):
        decode(data)


def test_any_cut_or_flip_is_read_or_refused_and_nothing_else():
    generator = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        data = encoded(gradient(24, 24), kind)
        for _ in range(25):
            broken = bytearray(data[: generator.integers(1, len(data) + 1)])
            broken[generator.integers(len(broken))] ^= 1 << int(generator.integers(8))
            try:
                mode = decode(bytes(broken)).mode
            except Unreadable:
                mode = "RGB"
            assert mode == "RGB"


def test_a_strip_is_cut_to_its_middle(monkeypatch):
    strip = Image.new("RGB", (4000, 2), "white")
    strip.paste("black", (1990, 0, 2010, 2))
    image = decode(encoded(strip))
    assert image.size == (2 * MAX_ASPECT, 2)
    assert np.asarray(image)[0, MAX_ASPECT].tolist() == [0, 0, 0]
    monkeypatch.setattr(decoding, "MAX_PIXELS", 10)
    with pytest.raises(Unreadable, match="4000 x 2"):
        decode(encoded(strip))


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/a.png", "cat/deep/b.jpg", "dog/c.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        gradient().save(path)
    (tmp_path / "dog" / "empty.jpg").touch()
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "dog" / "notes.txt").write_text("no image by its name")
    (tmp_path / "dog" / "album.jpg").mkdir()
    gradient().save(tmp_path / "dog" / "album.jpg" / "inside.png")
    (tmp_path / ".hidden").mkdir()
    gradient().save(tmp_path / ".hidden" / "x.png")
    return tmp_path


def test_a_folder_is_listed_in_order_with_what_it_skips(folder):
    source = FolderSource(folder)
    assert source.paths == [
        "cat/a.png", "cat/deep/b.jpg", "dog/album.jpg/inside.png", "dog/c.webp", "dog/empty.jpg",
        "dog/gone.png",
    ]  # fmt: skip
    assert source.class_names == ("album.jpg", "cat", "deep", "dog")
    assert source.notes == [
        ("dog/album.jpg", "a folder, not a file"),
        ("dog/notes.txt", "not an image by its name (.txt)"),
    ]
    pictures = [read(raw) for raw in source.raws(range(len(source)))]
    assert [p.label for p in pictures[:4]] == [1, 2, 0, 3]
    assert [p.reason for p in pictures[:4]] == [None] * 4
    assert pictures[4].reason == "empty file"
    assert "No such file" in pictures[5].reason


def test_a_file_that_may_not_be_read(folder, monkeypatch):
    source = FolderSource(folder)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(folder), "read_bytes", refuse)
    assert read(next(source.raws([0]))).reason == "cannot be read: Permission denied"


def test_a_class_is_the_folder_an_image_lies_in(tmp_path):
    for name in ("train/cat", "train/sea_dog", "val/cat"):
        (tmp_path / name).mkdir(parents=True)
        gradient().save(tmp_path / name / "1.png")
    source = open_source(str(tmp_path))
    assert source.class_names == ("cat", "sea dog")
    assert [read(raw).label for raw in source.raws(range(3))] == [0, 1, 0]
    assert classes(source) == "2 classes (cat, sea dog)"
    assert classes(open_source(str(tmp_path), split="val")) == "no classes"


def test_classes_need_a_folder_for_every_image(folder):
    gradient().save(folder / "top.png")
    assert FolderSource(folder).class_names == ()


def test_names_that_are_not_utf8_are_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        file.write(encoded(gradient()))
    picture = read(next(FolderSource(tmp_path).raws([0])))
    assert picture.reason is None


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_no_images_is_an_error(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(SourceError, match=r"no images|not exist"):
        open_source(str(tmp_path / "x"))


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_webdataset_shards(tmp_path):
    picture = encoded(gradient())
    write_tar(tmp_path / "s-00.tar", {"a.png": picture, "a.txt": b"a cat\n", "a.cls": b"3"})
    write_tar(tmp_path / "s-01.tar", {"b.json": b"{}", "x/c.d.png": picture, "x/c.txt": b""})
    for spec in ("s-{00..01}.tar", "s-*.tar", ""):
        source = open_source(str(tmp_path / spec))
        pictures = [read(raw) for raw in source.raws(range(len(source)))]
        assert [p.reason for p in pictures] == [None, None]
        assert (pictures[0].caption, pictures[0].label) == ("a cat", 3)
        assert any("no image among" in reason for _, reason in source.notes)
    with pytest.raises(SourceError, match="1 of 3 tar files are missing"):
        open_source(str(tmp_path / "s-{00..02}.tar"))
    gradient().save(tmp_path / "one.png")
    with pytest.raises(SourceError, match="is a file"):
        open_source(str(tmp_path / "one.png"))
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(SourceError, match=r"bad\.tar"):
        open_source(str(tmp_path / "bad.tar"))


def test_numbers_in_shards_are_classes_only_with_their_names(tmp_path):
    images = {f"{i}.png": encoded(gradient()) for i in range(4)}
    write_tar(tmp_path / "s.tar", images | {f"{i}.cls": str(i).encode() for i in range(4)})

    def labels():
        source = open_source(str(tmp_path / "s.tar"))
        (batch,) = batches(source, lambda image: torch.zeros(3, 4, 4), [0], 4)
        return source.class_names, batch.labels.tolist()

    assert labels() == ((), [-1, -1, -1, -1])
    (tmp_path / "classnames.txt").write_text("cat\nsea dog\nboat\n")
    assert labels() == (("cat", "sea dog", "boat"), [0, 1, 2, -1])
    (tmp_path / "classnames.txt").write_text("missile\ncat\nmissile\n")
    said = classes(open_source(str(tmp_path / "s.tar")))
    assert said == "3 classes (missile, cat, missile), missile more than once"
    (tmp_path / "classnames.txt").write_text("cat\n\ndog\n")
    with pytest.raises(SourceError, match=r"classnames\.txt, line 2 is blank"):
        labels()
    (tmp_path / "classnames.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"classnames\.txt is not UTF-8 text.*byte 3"):
        labels()


def test_a_tar_that_was_cut_keeps_its_whole_images(tmp_path):
    picture = encoded(gradient())
    write_tar(tmp_path / "t.tar", {f"{i}.png": picture for i in range(4)})
    data = (tmp_path / "t.tar").read_bytes()
    (tmp_path / "t.tar").write_bytes(data[: 1024 * 2 + 300])
    source = TarSource([tmp_path / "t.tar"], "t")
    assert read(next(source.raws([0]))).reason is None


def test_batches_keep_their_numbers_whatever_is_broken(folder):
    source = FolderSource(folder)

    def preprocess(image):
        return torch.from_numpy(np.array(image.resize((4, 4)))).permute(2, 0, 1).float()

    whole = list(batches(source, preprocess, range(3), 2))
    assert [b.ids.tolist() for b in whole] == [[0, 1], [2, 3], []]
    assert whole[2].images is None
    assert [index for index, _, _ in whole[2].skipped] == [4, 5]
    again = list(batches(source, preprocess, [1, 2], 2, workers=3))
    assert [b.digest for b in again] == [b.digest for b in whole[1:]]
    assert torch.equal(again[0].images, whole[1].images)
    first = source.root / "cat" / "a.png"
    Image.new("RGB", (3, 3), "red").save(first)
    changed = next(iter(batches(source, preprocess, [0], 2)))
    assert changed.digest != whole[0].digest


def test_scenes_are_the_same_each_time_and_know_their_class():
    source = open_source("scenes:6", image_size=32)
    assert isinstance(source, ScenesSource)
    assert len(source) == 6
    one, two = (
        [(p.digest, p.caption) for p in map(read, source.raws([4, 1]))],
        [(p.digest, p.caption) for p in map(read, open_source("scenes:6").raws([4, 1]))],
    )
    assert [c for _, c in one] == [c for _, c in two]
    held = open_source("scenes:4", heldout=True, seed=1)
    for raw in held.raws(range(4)):
        picture = read(raw)
        assert picture.label is not None
    assert len(open_source("scenes:6", limit=3)) == 3
    with pytest.raises(SourceError, match="scenes:COUNT"):
        open_source("scenes:many")


def test_a_folder_whose_name_begins_like_scenes_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes_of_mine").mkdir()
    gradient().save(tmp_path / "scenes_of_mine" / "1.png")
    settings = Settings(images="scenes_of_mine")
    assert heldout_images(settings, SimpleNamespace(image_size=(32, 32))).name == "scenes_of_mine"
    assert default_texts("ViT-B-32", "scenes_of_mine") == "common-30k"
    assert default_texts("ViT-B-32", "scenes:9") == VOCABULARY


def test_a_hugging_face_data_set(tmp_path):
    import datasets

    rows = {
        "image": [{"bytes": encoded(gradient()), "path": f"{i}.png"} for i in range(5)],
        "label": [0, 1, 0, 1, 1],
    }
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    made = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "set").mkdir()
    made.to_parquet(str(tmp_path / "set" / "train.parquet"))
    assert len(open_source(f"hf:{tmp_path / 'set'}")) == 5, "rows of a local folder are counted"
    assert len(open_source(f"hf:{tmp_path / 'set'}", limit=9)) == 5
    source = open_source(f"hf:{tmp_path / 'set'}", limit=4)
    assert len(source) == 4
    assert source.class_names == ("cat", "dog")
    labels = [read(raw).label for raw in source.raws([0, 1, 2, 3])]
    assert labels == [0, 1, 0, 1]
    assert read(next(source.raws([2]))).reason is None, "an earlier row starts over"
    with pytest.raises(SourceError, match="nothing-here"):
        open_source(f"hf:{tmp_path / 'nothing-here'}")


def test_a_hugging_face_folder_of_images(tmp_path):
    for split, count in (("train", 2), ("test", 1)):
        for name in ("cat", "sea_dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                gradient().save(folder / f"{i}.png")
    source = open_source(f"hf:{tmp_path}", split="train")
    pictures = [read(raw) for raw in source.raws(range(len(source)))]
    assert source.class_names == ("cat", "sea dog")
    assert [(p.label, p.reason) for p in pictures] == [(0, None)] * 2 + [(1, None)] * 2
    assert [p.caption for p in pictures] == [
        "cat/0.png",
        "cat/1.png",
        "sea_dog/0.png",
        "sea_dog/1.png",
    ]
    assert len(open_source(f"hf:{tmp_path}", split="test")) == 2


def test_cifar_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="cifar-10-batches-py"):
        open_source(f"cifar10:{tmp_path}")


def test_cifar_in_its_own_format(tmp_path, monkeypatch):
    """Files of CIFAR-10's layout; the published sums stand for the published files alone."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    names = ["airplane", "automobile", "bird"]
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    files = {"batches.meta": {"label_names": names}}
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
        files[name] = {"data": pixels.reshape(6, -1), "labels": [2, 0, 1, 1, 0, 2]}
    sums = {}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    for kind in ("train_list", "test_list"):
        monkeypatch.setattr(
            CIFAR10, kind, [[name, sums[name]] for name, _ in getattr(CIFAR10, kind)]
        )
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    source = open_source(f"cifar10:{tmp_path}")
    assert (len(source), source.class_names) == (6, tuple(names))
    pictures = [read(raw) for raw in source.raws(range(6))]
    assert [p.label for p in pictures] == [2, 0, 1, 1, 0, 2]
    assert np.array_equal(np.asarray(pictures[4].image), pixels[4].transpose(1, 2, 0))
    assert len(open_source(f"cifar10:{tmp_path}", split="train")) == 30
    with pytest.raises(SourceError, match="'train' or 'test', not 'val'"):
        open_source(f"cifar10:{tmp_path}", split="val")


def test_folders_of_imagenet_have_their_names(tmp_path):
    for name in ("n02123045", "n01440764", "n00000001"):
        (tmp_path / "val" / name).mkdir(parents=True)
        gradient().save(tmp_path / "val" / name / "a.JPEG", "JPEG")
    source = open_source(str(tmp_path), split="val")
    assert source.class_names == ("n00000001", "tench", "tabby cat")
    assert [read(raw).label for raw in source.raws(range(3))] == [0, 1, 2]


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_a_damaged_tiff_prints_nothing(compression, capfd):
    """libtiff writes to the process's stderr, past Python, between lines of progress."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = bytearray(encoded(Image.fromarray(noise), "TIFF", compression=compression))
    for place in (300, len(data) // 2):
        data[place : place + 60] = bytes([255] * 60)
    with suppress(Unreadable):  # libjpeg makes something of it
        decode(bytes(data))
    assert capfd.readouterr().err == ""
