"""The commands that the page gives to copy are those that there are."""

import argparse
import shlex
from importlib import import_module

import pytest

from export.__main__ import COMMANDS as KNOWN
from tabs.ui.bundle_chooser import COMMANDS


@pytest.mark.parametrize("label", ["Export", "Publish"])
def test_commands_are_taken_by_their_parsers(label):
    python, _, module, name, *flags = shlex.split(COMMANDS[label])
    assert (python, module) == ("python", "export")
    assert name in KNOWN
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f"export.commands.{name}").add_arguments(parser)
    assert vars(parser.parse_args(flags))


def test_the_bundle_is_the_same_in_all():
    exported = shlex.split(COMMANDS["Export"])[-1]
    assert all(exported in shlex.split(command) for command in COMMANDS.values())
