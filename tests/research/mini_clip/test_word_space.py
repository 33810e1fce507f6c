"""The space of words: saved and read whole, names apart, captions where their words are."""

import numpy as np
import torch

from research.mini_clip.class_names import RENAMED, Synset, describe, hypernyms, plain
from research.mini_clip.text_tower import Captions, caption_tokens, medium_of
from research.mini_clip.word_space import Space, spread


def test_what_is_saved_is_read(space, tmp_path):
    space.save(tmp_path / "space.safetensors")
    read = Space.load(tmp_path / "space.safetensors")
    assert (read.words, read.classes, read.things) == (space.words, space.classes, space.things)
    np.testing.assert_array_equal(read.vectors, space.vectors)
    np.testing.assert_array_equal(read["cat"], space["cat"])


def test_names_are_moved_apart_and_no_further():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 16))
    rows[1] = rows[0] + 0.1 * rng.normal(size=16)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    moved = spread(rows, limit=0.5)
    cosines = moved @ moved.T - 2 * np.eye(12)
    assert rows[0] @ rows[1] > 0.9
    assert cosines.max() < 0.55
    assert (moved[0] @ rows[0]) > 0.8
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, rtol=1e-5)


def test_captions_and_their_points(space):
    made = Captions(space, np.random.default_rng(0))
    texts, points = made.batch(64)
    assert len(texts) == len(points) == 64
    torch.testing.assert_close(points.norm(dim=1), torch.ones(64))
    bare = [(t, p) for t, p in zip(texts, points, strict=True) if t in space.words]
    assert bare
    for text, point in bare:
        np.testing.assert_allclose(point, space[text], atol=1e-5)
    assert {medium_of(text) for text in texts} == {-1, 0, 1}
    used = caption_tokens(space)
    assert used[0] == 0
    assert (used.diff() > 0).all()


def test_classes_of_many_data_sets_meet():
    assert plain("airplanes") == plain("airplane") == "airplane"
    assert plain("goldfish, Carassius auratus") == "goldfish"
    assert plain("car side") == plain("automobile") == "automobile"
    assert not set(RENAMED.values()) & (set(RENAMED) - set(RENAMED.values()))


def test_what_wordnet_knows_of_a_class():
    nouns = {
        1: Synset(("crane",), "lifts heavy things; 'a crane'", (2,)),
        2: Synset(("lifting device", "lifter"), "a device", ()),
    }
    assert hypernyms(nouns, 1) == ["lifting device"]
    line = describe({"key": "n00000001", "name": "crane"}, nouns)
    assert line == "crane, lifting device, lifts heavy things"
    assert describe({"key": "cats", "name": "cat"}, nouns) == "cat"
