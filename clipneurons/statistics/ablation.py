"""Embeddings with some effects of a layer replaced (2406.04341, sections 3.2 to 3.4)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.base import SCALE
from clipneurons.lens.contributions import Contributions, MeanEffect

# The image that set a threshold does not exceed it, however its norm was rounded this time.
_STRICTLY = 1 + 1e-5


@dataclass(frozen=True)
class Ablations:
    """Image embeddings of norm about 100 with effects ablated to, or rebuilt around, their mean.

    ``first_component`` keeps of each centred effect its projection on the unit's direction.
    """

    original: Float[Tensor, "image embed"]
    all_units: Float[Tensor, "image embed"]
    significant: Float[Tensor, "image embed"]
    insignificant: Float[Tensor, "image embed"]
    first_component: Float[Tensor, "image embed"]


def ablate(
    representation: Float[Tensor, "image embed"],
    contributions: Contributions,
    mean: MeanEffect,
    threshold: Float[Tensor, " unit"],
    directions: Float[Tensor, "unit embed"],
    reconstructed: Float[Tensor, "unit embed"] | None = None,
) -> Ablations:
    """Ablate the effects of one layer's units.

    Args:
        representation: image embeddings, not normalised.
        contributions: the layer's contributions to them.
        mean: their mean over the data set.
        threshold: an effect is significant when its centred norm exceeds it.
        directions: unit directions that centred effects are projected on.
        reconstructed: what the projections multiply; by default the directions themselves, or
            their sparse reconstruction from texts.
    """
    reconstructed = directions if reconstructed is None else reconstructed
    original = SCALE * representation / representation.norm(dim=-1, keepdim=True)
    everything = original - contributions.sum(mean=mean)
    significant = (contributions.norms(mean) > threshold * _STRICTLY).to(original)
    kept = contributions.sum(significant, mean)
    projections = contributions.project(directions, mean)
    return Ablations(
        original=original,
        all_units=everything,
        significant=original - kept,
        insignificant=everything + kept,
        first_component=everything + projections @ reconstructed,
    )
