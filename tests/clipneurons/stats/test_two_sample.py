import numpy as np
import pytest
import torch

from clipneurons.stats.two_sample import (
    benjamini_hochberg,
    min_p,
    mmd,
    p_values,
    permuted_labels,
    unit_tests,
)
from tests.helpers import naive_shift


def skewed(images, units, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, units, generator=generator).exp()


def test_labels_are_differences_of_means_and_the_first_is_the_truth():
    labels = permuted_labels(3, 5, 20)
    assert labels.shape == (21, 8)
    assert torch.allclose(labels[0], torch.tensor([-1 / 3] * 3 + [1 / 5] * 5))
    assert (labels > 0).sum(1).eq(5).all()
    assert len({tuple(row.tolist()) for row in labels}) > 15
    assert torch.equal(labels, permuted_labels(3, 5, 20))
    assert not torch.equal(labels, permuted_labels(3, 5, 20, seed=1))


def test_unit_tests_are_the_loops_of_their_definitions():
    values = skewed(23, 7)
    values[9:, 2] += 1.5
    values[:, 4] = 3.7
    labels = permuted_labels(9, 14, 60)
    got = unit_tests(values, labels)
    table = []
    for unit in range(7):
        if unit == 4:
            continue
        scores, _ = naive_shift.unit_scores(values[:, unit].double().numpy(), labels.numpy(), 9)
        table.append(scores)
        assert got.score[unit].item() == pytest.approx(scores[0], rel=1e-4)
        change = scores[0] * np.sqrt(1 / 9 + 1 / 14)
        assert got.change[unit].item() == pytest.approx(change, rel=1e-4)
        assert got.p[unit].item() == pytest.approx(naive_shift.p_value(np.abs(scores)))
    table = np.array(table).T  # [permutation, unit]
    assert np.allclose(got.spread, (table**2).sum(1) / 7, rtol=1e-4)
    assert np.allclose(got.peak, np.abs(table).max(1), rtol=1e-4)
    null = np.abs(table[1:]).ravel()
    pooled = [(1 + (null >= abs(s) * (1 - 1e-6)).sum()) / (1 + len(null)) for s in table[0]]
    pooled.insert(4, 1.0)
    assert np.allclose(got.q, naive_shift.benjamini_hochberg(pooled), rtol=1e-4)
    assert (got.change[4], got.p[4], got.q[4]) == (0, 1, 1)


def test_units_are_tested_alike_in_any_chunk(monkeypatch):
    values, labels = skewed(20, 11), permuted_labels(8, 12, 30)
    whole = unit_tests(values, labels)
    monkeypatch.setattr("clipneurons.stats.two_sample._CHUNK", 3)
    parts = unit_tests(values, labels)
    for name, value in vars(whole).items():
        assert torch.allclose(value, getattr(parts, name), atol=1e-5), name


def test_p_values_are_shares_of_permutations_at_least_as_large():
    statistics = torch.tensor([[3.0], [1.0], [3.0], [5.0]])
    assert p_values(statistics)[:, 0].tolist() == [0.75, 1.0, 0.75, 0.25]
    two = torch.tensor([[3.0, 0.0], [1.0, 2.0], [2.0, 1.0], [5.0, 3.0]])
    smallest = min_p(two)  # of [.5, 1], [1, .5], [.75, .75] and [.25, .25]
    assert smallest.argsort().tolist()[0] == 2
    assert smallest.argmax() == 3
    assert (smallest - torch.tensor([-0.5, -0.5, -0.75, -0.25])).abs().max() < 1 / 8
    tied = torch.tensor([[5.0, 5.0], [4.0, 1.0], [3.0, 6.0], [2.0, 2.0]])
    tied[0, 1] = 6.0
    assert min_p(tied).argmax() == 0


def test_false_discovery_rates_are_those_of_the_definition():
    p = torch.rand(40, generator=torch.Generator().manual_seed(1)) ** 3
    p[5] = p[6]
    expected = naive_shift.benjamini_hochberg(p.double().tolist())
    assert np.allclose(benjamini_hochberg(p), expected, rtol=1e-5)
    assert benjamini_hochberg(torch.tensor([0.01, 0.04, 0.03, 0.5])).tolist() == pytest.approx(
        [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    )


def test_mmd_is_the_loop_over_pairs_of_images():
    values, labels = skewed(13, 4), permuted_labels(5, 8, 6)
    got = mmd(values, labels)
    for row, value in zip(labels.numpy(), got.tolist(), strict=True):
        assert value == pytest.approx(naive_shift.mmd(values.double().numpy(), row), rel=1e-4)


def test_samples_too_small_are_refused():
    with pytest.raises(ValueError, match="at least two images on each side"):
        permuted_labels(1, 5, 10)
