"""Which bundles a visitor is shown something of without asking."""

from dataclasses import replace

import pytest

from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle, tiny_bundle_folder


@pytest.fixture
def local(tmp_path):
    return BundleSession("local", tiny_bundle_folder(tmp_path / "tiny"))


def named(folder, key, model="ViT-B-32", pretrained="laion2b_s34b_b79k"):
    bundle = tiny_bundle()
    config = replace(bundle.config, model=model, pretrained=pretrained)
    return BundleSession(key, folder, replace(bundle, config=config))


def test_a_model_that_lies_beside_its_bundle_may_run(local, tmp_path):
    registry = BundleRegistry([named(tmp_path, "other"), local])
    assert registry.unasked("local") is local
    assert local.ready


def test_no_model_is_fetched_unasked(local, tmp_path, monkeypatch):
    other = named(tmp_path, "other")
    registry = BundleRegistry([local, other])
    monkeypatch.setattr(
        BundleSession, "lens", property(lambda session: pytest.fail(f"loads {session.key}"))
    )
    assert registry.unasked("other") is None


def test_a_first_model_that_cannot_be_loaded_gives_no_example(tmp_path):
    broken = named(tmp_path, "broken", "no such architecture", "none")
    assert BundleRegistry([broken]).unasked("") is None
    assert BundleRegistry([broken]).unasked("elsewhere") is None
