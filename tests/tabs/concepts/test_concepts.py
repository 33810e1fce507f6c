"""The Concepts tab's functions on a tiny bundle."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image

from clipneurons.bundle.unit_words import plain
from clipneurons.reader import Reader
from tabs.concepts.handlers import Tab, compare, concepts, hand_on, selected
from tabs.concepts.view import concepts_html, contrast_html
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.words import unknown_words_html
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module", params=["vit", "resnet"])
def session(request, tmp_path_factory):
    clip = tiny_vit(embed_dim=24) if request.param == "vit" else tiny_resnet(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    for arrays in bundle.layers.values():
        arrays.percentile.zero_()
    return on_model("tiny", tmp_path_factory.mktemp("none"), bundle, clip)


def on_model(key, folder, bundle, clip):
    session = BundleSession(key, folder, bundle)
    session.cached("reader", lambda: Reader(clip, session.bundle))
    return session


@pytest.fixture
def registry(session):
    return BundleRegistry([session])


@pytest.fixture
def found(registry):
    return concepts(registry, "", IMAGE)


IMAGE = Image.radial_gradient("L").convert("RGB").resize((40, 40))


def test_the_zero_shot_texts_stand_beside_the_image(session, found):
    pixels = session.clip.preprocess(IMAGE)[None]
    cosines = session.concept_reader.zero_shot(session.clip.encode_image(pixels))[0]
    nearest = found["zero_shot"][0]
    assert nearest["texts"][0] == session.bundle.texts[int(cosines.argmax())]
    assert nearest["cosine"] == pytest.approx(float(cosines.max()))
    merged = found | {"zero_shot": [{"texts": ["a cat", "cat", "kitten"], "cosine": 0.3}]}
    assert "<b>cat</b> (kitten)</span>." in concepts_html("tiny", merged)


def test_a_heading_unlike_the_zero_shot_texts_is_explained(found):
    assert "patch by patch" in concepts_html("tiny", found | {"zero_shot_agrees": False})
    assert "patch by patch" not in concepts_html("tiny", found | {"zero_shot_agrees": True})


def test_things_are_named_once_and_without_articles(found):
    concept = found["concepts"][0]
    rows = [concept | {"text": text, "weight": weight}
            for text, weight in (("a music", 3.0), ("music", 2.0), ("an office", 1.0))]  # fmt: skip
    page = concepts_html("tiny", found | {"concepts": rows, "heading": ["a music", "a boat"]})
    assert "<h2>music, boat</h2>" in page, "the heading has one word a meaning"
    assert 'title="music: 3 %"' in page
    assert page.count('class="cn-map cn-map-') == 2
    pairs = [{"text": row["text"], "weight": row["weight"]} for row in rows]
    compared = contrast_html({"common": pairs, "only": [pairs], "shown": ["data:,"]})
    assert compared.count(">music<") == 2
    assert "a music" not in page + compared


@pytest.mark.parametrize("image", [Image.new("RGB", (60, 40), "white"), Image.new("RGB", (1, 1))])
def test_nothing_is_recognised_in_an_image_of_one_colour(registry, image):
    found = concepts(registry, "", image)
    assert found["concepts"] == []
    assert "Nothing recognised" in concepts_html("tiny", found)
    assert "<h2>" not in concepts_html("tiny", found)


def test_a_panorama_says_how_much_of_it_is_read(registry, found):
    assert found["share_seen"] == 1
    assert "cn-cropped" not in concepts_html("tiny", found)
    wide = concepts(registry, "", IMAGE.resize((120, 30)))
    assert wide["share_seen"] == pytest.approx(0.25)
    assert "25% of this image" in concepts_html("tiny", wide)


def test_neurons_are_introduced_by_their_percentile(session):
    config = replace(session.bundle.config, percentile=90.5)
    bundle = replace(session.bundle, config=config)
    other = on_model("other", session.folder, bundle, session.clip)
    page = concepts_html("other", concepts(BundleRegistry([other]), "", IMAGE))
    assert "than on 90.5 % of the data" in page


def test_concepts_in_words_that_were_never_trained_are_marked(session):
    table = getattr(session.clip.model, "token_embedding", None)
    if table is None:
        pytest.skip("this tiny model has no text tower")
    ids = session.clip.tokenizer(["dog"])[0]
    kept = table.weight.data[ids[1]].clone()
    table.weight.data[ids[1]] = 0
    try:
        config = replace(session.bundle.config, weights_sha256=session.clip.sha256())
        texts = ["dog"] * len(session.bundle.texts)
        bundle = replace(session.bundle, texts=texts, config=config)
        other = on_model("other", session.folder, bundle, session.clip)
        page = concepts_html("other", concepts(BundleRegistry([other]), "", IMAGE))
        assert "never saw “dog” in training" in page
    finally:
        table.weight.data[ids[1]] = kept


def test_a_long_warning_is_cut():
    assert unknown_words_html([]) == ""
    assert "“w5” and 4 more words" in unknown_words_html([f"w{i}" for i in range(10)])


def test_mistakes_are_named(registry, tmp_path):
    file = str(tmp_path / "image.png")
    IMAGE.save(file)
    with pytest.raises(ValueError, match="take an image first"):
        concepts(registry, "", None)
    for files in (None, [file]):
        with pytest.raises(ValueError, match="at least two"):
            compare(registry, "", files)
    with pytest.raises(ValueError, match="at most 8 images, not 9"):
        compare(registry, "", [file] * 9)


def test_an_image_that_a_link_brought_stays_where_the_tab_opens(session):
    shipped = {"pictures": [0], "reading": {
        "recognised": True, "concepts": [], "heading": [], "zero_shot": [], "neurons": [],
    }}  # fmt: skip
    bundle = replace(session.bundle, opening={"concepts": shipped})
    other = on_model("other", session.folder, bundle, session.clip)
    widgets = SimpleNamespace(image="image", concepts="concepts", result="result")
    tab = Tab(BundleRegistry([other]), widgets)
    shown = selected(tab, "", None, None)
    assert shown["image"] == other.image(0), "else the bundle's example"
    assert "image" not in selected(tab, "", None, IMAGE)
    told = selected(tab, "", {"linked": "own"}, None)
    assert "no image of your own" in told["result"]


def test_an_image_is_handed_on_with_its_nearest_texts_and_concepts(registry):
    read = concepts(registry, "", IMAGE)
    handed = hand_on(Tab(registry, None), "", IMAGE)
    assert handed.image == IMAGE
    assert handed.class_names[0] == plain(read["zero_shot"][0]["texts"][0])
    assert {plain(text) for text in read["heading"]} <= set(handed.class_names)
