"""Success rates with intervals, and how many times one is another."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# 97.5 % point of the normal distribution: two-sided 95 % intervals.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A share of successes with its 95 % Wilson interval."""

    successes: int
    count: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Share of successes; NaN of nothing."""
        return self.successes / self.count if self.count else math.nan

    @property
    def interval(self) -> list[float]:
        """Both ends of the interval, as reports keep it."""
        return [self.low, self.high]

    def __str__(self) -> str:
        if not self.count:
            return "nothing to judge"
        low, high = 100 * self.low, 100 * self.high
        return (
            f"{100 * self.value:.1f} % ({self.successes} of {self.count}; {low:.1f} to {high:.1f})"
        )


def wilson(successes: int, count: int) -> Rate:
    """Rate with Wilson's 95 % score interval, which is right for rates near 0 and 1 too.

    Raises:
        ValueError: more successes than trials, or a negative number.
    """
    if not 0 <= successes <= count:
        raise ValueError(f"expected 0 to {count} successes, not {successes}")
    if count == 0:
        return Rate(0, 0, 0.0, 1.0)
    share, z2 = successes / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    # Rounding must not push the interval off the rate at 0 and 1.
    return Rate(successes, count, max(0.0, min(share, centre - half)),
                min(1.0, max(share, centre + half)))  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """How many times one mean rate is another, with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio_of_means(
    ours: Float[Tensor, "pair seed"],
    theirs: Float[Tensor, "_ _"],
    draws: int = 10_000,
    seed: int = 0,
) -> Ratio:
    """Ratio of mean success rates over class pairs and seeds.

    The interval resamples pairs, then seeds within each drawn pair, the same for both sides:
    success differs far more between pairs than between images of one pair. A ratio with nothing
    below the line is infinite, and of nothing to nothing 1.

    Raises:
        ValueError: the two do not hold the same pairs and seeds.
    """
    if ours.shape != theirs.shape or ours.numel() == 0:
        raise ValueError(
            f"expected the same pairs and seeds, got {tuple(ours.shape)} and {tuple(theirs.shape)}"
        )
    pairs, seeds = ours.shape
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randint(pairs, (draws, pairs, 1), generator=generator)
    run = torch.randint(seeds, (draws, pairs, seeds), generator=generator)
    drawn = _ratio(ours.double()[pair, run].mean((1, 2)), theirs.double()[pair, run].mean((1, 2)))
    order = drawn.sort().values
    whole = _ratio(ours.double().mean(), theirs.double().mean())
    low, high = order[int(0.025 * draws)], order[min(draws - 1, int(0.975 * draws))]
    return Ratio(float(whole), float(low), float(high))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """The quotient, 1 where both are zero (infinity minus infinity would poison a mean)."""
    return torch.where((above == 0) & (below == 0), torch.ones_like(above), above / below)
