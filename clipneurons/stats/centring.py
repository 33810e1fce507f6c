"""What vectors say that the others do not."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def without_shared(rows: Float[Tensor, "row embed"]) -> Float[Tensor, "row embed"]:
    """Rows minus their mean, at norm 1; one that equals the mean stays zero.

    Of texts, this takes away the gap between images and texts.
    """
    return normalize(rows - rows.mean(0), dim=1)
