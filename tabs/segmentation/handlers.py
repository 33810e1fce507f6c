"""Requests in, updates out: searches in an image, and the examples to search in."""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest
from pathlib import Path

import gradio as gr
from PIL import Image

from clipneurons.synthetic.captions import COLOURS
from tabs.segmentation.layout import Widgets
from tabs.segmentation.view import (
    HINT,
    Search,
    clicked,
    drawn,
    enlarged,
    here_html,
    presence_html,
    regions,
    voters_html,
)
from tabs.server.handlers import HandedImage
from tabs.server.registry import BundleRegistry
from tabs.server.session import BundleSession
from tabs.server.uploads import open_image
from tabs.ui import plots
from tabs.ui.words import unknown_words_html, untrained

# In place of a bundle's key: the visitor's own picture, which no example takes the place of.
OWN = "own"
_MASKS = 100  # names at once
_LETTERS = 10_000
_SHOWN = 6  # examples
_READ = 400  # captions that are read for them
_TRIED = 24  # images that the model looks at to choose those it reads best
_LONGEST = 3  # words of a class name


@dataclass(frozen=True)
class SearchRequest:
    """What a visitor asks for; ``former`` is what the page shows already."""

    bundle: str
    image: Image.Image | None
    words: str
    anyway: bool = False
    threshold: float = 0.5
    former: Search | None = None


@dataclass(frozen=True)
class Example:
    """An image and what to look for in it."""

    image: Image.Image
    words: str


# -- searches


def find(registry: BundleRegistry, widgets: Widgets, request: SearchRequest) -> dict:
    """All that the tab shows of a search."""
    session = registry[request.bundle]
    search = searched(session, request)
    names = list(search.result.names)
    heat, mask = enlarged(search, None, request.threshold)
    png, coco = files(search, request.threshold)
    return {
        widgets.search: search,
        widgets.maps: gr.Column(visible=True),
        widgets.unknown: unknown_words_html(untrained(session, names)),
        widgets.presence: presence_html(search, session.reader.presence_line),
        widgets.name: gr.Dropdown(names, value=search.first, visible=len(names) > 1),
        widgets.heat: heat,
        widgets.mask: mask,
        widgets.here: plots.empty(HINT),
        widgets.more: gr.Column(visible=True),
        widgets.regions: regions(search),
        widgets.voters: voters_html(session, search.first),
        widgets.png: png,
        widgets.coco: coco,
    }


def find_first(registry: BundleRegistry, widgets: Widgets, request: SearchRequest):
    """`find` where nothing was found yet with this bundle."""
    former = request.former
    known = former is not None and former.bundle == registry[request.bundle].key
    empty = request.image is None or not names_of(request.words)
    if known or empty or registry.unasked(request.bundle) is None:
        return gr.skip()
    return find(registry, widgets, request)


def find_masks(
    registry: BundleRegistry, bundle: str, image: Image.Image, words: str, threshold: float = 0.5,
    anyway: bool = False,
) -> dict:  # fmt: skip
    """Find comma-separated words in an image.

    Returns, for each word: whether it was found, its mask as COCO run lengths, the mask's share of
    the image, the word's cosine with the whole image, the score by which it is found or not, and
    the other word that fits better where it fits best, if one does (`rival`).

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels; masks are
            of its size, or of 1,024 pixels a side where it is larger.
        words: what to look for, with commas between; at most 100.
        threshold: of the mask, 0 to 1.
        anyway: whether a word that is not found gets a mask too; otherwise its mask is empty.
    """
    search = searched(registry[bundle], SearchRequest(bundle, image, words, anyway, threshold))
    return {"bundle": search.bundle} | search.to_dict()


def searched(session: BundleSession, request: SearchRequest) -> Search:
    """Segment an image by comma-separated words, and say which are in it.

    Raises:
        ValueError: no image, no words, or too many.
    """
    if request.image is None:
        raise ValueError("Choose an image first.")
    names = names_of(request.words)
    if not names:
        raise ValueError("Write what to look for, such as: cat, tree")
    masks = session.reader.segment(
        request.image, names, threshold=request.threshold, anyway=request.anyway
    )
    return Search(**vars(masks), bundle=session.key)


def names_of(words: str | None) -> list[str]:
    """The names between commas, semicolons and line ends, each once.

    Raises:
        ValueError: too many letters or names.
    """
    words = words or ""
    if len(words) > _LETTERS:
        raise ValueError(f"At most {_LETTERS:,} letters, please, not {len(words):,}.")
    parts = words.replace(";", ",").replace("\n", ",").split(",")
    names = list(dict.fromkeys(name for part in parts if (name := part.strip(" \t\r.!?:\"'"))))
    if len(names) > _MASKS:
        raise ValueError(f"At most {_MASKS} names at once, please, not {len(names)}.")
    return names


def files(search: Search, threshold: float) -> tuple[str, str]:
    """Two files: the first name's mask as PNG, and all masks as COCO's JSON."""
    from clipneurons.segmentation.masks import coco_annotations

    folder = Path(tempfile.mkdtemp(prefix="clipneurons-"))
    png, coco = folder / "mask.png", folder / "masks.json"
    drawn(search, None, threshold)[1].save(png)
    masks = search.masks(threshold)
    coco.write_text(json.dumps(coco_annotations(masks, search.result.names)))
    return str(png), str(coco)


# -- changes of what is shown


def redraw(registry: BundleRegistry, search: Search | None, name: str, threshold: float):
    """Another name or threshold."""
    return gr.skip() if search is None else enlarged(search, name, threshold)


def rename(registry: BundleRegistry, search: Search | None, name: str):
    """The neurons behind another name."""
    return gr.skip() if search is None else voters_html(registry[search.bundle], name)


def rewrite(registry: BundleRegistry, search: Search | None, threshold: float):
    """Files at another threshold."""
    return gr.skip() if search is None else files(search, threshold)


def point_at(registry: BundleRegistry, event: gr.SelectData) -> list[int]:
    """Where the enlarged heat map was clicked."""
    return list(event.index)


def listen(registry: BundleRegistry, search: Search | None, point: list[int] | None):
    """What the neurons say at the place that was clicked."""
    if search is None or point is None:
        return gr.skip()
    return here_html(search, registry[search.bundle], clicked(search, tuple(point)))


def change_bundle(registry: BundleRegistry, bundle: str, search: Search | None):
    """What was found with the last bundle is hidden."""
    # Before anything was found the results are hidden: an example may be on its way to them.
    if search is None:
        return gr.skip(), gr.skip()
    shown = gr.update(visible=search.bundle == registry[bundle].key)
    return shown, shown


# -- examples


def show_example(
    registry: BundleRegistry, bundle: str, shown_for: str, image: Image.Image | None = None,
    linked: str = "",
):  # fmt: skip
    """The bundle's best example, unless it is shown already or a picture was brought.

    A picture that is there before any example came from a link; of one that is still to come the
    address tells (`linked`).
    """
    own = bool(linked) or shown_for == OWN or (image is not None and not shown_for)
    if own or (session := registry.unasked(bundle)) is None or shown_for == session.key:
        return gr.skip()
    offered = examples(session)
    if not offered:
        return session.key, gr.Gallery(visible=False), gr.skip(), gr.skip()
    gallery = [(example.image, example.words) for example in offered]
    return session.key, gr.Gallery(gallery, visible=True), offered[0].image, offered[0].words


def choose(registry: BundleRegistry, bundle: str, event: gr.SelectData):
    """The example that was clicked."""
    example = examples(registry[bundle])[event.index]
    return example.image, example.words


def take_handed(registry: BundleRegistry, handed: HandedImage):
    """An image from another tab; its first classes are what is looked for."""
    return handed.image, ", ".join(handed.class_names[:3]), OWN


def take(registry: BundleRegistry, bundle: str):
    """An image of the bundle by chance."""
    session = registry[bundle]
    numbers = list(session.bundle.examples)
    if not numbers:
        raise ValueError("This bundle has no images.")
    example = _example(session, random.choice(numbers))
    return example.image, example.words


def examples(session: BundleSession) -> list[Example]:
    """A few of the bundle's images: of several things and of one, in turn.

    Those first in which the model finds all names best, each at a place of its own.
    """

    def make() -> list[int]:
        known, captions = _class_names(session), session.bundle.examples.caption
        named = {i: named_in(captions(i), known) for i in session.sample(_READ)}
        kinds = [
            [i for i, names in named.items() if fits(len(names))]
            for fits in (lambda count: count > 1, lambda count: count == 1)
        ]
        share = _TRIED if not all(kinds) else _TRIED // 2
        best = [
            sorted(
                kind[:: max(1, len(kind) // share)][:share],
                key=lambda i: -_agreement(session, i, named[i]),
            )
            for kind in kinds
        ]
        # Of an image that says "hammer, glove" the hammer's map must not lie on the glove.
        best[0][:_SHOWN] = sorted(
            best[0][:_SHOWN], key=lambda i: -_smallest_region(session, i, named[i])
        )
        in_turn = [i for pair in zip_longest(*best) for i in pair if i is not None]
        return (in_turn or list(named))[:_SHOWN]

    return [_example(session, number) for number in session.cached("segmentation examples", make)]


def _example(session: BundleSession, number: int) -> Example:
    """An image of the bundle with the names in its caption, else the text that fits it best."""
    bundle = session.bundle
    names = named_in(bundle.examples.caption(number), _class_names(session))
    if not names:
        embedding = session.encode_thumbnails([number])[0]
        names = [bundle.texts[int((bundle.text_embeddings @ embedding).argmax())]]
    return Example(open_image(BytesIO(bundle.examples[number])), ", ".join(names))


def named_in(caption: str | None, known: set[str]) -> list[str]:
    """Class names in a caption, in its order; of overlapping ones the longest."""
    words = (caption or "").casefold().replace(",", " , ").split()
    names, start = [], 0
    while start < len(words):
        for length in range(_LONGEST, 0, -1):
            name = " ".join(words[start : start + length])
            if name in known and name not in names:
                names.append(name)
                start += length - 1
                break
        start += 1
    return names


def _class_names(session: BundleSession) -> set[str]:
    # "An orange cat" shows no orange.
    return {name.casefold() for name in session.bundle.config.data.class_names} - COLOURS.keys()


def _smallest_region(session: BundleSession, number: int, names: list[str]) -> float:
    """Of all names at once, as the page draws them, the smallest one's share of the image.

    0 unless each is found in it.
    """
    if not names:
        return 0.0
    image = open_image(BytesIO(session.bundle.examples[number]))
    search = searched(session, SearchRequest(session.key, image, ", ".join(names)))
    shares = [mask.mean() for mask, _ in regions(search)[1]]
    return float(min(shares)) if len(shares) == len(names) else 0.0


def _agreement(session: BundleSession, number: int, names: list[str]) -> float:
    """Of the bundle's texts, the share that agrees less with the image than the worst name."""
    if not names:
        return 0.0
    embedding = session.encode_thumbnails([number])[0]
    worst = (session.encode_texts(names) @ embedding).min()
    return (session.bundle.text_embeddings @ embedding < worst).float().mean().item()
