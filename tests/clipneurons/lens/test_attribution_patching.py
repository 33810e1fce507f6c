import pytest
import torch

from clipneurons.lens.attribution_patching import attribute, mean_by_place
from clipneurons.models.hooks import record_activations
from tests.helpers.models import images, tiny_resnet, tiny_vit


def small_resnet():
    return tiny_resnet(width=4)


@pytest.mark.parametrize("make", [tiny_vit, small_resnet])
def test_an_attribution_is_the_slope_of_moving_a_neuron_to_its_mean(make):
    clip = make()
    clip.model.double()
    layer = 1 if clip.kind == "vit" else 4
    batch, count = images(2, clip).double(), 6
    vectors = torch.randn(2, clip.embed_dim, generator=torch.Generator().manual_seed(3))
    name = f"transformer.resblocks.{layer}.mlp.gelu" if clip.kind == "vit" else "attnpool"
    module = clip.visual.get_submodule(name)
    clip = clip.__class__(**{**clip.__dict__, "dtype": torch.float64})
    places = mean_by_place(clip, [batch], [layer])[layer].shape
    means = {layer: torch.randn(places)}
    got = attribute(clip, batch, vectors, means)[layer]

    def toward(neuron, share):
        """⟨100 y/‖y‖, v⟩ with one neuron a share of the way to its mean."""

        def moved(x):
            x = x.clone()
            place = (..., neuron) if clip.kind == "vit" else (slice(None), neuron)
            mean = means[layer][:, neuron].double().view(x[place].shape[1:])
            x[place] += share * (mean - x[place])
            return x

        if clip.kind == "vit":
            handle = module.register_forward_hook(lambda _m, _a, out: moved(out))
        else:
            handle = module.register_forward_pre_hook(lambda _m, args: (moved(args[0]),))
        try:
            embedding = clip.visual(batch)
        finally:
            handle.remove()
        scaled = 100 * torch.nn.functional.normalize(embedding, dim=1)
        return (scaled * vectors.double()).sum(1)

    for neuron in range(count):
        slope = (toward(neuron, -1e-5) - toward(neuron, 1e-5)) / 2e-5
        torch.testing.assert_close(got[:, neuron].double(), slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [tiny_vit, small_resnet])
def test_means_are_over_images_by_place(make):
    clip = make()
    layer, batch = (2 if clip.kind == "vit" else 4), images(5, clip)
    name = f"transformer.resblocks.{layer}.mlp.gelu" if clip.kind == "vit" else "attnpool:input"
    with record_activations(clip.visual, [name]) as tensors:
        clip.encode_image(batch)
    values = tensors[name].double()
    expected = values if clip.kind == "vit" else values.flatten(2).mT
    got = mean_by_place(clip, [batch[:2], batch[2:]], [layer])
    torch.testing.assert_close(got[layer].double(), expected.mean(0), rtol=1e-4, atol=1e-5)


def test_means_of_no_images_are_refused():
    with pytest.raises(ValueError, match="the data set is empty"):
        mean_by_place(tiny_vit(), [], [1])
