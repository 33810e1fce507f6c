"""Tests of whether two samples come from one distribution, by permutation of their labels.

Permutations are rows of weights: ``1/new`` for the images that a permutation calls new and
``-1/reference`` for the others, so that ``labels @ values`` are differences of means. Row 0 is
the true labelling; it counts as one of the permutations, which makes every p-value exact.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clipneurons.extras import extra

# Columns tested at once: bounds the [permutation, unit] temporaries.
_CHUNK = 4096
# Standard deviations from which a value counts as rare.
_RARE = 2.0


def permuted_labels(
    reference: int, new: int, permutations: int, seed: int = 0
) -> Float[Tensor, "permutation image"]:
    """Weights of the true labelling and of random ones, ``permutations + 1`` rows.

    Images are the reference's, then the new ones.

    Raises:
        ValueError: a sample of fewer than two images, or no permutation.
    """
    if min(reference, new) < 2 or permutations < 1:
        raise ValueError(
            "expected at least two images on each side and one permutation, not "
            f"{reference}, {new} and {permutations}"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(permutations + 1, reference + new, generator=generator).argsort(1)
    order[0] = torch.arange(reference + new)
    weights = torch.full((reference + new,), -1 / reference)
    weights[reference:] = 1 / new
    return weights.expand(permutations + 1, -1).gather(1, order)


def p_values(statistics: Float[Tensor, "permutation *test"]) -> Float[Tensor, "permutation *test"]:
    """Of each permutation: the share of all whose statistic is at least as large."""
    count = len(statistics)
    ascending = statistics.sort(0).values.movedim(0, -1).contiguous()
    own = statistics.movedim(0, -1).contiguous()
    # Equal statistics that were summed in another order must stay equal.
    smaller = torch.searchsorted(ascending, own - 1e-6 * own.abs())
    return ((count - smaller) / count).movedim(-1, 0)


def smallest_p(
    statistics: Float[Tensor, "permutation test"],
) -> Float[Tensor, " permutation"]:
    """Several tests as one: the smallest of their p-values, negated so that large means change.

    Its own permutations say how small the smallest is by chance, so it needs no correction.
    Where the smallest are equal, as when the true labelling comes first in several tests, the
    product of the p-values decides (Fisher).
    """
    p = p_values(statistics)
    fisher = -p.log().sum(1)
    # p-values are multiples of 1 / permutations: this never changes the order of the smallest.
    return -p.amin(1) + fisher / (fisher.amax() + 1) / (2 * len(p))


def benjamini_hochberg(p: Float[Tensor, " test"]) -> Float[Tensor, " test"]:
    """Smallest false-discovery rate at which each test is among the discoveries."""
    order = p.argsort(descending=True)
    ranks = torch.arange(len(p), 0, -1, device=p.device)
    q = (p[order] * len(p) / ranks).cummin(0).values.clamp_max(1)
    return torch.empty_like(p).scatter(0, order, q)


@dataclass(frozen=True)
class UnitTests:
    """Changes of many units' means between two samples.

    Attributes:
        change: difference of the means in standard deviations of both samples taken together.
        score: ``change`` in standard errors; about normal without a shift.
        p: of each unit, by its own permutations; not smaller than 1 / (permutations + 1).
        q: false-discovery rate (Benjamini-Hochberg) of p-values from the permuted scores of all
            units together, which can be as small as many units need.
        spread: by permutation, the mean of the squared scores: many units move a little.
        peak: by permutation, the largest absolute score: one unit moves a lot.
        rare: by permutation, the largest score of the parts of values beyond two standard
            deviations: one unit moves a lot on few images.
    """

    change: Float[Tensor, " unit"]
    score: Float[Tensor, " unit"]
    p: Float[Tensor, " unit"]
    q: Float[Tensor, " unit"]
    spread: Float[Tensor, " permutation"]
    peak: Float[Tensor, " permutation"]
    rare: Float[Tensor, " permutation"]


def unit_tests(
    values: Float[Tensor, "image unit"], labels: Float[Tensor, "permutation image"]
) -> UnitTests:
    """Test every column of the values; a constant column has change 0 and p-value 1."""
    error = labels[0].square().sum().sqrt()  # standard error of a difference, for variance 1
    spread, peak, rare = 0.0, [], []
    change, score, own, null = [], [], [], []
    for chunk in values.split(_CHUNK, dim=1):
        standard = _standardised(chunk)
        scores = labels @ standard / error
        change.append(scores[0] * error)
        score.append(scores[0])
        size = scores.abs()
        own.append((size >= size[:1] * (1 - 1e-6)).float().mean(0))
        null.append(size[1:101])
        spread = spread + scores.square().sum(1)
        peak.append(size.amax(1))
        tails = _standardised((standard.abs() - _RARE).clamp_min(0) * standard.sign())
        rare.append((labels @ tails).abs().amax(1) / error)
    score = torch.cat(score)
    p = torch.cat(own)
    alive = values.amax(0) > values.amin(0)
    pooled = torch.ones_like(p)
    if alive.any():
        chance = torch.cat(null, 1)[:, alive].flatten().sort().values
        below = torch.searchsorted(chance, score.abs() * (1 - 1e-6))
        pooled[alive] = ((len(chance) - below + 1) / (len(chance) + 1))[alive]
    return UnitTests(
        change=torch.cat(change),
        score=score,
        p=p,
        q=benjamini_hochberg(pooled),
        spread=spread / values.shape[1],
        peak=torch.stack(peak).amax(0),
        rare=torch.stack(rare).amax(0),
    )


def without_rounding(
    values: Float[Tensor, "image column"], relative: float = 1e-5
) -> Float[Tensor, "image column"]:
    """The values, with columns of 0 where what varies is no more than rounding.

    Images that are equal give equal values only up to the order of sums, which follows the size
    of their batch; tests that divide by what varies would take that for a change. ``relative`` is
    to the root mean square of all values. For statistics that do not mind where the zero is.
    """
    deviation = (values - values.mean(0)).square().mean(0).sqrt()
    return torch.where(deviation > relative * values.square().mean().sqrt(), values, 0.0)


def _standardised(values: Float[Tensor, "image unit"]) -> Float[Tensor, "image unit"]:
    centred = values - values.mean(0)
    deviation = centred.square().mean(0).sqrt()
    # Rounding leaves a constant column a deviation of its own.
    alive = deviation > 1e-6 * values.abs().amax(0)
    return torch.where(alive, centred / deviation.clamp_min(1e-30), 0.0)


def mean_difference(
    values: Float[Tensor, "image embed"], labels: Float[Tensor, "permutation image"]
) -> Float[Tensor, " permutation"]:
    """Squared length of the difference of the means under each labelling."""
    return (labels @ (values - values.mean(0))).square().sum(1)


def mmd(
    values: Float[Tensor, "image embed"], labels: Float[Tensor, "permutation image"]
) -> Float[Tensor, " permutation"]:
    """Squared maximum mean discrepancy (Gretton et al., 2012) under each labelling.

    Gaussian kernel, with the median distance between images as its width.
    """
    squares = torch.cdist(values, values).square()
    if not squares.any():
        return labels.new_zeros(len(labels))
    off = torch.triu_indices(len(values), len(values), 1)
    width = squares[off[0], off[1]].median().clamp_min(1e-12)
    kernel = torch.exp(-squares / width)
    return ((labels @ kernel) * labels).sum(1)


def classifier(
    values: Float[Tensor, "image embed"],
    labels: Float[Tensor, "permutation image"],
    seed: int = 0,
) -> Float[Tensor, " permutation"]:
    """Linear classifier two-sample test (Lopez-Paz and Oquab, 2017) under each labelling.

    Logistic regression on half of the images; the statistic is the difference of the mean
    logits of the other half (the test's more powerful form, Liu et al., 2020), whose labels
    alone are permuted.
    """
    with extra("export"):
        from sklearn.linear_model import LogisticRegression

    truth = labels[0] > 0
    generator = torch.Generator().manual_seed(seed)
    train = torch.zeros_like(truth)
    for side in (truth, ~truth):
        members = side.nonzero().flatten()
        half = torch.randperm(len(members), generator=generator)[: len(members) // 2]
        train[members[half]] = True
    standard = _standardised(values)
    model = LogisticRegression(class_weight="balanced", max_iter=200)
    model.fit(standard[train].numpy(), truth[train].numpy())
    logits = torch.from_numpy(model.decision_function(standard[~train].numpy())).float()
    held = truth[~train]
    tested = permuted_labels(int((~held).sum()), int(held.sum()), len(labels) - 1, seed + 1)
    return tested @ torch.cat([logits[~held], logits[held]])
