"""What happens when something in the tab is pressed, moved or clicked."""

from __future__ import annotations

import gradio as gr
from PIL import Image

from clipneurons.segmentation.methods import BEST
from tabs.segmentation.examples import Example, any_example, examples
from tabs.segmentation.found import Found, files, found_data, methods_of, names_of, search
from tabs.segmentation.layout import HINT
from tabs.segmentation.neurons import said_at, voters
from tabs.segmentation.pictures import clicked, drawn, enlarged, regions
from tabs.segmentation.presence import presence_html
from tabs.server.registry import BundleRegistry
from tabs.ui import plots
from tabs.ui.unknown_words import unknown_words_html, untrained


def find(
    registry: BundleRegistry, bundle: str, image: Image.Image | None, words: str, method: str,
    finer: bool, refine: bool, opacity: float, threshold: float, none: float,
):  # fmt: skip
    """All that the tab shows of a search."""
    session = registry[bundle]
    found = search(session, image, words, method, finer, refine)
    known = list(found.result.names)
    picture, annotations = files(found, threshold)
    return (
        found,
        gr.Column(visible=True),
        unknown_words_html(untrained(session, known)),
        gr.Dropdown(known, value=known[0], visible=len(known) > 1),
        *enlarged(found, known[0], opacity, threshold),
        presence_html(found.result.names, found.presence, len(session.bundle.texts)),
        plots.empty(HINT),
        gr.Column(visible=True),
        regions(found, none),
        voters(session, known[0]),
        picture,
        annotations,
    )


def find_first(registry: BundleRegistry, bundle: str, found: Found | None, image, words, *rest):
    """`find` where nothing was found yet with this bundle."""
    known = found is not None and found.bundle == registry[bundle].key
    if known or image is None or not names_of(words) or registry.unasked(bundle) is None:
        return gr.skip()
    return find(registry, bundle, image, words, *rest)


def find_masks(
    registry: BundleRegistry, bundle: str, image: Image.Image, words: str, method: str,
    finer: bool, refine: bool, threshold: float,
) -> dict:  # fmt: skip
    """Find comma-separated words in an image.

    Returns, for each word: its mask as COCO run lengths, the mask's share of the image, the
    word's cosine with the whole image, the share of the bundle's texts with a larger one, and
    whether the word is in the picture: `fit` is the share of the bundle's texts that it beats
    where it fits best, `rival` another of the words that fits better there.

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels; masks are
            of its size, or of 1,024 pixels a side where it is larger.
        words: what to look for, with commas between.
        method: one of those that the page offers for the bundle's kind of model.
        finer: whether to look in windows, finer and slower.
        refine: whether the map follows the image's edges.
        threshold: of the mask, 0 to 1.
    """
    return found_data(search(registry[bundle], image, words, method, finer, refine), threshold)


def redraw(
    registry: BundleRegistry, found: Found | None, name: str, opacity: float, threshold: float
):
    """Another name, opacity or threshold."""
    return gr.skip() if found is None else enlarged(found, name, opacity, threshold)


def rename(registry: BundleRegistry, found: Found | None, name: str):
    """The neurons behind another name."""
    return gr.skip() if found is None else voters(registry[found.bundle], name)


def rewrite(registry: BundleRegistry, found: Found | None, threshold: float):
    """Files at another threshold."""
    return gr.skip() if found is None else files(found, threshold)


def relabel(registry: BundleRegistry, found: Found | None, none: float):
    """Regions at another share."""
    return gr.skip() if found is None else regions(found, none)


def point_at(registry: BundleRegistry, event: gr.SelectData) -> list[int]:
    """Where the enlarged heat map was clicked."""
    return list(event.index)


def listen(registry: BundleRegistry, found: Found | None, point: list[int] | None):
    """What the neurons say at the place that was clicked."""
    if found is None or point is None:
        return gr.skip()
    return said_at(found, registry[found.bundle], clicked(found, tuple(point)))


def side_by_side(
    registry: BundleRegistry, bundle: str, image: Image.Image, words: str, methods: list[str],
    finer: bool, refine: bool,
):  # fmt: skip
    """The first word's heat map by each of several methods, as (picture, method).

    Args:
        bundle: key of the bundle, or "" for the one the page opens with.
        image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels.
        words: what to look for; only the first is drawn.
        methods: some of those that the page offers for the bundle's kind of model.
        finer: whether to look in windows, finer and slower.
        refine: whether the map follows the image's edges.
    """
    session = registry[bundle]
    if not methods:
        raise ValueError("Choose at least one method to compare.")
    return [
        (drawn(search(session, image, words, method, finer, refine), None, 0.6, 0.5)[0], method)
        for method in methods
    ]


def change_bundle(registry: BundleRegistry, bundle: str, found: Found | None):
    """Another bundle's methods; what was found with the last one is hidden."""
    session = registry[bundle]
    names = list(methods_of(session.bundle.config))
    # Before anything was found the results are hidden: an example may be on its way to them.
    shown = gr.skip() if found is None else gr.update(visible=found.bundle == session.key)
    methods = (gr.update(choices=names, value=value) for value in (BEST, names[:4]))
    return *methods, shown, shown


def show_example(
    registry: BundleRegistry, bundle: str, shown_for: str, image: Image.Image | None = None,
    linked: str = "",
):  # fmt: skip
    """The bundle's best example, unless it is shown already or a picture was brought.

    A picture that is there before any example came from a link; of one that is still to come the
    address tells (`linked`).
    """
    own = bool(linked) or shown_for == OWN or (image is not None and not shown_for)
    if own or (session := registry.unasked(bundle)) is None:
        return gr.skip()
    if shown_for == session.key:
        return gr.skip()
    found = examples(session)
    if not found:
        return session.key, gr.Gallery(visible=False), gr.skip(), gr.skip()
    gallery = [(one.image, one.words) for one in found]
    return session.key, gr.Gallery(gallery, visible=True), *_taken(found[0])


def choose(registry: BundleRegistry, bundle: str, event: gr.SelectData):
    """The example that was clicked."""
    return _taken(examples(registry[bundle])[event.index])


def take(registry: BundleRegistry, bundle: str):
    """A picture of the bundle by chance."""
    return _taken(any_example(registry[bundle]))


def _taken(example: Example) -> tuple[Image.Image, str]:
    return example.image, example.words


# In place of a bundle's key: the visitor's own picture, which no example takes the place of.
OWN = "own"
