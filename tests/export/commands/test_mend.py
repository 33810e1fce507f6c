import json
import os
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.bundle.unit_words import signed_words
from clipneurons.edit.edit import Edit, UnitFactor
from clipneurons.models.clip import load_clip
from export.__main__ import main
from export.common.kept_batches import KeptBatches
from export.mend.mender import Mender
from tests.helpers.tiny import tiny_bundle_folder, tiny_labels


def write(root, groups, size=40):
    """Noise images, a tint for each group."""
    rng = np.random.default_rng(0)
    for number, (group, count) in enumerate(groups.items()):
        (root / group).mkdir(parents=True)
        tint = np.array([(60, 0, 0), (0, 90, 0), (0, 0, 120), (90, 90, 0)][number])
        for index in range(count):
            pixels = rng.integers(0, 128, (size, size, 3)) + tint
            Image.fromarray(pixels.astype(np.uint8)).save(root / group / f"{index:03}.png")
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    names = ("cat/grass", "cat/snow", "dog/grass", "dog/snow")
    return write(tmp_path_factory.mktemp("images"), dict.fromkeys(names, 12))


@pytest.fixture(scope="module", params=["vit", "resnet"])
def bundle(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle") / request.param
    return tiny_bundle_folder(root, kind=request.param)


def test_neurons_are_found_measured_and_folded_into_a_model(bundle, images, tmp_path, capsys):
    out, model = tmp_path / "out", tmp_path / "model"
    arguments = ["--images", str(images), "--bundle", str(bundle), "--out", str(out)]
    arguments += ["--elsewhere", str(images), "--apply", str(model), "--most", "4"]
    assert main(["mend", *arguments]) == 0
    report = json.loads((out / "report.json").read_text())
    edit = Edit.from_json((out / "edit.json").read_text())
    assert len(edit.units) == len(report["neurons"]) == report["found"]["chosen"] <= 4
    assert report["held_out"] == 24
    assert set(report["conditions"]["unchanged"]["groups"]) == {
        "cat, grass", "cat, snow", "dog, grass", "dog, snow"
    }  # fmt: skip
    for figures in report["conditions"].values():
        groups = [group["accuracy"] for group in figures["groups"].values()]
        assert figures["worst"] <= min(groups) + 1e-6
        assert figures["average"] == pytest.approx(sum(groups) / 4)
    assert report["found"]["means"] == edit.means
    real = report["for_real"]
    assert [real["means"], real["neurons"]] in real["tried"]
    assert len(real["tried"]) == len(real["worst"]) == len(real["loss"])
    said = capsys.readouterr().out
    assert "24 to find neurons on, 24 held out" in said
    assert "images/s measured" in said.partition("worst group")[0], "before it begins"
    assert not (tmp_path / ".out.mend").exists(), "cleared up"
    network = open_clip.create_model(f"local-dir:{model}").eval()
    clip = load_clip(model, device="cpu")
    batch = torch.randn(2, 3, *clip.image_size)
    with torch.no_grad():
        expected = network.visual(batch)
    torch.testing.assert_close(clip.encode_image(batch), expected)


def test_an_edit_that_is_given_is_measured_and_applied(bundle, images, tmp_path, capsys):
    config = load_bundle(bundle).config
    layer = config.layers[0]
    edit = Edit(config.weights_sha256, (UnitFactor(layer, 0, 0.0), UnitFactor(layer, 3, 4.0)))
    path = tmp_path / "edit.json"
    path.write_text(edit.to_json())
    arguments = ["--images", str(images), "--bundle", str(bundle), "--edit", str(path)]
    arguments += ["--out", str(tmp_path / "out"), "--apply", str(tmp_path / "model")]
    assert main(["mend", *arguments]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["conditions"]) == {"unchanged", "ours", "ours, for real"}
    assert report["for_real"] == {"means": "data", "neurons": 2}
    assert [one["factor"] for one in report["neurons"]] == [0.0, 4.0]
    before, after = load_clip(bundle, device="cpu"), load_clip(tmp_path / "model", device="cpu")
    assert before.sha256() != after.sha256()
    changed = {
        name
        for name, tensor in before.model.state_dict().items()
        if not torch.equal(tensor, after.model.state_dict()[name])
    }
    where = (
        "visual.attnpool.v_proj"
        if config.kind == "resnet"
        else f"visual.transformer.resblocks.{layer}.mlp.c_proj"
    )
    assert changed == {f"{where}.weight", f"{where}.bias"}
    capsys.readouterr()


def test_a_killed_run_goes_on_from_its_batches(images, tmp_path, monkeypatch, capsys):
    class Killed(Exception):
        pass

    bundle = tiny_bundle_folder(tmp_path / "bundle")
    arguments = ["--images", str(images), "--bundle", str(bundle), "--batch", "8", "--most", "2"]
    arguments += ["--elsewhere", str(images)]
    assert main(["mend", *arguments, "--out", str(tmp_path / "whole")]) == 0
    put, kept, observed = KeptBatches.put, [], Mender._observe

    def killed(self, kind, number, tensors):
        if len(kept) == 4:
            raise Killed
        kept.append((kind, number))
        return put(self, kind, number, tensors)

    out = tmp_path / "out"
    monkeypatch.setattr(KeptBatches, "put", killed)
    with pytest.raises(Killed):
        main(["mend", *arguments, "--out", str(out)])
    monkeypatch.setattr(KeptBatches, "put", put)
    asked = []

    def counted(self, ids, pixels):
        asked.append(len(ids))
        return observed(self, ids, pixels)

    monkeypatch.setattr(Mender, "_observe", counted)
    assert main(["mend", *arguments, "--out", str(out)]) == 0
    assert asked == [8, 8], "of six batches four were kept"
    for name in ("edit.json", "report.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    capsys.readouterr()


def test_words_are_those_of_reliable_labels(images, tmp_path, capsys):
    folder = tiny_bundle_folder(tmp_path / "bundle")
    bundle = load_bundle(folder)
    bundle = replace(bundle, labels=tiny_labels(bundle))
    layer = bundle.config.layers[0]
    bundle.labels[layer].q_value[:2] = torch.tensor([0.0, 1.0])
    save_bundle(bundle, folder)
    edit = Edit(bundle.config.weights_sha256, (UnitFactor(layer, 0), UnitFactor(layer, 1)))
    path = tmp_path / "edit.json"
    path.write_text(edit.to_json())
    arguments = ["--images", str(images), "--bundle", str(folder), "--edit", str(path)]
    arguments += ["--out", str(tmp_path / "out"), "--elsewhere", str(images)]
    assert main(["mend", *arguments]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    words = [one["label"] for one in report["neurons"]]
    assert words == [signed_words(bundle, layer, 0), []]
    assert f"layer {layer}, unit 1: no reliable label" in capsys.readouterr().out


def test_without_cues_there_must_be_images_of_a_class_that_are_read_differently(tmp_path, capsys):
    bundle = tiny_bundle_folder(tmp_path / "bundle")
    root = write(tmp_path / "images", {"cat": 12, "dog": 12})
    arguments = ["--images", str(root), "--bundle", str(bundle), "--out", str(tmp_path / "out")]
    assert main(["mend", *arguments]) == 2
    error = capsys.readouterr().err
    assert "expected some of both, or a cue for each" in error
    assert error.count("\n") == 1


def edit_text(sha="0" * 64, **change):
    unit = {"layer": 1, "unit": 0, "factor": 0.0} | change
    return json.dumps({"schema_version": 1, "weights_sha256": sha, "units": [unit]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda sha: edit_text("1" * 64), "edit is of a model with weights 111111111111"),
        (lambda sha: edit_text(sha, unit=999), "has units 0 to"),
        (lambda sha: edit_text(sha, layer=9), "This bundle has no layer 9"),
        (lambda sha: edit_text(sha, factor=float("nan")), "the number NaN is out of bounds"),
        (lambda sha: "no json", "the edit is not JSON"),
        (lambda sha: edit_text(sha)[:-1] + ', "means": "mine"}', 'expected "data" or "images"'),
    ],
)
def test_edits_that_do_not_fit_are_one_line(images, tmp_path, capsys, make, message):
    bundle = tiny_bundle_folder(tmp_path / "bundle")
    path = tmp_path / "edit.json"
    path.write_text(make(load_bundle(bundle).config.weights_sha256))
    arguments = ["--images", str(images), "--bundle", str(bundle), "--edit", str(path)]
    assert main(["mend", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"cat/grass": 2, "cat/snow": 2}, "holds one class only (cat): expected at least two"),
        ({"cat/grass": 2, "cat/snow": 2, "dog/grass": 2}, "group dog/snow has no images"),
        ({"cat/grass": 2, "dog/grass": 2}, "holds one cue only (grass)"),
        ({"cat": 2, "dog/grass": 2}, "expected all images in ROOT/CLASS, or all in"),
        ({"cat/a": 12, "cat/b": 4, "dog/a": 12, "dog/b": 12},
         "cat, b: 2 images to find neurons on; expected at least 5"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_compared_are_one_line(tmp_path, capsys, groups, message):
    bundle = tiny_bundle_folder(tmp_path / "bundle")
    root = write(tmp_path / "images", groups)
    arguments = ["--images", str(root), "--bundle", str(bundle), "--out", str(tmp_path / "out")]
    assert main(["mend", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_model_folder_that_is_there_is_not_overwritten(images, tmp_path, capsys):
    bundle = tiny_bundle_folder(tmp_path / "bundle")
    arguments = ["--images", str(images), "--bundle", str(bundle), "--out", str(tmp_path / "out")]
    assert main(["mend", *arguments, "--apply", str(bundle)]) == 2
    assert "expected a new folder for the model" in capsys.readouterr().err


def test_a_report_and_a_model_are_neither_overwritten_nor_left_in_parts(
    images, tmp_path, monkeypatch, capsys
):
    bundle = tiny_bundle_folder(tmp_path / "bundle")
    out, model = tmp_path / "out", tmp_path / "model"
    config = load_bundle(bundle).config
    edit = Edit(config.weights_sha256, (UnitFactor(config.layers[0], 0, 0.0),))
    (tmp_path / "edit.json").write_text(edit.to_json())
    line = ["mend", "--images", str(images), "--bundle", str(bundle), "--out", str(out)]
    line += ["--edit", str(tmp_path / "edit.json"), "--elsewhere", str(images)]
    replaced = os.replace

    def full(part, path):
        if str(path).endswith("open_clip_config.json"):
            raise OSError(28, "No space left on device", str(path))
        replaced(part, path)

    with monkeypatch.context() as context:
        context.setattr(os, "replace", full)
        assert main([*line, "--apply", str(model)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert main([*line, "--apply", str(model)]) == 0, "the same command goes on"
    assert sorted(path.name for path in model.iterdir()) == [
        "open_clip_config.json", "open_clip_model.safetensors"
    ]  # fmt: skip
    before = (out / "report.json").read_bytes()
    assert main([*line, "--seed", "1"]) == 2
    assert "a mending with other seed: add --overwrite" in capsys.readouterr().err
    assert (out / "report.json").read_bytes() == before
    assert main([*line, "--seed", "1", "--overwrite"]) == 0
