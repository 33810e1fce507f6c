"""`python -m research concepts`: whether the concepts of an image name what it shows."""

from __future__ import annotations

import argparse

from export.common.flags import positive
from research.bundle_figures import add_bundle_arguments, measure_into_bundle
from research.concepts.recall import in_words, measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `concepts`."""
    add_bundle_arguments(parser)
    parser.add_argument(
        "--scenes", type=positive, default=1000, metavar="N",
        help="scenes with known objects (default: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write into the bundle."""
    return measure_into_bundle("concepts", args, measure, in_words)
