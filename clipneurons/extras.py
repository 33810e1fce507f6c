"""Packages that only some of the library needs."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import optional packages inside: one that is missing is named with what brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is missing: pip install 'clipneurons[{name}]'", name=error.name
        ) from error
