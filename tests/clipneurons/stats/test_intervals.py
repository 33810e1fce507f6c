import math

import pytest
import torch

from clipneurons.stats.intervals import ratio_of_means, wilson
from tests.helpers.naive_adversarial import wilson_by_search


@pytest.mark.parametrize(("successes", "count"), [(0, 5), (1, 5), (3, 100), (50, 100), (7, 7)])
def test_wilson_is_the_solution_of_its_equation(successes, count):
    rate = wilson(successes, count)
    assert (rate.low, rate.high) == pytest.approx(wilson_by_search(successes, count), abs=1e-9)
    assert rate.low <= rate.value <= rate.high


def test_wilson_covers_95_of_100():
    generator = torch.Generator().manual_seed(0)
    for share in (0.02, 0.3):
        hits = torch.binomial(torch.full((4000,), 300.0), torch.tensor(share), generator=generator)
        rates = [wilson(int(hit), 300) for hit in hits]
        assert sum(r.low <= share <= r.high for r in rates) / 4000 == pytest.approx(0.95, abs=0.02)


def test_of_nothing_nothing_is_known():
    rate = wilson(0, 0)
    assert (rate.low, rate.high) == (0, 1)
    assert math.isnan(rate.value)
    assert str(rate) == "nothing to judge"
    assert str(wilson(1, 8)) == "12.5 % (1 of 8; 2.2 to 47.1)"
    with pytest.raises(ValueError, match="0 to 3 successes"):
        wilson(4, 3)


def test_the_ratio_and_its_interval():
    generator = torch.Generator().manual_seed(0)
    base = 0.1 + 0.1 * torch.rand(10, 3, generator=generator)
    same = ratio_of_means(3 * base, base)
    assert (same.value, same.low, same.high) == pytest.approx((3, 3, 3))
    noisy = ratio_of_means(base * (1 + torch.rand(10, 3, generator=generator)), base)
    assert 1 < noisy.low < noisy.value < noisy.high < 2
    # One pair that carries everything cannot exclude equality, however many images it has.
    one = base.clone()
    one[0] = 1.0
    assert ratio_of_means(one, base).low <= 1.0 + 1e-9


def test_ratios_with_zeros():
    zero, some = torch.zeros(2, 2), torch.full((2, 2), 0.5)
    assert ratio_of_means(some, zero).low == math.inf
    assert ratio_of_means(zero, some).high == 0
    assert ratio_of_means(zero, zero).value == 1
    with pytest.raises(ValueError, match="same pairs"):
        ratio_of_means(zero, torch.zeros(3, 2))
