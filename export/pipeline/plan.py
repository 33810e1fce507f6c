"""The plan of a run, printed before it starts: sizes, and times from a short measured warm-up."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from clipneurons.statistics.effect_statistics import EffectStatistics
from clipneurons.statistics.omp import omp
from clipneurons.statistics.streaming.norm_histogram import NORM_BINS
from clipneurons.statistics.streaming.running_mean import RunningMean
from clipneurons.text.embedding import embed_texts
from clipneurons.text.reading import ReadPool
from export.common.errors import UserError
from export.common.pursuit import figure_sizes
from export.common.settings import Shard
from export.data.dataset import Source
from export.data.loader import batches
from export.pipeline.inputs import Inputs, model_files

# Share of the free disk that cached scores may take.
_CACHE_SHARE = 0.5
_NAMED = 5  # texts that are cut


@dataclass(frozen=True)
class Plan:
    """Sizes in bytes and times in seconds of a run; `cache` says whether scores are kept."""

    images: int
    batches: int
    units: dict[int, int]
    heads: dict[int, int]
    cache: bool
    cache_bytes: int
    disk_bytes: int
    disk_free: int
    memory_bytes: int
    rate: float
    image_seconds: float
    text_seconds: float
    figure_seconds: float

    def lines(self, inputs: Inputs, out: Path) -> list[str]:
        """The plan, a line a topic."""
        settings, source, pool = inputs.settings, inputs.source, inputs.pool
        layers = ", ".join(
            f"{layer} ({self.units[layer]:,} units x {self.heads[layer]} numbers)"
            for layer in self.units
        )
        passes = (
            f"2, the second from cached scores ({size(self.cache_bytes)} on disk)"
            if self.cache
            else "2 over the images (their scores do not fit on the disk)"
        )
        whole = self.image_seconds + self.text_seconds + self.figure_seconds
        return [
            f"model    {settings.model} {settings.pretrained or ''}".rstrip(),
            inputs.self_check.line()
            if inputs.self_check
            else "check    skipped: the photographs ship with a checkout, not with the package",
            f"images   {self.images:,} of {source.name}, {classes(source)}",
            f"layers   {layers}",
            f"passes   {passes}",
            f"texts    {len(pool):,} of {pool.name} ({pool.licence}), {settings.components} a unit",
            *text_notes(inputs.texts, inputs.clip.context_length),
            *_image_notes(source),
            f"time     about {duration(whole)}: images {duration(self.image_seconds)}"
            f" ({self.rate:.1f} images/s measured), texts {duration(self.text_seconds)}"
            + (f", figures {duration(self.figure_seconds)}" if self.figure_seconds else ""),
            f"memory   about {size(self.memory_bytes)} beside the model",
            f"disk     {size(self.disk_bytes)} needed, {size(self.disk_free)} free",
            f"output   {out}",
        ]


def make_plan(
    inputs: Inputs,
    out: Path,
    shard: Shard,
    cache: bool | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Plan:
    """Measure two batches and the statistics on them, and add up.

    `cache` None keeps the scores when they fit into half of the free disk. Raises `UserError`
    when the disk is too small, or the first two batches hold no image.
    """
    lens, source, pool, settings = inputs.lens, inputs.source, inputs.pool, inputs.settings
    units = {layer: d.units for layer, d in lens.directions.items()}
    heads = {layer: d.heads for layer, d in lens.directions.items()}
    numbers = sum(units[layer] * heads[layer] for layer in units)
    shard_images = -(-len(source) // shard.count)
    cache_bytes = 4 * numbers * shard_images
    free = shutil.disk_usage(_existing(out)).free
    if cache is None:
        cache = cache_bytes < _CACHE_SHARE * free
    top, tail = (
        min(settings.top_k, len(source)),
        int(len(source) * (100 - settings.percentile) / 50),
    )
    kept = sum(n * (4 * heads[x] * top + 8 * top + 4 * tail + 280) for x, n in units.items())
    dim, m = lens.clip.embed_dim, min(settings.components, len(pool))
    a_unit = 8 * dim + 8 * top + 8 * m + 4 * len(NORM_BINS)
    bundle = sum(units.values()) * a_unit + len(pool) * (4 * dim + 12)
    # Two copies of the state and of the bundle: the new one is complete before the old one goes.
    disk = cache_bytes * cache + 2 * kept + 2 * bundle + int(settings.gallery_mb * 2e6)
    disk += sum(
        len(data) if isinstance(data, bytes) else data.stat().st_size
        for data in model_files(settings.model, out)[1].values()
    )
    if disk * 1.05 > free:
        raise UserError(
            f"the disk of {out} has {size(free)} free, the run needs {size(disk)}: free some space"
            + (", or add --no-cache (reads the images twice)" if cache else "")
        )
    each, again = _measure(inputs, clock)
    held = len(inputs.heldout) if inputs.heldout is not None else 0
    most = max(m, *figure_sizes(len(pool), dim)) if held else m
    return Plan(
        images=len(source),
        batches=-(-len(source) // settings.batch),
        units=units,
        heads=heads,
        cache=cache,
        cache_bytes=cache_bytes,
        disk_bytes=disk,
        disk_free=free,
        memory_bytes=kept + 4 * numbers * settings.batch * 4 + bundle,
        rate=1 / each,
        image_seconds=shard_images * (each + again + (0 if cache else each)),
        text_seconds=_measure_texts(inputs, sum(units.values()), most, clock),
        # Every image again, ablated in several ways, which costs as much once more.
        figure_seconds=2 * each * held,
    )


def _measure(inputs: Inputs, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds an image of pass 1, and of the statistics in pass 2."""
    lens, source, settings = inputs.lens, inputs.source, inputs.settings
    some = batches(source, inputs.clip.preprocess, range(3), settings.batch, inputs.workers)
    start, seen, last = None, 0, None
    for batch in some:
        if start is None:  # the first batch loads libraries and builds directions
            if batch.images is not None:
                lens(batch.images[:2])
            start = clock()
        if batch.images is not None:
            last = lens(batch.images)[1], batch.ids
            seen += len(batch.ids)
    if last is None:
        raise UserError(f"none of the first images of {source.name} can be read")
    each = (clock() - start) / seen
    layers, ids = last
    start = clock()
    for layer, contributions in layers.items():
        mean = RunningMean()
        mean.update(contributions)
        statistics = EffectStatistics(
            mean.mean(), lens.directions[layer], max(len(ids), len(source)), settings.top_k
        )
        statistics.update(contributions, ids)
    return each, (clock() - start) / len(ids)


def _measure_texts(inputs: Inputs, units: int, most: int, clock: Callable[[], float]) -> float:
    """Seconds for embedding the pool and for writing all directions with `most` texts."""
    clip, pool = inputs.clip, inputs.pool
    sample = list(pool.texts[:64])
    embed_texts(clip, sample[:2])
    start = clock()
    some = embed_texts(clip, sample)
    total = (clock() - start) / len(sample) * len(pool)
    generator = torch.Generator().manual_seed(0)
    like = torch.randn(len(pool), some.shape[1], generator=generator).to(clip.device)
    targets = torch.randn(64, some.shape[1], generator=generator).to(clip.device)
    like = torch.nn.functional.normalize(like, dim=1)
    start = clock()
    omp(targets, like, most)
    return total + (clock() - start) / len(targets) * units


def classes(source: Source) -> str:
    """How many classes there are, and the first of them, so that the wrong folder shows."""
    names = source.class_names
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    doubled = [name for name, count in Counter(names).items() if count > 1]
    also = f", {', '.join(doubled[:3])} more than once" if doubled else ""
    return f"{len(names)} classes ({shown}){also}" if names else "no classes"


def text_notes(texts: ReadPool, length: int) -> list[str]:
    """Texts that the model does not read whole, or cannot tell from others; a line each."""
    notes = []
    if texts.cut:
        first = ", ".join(repr(f"{text[:40]}…") for text in texts.cut[:_NAMED])
        notes.append(f"texts    {len(texts.cut):,} are cut at {length} tokens: {first}")
    if texts.merged:
        notes.append(f"texts    {texts.merged:,} left out, whose tokens an earlier one has")
    return notes


def _image_notes(source: Source) -> list[str]:
    """How many files are no images or not as expected, and the first of them."""
    if not source.notes:
        return []
    name, reason = source.notes[0]
    return [
        f"notes    {len(source.notes):,} files, all in skipped.csv; the first: {name}: {reason}"
    ]


def size(count: float) -> str:
    """Bytes in a readable unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.4g} TB"


def duration(seconds: float) -> str:
    """Seconds in a readable unit."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)
