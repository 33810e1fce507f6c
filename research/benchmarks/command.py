"""`python -m research benchmark NAME`: one benchmark, with the flags that follow its name."""

from __future__ import annotations

import argparse
import importlib

BENCHMARKS = {
    "app": "what a visitor of the page waits for",
    "export": "the export against the bare forward pass",
    "features": "the lens on sparse features against the bare forward pass",
    "gpu": "agreement with the CPU, then rates, on a CUDA device",
    "omp": "matching pursuit against scikit-learn",
    "passes": "the lens and its statistics against the bare forward pass",
    "presence": "how often a text is found in an image that shows it",
    "segmentation": "a segmentation against one forward pass",
    "shift": "a shift's report on photographs",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A benchmark's name and its own flags."""
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.epilog = "\n".join(f"{name:14}{about}" for name, about in BENCHMARKS.items())
    parser.add_argument("name", choices=BENCHMARKS, metavar="NAME", help="one of those below")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="its flags (--help lists them)")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark."""
    importlib.import_module(f"research.benchmarks.{args.name}").main(args.flags)
    return 0
