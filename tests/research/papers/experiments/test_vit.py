"""The papers' experiments on a tiny ViT, held to loops; claims decided by figures; the command."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from clipneurons.bundle.bundle import load_bundle
from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.lens import Lens
from clipneurons.lens.second_order import SCALE
from export.data.dataset import Content, Raw
from export.pipeline.update_bundle import open_model
from research.__main__ import main
from research.papers import published
from research.papers.charts import Bar, Line, bar_chart, line_chart, nice_ticks
from research.papers.context import Chosen, EvaluationContext
from research.papers.experiments import (
    concepts,
    first_order,
    indirect,
    mean_ablation,
    neurons,
    segmentation,
    selectivity,
    sparse_texts,
)
from research.papers.metric import metric
from research.papers.types import Options
from tests.helpers.tiny import tiny_bundle_folder

SMALL = Options(
    images=12, statistics=12, indirect_images=8, indirect_neurons=3, masks="", masked_images=2
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A bundle, labelled noise, and noise with masks."""
    root = tmp_path_factory.mktemp("papers")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for part in ("images", "masked"):
            (root / part / name).mkdir(parents=True)
        for i in range(12):
            noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / "images" / name / f"{i}.png")
        Image.fromarray(noise).save(root / "masked" / name / "0.jpg")
        mask = (rng.random((32, 32)) > 0.5).astype(np.uint8) * 255
        Image.fromarray(mask).save(root / "masked" / name / "0.png")
    return tiny_bundle_folder(root / "tiny"), root / "images", root / "masked"


@pytest.fixture(scope="module")
def context(folders):
    bundle, images, masked = folders
    loaded = load_bundle(bundle)
    options = replace(SMALL, masks=str(masked), pools=("words",))
    return EvaluationContext(
        loaded, bundle, open_model(loaded, bundle), options, str(images), batch=5
    )


def judged(context):
    batches = list(context.pass_over(context.judged, "test"))
    return torch.cat([images for _, images, _ in batches]), torch.cat([b[2] for b in batches])


def accuracy(context, embeddings, labels):
    return float(((embeddings @ context.classifier.T).argmax(1) == labels).float().mean())


def test_images_are_kept_apart_and_renumbered(context):
    usual, kept = context.usual, context.judged
    assert isinstance(kept, Chosen)
    assert not set(usual.numbers) & set(kept.numbers)
    assert len(usual) == len(kept) == 12
    assert [raw.index for raw in kept.raws([3, 5])] == [3, 5]
    ids = torch.cat([ids for ids, _, _ in context.pass_over(usual, "test", limit=7)])
    assert ids.tolist() == list(range(7))
    _, labels = judged(context)
    assert set(labels.tolist()) == {0, 1}


def test_composed_images_are_composed_once():
    made = []

    class Composed:
        def raws(self, indices):
            for i in indices:
                yield Raw(
                    i, str(i), lambda i=i: made.append(i) or Content(Image.new("RGB", (2, 2)))
                )

    source = Chosen(Composed(), [7, 3])
    for _ in range(2):
        assert [raw.load().data.size for raw in source.raws([0, 1])] == [(2, 2)] * 2
    assert made == [7, 3]


def test_mean_ablation_of_every_layer_is_that_of_a_loop(context):
    result = mean_ablation.measure(context)
    assert list(result["layers"]) == [str(layer) for layer in range(context.clip.layers - 1)]
    images, labels = judged(context)
    layer = next(layer for layer in range(4) if layer not in context.bundle.layers)
    lens = Lens(context.clip, (layer,))
    representation, contributions = lens(images)
    effects = contributions[layer].dense(torch.arange(context.clip.neurons)).double()
    means = context.wide((layer,)).layers[layer].means.double()
    original = (SCALE * representation / representation.norm(dim=1, keepdim=True)).double()
    ablated = original - (effects - means).sum(1)
    found = result["layers"][str(layer)]["all effects mean-ablated"]
    assert found["accuracy"] == pytest.approx(accuracy(context, ablated.float(), labels), abs=1e-6)
    expected = torch.cosine_similarity(ablated, original).mean()
    assert found["cosine"] == pytest.approx(float(expected), abs=2e-5)
    section = mean_ablation.report(result)
    assert len(section.claims) == 3
    ElementTree.fromstring(section.parts[0].svg)


def test_layers_beyond_the_bundle_get_the_statistics_of_their_own(context):
    layers = tuple(range(context.clip.layers - 1))
    assert set(layers) > set(context.bundle.layers)
    wide = context.wide(layers)
    own = next(iter(context.bundle.layers))
    assert wide.layers[own] is context.bundle.layers[own]
    other = next(layer for layer in layers if layer not in context.bundle.layers)
    batches = context.pass_over(context.usual, "test")
    effects = torch.cat(
        [
            Lens(context.clip, (other,))(images)[1][other].dense(torch.arange(4))
            for _, images, _ in batches
        ]
    )
    assert torch.allclose(wide.layers[other].means[:4], effects.mean(0), atol=1e-5)


def test_all_activations_at_their_mean_is_what_a_hook_does(context):
    clip, layer = context.clip, context.layer
    images, _ = judged(context)
    means = torch.randn(clip.grid[0] * clip.grid[1] + 1, clip.neurons)
    original, ablated = indirect.all_at_mean(clip, images, layer, means)
    module = clip.visual.get_submodule(clip.anatomy.mlp(layer).path)
    handle = module.register_forward_hook(lambda *_: means.expand(len(images), -1, -1))
    try:
        expected = clip.encode_image(images)
    finally:
        handle.remove()
    assert torch.allclose(ablated, expected, atol=1e-5)
    assert torch.allclose(original, clip.encode_image(images), atol=1e-6)
    assert not torch.allclose(original, expected, atol=1e-2)


def test_variance_of_the_first_component():
    effects = torch.zeros(12, 2, 3)
    effects[:, 0, 0] = torch.arange(12.0)
    effects[0, 1, 0], effects[1, 1, 0] = 2.0, -2.0
    effects[2, 1, 1], effects[3, 1, 1] = 1.0, -1.0
    first, second = indirect.variances(effects)
    assert first == pytest.approx(1.0)
    assert second == pytest.approx(8 / 10)


def test_indirect_table(context):
    result = indirect.measure(context)
    assert len(result["indirect"]["variance"]) == len(result["second-order"]["variance"]) == 3
    table = indirect.report(result).parts[0]
    assert [row[2] for row in table.rows] == ["52.3", "29.6"]
    assert [row[4] for row in table.rows] == ["11.0", "48.2"]


def test_selectivity_ends_at_ablation_and_at_the_unchanged_model(context):
    result = selectivity.measure(context)
    assert result["shares"]["1.0"]["agreement"] == 1.0
    assert result["shares"]["1.0"]["cosine"] == pytest.approx(1, abs=1e-5)
    ablated = context.fidelity(context.wide((context.layer,)))["layers"][f"layer {context.layer}"]
    ablated = ablated["all effects mean-ablated"]
    assert result["shares"]["0.0"]["cosine"] == pytest.approx(ablated["cosine"], abs=2e-5)
    assert sum(result["effective"]["counts"]) <= result["units"]
    assert len(selectivity.report(result).claims) == 2


def test_texts_reach_from_ablation_to_the_first_component(context):
    result = sparse_texts.measure(context)
    figures = result["pools"]["words"]["figures"]
    assert {"4 texts", "8 texts"} <= set(figures)
    ElementTree.fromstring(sparse_texts.report(result).parts[0].svg)


def test_first_order_effects_are_ablated_one_layer_after_the_other(context):
    result = first_order.measure(context)
    lens, layers = FirstOrderLens(context.clip), context.clip.layers
    usual = torch.cat([images for _, images, _ in context.pass_over(context.usual, "test")])
    images, labels = judged(context)
    means = lens(usual)[1]
    representation, effects = lens(images)
    ablated = representation.clone()
    for layer in range(layers):
        ablated -= effects.mlps[:, layer] - means.mlps[:, layer].mean(0)
        found = result["kinds"]["mlps"][layer]
        expected = torch.cosine_similarity(ablated, representation).mean()
        assert found["cosine"] == pytest.approx(float(expected), abs=2e-5)
        assert found["accuracy"] == pytest.approx(accuracy(context, ablated, labels), abs=1e-6)
    assert len(first_order.report(result).claims) == 2


def test_example_units_and_concepts(context):
    result = neurons.measure(context)
    example = result["units"]["clearest"][0]
    assert example["images"][0]["uri"].startswith("data:image/webp;base64,")
    assert neurons.report(result).parts[0].rows
    clear = result["effective_concepts"] | {"several": 0.9, "median": 3.0, "chance": 9.0}
    for change, holds in (({}, True), ({"several": 0.2}, False), ({"median": 8.9}, None)):
        claim = neurons.report(result | {"effective_concepts": clear | change}).claims[0]
        assert claim.holds is holds
    found = concepts.measure(context)
    assert len(found["examples"]) == 6
    assert found["labelled"] == found["count"] == 12
    assert concepts.naming_texts("dog", ["a dog", "two dogs", "dogma", "hotdog"]) == {0, 1}
    assert concepts.report(found).parts[1].rows[0][1]


def test_segmentation_table_has_the_papers_values(context):
    result = segmentation.measure(context)
    section = segmentation.report(result)
    rows = {row[0]: row for row in section.parts[1].rows}
    assert rows["second-order votes (the paper's)"][5] == "78.1 / 59 / 84.9"
    assert len(result["examples"]) == 2


BY = metric({"accuracy": 0.8})


def figures(value):
    spread = [value - 0.02, value + 0.02]
    return {"accuracy": value, "accuracy_interval": spread}


def test_claims_follow_the_figures():
    kinds = {0: (0.8, 0.8, 0.8, 0.8), 1: (0.8, 0.8, 0.8, 0.8), 2: (0.3, 0.35, 0.78, 0.79)}
    layers = {
        layer: dict(zip(mean_ablation.CONDITIONS, map(figures, values), strict=True))
        for layer, values in kinds.items()
    }
    assert [c.holds for c in mean_ablation.claims(layers, BY)] == [True, True, True]
    early = {0: layers[2], 1: layers[1], 2: layers[0]}
    assert [c.holds for c in mean_ablation.claims(early, BY)] == [False, True, True]
    wrong = dict(zip(mean_ablation.CONDITIONS, map(figures, (0.3, 0.7, 0.4, 0.5)), strict=True))
    verdicts = [c.holds for c in mean_ablation.claims(layers | {2: wrong}, BY)]
    assert verdicts == [True, False, False]
    nothing = dict.fromkeys(range(3), layers[0])
    assert [c.holds for c in mean_ablation.claims(nothing, BY)] == [None] * 3
    lost = {"attention": [figures(0.8), figures(0.8), figures(0.1)], "mlps": [figures(0.8)] * 3}
    assert [c.holds for c in first_order.claims({"kinds": lost}, BY, 3)] == [True, True]
    lost = {"attention": [figures(0.1)] * 3, "mlps": [figures(0.2)] * 3}
    assert [c.holds for c in first_order.claims({"kinds": lost}, BY, 3)] == [False, False]


def test_what_conditions_are_compared_by():
    assert BY({"accuracy": 0.3, "accuracy_interval": [0.2, 0.4]}) == (0.3, [0.2, 0.4])
    weak = metric({"accuracy": 0.05})
    assert (weak.name, weak.base) == ("agreement", 1.0)
    assert "only 5.0 %" in weak.note
    assert "no labels" in metric({}).note
    apart = ((0.2, [0.1, 0.3]), (0.5, [0.4, 0.6]))
    assert indirect.is_lower(*apart) is True
    assert indirect.is_lower(*apart[::-1]) is False
    assert indirect.is_lower((0.3, [0.1, 0.5]), (0.5, [0.4, 0.6])) is None


def test_charts_are_well_formed_and_within_their_axes():
    assert nice_ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert nice_ticks(0.3, 0.31)[0] <= 0.3
    svg = line_chart(
        [Line("a <b>", [0, 1, 2], [3, 9, 4], [[2, 4], [8, 10], [3, 5]]), Line("c", [0, 2], [5, 5])],
        "layer", "accuracy, %",
    )  # fmt: skip
    root = ElementTree.fromstring(svg)
    height = float(root.attrib["viewBox"].split()[3])
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == 5
    ys = [float(c.attrib["cy"]) for c in circles[:3]]
    assert ys[1] < ys[2] < ys[0] < height
    bars = ElementTree.fromstring(bar_chart([Bar("one", 2.0, [1, 3]), Bar("two", 4.0)], "x"))
    widths = [float(e.attrib["width"]) for e in bars.iter() if e.tag.endswith("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.01)


class Outside(HTMLParser):
    """Collects what the page would load, and whether its tags are closed."""

    def __init__(self):
        super().__init__()
        self.loaded, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br", "line", "rect", "circle", "polyline"):
            self.open.append(tag)
        if tag in ("img", "script", "link"):
            self.loaded.append(dict(attrs).get("src", tag))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


def papers(folders, out, *more):
    return main([
        "papers", "--bundle", str(folders[0]), "--images", str(folders[1]), "--out", str(out),
        "--count", "6", "--statistics", "6", *more,
    ])  # fmt: skip


def test_the_command_goes_on_from_what_is_known(folders, tmp_path, capsys):
    out = tmp_path / "report"
    some = ("--only", "mean-ablation", "neurons")
    assert papers(folders, out, *some) == 0
    first = json.loads((out / "results.json").read_text())["bundles"]["tiny"]
    assert set(first["experiments"]) == {"mean ablation", "units"}
    assert "mean ablation," in capsys.readouterr().out
    assert papers(folders, out, *some, "concepts") == 0
    second = json.loads((out / "results.json").read_text())["bundles"]["tiny"]
    assert second["experiments"]["mean ablation"] == first["experiments"]["mean ablation"]
    printed = capsys.readouterr().out
    assert "concepts," in printed
    assert "mean ablation," not in printed
    assert papers(folders, out, *some, "--count", "5") == 0
    assert "mean ablation," in capsys.readouterr().out
    page = Outside()
    text = (out / "index.html").read_text()
    page.feed(text)
    assert page.open == []
    assert page.loaded
    assert all(src.startswith("data:image/webp") for src in page.loaded)
    assert "Concept discovery" in text
    assert published.SECONDS in text


def test_mistakes_are_one_line(folders, tmp_path, capsys):
    assert papers(folders, tmp_path, "--only", "nothing") == 2
    assert "expected some of mean_ablation" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("[]")
    assert papers(folders, tmp_path, "--only", "neurons") == 2
    assert "choose another --out" in capsys.readouterr().err
    new = ("--out", str(tmp_path / "new"), "--only", "mean-ablation")
    assert main(["papers", "--bundle", "a/tiny", "b/tiny", *new]) == 2
    assert "two are 'tiny'" in capsys.readouterr().err
    assert main(["papers", "--bundle", str(folders[0]), *new]) == 2
    assert "--images" in capsys.readouterr().err
    model = ("--model", "ViT-B-32", "--pretrained", "openai", "--bundle", str(tmp_path / "none"))
    assert main(["papers", *model, *new]) == 2
    assert "--images" in capsys.readouterr().err
