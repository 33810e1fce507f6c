"""The neuron dictionary: search by words, browse, one card a neuron, a table of all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import gradio as gr
import torch

from clipneurons.dictionary import Dictionary, Hit, Phrase, parse_query
from tabs.card import (
    card_data,
    card_html,
    group_images,
    json_file,
    png_file,
    says,
    shown_images,
)
from tabs.context import MODEL, Library, Reading, readable
from tabs.plots import Bar, address, bars, empty, html, link, section

TITLE = "Neuron dictionary"
DIRECTION, DECOMPOSITION = "direction", "phrases"
WAYS = [("its direction", DIRECTION), ("its phrases", DECOMPOSITION)]
COLUMNS = ["neuron", "says", "one direction", "of images", "meanings", "strongest"]
_PLACEHOLDER = "boat, -water   (commas between things; a minus before what should not be there)"
_MOST_NAMES = 12
_MOST_LETTERS = 300


@dataclass(frozen=True)
class Handles:
    """What a permanent link fills in."""

    layer: gr.Dropdown
    unit: gr.Number
    query: gr.Textbox
    way: gr.Radio
    examples: gr.HTML
    then_show: Callable
    then_search: Callable


def dictionary_of(reading: Reading) -> Dictionary:
    """The reading's dictionary, made once."""
    return reading.remember("dictionary", lambda: Dictionary(reading.bundle))


def start_of(reading: Reading) -> tuple[int, int]:
    """The neuron that the page opens on."""
    return reading.remember("start", lambda: dictionary_of(reading).interesting())


def unit_name(reading: Reading) -> str:
    """What a unit of this bundle is called."""
    return "Neuron" if reading.bundle.config.units_per_neuron == 1 else "Pair"


def default_names(reading: Reading) -> str:
    """Class names to try an effect on: those nearest the opening neuron, as far as known."""
    names = reading.bundle.config.data.class_names or tuple(reading.bundle.texts)
    return ", ".join(names[:: max(1, len(names) // 6)][:6])


def suggestions(reading: Reading, count: int = 5) -> list[str]:
    """Phrases that some neuron says clearly, as examples of searches."""

    def make() -> list[str]:
        dictionary = dictionary_of(reading)
        first = dictionary.coefficients[:, 0]
        order = (first / dictionary.meanings.clamp_min(1)).argsort(descending=True)
        found: list[str] = []
        for row in order.tolist():
            text = reading.bundle.texts[int(dictionary.indices[row, 0])]
            if text not in found and len(text) <= 24:
                found.append(text)
            if len(found) == count - 1:
                break
        return [*found, f"{found[0]}, -{found[1]}"] if len(found) > 1 else found

    return reading.remember("suggestions", make)


# -- what the tab does, as data (these are the API)


def neuron(library: Library, bundle: str, layer: int, unit: int) -> dict:
    """All that is known of one neuron."""
    reading = library[bundle]
    return card_data(reading.bundle, dictionary_of(reading).card(int(layer), int(unit)))


def find(library: Library, bundle: str, query: str, way: str, top: int = 10) -> dict:
    """Neurons that write toward a query, and those that write against it."""
    reading = library[bundle]
    dictionary = dictionary_of(reading)
    if len(query) > _MOST_LETTERS:
        raise ValueError(f"Searches of at most {_MOST_LETTERS} letters, please.")
    phrases = parse_query(query)
    if way == DECOMPOSITION:
        scores, warnings = dictionary.coefficient_scores(phrases), []
    elif way == DIRECTION:
        new = [phrase.words for phrase in phrases if not dictionary.in_pool(phrase.words)]
        warnings = untrained(reading, new)
        scores = dictionary.cosines(dictionary.embed(phrases, reading.encode_texts))
    else:
        raise ValueError(f'Search by "{DIRECTION}" or by "{DECOMPOSITION}", not by {way!r}.')
    toward, against = dictionary.strongest(scores, max(1, min(int(top), 100)))

    def rows(hits: list[Hit]) -> list[dict]:
        return [
            {
                "layer": hit.layer, "unit": hit.unit, "score": hit.score,
                "phrases": says(reading.bundle, hit.layer, hit.unit),
            }
            for hit in hits
        ]  # fmt: skip

    return {"toward": rows(toward), "against": rows(against), "never_trained": warnings}


def untrained(reading: Reading, phrases: list[str]) -> list[str]:
    """Words that the model never saw in training (only ever known of the bundled models)."""
    if not phrases:
        return []
    from clipneurons.vocabulary import untrained_words

    return untrained_words(reading.tower, phrases)


# -- what it shows


def results_html(reading: Reading, query: str, way: str) -> str:
    """Search results; nothing for an empty query."""
    if not query.strip():
        return ""
    found = find(Library([reading]), reading.key, query, way)
    parts = []
    for key, title in (("toward", "Write toward it"), ("against", "Write against it")):
        rows = [
            Bar(
                f"{row['layer']} · {row['unit']}  {row['phrases']}",
                row["score"],
                link={
                    "tab": "dictionary", "layer": row["layer"], "unit": row["unit"],
                    "q": query, "by": way if way != DIRECTION else None, "bundle": reading.key,
                },
            )
            for row in found[key]
        ]  # fmt: skip
        body = bars(rows, label=f"{title}: {query}") if rows else empty("No neuron does.")
        parts.append(section(title, body.replace("cn-bars", "cn-bars cn-wide", 1)))
    warning = ""
    if found["never_trained"]:
        words = ", ".join(f"“{escape(word)}”" for word in found["never_trained"])
        warning = (
            f'<p class="cn-warn">This small model never saw {words} in training, so what it '
            "says about it is noise. Words from its own vocabulary work.</p>"
        )
    return f'{warning}<div class="cn-results">{"".join(parts)}</div>'


def show(reading: Reading, layer: int, unit: int, names: str, model: bool) -> str:
    """A card; what needs the model is left out unless `model` or it is known already."""
    dictionary = dictionary_of(reading)
    card = dictionary.card(int(layer), int(unit))
    if card.dead:
        return card_html(reading.key, dictionary, card, None, [])
    wanted = names_of(names)
    effects = None if wanted else []
    new = [name for name in wanted if not dictionary.in_pool(name)]
    if wanted and (model or reading.knows_texts(new)):
        vectors = [dictionary.embed([Phrase(name)], reading.encode_texts) for name in wanted]
        values = dictionary.effect_on(card.layer, card.unit, torch.stack(vectors)).tolist()
        effects = sorted(zip(wanted, values, strict=True), key=lambda pair: -pair[1])
    groups = None
    ids = [image for image, _ in shown_images(reading.bundle, card)]
    if ids and (model or (reading.ready and reading.knows_thumbnails(ids))):
        embeddings = reading.encode_thumbnails(ids)
        groups = group_images(embeddings, dictionary, reading.mean_thumbnail)
    return card_html(reading.key, dictionary, card, groups, effects)


def complete(reading: Reading, layer: int, unit: int, names: str) -> bool:
    """Whether a card drawn without the model has everything already."""
    dictionary = dictionary_of(reading)
    new = [name for name in names_of(names) if not dictionary.in_pool(name)]
    card = dictionary.card(int(layer), int(unit))
    ids = [image for image, _ in shown_images(reading.bundle, card)]
    return reading.ready and reading.knows_texts(new) and reading.knows_thumbnails(ids)


def names_of(text: str) -> list[str]:
    """Class names from a field, with commas between them."""
    names = [" ".join(name.split()) for name in text[:_MOST_LETTERS].split(",")]
    return list(dict.fromkeys(name for name in names if name))[:_MOST_NAMES]


def here(reading: Reading, library: Library, layer: int, unit: int, query: str, way: str) -> str:
    """The permanent link of what is shown."""
    return address(
        tab="dictionary", layer=int(layer), unit=int(unit), q=query.strip(),
        by=way if way != DIRECTION and query.strip() else None,
        bundle=reading.key if reading is not library.first else None,
    )  # fmt: skip


def table_rows(reading: Reading, layer: int) -> list[list]:
    """The table of a layer's neurons, rounded for reading."""

    def make() -> list[list]:
        return [
            [unit, said, round(explained, 3), round(share, 4), round(meanings, 2), round(norm, 3)]
            for unit, said, explained, share, meanings, norm in dictionary_of(reading).table(layer)
        ]

    return reading.remember(f"table {layer}", make)


def try_html(reading: Reading) -> str:
    """Examples of searches, as links."""
    chips = " ".join(
        link(text, tab="dictionary", q=text, bundle=reading.key) for text in suggestions(reading)
    )
    return f'<div class="cn-try"><span>Try</span> {chips}</div>' if chips else ""


# -- the tab


def build(library: Library, source: gr.Dropdown) -> Handles:
    """Components and events; returns what a permanent link fills in."""
    first = library.first
    layer0, unit0 = start_of(first)
    gr.HTML(
        '<p class="cn-lede">Search for a thing to see which neurons write it into the image’s '
        "description, or leaf through them one by one.</p>"
    )
    with gr.Row(elem_classes="cn-search"):
        query = gr.Textbox(
            label="Search by words", placeholder=_PLACEHOLDER, elem_id="dictionary-query",
            scale=6, max_lines=1, max_length=_MOST_LETTERS,
        )  # fmt: skip
        way = gr.Radio(
            WAYS, value=DIRECTION, label="Compare with", elem_id="dictionary-way", scale=3,
        )  # fmt: skip
        go = gr.Button("Search", variant="primary", scale=1, min_width=90, elem_id="dictionary-go")
    examples = html(try_html(first), elem_id="dictionary-try")
    results = html(elem_id="dictionary-results")
    with gr.Row(elem_classes="cn-browse"):
        layer = gr.Dropdown(
            list(dictionary_of(first).layers), value=layer0, label="Layer", scale=1, min_width=80,
            elem_id="dictionary-layer", filterable=False,
        )  # fmt: skip
        unit = gr.Number(
            unit0, label=unit_name(first), precision=0, minimum=0, scale=1, min_width=90,
            elem_id="dictionary-unit",
        )  # fmt: skip
        back = gr.Button("← Previous", scale=1, min_width=90, elem_id="dictionary-previous")
        onward = gr.Button("Next →", scale=1, min_width=90, elem_id="dictionary-next")
        dice = gr.Button("Random", scale=1, min_width=90, elem_id="dictionary-random")
        names = gr.Textbox(
            default_names(first), label="Names to measure its effect on", scale=4, min_width=220,
            max_lines=1, max_length=_MOST_LETTERS, elem_id="dictionary-names",
        )  # fmt: skip
    card = html(
        show(first, layer0, unit0, default_names(first), model=False), elem_id="dictionary-card"
    )
    with gr.Row():
        as_json = gr.Button("Save as JSON", size="sm", scale=0, min_width=130)
        as_png = gr.Button("Save as PNG", size="sm", scale=0, min_width=130)
    with gr.Accordion("All neurons of the layer", open=False, elem_id="dictionary-all") as folded:
        table = gr.Dataframe(
            headers=COLUMNS, datatype=["number", "str", "number", "number", "number", "number"],
            interactive=False, label="Click a heading to sort, a row to see the neuron",
            max_height=460, elem_id="dictionary-table", show_search="filter", wrap=False,
            column_widths=["9%", "44%", "13%", "11%", "11%", "12%"], buttons=[],
        )  # fmt: skip
    place = gr.Textbox(elem_classes="offstage", label="Permanent link", elem_id="dictionary-here")
    saved = gr.Textbox(elem_classes="offstage", label="Download")

    # The API: plain data in, plain data out.
    def neuron_api(bundle: str, layer: int, unit: int) -> dict:
        """What one neuron says: phrases with signed coefficients, images, figures, neighbours.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            layer: layer, as in the bundle.
            unit: number of the neuron in its layer (for a ResNet: neuron * heads + head).
        """
        return readable(neuron)(library, bundle, layer, unit)

    def search_api(bundle: str, query: str, way: str = DIRECTION, top: int = 10) -> dict:
        """Neurons that write toward a query and those that write against it, strongest first.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            query: phrases with commas between them; a leading minus for what is unwanted.
            way: "direction" (cosine with the text's embedding) or "phrases" (coefficients).
            top: how many of each, at most 100.
        """
        return readable(find)(library, bundle, query, way, top)

    gr.api(neuron_api, api_name="neuron")
    gr.api(search_api, api_name="search", concurrency_id=MODEL)

    # The page.
    private = {"api_visibility": "private"}

    @readable
    def draw(bundle: str, layer: int, unit: int, names: str, query: str, way: str):
        reading = library[bundle]
        drawn = show(reading, layer, unit or 0, names, model=False)
        return drawn, here(reading, library, layer, unit or 0, query, way)

    @readable
    def add_what_needs_the_model(bundle: str, layer: int, unit: int, names: str):
        reading = library[bundle]
        if complete(reading, layer, unit or 0, names):
            return gr.skip()
        return show(reading, layer, unit or 0, names, model=True)

    @readable
    def search(bundle: str, query: str, way: str) -> str:
        return results_html(library[bundle], query, way)

    @readable
    def step(bundle: str, layer: int, unit: int, by: int) -> int:
        return (int(unit or 0) + by) % dictionary_of(library[bundle]).units(layer)

    def shuffle(bundle: str, layer: int) -> int:
        return random.randrange(dictionary_of(library[bundle]).units(layer))

    def opened(bundle: str):
        reading = library[bundle]
        layer, unit = start_of(reading)
        layers = list(dictionary_of(reading).layers)
        return (
            gr.update(choices=layers, value=layer), gr.update(value=unit, label=unit_name(reading)),
            default_names(reading), "", "",
            try_html(reading),
        )  # fmt: skip

    card_inputs = [source, layer, unit, names, query, way]

    def then_show(event) -> None:
        """Draw the card, put its link into the address bar, then add what needs the model."""
        drawn = event.then(draw, card_inputs, [card, place], show_progress="hidden", **private)
        drawn.then(None, [place], js="(q) => window.cnDrawn(q)")
        drawn.then(
            add_what_needs_the_model, [source, layer, unit, names], [card],
            concurrency_id=MODEL, show_progress="hidden", **private,
        )  # fmt: skip

    @readable
    def address_of(bundle: str, layer: int, unit: int, query: str, way: str) -> str:
        return here(library[bundle], library, layer, unit or 0, query, way)

    then_show(gr.on([layer.input, unit.submit, unit.blur, names.submit], lambda: None, **private))
    then_show(
        back.click(lambda b, la, u: step(b, la, u, -1), [source, layer, unit], [unit], **private)
    )
    then_show(
        onward.click(lambda b, la, u: step(b, la, u, 1), [source, layer, unit], [unit], **private)
    )
    then_show(dice.click(shuffle, [source, layer], [unit], **private))
    then_show(
        source.input(opened, [source], [layer, unit, names, query, results, examples], **private)
    )
    searching = gr.on(
        [go.click, query.submit, way.input], search, [source, query, way], [results],
        concurrency_id=MODEL, **private,
    )  # fmt: skip
    searching.then(address_of, [source, layer, unit, query, way], [place], **private).then(
        None, [place], js="(q) => window.cnPush(q)"
    )

    for button, make in ((as_json, json_file), (as_png, png_file)):

        @readable
        def save(bundle: str, layer: int, unit: int, make=make) -> str:
            reading = library[bundle]
            return make(reading.bundle, dictionary_of(reading).card(int(layer), int(unit or 0)))

        button.click(save, [source, layer, unit], [saved], **private).then(
            None, [saved], js="(file) => window.cnSave(file)"
        )

    @readable
    def fill(bundle: str, layer: int) -> list[list]:
        return table_rows(library[bundle], int(layer))

    folded.expand(fill, [source, layer], [table], **private)
    layer.change(lambda: gr.Accordion(open=False), None, [folded], **private)

    def chosen(event: gr.SelectData) -> int:
        return int(event.row_value[0])

    then_show(table.select(chosen, None, [unit], **private))

    def then_search(event) -> None:
        event.then(
            search, [source, query, way], [results], concurrency_id=MODEL,
            show_progress="hidden", **private,
        )  # fmt: skip

    return Handles(layer, unit, query, way, examples, then_show, then_search)
