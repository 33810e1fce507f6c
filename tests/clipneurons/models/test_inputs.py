"""Images come as paths, PIL images, lists of these or tensors; anything else is one clear line."""

import pytest
import torch
from PIL import Image

from clipneurons.models.inputs import as_batch
from tests.helpers.models import tiny_vit


@pytest.fixture(scope="module")
def clip():
    return tiny_vit()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (50, 40), "red").save(path)
    return path


def test_every_form_gives_the_same_batch(clip, picture):
    with Image.open(picture) as image:
        expected = clip.preprocess(image.convert("RGB"))[None]
        forms = [picture, str(picture), image, [picture], [image], expected, expected[0]]
        assert all(torch.equal(as_batch(clip, form), expected) for form in forms)
    assert len(as_batch(clip, [picture, str(picture)])) == 2


def test_what_is_no_image_is_named(clip, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    with pytest.raises(FileNotFoundError, match=r"no image at .*none\.png"):
        as_batch(clip, tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"notes\.txt is not an image"):
        as_batch(clip, text)
    with pytest.raises(ValueError, match="at least one image"):
        as_batch(clip, [])
    with pytest.raises(ValueError, match=r"not \[1, 3, 7, 7\]"):
        as_batch(clip, torch.zeros(1, 3, 7, 7))
