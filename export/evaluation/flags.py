"""What each part of `evaluate` is asked for: its flags, known before PyTorch is loaded."""

from __future__ import annotations

import argparse

from export.common.flags import positive

# Composed scenes that labels are written, chosen and tested on.
LABEL_SCENES = 4000


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
