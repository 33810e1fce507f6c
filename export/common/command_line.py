"""One command line of many commands: each is a module with `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Collection, Mapping, Sequence


def make_parser(
    prog: str,
    description: str,
    commands: Mapping[str, tuple[str, str]],
    with_flags: Collection[str],
) -> argparse.ArgumentParser:
    """A parser of ``commands``; only those in ``with_flags`` are imported and have their flags."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module_name, help_text) in commands.items():
        subparser = subparsers.add_parser(name, help=help_text, description=help_text)
        if name in with_flags:
            module = importlib.import_module(module_name)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def run_command(
    prog: str,
    description: str,
    commands: Mapping[str, tuple[str, str]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run one of ``commands``, {name: (module, help)}; a user's mistake is one line and status 2.

    Only the module of the requested command is imported, so that a missing optional package
    affects no other command.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    requested = next((a for a in arguments if not a.startswith("-")), None)
    parser = make_parser(prog, description, commands, [requested] if requested else [])
    args = parser.parse_args(arguments)
    # Imported late: `--help` should not wait for PyTorch.
    from export.common.errors import reported

    return reported(lambda: args.run(args))
