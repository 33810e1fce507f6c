"""Near copies among pictures, which count once."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# A hash of 64 bits: photographs of different things differ in about half of them.
NEAR_DUPLICATE_BITS = 2
NEAR_DUPLICATE_PIXELS = 4.0


def fingerprint(image: Image.Image) -> UInt8[np.ndarray, " bit"]:
    """Difference hash: whether brightness grows from each of 8 × 8 cells to the next."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return (grey[:, 1:] > grey[:, :-1]).astype(np.uint8).ravel()


class Duplicates:
    """Remembers pictures and recognises near copies of them."""

    def __init__(self) -> None:
        self._bits = np.empty((0, 64), np.uint8)
        self._small = np.empty((0, 16 * 16 * 3), np.int16)

    def seen(self, image: Image.Image) -> bool:
        """Whether a picture like this was seen before; remembers it if not.

        Two pictures are near copies when both their difference hashes and their colours at
        16 × 16 pixels agree: flat grounds make the hash alone too coarse.
        """
        bits = fingerprint(image)
        small = image.convert("RGB").resize((16, 16), Image.Resampling.BOX)
        small = np.asarray(small, dtype=np.int16).ravel()
        alike = (self._bits != bits).sum(1) <= NEAR_DUPLICATE_BITS
        if alike.any() and (
            np.abs(self._small[alike] - small).mean(1).min() < NEAR_DUPLICATE_PIXELS
        ):
            return True
        self._bits = np.vstack([self._bits, bits])
        self._small = np.vstack([self._small, small])
        return False
