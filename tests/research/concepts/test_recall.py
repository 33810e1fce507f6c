"""Recall of a scene's objects among the texts that a method puts first."""

from dataclasses import replace

import pytest
import torch

from clipneurons.bundle.bundle import load_bundle, save_bundle
from research.__main__ import main
from research.concepts.recall import Naming, Recalls, chance_recall, in_words, recall_at
from tests.helpers.tiny import tiny_bundle_folder


def test_a_text_names_an_object_by_whole_words_only():
    naming = Naming(["a gray cat", "a caterpillar", "Cat", "a hot dog", "dog"])
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
    assert chance_recall(places, 50, 5) == pytest.approx(sum(hits) / len(hits), abs=0.02)


def test_figures_a_line_a_set():
    one = {"recall_at_10": {"paper": 0.0292, "by_place": 0.274}}
    figures = one | {"chance": 0.0151, "sets": {"photographs": {"recall_at_10": {"by_place": 0.5}}}}
    assert in_words(figures).splitlines() == [
        "concepts  all: recall at 10 paper 2.9%, by place 27.4%",
        "concepts  photographs: recall at 10 by place 50.0%",
        "concepts  chance 1.5%",
    ]


def test_sets_together_are_all_their_images():
    one = Recalls({"by_place": [1.0, 0.0]}, 2, 3, 1)
    two = Recalls({"by_place": [0.5], "text_span": [0.0]}, 1, 1, 0)
    both = (Recalls() + one + two).figures()
    assert both["recall_at_10"] == {"by_place": 0.5, "text_span": 0.0}
    assert not both["ahead_of_nearest_texts_95"]
    assert (both["images"], both["objects"], both["objects_not_in_pool"]) == (3, 4, 1)


def test_ways_are_held_against_the_nearest_texts_of_the_same_images():
    paired = Recalls({"by_place": [1.0, 0.5, 0.6], "nearest_texts": [0.9, 0.4, 0.5]}, 3, 3, 0)
    lead = paired.figures()["ahead_of_nearest_texts_95"]
    assert list(lead) == ["by_place"]
    assert lead["by_place"] == pytest.approx([0.1, 0.1]), "however much the images differ"


def test_scenes_and_photographs_are_measured(tmp_path):
    folder = tiny_bundle_folder(tmp_path / "tiny")
    bundle = load_bundle(folder)
    texts = ["a crab", *bundle.texts[1:]]
    save_bundle(replace(bundle, texts=texts), folder)
    command = ["concepts", "--bundle", str(folder)]
    assert main([*command, "--scenes", "60"]) == 0
    found = load_bundle(folder).metrics["concepts"]
    assert 0 < found["sets"]["photographs"]["images"] < found["sets"]["photographs"]["objects"]
    assert all(0 <= r <= 1 for r in found["recall_at_10"].values())
    images = [one["images"] for one in found["sets"].values()]
    assert found["images"] == sum(images)


@pytest.mark.parametrize("wrong", [("--scenes", "0"), ("--templates", "nope")])
def test_wrong_numbers_and_names_are_found_while_the_flags_are_read(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["concepts", *wrong])
    assert stopped.value.code == 2
    assert wrong[0] in capsys.readouterr().err
