"""`python -m export labels`: a bundle's labels in the files of other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from export.common.errors import UserError

FORMATS = ("csv", "clip-dissect", "cosy", "neuronpedia")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `labels`."""
    add = parser.add_argument
    add("bundle", help="folder, or user/name[@revision] on the Hub")
    add("out", type=Path, help="a new file for csv, else a new folder")
    add("--to", required=True, choices=FORMATS, help="csv: layer, unit,"
        " description, similarity; clip-dissect and cosy: the same in their folders; neuronpedia:"
        " a folder to import")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the labels, and say how many."""
    from clipneurons.bundle.bundle import load_bundle
    from export.exchange.label_table import (
        descriptions_of,
        write_clip_dissect,
        write_cosy,
        write_table,
    )
    from export.exchange.neuronpedia import write_neuronpedia

    if args.out.exists():
        raise UserError(f"{args.out} exists already: choose a new name")
    bundle = load_bundle(args.bundle)
    rows = descriptions_of(bundle)
    if args.to == "csv":
        write_table(rows, args.out)
    else:
        writers = {
            "clip-dissect": write_clip_dissect, "cosy": write_cosy,
            "neuronpedia": write_neuronpedia,
        }  # fmt: skip
        writers[args.to](bundle, args.out)
    units = sum(len(arrays.directions) for arrays in bundle.layers.values())
    print(f"descriptions of {len(rows):,} of {units:,} {bundle.config.noun}s in {args.out}")
    return 0
