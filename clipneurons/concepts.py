"""Concepts of an image: the phrases of the neurons that it activates (2406.04341, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle import Bundle
from clipneurons.contributions import Contributions, Directions, MeanEffect, SplitDirections

_CHUNK = 256


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
class Activated:
    """One unit that an image activates; `excess` is its norm over its threshold."""

    layer: int
    unit: int
    norm: float
    projection: float
    excess: float


class ConceptReader:
    """A lens and the bundle it was used for, with all that does not depend on the image."""

    def __init__(self, lens, bundle: Bundle) -> None:
        """Prepare once: everything per image is then a few small products.

        Raises `ValueError` for a bundle with the shared bias, whose means cannot be told apart
        from the neurons' own.
        """
        if bundle.config.shared_bias:
            raise ValueError("Concepts need a bundle without the shared bias: export without it.")
        self.lens, self.bundle = lens, bundle
        self.device = lens.tower.device
        self._means, self._along = {}, {}
        for layer, arrays in bundle.layers.items():
            directions = lens.directions[layer]
            self._means[layer] = mean_scores(arrays.means.to(self.device), directions)
            self._along[layer] = along(arrays.directions.to(self.device), directions)
            directions.gram  # noqa: B018  computed and cached here, not at the first request

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> tuple[Float[Tensor, "image embed"], dict[int, Effects]]:
        """Image embeddings (not normalised), and the effects of all units by layer."""
        representation, contributions = self.lens(images.to(self.device))
        return representation, {
            layer: self.centre(layer, mine) for layer, mine in contributions.items()
        }

    def centre(self, layer: int, contributions: Contributions) -> Effects:
        """Norms and projections of contributions that were read elsewhere."""
        mean = self._means[layer]
        norms = contributions.norms(mean)
        projections = torch.einsum(
            "bnk,nk->bn", contributions.scores - mean.scores, self._along[layer]
        )
        threshold = self.bundle.layers[layer].percentile.to(norms.device)
        return Effects(norms, projections, norms > threshold, contributions)

    def weights(
        self, effects: dict[int, Effects], *, signed: bool = False
    ) -> Float[Tensor, "image text"]:
        """How much each text of the pool is said of each image.

        The paper's w_j = Σ_{n ∈ N(I)} γ_j^n ‖φ_n(I)‖ over the activated units of all layers, or,
        ``signed``, with the projection on r_n in place of the norm, so that a unit that is
        pushed against its direction counts for the opposite of its phrases.
        """
        count = len(next(iter(effects.values())).norms)
        total = torch.zeros(count, len(self.bundle.texts))
        for layer, mine in effects.items():
            size = (mine.projections if signed else mine.norms) * mine.activated
            image, unit = size.cpu().nonzero(as_tuple=True)
            arrays = self.bundle.layers[layer]
            values = size.cpu()[image, unit][:, None] * arrays.coefficients[unit]
            flat = image[:, None] * total.shape[1] + arrays.indices[unit].long()
            total.view(-1).index_add_(0, flat.flatten(), values.flatten())
        return total

    def activated(
        self, effects: dict[int, Effects], image: int = 0, top: int = 50
    ) -> list[Activated]:
        """The activated units of one image, the largest norms first."""
        found = []
        for layer, mine in effects.items():
            threshold = self.bundle.layers[layer].percentile
            for unit in mine.activated[image].nonzero().flatten().tolist():
                norm = float(mine.norms[image, unit])
                found.append(
                    Activated(
                        layer, unit, norm, float(mine.projections[image, unit]),
                        norm / max(float(threshold[unit]), 1e-12),
                    )
                )  # fmt: skip
        return sorted(found, key=lambda one: (-one.norm, one.layer, one.unit))[:top]

    def patches(
        self, effects: dict[int, Effects], text: int, image: int = 0, *, signed: bool = True
    ) -> Float[Tensor, "row column"]:
        """Where the units that say a text fire: each patch's share of what they write.

        Σ_n γ_text^n · (patch's share of ⟨φ_n(I), r_n⟩) over the activated units. Not ``signed``:
        each unit's share in absolute value, as the paper's weights have norms. What the class
        token itself carries belongs to no patch.
        """
        total = 0.0
        for layer, mine in effects.items():
            arrays = self.bundle.layers[layer]
            on = mine.activated[image].cpu()
            gamma = torch.where(arrays.indices == text, arrays.coefficients, 0.0).sum(1) * on
            units = gamma.nonzero().flatten()
            if not len(units):
                continue
            units = units.to(self.device)
            scores = token_scores(mine.contributions, image, units)  # [unit, token, pair]
            share = torch.einsum("utk,uk->ut", scores, self._along[layer][units])
            share = share if signed else share.abs()
            total = total + gamma.to(self.device)[units] @ share
        if isinstance(total, float):
            return torch.zeros(self.lens.tower.grid)
        return total[1:].reshape(self.lens.tower.grid).cpu()

    @cached_property
    def unit_texts(self) -> Float[Tensor, "text embed"]:
        """The pool as unit rows."""
        return normalize(self.bundle.text_embeddings, dim=1)

    def nearest_texts(
        self, representation: Float[Tensor, "image embed"]
    ) -> Float[Tensor, "image text"]:
        """Cosine of each image with each text: what plain CLIP retrieval says."""
        return normalize(representation.cpu(), dim=1) @ self.unit_texts.T


def mean_scores(means: Float[Tensor, "unit embed"], directions: Directions) -> MeanEffect:
    """Scores of the mean effects, from the vectors a bundle keeps (least squares in float64)."""
    parts = []
    for start in range(0, len(means), _CHUNK):
        part = slice(start, start + _CHUNK)
        dense = directions.dense(part).double()  # [unit, pair, embed]
        inverse = torch.linalg.pinv(dense @ dense.mT, hermitian=True)
        parts.append((inverse @ (dense @ means[part].double()[..., None]))[..., 0].float())
    return MeanEffect(torch.cat(parts))


def along(
    vectors: Float[Tensor, "unit embed"], directions: Directions
) -> Float[Tensor, "unit pair"]:
    """Inner product of each unit's own vector with the vector that each of its pairs writes."""
    return torch.cat(
        [
            torch.einsum("nkd,nd->nk", directions.dense(part), vectors[part])
            for part in (slice(s, s + _CHUNK) for s in range(0, len(vectors), _CHUNK))
        ]
    )


def token_scores(
    contributions: Contributions, image: int, units: Int[Tensor, " chosen"]
) -> Float[Tensor, "chosen token pair"]:
    """Each token's part of the scores of the chosen units; the sum over tokens is the score."""
    activations, weights = contributions.activations[image], contributions.weights[image]
    if isinstance(contributions.directions, SplitDirections):
        heads = contributions.directions.whole.pairs
        return (activations[:, units // heads].T * weights[units % heads])[..., None]
    return activations[:, units].T[..., None] * weights.T[None]


def top_concepts(
    weights: Float[Tensor, " text"], texts: Sequence[str], top: int = 10
) -> list[tuple[str, float]]:
    """Texts with the largest positive weights."""
    values, order = weights.topk(min(top, len(texts)))
    return [(texts[i], v) for i, v in zip(order.tolist(), values.tolist(), strict=True) if v > 0]


@dataclass(frozen=True)
class Comparison:
    """Concepts of several images: what all share, and what sets each apart."""

    common: list[tuple[str, float]]
    only: list[list[tuple[str, float]]]


def compare(weights: Float[Tensor, "image text"], texts: Sequence[str], top: int = 8) -> Comparison:
    """Common concepts have a large least weight; an image's own exceed the others' largest.

    Weights are taken relative to each image's largest. Raises `ValueError` for one image.
    """
    if len(weights) < 2:
        raise ValueError(f"Comparing takes at least two images, not {len(weights)}.")
    relative = weights / weights.amax(1, keepdim=True).clamp_min(1e-12)
    common = top_concepts(relative.amin(0), texts, top)
    only = []
    for i in range(len(relative)):
        others = torch.cat([relative[:i], relative[i + 1 :]]).clamp_min(0).amax(0)
        only.append(top_concepts(relative[i] - others, texts, top))
    return Comparison(common, only)
