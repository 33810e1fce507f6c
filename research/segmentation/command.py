"""`python -m research segmentation objects|semantic|presence`, on images with known masks."""

from __future__ import annotations

import argparse

from clipneurons.segmentation.presence import PRESENCE
from export.common.flags import natural, positive
from research.bundle_figures import add_bundle_arguments, measure_into_bundle
from research.segmentation import objects, presence, semantic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the three tasks."""
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    objects = tasks.add_parser("objects", help="one text an image, its object's mask")
    semantic = tasks.add_parser("semantic", help="a class for every pixel")
    presence = tasks.add_parser("presence", help="the line from which a name counts as found")
    for task in (objects, semantic, presence):
        add_bundle_arguments(task)
        task.add_argument("--seed", type=int, default=0)
    for task in (objects, semantic):
        task.add_argument("--methods", help="names, separated by commas (default: all)")
    presence.add_argument("--images", type=positive, default=150, metavar="N",
        help="images of each kind (default: %(default)s)")  # fmt: skip
    add = objects.add_argument
    add(
        "--dataset", default="scenes", metavar="DATA",
        help="scenes, photographs (cut onto others), gtsegs_ijcv.mat (ImageNet-Segmentation), a"
        " COCO .json, or a folder of <class>/<image>.jpg with masks <class>/<image>.png"
        " (default: scenes)",
    )  # fmt: skip
    add("--count", type=positive, help="images at most (default: 1000 made here, or all)")
    add("--styles", choices=("heldout", "validation"), default="heldout")
    add("--pictures", metavar="FOLDER", help="where a COCO file's images are")
    add("--masks", metavar="FOLDER", help="where a panoptic file's PNGs are")
    add(
        "--choose", type=natural, default=30, metavar="N",
        help="validation images on which settings are chosen; 0 keeps the defaults",
    )  # fmt: skip
    add("--report", metavar="FILE", help="write the figures as JSON")
    add = semantic.add_argument
    add(
        "--dataset", default="scenes", metavar="DATA",
        help="scenes (held out), photographs (held out, cut onto others), or a folder with"
        " names.txt, images/ and masks/ (default: scenes)",
    )  # fmt: skip
    add("--images", type=positive, default=200, metavar="N",
        help="images to measure on (default: %(default)s)")  # fmt: skip
    add("--choose", type=positive, default=30, metavar="N",
        help="validation images to choose settings on (default: %(default)s)")  # fmt: skip
    add("--classes", type=positive, default=20, metavar="N",
        help="classes of what is made here, chosen by chance (default: %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write into the bundle."""
    if args.task == "presence":
        return measure_into_bundle(PRESENCE, args, presence.measure, presence.in_words)
    if args.task == "semantic":
        return measure_into_bundle("semantic", args, semantic.measure, semantic.in_words)
    return measure_into_bundle("segmentation", args, objects.measure, objects.in_words)
