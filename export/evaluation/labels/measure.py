"""`python -m export evaluate labels`: write a label for every unit, and test it.

Labels are written on some images and tested on others: by how well what a judge sees on an image
predicts, through the label, the unit's effect there.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.config import DECOMPOSITION, NEURONS
from clipneurons.bundle.folders import file_sha256
from clipneurons.bundle.labels import LayerLabels
from clipneurons.labels.assess import LabelScores, LayerAssessment, assess_layer
from clipneurons.labels.evidence import Recordings, split
from clipneurons.labels.properties import TOP_SHARE, best_concept, monosemanticity, top_weights
from clipneurons.labels.simulation import Labels, pearson, simulate
from clipneurons.models.clip import ClipModel
from clipneurons.stats.centring import without_shared
from export.common.errors import UserError
from export.common.kept_batches import KeptBatches
from export.common.models import open_clip_model
from export.common.settings import LABEL_SCENES
from export.data.dataset import Source, stamps
from export.data.open_source import HELD_OUT, open_source, shipped_spec
from export.evaluation.fidelity import check_bias
from export.evaluation.labels.cost import in_advance
from export.evaluation.labels.figures import figures
from export.evaluation.labels.recordings import TRUTH, ClipJudge, Judge, TruthJudge, record

# Fewer images leave nothing to write on and to test on.
LEAST_IMAGES = 100
# Composed scenes of seeds of their own: no other command has seen them.
_WRITE_SEED, _TEST_SEED = 40_000, 70_000
# Scenes to test on for each that is written on, and the share of a user's images to write on.
_TEST_SCENES, _WRITE = 1 / 6, 0.7


@dataclass(frozen=True, eq=False)
class LabelImages:
    """Recordings to write labels on and to test them on, and where they are from."""

    write: Recordings
    test: Recordings
    write_name: str
    test_name: str
    judge: Judge
    kept: KeptBatches


def measure(
    bundle: Bundle, clip: ClipModel, folder: Path, args: argparse.Namespace
) -> tuple[dict, dict[int, LayerLabels]]:
    """Figures for `metrics.json`, and every unit's label with its scores.

    Raises `UserError` for a judge of the model's own weights, and for fewer than 100 images.
    """
    images = record_images(bundle, clip, folder, args)
    texts = normalize(bundle.text_embeddings, dim=1)
    assessed = {}
    for layer, units in layer_slices(bundle).items():
        print(f"labels   layer {layer}", flush=True)
        assessed[layer] = assess_layer(
            of_units(images.write, units), of_units(images.test, units), texts, args.label_texts
        )
    tested = LabelScores.joined([assessment.tested for assessment in assessed.values()])
    layers = _layer_labels(bundle, assessed, tested, images)
    about = {
        "written_on": {"images": images.write_name, "count": len(images.write)},
        "tested_on": {"images": images.test_name, "count": len(images.test)},
        "judge": images.judge.name,
        "texts": len(bundle.texts),
        "texts_judge_does_not_know": len(images.judge.unknown),
        "label_texts": args.label_texts,
    }
    images.kept.remove()
    return about | figures(tested, assessed, bundle.texts), layers


def layer_slices(bundle: Bundle) -> dict[int, slice]:
    """Where each layer's units are among those of all layers."""
    slices, start = {}, 0
    for layer, arrays in bundle.layers.items():
        slices[layer] = slice(start, start + len(arrays.directions))
        start += len(arrays.directions)
    return slices


def of_units(recordings: Recordings, units: slice) -> Recordings:
    """The recordings of some units."""
    return replace(recordings, effects=recordings.effects[:, units])


def record_images(
    bundle: Bundle, clip: ClipModel, folder: Path, args: argparse.Namespace
) -> LabelImages:
    """Images to write labels on, and others to test them on, as model and judge see them.

    Of a bundle of what ships: scenes of a seed of their own and the photographs that ship, tested
    on scenes of another seed and the photographs that are kept for figures.
    """
    check_bias(bundle)
    sources = _sources(bundle, clip, args)
    count = sum(map(len, sources))
    _check_count(count)
    judges = [_judge(bundle, clip, source, args) for source in sources]
    print(in_advance(bundle, count, judges[0]), flush=True)
    files = [file_sha256(folder / name) for name in (NEURONS, DECOMPOSITION)]
    kept = KeptBatches.beside(
        folder, "labels", files, bundle.config.weights_sha256,
        [(source.name, len(source), stamps(source)) for source in sources], args.images,
        args.split, args.batch, judges[0].name, bundle.texts,
    )  # fmt: skip
    parts = [
        record(bundle, clip, judge, source, kept, args.batch, args.workers, f"{number}-")
        for number, (source, judge) in enumerate(zip(sources, judges, strict=True))
    ]
    _check_count(sum(map(len, parts)))  # many may not be readable
    write, test = parts if len(parts) == 2 else split(parts[0], _WRITE)
    return LabelImages(write, test, sources[0].name, sources[-1].name, judges[0], kept)


def _check_count(images: int) -> None:
    if images < LEAST_IMAGES:
        raise UserError(
            f"labels cannot be tested on {images} images: they are written on some and tested on"
            f" the rest. Give at least {LEAST_IMAGES}, better thousands"
        )


def _sources(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> list[Source]:
    """To write on and to test on; one that will be split where the user names images."""
    side = max(clip.image_size)
    if args.images:
        return [
            open_source(
                args.images,
                split=args.split,
                limit=args.limit,
                seed=_WRITE_SEED,
                image_size=side,
                image_key=args.image_key,
            )
        ]
    # Of what ships it is known what it shows, and no judge is better.
    scenes, name = args.limit or LABEL_SCENES, bundle.config.data.name
    write = shipped_spec(name, scenes)
    if not write:
        raise UserError("--images is needed: on which images should the labels be tested?")
    test = shipped_spec(name, max(LEAST_IMAGES // 2, round(_TEST_SCENES * scenes)), HELD_OUT)
    return [
        open_source(write, seed=_WRITE_SEED, image_size=side),
        open_source(test, seed=_TEST_SEED, image_size=side),
    ]


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


def _layer_labels(
    bundle: Bundle, assessed: dict[int, LayerAssessment], tested: LabelScores, images: LabelImages
) -> dict[int, LayerLabels]:
    """Every unit's label and scores, cut into the bundle's layers."""
    test = images.test
    strong = images.write.effects.topk(max(1, round(TOP_SHARE * len(images.write))), dim=0)
    concept = best_concept(test.effects > strong.values[-1], test.present)
    weights = top_weights(test.effects, max(10, round(TOP_SHARE * len(test))))
    columns = {
        "indices": tested.labels.indices,
        "coefficients": tested.labels.coefficients,
        "simulation_score": tested.simulation_score,
        "simulation_low": tested.limits[0],
        "simulation_high": tested.limits[1],
        "shuffled_line": tested.shuffled.line,
        "q_value": tested.q_value,
        "specificity": tested.specificity,
        "decomposition_score": torch.cat(
            [
                _decomposition_score(bundle, layer, assessment, of_units(test, units))
                for (layer, units), assessment in zip(
                    layer_slices(bundle).items(), assessed.values(), strict=True
                )
            ]
        ),
        "concept": concept.text,
        "concept_iou": concept.iou,
        "monosemanticity": monosemanticity(weights, without_shared(test.judged)),
    }
    return {layer: LayerLabels(**layer_columns) for layer, layer_columns in
            bundle.by_layer(columns).items()}  # fmt: skip


def _decomposition_score(
    bundle: Bundle, layer: int, assessment: LayerAssessment, test: Recordings
) -> torch.Tensor:
    """The simulation score of each direction's decomposition, cut to a label's length."""
    arrays, size = bundle.layers[layer], assessment.tested.labels.indices.shape[1]
    cut = Labels(arrays.indices[:, :size].long(), arrays.coefficients[:, :size])
    return pearson(assessment.shared.specific(test.effects), simulate(cut, test.scores))
