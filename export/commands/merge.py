"""`python -m export merge`: the shards of a job array become the mean, then the bundle.

1. `export run --shard i/n --out OUT ...` for every i: pass 1
2. `export merge --out OUT`: the mean
3. the same array again: pass 2, from cached scores where they were kept
4. `export merge --out OUT`: the bundle
"""

from __future__ import annotations

import argparse
from pathlib import Path

from export.commands.run import finish, finished_before
from export.common.errors import UserError
from export.common.flags import positive
from export.common.settings import DEFAULT_MODEL, SINGLE, Shard
from export.pipeline.checkpoints import State
from export.pipeline.inputs import open_clip_model, open_images, open_lens
from export.pipeline.passes import MeanPass, merge_means
from export.pipeline.work_folder import Work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `merge`."""
    add = parser.add_argument
    add("--out", type=Path, default=Path(DEFAULT_MODEL), help="as in `run` (default: %(default)s)")
    add("--device", help="default: that of the run")
    add("--workers", type=positive, default=2, help="decoding threads (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Merge what the shards have done so far; says what comes next."""
    work = Work(args.out)
    settings = work.settings()
    if finished_before(work, settings, SINGLE, print):
        return 0
    shards = work.shards()
    clip = open_clip_model(
        settings.model, settings.pretrained, args.device or settings.device, settings.precision
    )
    lens, source = open_lens(clip, settings), open_images(settings, clip)
    total = -(-len(source) // settings.batch)
    with work.lock(Shard(0, len(shards))):
        merged = State.load(work.means, clip.device)
        if merged is None:
            first = [_load(work, s, "pass1", clip.device, total) for s in shards]
            merged = merge_means(first, total)
            merged.save(work.means)
            count = MeanPass.from_state(merged).count
            print(f"the mean over {count:,} images is ready: run every shard again, then merge")
            return 0
        second = [_load(work, s, "pass2", clip.device, total) for s in shards]
        finish(lens, source, settings, work, merged, second, print, args.workers)
    return 0


def _load(work: Work, shard: Shard, name: str, device, total: int) -> State:
    state = State.load(work.shard(shard) / f"{name}.safetensors", device)
    if state is None and name == "pass1":
        raise UserError(f"shard {shard.index} of {shard.count} has not been run")
    done, expected = (state.note["done"] if state else 0), len(shard.numbers(total))
    if done < expected:
        raise UserError(f"{shard.name}: {done} of {expected} batches of {name}: run it again")
    return state
