"""Searching the dictionary: a query's neurons as data and as bars, and examples of queries."""

from __future__ import annotations

from collections.abc import Mapping

from clipneurons.bundle.unit_words import plain
from clipneurons.dictionary.query import parse_query
from clipneurons.dictionary.search import DIRECTION, MATCH, SIMULATION_SCORE
from clipneurons.dictionary.search import search as search_units
from clipneurons.text.synonym_groups import synonym_groups
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.plots import Bar, bars, empty, link, section
from tabs.ui.suggestions import clearly_said
from tabs.ui.words import MOST_LETTERS, unknown_words_html, untrained

# An order of what was found beside those of the library: by the match, reliable labels alone.
RELIABLE = "reliable"
ORDERS = (MATCH, SIMULATION_SCORE, RELIABLE)
# What a search finds, and what that is called.
_SECTIONS = {
    "labelled": "Their label names it",
    "toward": "Write toward it",
    "against": "Write against it",
}
# Letters from which the vocabulary is offered, texts of it; letters of an example, examples.
_FEWEST, _OFFERED, _CHIP, _THINGS = 2, 8, 24, 4


def search(
    registry: BundleRegistry, bundle: str = "", query: str = "", way: str = DIRECTION,
    top: int = 10, order: str = MATCH,
) -> dict:  # fmt: skip
    """Neurons whose label names a query, and those that write toward or against it.

    As `clipneurons.search` gives them, with the words that the model never saw in training.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        query: texts with commas between them; a leading minus for what is unwanted.
        way: "direction" (cosine with the text's embedding) or "decomposition" (coefficients).
        top: how many of each, at most 100.
        order: "match", "simulation_score" (of those, the best predicted first) or "reliable"
            (neurons with a reliable label alone).
    """
    session = registry[bundle]
    if len(query) > MOST_LETTERS:
        raise ValueError(f"Searches of at most {MOST_LETTERS} letters, please.")
    if order not in ORDERS:
        raise ValueError(f"order={order!r}: expected {' or '.join(map(repr, ORDERS))}")
    result = search_units(
        session.bundle, query, by=way, order=MATCH if order == RELIABLE else order,
        reliable=order == RELIABLE, top=max(1, min(int(top), 100)), embed=session.encode_texts,
    )  # fmt: skip
    new = [
        phrase.words
        for phrase in parse_query(query)
        if way == DIRECTION and not session.dictionary.in_pool(phrase.words)
    ]
    return result.to_dict() | {"never_trained": untrained(session, new)}


def results_html(session: BundleSession, query: str, way: str, order: str = MATCH) -> str:
    """Search results; nothing for an empty query."""
    if not query.strip():
        return ""
    found = search(BundleRegistry([session]), session.key, query, way, order=order)
    line = found["chance_line"] or 0.0
    parts = []
    for key, title in _SECTIONS.items():
        rows = [_result(session, query, way, row) for row in found[key]]
        if key == "labelled" and not rows:
            continue
        least = 0.0 if key == "labelled" else line
        label = f"{title}: {query}"
        most = max((abs(row.value) for row in rows), default=1.0)
        strong = [row for row in rows if abs(row.value) >= least]
        weak = [row for row in rows if abs(row.value) < least]
        body = bars(strong, label=label, wide=True, most=most) if strong else ""
        if weak:
            body += (
                f'<div class="cn-weak"><p title="Below {line:.2f}: of random directions, 95 % have '
                'a best neuron this near">Weaker than chance</p>'
                f"{bars(weak, label=f'{label}, weaker than chance', wide=True, most=most)}</div>"
            )
        body = body or empty("No neuron does.")
        parts.append(section(title, body))
    warning = unknown_words_html(found["never_trained"])
    return f'{warning}<div class="cn-results">{"".join(parts)}</div>'


def _result(session: BundleSession, query: str, way: str, row: dict) -> Bar:
    """A unit that was found, as a bar that leads to its dashboard."""
    link = {
        "tab": "explore", "layer": row["layer"], "unit": row["unit"], "q": query,
        "by": way if way != DIRECTION else None, "bundle": session.key,
    }  # fmt: skip
    title = f"{row['layer']} · {row['unit']}  {row['label']}".rstrip()
    return Bar(title, row["score"], hint=_hint(row), link=link)


def _hint(row: dict) -> str:
    """On hover: the match, and the simulation score of the label."""
    if row["simulation_score"] is None:
        return ""
    known = "" if row["reliable"] else "no reliable label, "
    hint = f"match {row['score']:.2f}; {known}simulation score {row['simulation_score']:.2f}"
    return hint.replace("-", "−")


def suggestions(session: BundleSession) -> list[str]:
    """Examples of searches: things that some neuron says clearly; the last has two parts."""

    def make() -> list[str]:
        texts, short = session.bundle.texts, [t for t in clearly_said(session) if len(t) <= _CHIP]
        numbers = {text: number for number, text in enumerate(texts)}
        order = [numbers[text] for text in short if text in numbers]
        groups = synonym_groups(order, texts, session.bundle.text_embeddings, _THINGS)
        found = [texts[first] for first, *_ in groups]
        return [*found, f"{found[0]}, -{found[1]}"] if len(found) > 1 else found

    return session.cached("suggestions", make)


def try_html(session: BundleSession) -> str:
    """Examples of searches, as links."""
    return _chips("Try", session, {text: text for text in suggestions(session)})


def vocabulary_html(session: BundleSession, query: str) -> str:
    """Texts of the vocabulary that the query's last part may become; examples while it is short."""
    before, _, last = query[:MOST_LETTERS].rpartition(",")
    words = last.strip().lstrip("-−– ")
    if len(words) < _FEWEST:
        return try_html(session)
    sign = "-" if last.strip()[:1] in ("-", "−", "–") else ""
    lead = f"{before.strip()}, {sign}" if before.strip() else sign
    texts = session.dictionary.pool.going_on(words, _OFFERED)
    return _chips("In the vocabulary", session, {text: lead + text for text in texts})


def _chips(title: str, session: BundleSession, queries: Mapping[str, str]) -> str:
    """Links to searches, by what they are called."""
    chips = " ".join(
        link(_without_articles(text), tab="explore", q=query, bundle=session.key)
        for text, query in queries.items()
    )
    return f'<div class="cn-try"><span>{title}</span> {chips}</div>' if chips else ""


def _without_articles(query: str) -> str:
    parts = (part.strip() for part in query.split(","))
    return ", ".join(f"-{plain(p[1:])}" if p.startswith("-") else plain(p) for p in parts)
