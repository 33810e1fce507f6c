"""`python -m export reseal`: take a changed MODEL.md into the card and the checksums.

Everything else must be as exported, and the model the one the bundle was made with.
"""

from __future__ import annotations

import argparse

from clipneurons.bundle import read_bundle
from clipneurons.bundle_config import CARD, MODEL_FILES
from export.rewrite import local_folder, open_model, rewrite
from export.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `reseal`."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--device", help="default: cuda where there is one, else cpu")


def run(args: argparse.Namespace) -> int:
    """Check the rest, render, save."""
    folder = local_folder(args.bundle)
    bundle = read_bundle(folder, (CARD, *MODEL_FILES))
    open_model(bundle, folder, args.device)
    rewrite(bundle, folder)
    print(f"{folder}: card and checksums renewed")
    return 0
