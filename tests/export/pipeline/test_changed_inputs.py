"""Images and texts that are not what a run took them for: said, never mixed."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from clipneurons.bundle.bundle import load_bundle
from export.__main__ import main
from export.pipeline import passes as pipeline
from tests.helpers.tiny import tiny_model_folder


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def line(model, tmp_path):
    """A run over twelve images, in `tmp_path`."""
    for i in range(12):
        draw(tmp_path / "images" / f"{i:02d}.png", i)
    (tmp_path / "texts.txt").write_text("cat\ndog\nred car\nnight sky\n")
    return [
        "run", "--model", str(model), "--images", str(tmp_path / "images"),
        "--texts", str(tmp_path / "texts.txt"), "--layers", "2", "--top-k", "3", "--batch", "4",
        "--components", "2", "--device", "cpu", "--out", str(tmp_path / "b"), "--no-evaluate",
    ]  # fmt: skip


def stopped(monkeypatch, line, name):
    """Stop a run, as a kill would, after the first batch of a pass."""
    original = pipeline.Passes._checkpointed

    def once(self, progress, file):
        for number in original(self, progress, file):
            yield number
            if file == name:
                raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(pipeline.Passes, "_checkpointed", once)
        assert main(line) == 130


def test_a_run_does_not_go_on_with_other_images(line, tmp_path, monkeypatch, capsys):
    stopped(monkeypatch, line, pipeline.PASS_1)
    draw(tmp_path / "images" / "03.png", 99)
    draw(tmp_path / "images" / "07.png", 98)
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "images that were replaced since (03.png, 07.png)" in error
    assert "--restart" in error
    assert main([*line, "--restart", "--quiet"]) == 0


def test_a_finished_run_is_not_finished_for_other_images(line, tmp_path, capsys):
    assert main([*line, "--quiet"]) == 0
    os.utime(tmp_path / "images" / "03.png", (1, 1))
    assert main(line) == 0
    assert "was finished before" in capsys.readouterr().out, "the same bytes are the same image"
    draw(tmp_path / "images" / "03.png", 99)
    assert main(line) == 2
    assert "holds a bundle already" in capsys.readouterr().err


def test_images_that_vanish_between_the_passes_are_named(line, tmp_path, monkeypatch, capsys):
    line = [*line, "--no-cache"]
    original = pipeline.Passes.effects

    def without_one(self, means):
        (tmp_path / "images" / "05.png").unlink()
        return original(self, means)

    with monkeypatch.context() as context:
        context.setattr(pipeline.Passes, "effects", without_one)
        assert main(line) == 2
    error = capsys.readouterr().err
    assert "changed between the passes (05.png: cannot be read: No such file" in error
    assert error.count("\n") == 1
    draw(tmp_path / "images" / "05.png", 5)
    assert main([*line, "--restart", "--quiet"]) == 0


def test_images_that_change_before_the_gallery_is_made_are_named(
    line, tmp_path, monkeypatch, capsys
):
    original = pipeline.Passes.effects

    def replacing(self, means):
        draw(tmp_path / "images" / "05.png", 99)
        return original(self, means)

    monkeypatch.setattr(pipeline.Passes, "effects", replacing)
    assert main(line) == 2
    assert "images changed since this run began (05.png)" in capsys.readouterr().err


def test_odd_names_and_pixels_go_through_a_whole_run(line, tmp_path, capsys):
    folder = os.fsencode(tmp_path / "images")
    os.rename(folder + b"/00.png", folder + b"/caf\xe9.png")
    with open(folder + b"/\xff.png", "wb") as file:
        file.write(b"no image")
    deep = (np.linspace(0, 4095, 64).reshape(8, 8)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "images" / "deep.png")
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "scaled   1 images of more than 8 bits" in said
    bundle = load_bundle(tmp_path / "b")
    assert any("caf\ufffd.png" in bundle.examples.caption(i) for i in bundle.examples)
    assert "\ufffd.png,not an image" in (tmp_path / "b" / "skipped.csv").read_text()


def test_texts_are_stored_as_they_are_read(line, tmp_path, capsys):
    long = " ".join(["red"] * 14)  # the model reads 14 words
    texts = ["cat", f"{long} boat", f"{long} house", "cafe\u0301", "caf\u00e9"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    (tmp_path / "images" / "words.doc").touch()
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "texts    2 are cut at 16 tokens: 'red red" in said
    assert "texts    1 left out, whose tokens an earlier one has" in said
    assert "notes    1 files, all in skipped.csv; the first: words.doc: not an image" in said
    assert load_bundle(tmp_path / "b").texts == ["cat", long, "caf\u00e9"]


def test_the_disk_has_to_hold_the_model_too(line, model, capsys, monkeypatch):
    size = sum(file.stat().st_size for file in model.iterdir())
    usage = SimpleNamespace(free=size + 100_000)
    monkeypatch.setattr("export.pipeline.plan.shutil.disk_usage", lambda _: usage)
    assert main([*line, "--gallery-mb", "0.1"]) == 2
    assert "free some space" in capsys.readouterr().err
