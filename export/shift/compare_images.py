"""Two sets of images, or windows of one, compared unit by unit; the report as JSON and a page."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from clipneurons.bundle.bundle import load_bundle
from clipneurons.bundle.unit_words import neuron_and_head, signed_words, unit_name
from clipneurons.lens.make import make_lens
from clipneurons.models.clip import ClipModel
from clipneurons.shift.comparison import EmbeddedTextPool, Shift, check_level, compare
from clipneurons.shift.localisation import cut, examples, localise_change, where
from clipneurons.shift.monitor import Monitor
from clipneurons.shift.profile import Profile, Profiler
from clipneurons.text.embedding import embed_texts
from export.common.errors import UserError
from export.common.thumbnails import thumbnail
from export.data.dataset import Raw, Source
from export.data.loader import read
from export.data.open_source import open_source
from export.pipeline.update_bundle import local_folder, open_model
from export.shift.pages import comparison_page, monitor_page

_SHOWN = 8  # units, and pictures of each, in a report
_THUMBNAIL = 96  # pixels


@dataclass(frozen=True)
class Side:
    """Profiles of the images of one side, and where to find the images again."""

    profile: Profile
    source: Source
    ids: list[int]

    def picture(self, row: int) -> Image.Image:
        """The image of a row of the profile."""
        return read(next(iter(self.source.raws([self.ids[row]])))).image


def compare_images(args: argparse.Namespace) -> None:
    """Compare, print the summary, write the report that `export.commands.shift` is asked for."""
    try:
        check_level(args.level, args.permutations)
    except ValueError as error:
        raise UserError(str(error)) from None
    folder = local_folder(args.bundle)
    bundle = load_bundle(folder)
    clip = open_model(bundle, folder, args.device)
    profiler = Profiler(make_lens(clip, bundle.config.layers), bundle)
    reference, new = (profiled(spec, profiler, clip, args) for spec in (args.reference, args.new))
    pool = EmbeddedTextPool.of(bundle)
    args.out.mkdir(parents=True, exist_ok=True)
    watched = None
    if args.watch:
        watched = EmbeddedTextPool(tuple(args.watch), embed_texts(clip, args.watch).cpu())
    if args.window or watched:
        try:
            monitor = Monitor(
                reference.profile, pool, args.window or len(new.profile), watched, args.level,
                args.permutations, args.seed, args.ranking,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(str(error)) from None
        monitor.update(new.profile)
        monitor.flush()
        summary = monitor.to_json()
        for window in summary["windows"]:
            images = window["images"] if window["alarm"] else []
            window["localised"] = localised(clip, reference, new, images, pool)
        pictures = [[new.picture(i) for i in w.images[:_SHOWN]] for w in monitor.windows]
        page = monitor_page(summary, pictures)
    else:
        shift = compare(
            reference.profile, new.profile, pool, args.permutations, args.seed, args.ranking
        )
        summary = describe(shift, profiler, bundle, reference, new, args.level)
        images = summary["carriers"] if summary["shift"] else []
        summary["localised"] = localised(clip, reference, new, images, pool)
        page = comparison_page(summary, galleries(shift, summary, reference, new))
    (args.out / "report.json").write_text(json.dumps(summary, indent=1) + "\n")
    (args.out / "report.html").write_text(page)
    print(json.dumps(_short(summary), indent=1))


def profiled(spec: str, profiler: Profiler, clip: ClipModel, args: argparse.Namespace) -> Side:
    """Profiles of all readable images of a source."""
    source = open_source(spec, limit=args.limit, image_size=max(clip.image_size))
    parts, ids = [], []

    def prepare(raw: Raw) -> tuple[int, Tensor | None]:
        picture = read(raw)
        return raw.index, None if picture.image is None else profiler.windows(picture.image)

    with ThreadPoolExecutor(max_workers=max(args.workers, 1)) as pool:
        for first in range(0, len(source), args.batch):
            entries = range(first, min(first + args.batch, len(source)))
            found = {i: w for i, w in pool.map(prepare, source.raws(entries)) if w is not None}
            if found:
                parts.append(profiler.of_windows(list(found.values()), args.batch))
                ids += found
    if len(ids) < 2:
        raise UserError(f"{spec}: expected at least two readable images, found {len(ids)}")
    return Side(Profile.cat(parts), source, ids)


def describe(
    shift: Shift, profiler: Profiler, bundle, reference: Side, new: Side, level: float
) -> dict:
    """A comparison as JSON values."""
    units, heads = [], bundle.config.units_per_neuron
    for column in shift.top_units(4 * _SHOWN):
        layer, unit = profiler.names[column]
        name = unit_name(*neuron_and_head(unit, heads))
        units.append(
            {
                "layer": layer,
                "unit": unit,
                "name": f"layer {layer}, {name}" if heads == 1 else name,
                "column": column,
                "change": shift.units.change[column].item(),
                "score": shift.units.score[column].item(),
                "p": shift.units.p[column].item(),
                "q": shift.units.q[column].item(),
                "words": signed_words(bundle, layer, unit, 5),
            }
        )
    return {
        "images": {"reference": len(reference.profile), "new": len(new.profile)},
        "p": shift.p,
        "shift": shift.p <= level,
        "level": level,
        "tests": shift.tests,
        "units_changed": int((shift.units.q <= level).sum()),
        "units": units,
        "more": shift.more.top(20),
        "less": shift.less.top(20),
        "carriers": shift.top_carriers(),
    }


def localised(
    clip: ClipModel, reference: Side, new: Side, rows: list[int], pool: EmbeddedTextPool
) -> dict | None:
    """Where the images that carry a change differ from the reference, and what is there."""
    if len(rows) < 2:
        return None
    sides = [reference.picture(row) for row in examples(len(reference.profile))]
    place = localise_change(clip, sides, [new.picture(row) for row in rows], pool)
    return place and {"box": place.box, "words": place.words.top(20)}


def galleries(shift: Shift, summary: dict, reference: Side, new: Side) -> dict[str, list[str]]:
    """Pictures of the report as data URIs: of the change, and of each unit on both sides."""
    shown = {"carriers": [new.picture(i) for i in summary["carriers"]]}
    for unit in summary["units"][:_SHOWN]:
        sign = 1 if unit["score"] > 0 else -1
        for name, side in (("reference", reference), ("new", new)):
            values = sign * side.profile.units[:, unit["column"]]
            rows = values.topk(min(_SHOWN, len(values))).indices.tolist()
            shown[f"{name} {unit['column']}"] = [side.picture(i) for i in rows]
    if summary["localised"]:
        box = summary["localised"]["box"]
        shown["localised"] = [cut(p, box) for p in shown["carriers"]]
    return {name: [thumbnail(p, _THUMBNAIL) for p in pictures] for name, pictures in shown.items()}


def _short(summary: dict) -> dict:
    if "windows" in summary:
        return {
            "alarms": sum(w["alarm"] for w in summary["windows"]),
            "waiting": summary["waiting"],
            "windows": [
                {k: w[k] for k in ("first", "last", "p", "alarm", "watched")}
                | {
                    "words": [word for word, _ in w["words"][:5]],
                    "localised": _first(w["localised"]),
                }
                for w in summary["windows"]
            ],
        }
    keys = ("images", "p", "shift", "units_changed")
    short = {key: summary[key] for key in keys}
    short["more"] = [word for word, _ in summary["more"][:5]]
    short["less"] = [word for word, _ in summary["less"][:5]]
    short["localised"] = _first(summary["localised"])
    short["units"] = [f"{u['name']}: {u['change']:+.2f} sd" for u in summary["units"][:5]]
    return short


def _first(localised: dict | None) -> dict | None:
    if localised is None:
        return None
    return {"where": where(localised["box"]), "words": [word for word, _ in localised["words"][:5]]}
