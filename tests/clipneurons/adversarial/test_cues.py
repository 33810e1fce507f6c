from dataclasses import replace

import pytest
import torch

from clipneurons.adversarial.cue_filter import CueFilter
from clipneurons.adversarial.cue_request import CueRequest
from clipneurons.adversarial.cue_scores import Units, dense_effects
from clipneurons.adversarial.cues import CLASS_TEMPLATES, find_cues
from clipneurons.adversarial.methods import (
    DENSE_EFFECTS,
    INDIRECT,
    METHODS,
    NO_CUES,
    RANDOM_NEURONS,
    RANDOM_WORDS,
    SECOND_ORDER,
    SIMILAR_WORDS,
    TESTED_LABELS,
)
from clipneurons.lens.indirect import indirect_effects, mean_activations
from clipneurons.models.hooks import record_activations
from clipneurons.statistics.indirect_decomposition import _first_component, indirect_decompositions
from clipneurons.text.embedding import embed_texts
from tests.helpers.models import images, tiny_resnet, tiny_vit
from tests.helpers.naive_adversarial import cue_scores, first_component, label_scores, whole_scores
from tests.helpers.tiny import tiny_bundle, tiny_labels

TRUE, FOOLED = "zebra", "whale"


@pytest.fixture(scope="module")
def clip():
    return tiny_vit()


@pytest.fixture(scope="module")
def bundle(clip):
    return tiny_bundle((0, 2), clip.neurons, clip.heads, clip.embed_dim, components=4)


def ask(bundle, clip, **request):
    return find_cues(bundle, clip, CueRequest(TRUE, FOOLED, **request))


def difference(clip):
    true, fooled = embed_texts(clip, [TRUE, FOOLED], CLASS_TEMPLATES)
    return fooled - true


@pytest.mark.parametrize("neurons", [1, 7, 10_000])
def test_scores_are_the_loops_of_the_paper(clip, bundle, neurons):
    cues = ask(bundle, clip, neurons=neurons, words=50)
    expected, _ = cue_scores(bundle.layers, bundle.texts, difference(clip), neurons)
    found = {cue.text: cue.score for cue in (*cues.positive, *cues.negative)}
    wanted = {bundle.texts[j]: score for j, score in expected.items() if score != 0}
    assert found == pytest.approx(wanted, abs=1e-5)
    assert [c.score for c in cues.positive] == sorted(c.score for c in cues.positive)[::-1]
    assert all(cue.score < 0 for cue in cues.negative)


def test_label_scores_are_a_loop_over_labels(clip, bundle):
    labelled = replace(bundle, labels=tiny_labels(bundle))
    cues = ask(labelled, clip, method=TESTED_LABELS, words=50, layers=[2])
    expected = label_scores(labelled, 2, difference(clip))
    found = {cue.text: cue.score for cue in (*cues.positive, *cues.negative)}
    wanted = {bundle.texts[j]: score for j, score in expected.items() if score != 0}
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    with pytest.raises(ValueError, match="whose labels were tested"):
        ask(bundle, clip, method=TESTED_LABELS)


def test_whole_effects_are_a_loop_over_all_units(clip, bundle):
    arrays = bundle.layers[2]
    shown = arrays.top_activating_images.clone()
    shown[:3, 2:] = -1  # effects on fewer images than the others
    bundle = replace(
        bundle, layers={**bundle.layers, 2: replace(arrays, top_activating_images=shown)}
    )
    cues = ask(bundle, clip, method=DENSE_EFFECTS, words=50)
    expected = whole_scores(bundle.layers, bundle.text_embeddings, difference(clip))
    found = {cue.text: cue.score for cue in (*cues.positive, *cues.negative)}
    assert found == pytest.approx(dict(zip(bundle.texts, expected, strict=True)), rel=1e-4)
    for cue in cues.positive[:2]:
        assert len(cue.neurons) == 10
        parts = [abs(neuron.share) for neuron in cue.neurons]
        assert parts == sorted(parts, reverse=True)
    everyone = dense_effects(bundle, list(bundle.layers))
    direction = difference(clip)
    parts = everyone.energy * (everyone.units.directions @ everyone.texts[0])
    total = float(parts @ (everyone.units.directions @ direction))
    assert total == pytest.approx(expected[0], rel=1e-4)


def test_the_neurons_behind_a_cue_add_up_to_its_score(clip, bundle):
    cues = ask(bundle, clip, layers=[2], neurons=8, words=50)
    _, chosen = cue_scores({2: bundle.layers[2]}, bundle.texts, difference(clip), 8)
    assert cues.positive
    for cue in (*cues.positive, *cues.negative):
        assert sum(neuron.share for neuron in cue.neurons) == pytest.approx(cue.score, abs=1e-5)
        assert {(n.layer, n.unit) for n in cue.neurons} <= set(chosen)


def test_random_neurons_change_with_the_seed_and_never_are_dead(clip, bundle):
    arrays = bundle.layers[0]
    directions = torch.zeros_like(arrays.directions)
    directions[3:5] = arrays.directions[3:5]
    only = replace(bundle, layers={0: replace(arrays, directions=directions)})
    cues = ask(only, clip, method=RANDOM_NEURONS, neurons=2, words=50)
    behind = {n.unit for cue in (*cues.positive, *cues.negative) for n in cue.neurons}
    assert behind == {3, 4}
    by_seed = [ask(bundle, clip, method=RANDOM_NEURONS, neurons=3, seed=seed) for seed in (0, 0, 1)]
    assert by_seed[0] == by_seed[1] != by_seed[2]


def test_similar_words_are_ordered_by_their_cosine(clip, bundle):
    cues = ask(bundle, clip, method=SIMILAR_WORDS, words=50)
    v = difference(clip)
    for cue in (*cues.positive, *cues.negative):
        row = bundle.text_embeddings[bundle.texts.index(cue.text)]
        assert cue.score == pytest.approx(
            sum(float(a * b) for a, b in zip(row, v, strict=True)), abs=1e-6
        )
        assert cue.neurons == ()


def test_controls(clip, bundle):
    assert ask(bundle, clip, method=NO_CUES).words == []
    drawn = {tuple(ask(bundle, clip, method=RANDOM_WORDS, seed=s).words) for s in range(5)}
    assert len(drawn) > 1


class Meaning:
    """A similarity that is told the synonyms."""

    name = "told"

    def synonyms(self, phrases, name):
        return [phrase in ("sailing boat",) for phrase in phrases]


@pytest.mark.parametrize(
    "method", [SECOND_ORDER, DENSE_EFFECTS, SIMILAR_WORDS, RANDOM_NEURONS, RANDOM_WORDS]
)
def test_every_method_obeys_the_same_rules(clip, bundle, method):
    texts = ["zebras", "a whale shark", "red car", "sailing boat", "leaf", "leaves", "sky", "pie"]
    bundle = replace(bundle, texts=texts)
    rules = CueFilter(
        Meaning(), blocked=("car",), drawable={t: t[:3] for t in texts if t != "pie"}.get
    )
    seen, dropped = set(), {}
    for seed in range(30):
        cues = ask(bundle, clip, method=method, words=50, rules=rules, seed=seed)
        seen |= {cue.text for cue in (*cues.positive, *cues.negative)}
        dropped |= dict(cues.dropped)
        assert not {"leaf", "leaves"} <= set(cues.words)
    assert seen <= {"leaf", "leaves", "sky"}
    reasons = {
        "zebras": "names zebra",
        "a whale shark": "names whale",
        "red car": "contains the blocked word car",
        "sailing boat": "means whale",
        "leaf": "repeats a stronger cue",
        "leaves": "repeats a stronger cue",
    }
    assert dropped.items() <= reasons.items()
    assert dropped


def test_as_many_words_as_asked_for(clip, bundle):
    many = ask(bundle, clip, words=50)
    few = ask(bundle, clip, words=2)
    assert few.positive == many.positive[:2]
    assert few.negative == many.negative[:2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"true_class": " "}, "class name is empty"),
        ({"target_class": "x" * 61}, "61 characters"),
        ({"target_class": "zebras"}, "two different classes"),
        ({"layers": [3]}, r"layers among \[0, 2\]"),
        ({"layers": []}, r"layers among \[0, 2\]"),
        ({"neurons": 0}, "at least 1 neuron"),
        ({"words": 0}, "1 to 200 words"),
        ({"method": "magic"}, "one of second-order"),
        ({"method": INDIRECT}, "needs `decompositions`"),
    ],
)
def test_wrong_requests_are_refused_by_name(clip, bundle, change, message):
    request = {"true_class": TRUE, "target_class": FOOLED} | change
    with pytest.raises(ValueError, match=message):
        find_cues(bundle, clip, CueRequest(**request))


def test_a_resnets_pairs_have_cues_too():
    clip = tiny_resnet()
    bundle = tiny_bundle((4,), clip.neurons, clip.heads, clip.embed_dim, kind="resnet")
    cues = ask(bundle, clip, words=50)
    expected, _ = cue_scores(bundle.layers, bundle.texts, difference(clip), 100)
    found = {cue.text: cue.score for cue in (*cues.positive, *cues.negative)}
    assert found == pytest.approx({bundle.texts[j]: s for j, s in expected.items() if s}, abs=1e-5)
    assert set(METHODS) >= {cues.method}


def test_indirect_directions_are_those_of_a_loop_over_neurons(clip, bundle):
    batch = images(10, clip)
    shares = []
    decomposed = indirect_decompositions(
        clip, batch, [1], bundle.text_embeddings[:, :12], 3, top=4, batch_size=32,
        progress=shares.append,
    )  # fmt: skip
    means = mean_activations(clip, [batch], 1)
    with record_activations(clip.visual, ["transformer.resblocks.1.mlp.gelu"]) as tensors:
        clip.encode_image(batch)
    activations = tensors["transformer.resblocks.1.mlp.gelu"]
    for neuron in (0, 17, clip.neurons - 1):
        far = [(activations[i, :, neuron] - means[:, neuron]).norm() for i in range(10)]
        top = sorted(range(10), key=lambda i: -far[i])[:4]
        rows = indirect_effects(clip, batch[top], 1, torch.tensor([neuron]), means)[:, 0]
        expected = first_component(rows)
        assert (decomposed[1].directions[neuron].double() - expected).norm() < 1e-3
    assert shares == sorted(shares)
    assert shares[-1] == 1
    units = Units.of(decomposed)
    assert len(units.directions) == clip.neurons


def test_indirect_cues_come_from_the_given_decompositions(clip, bundle):
    decomposed = indirect_decompositions(
        clip, images(6, clip), [0, 2], bundle.text_embeddings, 4, top=3
    )
    cues = ask(bundle, clip, method=INDIRECT, decompositions=decomposed, words=50)
    expected, _ = cue_scores(decomposed, bundle.texts, difference(clip), 100)
    found = {cue.text: cue.score for cue in (*cues.positive, *cues.negative)}
    assert found == pytest.approx({bundle.texts[j]: s for j, s in expected.items() if s}, abs=1e-5)


def test_indirect_effects_need_a_vit_and_enough_images(clip):
    with pytest.raises(ValueError, match="ViT"):
        indirect_decompositions(tiny_resnet(), torch.zeros(3, 3, 64, 64), [4], torch.eye(12), 2)
    with pytest.raises(ValueError, match="at least 16 images"):
        indirect_decompositions(clip, images(3, clip), [0], torch.eye(12), 2)


def test_a_neuron_without_effect_has_no_direction():
    rows = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    rows[1] = 0
    directions = _first_component(rows)
    assert directions.norm(dim=-1).tolist() == pytest.approx([1, 0, 1])
