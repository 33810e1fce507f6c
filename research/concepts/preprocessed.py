"""What is made or shipped here as a model takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clipneurons.models.clip import ClipModel

Item = TypeVar("Item")


def preprocessed(
    clip: ClipModel, items: Sequence[Item], pixels_of: Callable[[Item], np.ndarray], size: int
) -> Iterator[tuple[Float[Tensor, "image 3 height width"], list[Item]]]:
    """Preprocessed images, `size` at a time, and the items that they are of."""
    for start in range(0, len(items), size):
        some = [items[i] for i in range(start, min(start + size, len(items)))]
        images = [clip.preprocess(Image.fromarray(pixels_of(one))) for one in some]
        yield torch.stack(images), some
