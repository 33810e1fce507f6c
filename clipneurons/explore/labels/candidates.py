"""Ways to write a label, each from recordings of the model itself; the judge has no part in them.

Three of them are pursuits, which differ in what they explain (the direction r_n, or the effects on
images) and in the metric. In the data's metric C, the covariance of image embeddings, a text counts
by how its score varies over images, so that a phrase that no image shows explains nothing, and
``‖C^½ (w − Σ γ t)‖²`` is the squared error of the predicted effects over the images. The others
take the texts whose zero-shot probability goes along with the effect, each for itself: where the
model's words are noisy, a joint fit follows the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.analysis.nonnegative_pursuit import nonnegative_pursuit
from clipneurons.analysis.omp import omp_sizes
from clipneurons.explore.labels.simulation import Labels, pearson, simulate, standardised

# Phrases a label may have; the number is chosen per unit on images kept for it.
SIZES = (1, 2, 4, 8, 16, 32)
# Scale of the softmax over texts: CLIP-Dissect's.
SCALE = 10.0
# Directions in which image embeddings vary by less than this share of the largest are noise.
_RANK = 1e-3
# Units correlated with all texts at once.
_UNITS = 1024

Family = dict[int, Labels]
Pursuit = Callable[..., tuple[Tensor, dict[int, Tensor]]]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What labels are made from: recordings of the model, on images that judge nothing later.

    directions   r_n, unit rows
    texts        unit rows, the pool's embeddings in the model's space
    embeddings   unit rows, the model's embedding of each image
    effects      ⟨φ_n(I) − b_n, r_n⟩ on these images
    """

    directions: Float[Tensor, "unit embed"]
    texts: Float[Tensor, "text embed"]
    embeddings: Float[Tensor, "image embed"]
    effects: Float[Tensor, "image unit"]

    @cached_property
    def probabilities(self) -> Float[Tensor, "image text"]:
        """The model's softmax over the texts on each image."""
        return (SCALE * self.embeddings @ self.texts.T).softmax(1)

    @cached_property
    def root_covariance(self) -> tuple[Float[Tensor, "rank embed"], Float[Tensor, "rank image"]]:
        """B = C^½ of the centred embeddings X up to a constant, and U with X = Uᵀ B, U Uᵀ = 1."""
        u, s, vt = torch.linalg.svd(self.embeddings - self.embeddings.mean(0), full_matrices=False)
        kept = s > _RANK * s[0]
        return s[kept, None] * vt[kept], u[:, kept].T


def signed_pursuit(evidence: Evidence) -> Family:
    """The paper's: orthogonal matching pursuit of the direction."""
    return _pursued(omp_sizes, evidence.directions, evidence.texts)


def unsigned_pursuit(evidence: Evidence) -> Family:
    """Pursuit of the direction with positive weights alone."""
    return _pursued(nonnegative_pursuit, evidence.directions, evidence.texts)


def weighted_pursuit(evidence: Evidence) -> Family:
    """Pursuit of the direction in the data's metric."""
    root, _ = evidence.root_covariance
    return _pursued(omp_sizes, evidence.directions @ root.T, evidence.texts @ root.T)


def joint_fit(evidence: Evidence) -> Family:
    """Pursuit of the effects: sparse regression on the texts' cosines over the images."""
    root, images = evidence.root_covariance
    effects = evidence.effects.T - evidence.effects.mean(0)[:, None]
    return _pursued(omp_sizes, effects @ images.T, evidence.texts @ root.T)


def correlated_texts(evidence: Evidence) -> Family:
    """Texts whose probability correlates most with the effect; the correlation is the weight."""
    return correlated(evidence.effects, evidence.probabilities)


def shown_texts(evidence: Evidence) -> Family:
    """`correlated_texts`, where a text also counts by how much its probability varies."""
    spread = evidence.probabilities.std(0).sqrt()
    return correlated(evidence.effects, evidence.probabilities, spread)


METHODS: dict[str, Callable[[Evidence], Family]] = {
    "signed pursuit": signed_pursuit,
    "non-negative pursuit": unsigned_pursuit,
    "weighted by the data": weighted_pursuit,
    "joint fit on effects": joint_fit,
    "correlated with effects": correlated_texts,
    "correlated, weighted by the data": shown_texts,
}


def correlated(
    effects: Float[Tensor, "image unit"],
    scores: Float[Tensor, "image text"],
    importance: Float[Tensor, " text"] | None = None,
) -> Family:
    """Texts in the order of |correlation · importance|, with their correlations as weights."""
    standard, most = standardised(scores), min(max(SIZES), scores.shape[1])
    parts = []
    for some in standardised(effects).split(_UNITS, dim=1):
        found = some.T @ standard  # [unit, text]
        ranked = found.abs() if importance is None else found.abs() * importance
        places = ranked.topk(most, dim=1).indices
        parts.append((places, found.gather(1, places)))
    indices, weights = (torch.cat(part) for part in zip(*parts, strict=True))
    return {m: Labels(indices[:, :m], weights[:, :m]) for m in SIZES if m <= indices.shape[1]}


@dataclass(frozen=True, eq=False)
class Choice:
    """Labels with their number of phrases chosen, by correlation on images kept for it."""

    labels: Labels
    score: float
    sizes: dict[int, int]


def choose_sizes(
    family: Family, effects: Float[Tensor, "image unit"], scores: Float[Tensor, "image text"]
) -> Choice:
    """The size that is best over all units; another one where it is better by a standard error.

    Without that margin a unit would take whichever size the noise of its images favours.
    `score` is the mean correlation, `sizes` the number of units that took each size.
    """
    found = torch.stack([pearson(effects, simulate(label, scores)) for label in family.values()])
    common, margin = int(found.mean(1).argmax()), len(effects) ** -0.5
    best = torch.where(found.amax(0) > found[common] + margin, found.argmax(0), common)
    largest = list(family.values())[-1]
    indices = torch.zeros_like(largest.indices)
    coefficients = torch.zeros_like(largest.coefficients)
    for number, (size, label) in enumerate(family.items()):
        mine = best == number
        indices[mine, :size] = label.indices[mine]
        coefficients[mine, :size] = label.coefficients[mine]
    order = coefficients.abs().argsort(dim=1, descending=True, stable=True)
    return Choice(
        Labels(indices.gather(1, order), coefficients.gather(1, order)),
        float(found.gather(0, best[None]).mean()),
        {size: int((best == number).sum()) for number, size in enumerate(family)},
    )


def _pursued(
    pursuit: Pursuit,
    targets: Float[Tensor, "unit rank"],
    texts: Float[Tensor, "text rank"],
    sizes: Sequence[int] = SIZES,
) -> Family:
    """Labels of several sizes; texts may have any norm, coefficients are for them as they are."""
    norms = texts.norm(dim=1)
    varies = (norms > 1e-6 * norms.max()).nonzero()[:, 0]
    rows = normalize(texts[varies], dim=1)
    indices, found = pursuit(targets, rows, [size for size in sizes if size <= len(rows)])
    texts_of = varies[indices]
    return {
        size: Labels(texts_of[:, :size], gamma / norms[texts_of[:, :size]])
        for size, gamma in found.items()
    }
