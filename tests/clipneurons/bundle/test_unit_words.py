from dataclasses import replace

import pytest

from clipneurons.bundle.unit_words import neuron_and_head, plain, signed, signed_words, unit_name
from tests.helpers.tiny import tiny_bundle


def test_what_a_unit_writes_against_has_a_minus():
    bundle = tiny_bundle()
    layer, arrays = next(iter(bundle.layers.items()))
    coefficients = arrays.coefficients.clone()
    coefficients[3, :3] = coefficients.new_tensor([2.0, -1.0, 0.5])
    arrays = replace(arrays, coefficients=coefficients)
    bundle = replace(bundle, layers={**bundle.layers, layer: arrays})
    first, second, third = (bundle.texts[i] for i in arrays.indices[3, :3].tolist())
    assert signed_words(bundle, layer, 3, 3) == [first, f"−{second}", third]
    assert signed("a tree", 0.1) == "a tree"


@pytest.mark.parametrize(
    ("text", "name"),
    [("a tennis", "tennis"), ("An apple", "apple"), ("the sea", "sea"), ("animal", "animal"),
     ("a", "a"), ("thesis", "thesis"), ("a red car", "red car"), ("−an ant", "−ant")],
)  # fmt: skip
def test_a_name_has_no_article(text, name):
    assert plain(text) == name


@pytest.mark.parametrize(
    ("unit", "heads", "name"),
    [
        (0, 1, "neuron 0"),
        (7, 1, "neuron 7"),
        (0, 4, "neuron 0, head 0"),
        (7, 4, "neuron 1, head 3"),
    ],
)
def test_a_unit_is_a_neuron_or_a_neuron_and_a_head(unit, heads, name):
    assert unit_name(*neuron_and_head(unit, heads)) == name
