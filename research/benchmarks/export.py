"""`python -m research benchmark export`: the export's pipeline against the bare forward pass.

Images a second of both passes (scores cached) over a loader, against `encode_image` over the same
loader, alternated; and peak memory at two data set sizes, each in a process of its own. Of few
images a round would be mostly beginning: at first every effect is among a unit's largest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from export.common.settings import Settings
from export.data.dataset_sources import SequenceSource
from export.data.loader import batches
from export.pipeline.passes import Passes, merge_means
from research.benchmarks.timing import measure, peak_memory, ratio

# The goals this is held to.
RATIO = 0.90


class Noise:
    """Synthetic pictures, the same for the same number."""

    def __init__(self, count: int, side: int) -> None:
        self.count, self.side = count, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        pixels = np.random.default_rng(i).integers(0, 256, (self.side, self.side, 3), np.uint8)
        return Image.fromarray(pixels), 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and say whether the goals are met."""
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark export", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", default="ViT-B-32", help="open_clip name (%(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 9, 10])
    parser.add_argument("--images", type=int, default=640, help="a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="*", default=[500, 2000],
        help="numbers of images at which peak memory is taken (%(default)s)")  # fmt: skip
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    flags = sys.argv[1:] if arguments is None else arguments
    args = parser.parse_args(flags)
    torch.set_num_threads(args.threads)
    lens = Lens(load_clip(args.model, "random", device="cpu"), args.layers)
    if args.peak:
        pipeline(lens, args.peak, args.batch)
        print(peak_memory())
        return
    tasks = {
        "bare": lambda: bare(lens, args.images, args.batch),
        "pipeline": lambda: pipeline(lens, args.images, args.batch),
    }
    times = measure(tasks, args.rounds)
    # Of rates: how much of the bare pass's speed is left.
    median, low, high = ratio(times.wall, "bare", "pipeline")
    result = {
        "model": args.model,
        "layers": args.layers,
        "threads": args.threads,
        **{f"{k}, images/s": [round(args.images / t, 2) for t in v] for k, v in times.wall.items()},
        "ratio": [round(r, 3) for r in (median, low, high)],
        "ratio of CPU time": [round(r, 3) for r in ratio(times.cpu, "bare", "pipeline")],
        f"ratio of {RATIO} reached": median >= RATIO,
    }
    for count in args.memory:
        command = [
            sys.executable,
            "-m",
            "research",
            "benchmark",
            "export",
            *flags,
            "--peak",
            str(count),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result[f"peak memory at {count} images, GB"] = round(float(done.stdout.split()[-1]), 3)
    print(json.dumps(result, indent=1))


def bare(lens: Lens, count: int, size: int) -> None:
    """`encode_image` over the loader."""
    clip = lens.clip
    source = SequenceSource(Noise(count, max(clip.image_size)), "noise")
    for batch in batches(source, clip.preprocess, range(-(-count // size)), size, 2):
        clip.encode_image(batch.images)


def pipeline(lens: Lens, count: int, size: int) -> None:
    """Both passes over the loader, checkpoints and cached scores included."""
    source = SequenceSource(Noise(count, max(lens.clip.image_size)), "noise")
    settings = Settings(batch=size, top_k=100)
    with tempfile.TemporaryDirectory() as folder:
        passes = Passes(lens, source, settings, Path(folder), workers=2)
        passes.effects(merge_means([passes.means()], passes.total))
