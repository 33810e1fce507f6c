"""Detection figures against scikit-learn and counting."""

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from clipneurons.labels.detection import auc, average_precision, best_concept, iou, listed


@pytest.fixture
def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_areas_are_scikit_learns_with_and_without_ties(seeded, levels):
    values = torch.randint(levels, (80, 6), generator=seeded).float()
    positive = torch.rand(80, 6, generator=seeded) < 0.2
    for unit in range(6):
        truth, score = positive[:, unit].numpy(), values[:, unit].numpy()
        assert float(auc(values, positive)[unit]) == pytest.approx(roc_auc_score(truth, score))
        expected = average_precision_score(truth, score)
        assert float(average_precision(values, positive)[unit]) == pytest.approx(expected)


def test_nothing_to_find_is_not_measured():
    values, nothing = torch.arange(4.0)[:, None], torch.zeros(4, 1, dtype=torch.bool)
    assert auc(values, nothing).isnan()
    assert average_precision(values, nothing).isnan()
    assert auc(values, ~nothing).isnan()


def test_best_concept_by_counting(seeded):
    active = torch.rand(50, 4, generator=seeded) < 0.3
    active[:, 3] = False
    present = torch.rand(50, 7, generator=seeded) < 0.4
    found = best_concept(active, present)
    for unit in range(3):
        scores = [float(iou(active[:, [unit]], present[:, [text]])) for text in range(7)]
        text = int(found.text[unit])
        assert scores[text] == max(scores)
        assert float(found.iou[unit]) == pytest.approx(max(scores))
    assert found.iou[3] == 0


def test_a_judge_that_scores_says_yes_to_its_best_texts(seeded):
    scores = torch.rand(3, 400, generator=seeded)
    yes = listed(scores)
    assert yes.sum(1).tolist() == [4, 4, 4]
    assert scores[yes].min() > scores[~yes].quantile(0.9)
    assert listed(scores[:, :5]).sum(1).tolist() == [1, 1, 1]
