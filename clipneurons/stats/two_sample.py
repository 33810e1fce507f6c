"""Tests of whether two samples come from one distribution, by permutation of their labels.

Let N images be n new ones and m = N - n of the reference, and

    w_i = 1/n  for a new image,  -1/m  for one of the reference                               (1)

so that Σ_i w_i f(x_i) is the difference of the means of any f. If both sets come from one
distribution, every permutation π(w) is as likely as w. A statistic T therefore has the p-value

    p = #{π : T(π(w)) ≥ T(w)} / (P + 1),  over w itself and P random permutations             (2)

which is exact whatever the data. The statistics here:

    z_u    = Σ_i w_i (x_iu - mean_u) / (sd_u ‖w‖)        change of unit u in standard errors  (3)
    spread = mean_u z_u²                                 many units change a little
    peak   = max_u |z_u|                                 one unit changes a lot
    mmd    = Σ_ij w_i w_j exp(-‖e_i - e_j‖² / h)         the distribution changes             (4)

Several statistics T_k are one test (min-p; Westfall and Young, 1993) by the statistic

    T = -min_k p_k(T_k)                                                                       (5)

whose p-value (2) needs no further correction.

Symbols in code: ``labels`` [permutation, image] holds w in row 0 and the π(w) below; ``values``
[image, unit] holds x; ``embeddings`` [image, embed] holds e; h is the median of ‖e_i - e_j‖².
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import false_discovery_control
from torch import Tensor

# Columns tested at once: bounds the [permutation, unit] temporaries.
_CHUNK = 4096
# Equal statistics that were summed in another order must stay equal.
_ROUNDING = 1e-6


def permuted_labels(
    reference: int, new: int, permutations: int, seed: int = 0
) -> Float[Tensor, "permutation image"]:
    """w (1) of the true labelling, then of random ones; images are the reference's, then the new.

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


def p_values(statistics: Float[Tensor, "permutation ..."]) -> Float[Tensor, "permutation ..."]:
    """The p-value (2) that each permutation would have, were it the true labelling."""
    count = len(statistics)
    values = statistics.movedim(0, -1).contiguous()  # [*test, permutation]
    smaller = torch.searchsorted(values.sort(-1).values, values - _ROUNDING * values.abs())
    return ((count - smaller) / count).movedim(-1, 0)


def min_p(statistics: Float[Tensor, "permutation test"]) -> Float[Tensor, " permutation"]:
    """Several statistics as one (5).

    p-values are multiples of 1 / permutations and often tie, as when the truth comes first in
    several tests. Then their product decides (Fisher), scaled so as to break ties only.
    """
    p = p_values(statistics)
    fisher = -p.log().sum(1)
    return -p.amin(1) + fisher / (fisher.amax() + 1) / (2 * len(p))


def benjamini_hochberg(p: Float[Tensor, " test"]) -> Float[Tensor, " test"]:
    """q-values: the false-discovery rate at which each test is significant."""
    return torch.from_numpy(false_discovery_control(p.double().numpy())).to(p.dtype)


@dataclass(frozen=True)
class UnitTests:
    """Changes of many units' means between two samples.

    Attributes:
        change: difference of the means in standard deviations of both samples taken together.
        score: z (3), ``change`` in standard errors; about normal without a shift.
        p: of each unit, by its own permutations; not smaller than 1 / (permutations + 1).
        q: false-discovery rate of p-values from the permuted scores of all units together, which
            can be as small as many units need.
        spread, peak: the statistics of all units, by permutation.
    """

    change: Float[Tensor, " unit"]
    score: Float[Tensor, " unit"]
    p: Float[Tensor, " unit"]
    q: Float[Tensor, " unit"]
    spread: Float[Tensor, " permutation"]
    peak: Float[Tensor, " permutation"]


def unit_tests(
    values: Float[Tensor, "image unit"], labels: Float[Tensor, "permutation image"]
) -> UnitTests:
    """Test every column of the values; a constant column has change 0 and p-value 1."""
    standard_error = labels[0].norm()  # ‖w‖
    score, p, permuted, squares, peaks = [], [], [], [], []
    for columns in values.split(_CHUNK, dim=1):
        z = labels @ standardised(columns) / standard_error  # [permutation, unit]
        size = z.abs()
        score.append(z[0])
        p.append((size >= size[:1] * (1 - _ROUNDING)).float().mean(0))
        permuted.append(size[1:101])
        squares.append(size.square().sum(1))
        peaks.append(size.amax(1))
    score, p = torch.cat(score), torch.cat(p)
    pooled = torch.ones_like(p)
    varies = values.amax(0) > values.amin(0)
    if varies.any():
        chance = torch.cat(permuted, 1)[:, varies].flatten().sort().values
        below = torch.searchsorted(chance, score.abs() * (1 - _ROUNDING))
        pooled[varies] = ((len(chance) - below + 1) / (len(chance) + 1))[varies]
    return UnitTests(
        change=score * standard_error,
        score=score,
        p=p,
        q=benjamini_hochberg(pooled),
        spread=torch.stack(squares).sum(0) / values.shape[1],
        peak=torch.stack(peaks).amax(0),
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


def standardised(values: Float[Tensor, "image unit"]) -> Float[Tensor, "image unit"]:
    """Columns of mean 0 and variance 1; a constant column is 0."""
    centred = values - values.mean(0)
    deviation = centred.square().mean(0).sqrt()
    # Rounding leaves a constant column a deviation of its own.
    varies = deviation > 1e-6 * values.abs().amax(0)
    return torch.where(varies, centred / deviation.clamp_min(1e-30), 0.0)


def mmd(
    embeddings: Float[Tensor, "image embed"], labels: Float[Tensor, "permutation image"]
) -> Float[Tensor, " permutation"]:
    """Squared maximum mean discrepancy (4) under each labelling (Gretton et al., 2012)."""
    squares = torch.cdist(embeddings, embeddings).square()
    if not squares.any():
        return labels.new_zeros(len(labels))
    above = torch.triu_indices(len(embeddings), len(embeddings), 1)
    width = squares[above[0], above[1]].median().clamp_min(1e-12)
    kernel = torch.exp(-squares / width)
    return ((labels @ kernel) * labels).sum(1)
