"""What each part of `evaluate` is asked for: its flags, known before PyTorch is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from export.common.flags import natural, positive


def concepts(parser: argparse.ArgumentParser) -> None:
    """How many scenes to measure on."""
    parser.add_argument(
        "--concept-scenes", type=positive, default=1000, metavar="N",
        help="scenes with known objects (default: %(default)s)",
    )  # fmt: skip


def window_scale(text: str) -> float:
    """How many windows across."""
    value = float(text)
    if not 1 <= value <= 8:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 8, not {text}")
    return value


def segmentation(parser: argparse.ArgumentParser) -> None:
    """Arguments of the evaluation, beside the bundle."""
    group = parser.add_argument_group("segmentation")
    group.add_argument(
        "--dataset", default="scenes", metavar="DATA",
        help="scenes, photographs (cut onto others), gtsegs_ijcv.mat (ImageNet-Segmentation), a"
        " COCO .json, or a folder of <class>/<image>.jpg with masks <class>/<image>.png"
        " (default: scenes)",
    )  # fmt: skip
    group.add_argument(
        "--count", type=positive, help="images at most (default: 1000 made here, or all)"
    )
    group.add_argument("--styles", choices=("heldout", "validation"), default="heldout")
    group.add_argument("--pictures", metavar="FOLDER", help="where a COCO file's images are")
    group.add_argument("--masks", metavar="FOLDER", help="where a panoptic file's PNGs are")
    group.add_argument("--methods", help="names, separated by commas (default: all)")
    group.add_argument(
        "--choose", type=natural, default=150, metavar="N",
        help="validation scenes on which thresholds are chosen; 0 keeps the papers' own",
    )  # fmt: skip
    group.add_argument(
        "--refined", action="store_true", help="also every method with our edge refinement"
    )
    group.add_argument(
        "--windows", type=window_scale, nargs="+", default=[], metavar="SCALE",
        help="also every method in overlapping windows, this many across an image's shorter side",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--report", metavar="FILE", help="write the figures as JSON")


def pairs(parser: argparse.ArgumentParser) -> None:
    """How many scenes to measure on."""
    parser.add_argument(
        "--pair-scenes", type=positive, default=500, metavar="N",
        help="scenes of one object (default: %(default)s)",
    )  # fmt: skip


def semantic(parser: argparse.ArgumentParser) -> None:
    """What to measure on; --methods and --seed are those of --segmentation."""
    group = parser.add_argument_group("semantic segmentation")
    group.add_argument(
        "--semantic-dataset", default="scenes", metavar="DATA",
        help="scenes (held out), photographs (held out, cut onto others), or a folder with"
        " names.txt, images/ and masks/ (default: scenes)",
    )  # fmt: skip
    group.add_argument(
        "--semantic-images", type=positive, default=200, metavar="N",
        help="images to measure on (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--semantic-choose", type=positive, default=100, metavar="N",
        help="validation images to choose settings on (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--semantic-classes", type=positive, default=20, metavar="N",
        help="classes of what is made here, chosen by chance (default: %(default)s)",
    )  # fmt: skip


# Composed scenes that labels are written, chosen and tested on.
LABEL_SCENES = 4000


@dataclass(frozen=True)
class PowerOptions:
    """How long to measure: runs a cell, images a side, usual scenes to draw from, concepts that
    are planted in turn, and permutations of a test."""

    runs: int = 40
    sizes: Sequence[int] = (50, 200, 1000)
    pool: int = 3000
    marks: int = 20
    permutations: int = 200


def shift(parser: argparse.ArgumentParser) -> None:
    """Flags of the measurement."""
    add, usual = parser.add_argument_group("shift").add_argument, PowerOptions()
    add("--shift-runs", type=positive, default=usual.runs,
        help="runs a cell (default: %(default)s)")  # fmt: skip
    add("--shift-sizes", type=positive, nargs="+", default=list(usual.sizes), metavar="IMAGES",
        help=f"images a side (default: {' '.join(map(str, usual.sizes))})")  # fmt: skip
    add("--shift-pool", type=positive, default=usual.pool,
        help="usual scenes to draw from (default: %(default)s)")  # fmt: skip
    add("--shift-marks", type=positive, default=usual.marks,
        help="concepts that are planted in turn (default: %(default)s)")  # fmt: skip
    add("--shift-permutations", type=positive, default=usual.permutations,
        help="(default: %(default)s)")  # fmt: skip


def labels(parser: argparse.ArgumentParser) -> None:
    """Who judges, and on how many images."""
    add = parser.add_argument
    add("--judge", help="who says what an image shows: truth (default for what ships), a folder"
        " with another CLIP, or an open_clip name with --judge-pretrained")  # fmt: skip
    add("--judge-pretrained", metavar="TAG", help="weights of a judge that is an open_clip name")
    add("--allow-circular", action="store_true",
        help="let a model judge its own labels")  # fmt: skip
    add("--label-images", type=positive, metavar="N",
        help=f"images for labels, at least 100 (default: all; scenes {LABEL_SCENES}, beside the"
        " photographs that are kept for figures)",
    )  # fmt: skip
