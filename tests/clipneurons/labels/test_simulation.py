"""Correlations and predictions against float64 loops."""

import numpy as np
import pytest
import torch

from clipneurons.labels.simulation import (
    Labels,
    bootstrap,
    correlations,
    pearson,
    simulate,
)


@pytest.fixture
def seeded():
    return torch.Generator().manual_seed(0)


def columns(generator, images=60, units=5):
    return (torch.randn(images, units, generator=generator) for _ in range(2))


def test_prediction_is_the_weighted_sum_of_the_judges_scores(seeded):
    scores = torch.rand(7, 9, generator=seeded)
    labels = Labels(
        torch.tensor([[3, 8], [0, 0], [5, 1]]), torch.tensor([[0.5, -0.25], [1.0, 0.0], [-2, 1]])
    )
    found = simulate(labels, scores)
    for image in range(7):
        for unit in range(3):
            pairs = zip(labels.indices[unit], labels.coefficients[unit], strict=True)
            expected = sum(float(c) * float(scores[image, i]) for i, c in pairs)
            assert float(found[image, unit]) == pytest.approx(expected, abs=1e-6)


def test_pearson_is_numpys(seeded):
    effects, predictions = columns(seeded)
    predictions[:, 1] = effects[:, 1] * -3 + 100  # an exact, opposite line
    found = pearson(effects, predictions)
    for unit in range(5):
        expected = np.corrcoef(effects[:, unit].double(), predictions[:, unit].double())[0, 1]
        assert float(found[unit]) == pytest.approx(expected, abs=1e-5)
    assert float(found[1]) == pytest.approx(-1, abs=1e-4)


def test_a_unit_or_a_prediction_that_never_changes_has_no_correlation(seeded):
    effects, predictions = columns(seeded)
    effects[:, 0], predictions[:, 1] = 0.1, 7.3
    assert pearson(effects, predictions)[:2].tolist() == [0, 0]
    assert bootstrap(effects, predictions, draws=5)[:, :2].abs().max() == 0


def test_all_pairs_have_the_single_ones_on_their_diagonal(seeded):
    effects, predictions = columns(seeded)
    torch.testing.assert_close(
        correlations(effects, predictions).diagonal(), pearson(effects, predictions)
    )


def test_bootstrap_draws_are_correlations_of_drawn_images(seeded):
    effects, predictions = columns(seeded, images=40)
    found = bootstrap(effects, predictions, draws=3, seed=5)
    drawn = torch.randint(40, (3, 40), generator=torch.Generator().manual_seed(5))
    for draw in range(3):
        for unit in range(5):
            pair = (x[drawn[draw], unit].double() for x in (effects, predictions))
            assert float(found[draw, unit]) == pytest.approx(np.corrcoef(*pair)[0, 1], abs=1e-4)
