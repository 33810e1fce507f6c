"""The tab that finds words in an image: heat maps, masks, regions, and which neurons voted."""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from PIL import Image

from clipneurons.images.convert import to_rgb
from clipneurons.segmentation.methods import BEST, method_names
from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.server.session import MODEL, BundleSession
from tabs.server.uploads import open_image
from tabs.ui import plots
from tabs.ui.former_choices import take_former_names
from tabs.ui.image_input import ImageInput
from tabs.ui.neuron_card import unit_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipneurons.bundle.config import BundleConfig
    from clipneurons.segmentation.segmenters import Segmentation, Segmenter

TITLE = "Segmentation"
INTRO = (
    "Find words in an image: write one or several things, separated by commas, and see where the "
    "neurons speak of them; click on the heat map to read what they say at that place."
)
_REGIONS = 30  # names beyond which regions are not drawn one by one
_VOTERS = 12
_MASKS = 100  # names beyond which masks are not written out
_PRESENT = 0.1  # share of the bundle's texts that may agree more with a picture that shows a name


@dataclass(frozen=True)
class Found:
    """What a visitor's last search found, kept for the sliders, clicks and downloads."""

    bundle: str
    image: Image.Image
    result: Segmentation
    agreement: list[tuple[float, float]]


def _methods(config: BundleConfig) -> tuple[str, ...]:
    """Methods for a bundle's model, the best first."""
    return method_names(config.kind, config.pooling)


def methods(session: BundleSession) -> dict[str, Segmenter]:
    """The methods for a session's model, made once."""
    from clipneurons.segmentation.segmenters import segmenters

    def make() -> dict[str, Segmenter]:
        layers = session.bundle.layers
        return segmenters(session.clip, {k: layer.directions for k, layer in layers.items()})

    return session.cached("segmenters", make)


def contrast_texts(session: BundleSession):
    """What class names are held against: the bundle's class names, else its phrases."""
    from clipneurons.text.embedding import embed_texts

    def make():
        names = session.bundle.config.data.class_names
        if len(names) < 2:
            return session.bundle.text_embeddings
        return embed_texts(session.clip, list(names), "photo")

    return session.cached("contrast texts", make)


def search(
    session: BundleSession,
    image: Image.Image | None,
    words: str,
    method: str,
    finer: bool,
    refine: bool,
) -> Found:
    """Segment an image by comma-separated words."""
    from clipneurons.segmentation.segmenters import segment

    if image is None:
        raise ValueError("Choose an image first.")
    if not words or not words.strip(" ,"):
        raise ValueError("Write what to look for, such as: cat, tree")
    known = methods(session)
    if method not in known:
        raise ValueError(f"There is no method {method!r} here. Choose one of: {', '.join(known)}")
    names = [name for name in words.split(",") if name.strip()]
    result = segment(
        session.clip, image, names, known[method], others=contrast_texts(session),
        scale=2.0 if finer else None, refine=refine,
    )  # fmt: skip
    shown = to_rgb(image).resize(result.scores.shape[:0:-1])
    return Found(session.key, shown, result, agreement(session, image, result.names))


def agreement(
    session: BundleSession, image: Image.Image, names: Sequence[str]
) -> list[tuple[float, float]]:
    """Of each name: its cosine with the whole image, and the share of texts with a larger one.

    A mask says where a name fits best, even if it fits nowhere.
    """
    from clipneurons.models.preprocess import whole

    embedding = session.clip.encode_image(whole(session.clip, image))[0].cpu()
    embedding = embedding / embedding.norm()
    texts = session.bundle.text_embeddings @ embedding
    cosines = (session.encode_texts(list(names)) @ embedding).tolist()
    return [(cosine, (texts > cosine).float().mean().item()) for cosine in cosines]


def agreement_html(found: Found) -> str:
    """How well the whole image agrees with each name."""
    rows = [
        plots.Bar(
            name if above < _PRESENT else f"{name} (small, or not in the picture)", cosine,
            f"{name}: {above:.0%} of the bundle's texts agree more with the image",
        )
        for name, (cosine, above) in zip(found.result.names, found.agreement, strict=True)
    ]  # fmt: skip
    return plots.section(
        "Is it in the picture?",
        plots.bars(rows[:_REGIONS], label="Cosine of the whole image and each name", wide=True),
        "Cosine of the whole image and the name. A mask shows where a name fits best, even if it "
        f"fits nowhere; names below the first {_PRESENT:.0%} of the bundle's texts are marked.",
    )


def found_data(found: Found, threshold: float) -> dict:
    """What was found, as the API gives it."""
    from clipneurons.segmentation.masks import rle

    result = found.result
    if len(result.names) > _MASKS:
        raise ValueError(f"At most {_MASKS} names at once, please, not {len(result.names)}.")
    rows = []
    for index, (name, (cosine, above)) in enumerate(
        zip(result.names, found.agreement, strict=True)
    ):
        mask = result.mask(index, threshold)
        rows.append({
            "name": name, "mask": rle(mask), "share": mask.float().mean().item(),
            "cosine": cosine, "texts_that_agree_more": above,
        })  # fmt: skip
    return {"bundle": found.bundle, "threshold": threshold, "classes": rows}


def drawn(found: Found, name: str | None, opacity: float, threshold: float) -> tuple:
    """The heat map over the image, and the mask, of one name (by default the first)."""
    from clipneurons.images.heatmap import mask_image, overlay

    result = found.result
    index = result.names.index(name) if name in result.names else 0
    return (
        overlay(found.image, result.heat[index], opacity),
        mask_image(result.mask(index, threshold)),
    )


def regions(found: Found, none: float) -> tuple:
    """The image with a coloured region for each name that is somewhere the best."""
    labels = found.result.labels(none).numpy()
    present = [
        (labels == index, name)
        for index, name in enumerate(found.result.names)
        if (labels == index).any()
    ]
    return found.image, [(mask.astype(float), name) for mask, name in present[:_REGIONS]]


def voters(session: BundleSession, name: str) -> str:
    """The units most aligned with a name, as bars that lead into the dictionary."""
    from clipneurons.segmentation.activation_maps import choose_neurons
    from clipneurons.text.embedding import embed_texts

    bundle = session.bundle
    directions = {layer: arrays.directions for layer, arrays in bundle.layers.items()}
    votes = choose_neurons(directions, embed_texts(session.clip, [name], "photo").cpu(), _VOTERS)
    rows = zip(
        votes.layers[0].tolist(), votes.units[0].tolist(), votes.alignments[0].tolist(),
        strict=True,
    )  # fmt: skip
    bars = [unit_bar(session.key, bundle, *row) for row in rows]
    return plots.section(
        f"Neurons that agree most with “{name}”",
        plots.bars(bars, label=f"Agreement with {name}", wide=True),
        "Cosine of each neuron's direction with the name; the paper's method averages the maps "
        "of the first 200.",
    )


def said_at(found: Found, session: BundleSession, point: tuple[int, int]) -> str:
    """What the neurons say at a point of the shown image, and which neurons."""
    from clipneurons.explore.patch_concepts import patch_at, patch_concepts
    from clipneurons.models.preprocess import whole

    clip = session.clip
    patch = patch_at(point, found.image.size, clip.grid)
    _, contributions = session.lens(whole(clip, found.image))
    local = patch_concepts(session.bundle, contributions, [patch])
    row, column = divmod(patch, clip.grid[1])
    phrases = plots.bars(
        [plots.Bar(phrase, weight) for phrase, weight in local.phrases],
        label="Phrases the neurons say at this place",
        digits=3,
    )
    units = plots.bars(
        [
            unit_bar(session.key, session.bundle, one.layer, one.unit, one.strength)
            for one in local.units
        ],
        label="Neurons that speak at this place",
        digits=3,
        wide=True,
    )
    place = f"row {row + 1}, column {column + 1} of {clip.grid[0]} × {clip.grid[1]}"
    return plots.section(
        "What the neurons say here", phrases, f"More than elsewhere in the image ({place})."
    ) + plots.section("Neurons that say so", units)


def files(found: Found, threshold: float) -> tuple[str, str]:
    """Two files: the first name's mask as PNG, and all masks as COCO's JSON."""
    import torch

    from clipneurons.images.heatmap import mask_image
    from clipneurons.segmentation.masks import coco_annotations

    result = found.result
    masks = torch.stack([result.mask(i, threshold) for i in range(min(len(result.names), _MASKS))])
    folder = Path(tempfile.mkdtemp(prefix="clipneurons-"))
    picture, annotations = folder / "mask.png", folder / "masks.json"
    mask_image(masks[0]).save(picture)
    annotations.write_text(json.dumps(coco_annotations(masks, result.names)))
    return str(picture), str(annotations)


def build(registry: BundleRegistry, source: gr.components.Component) -> None:
    """The tab's components and events; ``source`` holds the chosen bundle's key."""
    names = list(_methods(registry.first.bundle.config))
    every = list(dict.fromkeys([*method_names("vit"), *method_names("resnet")]))
    state = gr.State()
    gr.Markdown(INTRO, elem_classes="cn-lede")
    with gr.Row():
        with gr.Column(scale=2):
            image = ImageInput(label="Image", elem_id="segmentation-image", height=300)
            sample = gr.Button(
                "Take one of the bundle's images", size="sm", elem_id="segmentation-sample"
            )
            words = gr.Textbox(
                label="What to look for", placeholder="cat, tree", elem_id="segmentation-words",
                max_length=10_000,
            )  # fmt: skip
            # Custom values are methods of other bundles' towers, which `search` sorts out.
            method = gr.Dropdown(
                names, value=BEST, label="Method", allow_custom_value=True,
                elem_id="segmentation-method",
            )  # fmt: skip
            method.api_info = lambda: {"type": "string", "enum": every}
            take_former_names(method)
            finer = gr.Checkbox(
                label="Look in windows (finer, slower)", elem_id="segmentation-finer"
            )
            refine = gr.Checkbox(label="Follow the edges", elem_id="segmentation-refine")
            go = gr.Button("Find", variant="primary", elem_id="segmentation-go")
        with gr.Column(scale=3):
            name = gr.Dropdown(
                [], label="Show", interactive=True, visible=False, elem_id="segmentation-name"
            )
            with gr.Row():
                heat = gr.Image(
                    label="Heat map", interactive=False,
                    format="png", elem_id="segmentation-heat", buttons=[],
                )  # fmt: skip
                mask = gr.Image(
                    label="Mask", interactive=False, format="png", elem_id="segmentation-mask",
                    buttons=[],
                )  # fmt: skip
            with gr.Row():
                opacity = gr.Slider(
                    0, 1, 0.6, label="Opacity of the heat map", elem_id="segmentation-opacity"
                )
                threshold = gr.Slider(
                    0, 1, 0.5, label="Threshold of the mask", elem_id="segmentation-threshold"
                )
            with gr.Row():
                picture = gr.DownloadButton(
                    "Mask (PNG)", interactive=False, elem_id="segmentation-png"
                )
                annotations = gr.DownloadButton(
                    "All masks (COCO JSON)", interactive=False, elem_id="segmentation-coco"
                )
            agreed = plots.html(elem_id="segmentation-agreement")
            said = plots.html(
                plots.empty("Click on the heat map to read what the neurons say at that place."),
                elem_id="segmentation-here",
            )
    with gr.Row():
        with gr.Column():
            labelled = gr.AnnotatedImage(label="All names at once", elem_id="segmentation-regions")
            none = gr.Slider(
                0, 1, 0.4, label="Below this share of the largest score, no name",
                elem_id="segmentation-none",
            )  # fmt: skip
        voting = plots.html(elem_id="segmentation-voters")
    with gr.Accordion("Compare methods", open=False, elem_id="segmentation-comparison"):
        compared = gr.Dropdown(
            names, value=names[:4], label="Methods", multiselect=True, allow_custom_value=True,
            elem_id="segmentation-compared",
        )  # fmt: skip
        compared.api_info = lambda: {"type": "array", "items": {"type": "string", "enum": every}}
        take_former_names(compared)
        compare = gr.Button("Compare", elem_id="segmentation-compare")
        gallery = gr.Gallery(
            label="The first name, by each method", columns=5, height="auto",
            elem_id="segmentation-gallery",
        )  # fmt: skip

    @on_gpu()
    @user_errors
    def find(
        bundle: str, image: Image.Image, words: str, method: str, finer: bool, refine: bool,
        opacity: float, threshold: float, none: float,
    ):  # fmt: skip
        session = registry[bundle]
        found = search(session, image, words, method, finer, refine)
        known = list(found.result.names)
        picture, annotations = files(found, threshold)
        return (
            found,
            gr.Dropdown(known, value=known[0], visible=len(known) > 1),
            *drawn(found, known[0], opacity, threshold),
            regions(found, none),
            voters(session, known[0]),
            agreement_html(found),
            gr.DownloadButton(value=picture, interactive=True),
            gr.DownloadButton(value=annotations, interactive=True),
        )

    @on_gpu()
    @user_errors
    def find_masks(
        bundle: str, image: Image.Image, words: str, method: str, finer: bool, refine: bool,
        threshold: float,
    ) -> dict:  # fmt: skip
        """Find comma-separated words in an image.

        Returns, for each word: its mask as COCO run lengths, the mask's share of the image, the
        word's cosine with the whole image, and the share of the bundle's texts with a larger one
        (above a tenth, the word is small in the picture or not there).

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

    @user_errors
    def redraw(found: Found | None, name: str, opacity: float, threshold: float):
        return gr.skip() if found is None else drawn(found, name, opacity, threshold)

    @on_gpu()
    @user_errors
    def rename(found: Found | None, name: str):
        return gr.skip() if found is None else voters(registry[found.bundle], name)

    @user_errors
    def rewrite(found: Found | None, threshold: float):
        return gr.skip() if found is None else files(found, threshold)

    @user_errors
    def relabel(found: Found | None, none: float):
        return gr.skip() if found is None else regions(found, none)

    @on_gpu()
    @user_errors
    def listen(found: Found, point: tuple[int, int]) -> str:
        return said_at(found, registry[found.bundle], point)

    def ask(found: Found | None, event: gr.SelectData):
        return gr.skip() if found is None else listen(found, tuple(event.index))

    @on_gpu()
    @user_errors
    def side_by_side(
        bundle: str, image: Image.Image, words: str, methods: list[str], finer: bool, refine: bool
    ):
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

    def known_methods(bundle: str):
        names = list(_methods(registry[bundle].bundle.config))
        return gr.Dropdown(names, value=BEST), gr.Dropdown(names, value=names[:4])

    @user_errors
    def take(bundle: str):
        examples = registry[bundle].bundle.examples
        if not len(examples):
            raise ValueError("This bundle has no images.")
        return open_image(BytesIO(examples[random.choice(list(examples))]))

    private = {"api_visibility": "private"}
    gr.on(
        [go.click, words.submit], find,
        [source, image, words, method, finer, refine, opacity, threshold, none],
        [state, name, heat, mask, labelled, voting, agreed, picture, annotations],
        concurrency_id=MODEL, **private,
    )  # fmt: skip
    gr.on(  # for programs: nothing on the page triggers it
        [], find_masks, [source, image, words, method, finer, refine, threshold],
        gr.JSON(visible=False, label="Masks"), api_name="segment", concurrency_id=MODEL,
    )  # fmt: skip
    gr.on(
        [name.change, opacity.change, threshold.change], redraw, [state, name, opacity, threshold],
        [heat, mask], show_progress="hidden", trigger_mode="always_last", **private,
    )  # fmt: skip
    name.input(rename, [state, name], voting, concurrency_id=MODEL, **private)
    threshold.release(rewrite, [state, threshold], [picture, annotations], **private)
    none.change(relabel, [state, none], labelled, show_progress="hidden", **private)
    heat.select(ask, state, said, concurrency_id=MODEL, **private)
    compare.click(
        side_by_side, [source, image, words, compared, finer, refine], gallery,
        api_name="compare_segmentations", concurrency_id=MODEL,
    )  # fmt: skip
    source.change(known_methods, source, [method, compared], **private)
    sample.click(take, source, image, **private)
