"""A bundle with the one model it was made with, loaded when needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipneurons.bundle.bundle import Bundle, load_bundle
from clipneurons.bundle.hub import resolve
from clipneurons.dictionary.dictionary import Dictionary
from clipneurons.dictionary.search import dictionary_of
from tabs.server.uploads import open_image

if TYPE_CHECKING:  # open_clip takes seconds to import: never before the page is served
    from PIL import Image

    from clipneurons.concepts.concepts import ConceptReader
    from clipneurons.edit.reading import EditReader
    from clipneurons.lens.lens import Lens
    from clipneurons.models.clip import ClipModel
    from clipneurons.reader import Reader

# Every event that runs a model shares this queue lane; see `app.py` for its width.
MODEL = "model"
_KEPT_TEXTS = 4096


class BundleSession:
    """One bundle and, once something needs it, the model it describes.

    Everything that is expensive is made once behind a lock of its own, so 32 clients that ask at
    once load one model, and who only browses waits for none. A tab may keep its own derived data
    with `cached`.
    """

    def __init__(self, key: str, folder: Path, bundle: Bundle | None = None) -> None:
        self.key, self.folder = key, folder
        self.bundle = load_bundle(folder) if bundle is None else bundle
        self._lock = RLock()
        self._locks: dict[str, RLock] = defaultdict(RLock)
        self._cached: dict[str, object] = {}
        self._thumbnails: dict[int, Tensor] = {}
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def open(cls, source: str) -> BundleSession:
        """A bundle in a folder, or "user/name" or "user/name@revision" on the Hub."""
        folder = resolve(source)
        bundle = load_bundle(folder)
        if Path(source).exists():
            return cls(folder.resolve().name, folder, bundle)
        if bundle.config.carries_model:
            folder = resolve(source, weights=True)
        return cls(source, folder, bundle)

    @property
    def title(self) -> str:
        """What the chooser at the top of the page calls it."""
        config = self.bundle.config
        name = self.key if config.at_hand else f"{config.model} {config.pretrained or ''}"
        return f"{name.strip()} · {config.data.name}"

    @property
    def source(self) -> str:
        """What `load_bundle` takes, from where the page was started; nothing of this machine."""
        here, folder = Path.cwd(), self.folder.resolve()
        inside = folder.is_relative_to(here) and not self.key.count("/")
        return folder.relative_to(here).as_posix() if inside else self.key

    @property
    def dictionary(self) -> Dictionary:
        """The bundle, arranged for looking things up in it."""
        return self.cached("dictionary", lambda: dictionary_of(self.bundle))

    @property
    def reader(self) -> Reader:
        """The model with the bundle: what reads images; the model is loaded on first use."""
        return self.cached("reader", lambda: self._reader)

    @property
    def clip(self) -> ClipModel:
        """The model, loaded on first use and compared with what the bundle says."""
        return self.reader.clip

    @property
    def lens(self) -> Lens:
        """The lens on the bundle's units."""
        return self.cached("lens", lambda: self.reader.lens)

    @property
    def concept_reader(self) -> ConceptReader:
        """What reads effects and concepts of images.

        Raises `ValueError` for a bundle with the shared bias.
        """
        return self.cached("concepts", lambda: self.reader.concept_reader)

    @property
    def edit_reader(self) -> EditReader:
        """What reads images under edits of units."""
        return self.cached("edit reader", lambda: self.reader.edit_reader)

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self.has("reader")

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Unit embeddings of texts [text, embed]; the last few thousand are kept."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            if len(self._texts) > _KEPT_TEXTS:
                self._texts.clear()
            self._texts.update(zip(new, self.clip.encode_text(new).cpu(), strict=True))
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
            vectors = torch.nn.functional.normalize(self.clip.encode_image(pixels).cpu(), dim=1)
            self._thumbnails.update(zip(part, vectors, strict=True))
        return torch.stack([self._thumbnails[image] for image in images])

    def image(self, number: int) -> Image.Image:
        """An image of the gallery."""
        return open_image(BytesIO(self.bundle.examples[number]))

    def pixels(self, image: int) -> Tensor:
        """A gallery picture as the model's input [3, height, width]."""
        return self.clip.preprocess(self.image(image))

    def sample(self, count: int) -> list[int]:
        """Numbers of gallery pictures, spread evenly over all."""
        return self.bundle.examples.spread(count)

    def cached(self, name: str, make: Callable[[], object]) -> object:
        """`make()` on the first call with this name, afterwards what it returned."""
        with self._lock:
            lock = self._locks[name]
        with lock:
            if name not in self._cached:
                self._cached[name] = make()
            return self._cached[name]

    def has(self, name: str) -> bool:
        """Whether `cached` would answer at once."""
        return name in self._cached

    @cached_property
    def _reader(self) -> Reader:
        from clipneurons.models.clip import load_clip
        from clipneurons.reader import Reader

        config = self.bundle.config
        clip = load_clip(config.model_of(self.folder), config.pretrained, **config.load_options)
        return Reader(clip, self.bundle)
