"""Searching the dictionary: a query's neurons as data and as bars, and examples of queries."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipneurons.bundle.unit_words import plain
from clipneurons.dictionary.dictionary import Hit, parse_query
from clipneurons.text.synonym_groups import synonym_groups
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.plots import Bar, bars, empty, link, section
from tabs.ui.suggestions import clearly_said
from tabs.ui.units import says
from tabs.ui.words import MOST_LETTERS, unknown_words_html, untrained

DIRECTION, DECOMPOSITION = "direction", "phrases"
# Orders of what was found: by the match, by how far labels can be trusted, reliable ones alone.
MATCH, TRUST, RELIABLE = "match", "trust", "reliable"
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

    By direction with the line that random directions stay below (`Dictionary.chance_line`).

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        query: phrases with commas between them; a leading minus for what is unwanted.
        way: "direction" (cosine with the text's embedding) or "phrases" (coefficients).
        top: how many of each, at most 100.
        order: "match", "trust" (of those, the labels that predict best first) or "reliable"
            (neurons with a reliable label alone).
    """
    session = registry[bundle]
    dictionary = session.dictionary
    if order not in (MATCH, TRUST, RELIABLE):
        raise ValueError(f'Order by "{MATCH}", "{TRUST}" or "{RELIABLE}", not by {order!r}.')
    if order != MATCH and not dictionary.tested:
        raise ValueError("The labels of this bundle were not tested: order by the match.")
    scores, warnings = _scores(session, query, way)
    if order == RELIABLE:
        scores = scores * dictionary.reliable
    top = max(1, min(int(top), 100))
    toward, against = dictionary.strongest(scores, top)
    if order == TRUST:

        def distrust(hit: Hit) -> float:
            return -float(dictionary.simulation_score[dictionary.row(hit.layer, hit.unit)])

        toward, against = sorted(toward, key=distrust), sorted(against, key=distrust)
    labelled, _ = dictionary.strongest(dictionary.label_scores(parse_query(query)), top)
    return {
        "labelled": _hits(session, labelled),
        "toward": _hits(session, toward),
        "against": _hits(session, against),
        "never_trained": warnings,
        "chance_line": dictionary.chance_line if way == DIRECTION else None,
    }


def _scores(session: BundleSession, query: str, way: str) -> tuple[Tensor, list[str]]:
    """How well every unit fits a query, and words of it that the model never saw."""
    dictionary = session.dictionary
    if len(query) > MOST_LETTERS:
        raise ValueError(f"Searches of at most {MOST_LETTERS} letters, please.")
    phrases = parse_query(query)
    if way == DECOMPOSITION:
        return dictionary.coefficient_scores(phrases), []
    if way == DIRECTION:
        new = [phrase.words for phrase in phrases if not dictionary.in_pool(phrase.words)]
        warnings = untrained(session, new)
        return dictionary.cosines(dictionary.embed(phrases, session.encode_texts)), warnings
    raise ValueError(f'Search by "{DIRECTION}" or by "{DECOMPOSITION}", not by {way!r}.')


def _hits(session: BundleSession, hits: list[Hit]) -> list[dict]:
    """Units that were found, each with its reliable label and the label's score."""
    return [
        {
            "layer": hit.layer, "unit": hit.unit, "score": hit.score,
            "label": says(session.bundle, hit.layer, hit.unit),
            "simulation_score": label and label.simulation_score,
            "reliable": label and label.reliable,
        }
        for hit in hits
        for label in [session.bundle.label(hit.layer, hit.unit)]
    ]  # fmt: skip


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
