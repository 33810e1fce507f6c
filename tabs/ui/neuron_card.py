"""A neuron's card: as HTML for the page, as JSON and PNG to take along."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import asdict
from functools import partial
from html import escape
from io import BytesIO

import torch
from PIL import Image, ImageDraw, ImageFont

from clipneurons.analysis.clustering import Cluster
from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.unit_words import signed, signed_words
from clipneurons.explore.dictionary import Dictionary, NeuronDashboard
from clipneurons.images.convert import webp_uri
from tabs.server.uploads import open_image
from tabs.ui.plots import MINUS, PLUS, Bar, bars, empty, figures, histogram, section
from tabs.ui.theme import picture_font
from tabs.ui.trust import trust_html

SHOWN = 24  # images of a gallery
_LISTS = ("phrases", "decomposition", "images", "neighbours")


def place(card: NeuronDashboard) -> str:
    """Where the unit is, in words."""
    head = "" if card.head is None else f", head {card.head}"
    return f"Layer {card.layer}, neuron {card.neuron}{head}"


def says(bundle: Bundle, layer: int, unit: int, count: int = 4) -> str:
    """The unit's first phrases as one line."""
    return ", ".join(signed_words(bundle, layer, unit, count)) or "—"


def unit_bar(key: str, bundle: Bundle, layer: int, unit: int, value: float, hint: str = "") -> Bar:
    """A unit with its words and a value, as a bar whose label leads to its card."""
    link = {"tab": "dictionary", "layer": layer, "unit": unit, "bundle": key}
    return Bar(f"{layer} · {unit}  {says(bundle, layer, unit, 3)}", value, hint, link)


def card_html(
    reading_key: str,
    dictionary: Dictionary,
    card: NeuronDashboard,
    groups: list[Cluster] | None,
    effects: list[tuple[str, float]] | None,
) -> str:
    """The whole card; `groups` of the shown images and `effects` on names, None until measured."""
    bundle = dictionary.bundle
    where = f'<p class="cn-place">{escape(place(card))}</p>'
    if card.dead:
        note = "Its effect is the same on every image, so it says nothing."
        header = f"<header>{where}<h2>Silent</h2></header>"
        return f'<article class="cn-card">{header}{empty(note)}</article>'
    toward = ", ".join([text for text, c in card.phrases if c > 0][:3])
    against = ", ".join([text for text, c in card.phrases if c < 0][:3])
    title = toward or f"Against {against}"
    both = toward and against
    rest = f'<p class="cn-says">and against {escape(against)}</p>' if both else ""
    numbers = figures(
        [
            (
                f"{card.significant_share:.1%}", "of images carry it",
                "Participation ratio of the effect over the data set: how many images share it",
            ),
            (
                f"{card.explained_variance:.0%}", "lies along one direction",
                "Variance of its strongest effects that one direction explains; the texts below "
                "describe this direction",
            ),
            (
                f"{card.effective_concepts:.1f}", "effective concepts",
                "Effective number of distinct phrases; near 1 when all phrases say the same",
            ),
            (
                f"{card.mean_top_norm:.2g}", "strength",
                "Mean norm of its strongest effects, where a whole image embedding has norm 100",
            ),
        ]
    )  # fmt: skip
    arrays = bundle.layers[card.layer]
    unsure = card.trust is not None and not card.trust.reliable
    left = words_html(reading_key, card)
    right = section(
        "Where it reacts most", gallery(bundle, card, groups), gallery_note(card, groups)
    )
    left += section(
        "Neurons like it",
        bars(
            [
                unit_bar(reading_key, bundle, hit.layer, hit.unit, hit.score)
                for hit in card.neighbours
            ],
            label="Nearest neurons by direction",
            most=1.0,
            wide=True,
        ),
        "Layer · number, phrases, and the cosine of the two directions.",
    )  # fmt: skip
    left += heads_html(reading_key, dictionary, card)
    names = section(
        "What it does to these names",
        bars(
            [Bar(name, value) for name, value in effects],
            label="Effect of the neuron on each class name",
            digits=3,
        )
        if effects
        else empty(
            "Being measured …"
            if effects is None
            else "Write some names in the field above the card."
        ),
        "What a strong reaction adds to the match of an image with each name.",
    )
    reacts = section(
        "How strongly it reacts",
        histogram(
            bundle.config.norm_edges,
            arrays.norm_histogram[card.unit].tolist(),
            label=f"Number of images by effect norm of {place(card)}",
            unit="size of its effect",
            mark=card.threshold,
        ),
        "Number of images by the size of the effect. Right of the dashed line, the "
        f"top {100 - bundle.config.percentile:g} %: there it counts "
        "as activated.",
    )
    # Of a neuron whose words cannot be trusted the images come first.
    columns = (
        f"<div>{right}</div><div>{left}</div>"
        if unsure
        else (f"<div>{left}</div><div>{right}</div>")
    )
    return (
        f'<article class="cn-card{" cn-unsure" * unsure}"><header>{where}'
        f"<h2>{escape(title)}</h2>{rest}{trust_html(card.trust)}</header>{numbers}"
        f'<div class="cn-columns">{columns}</div>'
        f'<div class="cn-columns">{reacts}{names}</div></article>'
    )


def words_html(reading_key: str, card: NeuronDashboard) -> str:
    """The tested label, where there is one, and the decomposition of the direction."""

    def phrases(words: list[tuple[str, float]], label: str) -> str:
        return bars(
            [
                Bar(t, c, link={"tab": "dictionary", "q": t, "bundle": reading_key})
                for t, c in words
            ],
            label=f"{label} of {place(card)}, with signed weights",
        )

    direction = section(
        "What it says" if card.trust is None else "What its direction says",
        phrases(card.decomposition, "Phrases of the direction"),
        "When it reacts, CLIP’s description of the image moves toward these phrases, and away from "
        "those with a minus. Their weighted sum is the neuron’s direction.",
    )
    if card.trust is None:
        return direction
    label = section(
        "What predicts it",
        phrases(card.phrases, "Phrases of the label"),
        "The more of this an image shows, the more the neuron does there; of what has a minus, the "
        "less.",
    )
    unsure = "" if card.trust.reliable else " cn-unsure"
    return f'<div class="cn-words{unsure}">{label}{direction}</div>'


def heads_html(reading_key: str, dictionary: Dictionary, card: NeuronDashboard) -> str:
    """What the neuron says through its other heads; nothing for a ViT."""
    found = dictionary.sub_concepts(card.layer, card.unit)
    if not found:
        return ""
    bundle, rows = dictionary.bundle, []
    for group in found:
        heads = ", ".join(map(str, group.heads))
        words = ", ".join(signed(text, c) for text, c in group.phrases) or "—"
        target = {
            "tab": "dictionary", "layer": card.layer, "unit": group.units[0], "bundle": reading_key,
        }  # fmt: skip
        label = f"head{'s' * (len(group.heads) > 1)} {heads}  {words}"
        rows.append(Bar(label, group.share, link=target))
    return section(
        f"Neuron {card.neuron} through all its heads",
        bars(rows, label="Share of the neuron's effect by heads", most=1.0, wide=True),
        "One neuron can say several things, one through each of its "
        f"{bundle.config.units_per_neuron} heads. Heads that say about the same stand together; "
        "the bar is their share of its strongest effects.",
    )


def gallery_note(card: NeuronDashboard, groups: list[Cluster] | None) -> str:
    """What the order of the pictures means."""
    if groups and len(groups) > 1:
        return "Grouped by what they show; below each picture, the size of the effect."
    return "The strongest first; below each picture, the size of the effect."


def shown_images(bundle: Bundle, card: NeuronDashboard) -> list[tuple[int, float]]:
    """Top images that have a thumbnail."""
    kept = set(bundle.examples)
    return [(image, norm) for image, norm in card.images if image in kept][:SHOWN]


def gallery(bundle: Bundle, card: NeuronDashboard, groups: list[Cluster] | None) -> str:
    """The unit's top images, in groups where there are several."""
    images = shown_images(bundle, card)
    if not images:
        return empty("The bundle keeps no picture that this neuron reacts to strongly.")
    groups = groups or [Cluster(tuple(range(len(images))), ())]
    parts = []
    for group in groups:
        pictures = "".join(_picture(bundle, *images[member]) for member in group.members)
        title = ""
        if len(groups) > 1:
            count = f"{len(group.members)} picture{'s' if len(group.members) > 1 else ''}"
            title = f"<h4>{escape(', '.join(group.texts))} <small>{count}</small></h4>"
        parts.append(f'<div class="cn-group">{title}<div class="cn-gallery">{pictures}</div></div>')
    return "".join(parts)


def _picture(bundle: Bundle, image: int, norm: float) -> str:
    caption = escape(bundle.examples.caption(image) or f"image {image}")
    return (
        f'<figure title="{caption}"><img alt="{caption}" '
        f'src="{webp_uri(bundle.examples[image])}"><figcaption>{norm:.2g}</figcaption></figure>'
    )


def card_data(bundle: Bundle, card: NeuronDashboard) -> dict:
    """The card as plain data."""
    config = bundle.config
    return {
        "model": config.model,
        "pretrained": config.pretrained,
        "weights_sha256": config.weights_sha256,
        "data": config.data.name,
        **{k: v for k, v in asdict(card).items() if k not in _LISTS},
        "phrases": [{"text": text, "coefficient": c} for text, c in card.phrases],
        "decomposition": [{"text": text, "coefficient": c} for text, c in card.decomposition],
        "images": [
            {"index": i, "norm": n, "caption": bundle.examples.caption(i)}
            for i, n in shown_images(bundle, card)
        ],
        "neighbours": [
            {
                "layer": hit.layer, "unit": hit.unit, "cosine": hit.score,
                "phrases": signed_words(bundle, hit.layer, hit.unit, 3),
            }
            for hit in card.neighbours
        ],
    }  # fmt: skip


def json_file(bundle: Bundle, card: NeuronDashboard) -> str:
    """Name and content of the JSON download, for `cnSave` of `page.js`."""
    text = json.dumps(card_data(bundle, card), indent=1, ensure_ascii=False)
    return _file(card, "json", "application/json", text.encode())


def png_file(bundle: Bundle, card: NeuronDashboard) -> str:
    """Name and content of the PNG download, for `cnSave` of `page.js`."""
    buffer = BytesIO()
    card_picture(bundle, card).save(buffer, "PNG")
    return _file(card, "png", "image/png", buffer.getvalue())


def _file(card: NeuronDashboard, ending: str, mime: str, content: bytes) -> str:
    name = f"layer{card.layer}-neuron{card.unit}.{ending}"
    return json.dumps({"name": name, "uri": f"data:{mime};base64,{b64encode(content).decode()}"})


def card_picture(bundle: Bundle, card: NeuronDashboard) -> Image.Image:
    """The card as a picture, 1200 × 675 pixels: title, phrases, top images."""
    ink, soft, paper = "#1e1c1a", "#5a544b", "#fffdfa"
    canvas = Image.new("RGB", (1200, 675), paper)
    draw = ImageDraw.Draw(canvas)
    text, heading = picture_font, partial(picture_font, heading=True)
    title = ", ".join(t for t, c in card.phrases if c > 0) or "Silent"
    draw.text((48, 40), place(card), soft, text(24))
    draw.text((48, 72), _fit(title, heading(44), 1104), ink, heading(44))
    numbers = (
        f"{card.significant_share:.1%} of images carry it    "
        f"{card.explained_variance:.0%} along one direction    "
        f"{card.effective_concepts:.1f} effective concepts"
    )
    draw.text((48, 134), numbers, soft, text(22))
    most = max((abs(c) for _, c in card.phrases), default=1.0)
    signs = any(c < 0 for _, c in card.phrases)
    zero, room = (410, 105) if signs else (310, 205)
    for i, (phrase, c) in enumerate(card.phrases[:12]):
        y = 196 + 36 * i
        draw.text((48, y), _fit(phrase, text(22), 245), ink, text(22))
        end = zero + room * c / most
        bar = (min(zero, end), y + 7, max(zero, end), y + 23)
        draw.rectangle(bar, fill=PLUS if c > 0 else MINUS)
        draw.text((525, y), f"{c:+.2f}".replace("-", "−"), soft, text(20))
    for i, (image, _) in enumerate(shown_images(bundle, card)[:15]):
        picture = open_image(BytesIO(bundle.examples[image]))
        picture = picture.resize((104, 104), Image.Resampling.LANCZOS)
        canvas.paste(picture, (618 + 110 * (i % 5), 196 + 118 * (i // 5)))
    model = bundle.config.model if bundle.config.model != "." else bundle.config.data.name
    draw.text((48, 634), f"clipneurons · {model}", soft, text(18))
    return canvas


def _fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip(" ,") + "…"


def group_images(
    embeddings: torch.Tensor, dictionary: Dictionary, mean: torch.Tensor
) -> list[Cluster]:
    """Groups of a gallery's images, from their embeddings."""
    from clipneurons.analysis.clustering import clusters

    bundle = dictionary.bundle
    return clusters(embeddings, bundle.texts, bundle.text_embeddings, mean)
