"""Is a name in the picture at all? A map says where it fits best, even if it fits nowhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.models.clip import ClipModel
from clipneurons.models.preprocess import whole
from clipneurons.segmentation.sliding_window import cut_windows

# Share of texts that a name must beat somewhere in an image to count as there, chosen on scenes
# of the validation style.
PRESENT = 0.97
_SCALE = 2.0
_BATCH = 32


@dataclass(frozen=True)
class Presence:
    """How well a name fits an image.

    Attributes:
        cosine: of the name and the whole image.
        above: share of the texts that agree more with the whole image.
        fit: of the whole image and its windows the best: share of the texts that agree less.
        rival: the other name that agrees more with that window, if one does.
    """

    cosine: float
    above: float
    fit: float
    rival: str | None = None

    @property
    def present(self) -> bool:
        """Whether the name counts as being in the image."""
        return self.fit >= PRESENT and self.rival is None


@torch.no_grad()
def presences(
    clip: ClipModel,
    image: Image.Image,
    names: Sequence[str],
    texts: Float[Tensor, "text embed"],
) -> list[Presence]:
    """How well each name fits the whole image and, at best, one of its overlapping windows.

    Of window w (the whole image is one) and name c, fit(w, c) is the share of the ``texts`` (unit
    rows) with ⟨w, t⟩ < ⟨w, c⟩; a name's fit is its largest. Shares compare between models and
    names where cosines do not, and a window holds what is small in the whole. A name's rival is
    the one of the names that agrees most with the window of the name's largest cosine: a cat that
    looks somewhat like a dog is a cat.
    """
    windows = torch.cat([whole(clip, image), cut_windows(clip, image, _SCALE)])
    embedded = torch.cat([clip.encode_image(part).cpu() for part in windows.split(_BATCH)])
    embedded = normalize(embedded, dim=1)
    cosines = embedded @ clip.encode_text(list(names)).cpu().T
    others = (embedded @ texts.T).sort(dim=1).values
    below = torch.searchsorted(others, cosines.contiguous()) / len(texts)
    upto = torch.searchsorted(others[:1], cosines[:1].contiguous(), right=True)[0]
    above = 1 - upto / len(texts)
    best = cosines.argmax(1)[cosines.argmax(0)].tolist()
    rivals = [None if other == mine else names[other] for mine, other in enumerate(best)]
    rows = zip(cosines[0].tolist(), above.tolist(), below.amax(0).tolist(), rivals, strict=True)
    return [Presence(*row) for row in rows]
