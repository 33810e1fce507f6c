"""Ways to write a label, and the choice among them.

Pursuits differ in what they explain (the direction r_n, or the effects on images) and in the
metric. In the data's metric C, the covariance of image embeddings, a text counts by how its score
varies over images, so that a phrase that no image shows explains nothing, and
``‖C^½ (w − Σ γ t)‖²`` is the squared error of the predicted effects over the images. Others take
the texts that the model sees where the unit is strong or weak, each for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.labels.evidence import SCALE, SIZES, Evidence, Family
from clipneurons.labels.seen_texts import Reading, seen_texts
from clipneurons.labels.simulation import Labels, pearson, simulate, standardised
from clipneurons.statistics.nonnegative_pursuit import nonnegative_pursuit
from clipneurons.statistics.omp import omp_sizes

# Units correlated with all texts at once.
_UNITS = 1024
# How the model is asked what an image shows. None is best for all units, nor for both bundled
# models. The scales are CLIP-Dissect's and a sharper one.
READINGS = tuple(Reading(*of) for of in product((SCALE, 4 * SCALE), (False, True), (False, True)))

Pursuit = Callable[..., tuple[Tensor, dict[int, Tensor]]]


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


def shown_texts(evidence: Evidence) -> Family:
    """Texts whose probability goes along with the effect and varies; correlations are weights."""
    spread = evidence.probabilities.std(0).sqrt()
    return correlated(evidence.effects, evidence.probabilities, spread)


METHODS: dict[str, Callable[[Evidence], Family]] = {
    "signed pursuit": signed_pursuit,
    "non-negative pursuit": unsigned_pursuit,
    "weighted by the data": weighted_pursuit,
    "joint fit on effects": joint_fit,
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
    """Labels chosen on images kept for it, the largest coefficient of each first.

    `correlation` is each unit's on these images, `size` its number of phrases.
    """

    labels: Labels
    correlation: Float[Tensor, " unit"]
    size: Int[Tensor, " unit"]

    @property
    def score(self) -> float:
        """The mean correlation."""
        return float(self.correlation.mean())

    @property
    def sizes(self) -> dict[int, int]:
        """The number of units that took each number of phrases."""
        sizes, counts = self.size.unique(return_counts=True)
        return dict(zip(sizes.tolist(), counts.tolist(), strict=True))


def choose_sizes(
    family: Family, effects: Float[Tensor, "image unit"], scores: Float[Tensor, "image text"]
) -> Choice:
    """The size that is best over all units; another one where it is better by a standard error."""
    found = torch.stack([pearson(effects, simulate(label, scores)) for label in family.values()])
    best = _better(found, len(effects))
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
        found.gather(0, best[None])[0],
        torch.tensor(list(family))[best],
    )


def choose_ways(choices: Sequence[Choice], images: int) -> Choice:
    """The choice that is best over all units; another one where it is better by a standard error.

    All have been made on the same images, so many of them.
    """
    found = torch.stack([choice.correlation for choice in choices])
    best, unit = _better(found, images), torch.arange(found.shape[1])
    return Choice(
        Labels(
            torch.stack([choice.labels.indices for choice in choices])[best, unit],
            torch.stack([choice.labels.coefficients for choice in choices])[best, unit],
        ),
        found[best, unit],
        torch.stack([choice.size for choice in choices])[best, unit],
    )


def choose_readings(
    evidence: Evidence, effects: Float[Tensor, "image unit"], scores: Float[Tensor, "image text"]
) -> tuple[Choice, Choice]:
    """Seen texts by the one reading that is best over all units, and by the best for each unit."""
    choices = [choose_sizes(seen_texts(evidence, reading), effects, scores) for reading in READINGS]
    return max(choices, key=lambda choice: choice.score), choose_ways(choices, len(effects))


def _better(found: Float[Tensor, "choice unit"], images: int) -> Int[Tensor, " unit"]:
    """The choice that is best over all units, or the unit's own where that is clearly better.

    Without the margin a unit would take whichever the noise of its images favours.
    """
    common, margin = int(found.mean(1).argmax()), images**-0.5
    return torch.where(found.amax(0) > found[common] + margin, found.argmax(0), common)


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
