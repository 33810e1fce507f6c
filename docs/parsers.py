"""The parsers of `python -m export` and `python -m research`, whole, for the command line pages."""

import argparse

from export.__main__ import COMMANDS as EXPORT
from export.common.command_line import make_parser
from research.__main__ import COMMANDS as RESEARCH


def export() -> argparse.ArgumentParser:
    """Every command of `python -m export` with its flags."""
    modules = {k: (f"export.commands.{k.replace('-', '_')}", about) for k, about in EXPORT.items()}
    return make_parser("python -m export", "Bundles, made and used.", modules, modules)


def research() -> argparse.ArgumentParser:
    """Every command of `python -m research` with its flags."""
    return make_parser("python -m research", "Reproduce, compare, train.", RESEARCH, RESEARCH)
