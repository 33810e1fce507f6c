"""The reading of an image as HTML: picture, concepts, neurons, other readings, several compared."""

from __future__ import annotations

from html import escape

from clipneurons.bundle.unit_words import plain
from tabs.ui.names import named
from tabs.ui.patch_mask import patch_mask
from tabs.ui.plots import Bar, bars, empty, link, section
from tabs.ui.unknown_words import unknown_words_html

_OTHERS = {
    "dense": ("All that neurons write", "Σ⟨φ − b, text⟩ over all neurons, exactly."),
    "by-place": (
        "Place by place", "What they write at each place, in the shares the model reads there.",
    ),
    "sparse-projection": (
        "Phrases, signed weights", "Σ γ⟨φ, r⟩: effects against a direction count so.",
    ),
    "sparse-norm": (
        "Phrases, the paper’s weights", "Σ γ‖φ‖: sizes of effects, whatever their sign.",
    ),
    "nearest_texts": ("Nearest texts", "Cosine of the whole embedding with each text."),
    "text_span": ("Attention heads (TextSpan)", "First-order effects, Gandelsman et al. 2024."),
}  # fmt: skip


def concepts_html(key: str, found: dict) -> str:
    """Picture, what CLIP itself says, concepts that light up their patches, and the neurons."""
    concepts = named(found["concepts"])
    found = found | {"concepts": concepts}
    if not concepts:
        none = empty("No neuron reacts to this picture more than to most others: no concepts.")
        return f'<article class="cn-concepts">{none}</article>'
    short = map(plain, found.get("in_short") or [one["text"] for one in concepts[:3]])
    title = ", ".join(dict.fromkeys(short))
    choices = f'<fieldset class="cn-choices" aria-label="Concepts">{_rows(concepts)}</fieldset>'
    note = "Point at one, or choose it, to light up the patches where the neurons that say it fire."
    if found.get("way") == "by-place":
        note += " In per cent of what the neurons write."
    body = (
        f"<div><h2>{escape(title)}</h2>{unknown_words_html(found.get('never_trained', []))}"
        f"{section('Concepts', choices, note)}</div>"
    )
    return (
        f'<article class="cn-concepts"><div class="cn-look">{_picture(found, title)}{body}'
        f"</div>{_neurons_html(key, found)}</article>"
    )


def _picture(found: dict, title: str) -> str:
    maps = "".join(
        f'<img class="cn-map cn-map-{i}" alt="" src="{patch_mask(one["map"])}">'
        for i, one in enumerate(found["concepts"])
    )
    return (
        f'<div><div class="cn-picture"><img src="{escape(found["shown"])}" alt="The picture as the '
        f'model sees it. Concepts found: {escape(title)}">{maps}</div>{_clip_html(found)}</div>'
    )


def _clip_html(found: dict) -> str:
    """One line: the texts nearest to the whole embedding, synonyms in brackets."""
    said = []
    for group in found["clip_says"]:
        first, *others = dict.fromkeys(map(plain, group["texts"]))
        also = f" ({escape(', '.join(others[:2]))})" if others else ""
        said.append(
            f'<span title="cosine {group["cosine"]:.2f}"><b>{escape(first)}</b>{also}</span>'
        )
    return f'<p class="cn-clip">CLIP itself says {"; ".join(said)}.</p>' if said else ""


def _rows(concepts: list[dict]) -> str:
    most = concepts[0]["weight"]
    return "".join(
        f'<label title="{escape(one["text"])}: {one["weight"]:.3g}">'
        f'<input type="radio" name="cn-concept" class="cn-pick-{i}">'
        f'<span class="cn-name">{escape(one["text"])}</span>'
        f'<span class="cn-track" aria-hidden="true"><span class="cn-bar cn-plus" '
        f'style="--share:{one["weight"] / most:.4f}"></span></span>'
        f'<span class="cn-value">{one["weight"]:.2f}</span></label>'
        for i, one in enumerate(concepts)
    )


def _neurons_html(key: str, found: dict) -> str:
    rows = "".join(
        f"<tr><td>{_card_link(key, one)}</td><td>{escape(one['phrases'])}</td>"
        f'<td class="cn-number">{one["norm"]:.2f}</td>'
        f'<td class="cn-number">{one["projection"]:+.2f}</td>'
        f'<td class="cn-number">{one["over_threshold"]:.1f}×</td></tr>'
        for one in found["neurons"]
    ).replace(">-", ">−")
    table = (
        '<div class="cn-scroll"><table class="cn-table cn-activated"><thead><tr><th>Neuron</th>'
        '<th>Says</th><th class="cn-number">Effect</th><th class="cn-number">Along its '
        'direction</th><th class="cn-number">Over threshold</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    note = (
        f"{found['activated']} neurons react to this picture more than to "
        f"{found['percentile']:g} % of the data; the strongest are below. Follow one into the "
        "dictionary."
    )
    return section("Neurons behind it", table, note)


def _card_link(key: str, one: dict) -> str:
    layer, unit = one["layer"], one["unit"]
    return link(f"{layer} · {unit}", tab="dictionary", layer=layer, unit=unit, bundle=key)


def others_html(others: dict[str, list[dict] | None]) -> str:
    """The same picture read in other ways; None for one that the model does not have."""
    parts = []
    for name, pairs in others.items():
        title, note = _OTHERS[name]
        rows = [Bar(one["text"], one["weight"]) for one in named(pairs or ())]
        body = bars(rows, label=title) if rows else empty("Not defined for this kind of model.")
        parts.append(section(title, body, note))
    return f'<div class="cn-three">{"".join(parts)}</div>'


def contrast_html(found: dict) -> str:
    """Common concepts, and each picture's own."""

    def rows(pairs: list[dict], label: str) -> str:
        return bars([Bar(one["text"], one["weight"]) for one in named(pairs)], label=label)

    own = "".join(
        f'<div><div class="cn-gallery"><figure><img alt="Picture {i + 1}" src="{uri}"></figure>'
        "</div>"
        f"{rows(pairs, f'Only in picture {i + 1}')}</div>"
        for i, (uri, pairs) in enumerate(zip(found["shown"], found["only"], strict=True))
    )
    return (
        '<article class="cn-concepts">'
        + section("In all of them", rows(found["common"], "Common concepts"))
        + section("In one more than in the others", f'<div class="cn-three">{own}</div>')
        + "</article>"
    )
