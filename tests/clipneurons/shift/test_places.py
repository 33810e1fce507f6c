"""What stands at one place or anywhere, and whether it changed."""

import numpy as np
import pytest
import torch

from clipneurons.lens.lens import Lens
from clipneurons.shift.places import PlaceReader, object_test, place_test
from clipneurons.stats.two_sample import p_values, permuted_labels
from tests.helpers import naive_shift
from tests.helpers.models import images, tiny_resnet, tiny_vit


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_largest_change_is_that_of_a_loop_over_places_and_permutations():
    values, labels = noise(14, 1, 3, 5).exp(), permuted_labels(6, 8, 9)
    by_place = [
        naive_shift.place_sizes(values[:, 0, place].double().numpy(), labels.double().numpy())
        for place in range(3)
    ]
    scores = np.array([(s - s.mean()) / s.std(ddof=1) for s in by_place])
    got = place_test(values, labels)
    assert got.statistic.numpy() == pytest.approx(scores.max(0), rel=1e-3)


def test_a_thing_at_one_place_of_a_few_images_is_found_with_its_images():
    found, alarms = 0, 0
    for seed in range(10):
        values, labels = noise(400, 2, 3, 20, seed=seed), permuted_labels(200, 200, 99, seed)
        alarms += (p_values(place_test(values, labels).statistic)[0] <= 0.05).item()
        values[200:240, 1, 1] = 3 * noise(20, seed=99)
        test = place_test(values, labels)
        found += (p_values(test.statistic)[0] <= 0.05).item()
        assert len(set(range(200, 240)) & set(test.along.topk(40).indices.tolist())) >= 36
    assert found == 10
    assert alarms <= 3  # more than 3 of 10 at 0.05: once in 970


def test_objects_are_the_loop_over_images_windows_and_prototypes():
    values, labels = noise(9, 4, 4, 5).exp(), permuted_labels(4, 5, 19)
    centred = values.double().numpy() - values.double().numpy().mean(0)
    windows = []
    for image in centred:
        means = [
            (image[r, c] + image[r, c + 1] + image[r + 1, c] + image[r + 1, c + 1]) / 4
            for r in range(3)
            for c in range(3)
        ]
        windows.append([mean / np.sqrt((mean**2).sum()) for mean in means])
    prototypes = [window for image in windows for window in image]  # all of them
    similarity = np.array(
        [[max(w @ prototype for w in image) for prototype in prototypes] for image in windows]
    )
    scores = [
        naive_shift.unit_scores(similarity[:, k], labels.double().numpy(), 4)[0]
        for k in range(len(prototypes))
    ]
    got = object_test(values, labels)
    assert got.statistic.numpy() == pytest.approx(np.abs(scores).max(0), rel=1e-3)


def test_an_object_that_stands_anywhere_is_found_where_places_are_not():
    by_object, by_place, alarms = 0, 0, 0
    for seed in range(8):
        values, labels = noise(200, 6, 6, 16, seed=seed), permuted_labels(100, 100, 99, seed)
        alarms += (p_values(object_test(values, labels).statistic)[0] <= 0.05).item()
        rng = np.random.default_rng(seed)
        for image in range(100, 130):
            row, column = rng.integers(0, 5, 2)
            values[image, row : row + 2, column : column + 2] += 2 * noise(16, seed=99)
        test = object_test(values, labels)
        by_object += (p_values(test.statistic)[0] <= 0.05).item()
        by_place += (p_values(place_test(values, labels).statistic)[0] <= 0.05).item()
        assert len(set(range(100, 130)) & set(test.along.topk(30).indices.tolist())) >= 24
    assert by_object == 8
    assert by_place < 8
    assert alarms <= 2  # more than 2 of 8 at 0.05: once in 170


def test_without_places_or_change_nothing_changes():
    labels = permuted_labels(4, 5, 19)
    for test in (place_test, object_test):
        for values in (torch.zeros(9, 1, 0, 0), noise(1, 2, 3, 4).expand(9, -1, -1, -1)):
            result = test(values, labels)
            assert p_values(result.statistic)[0].item() == 1


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_the_effects_of_all_places_are_those_of_all_units(make):
    clip = make()
    lens = Lens(clip, (1, 2) if clip.kind == "vit" else (4,))
    _, contributions = lens(images(3, clip))
    got = PlaceReader(clip.grid, clip.embed_dim)(contributions)
    assert got.shape == (3, *clip.grid, clip.embed_dim)
    whole = sum(mine.sum() for mine in contributions.values())
    before = 0
    for mine in contributions.values():
        units = torch.arange(mine.directions.units)
        for token in range(mine.prefix):
            scores = torch.stack([mine.token_scores(image, units)[:, token] for image in range(3)])
            before = before + mine.directions.sum(scores)
    torch.testing.assert_close(got.sum((1, 2)) + before, whole, rtol=1e-3, atol=1e-3)


def test_of_a_large_embedding_as_many_directions_are_kept():
    clip = tiny_vit(embed_dim=160)
    _, contributions = Lens(clip, (1,))(images(3, clip))
    few = PlaceReader(clip.grid, clip.embed_dim)(contributions)
    assert few.shape == (3, *clip.grid, 128)
    again = PlaceReader(clip.grid, clip.embed_dim)(contributions)
    assert torch.equal(few, again), "always along the same ones"
