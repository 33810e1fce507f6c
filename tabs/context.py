"""What the page may show: bundles, each with the one model it was made with, loaded when needed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property, wraps
from io import BytesIO
from pathlib import Path
from threading import RLock, Thread
from typing import TYPE_CHECKING

import gradio as gr
import torch
from torch import Tensor

from clipneurons.bundle import Bundle, read_bundle
from clipneurons.bundle_config import check_tower
from tabs.images import open_image

if TYPE_CHECKING:  # open_clip takes seconds to import: never before the page is served
    from clipneurons.lens import Lens
    from clipneurons.towers import Tower
    from tabs.shelf import Shelf

# Every event that runs a model shares this queue lane; see `app.py` for its width.
MODEL = "model"
_KEPT_TEXTS = 4096


class Reading:
    """One bundle and, once something needs it, the model it describes.

    Everything that is expensive is a cached property behind one lock, so 32 clients that ask
    at once load one model. A tab may keep its own derived data with `remember`.
    """

    def __init__(self, key: str, folder: Path, bundle: Bundle | None = None) -> None:
        self.key, self.folder = key, folder
        self.bundle = read_bundle(folder) if bundle is None else bundle
        self._lock = RLock()
        self._remembered: dict[str, object] = {}
        self._thumbnails: dict[int, Tensor] = {}
        self._texts: dict[str, Tensor] = {}

    @property
    def title(self) -> str:
        """What the chooser at the top of the page calls it."""
        config = self.bundle.config
        name = self.key if config.model == "." else f"{config.model} {config.pretrained or ''}"
        return f"{name.strip()} · {config.data.name}"

    @property
    def tower(self) -> Tower:
        """The model, loaded on first use and compared with what the bundle says."""
        with self._lock:
            return self._tower

    @property
    def lens(self) -> Lens:
        """The lens on the bundle's layers."""
        with self._lock:
            return self._lens

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return "_lens" in self.__dict__

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Unit embeddings of texts [text, embed]; the last few thousand are kept."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            if len(self._texts) > _KEPT_TEXTS:
                self._texts.clear()
            self._texts.update(zip(new, self.tower.encode_text(new).cpu(), strict=True))
        return torch.stack([self._texts[text] for text in texts])

    def knows_texts(self, texts: list[str]) -> bool:
        """Whether `encode_texts` would need no model."""
        return all(text in self._texts for text in texts)

    def encode_thumbnails(self, images: list[int]) -> Tensor:
        """Unit embeddings of gallery pictures [image, embed], each computed once."""
        new = [image for image in images if image not in self._thumbnails]
        for start in range(0, len(new), 32):
            part = new[start : start + 32]
            pixels = torch.stack([self.pixels(image) for image in part])
            vectors = torch.nn.functional.normalize(self.tower.encode_image(pixels).cpu(), dim=1)
            self._thumbnails.update(zip(part, vectors, strict=True))
        return torch.stack([self._thumbnails[image] for image in images])

    def knows_thumbnails(self, images: list[int]) -> bool:
        """Whether `encode_thumbnails` would need no model."""
        return all(image in self._thumbnails for image in images)

    def pixels(self, image: int) -> Tensor:
        """A gallery picture as the model's input [3, height, width]."""
        return self.tower.preprocess(open_image(BytesIO(self.bundle.examples[image])))

    def sample(self, count: int) -> list[int]:
        """Numbers of gallery pictures, spread evenly over all."""
        images = list(self.bundle.examples)
        return images[:: max(1, len(images) // count)][:count]

    @property
    def mean_thumbnail(self) -> Tensor:
        """Mean embedding of a sample of the gallery pictures [embed]."""
        return self.remember("mean", lambda: self.encode_thumbnails(self.sample(128)).mean(0))

    def remember(self, name: str, make: Callable[[], object]) -> object:
        """`make()` on the first call with this name, afterwards what it returned."""
        with self._lock:
            if name not in self._remembered:
                self._remembered[name] = make()
            return self._remembered[name]

    @cached_property
    def _tower(self) -> Tower:
        from clipneurons.towers import load_tower

        config = self.bundle.config
        model = self.folder if config.model == "." else config.model
        tower = load_tower(model, config.pretrained)
        check_tower(config, tower)
        return tower

    @cached_property
    def _lens(self) -> Lens:
        from clipneurons.lens import make_lens

        return make_lens(self._tower, self.bundle.config.layers)


class Library:
    """The readings a visitor can choose: what the server's owner named and, where the owner
    allows it with a shelf, what visitors have opened from the Hub."""

    def __init__(self, readings: list[Reading], shelf: Shelf | None = None) -> None:
        if not readings:
            raise ValueError("expected at least one bundle to show")
        self.readings: dict[str, Reading] = {}
        for reading in readings:
            self._add(reading)
        self.shelf = shelf

    def _add(self, reading: Reading) -> None:
        """A bundle named twice is there once; another of the same name is called "name (2)"."""
        name, number = reading.key, 1
        while other := self.readings.get(reading.key):
            if other.folder.resolve() == reading.folder.resolve():
                return
            number += 1
            reading.key = f"{name} ({number})"
        self.readings[reading.key] = reading

    @property
    def first(self) -> Reading:
        """What the page opens with."""
        return next(iter(self.readings.values()))

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(title, key) of each reading; the key is in titles that would be the same."""
        opened = self.shelf.readings if self.shelf else []
        readings = [*self.readings.values(), *opened]
        titles = [reading.title for reading in readings]
        return [
            (title if titles.count(title) == 1 else f"{title} · {reading.key}", reading.key)
            for title, reading in zip(titles, readings, strict=True)
        ]

    def __getitem__(self, key: str | None) -> Reading:
        if not key:
            return self.first
        found = self.readings.get(key) or (self.shelf.get(key) if self.shelf else None)
        if found is None:
            known = ", ".join(value for _, value in self.choices)
            more = " (or open it from the Hub first, at the top of the page)" if self.shelf else ""
            raise gr.Error(
                f"There is no bundle {key!r} here. Choose one of: {known}{more}",
                print_exception=False,
            )
        return found

    def warm(self, *jobs: Callable[[Reading], object]) -> Thread:
        """Load the first reading's model, then run `jobs`, while the page is already served."""

        def work() -> None:
            try:
                for job in (lambda reading: reading.lens, *jobs):
                    job(self.first)
            except (ValueError, KeyError, OSError) as error:
                print(f"The model could not be loaded, browsing works without: {error}")

        thread = Thread(target=work, name="warm", daemon=True)
        thread.start()
        return thread


def readable(handler: Callable) -> Callable:
    """Turn the errors that name a user's mistake (`ValueError`, `KeyError`) into page messages."""

    def message(error: Exception) -> gr.Error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        return gr.Error(text, print_exception=False)

    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def stream(*args, **kwargs):
            try:
                yield from handler(*args, **kwargs)
            except (ValueError, KeyError) as error:
                raise message(error) from error

        return stream

    @wraps(handler)
    def answer(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except (ValueError, KeyError) as error:
            raise message(error) from error

    return answer
