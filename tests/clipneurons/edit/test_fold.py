import pytest
import torch

from clipneurons.edit.edit import apply_edit
from clipneurons.edit.fold import fold, mean_of_units
from clipneurons.lens.lens import Lens
from clipneurons.models.hooks import record_activations
from tests.helpers.families import FAMILIES
from tests.helpers.models import images, tiny_resnet, tiny_vit


def changed(units, seed=0):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.ones(units)
    factor[::5] = torch.randn(len(factor[::5]), generator=generator)
    factor[3] = 0.0
    return factor


@pytest.mark.parametrize("family", ["CLIP", "CLIPA", "SigLIP"])
def test_a_folded_vit_is_the_model_with_its_activations_replaced(family):
    clip = FAMILIES[family]()
    batch, layers = images(3, clip), (0, clip.anatomy.readable[-1])
    units = {layer: clip.anatomy.mlp(layer).output.weight.shape[1] for layer in layers}
    factors = {layer: changed(count, layer) for layer, count in units.items()}
    means = {layer: torch.randn(count) for layer, count in units.items()}

    def replaced(layer, values):
        return means[layer] + factors[layer] * (values - means[layer])

    handles = []
    for layer in layers:
        path, _, side = clip.anatomy.mlp(layer).path.partition(":")
        module = clip.visual.get_submodule(path)
        handles.append(
            module.register_forward_pre_hook(lambda _m, args, layer=layer: replaced(layer, args[0]))
            if side
            else module.register_forward_hook(lambda _m, _a, out, layer=layer: replaced(layer, out))
        )
    expected = clip.encode_image(batch)
    for handle in handles:
        handle.remove()
    before = clip.encode_image(batch)
    got = fold(clip, factors, means).encode_image(batch)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert (got - before).norm() > 0.1 * before.norm()
    assert torch.equal(clip.encode_image(batch), before)


@pytest.mark.parametrize("family", ["ViT-M-16-alt (LayerScale)", "EVA-02", "EVA-02-E"])
def test_towers_that_change_what_neurons_write_are_refused(family):
    clip = FAMILIES[family]()
    units = clip.anatomy.mlp(0).output.weight.shape[1]
    with pytest.raises(ValueError, match="cannot be folded into weights"):
        fold(clip, {0: changed(units)}, {0: torch.zeros(units)})


def test_a_folded_resnet_is_the_embedding_with_its_pairs_replaced():
    clip = tiny_resnet(width=4)
    batch = images(3, clip)
    representation, contributions = Lens(clip)(batch)
    mine = contributions[4]
    factors, means = {4: changed(mine.directions.units)}, {4: torch.randn(mine.directions.units)}
    read = mine.scores[..., 0] * representation.norm(dim=1)[:, None] / 100
    expected = representation.clone().double()
    directions = mine.directions.dense()[:, 0].double()
    for unit, factor in enumerate(factors[4].tolist()):
        deviation = (read[:, unit] - means[4][unit]).double()
        expected += (factor - 1) * deviation[:, None] * directions[unit]
    got = fold(clip, factors, means).encode_image(batch)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)


def test_of_a_resnets_image_the_edit_of_effects_is_what_the_model_does():
    clip = tiny_resnet(width=4)
    batch = images(1, clip)
    representation, contributions = Lens(clip)(batch)
    directions = contributions[4].directions.dense()[:, 0]
    factors, means = {4: changed(len(directions))}, {4: torch.randn(len(directions))}
    scale = 100 / representation.norm()
    effects = {4: scale * means[4][:, None] * directions}
    linear = apply_edit(representation, contributions, factors, effects)
    real = scale * fold(clip, factors, means).encode_image(batch)
    torch.testing.assert_close(linear, real, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_means_are_those_of_all_images_whatever_the_batches(kind):
    clip = tiny_vit() if kind == "vit" else tiny_resnet(width=4)
    layers = (0, 1) if kind == "vit" else (4,)
    batch = images(5, clip)
    whole = mean_of_units(clip, [batch], layers)
    parts = mean_of_units(clip, [batch[:2], batch[2:]], layers)
    representation, contributions = Lens(clip, layers)(batch)
    for layer, mine in contributions.items():
        torch.testing.assert_close(whole[layer], parts[layer], rtol=1e-5, atol=1e-6)
        if kind == "vit":
            expected = mine.activations.double().mean(0)[0]  # the class token's
        else:
            norms = representation.double().norm(dim=1)[:, None]
            expected = (mine.scores[..., 0].double() * norms / 100).mean(0)
        torch.testing.assert_close(whole[layer].double(), expected, rtol=1e-5, atol=1e-6)


def test_without_a_class_token_means_are_over_all_tokens():
    clip = FAMILIES["SigLIP"]()
    batch, name = images(4, clip), clip.anatomy.mlp(1).path
    with record_activations(clip.visual, [name]) as tensors:
        clip.encode_image(batch)
    got = mean_of_units(clip, [batch], [1])[1]
    torch.testing.assert_close(got, tensors[name].float().mean((0, 1)), rtol=1e-5, atol=1e-6)


def test_a_class_token_is_written_the_same_on_average():
    clip = tiny_vit()
    layer, batch = clip.anatomy.readable[-1], images(5, clip)
    means = mean_of_units(clip, [batch], [layer])
    edited = fold(clip, {layer: changed(clip.neurons)}, means)
    written = []
    for model in (clip, edited):
        with record_activations(model.visual, [f"transformer.resblocks.{layer}.mlp"]) as tensors:
            model.encode_image(batch)
        written.append(tensors[f"transformer.resblocks.{layer}.mlp"].double())
    before, after = written
    assert (after - before)[:, 0].abs().max() > 1e-3, "each image's is changed"
    torch.testing.assert_close(after[:, 0].mean(0), before[:, 0].mean(0), rtol=1e-4, atol=1e-5)
    assert (after - before)[:, 1:].mean((0, 1)).abs().max() > 1e-3, "patches get a constant"


def test_means_of_no_images_are_refused():
    with pytest.raises(ValueError, match="the data set is empty"):
        mean_of_units(tiny_vit(), [], [1])
