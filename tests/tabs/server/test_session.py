"""Who only browses waits for no model."""

from pathlib import Path
from threading import Event, Thread

from tabs.server.session import BundleSession
from tests.helpers.tiny import tiny_bundle


def test_nobody_waits_for_what_another_name_makes():
    session = BundleSession("tiny", Path("none"), tiny_bundle())
    begun, done = Event(), Event()

    def slow():
        begun.set()
        assert done.wait(60)
        return "model"

    loading = Thread(target=lambda: session.cached("reader", slow))
    loading.start()
    assert begun.wait(60)
    assert session.cached("table", lambda: "at once") == "at once"
    assert not session.ready
    done.set()
    loading.join(60)
    assert session.ready


def test_what_is_asked_for_at_once_is_made_once():
    session = BundleSession("tiny", Path("none"), tiny_bundle())
    made = []
    threads = [
        Thread(target=lambda: session.cached("texts", lambda: made.append(1) or len(made)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
