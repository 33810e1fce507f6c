"""Edits on the page: found for a picture, run through the model, from addresses and files."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tabs.edit.reading import TEMPLATES, Reading, probabilities, read
from tabs.server.session import BundleSession

if TYPE_CHECKING:
    from clipneurons.edit.edit import Edit

MOST_FOUND = 64
OTHER_MEANS = (
    "This edit was found about the neurons’ means over its own images; here they are scaled about "
    "their means over the bundle’s data."
)
_MEANS = 64  # gallery pictures behind mean activations
_MOST_BYTES = 2**20  # of an edit's file
_UNIT = re.compile(r"(\d{1,4})\.(\d{1,7}):([^:;]{1,12})")
_WORDS = re.compile(r"(.{1,100})>([^:;>]{1,12}):([^:;]{1,12})")


def edited(session: BundleSession, reading: Reading, edit: Edit | None) -> Reading:
    """The same images and classes under another edit."""
    target = reading.names[reading.wanted]
    return read(session, list(reading.images), list(reading.names), target, edit, reading.picture)


def with_units(reading: Reading, units: list[tuple[int, int]]) -> Edit:
    """The mean-ablation of some units of the reading's model."""
    from clipneurons.edit.edit import Edit, UnitFactor

    return Edit(reading.edit.weights_sha256, tuple(UnitFactor(*place) for place in units))


def fewest(session: BundleSession, reading: Reading, wanted: str) -> tuple[Edit, dict]:
    """The fewest units whose ablation turns the first image to the wanted class.

    Raises `ValueError` where it is read so already, or no `MOST_FOUND` units turn it.
    """
    from clipneurons.edit.class_effects import places
    from clipneurons.edit.preview import fewest_that_turn, share_that_turn

    target = reading.names.index(wanted) if wanted else reading.wanted
    if target == reading.top:
        raise ValueError(
            f"The picture is read as {reading.names[target]} already: choose what it should be."
        )
    units = fewest_that_turn(reading.logits, reading.effects, target, MOST_FOUND)
    if units is None:
        raise ValueError(
            f"No {MOST_FOUND} neurons turn this picture to {reading.names[target]}: what misleads "
            "the model is spread too wide, or said elsewhere than by these neurons."
        )
    chance = share_that_turn(reading.logits, reading.effects, target, len(units))
    found = {"wanted": reading.names[target], "count": len(units), "random_turn": chance}
    return with_units(reading, places(session.bundle, units)), found


def for_real(session: BundleSession, reading: Reading, edit: Edit) -> list[list[float]]:
    """Shares of the classes, by image, when the edit is made on the activations of the model.

    Activations are scaled about their mean over gallery pictures. Raises `ValueError` for a model
    into whose weights the edit cannot be folded.
    """
    import torch

    from clipneurons.edit.fold import fold, mean_of_units
    from clipneurons.text.embedding import embed_texts

    clip = session.clip

    def make():
        numbers = session.sample(_MEANS)
        batches = (torch.stack([session.pixels(i) for i in numbers[at : at + 32]])
                   for at in range(0, len(numbers), 32))  # fmt: skip
        return mean_of_units(clip, batches, session.bundle.config.layers)

    factors = edit.factors(session.bundle)
    if factors:
        clip = fold(clip, factors, session.cached("means of units", make))
    texts = embed_texts(session.clip, list(reading.names), TEMPLATES)
    embeddings = torch.nn.functional.normalize(clip.encode_image(reading.pixels), dim=1)
    return [probabilities(row, reading.scale) for row in (embeddings @ texts.T).cpu()]


def edit_of_link(text: str, session: BundleSession) -> Edit:
    """The edit of an address: `LAYER.UNIT:FACTOR` and `WORDS>COEFFICIENT:FACTOR`, with semicolons.

    Raises `EditError` for anything else.
    """
    from clipneurons.edit.edit import Edit, EditError, UnitFactor, WordFactor

    units, words = [], []
    for item in filter(None, text.split(";")):
        try:
            if found := _UNIT.fullmatch(item):
                units.append(UnitFactor(int(found[1]), int(found[2]), float(found[3])))
            elif found := _WORDS.fullmatch(item):
                words.append(WordFactor(found[1], float(found[2]), float(found[3])))
            else:
                raise ValueError
        except ValueError:
            raise EditError(
                f"{item!r} in the address: expected an edit such as 4.12:0 (layer, neuron, factor) "
                "or dog>0.1:0 (words, coefficient, factor)"
            ) from None
    return Edit(session.bundle.config.weights_sha256, tuple(units), tuple(words))


def with_words(edit: Edit, words: str, more_than: float | None) -> Edit:
    """The edit with all units ablated that say some words more than so much."""
    from clipneurons.edit.edit import WordFactor

    words = " ".join(words.split())
    if not words:
        raise ValueError("Write a word that neurons say, such as: red")
    others = tuple(rule for rule in edit.words if rule.words != words)
    return replace(edit, words=(*others, WordFactor(words, float(more_than or 0), 0.0)))


def edit_of_text(text: str):
    """An `Edit` from JSON, None from nothing."""
    from clipneurons.edit.edit import Edit

    return Edit.from_json(text) if text.strip() else None


def edit_of_file(path: str | None):
    """An `Edit` from a file that was sent; `ValueError` says what is wrong with it."""
    if path is None:
        raise ValueError("Choose an edit's JSON file.")
    file = Path(path)
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError("This file is larger than 1 MB: expected an edit's JSON.")
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError("This file is not text: expected an edit's JSON.") from None
    return edit_of_text(text) or edit_of_text("{}")
