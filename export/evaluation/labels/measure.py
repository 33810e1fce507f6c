"""`python -m export evaluate labels`: how far the words of every unit can be trusted.

Labels are written in several ways on some images, the best way is chosen on others, and all are
tested on the rest: by how well a judge's view of the images, put through the words, predicts what
the unit does there. Rivals and controls are tested alongside.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn.functional import normalize

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.config import DECOMPOSITION as DECOMPOSITION_FILE
from clipneurons.bundle.config import NEURONS
from clipneurons.bundle.folders import file_sha256
from clipneurons.bundle.labels import LayerLabels
from clipneurons.labels.assess import LEAST_IMAGES, Assessment, Parts, assess, split
from clipneurons.labels.simulation import Labels
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError
from export.common.kept_batches import KeptBatches
from export.common.models import open_clip_model
from export.common.settings import LABEL_SCENES
from export.data.open_source import HELD_OUT, open_source, shipped_spec
from export.evaluation.fidelity import check_bias
from export.evaluation.labels.columns import by_layer
from export.evaluation.labels.cost import in_advance
from export.evaluation.labels.figures import figures
from export.evaluation.labels.recordings import TRUTH, ClipJudge, Judge, TruthJudge, record

# Composed scenes of a seed of their own: no other command has seen them.
_SEED = 40_000


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
    layers = by_layer(bundle, found, parts)
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
    return about | figures(found, parts, layers), layers


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


def _source(bundle: Bundle, clip: ClipModel, args: argparse.Namespace):
    # Of what ships it is known what it shows, and no judge is better.
    scenes = args.limit or LABEL_SCENES
    usual = shipped_spec(bundle.config.data.name, scenes, HELD_OUT)
    if not (args.images or usual):
        raise UserError("--images is needed: on which images should the labels be tested?")
    return open_source(
        args.images or usual,
        split=args.split,
        limit=args.limit if args.images else None,
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
