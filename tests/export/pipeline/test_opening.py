"""What a bundle ships for the page to open with is what the model would say."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from clipneurons.adversarial.cues import CLASS_TEMPLATES
from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import OPENING
from clipneurons.concepts.concepts import ConceptReader
from clipneurons.concepts.image_concepts import read_image
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from clipneurons.shift.comparison import EmbeddedTextPool, compare
from clipneurons.shift.planted import marks, planted_mark
from clipneurons.shift.profile import Profiler
from clipneurons.text.embedding import embed_texts
from export.pipeline.gallery import DecodedGallery
from export.pipeline.opening import (
    best_read,
    class_pairs,
    planted_shift,
    varied,
    with_opening,
)
from tabs.concepts.examples import opening_concepts
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.shift.handlers import compare_example, shipped_example
from tests.helpers.tiny import tiny_bundle_folder


@pytest.fixture(scope="module", params=["vit", "resnet"])
def made(request, tmp_path_factory):
    """A bundle's folder with its examples, and its lens."""
    folder = tiny_bundle_folder(tmp_path_factory.mktemp("opening") / "tiny", kind=request.param)
    bundle = load_bundle(folder)
    for arrays in bundle.layers.values():
        arrays.percentile.zero_()
    lens = Lens(load_clip(folder, device="cpu"), bundle.config.layers)
    save_bundle(with_opening(bundle, lens), folder)
    return folder, lens


def close(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            close(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4)
    else:
        assert found == expected


def test_the_reading_is_the_models_own(made):
    folder, lens = made
    bundle = load_bundle(folder)
    shipped = bundle.opening["concepts"]
    reader = ConceptReader(lens, bundle)
    image = DecodedGallery(bundle.examples)[shipped["pictures"][0]]
    close(shipped["reading"], read_image(reader, lens.clip.preprocess(image)).to_dict())


def test_the_page_shows_it_without_a_model(made, monkeypatch):
    folder, _ = made
    session = BundleSession("tiny", folder)
    monkeypatch.setattr(BundleSession, "clip", property(lambda _: pytest.fail("loaded a model")))
    image, found, page = opening_concepts(session)
    assert found["concepts"][0]["text"] in page
    assert isinstance(image, Image.Image)
    assert {"layer", "unit", "label"} <= found["neurons"][0].keys()
    compared, word = shipped_example(session)
    assert isinstance(word, str)
    assert len(compared.report["units"]) == (12 if compared.report["significant"] else 0)
    answer = compare_example(BundleRegistry([session]), "")
    assert answer == compared.report | {"drawing": word}
    assert compared.report["images"] == {"reference": 10, "new": 10}


def test_the_first_drawing_that_makes_a_difference_is_planted_else_the_nearest(made):
    bundle, lens = load_bundle(made[0]), made[1]
    bundle = replace(bundle, texts=["nothing drawn"] * 8)
    gallery = DecodedGallery(bundle.examples)
    images = [gallery[number] for number in bundle.examples]
    profiler, pool = Profiler(lens, bundle), EmbeddedTextPool.of(bundle)
    p_values = {}
    for word in marks(bundle.texts):
        reference, new, _ = planted_mark(images, bundle.texts, word)
        sides = (profiler.of_images(side) for side in (reference, new))
        p_values[word] = compare(*sides, pool, permutations=300).p
    significant = [word for word, p in p_values.items() if p <= 0.05]
    shipped = planted_shift(ConceptReader(lens, bundle), gallery)
    assert shipped["word"] == (significant or [min(p_values, key=p_values.get)])[0]
    assert shipped["report"]["p"] == p_values[shipped["word"]]


def test_class_pairs_come_in_the_order_of_their_similarity(made):
    bundle, lens = load_bundle(made[0]), made[1]
    clip, named = lens.clip, ["a cat", "dog", "a horse", "an automobile", "ship", "truck"]
    bundle = replace(bundle, texts=[*named, *bundle.texts[len(named) :]])
    known = [("cat", "dog"), ("horse", "automobile"), ("ship", "truck")]
    distance = {}
    for pair in known:
        true, target = embed_texts(clip, list(pair), CLASS_TEMPLATES)
        distance[pair] = sum(float(a - b) ** 2 for a, b in zip(true, target, strict=True))
    assert class_pairs(bundle, clip) == sorted(known, key=distance.get)
    assert class_pairs(replace(bundle, texts=["red"] * 8), clip) == []


def test_a_word_without_a_drawing_is_refused():
    pictures = [Image.new("RGB", (16, 16))] * 4
    assert planted_mark(pictures, ["cat", "dog"], "cat")[2] == "cat"
    with pytest.raises(KeyError, match="no drawing of 'xyzzy'"):
        planted_mark(pictures, ["cat"], "xyzzy")


@pytest.mark.parametrize(
    "wrong",
    [
        {"concepts": 1, "shift": []},
        {"concepts": {"pictures": [10**6], "reading": {}}, "shift": {"images": ["../x"]}},
        {"concepts": {"pictures": [0], "reading": {"concepts": [{"text": 1}]}}},
        {"concepts": {"pictures": "0", "reading": None}, "shift": {"images": [0, 1, 2, 3]}},
    ],
)
def test_what_has_not_the_form_of_an_example_is_left_out(made, wrong):
    bundle = replace(load_bundle(made[0]), opening=wrong)
    session = BundleSession("tiny", made[0], bundle)
    assert opening_concepts(session) is None
    assert shipped_example(session) is None


def test_bundles_without_examples_open_without_them(made):
    folder, lens = made
    bundle = load_bundle(folder)
    shared = replace(bundle, config=replace(bundle.config, shared_bias=True))
    assert with_opening(shared, lens).opening == {}
    session = BundleSession("tiny", folder, replace(bundle, opening={}))
    assert opening_concepts(session) is None
    assert shipped_example(session) is None


def test_it_is_a_file_under_the_checksums(made):
    folder, _ = made
    listed = (folder / "SHA256SUMS").read_text()
    assert OPENING in listed
    assert json.loads((folder / OPENING).read_text()) == load_bundle(folder).opening
    bundle = load_bundle(folder)
    other = save_bundle(replace(bundle, opening={}), folder.parent / "without")
    assert load_bundle(other).opening == {}


def test_pictures_of_a_caption_that_was_shown_come_later():
    captions = ["a cat", "a cat", "a dog", "a cat", ""]
    assert varied([3, 1, 2, 0, 4], captions.__getitem__) == [3, 2, 4, 1, 0]


def test_pictures_in_which_the_caption_is_found_come_first(made):
    folder, lens = made
    bundle = load_bundle(folder)
    reader = ConceptReader(lens, bundle)
    gallery = DecodedGallery(bundle.examples)
    order = best_read(reader, gallery, list(bundle.examples))
    said = read_image(reader, lens.clip.preprocess(gallery[order[-1]])).concepts[0].text
    captions = [""] * len(bundle.examples)
    captions[list(bundle.examples).index(order[-1])] = f"a picture of {said}"
    known = replace(bundle, examples=replace(bundle.examples, captions=tuple(captions)))
    again = best_read(ConceptReader(lens, known), gallery, list(bundle.examples))
    assert again[0] == order[-1]
    assert again[1:] == order[:-1]
