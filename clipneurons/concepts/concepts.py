"""Concepts of an image: the texts that its units write from each patch, and where.

    v_p = Σ_l Σ_n φ_n^{l,p}(I)
    w_j = Σ_p  100 · ‖v_p‖ / Σ_q ‖v_q‖ · softmax_j(s · cos(v_p, t_j))

    φ_n^{l,p}(I)  [embed]         part of the second-order effect of unit n in layer l on image I
                                  that comes from patch p (equation 7, kept by token)
    v_p           [patch, embed]  what all units of the bundle's layers write from a patch
    t_j           [text, embed]   unit-norm embeddings of the text pool
    s                             the model's logit scale, 100 where it has none
    w_j           [text]          weights of the texts, which sum to 100 %

Each patch is read as the model reads a whole image, by its softmax over the texts, and counts by
the norm of what is written from it. So a small object is found beside a large one, and the terms
of the sum over patches are the map of a concept.

This differs from concept discovery in the paper (2406.04341, section 5), which takes the units
that are active and the texts of their decompositions,

    w_j = Σ_{n ∈ N(I)} γ_j^n ‖φ_n(I)‖,   N(I) = {n : ‖φ_n(I) − b_n‖ > its 98th percentile}.

`research/concepts` has that weighting and compares both. N(I) is reported here as well, as the
units behind an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.lens.contributions import Contributions, MeanEffect, SpatialContributions
from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import effects_by_patch
from clipneurons.text.synonym_groups import CosineSpread

# Cosines are multiplied with this where a model has no softmax of its own: CLIP's logit scale.
_LOGIT_SCALE = 100.0
# Concepts in a result.
TOP = 10


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of a layer's units on a batch of images, centred on the data set's means.

    norms        ‖φ_n(I) − b_n‖
    projections  ⟨φ_n(I) − b_n, r_n⟩
    activated    whether the norm exceeds the unit's 98th percentile
    """

    norms: Float[Tensor, "image unit"]
    projections: Float[Tensor, "image unit"]
    activated: Bool[Tensor, "image unit"]
    contributions: Contributions


@dataclass(frozen=True)
class ActivatedUnit:
    """A unit that an image activates; `excess` is its norm over its threshold."""

    layer: int
    unit: int
    norm: float
    projection: float
    excess: float


class ConceptReader:
    """A lens and the bundle it was used for, with all that does not depend on the image."""

    def __init__(self, lens: Lens, bundle: Bundle) -> None:
        """Prepare once: everything per image is then a few small products.

        Raises `ValueError` for a bundle with the shared bias, whose means cannot be told apart
        from the neurons' own.
        """
        if bundle.config.shared_bias:
            raise ValueError("Concepts need a bundle without the shared bias: export without it.")
        self.lens, self.bundle = lens, bundle
        self.device = lens.clip.device
        self.logit_scale = lens.clip.logit_scale or _LOGIT_SCALE
        self.spread = CosineSpread.of(self.texts)
        self._means, self._along = {}, {}
        for layer, arrays in bundle.layers.items():
            directions = lens.directions[layer]
            self._along[layer] = directions.along(arrays.directions.to(self.device))
            self._means[layer] = MeanEffect.from_dense(arrays.means.to(self.device), directions)
            directions.gram  # noqa: B018  computed and cached here, not at the first request

    @cached_property
    def texts(self) -> Float[Tensor, "text embed"]:
        """The text pool as unit rows."""
        return normalize(self.bundle.text_embeddings, dim=1)

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[Float[Tensor, "image embed"], dict[int, Effects]]:
        """Image embeddings (not normalised), and the effects of all units by layer."""
        embeddings, contributions = self.lens(images.to(self.device))
        return embeddings, {
            layer: self._centred(layer, effects) for layer, effects in contributions.items()
        }

    def _centred(self, layer: int, contributions: Contributions) -> Effects:
        mean, along = self._means[layer], self._along[layer]
        norms, projections = [], []
        for units, scores, sizes in contributions.blocks(mean):  # [chosen, image, head]
            norms.append(sizes)
            projections.append((scores * along[units, None]).sum(-1))
        norms, projections = torch.cat(norms).T, torch.cat(projections).T  # [image, unit]
        threshold = self.bundle.layers[layer].percentile.to(norms.device)
        return Effects(norms, projections, norms > threshold, contributions)

    def written(self, effects: dict[int, Effects]) -> Float[Tensor, "image patch embed"]:
        """What all units write from each patch, v_p; layers without spatial tokens have none."""
        return effects_by_patch(layer.contributions for layer in effects.values()).cpu()

    def patch_weights(self, written: Float[Tensor, "patch embed"]) -> Float[Tensor, "patch text"]:
        """Each patch's term of the weights of one image; `written` need not be by units."""
        return patch_weights(written, self.texts, self.logit_scale)

    def weights(self, written: Float[Tensor, "image patch embed"]) -> Float[Tensor, "image text"]:
        """Weights of all texts, w_j; zero where nothing is written."""
        return torch.stack([self.patch_weights(patches).sum(0) for patches in written])

    def zero_shot(self, embeddings: Float[Tensor, "image embed"]) -> Float[Tensor, "image text"]:
        """Cosine of each image's embedding with each text."""
        return normalize(embeddings.cpu(), dim=1) @ self.texts.T

    def activated(
        self, effects: dict[int, Effects], image: int = 0, top: int = 50
    ) -> list[ActivatedUnit]:
        """The activated units of one image, the largest norms first."""
        activated = []
        for layer, of_layer in effects.items():
            units = of_layer.activated[image].cpu().nonzero().flatten()
            norms = of_layer.norms[image].cpu()[units].double()
            projections = of_layer.projections[image].cpu()[units].double()
            excess = norms / self.bundle.layers[layer].percentile[units].double().clamp_min(1e-12)
            columns = [column.tolist() for column in (units, norms, projections, excess)]
            activated += [ActivatedUnit(layer, *row) for row in zip(*columns, strict=True)]
        return sorted(activated, key=lambda unit: (-unit.norm, unit.layer, unit.unit))[:top]

    def unit_map(
        self, effects: dict[int, Effects], layer: int, unit: int, image: int = 0
    ) -> Float[Tensor, "row column"]:
        """Each patch's share of one unit's ⟨φ_n(I), r_n⟩; 0 in a layer without spatial tokens."""
        clip, contributions = self.lens.clip, effects[layer].contributions
        if not isinstance(contributions, SpatialContributions):
            return torch.zeros(clip.grid)
        chosen = torch.tensor([unit], device=self.device)
        scores = contributions.token_scores(image, chosen)[0]  # [token, head]
        shares = scores @ self._along[layer][unit]  # [token]
        return shares[clip.prefix :].reshape(clip.grid).cpu()


def patch_weights(
    written: Float[Tensor, "patch embed"], texts: Float[Tensor, "text embed"], logit_scale: float
) -> Float[Tensor, "patch text"]:
    """100 · ‖v_p‖ / Σ_q ‖v_q‖ · softmax_j(s · cos(v_p, t_j)), for `texts` of unit norm.

    The sum over patches and texts is 100, or 0 where nothing is written.
    """
    norms = written.norm(dim=1, keepdim=True)  # [patch, 1]
    logits = (logit_scale * normalize(written, dim=1)) @ texts.T  # [patch, text]
    return logits.softmax(1).mul_(100 * norms / norms.sum().clamp_min(1e-12))


def top_concepts(
    weights: Float[Tensor, " text"], texts: Sequence[str], top: int = TOP
) -> list[tuple[str, float]]:
    """Texts with the largest positive weights."""
    values, order = weights.topk(min(top, len(texts)))
    return [(texts[i], v) for i, v in zip(order.tolist(), values.tolist(), strict=True) if v > 0]
