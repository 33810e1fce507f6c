"""One unit as HTML: its label and score, texts, images, figures, similar units."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.labels import EXPLAINS, SPECIFIC, Label
from clipneurons.bundle.neuron import Neuron
from clipneurons.bundle.unit_words import plain, signed, unit_name
from clipneurons.dictionary.dictionary import Dictionary
from tabs.explore.images import Gallery, Maps, gallery_html, weaker_html
from tabs.ui.plots import Bar, bars, empty, folded, histogram, percent, section
from tabs.ui.units import unit_bar

NOT_TESTED = "Labels of this bundle were not tested."


@dataclass(frozen=True)
class Measured:
    """What a dashboard shows beside the bundle's own figures.

    `promotes` and `suppresses`: texts with what a strong reaction adds to an image's match with
    them; `on_names` the same for the visitor's class names, None until measured. `maps`: where the
    unit fires in the images, as far as that was asked for.
    """

    promotes: list[tuple[str, float]]
    suppresses: list[tuple[str, float]]
    on_names: list[tuple[str, float]] | None
    maps: Maps


def card_html(key: str, source: str, dictionary: Dictionary, card: Neuron, more: Measured) -> str:
    """The whole dashboard; `source` is what `load_bundle` takes."""
    attributes = f'data-layer="{card.layer}" data-unit="{card.unit}"'
    if card.dead:
        note = "Its effect is the same on every image, so it says nothing."
        where = f'<p class="cn-place">{escape(card.place)}</p>'
        return (
            f'<article class="cn-card" {attributes}><header>{where}<h2>Silent</h2></header>'
            f"{empty(note)}</article>"
        )
    unsure = card.label is not None and not card.label.reliable
    gallery = Gallery(key, dictionary.bundle, more.maps)
    folds = [
        folded("Decomposition of its direction", _decomposition_html(key, card)),
        folded("Activation intervals", _intervals_html(gallery, dictionary, card)),
        folded("Similar units", _neighbours_html(key, dictionary, card)),
        heads_html(key, dictionary, card),
        folded("Python", _python_html(source, card)),
    ]
    return (
        f'<article class="cn-card{" cn-unsure" * unsure}" {attributes}>{_header_html(card)}'
        f"{gallery_html(gallery, card)}{_figures_html(card)}{_shared_html(dictionary.bundle, card)}"
        f"{_label_html(key, card)}{_effects_html(key, card, more)}{''.join(folds)}</article>"
    )


def _header_html(card: Neuron) -> str:
    """Where the unit is, its reliable label or its number, and the label's score."""
    title, rest = unit_name(card.neuron, card.head, card.noun).capitalize(), ""
    if card.label and card.label.reliable:
        pairs = list(zip(card.label.texts, card.label.weights, strict=True))
        toward = ", ".join(plain(text) for text, weight in pairs if weight > 0)
        against = ", ".join(plain(text) for text, weight in pairs if weight < 0)
        title = toward or f"Less with {against}"
        if toward and against:
            rest = f'<p class="cn-says">and less with {escape(against)}</p>'
    steps = "".join(
        f'<button type="button" data-step="{name}" aria-label="{label} unit">{arrow}</button>'
        for name, label, arrow in (("previous", "Previous", "←"), ("next", "Next", "→"))
    )
    return (
        f'<header><p class="cn-place">{escape(card.place)}</p><span class="cn-steps">{steps}</span>'
        f"<h2>{escape(title)}</h2>{rest}{_label_score_html(card)}</header>"
    )


def _shared_html(bundle: Bundle, card: Neuron) -> str:
    """What all units of the layer share, which no label says; nothing where they share nothing."""
    shared = bundle.metrics.get("labels", {}).get("layers", {}).get(str(card.layer), {})
    notes = [
        f"All units of layer {card.layer} share {percent(component['variance'], 0)} of the variance"
        f" of their effects ({escape(', '.join(map(plain, component['texts'])))}). The label says"
        " what is specific to this one."
        for component in shared.get("shared", ())
    ]
    return "".join(f'<p class="cn-note">{note}</p>' for note in notes)


def _figures_html(card: Neuron) -> str:
    """One line of figures, each with what it means on hover."""
    figures = (
        (
            f"Active on {percent(card.participation_ratio)} of images",
            "Participation ratio of the effect over the data set",
        ),
        (
            f"Variance along one direction {percent(card.explained_variance, 0)}",
            "Share of its strongest effects that one direction explains",
        ),
        (
            f"Strength {card.mean_top_norm:.2g}",
            "Mean norm of its strongest effects, where a whole image embedding has norm 100",
        ),
    )
    parts = (f'<span title="{escape(hint)}">{escape(text)}</span>' for text, hint in figures)
    return f'<p class="cn-stats">{" · ".join(parts)}</p>'


def _neighbours_html(key: str, dictionary: Dictionary, card: Neuron) -> str:
    bundle = dictionary.bundle
    rows = [unit_bar(key, bundle, hit.layer, hit.unit, hit.cosine) for hit in card.neighbours]
    note = "Layer · number, reliable label, and the cosine of the two directions."
    body = bars(rows, label="Nearest units by direction", most=1.0, wide=True)
    return f'<p class="cn-note">{note}</p>{body}'


def _intervals_html(gallery: Gallery, dictionary: Dictionary, card: Neuron) -> str:
    """Number of images by the size of the effect, and images from its weaker ranges."""
    config = dictionary.bundle.config
    drawn = histogram(
        config.norm_edges,
        dictionary.bundle.layers[card.layer].norm_histogram[card.unit].tolist(),
        label=f"Number of images by effect norm of {card.place}",
        unit="size of its effect",
        mark=card.threshold,
    )
    note = (
        "Number of images by the size of the effect. Right of the dashed line, the "
        f"top {100 - config.percentile:g} %: there the unit counts as activated."
    )
    return f'<p class="cn-note">{note}</p>{drawn}{weaker_html(gallery, card)}'


def _effects_html(key: str, card: Neuron, more: Measured) -> str:
    """Texts that a strong reaction brings an image nearer to, those it takes it away from."""
    columns = "".join(
        section(title, _texts_html(key, card, pairs, title))
        for title, pairs in (("Promotes", more.promotes), ("Suppresses", more.suppresses))
    )
    names = ""
    if more.on_names is None:
        names = section("On your class names", empty("Being measured …"))
    elif more.on_names:
        rows = [Bar(name, value) for name, value in more.on_names]
        body = bars(rows, label="Effect of the unit on each class name", digits=3)
        names = section("On your class names", body)
    return f'<div class="cn-columns">{columns}</div>{names}'


def _texts_html(key: str, card: Neuron, pairs: list[tuple[str, float]], what: str) -> str:
    """Texts as bars; each leads to its search, with this unit still shown."""
    here = {"tab": "explore", "layer": card.layer, "unit": card.unit}
    rows = [Bar(plain(text), c, link=here | {"q": text, "bundle": key}) for text, c in pairs]
    return bars(rows, label=f"{what} of {card.place}, with signed weights")


def _label_html(key: str, card: Neuron) -> str:
    """The texts of the label, reliable or not."""
    if card.label is None:
        return ""
    texts = list(zip(card.label.texts, card.label.weights, strict=True))
    return section(
        "Label" if card.label.reliable else "Best label found, not reliable",
        _texts_html(key, card, texts, "Label"),
        "How much larger the effect is, in its standard deviations, where an image shows the text.",
    )


def _decomposition_html(key: str, card: Neuron) -> str:
    note = (
        f"The direction as a sparse sum of texts. When the {card.noun} is active, "
        "the image’s embedding moves toward these texts, and away from those with a minus."
    )
    texts = _texts_html(key, card, list(card.decomposition), "Decomposition")
    return f'<p class="cn-note">{note}</p>{texts}'


def _python_html(source: str, card: Neuron) -> str:
    """The lines that give this dashboard in a notebook."""
    head = "" if card.head is None else f", head={card.head}"
    code = (
        "import clipneurons as cn\n\n"
        f"bundle = cn.load_bundle({source!r})\n"
        f"bundle.neuron({card.layer}, {card.neuron}{head})"
    )
    return f'<pre class="cn-code"><code>{escape(code)}</code></pre>'


def heads_html(key: str, dictionary: Dictionary, card: Neuron) -> str:
    """What the unit says through its other heads; nothing for a ViT."""
    found = dictionary.sub_concepts(card.layer, card.unit)
    if not found:
        return ""
    bundle, rows = dictionary.bundle, []
    for group in found:
        heads = ", ".join(map(str, group.heads))
        words = ", ".join(signed(plain(text), c) for text, c in group.phrases) or "—"
        target = {
            "tab": "explore", "layer": card.layer, "unit": group.units[0], "bundle": key,
        }  # fmt: skip
        label = f"head{'s' * (len(group.heads) > 1)} {heads}  {words}"
        rows.append(Bar(label, group.share, link=target))
    note = (
        f"One {card.noun} can say several things, one through each of its "
        f"{bundle.config.units_per_neuron} heads. Heads that say about the same stand together; "
        "the bar is their share of its strongest effects."
    )
    body = bars(rows, label=f"Share of the {card.noun}'s effect by heads", most=1.0, wide=True)
    title = f"{card.noun.capitalize()} {card.neuron} through all its heads"
    return folded(title, f'<p class="cn-note">{note}</p>{body}')


def _label_score_html(card: Neuron) -> str:
    """The bar with the line of other units' labels on it, the score, and what it means."""
    label, noun = card.label, card.noun
    if label is None:
        return f'<p class="cn-trust">{NOT_TESTED}</p>'
    hint = (
        f"Simulation score: correlation of the {noun}’s effect, on held-out images, with what the"
        f" label predicts: {label.simulation_score:.3f}, 95 % interval {label.low:.3f} to"
        f" {label.high:.3f}. The line: 95 % of the other {noun}s’ labels stay below"
        f" {label.shuffled_line:.3f} on it. The label predicts {label.specificity:.0%} of the"
        f" layer’s other {noun}s worse. Reliable: significant, r² of at least {EXPLAINS:.0%}, and"
        f" specificity of at least {SPECIFIC:.0%}."
    ).replace("-", "−")
    value = f"{label.simulation_score:.2f}".replace("-", "−")
    return (
        f'<p class="cn-trust{"" if label.reliable else " cn-unsure"}" title="{hint}">'
        f'<span class="cn-gauge" aria-hidden="true" style="--share:'
        f'{_share(label.simulation_score):.4f};--line:{_share(label.shuffled_line):.4f}"></span>'
        f"<span>Label score <b>{value}</b></span> {_verdict(label, noun)}</p>"
    )


def _verdict(label: Label, noun: str) -> str:
    """How far a label can be relied on, in words."""
    if label.reliable:
        return "reliable"
    if label.significant:
        return "not reliable: texts predict it only a little"
    return f"not reliable: other {noun}s’ labels predict it as well"


def _share(correlation: float) -> float:
    """Of the bar's length; what predicts the opposite has no bar."""
    return min(max(correlation, 0.0), 1.0)
