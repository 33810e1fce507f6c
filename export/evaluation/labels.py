"""`python -m export evaluate --labels`: how far the words of every unit can be trusted.

Labels are written in several ways on some images, the best way is chosen on others, and all are
tested on the rest: by how well a judge's view of the images, put through the words, predicts what
the unit does there. Rivals and controls are tested alongside.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.config import DECOMPOSITION as DECOMPOSITION_FILE
from clipneurons.bundle.config import NEURONS
from clipneurons.bundle.folders import file_sha256
from clipneurons.bundle.image_groups import GROUPS
from clipneurons.bundle.labels import LayerLabels, told_apart
from clipneurons.explore.labels import properties
from clipneurons.explore.labels.assess import (
    DECOMPOSITION,
    LEAST_IMAGES,
    Assessment,
    Parts,
    Tested,
    assess,
    mean_interval,
    split,
)
from clipneurons.explore.labels.candidates import METHODS, READINGS
from clipneurons.explore.labels.detection import (
    BestConcept,
    auc,
    average_precision,
    best_concept,
    iou,
)
from clipneurons.explore.labels.evidence import SIZES
from clipneurons.explore.labels.sanity import sanity
from clipneurons.explore.labels.seen_texts import SCREENED
from clipneurons.explore.labels.simulation import TOP_SHARE, Labels, pearson
from clipneurons.models.clip import ClipModel
from clipneurons.stats.centring import without_shared
from export.common.errors import UserError
from export.data.open_source import HELD_OUT, open_source, shipped_spec
from export.evaluation import image_groups
from export.evaluation.fidelity import check_bias
from export.evaluation.flags import LABEL_SCENES
from export.evaluation.label_recordings import TRUTH, ClipJudge, Judge, TruthJudge, record
from export.pipeline.inputs import open_clip_model
from export.pipeline.kept_batches import KeptBatches

# Composed scenes of a seed of their own: no other command has seen them.
_SEED = 40_000
# Texts that enough and not too many images show, for the check of the metrics.
_CHECKED, _RARE, _OFTEN = 200, 10, 0.5
_HISTOGRAM = 40


def measure(
    bundle: Bundle, clip: ClipModel, folder: Path, args: argparse.Namespace
) -> tuple[dict, dict[int, LayerLabels]]:
    """Figures for `metrics.json`, and every unit's label with its scores.

    Raises `UserError` for a judge of the model's own weights, and for fewer than 100 images.
    """
    check_bias(bundle)
    source = _source(bundle, clip, args)
    if len(source) < LEAST_IMAGES:
        raise UserError(
            f"labels cannot be tested on {len(source)} images: they are written on some, chosen on"
            f" others and tested on the rest, where 2 % are a unit's strongest. Give at least"
            f" {LEAST_IMAGES}, better thousands"
        )
    judge = _judge(bundle, clip, source, args)
    print(in_advance(bundle, len(source), judge), flush=True)
    files = [file_sha256(folder / name) for name in (NEURONS, DECOMPOSITION_FILE)]
    work = KeptBatches.beside(
        folder, "labels", files, bundle.config.weights_sha256, source.name, len(source),
        args.images, args.split, args.batch, judge.name,
    )  # fmt: skip
    recordings = record(bundle, clip, judge, source, work, args.batch, args.workers)
    try:
        parts = split(recordings)
    except ValueError as error:  # many could not be read
        raise UserError(str(error)) from None
    found = _assessed(bundle, parts)
    print("labels   groups of top images", flush=True)
    grouped, groups = image_groups.measure(bundle, clip, parts)
    layers = {
        layer: replace(mine, groups=groups[layer])
        for layer, mine in _by_layer(bundle, found, parts).items()
    }
    about = {
        "images": source.name,
        "count": len(recordings),
        "written_on": len(parts.fit),
        "chosen_on": len(parts.choose),
        "tested_on": len(parts.test),
        "judge": judge.name,
        "texts": len(bundle.texts),
        "texts_judge_does_not_know": len(judge.unknown),
        "units_tested": len(found.shipped.simulation),
    }
    work.remove()
    return about | figures(found, parts, layers) | {"groups": grouped}, layers


def _assessed(bundle: Bundle, parts: Parts) -> Assessment:
    """All units of all layers, in the bundle's order."""
    layers = bundle.layers.values()
    return assess(
        parts,
        torch.cat([arrays.directions for arrays in layers]),
        normalize(bundle.text_embeddings, dim=1),
        Labels(
            torch.cat([arrays.indices for arrays in layers]).long(),
            torch.cat([arrays.coefficients for arrays in layers]),
        ),
        note=lambda name: print(f"labels   {name}", flush=True),
    )


def figures(found: Assessment, parts: Parts, layers: Mapping[int, LayerLabels]) -> dict:
    """Everything about all units together."""
    shipped = found.shipped
    every, sure = found.methods | found.rivals, shipped.reliable
    edges = torch.linspace(-1, 1, _HISTOGRAM + 1)
    return {
        "method": found.best,
        "methods": {name: _method(tested, edges) for name, tested in every.items()},
        "ahead_of": {
            name: _ahead(shipped, tested) for name, tested in every.items() if name != found.best
        },
        "histogram_edges": [round(float(edge), 4) for edge in edges],
        "told_apart": _over(shipped, told_apart(shipped.q_value)),
        "reliable": _over(shipped, sure) | {"chosen_elsewhere": _chosen_elsewhere(shipped, sure)},
        "layers": {
            str(layer): {
                "simulation": _round(mine.simulation.mean()),
                "reliable": _round(mine.reliable.float().mean()),
            }
            for layer, mine in layers.items()
        },
        "units": {
            name: _spread(torch.cat([getattr(mine, name) for mine in layers.values()]))
            for name in ("concept_iou", "monosemanticity", "clarity", "redundancy")
        },
        "detection": {
            f"{name}_{side}": _spread(
                torch.cat([getattr(mine, f"phrase_{name}")[:, place] for mine in layers.values()])
            )
            for name in ("auc", "auprc")
            for place, side in enumerate(("toward", "against"))
        },
        "sanity": checked_metrics(parts),
    }


def in_words(found: Mapping) -> str:
    """A line a method, the best first, and how many labels are reliable."""
    lines = []
    ranked = sorted(found["methods"].items(), key=lambda pair: -pair[1]["simulation"])
    for name, one in ranked:
        low, high = one["interval"]
        mark = " (shipped)" if name == found["method"] else ""
        lines.append(
            f"labels   {one['simulation']:.3f} ({low:.3f} to {high:.3f}) {name}{mark};"
            f" told from others' {one['told_apart']:.1%}, reliable {one['reliable']:.1%}"
        )
    sure = found["reliable"]
    mean = ""
    if sure["units"]:
        mean = (
            f", mean {sure['simulation']:.3f}; of as many taken on other images"
            f" {sure['chosen_elsewhere']:.3f}"
        )
    lines.append(f"labels   reliable: {sure['units']:,} of {found['units_tested']:,} units{mean}")
    return "\n".join([*lines, image_groups.in_words(found["groups"])])


def in_advance(bundle: Bundle, images: int, judge: Judge) -> str:
    """What the test will cost, printed before it begins."""
    units = sum(len(arrays.directions) for arrays in bundle.layers.values())
    texts, embed = len(bundle.texts), bundle.config.embed_dim
    fit, test = 0.4 * images, 0.4 * images
    others = min(units, 4096)
    methods = len(METHODS) + 8
    # Pursuits (four), correlations with texts (two, one a reading and one a group), phrases that
    # say the same, CLIP-Dissect, simulation of every size, shuffled labels and bootstrap of every
    # method; for all units together, texts compared with one another and what the model reads.
    flops = 2 * texts * embed * (texts + len(READINGS) * fit) + (
        2
        * units
        * (
            4 * max(SIZES) * texts * embed
            + (2 + len(READINGS) + GROUPS) * fit * texts
            + len(READINGS) * max(SIZES) * SCREENED * embed
            + 100 * texts
            + (methods + len(READINGS)) * sum(SIZES) * 0.2 * images
            + methods * (others * test + 5 * 200 * test)
        )
    )
    memory = 4 * (images * (3 * units + 4 * texts) + 3 * 1024 * (units + texts))
    disk = 4 * images * (units + embed + (texts if judge.name == TruthJudge.name else embed))
    speed = _speed()
    unknown = f", who cannot tell {len(judge.unknown):,} of the texts" if judge.unknown else ""
    return (
        f"labels   {units:,} units, {texts:,} texts, {images:,} images;"
        f" judge: {judge.name}{unknown}"
        f"\nlabels   {flops / 1e12:.1f} TFLOP of matrix products, about"
        f" {max(flops / speed / 60, 1):.0f} minutes at {speed / 1e9:.0f} GFLOP/s, after one pass of"
        f" the images through the model{'' if judge.name == TruthJudge.name else ' and the judge'};"
        f" memory {memory / 1e9:.1f} GB, disk {disk / 1e6:.0f} MB"
    )


def checked_metrics(parts: Parts) -> dict:
    """The two checks of the metrics, on units that show a text exactly, and some noise."""
    present = parts.test.present
    shown = present.float().sum(0)
    usable = ((shown >= _RARE) & (shown <= _OFTEN * len(present))).nonzero()[:, 0][:_CHECKED]
    if not len(usable):
        return {}
    truth = present[:, usable]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    effects = truth.float() + 0.1 * noise
    metrics = {
        "simulation correlation": lambda e, y: pearson(e, y.float()),
        "AUPRC": average_precision,
        "IoU": lambda e, y: iou(e > 0.5, y),
        "AUC": auc,
    }
    return {
        name: {
            "missing": round(checked.missing, 4),
            "extra": round(checked.extra, 4),
            "passed": checked.passed,
        }
        for name, metric in metrics.items()
        if (checked := sanity(metric, effects, truth))
    }


def _source(bundle: Bundle, clip: ClipModel, args: argparse.Namespace):
    # Of what ships it is known what it shows, and no judge is better.
    scenes = args.label_images or LABEL_SCENES
    usual = shipped_spec(bundle.config.data.name, scenes, HELD_OUT)
    if not (args.images or usual):
        raise UserError("--images is needed: on which images should the labels be tested?")
    return open_source(
        args.images or usual,
        split=args.split,
        limit=(args.label_images or args.limit) if args.images else None,
        seed=_SEED,
        image_size=max(clip.image_size),
    )


def _judge(bundle: Bundle, clip: ClipModel, source, args: argparse.Namespace) -> Judge:
    if args.judge in (None, TRUTH):
        return TruthJudge(source, bundle.texts)
    other = open_clip_model(args.judge, args.judge_pretrained, args.device)
    if other.sha256() == clip.sha256() and not args.allow_circular:
        raise UserError(
            f"--judge {args.judge} has the weights of the model itself: it would find its own words"
            " right. Give another judge, or add --allow-circular"
        )
    return ClipJudge(other, bundle.texts)


def _by_layer(bundle: Bundle, found: Assessment, parts: Parts) -> dict[int, LayerLabels]:
    """Every unit's label and scores, cut into the bundle's layers."""
    shipped, test = found.shipped, parts.test
    seen = parts.fit.effects
    thresholds = seen.topk(max(1, round(TOP_SHARE * len(seen))), dim=0).values[-1]
    concept = best_concept(test.effects > thresholds, test.present)
    columns = {
        "indices": shipped.labels.indices,
        "coefficients": shipped.labels.coefficients,
        "simulation": shipped.simulation,
        "simulation_low": shipped.limits[0],
        "simulation_high": shipped.limits[1],
        "simulation_top": shipped.top,
        "shuffled_line": shipped.shuffled.line,
        "q_value": shipped.q_value,
        "decomposition": found.methods[DECOMPOSITION].simulation,
        **_detection(shipped.labels, test.effects, test.scores),
        **_concept(concept),
        **_properties(test.effects, test.judged),
    }
    return {layer: LayerLabels(**mine) for layer, mine in bundle.by_layer(columns).items()}


def _detection(
    labels: Labels, effects: Float[Tensor, "image unit"], scores: Float[Tensor, "image text"]
) -> dict[str, Tensor]:
    """Each side's first phrase as a detector of the strongest effects of that sign."""
    count = max(1, round(TOP_SHARE * len(effects)))
    found: dict[str, list[Tensor]] = {"phrase_auc": [], "phrase_auprc": []}
    for side in (1, -1):
        text = labels.first(side)
        values = scores[:, text.clamp_min(0)]
        top = (side * effects).topk(count, dim=0).indices
        strong = torch.zeros_like(effects, dtype=torch.bool).scatter_(0, top, True)
        for name, metric in (("phrase_auc", auc), ("phrase_auprc", average_precision)):
            found[name].append(torch.where(text >= 0, metric(values, strong), torch.nan))
    return {name: torch.stack(sides, dim=1) for name, sides in found.items()}


def _concept(found: BestConcept) -> dict[str, Tensor]:
    return {
        "concept": found.text,
        "concept_iou": found.iou,
        "concept_precision": found.precision,
        "concept_recall": found.recall,
    }


def _properties(
    effects: Float[Tensor, "image unit"], judged: Float[Tensor, "image space"]
) -> dict[str, Tensor]:
    """Properties of units on their strongest 2 % of the images, at least ten."""
    weights = properties.top_weights(effects, max(10, round(TOP_SHARE * len(effects))))
    space = without_shared(judged)
    return {
        name: getattr(properties, name)(weights, space)
        for name in ("monosemanticity", "clarity", "redundancy")
    }


def _over(tested: Tested, units: Bool[Tensor, " unit"]) -> dict:
    """How many these units are, and how well their labels predict them."""
    low, high = mean_interval(tested.draws, units)
    return {
        "units": int(units.sum()),
        "share": _round(units.float().mean()),
        "simulation": _round(tested.simulation[units].mean()) if units.any() else None,
        "interval": [_round(low), _round(high)] if units.any() else None,
    }


def _chosen_elsewhere(tested: Tested, units: Bool[Tensor, " unit"]) -> float | None:
    """The mean over as many units, taken by their correlation on the images of the choice.

    Units taken by what the test images say of them look better there than they are.
    """
    taken = tested.validation.topk(int(units.sum())).indices
    return _round(tested.simulation[taken].mean()) if len(taken) else None


def _method(tested: Tested, edges: Tensor) -> dict:
    low, high = mean_interval(tested.draws)
    quantiles = tested.simulation.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]))
    result = {
        "simulation": _round(tested.simulation.mean()),
        "interval": [_round(low), _round(high)],
        "top": _round(tested.top.mean()),
        "quantiles": [_round(q) for q in quantiles],
        "histogram": torch.histogram(tested.simulation, edges).hist.int().tolist(),
        "shuffled_line": _round(tested.shuffled.line.mean()),
        "told_apart": _round(told_apart(tested.q_value).float().mean()),
        "reliable": _round(tested.reliable.float().mean()),
    }
    if tested.validation is not None:
        result |= {"chosen_on": _round(tested.validation.mean()), "phrases": tested.sizes}
    return result


def _ahead(ours: Tested, theirs: Tested) -> dict:
    """By how much our mean correlation is larger, on the same draws of images and units."""
    low, high = mean_interval(ours.draws - theirs.draws)
    difference = (ours.simulation - theirs.simulation).mean()
    return {"difference": _round(difference), "interval": [_round(low), _round(high)]}


def _spread(values: Tensor) -> list[float] | None:
    """Quartiles of what could be measured."""
    known = values[values.isfinite()]
    if not len(known):
        return None
    return [_round(q) for q in known.quantile(torch.tensor([0.25, 0.5, 0.75]))]


def _round(value: Tensor | float) -> float:
    return round(float(value), 4)


def _speed() -> float:
    """Floating-point operations a second of this machine, by one product."""
    side = 768
    values = torch.ones(side, side)
    values @ values
    started = time.perf_counter()
    values @ values
    return 2 * side**3 / (time.perf_counter() - started)
