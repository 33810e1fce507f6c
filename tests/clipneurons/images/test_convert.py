"""One conversion to RGB, whatever the mode, wherever a picture comes in."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from clipneurons.images.convert import to_rgb
from clipneurons.models import preprocess
from export.data import decode
from tabs.server import uploads

RAMP = np.tile(np.arange(256), (16, 1))  # black to white from left to right
# Pillow takes nothing to the premultiplied modes but their plain ones.
PLAIN = {"La": "LA", "RGBa": "RGBA"}


def ramp(mode):
    if mode == "I;16":
        return Image.fromarray((RAMP * 257).astype(np.uint16))
    if mode == "I":
        return Image.fromarray((RAMP * 257).astype(np.int32))
    if mode == "F":
        return Image.fromarray((RAMP / 255).astype(np.float32))
    return converted(Image.fromarray(RAMP.astype(np.uint8)).convert("RGB"), mode)


def converted(image, mode):
    return image.convert(PLAIN.get(mode, mode)).convert(mode)


@pytest.mark.parametrize("convert", [to_rgb, decode.to_rgb, preprocess.to_rgb])
@pytest.mark.parametrize("mode", ["L", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "I;16", "I", "F"])
def test_a_ramp_stays_a_ramp_in_any_mode(convert, mode):
    image = convert(ramp(mode))
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image)[..., 0], RAMP, atol=2)


def test_two_values_are_black_and_white():
    assert to_rgb(Image.fromarray(RAMP > 127)).getextrema() == ((0, 255),) * 3


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa", "P"])
def test_what_is_transparent_is_white(mode):
    image = converted(Image.new("RGBA", (2, 1), (9, 9, 9, 0)), mode)
    if mode == "P":
        image.info["transparency"] = image.getpixel((0, 0))
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_the_page_reads_sixteen_bits():
    file = BytesIO()
    ramp("I;16").save(file, "PNG")
    np.testing.assert_allclose(np.asarray(uploads.open_image(file))[..., 0], RAMP, atol=2)
