"""`python -m export refresh-card`: take a changed MODEL.md into the card and the checksums.

Everything else must be as exported, and the model the one the bundle was made with.
"""

from __future__ import annotations

import argparse

from clipneurons.bundle.config import CARD, MODEL_FILES
from export.common.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `refresh-card`."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--opening", action="store_true",
        help="also compute anew what the page shows before its model is loaded: its examples, and "
        "each unit's weaker images")  # fmt: skip
    add("--map", action="store_true", help="also draw the map of all units anew")
    add("--device", help="default: cuda where there is one, else cpu")


def run(args: argparse.Namespace) -> int:
    """Check the rest, render, save."""
    from clipneurons.bundle.bundle import read_bundle
    from clipneurons.lens.lens import Lens
    from export.common.lock import changing
    from export.pipeline.opening import with_opening
    from export.pipeline.unit_map import with_map
    from export.pipeline.update_bundle import local_folder, open_model, rewrite

    folder = local_folder(args.bundle)
    with changing(folder):
        bundle = read_bundle(folder, (CARD, *MODEL_FILES))
        clip = open_model(bundle, folder, args.device)
        if args.opening:
            bundle = with_opening(bundle, Lens.of_bundle(clip, bundle))
        if args.map:
            bundle = with_map(bundle)
        rewrite(bundle, folder)
    print(f"{folder}: card and checksums renewed")
    return 0
