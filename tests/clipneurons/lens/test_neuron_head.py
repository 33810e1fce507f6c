import pytest
import torch

from clipneurons.lens.contributions import MeanEffect, ScoredContributions
from clipneurons.lens.make import make_lens
from clipneurons.lens.neuron_head import NeuronHeadLens
from clipneurons.models.clip import load_clip
from clipneurons.models.hooks import record_activations
from clipneurons.statistics.effect_statistics import EffectStatistics
from clipneurons.statistics.streaming.running_mean import RunningMean
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.naive_resnet import NaivePooling

MODELS = {
    "plain": {},
    "one head": {"heads": 1, "seed": 1},
    "other grid": {"image_size": 96, "width": 4, "seed": 2},
}


def read_varied(clip, count, seed=0):
    """Embeddings and contributions of last stages that differ as those of a trained model do.

    A ResNet with random weights gives nearly the same features for all images.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = clip.grid
    stages = torch.randn(count, clip.neurons, height, width, generator=generator).relu()
    representation = clip.visual.attnpool(stages)
    return representation, NeuronHeadLens(clip).read({"attnpool:input": stages}, representation)


@pytest.mark.parametrize("name", MODELS)
def test_contributions_are_the_loops_of_the_formula(name):
    clip = tiny_resnet(**MODELS[name])
    batch = images(2, clip)
    lens = NeuronHeadLens(clip)
    with record_activations(clip.visual, lens.recorded) as tensors:
        representation = clip.encode_image(batch)
    mine = lens.read(tensors, representation)[4]
    chosen = [(0, 0), (3, clip.heads - 1), (clip.neurons - 1, clip.heads // 2)]
    units = torch.tensor([neuron * clip.heads + head for neuron, head in chosen])
    dense = mine.dense(units)
    for index, stage in enumerate(tensors["attnpool:input"]):
        naive = NaivePooling(clip, stage)
        assert relative(representation[index].double(), naive.representation) < 1e-5
        expected = torch.stack([naive.contribution(*pair) for pair in chosen])
        assert relative(dense[index].double(), expected) < 1e-5
        assert relative(mine.weights[index].double(), torch.stack(naive.attention) * 100
                        / naive.representation.norm()) < 1e-5  # fmt: skip


def remainder(clip, batch):
    """Norm of what contributions and bias miss of the embeddings, relative to them."""
    lens = make_lens(clip)
    representation, contributions = lens(batch)
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    return relative(contributions[4].sum() + scale * lens.bias, scale * representation)


@pytest.mark.parametrize("name", MODELS)
def test_contributions_and_bias_are_the_embedding(name):
    clip = tiny_resnet(**MODELS[name])
    assert remainder(clip, images(5, clip)) < 1e-5


def test_contributions_and_bias_are_the_embedding_of_rn50():
    clip = load_clip("RN50", "random", device="cpu")
    assert (clip.neurons, clip.heads) == (2048, 32)
    # Random weights leave every bias of the pooling zero: give them something to forget.
    torch.manual_seed(0)
    for name in ("q_proj", "k_proj", "v_proj", "c_proj"):
        bias = getattr(clip.visual.attnpool, name).bias
        bias += 0.1 * torch.randn_like(bias)
    assert remainder(clip, images(1, clip)) < 1e-5


def test_each_pair_is_rank_one_and_neurons_are_not():
    clip = tiny_resnet()
    _, contributions = read_varied(clip, 6)
    dense = contributions[4].dense(torch.arange(clip.neurons * clip.heads))
    by_pair = torch.linalg.svdvals(dense.transpose(0, 1))
    assert (by_pair[:, 1] <= 1e-5 * by_pair[:, 0].max()).all()
    by_neuron = dense.unflatten(1, (clip.neurons, clip.heads)).sum(2)
    singular = torch.linalg.svdvals(by_neuron.transpose(0, 1))
    assert (singular[:, 1] > 1e-3 * singular[:, 0]).all()


def test_norms_projections_and_sums_are_those_of_the_dense_contributions():
    clip = tiny_resnet(width=4)
    _, contributions = read_varied(clip, 4)
    mine = contributions[4]
    units = mine.directions.units
    dense = mine.dense(torch.arange(units))
    mean = MeanEffect(mine.scores.mean(0))
    vectors, keep = torch.randn(units, clip.embed_dim), torch.rand(4, units)
    centred = dense - dense.mean(0)
    assert relative(mean.dense(mine.directions), dense.mean(0)) < 1e-5
    assert relative(mine.norms(), dense.norm(dim=-1)) < 1e-5
    assert relative(mine.norms(mean), centred.norm(dim=-1)) < 1e-5
    assert relative(mine.project(vectors, mean), (centred * vectors).sum(-1)) < 1e-5
    assert relative(mine.sum(), dense.sum(1)) < 1e-5
    assert relative(mine.sum(keep), (dense * keep[..., None]).sum(1)) < 1e-5
    texts = torch.randn(3, clip.embed_dim)
    expected = mine.directions.dense()[:, 0] @ texts.T
    assert relative(mine.directions.project(texts)[:, 0], expected) < 1e-5


def test_norms_in_pieces_are_the_norms(monkeypatch):
    _, contributions = read_varied(tiny_resnet(width=4), 4)
    mine = contributions[4]
    whole = mine.norms()
    monkeypatch.setattr("clipneurons.lens.contributions._BLOCK", {"cpu": 500})
    pieces = [(units, scores.clone()) for units, scores, _ in mine.blocks()]
    assert len(pieces) > 3
    for units, scores in pieces:
        assert relative(scores, mine.scores[:, units].transpose(0, 1)) < 1e-6
    assert relative(mine.norms(), whole) < 1e-6


def test_scores_are_the_weighted_sums_of_the_activations_they_carry():
    clip = tiny_resnet()
    _, contributions = NeuronHeadLens(clip)(images(2, clip))
    mine = contributions[4]
    scores = torch.einsum("bht,btn->bnh", mine.weights, mine.activations)
    assert relative(scores.flatten(1), mine.scores[..., 0]) < 1e-5


def test_65536_pairs_stream_in_the_memory_of_the_kept_tops():
    """Per pair: `top_k` kept, an eighth waiting, 2 · (images · 2 % + 1) of the tail, the bins."""
    units, top_k, count = 65536, 10, 200
    clip = tiny_resnet(width=2)
    whole = NeuronHeadLens(clip).neurons
    inner = torch.randn(16, units // 16, whole.inner.shape[2])
    outer = torch.randn(16, whole.inner.shape[2], 12)
    directions = type(whole).of(inner, outer).split()
    mean = MeanEffect(torch.zeros(units, 1))
    statistics = EffectStatistics(mean, directions, count, top_k)
    sizes = []
    for start in range(0, count, 4):
        batch = ScoredContributions(torch.randn(4, units, 1), directions)
        statistics.update(batch, torch.arange(start, start + 4))
        sizes.append(_bytes(statistics))
    assert directions.units == units
    per_pair = 12 * top_k + 20 * top_k / 8 + 2 * 4 * (count // 50 + 1) + 4 * 70 + 24
    assert max(sizes) <= 1.01 * units * per_pair
    assert min(sizes[25:]) <= max(sizes[:6])  # no more after 200 images than after 24


def _bytes(statistics):
    held = [value for part in statistics._parts for value in vars(part).values()]
    waiting = [tensor for part in statistics.top._waiting for tensor in part]
    tensors = [value for value in held if isinstance(value, torch.Tensor)]
    return sum(t.untyped_storage().nbytes() for t in tensors + waiting)


def test_the_mean_of_all_pairs_and_the_bias_is_the_mean_embedding():
    clip = tiny_resnet()
    lens, running, representations = NeuronHeadLens(clip), RunningMean(), []
    for seed, count in enumerate((5, 5, 2)):
        representation, contributions = read_varied(clip, count, seed)
        running.update(contributions[4])
        representations.append(representation)
    representation = torch.cat(representations)
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    mean = running.mean().dense(lens.directions[4]).sum(0)
    expected = (scale * representation).mean(0)
    assert relative(mean + scale.mean() * lens.bias, expected) < 1e-5


def test_layers_and_towers_without_pairs_are_refused():
    with pytest.raises(ValueError, match="expected a ResNet"):
        NeuronHeadLens(tiny_vit())
    with pytest.raises(ValueError, match=r"expected layer 4, .* not \[3\]"):
        make_lens(tiny_resnet(), [3])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(value):
    clip = tiny_resnet()
    batch = images(2, clip)
    batch[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match="image 1 of the batch"):
        NeuronHeadLens(clip)(batch)
