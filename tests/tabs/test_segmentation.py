"""The segmentation tab's functions on a tiny bundle."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.bundle.thumbnails import Examples
from clipneurons.reader import Reader
from clipneurons.segmentation.masks import from_rle
from clipneurons.segmentation.presence import Line, Presence
from tabs.segmentation import handlers
from tabs.segmentation.handlers import (
    SearchRequest,
    examples,
    files,
    named_in,
    names_of,
    searched,
    take,
)
from tabs.segmentation.layout import Widgets
from tabs.segmentation.view import (
    SIDE,
    clicked,
    drawn,
    enlarged,
    here_html,
    presence_html,
    regions,
    shown_size,
    voters_html,
)
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.units import unit_title
from tests.helpers.models import tiny_vit
from tests.helpers.tiny import tiny_bundle, tiny_webp

THERE, GONE = Presence(0.3, 5.0, None, True), Presence(0.1, 1.0)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    clip = tiny_vit(embed_dim=24)
    bundle = tiny_bundle(clip=clip, neurons=clip.neurons)
    session = BundleSession("tiny", tmp_path_factory.mktemp("none"), bundle)
    session.cached("reader", lambda: Reader(clip, session.bundle))
    return session


@pytest.fixture(scope="module")
def image():
    data = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(data)


@pytest.fixture(scope="module")
def search(session, image):
    return searched(session, SearchRequest("", image, "cat, red car,", anyway=True))


def test_search_and_pictures(search):
    assert search.result.names == ("cat", "red car")
    heat, mask = drawn(search, "red car", 0.9)
    assert heat.size == (60, 40) == mask.size
    assert np.asarray(mask).mean() / 255 == pytest.approx(
        (search.result.heat[1] > 0.9).float().mean().item()
    )
    first = drawn(search, None, 0.9)[0]
    assert first.tobytes() == drawn(search, "cat", 0.9)[0].tobytes() != heat.tobytes()


def test_regions_do_not_overlap(search):
    shown, parts = regions(search)
    assert shown.size == (60, 40)
    assert {name for _, name in parts} <= {"cat", "red car"}
    assert sum(mask for mask, _ in parts).max() == 1


def test_only_what_is_found_is_painted_unless_asked_for(search):
    one = replace(search, presence=[GONE, THERE], anyway=False)
    assert one.first == "red car"
    assert [name for _, name in regions(one)[1]] == ["red car"]
    picture, mask = drawn(one, "cat", 0.5)
    assert picture.tobytes() == search.image.tobytes()
    assert not np.asarray(mask).any()
    cat, car = one.to_dict()["classes"]
    assert (cat["found"], cat["share"], car["found"]) == (False, 0.0, True)
    assert car["share"] > 0
    none = replace(one, presence=[GONE, GONE])
    assert regions(none) == (search.image, [])
    assert not np.asarray(Image.open(files(none, 0.5)[0])).any()
    forced = replace(none, anyway=True)
    assert all(row["share"] > 0 for row in forced.to_dict()["classes"])


def test_found_or_not_is_said_without_a_percentage_of_the_name(search):
    rival = Presence(0.3, 5.0, "dog", False)
    page = presence_html(replace(search, presence=[THERE, rival]), Line(3.6, 0.049, 0.55))
    assert ">cat</span> <b>found</b>" in page
    assert ">red car</span> <b>not found (rather dog)</b>" in page
    assert "gives 5 % false finds and finds 55 %" in page
    unknown = presence_html(replace(search, presence=[THERE, GONE]), Line())
    assert ">red car</span> <b>not found</b>" in unknown
    assert "%" not in unknown


def test_voters_and_clicks_lead_into_the_dictionary(search, session):
    bars = voters_html(session, "cat")
    assert bars.count("tab=explore") == 12
    assert "“cat”" in bars
    layer, unit = re.search(r"layer=(\d+)&amp;unit=(\d+)", bars).groups()
    assert f">{layer} · {unit}</a>" in bars, "not a decimal number"
    corner, other = (here_html(search, session, point) for point in [(0, 0), (59, 39)])
    assert "row 1, column 1 of 4 × 4" in corner
    assert "row 4, column 4" in other
    assert corner.count("tab=explore") == 10


def test_neurons_are_listed_with_their_labels(search, session):
    for page in (voters_html(session, "cat"), here_html(search, session, (0, 0))):
        for layer, unit in re.findall(r"layer=(\d+)&amp;unit=(\d+)", page):
            assert f">{unit_title(session.bundle, int(layer), int(unit))}</a>" in page


def test_files_hold_the_masks(search):
    png, coco = files(search, 0.5)
    with Image.open(png) as opened:
        mask = np.asarray(opened) > 0
    annotations = json.loads(Path(coco).read_text())
    assert [c["name"] for c in annotations["categories"]] == ["cat", "red car"]
    assert (from_rle(annotations["annotations"][0]["segmentation"]).numpy() == mask).all()
    assert (mask == search.result.mask(0, 0.5).numpy()).all()


@pytest.mark.parametrize("size", [(60, 40), (64, 64), (400, 50), (30, 200), (700, 300), (1, 1)])
def test_clicks_on_the_enlarged_picture_are_divided_back(search, size):
    own = replace(search, image=Image.new("RGB", size))
    width, height = shown_size(size)
    assert max(width, height) >= SIDE
    assert width * size[1] == pytest.approx(height * size[0], rel=0.02)
    for x, y in [(0, 0), (width - 1, height - 1), (int(0.55 * width), int(0.4 * height))]:
        point = clicked(own, (x, y))
        assert point == (int((x * size[0]) / width), int((y * size[1]) / height))
        assert 0 <= point[0] < size[0]
        assert 0 <= point[1] < size[1]
    assert [picture.size for picture in enlarged(search, "cat", 0.5)] == [shown_size((60, 40))] * 2


def test_words_are_split_at_punctuation_and_each_is_asked_once():
    assert names_of("dog, cat") == ["dog", "cat"]
    assert names_of("apple;") == ["apple"]
    assert names_of(" cat ;dog\ncat. , ,'a hot dog'!") == ["cat", "dog", "a hot dog"]
    assert names_of(None) == names_of(" ,;") == []
    with pytest.raises(ValueError, match="At most 10,000 letters"):
        names_of("a, " * 100_000)
    with pytest.raises(ValueError, match="At most 100 names"):
        names_of(", ".join(map(str, range(101))))


def test_examples_come_with_the_words_of_their_captions(session, tmp_path):
    known = {"cat", "palm tree", "tree", "sun"}
    assert named_in("A drawing of a palm tree, a cat and a Cat", known) == ["palm tree", "cat"]
    assert named_in(None, known) == []
    captions = ["a cat and a dog", "a dog", "nothing", "a dog above a cat"]
    pictures = {i: tiny_webp(i) for i in range(4)}
    shown = replace(session.bundle, examples=Examples.build(pictures, dict(enumerate(captions))))
    ready = BundleSession("tiny", tmp_path, shown)
    ready.cached("reader", lambda: Reader(session.clip, ready.bundle))
    found = examples(ready)
    several, one, *rest = found
    assert several.words in ("cat, dog", "dog, cat"), "of several things and of one, in turn"
    assert one.words == "dog"
    assert {one.words for one in rest} == {"cat, dog", "dog, cat"} - {several.words}
    assert found[0].image.size == (16, 16)
    registry = BundleRegistry([ready])
    assert take(registry, "")[1]
    empty = BundleSession("tiny", tmp_path, replace(shown, examples=Examples.build({}, {})))
    assert examples(empty) == []
    with pytest.raises(ValueError, match="no images"):
        take(BundleRegistry([empty]), "")


def test_a_picture_that_a_link_brought_stays_where_the_tab_opens(session, image):
    registry = BundleRegistry([session])
    assert handlers.show_example(registry, "", "", image) == gr.skip()
    assert handlers.show_example(registry, "", "", None, "linked") == gr.skip()
    assert handlers.show_example(registry, "", handlers.OWN, image) == gr.skip()
    key, *_ = handlers.show_example(registry, "", "", None)
    assert key == session.key, "without one the bundle's example is shown"
    assert handlers.show_example(registry, "", key, image) == gr.skip(), "which stays"


def test_words_that_the_model_never_saw_are_told(session, image):
    with torch.no_grad():
        table = session.clip.model.token_embedding.weight
        kept = table.clone()
        table[session.clip.tokenizer(["zebra"])[0, 1]] = 0
    try:
        registry = BundleRegistry([session])
        widgets = Widgets(**{field.name: field.name for field in fields(Widgets)})
        zebra, cat = (
            handlers.find(registry, widgets, SearchRequest("", image, words))
            for words in ("zebra", "cat")
        )
        assert "never saw “zebra” in training" in zebra[widgets.unknown]
        assert cat[widgets.unknown] == ""
        assert zebra.keys() == set(widgets.results())
        for request in (
            SearchRequest("", image, "cat", former=zebra[widgets.search]),
            SearchRequest("", None, "cat"), SearchRequest("", image, " ,"),
        ):  # fmt: skip
            assert handlers.find_first(registry, widgets, request) == gr.skip()
    finally:
        with torch.no_grad():
            table.copy_(kept)


def test_messages(session, image):
    for asked, words in [(None, "Choose an image"), (image, "Write what")]:
        with pytest.raises(ValueError, match=words):
            searched(session, SearchRequest("", asked, " , "))


def test_another_bundle_hides_what_was_found_and_not_what_is_on_its_way(session, search):
    registry = BundleRegistry([session])
    assert handlers.change_bundle(registry, session.key, None) == (gr.skip(), gr.skip())
    for bundle, visible in ((session.key, True), ("other", False)):
        shown = handlers.change_bundle(registry, session.key, replace(search, bundle=bundle))
        assert [update["visible"] for update in shown] == [visible] * 2
