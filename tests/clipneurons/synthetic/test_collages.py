import numpy as np
import pytest

from clipneurons.synthetic.collages import Collages
from clipneurons.synthetic.photographs import load_photographs


@pytest.fixture(scope="module")
def photographs():
    return load_photographs()


def test_masks_are_exact(photographs):
    collages = Collages(photographs, 20, seed=3)
    for index in range(20):
        made = collages[index]
        (cut, inside), (ground, outside) = made.masks.items()
        assert cut != ground
        assert not (inside & outside).any()
        assert (inside | outside).all()
        assert 0.15 < inside.mean() < 0.45
        again = Collages(photographs, 20, seed=3)[index]
        np.testing.assert_array_equal(again.image, made.image)
        # Around the cut, the picture is one of the ground's photographs, pixel by pixel.
        squares = [np.asarray(photographs.square(row, 64)) for row in collages.rows[ground]]
        assert any((square[outside] == made.image[outside]).all() for square in squares)
        assert not any((square[inside] == made.image[inside]).all() for square in squares)


def test_only_the_chosen_names_occur(photographs):
    collages = Collages(photographs, 12, side=32, names=("lobster", "chair", "pagoda", "no such"))
    shown = {name for made in collages for name in made.masks}
    assert shown == {"lobster", "chair", "pagoda"}
    assert collages[0].image.shape == (32, 32, 3)
    with pytest.raises(IndexError, match="collage 12 of 12"):
        collages[12]
    with pytest.raises(ValueError, match="needs two names, 1 have photographs"):
        Collages(photographs, 3, names=("lobster",))
