"""Bundles that mean harm, by every way they are opened: nothing runs, one clear line each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from clipneurons.bundle.bundle import load_bundle
from clipneurons.bundle.folders import CHECKSUMS, checksum_lines, file_sha256
from clipneurons.models.clip import load_clip
from export.__main__ import main
from tabs.about.view import card_text, limits_text, overview_html
from tabs.explore import dashboard, search
from tabs.explore.atlas import map_html, mosaic_html
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui import bundle_chooser
from tabs.ui.model_line import model_line
from tests.clipneurons.models.test_transformers_clip import saved
from tests.helpers.hub_standin import Repository, serve
from tests.helpers.tiny import tiny_bundle_folder

SENTINEL = "code-ran"
CODE = f"""
from pathlib import Path
from transformers import PreTrainedTokenizerFast
Path({SENTINEL!r}).write_text("ran")
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return tiny_bundle_folder(tmp_path_factory.mktemp("plain") / "bundle")


@pytest.fixture
def folder(plain, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)  # where code would leave its sentinel
    return shutil.copytree(plain, tmp_path / "bundle")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve() as standin:
        monkeypatch.setenv("HF_ENDPOINT", standin.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield standin


def put(hub, folder: Path) -> None:
    files = {name: (folder / name).read_bytes() for name in files_of(folder)}
    hub.repositories.setdefault("user/bundle", Repository()).commit(files)


def files_of(folder: Path) -> list[str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in paths]


def seal(folder: Path) -> None:
    """New checksums over all files: a stranger can always make them."""
    sums = {name: file_sha256(folder / name) for name in files_of(folder) if name != CHECKSUMS}
    (folder / CHECKSUMS).write_text(checksum_lines(sums))


def put_json(folder: Path, file: str, **values) -> None:
    """Values at "part__key" places of a JSON file."""
    content = json.loads((folder / file).read_text())
    for place, value in values.items():
        *parts, key = place.split("__")
        part = content
        for name in parts:
            part = part[name]
        part[key] = value
    (folder / file).write_text(json.dumps(content))


def put_tensors(folder: Path, file: str, **changes: Callable) -> None:
    """Tensors of a file as functions of what they were; layers' are called by their last part."""
    tensors = load_file(folder / file)
    for name, value in tensors.items():
        if change := changes.get(name.split(".")[-1]):
            tensors[name] = change(value).contiguous()
    save_file(tensors, folder / file)


def first(value):
    """A change of a tensor's first entry."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


@dataclass(frozen=True)
class Hostile:
    """What is done to a bundle, and what the refusal says; `sealed`: the checksums are right."""

    harm: Callable[[Path], object]
    said: str
    sealed: bool = True


def config(said: str, **values) -> Hostile:
    return Hostile(lambda folder: put_json(folder, "config.json", **values), said)


def tensors(said: str, file: str, **changes) -> Hostile:
    return Hostile(lambda folder: put_tensors(folder, file, **changes), said)


def text(said: str, file: str, content: str) -> Hostile:
    return Hostile(lambda folder: (folder / file).write_text(content), said)


def in_place_of(file: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return harm


NEURONS, DECOMPOSITION = "neurons.safetensors", "decomposition.safetensors"
GALLERY = "examples/thumbnails.safetensors"

# Refused when the bundle is read, before its model is.
FILES = {
    "code listed": text("lists 'evil.py', which no bundle has", "evil.py", CODE),
    "link": Hostile(
        in_place_of("README.md", lambda path: path.symlink_to("/etc/hostname")), "is a link", False
    ),
    "link to a folder": Hostile(
        lambda folder: (folder / "model").symlink_to("/etc"), "model is a link", False
    ),
    "link to a device": Hostile(
        in_place_of("texts.txt", lambda path: path.symlink_to("/dev/zero")), "is a link", False
    ),
    "pipe": Hostile(in_place_of("texts.txt", os.mkfifo), "is no file", False),
    "folder for a file": Hostile(in_place_of("metrics.json", Path.mkdir), "missing", False),
    "file too large": Hostile(
        lambda folder: os.truncate(folder / "texts.txt", 2**40), "bytes: expected at most", False
    ),
}
UNLISTED = {
    "code not listed": Hostile(
        lambda folder: (folder / "evil.py").write_text(CODE), "does not list", False
    ),
}
VALUES = {
    "deep JSON": text("too deep", "metrics.json", '{"a":' * 100_000 + "1" + "}" * 100_000),
    "long number": text("out of bounds", "metrics.json", f'{{"a": {"9" * 5000}}}'),
    "infinite number": text("out of bounds", "metrics.json", '{"a": 1e999}'),
    "not UTF-8": Hostile(
        lambda folder: (folder / "texts.txt").write_bytes(b"\xff" * 9), "not UTF-8"
    ),
    "script": config("image_size", image_size=["<img src=x onerror=alert(1)>", 64]),
    "no list of layers": config("layers", layers=5),
    "layers as text": config("layers", layers="12"),
    "many layers": config("layers", layers=[1] * 3000),
    "no units a neuron": config("units_per_neuron", units_per_neuron=0),
    "large image": config("image_size", image_size=[50_000, 50_000]),
    "large number": config("count", data__count=10**18),
    "model elsewhere": config("model", model="/etc"),
    "model above": config("model", model="../other"),
    "one axis": tensors("directions is", NEURONS, directions=lambda value: value.flatten()),
    "complex": tensors("top_norms", NEURONS, top_norms=lambda value: value.to(torch.complex64)),
    "whole": tensors("directions", NEURONS, directions=lambda value: value.int()),
    "no such image": tensors("top_activating_images", NEURONS, top_activating_images=first(100)),
    "image below": tensors("top_activating_images", NEURONS, top_activating_images=first(-2)),
    "counts below 0": tensors("norm_histogram", NEURONS, norm_histogram=first(-1)),
    "NaN share": tensors("explained_variance", NEURONS, explained_variance=first(torch.nan)),
    "no such text": tensors("indices", DECOMPOSITION, indices=first(99)),
    "NaN text": tensors("text_embeddings", DECOMPOSITION, text_embeddings=first(torch.nan)),
    "infinite text": tensors("text_embeddings", DECOMPOSITION, text_embeddings=first(torch.inf)),
    "zero text": tensors("text_embeddings", DECOMPOSITION, text_embeddings=torch.zeros_like),
    "thumbnail below": tensors("offsets", GALLERY, offsets=first(-5)),
    "thumbnail outside": tensors("offsets", GALLERY, offsets=lambda value: value + 10**6),
    "thumbnails twice": tensors("ids", GALLERY, ids=torch.zeros_like),
    "captions": tensors("captions", GALLERY, captions=first(255)),
    "few captions": tensors("captions", GALLERY, captions=lambda value: value[:12]),
}
# Refused when the model is opened.
_OPEN_CLIP = "open_clip_config.json"


def settings(said: str, **values) -> Hostile:
    return Hostile(lambda folder: put_json(folder, _OPEN_CLIP, **values), said)


def trusted_code(folder: Path) -> None:
    """What ran code: a tokenizer of transformers whose class is in the folder."""
    kwargs = {"trust_remote_code": True}
    put_json(folder, _OPEN_CLIP, model_cfg__text_cfg__hf_tokenizer_name="x",
             model_cfg__text_cfg__tokenizer_kwargs=kwargs)  # fmt: skip


MODELS = {
    "remote code": Hostile(trusted_code, "trust_remote_code"),
    "text tower elsewhere": settings(
        "hf_model_name", model_cfg__text_cfg__hf_model_name="evil/model"
    ),
    "image tower elsewhere": settings(
        "timm_model_name", model_cfg__vision_cfg__timm_model_name="hf_hub:evil/model"
    ),
    "unknown setting": settings("evil", model_cfg__evil=1),
    "width": settings("width", model_cfg__vision_cfg__width=10**9),
    "depth": settings("layers", model_cfg__vision_cfg__layers=10**6),
    "patches": settings(
        "65,536 patches", model_cfg__vision_cfg__image_size=256, model_cfg__vision_cfg__patch_size=1
    ),
    "parameters": settings("do not fit its conf", model_cfg__vision_cfg__width=2**14),
    "no sense": settings("cannot be built", model_cfg__vision_cfg__patch_size=0),
    "no colours": settings("mean", preprocess_cfg__mean="red"),
    "division": settings("std", preprocess_cfg__std=[0, 1, 1]),
    "deep settings": text("too deep", _OPEN_CLIP, '{"a":' * 100_000 + "1" + "}" * 100_000),
}


def load(source: str) -> None:
    """The library."""
    bundle = load_bundle(source)
    load_clip(bundle.config.model_of(Path(source))).encode_text(["a cat"])


def verify(source: str) -> None:
    assert main(["verify", source, "--device", "cpu"]) == 2


def info(source: str) -> None:
    assert main(["info", source]) == 2


def publish(source: str) -> None:
    assert main(["publish", "--bundle", source, "--repo", "user/bundle", "--dry-run"]) == 2


def show(source: str) -> None:
    """The page: what `app.py --bundle` opens at its start, and its model behind it."""
    BundleSession.open(source).encode_texts(["a cat"])


def refusal(way: Callable[[str], None], source: str, capsys) -> str:
    """What somebody is told who opens a bundle."""
    try:
        way(source)
    except ValueError as error:
        return str(error)
    return capsys.readouterr().err.rpartition("error: ")[2]


@pytest.mark.parametrize("name", FILES | UNLISTED | VALUES | MODELS)
def test_one_line_whoever_opens_it(folder, capsys, name):
    hostile = (FILES | UNLISTED | VALUES | MODELS)[name]
    hostile.harm(folder)
    if hostile.sealed:
        seal(folder)
    for way in (load, verify, show, publish, *([info] if name not in MODELS else [])):
        said = refusal(way, str(folder), capsys)
        assert not Path(SENTINEL).exists()
        assert hostile.said in said, (way.__name__, said)
        assert len(said.strip().splitlines()) == 1
        assert "Traceback" not in said


@pytest.mark.parametrize("name", VALUES | MODELS)
def test_one_line_from_the_hub(folder, hub, capsys, name):
    hostile = (VALUES | MODELS)[name]
    hostile.harm(folder)
    seal(folder)
    put(hub, folder)
    for way in (verify, show):
        said = refusal(way, "user/bundle", capsys)
        assert hostile.said in said, (way.__name__, said)
        assert len(said.strip().splitlines()) == 1


# -- code


def with_code(folder: Path) -> None:
    """A tokenizer that says that its class is in a file beside it."""
    auto_map = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | told | auto_map))
    (folder / "evil.py").write_text(CODE)


@pytest.mark.parametrize("told", [{}, {"trust_remote_code": True}])
def test_a_model_of_open_clip_runs_no_code(folder, capsys, told):
    with_code(folder)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    put_json(folder, _OPEN_CLIP, model_cfg__text_cfg__hf_tokenizer_name="x",
             model_cfg__text_cfg__tokenizer_kwargs=told)  # fmt: skip
    said = refusal(lambda source: load_clip(source).encode_text(["a cat"]), str(folder), capsys)
    assert not Path(SENTINEL).exists()
    assert ("trust_remote_code" if told else "auto_map") in said


def test_a_checkpoint_of_transformers_runs_no_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    saved(model, "SigLIP")
    with_code(model)
    said = refusal(lambda source: load_clip(source).encode_text(["a cat"]), str(model), capsys)
    assert not Path(SENTINEL).exists()
    assert "auto_map" in said


def test_a_snapshot_of_the_hub_is_links_within_its_cache(folder, hub, tmp_path):
    put(hub, folder)
    session = BundleSession.open("user/bundle")
    assert (session.folder / "texts.txt").is_symlink()
    assert session.encode_texts(["a cat"]).shape == (1, 24)
    (session.folder / "texts.txt").unlink()
    (session.folder / "texts.txt").symlink_to(folder / "texts.txt")
    with pytest.raises(ValueError, match="is a link"):
        load_bundle(session.folder)


def test_hidden_files_do_no_harm(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "hook.py").write_text(CODE)
    (folder / ".gitattributes").write_text("* text\n")
    assert load_bundle(folder).texts


# -- the page

TAG = "<img src=x onerror=alert(1)>"


def test_what_a_bundle_says_is_text_on_the_page(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"activation": TAG, "data": config["data"] | {"name": TAG, "class_names": [TAG, "b"]},
               "pool": config["pool"] | {"name": TAG, "licence": TAG}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    figures = {"concepts": {"recall_at_10": {TAG: 0.5}, "interval_95": {TAG: [0.1, 0.9]},
                            "chance": 0.1, "data": TAG},
               "fidelity": {"layers": {TAG: {"32 texts": {"agreement": 0.5}}}, "images": TAG,
                            "baseline": {"accuracy": 0.5}, "count": 1, "classes": 2}}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(figures))
    texts = [f"{TAG}{i}" for i in range(config["pool"]["count"])]
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    card = f"# {TAG}\n\n## Limits\n\n{TAG} <form action=x> ![a](http://x)\n\n## The model\n\n"
    (folder / "README.md").write_text(f"{card}#### Data\n\n{TAG}\n\n#### Limits\n\n{TAG}\n")
    captions = "".join(f"{TAG}\n" for _ in range(20)).encode()
    put_tensors(folder, GALLERY, captions=lambda _: torch.tensor(list(captions)).byte())
    seal(folder)
    session = BundleSession.open(str(folder))
    registry = BundleRegistry([session])
    shown = [
        overview_html(session), card_text(session), limits_text(session),
        model_line(session.title, session.bundle), bundle_chooser.about_html(registry, ""),
        str(dashboard.show(session, 1, 3, "", model=False)),
        map_html(session), mosaic_html(session),
        search.try_html(session), search.vocabulary_html(session, "img"),
        str(search.results_html(session, texts[0], search.DIRECTION)),
    ]  # fmt: skip
    for part in shown:
        assert "img src=x" not in part.replace("&lt;img src=x", "")
        assert "<form" not in part
        assert "![" not in part
    assert any("&lt;img src=x" in part for part in shown)


@pytest.mark.parametrize("figures", [5, [], {"layers": 5}, {"layers": {"1": {"32 texts": 5}}}])
def test_figures_of_another_form_are_said_to_be_some(folder, capsys, figures):
    (folder / "metrics.json").write_text(json.dumps({"fidelity": figures, "concepts": figures}))
    seal(folder)
    session = BundleSession.open(str(folder))
    overview_html(session)
    model_line(session.title, session.bundle)
    if figures:
        assert main(["info", str(folder)]) == 2
        assert "metrics.json" in capsys.readouterr().err
