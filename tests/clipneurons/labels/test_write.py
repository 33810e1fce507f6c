"""Labels on planted answers, and the formulas by loops."""

import numpy as np
import pytest
import torch

from clipneurons.labels.simulation import pearson, simulate
from clipneurons.labels.write import write_labels

IMAGES, TEXTS, UNITS = 2000, 30, 40


@pytest.fixture
def shown():
    """What the judge sees, 0 or 1, and a noisy reading of it by the model."""
    generator = torch.Generator().manual_seed(0)
    scores = (torch.rand(IMAGES, TEXTS, generator=generator) < 0.15).float()
    return scores, scores + 0.5 * torch.randn(scores.shape, generator=generator)


def planted(scores, noise=0.5):
    """Each unit grows with one text, less with a second, and falls with a third."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(UNITS, TEXTS, generator=generator).topk(3, dim=1).indices
    weights = torch.tensor([1.0, 0.7, -0.5])
    effects = (scores[:, chosen] * weights).sum(2)
    return effects + noise * torch.randn(effects.shape, generator=generator), chosen


def test_planted_texts_are_found_in_their_order_with_their_signs(shown):
    scores, readings = shown
    effects, chosen = planted(scores)
    # Thirty texts for forty units: each must be allowed to be carried often.
    labels = write_labels(effects.repeat(1, 10), scores, readings)
    assert labels.indices.shape == (400, 3)
    assert (labels.indices[:, 0] == chosen.repeat(10, 1)[:, 0]).float().mean() > 0.4
    whole = write_labels(effects[:, :3], scores, readings)
    for unit in range(3):
        assert whole.indices[unit].tolist() == chosen[unit].tolist()
        assert whole.coefficients[unit].sign().tolist() == [1, 1, -1]
    assert (pearson(effects[:, :3], simulate(whole, scores)) > 0.6).all()


def test_weights_are_the_ridge_regression_on_the_judges_scores(shown):
    scores, readings = shown
    effects, _ = planted(scores)
    labels = write_labels(effects[:, :3], scores, readings)
    for unit in range(3):
        effect = effects[:, unit].double().numpy()
        columns = scores[:, labels.indices[unit]].double().numpy()
        standard = (columns - columns.mean(0)) / columns.std(0, ddof=1)
        target = (effect - effect.mean()) / effect.std(ddof=1)
        count = len(effect) - 1
        matrix = standard.T @ standard / count + 0.02 * np.eye(3)
        betas = np.linalg.solve(matrix, standard.T @ target / count)
        expected = betas / columns.std(0, ddof=1)
        assert labels.coefficients[unit].numpy() == pytest.approx(expected, abs=1e-3)


def test_synonyms_are_one_text_the_first(shown):
    scores, readings = shown
    scores[:, 7] = scores[:, 3]
    effects = scores[:, [7]] + 0.3 * torch.randn(IMAGES, 1)
    labels = write_labels(effects, scores, readings)
    assert labels.indices[0, 0] == 3
    assert 7 not in labels.indices[0, 1:].tolist()


def test_what_explains_no_more_than_chance_is_left_out(shown):
    scores, readings = shown
    effects = scores[:, [4]] + 0.1 * torch.randn(IMAGES, 1)
    labels = write_labels(effects, scores, readings, size=5)
    assert labels.indices[0, 0] == 4
    assert labels.coefficients[0, 1:].tolist() == [0, 0, 0, 0]
    nothing = write_labels(torch.zeros(IMAGES, 2), scores, readings)
    assert not nothing.coefficients.any()


def test_the_model_decides_where_the_judges_images_cannot(shown):
    """Of two texts that the judge saw together but once, the model's reading tells which it is."""
    scores, readings = shown
    scores[:, 9] = scores[:, 8]
    scores[scores[:, 8].nonzero()[:20, 0], 9] = 0
    readings[:, 9] = torch.randn(IMAGES)  # a word that the model does not know
    effects = scores[:, [8]] + 2 * torch.randn(IMAGES, 1)
    assert write_labels(effects, scores, readings, size=1).indices[0, 0] == 8


def test_few_units_carry_the_same_text():
    generator = torch.Generator().manual_seed(2)
    scores = (torch.rand(IMAGES, 200, generator=generator) < 0.15).float()
    own = 1 + torch.arange(300) % 199
    effects = scores[:, :1] + 0.8 * scores[:, own]
    effects = effects + 0.5 * torch.randn(effects.shape, generator=generator)
    labels = write_labels(effects, scores, scores, size=1)
    carried = labels.indices[:, 0].bincount(minlength=200)
    assert carried[0] <= 9, "all units share the first text, and it says nothing of any"
