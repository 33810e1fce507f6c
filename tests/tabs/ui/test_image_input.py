from pathlib import Path

import gradio as gr
import pytest
from gradio.data_classes import ImageData
from PIL import Image

from tabs.ui import image_input
from tabs.ui.image_input import ImageInput


@pytest.mark.parametrize("remade", [False, True])
def test_what_is_no_picture_is_explained(tmp_path, remade):
    image = ImageInput("Picture", height=200)
    if remade:  # as Gradio does for a visitor whose component was updated, or skipped
        image = image.__class__(**image.constructor_args)
    assert image.get_block_name() == "image"
    assert image.label == "Picture"
    broken = tmp_path / "b.png"
    broken.write_bytes(b"this is no picture")
    with pytest.raises(gr.Error, match="not an image that can be read"):
        image.preprocess(ImageData(path=str(broken)))
    Image.new("L", (5, 3)).save(broken)
    found = image.preprocess(ImageData(path=str(broken)))
    assert (found.mode, found.size) == ("RGB", (5, 3))
    assert image.preprocess(None) is None


def test_no_stub_is_written():
    assert not Path(image_input.__file__).with_suffix(".pyi").exists()
