"""One unit as HTML: its label and score, texts, images, figures, similar units."""

from __future__ import annotations

from html import escape

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.labels import EXPLAINS, SPECIFIC, Label
from clipneurons.bundle.neuron import Neuron
from clipneurons.bundle.unit_words import plain, signed, unit_name
from clipneurons.dictionary.dictionary import Dictionary
from tabs.explore.images import Gallery, Maps, gallery_html
from tabs.ui.plots import Bar, bars, empty, figures, histogram, percent, section
from tabs.ui.units import unit_bar

NOT_TESTED = "Labels of this bundle were not tested."


def card_html(
    key: str,
    dictionary: Dictionary,
    card: Neuron,
    effects: list[tuple[str, float]] | None,
    maps: Maps | None = None,
) -> str:
    """The whole card; `effects` on names are None until measured.

    `maps` are where it fires in the images, as far as that was asked for.
    """
    if card.dead:
        note = "Its effect is the same on every image, so it says nothing."
        where = f'<p class="cn-place">{escape(card.place)}</p>'
        return (
            f'<article class="cn-card"><header>{where}<h2>Silent</h2></header>{empty(note)}'
            "</article>"
        )
    unsure = card.label is not None and not card.label.reliable
    words = (
        words_html(key, card)
        + _neighbours_html(key, dictionary, card)
        + heads_html(key, dictionary, card)
    )
    images = section(
        "Where it reacts most",
        gallery_html(Gallery(key, dictionary.bundle, maps or {}), card),
        "The strongest first; below each image, the norm of the effect. Click one for its caption.",
    )
    # Of a neuron without a reliable label the images come first.
    columns = (images, words) if unsure else (words, images)
    return (
        f'<article class="cn-card{" cn-unsure" * unsure}">{_header_html(card)}'
        f"{_shared_html(dictionary.bundle, card)}{_figures_html(card)}"
        f"{_columns_html(*columns)}"
        f"{_columns_html(_reactions_html(dictionary, card), _names_html(card, effects))}</article>"
    )


def _columns_html(left: str, right: str) -> str:
    return f'<div class="cn-columns"><div>{left}</div><div>{right}</div></div>'


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
    return (
        f'<header><p class="cn-place">{escape(card.place)}</p><h2>{escape(title)}</h2>{rest}'
        f"{_label_score_html(card)}</header>"
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
    return figures(
        [
            (
                percent(card.participation_ratio), "of images carry it",
                "Participation ratio of the effect over the data set: how many images share it",
            ),
            (
                percent(card.explained_variance, 0), "lies along one direction",
                "Variance of its strongest effects that one direction explains; the texts below "
                "describe this direction",
            ),
            (
                f"{card.mean_top_norm:.2g}", "strength",
                "Mean norm of its strongest effects, where a whole image embedding has norm 100",
            ),
        ]
    )  # fmt: skip


def _neighbours_html(key: str, dictionary: Dictionary, card: Neuron) -> str:
    bundle = dictionary.bundle
    rows = [unit_bar(key, bundle, hit.layer, hit.unit, hit.cosine) for hit in card.neighbours]
    return section(
        f"{card.noun.capitalize()}s like it",
        bars(rows, label=f"Nearest {card.noun}s by direction", most=1.0, wide=True),
        "Layer · number, reliable label, and the cosine of the two directions.",
    )


def _reactions_html(dictionary: Dictionary, card: Neuron) -> str:
    """Number of images by the size of the effect."""
    config = dictionary.bundle.config
    return section(
        "How strongly it reacts",
        histogram(
            config.norm_edges,
            dictionary.bundle.layers[card.layer].norm_histogram[card.unit].tolist(),
            label=f"Number of images by effect norm of {card.place}",
            unit="size of its effect",
            mark=card.threshold,
        ),
        "Number of images by the size of the effect. Right of the dashed line, the "
        f"top {100 - config.percentile:g} %: there it counts as activated.",
    )


def _names_html(card: Neuron, effects: list[tuple[str, float]] | None) -> str:
    """What the unit adds to the match with class names."""
    if effects:
        body = bars(
            [Bar(name, value) for name, value in effects],
            label=f"Effect of the {card.noun} on each class name",
            digits=3,
        )
    elif effects is None:
        body = empty("Being measured …")
    else:
        body = empty("Write some names in the field above the card.")
    return section(
        "What it does to these names",
        body,
        "What a strong reaction adds to the match of an image with each name.",
    )


def words_html(key: str, card: Neuron) -> str:
    """The label, where one was tested, and the decomposition of the direction."""

    def texts(pairs: list[tuple[str, float]], what: str) -> str:
        return bars(
            [Bar(plain(t), c, link={"tab": "explore", "q": t, "bundle": key}) for t, c in pairs],
            label=f"{what} of {card.place}, with signed weights",
        )

    direction = section(
        "Decomposition of its direction",
        texts(card.decomposition, "Decomposition"),
        "The direction as a sparse sum of texts (the paper’s reading). When the "
        f"{card.noun} is active, the image’s embedding moves toward these texts, and away from "
        "those with a minus.",
    )
    if card.label is None:
        return direction
    unsure = "" if card.label.reliable else " cn-unsure"
    label = section(
        "Label" if card.label.reliable else "Best label found, not reliable",
        texts(list(zip(card.label.texts, card.label.weights, strict=True)), "Label"),
        "How much larger the effect is, in its standard deviations, where an image shows the text.",
    )
    return f'<div class="cn-words{unsure}">{label}{direction}</div>'


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
    return section(
        f"{card.noun.capitalize()} {card.neuron} through all its heads",
        bars(rows, label=f"Share of the {card.noun}'s effect by heads", most=1.0, wide=True),
        f"One {card.noun} can say several things, one through each of its "
        f"{bundle.config.units_per_neuron} heads. Heads that say about the same stand together; "
        "the bar is their share of its strongest effects.",
    )


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
        f"<b>{value}</b> {_verdict(label, noun)}</p>"
    )


def _verdict(label: Label, noun: str) -> str:
    """How far a label can be relied on, in words."""
    if label.reliable:
        return "simulation score: a reliable label"
    if label.significant:
        return "no reliable label: texts predict it only a little"
    return f"no reliable label: other {noun}s’ labels predict it as well"


def _share(correlation: float) -> float:
    """Of the bar's length; what predicts the opposite has no bar."""
    return min(max(correlation, 0.0), 1.0)
