"""`python -m research COMMAND`: reproduces the papers, compares methods, measures speed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from export.common.command_line import run_command

COMMANDS = {
    "papers": ("research.papers.command", "compare with the figures of the papers"),
    "segmentation": ("research.segmentation.command", "segmentation methods on known masks"),
    "labels": ("research.labels.command", "labels against other ways to write them"),
    "mending": ("research.mending.command", "classifiers with planted cues, mended"),
    "features": ("research.features.command", "neurons, features and random directions compared"),
    "concepts": ("research.concepts.command", "recall of the concepts of images"),
    "shift": ("research.shift.command", "power of the shift monitor on planted shifts"),
    "mini-clip": ("research.mini_clip.command", "train the bundled CLIPs"),
    "benchmark": ("research.benchmarks.command", "measure speed and memory"),
    "figures": ("research.papers.figures_command", "renew the README's table of figures"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake is one line and status 2."""
    return run_command(
        "python -m research", "Reproduce, compare, train, measure.", COMMANDS, arguments
    )


if __name__ == "__main__":
    sys.exit(main())
