"""`python -m export merge`: the shards of a job array become the mean, then the bundle.

1. `export run --shard i/n --out OUT ...` for every i: pass 1
2. `export merge --out OUT`: the mean
3. the same array again: pass 2, from cached scores where they were kept
4. `export merge --out OUT`: the bundle
"""

from __future__ import annotations

import argparse
from pathlib import Path

from export.common.flags import positive
from export.common.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `merge`."""
    add = parser.add_argument
    add("--out", type=Path, default=Path(DEFAULT_MODEL), help="as in `run` (default: %(default)s)")
    add("--device", help="default: that of the run")
    add("--workers", type=positive, default=2, help="decoding threads (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Merge what the shards have done so far; says what comes next."""
    from export.pipeline.run import merge_shards

    merge_shards(args.out, args.device, args.workers)
    return 0
