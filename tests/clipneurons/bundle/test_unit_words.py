from dataclasses import replace

import pytest
import torch

from clipneurons.bundle.unit_words import neuron_and_head, plain, signed, signed_words, unit_name
from tests.helpers.tiny import tiny_bundle, tiny_labels


def test_a_units_name_is_its_reliable_label_without_articles():
    bundle = tiny_bundle()
    labels = tiny_labels(bundle)
    q = torch.full_like(labels[1].q_value, 0.01)
    q[4] = 0.5
    texts = [f"a {text}" for text in bundle.texts]
    bundle = replace(bundle, texts=texts, labels=labels | {1: replace(labels[1], q_value=q)})
    first, second = (plain(texts[i]) for i in labels[1].indices[3].tolist())
    assert signed_words(bundle, 1, 3) == [first, f"−{second}"]
    assert signed_words(bundle, 1, 4) == []
    assert signed_words(replace(bundle, labels={}), 1, 3) == []
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
