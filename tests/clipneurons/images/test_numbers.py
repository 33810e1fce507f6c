"""Pixels of more than 8 bits: scaled by what they hold, never black or white without a word."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clipneurons.images.convert import SCALED, to_rgb
from clipneurons.models.inputs import open_image
from export.data.decode import decode
from tabs.server import uploads

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


def grey(image):
    return np.asarray(to_rgb(image))[..., 0]


@pytest.mark.parametrize(("white", "scaled"), [(4095, True), (1023, True), (65535, False)])
def test_sixteen_bits_are_scaled_by_what_they_hold(white, scaled):
    image = Image.fromarray((RAMP * white).astype(np.uint16))
    assert np.abs(grey(image) - RAMP * 255).max() <= 1
    assert (SCALED in to_rgb(image).info) == scaled


def test_whole_numbers_beyond_sixteen_bits_are_scaled_by_their_range():
    image = Image.fromarray((RAMP * 1_000_000 - 500_000).astype(np.int32))
    assert np.abs(grey(image) - RAMP * 255).max() <= 1


@pytest.mark.parametrize("missing", [np.inf, -np.inf, np.nan, -9999, -3.4e38, 1e38])
def test_values_that_stand_for_nothing_are_black_and_spoil_no_range(missing):
    values = (RAMP * 300 + 100).astype(np.float32)
    values[0, 0] = missing
    image = Image.fromarray(values)
    pixels = grey(image)
    assert pixels[0, 0] == 0
    assert np.abs(pixels[1:] - RAMP[1:] * 255).max() <= 5
    assert SCALED in to_rgb(image).info


def test_an_image_of_nothing_is_black():
    assert not grey(Image.fromarray(np.full((4, 4), np.nan, np.float32))).any()


def test_the_transparent_grey_of_sixteen_bits_lies_on_white():
    values = np.full((4, 4), 30000, np.uint16)
    values[0, 0] = 7
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    data = buffer.getvalue()
    body = b"tRNS" + struct.pack(">H", 7)
    chunk = struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))
    pixels = np.asarray(decode(data[:33] + chunk + data[33:]))
    assert pixels[0, 0].tolist() == [255] * 3
    assert pixels[1, 1].tolist() == [117] * 3


def with_chunk(name, content):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), "red").save(buffer, "PNG")
    data = buffer.getvalue()
    body = name + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


LONG = zlib.compress(b"a" * (2 * 2**20))
CHUNKS = {
    "zTXt": b"key\0\0" + LONG,
    "iTXt": b"key\0\1\0\0\0" + LONG,
    "iCCP": b"key\0\0" + LONG,
}


@pytest.mark.parametrize(("name", "content"), CHUNKS.items())
def test_long_texts_in_a_png_do_not_hide_its_pixels(tmp_path, name, content):
    file = tmp_path / "a.png"
    file.write_bytes(with_chunk(name.encode(), content))
    readers = (lambda: decode(file.read_bytes()), lambda: open_image(file),
               lambda: uploads.open_image(file))  # fmt: skip
    for image in (read() for read in readers):
        assert (image.size, image.getpixel((0, 0))) == ((6, 4), (255, 0, 0))
