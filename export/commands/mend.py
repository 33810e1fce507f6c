"""`python -m export mend`: find the neurons that confuse a classifier, and take them out.

Images lie in ROOT/CLASS, or in ROOT/CLASS/CUE where a cue that should not matter is known (dogs in
snow, dogs on grass). Units are found on one half of the images and measured on the other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from clipneurons.bundle.bundle import Bundle, load_bundle
from clipneurons.bundle.folders import write_atomic
from clipneurons.bundle.unit_words import signed_words
from clipneurons.explore.edit import Edit
from clipneurons.explore.mending import FindOptions
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError
from export.common.flags import positive
from export.common.settings import DEFAULT_MODEL, read_text
from export.data.grouped import GroupedImages, grouped_folder, split_in_half
from export.data.loader import batches
from export.data.open_source import open_source
from export.evaluation.mending import (
    OURS,
    REAL,
    Mender,
    Observed,
    controls,
    elsewhere,
    find,
    group_numbers,
    measured,
    unit_margins,
)
from export.evaluation.zero_shot import class_embeddings
from export.pipeline.model_folder import save_model_folder
from export.pipeline.update_bundle import open_model
from export.report.metric import percent, spread

_UNCHANGED = "unchanged"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `mend`."""
    add = parser.add_argument
    add("--images", type=Path, required=True,
        help="folder of ROOT/CLASS/IMAGE, or ROOT/CLASS/CUE/IMAGE")  # fmt: skip
    add("--bundle", default=DEFAULT_MODEL, help="bundle, a folder or on the Hub"
        " (default: %(default)s)")  # fmt: skip
    add("--out", type=Path, required=True, help="folder of report.json and edit.json")
    add("--edit", type=Path, help="measure this edit instead of looking for one")
    add("--apply", type=Path, metavar="FOLDER",
        help="write the model with the edit in its weights, for open_clip")  # fmt: skip
    add("--most", type=positive, default=FindOptions.most,
        help="units at most (default: %(default)s)")  # fmt: skip
    add("--elsewhere", metavar="IMAGES", help="other labelled images, as in `run`, that should"
        " stay as they are (default: scenes:500 for a bundle of scenes)")  # fmt: skip
    add("--templates", help="prompts of the classes (default: photo for a bundled model, else"
        " simple)")  # fmt: skip
    add("--seed", type=int, default=0, help="of the halves and random neurons"
        " (default: %(default)s)")  # fmt: skip
    add("--batch", type=positive, default=64, help="images a batch (default: %(default)s)")
    add("--device", help="default: cuda where there is one, else cpu")


def run(args: argparse.Namespace) -> int:
    """Find, measure, write; 0 also where no edit helps, which is said."""
    images = grouped_folder(args.images)
    given = Edit.from_json(read_text(args.edit)) if args.edit else None
    bundle = load_bundle(args.bundle)
    if given:
        given.factors(bundle)  # before the model is loaded
    if args.apply and args.apply.exists():
        raise UserError(f"--apply {args.apply} exists: expected the name of a new folder")
    clip = open_model(bundle, args.bundle, args.device)
    classes = class_embeddings(images.class_names, clip, bundle, args.templates)
    mender = Mender(bundle, make_lens(clip, bundle.config.layers), classes, args.batch)
    half, other = split_in_half(images, args.seed)
    print(f"{len(half)} images to find neurons on, {len(other)} held out", flush=True)
    held = mender.observe(images, other)
    known, options = bool(images.cue_names), FindOptions(most=args.most)
    report = {"images": images.name, "held_out": len(held.labels), "cues": list(images.cue_names)}
    conditions = {_UNCHANGED: [held.logits]}
    if given:
        edit = given
    else:
        seen = mender.observe(images, half)
        edit, details = _find(mender, images, seen, known, options)
        report["found"] = details
        if edit.units:
            print("measuring the controls", flush=True)
            conditions |= controls(
                mender, images, half, seen, held, len(edit.units), known, options, seed=args.seed
            )
    pixels = [part for _, part in mender.batches(images, other)]
    encode = mender.edited(edit)
    conditions[OURS] = [_logits(map(encode, pixels), classes)]
    encoders = {_UNCHANGED: clip.encode_image, OURS: encode}
    try:
        folded = mender.folded(edit, images, half)
    except ValueError as error:
        if args.apply:
            raise UserError(str(error)) from None
        print(error)
    else:
        encoders[REAL] = folded.encode_image
        conditions[REAL] = [_logits(map(folded.encode_image, pixels), classes)]
    report["conditions"] = {
        name: measured(logits, held, images) for name, logits in conditions.items()
    }
    report["neurons"] = [
        {
            "layer": one.layer, "unit": one.unit, "factor": one.factor,
            "words": signed_words(bundle, one.layer, one.unit, 5),
        }
        for one in edit.units
    ]  # fmt: skip
    spec = args.elsewhere or ("scenes:500" if bundle.config.data.name == "composed scenes" else "")
    if spec and edit.units:
        report["elsewhere"] = _elsewhere(args, spec, bundle, clip, encoders)
    args.out.mkdir(parents=True, exist_ok=True)
    write_atomic(args.out / "edit.json", edit.to_json().encode())
    write_atomic(args.out / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    print(in_words(report))
    if args.apply:
        save_model_folder(folded, args.apply)
        print(f"{args.apply}: the model with the edit in its weights")
    return 0


def _find(
    mender: Mender, images: GroupedImages, seen: Observed, known: bool, options: FindOptions
) -> tuple[Edit, dict]:
    """The edit that cross-validation chooses, and what it said of each number of units."""
    _check_groups(images, seen, known, options.folds)
    found = find(seen, unit_margins(seen.effects, seen), known, options)
    details = {
        "sizes": found.sizes, "worst": found.worst, "average": found.average,
        "chosen": len(found.units),
    }  # fmt: skip
    return mender.edit(found.units), details


def _check_groups(images: GroupedImages, seen: Observed, known: bool, folds: int) -> None:
    """`UserError` for groups, in words, that cross-validation cannot use."""
    groups = group_numbers(seen, known)
    if not known and len(groups.unique()) == len(seen.labels.unique()):
        raise UserError(
            "the model reads all images of a class rightly, or none: expected some of both, or a"
            " cue for each (ROOT/CLASS/CUE/IMAGE)"
        )
    numbers, counts = groups.unique(return_counts=True)
    least = int(counts.argmin())
    if int(counts[least]) < folds:
        rows = groups == numbers[least]
        name = images.group_name(int(seen.labels[rows][0]), int(seen.cues[rows][0]))
        what = "images" if known else "of its images that are read alike"
        raise UserError(
            f"{name} has {int(counts[least])} {what} in the half that neurons are found on:"
            f" expected at least {folds}, one a fold"
        )


def _elsewhere(
    args: argparse.Namespace,
    spec: str,
    bundle: Bundle,
    clip: ClipModel,
    encoders: Mapping[str, Callable[[Tensor], Tensor]],
) -> dict:
    """What the edit does to other images, over all their classes."""
    source = open_source(spec, image_size=max(clip.image_size), heldout=True)
    if not source.class_names:
        raise UserError(f"--elsewhere {spec}: expected labelled images, such as ROOT/CLASS/IMAGE")
    classes = class_embeddings(source.class_names, clip, bundle, args.templates)
    parts = batches(source, clip.preprocess, range(-(-len(source) // args.batch)), args.batch, 2)
    read = ((part.images.to(clip.device), part.labels) for part in parts if part.images is not None)
    found = elsewhere(encoders, read, classes, source.class_names)
    return {"images": source.name, "classes": len(source.class_names), "conditions": found}


def _logits(embeddings: Iterable[Tensor], classes: Tensor) -> Tensor:
    return torch.cat([embedded @ classes.T for embedded in embeddings]).cpu()


def in_words(report: Mapping) -> str:
    """The report for the terminal: accuracy by condition, the neurons' words, what got worse."""
    conditions = report["conditions"]
    groups = list(conditions[_UNCHANGED]["groups"])
    rows = [f"{report['held_out']} held-out images, accuracy in per cent (95 % interval)"]
    rows.append(" | ".join(["", "worst group", "mean of groups", *groups]))
    for name, figures in conditions.items():
        cells = [percent(figures["worst"]), percent(figures["average"])]
        cells += [spread(g["accuracy"], g["interval"]) for g in figures["groups"].values()]
        rows.append(" | ".join([name, *cells]))
    if not report["neurons"]:
        rows.append("No edit helps: cross-validation prefers the model as it is.")
    else:
        rows.append(f"{len(report['neurons'])} neurons, the first of them:")
    for one in report["neurons"][:12]:
        rows.append(f"  layer {one['layer']}, unit {one['unit']}: {', '.join(one['words'])}")
    if "elsewhere" in report:
        other = report["elsewhere"]
        rows.append(f"Elsewhere ({other['images']}, {other['classes']} classes)")
        for name, figures in other["conditions"].items():
            lost = ", ".join(f"{word} −{count}" for word, count in figures["lost"].items())
            rows.append(f"  {name}: {spread(figures['accuracy'], figures['interval'])} {lost}")
    return "\n".join(rows)
