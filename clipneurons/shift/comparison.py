"""What changed between two sets of images: units, words and images (2509.19943, section 5).

Two sets of images are compared by the mean change of each unit of their profiles, and the sum of
all changes is read in the words of the bundle's texts.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.shift.places import place_test
from clipneurons.shift.profile import Profile
from clipneurons.shift.rankings import RANKINGS
from clipneurons.stats.centring import without_shared
from clipneurons.stats.two_sample import (
    UnitTests,
    mmd,
    p_values,
    permuted_labels,
    smallest_p,
    unit_tests,
    without_rounding,
)


@dataclass(frozen=True)
class Words:
    """Texts by how much more (or less) is said of them, largest change first."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The first texts with their scores."""
        return list(zip(self.texts, self.scores, strict=True))[:count]


@dataclass(frozen=True)
class Shift:
    """The difference between two sets of images.

    Attributes:
        p: of the whole comparison, by permutation.
        tests: p-value of each statistic that ``p`` combines.
        units: the changes of the units, in the order of the profile's columns.
        more, less: texts that the new images say more, and less, than the reference.
        carriers: of each new image, how far it lies along the change: of the place, where that
            tells the sets apart more surely than all else, otherwise of the units.
    """

    p: float
    tests: dict[str, float]
    units: UnitTests
    more: Words
    less: Words
    carriers: Float[Tensor, " image"]

    def top_units(self, count: int = 10) -> list[int]:
        """Columns of the units that changed most."""
        return self.units.score.abs().topk(min(count, len(self.units.score))).indices.tolist()

    def top_carriers(self, count: int = 16) -> list[int]:
        """The new images that lie farthest along the change."""
        return self.carriers.topk(min(count, len(self.carriers))).indices.tolist()


@dataclass(frozen=True)
class EmbeddedTextPool:
    """Texts that changes are read in; ``embeddings`` are of unit norm."""

    texts: tuple[str, ...]
    embeddings: Float[Tensor, "text embed"]

    @cached_property
    def centred(self) -> Float[Tensor, "text embed"]:
        """Embeddings without what all texts share (the gap between images and texts)."""
        return without_shared(self.embeddings)

    def sha256(self) -> str:
        """SHA-256 over the texts and their embeddings."""
        digest = hashlib.sha256("\n".join(self.texts).encode())
        digest.update(self.embeddings.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @staticmethod
    def of(bundle: Bundle) -> "EmbeddedTextPool":
        """The bundle's own texts."""
        return EmbeddedTextPool(tuple(bundle.texts), bundle.text_embeddings)


def check_level(level: float, permutations: int) -> None:
    """Raises `ValueError` for a level that is none, or that no p-value can reach."""
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, not {level:g}")
    if level * (permutations + 1) < 1:
        raise ValueError(
            f"{permutations} permutations cannot give a p-value of {level:g}: "
            f"expected at least {ceil(1 / level) - 1}"
        )


def text_scores(
    said: Float[Tensor, "image embed"],
    labels: Float[Tensor, "permutation image"],
    texts: Float[Tensor, "text embed"],
) -> Float[Tensor, "permutation text"]:
    """Evidence that what is said moved along each text, under each labelling.

    For noise of covariance C, a change Δ of the mean is along text t by the likelihood ratio
    ``(tᵀ C⁻¹ Δ)² / tᵀ C⁻¹ t``; this is its square root with the sign of the change, in standard
    errors. C is that of both samples, shrunk towards a multiple of the identity; it is inverted
    along the images' principal axes, which are far fewer than the texts.
    """
    count, embed = said.shape
    left, sizes, axes = torch.linalg.svd(said - said.mean(0), full_matrices=False)
    share = embed / (embed + count)
    ridge = share * (sizes.square().sum() / (count * embed)).clamp_min(1e-20)
    variances = (1 - share) * sizes.square() / count + ridge  # along the axes; elsewhere the ridge
    along = texts @ axes.T  # [text, axis]
    spread = texts.square().sum(1) / ridge - along.square() @ (1 / ridge - 1 / variances)
    error = labels[0].square().sum().sqrt()
    evidence = (labels @ (left * sizes / variances)) @ along.T
    return evidence / (spread.clamp_min(1e-20).sqrt() * error)


def mean_change(
    reference: Profile, new: Profile, texts: Float[Tensor, "text embed"]
) -> Float[Tensor, " text"]:
    """How far the mean embedding, at norm 100, moved along each text."""
    return 100 * texts @ (new.embeddings.mean(0) - reference.embeddings.mean(0))


def compare(
    reference: Profile,
    new: Profile,
    pool: EmbeddedTextPool,
    permutations: int = 500,
    seed: int = 0,
    ranking: str = "mean",
) -> Shift:
    """Compare two sets of images.

    Words are ranked by how far the ``mean`` embedding moved along each text (`mean_change`), or
    by the ``evidence`` that what the units say did (`text_scores`). The latter divides by what
    varies anyway: on the small CLIPs, whose texts lie close together, it turns to faint
    directions and names a planted change less often (`research shift`).

    The p-value combines seven statistics, each against the same permutations of the labels: the
    units' ``spread``, ``peak`` and ``rare`` changes, the largest change along a text
    (``words``), the discrepancy of the distributions of what is said (``kernel``) and of the
    ``embeddings``, and the largest change at one of the ``places`` of the images (`place_test`).

    Raises:
        ValueError: fewer than two images on a side, another ranking.
    """
    if ranking not in RANKINGS:
        raise ValueError(f"expected a ranking of {' or '.join(RANKINGS)}, not {ranking!r}")
    labels = permuted_labels(len(reference), len(new), permutations, seed)
    both = Profile.cat([reference, new])
    units = unit_tests(without_rounding(both.units), labels)
    scores = text_scores(without_rounding(both.reconstruction), labels, pool.centred)
    places = place_test(both.places, labels)
    statistics = {
        "spread": units.spread,
        "peak": units.peak,
        "rare": units.rare,
        "words": scores.abs().amax(1),
        "kernel": mmd(without_rounding(F.normalize(both.reconstruction, dim=-1)), labels),
        "embeddings": mmd(without_rounding(both.embeddings), labels),
        "places": places.largest,
    }
    table = torch.stack(list(statistics.values()), 1)
    combined = p_values(smallest_p(table)[:, None])[0, 0]
    tests = dict(zip(statistics, p_values(table)[0].tolist(), strict=True))
    placed = tests["places"] < min(p for name, p in tests.items() if name != "places")
    along = places.along if placed else carriers(both.units, units)
    moved = scores[0] if ranking == "evidence" else mean_change(reference, new, pool.centred)
    return Shift(
        p=combined.item(),
        tests=tests,
        units=units,
        more=ranked_words(pool, moved),
        less=ranked_words(pool, moved, descending=False),
        carriers=along[len(reference) :],
    )


def ranked_words(
    pool: EmbeddedTextPool,
    scores: Float[Tensor, " text"],
    count: int = 100,
    descending: bool = True,
) -> Words:
    """The first ``count`` texts by their scores."""
    kept = scores.argsort(descending=descending)[:count].tolist()
    return Words(tuple(pool.texts[i] for i in kept), tuple(scores[kept].tolist()))


def carriers(
    values: Float[Tensor, "image unit"], tests: UnitTests, rate: float = 0.1
) -> Float[Tensor, " image"]:
    """How far each image lies along the change of the units that changed.

    Units at a false-discovery rate of at most ``rate``, or the twenty that changed most where
    there are none; each weighs as much as it changed.
    """
    chosen = (tests.q <= rate).nonzero().flatten()
    if not len(chosen):
        chosen = tests.score.abs().topk(min(20, len(tests.score))).indices
    mine = values[:, chosen]
    deviation = mine.std(0).clamp_min(1e-12)
    weight = tests.score[chosen] / tests.score[chosen].norm().clamp_min(1e-12)
    return (mine - mine.mean(0)) / deviation @ weight
