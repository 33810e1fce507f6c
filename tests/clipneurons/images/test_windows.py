import numpy as np
import pytest
from PIL import Image

from clipneurons.images.windows import MOST, square_windows


def numbered(width, height):
    """Every pixel has a colour of its own."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows, columns, rows * 0], -1).astype(np.uint8))


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (100, 30), (30, 31), (90, 30), (1, 5)])
def test_the_squares_cover_every_pixel(size):
    image = numbered(*size)
    squares = square_windows(image)
    assert {one.size for one in squares} == {(min(size), min(size))}
    covered = {tuple(pixel) for one in squares for row in np.asarray(one).tolist() for pixel in row}
    assert covered == {tuple(p) for row in np.asarray(image).tolist() for p in row}
    assert len(squares) == -(-max(size) // min(size)), "no more than are needed"


def test_a_square_is_itself():
    image = numbered(30, 30)
    (only,) = square_windows(image)
    assert only is image


def test_a_strip_is_sampled_from_end_to_end():
    squares = square_windows(numbered(200, 10))
    assert len(squares) == MOST
    assert np.asarray(squares[0])[0, 0, 1] == 0
    assert np.asarray(squares[-1])[0, -1, 1] == 199
