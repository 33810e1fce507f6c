"""How well maps localise a class: the definitions of Chefer et al. (2012.09838, section 4.2).

Pixel accuracy and IoU count pixels over the whole data set, of background and foreground alike;
average precision is taken image by image over both maps (``1 − heat`` and ``heat``) together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

METRICS = ("pixel accuracy", "mIoU", "mAP")


@dataclass(frozen=True)
class MaskScore:
    """Counts of one image and class; ``[background, foreground]`` for IoU."""

    correct: int
    pixels: int
    intersection: tuple[int, int]
    union: tuple[int, int]
    precision: float

    def row(self) -> list[float]:
        """The numbers that add up over images."""
        return [self.correct, self.pixels, *self.intersection, *self.union, self.precision, 1.0]


def score_mask(
    heat: Float[np.ndarray, "height width"],
    target: Bool[np.ndarray, "height width"],
    thresholds: Sequence[float | None] = (None,),
    valid: Bool[np.ndarray, "height width"] | None = None,
) -> list[MaskScore]:
    """Compare a heat map in 0..1 with the true mask, where ``valid``, at each threshold.

    The mask is where the map exceeds the threshold; None is the mean of the map.
    """
    limits = [heat.mean() if limit is None else limit for limit in thresholds]
    if valid is not None:
        heat, target = heat[valid], target[valid]
    foreground, background = np.sort(heat[target]), np.sort(heat[~target])
    both = np.concatenate([1 - heat.ravel(), heat.ravel()])
    truth = np.concatenate([~target.ravel(), target.ravel()])
    precision = average_precision(truth, both)
    missed = np.searchsorted(foreground, limits, side="right")  # of the foreground, below
    right = np.searchsorted(background, limits, side="right")  # of the background, below
    pixels = heat.size
    return [
        MaskScore(
            correct=int(len(foreground) - lost + kept),
            pixels=pixels,
            intersection=(int(kept), int(len(foreground) - lost)),
            union=(int(len(background) + lost), int(pixels - kept)),
            precision=precision,
        )
        for lost, kept in zip(missed, right, strict=True)
    ]


def average_precision(
    truth: Bool[np.ndarray, " item"], scores: Float[np.ndarray, " item"]
) -> float:
    """Mean of the precision over recall, items of equal score taken together; 0 without truth.

    What scikit-learn's function of this name gives, several times faster on maps.
    """
    if not truth.any():
        return 0.0
    order = np.argsort(-scores)
    scores, hits = scores[order], np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each run of ties
    hits = hits[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])


def summarise(rows: Float[np.ndarray, "*sample image 8"]) -> Float[np.ndarray, "*sample 3"]:
    """Pixel accuracy, mIoU and mAP in percent from rows of :meth:`MaskScore.row`."""
    total = rows.sum(-2)
    with np.errstate(invalid="ignore"):
        iou = np.nan_to_num(total[..., 2:4] / total[..., 4:6])
    accuracy = total[..., 0] / total[..., 1]
    return 100 * np.stack([accuracy, iou.mean(-1), total[..., 6] / total[..., 7]], -1)


def by_image(scores: Sequence[Sequence[MaskScore]]) -> Float[np.ndarray, "image 8"]:
    """Rows of each image, its classes added up."""
    return np.array([np.sum([score.row() for score in image], 0) for image in scores])


def resamples(images: int, count: int = 1000, seed: int = 0) -> Float[np.ndarray, "sample image"]:
    """How often each image is in each bootstrap sample; the same for every method."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=count).astype(float)


def bootstrap(
    rows: Float[np.ndarray, "image 8"], weights: Float[np.ndarray, "sample image"]
) -> Float[np.ndarray, "sample 3"]:
    """Metrics of each bootstrap sample; subtract two methods' for a paired comparison."""
    return summarise((weights @ rows)[:, None])


def interval(samples: Float[np.ndarray, "sample 3"]) -> Float[np.ndarray, "2 3"]:
    """The central 95 % of bootstrap samples."""
    return np.percentile(samples, [2.5, 97.5], axis=0)
