"""Properties of units against loops over pairs of images."""

import pytest
import torch

from clipneurons.labels.properties import best_concept, listed, monosemanticity, top_weights
from clipneurons.stats.centring import without_shared


@pytest.fixture
def recorded():
    generator = torch.Generator().manual_seed(0)
    effects = torch.randn(30, 4, generator=generator)
    return effects, without_shared(torch.randn(30, 6, generator=generator))


def pairs(weights, space, unit):
    """Weighted mean similarity of the pairs of a unit's images."""
    total = norm = 0.0
    for i in range(30):
        for j in range(30):
            if i != j:
                product = float(weights[i, unit]) * float(weights[j, unit])
                total += product * float(space[i].double() @ space[j].double())
                norm += product
    return total / norm


def test_top_weights_are_the_strongest_positive_effects(recorded):
    effects, _ = recorded
    weights = top_weights(effects, 5)
    assert ((weights > 0).sum(0) <= 5).all()
    for unit in range(4):
        kept = weights[:, unit] > 0
        assert torch.equal(weights[kept, unit], effects[kept, unit])
        assert effects[kept, unit].min() >= effects[~kept, unit].max()


def test_similarity_of_pairs(recorded):
    effects, space = recorded
    weights = top_weights(effects, 8)
    for unit in range(4):
        weighted = float(monosemanticity(weights, space)[unit])
        assert weighted == pytest.approx(pairs(weights, space, unit), abs=1e-5)


def test_one_thing_is_monosemantic_and_noise_is_not(recorded):
    effects, space = recorded
    same = torch.zeros(30, 2)
    same[:10, 0], same[:, 1] = 1.0, effects[:, 1].abs()
    alike = space.clone()
    alike[:10] = space[0]
    one, many = monosemanticity(same, alike).tolist()
    assert one == pytest.approx(1, abs=1e-5)
    assert abs(many) < 0.3


def test_a_single_image_says_nothing(recorded):
    _, space = recorded
    weights = torch.zeros(30, 1)
    weights[3] = 2.0
    assert monosemanticity(weights, space).tolist() == [0]


def overlap(active, present):
    return float((active & present).sum() / (active | present).sum())


def test_best_concept_by_counting():
    seeded = torch.Generator().manual_seed(0)
    active = torch.rand(50, 4, generator=seeded) < 0.3
    active[:, 3] = False
    present = torch.rand(50, 7, generator=seeded) < 0.4
    found = best_concept(active, present)
    for unit in range(3):
        scores = [overlap(active[:, unit], present[:, text]) for text in range(7)]
        text = int(found.text[unit])
        assert scores[text] == max(scores)
        assert float(found.iou[unit]) == pytest.approx(max(scores))
    assert found.iou[3] == 0


def test_a_judge_that_scores_says_yes_to_its_best_texts():
    scores = torch.rand(3, 400, generator=torch.Generator().manual_seed(0))
    yes = listed(scores)
    assert yes.sum(1).tolist() == [4, 4, 4]
    assert scores[yes].min() > scores[~yes].quantile(0.9)
    assert listed(scores[:, :5]).sum(1).tolist() == [1, 1, 1]
