"""`python -m export evaluate`: what a bundle keeps of its model, into `metrics.json` and the card.

`--concepts` and `--segmentation` are modules of their own (`measure(bundle, tower, args)`), loaded
only when asked for.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from dataclasses import replace

from clipneurons.bundle import load_bundle
from export.classify import class_embeddings, heldout_images
from export.entries import Limited
from export.fidelity import fidelity
from export.flags import positive
from export.rewrite import local_folder, open_model, rewrite
from export.settings import DEFAULT_MODEL, Settings, UserError
from export.sources import SCENES

PARTS = {"concepts": "export.evaluate_concepts", "segmentation": "export.evaluate_segmentation"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `evaluate`."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--images", help="images to classify, as in `run` (default: held-out scenes)")
    add("--split", help="of a data set that has splits; of a folder, its subfolder")
    add("--limit", type=positive, help="use the first LIMIT images (default: all)")
    add("--templates", help="prompts of the classes: none, photo, simple (7) or openai (80)"
        " (default: photo for a bundled model, else simple)")  # fmt: skip
    add("--batch", type=positive, default=64, help="images a batch (default: %(default)s)")
    add("--workers", type=positive, default=2, help="decoding threads (default: %(default)s)")
    add("--device", help="default: cuda where there is one, else cpu")
    add(
        "--no-fidelity",
        dest="fidelity",
        action="store_false",
        help="leave these figures as they are",
    )
    # A part may have a flag of the same name, which then is the part's.
    parser.conflict_handler = "resolve"
    for name, module in PARTS.items():
        if importlib.util.find_spec(module):
            add(f"--{name}", action="store_true", help=f"also measure {name}; adds its own flags")
            if f"--{name}" in sys.argv:
                importlib.import_module(module).add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write."""
    folder = local_folder(args.bundle)
    bundle = load_bundle(folder)
    tower = open_model(bundle, folder, args.device)
    metrics = dict(bundle.metrics)
    command = f"python -m export {shlex.join(sys.argv[1:])}"
    if args.fidelity:
        source = _images(args, bundle, tower)
        classifier = class_embeddings(source.class_names, tower, bundle, args.templates)
        metrics["fidelity"] = {"command": command} | fidelity(
            bundle, tower, source, classifier, batch=args.batch, workers=args.workers
        )
    for name, module in PARTS.items():
        if getattr(args, name, False):
            part = importlib.import_module(module)
            if not hasattr(part, "measure"):  # prints and writes its own report
                return part.run(args)
            metrics[name] = {"command": command} | part.measure(bundle, tower, args)
    rewrite(replace(bundle, metrics=metrics), folder)
    print(json.dumps({k: metrics[k] for k in metrics if k != "command"}, indent=1))
    return 0


def _images(args, bundle, tower):
    scenes = bundle.config.data.name == "composed scenes"
    if not args.images and not scenes:
        raise UserError("--images is needed: which images should be classified?")
    settings = Settings(images=args.images or SCENES, split=args.split, limit=args.limit)
    source = heldout_images(settings, tower)
    small = args.limit and args.limit < len(source)
    return Limited(source, args.limit) if small else source
