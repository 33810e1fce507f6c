"""Concepts of an image as HTML: the image, its concepts, the neurons behind them; a comparison."""

from __future__ import annotations

from html import escape

from clipneurons.bundle.unit_words import plain
from tabs.ui.image_input import cropped_html
from tabs.ui.plots import Bar, bars, empty, link, patch_mask, section
from tabs.ui.words import named, unknown_words_html

_NOTE = "Point at a concept, or choose it, to see where in the image it is. In % of all effects."
_NOTHING = "Nothing recognised: the image is one flat colour."
_NO_CONCEPTS = "No concepts: this model’s layers have no spatial tokens to read."
_DIFFERS = (
    " Unlike this, concepts are read patch by patch, so that small objects count beside large ones."
)


def concepts_html(key: str, found: dict | None) -> str:
    """The image with the zero-shot texts, concepts that light up their patches, and the neurons."""
    if not found:
        return ""
    concepts = named(found["concepts"])
    if not concepts:
        reason = _NO_CONCEPTS if found["recognised"] else _NOTHING
        return f'<article class="cn-concepts">{empty(reason)}</article>'
    title = ", ".join(dict.fromkeys(map(plain, found["heading"])))
    choices = f'<fieldset class="cn-choices" aria-label="Concepts">{_rows(concepts)}</fieldset>'
    body = (
        f"<div><h2>{escape(title)}</h2>{unknown_words_html(found.get('never_trained', []))}"
        f"{section('Concepts', choices, _NOTE)}</div>"
    )
    return (
        f'<article class="cn-concepts"><div class="cn-look">{_image(found, concepts, title)}{body}'
        f"</div>{_neurons(key, found)}</article>"
    )


def _image(found: dict, concepts: list[dict], title: str) -> str:
    maps = "".join(
        f'<img class="cn-map cn-map-{i}" alt="" src="{patch_mask(concept["map"])}">'
        for i, concept in enumerate(concepts)
    )
    return (
        f'<div><div class="cn-picture"><img src="{escape(found["shown"])}" alt="The image as the '
        f'model sees it. Concepts found: {escape(title)}">{maps}</div>'
        f"{cropped_html(found['share_seen'])}{_zero_shot(found)}</div>"
    )


def _zero_shot(found: dict) -> str:
    """The texts nearest to the whole embedding, synonyms in brackets."""
    texts = []
    for group in found["zero_shot"]:
        first, *others = dict.fromkeys(map(plain, group["texts"]))
        synonyms = f" ({escape(', '.join(others[:2]))})" if others else ""
        cosine = f"cosine {group['cosine']:.2f}"
        texts.append(f'<span title="{cosine}"><b>{escape(first)}</b>{synonyms}</span>')
    if not texts:
        return ""
    why = "" if found["zero_shot_agrees"] else _DIFFERS
    return (
        f'<p class="cn-clip">Zero-shot, the whole image is nearest to {"; ".join(texts)}.{why}</p>'
    )


def _rows(concepts: list[dict]) -> str:
    most = concepts[0]["weight"]
    return "".join(
        f'<label title="{escape(concept["text"])}: {concept["weight"]:.3g} %">'
        f'<input type="radio" name="cn-concept" class="cn-pick-{i}">'
        f'<span class="cn-name">{escape(concept["text"])}</span>'
        f'<span class="cn-track" aria-hidden="true"><span class="cn-bar cn-plus" '
        f'style="--share:{concept["weight"] / most:.4f}"></span></span>'
        f'<span class="cn-value">{concept["weight"]:.2f}</span></label>'
        for i, concept in enumerate(concepts)
    )


def _neurons(key: str, found: dict) -> str:
    rows = "".join(
        f"<tr><td>{_dashboard_link(key, neuron)}</td><td>{escape(neuron['label'])}</td>"
        f'<td class="cn-number">{neuron["norm"]:.2f}</td>'
        f'<td class="cn-number">{neuron["projection"]:+.2f}</td>'
        f'<td class="cn-number">{neuron["over_threshold"]:.1f}×</td></tr>'
        for neuron in found["neurons"]
    ).replace(">-", ">−")
    table = (
        '<div class="cn-scroll"><table class="cn-table cn-activated"><thead><tr><th>Neuron</th>'
        '<th>Label</th><th class="cn-number">Effect</th><th class="cn-number">Along its '
        'direction</th><th class="cn-number">Over threshold</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    note = (
        f"{found['activated']} neurons have a larger effect on this image than on "
        f"{found['percentile']:g} % of the data. The largest are below; follow one to its "
        "dashboard."
    )
    return section("Neurons behind it", table, note)


def _dashboard_link(key: str, neuron: dict) -> str:
    layer, unit = neuron["layer"], neuron["unit"]
    return link(f"{layer} · {unit}", tab="explore", layer=layer, unit=unit, bundle=key)


def contrast_html(found: dict) -> str:
    """Common concepts, and each image's own."""

    def rows(concepts: list[dict], label: str) -> str:
        shown = [Bar(concept["text"], concept["weight"]) for concept in named(concepts)]
        return bars(shown, label=label)

    own = "".join(
        f'<div><div class="cn-gallery"><figure><img alt="Image {i}" src="{uri}"></figure></div>'
        f"{rows(concepts, f'Only in image {i}')}</div>"
        for i, (uri, concepts) in enumerate(zip(found["shown"], found["only"], strict=True), 1)
    )
    return (
        '<article class="cn-concepts">'
        + section("In all of them", rows(found["common"], "Common concepts"))
        + section("In one more than in the others", f'<div class="cn-three">{own}</div>')
        + "</article>"
    )
