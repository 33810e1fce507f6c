"""`python -m export verify`: checksums, schema, shapes, finite values, and the model."""

from __future__ import annotations

import argparse

from export.common.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `verify`."""
    add = parser.add_argument
    add("bundle", nargs="?", default=DEFAULT_MODEL,
        help="folder, or user/name[@revision] on the Hub (default: %(default)s)")  # fmt: skip
    add("--no-model", action="store_true", help="do not load the model to compare it")
    add("--device", help="default: cuda where there is one, else cpu")


def run(args: argparse.Namespace) -> int:
    """0 when everything is as it should be; a message and 2 otherwise."""
    from clipneurons.bundle.bundle import load_bundle
    from export.pipeline.update_bundle import open_model

    bundle = load_bundle(args.bundle)
    units = sum(len(a.directions) for a in bundle.layers.values())
    print(f"checksums, schema, shapes and values of {units:,} units are as exported")
    if not args.no_model:
        open_model(bundle, args.bundle, args.device)
        print("weights, activation and preprocessing are the model's")
    return 0
