"""Searching the dictionary: a query's neurons as data and as bars, and examples of queries."""

from __future__ import annotations

from clipneurons.explore.dictionary import Dictionary, Hit, parse_query
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.neuron_card import says
from tabs.ui.plots import Bar, bars, empty, link, section
from tabs.ui.unknown_words import unknown_words_html, untrained

DIRECTION, DECOMPOSITION = "direction", "phrases"
# Orders of what was found: by the match, by how far labels can be trusted, reliable ones alone.
MATCH, TRUST, RELIABLE = "match", "trust", "reliable"
MOST_LETTERS = 300


def dictionary_of(session: BundleSession) -> Dictionary:
    """The session's dictionary, made once."""
    return session.cached("dictionary", lambda: Dictionary(session.bundle))


def find(
    registry: BundleRegistry, bundle: str, query: str, way: str, top: int = 10, order: str = MATCH
) -> dict:
    """Neurons that write toward a query, and those that write against it.

    By direction with the line that random directions stay below (`Dictionary.chance_line`).
    """
    session = registry[bundle]
    dictionary = dictionary_of(session)
    if len(query) > MOST_LETTERS:
        raise ValueError(f"Searches of at most {MOST_LETTERS} letters, please.")
    phrases = parse_query(query)
    if way == DECOMPOSITION:
        scores, warnings = dictionary.coefficient_scores(phrases), []
    elif way == DIRECTION:
        new = [phrase.words for phrase in phrases if not dictionary.in_pool(phrase.words)]
        warnings = untrained(session, new)
        scores = dictionary.cosines(dictionary.embed(phrases, session.encode_texts))
    else:
        raise ValueError(f'Search by "{DIRECTION}" or by "{DECOMPOSITION}", not by {way!r}.')
    if order not in (MATCH, TRUST, RELIABLE):
        raise ValueError(f'Order by "{MATCH}", "{TRUST}" or "{RELIABLE}", not by {order!r}.')
    if order != MATCH and not dictionary.tested:
        raise ValueError("The labels of this bundle were not tested: order by the match.")
    if order == RELIABLE:
        scores = scores * dictionary.reliable
    toward, against = dictionary.strongest(scores, max(1, min(int(top), 100)))
    if order == TRUST:

        def distrust(hit: Hit) -> float:
            return -float(dictionary.simulation[dictionary.row(hit.layer, hit.unit)])

        toward, against = sorted(toward, key=distrust), sorted(against, key=distrust)

    def rows(hits: list[Hit]) -> list[dict]:
        return [
            {
                "layer": hit.layer, "unit": hit.unit, "score": hit.score,
                "phrases": says(session.bundle, hit.layer, hit.unit),
                "simulation": trust and trust.simulation, "reliable": trust and trust.reliable,
            }
            for hit in hits
            for trust in [dictionary.trust(hit.layer, hit.unit)]
        ]  # fmt: skip

    return {
        "toward": rows(toward),
        "against": rows(against),
        "never_trained": warnings,
        "chance_line": dictionary.chance_line if way == DIRECTION else None,
    }


def results_html(session: BundleSession, query: str, way: str, order: str = MATCH) -> str:
    """Search results; nothing for an empty query."""
    if not query.strip():
        return ""
    found = find(BundleRegistry([session]), session.key, query, way, order=order)
    line = found["chance_line"] or 0.0
    parts = []
    for key, title in (("toward", "Write toward it"), ("against", "Write against it")):
        rows = [
            Bar(
                f"{row['layer']} · {row['unit']}  {row['phrases']}",
                row["score"],
                hint=_hint(row),
                link={
                    "tab": "dictionary", "layer": row["layer"], "unit": row["unit"],
                    "q": query, "by": way if way != DIRECTION else None, "bundle": session.key,
                },
            )
            for row in found[key]
        ]  # fmt: skip
        label = f"{title}: {query}"
        most = max((abs(row.value) for row in rows), default=1.0)
        strong = [row for row in rows if abs(row.value) >= line]
        weak = [row for row in rows if abs(row.value) < line]
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


def _hint(row: dict) -> str:
    """On hover: how far the words of a neuron that was found can be trusted."""
    if row["simulation"] is None:
        return ""
    trust = "reliable" if row["reliable"] else "not reliable"
    words = f"{row['phrases']}: match {row['score']:.2f}; label {trust}, {row['simulation']:.2f}"
    return words.replace("-", "−")


def suggestions(session: BundleSession, count: int = 5) -> list[str]:
    """Phrases that some neuron says clearly, as examples of searches."""

    def make() -> list[str]:
        dictionary = dictionary_of(session)
        trusted = [dictionary.place(row) for row in dictionary.most_trusted(100)]
        found = []
        for layer, unit in trusted:
            text, weight = session.bundle.label(layer, unit, 1)[0]
            if weight > 0 and text not in found and len(text) <= 24:
                found.append(text)
        if len(found) > 1:
            return [*found[: count - 1], f"{found[0]}, -{found[1]}"]
        first = dictionary.coefficients[:, 0]
        order = (first / dictionary.effective_concepts.clamp_min(1)).argsort(descending=True)
        found = []
        for row in order.tolist():
            text = session.bundle.texts[int(dictionary.indices[row, 0])]
            if text not in found and len(text) <= 24:
                found.append(text)
            if len(found) == count - 1:
                break
        return [*found, f"{found[0]}, -{found[1]}"] if len(found) > 1 else found

    return session.cached("suggestions", make)


def try_html(session: BundleSession) -> str:
    """Examples of searches, as links."""
    chips = " ".join(
        link(text, tab="dictionary", q=text, bundle=session.key) for text in suggestions(session)
    )
    return f'<div class="cn-try"><span>Try</span> {chips}</div>' if chips else ""
