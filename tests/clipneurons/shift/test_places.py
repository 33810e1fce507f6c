"""What stands at one place, and whether it changed."""

import numpy as np
import pytest
import torch

from clipneurons.lens.lens import Lens
from clipneurons.shift.places import PlaceReader, place_test
from clipneurons.stats.two_sample import p_values, permuted_labels
from tests.helpers import naive_shift
from tests.helpers.models import images, tiny_resnet, tiny_vit


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_largest_change_is_that_of_a_loop_over_places_and_permutations():
    values, labels = noise(14, 3, 5).exp(), permuted_labels(6, 8, 9)
    by_place = [
        naive_shift.place_sizes(values[:, place].double().numpy(), labels.double().numpy())
        for place in range(3)
    ]
    scores = np.array([(s - s.mean()) / s.std(ddof=1) for s in by_place])
    got = place_test(values, labels)
    assert got.largest.numpy() == pytest.approx(scores.max(0), rel=1e-3)


def test_a_thing_at_one_place_of_a_few_images_is_found_with_its_images():
    found, alarms = 0, 0
    for seed in range(10):
        values, labels = noise(400, 6, 20, seed=seed), permuted_labels(200, 200, 99, seed)
        alarms += (p_values(place_test(values, labels).largest[:, None])[0] <= 0.05).item()
        values[200:240, 4] = 3 * noise(20, seed=99)
        test = place_test(values, labels)
        found += (p_values(test.largest[:, None])[0] <= 0.05).item()
        assert len(set(range(200, 240)) & set(test.along.topk(40).indices.tolist())) >= 36
    assert found == 10
    assert alarms <= 3  # more than 3 of 10 at 0.05: once in 970


def test_without_places_or_change_nothing_changes():
    labels = permuted_labels(4, 5, 19)
    for values in (torch.zeros(9, 0, 0), noise(1, 2, 3).expand(9, -1, -1)):
        test = place_test(values, labels)
        assert p_values(test.largest[:, None])[0].item() == 1
        assert not test.along.any()


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_the_effects_of_all_places_are_those_of_all_units(make):
    clip = make()
    lens = Lens(clip, (1, 2) if clip.kind == "vit" else (4,))
    _, contributions = lens(images(3, clip))
    got = PlaceReader(clip.grid, clip.embed_dim)(contributions)
    assert got.shape == (3, clip.grid[0] * clip.grid[1], clip.embed_dim)
    whole = sum(mine.sum() for mine in contributions.values())
    before = 0
    for mine in contributions.values():
        units = torch.arange(mine.directions.units)
        for token in range(mine.prefix):
            scores = torch.stack([mine.token_scores(image, units)[:, token] for image in range(3)])
            before = before + mine.directions.sum(scores)
    torch.testing.assert_close(got.sum(1) + before, whole, rtol=1e-3, atol=1e-3)


def test_of_a_large_embedding_as_many_directions_are_kept():
    clip = tiny_vit(embed_dim=160)
    _, contributions = Lens(clip, (1,))(images(3, clip))
    few = PlaceReader(clip.grid, clip.embed_dim)(contributions)
    assert few.shape == (3, clip.grid[0] * clip.grid[1], 128)
    again = PlaceReader(clip.grid, clip.embed_dim)(contributions)
    assert torch.equal(few, again), "always along the same ones"
