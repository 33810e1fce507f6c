"""`export evaluate labels`: refusals, what it leaves in the bundle, killing and going on."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from clipneurons.bundle.bundle import load_bundle, save_bundle
from clipneurons.labels.assess import DECOMPOSITION
from export.__main__ import main
from export.common.kept_batches import KeptBatches
from export.common.state import State
from export.evaluation.labels import figures, recordings
from research.papers import command as papers
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
    assert (found["count"], found["written_on"], found["chosen_on"], found["tested_on"]) == (
        120, 48, 24, 48,
    )  # fmt: skip
    assert found["judge"] == "ground truth"
    assert found["texts_judge_does_not_know"] > 0  # "night sky" is nothing that scenes have
    assert set(found["methods"]) >= {DECOMPOSITION, "CLIP-Dissect", "nearest text", "shuffled"}
    for layer, arrays in bundle.layers.items():
        mine = bundle.labels[layer]
        assert len(mine.simulation) == len(arrays.directions)
        assert (mine.simulation_low <= mine.simulation_high).all()
        assert ((mine.q_value > 0) & (mine.q_value <= 1)).all()
    layers = bundle.labels.values()
    for name in ("told_apart", "reliable"):
        units = torch.cat([getattr(mine, name) for mine in layers])
        assert found[name]["units"] == int(units.sum())
        shipped = found["methods"][found["method"]]
        assert shipped[name] == pytest.approx(float(units.float().mean()), abs=1e-4)
    units = sum(len(arrays.directions) for arrays in bundle.layers.values())
    assert sum(found["methods"][DECOMPOSITION]["histogram"]) == units
    best = found["methods"][found["method"]]
    every = torch.cat([mine.simulation for mine in bundle.labels.values()])
    assert best["simulation"] == pytest.approx(float(every.mean()), abs=1e-4)
    said = bundle.label(1, 0, 3)
    assert all(text in bundle.texts and weight for text, weight in said)
    assert "told from other units' labels" in bundle.card
    assert not list(tested.parent.glob(".tiny.labels"))


def test_the_same_command_gives_the_same_labels(tested, folder):
    assert evaluate(folder) == 0
    name = "labels.safetensors"
    assert (folder / name).read_bytes() == (tested / name).read_bytes()


def test_other_figures_leave_the_labels_and_other_texts_drop_them(tested, tmp_path, capsys):
    folder = shutil.copytree(tested, tmp_path / "tiny")
    assert main(["refresh-card", "--bundle", str(folder)]) == 0
    assert load_bundle(folder).labels
    assert main(["info", str(folder), "--layer", "1", "--unit", "0"]) == 0
    assert "predicts the unit" in capsys.readouterr().out
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
    broken = folder.parent / ".tiny.labels" / "model-000001.safetensors"
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


def test_as_many_units_are_taken_on_the_images_of_the_choice():
    tested = SimpleNamespace(
        simulation=torch.tensor([0.5, 0.1, 0.3, 0.2]), validation=torch.tensor([0.1, 0.4, 0.6, 0.2])
    )
    sure = torch.tensor([True, False, True, False])
    assert figures._chosen_elsewhere(tested, sure) == pytest.approx(0.2)
    assert figures._chosen_elsewhere(tested, torch.zeros(4, dtype=torch.bool)) is None


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
    assert load_bundle(folder).metrics["labels"]["images"] == tested_on
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


def test_the_report_shows_what_the_bundle_holds(tested, fresh):
    class Context:
        bundle = load_bundle(tested)

    section = experiment.report(experiment.measure(Context))
    assert "svg" in section.parts[0].svg
    claims = {claim.text: claim.holds for claim in section.claims}
    gaps = Context.bundle.metrics["labels"]["ahead_of"]
    for rival, gap in gaps.items():
        text = f"Our labels predict their units better than {rival}."
        if text in claims:
            assert claims[text] is (gap["interval"][0] > 0)
    kept = experiment.measure(Context)
    older = kept | {"found": {k: v for k, v in kept["found"].items() if k != "told_apart"}}
    assert "Not tested" in experiment.report(older).text, "a report of an older version is drawn"
    Context.bundle = load_bundle(fresh)
    assert "Not tested" in experiment.report(experiment.measure(Context)).text
    assert "labels" in papers.MODULES
