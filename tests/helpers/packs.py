"""Flat squares for pictograms: what an image shows can be told by its colours."""

import io

import numpy as np
from PIL import Image

from clipneurons.adversarial.composer import Composer
from clipneurons.synthetic.pictograms import save_pictograms

COLOURS = {
    "cat": (250, 0, 0), "bone": (0, 250, 0), "leash": (0, 0, 250), "poodle": (250, 0, 250),
    "palm tree": (0, 0, 0),
}  # fmt: skip
SYNONYMS = {"poodle": ["pet", "dog"]}


def flat(colour, height=40, width=40):
    """A full rectangle as RGBA."""
    drawing = np.full((height, width, 4), 255, np.uint8)
    drawing[:, :, :3] = colour
    return drawing


def flat_composer(size=64):
    """A composer that knows the colours' names."""
    return Composer({name: [flat(colour)] for name, colour in COLOURS.items()}, SYNONYMS, size)


def flat_pack_file(path):
    """The same drawings as a pack."""
    drawings = []
    for name, colour in COLOURS.items():
        buffer = io.BytesIO()
        Image.fromarray(flat(colour, 64, 64)).save(buffer, "WEBP", lossless=True)
        drawings.append((name, "flat", buffer.getvalue()))
    groups = dict.fromkeys(COLOURS, "thing")
    save_pictograms(path, drawings, groups, SYNONYMS, {"flat": {"licence": "MIT"}})
    return path


def share(image, name):
    """Share of the image's pixels that have a concept's colour."""
    return float((np.asarray(image) == COLOURS[name]).all(-1).mean())
