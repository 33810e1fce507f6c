import math

import pytest
import torch

from clipneurons.edit.mending import (
    FindOptions,
    accuracies,
    find_units,
    group_differences,
    margins,
    strongest_rivals,
    take_greedily,
    without,
)


def planted(count=240, units=60, seed=0):
    """Two classes x two cues; units 3 and 7 carry the cue, 11 the class, the others noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    cues = torch.where(torch.arange(count) % 8 < 2, 1 - labels, labels)
    own = (labels == cues).float() * 2 - 1
    effects = 0.1 * torch.randn(count, units, generator=generator)
    effects[:, 3] += 0.8 * own
    effects[:, 7] += 0.6 * own
    effects[:, 11] += 1.0
    return effects, effects.sum(1), labels, labels * 2 + cues


def test_margins_are_against_the_strongest_other_class():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.1, 0.4]])
    labels = torch.tensor([0, 1])
    rivals = strongest_rivals(logits, labels)
    assert rivals.tolist() == [2, 0]
    torch.testing.assert_close(margins(logits, labels, rivals), torch.tensor([1.0, -0.4]))
    effects = torch.randn(2, 5, 3)
    expected = torch.stack(
        [effects[0, :, 0] - effects[0, :, 2], effects[1, :, 1] - effects[1, :, 0]]
    )
    assert torch.equal(margins(effects, labels, rivals), expected)


def test_group_differences_are_those_of_loops():
    effects, margin, labels, groups = planted()
    got = group_differences(effects, margin, labels, groups)
    for unit in (0, 3, 7, 11):
        total = 0.0
        for label in (0, 1):
            means, read = {}, {}
            for group in (2 * label, 2 * label + 1):
                rows = [i for i in range(len(groups)) if groups[i] == group]
                means[group] = sum(float(effects[i, unit]) for i in rows) / len(rows)
                read[group] = sum(float(margin[i]) for i in rows) / len(rows)
            total += means[max(read, key=read.get)] - means[min(read, key=read.get)]
        assert math.isclose(float(got[unit]), total / 2, rel_tol=1e-5, abs_tol=1e-6)


def test_units_are_taken_as_loops_take_them():
    effects, margin, labels, groups = planted(count=48, units=12)
    options = FindOptions(candidates=12, most=3)
    scale = 0.5 * float(margin.double().abs().mean())
    now, expected = margin.double(), []
    for _ in range(3):
        losses = {}
        for unit in set(range(12)) - set(expected):
            by_group = []
            for group in range(4):
                rows = [i for i in range(48) if groups[i] == group]
                left = [float(now[i] - effects[i, unit].double()) / scale for i in rows]
                by_group.append(sum(math.log1p(math.exp(-m)) for m in left) / len(left))
            losses[unit] = math.log(sum(math.exp(10 * loss) for loss in by_group)) / 10
        best = min(losses, key=losses.get)
        expected.append(best)
        now = now - effects[:, best].double()
    assert take_greedily(effects, margin, labels, groups, options) == expected


def test_what_carries_the_cue_is_found_and_what_carries_the_class_is_left():
    effects, margin, labels, groups = planted()
    found = find_units(effects, margin, labels, groups)
    assert found.units[:2] == (3, 7)
    assert 11 not in found.units
    fresh, other, _, fresh_groups = planted(seed=1)
    after = other - fresh[:, list(found.units)].sum(1)
    assert accuracies(other > 0, fresh_groups).min() < 0.5
    assert accuracies(after > 0, fresh_groups).min() > 0.8
    assert len(found.sizes) == len(found.judged.worst) == len(found.judged.average)
    assert found.sizes[0] == 0


def test_where_all_groups_are_read_rightly_nothing_is_taken():
    generator = torch.Generator().manual_seed(2)
    effects = 0.1 * torch.randn(200, 50, generator=generator)
    effects += torch.ones(50)  # every unit carries the class: without any, margins shrink
    labels = torch.arange(200) % 2
    groups = labels * 2 + torch.arange(200) % 4 // 2
    found = find_units(effects, effects.sum(1), labels, groups)
    assert found.units == ()
    assert found.judged.worst[0] == found.judged.average[0] == 1.0


def test_margins_without_units_are_subtractions():
    effects, margin, *_ = planted(count=16, units=12)
    got = without(effects, margin, [4, 1], [0, 1, 2, 9])
    torch.testing.assert_close(got[0], margin)
    torch.testing.assert_close(got[1], margin - effects[:, 4])
    torch.testing.assert_close(got[2], margin - effects[:, 4] - effects[:, 1])
    torch.testing.assert_close(got[3], got[2])


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 0, 0], [0, 0, 1, 1], "one class only: expected images of at least two"),
        ([0, 0, 1, 1], [0, 0, 1, 1], "one group a class"),
        ([0, 0, 1, 1], [0, 1, 2, 3], "a group of 1 images: expected at least 5"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(labels, groups, message):
    with pytest.raises(ValueError, match=message):
        find_units(torch.zeros(4, 3), torch.ones(4), torch.tensor(labels), torch.tensor(groups))


@pytest.mark.parametrize("wrong", [{"candidates": 0}, {"most": 0}, {"folds": 1}])
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="expected at least"):
        FindOptions(**wrong)
