"""A picture that is shown to several visitors is written once, for all of them."""

import os

import pytest
from gradio import image_utils, processing_utils
from PIL import Image

from tabs.server.whole_pictures import write_pictures_once


@pytest.fixture
def patched(monkeypatch):
    """Gradio's own function, put back afterwards."""
    original = processing_utils.save_pil_to_cache
    monkeypatch.setattr(processing_utils, "save_pil_to_cache", original)
    write_pictures_once()
    return original


def test_a_picture_is_written_where_gradio_would_and_not_again(patched, tmp_path):
    picture = Image.radial_gradient("L").convert("RGB")
    path = processing_utils.save_pil_to_cache(picture, str(tmp_path), format="png")
    first = os.stat(path)
    assert processing_utils.save_pil_to_cache(picture, str(tmp_path), format="png") == path
    assert (os.stat(path).st_ino, os.stat(path).st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert [one.name for one in tmp_path.rglob("*.*")] == ["image.png"], "no part is left"
    written = os.stat(path).st_size
    assert patched(picture, str(tmp_path), format="png") == path
    assert os.stat(path).st_size == written
    with Image.open(path) as again:
        assert again.tobytes() == picture.tobytes()


def test_components_write_so_too(patched, tmp_path):
    picture = Image.new("RGB", (4, 4), "red")
    found = [image_utils.postprocess_image(picture, str(tmp_path), "webp") for _ in range(2)]
    assert found[0].path == found[1].path
    assert len(list(tmp_path.rglob("*.webp"))) == 1
