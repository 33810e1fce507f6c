"""Groups of top images in a bundle's file: there and back, absent, damaged."""

from dataclasses import replace

import pytest
import torch

from clipneurons.bundle.bundle import BundleDamaged, load_bundle, save_bundle
from clipneurons.bundle.image_groups import GROUPS, SHOWN, ImageGroups, shown_images
from tests.helpers.tiny import tiny_bundle, tiny_labels


@pytest.fixture
def bundle():
    """Labels of layer 1 with groups."""
    bundle = tiny_bundle()
    labels = tiny_labels(bundle)
    images = torch.full((16, SHOWN), -1, dtype=torch.int32)
    images[3, :6] = torch.tensor([0, 0, 1, 0, 1, 0])
    groups = ImageGroups(
        images,
        torch.full((16, GROUPS), -1, dtype=torch.int32),
        torch.full((16, GROUPS), torch.nan),
        torch.rand(16, GROUPS),
    )
    return replace(bundle, labels=labels | {1: replace(labels[1], groups=groups)})


def test_groups_come_back_as_they_were_and_layers_without_have_none(bundle, tmp_path):
    found = load_bundle(save_bundle(bundle, tmp_path / "b")).labels
    mine = bundle.labels[1].groups
    for name in ("images", "text", "purity", "auc"):
        value = getattr(found[1].groups, name)
        torch.testing.assert_close(value, getattr(mine, name), equal_nan=True)
    assert found[2].groups is None


@pytest.mark.parametrize(("name", "wrong"), [("text", 8), ("images", GROUPS)])
def test_groups_that_point_nowhere_are_refused(bundle, tmp_path, name, wrong):
    mine = bundle.labels[1].groups
    bad = replace(mine, **{name: torch.full_like(getattr(mine, name), wrong)})
    labels = {**bundle.labels, 1: replace(bundle.labels[1], groups=bad)}
    with pytest.raises(BundleDamaged, match=f"groups' {name}"):
        save_bundle(replace(bundle, labels=labels), tmp_path / "b")


def test_a_unit_shows_its_first_images_that_have_a_thumbnail():
    images = torch.tensor([5, 9, 7, -1])
    norms = torch.tensor([4.0, 3.0, 2.0, 0.0])
    assert shown_images(images, norms, {5, 7}) == [(5, 4.0), (7, 2.0)]
    assert len(shown_images(torch.arange(40), torch.zeros(40), range(40))) == SHOWN
