"""`python -m export publish`: a bundle to the Hugging Face Hub, in one commit.

Everything is checked before the first byte leaves. The card is rendered under the repository's
final name, unless a person has edited it, here or there: then theirs is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from clipneurons.bundle.config import CARD
from clipneurons.bundle.hub import REPOSITORY
from export.common.errors import UserError
from export.common.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `publish`."""
    add = parser.add_argument
    add("--bundle", default=DEFAULT_MODEL, help="the bundle's folder (default: %(default)s)")
    add("--repo", required=True, metavar="USER/NAME", help="the model repository on the Hub")
    add("--private", action="store_true", help="if the repository is created, create it private")
    add("--create-pr", action="store_true", help="open a pull request instead of committing")
    add("--message", default="Upload a clipneurons bundle", help="of the commit")
    add("--dry-run", action="store_true", help="check, list what would be sent, and stop")


def run(args: argparse.Namespace) -> int:
    """Check, say what goes, send."""
    if not REPOSITORY.fullmatch(args.repo):
        raise UserError(f"--repo {args.repo!r}: expected user/name")
    from export.pipeline.plan import size
    from export.pipeline.publish import pack, send
    from export.pipeline.update_bundle import local_folder

    folder = local_folder(args.bundle)
    parcel = pack(folder, args.repo)
    for name, data in sorted(parcel.files.items()):
        count = data.stat().st_size if isinstance(data, Path) else len(data)
        print(f"{size(count):>9}  {name}")
    if parcel.card_edited:
        print(f"{CARD} was edited by hand and is sent as it is")
    if args.dry_run:
        print(f"nothing was sent; without --dry-run this goes to {args.repo}")
        return 0
    print(send(parcel, args.repo, args.private, args.create_pr, args.message))
    return 0
