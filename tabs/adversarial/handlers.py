"""What happens when something in the tab is pressed, chosen or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gradio as gr

from clipneurons.bundle.unit_words import plain
from tabs.adversarial.cues import CUES, cues_of, pairs_of, split_words
from tabs.adversarial.layout import pair_label
from tabs.adversarial.offers import PICTOGRAMS, TEMPLATES, similarity_of
from tabs.adversarial.pictures import (
    EACH,
    PICTURES,
    Forged,
    controls,
    descriptions_of,
    forge,
    mistake_overlay,
    zip_file,
)
from tabs.adversarial.results import (
    attack_data,
    cues_data,
    cues_html,
    gallery_of,
    map_label,
    rates_html,
)
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.ui import plots
from tabs.ui.unknown_words import unknown_words_html, untrained

_OWN = "These things are your own: no neurons were asked for them."
_EXAMPLE = 12  # pictures of the example that stands there when the tab is opened


def find(
    registry: BundleRegistry, bundle: str, true: str, fooled: str, layers: list[int], neurons: int,
    words: int, blocked: str, painter: str, way: str,
    progress=gr.Progress(),  # noqa: B008  (Gradio finds it there)
):  # fmt: skip
    """The cues of the pair, written into their field, and the neurons behind them."""
    session = registry[bundle]
    options = _options(layers, neurons, words, blocked, painter, way)
    text, said = _found(session, true, fooled, options, progress)
    return (
        unknown_words_html(untrained(session, [true, fooled])), text, text,
        gr.Accordion(visible=True, open=True), said,
    )  # fmt: skip


def find_cues(
    registry: BundleRegistry, bundle: str = "", true: str = "cat", fooled: str = "dog",
    layers: list[int] | None = None, neurons: int = 0, words: int = CUES,
    blocked: str = "", painter: str = PICTOGRAMS, way: str = "",
) -> dict:  # fmt: skip
    """Phrases that push a picture of the first class toward the second, and away from it.

    Each has its score and the neurons behind it; phrases that name a class, or mean the
    second, are dropped, with the reason.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        true: what the picture shows, such as "cat".
        fooled: what it shall be read as, such as "dog".
        layers: layers to use; all where none is given or the bundle has none of them.
        neurons: how many neurons' phrases to take, of those that tell the two classes apart
            most, as in the paper (100); 0 for all that all neurons do.
        words: how many phrases to give.
        blocked: words that no phrase may contain, with commas between.
        painter: "pictograms", or the model that this server offers.
        way: how the neurons are asked: "dense effects", "second-order", "tested labels" (of a
            bundle that has some) or "recorded effects", for which thousands of pictures are read
            once where the bundle has none; "automatic" for the best that the bundle has at hand;
            "" for that, or for "second-order" where a number of neurons is given.
    """
    session = registry[bundle]
    options = _options(layers, neurons, words, blocked, painter, way)
    cues = cues_of(session, true, fooled, **options)
    data = cues_data(cues, similarity_of(session).name)
    return data | {"never_trained": untrained(session, [true, fooled])}


def make(
    registry: BundleRegistry, bundle: str, true: str, fooled: str, edited: str, filled_in: str,
    count: int, each: int, seed: int, layers: list[int], neurons: int, words: int, blocked: str,
    describer: str, painter: str, way: str,
    progress=gr.Progress(),  # noqa: B008
) -> Iterator[tuple]:  # fmt: skip
    """Pictures with verdicts as they are made, then the baselines' rates and a zip.

    Cues that the page filled in itself are found again: the names may be others by now.
    """
    session = registry[bundle]
    options = _options(layers, neurons, words, blocked, painter, way)
    own = bool(edited.strip()) and edited != filled_in
    if own:
        text, said = edited, plots.empty(_OWN)
    else:
        text, said = _found(session, true, fooled, options, progress)
    used = split_words(text)
    descriptions = descriptions_of(session, true, fooled, used, int(count), seed, describer, each)
    unknown = unknown_words_html(untrained(session, [true, fooled, *(used if own else [])]))
    written = "\n".join(description.text for description in descriptions)
    place = gr.Image(value=None, visible=False)
    first = (
        gr.Column(visible=True), unknown, written, gr.DownloadButton(interactive=False), place,
        text, "" if own else text, gr.Accordion(visible=True, open=False), said,
    )  # fmt: skip
    outcomes = []
    for batch in forge(session, true, fooled, descriptions, seed, painter):
        outcomes += batch
        progress(len(outcomes) / len(descriptions), desc="painting")
        forged = Forged(session.key, true, fooled, "these cues", tuple(outcomes))
        yield forged, gallery_of(outcomes, fooled), rates_html(forged, {}), *first
        first = (gr.skip(),) * len(first)
    rates = controls(
        session, true, fooled, int(count), seed, cues_each=each,
        progress=lambda share: progress(share, desc="baselines"), **options,
    )  # fmt: skip
    ready = gr.DownloadButton(value=zip_file(forged), interactive=True)
    rest = [gr.skip()] * len(first)
    rest[3] = ready
    yield gr.skip(), gr.skip(), rates_html(forged, rates), *rest


def make_first(
    registry: BundleRegistry, bundle: str, forged: Forged | None, offered: tuple[str, str],
    true: str, fooled: str, edited: str, filled_in: str, count: int, *settings,
) -> Iterator[tuple]:  # fmt: skip
    """`make`, a few pictures, where nothing was made yet with this bundle."""
    session = registry.unasked(bundle)
    if session is None or (forged is not None and forged.key == session.key):
        yield gr.skip()
        return
    true, fooled, offered = names_of(session, true, fooled, offered)
    asked = (true, fooled, edited, filled_in, min(count, _EXAMPLE), *settings)
    for made in make(registry, bundle, *asked):
        yield true, fooled, offered, *made


def attack(
    registry: BundleRegistry, bundle: str = "", true: str = "cat", fooled: str = "dog",
    edited: str = "", count: int = PICTURES, each: int = EACH, seed: int = 0,
    layers: list[int] | None = None, neurons: int = 0, words: int = CUES,
    blocked: str = "", describer: str = TEMPLATES, painter: str = PICTOGRAMS,
    way: str = "",
) -> dict:  # fmt: skip
    """Make pictures of the first class with the given cues and see how they are read.

    Gives the cues, the success rate with its 95 % interval, those of random neurons, similar
    words, random words and no cues, and each picture (PNG as a data URI) with its description
    and verdict. (Before, it gave what the page showed: a gallery, HTML, texts and a zip.)

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        true: what the picture shows, such as "cat".
        fooled: what it shall be read as, such as "dog".
        edited: the cues, with commas between; "" finds them.
        count: how many pictures, at most 60.
        each: how many cues in a picture.
        seed: the same seed gives the same pictures.
        layers: layers to use; all where none is given or the bundle has none of them.
        neurons: how many neurons' phrases to take, of those that tell the two classes apart
            most, as in the paper (100); 0 for all that all neurons do.
        words: how many phrases to find.
        blocked: words that no phrase may contain, with commas between.
        describer: "templates", or the model that this server offers.
        painter: "pictograms", or the model that this server offers.
        way: as for `find_cues`; "recorded effects" are also compared with the same pictures read
            without neurons.
    """
    session = registry[bundle]
    options = _options(layers, neurons, words, blocked, painter, way)
    used = split_words(edited)
    unknown = untrained(session, [true, fooled, *used])
    if not used:
        used = cues_of(session, true, fooled, **options).words
    descriptions = descriptions_of(session, true, fooled, used, int(count), seed, describer, each)
    batches = forge(session, true, fooled, descriptions, seed, painter)
    outcomes = tuple(outcome for batch in batches for outcome in batch)
    rates = controls(session, true, fooled, int(count), seed, cues_each=each, **options)
    forged = Forged(session.key, true, fooled, "these cues", outcomes)
    return attack_data(forged, rates, used, unknown)


def picked(registry: BundleRegistry, event: gr.SelectData) -> int:
    """The picture that was clicked."""
    return int(event.index)


def explain(registry: BundleRegistry, forged: Forged | None, index: int | None):
    """Where in the picture that was clicked the target class is spoken for."""
    if forged is None or index is None:
        return gr.skip()
    overlay = mistake_overlay(registry[forged.key], forged, index)
    label = map_label(forged.outcomes[index], forged.target_class)
    return gr.Image(overlay, label=label, visible=True)


def change_names(registry: BundleRegistry, edited: str, filled_in: str):
    """Another pair: results and cues of the last one go, cues that a visitor wrote stay."""
    cues = gr.skip() if edited != filled_in else ""
    return None, cues, "", gr.Column(visible=False), gr.Accordion(visible=False)


def change_bundle(
    registry: BundleRegistry, bundle: str, forged: Forged | None, true: str, fooled: str,
    offered: tuple[str, str], edited: str, filled_in: str,
):  # fmt: skip
    """Another bundle's pairs and layers, and nothing of what the last one gave."""
    session = registry[bundle]
    known = list(session.bundle.layers)
    pairs = [gr.Button(pair_label(pair)) for pair in pairs_of(session)]
    names = names_of(session, true, fooled, offered)
    kept = forged is None or forged.key == session.key
    emptied = (gr.skip(),) * 5 if kept else change_names(registry, edited, filled_in)
    return *pairs, gr.Dropdown(known, value=known), *names, *emptied


def names_of(
    session: BundleSession, true: str, fooled: str, offered: tuple[str, str]
) -> tuple[str, str, tuple[str, str]]:
    """The visitor's own names, or the pair this bundle opens with; and what was offered last."""
    if (true, fooled) != tuple(offered):
        return true, fooled, offered
    pair = pairs_of(session)[0]
    return *pair, pair


def _options(
    layers: Sequence[int] | None, neurons: int, words: int, blocked: str, painter: str, way: str
) -> dict:  # fmt: skip
    return {
        "layers": layers, "neurons": neurons, "words": words, "blocked": blocked,
        "painter": painter, "way": way,
    }  # fmt: skip


def _found(
    session: BundleSession, true: str, target: str, options: dict, progress: gr.Progress
) -> tuple[str, str]:
    """The cues as the field holds them, and as bars with the neurons behind them."""
    cues = cues_of(
        session, true, target, **options,
        progress=lambda share: progress(share, desc="reading pictures of the things, once"),
    )  # fmt: skip
    text = ", ".join(map(plain, cues.words))
    return text, cues_html(session, cues, similarity_of(session).name)
