"""One process at a time: a lock that a kill lets go of."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.common.errors import UserError


@contextmanager
def exclusive(file: Path, out: Path) -> Iterator[None]:
    """Hold `file` against a second process that would write to `out`.

    Raises:
        UserError: another process holds it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is at work on {out} ({file.parent})") from None
        yield


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold a bundle's folder against a second command that would change it; leaves no file.

    Raises:
        UserError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(
            f"another command is changing {folder}, and would overwrite what this one finds: run"
            " this one again when it is done"
        ) from None
    finally:
        os.close(handle)
