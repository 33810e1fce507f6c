"""Folders and archives that look harmless and are read wrongly: links, macOS, doubled keys."""

import io
import os
import tarfile

import pytest
from PIL import Image

from export.common.errors import SourceError
from export.data.dataset import stamps
from export.data.file_sources import FolderSource, TarSource
from export.data.loader import fingerprint, read


def picture(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture())
    return folder


def shard(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def reasons(source):
    return dict(source.notes)


def test_class_folders_that_are_links_are_read_once(tmp_path):
    root = put(tmp_path / "root", "boat/0.png")
    put(tmp_path / "elsewhere", "cats/1.png", "dogs/2.png")
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cats")
    (root / "dog").symlink_to("../elsewhere/dogs")
    (root / "kitten").symlink_to(tmp_path / "elsewhere" / "cats")
    (tmp_path / "elsewhere" / "cats" / "loop").symlink_to(root)
    (tmp_path / "elsewhere" / "dogs" / "up").symlink_to("/")
    (root / "a").symlink_to(root / "boat")
    source = FolderSource(root)
    assert source.paths == ["boat/0.png", "cat/1.png", "dog/2.png"]
    assert source.class_names == ("boat", "cat", "dog")
    assert reasons(source).keys() == {"a", "cat/loop", "dog/up", "kitten"}
    assert "a link to a folder that is read already" in reasons(source)["kitten"]


def test_what_macos_adds_is_no_image(tmp_path):
    source = FolderSource(put(tmp_path, "a.png", "._a.png", "__MACOSX/._a.png", "__MACOSX/b.png"))
    assert source.paths == ["a.png"]
    assert reasons(source) == {"__MACOSX": "of macOS, no images"}
    file = shard(
        tmp_path / "s.tar",
        *((name, picture()) for name in ("._a.png", "a.png", "__MACOSX/a.png", "x/__MACOSX/b.png")),
    )
    assert len(TarSource([file], "s")) == 1


def test_heic_without_its_package_is_named(tmp_path):
    put(tmp_path, "a.heic", "b.HEIC")
    with pytest.raises(SourceError, match="2 HEIC files: pip install pillow-heif"):
        FolderSource(tmp_path)
    source = FolderSource(put(tmp_path, "c.png"))
    assert "pillow-heif" in reasons(source)["a.heic"]


def test_names_that_are_not_utf8_can_be_printed_and_stored(tmp_path):
    for name in (b"/caf\xe9/1.png", b"/dog/\xff.png"):
        path = os.fsencode(tmp_path) + name
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(picture())
    source = FolderSource(tmp_path)
    assert source.class_names == ("caf\ufffd", "dog")
    for raw in source.raws(range(2)):
        loaded = read(raw)
        assert loaded.reason is None
        assert loaded.caption == loaded.name == loaded.name.encode().decode()
        assert "\ufffd" in loaded.name


def test_several_images_under_one_key_are_told_and_chosen(tmp_path):
    file = shard(
        tmp_path / "s.tar", ("a.seg.png", picture("black")), ("a.rgb.png", picture("red")),
        ("a.txt", b"a red thing"), ("b.rgb.png", picture("blue")),
    )  # fmt: skip
    source = TarSource([file], "s")
    assert len(source) == 2
    assert "2 images (seg.png, rgb.png), seg.png is read: --image-key" in reasons(source)["s.tar/a"]
    source = TarSource([file], "s", "rgb.png")
    assert not source.notes
    (first, _) = map(read, source.raws([0, 1]))
    assert first.image.getpixel((0, 0)) == (255, 0, 0)
    assert first.caption == "a red thing"
    source = TarSource([file], "s", "seg.png")
    assert (len(source), reasons(source)) == (1, {"s.tar/b": "no seg.png among ['rgb.png']"})
    with pytest.raises(SourceError, match="no images in"):
        TarSource([file], "s", "depth.png")


def test_a_key_ends_at_the_first_dot(tmp_path):
    file = shard(tmp_path / "s.tar", ("22.01.png", picture()), ("22.02.png", picture()))
    source = TarSource([file], "s")
    assert len(source) == 1
    assert "ends at the first dot" in reasons(source)["s.tar/22"]


def test_a_member_that_is_there_twice_is_told(tmp_path):
    file = shard(tmp_path / "s.tar", ("a.png", picture("red")), ("a.png", picture("blue")))
    source = TarSource([file], "s")
    assert reasons(source) == {"s.tar/a.png": "in it twice, the last one is read"}
    assert read(next(source.raws([0]))).image.getpixel((0, 0)) == (0, 0, 255)


def test_an_archive_that_was_cut_between_members_is_told(tmp_path):
    file = shard(tmp_path / "s.tar", *((f"{i}.png", picture()) for i in range(4)))
    assert not TarSource([file], "s").notes
    file.write_bytes(file.read_bytes()[: 3 * 1024])
    source = TarSource([file], "s")
    assert len(source) == 3
    assert reasons(source) == {"s.tar": "tar file has no end: it may be cut off"}


def test_stamps_change_with_the_files(tmp_path):
    folder = FolderSource(put(tmp_path / "f", "a.png", "b.png"))
    file = shard(tmp_path / "s.tar", ("a.png", picture()))
    before, digest = stamps(folder), fingerprint(folder, 1)
    assert before.keys() == {"a.png", "b.png"}
    (tmp_path / "f" / "b.png").write_bytes(picture("blue") + b" ")
    now = stamps(folder)
    assert [name for name in before if before[name] != now[name]] == ["b.png"]
    assert fingerprint(folder, 1) != digest
    archive = TarSource([file], "s")
    (before,) = stamps(archive).values()
    shard(file, ("0.txt", b"first"), ("a.png", picture()))
    (now,) = stamps(TarSource([file], "s")).values()
    assert before != now
