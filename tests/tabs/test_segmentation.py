"""The segmentation tab's functions on a tiny bundle."""

import json
import re
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.bundle.thumbnails import Examples
from clipneurons.models.preprocess import whole
from clipneurons.segmentation.masks import from_rle
from clipneurons.segmentation.methods import BEST
from clipneurons.segmentation.presence import Presence
from tabs.segmentation import handlers
from tabs.segmentation.examples import any_example, examples, named_in
from tabs.segmentation.found import files, found_data, search
from tabs.segmentation.neurons import said_at, voters
from tabs.segmentation.pictures import SIDE, clicked, drawn, enlarged, regions, shown_size
from tabs.segmentation.presence import presence_html
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.neuron_card import says
from tests.helpers.models import tiny_vit
from tests.helpers.tiny import tiny_bundle, tiny_webp


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    clip = tiny_vit(embed_dim=24)
    bundle = tiny_bundle(clip=clip, neurons=clip.neurons)
    session = BundleSession("tiny", tmp_path_factory.mktemp("none"), bundle)
    session.__dict__["_clip"] = clip
    return session


@pytest.fixture(scope="module")
def image():
    data = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(data)


@pytest.fixture(scope="module")
def found(session, image):
    return search(session, image, "cat, red car,", BEST, False, False)


def test_search_and_pictures(found):
    assert found.result.names == ("cat", "red car")
    heat, mask = drawn(found, "red car", 0.5, 0.9)
    assert heat.size == (60, 40) == mask.size
    assert np.asarray(mask).mean() / 255 == pytest.approx(
        (found.result.heat[1] > 0.9).float().mean().item()
    )
    first = drawn(found, None, 0.5, 0.9)[0]
    assert first.tobytes() == drawn(found, "cat", 0.5, 0.9)[0].tobytes() != heat.tobytes()


def test_regions_do_not_overlap(found):
    found = replace(found, presence=[Presence(0.3, 0.0, 1.0)] * 2)
    shown, parts = regions(found, 0.0)
    assert shown.size == (60, 40)
    assert {name for _, name in parts} <= {"cat", "red car"}
    assert sum(mask for mask, _ in parts).max() == 1
    assert regions(found, 1.0)[1] == []


def test_voters_and_clicks_lead_into_the_dictionary(found, session):
    bars = voters(session, "cat")
    assert bars.count("tab=dictionary") == 12
    assert "“cat”" in bars
    layer, unit = re.search(r"layer=(\d+)&amp;unit=(\d+)", bars).groups()
    assert f">{layer} · {unit} " in bars, "not a decimal number"
    corner, other = (said_at(found, session, point) for point in [(0, 0), (59, 39)])
    assert "row 1, column 1 of 4 × 4" in corner
    assert "row 4, column 4" in other
    assert corner.count("tab=dictionary") == 10


def test_neurons_are_listed_with_the_minus_of_their_words(found, session):
    for page in (voters(session, "cat"), said_at(found, session, (0, 0))):
        for layer, unit in re.findall(r"layer=(\d+)&amp;unit=(\d+)", page):
            words = says(session.bundle, int(layer), int(unit), 3)
            assert f">{layer} · {unit}  {words}</a>" in page
    assert "−" in re.sub(r'title="[^"]*"|cn-value">[^<]*', "", page), "some have a minus"


def test_files_hold_the_masks(found):
    picture, annotations = files(found, 0.5)
    with Image.open(picture) as opened:
        mask = np.asarray(opened) > 0
    coco = json.loads(Path(annotations).read_text())
    assert [c["name"] for c in coco["categories"]] == ["cat", "red car"]
    assert (from_rle(coco["annotations"][0]["segmentation"]).numpy() == mask).all()
    assert (mask == found.result.mask(0, 0.5).numpy()).all()


def test_names_that_fit_nowhere_are_marked_and_not_painted(found, session, image):
    embedding = session.clip.encode_image(whole(session.clip, image))[0]
    cosine = torch.cosine_similarity(session.clip.encode_text(["cat"])[0], embedding, dim=0)
    assert found.presence[0].cosine == pytest.approx(cosine.item(), abs=1e-5)
    share = (session.bundle.text_embeddings @ (embedding / embedding.norm()) > cosine).float()
    assert found.presence[0].above == pytest.approx(share.mean().item())
    there, gone = Presence(0.3, 0.05, 0.999), Presence(0.1, 0.7, 0.9)
    page = presence_html(found.result.names, [there, gone], 1000)
    assert ">red car (not found)<" in page
    assert ">cat<" in page
    assert ">90.0 %<" in page
    rival = presence_html(["dog"], [Presence(0.3, 0.0, 1.0, "cat")], 1000)
    assert ">dog (rather cat)<" in rival
    neither = presence_html(["dog"], [Presence(0.3, 0.0, 0.1, "cat")], 1000)
    assert ">dog (not found)<" in neither
    lengths = [float(share) for share in re.findall(r"--share:([\d.]+)", page)]
    lines = {float(at) for at in re.findall(r"--at:([\d.]+)", page)}
    assert len(lines) == 1, "one line across all bars"
    assert lengths[0] == 1 > lines.pop() > lengths[1] > 0
    shares = re.findall(r"--share:([\d.]+)", presence_html(["x"], [gone], 1000))
    assert float(shares[0]) == lengths[1], "the axis does not depend on what is shown"
    assert regions(replace(found, presence=[gone, gone]), 0.0) == (found.image, [])
    painted = [name for _, name in regions(replace(found, presence=[gone, there]), 0.0)[1]]
    assert painted == ["red car"], "the better score of a name that is not there does not count"


@pytest.mark.parametrize("size", [(60, 40), (64, 64), (400, 50), (30, 200), (700, 300), (1, 1)])
def test_clicks_on_the_enlarged_picture_are_divided_back(found, size):
    own = replace(found, image=Image.new("RGB", size))
    width, height = shown_size(size)
    assert max(width, height) >= SIDE
    assert width * size[1] == pytest.approx(height * size[0], rel=0.02)
    for x, y in [(0, 0), (width - 1, height - 1), (int(0.55 * width), int(0.4 * height))]:
        point = clicked(own, (x, y))
        assert point == (int((x * size[0]) / width), int((y * size[1]) / height))
        assert 0 <= point[0] < size[0]
        assert 0 <= point[1] < size[1]
    assert [picture.size for picture in enlarged(found, "cat", 0.5, 0.5)] == [
        shown_size((60, 40))
    ] * 2


def test_pictures_of_several_things_come_first_where_each_has_its_place(
    session, tmp_path, monkeypatch
):
    captions = ["a cat and a dog", "a dog above a cat", "a cat below a dog"]
    pictures = {i: tiny_webp(i) for i in range(3)}
    shown = replace(session.bundle, examples=Examples.build(pictures, dict(enumerate(captions))))
    ready = BundleSession("tiny", tmp_path, shown)
    ready.__dict__["_clip"] = session.clip
    last = examples(ready)[-1].image.tobytes()

    def regions(image, none):
        """In the last picture the smaller one has 30 %, in the others 10 % or no place at all."""
        share = 30 if image.tobytes() == last else 10
        masks = [np.arange(100) < share, np.arange(100) >= share]
        both = list(zip(masks, ("cat", "dog"), strict=True))
        return image, both if image.tobytes() != first else both[:1]

    first = examples(ready)[0].image.tobytes()
    monkeypatch.setattr(f"{examples.__module__}.search", lambda session, image, *_, **__: image)
    monkeypatch.setattr(f"{examples.__module__}.regions", regions)
    again = BundleSession("tiny", tmp_path, shown)
    again.__dict__["_clip"] = session.clip
    assert examples(again)[0].image.tobytes() == last
    assert examples(again)[-1].image.tobytes() == first


def test_examples_come_with_the_words_of_their_captions(session, tmp_path):
    known = {"cat", "palm tree", "tree", "sun"}
    assert named_in("A drawing of a palm tree, a cat and a Cat", known) == ["palm tree", "cat"]
    assert named_in(None, known) == []
    captions = ["a cat and a dog", "a dog", "nothing", "a dog above a cat"]
    pictures = {i: tiny_webp(i) for i in range(4)}
    shown = replace(session.bundle, examples=Examples.build(pictures, dict(enumerate(captions))))
    ready = BundleSession("tiny", tmp_path, shown)
    ready.__dict__["_clip"] = session.clip
    found = examples(ready)
    several, one, *rest = found
    assert several.words in ("cat, dog", "dog, cat"), "of several things and of one, in turn"
    assert one.words == "dog"
    assert {one.words for one in rest} == {"cat, dog", "dog, cat"} - {several.words}
    assert found[0].image.size == (16, 16)
    assert any_example(ready).words
    empty = BundleSession("tiny", tmp_path, replace(shown, examples=Examples.build({}, {})))
    assert examples(empty) == []
    with pytest.raises(ValueError, match="no images"):
        any_example(empty)


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
        settings = (BEST, False, False, 0.6, 0.5, 0.4)
        registry = BundleRegistry([session])
        shown = [handlers.find(registry, "", image, words, *settings) for words in ("zebra", "cat")]
        assert "never saw “zebra” in training" in shown[0][2]
        assert shown[1][2] == ""
        assert handlers.find_first(registry, "", shown[0][0], image, "cat")["__type__"] == "update"
        assert handlers.find_first(registry, "", None, None, "cat")["__type__"] == "update"
    finally:
        with torch.no_grad():
            table.copy_(kept)


def test_data_has_bounds(found):
    many = replace(found.result, names=tuple(map(str, range(101))))
    with pytest.raises(ValueError, match="At most 100 names"):
        found_data(replace(found, result=many), 0.5)


def test_messages(session, image):
    for arguments, words in [
        ((None, "cat", BEST), "Choose an image"), ((image, " , ", BEST), "Write what"),
        ((image, "cat", "magic"), "no method 'magic'"), ((image, "a,a", BEST), "given twice"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            search(session, *arguments, False, False)


def test_another_bundle_hides_what_was_found_and_not_what_is_on_its_way(session, found):
    registry = BundleRegistry([session])
    *_, box, more = handlers.change_bundle(registry, session.key, None)
    assert box == more == gr.skip()
    *_, box, more = handlers.change_bundle(registry, session.key, found)
    assert box["visible"] is more["visible"] is True
    *_, box, more = handlers.change_bundle(registry, session.key, replace(found, bundle="other"))
    assert box["visible"] is more["visible"] is False
