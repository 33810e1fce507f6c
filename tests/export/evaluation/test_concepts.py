"""Recall of a scene's objects among the texts that a method puts first."""

import pytest
import torch

from export.__main__ import main
from export.evaluation.concepts import _chance, _Naming, in_words, recall_at


def test_a_text_names_an_object_by_whole_words_only():
    naming = _Naming(["a gray cat", "a caterpillar", "Cat", "a hot dog", "dog"])
    assert naming["cat"] == {0, 2}
    assert naming["hot dog"] == {3}
    assert naming["dog"] == {3, 4}
    assert naming["cow"] == frozenset()


def test_recall_is_the_share_of_named_objects():
    weights = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [1.0, 0.0, 0.0, 0.0]])
    wanted = [[frozenset({0, 3}), frozenset({2})], [frozenset({0}), frozenset({2, 3})], []]
    assert recall_at(weights, wanted, 2) == [0.5, 0.5]
    assert recall_at(weights, wanted, 3) == [1.0, 0.5]


def test_chance_agrees_with_drawing_texts_at_random():
    places = [frozenset({1, 2, 3}), frozenset({4})]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(20_000, 50, generator=generator)
    hits = recall_at(drawn, [places] * len(drawn), 5)
    assert _chance(places, 50, 5) == pytest.approx(sum(hits) / len(hits), abs=0.02)


def test_figures_in_one_line():
    figures = {"recall_at_10": {"sparse-norm": 0.0292, "dense": 0.274}, "chance": 0.0151}
    assert in_words(figures) == (
        "concepts  recall at 10 sparse-norm 2.9%, dense 27.4%; chance 1.5%"
    )


@pytest.mark.parametrize("wrong", [("--concept-scenes", "0"), ("--templates", "nope")])
def test_wrong_numbers_and_names_are_found_while_the_flags_are_read(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--concepts", *wrong])
    assert stopped.value.code == 2
    assert wrong[0] in capsys.readouterr().err
