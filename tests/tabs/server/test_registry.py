"""Which bundles can be chosen, and of which something is shown without asking."""

from dataclasses import replace

import gradio as gr
import pytest
from huggingface_hub import constants

from clipneurons.bundle.config import BundleError
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tests.helpers.hub_standin import Repository, serve
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


def test_a_bundle_of_the_hub_can_be_chosen_once_it_was_opened(local, tmp_path, monkeypatch):
    files = {
        path.relative_to(local.folder).as_posix(): path.read_bytes()
        for path in local.folder.rglob("*")
        if path.is_file()
    }
    registry = BundleRegistry([local], hub=True)
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        hub.repositories["user/neurons"] = Repository()
        hub.repositories["user/neurons"].commit(files)
        with pytest.raises(gr.Error, match="open it from the Hub"):
            registry["user/neurons"]
        session = registry.open("user/neurons")
        hub.log.clear()
        assert registry.open("user/neurons") is registry["user/neurons"] is session
        assert hub.log == [], "what is open is not asked for again"
        assert session.clip.sha256() == local.bundle.config.weights_sha256
        assert [key for _, key in registry.choices] == ["local", "user/neurons"]


@pytest.mark.parametrize(
    "name", ["", "..", "/etc", "../x", "~/bundle", "a/b/c", "hf-hub:user/x", "user/x@../y", "u/x\n"]
)
def test_only_names_of_repositories_are_opened_by_name(local, name):
    with pytest.raises(BundleError, match="expected 'user/name'"):
        BundleRegistry([local], hub=True).open(name)


def test_a_message_shows_what_a_link_says_as_text(local):
    with pytest.raises(gr.Error, match="&lt;img src=x&gt;"):
        BundleRegistry([local])["<img src=x>"]
