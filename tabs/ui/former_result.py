"""A result is marked while it belongs to an earlier upload than the one shown beside it.

The last upload may be no image, or may wait for a button.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

import gradio as gr

from tabs.server.events import PRIVATE

PREVIOUS = "Results for the previous upload."


def says_whose(
    results: Sequence[str],
    brought: Iterable[Callable],
    found: Iterable[gr.events.Dependency],
    words: str = PREVIOUS,
) -> None:
    """Mark results (elements' ids) on some events, and clear them once others have succeeded.

    Args:
        results: ids of the elements that show what was found.
        brought: triggers by which a visitor brings something else.
        found: events whose success fills the results.
        words: what the results say meanwhile (`style.css`).
    """
    mark = _on_each(results, f"one.dataset.former = {json.dumps(words)}")
    for event in brought:
        event(None, None, js=f"() => {{ {mark} }}", **PRIVATE)
    for event in found:
        clear(results, event)


def clear(results: Sequence[str], found: gr.events.Dependency, when: str = "true") -> None:
    """Clear marks once an event has succeeded; `when` says, in the browser, if it filled them."""
    script = f"() => {{ if ({when}) {_on_each(results, 'delete one.dataset.former')} }}"
    found.success(None, None, js=script, **PRIVATE)


def _on_each(results: Sequence[str], change: str) -> str:
    elements = json.dumps(", ".join(f"#{name}" for name in results))
    return f"for (const one of document.querySelectorAll({elements})) {change};"
