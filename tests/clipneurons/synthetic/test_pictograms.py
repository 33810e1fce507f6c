"""Pictogram packs and the scenes composed from them."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from clipneurons.shipped import ARTIFACTS
from clipneurons.synthetic.captions import COLOURS, Facts, article, colour_word, write_caption
from clipneurons.synthetic.pictograms import load_pictograms, save_pictograms
from clipneurons.synthetic.scenes import Placed, SceneConfig, Scenes, compose


@pytest.fixture(scope="module")
def pack():
    return load_pictograms()


def test_shipped_packs_are_small_and_complete(pack):
    heldout = load_pictograms(heldout=True)
    assert (ARTIFACTS / "pictograms.safetensors").stat().st_size < 15e6
    assert heldout.concepts == pack.concepts
    assert heldout.styles == ("emojione-v1", "openmoji")
    assert not set(heldout.styles) & set(pack.styles)
    assert 350 < len(pack.concepts) < 450
    assert len(pack.styles) >= 9
    for concept in pack.concepts:
        assert len(pack.styles_of(concept)) >= 7
        assert (concept, "openmoji") in heldout.entries
        assert " " not in concept


def test_licences_allow_what_is_shipped(pack):
    allowed = {"MIT", "Apache-2.0", "CC-BY-4.0"}
    assert {licence["spdx"] for licence in pack.licences.values()} <= allowed
    heldout = load_pictograms(heldout=True)
    assert {licence["spdx"] for licence in heldout.licences.values()} == {"CC-BY-SA-4.0"}
    notice = (ARTIFACTS / "NOTICE").read_text()
    for style in (*pack.styles, *heldout.styles):
        assert f"- {style}: " in notice


def test_lookup(pack):
    image = pack.lookup("dog", "noto")
    assert image.shape == (64, 64, 4)
    assert image.dtype == np.uint8
    assert image[..., 3].max() == 255
    assert len(pack.variants("dog", "noto")) > 1
    with pytest.raises(KeyError, match="no concept 'dgo'"):
        pack.lookup("dgo", "noto")
    with pytest.raises(KeyError, match="no style 'manga'"):
        pack.lookup("dog", "manga")


def test_pack_round_trip(tmp_path):
    drawings, pictures = [], {}
    for i, (concept, style) in enumerate([("cat", "b"), ("cat", "a"), ("dog", "a"), ("cat", "a")]):
        pixels = np.full((64, 64, 4), 40 * i + 10, np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "WEBP", lossless=True, exact=True)
        drawings.append((concept, style, file.getvalue()))
        pictures.setdefault((concept, style), []).append(pixels)
    groups, synonyms = {"cat": "animal", "dog": "animal"}, {"cat": ["kitten"], "dog": []}
    licences = {style: {"spdx": "MIT"} for style in "ab"}
    save_pictograms(tmp_path / "p.safetensors", drawings, groups, synonyms, licences)
    pack = load_pictograms(tmp_path / "p.safetensors")
    assert pack.concepts == ("cat", "dog")
    assert pack.synonyms["cat"] == ("kitten",)
    for (concept, style), expected in pictures.items():
        for ours, theirs in zip(pack.variants(concept, style), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert pack.variants("dog", "b") == []
    with pytest.raises(KeyError, match="it is drawn in a"):
        pack.lookup("dog", "b")


def test_missing_and_foreign_packs(tmp_path):
    with pytest.raises(FileNotFoundError, match="research mini-clip pictograms"):
        load_pictograms(tmp_path / "none")
    path = tmp_path / "old.safetensors"
    save_file({"x": np.zeros(1)}, str(path), metadata={"schema": "0", "pictograms": json.dumps({})})
    with pytest.raises(ValueError, match="schema '0'"):
        load_pictograms(path)


def test_scene_depends_on_seed_and_index_alone(pack):
    one, two = (Scenes(pack, SceneConfig(), count, seed=5) for count in (10, 1000))
    for i in (0, 7, 3, 7):
        np.testing.assert_array_equal(one[i].image, two[i].image)
        assert one[i].caption == two[i].caption
    assert (one[1].image != Scenes(pack, SceneConfig(), 10, seed=6)[1].image).any()
    np.testing.assert_array_equal(one[-1].image, one[9].image)
    with pytest.raises(IndexError):
        one[10]


def test_scene_says_what_it_shows(pack):
    config = SceneConfig(size=96, objects=(2, 3), styles=("noto", "twemoji"))
    for scene in (Scenes(pack, config, 40, seed=1)[i] for i in range(40)):
        assert scene.image.shape == (96, 96, 3)
        assert 2 <= len(scene.objects) <= 3
        assert len({thing.name for thing in scene.objects}) == len(scene.objects)
        total = np.zeros((96, 96), int)
        for thing in scene.objects:
            assert thing.style in config.styles
            assert thing.colour in COLOURS
            words = (thing.name, *pack.synonyms[thing.name])
            assert any(word in scene.caption for word in words), (scene.caption, thing.name)
            left, top, right, bottom = thing.box
            assert thing.mask[top:bottom, left:right].sum() == thing.mask.sum() > 0
            total += thing.mask
        assert total.max() == 1  # visible pixels belong to one object


def test_mask_marks_the_object(pack):
    scene = compose(pack, [Placed("star", "twemoji", scale=0.6)], ("solid", "blue"))
    empty = compose(pack, [], ("solid", "blue"))
    changed = np.abs(scene.image.astype(int) - empty.image).sum(2) > 150
    mask = scene.objects[0].mask
    assert (mask & changed).sum() > 0.9 * mask.sum()
    assert (changed & ~mask).sum() < 0.1 * mask.sum()
    assert scene.objects[0].colour in ("yellow", "orange")


def test_later_objects_cover_earlier_ones(pack):
    placed = [Placed("sun", "noto"), Placed("moon", "noto", scale=0.3)]
    below, above = compose(pack, placed).objects
    assert above.mask.any()
    assert not (below.mask & above.mask).any()


@pytest.mark.parametrize(("dx", "dy", "words"), [
    (0.3, 0.0, "left of"), (-0.3, 0.1, "right of"), (0.0, 0.3, "above"), (0.1, -0.3, "below"),
])  # fmt: skip
def test_relation_is_true(pack, dx, dy, words):
    placed = [
        Placed("dog", "noto", (0.5, 0.5), 0.3),
        Placed("cat", "noto", (0.5 + dx, 0.5 + dy), 0.3),
    ]
    assert f"dog {words} a cat" in compose(pack, placed).caption


def test_errors_name_the_choices(pack):
    with pytest.raises(ValueError, match="no background 'fog'"):
        compose(pack, [], "fog")
    with pytest.raises(ValueError, match="no colour 'mauve'"):
        compose(pack, [], ("solid", "mauve"))
    with pytest.raises(ValueError, match="outside the frame"):
        compose(pack, [Placed("dog", "noto", (3, 3))])
    with pytest.raises(ValueError, match="the pack has no wug"):
        Scenes(pack, SceneConfig(concepts=("wug",)), 1)
    with pytest.raises(ValueError, match="1 to 3"):
        Scenes(pack, SceneConfig(objects=(2, 5)), 1)


def test_words():
    assert article("apple") == "an apple"
    assert article("unicorn") == "a unicorn"
    for name, rgb in COLOURS.items():
        assert colour_word(rgb) == name
    facts = Facts(("dog", "cat"), ("red", None), "left of", ("stripes", "blue"))
    text = write_caption(facts, np.random.default_rng(0))
    assert text.endswith("a red dog left of a cat on a blue striped background")
