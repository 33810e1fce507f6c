"""`python -m research features`: bundles of one layer side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from export.common.flags import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `features`."""
    add = parser.add_argument
    add("bundles", nargs="+", metavar="NAME=BUNDLE", help="bundles whose labels were tested, of"
        " neurons or of features, and what to call them")  # fmt: skip
    add("--layer", type=int, required=True, help="the layer that is compared")
    add("--scenes", type=positive, default=300, metavar="N",
        help="scenes with known objects, for recall (default: %(default)s)")  # fmt: skip
    add("--out", type=Path, help="write the figures here, as JSON")
    add("--device", help="default: cuda where there is one, else cpu")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    from clipneurons.bundle.config import write_json
    from export.common.errors import UserError
    from export.pipeline.update_bundle import open_bundle
    from research.features.compare import figures, of_layer, table

    found = {}
    for text in args.bundles:
        name, separator, folder = text.partition("=")
        if not separator:
            raise UserError(f"{text}: expected NAME=BUNDLE, such as neurons=artifacts/mini-vit")
        bundle, clip = open_bundle(folder, args.device)
        try:
            found[name] = figures(of_layer(bundle, args.layer), clip, args.scenes)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
    print(table(found))
    if args.out:
        args.out.write_text(write_json({"layer": args.layer, "scenes": args.scenes, **found}))
    return 0
