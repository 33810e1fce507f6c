"""Looking things up in a bundle: searches, cards, meanings, clusters."""

import time
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.bundle.thumbnails import Examples
from clipneurons.dictionary.dictionary import Dictionary, Phrase, parse_query
from tests.helpers.tiny import tiny_bundle, tiny_labels


@pytest.fixture(scope="module")
def dictionary():
    return Dictionary(tiny_bundle())


def test_query_is_split_at_commas_and_minus_means_unwanted():
    assert parse_query(" boat ,  -deep  water, −sky,") == [
        Phrase("boat"), Phrase("deep water", -1), Phrase("sky", -1),
    ]  # fmt: skip
    assert parse_query("x-ray") == [Phrase("x-ray")]


@pytest.mark.parametrize("query", ["", " , ", "-", "−,-"])
def test_query_without_words_is_explained(query):
    with pytest.raises(ValueError, match="Type what to look for"):
        parse_query(query)


def test_search_by_direction_agrees_with_a_loop(dictionary):
    bundle = dictionary.bundle
    cat, dog = bundle.text_embeddings[0].double(), bundle.text_embeddings[1].double()
    wanted = cat - dog
    expected = {}
    for layer, arrays in bundle.layers.items():
        for unit, direction in enumerate(arrays.directions.double()):
            expected[layer, unit] = float(direction @ wanted / wanted.norm())
    scores = dictionary.cosines(dictionary.embed(parse_query("CAT, -dog")))
    toward, against = dictionary.strongest(scores, top=40)
    found = {(hit.layer, hit.unit): hit.score for hit in toward + against}
    assert found == pytest.approx(expected, abs=1e-5)
    best = max(expected, key=expected.get)
    assert (toward[0].layer, toward[0].unit) == best
    assert (against[0].layer, against[0].unit) == min(expected, key=expected.get)


def test_words_outside_the_pool_are_embedded_and_scaled_to_unit_norm(dictionary):
    vector = torch.randn(24, generator=torch.Generator().manual_seed(1))
    asked = []

    def embed(words):
        asked.extend(words)
        return vector[None] * 3

    got = dictionary.embed(parse_query("cat, a lighthouse"), embed)
    expected = normalize(vector, dim=0) + dictionary.bundle.text_embeddings[0]
    assert asked == ["a lighthouse"]
    torch.testing.assert_close(got, normalize(expected, dim=0))


def test_words_outside_the_pool_need_a_model(dictionary):
    with pytest.raises(ValueError, match=r"lighthouse.*no model"):
        dictionary.embed(parse_query("a lighthouse"))


def test_phrases_that_cancel_out_are_refused(dictionary):
    with pytest.raises(ValueError, match="cancel out"):
        dictionary.embed(parse_query("cat, -cat"))


def test_search_by_coefficient_sums_the_texts_with_the_word(dictionary):
    bundle = dictionary.bundle
    scores = dictionary.coefficient_scores(parse_query("car, -sky"))
    red_car, night_sky = bundle.texts.index("red car"), bundle.texts.index("night sky")
    for layer, arrays in bundle.layers.items():
        for unit in range(len(arrays.indices)):
            pairs = zip(
                arrays.indices[unit].tolist(), arrays.coefficients[unit].tolist(), strict=True
            )
            gamma = dict(pairs)
            expected = gamma.get(red_car, 0) - gamma.get(night_sky, 0)
            assert scores[dictionary.row(layer, unit)].item() == pytest.approx(expected)


def test_coefficient_search_matches_whole_words_only(dictionary):
    with pytest.raises(ValueError, match="No text of this bundle's pool contains"):
        dictionary.coefficient_scores(parse_query("ca"))


def test_the_pool_goes_on_as_words_begin(dictionary):
    assert dictionary.pool.going_on("CA", 5) == ["cat", "red car"], "short ones first"
    assert dictionary.pool.going_on("ca", 1) == ["cat"]
    assert dictionary.pool.going_on("ar", 5) == [], "at the beginning of a word only"


def test_pairs_of_a_neuron_are_grouped_by_what_they_say():
    """Neuron 2 of a ResNet with 4 heads: two heads say one thing, one another, one is dead."""
    bundle = tiny_bundle(kind="resnet", neurons=5, heads=4, top_k=3)
    arrays = bundle.layers[4]
    directions, norms, images = (
        a.clone() for a in (arrays.directions, arrays.top_norms, arrays.top_activating_images)
    )
    insect, clothing = torch.linalg.qr(torch.randn(24, 2))[0].T
    near = normalize(insect + 0.3 * clothing, dim=0)
    directions[8:12] = torch.stack([insect, clothing, near, torch.zeros(24)])
    norms[8:12] = torch.tensor([[3.0, 2, 1], [5, 2, 1], [4, 2, 0], [0, 0, 0]])
    images[8:12] = torch.tensor([[7, 1, 2], [3, 4, 5], [1, 7, -1], [-1, -1, -1]])
    arrays = replace(arrays, directions=directions, top_norms=norms, top_activating_images=images)
    book = Dictionary(replace(bundle, layers={4: arrays}))
    found = book.sub_concepts(4, 9, phrases=2)
    assert [c.units for c in found] == [(10, 8), (9,)], "stronger pairs and groups first"
    assert [c.heads for c in found] == [(2, 0), (1,)]
    assert [c.share for c in found] == pytest.approx([34 / 64, 30 / 64])
    assert found[0].images == [(1, 6.0), (7, 5.0), (2, 1.0)]
    assert found[0].phrases == book.bundle.phrases(4, 10, 2)
    assert book.sub_concepts(4, 11) == book.sub_concepts(4, 8), "the page of any of its pairs"
    assert len(book.sub_concepts(4, 8, similar=0.99)) == 3


def test_neurons_of_a_vit_have_no_sub_concepts(dictionary):
    assert dictionary.sub_concepts(1, 3) == []


@pytest.mark.parametrize(("layer", "unit"), [(9, 0), (1, 16), (1, -1)])
def test_places_that_do_not_exist_are_named(dictionary, layer, unit):
    with pytest.raises(ValueError, match=r"has no layer 9|units 0 to 15"):
        dictionary.row(layer, unit)


def test_effect_on_a_class_is_the_strong_effect_along_its_text(dictionary):
    classes = torch.randn(3, 24, generator=torch.Generator().manual_seed(2))
    arrays = dictionary.bundle.layers[1]
    got = dictionary.effect_on(1, 5, classes)
    size = arrays.top_norms[5].mean()
    expected = [size * (arrays.directions[5] @ c) / c.norm() for c in classes]
    torch.testing.assert_close(got, torch.stack(expected))


@pytest.fixture(scope="module")
def tested():
    """A dictionary whose labels were tested: layer 1 has three reliable ones."""
    bundle = tiny_bundle()
    labels = tiny_labels(bundle)
    q = torch.full((16,), 0.5)
    q[[3, 5, 9]] = 0.01
    labels[1] = replace(labels[1], q_value=q)
    labels[2] = replace(labels[2], q_value=torch.ones(16))
    return Dictionary(replace(bundle, labels=labels))


def test_the_most_reliable_unit_is_the_one_to_open_with(tested, dictionary):
    low = tested.bundle.labels[1].simulation_low
    best = max((3, 5, 9), key=lambda unit: float(low[unit]))
    assert tested.interesting() == (1, best)
    kept = set(tested.bundle.layers[1].top_activating_images[best].tolist())
    others = {image: b"" for image in tested.bundle.examples if image not in kept}
    without = replace(tested.bundle, examples=Examples.build(others, {}))
    second, third = sorted((3, 5, 9), key=lambda unit: -float(low[unit]))[1:]
    assert kept.isdisjoint(without.examples)
    assert Dictionary(without).interesting() in ((1, second), (1, third)), "the best has none"
    many = tested.bundle.layers[1].top_activating_images[second].tolist()
    few = replace(tested.bundle, examples=Examples.build(dict.fromkeys(many, b""), {}))
    assert 0 < len(kept & set(many)) < 4 <= len(many)
    assert Dictionary(few).interesting() == (1, second), "the best has few pictures to show"
    bare = replace(tested.bundle, examples=Examples.build({}, {}))
    assert Dictionary(bare).interesting() == (1, best)
    assert len(tested.most_reliable(10)) == 3
    assert dictionary.most_reliable(10) == []


def test_random_directions_stay_below_the_chance_line(dictionary):
    drawn = torch.randn(2000, 24, generator=torch.Generator().manual_seed(9))
    best = (normalize(drawn, dim=1) @ dictionary.directions.T).amax(1)
    assert float((best < dictionary.chance_line).float().mean()) == pytest.approx(0.95, abs=0.02)


def test_search_is_fast_enough_to_feel_instant():
    bundle = tiny_bundle()
    big = Dictionary(bundle)
    big.directions = normalize(torch.randn(9216, 512), dim=1)
    vector = normalize(torch.randn(512), dim=0)
    start = time.perf_counter()
    for _ in range(5):
        big.cosines(vector).topk(12)
    assert (time.perf_counter() - start) / 5 < 0.5  # 50 ms on an idle machine; CI is shared


def test_without_labels_the_page_opens_on_the_clearest_direction_of_which_images_are_kept():
    bundle = tiny_bundle()
    explained = {
        (layer, unit): float(value)
        for layer, arrays in bundle.layers.items()
        for unit, value in enumerate(arrays.explained_variance)
    }
    best = max(explained, key=explained.get)
    assert Dictionary(bundle).interesting() == best
    kept = bundle.layers[1].top_activating_images[2].tolist()
    few = replace(bundle, examples=Examples.build(dict.fromkeys(kept[:4], b""), {}))
    layer, unit = Dictionary(few).interesting()
    assert len(set(kept[:4]) & set(few.layers[layer].top_activating_images[unit].tolist())) == 4
