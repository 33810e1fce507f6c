"""`python -m export evaluate`: what a bundle keeps of its model, into `metrics.json` and the card.

`--concepts` and `--segmentation` are modules of their own, each with flags, `measure(bundle,
tower, args)`, and `in_words(figures)` for the terminal.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace

from clipneurons.bundle import load_bundle
from clipneurons.bundle_config import METRICS
from clipneurons.text import TEMPLATES
from export import evaluate_concepts, evaluate_segmentation
from export.classify import class_embeddings, heldout_images
from export.entries import Limited
from export.fidelity import check_bias, fidelity, in_words
from export.flags import positive
from export.rewrite import local_folder, open_model, rewrite
from export.settings import DEFAULT_MODEL, Settings, UserError
from export.sources import SCENES

PARTS = {"concepts": evaluate_concepts, "segmentation": evaluate_segmentation}


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
        add(f"--{name}", action="store_true", help=f"also measure {name}")
        part.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write."""
    folder = local_folder(args.bundle)
    bundle = load_bundle(folder)
    if args.fidelity:
        check_bias(bundle)
    tower = open_model(bundle, folder, args.device)
    metrics = dict(bundle.metrics)
    command = f"python -m export {shlex.join(sys.argv[1:])}"
    if args.fidelity:
        source = _images(args, bundle, tower)
        classifier = class_embeddings(source.class_names, tower, bundle, args.templates)
        metrics["fidelity"] = {"command": command} | fidelity(
            bundle, tower, source, classifier, batch=args.batch, workers=args.workers
        )
        print(in_words(metrics["fidelity"]))
    for name, part in PARTS.items():
        if getattr(args, name):
            metrics[name] = {"command": command} | part.measure(bundle, tower, args)
            print(part.in_words(metrics[name]))
    rewrite(replace(bundle, metrics=metrics), folder)
    print(f"written to {folder / METRICS} and the card")
    return 0


def _images(args, bundle, tower):
    scenes = bundle.config.data.name == "composed scenes"
    if not args.images and not scenes:
        raise UserError("--images is needed: which images should be classified?")
    settings = Settings(images=args.images or SCENES, split=args.split, limit=args.limit)
    source = heldout_images(settings, tower)
    small = args.limit and args.limit < len(source)
    return Limited(source, args.limit) if small else source
