"""Squares that cover an image of any shape, so that a model of square images sees all of it."""

from math import ceil

from PIL import Image

# A strip longer than this many squares is sampled: squares evenly spread, with gaps.
MOST = 8


def square_windows(image: Image.Image) -> list[Image.Image]:
    """As few squares of the short side as cover the image, evenly spread along the long side.

    The first begins and the last ends with the image; of a square image the one is itself.
    """
    width, height = image.size
    side = min(width, height)
    count = min(ceil(max(width, height) / side), MOST)
    if count == 1:
        return [image]
    step = (max(width, height) - side) / (count - 1)
    starts = [round(number * step) for number in range(count)]
    return [
        image.crop((at, 0, at + side, side) if width > height else (0, at, side, at + side))
        for at in starts
    ]
