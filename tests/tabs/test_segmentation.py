"""The segmentation tab's functions on a tiny bundle."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.models.preprocess import whole
from clipneurons.segmentation.masks import from_rle
from clipneurons.segmentation.methods import BEST
from tabs import segmentation as tab
from tabs.server.session import BundleSession
from tabs.ui.neuron_card import says
from tests.helpers.models import tiny_vit
from tests.helpers.tiny import tiny_bundle


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
    return tab.search(session, image, "cat, red car,", BEST, False, False)


def test_search_and_pictures(found):
    assert found.result.names == ("cat", "red car")
    heat, mask = tab.drawn(found, "red car", 0.5, 0.9)
    assert heat.size == (60, 40) == mask.size
    assert np.asarray(mask).mean() / 255 == pytest.approx(
        (found.result.heat[1] > 0.9).float().mean().item()
    )
    first = tab.drawn(found, None, 0.5, 0.9)[0]
    assert first.tobytes() == tab.drawn(found, "cat", 0.5, 0.9)[0].tobytes() != heat.tobytes()


def test_regions_do_not_overlap(found):
    shown, parts = tab.regions(found, 0.0)
    assert shown.size == (60, 40)
    assert {name for _, name in parts} <= {"cat", "red car"}
    assert sum(mask for mask, _ in parts).max() == 1
    assert tab.regions(found, 1.0)[1] == []


def test_voters_and_clicks_lead_into_the_dictionary(found, session):
    bars = tab.voters(session, "cat")
    assert bars.count("tab=dictionary") == 12
    assert "“cat”" in bars
    layer, unit = re.search(r"layer=(\d+)&amp;unit=(\d+)", bars).groups()
    assert f">{layer} · {unit} " in bars, "not a decimal number"
    corner, other = (tab.said_at(found, session, point) for point in [(0, 0), (59, 39)])
    assert "row 1, column 1 of 4 × 4" in corner
    assert "row 4, column 4" in other
    assert corner.count("tab=dictionary") == 10


def test_neurons_are_listed_with_the_minus_of_their_words(found, session):
    for page in (tab.voters(session, "cat"), tab.said_at(found, session, (0, 0))):
        for layer, unit in re.findall(r"layer=(\d+)&amp;unit=(\d+)", page):
            words = says(session.bundle, int(layer), int(unit), 3)
            assert f">{layer} · {unit}  {words}</a>" in page
    assert "−" in re.sub(r'title="[^"]*"|cn-value">[^<]*', "", page), "some have a minus"


def test_files_hold_the_masks(found):
    picture, annotations = tab.files(found, 0.5)
    with Image.open(picture) as opened:
        mask = np.asarray(opened) > 0
    coco = json.loads(Path(annotations).read_text())
    assert [c["name"] for c in coco["categories"]] == ["cat", "red car"]
    assert (from_rle(coco["annotations"][0]["segmentation"]).numpy() == mask).all()
    assert (mask == found.result.mask(0, 0.5).numpy()).all()


def test_names_that_the_whole_image_hardly_speaks_of_are_marked(found, session, image):
    embedding = session.clip.encode_image(whole(session.clip, image))[0]
    cosine = torch.cosine_similarity(session.clip.encode_text(["cat"])[0], embedding, dim=0)
    assert found.agreement[0][0] == pytest.approx(cosine.item(), abs=1e-5)
    share = (session.bundle.text_embeddings @ (embedding / embedding.norm()) > cosine).float()
    assert found.agreement[0][1] == pytest.approx(share.mean().item())
    page = tab.agreement_html(replace(found, agreement=[(0.3, 0.05), (0.1, 0.7)]))
    assert ">red car (small, or not in the picture)<" in page
    assert ">cat<" in page
    assert "70% of the bundle&#x27;s texts agree more" in page


def test_data_has_bounds(found):
    many = replace(found.result, names=tuple(map(str, range(101))))
    with pytest.raises(ValueError, match="At most 100 names"):
        tab.found_data(replace(found, result=many), 0.5)


def test_messages(session, image):
    for arguments, words in [
        ((None, "cat", BEST), "Choose an image"), ((image, " , ", BEST), "Write what"),
        ((image, "cat", "magic"), "no method 'magic'"), ((image, "a,a", BEST), "given twice"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            tab.search(session, *arguments, False, False)
