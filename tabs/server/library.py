"""The bundles that a visitor can choose."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:  # open_clip takes seconds to import: never before the page is served
    from tabs.server.hub_bundles import Shelf
from tabs.server.session import Reading


class Library:
    """The readings a visitor can choose: what the server's owner named and, where the owner
    allows it with a shelf, what visitors have opened from the Hub."""

    def __init__(self, readings: list[Reading], shelf: Shelf | None = None) -> None:
        if not readings:
            raise ValueError("expected at least one bundle to show")
        self.readings: dict[str, Reading] = {}
        for reading in readings:
            self._add(reading)
        self.shelf = shelf

    def _add(self, reading: Reading) -> None:
        """A bundle named twice is there once; another of the same name is called "name (2)"."""
        name, number = reading.key, 1
        while other := self.readings.get(reading.key):
            if other.folder.resolve() == reading.folder.resolve():
                return
            number += 1
            reading.key = f"{name} ({number})"
        self.readings[reading.key] = reading

    @property
    def first(self) -> Reading:
        """What the page opens with."""
        return next(iter(self.readings.values()))

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(title, key) of each reading; the key is in titles that would be the same."""
        opened = self.shelf.readings if self.shelf else []
        readings = [*self.readings.values(), *opened]
        titles = [reading.title for reading in readings]
        return [
            (title if titles.count(title) == 1 else f"{title} · {reading.key}", reading.key)
            for title, reading in zip(titles, readings, strict=True)
        ]

    def __getitem__(self, key: str | None) -> Reading:
        if not key:
            return self.first
        found = self.readings.get(key) or (self.shelf.get(key) if self.shelf else None)
        if found is None:
            known = ", ".join(value for _, value in self.choices)
            more = " (or open it from the Hub first, at the top of the page)" if self.shelf else ""
            raise gr.Error(
                f"There is no bundle {key!r} here. Choose one of: {known}{more}",
                print_exception=False,
            )
        return found

    def warm(self, *jobs: Callable[[Reading], object]) -> Thread:
        """Load the first reading's model, then run `jobs`, while the page is already served."""

        def work() -> None:
            try:
                for job in (lambda reading: reading.lens, *jobs):
                    job(self.first)
            except (ValueError, KeyError, OSError) as error:
                print(f"The model could not be loaded, browsing works without: {error}")

        thread = Thread(target=work, name="warm", daemon=True)
        thread.start()
        return thread
