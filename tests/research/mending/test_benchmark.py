import numpy as np
import pytest
import torch

from clipneurons.bundle.bundle import load_bundle
from clipneurons.edit.find_options import FindOptions
from clipneurons.models.clip import load_clip
from clipneurons.synthetic.pictograms import load_pictograms
from export.mend.controls import PROBE
from export.mend.mender import OURS, REAL
from research.mending.benchmark import (
    UNCHANGED,
    BenchmarkOptions,
    Material,
    in_words,
    run_benchmark,
)
from research.mending.spurious_tasks import misleading_tasks, strongest_tasks
from research.papers.experiments import mending
from tests.helpers.packs import COLOURS, flat_pack_file
from tests.helpers.tiny import tiny_bundle_folder


def test_the_companions_that_pull_most_are_taken_once():
    texts = torch.eye(4)
    cues = torch.tensor([[2.0, 0, 0, 0], [0, 3.0, 0, 0], [0.0, 0, 1, 0], [0, 0, 0, 1.0]])
    names = ["w", "x", "y", "z"]
    tasks = strongest_tasks(torch.eye(4), cues, texts, ["a", "b", "c", "d"], names, 2)
    assert [(task.classes, task.cues) for task in tasks] == [
        (("a", "b"), ("w", "x")),
        (("c", "d"), ("y", "z")),
    ]


def test_the_benchmark_measures_every_condition_of_every_task(tmp_path):
    folder = tiny_bundle_folder(tmp_path / "bundle")
    bundle, clip = load_bundle(folder), load_clip(folder, device="cpu")
    pack = load_pictograms(flat_pack_file(tmp_path / "flat.safetensors"))
    names = tuple(COLOURS)
    assert len(misleading_tasks(clip, pack, names, pack, names, 2, pictures=1)) == 2
    material = Material("squares", (pack, pack), names, (pack, pack), names)
    sizes = BenchmarkOptions(tasks=1, images=100, seeds=1)
    rows = run_benchmark(bundle, clip, [material], sizes, FindOptions(most=3))
    assert len(rows) == 1
    conditions = rows[0]["conditions"]
    assert {UNCHANGED, OURS, REAL, PROBE, "random neurons"} <= set(conditions)
    assert all(0 <= one["worst"] <= one["average"] <= 1 for one in conditions.values())
    section = mending.report({"rows": rows, "images": 100})
    assert len(section.parts[1].rows) == len(conditions)
    assert f"mending  {UNCHANGED}: worst group " in in_words({"rows": rows})
    assert "Not measured" in mending.report({}).text


def test_intervals_are_over_tasks_whatever_the_seeds():
    """Of two tasks a mean of resampled tasks is either's or between; more seeds change nothing."""
    few = mending.interval(np.array([0.2, 0.6]), ["a", "b"])
    many = mending.interval(np.array([0.2] * 9 + [0.6] * 9), ["a"] * 9 + ["b"] * 9)
    assert few == pytest.approx([0.2, 0.6])
    assert many == pytest.approx([0.2, 0.6])


def figures(worst, average):
    return {"worst": worst, "average": average}


def test_claims_follow_the_figures():
    names = ("random neurons", "neurons by indirect effect", PROBE, REAL)
    row = {
        "kind": "squares", "task": "a (b), c (d)", "seed": 0, "units": 5,
        "means": "data", "real_units": 0, "real_means": "data",
        "conditions": {UNCHANGED: figures(0.4, 0.8), OURS: figures(0.7, 0.81)}
        | {name: figures(0.45, 0.8) for name in names},
    }  # fmt: skip
    half, ahead = mending.report({"rows": [row] * 4, "images": 100}).claims
    assert half.holds is True
    assert half.evidence.startswith("75 % of 40.0 points closed, 1.0 points")
    assert ahead.holds is True
    row["conditions"][OURS] = figures(0.5, 0.7)
    row["conditions"]["random neurons"] = figures(0.55, 0.8)
    half, ahead = mending.report({"rows": [row] * 4, "images": 100}).claims
    assert half.holds is False
    assert ahead.holds is False
