"""A neuron's card as the page shows it."""

from dataclasses import replace
from html import escape
from urllib.parse import urlencode

import pytest

from clipneurons.dictionary.dictionary import Dictionary
from tabs.explore.view import Measured, card_html, heads_html
from tests.helpers.tiny import tiny_bundle, tiny_labels

NOTHING = Measured([], [], [], {})


def drawn(bundle, layer, unit):
    dictionary = Dictionary(bundle)
    return card_html("key", "b", dictionary, dictionary.bundle.unit(layer, unit), NOTHING)


def test_a_pairs_card_leads_to_the_neurons_other_heads():
    bundle = tiny_bundle(kind="resnet", neurons=6, heads=2)
    page = drawn(bundle, 4, 7)
    assert "Neuron 3 through all its heads" in page
    for group in Dictionary(bundle).sub_concepts(4, 7):
        assert f"unit={group.units[0]}" in page


def test_a_vits_card_has_no_heads():
    bundle = tiny_bundle()
    dictionary = Dictionary(bundle)
    assert heads_html("key", dictionary, dictionary.bundle.unit(1, 3)) == ""
    assert "all its heads" not in drawn(bundle, 1, 3)


def test_a_reliable_label_is_the_title_and_any_other_unit_is_a_number():
    bundle = tiny_bundle()
    assert "not tested" in drawn(bundle, 1, 3)
    labels = tiny_labels(bundle)
    q = labels[1].q_value.clone()
    q[3], q[4], q[5] = 0.001, 0.9, 0.001
    low = labels[1].simulation_low.clone()
    low[5] = 0.1
    mine = replace(labels[1], q_value=q, simulation_low=low)
    tested = replace(bundle, labels=labels | {1: mine})
    sure, unsure, weak = (drawn(tested, 1, unit) for unit in (3, 4, 5))
    score = float(labels[1].simulation_score[3])
    assert f"Label score <b>{score:.2f}</b></span> reliable" in sure
    assert f"--line:{float(labels[1].shuffled_line[3]):.4f}" in sure
    assert "cn-unsure" not in sure
    assert "not reliable" in unsure
    assert "predict it only a little" in weak
    images, words = "<figure", "Decomposition of its direction"
    assert all(page.index(images) < page.index(words) for page in (sure, unsure))
    first, second = tested.label(1, 3).texts
    assert f"<h2>{first}</h2>" in sure
    assert f"and less with {second}" in sure
    assert "<h2>Neuron 4</h2>" in unsure
    assert all(page.count(f"<summary>{words}") == 1 for page in (sure, unsure))


def test_words_lead_to_their_search_and_keep_the_unit_and_the_code_gives_the_view():
    bundle = tiny_bundle()
    page = drawn(bundle, 1, 3)
    text = bundle.phrases(1, 3, 1)[0][0]
    link = urlencode({"tab": "explore", "layer": 1, "unit": 3, "q": text, "bundle": "key"})
    assert escape(link) in page
    assert "cn.load_bundle(&#x27;b&#x27;)\nbundle.neuron(1, 3)" in page
    pairs = tiny_bundle(kind="resnet", neurons=6, heads=2)
    assert "bundle.neuron(4, 3, head=1)" in drawn(pairs, 4, 7)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_texts_are_shown_as_texts(kind):
    bundle = tiny_bundle(kind=kind)
    bundle.texts[:] = [f"<b>{text}</b>" for text in bundle.texts]
    page = drawn(bundle, 4 if kind == "resnet" else 1, 3)
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
