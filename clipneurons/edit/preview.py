"""Class scores of images under any strength of an edit's parts, from a few numbers.

An edit adds Σ_r x_r v_r to an image's embedding e, where v_r is what part r of it (a unit, or all
units that say a word) changes at strength 1. With texts t_c of unit norm,

    cos_c(x) = ⟨e + Σ_r x_r v_r, t_c⟩ / ‖e + Σ_r x_r v_r‖

needs only ⟨e, t_c⟩, ⟨v_r, t_c⟩ and the inner products of e and the v_r: what a slider moves is
known without the model, and without the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.lens.contributions import Contributions, SpatialContributions


@dataclass(frozen=True, eq=False)
class Preview:
    """Inner products of an image's embedding (row 0) and of the parts of an edit (rows 1 on).

    gram   with each other
    along  with each class
    """

    gram: Float[Tensor, "row row"]
    along: Float[Tensor, "row class"]

    @classmethod
    def of(
        cls,
        embedding: Float[Tensor, " embed"],
        parts: Float[Tensor, "part embed"],
        classes: Float[Tensor, "class embed"],
    ) -> Preview:
        """From the vectors themselves."""
        rows = torch.cat([embedding[None], parts])
        return cls(rows @ rows.T, rows @ classes.T)

    def cosines(self, strengths: Float[Tensor, " part"]) -> Float[Tensor, " class"]:
        """Cosine of the edited embedding with each class."""
        x = torch.cat([strengths.new_ones(1), strengths])
        return (x @ self.along) / (x @ self.gram @ x).clamp_min(1e-24).sqrt()


def centred_effects(
    contributions: Contributions,
    means: Float[Tensor, "unit embed"],
    units: Sequence[int],
    image: int = 0,
) -> Float[Tensor, "chosen embed"]:
    """φ_n − b_n of some units on one image, which an edit of factor f changes by f − 1 times."""
    scores = contributions.scores
    chosen = torch.tensor(list(units), dtype=torch.long, device=scores.device)
    dense = contributions.directions.dense(chosen)
    return torch.einsum("nk,nkd->nd", scores[image, chosen], dense).cpu() - means[chosen.cpu()]


def weighted_effects(
    contributions: Mapping[int, Contributions],
    means: Mapping[int, Float[Tensor, "unit embed"]],
    weights: Mapping[int, Float[Tensor, " unit"]],
    image: int = 0,
) -> Float[Tensor, " embed"]:
    """Σ_n weight · (φ_n − b_n) on one image, over the units of several layers."""
    total: Tensor | float = 0.0
    for layer, weight in weights.items():
        units = weight.nonzero().flatten().tolist()
        if units:
            effects = centred_effects(contributions[layer], means[layer], units, image)
            total = total + weight[units] @ effects
    if isinstance(total, float):
        return torch.zeros(next(iter(means.values())).shape[1])
    return total


def patch_attributions(
    contributions: Contributions,
    unit: int,
    vector: Float[Tensor, " embed"],
    image: int = 0,
) -> Float[Tensor, " patch"] | None:
    """Each patch's share of ⟨φ_n, vector⟩; None for units of no place."""
    if not isinstance(contributions, SpatialContributions):
        return None
    chosen = torch.tensor([unit], device=contributions.scores.device)
    along = contributions.directions.dense(chosen)[0] @ vector.to(contributions.scores)
    shares = contributions.token_scores(image, chosen)[0] @ along
    return shares[contributions.prefix :].cpu()


def order_that_turns(
    logits: Float[Tensor, " class"],
    effects: Float[Tensor, "unit class"],
    wanted: int,
    most: int,
) -> list[int]:
    """Units in the order in which their ablation turns an image to the wanted class, by estimate.

    Each time the unit whose ablation leaves the least lead to the strongest rival. So with one
    rival no smaller set than the first so many takes as much from its lead; with more it is greedy.

    Args:
        logits: ⟨e, t_c⟩.
        effects: ⟨φ_n − b_n, t_c⟩, which ablation subtracts.
    """
    others = torch.arange(len(logits)) != wanted
    lead = (logits - logits[wanted])[others]
    by_unit = (effects - effects[:, [wanted]])[:, others]
    taken: list[int] = []
    for _ in range(min(most, len(effects))):
        left = (lead - by_unit).amax(1)
        left[taken] = torch.inf
        taken.append(int(left.argmin()))
        lead = lead - by_unit[taken[-1]]
    return taken
