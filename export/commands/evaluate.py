"""`python -m export evaluate`: what a bundle keeps of its model, into `metrics.json`."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace

from clipneurons.text.templates import TEMPLATES
from export.common.errors import UserError
from export.common.flags import positive
from export.common.settings import DEFAULT_MODEL, Settings
from export.evaluation import flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `evaluate`."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--images", help="images to classify, as in `run` (default: held-out scenes)")
    add("--split", help="of a data set that has splits; of a folder, its subfolder")
    add("--limit", type=positive, help="use the first LIMIT images (default: all)")
    add("--templates", choices=tuple(TEMPLATES), help="prompts of the classes; simple has 7,"
        " openai 80 (default: photo for a bundled model and for segmentation, siglip for a"
        " SigLIP, else simple)"
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
    add(
        "--labels", action="store_true", help="also test the words of every unit, and keep the best"
    )
    flags.labels(parser)
    add("--cues", action="store_true", help="also read pictures of every phrase that can be drawn,"
        " and keep what the units do: cues for adversarial pictures"
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write."""
    from clipneurons.bundle.bundle import load_bundle
    from clipneurons.bundle.config import METRICS
    from export.evaluation import cues
    from export.evaluation.fidelity import check_bias, fidelity
    from export.evaluation.fidelity_words import in_words
    from export.evaluation.labels import figures as label_figures
    from export.evaluation.labels import measure as labels
    from export.evaluation.zero_shot import class_embeddings, templates_of
    from export.pipeline.update_bundle import local_folder, open_model, rewrite

    folder = local_folder(args.bundle)
    bundle = load_bundle(folder)
    if args.fidelity:
        check_bias(bundle)
    clip = open_model(bundle, folder, args.device)
    metrics = dict(bundle.metrics)
    command = f"python -m export {shlex.join(sys.argv[1:])}"
    if args.fidelity:
        source = _images(args, bundle, clip)
        templates = templates_of(source.class_names, clip, bundle, args.templates)
        classifier = class_embeddings(source.class_names, clip, bundle, templates)
        metrics["fidelity"] = {"command": command, "templates": templates} | fidelity(
            bundle, clip, source, classifier, batch=args.batch, workers=args.workers
        )
        print(in_words(metrics["fidelity"]))
    if args.labels:
        found, tested = labels.measure(bundle, clip, folder, args)
        bundle = replace(bundle, labels=tested)
        metrics["labels"] = {"command": command} | found
        print(label_figures.in_words(metrics["labels"]))
    if args.cues:
        found, recordings = cues.measure(bundle, clip)
        bundle = replace(bundle, cues=recordings)
        metrics["cues"] = {"command": command} | found
        print(cues.in_words(metrics["cues"]))
    rewrite(replace(bundle, metrics=metrics), folder)
    print(f"written to {folder / METRICS} and the card")
    return 0


def _images(args, bundle, clip):
    from export.data.dataset import Limited
    from export.data.open_source import shipped_spec
    from export.pipeline.inputs import heldout_images

    images = args.images or shipped_spec(bundle.config.data.name)
    if not images:
        raise UserError("--images is needed: which images should be classified?")
    settings = Settings(images=images, split=args.split, limit=args.limit)
    source = heldout_images(settings, clip)
    small = args.limit and args.limit < len(source)
    return Limited(source, args.limit) if small else source
