import itertools

import numpy as np
import pytest
import torch

from clipneurons.lens.contributions import (
    MeanEffect,
    ScoredContributions,
    SpatialContributions,
)
from clipneurons.lens.directions import HeadDirections
from clipneurons.lens.lens import Lens
from clipneurons.statistics.effect_statistics import EffectStatistics, collect_statistics
from clipneurons.statistics.streaming.norm_histogram import NORM_BINS
from clipneurons.statistics.streaming.running_mean import RunningMean
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.models import images, official_clip, official_numbers, tiny_resnet, tiny_vit
from tests.helpers.naive import principal_direction

COUNT, TOP_K = 40, 6
FIELDS = (
    "means",
    "directions",
    "explained_variance",
    "top_norms",
    "percentile",
    "participation_ratio",
)


def batches_of(data, sizes, order=None):
    ids = torch.arange(len(data)) if order is None else order
    return lambda: [(part, data[part]) for part in ids.split(sizes)]


def assert_same(one, other):
    assert torch.equal(one.top_activating_images, other.top_activating_images)
    for field in FIELDS:
        assert relative(getattr(one, field), getattr(other, field)) < 1e-5, field
    # A norm that rounds across the edge of a bin moves one count.
    assert (one.norm_histogram - other.norm_histogram).abs().sum() <= 4


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_statistics_are_those_of_the_published_code(layer):
    numbers, meta = official_numbers()
    data = numbers["images"].float()
    lens = Lens(official_clip(), (layer,))
    lens = type(lens)(lens.clip, lens.layers, shared_bias=True)
    got = collect_statistics(lens, batches_of(data, 7), len(data), top_k=meta["top_k_pca"])[layer]
    assert relative(got.means, numbers[f"layer{layer}.mean"]) < 1e-5
    assert relative(got.directions, numbers[f"layer{layer}.directions"]) < 1e-5
    assert relative(got.top_norms.flip(1), numbers[f"layer{layer}.top_norms"]) < 1e-5
    assert relative(got.threshold, numbers[f"layer{layer}.top_norms"][:, 0]) < 1e-5
    expected = numbers[f"layer{layer}.explained_variance"]
    assert relative(got.explained_variance, expected) < 1e-5


@pytest.mark.parametrize("clip", [tiny_vit(), tiny_resnet(width=2)], ids=["vit", "resnet"])
def test_statistics_are_the_loops_of_their_definitions(clip):
    data = images(COUNT, clip)
    layer = 1 if clip.kind == "vit" else 4
    lens = Lens(clip, (layer,))
    got = collect_statistics(lens, batches_of(data, 16), COUNT, top_k=TOP_K, percentile=90)[layer]
    contributions = lens(data)[1][layer]
    effects = contributions.dense(torch.arange(contributions.directions.units)).double()
    for unit in range(0, effects.shape[1], 17):
        mine = effects[:, unit]
        mean = mine.mean(0)
        norms = (mine - mean).norm(dim=1)
        component, explained, order = principal_direction(mine, mean, TOP_K)
        assert relative(got.means[unit].double(), mean) < 1e-4
        # Norms that differ by less than float32 rounding may change places.
        close = dict(rtol=1e-4, atol=1e-5)
        assert np.allclose(norms[got.top_activating_images[unit]], norms[order], **close)
        assert np.allclose(got.top_norms[unit], norms[order], **close)
        if norms[order[-1]] < 1e-3:
            continue
        assert abs(got.explained_variance[unit] - explained) < 1e-4
        positive = ((mine - mean)[order] @ component > 0).sum().item()
        agreement = (got.directions[unit].double() @ component).item()
        # With as many projections positive as negative either sign is right.
        assert abs(agreement if positive * 2 == TOP_K else agreement - 1) < 1e-4 or (
            positive * 2 == TOP_K and abs(abs(agreement) - 1) < 1e-4
        )
        assert abs(got.percentile[unit] - np.percentile(norms, 90)) < 1e-4 * norms.max()
        histogram, _ = np.histogram(norms.float(), NORM_BINS)
        assert np.abs(got.norm_histogram[unit].numpy() - histogram).sum() <= 2
        squares = norms**2
        share = squares.sum() ** 2 / (COUNT * (squares**2).sum())
        assert abs(got.participation_ratio[unit] - share) < 1e-4


@pytest.mark.parametrize("shared_bias", [False, True])
def test_batches_passes_order_and_merging_do_not_matter(shared_bias):
    clip = tiny_vit()
    data = images(COUNT, clip)
    lens = Lens(clip, (0, 2), shared_bias=shared_bias)
    reference = collect_statistics(lens, batches_of(data, COUNT), COUNT, top_k=TOP_K)
    shuffled = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    for sizes, order, budget in ((1, None, 0), (7, shuffled, 0), (7, shuffled, 2**30)):
        other = collect_statistics(
            lens, batches_of(data, sizes, order), COUNT, top_k=TOP_K, memory_budget=budget
        )
        for layer in reference:
            assert_same(other[layer], reference[layer])

    parts = shuffled.split(15)
    effects = [lens(data[ids])[1][2] for ids in parts]

    def shard(index, mean=None):
        ids, contributions = parts[index], effects[index]
        running = mean or RunningMean()
        if mean is None:
            running.update(contributions)
            return running
        statistics = EffectStatistics(mean.mean(), contributions.directions, COUNT, TOP_K)
        statistics.update(contributions, ids)
        return statistics

    for order in itertools.permutations(range(len(parts))):
        means = [shard(index) for index in order]
        for other in means[1:]:
            means[0].merge(other)
        shards = [shard(index, means[0]) for index in order]
        for other in shards[1:]:
            shards[0].merge(other)
        assert_same(shards[0].finish(), reference[2])


def test_blocks_of_scores_do_not_matter():
    count, neurons, heads = 48, 3000, 8
    activations, weights = torch.randn(count, 3, neurons), torch.rand(count, heads, 3)
    directions = HeadDirections.of(torch.randn(heads, neurons, 2), torch.randn(heads, 2, 4))
    mean = MeanEffect(torch.randn(neurons, heads) / 8)

    def statistics(batch):
        result = EffectStatistics(mean, directions, count, TOP_K)
        blocks = 0
        for ids in torch.arange(count).split(batch):
            contributions = SpatialContributions(activations[ids], weights[ids], directions)
            result.update(contributions, ids)
            blocks = max(blocks, len(list(contributions.blocks())))
        return result.finish(), blocks

    whole, several = statistics(count)
    parts, one = statistics(8)
    assert one == 1 < several
    assert_same(parts, whole)


def test_state_goes_on_where_it_was_left_bit_for_bit():
    clip = tiny_vit()
    data = images(COUNT, clip)
    lens = Lens(clip, (1,))
    parts = torch.arange(COUNT).split(8)
    effects = [lens(data[part])[1][1] for part in parts]
    mean, straight = RunningMean(), RunningMean()
    for contributions in effects:
        straight.update(contributions)
        mean.update(contributions)
        fresh = RunningMean()
        fresh.load_state_dict({k: v.clone() for k, v in mean.state_dict().items()})
        mean = fresh
    assert torch.equal(mean.mean().scores, straight.mean().scores)

    def run(stop_at):
        statistics = EffectStatistics(mean.mean(), lens.directions[1], COUNT, TOP_K)
        for index, (part, contributions) in enumerate(zip(parts, effects, strict=True)):
            statistics.update(contributions, part)
            if index == stop_at:
                state = {k: v.clone() for k, v in statistics.state_dict().items()}
                statistics = EffectStatistics(mean.mean(), lens.directions[1], COUNT, TOP_K)
                statistics.load_state_dict(state)
        return statistics.finish()

    whole = run(stop_at=None)
    for stop_at in range(5):
        other = run(stop_at)
        for field in (*FIELDS, "top_activating_images", "norm_histogram"):
            assert torch.equal(getattr(other, field), getattr(whole, field))


def test_shards_smaller_than_top_k_merge_to_the_whole():
    clip = tiny_vit()
    data, top_k = images(12, clip), 10
    lens = Lens(clip, (1,))
    reference = collect_statistics(lens, batches_of(data, 12), 12, top_k=top_k)[1]
    mean = RunningMean()
    mean.update(lens(data)[1][1])
    shards = []
    for part in torch.arange(12).split((3, 4, 5)):
        contributions = lens(data[part])[1][1]
        shards.append(EffectStatistics(mean.mean(), contributions.directions, 12, top_k))
        shards[-1].update(contributions, part)
    for other in shards[1:]:
        shards[0].merge(other)
    assert_same(shards[0].finish(), reference)


def test_equal_images_are_ordered_by_their_numbers():
    clip = tiny_vit()
    data = images(4, clip).repeat(5, 1, 1, 1)
    lens = Lens(clip, (1,))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    got = collect_statistics(lens, batches_of(data, 1, order), 20, top_k=10)[1]
    for unit in range(0, clip.neurons, 11):
        images_of_unit = got.top_activating_images[unit].tolist()
        assert images_of_unit[:5] == sorted(images_of_unit[:5])
        assert len({image % 4 for image in images_of_unit[:5]}) == 1


def test_a_data_set_smaller_than_top_k_is_used_whole():
    clip = tiny_vit()
    got = collect_statistics(Lens(clip, (1,)), batches_of(images(3, clip), 2), 3, top_k=100)[1]
    assert got.top_norms.shape == (clip.neurons, 3)
    assert (got.directions.norm(dim=1) - 1).abs().max() < 1e-5


def test_a_unit_without_effect_has_a_zero_direction():
    clip = tiny_vit()
    clip.visual.transformer.resblocks[1].mlp.c_proj.weight.data[:, 3] = 0
    got = collect_statistics(Lens(clip, (1,)), batches_of(images(8, clip), 4), 8, top_k=4)[1]
    assert got.directions[3].abs().max() == 0
    assert got.explained_variance[3] == 0
    assert got.participation_ratio[3] == 0
    assert (got.directions[4].norm() - 1).abs() < 1e-5


def test_an_empty_data_set_is_refused():
    lens = Lens(tiny_vit(), (1,))
    with pytest.raises(ValueError, match="data set is empty"):
        collect_statistics(lens, lambda: [], 0)
    mean = RunningMean()
    mean.update(lens(images(1, lens.clip))[1][1])
    with pytest.raises(ValueError, match="at least one image"):
        EffectStatistics(mean.mean(), lens.directions[1], 0)


@pytest.mark.parametrize("announced", [3, 5])
def test_another_number_of_images_than_announced_is_refused(announced):
    clip = tiny_vit()
    with pytest.raises(ValueError, match=f"{announced} images were announced, 4 came"):
        collect_statistics(Lens(clip, (1,)), batches_of(images(4, clip), 4), announced, top_k=2)


def test_effects_that_are_not_finite_are_refused():
    lens = Lens(tiny_vit(), (1,))
    contributions = lens(images(3, lens.clip))[1][1]
    mean = RunningMean()
    mean.update(contributions)
    scores = contributions.scores.clone()
    scores[2, 5, 0] = float("nan")
    broken = ScoredContributions(scores, contributions.directions)
    statistics = EffectStatistics(mean.mean(), contributions.directions, 3, 2)
    with pytest.raises(ValueError, match="image 12 gives NaN"):
        statistics.update(broken, torch.tensor([10, 11, 12]))
    mean.update(broken)
    with pytest.raises(ValueError, match="NaN or infinity"):
        mean.mean()


def test_statistics_around_different_means_are_not_merged():
    lens = Lens(tiny_vit(), (1,))
    parts = []
    for seed in range(2):
        contributions = lens(images(3, lens.clip, seed))[1][1]
        mean = RunningMean()
        mean.update(contributions)
        parts.append(EffectStatistics(mean.mean(), contributions.directions, 6, 2))
    with pytest.raises(ValueError, match="merge the means first"):
        parts[0].merge(parts[1])
