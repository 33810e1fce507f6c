"""A neuron on pictures: maps of the gallery's, the verdict on one's own."""

import pytest
from PIL import Image

from tabs.explore.dashboard import show
from tabs.explore.on_image import fire_maps, share_below, tried_html
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle_folder


@pytest.fixture(scope="module", params=["vit", "resnet"])
def session(request, tmp_path_factory):
    folder = tiny_bundle_folder(tmp_path_factory.mktemp("b") / "tiny", kind=request.param)
    return BundleSession("b", folder)


def test_maps_are_over_patches_and_reach_one_where_anything_pushes(session):
    layer = max(session.bundle.layers)
    found = fire_maps(session, layer, 3, [0, 4])
    assert set(found) == {0, 4}
    rows, columns = session.clip.grid
    for values in found.values():
        flat = [value for row in values for value in row]
        assert (len(values), len(values[0])) == (rows, columns)
        assert min(flat) >= 0
        assert max(flat) in (0, pytest.approx(1))
    assert fire_maps(session, layer, 3, []) == {}


def test_maps_lie_over_the_pictures_only_where_they_were_asked_for(session):
    layer = max(session.bundle.layers)
    assert "cn-map" not in show(session, layer, 3, "", model=True)
    page = show(session, layer, 3, "", model=True, fires=True)
    assert page.count('class="cn-map"') == page.count('<summary class="cn-lit">') > 0


def test_a_picture_is_judged_by_the_units_threshold(session):
    layer = max(session.bundle.layers)
    picture = Image.radial_gradient("L").convert("RGB")
    threshold = session.bundle.layers[layer].percentile
    before = float(threshold[3])
    try:
        threshold[3] = 1e9
        assert "Not activated" in tried_html(session, layer, 3, picture)
        threshold[3] = 0
        assert "Activated, a" in tried_html(session, layer, 3, picture)
    finally:
        threshold[3] = before
    with pytest.raises(ValueError, match="units 0 to"):
        tried_html(session, layer, 10**6, picture)


def test_the_share_below_counts_whole_bins(session):
    layer = max(session.bundle.layers)
    edges = session.bundle.config.norm_edges
    counts = session.bundle.layers[layer].norm_histogram[3].tolist()
    norm = edges[7]
    expected = sum(c for c, end in zip(counts, edges[1:], strict=True) if end <= norm) / sum(counts)
    assert share_below(session, layer, 3, norm) == pytest.approx(expected)
