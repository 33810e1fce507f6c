"""Figures of one bundle that a comparison measures and keeps in its `metrics.json`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace

from clipneurons.bundle.bundle import Bundle, load_bundle
from clipneurons.bundle.config import METRICS
from clipneurons.models.clip import ClipModel
from clipneurons.text.templates import TEMPLATES
from export.common.settings import DEFAULT_MODEL
from export.pipeline.update_bundle import local_folder, open_model, rewrite


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of every comparison: the bundle, its prompts and the device."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--templates", choices=tuple(TEMPLATES), help="prompts of the classes (default: photo)")
    add("--device", help="default: cuda where there is one, else cpu")


def measure_into_bundle(
    name: str,
    args: argparse.Namespace,
    measure: Callable[[Bundle, ClipModel, argparse.Namespace], dict],
    in_words: Callable[[dict], str],
) -> int:
    """Measure, print, and write the figures into `metrics.json` under ``name``."""
    folder = local_folder(args.bundle)
    bundle = load_bundle(folder)
    command = f"python -m research {shlex.join(sys.argv[1:])}"
    figures = {"command": command} | measure(bundle, open_model(bundle, folder, args.device), args)
    print(in_words(figures))
    rewrite(replace(bundle, metrics=dict(bundle.metrics) | {name: figures}), folder)
    print(f"written to {folder / METRICS} and the card")
    return 0
