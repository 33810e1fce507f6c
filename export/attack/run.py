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

from clipneurons.adversarial.attack import Duplicates, Outcome, attack
from clipneurons.adversarial.composer import Composer
from clipneurons.adversarial.cue_request import METHODS, RECORDED, check_name
from clipneurons.adversarial.cues import Cues
from clipneurons.adversarial.descriptions import check_count
from clipneurons.adversarial.image_generator import image_seeds
from clipneurons.adversarial.zero_shot import ZeroShotClassifier
from clipneurons.bundle.folders import write_atomic
from export.attack.components import (
    Baselines,
    Components,
    check_recordable,
    cues_of_cells,
    open_components,
    progress,
    with_recordings,
)
from export.attack.options import ALL, SHOWN, AttackOptions
from export.attack.report import render, summarise, write
from export.attack.results import CUES, AttackFolder, Cell, check_space
from export.common.errors import UserError
from export.common.settings import read_text

# Everyday pairs in the spirit of the paper's Table 3; there are pictograms of all.
EXAMPLE_PAIRS = (
    ("cat", "dog"), ("dog", "cat"), ("horse", "automobile"), ("automobile", "horse"),
    ("bird", "frog"), ("ship", "truck"), ("truck", "ship"), ("deer", "airplane"),
    ("frog", "bird"), ("airplane", "deer"),
)  # fmt: skip
MAX_SEEDS, MAX_PAIRS = 20, 200


def run_attack(options: AttackOptions, baselines: Baselines | None = None) -> str:
    """Draw, judge and count the images; the table as text, which is also in `options.out`.

    Args:
        options: what to do.
        baselines: further methods that `options.methods` may name, by name.
    """
    started = time.perf_counter()
    baselines = baselines or {}
    pairs, methods = _pairs(options), _methods(options.methods, baselines)
    check_count(options.images)
    if not 1 <= options.seeds <= MAX_SEEDS:
        raise UserError(f"--seeds {options.seeds}: expected 1 to {MAX_SEEDS}")
    blocked = tuple(check_name(word, "blocked word") for word in _list(options.block))
    components = open_components(options)
    if options.methods == ALL and not components.draws_cues:
        methods = [method for method in methods if method not in RECORDED]
    side = options.size or max(components.clip.image_size)
    folder = AttackFolder(options.out, _settings(options, components, pairs, methods))
    cells = [Cell(p, m, s) for p in pairs for m in methods for s in range(options.seeds)]
    kept = len(cells) * (options.images if options.keep != "none" else SHOWN)
    check_space(options.out, kept, side)
    for true_class, _ in pairs:  # draws nothing, but knows what it cannot draw
        list(components.generator(true_class, [], []))
    check_recordable(components, methods)
    recorded = [cell for cell in cells if cell.method in RECORDED]
    others = [cell for cell in cells if cell.method not in RECORDED]
    cues = cues_of_cells(options, components, others, blocked, baselines)
    with folder.begin():
        if recorded:
            components = with_recordings(components, options.out / "recordings.safetensors")
            cues |= cues_of_cells(options, components, recorded, blocked, baselines)
        cues = {cell: cues[cell] for cell in cells}
        _write_cues(folder.folder / CUES, cues)
        done = folder.outcomes()
        for number, cell in enumerate(cells, start=1):
            have = done.get(cell, [])
            if len(have) < options.images:
                done[cell] = _run_cell(options, components, folder, (cell, cues[cell]), have)
            progress(f"{number}/{len(cells)} {cell.pair[0]} → {cell.pair[1]}, {cell.method}")
        progress("")
        seconds = time.perf_counter() - started
        return _finish(options, components, folder, done, (pairs, methods, seconds))


def _run_cell(
    options: AttackOptions,
    components: Components,
    folder: AttackFolder,
    task: tuple[Cell, Cues],
    have: list[Outcome],
) -> list[Outcome]:
    """The outcomes of one cell; a part that was done is taken over when its images are there."""
    cell, cues = task
    true_class, target_class = cell.pair
    duplicates = Duplicates()
    if have:
        images = folder.images(cell, len(have))
        if images is None:
            folder.forget([cell])
            have = []
        for image in images or ():
            duplicates.seen(image)
    others = [name for name in _list(options.others) if name not in cell.pair]
    # The same seeds for every method: only the cues differ.
    descriptions = components.describer(
        true_class, target_class, cues.texts, options.images, cell.seed
    )
    seeds = image_seeds(options.images, cell.seed)
    batches = attack(
        ZeroShotClassifier(components.clip, true_class, target_class, others),
        components.generator,
        descriptions[len(have) :],
        seeds[len(have) :],
        check=components.check(true_class, target_class),
        transfer={
            name: ZeroShotClassifier(clip, true_class, target_class)
            for name, clip in components.transfer.items()
        },
        duplicates=duplicates,
        # A diffusion model takes seconds for an image: lose at most one of them.
        batch_size=50 if isinstance(components.generator, Composer) else 1,
    )
    outcomes = list(have)
    for batch in batches:
        folder.add(cell, len(outcomes), batch, options.keep)
        outcomes += batch
    return outcomes


def _finish(
    options: AttackOptions,
    components: Components,
    folder: AttackFolder,
    done: Mapping[Cell, list[Outcome]],
    run: tuple[list[tuple[str, str]], list[str], float],
) -> str:
    pairs, methods, seconds = run
    summary = summarise(done, pairs, methods, options.seeds)
    command = f"python -m export {shlex.join(sys.argv[1:])}"
    config = components.bundle.config
    similarity = components.similarity.name if components.similarity else "string rules alone"
    notes = [
        f"model: {config.model} {config.pretrained or ''} (weights {config.weights_sha256[:12]})",
        f"{options.images} images, {options.seeds} seeds, {options.neurons} neurons, "
        f"{options.cues} cues of which {options.cues_per_image} in an image; "
        "images with the same number share their seed",
        f"synonyms of the target class removed by {similarity}",
        f"described by {options.describer}, drawn by {options.generator}"
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
        pairs = list(EXAMPLE_PAIRS)
    elif options.pairs:
        pairs = list(_read_pairs(Path(options.pairs)))
    elif options.true and options.target:
        pairs = [(options.true, options.target)]
    else:
        raise UserError("expected --true CLASS --target CLASS, or --pairs FILE")
    pairs = list(dict.fromkeys((check_name(true), check_name(target)) for true, target in pairs))
    if not 1 <= len(pairs) <= MAX_PAIRS:
        raise UserError(f"expected 1 to {MAX_PAIRS} class pairs, got {len(pairs)}")
    return pairs


def _read_pairs(file: Path) -> Iterator[tuple[str, str]]:
    if not file.is_file():
        raise UserError(f"--pairs {file} does not exist: expected a CSV file, or `examples`")
    for number, row in enumerate(csv.reader(read_text(file).splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#") or cells == ["true", "target"]:
            continue
        if len(cells) != 2:
            raise UserError(
                f"{file}, line {number}: expected `true,target`, got {len(cells)} cells"
            )
        yield cells[0], cells[1]


def _methods(text: str, baselines: Baselines) -> list[str]:
    known = [*METHODS, *baselines]
    if text == ALL:
        return known
    chosen = _list(text)
    unknown = [method for method in chosen if method not in known]
    if unknown or not chosen:
        raise UserError(f"--methods {text!r}: expected some of {', '.join(known)}")
    return list(dict.fromkeys(chosen))


def _settings(options: AttackOptions, components: Components, pairs, methods) -> dict:
    """What decides the rows, the models and the units included; where they are kept does not."""
    without = ("out", "true", "target", "device", "offload")
    settings = {n: v for n, v in asdict(options).items() if n not in without}
    settings |= {"pairs": [list(pair) for pair in pairs], "methods": list(methods)}
    return settings | components.identity()


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _write_cues(file: Path, cues: Mapping[Cell, Cues]) -> None:
    rows = [asdict(cell) | asdict(cell_cues) for cell, cell_cues in cues.items()]
    write_atomic(file, (json.dumps(rows, indent=1, ensure_ascii=False) + "\n").encode())
