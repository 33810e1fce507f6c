"""The edit tab on tiny bundles: its figures are the library's, its mistakes are one line."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest
import torch
from torch.nn.functional import normalize

from clipneurons.edit.edit import Edit, EditError, UnitFactor, WordFactor, apply_edit
from clipneurons.edit.fold import fold, mean_of_units
from clipneurons.text.embedding import embed_texts
from tabs.edit import data, edits, example
from tabs.edit.reading import read
from tabs.server.session import BundleSession
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle, tiny_labels

NAMES = ["cat", "dog", "red car"]


@pytest.fixture(scope="module", params=["vit", "resnet"])
def session(request, tmp_path_factory):
    clip = tiny_vit(embed_dim=24) if request.param == "vit" else tiny_resnet(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    object.__setattr__(bundle, "labels", tiny_labels(bundle))
    session = BundleSession("tiny", tmp_path_factory.mktemp("none"), bundle)
    session.__dict__["_clip"] = clip
    return session


def pictures(session, count=1):
    return [example.gallery_image(session, number) for number in range(count)]


def edit_of(session, *units, words=()):
    return Edit(session.bundle.config.weights_sha256, tuple(UnitFactor(*u) for u in units), words)


def edited_shares(session, reading, edit):
    """Softmax of the cosines of `apply_edit`'s embeddings, as the library gives them."""
    representation, contributions = session.lens(reading.pixels)
    factors = edit.factors(session.bundle)
    means = {layer: session.bundle.layers[layer].means for layer in factors}
    edited = normalize(apply_edit(representation, contributions, factors, means), dim=1)
    texts = embed_texts(session.clip, list(reading.names), "photo")
    return (float(session.clip.model.logit_scale.exp()) * edited @ texts.T).softmax(1)


def some_edit(session):
    """A unit of each kind, one that others' words name too, and a word."""
    layer = session.bundle.config.layers[-1]
    words = (WordFactor("car", 0.1, 0.5), WordFactor("red", 0.4, 2.0))
    return edit_of(session, (layer, 1, 0.0), (layer, 4, 1.7), words=words)


def test_bars_are_those_of_the_edit_on_every_picture(session):
    edit = some_edit(session)
    reading = read(session, pictures(session, 3), NAMES, "", edit)
    expected = edited_shares(session, reading, edit)
    plain = edited_shares(session, reading, edit_of(session))
    for image in range(3):
        torch.testing.assert_close(torch.tensor(reading.after(image)), expected[image])
        torch.testing.assert_close(torch.tensor(reading.before(image)), plain[image])
    assert (expected - plain).abs().max() > 1e-4


def test_an_edit_about_other_images_is_taken_about_the_data(session):
    edit = some_edit(session)
    other = replace(edit, means="images")
    readings = [read(session, pictures(session), NAMES, "", one) for one in (edit, other)]
    assert readings[0].after() == readings[1].after()
    assert readings[1].edit == edit


def test_an_edit_of_many_units_ends_in_one_switch(session):
    layer = session.bundle.config.layers[0]
    edit = edit_of(session, *((layer, unit, 0.0) for unit in range(30)))
    reading = read(session, pictures(session), NAMES, "", edit)
    (rest,) = [part for part in reading.parts if part.kind == "rest"]
    assert len(rest.rules) == 6
    expected = edited_shares(session, reading, edit)[0]
    torch.testing.assert_close(torch.tensor(reading.after()), expected)


def test_the_page_s_script_gets_what_gives_the_bars(session):
    reading = read(session, pictures(session), NAMES, "", some_edit(session))
    facts = data.page_data(reading)
    x = [1.0]
    for part in facts["parts"]:
        x.append(1.0 if part["kind"] == "rest" else part["rules"][0]["factor"] - 1)
    x = torch.tensor(x, dtype=torch.float64)
    preview = facts["previews"][0]
    gram, along = (torch.tensor(preview[name], dtype=torch.float64) for name in ("gram", "along"))
    cosines = (x @ along) / (x @ gram @ x).sqrt()
    shares = (facts["scale"] * cosines).softmax(0).float()
    torch.testing.assert_close(shares, torch.tensor(reading.after()), atol=1e-4, rtol=1e-3)
    page = data.shown(session, reading)
    sent = re.search(r'data-facts="([^"]*)"', page)[1]
    assert json.loads(unescape(sent)) == facts


def test_speakers_are_the_units_that_add_most_to_the_margin(session):
    reading = read(session, pictures(session), NAMES, "dog")
    other = reading.names.index("dog")
    top = reading.top
    if top == other:
        other = reading.wanted
    assert reading.wanted == other
    margin = reading.effects[:, top] - reading.effects[:, other]
    adds = sorted((part.adds for part in reading.parts), reverse=True)
    expected = [*margin.topk(6).values.tolist(), *margin.topk(6, largest=False).values.tolist()]
    assert adds == pytest.approx(sorted(expected, reverse=True))
    page = data.shown(session, reading)
    assert page.count('role="switch"') == page.count('type="range"') == 12
    named = [part for part in reading.parts if part.label.reliable]
    assert page.count('class="cn-said"') == len(named) < len(reading.parts)


def test_maps_are_the_patches_that_carry_the_effect(session):
    reading = read(session, pictures(session), NAMES)
    texts = embed_texts(session.clip, NAMES, "photo")
    toward = texts[reading.top] - texts[reading.wanted]
    _, contributions = session.lens(reading.pixels)
    assert any(max(map(max, part.map)) == 1 for part in reading.parts)
    for part in reading.parts:
        mine, unit = contributions[part.rules[0].layer], torch.tensor([part.rules[0].unit])
        scores = mine.token_scores(0, unit)[0]  # [token, head]
        directions = mine.directions.dense(unit)[0]
        share = torch.zeros(len(scores))
        for token in range(len(scores)):
            for head in range(len(directions)):
                share[token] += float(scores[token, head]) * float(directions[head] @ toward)
        share = share[session.clip.prefix :] * (1 if part.adds > 0 else -1)
        share = share.clamp_min(0).reshape(session.clip.grid)
        expected = share / share.max().clamp_min(1e-12)
        torch.testing.assert_close(torch.tensor(part.map), expected, atol=2e-3, rtol=0)


def test_for_real_is_the_folded_model(session):
    edit = some_edit(session)
    reading = read(session, pictures(session, 2), NAMES, "", edit)
    pixels = torch.stack([session.pixels(number) for number in session.sample(64)])
    means = mean_of_units(session.clip, [pixels], session.bundle.config.layers)
    model = fold(session.clip, edit.factors(session.bundle), means)
    texts = embed_texts(session.clip, NAMES, "photo")
    cosines = normalize(model.encode_image(reading.pixels), dim=1) @ texts.T
    expected = (float(session.clip.model.logit_scale.exp()) * cosines).softmax(1)
    got = torch.tensor(edits.for_real(session, reading, edit))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    unedited = edits.for_real(session, reading, edit_of(session))
    torch.testing.assert_close(torch.tensor(unedited[0]), torch.tensor(reading.before()))


def test_found_edits_turn_the_picture_and_no_smaller_one_does(session):
    """With two classes what units add up to is known, so the fewest are those that add most."""
    turned = 0
    for image in pictures(session, 6):
        reading = read(session, [image], NAMES[:2])
        margin = reading.effects[:, reading.top] - reading.effects[:, reading.wanted]
        most = margin.sort(descending=True).values.cumsum(0)[: edits.MOST_FOUND]
        lead = float(reading.logits[reading.top] - reading.logits[reading.wanted])
        if float(most.max()) <= lead:
            with pytest.raises(ValueError, match="No 64 neurons turn this picture"):
                edits.fewest(session, reading, "")
            continue
        edit, found = edits.fewest(session, reading, "")
        assert found["count"] == len(edit.units) == int((most <= lead).sum()) + 1
        after = edits.edited(session, reading, edit).after()
        assert after[reading.wanted] > after[reading.top]
        turned += 1
    assert turned


def test_what_is_read_rightly_needs_no_edit(session):
    reading = read(session, pictures(session), NAMES)
    with pytest.raises(ValueError, match=r"read as .* already"):
        edits.fewest(session, reading, NAMES[reading.top])


def test_an_address_gives_the_edit(session):
    layer = session.bundle.config.layers[-1]
    text = f"{layer}.3:0;{layer}.0:1.5;red car>0.1:0.25"
    words = (WordFactor("red car", 0.1, 0.25),)
    expected = edit_of(session, (layer, 3, 0.0), (layer, 0, 1.5), words=words)
    assert edits.edit_of_link(text, session) == expected
    query = f"?tab=edit&names=cat,dog&wanted=dog&picture=4&edit={layer}.3:0"
    reading = example.restored(session, query)
    assert (reading.picture, reading.names) == (4, ("cat", "dog"))
    assert reading.edit == edit_of(session, (layer, 3, 0.0))
    opened = example.restored(session, "?tab=edit")
    assert opened.picture == example.example(session)[0]
    assert opened.edit == edit_of(session)


def test_captions_name_whole_words_and_most_names_make_no_pattern(monkeypatch):
    made, escape = [], re.escape
    monkeypatch.setattr(re, "escape", lambda name: made.append(name) or escape(name))
    found = [name for name in ("cat", "a cat", "mat", "at", "red car", "dog", "c.t")
             if example._says(" a cat on a mat ", name)]  # fmt: skip
    assert found == ["cat", "a cat", "mat"]
    assert made == ["cat", "a cat", "mat", "at"]


def test_a_colour_is_not_what_a_picture_shows():
    known = ("orange", "peanut", "red", "spider")
    assert example._told(" a drawing of an orange peanut ", known) == ["peanut"]
    assert example._told(" an orange on red ", known) == []


def test_switching_words_off_keeps_the_rest(session):
    edit = edits.with_words(some_edit(session), "  red ", 0.2)
    assert edit.words == (WordFactor("car", 0.1, 0.5), WordFactor("red", 0.2, 0.0))
    assert edit.units == some_edit(session).units
    with pytest.raises(ValueError, match="Write a word"):
        edits.with_words(edit, " ", 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4.x:0", "expected an edit such as"),
        ("nothing", "expected an edit such as"),
        ("1.2:nan", "expected a finite number"),
        ("99.0:0", "no layer 99"),
    ],
)
def test_bad_addresses_are_one_line(session, text, message):
    with pytest.raises(EditError, match=message) as error:
        example.restored(session, f"?tab=edit&edit={text}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no json", "an edit is JSON"),
        (b"", "expected an edit of schema version 1"),
        (b"[1]", "expected an edit of schema version 1"),
        (b"[" * 100_000, "an edit is JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b" " * (2**20 + 1), "larger than 1 MB"),
        ({"units": [{"layer": 1, "unit": 99_999}]}, "has units 0 to"),
        ({"units": [{"layer": 77, "unit": 0}]}, "no layer 77"),
        ({"units": [{"layer": 1, "unit": 0, "factor": float("inf")}]}, "expected a finite"),
        ({"words": [{"words": "cat"}] * 33}, "at most 32 are read here"),
        ({"words": [{"words": "zebra"}]}, "No text of this bundle's pool"),
        ({"weights_sha256": "1" * 64}, "expected an edit of this bundle's model"),
    ],
)
def test_bad_files_are_one_line(session, tmp_path, content, message):
    path = tmp_path / "edit.json"
    if isinstance(content, dict):
        layer = session.bundle.config.layers[0]
        sha = session.bundle.config.weights_sha256
        content = {"schema_version": 1, "weights_sha256": sha} | content
        for unit in content.get("units", []):
            unit["layer"] = layer if unit["layer"] == 1 else unit["layer"]
        content = json.dumps(content).encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read(session, pictures(session), NAMES, "", edits.edit_of_file(str(path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "names", "wanted", "message"),
    [
        (0, NAMES, "", "Choose, paste or take a picture"),
        (9, NAMES, "", "At most 8 pictures"),
        (1, ["cat"], "", "at least two class names"),
        (1, NAMES, "zebra", "expected one of cat, dog, red car"),
    ],
)
def test_what_cannot_be_read_is_one_line(session, images, names, wanted, message):
    with pytest.raises(ValueError, match=message):
        read(session, pictures(session, images), names, wanted)


def test_without_a_softmax_there_are_cosines(session, monkeypatch):
    monkeypatch.setattr(session.clip.model, "logit_bias", torch.zeros(()), raising=False)
    reading = read(session, pictures(session), NAMES)
    texts = embed_texts(session.clip, NAMES, "photo")
    embedded = normalize(session.clip.encode_image(reading.pixels), dim=1)
    assert reading.before() == pytest.approx((embedded @ texts.T)[0].tolist(), abs=1e-5)
    assert data.reading_data(reading)["shares"] == "cosine"
    assert "How near each class is" in data.shown(session, reading)
