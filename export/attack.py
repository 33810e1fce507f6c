"""`python -m export attack`: adversarial pictures of class pairs, and what to think of them.

One class pair or a file of pairs, all methods with the same budget, several seeds; the same
command goes on from where a stopped run was, and prints the table at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from clipneurons.adversarial import INDIRECT, METHODS, Cues, check_name
from clipneurons.attack import attack
from clipneurons.composer import Composer
from clipneurons.describe import check_count
from clipneurons.judge import Duplicates, Judge
from clipneurons.paint import picture_seeds
from export.attack_files import CUES, SHOWN, AttackFolder, Cell, check_space
from export.attack_report import render, summarise, write
from export.attack_workshop import (
    COMPOSER,
    TEMPLATES,
    Workshop,
    all_cues,
    open_workshop,
    progress,
    side_of,
)
from export.settings import UserError, read_text

# Everyday pairs in the spirit of the paper's Table 3, all of them pictograms.
EXAMPLE_PAIRS = (
    ("cat", "dog"), ("dog", "cat"), ("horse", "automobile"), ("automobile", "horse"),
    ("bird", "frog"), ("ship", "truck"), ("truck", "ship"), ("deer", "airplane"),
    ("frog", "bird"), ("airplane", "deer"),
)  # fmt: skip
MAX_SEEDS, MAX_PAIRS = 20, 200
ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add("--bundle", default="artifacts/mini-vit", help="bundle of the model under attack")
    add("--true", help="class that the pictures show")
    add("--fooled", help="class that they shall be read as")
    add("--pairs", metavar="FILE", help="CSV file of `true,fooled` lines, or `examples`")
    add("--out", required=True, type=Path, help="folder for pictures, rows and tables")
    add("--methods", default=ALL, help=f"comma-separated, of: {', '.join(METHODS)}"
        f" (default: all that the model has; {INDIRECT} needs a ViT)")  # fmt: skip
    add("--images", type=int, default=100, help="pictures of a pair, method and seed")
    add("--seeds", type=int, default=3, help="repetitions with other random choices")
    add("--layers", help="comma-separated MLP layers; by default all of the bundle")
    add("--neurons", type=int, default=100, help="units that the cues come from")
    add("--words", type=int, default=25, help="cues of a pair")
    add("--cues-each", type=int, default=3, help="cues in one description (templates)")
    add("--block", default="", help="comma-separated words that no cue may contain")
    add("--similarity", default="auto", choices=("auto", "sentence", "tower", "none"),
        help="how synonyms of the fooled class are found")  # fmt: skip
    add("--describer", default=TEMPLATES, help="`templates`, or a chat model's id or folder")
    add("--painter", default=COMPOSER, help="`composer`, or a text-to-image model's id or folder")
    add("--pack", help="composer: another pack of pictograms")
    add("--heldout", action="store_true", help="composer: draw in the held-out style")
    add("--steps", type=int, help="denoising steps of the painter")
    add("--guidance", type=float, help="guidance of the painter")
    add("--size", type=int, help="side of the pictures; by default the model's own")
    add("--offload", action="store_true", help="keep on the GPU only what works")
    add("--device", help="by default CUDA where there is one")
    add("--others", default="", help="comma-separated further classes to choose from")
    add("--transfer", action="append", default=[], metavar="MODEL",
        help="another model that judges too: a folder, or NAME:TAG; repeatable")  # fmt: skip
    add("--second-opinion", metavar="MODEL", help="model that checks what painted pictures show")
    add("--data", default="scenes:256", help="images for the indirect effects")
    add("--keep", default="successes", choices=("all", "successes", "none"),
        help=f"which pictures to keep besides the first {SHOWN} of each method")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the attack; what the library says of names, numbers and models is one line."""
    try:
        return _run(args)
    except (ValueError, ImportError) as error:
        raise UserError(str(error)) from error


def _run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    pairs, methods = _pairs(args), _methods(args.methods)
    check_count(args.images)
    if not 1 <= args.seeds <= MAX_SEEDS:
        raise UserError(f"--seeds {args.seeds}: expected 1 to {MAX_SEEDS}")
    blocked = tuple(check_name(word, "blocked word") for word in _list(args.block))
    shop = open_workshop(args)
    if args.methods == ALL and shop.tower.kind == "resnet":
        methods.remove(INDIRECT)  # whose effects are those of a ViT's neurons
    side = args.size or side_of(shop.tower)
    folder = AttackFolder(args.out, _settings(args, pairs, methods))
    cells = [Cell(p, m, s) for p in pairs for m in methods for s in range(args.seeds)]
    kept = len(cells) * (args.images if args.keep != "none" else SHOWN)
    check_space(args.out, kept, side)
    for true_class, _ in pairs:
        list(shop.painter(true_class, [], []))  # paints nothing, but knows what it cannot paint
    cues = all_cues(args, shop, folder, cells, blocked)
    folder.begin()
    _write_cues(folder.folder / CUES, cues)
    done = folder.outcomes()
    for number, cell in enumerate(cells, start=1):
        have = len(done.get(cell, []))
        if have < args.images:
            done[cell] = _run_cell(args, shop, folder, cell, cues[cell], done.get(cell, []))
        progress(f"{number}/{len(cells)} {cell.pair[0]} → {cell.pair[1]}, {cell.method}")
    progress("")
    return _finish(args, shop, folder, done, pairs, methods, time.perf_counter() - started)


def _run_cell(args, shop: Workshop, folder: AttackFolder, cell: Cell, cues: Cues, have: list):
    """The outcomes of one cell; a part that was done is taken over when its pictures are there."""
    true_class, fooled_class = cell.pair
    duplicates = Duplicates()
    if have:
        pictures = folder.pictures(cell, len(have))
        if pictures is None:
            folder.forget([cell])
            have = []
        for picture in pictures or ():
            duplicates.seen(picture)
    others = [name for name in _list(args.others) if name not in cell.pair]
    # The same seeds for every method: only the cues differ.
    descriptions = shop.describer(true_class, fooled_class, cues.words, args.images, cell.seed)
    seeds = picture_seeds(args.images, cell.seed)
    batches = attack(
        Judge(shop.tower, true_class, fooled_class, others),
        shop.painter,
        descriptions[len(have) :],
        seeds[len(have) :],
        check=shop.check(true_class, fooled_class),
        transfer={n: Judge(t, true_class, fooled_class) for n, t in shop.transfer.items()},
        duplicates=duplicates,
        # A painted picture takes seconds: lose at most one of them.
        batch_size=50 if isinstance(shop.painter, Composer) else 1,
    )
    outcomes = list(have)
    for batch in batches:
        folder.add(cell, len(outcomes), batch, args.keep)
        outcomes += batch
    return outcomes


def _finish(args, shop, folder, done, pairs, methods, seconds: float) -> int:
    summary = summarise(done, pairs, methods, args.seeds)
    command = f"python -m export {shlex.join(sys.argv[1:])}"
    config = shop.bundle.config
    similarity = shop.similarity.name if shop.similarity else "string rules alone"
    notes = [
        f"model: {config.model} {config.pretrained or ''} (weights {config.weights_sha256[:12]})",
        f"{args.images} pictures, {args.seeds} seeds, {args.neurons} neurons, {args.words} cues of "
        f"which {args.cues_each} in a picture; pictures with the same number share their seed",
        f"synonyms of the fooled class removed by {similarity}",
        f"described by {args.describer}, painted by {args.painter}"
        + (" in the held-out style" if args.heldout else ""),
    ]
    write(folder.folder, summary, command, notes)
    for pair in pairs:
        folder.contact_sheet(pair, methods, done)
    print(render(summary, command, notes))
    print(f"{seconds:.0f} s; written to {folder.folder}")
    return 0


def _pairs(args: argparse.Namespace) -> list[tuple[str, str]]:
    if args.pairs and (args.true or args.fooled):
        raise UserError("give --pairs, or --true and --fooled, not both")
    if args.pairs == "examples":
        found = list(EXAMPLE_PAIRS)
    elif args.pairs:
        found = list(_read_pairs(Path(args.pairs)))
    elif args.true and args.fooled:
        found = [(args.true, args.fooled)]
    else:
        raise UserError("expected --true CLASS --fooled CLASS, or --pairs FILE")
    found = list(dict.fromkeys((check_name(true), check_name(fooled)) for true, fooled in found))
    if not 1 <= len(found) <= MAX_PAIRS:
        raise UserError(f"expected 1 to {MAX_PAIRS} class pairs, got {len(found)}")
    return found


def _read_pairs(file: Path) -> Iterator[tuple[str, str]]:
    if not file.is_file():
        raise UserError(f"--pairs {file} does not exist: expected a CSV file, or `examples`")
    for number, row in enumerate(csv.reader(read_text(file).splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#") or cells == ["true", "fooled"]:
            continue
        if len(cells) != 2:
            raise UserError(
                f"{file}, line {number}: expected `true,fooled`, got {len(cells)} cells"
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


def _settings(args: argparse.Namespace, pairs, methods) -> dict:
    """What decides the rows; where they are kept does not."""
    without = ("out", "run", "command", "true", "fooled", "device", "offload")
    settings = {n: v for n, v in vars(args).items() if n not in without}
    return settings | {"pairs": [list(pair) for pair in pairs], "methods": list(methods)}


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _write_cues(file: Path, cues: Mapping[Cell, Cues]) -> None:
    rows = [asdict(cell) | asdict(found) for cell, found in cues.items()]
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
