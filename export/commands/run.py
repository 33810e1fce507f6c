"""From images to a published artifact: the whole analysis of one model, once."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from clipneurons.bundle.bundle import Bundle, save_bundle
from clipneurons.lens.make import Lens
from clipneurons.models.clip import ClipModel
from export.common.errors import UserError
from export.common.flags import add_run_arguments
from export.common.settings import Settings, Shard
from export.data.dataset import Source
from export.evaluation.fidelity import fidelity, left_out
from export.evaluation.zero_shot import class_embeddings, heldout_images
from export.pipeline import distributed
from export.pipeline.assemble import assemble, embed_pool, with_results
from export.pipeline.card import render_card
from export.pipeline.checkpoints import State
from export.pipeline.inputs import (
    check_centring,
    check_out,
    default_out,
    model_files,
    open_clip_model,
    open_images,
    open_lens,
    open_texts,
    prepare,
)
from export.pipeline.passes import MeanPass, Passes, merge_effects, merge_means
from export.pipeline.plan import make_plan
from export.pipeline.update_bundle import model_card
from export.pipeline.work_folder import Work, plan_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`."""
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run to the end, or to the end of this shard; 0 when the bundle or the shard is done."""
    rank = distributed.start()
    say = silent if args.quiet or rank.index > 0 else print
    if args.shard and rank.count > 1:
        raise UserError("--shard is for separate processes, torchrun shards by itself")
    shard = args.shard or rank
    out = Path(args.out or default_out(args.model))
    clip, settings = prepare(args)
    lens = open_lens(clip, settings)
    source = open_images(settings, clip)
    pool = open_texts(settings.texts)
    check_centring(settings.centred_pool, len(pool))
    work = Work(out)
    if finished_before(work, settings, rank, say):
        return 0
    check_out(out, args.overwrite)
    same = plan_of(settings, clip.sha256(), len(source), args.shard.count if args.shard else None)
    if work.goes_on(same, args.restart):
        say(f"goes on  with the unfinished run in {work.folder}")
    # Opened now, so that a mistake in --heldout shows before the work, not after it.
    held = len(heldout_images(settings, clip)) if with_figures(settings) else 0
    plan = make_plan(
        lens, source, settings, pool, out, shard,
        cache=args.cache, workers=args.workers, held=held,
    )  # fmt: skip
    say("\n".join(plan.lines(settings, source, pool, out)))
    if args.dry_run:
        return 0
    with work.lock(shard):
        work.begin(same, args.restart)
        passes = Passes(lens, source, settings, work.shard(shard), shard, plan.cache, args.workers)
        if args.shard:
            return run_shard(passes, work, out, say)
        merged = first_pass(passes)
        states = distributed.gather(passes.effects(merged).to_bytes())
        if rank.index == 0:
            states = [State.from_bytes(data, clip.device) for data in states]
            finish(lens, source, settings, work, merged, states, say, args.workers)
    distributed.share(b"done")
    distributed.stop()
    return 0


def finished_before(work: Work, settings: Settings, rank: Shard, say) -> bool:
    """Whether only the clearing up was left, which is then done; every rank hears the same."""
    before = distributed.share(bytes([work.finished(settings)]) if rank.index == 0 else None)
    if before == b"\1":
        if rank.index == 0:
            work.remove()
        say(f"{work.out} was finished before")
        distributed.stop()
    return before == b"\1"


def silent(text: str) -> None:
    """Takes the place of `print` where nobody listens."""


def first_pass(passes: Passes) -> State:
    """Pass 1 of all ranks, merged on rank 0 and shared."""
    device = passes.lens.clip.device
    states = distributed.gather(passes.means().to_bytes())
    merged = None
    if states:
        parts = [State.from_bytes(data, device) for data in states]
        merged = merge_means(parts, passes.total).to_bytes()
    return State.from_bytes(distributed.share(merged), device)


def run_shard(passes: Passes, work: Work, out: Path, say) -> int:
    """One job of an array: pass 1, or pass 2 once `merge` has put the means together."""
    merged = State.load(work.means, passes.lens.clip.device)
    if merged is None:
        passes.means()
        say(f"pass 1 of {passes.shard.name} is done. When every shard is: export merge --out {out}")
    else:
        passes.effects(merged)
        say(f"pass 2 of {passes.shard.name} is done. When every shard is: export merge --out {out}")
    return 0


def finish(
    lens: Lens,
    source: Source,
    settings: Settings,
    work: Work,
    merged: State,
    states: list[State],
    say,
    workers: int = 1,
) -> None:
    """From the states of both passes to the bundle in its folder."""
    clip, out = lens.clip, work.out
    check_weights(clip, settings)
    statistics = merge_effects(lens, merged, settings, states)
    pool = open_texts(settings.texts)
    embeddings = embed_pool(clip, pool, work.folder)
    model, weights = model_files(settings.model, out)
    bundle = assemble(lens, source, settings, model, merged, statistics, pool, embeddings)
    command = settings.command(str(out))
    metrics = {"command": command}
    if with_figures(settings):
        held = heldout_images(settings, clip)
        classifier = class_embeddings(held.class_names, clip, bundle)
        metrics["fidelity"] = {"command": command} | fidelity(
            bundle, clip, held, classifier, batch=settings.batch, workers=workers
        )
    card = render_card(bundle, metrics, command, out.name, model_card(settings.model))
    skipped = MeanPass.from_state(merged).skipped
    extra = {**weights, "skipped.csv": skipped_csv(skipped, source.notes)}
    bundle = with_results(bundle, metrics, card)
    work.finishing(settings, bundle)
    save_bundle(bundle, out, extra, scratch=work.folder)
    work.remove()
    summary(bundle, out, skipped, source.notes, say)


def with_figures(settings: Settings) -> bool:
    """Whether there are fidelity figures: a mean with the shared bias in it has none."""
    return settings.evaluate and not settings.shared_bias


def check_weights(clip: ClipModel, settings: Settings) -> None:
    """Refuse to put statistics beside weights that were replaced while they were taken."""
    if Path(settings.model).is_dir():
        now = open_clip_model(settings.model, settings.pretrained, "cpu", settings.precision)
        if now.sha256() != clip.sha256():
            raise UserError(f"the weights in {settings.model} changed meanwhile: add --restart")


def skipped_csv(skipped: list, notes: list[tuple[str, str]]) -> bytes:
    """`skipped.csv`: what was not used, and why; the index is empty for what is no image."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["index", "name", "reason"])
    writer.writerows([*skipped, *(("", name, reason) for name, reason in notes)])
    return buffer.getvalue().encode(errors="surrogateescape")


def summary(bundle: Bundle, out: Path, skipped: list, notes: list, say) -> None:
    """The closing lines: what was written, what was left out, one figure."""
    config = bundle.config
    units = sum(len(a.directions) for a in bundle.layers.values())
    total = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    say(f"{units:,} units over {config.data.count:,} images, {total / 1e6:.1f} MB in {out}")
    for _, name, reason in skipped[:10]:
        say(f"skipped  {name}: {reason}")
    if len(skipped) > 10 or notes:
        say(f"skipped  {len(skipped)} images and {len(notes)} other files: {out}/skipped.csv")
    figures = bundle.metrics.get("fidelity", {})
    for line in left_out(figures):
        say(line)
    if "accuracy" in figures.get("baseline", {}):
        accuracy, images = figures["baseline"]["accuracy"], figures["images"]
        classes = figures["classes"]
        say(f"accuracy {accuracy:.1%} of the unchanged model on {images}, {classes} classes")
