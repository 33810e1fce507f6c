"""`python -m export train-features`: a dictionary of sparse features of one layer."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from export.common.flags import natural, positive
from export.common.settings import DEFAULT_MODEL, Settings

KINDS = ("topk", "transcoder")
SITES = ("resid_pre", "resid_mid", "resid_post", "mlp_out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `train-features`."""
    add, d = parser.add_argument, {f.name: f.default for f in fields(Settings)}
    add("--model", default=DEFAULT_MODEL, help="as of `run` (default: %(default)s)")
    add("--pretrained", help="open_clip tag or weights file of a named model")
    add("--device", help="default: cuda where there is one, else cpu")
    add("--layer", type=int, required=True, help="block, from 0; 4 for a ResNet's last stage")
    add("--kind", default=KINDS[0], choices=KINDS, help="a TopK autoencoder of the stream, or a"
        " TopK transcoder from the MLP's input to its output (default: %(default)s)")  # fmt: skip
    add("--site", default="resid_post", choices=SITES,
        help="of an autoencoder of a ViT (default: %(default)s)")  # fmt: skip
    add("--tokens", default="all", choices=("all", "patches", "class"),
        help="that it describes (default: %(default)s)")  # fmt: skip
    add("--latents", type=positive, help="default: 8 a number of the token's width")
    add("--k", type=positive, default=16, help="latents a token (default: %(default)s)")
    add("--steps", type=natural, default=1000, help="0 for random directions, as a control"
        " (default: %(default)s)")  # fmt: skip
    add("--batch", type=positive, default=2048, help="tokens a step (default: %(default)s)")
    add("--rate", type=float, default=2e-3, help="learning rate (default: %(default)s)")
    add("--images", default=d["images"], help="as of `run` (default: %(default)s)")
    add("--limit", type=positive, help="use the first LIMIT images (default: all)")
    add("--seed", type=int, default=0, help="of weights, batches and scenes (default: %(default)s)")
    add("--workers", type=positive, default=2, help="threads that decode (default: %(default)s)")
    add("--out", type=Path, help="folder of the dictionary (default: features/MODEL-LAYER-KIND)")
    add("--restart", action="store_true", help="discard an unfinished training, or a finished one")
    add("--dry-run", action="store_true", help="print the plan and stop")


def run(args: argparse.Namespace) -> int:
    """Train, or go on with, a dictionary, and write it."""
    from export.features.command import train_features

    return train_features(args)
