"""A bundle as a folder that Neuronpedia imports: features, top images, explanations.

    MODEL/LAYER-SOURCE/  release.jsonl  model.jsonl  sourceset.jsonl  source.jsonl
                         features/batch-N.jsonl.gz      texts and figures of each unit
                         activations/batch-N.jsonl.gz   its top-activating images
                         explanations/batch-N.jsonl.gz  its label
                         thumbnails/ID.webp

Neuronpedia has no field for images: an activation's one token is the path of a thumbnail.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.folders import write_atomic
from clipneurons.bundle.layer_arrays import LayerArrays
from clipneurons.bundle.thumbnails import shown_images
from clipneurons.bundle.unit_words import signed_words

SOURCE, _BATCH, _SIMILAR = "clipneurons", 256, 10


def write_neuronpedia(bundle: Bundle, folder: Path) -> None:
    """A folder for each of the bundle's layers."""
    for layer, arrays in bundle.layers.items():
        _write_layer(bundle, layer, arrays, folder)


def _write_layer(bundle: Bundle, layer: int, arrays: LayerArrays, folder: Path) -> None:
    config = bundle.config
    model = "model" if config.carries_model else config.model.replace("/", "--")
    source = f"{layer}-{SOURCE}"
    place = folder / model / source
    about = {"modelId": model, "layer": source}
    for name, row in (
        ("release", {"name": SOURCE, "description": f"{config.noun}s of {model}"}),
        ("model", {"id": model, "displayName": f"{config.model} {config.pretrained or ''}".strip(),
                   "layers": len(config.layers)}),
        ("sourceset", {"modelId": model, "name": SOURCE, "releaseName": SOURCE}),
        ("source", {"id": source, "modelId": model, "setName": SOURCE,
                    "dataset": config.data.name}),
    ):  # fmt: skip
        write_atomic(place / f"{name}.jsonl", f"{_json(row)}\n".encode())
    units = range(len(arrays.directions))
    similar = (arrays.directions @ arrays.directions.T).fill_diagonal_(-1)
    cosines, nearest = similar.topk(min(_SIMILAR, len(units) - 1)) if len(units) > 1 else ([], [])
    shown: set[int] = set()
    for number, start in enumerate(range(0, len(units), _BATCH)):
        part = units[start : start + _BATCH]
        features = [
            about
            | _feature(bundle, layer, arrays, unit)
            | {"topkCosSimIndices": nearest[unit].tolist() if len(nearest) else [],
               "topkCosSimValues": _rounded(cosines[unit]) if len(cosines) else []}
            for unit in part
        ]  # fmt: skip
        activations = [about | row for unit in part for row in _activations(bundle, arrays, unit)]
        explanations = [about | row for unit in part for row in _explanation(bundle, layer, unit)]
        for name, rows in (
            ("features", features), ("activations", activations), ("explanations", explanations),
        ):  # fmt: skip
            _write_batch(place / name / f"batch-{number}.jsonl.gz", rows)
        shown.update(row["dataIndex"] for row in activations)
    for image in sorted(shown):
        write_atomic(place / "thumbnails" / f"{image}.webp", bundle.examples[image])


def _feature(bundle: Bundle, layer: int, arrays: LayerArrays, unit: int) -> dict[str, Any]:
    """Texts that its direction is a sum of, and the histogram of its effects' norms."""
    texts = bundle.phrases(layer, unit, 10)
    more = [(text, value) for text, value in texts if value > 0]
    less = [(text, value) for text, value in texts if value < 0]
    edges, counts = bundle.config.norm_edges, arrays.norm_histogram[unit].tolist()
    filled = [i for i, count in enumerate(counts) if count]
    return {
        "index": unit,
        "maxActApprox": round(float(arrays.top_norms[unit].max()), 4),
        "hasVector": True,
        "vector": _rounded(arrays.directions[unit]),
        "hookName": "image_embedding",
        "pos_str": [text for text, _ in more],
        "pos_values": [round(value, 4) for _, value in more],
        "neg_str": [text for text, _ in less],
        "neg_values": [round(value, 4) for _, value in less],
        "frac_nonzero": round(float(arrays.participation_ratio[unit]), 4),
        "freq_hist_data_bar_heights": [counts[i] for i in filled],
        "freq_hist_data_bar_values": [
            round((max(edges[i], 0) + edges[i + 1]) / 2, 4) for i in filled
        ],
    }


def _activations(bundle: Bundle, arrays: LayerArrays, unit: int) -> list[dict[str, Any]]:
    """Its top-activating images, each with the norm of the effect as its one value."""
    images = shown_images(
        arrays.top_activating_images[unit], arrays.top_norms[unit], bundle.examples
    )
    return [
        {
            "id": f"{unit}-{image}", "index": unit, "tokens": [f"thumbnails/{image}.webp"],
            "values": [round(norm, 4)], "maxValue": round(norm, 4), "maxValueTokenIndex": 0,
            "minValue": 0.0, "dataSource": bundle.config.data.name, "dataIndex": image,
        }
        for image, norm in images
    ]  # fmt: skip


def _explanation(bundle: Bundle, layer: int, unit: int) -> list[dict[str, Any]]:
    """Its reliable label, if it has one."""
    words = signed_words(bundle, layer, unit)
    if not words:
        return []
    return [
        {
            "id": f"{layer}-{unit}", "index": unit, "description": ", ".join(words),
            "authorId": SOURCE, "typeName": "simulation-score", "explanationModelName": SOURCE,
        }
    ]  # fmt: skip


def _write_batch(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = "".join(f"{_json(row)}\n" for row in rows)
    # Without a time, so that the same bundle gives the same bytes.
    write_atomic(path, gzip.compress(lines.encode(), mtime=0))


def _json(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _rounded(values) -> list[float]:
    return [round(value, 4) for value in values.tolist()]
