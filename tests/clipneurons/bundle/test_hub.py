"""Publishing and loading over real HTTP, against a stand-in of the Hub on loopback."""

import shutil
import socket
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx

from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.config import (
    BUNDLE_FILES,
    CARD,
    CONFIG,
    MODEL_FILES,
    BundleDamaged,
    BundleError,
)
from clipneurons.bundle.folders import CHECKSUMS
from clipneurons.bundle.hub import (
    GatedRepository,
    HubError,
    NoNetwork,
    NoSuchRepository,
    resolve,
)
from export.__main__ import main
from tests.helpers.hub_standin import TOKEN, serve
from tests.helpers.tiny import tiny_bundle, tiny_bundle_folder

REPO = "user/neurons"
# huggingface_hub's own way of sending LFS objects.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub, a user who is logged in there, an empty cache."""
    with serve() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield standin


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tiny_bundle_folder(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bundle")


def publish(folder, *more):
    return main(["publish", "--bundle", str(folder), "--repo", REPO, *more])


def load(source, tmp_path):
    return load_bundle(source, cache_dir=tmp_path / "cache")


def test_what_is_published_is_what_is_loaded(hub, folder, tmp_path, capsys):
    assert publish(folder) == 0
    said = capsys.readouterr().out
    number = hub.repositories[REPO].commits[-1][0]
    assert f"{hub.url}/{REPO}/commit/{number}" in said
    assert f"load_bundle('{REPO}@{number}')" in said
    bundle, local = load(REPO, tmp_path), load_bundle(folder)
    assert bundle.config == local.config
    assert torch.equal(bundle.layers[1].directions, local.layers[1].directions)
    assert f'load_bundle("{REPO}")' in bundle.card, "the card has the final name"
    assert f'load_bundle("{REPO}")' not in local.card


def test_commands_that_open_the_model_fetch_it(hub, folder, capsys):
    assert publish(folder) == 0
    assert main(["verify", REPO, "--device", "cpu"]) == 0
    assert "preprocessing are the model's" in capsys.readouterr().out


def test_only_what_browsing_needs_is_fetched(hub, folder, tmp_path):
    publish(folder)
    hub.log.clear()
    where = resolve(REPO, tmp_path / "cache")
    assert not any(name in line for line in hub.log for name in MODEL_FILES)
    assert {p.relative_to(where).as_posix() for p in where.rglob("*") if p.is_file()} == {
        *BUNDLE_FILES,
        CHECKSUMS,
    }
    where = resolve(REPO, tmp_path / "cache", weights=True)
    assert (where / MODEL_FILES[1]).read_bytes() == (folder / MODEL_FILES[1]).read_bytes()


def test_a_revision_stays_what_it_was(hub, folder, tmp_path):
    publish(folder)
    first = hub.repositories[REPO].commits[-1][0]
    hub.repositories[REPO].tags["v1"] = first
    bundle = load_bundle(folder)
    save_bundle(replace(bundle, metrics={"fidelity": {}, "new": 1}), folder)
    publish(folder)
    assert load(REPO, tmp_path).metrics["new"] == 1
    assert "new" not in load(f"{REPO}@{first}", tmp_path).metrics
    assert "new" not in load(f"{REPO}@v1", tmp_path).metrics
    with pytest.raises(NoSuchRepository, match="v9"):
        load(f"{REPO}@v9", tmp_path)


def test_offline_the_cache_answers(hub, folder, tmp_path, monkeypatch):
    publish(folder)
    load(REPO, tmp_path)
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(REPO, tmp_path).texts
    assert hub.log == []
    with pytest.raises(NoNetwork, match="cannot be reached"):
        load("user/never-seen", tmp_path)


def test_without_a_route_the_cache_answers(hub, folder, tmp_path, monkeypatch):
    publish(folder)
    load(REPO, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        assert load(REPO, tmp_path).texts
        with pytest.raises(NoNetwork):
            load("user/never-seen", tmp_path)


def test_the_reasons_are_told_apart(hub, folder, tmp_path, monkeypatch):
    publish(folder)
    with pytest.raises(NoSuchRepository, match="user/nothing"):
        load("user/nothing", tmp_path)
    hub.repositories[REPO].gated = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(GatedRepository, match="hf auth login"):
        load(REPO, tmp_path)
    hub.repositories[REPO].gated = False
    hub.repositories[REPO].private = True
    with pytest.raises(NoSuchRepository, match="hf auth login"):
        load(REPO, tmp_path)
    hub.broken = True
    with pytest.raises(NoNetwork):
        load(REPO, tmp_path)
    with pytest.raises(BundleError, match="user/name@revision"):
        load("not a name", tmp_path)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (httpx.ConnectTimeout(""), "did not answer in time"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "is this machine connected"),
        (ConnectionRefusedError(111, "Connection refused"), "is this machine connected"),
        (
            HfHubHTTPError("", response=httpx.Response(500, request=httpx.Request("GET", "/"))),
            r"trouble of its own \(status 500\)",
        ),
        (OSError(28, "No space left on device"), "cannot be kept on this machine: no space left"),
    ],
)
def test_failures_are_sentences(monkeypatch, error, sentence):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "snapshot_download", fail)
    with pytest.raises(HubError, match=sentence) as raised:
        resolve(REPO)
    assert REPO in str(raised.value)
    assert not any(part in str(raised.value) for part in ("Errno", "Error", "HTTP"))


def test_damage_on_the_hub_is_refused(hub, folder, tmp_path):
    publish(folder)
    repository = hub.repositories[REPO]
    for name in ("neurons.safetensors", "texts.txt", CHECKSUMS):
        _, files = repository.commits[-1]
        changed = bytearray(files[name])
        changed[len(changed) // 2] ^= 1
        repository.commit(files | {name: bytes(changed)})
        with pytest.raises(BundleDamaged, match=name if name != CHECKSUMS else None):
            load(REPO, tmp_path)
        repository.commit(files)
    del files[CHECKSUMS]
    repository.commit(files)
    with pytest.raises(BundleDamaged, match="no SHA256SUMS"):
        load(REPO, tmp_path)


def test_a_card_edited_on_the_hub_is_kept_and_does_no_harm(hub, folder, tmp_path, capsys):
    publish(folder)
    repository = hub.repositories[REPO]
    files = repository.commits[-1][1]
    repository.commit(files | {CARD: files[CARD] + b"\nA word from the author.\n"})
    assert load(REPO, tmp_path).card.endswith("A word from the author.\n")
    publish(folder)
    assert "edited by hand and is kept" in capsys.readouterr().out
    assert repository.commits[-1][1][CARD].endswith(b"A word from the author.\n")
    publish(folder)
    assert repository.commits[-1][1][CARD].endswith(b"A word from the author.\n")
    assert load(REPO, tmp_path).card.endswith("A word from the author.\n")


def test_a_card_edited_here_is_sent_as_it_is(hub, folder, capsys):
    (folder / CARD).write_text("---\nlicense: mit\n---\nMy own words.\n")
    with pytest.raises(BundleDamaged):
        load_bundle(folder)
    assert publish(folder) == 0
    assert "sent as it is" in capsys.readouterr().out
    sent = hub.repositories[REPO].commits[-1][1]
    assert sent[CARD].endswith(b"My own words.\n")


def test_an_unedited_card_is_replaced(hub, folder):
    publish(folder)
    first = hub.repositories[REPO].commits[-1][1][CARD]
    bundle = load_bundle(folder)
    save_bundle(replace(bundle, config=replace(bundle.config, percentile=90.0)), folder)
    bundle = load_bundle(folder)
    pool = replace(bundle.config.pool, licence="CC0-1.0")
    save_bundle(replace(bundle, config=replace(bundle.config, pool=pool)), folder)
    publish(folder)
    assert hub.repositories[REPO].commits[-1][1][CARD] != first


def test_everything_is_checked_before_the_first_byte(hub, folder, capsys):
    (folder / "texts.txt").write_text("other\n")
    assert publish(folder) == 2
    assert "texts.txt" in capsys.readouterr().err
    assert hub.log == []


def test_a_model_nobody_else_has_is_refused(hub, folder, tmp_path, capsys):
    bundle = load_bundle(folder)
    local = replace(
        bundle, config=replace(bundle.config, model="ViT-B-32", pretrained=str(folder / CONFIG))
    )
    save_bundle(local, tmp_path / "other")
    assert publish(tmp_path / "other") == 2
    assert "nobody else has" in capsys.readouterr().err
    (folder / MODEL_FILES[1]).unlink()
    assert publish(folder) == 2
    assert MODEL_FILES[1] in capsys.readouterr().err
    save_bundle(tiny_bundle(), tmp_path / "third")
    assert hub.log == []


def test_a_dry_run_touches_nothing(hub, folder, capsys):
    assert publish(folder, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "nothing was sent" in said
    assert "neurons.safetensors" in said
    assert hub.log == []


def test_private_and_pull_request(hub, folder, capsys):
    assert publish(folder, "--private") == 0
    assert hub.repositories[REPO].private
    before = len(hub.repositories[REPO].commits)
    capsys.readouterr()
    assert publish(folder, "--create-pr") == 0
    assert "discussions/1" in capsys.readouterr().out
    assert len(hub.repositories[REPO].commits) == before


def test_without_a_token_or_with_a_wrong_one(hub, folder, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "b" * 34)
    assert publish(folder) == 2
    assert "log" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    assert publish(folder) == 2
    assert "hf auth login" in capsys.readouterr().err
    assert hub.repositories == {}
    assert publish(folder, "--dry-run") == 0


def test_offline_publishing_says_so(hub, folder, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert publish(folder) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err


def test_a_race_with_another_editor_is_lost_politely(hub, folder, capsys, monkeypatch):
    publish(folder)
    repository = hub.repositories[REPO]
    original = huggingface_hub.HfApi.create_commit

    def late(self, *args, **kwargs):
        files = repository.commits[-1][1]
        repository.commit(files | {"other.txt": b"x"})
        return original(self, *args, **kwargs)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", late)
    assert publish(folder) == 2
    assert "meanwhile" in capsys.readouterr().err
    assert repository.commits[-1][1]["other.txt"] == b"x"


def test_a_name_that_is_none(hub, folder, capsys):
    assert main(["publish", "--bundle", str(folder), "--repo", "no-slash"]) == 2
    assert "user/name" in capsys.readouterr().err
