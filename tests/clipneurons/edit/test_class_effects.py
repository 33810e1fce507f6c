from dataclasses import replace

import pytest
import torch

from clipneurons.dictionary.dictionary import Dictionary
from clipneurons.edit.class_effects import ClassEffects, places
from clipneurons.lens.lens import Lens
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_effects_on_classes_are_inner_products_of_centred_effects(kind):
    clip = tiny_vit(embed_dim=24, layers=4) if kind == "vit" else tiny_resnet(embed_dim=24, width=4)
    bundle = tiny_bundle(clip=clip)
    lens = Lens(clip, bundle.config.layers)
    classes = torch.nn.functional.normalize(torch.randn(3, 24), dim=1)
    batch = images(2, clip)
    embeddings, effects, _ = ClassEffects(bundle, lens, classes)(batch)
    representation, contributions = lens(batch)
    units = Dictionary(bundle)
    for image in range(2):
        expected = 100 * representation[image].double() / representation[image].double().norm()
        torch.testing.assert_close(embeddings[image].double(), expected, rtol=1e-5, atol=1e-4)
        for row in range(0, effects.shape[1], 7):
            ((layer, unit),) = places(bundle, [row])
            assert (layer, unit) == units.place(row)
            mine, effect = contributions[layer], torch.zeros(24, dtype=torch.float64)
            directions = mine.directions.dense(torch.tensor([unit]))[0].double()
            for head in range(len(directions)):
                effect += mine.scores[image, unit, head].double() * directions[head]
            effect -= bundle.layers[layer].means[unit].double()
            for label in range(3):
                product = float(effect @ classes[label].double())
                assert float(effects[image, row, label]) == pytest.approx(product, abs=1e-4)


def test_models_with_a_bias_of_logits_or_no_scale_have_no_softmax():
    clip = tiny_vit()
    assert clip.logit_scale == pytest.approx(float(clip.model.logit_scale.exp()))
    clip.model.logit_bias = torch.nn.Parameter(torch.zeros(()))
    assert clip.logit_scale is None
    assert replace(clip, model=torch.nn.Module()).logit_scale is None
