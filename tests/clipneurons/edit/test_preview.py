from itertools import combinations

import pytest
import torch

from clipneurons.edit.preview import (
    Preview,
    order_that_turns,
    patch_attributions,
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


def test_the_first_units_of_the_order_take_most_from_the_lead():
    """Against all sets of as many, of two classes."""
    for seed in range(5):
        effects, logits = random(9, 2, seed=seed), torch.tensor([1.5, 0.0])
        order = order_that_turns(logits, effects, wanted=1, most=9)
        for size in range(1, 10):
            leads = [
                float((logits - effects[list(units)].sum(0)) @ torch.tensor([1.0, -1.0]))
                for units in combinations(range(9), size)
            ]
            lead = float((logits - effects[order[:size]].sum(0)) @ torch.tensor([1.0, -1.0]))
            assert lead == pytest.approx(min(leads), abs=1e-5)


def test_a_third_class_must_lose_too():
    effects = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    logits = torch.tensor([1.0, 0.0, 0.5])
    assert order_that_turns(logits, effects, wanted=1, most=3) == [0, 1, 2]
    assert order_that_turns(logits, effects, wanted=1, most=1) == [0]
