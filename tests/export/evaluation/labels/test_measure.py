"""`export evaluate labels`: refusals, what it leaves in the bundle, killing and going on."""

import shutil
from dataclasses import replace

import pytest
import torch

from clipneurons.bundle.bundle import load_bundle, save_bundle
from export.__main__ import main
from export.common.kept_batches import KeptBatches
from export.common.state import State
from export.evaluation.labels import recordings
from research.__main__ import main as research
from research.labels.compare import DECOMPOSITION, DISSECT, NEAREST, OURS, SHUFFLED
from research.papers.experiments import labels as experiment
from tests.helpers.tiny import tiny_bundle_folder, tiny_model_folder

SCENES = ["--images", "scenes:120", "--batch", "40"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A bundle whose labels were not tested, and another model."""
    root = tmp_path_factory.mktemp("labels")
    tiny_model_folder(root / "other", seed=3)
    return tiny_bundle_folder(root / "tiny")


@pytest.fixture
def folder(fresh, tmp_path):
    return shutil.copytree(fresh, tmp_path / "tiny")


@pytest.fixture(scope="module")
def tested(fresh, tmp_path_factory):
    folder = shutil.copytree(fresh, tmp_path_factory.mktemp("tested") / "tiny")
    assert main(["evaluate", "labels", "--bundle", str(folder), *SCENES]) == 0
    return folder


def evaluate(folder, *more):
    return main(["evaluate", "labels", "--bundle", str(folder), *SCENES, *more])


def test_every_unit_has_a_label_and_its_scores(tested):
    bundle = load_bundle(tested)
    found = bundle.metrics["labels"]
    assert (found["written_on"]["count"], found["tested_on"]["count"]) == (84, 36)
    assert found["judge"] == "ground truth"
    assert found["texts_judge_does_not_know"] > 0  # "night sky" is nothing that scenes have
    for layer, arrays in bundle.layers.items():
        labels = bundle.labels[layer]
        assert labels.indices.shape == (len(arrays.directions), 3)
        assert (labels.simulation_low <= labels.simulation_high).all()
        assert ((labels.q_value > 0) & (labels.q_value <= 1)).all()
        figures = found["layers"][str(layer)]
        mean = float(labels.simulation_score.mean())
        assert figures["simulation_score"] == pytest.approx(mean, abs=1e-4)
    reliable = torch.cat([labels.reliable for labels in bundle.labels.values()])
    assert found["reliable"]["units"] == int(reliable.sum())
    assert sum(found["histogram"]) == found["units"] == len(reliable)
    label = bundle.label(1, 0)
    assert all(text in bundle.texts for text in label.texts)
    assert "Its simulation score is the correlation" in bundle.card
    assert not list(tested.parent.glob(".tiny.labels"))


def test_a_label_has_as_many_texts_as_asked_for(folder, capsys):
    assert evaluate(folder, "--label-texts", "1") == 0
    assert load_bundle(folder).labels[1].indices.shape[1] == 1
    with pytest.raises(SystemExit):
        evaluate(folder, "--label-texts", "6")
    assert "--label-texts" in capsys.readouterr().err


def test_labels_are_compared_with_baselines_of_the_same_length(tested, fresh, tmp_path, capsys):
    folder = shutil.copytree(tested, tmp_path / "tiny")
    images = ["--bundle", str(folder), "--images", "scenes:120", "--batch", "40"]
    assert research(["labels", *images]) == 0
    metrics = load_bundle(folder).metrics
    comparison = metrics["label_comparison"]
    ours = comparison["methods"][OURS]["simulation_score"]
    assert ours == pytest.approx(metrics["labels"]["simulation_score"], abs=1e-3)
    assert set(comparison["methods"]) >= {DECOMPOSITION, DISSECT, NEAREST, SHUFFLED}

    class Context:
        bundle = load_bundle(folder)

    section = experiment.report(experiment.measure(Context))
    assert "svg" in section.parts[0].svg
    claims = {claim.text: claim.holds for claim in section.claims}
    gap = comparison["ahead_of"][DISSECT]
    text = f"Our labels predict their units better than {DISSECT}."
    assert claims[text] is (gap["interval"][0] > 0)
    Context.bundle = load_bundle(fresh)
    assert "Not tested" in experiment.report(experiment.measure(Context)).text
    plain = shutil.copytree(fresh, tmp_path / "plain")
    assert research(["labels", "--bundle", str(plain), *images[2:]]) == 2
    assert "export evaluate labels" in capsys.readouterr().err


def test_the_same_command_gives_the_same_labels(tested, folder):
    assert evaluate(folder) == 0
    name = "labels.safetensors"
    assert (folder / name).read_bytes() == (tested / name).read_bytes()


def test_other_figures_leave_the_labels_and_other_texts_drop_them(tested, tmp_path, capsys):
    folder = shutil.copytree(tested, tmp_path / "tiny")
    assert main(["refresh-card", "--bundle", str(folder)]) == 0
    assert load_bundle(folder).labels
    assert main(["info", str(folder), "--layer", "1", "--unit", "0"]) == 0
    assert "simulation score" in capsys.readouterr().out
    assert main(["decompose", "--bundle", str(folder), "--components", "2"]) == 0
    assert not load_bundle(folder).labels
    assert not (folder / "labels.safetensors").exists()
    assert main(["info", str(folder), "--layer", "1", "--unit", "0"]) == 0
    assert "label not tested" in capsys.readouterr().out


def test_a_killed_run_goes_on_from_its_batches(folder, monkeypatch, tested):
    class Killed(Exception):
        pass

    put, kept = KeptBatches.put, []

    def killed(self, kind, number, tensors):
        if len(kept) == 2:
            raise Killed
        kept.append(number)
        return put(self, kind, number, tensors)

    monkeypatch.setattr(KeptBatches, "put", killed)
    with pytest.raises(Killed):
        evaluate(folder)
    monkeypatch.setattr(KeptBatches, "put", put)
    broken = folder.parent / ".tiny.labels" / "0-model-000001.safetensors"
    broken.write_bytes(broken.read_bytes()[:50])
    asked = []
    batches = recordings.batches

    def counted(source, preprocess, numbers, size, workers):
        asked.append(list(numbers))
        return batches(source, preprocess, numbers, size, workers)

    monkeypatch.setattr(recordings, "batches", counted)
    assert evaluate(folder) == 0
    assert asked == [[1, 2]], "batch 0 was kept, batch 1 damaged, batch 2 never made"
    name = "labels.safetensors"
    assert (folder / name).read_bytes() == (tested / name).read_bytes()


def test_batches_of_another_basis_are_not_taken(tmp_path):
    bases = ("scenes", "photographs")
    one, other = (KeptBatches.beside(tmp_path / "b", "labels", basis) for basis in bases)
    one.put("model", 0, {"ids": torch.arange(3)})
    assert isinstance(one.get("model", 0), State)
    assert other.get("model", 0) is None


def test_another_clip_judges_and_the_same_weights_are_refused(folder, fresh, capsys):
    assert evaluate(folder, "--judge", str(folder)) == 2
    assert "--allow-circular" in capsys.readouterr().err
    assert evaluate(folder, "--judge", str(fresh.parent / "other")) == 0
    assert load_bundle(folder).metrics["labels"]["judge"] == "other"
    assert evaluate(folder, "--judge", str(folder), "--allow-circular") == 0


def test_too_few_images_and_images_without_truth_are_refused(folder, capsys):
    assert evaluate(folder, "--limit", "99") == 2
    assert "at least 100" in capsys.readouterr().err
    for number in range(100):
        (folder.parent / "pictures").mkdir(exist_ok=True)
        (folder.parent / "pictures" / f"{number}.png").touch()
    assert evaluate(folder, "--images", str(folder.parent / "pictures")) == 2
    assert "--judge" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "tested_on"),
    [
        ("composed scenes", "composed scenes"),
        ("composed scenes and photographs", "composed scenes and held-out photographs"),
    ],
)
def test_a_bundle_is_tested_on_scenes_and_photographs_it_has_not_seen(
    folder, data, tested_on, capsys
):
    bundle = load_bundle(folder)
    config = replace(bundle.config, data=replace(bundle.config.data, name=data))
    save_bundle(replace(bundle, config=config), folder)
    command = ["evaluate", "labels", "--bundle", str(folder)]
    assert main([*command, "--limit", "120"]) == 0
    assert load_bundle(folder).metrics["labels"]["tested_on"]["images"] == tested_on
    config = replace(config, data=replace(config.data, name="ImageNet"))
    save_bundle(replace(load_bundle(folder), config=config), folder)
    assert main(command) == 2
    assert "--images is needed" in capsys.readouterr().err


def test_the_cost_is_said_first(folder, capsys, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("export.evaluation.labels.measure.record", stop)
    assert evaluate(folder) == 130
    said = capsys.readouterr().out
    assert "120 images" in said
    assert "TFLOP" in said
