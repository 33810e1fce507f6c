"""Detection figures against scikit-learn and counting."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from research.labels.detection import auc, iou


@pytest.fixture
def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_the_area_is_scikit_learns_with_and_without_ties(seeded, levels):
    values = torch.randint(levels, (80, 6), generator=seeded).float()
    positive = torch.rand(80, 6, generator=seeded) < 0.2
    for unit in range(6):
        truth, score = positive[:, unit].numpy(), values[:, unit].numpy()
        assert float(auc(values, positive)[unit]) == pytest.approx(roc_auc_score(truth, score))


def test_nothing_to_find_is_not_measured():
    values, nothing = torch.arange(4.0)[:, None], torch.zeros(4, 1, dtype=torch.bool)
    assert auc(values, nothing).isnan()
    assert auc(values, ~nothing).isnan()


def test_intersection_over_union(seeded):
    active, present = (torch.rand(30, 2, generator=seeded) < 0.4 for _ in range(2))
    for unit in range(2):
        both = (active & present)[:, unit].sum() / (active | present)[:, unit].sum()
        assert float(iou(active, present)[unit]) == pytest.approx(float(both))
    assert iou(active & False, present & False).tolist() == [0, 0]
