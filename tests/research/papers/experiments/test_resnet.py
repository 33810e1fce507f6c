"""The experiments on neuron-head pairs, the adversarial table and dataset shift, on tiny models."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

from clipneurons.bundle.bundle import load_bundle
from clipneurons.lens.lens import Lens
from export.pipeline.update_bundle import open_model
from research.papers import published
from research.papers.context import EvaluationContext
from research.papers.experiments import (
    adversarial,
    dataset_shift,
    neurons,
    pair_rank,
    pair_sparsity,
    semantic,
    subconcepts,
)
from research.papers.types import Options
from tests.helpers.tiny import tiny_bundle_folder
from tests.research.papers.experiments.test_vit import folders  # noqa: F401  (the fixture's images)

SMALL = Options(
    images=8, statistics=10, pictures=10, seeds=1, shift_runs=1, shift_size=4, shift_pool=24
)


@pytest.fixture(scope="module")
def context(tmp_path_factory, folders):  # noqa: F811
    bundle = tiny_bundle_folder(tmp_path_factory.mktemp("pairs") / "tiny", kind="resnet")
    loaded = load_bundle(bundle)
    return EvaluationContext(
        loaded, bundle, open_model(loaded, bundle), SMALL, str(folders[1]), batch=4
    )


def test_a_pair_has_one_direction_and_a_neuron_has_not(context):
    result = pair_rank.measure(context)
    assert min(result["pair"]) == pytest.approx(1)
    assert min(result["neuron"]) < 0.999
    assert result["accuracy"]["unchanged"]["agreement"] == 1
    assert pair_rank.report(result).claims[0].holds is True


def test_one_direction_a_neuron_is_what_a_loop_keeps(context, monkeypatch):
    kept = []
    monkeypatch.setattr(pair_rank.Tally, "add", lambda self, e, *_: kept.append(e))
    monkeypatch.setattr(pair_rank.Tally, "figures", lambda self: {})
    lens = Lens(context.clip)
    images = torch.cat([i for _, i, _ in context.pass_over(context.judged, "test", limit=4)])
    scores = pair_rank.pair_scores(lens, images)
    neurons_, heads = scores.shape[1:]
    mean = torch.randn(neurons_, heads)
    vectors = torch.nn.functional.normalize(torch.randn(neurons_, lens.clip.embed_dim), dim=1)
    monkeypatch.setattr(
        EvaluationContext,
        "pass_over",
        lambda *_: [(torch.arange(4), images, torch.zeros(4).long())],
    )
    pair_rank.accuracy_from(context, lens, mean, vectors)
    unchanged, one, none = kept
    dense = lens.method.neurons.dense(torch.arange(neurons_)).double()
    expected = unchanged.double().clone()
    without = expected.clone()
    for image in range(4):
        for n in range(neurons_):
            change = (scores[image, n] - mean[n]).double() @ dense[n]
            without[image] -= change
            expected[image] -= change - (change @ vectors[n].double()) * vectors[n]
    assert torch.allclose(none.double(), without, atol=1e-3)
    assert torch.allclose(one.double(), expected, atol=1e-3)


def test_components_are_those_of_the_dense_effects(context):
    lens = Lens(context.clip)
    images = torch.cat([i for _, i, _ in context.pass_over(context.usual, "test")])
    scores = pair_rank.pair_scores(lens, images)
    centred = scores - scores.mean(0)
    found = pair_rank.first_components(centred, lens)
    for neuron in (0, 5):
        rows = (centred[:, neuron] @ lens.method.neurons.dense(torch.tensor([neuron]))[0]).double()
        first = torch.linalg.svd(rows, full_matrices=False).Vh[0]
        assert abs(float(first @ found[neuron].double())) == pytest.approx(1, abs=1e-5)


def test_sparsity_ends_at_the_unchanged_model_and_starts_at_ablation(context):
    result = pair_sparsity.measure(context)
    ways = result["ways"]
    assert all(mine["1.0"]["agreement"] == 1 for mine in ways.values())
    assert len({mine["0.0"]["cosine"] for mine in ways.values()}) == 1
    assert result["energy"]["1.0"] == pytest.approx(1)
    assert result["energy"]["0.5"] > 0.5
    section = pair_sparsity.report(result)
    ElementTree.fromstring(section.parts[0].svg)


def figures(value):
    return {"accuracy": value, "accuracy_interval": [value - 0.01, value + 0.01]}


def test_the_sparsity_claim_follows_the_figures():
    shares = list(pair_sparsity.SHARES)

    def result(values):
        mine = {str(s): figures(v) for s, v in zip(shares, values, strict=True)}
        return {"ways": dict.fromkeys(pair_sparsity.WAYS, mine)}

    quick = [0.1] + [0.79] * 10
    slow = [0.1] * 10 + [0.8]
    assert pair_sparsity.claims(result(quick), shares)[0].holds is True
    assert pair_sparsity.claims(result(slow), shares)[0].holds is False
    assert pair_sparsity.claims(result([0.8] * 11), shares)[0].holds is None


def test_sub_concepts_and_units(context):
    result = subconcepts.measure(context)
    arrays = context.bundle.layers[4]
    heads = result["heads"]
    rows = arrays.directions[:heads]
    first = (rows @ rows.T)[~torch.eye(heads, dtype=torch.bool)].mean()
    assert -1 <= result["same"] <= 1
    assert first.abs() <= 1
    assert 1 <= result["distinct"] <= heads
    assert len(subconcepts.report(result).parts[0].rows) == 4 * min(3, heads)
    assert "head" in neurons.report(neurons.measure(context)).parts[0].rows[0][0]


def test_shared_images():
    top = torch.tensor([[[1, 2, 3, 4], [1, 2, 5, 6]], [[1, 2, 3, 4], [5, 6, 7, -1]]])
    assert subconcepts.shared_images(top) == pytest.approx(0.25)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_adversarial_table(context, tmp_path, folders, monkeypatch):  # noqa: F811
    pair = ("ship", "truck")
    monkeypatch.setattr(published, "ADVERSARIAL", {pair: published.ADVERSARIAL[pair]})
    monkeypatch.setattr(adversarial, "PHOTOGRAPH_PAIRS", adversarial.PHOTOGRAPH_PAIRS[:1])
    monkeypatch.setattr(adversarial, "TOWERS", ("tiny", "twin"))
    (folders[0].parent / "twin").symlink_to(folders[0])
    bundle = load_bundle(folders[0])
    mine = EvaluationContext(
        bundle, folders[0], open_model(bundle, folders[0]), replace(SMALL, statistics=16),
        str(folders[1]),
        work=tmp_path / "work",
    )  # fmt: skip
    result = adversarial.measure(mine)
    assert set(result["success"]["overall"]) >= set(published.ADVERSARIAL_METHODS)
    assert not (tmp_path / "work" / "attack").exists()
    photographs = result["photographs"]
    assert list(photographs["success"]["table"]) == ["butterfly → scorpion"]
    assert "indirect effect" not in photographs["success"]["overall"]
    for found in (result, photographs):  # the other tower is the same model
        for rates in found["transfer"]["twin"].values():
            assert rates["all"]["successes"] == rates["of successes"]["count"]
    *parts, comparison, transfer = adversarial.report(result).parts
    assert len(comparison.rows) == 2 * 2 * 2  # generators, counted, the paper's and recorded
    assert len(transfer.rows) == 8 + 7
    rows = parts[1].rows
    assert rows[0][0] == "ship → truck"
    assert rows[0][1].endswith("[5.7]")
    assert parts[4].rows[0][0] == "butterfly → scorpion"
    assert "[" not in parts[4].rows[0][1]
    better = replace_rates(result, 0.5, 0.1)
    assert adversarial.report(better).claims[0].holds is True
    assert adversarial.report(replace_rates(result, 0.1, 0.5)).claims[0].holds is False
    control = [
        c for c in adversarial.report(result).claims if "cue images without neurons" in c.text
    ]
    assert len(control) == 2 * 2
    assert all("for recorded embeddings" in claim.evidence for claim in control)


def replace_rates(result, ours, theirs):
    overall = {m: o | {"mean": theirs} for m, o in result["success"]["overall"].items()}
    overall["second-order"] = overall["second-order"] | {"mean": ours}
    comparison = {"best baseline": "similar words", "ratios": {}}
    return result | {"success": result["success"] | {"overall": overall, "comparison": comparison}}


def test_dataset_shift(context):
    result = dataset_shift.measure(replace(context))
    assert {name.rpartition(" ")[0] for name in result["cells"]} >= {"none", "style"}
    section = dataset_shift.report(result)
    assert len(section.parts[1].rows) == len(result["cells"])
    assert section.claims[0].holds in (True, False)


def test_a_closer_look_counts_where_a_watermark_is_noticed():
    def cell(ours, localised):
        named = {"named": 0, "named by mean embedding": 0, "named by localisation": localised}
        return {"runs": 2, "ours": ours, "MMD": 0, "classifier": 0} | named

    cells = {"none 9": cell(0, None), "mark:0.2 9": cell(1, 0.9), "mark:0.01 9": cell(0.1, 0)}
    cells["none 9"]["named"] = None
    claim = dataset_shift.report({"size": 9, "cells": cells}).claims[2]
    assert claim.holds is True
    assert "90 %" in claim.evidence
    cells["mark:0.2 9"]["ours"] = 0.4
    assert dataset_shift.report({"size": 9, "cells": cells}).claims[2].holds is None


def test_semantic_segmentation(context):
    options = replace(SMALL, masked_images=4, chosen_on=2)
    result = semantic.measure(replace(context, options=options))
    section = semantic.report(result)
    ElementTree.fromstring(section.parts[0].svg)
    assert [row[-1] for row in section.parts[1].rows if row[0] == "MaskCLIP"] == ["22.8"]
    assert len(section.parts) == len(section.claims) == 4, "two blocks"
    ours = result["blocks"]["without edges"][semantic.OURS]["times MaskCLIP"]
    for interval, holds in (([1.1, 1.3], True), ([0.9, 1.2], None), ([0.5, 0.7], False)):
        ours["interval"] = interval
        assert semantic.report(result).claims[1].holds is holds
