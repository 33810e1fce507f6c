import sys

import pytest
from PIL import Image

from clipneurons.lens.lens import default_layers
from clipneurons.pipeline import analyse
from tests.helpers.tiny import tiny_clip


def test_a_folder_of_images_becomes_a_bundle(tmp_path):
    clip = tiny_clip(tmp_path / "model")
    (tmp_path / "images").mkdir()
    for number in range(8):
        Image.new("RGB", (40, 32), (30 * number, 90, 200)).save(tmp_path / f"images/{number}.png")
    (tmp_path / "texts.txt").write_text("a cat\na dog\na red car\nwater\n")
    steps = []
    bundle = analyse(
        clip, tmp_path / "images", out=tmp_path / "bundle", texts=str(tmp_path / "texts.txt"),
        progress=lambda share, text: steps.append(share),
    )  # fmt: skip
    assert bundle.config.layers == default_layers(clip)
    assert bundle.config.data.count == 8
    assert bundle.config.weights_sha256 == clip.sha256()
    assert steps == sorted(steps)
    assert steps[-1] == 1
    with pytest.raises(ValueError, match="last block"):
        analyse(clip, tmp_path / "images", out=tmp_path / "other", layers=[3])
    with pytest.raises(ValueError, match="nowhere"):
        analyse(clip, tmp_path / "nowhere", out=tmp_path / "other")


def test_without_a_checkout_it_says_what_to_install(monkeypatch, tmp_path):
    clip = tiny_clip(tmp_path)
    monkeypatch.setitem(sys.modules, "export.common.settings", None)
    with pytest.raises(ModuleNotFoundError, match=r"git clone .* pip install -e '\.\[export\]'"):
        analyse(clip, tmp_path, out=tmp_path / "bundle")
