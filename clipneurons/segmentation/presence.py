"""Is a name in the image at all? A map says where it fits best, even if it fits nowhere.

    score(c) = max_w  (⟨x_w, c⟩ − mean_t ⟨x_w, t⟩) / std_t ⟨x_w, t⟩

    x_w [D]   embedding of a view of the image: the whole, or one of its overlapping windows
    t, c [D]  the bundle's texts, and the name

A window holds what is small in the whole. Standard deviations above the mean text compare between
views and names where cosines do not. A name is found where its score reaches the model's line and
no other of the names fits better in the window of its largest cosine. The line is chosen on
validation images so that of the names that are not in an image at most one in twenty is found
(`python -m research segmentation presence`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.models.clip import ClipModel
from clipneurons.models.preprocess import whole
from clipneurons.segmentation.sliding_window import cut_windows

# Where a bundle's metrics have the line.
PRESENCE = "presence"
_SCALE = 2.0
_BATCH = 32


@dataclass(frozen=True)
class Line:
    """The score from which a name counts as found.

    ``false_finds`` and ``recall`` are shares of the names that are not in held-out images, and of
    those that are; None where no line was chosen for the model.
    """

    score: float = 3.7
    false_finds: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Presence:
    """How well a name fits an image.

    Attributes:
        cosine: of the name and the whole image.
        score: of the whole image and its windows the best.
        rival: the other name that agrees more with the window of the largest cosine, if one does.
        found: whether the name counts as being in the image.
    """

    cosine: float
    score: float
    rival: str | None = None
    found: bool = False


@torch.no_grad()
def presences(
    clip: ClipModel,
    image: Image.Image,
    names: Sequence[str],
    texts: Float[Tensor, "text embed"],
    line: Line | None = None,
) -> list[Presence]:
    """Of each name its score and whether it reaches the line; ``texts`` are unit rows."""
    line = line or Line()
    views = torch.cat([whole(clip, image), cut_windows(clip, image, _SCALE)])
    embedded = torch.cat([clip.encode_image(part).cpu() for part in views.split(_BATCH)])
    embedded = normalize(embedded, dim=1)  # [view, embed]
    cosines = embedded @ clip.encode_text(list(names)).cpu().T  # [view, name]
    std, mean = torch.std_mean(embedded @ texts.T, dim=1, keepdim=True)  # [view, 1]
    scores = ((cosines - mean) / std.clamp_min(1e-12)).amax(0).tolist()
    best = cosines.argmax(1)[cosines.argmax(0)].tolist()
    rivals = [None if other == mine else names[other] for mine, other in enumerate(best)]
    return [
        Presence(cosine, score, rival, score >= line.score and rival is None)
        for cosine, score, rival in zip(cosines[0].tolist(), scores, rivals, strict=True)
    ]


def line_of(metrics: Mapping) -> Line:
    """The line that a bundle's `metrics.json` holds, or the default.

    Raises:
        ValueError: what is no number, or no share.
    """
    entry = metrics.get(PRESENCE)
    if entry is None:
        return Line()
    keys = {"line": (-math.inf, math.inf), "false_finds": (0, 1), "recall": (0, 1)}
    values = [entry.get(key) for key in keys] if isinstance(entry, Mapping) else []
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(keys) or not all(
        math.isfinite(value) and least <= value <= most
        for value, (least, most) in zip(numbers, keys.values(), strict=True)
    ):
        raise ValueError(
            f"metrics.json: expected numbers {', '.join(keys)} under {PRESENCE!r}, not {entry!r}: "
            "run `python -m research segmentation presence` again"
        )
    return Line(*numbers)
