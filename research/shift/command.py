"""`python -m research shift`: how often a planted shift is noticed and named."""

from __future__ import annotations

import argparse

from export.common.flags import positive
from research.bundle_figures import add_bundle_arguments, measure_into_bundle
from research.shift.power import PowerOptions, in_words, measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `shift`."""
    add_bundle_arguments(parser)
    add, usual = parser.add_argument, PowerOptions()
    add("--runs", type=positive, default=usual.runs, help="runs a cell (default: %(default)s)")
    add("--sizes", type=positive, nargs="+", default=list(usual.sizes), metavar="IMAGES",
        help=f"images a side (default: {' '.join(map(str, usual.sizes))})")  # fmt: skip
    add("--pool", type=positive, default=usual.pool,
        help="usual scenes to draw from (default: %(default)s)")  # fmt: skip
    add("--marks", type=positive, default=usual.marks,
        help="concepts that are planted in turn (default: %(default)s)")  # fmt: skip
    add("--permutations", type=positive, default=usual.permutations,
        help="(default: %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write into the bundle."""
    return measure_into_bundle("shift", args, measure, in_words)
