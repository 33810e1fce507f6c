"""The paper's weights of concepts against its sum."""

import pytest
import torch

from clipneurons.concepts.concepts import ConceptReader
from clipneurons.lens.lens import Lens
from research.concepts.paper_weights import paper_weights
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.mark.parametrize("make", [tiny_vit, tiny_resnet])
def test_weights_are_the_papers_sum(make):
    clip = make()
    layers = (1, 2) if clip.kind == "vit" else (4,)
    bundle = tiny_bundle(
        layers=layers, neurons=clip.neurons, heads=clip.heads, embed=clip.embed_dim,
        kind=clip.kind,
    )  # fmt: skip
    reader = ConceptReader(Lens(clip, layers), bundle)
    _, effects = reader(images(3, clip))
    for layer, arrays in bundle.layers.items():
        arrays.percentile.copy_(effects[layer].norms.median(0).values)
    _, effects = reader(images(3, clip))
    weights = paper_weights(bundle, effects)
    expected = torch.zeros_like(weights, dtype=torch.float64)
    for layer, of_layer in effects.items():
        arrays = bundle.layers[layer]
        for image, unit in of_layer.activated.nonzero().tolist():
            for text, gamma in zip(
                arrays.indices[unit].tolist(), arrays.coefficients[unit], strict=True
            ):
                expected[image, text] += float(gamma) * float(of_layer.norms[image, unit])
    assert expected.abs().max() > 0
    torch.testing.assert_close(weights.double(), expected, rtol=1e-4, atol=1e-4)
