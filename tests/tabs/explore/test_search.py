"""Search results: what is weaker than chance, and by how far labels can be trusted."""

from dataclasses import replace

import pytest

from clipneurons.dictionary.search import DIRECTION, MATCH, SIMULATION_SCORE
from tabs.explore.search import (
    RELIABLE,
    results_html,
    search,
    suggestions,
    try_html,
    vocabulary_html,
)
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle, tiny_labels


@pytest.fixture
def session(tmp_path):
    """Of two layers the second has reliable labels."""
    bundle = tiny_bundle()
    labels = tiny_labels(bundle)
    for layer, q in ((1, 1.0), (2, 0.0)):
        labels[layer] = replace(labels[layer], q_value=labels[layer].q_value * 0 + q)
    return BundleSession("b", tmp_path, replace(bundle, labels=labels))


@pytest.fixture
def untested(tmp_path):
    return BundleSession("b", tmp_path, tiny_bundle())


def hits(session, order):
    return search(BundleRegistry([session]), "b", "cat", DIRECTION, 8, order)


def test_hits_carry_their_label_and_its_score(session, untested):
    for hit in hits(session, MATCH)["toward"]:
        label = session.bundle.label(hit["layer"], hit["unit"])
        assert hit["simulation_score"] == label.simulation_score
        assert hit["reliable"] == label.reliable
        assert bool(hit["label"]) == label.reliable
    assert {hit["reliable"] for hit in hits(untested, MATCH)["toward"]} == {None}


def test_orders(session, untested):
    plain, trusted = hits(session, MATCH)["toward"], hits(session, SIMULATION_SCORE)["toward"]
    assert [hit["score"] for hit in plain] == sorted((h["score"] for h in plain), reverse=True)
    values = [hit["simulation_score"] for hit in trusted]
    assert values == sorted(values, reverse=True)
    assert {h["unit"] for h in plain} == {h["unit"] for h in trusted}
    only = hits(session, RELIABLE)
    assert {hit["layer"] for hit in plain} == {1, 2}
    assert {hit["layer"] for hit in only["toward"] + only["against"]} == {2}
    with pytest.raises(ValueError, match="not tested"):
        hits(untested, SIMULATION_SCORE)
    with pytest.raises(ValueError, match="order='luck': expected 'match'"):
        hits(session, "luck")


def test_what_random_directions_reach_stands_behind_a_divider(untested):
    page = results_html(untested, "cat", DIRECTION)
    line = untested.dictionary.chance_line
    found = hits(untested, MATCH)["toward"]
    weak = [hit for hit in found if hit["score"] < line]
    assert weak, "only a few of 32 random directions are near one text"
    behind = page.index("Weaker than chance")
    for hit in found:
        place = page.index(f"{hit['layer']} · {hit['unit']}</a>")
        assert (place > behind) == (hit in weak)


def test_units_whose_reliable_label_names_the_query_come_first(session, untested):
    bundle = session.bundle
    text = bundle.label(2, 3).texts[0]
    found = search(BundleRegistry([session]), "b", text, DIRECTION)
    assert {(hit["layer"], hit["unit"]) for hit in found["labelled"]} >= {(2, 3)}
    for hit in found["labelled"]:
        label = bundle.label(hit["layer"], hit["unit"])
        assert label.reliable
        assert hit["score"] <= label.simulation_score
    page = results_html(session, text, DIRECTION)
    assert page.index("Their label names it") < page.index("Write toward it")
    assert search(BundleRegistry([untested]), untested.key, text, DIRECTION)["labelled"] == []
    assert "Their label names it" not in results_html(untested, text, DIRECTION)


def test_examples_are_what_trusted_labels_say(session):
    dictionary = session.dictionary
    places = [dictionary.place(row) for row in dictionary.most_reliable(100)]
    assert {layer for layer, _ in places} == {2}
    words = {session.bundle.label(layer, unit).positive[0] for layer, unit in places}
    found = suggestions(session)
    assert set(found[:-1]) <= words
    assert found[0] in try_html(session)


def test_of_a_word_list_only_things_are_offered(tmp_path):
    """Untested labels, no classes, and a pool in which scraps of words are what units say best."""
    bundle = tiny_bundle()
    texts = ["dog", "jen", "wouldnt", "a boat", *bundle.texts[4:]]
    config = replace(bundle.config, data=replace(bundle.config.data, class_names=()))
    bundle = replace(bundle, texts=texts, config=config)
    for row in (0, 1, 3):  # units that say "dog", "jen" and "a boat" as clearly as can be
        bundle.layers[1].directions[row] = bundle.text_embeddings[row]
    found = suggestions(BundleSession("b", tmp_path, bundle))
    assert set(found) == {"dog", "a boat", f"{found[0]}, -{found[1]}"}


def test_one_thing_is_offered_by_one_name(tmp_path):
    bundle = tiny_bundle()
    texts = ["cat", "a cat", *bundle.texts[2:]]
    config = replace(bundle.config, data=replace(bundle.config.data, class_names=("cat", "dog")))
    bundle = replace(bundle, texts=texts, config=config)
    for row in (0, 1):
        bundle.layers[1].directions[row] = bundle.text_embeddings[row]
    found = suggestions(BundleSession("b", tmp_path, bundle))
    assert len({"cat", "a cat"} & set(found)) == 1


def test_classes_are_offered_where_a_neuron_points_at_them(tmp_path):
    bundle = tiny_bundle()  # its classes are cat and dog
    bundle.layers[1].directions[0] = bundle.text_embeddings[0]
    session = BundleSession("b", tmp_path, bundle)
    assert suggestions(session)[0] == "cat"
    assert "red car" not in suggestions(session)


def test_the_vocabulary_is_offered_while_a_query_is_typed(untested):
    assert vocabulary_html(untested, "c") == try_html(untested)
    page = vocabulary_html(untested, "dog, -ca")
    assert page.startswith('<div class="cn-try"><span>In the vocabulary</span>')
    assert "q=dog%2C+-cat&" in page
    assert "red car" in page, "a later word may go on, too"
    assert "house</a>" in vocabulary_html(untested, "hou"), "without its article"
    assert "q=a+house" in vocabulary_html(untested, "hou")
    assert vocabulary_html(untested, "xyzzy") == ""
