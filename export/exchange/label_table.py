"""The table that tools on neuron labels share: `layer,unit,description,similarity`.

One description a unit. CLIP-Dissect writes it as `descriptions.csv` beside `args.txt` (JSON), CoSy
reads it from `assets/explanations/METHOD/MODEL-LAYER.csv`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clipneurons.bundle.bundle import Bundle
from clipneurons.bundle.folders import write_atomic
from export.common.errors import UserError
from export.common.settings import read_text

COLUMNS = ("layer", "unit", "description", "similarity")
METHOD = "clipneurons"


@dataclass(frozen=True)
class Described:
    """One unit's description, and how similar whoever wrote it takes both to be."""

    layer: int
    unit: int
    description: str
    similarity: float = 0.0


def descriptions_of(bundle: Bundle) -> list[Described]:
    """Of each unit the text of its label that its effect grows with most, and the label's score.

    Units whose label has no such text are left out.

    Raises:
        UserError: a bundle whose labels were not tested.
    """
    if not bundle.labels:
        raise UserError("the bundle has no labels: run python -m export evaluate labels first")
    rows = []
    for layer, arrays in bundle.layers.items():
        for unit in range(len(arrays.directions)):
            label = bundle.label(layer, unit)
            if label and label.positive:
                score = round(label.simulation_score, 4)
                rows.append(Described(layer, unit, label.positive[0], score))
    return rows


def write_table(rows: Iterable[Described], path: Path) -> None:
    """The table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((row.layer, row.unit, row.description, row.similarity) for row in rows)
    write_atomic(path, buffer.getvalue().encode())


def write_clip_dissect(bundle: Bundle, folder: Path) -> None:
    """`descriptions.csv` and `args.txt`, as CLIP-Dissect leaves them behind."""
    config = bundle.config
    write_table(descriptions_of(bundle), folder / "descriptions.csv")
    settings = {
        "target_model": f"{config.model} {config.pretrained or ''}".strip(),
        "target_layers": ",".join(map(str, config.layers)), "d_probe": config.data.name,
        "concept_set": config.pool.name, "similarity_fn": METHOD,
    }  # fmt: skip
    write_atomic(folder / "args.txt", (json.dumps(settings, indent=2) + "\n").encode())


def write_cosy(bundle: Bundle, folder: Path) -> None:
    """A table a layer, where CoSy looks for the explanations of a method."""
    model = Path(bundle.config.model).name or "model"
    model = "model" if bundle.config.carries_model else model
    rows = descriptions_of(bundle)
    for layer in bundle.layers:
        path = folder / "assets" / "explanations" / METHOD / f"{model}-{layer}.csv"
        write_table([row for row in rows if row.layer == layer], path)


def read_table(path: Path, bundle: Bundle) -> list[Described]:
    """Anybody's descriptions of a bundle's units.

    Raises:
        UserError: columns, layers or units that are not there, a unit twice, no description.
    """
    table = csv.DictReader(io.StringIO(read_text(path)))
    missing = [name for name in COLUMNS[:3] if name not in (table.fieldnames or ())]
    if missing:
        raise UserError(f"{path} has no column {missing[0]}: expected {','.join(COLUMNS)}")
    rows: dict[tuple[int, int], Described] = {}
    for number, line in enumerate(table, 2):
        where = f"{path}, line {number}"
        try:
            layer, unit = int(line["layer"]), int(line["unit"])
            similarity = float(line.get("similarity") or 0)
        except (TypeError, ValueError):
            raise UserError(f"{where}: expected numbers for layer, unit and similarity") from None
        if layer not in bundle.layers or not 0 <= unit < len(bundle.layers[layer].directions):
            units = {layer: len(arrays.directions) for layer, arrays in bundle.layers.items()}
            known = ", ".join(f"layer {layer} with {count} units" for layer, count in units.items())
            raise UserError(f"{where}: layer {layer}, unit {unit}: the bundle has {known}")
        if (layer, unit) in rows:
            raise UserError(f"{where}: layer {layer}, unit {unit} is described twice")
        text = " ".join((line["description"] or "").split())
        if not text:
            raise UserError(f"{where}: no description")
        rows[layer, unit] = Described(layer, unit, text, similarity)
    if not rows:
        raise UserError(f"{path} describes no unit")
    return list(rows.values())
