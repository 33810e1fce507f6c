"""What is true of a scene, text by text."""

import pytest

from clipneurons.synthetic.captions import COLOURS
from clipneurons.synthetic.pictograms import load_pictograms
from clipneurons.synthetic.scenes import Placed, SceneConfig, Scenes, compose
from clipneurons.synthetic.truth import PhotographTruth, SceneTruth


@pytest.fixture(scope="module")
def pack():
    return load_pictograms()


@pytest.fixture(scope="module")
def scene(pack):
    """A cat to the left of a tree on red stripes."""
    placed = [
        Placed("cat", pack.styles_of("cat")[0], (0.25, 0.5), 0.4),
        Placed("tree", pack.styles_of("tree")[0], (0.75, 0.5), 0.4),
    ]
    return compose(pack, placed, ("stripes", "red"))


def true_of(pack, scene, *texts):
    (row,) = SceneTruth(pack, texts)([scene])
    return [text for text, yes in zip(texts, row, strict=True) if yes]


def test_concepts_synonyms_and_groups(pack, scene):
    synonym, group = pack.synonyms["cat"][0], pack.groups["cat"]
    said = (f"a {synonym}", group, "a cat", "cat", "a tree", "a dog", "vehicle")
    assert true_of(pack, scene, *said) == [f"a {synonym}", group, "a cat", "cat", "a tree"]


def test_colours_of_things_and_backgrounds(pack, scene):
    colour = scene.objects[0].colour
    other = next(c for c in ("blue", "purple", "pink") if c not in scene.colours)
    said = ("red", other, f"a {colour} cat", f"a {other} cat", "a red background")
    assert true_of(pack, scene, *said) == ["red", f"a {colour} cat", "a red background"]
    said = ("a red striped background", "a red plain background", f"a {other} background")
    assert true_of(pack, scene, *said) == ["a red striped background"]


def test_places(pack, scene):
    said = (
        "a cat left of a tree", "a cat right of a tree", "a tree right of a cat",
        "a cat above a tree", f"a {pack.groups['cat']} left of a tree",
    )  # fmt: skip
    assert true_of(pack, scene, *said) == [said[0], said[2], said[4]]


def test_texts_about_something_else_are_known_to_be_unknown(pack):
    truth = SceneTruth(pack, ["a cat", "happiness", "a red mood", "red"])
    assert truth.known.tolist() == [True, False, False, True]


def test_every_caption_concept_is_found_in_random_scenes(pack):
    scenes = Scenes(pack, SceneConfig(), 20, seed=3)
    texts = [name for name in pack.concepts if name not in COLOURS]
    found = SceneTruth(pack, texts)(scenes[i] for i in range(20))
    for row, scene in zip(found, (scenes[i] for i in range(20)), strict=True):
        shown = {thing.name for thing in scene.objects}.difference(COLOURS)
        named = {text for text, yes in zip(texts, row, strict=True) if yes}
        assert shown <= named
        # Beyond them only what is another name of a thing that is shown.
        assert all(shown & also(pack, text) for text in named - shown)


def also(pack, word):
    """Concepts that a word may stand for."""
    return {c for c in pack.concepts if word in (*pack.synonyms[c], pack.groups[c])}


def test_a_photograph_is_what_it_is_called_and_its_kinds(pack):
    truth = PhotographTruth(
        {"goldfish": ["fish", "animal"], "barn": ["building"]}, pack,
        ["a goldfish", "fish", "an animal", "a building", "a barn", "red"],
    )  # fmt: skip
    assert truth.known.tolist() == [True] * 5 + [False]
    assert truth(["barn", "goldfish"]).tolist() == [[0, 0, 0, 1, 1, 0], [1, 1, 1, 0, 0, 0]]


def test_a_photograph_has_the_other_words_that_pictograms_have(pack):
    truth = PhotographTruth({"airplane": ["vehicle"]}, pack, ["an aeroplane", "a kitten"])
    assert truth.known.tolist() == [True, False]
    assert truth(["airplane"]).tolist() == [[1, 0]]
