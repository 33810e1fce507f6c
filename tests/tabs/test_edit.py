"""The edit tab on tiny bundles, through its handlers: results are true, mistakes one line."""

import json
import re
from dataclasses import fields, replace
from html import unescape

import pytest
import torch
from PIL import Image

from clipneurons.edit.edit import Edit, EditError, UnitFactor, WordFactor
from clipneurons.reader import Reader
from clipneurons.shipped import ARTIFACTS
from tabs.edit import handlers, sources
from tabs.edit.handlers import EditRequest, Tab
from tabs.edit.layout import Widgets
from tabs.edit.view import page_data
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.models import tiny_resnet, tiny_vit
from tests.helpers.tiny import tiny_bundle, tiny_labels

NAMES = ["cat", "dog", "red car"]


@pytest.fixture(scope="module", params=["vit", "resnet"])
def tab(request, tmp_path_factory):
    clip = tiny_vit(embed_dim=24) if request.param == "vit" else tiny_resnet(embed_dim=24)
    bundle = tiny_bundle(clip=clip)
    object.__setattr__(bundle, "labels", tiny_labels(bundle))
    session = BundleSession("tiny", tmp_path_factory.mktemp("none"), bundle)
    session.cached("reader", lambda: Reader(clip, session.bundle))
    # Handlers take components for keys of their answers alone.
    widgets = Widgets(**{field.name: field.name for field in fields(Widgets)})
    return Tab(BundleRegistry([session]), widgets)


@pytest.fixture
def session(tab):
    return tab.registry.first


def opened(session, edit=None, wanted="", picture=0):
    image = session.image(picture)
    return handlers.opened_with(session, [image], NAMES, wanted, edit, picture)


def edit_of(session, *units, words=()):
    return Edit(session.bundle.config.weights_sha256, tuple(UnitFactor(*u) for u in units), words)


def some_edit(session):
    layer = session.bundle.config.layers[-1]
    words = (WordFactor("car", 0.1, 0.5), WordFactor("red", 0.4, 2.0))
    return edit_of(session, (layer, 1, 0.0), (layer, 4, 1.7), words=words)


def request_of(session, **values):
    return EditRequest(session.key, **values)


def result(tab, updates):
    return updates[tab.widgets.opened], updates[tab.widgets.result]


def headline(page):
    return unescape(re.search(r'class="cn-top">([^<]*)<', page)[1])


def test_the_page_s_script_gets_what_gives_the_bars(tab, session):
    shown = opened(session, some_edit(session))
    facts = page_data(shown)
    x = [1.0]
    for part in facts["parts"]:
        x.append(1.0 if part["kind"] == "rest" else part["rules"][0]["factor"] - 1)
    x = torch.tensor(x, dtype=torch.float64)
    preview = facts["previews"][0]
    gram, along = (torch.tensor(preview[name], dtype=torch.float64) for name in ("gram", "along"))
    cosines = (x @ along) / (x @ gram @ x).sqrt()
    shares = (facts["scale"] * cosines).softmax(0).float()
    torch.testing.assert_close(
        shares, torch.tensor(shown.reading.estimated()), atol=1e-4, rtol=1e-3
    )
    assert facts["measured"] == [shown.reading.measured()]
    page = handlers.edit_html(session.bundle, shown)
    assert json.loads(unescape(re.search(r'data-facts="([^"]*)"', page)[1])) == facts


def test_every_speaker_has_a_switch_a_slider_and_its_reliable_label(session):
    shown = opened(session)
    page = handlers.edit_html(session.bundle, shown)
    assert page.count('role="switch"') == page.count('type="range"') == 12
    reliable = [
        part for part in shown.reading.parts
        if session.bundle.label(part.rules[0].layer, part.rules[0].unit).reliable
    ]  # fmt: skip
    assert page.count('class="cn-said"') == len(reliable) < len(shown.reading.parts)


def test_the_headline_is_what_is_measured(session):
    """Also where the estimate names another class; without it, the estimate."""
    shown = opened(session)
    estimated = NAMES[shown.reading.top]
    for number, name in enumerate(NAMES):
        cosines = torch.zeros(1, len(NAMES))
        cosines[0, number] = 1.0
        reading = replace(shown.reading, measured_cosines=cosines)
        page = handlers.edit_html(session.bundle, replace(shown, reading=reading))
        assert headline(page) == name
        assert "Measured</small>" in page
    reading = replace(shown.reading, measured_cosines=None)
    page = handlers.edit_html(session.bundle, replace(shown, reading=reading))
    assert headline(page) == estimated
    assert "Estimated</small>" in page


def test_another_image_starts_clean_with_the_models_own_classes(tab, session):
    before = opened(session, some_edit(session))
    noise = Image.effect_noise((40, 30), 80).convert("RGB")
    updates = handlers.classify(
        tab,
        request_of(
            session, opened=before, image=noise, names="cat, dog", wanted="dog",
            edit=before.reading.edit.to_json(),
        ),
    )  # fmt: skip
    shown, _ = result(tab, updates)
    own = session.edit_reader.top_classes(session.clip.preprocess(noise))
    assert list(shown.reading.class_names) == own
    assert updates[tab.widgets.names] == ", ".join(own)
    assert shown.reading.edit == edit_of(session)
    assert shown.picture is None


def test_the_same_image_keeps_its_edit_under_other_classes(tab, session):
    edit = some_edit(session)
    before = opened(session, edit)
    shown, _ = result(tab, handlers.classify(tab, request_of(
        session, opened=before, image=before.images[0], names="cat, dog", wanted="dog",
        edit=edit.to_json(),
    )))  # fmt: skip
    assert shown.reading.class_names == ("cat", "dog")
    assert (shown.reading.edit, shown.picture) == (edit, 0)


def test_what_is_found_turns_a_forward_pass_and_one_neuron_less_does_not(tab):
    """On the bundled model: of random numbers, neurons turn nothing."""
    session = BundleSession.open(str(ARTIFACTS / "mini-vit"))
    shipped = Tab(BundleRegistry([session]), tab.widgets)
    before, _ = result(tab, handlers.restore(shipped, request_of(session, address="?tab=edit")))
    shown, page = result(tab, handlers.find(shipped, request_of(session, opened=before)))
    assert headline(page) == shown.wanted == before.wanted != before.top
    edit, reader = shown.reading.edit, session.edit_reader
    fewer = replace(edit, units=edit.units[:-1])
    names = shown.reading.class_names
    assert names[reader.measure(shown.reading, edit)[0].argmax()] == before.wanted
    assert names[reader.measure(shown.reading, fewer)[0].argmax()] != before.wanted
    assert f"Without {len(edit.units)} neurons it is classified as “{before.wanted}”" in page
    assert "Of 20 random sets of as many neurons, 0 % do this too." in page


def test_switching_words_off_keeps_the_rest_and_says_what_it_did(tab, session):
    edit = some_edit(session)
    before = opened(session, edit)
    shown, page = result(tab, handlers.switch_off(
        tab, request_of(session, opened=before, words="  red ", edit=edit.to_json())
    ))  # fmt: skip
    assert shown.reading.edit.words == (WordFactor("car", 0.1, 0.5), WordFactor("red", 0.1, 0.0))
    assert shown.reading.edit.units == edit.units
    note = re.search(r'role="status">([^<]*)<', page)[1]
    assert note.endswith(f"classified as “{headline(page)}”.")
    assert "that say “red” off: " in note


def test_sliders_are_measured_by_the_model(tab, session):
    before, edit = opened(session), some_edit(session)
    answer = handlers.measure(tab, request_of(session, opened=before, edit=edit.to_json()))
    expected = opened(session, edit).reading.measured()
    assert answer["edit"] == edit.to_json()
    assert answer["shares"][0] == pytest.approx(expected)


def test_an_address_gives_the_image_its_classes_and_the_edit(tab, session):
    layer = session.bundle.config.layers[-1]
    address = f"?tab=edit&names=cat,dog&wanted=dog&picture=4&edit={layer}.3:0;{layer}.0:1.5"
    shown, _ = result(tab, handlers.restore(tab, request_of(session, address=address)))
    assert (shown.picture, shown.reading.class_names) == (4, ("cat", "dog"))
    assert shown.reading.edit == edit_of(session, (layer, 3, 0.0), (layer, 0, 1.5))
    bare, _ = result(tab, handlers.restore(tab, request_of(session, address="?tab=edit&picture=4")))
    pixels = session.pixels(4)
    assert list(bare.reading.class_names) == session.edit_reader.top_classes(pixels)
    example, _ = result(tab, handlers.restore(tab, request_of(session, address="?tab=edit")))
    assert example.picture == sources.example(session)[0]
    words = sources.edit_of_link("red car>0.1:0.25", session)
    assert words == edit_of(session, words=(WordFactor("red car", 0.1, 0.25),))


def test_another_bundle_keeps_the_visitors_image_and_not_the_example(tab, session):
    widgets, noise = tab.widgets, Image.effect_noise((8, 8), 9).convert("RGB")
    updates = handlers.bundle_changed(tab, request_of(session, image=noise))
    assert updates[widgets.opened] is None
    assert widgets.image not in updates
    assert "Press Classify" in updates[widgets.result]
    closed = handlers.bundle_changed(
        tab, request_of(session, image=session.image(0), opened=opened(session))
    )
    assert closed[widgets.image] is None


def test_captions_name_whole_words_but_no_colours(monkeypatch):
    patterns, escape = [], re.escape
    monkeypatch.setattr(re, "escape", lambda name: patterns.append(name) or escape(name))
    known = ("cat", "mat", "at", "red car", "dog", "red")
    assert sources.named_by("a cat on a red mat", known) == ["cat", "mat"]
    assert patterns == ["cat", "mat", "at"], "no pattern for names that are not there at all"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4.x:0", "expected an edit such as"),
        ("nothing", "expected an edit such as"),
        ("1.2:nan", "expected a finite number"),
        ("99.0:0", "no layer 99"),
    ],
)
def test_bad_addresses_are_one_line(tab, session, text, message):
    with pytest.raises(EditError, match=message) as error:
        handlers.restore(tab, request_of(session, address=f"?tab=edit&edit={text}"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no json", "the edit is not JSON"),
        (b"", "expected an edit of schema version 1"),
        (b"[1]", "the edit should hold an object"),
        (b"[" * 100_000, "the edit is not JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b" " * (2**20 + 1), "larger than 1 MB"),
        (b'{"schema_version": 1, "weights_sha256": "1"}', "expected an edit of this bundle's"),
    ],
)
def test_bad_files_are_one_line(tab, session, tmp_path, content, message):
    path = tmp_path / "edit.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        handlers.load(tab, request_of(session, opened=opened(session), edit_file=str(path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("function", [handlers.find, handlers.switch_off, handlers.load])
def test_without_an_image_there_is_nothing_to_edit(tab, session, function):
    with pytest.raises(ValueError, match="Classify an image first"):
        function(tab, request_of(session))


def test_what_needs_no_edit_and_too_many_images_are_refused(session):
    shown = opened(session)
    with pytest.raises(ValueError, match=r"classified as .* already"):
        handlers.turned(session, shown, shown.top)
    with pytest.raises(ValueError, match="At most 8 images"):
        handlers.opened_with(session, [session.image(0)] * 9, NAMES)
