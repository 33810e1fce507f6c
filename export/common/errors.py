"""What a user's mistake looks like: one line on standard error, exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from clipneurons.bundle.config import BundleError


class UserError(ValueError):
    """A mistake in the arguments or the input; shown as one line, exit status 2."""


class SourceError(ValueError):
    """The images cannot be found or listed; the message says what was expected."""


def printable(text: str) -> str:
    """A line without characters that move a terminal's cursor or turn its text around."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def reported(command: Callable[[], int | None]) -> int:
    """Run a command for its exit status; 2 after a mistake, 130 when it was stopped."""
    try:
        return command() or 0
    except (UserError, BundleError, SourceError) as error:
        print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(printable(f"error: {error.strerror or error}{where}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
