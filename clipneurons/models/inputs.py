"""Images in any form a caller has them, as the batch that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from clipneurons.images.convert import to_rgb
from clipneurons.images.long_texts import decoded
from clipneurons.models.clip import ClipModel

ImageLike = str | Path | Image.Image
Images = ImageLike | Sequence[ImageLike] | Tensor


def open_image(image: ImageLike) -> Image.Image:
    """An image as RGB, from a path or as it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that Pillow cannot read, or no image at all.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, str | Path):
        raise ValueError(f"expected a path or a PIL image, not a {type(image).__name__}")
    path = Path(image)
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}")
    try:
        return to_rgb(decoded(_loaded, path.read_bytes()))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is not an image that Pillow reads ({error})") from None


def _loaded(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def as_batch(clip: ClipModel, images: Images) -> Float[Tensor, "image 3 height width"]:
    """A preprocessed batch from a path, a PIL image, a list of these, or a preprocessed tensor.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty list, a file that is no image, a tensor of another shape.
    """
    if isinstance(images, Tensor):
        batch = images[None] if images.ndim == 3 else images
        expected = (3, *clip.image_size)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != expected:
            raise ValueError(
                f"expected preprocessed images of shape [image, {', '.join(map(str, expected))}], "
                f"not {list(images.shape)}: see `clip.preprocess`"
            )
        return batch
    if isinstance(images, str | Path | Image.Image):
        images = [images]
    if not images:
        raise ValueError("expected at least one image")
    return torch.stack([clip.preprocess(open_image(image)) for image in images])
