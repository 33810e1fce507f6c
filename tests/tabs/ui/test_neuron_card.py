"""A neuron's card as the page shows it."""

import pytest

from clipneurons.explore.dictionary import Dictionary
from tabs.ui.neuron_card import card_html, heads_html
from tests.helpers.tiny import tiny_bundle


def drawn(bundle, layer, unit):
    dictionary = Dictionary(bundle)
    return card_html("key", dictionary, dictionary.card(layer, unit), None, [])


def test_a_pairs_card_leads_to_the_neurons_other_heads():
    bundle = tiny_bundle(kind="resnet", neurons=6, heads=2)
    page = drawn(bundle, 4, 7)
    assert "Neuron 3 through all its heads" in page
    for group in Dictionary(bundle).sub_concepts(4, 7):
        assert f"unit={group.units[0]}" in page


def test_a_vits_card_has_no_heads():
    bundle = tiny_bundle()
    dictionary = Dictionary(bundle)
    assert heads_html("key", dictionary, dictionary.card(1, 3)) == ""
    assert "all its heads" not in drawn(bundle, 1, 3)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_texts_are_shown_as_texts(kind):
    bundle = tiny_bundle(kind=kind)
    bundle.texts[:] = [f"<b>{text}</b>" for text in bundle.texts]
    page = drawn(bundle, 4 if kind == "resnet" else 1, 3)
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
