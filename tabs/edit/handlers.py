"""What the tab "Edit" does with a picture and an edit."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from urllib.parse import parse_qs

import gradio as gr
import numpy as np
from PIL import Image

from tabs.edit.data import edited_data, shown
from tabs.edit.edits import (
    OTHER_MEANS,
    edit_of_file,
    edit_of_text,
    edited,
    fewest,
    for_real,
    with_words,
)
from tabs.edit.example import given_or_example, restored
from tabs.edit.reading import MOST_IMAGES, Reading, read
from tabs.server.registry import BundleRegistry
from tabs.server.uploads import open_image
from tabs.ui.plots import empty, percent
from tabs.ui.words import names_of

_NOTHING_READ = "Read a picture first."


@dataclass(frozen=True)
class Handlers:
    """What the tab does, over the sessions of a registry."""

    registry: BundleRegistry

    def edit(
        self, bundle: str = "", image: Image.Image | None = None, names: str = "",
        wanted: str = "", edit: str = "",
    ) -> dict:  # fmt: skip
        """How an image is read before and after an edit of neurons, and by whose doing.

        Returns each class's probability (or cosine, of a model without softmax) before the edit,
        after it, and with the same edit made on the activations of the model ("for real"; null
        where that cannot be); and the neurons that speak for the top class and against it, with
        what they add, their words, whether these are reliable, and a map of the patches.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels; without
                one, the bundle's example.
            names: class names with commas between them; "" for the example's.
            wanted: what speaks against the top class; "" for the runner-up.
            edit: JSON of an edit, as this returns it; "" for none. Factors scale about the means
                over the bundle's data.
        """
        session = self.registry[bundle]
        return edited_data(session, given_or_example(session, image, names, wanted, edit))

    def find(
        self, bundle: str = "", image: Image.Image | None = None, names: str = "",
        wanted: str = "",
    ) -> dict:  # fmt: skip
        """The fewest neurons whose mean-ablation turns an image to another class.

        Returns what `edit` does, under that edit, with the number of neurons (`count`) and the
        share of random sets of as many that turn the image as well.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            image: as for `edit`; without one, the bundle's example.
            names: class names with commas between them; "" for the example's.
            wanted: what it should be read as; "" for the runner-up.
        """
        session = self.registry[bundle]
        reading = given_or_example(session, image, names, wanted, "")
        edit, found = fewest(session, reading, wanted)
        return found | edited_data(session, edited(session, reading, edit))

    def read(
        self, old: Reading | None, bundle: str, image: Image.Image | None, names: str, wanted: str,
        files: list[str] | None, text: str,
    ) -> tuple:  # fmt: skip
        """What was brought, under the edit that there is."""
        if image is None:
            raise ValueError("Choose, paste or take a picture first.")
        session, asked = self.registry[bundle], names_of(names)
        more = [open_image(file) for file in (files or [])[:MOST_IMAGES]]
        picture = old.picture if old and _same(image, old.images[0]) else None
        keep = old is not None and old.bundle == session.key
        reading = read(
            session, [image, *more], asked, wanted if wanted in asked else "",
            edit_of_text(text) if keep else None, picture,
        )  # fmt: skip
        return self._drawn(reading)

    def find_fewest(self, old: Reading | None) -> tuple:
        """The edit that turns what is shown."""
        if old is None:
            raise ValueError(_NOTHING_READ)
        edit, found = fewest(self.registry[old.bundle], old, "")
        count = found["count"]
        note = (
            f"Without {count} neuron{'s' * (count > 1)} it is read as “{found['wanted']}”: the "
            f"fewest that turn this picture. Of 1,000 random sets of as many, "
            f"{percent(found['random_turn'])} turn it too. What helps one picture may hurt others: "
            "“export mend” measures that."
        )
        return self._again(old, edit, note)

    def switch_off(
        self, old: Reading | None, words: str, more_than: float | None, text: str
    ) -> tuple:
        """The edit that there is, with all that say some words off."""
        if old is None:
            raise ValueError(_NOTHING_READ)
        return self._again(old, with_words(edit_of_text(text) or old.edit, words, more_than))

    def load(self, old: Reading | None, path: str | None) -> tuple:
        """An edit from a file."""
        if old is None:
            raise ValueError(_NOTHING_READ)
        edit = edit_of_file(path)
        return self._again(old, edit, "" if edit.means == "data" else OTHER_MEANS)

    def run_for_real(self, old: Reading | None, text: str) -> dict:
        """What the model itself says, for the script: with the edit that it was asked of."""
        if old is None or not text:
            return gr.skip()
        try:
            found = for_real(self.registry[old.bundle], old, edit_of_text(text) or old.edit)
        except ValueError as error:  # of a model whose weights cannot hold it
            gr.Info(escape(str(error)))
            return {"edit": text, "shares": None}
        return {"edit": text, "shares": found}

    def restore(self, bundle: str, query: str) -> tuple:
        """What an address asks for, where it is one of this tab."""
        given = {name: values[0] for name, values in parse_qs(query.lstrip("?")[:2000]).items()}
        if given.get("tab") != "edit":
            return gr.skip()
        try:
            session = self.registry[given.get("bundle") or bundle]
        except gr.Error:  # the page says so, and shows the first
            session, query = self.registry.first, "?tab=edit"
        reading = restored(session, query)
        return reading.images[0], ", ".join(reading.names), *self._drawn(reading)

    def _drawn(self, reading: Reading, note: str = "") -> tuple:
        wanted = gr.update(choices=["", *reading.names], value=reading.names[reading.wanted])
        page = shown(self.registry[reading.bundle], reading, note)
        return reading, wanted, page, reading.edit.to_json()

    def _again(self, reading: Reading, edit, note: str = "") -> tuple:
        return self._drawn(edited(self.registry[reading.bundle], reading, edit), note)


def emptied() -> tuple:
    return None, gr.update(choices=[""], value=""), empty("Read a picture."), ""


def _same(one: Image.Image, other: Image.Image) -> bool:
    """Whether the page sent a picture back as it got it, up to how it was packed."""
    if one.size != other.size:
        return False
    return float(np.abs(np.asarray(one, int) - np.asarray(other, int)).mean()) < 4
