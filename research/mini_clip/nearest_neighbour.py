"""The ground to stand on: nearest neighbour among training drawings.

    python -m research mini-clip nearest

Pixels, and histograms of oriented gradients, of clean drawings on white; no training at all.
"""

import numpy as np
from PIL import Image

from clipneurons.synthetic.pictograms import Pictograms, load_pictograms
from research.mini_clip.recipe import VALIDATION_STYLE


def gray(rgba: np.ndarray) -> np.ndarray:
    """RGBA on white as float32 [32, 32, 3]."""
    alpha = rgba[..., 3:] / 255
    image = (rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.asarray(Image.fromarray(image).resize((32, 32), Image.BILINEAR), np.float32) / 255


def pixels(image: np.ndarray) -> np.ndarray:
    return image[::2, ::2].ravel() - 1


def gradients(image: np.ndarray) -> np.ndarray:
    """8 unsigned directions in 8 x 8 cells of 4 pixels, root of the normalised histogram."""
    dy, dx = np.gradient(image.mean(2))
    bins = ((np.arctan2(dy, dx) % np.pi) / np.pi * 8).astype(int) % 8
    cells = np.zeros((8, 8, 8), np.float32)
    y, x = np.indices(bins.shape) // 4
    np.add.at(cells, (y, x, bins), np.hypot(dx, dy))
    return np.sqrt(cells / (cells.sum() + 1e-6)).ravel()


def features(pack: Pictograms, styles, describe) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows [drawings, f] and labels, for the drawings of some styles."""
    rows, labels = [], []
    for (concept, style), ids in pack.entries.items():
        if style in styles:
            rows += [describe(gray(pack.image(i))) for i in ids]
            labels += [pack.concepts.index(concept)] * len(ids)
    rows = np.stack(rows)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6), np.array(labels)


def run() -> None:
    """Print the accuracy on drawings of styles that are not among the training drawings."""
    pack, heldout = load_pictograms(), load_pictograms(heldout=True)
    known = [style for style in pack.styles if style != VALIDATION_STYLE]
    for describe in (pixels, gradients):
        rows, labels = features(pack, known, describe)
        tests = [(pack, VALIDATION_STYLE)] + [(heldout, style) for style in heldout.styles]
        for source, style in tests:
            images, truth = features(source, (style,), describe)
            guess = labels[(images @ rows.T).argmax(1)]
            print(f"{describe.__name__} nearest neighbour, {style}: {np.mean(guess == truth):.1%}")
