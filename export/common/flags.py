"""Flags that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
from dataclasses import fields

from export.common.settings import Settings


def add_text_arguments(group, of_bundle: bool = False) -> None:
    """The flags that `run` and `decompose` share; what is not given is None `of_bundle`."""
    d = {f.name: None if of_bundle else f.default for f in fields(Settings)}
    pool = "the bundle's" if of_bundle else "vocabulary for bundled models, else common-30k"
    group.add_argument("--texts", help="common-10k, common-30k, imagenet-descriptions, vocabulary"
        f" (the bundled models' captions), or a file with one text a line (default: {pool})"
    )  # fmt: skip
    group.add_argument("--components", type=positive, default=d["components"],
        help=f"texts a unit (default: {d['components'] or 'as in the bundle'})")  # fmt: skip
    group.add_argument("--centred-pool", action=argparse.BooleanOptionalAction,
        default=d["centred_pool"], help="subtract the pool's mean from the text embeddings"
        + " (default: as in the bundle)" * of_bundle)  # fmt: skip


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return value


def natural(text: str) -> int:
    """A whole number of at least 0."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 0")
    return value
