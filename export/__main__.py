"""`python -m export COMMAND`: each command is a module with `add_arguments` and `run`.

Only the module of the command that was asked for is loaded, so that one which lacks an optional
package does not take the others with it.
"""

from __future__ import annotations

import argparse
import importlib
import sys

COMMANDS = {
    "run": "analyse a model over a data set and write its bundle",
    "decompose": "describe the units of a bundle with other texts",
    "evaluate": "measure what a bundle keeps of its model",
    "merge": "put the shards of a run together",
    "verify": "check a bundle's files, shapes, values and model",
    "info": "say what a bundle holds",
    "refresh-card": "render a bundle's card again, after MODEL.md has changed",
    "publish": "upload a bundle to the Hugging Face Hub",
    "describe-classes": "ask a chat model for descriptions of classes (a text pool)",
    "attack": "make adversarial images from a bundle's phrases",
    "shift": "compare two sets of images unit by unit",
    "mend": "find the neurons that confuse a classifier, and take them out",
    "papers": "compare with the figures of the papers",
    "figures": "renew the README's table from what was measured",
    "mini": "train the small CLIPs that ship with the project",
}
# Words of earlier versions.
FORMER = {"reseal": "refresh-card", "describe": "describe-classes"}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a user's mistake is one line and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m export", description="Bundles, made and used.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    if arguments and arguments[0] in FORMER:
        arguments = [FORMER[arguments[0]], *arguments[1:]]
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, help_text in COMMANDS.items():
        sub = commands.add_parser(name, help=help_text, description=help_text)
        if name == chosen:
            module = importlib.import_module(f"export.commands.{name.replace('-', '_')}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    # Not before it is needed: `--help` should not wait for PyTorch.
    from export.common.errors import reported

    return reported(lambda: args.run(args))


if __name__ == "__main__":
    sys.exit(main())
