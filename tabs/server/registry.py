"""The bundles that a visitor can choose."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import gradio as gr

from clipneurons.bundle.config import BundleError
from clipneurons.bundle.hub import EXPECTED, NAME
from tabs.server.messages import page_error
from tabs.server.session import BundleSession


class BundleRegistry:
    """The sessions that can be chosen: what the page was started with.

    With `hub`, on a page for this machine alone, also what its owner opens from the Hub.
    """

    def __init__(self, sessions: list[BundleSession], hub: bool = False) -> None:
        if not sessions:
            raise ValueError("expected at least one bundle to show")
        self.sessions: dict[str, BundleSession] = {}
        for session in sessions:
            self._add(session)
        self.hub = hub

    def open(self, name: str) -> BundleSession:
        """The bundle "user/name" or "user/name@revision" on the Hub, opened as `--bundle` does.

        Raises `BundleError` for any other name, and what `BundleSession.open` raises.
        """
        if not NAME.fullmatch(name):
            raise BundleError(f"{name!r} is no name of a repository: expected {EXPECTED}")
        return self.sessions.get(name) or self._add(BundleSession.open(name))

    def _add(self, session: BundleSession) -> BundleSession:
        """A bundle named twice is there once; another of the same name is called "name (2)"."""
        name, number = session.key, 1
        while other := self.sessions.get(session.key):
            if other.folder.resolve() == session.folder.resolve():
                return other
            number += 1
            session.key = f"{name} ({number})"
        self.sessions[session.key] = session
        return session

    @property
    def first(self) -> BundleSession:
        """What the page opens with."""
        return next(iter(self.sessions.values()))

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(title, key) of each session; the key is in titles that would be the same."""
        sessions = list(self.sessions.values())
        titles = [session.title for session in sessions]
        return [
            (title if titles.count(title) == 1 else f"{title} · {session.key}", session.key)
            for title, session in zip(titles, sessions, strict=True)
        ]

    def __getitem__(self, key: str | None) -> BundleSession:
        if not key:
            return self.first
        if key not in self.sessions:
            known = ", ".join(self.sessions)
            more = " (or open it from the Hub first, at the top of the page)" if self.hub else ""
            raise page_error(f"There is no bundle {key!r} here. Choose one of: {known}{more}")
        return self.sessions[key]

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
        here = session is self.first or session.bundle.config.at_hand
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
