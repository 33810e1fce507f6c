"""The attack on many class pairs: goes on where it was stopped, and counts at the end."""

from __future__ import annotations

import csv
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from clipneurons.adversarial.attack import attack
from clipneurons.adversarial.cue_request import check_name
from clipneurons.adversarial.cues import Cues
from clipneurons.adversarial.descriptions import check_count
from clipneurons.adversarial.duplicates import Duplicates
from clipneurons.adversarial.image_generator import picture_seeds
from clipneurons.adversarial.methods import INDIRECT, METHODS, RECORDED, TESTED_LABELS
from clipneurons.adversarial.pictogram_generator import Composer
from clipneurons.adversarial.zero_shot import ZeroShotClassifier
from export.attack.components import (
    Components,
    all_cues,
    open_components,
    progress,
)
from export.attack.options import ALL, SHOWN, AttackOptions
from export.attack.report import render, summarise, write
from export.attack.results import CUES, AttackFolder, Cell, check_space
from export.common.errors import UserError
from export.common.settings import read_text

# Everyday pairs in the spirit of the paper's Table 3, all of them pictograms.
EXAMPLE_PAIRS = (
    ("cat", "dog"), ("dog", "cat"), ("horse", "automobile"), ("automobile", "horse"),
    ("bird", "frog"), ("ship", "truck"), ("truck", "ship"), ("deer", "airplane"),
    ("frog", "bird"), ("airplane", "deer"),
)  # fmt: skip
MAX_SEEDS, MAX_PAIRS = 20, 200


def run_attack(options: AttackOptions) -> str:
    """Make, judge and count the pictures; the table in words, which is also in `options.out`."""
    started = time.perf_counter()
    pairs, methods = _pairs(options), _methods(options.methods)
    check_count(options.images)
    if not 1 <= options.seeds <= MAX_SEEDS:
        raise UserError(f"--seeds {options.seeds}: expected 1 to {MAX_SEEDS}")
    blocked = tuple(check_name(word, "blocked word") for word in _list(options.block))
    components = open_components(options)
    if options.methods == ALL and components.clip.kind == "resnet":
        methods.remove(INDIRECT)  # whose effects are those of a ViT's neurons
    if options.methods == ALL and not components.bundle.labels:
        methods.remove(TESTED_LABELS)
    if options.methods == ALL and not components.draws_cues:
        methods = [method for method in methods if method not in RECORDED]
    side = options.size or max(components.clip.image_size)
    folder = AttackFolder(options.out, _settings(options, pairs, methods))
    cells = [Cell(p, m, s) for p in pairs for m in methods for s in range(options.seeds)]
    kept = len(cells) * (options.images if options.keep != "none" else SHOWN)
    check_space(options.out, kept, side)
    for true_class, _ in pairs:
        list(
            components.painter(true_class, [], [])
        )  # paints nothing, but knows what it cannot paint
    cues = all_cues(options, components, folder, cells, blocked)
    folder.begin()
    _write_cues(folder.folder / CUES, cues)
    done = folder.outcomes()
    for number, cell in enumerate(cells, start=1):
        have = len(done.get(cell, []))
        if have < options.images:
            done[cell] = _run_cell(
                options, components, folder, cell, cues[cell], done.get(cell, [])
            )
        progress(f"{number}/{len(cells)} {cell.pair[0]} → {cell.pair[1]}, {cell.method}")
    progress("")
    return _finish(options, components, folder, done, pairs, methods, time.perf_counter() - started)


def _run_cell(
    options, components: Components, folder: AttackFolder, cell: Cell, cues: Cues, have: list
):
    """The outcomes of one cell; a part that was done is taken over when its pictures are there."""
    true_class, target_class = cell.pair
    duplicates = Duplicates()
    if have:
        pictures = folder.pictures(cell, len(have))
        if pictures is None:
            folder.forget([cell])
            have = []
        for picture in pictures or ():
            duplicates.seen(picture)
    others = [name for name in _list(options.others) if name not in cell.pair]
    # The same seeds for every method: only the cues differ.
    descriptions = components.describer(
        true_class, target_class, cues.words, options.images, cell.seed
    )
    seeds = picture_seeds(options.images, cell.seed)
    batches = attack(
        ZeroShotClassifier(components.clip, true_class, target_class, others),
        components.painter,
        descriptions[len(have) :],
        seeds[len(have) :],
        check=components.check(true_class, target_class),
        transfer={
            n: ZeroShotClassifier(t, true_class, target_class)
            for n, t in components.transfer.items()
        },
        duplicates=duplicates,
        # A painted picture takes seconds: lose at most one of them.
        batch_size=50 if isinstance(components.painter, Composer) else 1,
    )
    outcomes = list(have)
    for batch in batches:
        folder.add(cell, len(outcomes), batch, options.keep)
        outcomes += batch
    return outcomes


def _finish(options, components, folder, done, pairs, methods, seconds: float) -> str:
    summary = summarise(done, pairs, methods, options.seeds)
    command = f"python -m export {shlex.join(sys.argv[1:])}"
    config = components.bundle.config
    similarity = components.similarity.name if components.similarity else "string rules alone"
    notes = [
        f"model: {config.model} {config.pretrained or ''} (weights {config.weights_sha256[:12]})",
        f"{options.images} pictures, {options.seeds} seeds, {options.neurons} neurons, "
        f"{options.words} cues of which {options.cues_each} in a picture; "
        "pictures with the same number share their seed",
        f"synonyms of the target class removed by {similarity}",
        f"described by {options.describer}, painted by {options.painter}"
        + (", the held-out ones" if options.heldout else ""),
    ]
    write(folder.folder, summary, command, notes)
    for pair in pairs:
        folder.contact_sheet(pair, methods, done)
    return f"{render(summary, command, notes)}\n{seconds:.0f} s; written to {folder.folder}"


def _pairs(options: AttackOptions) -> list[tuple[str, str]]:
    if options.pairs and (options.true or options.target):
        raise UserError("give --pairs, or --true and --target, not both")
    if options.pairs == "examples":
        found = list(EXAMPLE_PAIRS)
    elif options.pairs:
        found = list(_read_pairs(Path(options.pairs)))
    elif options.true and options.target:
        found = [(options.true, options.target)]
    else:
        raise UserError("expected --true CLASS --target CLASS, or --pairs FILE")
    found = list(dict.fromkeys((check_name(true), check_name(target)) for true, target in found))
    if not 1 <= len(found) <= MAX_PAIRS:
        raise UserError(f"expected 1 to {MAX_PAIRS} class pairs, got {len(found)}")
    return found


def _read_pairs(file: Path) -> Iterator[tuple[str, str]]:
    if not file.is_file():
        raise UserError(f"--pairs {file} does not exist: expected a CSV file, or `examples`")
    for number, row in enumerate(csv.reader(read_text(file).splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if (
            not any(cells)
            or cells[0].startswith("#")
            or cells in (["true", "target"], ["true", "fooled"])
        ):
            continue
        if len(cells) != 2:
            raise UserError(
                f"{file}, line {number}: expected `true,target`, got {len(cells)} cells"
            )
        yield cells[0], cells[1]


def _methods(text: str) -> list[str]:
    if text == ALL:
        return list(METHODS)
    chosen = _list(text)
    unknown = [method for method in chosen if method not in METHODS]
    if unknown or not chosen:
        raise UserError(f"--methods {text!r}: expected some of {', '.join(METHODS)}")
    return list(dict.fromkeys(chosen))


def _settings(options: AttackOptions, pairs, methods) -> dict:
    """What decides the rows; where they are kept does not."""
    without = ("out", "true", "target", "device", "offload")
    settings = {n: v for n, v in asdict(options).items() if n not in without}
    return settings | {"pairs": [list(pair) for pair in pairs], "methods": list(methods)}


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _write_cues(file: Path, cues: Mapping[Cell, Cues]) -> None:
    rows = [asdict(cell) | asdict(found) for cell, found in cues.items()]
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
