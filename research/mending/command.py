"""`python -m research mending`: a classifier that planted cues mislead, mended by ablation."""

from __future__ import annotations

import argparse

from export.common.flags import positive
from research.bundle_figures import add_bundle_arguments, measure_into_bundle
from research.mending.benchmark import BenchmarkOptions, in_words, measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `mending`."""
    add_bundle_arguments(parser)
    add, usual = parser.add_argument, BenchmarkOptions()
    add("--tasks", type=positive, default=usual.tasks,
        help="pairs of classes of each kind of image (default: %(default)s)")  # fmt: skip
    add("--images", type=positive, default=usual.images,
        help="to find units on, and as many to measure on (default: %(default)s)")  # fmt: skip
    add("--seeds", type=positive, default=usual.seeds, help="(default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write into the bundle."""
    return measure_into_bundle("mending", args, measure, in_words)
