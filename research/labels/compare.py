"""The bundle's labels beside baselines and controls of the same length, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.labels import EXPLAINS, LayerLabels
from clipneurons.labels.assess import LabelScores, mean_interval, measure_labels
from clipneurons.labels.evidence import Recordings, SharedComponents
from clipneurons.labels.simulation import Labels, pearson, simulate
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError
from export.evaluation.labels.figures import method_figures, rounded
from export.evaluation.labels.measure import LabelImages, layer_slices, of_units
from research.labels.baselines import (
    clip_dissect,
    linear_explanation,
    nearest_texts,
    of_other_units,
    random_texts,
)
from research.labels.cosy import Cosy, CosyScores, GeneratedImages
from research.labels.detection import auc, iou
from research.labels.sanity import sanity
from research.segmentation.metrics import average_precision

OURS, DECOMPOSITION, WHOLE = "ours", "decomposition", "decomposition, all texts"
DISSECT, NEAREST = "CLIP-Dissect", "nearest texts"
LINEAR, UPPER = "linear explanation", "linear explanation, 32 texts"
SHUFFLED, RANDOM = "labels of other units", "random texts"
_UPPER_TEXTS = 32
# Texts that enough and not too many images show, for the check of the metrics.
_CHECKED, _RARE, _OFTEN = 200, 10, 0.5


def compare(
    bundle: Bundle,
    clip: ClipModel,
    images: LabelImages,
    fresh: Recordings | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> dict:
    """Figures of every method over all units, and by how much ours is ahead of each.

    `cosy` has CoSy's AUC and MAD of the same labels; `fresh` has the scores of ours on other
    images than those that called a label reliable.

    Raises:
        UserError: the bundle's labels were not tested.
    """
    if not bundle.labels:
        raise UserError("the bundle has no labels: run python -m export evaluate labels first")
    texts = normalize(bundle.text_embeddings, dim=1)
    generated = GeneratedImages.of(bundle, clip)
    layers: dict[str, list[LabelScores]] = {}
    cosy: dict[str, list[CosyScores]] = {}
    again: list[Tensor] = []
    for layer, units in layer_slices(bundle).items():
        note(f"layer {layer}")
        write, test = of_units(images.write, units), of_units(images.test, units)
        count = len(bundle.metrics["labels"]["layers"][str(layer)]["shared"])
        shared = SharedComponents.of(write.effects, count)
        effects = shared.specific(test.effects)
        if fresh is not None:
            again.append(_scores_on(of_units(fresh, units), shared, bundle.labels[layer]))
        generated_scores = Cosy(generated.specific(units, shared))
        for name, labels in _methods(bundle, layer, write, shared, texts).items():
            layers.setdefault(name, []).append(measure_labels(labels, effects, test.scores))
            cosy.setdefault(name, []).append(generated_scores(labels))
    methods = {name: LabelScores.joined(tested) for name, tested in layers.items()}
    return {
        "methods": {
            name: method_figures(tested)
            | {"layers": [rounded(one.simulation_score.mean()) for one in layers[name]]}
            | {"cosy": CosyScores.joined(cosy[name]).figures()}
            for name, tested in methods.items()
        },
        "ahead_of": {
            name: _ahead(methods[OURS], tested) for name, tested in methods.items() if name != OURS
        },
        "sanity": checked_metrics(images.test.present),
    } | ({"fresh": _fresh(again, bundle, len(fresh))} if fresh is not None else {})


def in_words(found: Mapping) -> str:
    """A line a method, the best first."""
    ranked = sorted(found["methods"].items(), key=lambda pair: -pair[1]["simulation_score"])
    lines = [
        f"labels   {figures['simulation_score']:.3f} ({figures['interval'][0]:.3f} to"
        f" {figures['interval'][1]:.3f}) {name}; layers {figures['layers']};"
        f" reliable {figures['reliable_share']:.1%}; AUC {figures['cosy']['auc']:.3f},"
        f" MAD {figures['cosy']['mad']:.2f} over {figures['cosy']['measured_share']:.0%}"
        for name, figures in ranked
    ]
    if fresh := found.get("fresh"):
        lines.append(
            f"labels   on {fresh['images']:,} images, scenes of another seed among them:"
            f" {fresh['simulation_score']:.3f}; reliable labels"
            f" {fresh['reliable']['simulation_score']:.3f}, of which"
            f" {fresh['reliable']['below_share']:.1%} explain less than {EXPLAINS:.0%}"
        )
    return "\n".join(lines)


def _methods(
    bundle: Bundle, layer: int, write: Recordings, shared: SharedComponents, texts: Tensor
) -> dict[str, Labels]:
    """Labels of a layer's units by every method."""
    arrays, columns = bundle.layers[layer], bundle.labels[layer]
    ours = Labels(columns.indices.long(), columns.coefficients)
    effects, size = shared.specific(write.effects), columns.indices.shape[1]
    decomposition = Labels(arrays.indices.long(), arrays.coefficients)
    return {
        OURS: ours,
        DECOMPOSITION: Labels(
            decomposition.indices[:, :size], decomposition.coefficients[:, :size]
        ),
        WHOLE: decomposition,
        NEAREST: nearest_texts(arrays.directions, texts, size),
        DISSECT: clip_dissect(effects, write.embeddings, texts, size),
        LINEAR: linear_explanation(effects, write.scores, size),
        UPPER: linear_explanation(effects, write.scores, _UPPER_TEXTS),
        SHUFFLED: of_other_units(ours),
        RANDOM: random_texts(len(ours), len(texts), size),
    }


def _scores_on(
    recordings: Recordings, shared: SharedComponents, columns: LayerLabels
) -> Float[Tensor, " unit"]:
    """Simulation scores of a layer's labels on other images."""
    labels = Labels(columns.indices.long(), columns.coefficients)
    return pearson(shared.specific(recordings.effects), simulate(labels, recordings.scores))


def _fresh(layers: list[Tensor], bundle: Bundle, count: int) -> dict:
    """How many reliable labels explain less than is asked of them on other images."""
    scores = torch.cat(layers)
    reliable = torch.cat([columns.reliable for columns in bundle.labels.values()])
    kept = scores[reliable]
    return {
        "images": count,
        "simulation_score": rounded(scores.mean()),
        "reliable": {
            "units": len(kept),
            "simulation_score": rounded(kept.mean()) if len(kept) else 0.0,
            "below_share": rounded((kept < EXPLAINS**0.5).float().mean()) if len(kept) else 0.0,
        },
    }


def _ahead(ours: LabelScores, theirs: LabelScores) -> dict:
    """By how much our mean score is larger, on the same draws of images and units."""
    low, high = mean_interval(ours.draws - theirs.draws)
    difference = (ours.simulation_score - theirs.simulation_score).mean()
    return {"difference": rounded(difference), "interval": [rounded(low), rounded(high)]}


def _auprc(values: Tensor, positive: Tensor) -> Tensor:
    """Average precision of each column."""
    columns = zip(positive.T.numpy(), values.T.numpy(), strict=True)
    return torch.tensor([average_precision(*column) for column in columns])


def checked_metrics(present: Tensor) -> dict:
    """The two checks of the metrics, on units that show a text exactly, and some noise."""
    shown = present.float().sum(0)
    usable = ((shown >= _RARE) & (shown <= _OFTEN * len(present))).nonzero()[:, 0][:_CHECKED]
    if not len(usable):
        return {}
    truth = present[:, usable]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    effects = truth.float() + 0.1 * noise
    metrics = {
        "simulation score": lambda e, y: pearson(e, y.float()),
        "AUPRC": _auprc,
        "IoU": lambda e, y: iou(e > 0.5, y),
        "AUC": auc,
    }
    return {
        name: {
            "missing": rounded(checked.missing),
            "extra": rounded(checked.extra),
            "passed": checked.passed,
        }
        for name, metric in metrics.items()
        if (checked := sanity(metric, effects, truth))
    }
