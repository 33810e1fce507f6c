"""How far a long call is: what ``progress=`` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Told the share that is done, 0 to 1, and what is being done.
Progress = Callable[[float, str], object]


@contextmanager
def reported(progress: Progress | bool | None) -> Iterator[Progress]:
    """What to tell: the caller's function, a tqdm bar for True, nobody for None and False."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda share, text: None
    else:
        from tqdm.auto import tqdm

        with tqdm(total=100, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}") as bar:

            def tell(share: float, text: str) -> None:
                bar.set_description_str(text, refresh=False)
                bar.update(100 * share - bar.n)

            yield tell


def part(progress: Progress, start: float, end: float) -> Progress:
    """Progress of a part of a call, which runs from one share of the whole to another."""
    return lambda share, text: progress(start + share * (end - start), text)
