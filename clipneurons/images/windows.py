"""Windows that cover an image of any shape, so that a model of square images sees all of it."""

from math import ceil

from PIL import Image

# A strip longer than this many squares is sampled: squares evenly spread, with gaps.
MOST = 8


def window_starts(
    length: int, window: int, overlap: float = 0.0, most: int | None = None
) -> list[int]:
    """Where windows begin so that they cover a length evenly with at least that overlap.

    ``most`` windows of a length that needs more are spread evenly, with gaps.

    Raises:
        ValueError: an overlap that is not at least 0 and below 1.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"expected an overlap of 0 to below 1, not {overlap}")
    if length <= window:
        return [0]
    steps = ceil((length - window) / (window * (1 - overlap)))
    if most is not None:
        steps = min(steps, most - 1)
    return [round(i * (length - window) / steps) for i in range(steps + 1)]


def square_windows(image: Image.Image) -> list[Image.Image]:
    """As few squares of the short side as cover the image, evenly spread along the long side.

    The first begins and the last ends with the image; of a square image the one is itself.
    """
    width, height = image.size
    side = min(width, height)
    if width == height:
        return [image]
    return [
        image.crop((at, 0, at + side, side) if width > height else (0, at, side, at + side))
        for at in window_starts(max(width, height), side, most=MOST)
    ]
