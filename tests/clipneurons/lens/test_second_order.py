import pytest
import torch

from clipneurons.lens.lens import Lens
from clipneurons.lens.second_order import SecondOrderEffects, class_attention
from clipneurons.models.hooks import record_activations
from tests.helpers.models import images, official_clip, official_numbers, tiny_resnet, tiny_vit
from tests.helpers.naive import NaiveViT

MODELS = {
    "gelu": {},
    "quick_gelu": {"quick_gelu": True},
    "other patches": {"patch_size": 16, "image_size": 48, "seed": 3},
    "other heads": {"head_width": 4, "width": 20, "seed": 4},
    "no ln_pre": {"no_ln_pre": True, "seed": 5},
    "not square": {"image_size": (16, 32), "seed": 6},
}


def relative(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("shared_bias", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_effects_are_the_loops_of_the_formula(name, shared_bias):
    clip = tiny_vit(**MODELS[name])
    batch = images(2, clip)
    representation, contributions = Lens(clip, (0, 1, 2), shared_bias=shared_bias)(batch)
    neurons = torch.tensor([0, 7, clip.neurons - 1])
    for index, image in enumerate(batch):
        naive = NaiveViT(clip, image)
        assert relative(representation[index].double(), naive.representation) < 1e-5
        for layer, mine in contributions.items():
            dense = mine.dense(neurons)[index].double()
            expected = torch.stack(
                [naive.second_order_effect(layer, n, shared_bias) for n in neurons.tolist()]
            )
            assert relative(dense, expected) < 1e-5


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_effects_are_those_of_the_published_code(layer):
    numbers, _ = official_numbers()
    clip = official_clip()
    lens = Lens(clip, (layer,), shared_bias=True)
    representation, contributions = lens(numbers["images"].float())
    effects = contributions[layer].dense(torch.arange(clip.neurons))
    assert relative(representation, numbers["representation"]) < 1e-5
    assert relative(effects, numbers[f"layer{layer}.phi"]) < 1e-5


def test_one_pass_over_all_layers_gives_what_single_layers_give():
    clip = tiny_vit()
    batch = images(3, clip)
    _, together = Lens(clip, (2, 0, 1, 1))(batch)
    assert list(together) == [0, 1, 2]
    for layer in together:
        _, alone = Lens(clip, (layer,))(batch)
        assert torch.allclose(together[layer].scores, alone[layer].scores, atol=1e-6)
        assert torch.equal(together[layer].directions.inner, alone[layer].directions.inner)
        assert torch.equal(together[layer].directions.outer, alone[layer].directions.outer)


def test_effects_do_not_depend_on_the_batch():
    clip = tiny_vit()
    batch = images(6, clip)
    lens = Lens(clip, (1,))
    whole = lens(batch)[1][1].scores
    parts = torch.cat([lens(part)[1][1].scores for part in batch.split(4)])
    assert torch.allclose(whole, parts, rtol=1e-5, atol=1e-6)


def test_class_attention_is_that_of_the_model():
    clip = tiny_vit()
    block = clip.visual.transformer.resblocks[2]
    with record_activations(clip.visual, ["transformer.resblocks.2.ln_1"]) as tensors:
        clip.encode_image(images(2, clip))
    tokens = tensors["transformer.resblocks.2.ln_1"]
    _, expected = block.attn(tokens, tokens, tokens, average_attn_weights=False)
    assert (
        relative(class_attention(clip.anatomy.blocks[2].attention, tokens), expected[:, :, 0])
        < 1e-5
    )


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((3,), "last block .* Expected layers 0 to 2"),
        ((0, 4), "layer 4 is out of range"),
        ((-1,), "layer -1 is out of range"),
        ((), "no layer given"),
    ],
)
def test_layers_without_effects_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        Lens(tiny_vit(), layers)


def test_images_of_another_size_are_refused():
    clip = tiny_vit()
    with pytest.raises(ValueError, match="expected preprocessed images of"):
        Lens(clip, (1,))(torch.zeros(1, 3, 24, 24))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(value):
    clip = tiny_vit()
    batch = images(3, clip)
    batch[1, 0, 3, 3] = value
    with pytest.raises(ValueError, match=r"image 1 of the batch .* \(1 of 3 do\)"):
        Lens(clip, (0,))(batch)


def test_a_resnet_is_told_its_own_lens():
    with pytest.raises(ValueError, match="see `Lens`"):
        SecondOrderEffects(tiny_resnet(), (1,))
