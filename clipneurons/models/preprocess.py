"""Images of any shape made into what a model reads, whole: nothing is cropped."""

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop

from clipneurons.images.convert import to_rgb
from clipneurons.models.clip import ClipModel


def pixels(image: Image.Image, size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    """The whole image, stretched to ``(height, width)``, with values in 0..1."""
    resized = to_rgb(image).resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=3.0)
    data = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    return data.reshape(*size, 3).permute(2, 0, 1).float() / 255


def normalise(
    clip: ClipModel, values: Float[Tensor, "image 3 height width"]
) -> Float[Tensor, "image 3 height width"]:
    """Values in 0..1 as the model was trained to see them."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.image_mean, clip.image_std))
    return (values - mean) / std


def whole(clip: ClipModel, image: Image.Image) -> Float[Tensor, "1 3 height width"]:
    """The whole image in the model's size, stretched if it is not of that shape.

    Unlike ``clip.preprocess`` nothing is cropped, so that every pixel gets a value; the
    evaluations of Chefer et al. and its successors stretch likewise.
    """
    return normalise(clip, pixels(image, clip.image_size)[None])


def share_seen(clip: ClipModel, size: tuple[int, int]) -> float:
    """Share of an image of ``(width, height)`` pixels that `clip.preprocess` keeps.

    It crops the centre unless the model was trained on stretched or padded images.
    """
    crops = any(isinstance(step, CenterCrop) for step in getattr(clip.preprocess, "transforms", ()))
    height, width = clip.image_size
    ratio = (size[0] * height) / (size[1] * width)
    return min(ratio, 1 / ratio) if crops else 1.0
