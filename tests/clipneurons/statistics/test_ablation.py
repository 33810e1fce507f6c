import pytest
import torch

from clipneurons.lens.lens import Lens
from clipneurons.statistics.ablation import ablate
from clipneurons.statistics.effect_statistics import collect_statistics
from clipneurons.statistics.streaming.running_mean import RunningMean
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.models import images, official_clip, official_numbers, tiny_vit


def setting(clip, batch, layer, shared_bias, top_k):
    lens = Lens(clip, (layer,), shared_bias=shared_bias)
    representation, contributions = lens(batch)
    mean = RunningMean()
    mean.update(contributions[layer])
    ids = torch.arange(len(batch))
    statistics = collect_statistics(
        lens, lambda: zip(ids.split(5), batch.split(5), strict=True), len(batch), top_k=top_k
    )
    return representation, contributions[layer], mean.mean(), statistics[layer]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_ablations_are_those_of_the_published_code(layer):
    numbers, meta = official_numbers()
    representation, contributions, mean, statistics = setting(
        official_clip(), numbers["images"].float(), layer, True, meta["top_k_pca"]
    )
    ablations = ablate(
        representation, contributions, mean, statistics.threshold, statistics.directions
    )
    for mine, theirs in {
        "all_units": "all_neurons_ablated",
        "significant": "significant_ablated",
        "insignificant": "insignificant_ablated",
        "first_component": "from_first_pc",
    }.items():
        expected = numbers[f"layer{layer}.rep_{theirs}"]
        assert relative(getattr(ablations, mine), expected) < 1e-5


def test_ablations_are_their_definitions_on_dense_effects():
    clip = tiny_vit()
    representation, contributions, mean, statistics = setting(clip, images(20, clip), 1, False, 4)
    texts = torch.randn(clip.neurons, clip.embed_dim)
    got = ablate(
        representation, contributions, mean, statistics.threshold, statistics.directions, texts
    )
    dense = contributions.dense(torch.arange(clip.neurons)).double()
    means = dense.mean(0)
    centred = dense - means
    original = 100 * representation.double() / representation.double().norm(dim=-1, keepdim=True)
    base = original - dense.sum(1) + means.sum(0)
    # The k-th largest effect sets the threshold and does not exceed it: k - 1 images do.
    order = centred.norm(dim=-1).argsort(0, descending=True)[:3]
    large = torch.zeros_like(centred[..., 0]).scatter_(0, order, 1.0)[..., None]
    along = (centred * statistics.directions).sum(-1, keepdim=True)
    assert relative(got.original.double(), original) < 1e-5
    assert relative(got.all_units.double(), base) < 1e-5
    assert relative(got.significant.double(), base + (centred * (1 - large)).sum(1)) < 1e-5
    assert relative(got.insignificant.double(), base + (centred * large).sum(1)) < 1e-5
    assert relative(got.first_component.double(), base + (along * texts).sum(1)) < 1e-5
