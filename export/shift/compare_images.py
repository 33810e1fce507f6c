"""Two sets of images, or a stream in windows, compared; the report as JSON and HTML."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from clipneurons.bundle.bundle import load_bundle
from clipneurons.bundle.folders import write_together
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import ClipModel
from clipneurons.shift.comparison import EmbeddedTextPool, check_level
from clipneurons.shift.localisation import crop
from clipneurons.shift.monitor import Monitor
from clipneurons.shift.profile import PreparedImage, Profile, Profiler
from clipneurons.shift.report import ImageSet, compare_sets, localised
from clipneurons.text.embedding import embed_texts
from export.common.errors import UserError
from export.common.thumbnails import thumbnail
from export.data.dataset import Raw
from export.data.loader import read
from export.data.open_source import open_source
from export.pipeline.update_bundle import local_folder, open_model
from export.shift.pages import comparison_page, monitor_page

_SHOWN = 8  # units, and images of each, in a report
_THUMBNAIL = 96  # pixels


def compare_images(args: argparse.Namespace) -> None:
    """Compare, print the summary, write the report that `export.commands.shift` is asked for."""
    try:
        check_level(args.level, args.permutations)
    except ValueError as error:
        raise UserError(str(error)) from None
    folder = local_folder(args.bundle)
    bundle = load_bundle(folder)
    clip = open_model(bundle, folder, args.device)
    profiler = Profiler(Lens.of_bundle(clip, bundle), bundle)
    reference, new = (image_set(spec, profiler, args) for spec in (args.reference, args.new))
    pool = EmbeddedTextPool.of(bundle)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.window or args.watch:
        report = watch(args, clip, profiler, pool, reference, new)
        images = [[new.image(i) for i in w["images"][:_SHOWN]] for w in report["windows"]]
        page, summary = monitor_page(report, images), _monitor_summary(report)
    else:
        report = compare_sets(
            profiler, pool, reference, new,
            level=args.level, permutations=args.permutations, seed=args.seed,
        ).to_dict()  # fmt: skip
        page = comparison_page(report, galleries(report, reference, new))
        summary = _comparison_summary(report)
    data = (json.dumps(report, indent=1) + "\n").encode()
    write_together({args.out / "report.json": data, args.out / "report.html": page.encode()})
    print(json.dumps(summary, indent=1))


def image_set(spec: str, profiler: Profiler, args: argparse.Namespace) -> ImageSet:
    """The readable images of a source; they are read again where they are shown."""
    source = open_source(spec, limit=args.limit, image_size=max(profiler.lens.clip.image_size))
    parts, ids = [], []

    def prepare(raw: Raw) -> tuple[int, PreparedImage | None]:
        image = read(raw).image
        return raw.index, None if image is None else profiler.prepare(image)

    def image(number: int) -> Image.Image:
        return read(next(iter(source.raws([ids[number]])))).image

    with ThreadPoolExecutor(max_workers=max(args.workers, 1)) as threads:
        for first in range(0, len(source), args.batch):
            entries = range(first, min(first + args.batch, len(source)))
            prepared = {
                index: image
                for index, image in threads.map(prepare, source.raws(entries))
                if image is not None
            }
            if prepared:
                parts.append(profiler.of_prepared(list(prepared.values()), args.batch))
                ids += prepared
    if len(ids) < 2:
        raise UserError(f"{spec}: expected at least two readable images, found {len(ids)}")
    return ImageSet(Profile.cat(parts), image)


def watch(
    args: argparse.Namespace,
    clip: ClipModel,
    profiler: Profiler,
    pool: EmbeddedTextPool,
    reference: ImageSet,
    new: ImageSet,
) -> dict:
    """The report of a stream, window by window."""
    watched = None
    if args.watch:
        watched = EmbeddedTextPool(tuple(args.watch), embed_texts(clip, args.watch).cpu())
    try:
        monitor = Monitor(
            reference.profile, pool, args.window or len(new.profile), watched, args.level,
            args.permutations, args.seed,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(str(error)) from None
    monitor.update(new.profile)
    monitor.flush()
    report = monitor.to_json()
    for window in report["windows"]:
        window["localised"] = localised(profiler, pool, reference, new, window["images"])
    return report


def galleries(report: dict, reference: ImageSet, new: ImageSet) -> dict[str, list[str]]:
    """Images of the report as data URIs: the changed ones, and those of each unit's both sides."""
    shown = {"changed": [new.image(i) for i in report["changed_images"]]}
    for number, unit in enumerate(report["units"][:_SHOWN]):
        for name, side in (("reference", reference), ("new", new)):
            top = unit["top_images"][name][:_SHOWN]
            shown[f"{name} {number}"] = [side.image(i) for i in top]
    if report["localised"]:
        shown["localised"] = [crop(i, tuple(report["localised"]["box"])) for i in shown["changed"]]
    return {name: [thumbnail(i, _THUMBNAIL) for i in images] for name, images in shown.items()}


def _comparison_summary(report: dict) -> dict:
    keys = ("images", "p", "significant", "units_changed")
    return {key: report[key] for key in keys} | {
        "pixels": [f"{change['measure']} {change['direction']}" for change in report["pixels"]],
        "more": _texts(report["more"]),
        "less": _texts(report["less"]),
        "localised": _place(report["localised"]),
        "units": [f"{unit['name']}: {unit['change']:+.2f} sd" for unit in report["units"][:5]],
    }


def _monitor_summary(report: dict) -> dict:
    windows = report["windows"]
    return {
        "alarms": sum(window["alarm"] for window in windows),
        "waiting": report["waiting"],
        "windows": [
            {key: window[key] for key in ("first", "last", "p", "alarm", "watched")}
            | {"texts": _texts(window["texts"]), "localised": _place(window["localised"])}
            for window in windows
        ],
    }


def _texts(rows: list[dict]) -> list[str]:
    return [row["text"] for row in rows[:5]]


def _place(place: dict | None) -> dict | None:
    return place and {"where": place["where"], "texts": _texts(place["texts"])}
