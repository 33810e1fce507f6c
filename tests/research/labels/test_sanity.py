"""NeuronEval's two checks: ours pass, and metrics that are known to fail do fail."""

import pytest
import torch

from clipneurons.labels.simulation import pearson
from research.labels.detection import iou
from research.labels.sanity import extra_labels, missing_labels, sanity


@pytest.fixture
def recorded():
    """Units that react to their concept, shown on 2 to 10 % of the images, with some noise."""
    generator = torch.Generator().manual_seed(7)
    share = torch.linspace(0.02, 0.1, 50)
    present = torch.rand(2000, 50, generator=generator) < share
    return present.float() + 0.1 * torch.randn(2000, 50, generator=generator), present


def recall(effects, present):
    """Of the images that show the concept, those on which the unit is active."""
    return ((effects > 0.5) & present).sum(0) / present.sum(0).clamp_min(1)


def precision(effects, present):
    """Of the images on which the unit is active, those that show the concept."""
    active = effects > 0.5
    return (active & present).sum(0) / active.sum(0).clamp_min(1)


def test_labels_are_halved_and_doubled(recorded):
    _, present = recorded
    generator = torch.Generator().manual_seed(1)
    missing, extra = missing_labels(present, generator), extra_labels(present, generator)
    assert not (missing & ~present).any()
    assert not (present & ~extra).any()
    assert float(missing.sum() / present.sum()) == pytest.approx(0.5, abs=0.03)
    assert float(extra.sum() / present.sum()) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(
    "metric",
    [
        lambda effects, present: pearson(effects, present.float()),
        lambda effects, present: iou(effects > 0.5, present),
    ],
    ids=["simulation score", "IoU"],
)
def test_the_metrics_that_decide_pass_both(recorded, metric):
    assert sanity(metric, *recorded).passed


def test_recall_and_precision_fail_one_each(recorded):
    found = sanity(recall, *recorded)
    assert found.missing < 0.9 < found.extra
    found = sanity(precision, *recorded)
    assert found.extra < 0.9 < found.missing
    assert not found.passed
