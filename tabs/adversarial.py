"""The tab that makes pictures of one class that are read as another."""

from __future__ import annotations

from html import escape

import gradio as gr

from tabs import adversarial_backend as backend
from tabs.adversarial_backend import Forged
from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.server.session import MODEL, BundleSession
from tabs.ui import plots

TITLE = "Adversarial pictures"
INTRO = (
    "Some neurons that speak for one class also speak for other things: draw those things beside "
    "an object, and the model may take it for that class. Here you find such things, draw them, "
    "and see how often the model falls for it."
)
EXAMPLES = [["cat", "dog"], ["horse", "automobile"], ["ship", "truck"], ["bird", "frog"]]
_NO_CUES = "The things to draw beside it, and the neurons that confuse them, appear here."
_NEURONS_SHOWN = 4


def cues_html(session: BundleSession, cues, similarity: str) -> str:
    """Cues with their scores and the neurons behind them."""
    toward = plots.bars(
        [plots.Bar(cue.text, cue.score, _hint(cue)) for cue in cues.positive],
        label=f"Cues toward {cues.target_class}", digits=3,
    )  # fmt: skip
    away = plots.bars(
        [plots.Bar(cue.text, cue.score, _hint(cue)) for cue in cues.negative[:10]],
        label=f"Cues away from {cues.target_class}", digits=3,
    )  # fmt: skip
    rows = "".join(
        f"<li>{escape(cue.text)}: {_neurons(session.key, cue)}</li>"
        for cue in cues.positive
        if cue.neurons
    )
    dropped = ", ".join(f"{text} ({reason})" for text, reason in cues.dropped[:12]) or "none"
    return "".join([
        plots.section(
            f"What pushes {cues.true_class} toward {cues.target_class}", toward,
            f"Left out: {dropped}. Synonyms are found by {similarity}.",
        ),
        plots.section("Neurons behind each cue", f"<ul>{rows}</ul>" if rows else plots.empty(
            "These cues do not come from neurons.")),
        plots.section(f"What pushes away from {cues.target_class}", away),
    ])  # fmt: skip


def cues_data(cues, similarity: str) -> dict:
    """Cues as the API gives them."""

    def rows(found) -> list[dict]:
        return [
            {"phrase": cue.text, "score": cue.score, "neurons": [
                {"layer": n.layer, "unit": n.unit, "share": n.share} for n in cue.neurons]}
            for cue in found
        ]  # fmt: skip

    return {
        "toward": rows(cues.positive), "away": rows(cues.negative),
        "dropped": [{"phrase": text, "reason": reason} for text, reason in cues.dropped],
        "synonyms_found_by": similarity,
    }  # fmt: skip


def gallery_of(outcomes, target_class: str) -> list[tuple]:
    """Pictures with what the model made of them."""
    return [
        (
            outcome.image.resize((160, 160), 0),
            f"{'✗ read as ' + target_class if outcome.fooled else '✓ read rightly'}"
            f" ({outcome.margin:+.3f})" + ("" if outcome.valid else f"; {_not_counted(outcome)}"),
        )
        for outcome in outcomes
    ]


def rates_html(forged: Forged, rates: dict) -> str:
    """Success rates as bars: the cues' own, and those of the baselines."""
    from clipneurons.adversarial.attack import success_rate

    own = success_rate(forged.outcomes)
    rows = [plots.Bar(f"{forged.method}", 100 * own.value if own.count else 0.0, str(own))]
    rows += [
        plots.Bar(name, 100 * rate.value if rate.count else 0.0, str(rate))
        for name, rate in rates.items()
    ]
    what = f"Pictures of {forged.true_class} that are read as {forged.target_class}, per cent"
    note = f"{own}; interval: Wilson, 95 %. What they show is {_checked(forged)}."
    return plots.section(
        what, plots.bars(rows, label="Success rates in per cent", digits=1, most=100.0), note
    )


def _checked(forged: Forged) -> str:
    known = all(outcome.objects is not None for outcome in forged.outcomes)
    return "known exactly" if known else "unchecked"


def _not_counted(outcome) -> str:
    return "a near copy" if outcome.duplicate else outcome.presence


def _hint(cue) -> str:
    behind = ", ".join(f"{n.layer} · {n.unit}" for n in cue.neurons[:_NEURONS_SHOWN])
    return f"{cue.text}: {cue.score:+.3f}" + (f", from neurons {behind}" if behind else "")


def _neurons(key: str, cue) -> str:
    return ", ".join(
        plots.link(
            f"{n.layer} · {n.unit}", tab="dictionary", layer=n.layer, unit=n.unit, bundle=key
        )
        + f" ({n.share:+.3f})".replace("-", "−")
        for n in cue.neurons[:_NEURONS_SHOWN]
    )


def build(registry: BundleRegistry, source: gr.components.Component) -> None:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    layers_known = list(registry.first.bundle.layers)
    state = gr.State()
    gr.Markdown(f"{INTRO}\n\n{backend.PURPOSE}", elem_classes="cn-lede")
    with gr.Row():
        with gr.Column(scale=2):
            with gr.Row():
                true = gr.Textbox(
                    "cat", label="The picture shows", max_length=60, elem_id="adversarial-true"
                )
                fooled = gr.Textbox(
                    "dog", label="It shall be read as", max_length=60, elem_id="adversarial-fooled"
                )
            gr.Examples(EXAMPLES, [true, fooled], label="Try", elem_id="adversarial-examples")
            with gr.Accordion("Settings", open=False):
                # Custom values are those of other bundles, which the handlers sort out.
                layers = gr.Dropdown(
                    layers_known, value=layers_known, label="Layers", multiselect=True,
                    allow_custom_value=True, elem_id="adversarial-layers",
                )  # fmt: skip
                layers.api_info = lambda: {"type": "array", "items": {"type": "integer"}}
                neurons = gr.Slider(
                    0, 1000, 0, step=1, label="Neurons whose phrases are used",
                    info="0: all that all neurons write, which fools more often",
                    elem_id="adversarial-neurons",
                )  # fmt: skip
                words = gr.Slider(1, 50, 25, step=1, label="Cues", elem_id="adversarial-words")
                each = gr.Slider(
                    0, 6, 3, step=1, label="Cues in a picture", elem_id="adversarial-each"
                )
                blocked = gr.Textbox(
                    "", label="Words that no cue may contain", placeholder="animal, pet",
                    max_length=1000, elem_id="adversarial-blocked",
                )  # fmt: skip
                describer = gr.Radio(
                    backend.describers(), value=backend.TEMPLATES, label="Described by",
                    elem_id="adversarial-describer",
                )  # fmt: skip
                painter = gr.Radio(
                    backend.painters(), value=backend.PICTOGRAMS, label="Painted by",
                    elem_id="adversarial-painter",
                )  # fmt: skip
                seed = gr.Number(0, label="Seed", precision=0, elem_id="adversarial-seed")
            look = gr.Button("Find cues", variant="primary", elem_id="adversarial-look")
            edited = gr.Textbox(
                "", label="Cues to use (edit, separated by commas)", lines=3, max_length=4000,
                elem_id="adversarial-cues",
            )  # fmt: skip
            count = gr.Slider(
                1,
                backend.MAX_PICTURES,
                30,
                step=1,
                label="Pictures",
                elem_id="adversarial-count",
            )
            with gr.Row():
                draw = gr.Button("Make pictures", variant="primary", elem_id="adversarial-draw")
                stop = gr.Button("Stop", variant="stop", elem_id="adversarial-stop")
        with gr.Column(scale=3):
            said = plots.html(plots.empty(_NO_CUES), elem_id="adversarial-said")
    with gr.Accordion("Descriptions", open=False):
        described = gr.Textbox(
            label="One a picture", lines=6, interactive=False, elem_id="adversarial-described"
        )
    rates = plots.html(elem_id="adversarial-rates")
    with gr.Row():
        gallery = gr.Gallery(
            label="Pictures with the model's verdict (choose one for its map)", columns=6,
            height="auto", elem_id="adversarial-gallery", allow_preview=False, buttons=[],
        )  # fmt: skip
        place = gr.Image(
            label="Where the mistake comes from", interactive=False, format="png", buttons=[],
            elem_id="adversarial-map", scale=0, min_width=280,
        )  # fmt: skip
    saved = gr.DownloadButton("Download (zip)", interactive=False, elem_id="adversarial-zip")

    def search(bundle, true, fooled, layers, neurons, words, blocked, painter):
        session = registry[bundle]
        cues = backend.cues_of(
            session, true, fooled, layers=layers, neurons=neurons, words=words, blocked=blocked,
            painter=painter,
        )  # fmt: skip
        return session, cues, backend.similarity_of(session).name

    @on_gpu()
    @user_errors
    def find(
        bundle: str, true: str, fooled: str, layers: list[int], neurons: int, words: int,
        blocked: str, painter: str,
    ):  # fmt: skip
        session, cues, similarity = search(
            bundle, true, fooled, layers, neurons, words, blocked, painter
        )
        return cues_html(session, cues, similarity), ", ".join(cues.words)

    @on_gpu()
    @user_errors
    def find_cues(
        bundle: str, true: str, fooled: str, layers: list[int], neurons: int, words: int,
        blocked: str, painter: str,
    ) -> dict:  # fmt: skip
        """Phrases that push a picture of the first class toward the second, and away from it.

        Each has its score and the neurons behind it; phrases that name a class, or mean the
        second, are dropped, with the reason.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            true: what the picture shows, such as "cat".
            fooled: what it shall be read as, such as "dog".
            layers: layers to use; all where the bundle has none of them.
            neurons: how many neurons' phrases to take, of those that tell the two classes apart
                most, as in the paper (100); 0 for all that all neurons write.
            words: how many phrases to give.
            blocked: words that no phrase may contain, with commas between.
            painter: "pictograms", or the model that this server offers.
        """
        _, cues, similarity = search(bundle, true, fooled, layers, neurons, words, blocked, painter)
        return cues_data(cues, similarity)

    @on_gpu(120)
    @user_errors
    def make(
        bundle: str, true: str, fooled: str, edited: str, count: int, each: int, seed: int,
        layers: list[int], neurons: int, words: int, blocked: str, describer: str, painter: str,
        progress=gr.Progress(),  # noqa: B008  (Gradio finds it by its default)
    ):  # fmt: skip
        """Make pictures of the first class with the given cues and see how they are read.

        Gives, growing: the pictures with verdicts, the success rate beside those of random
        neurons, similar words, random words and no cues, the descriptions, and at the end a zip.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            true: what the picture shows, such as "cat".
            fooled: what it shall be read as, such as "dog".
            edited: the cues, with commas between; "" finds them.
            count: how many pictures, at most 60.
            each: how many cues in a picture.
            seed: the same seed gives the same pictures.
            layers: layers to use; all where the bundle has none of them.
            neurons: how many neurons' phrases to take, of those that tell the two classes apart
                most, as in the paper (100); 0 for all that all neurons write.
            words: how many phrases to give.
            blocked: words that no phrase may contain, with commas between.
            describer: "templates", or the model that this server offers.
            painter: "pictograms", or the model that this server offers.
        """
        session = registry[bundle]
        options = dict(
            layers=layers, neurons=neurons, words=words, blocked=blocked, painter=painter
        )
        used = backend.split_words(edited)
        if not used:
            used = backend.cues_of(session, true, fooled, **options).words
        descriptions = backend.descriptions_of(
            session, true, fooled, used, int(count), seed, describer, each
        )
        text = "\n".join(description.text for description in descriptions)
        outcomes, waiting = [], gr.DownloadButton(interactive=False)
        for batch in backend.forge(session, true, fooled, descriptions, seed, painter):
            outcomes += batch
            progress(len(outcomes) / len(descriptions), desc="painting")
            forged = Forged(session.key, true, fooled, "these cues", tuple(outcomes))
            yield (
                forged, gallery_of(outcomes, fooled), rates_html(forged, {}), text, waiting, None
            )  # fmt: skip
        found = {}
        if painter == backend.PICTOGRAMS:  # a painted control picture would take seconds
            found = backend.controls(
                session, true, fooled, int(count), seed, cues_each=each,
                progress=lambda share: progress(share, desc="baselines"), **options,
            )  # fmt: skip
        ready = gr.DownloadButton(value=backend.zip_file(forged), interactive=True)
        yield (
            forged, gallery_of(outcomes, fooled), rates_html(forged, found), text, ready, None
        )  # fmt: skip

    @on_gpu()
    @user_errors
    def overlay_of(forged: Forged, index: int):
        return backend.mistake_overlay(registry[forged.key], forged, index)

    def explain(forged: Forged | None, event: gr.SelectData):
        return None if forged is None else overlay_of(forged, int(event.index))

    def changed(bundle: str):
        known = list(registry[bundle].bundle.layers)
        return gr.Dropdown(known, value=known), plots.empty(_NO_CUES), "", [], "", None, None

    asked = [source, true, fooled, layers, neurons, words, blocked, painter]
    private = {"api_visibility": "private"}
    look.click(find, asked, [said, edited], concurrency_id=MODEL, **private)
    gr.api(find_cues, api_name="find_cues", concurrency_id=MODEL)
    made = draw.click(
        make,
        [source, true, fooled, edited, count, each, seed, layers, neurons, words, blocked,
         describer, painter],
        [state, gallery, rates, described, saved, place],
        api_name="attack", concurrency_id=MODEL,
    )  # fmt: skip
    stop.click(None, cancels=[made], **private)
    gallery.select(explain, state, place, concurrency_id=MODEL, **private)
    source.change(changed, source, [layers, said, edited, gallery, rates, place, state], **private)
