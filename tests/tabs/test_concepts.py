"""The Concepts tab's functions on a tiny bundle."""

from dataclasses import replace

import gradio as gr
import pytest
from clipneurons.statistics.textspan import TextSpanReader
from PIL import Image
from tabs.image_reading import contrast, discover, heads_say
from tabs.ui.concept_card import concepts_html, contrast_html, others_html

from tabs import concepts
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.unknown_words import unknown_words_html
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle


@pytest.fixture(scope="module", params=["vit", "resnet"])
def session(request, tmp_path_factory):
    clip = tiny_vit(embed_dim=24) if request.param == "vit" else tiny_resnet(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    for arrays in bundle.layers.values():
        arrays.percentile.zero_()
    session = BundleSession("tiny", tmp_path_factory.mktemp("none"), bundle)
    session.__dict__["_clip"] = clip
    return session


PICTURE = Image.radial_gradient("L").convert("RGB").resize((50, 40))


def test_concepts_wait_for_no_fit_over_the_gallery(session, monkeypatch):
    def fit(*_, **__):
        raise AssertionError("a comparison was fitted in front of the answer")

    monkeypatch.setattr(TextSpanReader, "fit", fit)
    found = discover(session, PICTURE, "dense")
    assert found["concepts"]
    assert "label" in found["neurons"][0]


def test_the_heads_say_how_far_they_are(session):
    steps = []
    said = heads_say(session, PICTURE, lambda *step: steps.append(step))
    if session.bundle.config.kind == "resnet":
        assert said is None
        assert "Not defined for this kind of model" in others_html({"text_span": said})
        return
    assert said
    assert {what for _, _, what in steps} == {
        "Reading pictures of the gallery", "Finding the texts of each attention head",
    }  # fmt: skip
    assert all(0 <= done < of for done, of, _ in steps)
    steps.clear()
    heads_say(session, PICTURE, lambda *step: steps.append(step))
    assert steps == [], "found once a model"


def test_what_clip_itself_says_stands_beside_the_picture(session):
    found = discover(session, PICTURE, "sparse-norm")
    nearest = found["others"]["nearest_texts"][0]
    assert found["clip_says"][0]["texts"][0] == nearest["text"]
    assert found["clip_says"][0]["cosine"] == pytest.approx(nearest["weight"])
    page = concepts_html("tiny", found)
    assert "CLIP itself says <span title" in page
    assert f"<b>{nearest['text']}</b>" in page
    merged = found | {"clip_says": [{"texts": ["a cat", "cat", "kitten"], "cosine": 0.3}]}
    assert "<b>cat</b> (kitten)</span>." in concepts_html("tiny", merged)


def test_things_are_named_once_and_without_articles(session):
    found = discover(session, PICTURE, "dense")
    concept = found["concepts"][0]
    rows = [concept | {"text": text, "weight": w}
            for text, w in (("a music", 3.0), ("music", 2.0), ("an office", 1.0))]  # fmt: skip
    page = concepts_html("tiny", found | {"concepts": rows, "in_short": []})
    assert "<h2>music, office</h2>" in page
    short = concepts_html("tiny", found | {"in_short": ["a music", "a boat"]})
    assert "<h2>music, boat</h2>" in short, "the heading has one word a meaning"
    assert 'title="music: 3"' in page
    assert page.count('class="cn-map cn-map-') == 2
    pairs = [{"text": one["text"], "weight": one["weight"]} for one in rows]
    shown = others_html({"dense": pairs}) + contrast_html(
        {"common": pairs, "only": [pairs], "shown": ["data:,"]}
    )
    assert shown.count(">music<") == 3
    assert "a music" not in page + shown


def test_concepts_in_words_that_were_never_trained_are_marked(session):
    table = getattr(session.clip.model, "token_embedding", None)
    if table is None:
        pytest.skip("this tiny model has no text tower")
    ids = session.clip.tokenizer(["dog"])[0]
    kept = table.weight.data[ids[1]].clone()
    table.weight.data[ids[1]] = 0
    try:
        found = discover(session, PICTURE, "dense", top=8)
        assert ("dog" in [one["text"] for one in found["concepts"]]) == (
            found["never_trained"] == ["dog"]
        )
        texts = replace(session.bundle, texts=["dog"] * len(session.bundle.texts))
        other = BundleSession("other", session.folder, texts)
        other.__dict__["_clip"] = session.clip
        page = concepts_html("other", discover(other, PICTURE, "dense"))
        assert "never saw “dog” in training" in page
    finally:
        table.weight.data[ids[1]] = kept


def test_a_long_warning_is_cut():
    assert unknown_words_html([]) == ""
    assert "“w5” and 4 more words" in unknown_words_html([f"w{i}" for i in range(10)])


def test_mistakes_are_named(session):
    with pytest.raises(ValueError, match="take a picture first"):
        discover(session, None, "dense")
    with pytest.raises(ValueError, match="at least two"):
        contrast(session, [PICTURE], "dense")
    with pytest.raises(ValueError, match="At most 8"):
        contrast(session, [PICTURE] * 9, "dense")


def test_a_picture_that_a_link_brought_stays_where_the_tab_opens(session, monkeypatch):
    registry = BundleRegistry([session])
    shipped = PICTURE, {"neurons": [], "concepts": [], "way": "dense"}, ""
    monkeypatch.setattr(concepts, "opening_concepts", lambda _: shipped)
    assert concepts.selected(registry, "", None, None)[0] is PICTURE, "else the bundle's example"
    assert set(map(str, concepts.selected(registry, "", None, PICTURE))) == {str(gr.skip())}
