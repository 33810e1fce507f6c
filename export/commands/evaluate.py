"""`python -m export evaluate fidelity|labels|cues`: what a bundle keeps of its model, measured.

The figures go into `metrics.json` and the model card; labels and cues also into the bundle.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from clipneurons.text.templates import TEMPLATES
from export.common.errors import UserError
from export.common.flags import positive
from export.common.lock import changing
from export.common.settings import DEFAULT_MODEL, LABEL_SCENES, Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The three parts of `evaluate`, each with its own flags."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, about, add_flags, measure in (
        ("fidelity", "classify images with the effects of each layer replaced", _fidelity_flags,
         _fidelity),
        ("labels", "write a label for every unit, and test it", _label_flags,
         _labels),
        ("cues", "read images of every text that can be drawn, and keep the effects", None, _cues),
    ):  # fmt: skip
        part = parts.add_parser(name, help=about, description=about)
        add = part.add_argument
        add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
        add("--device", help="default: cuda where there is one, else cpu")
        if add_flags:
            add_flags(part)
        part.set_defaults(measure=measure)


def run(args: argparse.Namespace) -> int:
    """Measure one part, print it, and write it into the bundle."""
    from clipneurons.bundle.bundle import load_bundle
    from clipneurons.bundle.config import METRICS
    from export.pipeline.update_bundle import local_folder, rewrite

    folder = local_folder(args.bundle)
    if getattr(args, "against", None):
        return _against(load_bundle(folder), folder, args)
    with changing(folder):
        bundle, figures, lines = args.measure(load_bundle(folder), folder, args)
        command = f"python -m export {shlex.join(sys.argv[1:])}"
        metrics = dict(bundle.metrics) | {args.part: {"command": command} | figures}
        print(lines)
        rewrite(replace(bundle, metrics=metrics), folder)
    print(f"written to {folder / METRICS} and the card")
    return 0


def _against(bundle, folder, args: argparse.Namespace) -> int:
    """Print how somebody else's labels do beside the bundle's, which stays as it is."""
    from export.exchange.against import compare_labels
    from export.pipeline.update_bundle import open_model

    compared = compare_labels(bundle, open_model(bundle, folder, args.device), folder, args)
    path = args.against.with_name(f"{args.against.stem}-scores.csv")
    compared.write(path)
    print(compared.in_words())
    print(f"written to {path}")
    return 0


def _image_flags(parser: argparse.ArgumentParser, images: str, limit: str) -> None:
    add = parser.add_argument
    add("--images", help=f"as in `run` (default: {images})")
    add("--split", help="of a data set that has splits; of a folder, its subfolder")
    add("--limit", type=positive, help=limit)
    add("--image-key", metavar="EXTENSION", help="of tar files, as in `run`")
    add("--batch", type=positive, default=64, help="images a batch (default: %(default)s)")
    add("--workers", type=positive, default=2, help="decoding threads (default: %(default)s)")


def _fidelity_flags(parser: argparse.ArgumentParser) -> None:
    _image_flags(parser, "held-out scenes", "use the first LIMIT images (default: all)")
    parser.add_argument("--templates", choices=tuple(TEMPLATES), help="prompts of the classes;"
        " simple has 7, openai 80 (default: photo for a bundled model, siglip for a SigLIP, else"
        " simple)")  # fmt: skip


def _label_flags(parser: argparse.ArgumentParser) -> None:
    label_flags(parser)
    parser.add_argument("--against", type=Path, metavar="CSV", help="test these labels beside the"
        " bundle's, which stays as it is: columns layer,unit,description")  # fmt: skip


def label_flags(parser: argparse.ArgumentParser) -> None:
    """How labels are written and tested."""
    _image_flags(
        parser, "scenes and photographs that the bundle did not see",
        f"images, at least 100 (default: all; {LABEL_SCENES:,} scenes to write on, and a sixth as"
        " many to test on)",
    )  # fmt: skip
    add = parser.add_argument
    add("--judge", help="who says what an image shows: truth (default for what ships), a folder"
        " with another CLIP, or an open_clip name with --judge-pretrained")  # fmt: skip
    add("--judge-pretrained", metavar="TAG", help="weights of a judge that is an open_clip name")
    add("--allow-circular", action="store_true", help="let a model judge its own labels")
    add("--label-texts", type=int, choices=range(1, 6), default=3, metavar="1..5",
        help="the most texts of a label (default: %(default)s)")  # fmt: skip


def _fidelity(bundle, folder, args: argparse.Namespace) -> tuple:
    """The bundle as it is, its figures, and these in words."""
    from export.evaluation.fidelity import check_bias, fidelity, in_words
    from export.evaluation.zero_shot import class_embeddings, templates_of
    from export.pipeline.update_bundle import open_model

    check_bias(bundle)
    clip = open_model(bundle, folder, args.device)
    source = _heldout(bundle, clip, args)
    templates = templates_of(source.class_names, clip, bundle, args.templates)
    classifier = class_embeddings(source.class_names, clip, bundle, templates)
    figures = {"templates": templates} | fidelity(
        bundle, clip, source, classifier, batch=args.batch, workers=args.workers
    )
    return bundle, figures, in_words(figures)


def _heldout(bundle, clip, args: argparse.Namespace):
    from export.data.dataset import Limited
    from export.data.open_source import shipped_spec
    from export.pipeline.inputs import heldout_images

    images = args.images or shipped_spec(bundle.config.data.name)
    if not images:
        raise UserError("--images is needed: which images should be classified?")
    asked = Settings(images=images, split=args.split, limit=args.limit, image_key=args.image_key)
    source = heldout_images(asked, clip)
    return Limited(source, args.limit) if args.limit and args.limit < len(source) else source


def _labels(bundle, folder, args: argparse.Namespace) -> tuple:
    """The bundle with tested labels, their figures, and these in words."""
    from export.evaluation.labels.figures import in_words
    from export.evaluation.labels.measure import measure
    from export.pipeline.update_bundle import open_model

    figures, labels = measure(bundle, open_model(bundle, folder, args.device), folder, args)
    return replace(bundle, labels=labels), figures, in_words(figures)


def _cues(bundle, folder, args: argparse.Namespace) -> tuple:
    """The bundle with recorded cues, how many, and this in words."""
    from export.evaluation.cues import in_words, measure
    from export.pipeline.update_bundle import open_model

    figures, recordings = measure(bundle, open_model(bundle, folder, args.device))
    return replace(bundle, cues=recordings), figures, in_words(figures)
