"""Whether two sets of images differ, and in which units, texts and images (2509.19943, section 5).

The test is a permutation test of six statistics combined by min-p (`stats.two_sample`, (5)):

    spread      many units change a little              mean_u z_u²
    peak        one unit changes a lot                  max_u |z_u|
    embeddings  the distribution of embeddings changes  MMD²
    places      what stands at one place changes        max over places of Hotelling's T²
    objects     something stands on more images         max over prototypes |z|
    pixels      brightness, blur, ... change            max over measures |z|

The change Δ = mean embedding of the new images - that of the reference is read in texts: text t
with the centred unit embedding e_t has the score 100 ⟨e_t, Δ⟩.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.bundle.bundle import Bundle
from clipneurons.shift.places import object_test, place_test
from clipneurons.shift.profile import Profile
from clipneurons.stats.centring import without_shared
from clipneurons.stats.two_sample import (
    UnitTests,
    min_p,
    mmd,
    p_values,
    permuted_labels,
    unit_tests,
    without_rounding,
)

TESTS = {
    "spread": "many units change a little",
    "peak": "one unit changes a lot",
    "embeddings": "the distribution of embeddings changes (MMD)",
    "places": "what stands at one place of the images changes",
    "objects": "something stands on more or fewer images, wherever it stands",
    "pixels": "brightness, blur, size or another property of the pixels changes",
}


@dataclass(frozen=True)
class RankedTexts:
    """Texts by a score, the first ones."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The first texts with their scores."""
        return list(zip(self.texts, self.scores, strict=True))[:count]


@dataclass(frozen=True)
class Shift:
    """The difference between two sets of images.

    Attributes:
        statistics: of each test under each labelling, the true one first.
        units: changes of the units, in the order of the profile's columns.
        pixels: changes of the pixels' properties (`MEASURES`); None where they were not measured.
        more, less: texts that the new images match more, and less, than the reference.
        along_change: how far each new image lies along the change: of a place or an object, where
            that is more significant than the change of units and embeddings, else of the units.
    """

    statistics: dict[str, Float[Tensor, " permutation"]]
    units: UnitTests
    pixels: UnitTests | None
    more: RankedTexts
    less: RankedTexts
    along_change: Float[Tensor, " image"]

    @cached_property
    def p(self) -> float:
        """p-value of the whole comparison."""
        return self.p_without()

    def p_without(self, *left_out: str) -> float:
        """p-value of the comparison without some of its tests."""
        kept = [value for name, value in self.statistics.items() if name not in left_out]
        return p_values(min_p(torch.stack(kept, 1)))[0].item()

    @cached_property
    def tests(self) -> dict[str, float]:
        """p-value of each test by itself."""
        return _p_of_each(self.statistics)

    def top_units(self, count: int = 10) -> list[int]:
        """Columns of the units that changed most."""
        return self.units.score.abs().topk(min(count, len(self.units.score))).indices.tolist()

    def changed_images(self, count: int = 16) -> list[int]:
        """The new images that lie farthest along the change."""
        return self.along_change.topk(min(count, len(self.along_change))).indices.tolist()


def _p_of_each(statistics: dict[str, Float[Tensor, " permutation"]]) -> dict[str, float]:
    p = p_values(torch.stack(list(statistics.values()), 1))[0]
    return dict(zip(statistics, p.tolist(), strict=True))


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


def compare(
    reference: Profile,
    new: Profile,
    pool: EmbeddedTextPool,
    permutations: int = 500,
    seed: int = 0,
) -> Shift:
    """Compare two sets of images.

    Raises:
        ValueError: fewer than two images on a side, or values that are not finite.
    """
    for name, side in (("reference", reference), ("new images", new)):
        if not all(values.isfinite().all() for values in vars(side).values()):
            raise ValueError(f"the profile of the {name} has values that are not finite")
    labels = permuted_labels(len(reference), len(new), permutations, seed)
    both = Profile.cat([reference, new])
    units = unit_tests(without_rounding(both.units), labels)
    places, objects = place_test(both.places, labels), object_test(both.places, labels, seed=seed)
    content = {
        "spread": units.spread,
        "peak": units.peak,
        "embeddings": mmd(without_rounding(both.embeddings), labels),
    }
    tests = content | {"places": places.statistic, "objects": objects.statistic}
    pixels = None
    if both.pixels.shape[1]:
        pixels = unit_tests(both.pixels, labels)
        tests["pixels"] = pixels.peak
    p = _p_of_each(tests)
    located = {"places": places.along, "objects": objects.along}
    best = min(located, key=p.__getitem__)
    placed = p[best] < min(p[name] for name in content)
    along_change = located[best] if placed else along_units(both.units, units)
    moved = 100 * pool.centred @ (new.embeddings.mean(0) - reference.embeddings.mean(0))
    return Shift(
        statistics=tests,
        units=units,
        pixels=pixels,
        more=ranked_texts(pool, moved),
        less=ranked_texts(pool, moved, descending=False),
        along_change=along_change[len(reference) :],
    )


def ranked_texts(
    pool: EmbeddedTextPool,
    scores: Float[Tensor, " text"],
    count: int = 100,
    descending: bool = True,
) -> RankedTexts:
    """The first ``count`` texts by their scores."""
    kept = scores.argsort(descending=descending)[:count].tolist()
    return RankedTexts(tuple(pool.texts[i] for i in kept), tuple(scores[kept].tolist()))


def along_units(
    values: Float[Tensor, "image unit"], tests: UnitTests, rate: float = 0.1
) -> Float[Tensor, " image"]:
    """How far each image lies along the change of the significant units.

    Units at a false-discovery rate of at most ``rate``, or the twenty that changed most where
    there are none; each weighs as much as it changed.
    """
    columns = (tests.q <= rate).nonzero().flatten()
    if not len(columns):
        columns = tests.score.abs().topk(min(20, len(tests.score))).indices
    significant = values[:, columns]
    deviation = significant.std(0).clamp_min(1e-12)
    weight = tests.score[columns] / tests.score[columns].norm().clamp_min(1e-12)
    return (significant - significant.mean(0)) / deviation @ weight
