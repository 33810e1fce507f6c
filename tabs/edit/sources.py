"""Where edits and images come from: addresses, files, words, and the bundle's example."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipneurons.synthetic.captions import COLOURS
from tabs.server.session import BundleSession

if TYPE_CHECKING:
    from clipneurons.edit.edit import Edit

# A neuron says a word whose coefficient in its decomposition is larger.
_SAID = 0.1
_TRIED = 24  # gallery images of which one is the example
_MOST_BYTES = 2**20  # of an edit's file
_UNIT = re.compile(r"(\d{1,4})\.(\d{1,7}):([^:;]{1,12})")
_WORDS = re.compile(r"(.{1,100})>([^:;>]{1,12}):([^:;]{1,12})")


def edit_of_link(text: str, session: BundleSession) -> Edit:
    """The edit of an address: `LAYER.UNIT:FACTOR` and `WORDS>COEFFICIENT:FACTOR`, with semicolons.

    Raises `EditError` for anything else.
    """
    from clipneurons.edit.edit import Edit, EditError, UnitFactor, WordFactor

    units, words = [], []
    for item in filter(None, text.split(";")):
        try:
            if match := _UNIT.fullmatch(item):
                units.append(UnitFactor(int(match[1]), int(match[2]), float(match[3])))
            elif match := _WORDS.fullmatch(item):
                words.append(WordFactor(match[1], float(match[2]), float(match[3])))
            else:
                raise ValueError
        except ValueError:
            raise EditError(
                f"{item!r} in the address: expected an edit such as 4.12:0 (layer, neuron, factor) "
                "or dog>0.1:0 (words, coefficient, factor)"
            ) from None
    return Edit(session.bundle.config.weights_sha256, tuple(units), tuple(words))


def without_words(edit: Edit, words: str) -> Edit:
    """The edit with all neurons ablated that say some words."""
    from clipneurons.edit.edit import WordFactor

    words = " ".join(words.split())
    if not words:
        raise ValueError("Write a word that neurons say, such as: red")
    others = tuple(rule for rule in edit.words if rule.words != words)
    return replace(edit, words=(*others, WordFactor(words, _SAID, 0.0)))


def edit_of_text(text: str) -> Edit | None:
    """An edit from JSON, None from nothing."""
    from clipneurons.edit.edit import Edit

    return Edit.from_json(text) if text.strip() else None


def edit_of_file(path: str | None) -> Edit:
    """An edit from a file that was sent; `ValueError` says what is wrong with it."""
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


def example(session: BundleSession) -> tuple[int, list[str], str]:
    """A gallery image that is misclassified, class names, and its correct class; chosen once.

    Of images whose caption names a class, of one class before those of several, the one whose
    true class the model puts behind another by least; without such captions the one that is
    classified with least margin.
    """
    return session.cached("edit example", lambda: _choose_example(session))


def named_by(caption: str, known: tuple[str, ...]) -> list[str]:
    """The names that a caption has as whole words, but for colours: an orange peanut is none."""
    return [
        name
        for name in known
        # A pattern is made of few of 30,000 names.
        if name not in COLOURS and name in caption and re.search(rf"\b{re.escape(name)}\b", caption)
    ]


def _choose_example(session: BundleSession) -> tuple[int, list[str], str]:
    from clipneurons.edit.reading import TEMPLATES
    from clipneurons.text.embedding import embed_texts

    numbers = session.sample(_TRIED)
    if not numbers:
        raise ValueError("This bundle has no images: choose your own.")
    known = session.bundle.config.data.class_names or tuple(session.bundle.texts)
    labels = [named_by(session.bundle.examples.caption(number), known) for number in numbers]
    names = list(dict.fromkeys(name for of_image in labels for name in of_image))
    if len(names) < 6:
        names = list(dict.fromkeys([*names, *known]))[:64]
    cosines = session.encode_thumbnails(numbers) @ embed_texts(session.clip, names, TEMPLATES).T
    misread = []
    for i, of_image in enumerate(labels):
        order = cosines[i].argsort(descending=True).tolist()
        correct = [names.index(name) for name in of_image]
        if correct and order[0] not in correct:
            wanted = next(place for place in order if place in correct)
            behind = float(cosines[i, order[0]] - cosines[i, wanted])
            misread.append((len(correct) > 1, behind, i, order, wanted))
    if misread:
        *_, i, order, wanted = min(misread)
    else:
        pair = cosines.topk(2, dim=1).values
        i = int((pair[:, 0] - pair[:, 1]).argmin())
        order = cosines[i].argsort(descending=True).tolist()
        wanted = order[1]
    chosen = list(dict.fromkeys([*order[:5], wanted]))
    return numbers[i], [names[place] for place in chosen], names[wanted]
