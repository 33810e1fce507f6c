import pytest
import torch

from clipneurons.explore.edit import apply_edit
from clipneurons.explore.fold import fold, mean_of_units
from clipneurons.lens.make import make_lens
from tests.helpers.models import images, tiny_resnet, tiny_vit


def changed(units, seed=0):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.ones(units)
    factor[::5] = torch.randn(len(factor[::5]), generator=generator)
    factor[3] = 0.0
    return factor


def test_a_folded_vit_is_the_model_with_its_activations_replaced():
    tower, batch = tiny_vit(), images(3, tiny_vit())
    factors = {layer: changed(tower.neurons, layer) for layer in (0, 2)}
    means = {layer: torch.randn(tower.neurons) for layer in (0, 2)}

    def replaced(layer):
        factor, mean = factors[layer], means[layer]
        return lambda _module, _args, out: mean + factor * (out - mean)

    handles = [
        tower.visual.transformer.resblocks[layer].mlp.gelu.register_forward_hook(replaced(layer))
        for layer in factors
    ]
    expected = tower.encode_image(batch)
    for handle in handles:
        handle.remove()
    before = tower.encode_image(batch)
    got = fold(tower, factors, means).encode_image(batch)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert (got - before).norm() > 0.1 * before.norm()
    assert torch.equal(tower.encode_image(batch), before)


def test_a_folded_resnet_is_the_embedding_with_its_pairs_replaced():
    tower = tiny_resnet(width=4)
    batch = images(3, tower)
    representation, contributions = make_lens(tower)(batch)
    mine = contributions[4]
    factors, means = {4: changed(mine.directions.units)}, {4: torch.randn(mine.directions.units)}
    read = mine.scores[..., 0] * representation.norm(dim=1)[:, None] / 100
    expected = representation.clone().double()
    directions = mine.directions.dense()[:, 0].double()
    for unit, factor in enumerate(factors[4].tolist()):
        deviation = (read[:, unit] - means[4][unit]).double()
        expected += (factor - 1) * deviation[:, None] * directions[unit]
    got = fold(tower, factors, means).encode_image(batch)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)


def test_of_a_resnets_image_the_edit_of_effects_is_what_the_model_does():
    tower = tiny_resnet(width=4)
    batch = images(1, tower)
    representation, contributions = make_lens(tower)(batch)
    directions = contributions[4].directions.dense()[:, 0]
    factors, means = {4: changed(len(directions))}, {4: torch.randn(len(directions))}
    scale = 100 / representation.norm()
    effects = {4: scale * means[4][:, None] * directions}
    linear = apply_edit(representation, contributions, factors, effects)
    real = scale * fold(tower, factors, means).encode_image(batch)
    torch.testing.assert_close(linear, real, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_means_are_those_of_all_images_whatever_the_batches(kind):
    tower = tiny_vit() if kind == "vit" else tiny_resnet(width=4)
    layers = (0, 1) if kind == "vit" else (4,)
    batch = images(5, tower)
    whole = mean_of_units(tower, [batch], layers)
    parts = mean_of_units(tower, [batch[:2], batch[2:]], layers)
    representation, contributions = make_lens(tower, layers)(batch)
    for layer, mine in contributions.items():
        torch.testing.assert_close(whole[layer], parts[layer], rtol=1e-5, atol=1e-6)
        if kind == "vit":
            expected = mine.activations.double().mean((0, 1))
        else:
            norms = representation.double().norm(dim=1)[:, None]
            expected = (mine.scores[..., 0].double() * norms / 100).mean(0)
        torch.testing.assert_close(whole[layer].double(), expected, rtol=1e-5, atol=1e-6)


def test_means_of_no_images_are_refused():
    with pytest.raises(ValueError, match="the data set is empty"):
        mean_of_units(tiny_vit(), [], [1])
