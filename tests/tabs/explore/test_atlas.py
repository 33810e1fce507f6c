"""The map of all units and the mosaic: what the browser is given."""

from dataclasses import replace
from io import BytesIO

import pytest
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient
from torch.nn.functional import normalize

from export.pipeline.unit_map import with_map
from tabs.explore.atlas import TILE, clusters, map_data, map_html, mosaic_images
from tabs.explore.routes import routes
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle, tiny_labels


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    bundle = tiny_bundle()
    bundle.layers[2].directions[5] = 0
    labels = tiny_labels(bundle)
    labels = {k: replace(v, q_value=v.q_value * 0) for k, v in labels.items()}
    bundle = with_map(replace(bundle, labels=labels))
    return BundleSession("b", tmp_path_factory.mktemp("b"), bundle)


def test_every_unit_that_is_not_dead_is_on_the_map_at_its_place(session):
    data, bundle = map_data(session), session.bundle
    units = list(zip(data["layer"], data["unit"], strict=True))
    assert (2, 5) not in units
    assert len(units) == 2 * 16 - 1
    for column in ("x", "y", "kind", "score", "label", "images"):
        assert len(data[column]) == len(units)
    at = units.index((2, 3))
    assert (data["x"][at], data["y"][at]) == pytest.approx(
        bundle.positions[2][3].tolist(), abs=1e-3
    )
    assert max(map(abs, data["x"] + data["y"])) == pytest.approx(1, abs=2e-3)
    for (layer, unit), kind in zip(units, data["kind"], strict=True):
        assert (kind >= 0) == bundle.label(layer, unit).reliable
        assert kind < len(data["legend"])


def test_clusters_are_those_of_well_separated_rows():
    generator = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(3, 24, generator=generator), dim=1)
    wanted = torch.arange(30) % 3
    rows = normalize(centres[wanted] + 0.05 * torch.randn(30, 24, generator=generator), dim=1)
    group, _ = clusters(rows, 3)
    assert {tuple(group[wanted == i].unique().tolist()) for i in range(3)} == {(0,), (1,), (2,)}


def test_a_bundle_without_a_map_says_how_to_draw_one(tmp_path):
    plain = BundleSession("b", tmp_path, tiny_bundle())
    assert "refresh-card --map" in map_html(plain)
    assert map_data(plain) == {}


def test_routes_give_data_images_and_the_units_that_see_one(session):
    client = TestClient(Starlette(routes=routes(BundleRegistry([session]))))
    assert client.get("/explore/map").json() == map_data(session)
    with Image.open(BytesIO(client.get("/explore/mosaic").content)) as sheet:
        assert sheet.size == (TILE * len(mosaic_images(session)), TILE)
    image = mosaic_images(session)[0]
    answer = client.get(f"/explore/image?bundle=b&image={image}")
    assert answer.content == session.bundle.examples[image]
    seen = client.get(f"/explore/seen?image={image}").text
    for layer, arrays in session.bundle.layers.items():
        for unit in range(16):
            if arrays.top_activating_images[unit, 0] == image:
                assert f"layer={layer}&amp;unit={unit}&" in seen
    for wrong in ("image?image=99999", "image?image=-1", "image?image=x", "map?bundle=nowhere"):
        assert client.get(f"/explore/{wrong}").status_code == 404
