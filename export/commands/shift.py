"""`python -m export shift`: compare two sets of images, as JSON and as an HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from export.common.errors import UserError
from export.common.flags import positive
from export.common.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `shift`."""
    add = parser.add_argument
    add("--reference", required=True, help="images as they should be: a folder, tar files, ...")
    add("--new", required=True, help="images to compare with them")
    add("--out", type=Path, required=True, help="folder of report.json and report.html")
    add("--bundle", default=DEFAULT_MODEL, help="folder of the bundle (default: %(default)s)")
    add("--limit", type=positive, help="use the first LIMIT images of each side (default: all)")
    add("--window", type=positive, metavar="IMAGES",
        help="monitor: compare the new images window by window, in order")  # fmt: skip
    add("--watch", nargs="+", default=[], metavar="TEXT", help="monitor: texts to follow")
    add("--level", type=float, default=0.05,
        help="largest p-value that is significant (default: %(default)s)")  # fmt: skip
    add("--permutations", type=positive, default=500, help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="of the permutations (default: %(default)s)")
    add("--batch", type=positive, default=64, help="images a batch (default: %(default)s)")
    add("--workers", type=positive, default=2, help="decoding threads (default: %(default)s)")
    add("--device", help="default: cuda where there is one, else cpu")


def run(args: argparse.Namespace) -> int:
    """Compare, print the summary, write the report."""
    if not all(text.strip() for text in args.watch):
        raise UserError("--watch has an empty text: expected words such as snow")
    from export.shift.compare_images import compare_images

    compare_images(args)
    return 0
