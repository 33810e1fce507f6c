"""The permutation test, its line and its correction, against counting."""

import numpy as np
import pytest
import torch

from clipneurons.labels.significance import shuffled, specificity
from clipneurons.labels.simulation import pearson
from clipneurons.stats.two_sample import benjamini_hochberg


@pytest.fixture
def recorded():
    generator = torch.Generator().manual_seed(0)
    effects = torch.randn(200, 40, generator=generator)
    predictions = torch.randn(200, 40, generator=generator)
    predictions[:, :10] += effects[:, :10]  # ten units whose labels are right
    return effects, predictions


def test_other_labels_by_counting(recorded):
    effects, predictions = recorded
    found = shuffled(effects, predictions)
    for unit in (0, 17, 39):
        others = [n for n in range(40) if n != unit]
        scores = [
            np.corrcoef(effects[:, unit].double(), predictions[:, n].double())[0, 1] for n in others
        ]
        own = float(pearson(effects, predictions)[unit])
        as_good = sum(score >= own for score in scores)
        assert float(found.p_value[unit]) == pytest.approx((1 + as_good) / 40)
        assert float(found.mean[unit]) == pytest.approx(np.mean(scores), abs=1e-5)
        assert np.mean(np.array(scores) <= float(found.line[unit]) + 1e-6) >= 0.95
        assert float(found.line[unit]) == pytest.approx(sorted(scores)[37], abs=1e-5)


def test_right_labels_are_told_from_wrong_ones(recorded):
    effects, predictions = recorded
    found = shuffled(effects, predictions)
    assert (pearson(effects, predictions) > found.line)[:10].all()
    assert (found.p_value[:10] == 1 / 40).all()


def test_no_unit_of_chance_is_called_reliable():
    generator = torch.Generator().manual_seed(1)
    effects, predictions = (torch.randn(300, 150, generator=generator) for _ in range(2))
    assert (benjamini_hochberg(shuffled(effects, predictions).p_value) <= 0.05).sum() == 0


def test_one_unit_has_no_others():
    with pytest.raises(ValueError, match="at least two units"):
        shuffled(torch.rand(10, 1), torch.rand(10, 1))


def test_specificity_by_counting(recorded):
    effects, predictions = recorded
    effects[:, 5] = effects[:, 4] + 0.01 * effects[:, 5]  # two units that do the same
    predictions[:, 5] = predictions[:, 4]
    found = specificity(effects, predictions)
    for unit in (0, 4, 5, 17):
        scores = [
            np.corrcoef(effects[:, n].double(), predictions[:, unit].double())[0, 1]
            for n in range(40)
        ]
        worse = sum(score < scores[unit] for n, score in enumerate(scores) if n != unit)
        assert float(found[unit]) == pytest.approx(worse / 39)
    assert found[0] == 1
    assert sorted((found[4:6] < 1).tolist()) == [False, True], "one of them is predicted better"
