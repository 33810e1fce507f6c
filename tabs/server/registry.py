"""The bundles that a visitor can choose."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:  # open_clip takes seconds to import: never before the page is served
    from tabs.server.hub_bundles import HubBundleCache
from tabs.server.session import BundleSession


class BundleRegistry:
    """The sessions a visitor can choose: what the server's owner named and, where the owner
    allows it with a cache for the Hub, what visitors have opened from the Hub."""

    def __init__(
        self, sessions: list[BundleSession], hub_cache: HubBundleCache | None = None
    ) -> None:
        if not sessions:
            raise ValueError("expected at least one bundle to show")
        self.sessions: dict[str, BundleSession] = {}
        for session in sessions:
            self._add(session)
        self.hub_cache = hub_cache

    def _add(self, session: BundleSession) -> None:
        """A bundle named twice is there once; another of the same name is called "name (2)"."""
        name, number = session.key, 1
        while other := self.sessions.get(session.key):
            if other.folder.resolve() == session.folder.resolve():
                return
            number += 1
            session.key = f"{name} ({number})"
        self.sessions[session.key] = session

    @property
    def first(self) -> BundleSession:
        """What the page opens with."""
        return next(iter(self.sessions.values()))

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(title, key) of each session; the key is in titles that would be the same."""
        opened = self.hub_cache.sessions if self.hub_cache else []
        sessions = [*self.sessions.values(), *opened]
        titles = [session.title for session in sessions]
        return [
            (title if titles.count(title) == 1 else f"{title} · {session.key}", session.key)
            for title, session in zip(titles, sessions, strict=True)
        ]

    def __getitem__(self, key: str | None) -> BundleSession:
        if not key:
            return self.first
        found = self.sessions.get(key) or (self.hub_cache.get(key) if self.hub_cache else None)
        if found is None:
            known = ", ".join(value for _, value in self.choices)
            more = (
                " (or open it from the Hub first, at the top of the page)" if self.hub_cache else ""
            )
            raise gr.Error(
                f"There is no bundle {key!r} here. Choose one of: {known}{more}",
                print_exception=False,
            )
        return found

    def unasked(self, key: str | None) -> BundleSession | None:
        """A session whose model may run before a visitor asks for anything; None otherwise.

        The first one's is loaded anyway, and one beside its bundle lies here: others would be
        fetched. One that cannot be loaded is told of where something is asked for, and one that is
        not here by the page, when it reads the address.
        """
        try:
            session = self[key]
        except gr.Error:
            return None
        here = session is self.first or session.bundle.config.carries_model
        if not here and not session.ready:
            return None
        try:
            session.lens  # noqa: B018  (loads it)
        except (ValueError, KeyError, OSError):
            return None
        return session

    def warm(self, *jobs: Callable[[BundleSession], object]) -> Thread:
        """Load the first session's model, then run `jobs`, while the page is already served."""

        def work() -> None:
            try:
                for job in (lambda session: session.lens, *jobs):
                    job(self.first)
            except (ValueError, KeyError, OSError) as error:
                print(f"The model could not be loaded, browsing works without: {error}")

        thread = Thread(target=work, name="warm", daemon=True)
        thread.start()
        return thread
