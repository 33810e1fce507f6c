"""Image concept discovery: the phrases of the neurons that an image activates, and where."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import gradio as gr
from PIL import Image

from tabs.server.gpu import on_gpu
from tabs.server.messages import user_errors
from tabs.server.registry import BundleRegistry
from tabs.server.session import MODEL, BundleSession
from tabs.server.uploads import open_image
from tabs.ui.former_choices import take_former_names
from tabs.ui.image_input import ImageInput, image_uri
from tabs.ui.neuron_card import says
from tabs.ui.patch_mask import patch_mask
from tabs.ui.plots import Bar, bars, empty, html, link, section

if TYPE_CHECKING:
    from clipneurons.explore.concepts import ConceptReader

TITLE = "Concepts of an image"
# The ways of `ConceptReader.weights`, and what the page calls them.
WAYS = [
    ("all that neurons write", "dense"),
    ("phrases, signed weights", "sparse-projection"),
    ("phrases, the paper’s weights", "sparse-norm"),
]
_TOP, _NEURONS, _IMAGES = 10, 12, 8


def reader_of(session: BundleSession) -> ConceptReader:
    """What concepts are read with, prepared once a model."""
    from clipneurons.explore.concepts import ConceptReader

    return session.cached("concepts", lambda: ConceptReader(session.lens, session.bundle))


def text_span_of(session: BundleSession):
    """TextSpan's texts of the model's heads, found once from gallery pictures; None for ResNets."""
    if session.bundle.config.kind != "vit" or not len(session.bundle.examples):
        return None
    import torch

    from clipneurons.analysis.textspan import TextSpanReader
    from clipneurons.lens.first_order import FirstOrderLens

    def make():
        pixels = [session.pixels(image) for image in session.sample(256)]
        batches = [torch.stack(pixels[i : i + 32]) for i in range(0, len(pixels), 32)]
        lens = FirstOrderLens(session.clip)
        return TextSpanReader.fit(lens, batches, session.bundle.text_embeddings, count=30)

    return session.cached("text span", make)


def default_way(session: BundleSession) -> str:
    """The variant that finds most of the true objects, as far as it was measured."""
    recall = session.bundle.metrics.get("concepts", {}).get("recall_at_10", {})
    return max((way for _, way in WAYS), key=lambda way: recall.get(way, 0))


def discover(session: BundleSession, image: Image.Image | None, way: str, top: int = _TOP) -> dict:
    """Concepts of an image, the neurons behind them, where they fire, and two other readings."""
    import torch

    from clipneurons.explore.concepts import top_concepts

    if image is None:
        raise ValueError("Choose, paste or take a picture first.")
    reader, texts = reader_of(session), session.bundle.texts
    pixels = session.clip.preprocess(image)[None]
    representation, effects = reader(pixels)
    weights = {kind: reader.weights(effects, kind)[0] for _, kind in WAYS}
    concepts = top_concepts(weights[way], texts, max(1, min(int(top), 50)))
    places = {text: i for i, text in enumerate(texts)}
    maps = [reader.patches(effects, places[text], way=way).clamp_min(0) for text, _ in concepts]
    span = text_span_of(session)
    return {
        "concepts": [
            {"text": text, "weight": weight, "map": _rounded(map_ / map_.amax().clamp_min(1e-12))}
            for (text, weight), map_ in zip(concepts, maps, strict=True)
        ],
        "neurons": [
            {
                "layer": one.layer, "unit": one.unit, "norm": one.norm,
                "projection": one.projection, "over_threshold": one.excess,
                "phrases": says(session.bundle, one.layer, one.unit),
            }
            for one in reader.activated(effects, top=_NEURONS)
        ],
        "percentile": session.bundle.config.percentile,
        "activated": sum(int(mine.activated.sum()) for mine in effects.values()),
        "others": {
            **{
                other: _pairs(top_concepts(weights[other], texts, _TOP))
                for other in weights
                if other != way
            },
            "text_span": _pairs(
                top_concepts(span(pixels.to(session.clip.device))[0], texts, _TOP) if span else []
            ),
            "nearest_texts": _pairs(
                top_concepts(reader.nearest_texts(representation)[0], texts, _TOP)
            ),
        },
        "way": way,
        "shown": image_uri(_as_seen(session, torch.as_tensor(pixels[0]))),
    }  # fmt: skip


def contrast(session: BundleSession, images: list[Image.Image], way: str) -> dict:
    """What several images have in common, and what sets each apart."""
    import torch

    from clipneurons.explore.concepts import compare

    if len(images) < 2:
        raise ValueError("Choose at least two pictures to compare.")
    if len(images) > _IMAGES:
        raise ValueError(f"At most {_IMAGES} pictures at once, please.")
    reader = reader_of(session)
    pixels = torch.stack([session.clip.preprocess(image) for image in images])
    weights = reader.weights(reader(pixels)[1], way)
    found = compare(weights, session.bundle.texts)
    return {
        "common": _pairs(found.common),
        "only": [_pairs(pairs) for pairs in found.only],
        "shown": [image_uri(_as_seen(session, one)) for one in pixels],
    }


def _pairs(pairs: list[tuple[str, float]]) -> list[dict]:
    return [{"text": text, "weight": weight} for text, weight in pairs]


def _rounded(map_) -> list[list[float]]:
    return [[round(value, 3) for value in row] for row in map_.tolist()]


def _as_seen(session: BundleSession, pixels) -> Image.Image:
    """The square that the model sees, as a picture."""
    import torch
    from torchvision.transforms.functional import to_pil_image

    config = session.bundle.config
    mean = torch.tensor(config.image_mean)[:, None, None]
    std = torch.tensor(config.image_std)[:, None, None]
    return to_pil_image((pixels.cpu() * std + mean).clamp(0, 1))


# -- what it shows


def concepts_html(key: str, found: dict) -> str:
    """Picture, concepts that light up their patches, neurons, and the other readings."""
    concepts = found["concepts"]
    if not concepts:
        return (
            '<article class="cn-concepts">'
            + empty("No neuron reacts to this picture more than to most others: no concepts.")
            + "</article>"
        )
    most = concepts[0]["weight"]
    maps = "".join(
        f'<img class="cn-map cn-map-{i}" alt="" src="{patch_mask(one["map"])}">'
        for i, one in enumerate(concepts)
    )
    rows = "".join(
        f'<label title="{escape(one["text"])}: {one["weight"]:.3g}">'
        f'<input type="radio" name="cn-concept" class="cn-pick-{i}">'
        f'<span class="cn-name">{escape(one["text"])}</span>'
        f'<span class="cn-track" aria-hidden="true"><span class="cn-bar cn-plus" '
        f'style="--share:{one["weight"] / most:.4f}"></span></span>'
        f'<span class="cn-value">{one["weight"]:.2f}</span></label>'
        for i, one in enumerate(concepts)
    )
    title = ", ".join(one["text"] for one in concepts[:3])
    picture = (
        f'<div><div class="cn-picture"><img src="{found["shown"]}" alt="The picture as the model '
        f'sees it. Concepts found: {escape(title)}">{maps}</div>'
        '<p class="cn-note">Point at a concept, or choose it, to light up the patches where the '
        "neurons that say it fire.</p></div>"
    )
    choices = f'<fieldset class="cn-choices" aria-label="Concepts">{rows}</fieldset>'
    body = f"<div><h2>{escape(title)}</h2>{section('Concepts', choices)}</div>"
    return (
        f'<article class="cn-concepts"><div class="cn-look">{picture}{body}'
        f"</div>{_neurons_html(key, found)}{_others_html(found)}</article>"
    )


def _neurons_html(key: str, found: dict) -> str:
    rows = "".join(
        f"<tr><td>{_card_link(key, one)}</td><td>{escape(one['phrases'])}</td>"
        f'<td class="cn-number">{one["norm"]:.2f}</td>'
        f'<td class="cn-number">{one["projection"]:+.2f}</td>'
        f'<td class="cn-number">{one["over_threshold"]:.1f}×</td></tr>'
        for one in found["neurons"]
    ).replace(">-", ">−")
    table = (
        '<div class="cn-scroll"><table class="cn-table cn-activated"><thead><tr><th>Neuron</th>'
        '<th>Says</th><th class="cn-number">Effect</th><th class="cn-number">Along its '
        'direction</th><th class="cn-number">Over threshold</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    note = (
        f"{found['activated']} neurons react to this picture more than to "
        f"{found['percentile']:g} % of the data; the strongest are below. Follow one into the "
        "dictionary."
    )
    return section("Neurons behind it", table, note)


def _card_link(key: str, one: dict) -> str:
    layer, unit = one["layer"], one["unit"]
    return link(f"{layer} · {unit}", tab="dictionary", layer=layer, unit=unit, bundle=key)


def _others_html(found: dict) -> str:
    titles = {
        "dense": ("All that neurons write", "Σ⟨φ − b, text⟩ over all neurons, exactly."),
        "sparse-projection": (
            "Phrases, signed weights", "Σ γ⟨φ, r⟩: effects against a direction count so.",
        ),
        "sparse-norm": (
            "Phrases, the paper’s weights", "Σ γ‖φ‖: sizes of effects, whatever their sign.",
        ),
        "text_span": ("Attention heads (TextSpan)", "First-order effects, Gandelsman et al. 2024."),
        "nearest_texts": ("Nearest texts", "Cosine of the whole embedding with each text."),
    }  # fmt: skip
    parts = []
    for name, pairs in found["others"].items():
        title, note = titles[name]
        rows = [Bar(one["text"], one["weight"]) for one in pairs]
        body = bars(rows, label=title) if rows else empty("Not defined for this kind of model.")
        parts.append(section(title, body, note))
    grid = f'<div class="cn-three">{"".join(parts)}</div>'
    return section("The same picture, read in other ways", grid)


def contrast_html(found: dict) -> str:
    """Common concepts, and each picture's own."""

    def rows(pairs: list[dict], label: str) -> str:
        return bars([Bar(one["text"], one["weight"]) for one in pairs], label=label)

    own = "".join(
        f'<div><div class="cn-gallery"><figure><img alt="Picture {i + 1}" src="{uri}"></figure>'
        "</div>"
        f"{rows(pairs, f'Only in picture {i + 1}')}</div>"
        for i, (uri, pairs) in enumerate(zip(found["shown"], found["only"], strict=True))
    )
    return (
        '<article class="cn-concepts">'
        + section("In all of them", rows(found["common"], "Common concepts"))
        + section("In one more than in the others", f'<div class="cn-three">{own}</div>')
        + "</article>"
    )


def examples_of(session: BundleSession) -> list[tuple[Image.Image, str]]:
    """A few gallery pictures to try."""
    from io import BytesIO

    kept = session.sample(6)
    return [
        (
            open_image(BytesIO(session.bundle.examples[image])),
            session.bundle.examples.caption(image),
        )
        for image in kept
    ]


# -- the tab


def build(registry: BundleRegistry, source: gr.Dropdown) -> None:
    """Components and events."""
    first = registry.first
    gr.HTML(
        '<p class="cn-lede">Bring a picture: the neurons that react to it more than usual tell, in '
        "their own phrases, what they find in it and where.</p>"
    )
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            image = ImageInput("Your picture", elem_id="concepts-image", height=280)
        with gr.Column(scale=3, min_width=260):
            gr.HTML('<p class="cn-note">Or try one of these:</p>')
            gallery = gr.Gallery(
                examples_of(first), label="Or try one of these", columns=6, height=112, rows=1,
                allow_preview=False, object_fit="cover", elem_id="concepts-examples", buttons=[],
                show_label=False,
            )  # fmt: skip
            with gr.Row(elem_classes="cn-search"):
                way = gr.Radio(
                    WAYS, value=default_way(first), label="Weigh neurons by", scale=3,
                    elem_id="concepts-way",
                )  # fmt: skip
                take_former_names(way)
                go = gr.Button(
                    "Find concepts", variant="primary", scale=1, min_width=130,
                    elem_id="concepts-go",
                )  # fmt: skip
    result = html(
        empty("Concepts appear here as soon as there is a picture."), elem_id="concepts-result"
    )
    data = gr.JSON(visible="hidden", label="Concepts")
    with gr.Accordion("Compare several pictures", open=False, elem_id="concepts-several"):
        files = gr.File(
            label="Two to eight pictures", file_count="multiple", file_types=["image"],
            elem_id="concepts-files", height=150,
        )  # fmt: skip
        both = gr.Button("Compare", elem_id="concepts-compare")
        compared = html(elem_id="concepts-compared")
        compared_data = gr.JSON(visible="hidden", label="Comparison")

    @on_gpu()
    @user_errors
    def concepts(bundle: str, image: Image.Image | None, way: str) -> dict:
        """Concepts of an image: texts with weights and maps of patches, and their neurons.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            image: a PNG, JPEG, WebP, GIF or BMP of at most 10 MB and 40 million pixels.
            way: "dense" (all that neurons write), or the phrases of activated neurons:
                "sparse-projection" (weighed by the projection on each neuron's direction) or
                "sparse-norm" (by norm, as in the paper).
        """
        return discover(registry[bundle], image, way)

    @on_gpu()
    @user_errors
    def compare_images(bundle: str, files: list[str] | None, way: str) -> dict:
        """Concepts that several images have in common, and those that set each apart.

        Args:
            bundle: key of the bundle, or "" for the one the page opens with.
            files: two to eight images.
            way: "dense", "sparse-projection" or "sparse-norm".
        """
        images = [open_image(file) for file in (files or [])[: _IMAGES + 1]]
        return contrast(registry[bundle], images, way)

    private = {"api_visibility": "private"}

    def redraw(key: str, found: dict | None):
        return concepts_html(key, found) if found else gr.skip()

    found = gr.on(
        [go.click, image.upload], concepts, [source, image, way], [data],
        api_name="concepts", concurrency_id=MODEL, show_progress_on=[result],
    )  # fmt: skip
    found.success(concepts_html, [source, data], [result], **private)

    @user_errors
    def choose(bundle: str, event: gr.SelectData) -> Image.Image:
        return examples_of(registry[bundle])[event.index][0]

    @on_gpu()
    @user_errors
    def again(bundle: str, image: Image.Image | None, way: str):
        return gr.skip() if image is None else discover(registry[bundle], image, way)

    way.input(
        again, [source, image, way], [data], concurrency_id=MODEL, show_progress_on=[result],
        **private,
    ).success(redraw, [source, data], [result], **private)  # fmt: skip
    gallery.select(choose, [source], [image], **private).success(
        concepts, [source, image, way], [data], concurrency_id=MODEL, show_progress_on=[result],
        **private,
    ).success(concepts_html, [source, data], [result], **private)  # fmt: skip
    both.click(
        compare_images, [source, files, way], [compared_data], api_name="compare",
        concurrency_id=MODEL, show_progress_on=[compared],
    ).success(contrast_html, [compared_data], [compared], **private)  # fmt: skip

    def opened(bundle: str):
        session = registry[bundle]
        return examples_of(session), default_way(session), empty("Choose a picture.")

    source.change(opened, [source], [gallery, way, result], **private)
