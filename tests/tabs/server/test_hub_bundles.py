"""Bundles that visitors open from the Hub, against a stand-in of the Hub on loopback."""

from __future__ import annotations

import gc
import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import app
from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import BundleDamaged, BundleError
from clipneurons.bundle.hub import GatedRepository, NoNetwork, NoSuchRepository
from clipneurons.models.clip import load_clip
from tabs.server import hub_bundles as hub_bundles
from tabs.server.hub_bundles import MOST_BYTES, HubBundleCache
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.server.strangers_model import check_checkpoint, check_model, plain_settings
from tests.clipneurons.models.test_transformers_clip import saved
from tests.helpers.hub_standin import TOKEN, Hub, Repository, serve
from tests.helpers.models import images
from tests.helpers.tiny import tiny_bundle, tiny_bundle_folder

REPO = "user/neurons"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return tiny_bundle_folder(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "bundle")


@pytest.fixture
def hub(monkeypatch, tmp_path, made):
    """A hub with one bundle; whoever runs the server is logged in there, visitors are not."""
    with serve() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        (tmp_path / "temporary").mkdir()
        put(standin, REPO, made)
        yield standin


def put(hub: Hub, name: str, folder: Path) -> str:
    """The folder's files as the newest commit of a repository."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return hub.repositories.setdefault(name, Repository()).commit(files)


def kept() -> list[Path]:
    import tempfile

    gc.collect()
    return list(Path(tempfile.gettempdir()).glob("clipneurons-hub-*"))


def test_an_opened_bundle_is_whole_and_has_its_model(hub, made):
    hub_cache = HubBundleCache()
    session = hub_cache.open(REPO)
    local = load_bundle(made)
    assert session.key == REPO
    assert torch.equal(session.bundle.layers[1].directions, local.layers[1].directions)
    assert session.clip.sha256() == local.config.weights_sha256
    hub.log.clear()
    assert hub_cache.open(REPO) is session
    assert hub_cache.get(REPO) is session
    assert hub.log == [], "what is open is not asked for again"


def test_a_revision_can_be_named(hub, folder):
    first = hub.repositories[REPO].commits[-1][0]
    save_bundle(replace(load_bundle(folder), metrics={"fidelity": {}, "new": 1}), folder)
    put(hub, REPO, folder)
    hub_cache = HubBundleCache()
    assert hub_cache.open(REPO).bundle.metrics["new"] == 1
    assert "new" not in hub_cache.open(f"{REPO}@{first}").bundle.metrics


def test_the_one_used_longest_ago_makes_room_on_disk_too(hub, made):
    for name in ("user/b", "user/c"):
        put(hub, name, made)
    hub_cache = HubBundleCache(most=2)
    for name in (REPO, "user/b"):
        hub_cache.open(name)
    hub_cache.get(REPO)
    hub_cache.open("user/c")
    assert [session.key for session in hub_cache.sessions] == [REPO, "user/c"]
    assert hub_cache.get("user/b") is None
    assert len(kept()) == 2


def test_reasons_are_told_to_the_visitor(hub, folder, monkeypatch):
    hub_cache = HubBundleCache()
    with pytest.raises(NoSuchRepository, match="no public repository user/nothing"):
        hub_cache.open("user/nothing")
    with pytest.raises(NoSuchRepository, match="spelt"):
        hub_cache.open(f"{REPO}@v9")
    hub.repositories[REPO].gated = True
    with pytest.raises(GatedRepository, match="is gated"):
        hub_cache.open(REPO)
    hub.repositories[REPO].gated = False
    hub.repositories[REPO].private = True
    with pytest.raises(NoSuchRepository, match="no public repository"):
        hub_cache.open(REPO)  # the token of who runs the server is not lent to visitors
    hub.repositories["user/other"] = Repository()
    hub.repositories["user/other"].commit({"README.md": b"# A model"})
    with pytest.raises(BundleDamaged, match="no bundle"):
        hub_cache.open("user/other")
    (folder / "texts.txt").write_text("other\n")
    put(hub, "user/damaged", folder)
    with pytest.raises(BundleDamaged, match=r"texts\.txt"):
        hub_cache.open("user/damaged")
    hub.broken = True
    with pytest.raises(NoNetwork, match="did not give"):
        hub_cache.open("user/third")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NoNetwork, match="cannot be reached"):
        hub_cache.open("user/third")
    assert hub_cache.sessions == []
    assert kept() == [], "nothing is left of what was refused"


def test_without_a_route_the_message_says_so(hub, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(NoNetwork, match=REPO):
            HubBundleCache().open(REPO)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/etc", "../x", "a/../b", "./bundle", "~/bundle", "user/..", "a/b/c",
        "file:///etc", "hf-hub:user/x", "local-dir:x", "user/na me", "user/x@", "user/x@../y",
        "https://huggingface.co/user/x", "user\\x", "üser/x", "user/x\n", "u/" + "x" * 200,
    ],
)  # fmt: skip
def test_only_names_of_repositories_are_names(hub, name):
    hub.log.clear()
    with pytest.raises(BundleError, match="expected 'user/name'"):
        HubBundleCache().open(name)
    assert hub.log == []


def test_a_local_folder_of_that_name_is_not_opened(hub, folder, monkeypatch):
    """A visitor's name leads to the Hub, whatever lies where the server was started."""
    (folder.parent / "here").mkdir()
    folder.rename(folder.parent / "here" / "bundle")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(NoSuchRepository):
        HubBundleCache().open("here/bundle")


def test_the_hubs_own_cache_is_not_read(hub):
    """It may hold what only the person who runs the server may see."""
    app.open_bundle(REPO)
    hub.repositories[REPO].private = True
    with pytest.raises(NoSuchRepository):
        HubBundleCache().open(REPO)


def test_what_is_too_large_is_refused_before_it_is_fetched(hub, monkeypatch):
    monkeypatch.setattr(hub_bundles, "MOST_BYTES", 5000)
    hub.log.clear()
    with pytest.raises(BundleError, match="expected at most"):
        HubBundleCache().open(REPO)
    assert not any("/resolve/" in line for line in hub.log)


# -- models


def changed(folder: Path, **config) -> Path:
    """The bundle with another configuration of its model."""
    file = folder / "open_clip_config.json"
    value = json.loads(file.read_text())
    for name, new in config.items():
        place = value["model_cfg"]
        for part in name.split("__")[:-1]:
            place = place[part]
        place[name.split("__")[-1]] = new
    file.write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {"text_cfg__hf_model_name": "evil/model"},
        {"text_cfg__hf_tokenizer_name": "evil/tokenizer"},
        {"vision_cfg__timm_model_name": "hf_hub:evil/model"},
        {"vision_cfg__width": 10**9},
        {"vision_cfg__layers": 10**6},
        {"text_cfg__context_length": 90_000},
        {"vision_cfg__image_size": 100_000},
        {"vision_cfg__timm_model_pretrained": True},
        {"evil": 1},
    ],
)
def test_a_strangers_model_is_plain_and_small(folder, config):
    bundle = load_bundle(folder)
    check_model(bundle.config, folder, MOST_BYTES)
    with pytest.raises(BundleError, match="no plain CLIP"):
        check_model(bundle.config, changed(folder, **config), MOST_BYTES)


def test_weights_are_those_of_the_configuration(folder):
    config = load_bundle(folder).config
    with pytest.raises(BundleError, match="do not fit"):
        check_model(config, changed(folder, vision_cfg__width=64), MOST_BYTES)
    changed(folder, vision_cfg__width=32)
    check_model(config, folder, MOST_BYTES)
    file = folder / "open_clip_model.safetensors"
    weights = load_file(file)
    save_file({k: v for k, v in weights.items() if k != "logit_scale"}, file)
    with pytest.raises(BundleError, match="do not fit"):
        check_model(config, folder, MOST_BYTES)
    file.unlink()
    with pytest.raises(BundleError, match="holds no open_clip_model"):
        check_model(config, folder, MOST_BYTES)


def test_pictures_are_of_the_models_size(folder):
    config, file = load_bundle(folder).config, folder / "open_clip_config.json"
    value = json.loads(file.read_text())
    value["preprocess_cfg"]["size"] = 50_000
    file.write_text(json.dumps(value))
    with pytest.raises(BundleError, match="another size"):
        check_model(config, folder, MOST_BYTES)


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-32", "/etc/passwd", "does not know"),
        ("ViT-B-32", "random", "does not know"),
        ("ViT-bigG-14", "laion2b_s39b_b160k", "of memory"),
        ("xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k", "no plain CLIP"),
    ],
)
def test_other_models_are_only_those_that_open_clip_knows(model, pretrained, message):
    config = replace(tiny_bundle().config, model=model, pretrained=pretrained)
    with pytest.raises(BundleError, match=message):
        check_model(config, Path("nowhere"), MOST_BYTES)


@pytest.mark.parametrize(
    ("model", "pretrained"),
    [("ViT-B-32", "openai"), ("ViT-B-16-SigLIP", "webli"), ("ViT-B-32-SigLIP2-256", "webli"),
     ("PE-Core-B-16", "meta"), ("EVA02-B-16", "merged2b_s8b_b131k")],
)  # fmt: skip
def test_a_known_model_passes(model, pretrained):
    config = replace(tiny_bundle().config, model=model, pretrained=pretrained)
    check_model(config, Path("nowhere"), MOST_BYTES)


SIGLIP = {
    "embed_dim": 24, "init_logit_bias": -10, "custom_text": True,
    "vision_cfg": {"image_size": 224, "timm_model_name": "vit_base_patch16_siglip_224",
                   "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"},
    "text_cfg": {"context_length": 64, "vocab_size": 32000, "width": 24, "heads": 2, "layers": 1,
                 "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "no_causal_mask": True,
                 "tokenizer_kwargs": {"clean": "canonicalize"}, "pool_type": "last",
                 "proj_bias": True, "norm_kwargs": {"eps": 1e-6}},
}  # fmt: skip


def test_settings_of_timm_towers_are_known_one_by_one():
    assert plain_settings(SIGLIP) is SIGLIP
    for place, name, value in [
        ("vision_cfg", "timm_model_name", "hf_hub:evil/model"),
        ("vision_cfg", "timm_model_pretrained", True),
        ("text_cfg", "hf_tokenizer_name", "evil/tokenizer"),
        ("text_cfg", "hf_model_name", "roberta-base"),
        ("text_cfg", "norm_kwargs", {"eps": 1e-6, "more": 1}),
    ]:
        with pytest.raises(BundleError, match=f"no plain CLIP .*{name}"):
            plain_settings(SIGLIP | {place: SIGLIP[place] | {name: value}})


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    (tmp_path / "checkpoint").mkdir()
    saved(tmp_path / "checkpoint", "SigLIP")
    return tmp_path / "checkpoint"


def edited(folder: Path, file: str, **values) -> Path:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def test_a_checkpoint_is_reduced_to_its_numbers(checkpoint):
    before = load_clip(checkpoint, device="cpu")
    edited(checkpoint, "config.json", auto_map={"AutoModel": "evil/code--model.Model"},
           attn_implementation="evil/kernels", quantization_config={"quant_method": "x"},
           _attn_implementation="evil/kernels")  # fmt: skip
    check_checkpoint(checkpoint)
    assert "evil" not in (checkpoint / "config.json").read_text()
    after = load_clip(checkpoint, device="cpu")
    batch = images(2, before)
    assert torch.equal(after.encode_image(batch), before.encode_image(batch))
    assert torch.equal(after.encode_text(["a cat"]), before.encode_text(["a cat"]))


def test_other_checkpoints_are_refused(checkpoint):
    with pytest.raises(BundleError, match="is a BertModel"):
        check_checkpoint(edited(checkpoint, "config.json", architectures=["BertModel"]))
    edited(checkpoint, "config.json", architectures=["SiglipModel"])
    told = json.loads((checkpoint / "config.json").read_text())["vision_config"]
    for name, value in [("num_hidden_layers", 10**6), ("hidden_size", 10**9),
                        ("hidden_act", "evil"), ("image_size", 10**5)]:  # fmt: skip
        with pytest.raises(BundleError, match=f"no plain CLIP .*{name}"):
            check_checkpoint(edited(checkpoint, "config.json", vision_config=told | {name: value}))
    wider = told | {"intermediate_size": told["intermediate_size"] * 2}
    with pytest.raises(BundleError, match="do not fit"):
        check_checkpoint(edited(checkpoint, "config.json", vision_config=wider))
    edited(checkpoint, "config.json", vision_config=told)
    edited(checkpoint, "tokenizer_config.json", auto_map={"AutoTokenizer": "evil/code"})
    with pytest.raises(BundleError, match="code of its own"):
        check_checkpoint(checkpoint)
    (checkpoint / "config.json").write_text("[]")
    with pytest.raises(BundleError, match=r"no config\.json"):
        check_checkpoint(checkpoint)


def named(bundle, folder: Path, model: str, clip) -> Path:
    """A bundle that names its model, saved without weights."""
    config = replace(
        bundle.config, model=model, pretrained=None, weights_sha256=clip.sha256(),
        activation=clip.activation, image_mean=clip.image_mean, image_std=clip.image_std,
    )  # fmt: skip
    return save_bundle(replace(bundle, config=config), folder)


@pytest.mark.parametrize("prefix", ["", "hf-hub:"])
def test_a_model_in_a_repository_of_its_own_is_fetched_within_the_same_bounds(
    hub, made, checkpoint, tmp_path, monkeypatch, prefix
):
    source = made if prefix else checkpoint
    clip = load_clip(source, device="cpu")
    bundle = tiny_bundle(clip=clip)
    put(hub, "maker/clip", source)
    put(hub, "user/named", named(bundle, tmp_path / "named", f"{prefix}maker/clip", clip))
    session = HubBundleCache().open("user/named")
    batch = images(1, clip)
    assert torch.equal(session.clip.encode_image(batch), clip.encode_image(batch))
    hub.repositories["maker/clip"].private = True
    with pytest.raises(BundleError, match=r"model cannot be had: .*maker/clip"):
        HubBundleCache().open("user/named")
    hub.repositories["maker/clip"].private = False
    put(hub, "user/named", named(bundle, tmp_path / "named", "/etc", clip))
    with pytest.raises(BundleError, match="no repository on the Hub"):
        HubBundleCache().open("user/named")


# -- the library and the page


def test_only_what_was_opened_can_be_chosen(hub, made):
    registry = BundleRegistry([BundleSession("tiny", made)], HubBundleCache())
    with pytest.raises(gr.Error, match="open it from the Hub"):
        registry[REPO]
    registry.hub_cache.open(REPO)
    assert registry[REPO].key == REPO
    assert [key for _, key in registry.choices] == ["tiny", REPO]
    assert registry[""] is registry.first


def test_the_owner_can_name_a_repository(hub):
    registry = app.open_library([REPO])
    assert registry.first.key == REPO
    assert registry.first.clip.kind == "vit"
    assert registry.hub_cache is None


@pytest.mark.parametrize(
    ("asked", "host", "environment", "allowed"),
    [
        (None, None, {}, True),
        (None, "0.0.0.0", {}, False),
        (None, None, {"GRADIO_SERVER_NAME": "0.0.0.0"}, False),
        (None, None, {"SPACE_ID": "user/space"}, False),
        (None, None, {"SPACE_ID": "user/space", "CLIPNEURONS_HUB": "1"}, True),
        (None, None, {"CLIPNEURONS_HUB": "0"}, False),
        (True, "0.0.0.0", {}, True),
        (False, None, {}, False),
    ],
)
def test_strangers_may_open_bundles_only_where_the_owner_says_so(
    monkeypatch, asked, host, environment, allowed
):
    for name in ("GRADIO_SERVER_NAME", "SPACE_ID", "CLIPNEURONS_HUB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert app.hub_allowed(asked, host) is allowed
