from dataclasses import replace

import pytest
import torch

from tests.helpers.tiny import tiny_bundle, tiny_labels


@pytest.fixture(scope="module")
def bundle():
    bare = tiny_bundle(layers=(1, 2))
    return replace(bare, labels=tiny_labels(bare), texts=["<b>cat</b>", *bare.texts[1:]])


def test_a_neuron_is_what_the_bundle_holds_of_it(bundle):
    neuron, arrays = bundle.neuron(2, 3), bundle.layers[2]
    assert (neuron.layer, neuron.unit, neuron.neuron, neuron.head) == (2, 3, 3, None)
    assert neuron.label == bundle.label(2, 3)
    assert list(neuron.decomposition) == bundle.phrases(2, 3, 12)
    assert neuron.explained_variance == pytest.approx(float(arrays.explained_variance[3]))
    assert [image.index for image in neuron.images] == arrays.top_activating_images[3].tolist()
    assert neuron.images[0].thumbnail.size == (16, 16)
    nearest = neuron.neighbours[0]
    cosine = bundle.layers[nearest.layer].directions[nearest.unit] @ arrays.directions[3]
    assert nearest.cosine == pytest.approx(float(cosine), abs=1e-5)
    every = torch.cat([bundle.directions[1], bundle.directions[2]]) @ arrays.directions[3]
    assert nearest.cosine == pytest.approx(float(every.topk(2).values[1]), abs=1e-5)


def test_it_prints_and_draws_itself_and_escapes_texts(bundle):
    neuron = bundle.neuron(1, 0)
    assert repr(neuron).startswith("Layer 1, neuron 0: ")
    assert f"simulation score {neuron.label.simulation_score:.2f}" in repr(neuron)
    drawn = "".join(bundle.neuron(1, unit)._repr_html_() for unit in range(8))
    assert "&lt;b&gt;cat" in drawn
    assert "<b>cat" not in drawn
    assert drawn.count("data:image/png") == sum(len(bundle.neuron(1, n).images) for n in range(8))
    assert "http" not in drawn


def test_its_data_are_json_without_pixels(bundle):
    data = bundle.neuron(1, 0).to_dict()
    assert data["images"][0].keys() == {"index", "norm", "caption"}
    assert data["decomposition"][0] == dict(
        zip(("text", "coefficient"), bundle.phrases(1, 0)[0], strict=True)
    )
    assert data["label"]["texts"] == bundle.label(1, 0).texts
    assert data["weights_sha256"] == bundle.config.weights_sha256


def test_a_dead_neuron_says_so():
    bundle = tiny_bundle(layers=(1,))
    bundle.layers[1].directions[5] = 0
    assert bundle.neuron(1, 5).neighbours == ()
    assert repr(bundle.neuron(1, 5)).endswith("dead, its effect is the same on every image")


def test_padding_is_no_image():
    bundle = tiny_bundle(kind="resnet", neurons=6, heads=2)
    bundle.layers[4].top_activating_images[7, 4:] = -1
    pair = bundle.unit(4, 7)
    assert (pair.neuron, pair.head, len(pair.images)) == (3, 1, 4)
    mean = bundle.layers[4].top_norms[7, :4].mean()
    assert pair.mean_top_norm == pytest.approx(float(mean))
    with pytest.raises(ValueError, match="unit 12: layer 4 has units 0 to 11"):
        bundle.unit(4, 12)


def test_a_pair_of_a_resnet_has_a_head():
    bundle = tiny_bundle(kind="resnet", neurons=4, heads=3)
    pair = bundle.neuron(4, 2, head=1)
    assert (pair.unit, pair.place) == (7, "Layer 4, neuron 2, head 1")
    with pytest.raises(ValueError, match=r"head None: expected 0 to 2, a ResNet's units are pairs"):
        bundle.neuron(4, 2)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((9, 0), "layer 9: expected one of the bundle's layers 1, 2"),
        ((1, 16), "neuron 16: layer 1 has neurons 0 to 15"),
        ((1, -1), "neuron -1: layer 1 has neurons 0 to 15"),
        ((1, 0, 0), "head 0: neurons of a ViT have no heads"),
    ],
)
def test_a_place_that_is_not_there_is_named_with_those_that_are(bundle, place, message):
    with pytest.raises(ValueError, match=message):
        bundle.neuron(*place)
