"""A neuron's card to take along: as data, as JSON, as a picture."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import partial
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.neuron import Neuron
from clipneurons.bundle.unit_words import plain, signed_words
from tabs.ui.plots import MINUS, PLUS, percent
from tabs.ui.theme import picture_font


def json_file(card: Neuron) -> str:
    """Name and content of the JSON download, for `cnSave` of `page.js`."""
    text = json.dumps(card.to_dict(), indent=1, ensure_ascii=False)
    return file_to_save(_name(card, "json"), "application/json", text.encode())


def png_file(bundle: Bundle, card: Neuron) -> str:
    """Name and content of the PNG download, for `cnSave` of `page.js`."""
    buffer = BytesIO()
    card_picture(bundle, card).save(buffer, "PNG")
    return file_to_save(_name(card, "png"), "image/png", buffer.getvalue())


def _name(card: Neuron, ending: str) -> str:
    return f"layer{card.layer}-neuron{card.unit}.{ending}"


def file_to_save(name: str, mime: str, content: bytes) -> str:
    """A download's name and content, for `cnSave` of `page.js`."""
    return json.dumps({"name": name, "uri": f"data:{mime};base64,{b64encode(content).decode()}"})


def card_picture(bundle: Bundle, card: Neuron) -> Image.Image:
    """The dashboard as a picture, 1200 × 675 pixels: title, texts, top images."""
    ink, soft, paper = "#1e1c1a", "#5a544b", "#fffdfa"
    canvas = Image.new("RGB", (1200, 675), paper)
    draw = ImageDraw.Draw(canvas)
    text, heading = picture_font, partial(picture_font, heading=True)
    named = card.label is not None and card.label.reliable
    title = ", ".join(signed_words(bundle, card.layer, card.unit)) or f"Unit {card.unit}"
    title = "Silent" if card.dead else title
    texts = (
        list(zip(card.label.texts, card.label.weights, strict=True))
        if named and card.label
        else card.decomposition
    )
    draw.text((48, 40), card.place, soft, text(24))
    draw.text((48, 72), _fit(title, heading(44), 1104), ink, heading(44))
    numbers = (
        f"{percent(card.participation_ratio)} of images carry it    "
        f"{percent(card.explained_variance, 0)} along one direction"
    )
    draw.text((48, 134), numbers, soft, text(22))
    most = max((abs(c) for _, c in texts), default=1.0)
    signs = any(c < 0 for _, c in texts)
    zero, room = (410, 105) if signs else (310, 205)
    for i, (words, c) in enumerate(texts[:12]):
        y = 196 + 36 * i
        draw.text((48, y), _fit(plain(words), text(22), 245), ink, text(22))
        end = zero + room * c / most
        bar = (min(zero, end), y + 7, max(zero, end), y + 23)
        draw.rectangle(bar, fill=PLUS if c > 0 else MINUS)
        draw.text((525, y), f"{c:+.2f}".replace("-", "−"), soft, text(20))
    for i, image in enumerate(card.images[:15]):
        picture = image.thumbnail.resize((104, 104), Image.Resampling.LANCZOS)
        canvas.paste(picture, (618 + 110 * (i % 5), 196 + 118 * (i // 5)))
    model = bundle.config.data.name if bundle.config.at_hand else bundle.config.model
    draw.text((48, 634), f"clipneurons · {model}", soft, text(18))
    return canvas


def _fit(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip(" ,") + "…"
