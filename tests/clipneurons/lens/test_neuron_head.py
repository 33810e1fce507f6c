import pytest
import torch

from clipneurons.lens.lens import Lens
from clipneurons.lens.neuron_head import NeuronHeadEffects
from clipneurons.models.clip import load_clip
from clipneurons.models.hooks import record_activations
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
    return representation, NeuronHeadEffects(clip).read({"attnpool:input": stages}, representation)


@pytest.mark.parametrize("name", MODELS)
def test_contributions_are_the_loops_of_the_formula(name):
    clip = tiny_resnet(**MODELS[name])
    batch = images(2, clip)
    lens = NeuronHeadEffects(clip)
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
    lens = Lens(clip)
    representation, contributions = lens(batch)
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    return relative(contributions[4].sum() + scale * lens.method.bias, scale * representation)


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


def test_the_mean_of_all_pairs_and_the_bias_is_the_mean_embedding():
    clip = tiny_resnet()
    lens, running, representations = Lens(clip), RunningMean(), []
    for seed, count in enumerate((5, 5, 2)):
        representation, contributions = read_varied(clip, count, seed)
        running.update(contributions[4])
        representations.append(representation)
    representation = torch.cat(representations)
    scale = 100 / representation.norm(dim=-1, keepdim=True)
    mean = running.mean().dense(lens.directions[4]).sum(0)
    expected = (scale * representation).mean(0)
    assert relative(mean + scale.mean() * lens.method.bias, expected) < 1e-5


def test_layers_and_towers_without_pairs_are_refused():
    with pytest.raises(ValueError, match="expected a ResNet"):
        NeuronHeadEffects(tiny_vit())
    with pytest.raises(ValueError, match=r"expected layer 4, .* not \[3\]"):
        Lens(tiny_resnet(), [3])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(value):
    clip = tiny_resnet()
    batch = images(2, clip)
    batch[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match="image 1 of the batch"):
        Lens(clip)(batch)
