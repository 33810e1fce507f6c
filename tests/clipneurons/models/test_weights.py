"""A user's weights file is read as it was trained, or refused with what it holds instead."""

import json
import zipfile
from copy import deepcopy

import pytest
import torch
from safetensors.torch import save_file

from clipneurons.models.clip import load_clip
from clipneurons.models.preprocessing import preprocessing_of, quick_gelu_of
from clipneurons.models.weights import check_values, load_weights, read_file
from tests.helpers.models import tiny_vit


@pytest.fixture(scope="module")
def trained():
    return tiny_vit(seed=1).model


@pytest.fixture
def network():
    return tiny_vit(seed=2).model


PREFIXES = ("", "module.", "_orig_mod.", "model.", "clip_model.", "module._orig_mod.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_names_that_training_wrapped_are_unwrapped(trained, network, tmp_path, prefix, inside):
    state = {prefix + name: value for name, value in trained.state_dict().items()}
    file = tmp_path / "w.pt"
    torch.save(state if inside is None else {inside: state, "epoch": 3}, file)
    load_weights(network, file, "tiny")
    for name, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


def test_safetensors_are_read(trained, network, tmp_path):
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    load_weights(network, tmp_path / "w.safetensors", "tiny")
    assert torch.equal(network.visual.proj, trained.visual.proj)


class Runs:
    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


CONTENTS = {
    "empty": (b"", "is empty"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "page": (b"<!DOCTYPE html><html></html>", "is a web page"),
    "noise": (b"\x93noise" * 20, "no whole file of weights|holds more than weights"),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_what_a_file_is_instead_is_named(tmp_path, content, message):
    file = tmp_path / "w.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_file(file)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": Runs()}}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="holds more than weights"):
        read_file(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_torchscript_is_refused_with_another_way(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:  # what torch.jit.save writes
        archive.writestr("w/constants.pkl", b"")
        archive.writestr("w/code/__torch__.py", b"")
    with pytest.raises(ValueError, match=r"TorchScript.*--pretrained openai"):
        read_file(tmp_path / "w.pt")


def test_what_does_not_fit_is_named_by_its_first_key(trained, network, tmp_path):
    state, file = dict(trained.state_dict()), tmp_path / "w.pt"
    del state["ln_final.bias"]
    torch.save(state | {"head.weight": torch.ones(2)}, file)
    with pytest.raises(ValueError, match=r"first is ln_final\.bias.*first is head\.weight"):
        load_weights(network, file, "tiny")
    torch.save(trained.state_dict() | {"visual.proj": torch.ones(3, 3)}, file)
    with pytest.raises(ValueError, match=r"visual\.proj is \[3, 3\], expected \[24, 12\]"):
        load_weights(network, file, "tiny")


@pytest.mark.parametrize("prefix", ["", "visual."])
def test_an_image_tower_alone_is_named(trained, network, tmp_path, prefix):
    tower = {prefix + name: value for name, value in trained.visual.state_dict().items()}
    torch.save(tower, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="an image tower alone"):
        load_weights(network, tmp_path / "w.pt", "tiny")


def test_an_adapter_is_refused(network, tmp_path):
    torch.save({"base.visual.lora_A.weight": torch.ones(2, 2)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="merge_and_unload"):
        load_weights(network, tmp_path / "w.pt", "tiny")


def test_another_resolution_is_refused_unless_it_is_meant(network, tmp_path):
    larger = tiny_vit(seed=1, image_size=48).model
    torch.save(larger.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"6 x 6 patches \(48 pixels\), ViT-S-32 of 4 x 4"):
        load_weights(network, tmp_path / "w.pt", "ViT-S-32")
    load_weights(network, tmp_path / "w.pt", "ViT-S-32", resample=True)
    assert torch.equal(network.visual.proj, larger.visual.proj)


def test_a_sibling_of_the_right_resolution_is_named(tmp_path):
    import open_clip

    with torch.device("meta"):
        network = open_clip.create_model("ViT-L-14", load_weights=False, device="meta")
    state = {"visual.positional_embedding": torch.zeros(577, 1024)}
    torch.save(dict.fromkeys(network.state_dict(), torch.zeros(1)) | state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"24 x 24 patches \(336 pixels\).*ViT-L-14-336"):
        load_weights(network, tmp_path / "w.pt", "ViT-L-14")


def test_values_that_are_not_finite_are_named(network):
    network = deepcopy(network)
    network.visual.proj.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"visual\.proj of tiny holds NaN"):
        check_values(network, "tiny")


def test_published_preprocessing_is_taken_where_it_is_one():
    siglip = preprocessing_of("ViT-B-16-SigLIP", None, asking=True)
    assert siglip["mean"] == (0.5, 0.5, 0.5)
    assert siglip["resize_mode"] == "squash"
    assert preprocessing_of("ViT-B-32", None, asking=True)["resize_mode"] == "shortest"
    with pytest.raises(ValueError, match="published with 2 kinds of preprocessing"):
        preprocessing_of("ViT-L-14", None, asking=True)
    assert preprocessing_of("ViT-L-14", "siglip", asking=True)["std"] == (0.5, 0.5, 0.5)


def test_preprocessing_is_read_from_a_file(tmp_path):
    file = tmp_path / "p.json"
    own = {"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "interpolation": "bilinear"}
    file.write_text(json.dumps(own | {"resize_mode": "squash"}))
    assert preprocessing_of("ViT-L-14", file, asking=True)["mean"] == (0.1, 0.2, 0.3)
    file.write_text(json.dumps(own))
    with pytest.raises(ValueError, match="resize_mode is None, expected shortest or"):
        preprocessing_of("ViT-L-14", file, asking=True)
    with pytest.raises(ValueError, match="expected clip, siglip or a JSON file"):
        preprocessing_of("ViT-L-14", "magic", asking=True)


def test_an_activation_that_the_name_leaves_open_is_asked_for():
    with pytest.raises(ValueError, match=r"GELU or with QuickGELU.*--activation"):
        quick_gelu_of("ViT-B-32", None, asking=True)
    with pytest.raises(ValueError, match="--activation gelu"):
        quick_gelu_of("ViT-S-32", None, asking=True)  # of which no weights are published
    assert quick_gelu_of("ViT-B-32", "quick_gelu", asking=True)
    assert not quick_gelu_of("ViT-B-32", "gelu", asking=True)
    assert not quick_gelu_of("ViT-B-32", None, asking=False), "random weights have no truth"
    assert not quick_gelu_of("ViT-B-16-SigLIP", None, asking=True)
    assert quick_gelu_of("ViT-B-32-quickgelu", None, asking=True)
    with pytest.raises(ValueError, match="load it as ViT-B-32"):
        quick_gelu_of("ViT-B-32-quickgelu", "gelu", asking=True)
    with pytest.raises(ValueError, match="expected gelu or quick_gelu"):
        quick_gelu_of("ViT-B-32", "relu", asking=True)


def test_close_names_and_missing_folders_are_told(tmp_path):
    with pytest.raises(KeyError, match="did you mean ViT-B-32"):
        load_clip("ViT-B/32", "openai")
    with pytest.raises(KeyError, match="no folder /tmp/nowhere-at-all"):
        load_clip("/tmp/nowhere-at-all")
    with pytest.raises(KeyError, match="no folder /nowhere/at/all"):
        load_clip("/nowhere/at/all")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="merge_and_unload"):
        load_clip(tmp_path)
