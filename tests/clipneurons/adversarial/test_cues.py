from dataclasses import replace

import pytest
import torch

from clipneurons.adversarial.cue_request import (
    NO_CUES,
    SECOND_ORDER,
    SIMILAR_WORDS,
    CueFilter,
    CueRequest,
    check_name,
)
from clipneurons.adversarial.cues import CLASS_TEMPLATES, TextScores, find_cues
from clipneurons.text.embedding import embed_texts
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.naive_adversarial import cue_scores
from tests.helpers.tiny import tiny_bundle

TRUE, TARGET = "zebra", "whale"


@pytest.fixture(scope="module")
def clip():
    return tiny_vit()


@pytest.fixture(scope="module")
def bundle(clip):
    return tiny_bundle((0, 2), clip.neurons, clip.heads, clip.embed_dim, components=4)


def ask(bundle, clip, scorer=None, **request):
    return find_cues(bundle, clip, CueRequest(TRUE, TARGET, **request), scorer=scorer)


def difference(clip):
    true, target = embed_texts(clip, [TRUE, TARGET], CLASS_TEMPLATES)
    return target - true


@pytest.mark.parametrize("neurons", [1, 7, 10_000])
def test_scores_are_the_loops_of_the_paper(clip, bundle, neurons):
    cues = ask(bundle, clip, neurons=neurons, count=50)
    expected, _ = cue_scores(bundle.layers, bundle.texts, difference(clip), neurons)
    found = {cue.text: cue.score for cue in (*cues.positive, *cues.negative)}
    wanted = {bundle.texts[j]: score for j, score in expected.items() if score != 0}
    assert found == pytest.approx(wanted, abs=1e-5)
    assert [c.score for c in cues.positive] == sorted(c.score for c in cues.positive)[::-1]
    assert all(cue.score < 0 for cue in cues.negative)


def test_the_units_behind_a_cue_add_up_to_its_score(clip, bundle):
    cues = ask(bundle, clip, layers=[2], neurons=8, count=50)
    _, chosen = cue_scores({2: bundle.layers[2]}, bundle.texts, difference(clip), 8)
    assert cues.positive
    for cue in (*cues.positive, *cues.negative):
        assert sum(unit.share for unit in cue.units) == pytest.approx(cue.score, abs=1e-5)
        assert {(n.layer, n.unit) for n in cue.units} <= set(chosen)


def test_similar_words_are_ordered_by_their_cosine(clip, bundle):
    cues = ask(bundle, clip, method=SIMILAR_WORDS, count=50)
    v = difference(clip)
    for cue in (*cues.positive, *cues.negative):
        row = bundle.text_embeddings[bundle.texts.index(cue.text)]
        assert cue.score == pytest.approx(
            sum(float(a * b) for a, b in zip(row, v, strict=True)), abs=1e-6
        )
        assert cue.units == ()


def test_no_cues(clip, bundle):
    assert ask(bundle, clip, method=NO_CUES).texts == []


class Meaning:
    """A similarity that is told the synonyms."""

    name = "told"

    def synonyms(self, phrases, name):
        return [phrase in ("sailing boat",) for phrase in phrases]


def random_scores(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda bundle, request, difference: TextScores(
        torch.randn(len(bundle.texts), generator=generator)
    )


@pytest.mark.parametrize("method", [SECOND_ORDER, SIMILAR_WORDS, "a caller's own"])
def test_every_method_obeys_the_same_rules(clip, bundle, method):
    texts = ["zebras", "a whale shark", "red car", "sailing boat", "leaf", "leaves", "sky", "pie"]
    bundle = replace(bundle, texts=texts)
    rules = CueFilter(
        Meaning(), blocked=("car",), drawable={t: t[:3] for t in texts if t != "pie"}.get
    )
    seen, dropped = set(), {}
    for seed in range(30):
        cues = ask(
            bundle,
            clip,
            method=method,
            count=50,
            rules=rules,
            scorer=random_scores(seed) if "own" in method else None,
        )
        seen |= {cue.text for cue in (*cues.positive, *cues.negative)}
        dropped |= dict(cues.dropped)
        assert not {"leaf", "leaves"} <= set(cues.texts)
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


def test_as_many_cues_as_asked_for(clip, bundle):
    many = ask(bundle, clip, count=50)
    few = ask(bundle, clip, count=2)
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
        ({"count": 0}, "1 to 200 cues"),
        ({"method": "magic"}, "one of second-order"),
        ({"target_class": "cat " * 100_000}, "399999 characters"),
    ],
)
def test_wrong_requests_are_refused_by_name(clip, bundle, change, message):
    request = {"true_class": TRUE, "target_class": TARGET} | change
    with pytest.raises(ValueError, match=message):
        find_cues(bundle, clip, CueRequest(**request))


@pytest.mark.parametrize("name", [["cat"], None, 7, {"cat": 1}])
def test_names_that_are_no_text_are_refused(name):
    with pytest.raises(ValueError, match="class name must be a text, not"):
        check_name(name)


def test_a_resnets_pairs_have_cues_too():
    clip = tiny_resnet()
    bundle = tiny_bundle((4,), clip.neurons, clip.heads, clip.embed_dim, kind="resnet")
    cues = ask(bundle, clip, count=50)
    expected, _ = cue_scores(bundle.layers, bundle.texts, difference(clip), 100)
    found = {cue.text: cue.score for cue in (*cues.positive, *cues.negative)}
    assert found == pytest.approx({bundle.texts[j]: s for j, s in expected.items() if s}, abs=1e-5)
