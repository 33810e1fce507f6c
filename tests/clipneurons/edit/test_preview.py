from itertools import combinations

import pytest
import torch

from clipneurons.edit.preview import (
    Preview,
    fewest_that_turn,
    patch_attributions,
    share_that_turn,
    weighted_effects,
)
from clipneurons.lens.lens import Lens
from tests.helpers.models import images, tiny_resnet, tiny_vit


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_preview_gives_the_cosines_of_the_edited_embedding():
    embedding, parts, strengths = 5 * random(7), random(4, 7, seed=1), random(4, seed=2)
    classes = torch.nn.functional.normalize(random(3, 7, seed=3), dim=1)
    edited = embedding.double().clone()
    for row in range(4):
        edited += strengths[row].double() * parts[row].double()
    got = Preview.of(embedding, parts, classes).cosines(strengths)
    for label in range(3):
        expected = float(edited @ classes[label].double()) / float(edited.norm())
        assert float(got[label]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_weighted_effects_are_sums_over_units(kind):
    clip = tiny_vit() if kind == "vit" else tiny_resnet(width=4)
    lens = Lens(clip, (0, 2) if kind == "vit" else ())
    _, contributions = lens(images(2, clip))
    means, weights, expected = {}, {}, torch.zeros(clip.embed_dim, dtype=torch.float64)
    for layer, mine in contributions.items():
        count = mine.directions.units
        means[layer] = random(count, clip.embed_dim, seed=layer)
        weights[layer] = random(count, seed=layer + 1) * (torch.arange(count) % 3 == 0)
        dense = mine.dense(torch.arange(count))[1].double()
        for unit in range(count):
            effect = dense[unit] - means[layer][unit].double()
            expected += weights[layer][unit].double() * effect
    got = weighted_effects(contributions, means, weights, image=1)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)
    none = {layer: torch.zeros_like(weight) for layer, weight in weights.items()}
    assert not weighted_effects(contributions, means, none).any()


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_patches_and_what_comes_before_them_add_up_to_the_effect(kind):
    clip = tiny_vit() if kind == "vit" else tiny_resnet(width=4)
    lens = Lens(clip, (1,) if kind == "vit" else ())
    _, contributions = lens(images(2, clip))
    (mine,), vector = contributions.values(), random(clip.embed_dim)
    unit = 3
    chosen = torch.tensor([unit])
    whole = mine.dense(chosen)[1, 0] @ vector
    along = mine.directions.dense(chosen)[0] @ vector
    before = sum(
        float(mine.token_scores(1, chosen)[0, token] @ along) for token in range(mine.prefix)
    )
    shares = patch_attributions(mine, unit, vector, image=1)
    assert len(shares) == clip.grid[0] * clip.grid[1]
    assert float(shares.sum()) + before == pytest.approx(float(whole), abs=1e-4)


def test_the_fewest_units_are_fewest():
    """Against all sets, of two classes; with a third no smaller set than the greedy one's."""
    for seed in range(5):
        effects, logits = random(9, 2, seed=seed), torch.tensor([1.5, 0.0])
        found = fewest_that_turn(logits, effects, wanted=1, most=9)
        for size in range(10):
            sets = [
                units
                for units in combinations(range(9), size)
                if (logits - effects[list(units)].sum(0)).argmax() == 1
            ]
            if sets:
                break
        assert (found is None) == (not sets)
        assert found is None or len(found) == size


def test_a_third_class_must_lose_too():
    effects = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    logits = torch.tensor([1.0, 0.0, 0.5])
    assert sorted(fewest_that_turn(logits, effects, wanted=1, most=2)) == [0, 1]
    assert fewest_that_turn(logits, effects, wanted=1, most=1) is None
    assert fewest_that_turn(logits, effects, wanted=0, most=2) == []


def test_random_sets_turn_as_often_as_they_hold_the_unit_that_does():
    effects = torch.zeros(10, 2)
    effects[4, 0] = 2.0
    share = share_that_turn(torch.tensor([1.0, 0.0]), effects, wanted=1, count=3, draws=2000)
    assert share == pytest.approx(0.3, abs=0.04)
