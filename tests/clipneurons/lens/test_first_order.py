import pytest
import torch

from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.models.hooks import record_activations
from tests.clipneurons.lens.test_second_order import MODELS, relative
from tests.helpers.models import images, in_precision, official_clip, tiny_resnet, tiny_vit
from tests.helpers.naive import NaiveViT


@pytest.mark.parametrize("name", MODELS)
def test_terms_are_the_loops_and_sum_to_the_embedding(name):
    clip = tiny_vit(**MODELS[name])
    batch = images(2, clip)
    representation, effects = FirstOrderLens(clip)(batch)
    assert relative(effects.sum(), representation) < 1e-5
    assert relative(effects.sum(), clip.encode_image(batch)) < 1e-5
    naive = NaiveViT(clip, batch[1])
    for layer, values in enumerate(naive.blocks):
        expected = torch.stack([naive.first_order_effect(v) for v in values["class_heads"]])
        assert relative(effects.heads[1, layer].double(), expected) < 1e-5
        expected = naive.first_order_effect(values["class_mlp"])
        assert relative(effects.mlps[1, layer].double(), expected) < 1e-5
    expected = naive.first_order_effect(naive.start)
    assert relative(effects.embedding[1].double(), expected) < 1e-5


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_terms_sum_to_the_embedding_in_half_precision(dtype, bound):
    representation, effects = FirstOrderLens(in_precision(tiny_vit(), dtype))(images(2, tiny_vit()))
    assert relative(effects.sum(), representation) < bound


@pytest.mark.parametrize("layers", [None, (2, 3)])
def test_shares_of_tokens_sum_to_the_effects_of_the_heads(layers):
    clip = official_clip()
    lens = FirstOrderLens(clip)
    vectors = torch.randn(3, clip.embed_dim)
    with record_activations(clip.visual, lens.recorded) as tensors:
        clip.encode_image(images(2, clip))
    heads = lens.read(tensors).heads
    heads = heads if layers is None else heads[:, list(layers)]
    shares = lens.token_scores(tensors, vectors, layers)
    assert shares.shape == (2, 17, 3)
    assert relative(shares.sum(1), heads.sum((1, 2)) @ vectors.T) < 1e-5


def test_a_resnet_is_refused():
    with pytest.raises(ValueError, match="expected a ViT"):
        FirstOrderLens(tiny_resnet())
