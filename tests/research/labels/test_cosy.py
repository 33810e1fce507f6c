"""CoSy's AUC and MAD against loops over images, and images that a label is drawn as."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from clipneurons.labels.simulation import Labels
from research.labels.cosy import Cosy, CosyScores, GeneratedImages


@pytest.fixture
def generated():
    """Four drawn texts of five, six images each, seven units; values tie."""
    generator = torch.Generator().manual_seed(0)
    effects = torch.randint(12, (4, 6, 7), generator=generator).float()
    return GeneratedImages(effects, torch.tensor([0, 1, -1, 2, 3]))


def test_auc_and_mad_are_those_of_the_definition(generated):
    cosy, control = Cosy(generated), generated.effects.flatten(0, 1).numpy()
    for text in range(4):
        for unit in range(7):
            shown = generated.effects[text, :, unit].numpy()
            values = np.concatenate([control[:, unit], shown])
            truth = np.arange(len(values)) >= len(control)
            expected = roc_auc_score(truth, values)
            assert float(cosy.auc[text, unit]) == pytest.approx(expected, abs=1e-6)
            mad = (shown.mean() - control[:, unit].mean()) / control[:, unit].std(ddof=1)
            assert float(cosy.mad[text, unit]) == pytest.approx(mad, abs=1e-5)


def test_a_label_is_its_first_drawn_text_with_its_sign(generated):
    cosy = Cosy(generated)
    indices = torch.tensor([[2, 1], [4, 0], [2, 2], [0, 1], [3, 0], [1, 0], [0, 3]])
    weights = torch.tensor(
        [[1.0, 1], [-1, 2], [1, 1], [0, 1], [1, 0], [1, 0], [1, 0]]
    )  # 0 is an unused place
    scores = cosy(Labels(indices, weights))
    assert scores.measured.tolist() == [True, True, False, True, True, True, True]
    assert float(scores.auc[0]) == float(cosy.auc[1, 0])
    assert float(scores.auc[1]) == 1 - float(cosy.auc[3, 1])
    assert float(scores.mad[1]) == -float(cosy.mad[3, 1])
    assert float(scores.auc[3]) == float(cosy.auc[1, 3])


def test_means_are_over_measured_units():
    auc, mad = torch.tensor([0.9, 0.7, 0.0]), torch.tensor([1.0, 3.0, 0.0])
    measured = torch.tensor([True, True, False])
    figures = CosyScores.joined([CosyScores(auc, mad, measured)]).figures()
    assert figures["auc"] == pytest.approx(0.8)
    assert figures["mad"] == pytest.approx(2)
    assert figures["measured_share"] == pytest.approx(2 / 3, abs=1e-3)
    low, high = figures["auc_interval"]
    assert low < 0.8 < high
