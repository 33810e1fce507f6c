"""Searching the dictionary: a query's neurons as data and as bars, and examples of queries."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clipneurons.bundle.unit_words import plain
from clipneurons.dictionary.dictionary import Dictionary, Hit, Phrase, parse_query
from clipneurons.text.synonym_groups import synonym_groups
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui.neuron_card import says
from tabs.ui.plots import Bar, bars, empty, link, section
from tabs.ui.unknown_words import unknown_words_html, untrained

DIRECTION, DECOMPOSITION = "direction", "phrases"
# Orders of what was found: by the match, by how far labels can be trusted, reliable ones alone.
MATCH, TRUST, RELIABLE = "match", "trust", "reliable"
MOST_LETTERS = 300
# What a search finds, and what that is called.
_SECTIONS = {
    "labelled": "Their label names it",
    "toward": "Write toward it",
    "against": "Write against it",
}
# Letters from which the vocabulary is offered, texts of it; letters of an example, examples.
_FEWEST, _OFFERED, _CHIP, _THINGS = 2, 8, 24, 4
# What to look for where neither labels nor classes say it, and classes that are tried.
_EVERYDAY = (
    "dog", "cat", "bird", "horse", "fish", "car", "train", "boat", "airplane", "bicycle", "tree",
    "flower", "beach", "mountain", "snow", "water", "fire", "food", "fruit", "bread", "coffee",
    "book", "music", "guitar", "computer", "phone", "house", "church", "street", "city", "baby",
    "child", "wedding", "sport", "football", "red", "blue", "green", "yellow", "stripes",
)  # fmt: skip
_CLASSES = 400


def dictionary_of(session: BundleSession) -> Dictionary:
    """The session's dictionary, made once."""
    return session.cached("dictionary", lambda: Dictionary(session.bundle))


def find(
    registry: BundleRegistry, bundle: str, query: str, way: str, top: int = 10, order: str = MATCH
) -> dict:
    """Neurons whose reliable label names a query, and those that write toward or against it.

    By direction with the line that random directions stay below (`Dictionary.chance_line`).
    """
    session = registry[bundle]
    dictionary = dictionary_of(session)
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
    dictionary = dictionary_of(session)
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
    found = find(BundleRegistry([session]), session.key, query, way, order=order)
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
        "tab": "dictionary", "layer": row["layer"], "unit": row["unit"], "q": query,
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


def clearly_said(session: BundleSession) -> list[str]:
    """Phrases that some neuron says clearly, the clearest first.

    What reliable labels say; of a bundle without any, things (`_things`) that a direction is
    nearer to than random directions are. A pool of words holds much that is no thing to look for.
    """

    def make() -> list[str]:
        dictionary = dictionary_of(session)
        trusted = [dictionary.place(row) for row in dictionary.most_trusted(100)]
        labels = [session.bundle.label(layer, unit) for layer, unit in trusted]
        found = list(dict.fromkeys(label.positive[0] for label in labels if label.positive))
        if len(found) < 2:
            things = [text for text in _things(session) if dictionary.in_pool(text)]
            best = {
                text: float(dictionary.cosines(dictionary.embed([Phrase(text)])).max())
                for text in things
            }
            known = [text for text in things if best[text] > dictionary.chance_line]
            found = sorted(known, key=lambda text: -best[text])
        return found

    return session.cached("clearly said", make)


def _things(session: BundleSession) -> list[str]:
    """Names of things: the data's classes, else everyday ones."""
    names = session.bundle.config.data.class_names or _EVERYDAY
    return list(dict.fromkeys(text for name in names[:_CLASSES] for text in _forms(name)))


def _forms(name: str) -> tuple[str, str]:
    """A name as pools of texts may have it: alone or with its article."""
    name = name.replace("_", " ").strip().lower()
    return name, f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"


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
    texts = dictionary_of(session).pool.going_on(words, _OFFERED)
    return _chips("In the vocabulary", session, {text: lead + text for text in texts})


def _chips(title: str, session: BundleSession, queries: Mapping[str, str]) -> str:
    """Links to searches, by what they are called."""
    chips = " ".join(
        link(_without_articles(text), tab="dictionary", q=query, bundle=session.key)
        for text, query in queries.items()
    )
    return f'<div class="cn-try"><span>{title}</span> {chips}</div>' if chips else ""


def _without_articles(query: str) -> str:
    parts = (part.strip() for part in query.split(","))
    return ", ".join(f"-{plain(p[1:])}" if p.startswith("-") else plain(p) for p in parts)
