"""From an image and words to masks: :func:`segment`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from clipneurons.models.clip import ClipModel
from clipneurons.models.preprocess import whole
from clipneurons.segmentation.masks import THRESHOLD, binary_masks, label_map, min_max, upsample
from clipneurons.segmentation.patch_attribution import MapMaker, patch_attribution
from clipneurons.segmentation.sliding_window import map_in_windows, resize
from clipneurons.text.embedding import embed_texts

# Prompts for what is no object, where no other texts are given to contrast with.
BACKGROUND = ("background", "nothing", "an empty scene", "the ground", "the sky", "a wall")
MAX_NAMES, MAX_LETTERS = 1000, 300
_MAX_SIDE = 512
_MAX_NUMBERS = 2**26


@dataclass(frozen=True)
class Segmentation:
    """Maps of each name over one image.

    ``scores`` are on one scale for all names and at most 512 pixels a side. ``size`` is the
    image's own ``(height, width)``.
    """

    names: tuple[str, ...]
    scores: Float[Tensor, "class row column"]
    size: tuple[int, int]
    threshold: float | None = THRESHOLD

    @property
    def heat(self) -> Float[Tensor, "class row column"]:
        """Each class's map stretched to 0..1."""
        return min_max(self.scores)

    def mask(self, index: int = 0, threshold: float | None = None) -> Bool[Tensor, "h w"]:
        """Where the class is, in the image's own size."""
        heat = upsample(self.heat[index], self.size)
        return binary_masks(heat, self.threshold if threshold is None else threshold)

    def labels(self, none: float = 0.3) -> Int[Tensor, "row column"]:
        """Index of the class at each position of the maps, -1 where all stay below ``none``."""
        return label_map(self.scores, none)


def segment(
    clip: ClipModel,
    image: Image.Image,
    names: Sequence[str],
    *,
    maps: MapMaker | None = None,
    contrast: bool = True,
    others: Sequence[str] | Float[Tensor, "other embed"] = BACKGROUND,
    templates: str | Sequence[str] = "photo",
    scale: float | None = None,
) -> Segmentation:
    """Find what the words name in an image of any size and mode.

    Args:
        names: class names. Each goes through the prompt ``templates``; repeated ones count once.
        maps: how maps are computed, by default `patch_attribution`. Of many images, make it once.
        contrast: subtract the mean of the names and the ``others``, so that a map shows what
            speaks for a class and not for any class.
        others: texts, or their embeddings, for ``contrast``.
        scale: enlarge the image to this many windows across its shorter side and average over
            overlapping windows, instead of one look at the whole image.

    Raises:
        ValueError: no name, an empty or an overlong one, more than 1,000.
    """
    names = check_names(names)
    texts = embed_texts(clip, names, templates)
    if contrast:
        if not isinstance(others, Tensor):
            others = embed_texts(clip, list(others), templates) if others else texts[:0]
        texts = contrasted(texts, torch.cat([others.to(texts), texts]))
    maps = maps or patch_attribution(clip)
    height, width = image.size[::-1]
    if scale is None:
        scores = maps(whole(clip, image), texts)[0].cpu()
    else:
        scores = map_in_windows(lambda batch: maps(batch, texts), clip, image, scale)
    scores = resize(scores, _map_size(height, width, len(names)))
    return Segmentation(names, scores, (height, width))


def contrasted(
    texts: Float[Tensor, "class embed"], others: Float[Tensor, "other embed"]
) -> Float[Tensor, "class embed"]:
    """Texts minus the mean of the others."""
    return texts - others.mean(0)


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names with single spaces, each once.

    Raises:
        ValueError: no name, an empty or an overlong one, more than 1,000.
    """
    if not names:
        raise ValueError("expected at least one class name, got none")
    if len(names) > MAX_NAMES:
        raise ValueError(f"expected at most {MAX_NAMES:,} class names, got {len(names):,}")
    longest = max(names, key=len)
    if len(longest) > MAX_LETTERS:
        raise ValueError(
            f"expected class names of at most {MAX_LETTERS} letters, {longest[:20]!r}… has "
            f"{len(longest):,}"
        )
    clean = [" ".join(name.split()) for name in names]
    if "" in clean:
        raise ValueError(f"class name {clean.index('') + 1} is empty: write what to look for")
    return tuple(dict.fromkeys(clean))


def _map_size(height: int, width: int, classes: int) -> tuple[int, int]:
    """The image's shape, with at most 512 pixels a side and 64 million numbers in all."""
    shrink = min(1.0, _MAX_SIDE / max(height, width))
    shrink = min(shrink, (_MAX_NUMBERS / (classes * height * width)) ** 0.5)
    return max(1, round(height * shrink)), max(1, round(width * shrink))
