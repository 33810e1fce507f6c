"""Concepts of an image: the phrases of the neurons that it activates (2406.04341, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.concepts.class_effects import softmax_scale
from clipneurons.lens.contributions import Contributions, MeanEffect, SpatialContributions
from clipneurons.lens.token_contributions import effects_by_patch, unit_token_effects

# Ways to weigh texts, see `ConceptReader.weights`.
SPARSE_NORM, SPARSE_PROJECTION, DENSE = "sparse-norm", "sparse-projection", "dense"
BY_PLACE = "by-place"
WAYS = (SPARSE_NORM, SPARSE_PROJECTION, DENSE, BY_PLACE)
# What cosines are multiplied with where a model has no softmax of its own: CLIP's.
_SHARPNESS = 100.0


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
        self.device = lens.clip.device
        self.sharpness = softmax_scale(lens.clip) or _SHARPNESS
        self._means, self._mean_sums, self._along = {}, {}, {}
        for layer, arrays in bundle.layers.items():
            directions = lens.directions[layer]
            means = arrays.means.to(self.device)
            self._along[layer] = directions.along(arrays.directions.to(self.device))
            self._means[layer] = MeanEffect.from_dense(means, directions)
            self._mean_sums[layer] = means.sum(0)
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
        # The scores before the norms, which are then read off them.
        projections = torch.einsum(
            "bnk,nk->bn", contributions.scores - mean.scores, self._along[layer]
        )
        norms = contributions.norms(mean)
        threshold = self.bundle.layers[layer].percentile.to(norms.device)
        return Effects(norms, projections, norms > threshold, contributions)

    def weights(
        self, effects: dict[int, Effects], way: str = SPARSE_NORM
    ) -> Float[Tensor, "image text"]:
        """How much each text of the pool is said of each image.

        ``sparse-norm``        w_j = Σ_{n ∈ N(I)} γ_j^n ‖φ_n(I)‖ over the activated units of all
                               layers, as in the paper;
        ``sparse-projection``  the projection on r_n in place of the norm, so that a unit that is
                               pushed against its direction counts for the opposite of its phrases;
        ``dense``              Σ_n ⟨φ_n(I) − b_n, t_j⟩ over all units: what they write, exactly,
                               and not what the few phrases of the activated ones keep of it;
        ``by-place``           what they write from each place, read as the model reads a whole
                               image (`read_by_place`), so that what is small is found beside what
                               is large.

        Raises `ValueError` for another way.
        """
        if way not in WAYS:
            raise ValueError(
                f"Texts are weighed in one of the ways {', '.join(WAYS)}, not {way!r}."
            )
        if way == DENSE:
            written = sum(
                mine.contributions.sum() - self._mean_sums[layer] for layer, mine in effects.items()
            )
            return written.cpu() @ self.unit_texts.T
        if way == BY_PLACE:
            return self.read_places(self._written(effects))
        count = len(next(iter(effects.values())).norms)
        total = torch.zeros(count, len(self.bundle.texts))
        for layer, mine in effects.items():
            size = (mine.projections if way == SPARSE_PROJECTION else mine.norms) * mine.activated
            image, unit = size.cpu().nonzero(as_tuple=True)
            arrays = self.bundle.layers[layer]
            values = size.cpu()[image, unit][:, None] * arrays.coefficients[unit]
            flat = image[:, None] * total.shape[1] + arrays.indices[unit].long()
            total.view(-1).index_add_(0, flat.flatten(), values.flatten())
        return total

    def _written(self, effects: dict[int, Effects]) -> Float[Tensor, "image place embed"]:
        return effects_by_patch(mine.contributions for mine in effects.values()).cpu()

    def read_places(
        self, written: Float[Tensor, "image place embed"]
    ) -> Float[Tensor, "image text"]:
        """Weights ``by-place`` of what is written from each place, by neurons or by anything."""
        return torch.stack([self._read(one).sum(0) for one in written])

    def _read(self, written: Float[Tensor, "place embed"]) -> Float[Tensor, "place text"]:
        return read_by_place(written, self.unit_texts, self.sharpness)

    def activated(
        self, effects: dict[int, Effects], image: int = 0, top: int = 50
    ) -> list[Activated]:
        """The activated units of one image, the largest norms first."""
        found = []
        for layer, mine in effects.items():
            units = mine.activated[image].cpu().nonzero().flatten()
            norms = mine.norms[image].cpu()[units].double()
            projections = mine.projections[image].cpu()[units].double()
            excess = norms / self.bundle.layers[layer].percentile[units].double().clamp_min(1e-12)
            rows = (units, norms, projections, excess)
            found += [
                Activated(layer, *row) for row in zip(*(r.tolist() for r in rows), strict=True)
            ]
        return sorted(found, key=lambda one: (-one.norm, one.layer, one.unit))[:top]

    def patches(
        self, effects: dict[int, Effects], text: int, image: int = 0, way: str = SPARSE_PROJECTION
    ) -> Float[Tensor, "row column"]:
        """Where the units that say a text fire: each patch's share of what they write.

        ``dense``: of Σ_n ⟨φ_n(I), t⟩. ``sparse-projection``: Σ_n γ_t^n · (patch's share of
        ⟨φ_n(I), r_n⟩) over the activated units; ``sparse-norm``: each unit's share in absolute
        value, as the paper's weights have norms. ``by-place``: the patch's own part of the weight.
        What the class token itself carries belongs to no patch.
        """
        return self.patch_maps(effects, [text], image, way)[0]

    def patch_maps(
        self,
        effects: dict[int, Effects],
        texts: Sequence[int],
        image: int = 0,
        way: str = SPARSE_PROJECTION,
    ) -> Float[Tensor, "text row column"]:
        """`patches` of several texts; what all neurons write is added up once for all of them."""
        clip = self.lens.clip
        if way == BY_PLACE and len(written := self._written(effects)[image]):
            return self._read(written)[:, list(texts)].T.reshape(len(texts), *clip.grid)
        total = torch.zeros(len(texts), clip.prefix + clip.grid[0] * clip.grid[1])
        for layer, mine in effects.items():
            if not isinstance(mine.contributions, SpatialContributions):
                continue
            if way == DENSE:
                written = unit_token_effects(mine.contributions)[image].cpu()
                total += self.unit_texts[list(texts)] @ written.T
                continue
            for row, text in enumerate(texts):
                total[row] += self._said_at(layer, mine, text, image, way)
        return total[:, clip.prefix :].reshape(len(texts), *clip.grid)

    def _said_at(
        self, layer: int, mine: Effects, text: int, image: int, way: str
    ) -> Float[Tensor, " token"] | float:
        """What the activated units of a layer that have a text among their phrases say of it."""
        arrays = self.bundle.layers[layer]
        on = mine.activated[image].cpu()
        gamma = torch.where(arrays.indices == text, arrays.coefficients, 0.0).sum(1) * on
        units = gamma.nonzero().flatten()
        if not len(units):
            return 0.0
        units = units.to(self.device)
        scores = mine.contributions.token_scores(image, units)  # [unit, token, head]
        share = torch.einsum("utk,uk->ut", scores, self._along[layer][units])
        share = share if way == SPARSE_PROJECTION else share.abs()
        return (gamma.to(self.device)[units] @ share).cpu()

    def unit_patches(
        self, effects: dict[int, Effects], layer: int, unit: int, image: int = 0
    ) -> Float[Tensor, "row column"]:
        """Where one unit fires: each patch's share of ⟨φ_n(I), r_n⟩; 0 in a layer of no place."""
        clip, mine = self.lens.clip, effects[layer].contributions
        if not isinstance(mine, SpatialContributions):
            return torch.zeros(clip.grid)
        chosen = torch.tensor([unit], device=self.device)
        scores = mine.token_scores(image, chosen)[0]  # [token, head]
        share = scores @ self._along[layer][unit]
        return share[clip.prefix :].reshape(clip.grid).cpu()

    @cached_property
    def unit_texts(self) -> Float[Tensor, "text embed"]:
        """The pool as unit rows."""
        return normalize(self.bundle.text_embeddings, dim=1)

    def nearest_texts(
        self, representation: Float[Tensor, "image embed"]
    ) -> Float[Tensor, "image text"]:
        """Cosine of each image with each text: what plain CLIP retrieval says."""
        return normalize(representation.cpu(), dim=1) @ self.unit_texts.T


def read_by_place(
    written: Float[Tensor, "place embed"], texts: Float[Tensor, "text embed"], sharpness: float
) -> Float[Tensor, "place text"]:
    """What each place says of each text: ‖v_p‖ · softmax_j(sharpness · cos(v_p, t_j)).

    ``texts`` have unit norm. In per cent of all that is written: the sum over places and texts is
    100, or 0 where nothing is.
    """
    sizes = written.norm(dim=1, keepdim=True)
    read = (sharpness * normalize(written, dim=1) @ texts.T).softmax(1)
    return 100 * sizes / sizes.sum().clamp_min(1e-12) * read


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
