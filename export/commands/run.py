"""`python -m export run`: from images to a published artifact, the whole analysis of a model."""

from __future__ import annotations

import argparse
from dataclasses import fields

from export.common.flags import add_run_arguments
from export.common.settings import RunOptions, Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`."""
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run to the end, or to the end of this shard; 0 when the bundle or the shard is done."""
    from export.pipeline import run as pipeline

    settings = Settings(**_chosen(args, Settings) | {"layers": tuple(args.layers)})
    pipeline.run(settings, RunOptions(**_chosen(args, RunOptions)))
    return 0


def _chosen(args: argparse.Namespace, options: type) -> dict:
    return {field.name: getattr(args, field.name) for field in fields(options)}
