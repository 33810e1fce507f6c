import numpy as np
import pytest
import torch

from clipneurons.stats.centring import without_shared
from clipneurons.stats.two_sample import mmd, p_values, permuted_labels
from research.shift.baselines import classifier, mean_difference, text_evidence

EMBED = 16


def skewed(images, units, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, units, generator=generator).exp()


def texts_of(count):
    return without_shared(torch.randn(count, EMBED, generator=torch.Generator().manual_seed(0)))


def test_the_mean_difference_is_that_of_two_means():
    values, labels = skewed(13, 4), permuted_labels(5, 8, 6)
    got = mean_difference(values, labels)
    for row, value in zip(labels, got.tolist(), strict=True):
        sides = (values.double()[side].mean(0) for side in (row > 0, row < 0))
        assert value == pytest.approx((next(sides) - next(sides)).square().sum().item(), rel=1e-4)


@pytest.mark.parametrize("test", [mean_difference, mmd, classifier])
def test_baselines_find_a_shift_and_give_few_false_alarms(test):
    alarms, found = 0, 0
    for seed in range(15):
        values, labels = skewed(40, 5, seed), permuted_labels(20, 20, 99, seed)
        alarms += (p_values(test(values, labels))[0] <= 0.05).item()
        values[20:] += 2
        found += (p_values(test(values, labels))[0] <= 0.05).item()
    assert alarms <= 3  # more than 3 of 15 at 0.05: once in 180
    assert found >= 13


@pytest.mark.parametrize("count", [20, 3 * EMBED], ids=["few images", "many images"])
def test_text_evidence_are_likelihood_ratios_of_a_change_along_each_text(count):
    reconstruction, texts = skewed(count, EMBED), texts_of(30)
    labels = permuted_labels(8, count - 8, 15)
    got = torch.stack([text_evidence(reconstruction, row, texts) for row in labels])
    centred = (reconstruction - reconstruction.mean(0)).double().numpy()
    share = EMBED / (EMBED + count)
    noise = (1 - share) * sum(np.outer(row, row) for row in centred) / count
    noise += share * np.trace(noise) / (1 - share) / EMBED * np.eye(EMBED)
    inverse = np.linalg.inv(noise)
    for index in (0, 7, 29):
        text = texts[index].double().numpy()
        for row, value in zip(labels.double().numpy(), got[:, index].tolist(), strict=True):
            change = sum(w * image for w, image in zip(row, centred, strict=True))
            error = 1 / 8 + 1 / (count - 8)
            ratio = text @ inverse @ change / np.sqrt(text @ inverse @ text * error)
            assert value == pytest.approx(ratio, rel=1e-3, abs=1e-4)


def test_a_change_along_one_text_is_most_evident_there():
    texts = texts_of(30)
    reconstruction = torch.randn(300, EMBED, generator=torch.Generator().manual_seed(3))
    reconstruction = reconstruction @ torch.diag(torch.logspace(-1, 1, EMBED))
    for word in range(0, 30, 4):
        moved = reconstruction.clone()
        moved[100:] += 5 * texts[word]
        scores = text_evidence(moved, permuted_labels(100, 200, 1)[0], texts)
        assert scores.argmax() == word
