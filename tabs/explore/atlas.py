"""The map of all units and the mosaic of images: what the browser draws them from."""

from __future__ import annotations

import json
from html import escape
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.bundle.unit_words import plain
from tabs.server.session import BundleSession
from tabs.ui.units import says

# Colours of the map; images of a unit on hover; images of the mosaic and their size in pixels.
CLUSTERS, HOVER = 8, 4
TILES, TILE = 32, 96
# Rounds of k-means: clusters of a few hundred texts settle long before.
_ROUNDS = 30
_HELP = "Map of all units. Arrow keys move to the nearest unit, Enter opens it, + and − zoom."


def is_photograph(caption: str) -> bool:
    """Whether a caption says that its image is a photograph."""
    return caption.startswith(("a photo", "photo"))


# -- the map


def map_data(session: BundleSession) -> dict:
    """Columns with a value a unit, and the legend: what the script of the map draws.

    `kind` is the unit's colour, −1 without a reliable label. Empty without a map in the bundle.
    """
    return session.cached("map", lambda: _map_data(session))


def _map_data(session: BundleSession) -> dict:
    bundle, dictionary = session.bundle, session.dictionary
    if not bundle.positions:
        return {}
    alive = dictionary.directions.any(1)
    rows = alive.nonzero().flatten().tolist()
    kinds, legend = _kinds(session)
    xy = torch.cat([bundle.positions[layer] for layer in dictionary.layers])
    places = [dictionary.place(row) for row in rows]
    scores = (100 * dictionary.simulation_score).round().int().tolist()
    return {
        "layer": [layer for layer, _ in places],
        "unit": [unit for _, unit in places],
        "x": [round(float(x), 3) for x in xy[alive, 0]],
        "y": [round(float(y), 3) for y in xy[alive, 1]],
        "kind": [kinds.get(row, -1) for row in rows],
        "score": [scores[row] for row in rows] if dictionary.tested else [],
        "label": [says(bundle, *place) for place in places],
        "images": [images[:HOVER] for images in _top_images(session, places)],
        "legend": legend,
    }


def _top_images(session: BundleSession, places: list[tuple[int, int]]) -> list[list[int]]:
    """Each unit's first images with a thumbnail."""
    kept, columns = set(session.bundle.examples), {}
    for layer, arrays in session.bundle.layers.items():
        columns[layer] = arrays.top_activating_images.tolist()
    return [[image for image in columns[layer][unit] if image in kept] for layer, unit in places]


def _kinds(session: BundleSession) -> tuple[dict[int, int], list[str]]:
    """The colour of each unit with a reliable label, by row, and what stands for each colour.

    The labels' first texts, grouped by k-means of their embeddings without what all share.
    """
    dictionary, bundle = session.dictionary, session.bundle
    rows = dictionary.reliable.nonzero().flatten().tolist()
    first = {}
    for row in rows:
        layer, unit = dictionary.place(row)
        first[row] = int(bundle.labels[layer].indices[unit, 0])
    texts = sorted(set(first.values()))
    if len(texts) < CLUSTERS:
        return {row: texts.index(text) for row, text in first.items()}, [
            plain(bundle.texts[text]) for text in texts
        ]
    vectors = bundle.text_embeddings[texts]
    vectors = normalize(vectors - vectors.mean(0), dim=1)
    group, centres = clusters(vectors, CLUSTERS)
    central = (vectors @ centres.T).argmax(0).tolist()
    kinds = dict(zip(texts, group.tolist(), strict=True))
    legend = [plain(bundle.texts[texts[text]]) for text in central]
    return {row: kinds[text] for row, text in first.items()}, legend


def clusters(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """k-means of unit rows by cosine: the group of each row, and the centres.

    Starts from rows that are far from each other, so that it is the same every time.
    """
    centres = rows[:1]
    while len(centres) < count:
        farthest = (rows @ centres.T).amax(1).argmin()
        centres = torch.cat([centres, rows[farthest, None]])
    for _ in range(_ROUNDS):
        group = (rows @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, group, rows)
        centres = normalize(torch.where(sums.any(1, keepdim=True), sums, centres), dim=1)
    return (rows @ centres.T).argmax(1), centres


def map_html(session: BundleSession) -> str:
    """The frame in which the script draws; a line instead for a bundle without a map."""
    bundle = session.bundle
    units = {layer: session.dictionary.units(layer) for layer in session.dictionary.layers}
    data = f'data-bundle="{escape(session.key)}" data-units="{escape(json.dumps(units))}"'
    if not bundle.positions:
        note = (
            "This bundle has no map of its units: <code>export refresh-card --map</code> draws it."
        )
        return f'<div class="cn-atlas cn-nomap" {data}><p class="cn-note">{note}</p></div>'
    layers = "".join(f'<option value="{layer}">layer {layer}</option>' for layer in units)
    return (
        f'<div class="cn-atlas" {data}><div class="cn-atlas-tools">'
        f'<select aria-label="Layers on the map"><option value="">all layers</option>{layers}'
        '</select><label><input type="checkbox"> reliable labels only</label>'
        '<span class="cn-lit-count" role="status"></span></div>'
        f'<div class="cn-stage"><canvas tabindex="0" role="application" aria-label="{_HELP}">'
        '</canvas><div class="cn-tip" hidden></div></div><p class="cn-legend"></p></div>'
    )


# -- the mosaic


def mosaic_images(session: BundleSession) -> list[int]:
    """Images that units with the best predicted labels react to most, each once.

    Photographs come first.
    """

    def choose() -> list[int]:
        dictionary, examples = session.dictionary, session.bundle.examples
        rows = dictionary.most_reliable(len(dictionary.directions))
        places = [dictionary.place(row) for row in rows] or [
            dictionary.place(row) for row in dictionary.interest.topk(TILES).indices.tolist()
        ]
        seen, chosen = set(), {}
        for place, images in zip(places, _top_images(session, places), strict=True):
            name = says(session.bundle, *place).split(", ")[0] or str(place)
            photographs = [i for i in images if is_photograph(examples.caption(i))]
            for image in photographs[:2] or images[:1]:
                if name not in seen and image not in chosen:
                    seen.add(name)
                    chosen[image] = bool(photographs)
        ranked = sorted(chosen, key=lambda image: not chosen[image])
        return ranked[:TILES]

    return session.cached("mosaic images", choose)


def mosaic_html(session: BundleSession) -> str:
    """Buttons with a part of one picture each; a click lists the units that see it."""
    images = mosaic_images(session)
    if not images:
        return ""
    key, caption = escape(session.key), session.bundle.examples.caption
    tiles = "".join(
        f'<button type="button" data-image="{image}" style="--place:{place}"'
        f' aria-label="Units that see {escape(caption(image) or f"image {image}")}"></button>'
        for place, image in enumerate(images)
    )
    return (
        '<section class="cn-mosaic"><h3>What units see</h3><p class="cn-note">Images that single '
        "units react to most. Choose one to list the units that see it.</p>"
        f'<div class="cn-tiles" data-bundle="{key}" style="--tiles:{len(images)}">{tiles}</div>'
        '<div class="cn-seen" role="status"></div></section>'
    )


def mosaic_sheet(session: BundleSession) -> bytes:
    """The images of the mosaic beside each other, as one WebP."""

    def draw() -> bytes:
        images = mosaic_images(session)
        sheet = Image.new("RGB", (TILE * max(1, len(images)), TILE))
        for place, image in enumerate(images):
            tile = session.image(image).resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (TILE * place, 0))
        buffer = BytesIO()
        sheet.save(buffer, "WEBP", quality=72)
        return buffer.getvalue()

    return session.cached("mosaic sheet", draw)


def units_that_see(session: BundleSession, image: int, most: int = 12) -> list[dict]:
    """Units that have an image among those they react to most.

    By how near the image's effect is to the unit's largest; reliable labels first.
    """
    found = []
    for layer, arrays in session.bundle.layers.items():
        for unit, rank in (arrays.top_activating_images == image).nonzero().tolist():
            share = float(arrays.top_norms[unit, rank] / arrays.top_norms[unit, 0])
            label = says(session.bundle, layer, unit)
            found.append({"layer": layer, "unit": unit, "label": label, "share": share})
    return sorted(found, key=lambda hit: (not hit["label"], -hit["share"]))[:most]
