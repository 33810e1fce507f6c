"""`python -m export COMMAND`: makes, checks and publishes bundles, and runs a user's long jobs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from export.common.command_line import run_command

COMMANDS = {
    "run": "analyse a model over a data set and write its bundle",
    "train-features": "train a dictionary of sparse features of one layer",
    "decompose": "describe the units of a bundle with other texts",
    "labels": "write a bundle's labels for CLIP-Dissect, CoSy, Neuronpedia, or as CSV",
    "evaluate": "measure what a bundle keeps of its model",
    "merge": "put the shards of a run together",
    "verify": "check a bundle's files, shapes, values and model",
    "info": "say what a bundle holds",
    "refresh-card": "render a bundle's card again, after MODEL.md has changed",
    "publish": "upload a bundle to the Hugging Face Hub",
    "describe-classes": "ask a chat model for descriptions of classes (a text pool)",
    "attack": "make adversarial images from a bundle's texts",
    "shift": "compare two sets of images unit by unit",
    "mend": "find the neurons that confuse a classifier, and take them out",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake is one line and status 2."""
    modules = {
        name: (f"export.commands.{name.replace('-', '_')}", help_text)
        for name, help_text in COMMANDS.items()
    }
    return run_command("python -m export", "Bundles, made and used.", modules, arguments)


if __name__ == "__main__":
    sys.exit(main())
