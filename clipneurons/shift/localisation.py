"""Where in the images a change lies, and which texts match what is there.

A small object on some images hardly changes their embeddings, and their nearest texts do not name
it. The changed images are compared with the reference patch by patch. Where they differ most, both
are cropped, and the crops are read like whole images.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import label
from torch import Tensor

from clipneurons.lens.token_contributions import token_effects_of
from clipneurons.models.clip import ClipModel
from clipneurons.models.larger_images import enlarge
from clipneurons.models.preprocess import whole
from clipneurons.shift.comparison import EmbeddedTextPool, RankedTexts, ranked_texts
from clipneurons.shift.places import by_place

# Places a side at which a change is located: fewer see too little.
_FEWEST = 6
# What is cropped: places that differ at least this share of the largest difference, and a margin
# around them in places. All crops are read, and the one whose best text stands out most is kept.
_SHARES = (0.5, 0.25)
_MARGINS = (0.5, 1.0)
# How many times what chance gives the crops must differ.
_CLEAR = 2.0
# A change over more of the image than this has no place.
_LARGEST = 0.6
_BATCH = 32

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class LocalisedChange:
    """Where images differ, and the texts that the new ones match more there.

    ``box`` is (left, top, right, bottom) in shares of the image.
    """

    box: Box
    texts: RankedTexts


def localise_change(
    clip: ClipModel,
    reference: Sequence[Image.Image],
    new: Sequence[Image.Image],
    pool: EmbeddedTextPool,
) -> LocalisedChange | None:
    """Texts of the place where the new images differ most from the reference.

    A few dozen images a side are enough; ``new`` should be the changed ones. None where the change
    has no place: it covers most of the image, or the crops do not differ.

    Raises:
        ValueError: fewer than two images on a side.
    """
    if min(len(reference), len(new)) < 2:
        raise ValueError(
            f"expected at least two images a side, not {len(reference)} and {len(new)}"
        )
    finer = enlarge(clip, max(1.0, _FEWEST / min(clip.grid)))
    effects = token_effects_of(finer)
    places = [
        _mapped(lambda batch: by_place(effects(batch)[:, finer.prefix :], finer.grid), finer, side)
        for side in (reference, new)
    ]
    candidates = []
    for box in changed_boxes(*places):
        before, after = (
            F.normalize(_mapped(clip.encode_image, clip, [crop(i, box) for i in side]), dim=-1)
            for side in (reference, new)
        )
        if not difference(before, after) >= _CLEAR:
            continue
        scores = 100 * pool.centred @ (after.mean(0) - before.mean(0)).cpu()
        clarity = (scores.max() - scores.mean()) / scores.std().clamp_min(1e-12)
        candidates.append((clarity.item(), box, scores))
    if not candidates:
        return None
    _, box, scores = max(candidates, key=lambda candidate: candidate[0])
    return LocalisedChange(box, ranked_texts(pool, scores))


def examples(images: int, count: int = 32) -> list[int]:
    """Numbers of a few of the reference images, evenly spread, to look closer at."""
    count = min(count, images)
    return [i * images // count for i in range(count)]


def changed_boxes(
    reference: Float[Tensor, "image row column embed"],
    new: Float[Tensor, "other row column embed"],
) -> list[Box]:
    """Squares around the largest difference, in shares of the image; none for most of it.

    Places that differ enough (`difference`) and touch the largest belong to it.
    """
    ratio = difference(reference, new).cpu().numpy()
    height, width = ratio.shape
    boxes = []
    for share, margin in itertools.product(_SHARES, _MARGINS):
        groups, _ = label(ratio >= share * ratio.max())
        rows, columns = (groups == groups.flat[ratio.argmax()]).nonzero()
        box = _square(
            max((columns.min() - margin) / width, 0.0),
            max((rows.min() - margin) / height, 0.0),
            min((columns.max() + 1 + margin) / width, 1.0),
            min((rows.max() + 1 + margin) / height, 1.0),
        )
        if (box[2] - box[0]) * (box[3] - box[1]) <= _LARGEST and box not in boxes:
            boxes.append(box)
    return boxes


def difference(
    reference: Float[Tensor, "image *place embed"], new: Float[Tensor, "other *place embed"]
) -> Float[Tensor, "*place"]:
    """Squared norm of the change of the mean, over what it would be by chance; 0 for none."""
    change = (new.mean(0) - reference.mean(0)).square().sum(-1)
    chance = sum(side.var(0).sum(-1) / len(side) for side in (reference, new))
    rounding = 1e-10 * reference.square().sum(-1).mean(0)
    return torch.where(change > rounding, change / torch.maximum(chance, rounding), 0.0)


def crop(image: Image.Image, box: Box) -> Image.Image:
    """The part of the image in the box."""
    sides = (image.width, image.height) * 2
    left, top, right, bottom = (round(share * side) for share, side in zip(box, sides, strict=True))
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def where(box: Box) -> str:
    """A box as words, such as "lower right"."""
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    across, down = (0 if m < 0.4 else 2 if m > 0.6 else 1 for m in middle)
    words = [("upper", "", "lower")[down], ("left", "", "right")[across]]
    return " ".join(word for word in words if word) or "middle"


def _square(left: float, top: float, right: float, bottom: float) -> Box:
    """The smallest square around a box that lies in the image."""
    side = max(right - left, bottom - top)
    left, top = (
        min(max((low + high - side) / 2, 0.0), 1.0 - side)
        for low, high in ((left, right), (top, bottom))
    )
    return float(left), float(top), float(left + side), float(top + side)


def _mapped(
    make: Callable[[Tensor], Tensor], clip: ClipModel, images: Sequence[Image.Image]
) -> Tensor:
    parts = []
    for first in range(0, len(images), _BATCH):
        batch = torch.cat([whole(clip, image) for image in images[first : first + _BATCH]])
        parts.append(make(batch.to(clip.device)).float())
    return torch.cat(parts)
