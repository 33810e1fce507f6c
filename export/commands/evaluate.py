"""`python -m export evaluate`: what a bundle keeps of its model, into `metrics.json` and the card.

Each further part is a module of its own with flags, `measure(bundle, model, args)`, and
`in_words(figures)` for the terminal. So is `--labels`, which also gives the labels that the bundle
keeps.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace

from clipneurons.bundle.bundle import load_bundle
from clipneurons.bundle.config import METRICS
from clipneurons.text.embedding import TEMPLATES
from export.common.errors import UserError
from export.common.flags import positive
from export.common.settings import DEFAULT_MODEL, Settings
from export.data.dataset import Limited
from export.data.open_source import shipped_spec
from export.evaluation import (
    concepts,
    labels,
    neuron_head_pairs,
    segmentation,
    semantic_segmentation,
    shift_power,
)
from export.evaluation.fidelity import check_bias, fidelity
from export.evaluation.fidelity_words import in_words
from export.evaluation.zero_shot import class_embeddings
from export.pipeline.inputs import heldout_images
from export.pipeline.update_bundle import local_folder, open_model, rewrite

PARTS = {
    "concepts": concepts,
    "segmentation": segmentation,
    "pairs": neuron_head_pairs,
    "semantic": semantic_segmentation,
    "shift": shift_power,
}
ABOUT = {
    "concepts": "whether a picture's concepts name what it shows",
    "segmentation": "every method on images whose masks are known",
    "pairs": "which neuron-head pairs of a ResNet matter",
    "semantic": "mean IoU over classes",
    "shift": "how often a planted change is seen and named",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `evaluate`."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--images", help="images to classify, as in `run` (default: held-out scenes)")
    add("--split", help="of a data set that has splits; of a folder, its subfolder")
    add("--limit", type=positive, help="use the first LIMIT images (default: all)")
    add("--templates", choices=tuple(TEMPLATES), help="prompts of the classes; simple has 7,"
        " openai 80 (default: photo for a bundled model and for segmentation, else simple)"
    )  # fmt: skip
    add("--batch", type=positive, default=64, help="images a batch (default: %(default)s)")
    add("--workers", type=positive, default=2, help="decoding threads (default: %(default)s)")
    add("--device", help="default: cuda where there is one, else cpu")
    add(
        "--no-fidelity",
        dest="fidelity",
        action="store_false",
        help="leave these figures as they are",
    )
    for name, part in PARTS.items():
        add(f"--{name}", action="store_true", help=f"also measure {ABOUT[name]}")
        part.add_arguments(parser)
    add(
        "--labels", action="store_true", help="also test the words of every unit, and keep the best"
    )
    labels.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write."""
    folder = local_folder(args.bundle)
    bundle = load_bundle(folder)
    if args.fidelity:
        check_bias(bundle)
    clip = open_model(bundle, folder, args.device)
    metrics = dict(bundle.metrics)
    command = f"python -m export {shlex.join(sys.argv[1:])}"
    if args.fidelity:
        source = _images(args, bundle, clip)
        classifier = class_embeddings(source.class_names, clip, bundle, args.templates)
        metrics["fidelity"] = {"command": command} | fidelity(
            bundle, clip, source, classifier, batch=args.batch, workers=args.workers
        )
        print(in_words(metrics["fidelity"]))
    for name, part in PARTS.items():
        if getattr(args, name):
            metrics[name] = {"command": command} | part.measure(bundle, clip, args)
            print(part.in_words(metrics[name]))
    tested = bundle.labels
    if args.labels:
        found, tested = labels.measure(bundle, clip, folder, args)
        metrics["labels"] = {"command": command} | found
        print(labels.in_words(metrics["labels"]))
    rewrite(replace(bundle, metrics=metrics, labels=tested), folder)
    print(f"written to {folder / METRICS} and the card")
    return 0


def _images(args, bundle, clip):
    images = args.images or shipped_spec(bundle.config.data.name)
    if not images:
        raise UserError("--images is needed: which images should be classified?")
    settings = Settings(images=images, split=args.split, limit=args.limit)
    source = heldout_images(settings, clip)
    small = args.limit and args.limit < len(source)
    return Limited(source, args.limit) if small else source
