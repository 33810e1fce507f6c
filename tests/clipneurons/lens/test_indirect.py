import pytest
import torch

from clipneurons.lens.indirect import indirect_effects, mean_activations
from clipneurons.models.hooks import record_activations
from tests.clipneurons.lens.test_second_order import relative
from tests.helpers.families import FAMILIES
from tests.helpers.models import images, tiny_vit


def ablated_embedding(clip, image, layer, neuron, means):
    """The whole forward pass again, with the activation overwritten by a hook."""

    def overwrite(values):
        values = values.clone()
        values[:, :, neuron] = means[:, neuron]
        return values

    path, _, side = clip.anatomy.mlp(layer).path.partition(":")
    module = clip.visual.get_submodule(path)
    handle = (
        module.register_forward_pre_hook(lambda _module, args: overwrite(args[0]))
        if side
        else module.register_forward_hook(lambda _module, _args, output: overwrite(output))
    )
    try:
        return clip.encode_image(image[None])[0]
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("make", "layer"),
    [(tiny_vit, 0), (tiny_vit, 2), (FAMILIES["EVA-02"], 1), (FAMILIES["EVA-02-E"], 1)],
    ids=["first", "later", "norm of the activations", "norm of what they write"],
)
def test_effects_are_those_of_overwriting_the_activation(make, layer):
    clip = make()
    batch = images(3, clip)
    means = mean_activations(clip, batch.split(2), layer)
    neurons = torch.tensor([5, 0, 31])
    effects = indirect_effects(clip, batch, layer, neurons, means, batch_size=4)
    for i, image in enumerate(batch):
        whole = clip.encode_image(image[None])[0]
        for j, neuron in enumerate(neurons.tolist()):
            ablated = ablated_embedding(clip, image, layer, neuron, means)
            expected = 100 / whole.norm() * (whole - ablated)
            # A difference of near equals, whose rounding is that of embeddings of norm 100.
            torch.testing.assert_close(effects[i, j], expected, rtol=1e-3, atol=5e-5)


def test_mean_activations_do_not_depend_on_the_batch():
    clip = tiny_vit()
    batch = images(5, clip)
    with record_activations(clip.visual, ["transformer.resblocks.1.mlp.gelu"]) as tensors:
        clip.encode_image(batch)
    expected = tensors["transformer.resblocks.1.mlp.gelu"].double().mean(0).float()
    for size in (1, 3, 5):
        assert relative(mean_activations(clip, batch.split(size), 1), expected) < 1e-6


def test_an_empty_data_set_and_the_last_layer_are_refused():
    clip = tiny_vit()
    with pytest.raises(ValueError, match="data set is empty"):
        mean_activations(clip, [], 1)
    with pytest.raises(ValueError, match="last block"):
        mean_activations(clip, [images(1, clip)], 3)
