"""`python -m research labels`: the bundle's labels against other ways to write them."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace

from export.commands.evaluate import label_flags
from export.common.settings import DEFAULT_MODEL

# Scenes of a seed that no other command has, and the held-out photographs: whether what is called
# reliable is so again.
FRESH, FRESH_SEED = 2000, 130_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `labels`: those of `export evaluate labels`, for the same images."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--device", help="default: cuda where there is one, else cpu")
    label_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write the figures into `metrics.json`."""
    from clipneurons.bundle.bundle import load_bundle
    from export.data.open_source import HELD_OUT, open_source, shipped_spec
    from export.evaluation.labels.measure import record_images
    from export.evaluation.labels.recordings import TruthJudge, record
    from export.pipeline.update_bundle import local_folder, open_model, rewrite
    from research.labels.compare import compare, in_words

    folder = local_folder(args.bundle)
    bundle = load_bundle(folder)
    clip = open_model(bundle, folder, args.device)
    images = record_images(bundle, clip, folder, args)
    fresh = None
    if not args.images:
        spec = shipped_spec(bundle.config.data.name, FRESH, HELD_OUT)
        source = open_source(spec, seed=FRESH_SEED, image_size=max(clip.image_size))
        judge = TruthJudge(source, bundle.texts)
        fresh = record(
            bundle, clip, judge, source, images.kept, args.batch, args.workers, "fresh-"
        )  # fmt: skip
    found = compare(
        bundle, clip, images, fresh, note=lambda text: print(f"labels   {text}", flush=True)
    )
    print(in_words(found))
    figures = {"command": f"python -m research {shlex.join(sys.argv[1:])}"} | found
    rewrite(replace(bundle, metrics=bundle.metrics | {"label_comparison": figures}), folder)
    images.kept.remove()
    return 0
