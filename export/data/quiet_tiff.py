"""libtiff without its own lines on stderr: what is wrong with a file stands in `skipped.csv`."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from ctypes.util import find_library
from pathlib import Path

import PIL


def silence() -> None:
    """Take away the handlers that print, for this process; Pillow has no switch for it."""
    with suppress(OSError, AttributeError):  # a Pillow without libtiff has nothing to say
        library = ctypes.CDLL(_library())
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


def _library() -> str:
    """The libtiff that Pillow uses: beside it in a wheel, else the system's.

    Raises `OSError` where there is none.
    """
    package = Path(PIL.__file__).parent
    beside = [*package.parent.glob("[Pp]illow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")]
    path = str(beside[0]) if beside else find_library("tiff")
    if path is None:
        raise OSError("no libtiff")
    return path
