"""Neurons that confuse a classifier: found on one half of the images, measured on the other."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from clipneurons.bundle.bundle import Bundle, load_bundle
from clipneurons.bundle.config import parse_json
from clipneurons.bundle.folders import write_together
from clipneurons.bundle.unit_words import signed_words
from clipneurons.edit.edit import DATA, IMAGES, Edit, UnitFactor
from clipneurons.edit.find_options import FindOptions
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError
from export.common.kept_batches import KeptBatches
from export.common.numbers import percent, spread
from export.common.settings import read_text
from export.data.grouped import GroupedImages, grouped_folder, split_in_half
from export.data.loader import batches
from export.data.open_source import open_source, shipped_spec
from export.evaluation.zero_shot import class_embeddings
from export.mend.controls import controls
from export.mend.for_real import choose_for_real, folded, read_by, unit_means
from export.mend.mender import (
    OURS,
    REAL,
    Choice,
    Mender,
    Observed,
    check_enough,
    choose,
    elsewhere,
    measured,
)
from export.pipeline.model_folder import check_model_folder, save_model_folder
from export.pipeline.plan import duration, size
from export.pipeline.update_bundle import open_model

_ABOUT = {DATA: "their mean over the bundle's data", IMAGES: "their mean over these images"}
_UNCHANGED = "unchanged"
_EDIT, _REPORT = "edit.json", "report.json"


def mend_classifier(args: argparse.Namespace) -> None:
    """Find, measure, write what the flags of `export.commands.mend` ask for."""
    images = grouped_folder(args.images)
    given = Edit.from_json(read_text(args.edit)) if args.edit else None
    bundle = load_bundle(args.bundle)
    if bundle.config.features:
        raise UserError(
            f"{args.bundle} is a bundle of features, which are no part of the model's weights:"
            " expected one of neurons"
        )
    if given:
        given.factors(bundle)  # before the model is loaded
    if args.apply:
        check_model_folder(args.apply)
    asked = _asked(args, bundle, given)
    _check_report(args, asked)
    clip = open_model(bundle, args.bundle, args.device)
    classes = class_embeddings(images.class_names, clip, bundle, args.templates)
    half, other = split_in_half(images, args.seed)
    kept = KeptBatches.beside(
        args.out, "mend", bundle.config.weights_sha256, str(args.images.resolve()),
        images.class_names, images.labels, images.cues, images.stamps, classes.tolist(),
        args.seed, args.batch,
    )  # fmt: skip
    mender = Mender(bundle, Lens.of_bundle(clip, bundle), classes, args.batch, kept)
    work = Work(args, mender, images, half, other, FindOptions(most=args.most))
    print("\n".join(in_advance(work, given is None)), flush=True)
    report, edit, applied = work.measure(given)
    text = json.dumps({"asked": asked} | report, indent=1) + "\n"
    write_together({args.out / _EDIT: edit.to_json().encode(), args.out / _REPORT: text.encode()})
    print(in_words(report))
    if args.apply:
        save_model_folder(applied, args.apply)
        print(f"{args.apply}: the model with the edit in its weights")
    kept.remove()


def _asked(args: argparse.Namespace, bundle: Bundle, given: Edit | None) -> dict:
    """What decides a report, which keeps it."""
    return {
        "weights": bundle.config.weights_sha256,
        "images": str(args.images.resolve()),
        "edit": json.loads(given.to_json()) if given else None,
        "most": args.most,
        "elsewhere": args.elsewhere,
        "templates": args.templates,
        "seed": args.seed,
    }


def _check_report(args: argparse.Namespace, asked: dict) -> None:
    """`UserError` where `--out` holds the report of something else that was asked."""
    file = args.out / _REPORT
    if args.overwrite or not file.exists():
        return
    try:
        before = parse_json(file.read_text(), _REPORT).get("asked", {})
    except ValueError:
        before = {}
    differing = [name for name in asked if before.get(name) != asked[name]]
    if differing:
        raise UserError(
            f"{file} is of a mending with other {' and '.join(differing)}: add --overwrite, or name"
            " another --out"
        )


@dataclass(frozen=True, eq=False)
class Work:
    """One mending: images in two halves, what units are found with, and the flags."""

    args: argparse.Namespace
    mender: Mender
    images: GroupedImages
    half: list[int]
    other: list[int]
    options: FindOptions

    @property
    def known(self) -> bool:
        """Whether the images have cues."""
        return bool(self.images.cue_names)

    def measure(self, given: Edit | None) -> tuple[dict, Edit, ClipModel | None]:
        """The report, the edit of the effects, and the model with what helps it in its weights."""
        mender, images = self.mender, self.images
        held = mender.observe(images, self.other, "held-out")
        seen = mender.observe(images, self.half, "to-find-on")
        conditions = {_UNCHANGED: [held.logits]}
        report = {
            "images": images.name, "held_out": len(held.labels), "cues": list(images.cue_names)
        }  # fmt: skip
        choice = None if given else self._choose(seen)
        edit = given or mender.edit(choice.found.units, choice.means)
        if choice:
            found = choice.found
            report["found"] = {"sizes": found.sizes, **asdict(found.judged)}
            report["found"] |= {"chosen": len(found.units), "means": choice.means}
            if found.units:
                conditions |= controls(
                    mender, images, self.half, seen, held, choice, self.known, self.options,
                    seed=self.args.seed,
                )  # fmt: skip
        encode = mender.edited(edit, seen)
        pixels = (part for _, part in mender.batches(images, self.other))
        conditions[OURS] = [_logits(map(encode, pixels), mender.classes)]
        encoders = {_UNCHANGED: mender.clip.encode_image, OURS: encode}
        model, real = self._for_real(seen, choice, edit)
        if model:
            report["for_real"] = real
            encoders[REAL] = model.encode_image
            conditions[REAL] = [read_by(mender, model, images, self.other)]
        report["conditions"] = {
            name: measured(logits, held, images) for name, logits in conditions.items()
        }
        report["neurons"] = [_neuron(mender.bundle, one) for one in edit.units]
        if edit.units or edit.words:
            report |= _elsewhere(self.args, mender, encoders)
        return report, edit, model

    def _choose(self, seen: Observed) -> Choice:
        check_enough(self.images, seen, self.known, self.options.folds)
        return choose(seen, self.known, self.options)

    def _for_real(
        self, seen: Observed, choice: Choice | None, edit: Edit
    ) -> tuple[ClipModel | None, dict]:
        """The model with an edit in its weights, and which; None where they cannot hold it."""
        mender, tried = self.mender, {}
        try:
            folded(mender, edit, {IMAGES: _no_means(mender)})  # whether it can be, at no cost
            means = unit_means(mender, self.images, self.half)
            if choice:
                print("trying it on the model itself", flush=True)
                real = choose_for_real(
                    mender, self.images, seen, choice, means, self.known, self.options
                )
                edit, tried = real.edit, {"tried": real.tried, **asdict(real.judged)}
            return folded(mender, edit, means), {
                "means": edit.means, "neurons": len(edit.units), **tried
            }  # fmt: skip
        except ValueError as error:
            if self.args.apply:
                raise UserError(str(error)) from None
            print(error)
            return None, {}


def _no_means(mender: Mender) -> dict[int, Tensor]:
    return {la: torch.zeros(len(a.directions)) for la, a in mender.bundle.layers.items()}


def in_advance(work: Work, search: bool) -> list[str]:
    """What it will take, from the time of one batch."""
    mender, found, held = work.mender, len(work.half), len(work.other)
    _, pixels = next(mender.batches(work.images, work.half), (None, None))
    if pixels is None:
        raise UserError(f"none of the images of {work.images.name} can be read")
    mender.clip.encode_image(pixels)
    started = time.perf_counter()
    mender.clip.encode_image(pixels)
    seconds = (time.perf_counter() - started) / len(pixels)
    # Of the half to find on: effects, means, indirect effects, then each size with each mean.
    passes = found * (9 + 10 if search else 4) + held * 4
    units = sum(len(arrays.directions) for arrays in mender.bundle.layers.values())
    memory = 4 * (found + held) * units * len(mender.classes) * 2
    return [
        f"images   {found:,} to find neurons on, {held:,} held out, {len(mender.classes)} classes",
        f"time     about {duration(passes * seconds)}: {passes:,} images through the model"
        f" ({1 / seconds:.1f} images/s measured), beside what --elsewhere has",
        f"memory   about {size(memory)} beside the model",
        f"kept     in {mender.kept.folder} until all is done: the same command goes on from there",
    ]


def _neuron(bundle: Bundle, one: UnitFactor) -> dict:
    """A unit of the edit with its reliable label, if it has one."""
    return asdict(one) | {"label": signed_words(bundle, one.layer, one.unit)}


def _elsewhere(
    args: argparse.Namespace, mender: Mender, encoders: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict:
    """What the edit does to other images, over all their classes; nothing where none are known."""
    clip, bundle = mender.clip, mender.bundle
    spec = args.elsewhere or shipped_spec(bundle.config.data.name, 500)
    if not spec:
        return {}
    source = open_source(spec, image_size=max(clip.image_size), heldout=True)
    if not source.class_names:
        raise UserError(f"--elsewhere {spec}: expected labelled images, such as ROOT/CLASS/IMAGE")
    classes = class_embeddings(source.class_names, clip, bundle, args.templates)
    parts = batches(source, clip.preprocess, range(-(-len(source) // args.batch)), args.batch, 2)
    read = ((part.images.to(clip.device), part.labels) for part in parts if part.images is not None)
    found = elsewhere(encoders, read, classes, source.class_names)
    about = {"images": source.name, "classes": len(source.class_names), "conditions": found}
    return {"elsewhere": about}


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
        words = ", ".join(one["label"]) or "no reliable label"
        rows.append(f"  layer {one['layer']}, unit {one['unit']}: {words}")
    if "means" in report.get("found", {}):
        rows.append(f"Their effects are set to {_ABOUT[report['found']['means']]}.")
    if "tried" in report.get("for_real", {}):
        real = report["for_real"]
        rows.append(
            f"The model itself gains most without {real['neurons']} of them, set to "
            f"{_ABOUT[real['means']]}."
            if real["neurons"]
            else "The model itself gains by none of this, later layers make up for it: for real, "
            "it is left as it is."
        )
    if "elsewhere" in report:
        other = report["elsewhere"]
        rows.append(f"Elsewhere ({other['images']}, {other['classes']} classes)")
        for name, figures in other["conditions"].items():
            lost = ", ".join(f"{word} −{count}" for word, count in figures["lost"].items())
            rows.append(f"  {name}: {spread(figures['accuracy'], figures['interval'])} {lost}")
    return "\n".join(rows)
