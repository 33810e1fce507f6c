"""From images to a published artifact: alone, as ranks of one run, or as shards of a job array."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clipneurons.bundle.bundle import Bundle, load_bundle, save_bundle
from clipneurons.bundle.config import BundleError
from export.common.errors import UserError
from export.common.settings import SINGLE, RunOptions, Settings, Shard
from export.evaluation.fidelity import fidelity
from export.evaluation.fidelity_words import left_out
from export.evaluation.zero_shot import class_embeddings, templates_of
from export.pipeline import distributed
from export.pipeline.assemble import assemble, with_results
from export.pipeline.card import local_name, render_card
from export.pipeline.checkpoints import State
from export.pipeline.inputs import (
    Inputs,
    check_out,
    default_out,
    model_files,
    open_clip_model,
    open_inputs,
    weights_sha256,
)
from export.pipeline.opening import opening
from export.pipeline.passes import MeanPass, Passes, merge_effects, merge_means
from export.pipeline.phrases import embed_pool, pursue_layers, rounded
from export.pipeline.plan import make_plan
from export.pipeline.update_bundle import model_card
from export.pipeline.weaker_images import with_weaker_images
from export.pipeline.work_folder import Work, plan_of

Say = Callable[[str], None]


def make_bundle(settings: Settings, options: RunOptions) -> None:
    """Run to the end, or to the end of this shard, and say what was done."""
    rank = distributed.start()
    say = _silent if options.quiet or rank.index > 0 else print
    if options.shard and rank.count > 1:
        raise UserError("--shard is for separate processes, torchrun shards by itself")
    inputs = open_inputs(settings, options.workers)
    work = Work(Path(options.out or default_out(settings.model)))
    again = rank.index == 0 and not options.overwrite and made_before(inputs, work.out)
    if not _finished(work, inputs.settings, rank, say, again):
        _run(inputs, work, options, rank, say)
    distributed.stop()


def _run(inputs: Inputs, work: Work, options: RunOptions, rank: Shard, say: Say) -> None:
    """Plan, both passes over this process's part of the images, and the bundle."""
    check_out(work.out, options.overwrite)
    model_files(inputs.settings.model, work.out)  # refused now if it cannot travel with its bundle
    shard, jobs = options.shard or rank, options.shard.count if options.shard else None
    same = plan_of(inputs.settings, inputs.clip.sha256(), len(inputs.source), jobs)
    if work.goes_on(same, options.restart):
        say(f"goes on  with the unfinished run in {work.folder}")
    plan = make_plan(inputs, work.out, shard, options.cache)
    say("\n".join(plan.lines(inputs, work.out)))
    if options.dry_run:
        return
    with work.lock(shard):
        work.begin(same, options.restart)
        passes = Passes(
            inputs.lens, inputs.source, inputs.settings, work.shard(shard), shard, plan.cache,
            inputs.workers,
        )  # fmt: skip
        if options.shard:
            _run_shard(passes, work, say)
            return
        merged = _first_pass(passes)
        states = distributed.gather(passes.effects(merged).to_bytes())
        if rank.index == 0:
            states = [State.from_bytes(data, inputs.clip.device) for data in states]
            _finish(inputs, work, merged, states, say)
    distributed.share(b"done")


def made_before(inputs: Inputs, out: Path) -> bool:
    """Whether the folder holds what this very run gives: a scheduler may start it once more."""
    try:
        bundle = load_bundle(out)
    except BundleError:
        return False
    settings, config, pool = inputs.settings, bundle.config, inputs.pool
    command = bundle.metrics.get("command", "").rpartition(" --out ")[0]
    found = (
        command, config.weights_sha256, config.data.count + config.data.skipped,
        config.pool.sha256, config.components, config.centred_pool,
    )  # fmt: skip
    return found == (
        settings.command("").rpartition(" --out ")[0], weights_sha256(inputs.clip, settings),
        len(inputs.source), pool.sha256, min(settings.components, len(pool)),
        settings.centred_pool,
    )  # fmt: skip


def _finished(work: Work, settings: Settings, rank: Shard, say: Say, again: bool = False) -> bool:
    """Whether nothing is left to do but to clear up, which is done; every rank hears the same."""
    clear = rank.index == 0 and work.finished(settings)
    before = distributed.share(bytes([clear or again]) if rank.index == 0 else None)
    if clear:
        work.remove()
    if before == b"\1":
        say(f"{work.out} was finished before" + (": --overwrite makes it again" if again else ""))
    return before == b"\1"


def merge_shards(out: Path, device: str | None = None, workers: int = 1) -> None:
    """Put together what the shards of a job array have done so far, and say what comes next."""
    work = Work(out)
    settings = work.settings()
    if _finished(work, settings, SINGLE, print):
        return
    shards = work.shards()
    inputs = open_inputs(settings, workers, device)
    total = -(-len(inputs.source) // settings.batch)
    with work.lock(Shard(0, len(shards))):
        merged = State.load(work.means, inputs.clip.device)
        pass_ = "pass1" if merged is None else "pass2"
        states = [_load(work, shard, pass_, inputs.clip.device, total) for shard in shards]
        if merged is None:
            merged = merge_means(states, total)
            merged.save(work.means)
            count = MeanPass.from_state(merged).count
            print(f"the mean over {count:,} images is ready: run every shard again, then merge")
        else:
            _finish(inputs, work, merged, states, print)


def _load(work: Work, shard: Shard, name: str, device, total: int) -> State:
    state = State.load(work.shard(shard) / f"{name}.safetensors", device)
    if state is None and name == "pass1":
        raise UserError(f"shard {shard.index} of {shard.count} has not been run")
    done, expected = (state.note["done"] if state else 0), len(shard.numbers(total))
    if done < expected:
        raise UserError(f"{shard.name}: {done} of {expected} batches of {name}: run it again")
    return state


def _silent(text: str) -> None:
    """Takes the place of `print` where nobody listens."""


def _first_pass(passes: Passes) -> State:
    """Pass 1 of all ranks, merged on rank 0 and shared."""
    device = passes.lens.clip.device
    states = distributed.gather(passes.means().to_bytes())
    merged = None
    if states:
        parts = [State.from_bytes(data, device) for data in states]
        merged = merge_means(parts, passes.total).to_bytes()
    return State.from_bytes(distributed.share(merged), device)


def _run_shard(passes: Passes, work: Work, say: Say) -> None:
    """One job of an array: pass 1, or pass 2 once `merge` has put the means together."""
    merged = State.load(work.means, passes.lens.clip.device)
    number = 1 if merged is None else 2
    if merged is None:
        passes.means()
    else:
        passes.effects(merged)
    say(
        f"pass {number} of {passes.shard.name} is done."
        f" When every shard is: export merge --out {work.out}"
    )


def _finish(inputs: Inputs, work: Work, merged: State, states: list[State], say: Say) -> None:
    """From the states of both passes to the bundle in its folder."""
    settings, clip, out = inputs.settings, inputs.clip, work.out
    _check_weights(inputs)
    statistics = merge_effects(inputs.lens, merged, settings, states)
    embeddings = rounded(embed_pool(clip, inputs.pool, work.folder), settings.storage == "float16")
    pursuits = pursue_layers(inputs, statistics, embeddings, work.folder)
    model, weights = model_files(settings.model, out)
    bundle = assemble(inputs, model, merged, statistics, embeddings, pursuits)
    command = settings.command(str(out))
    metrics = {"command": command}
    if inputs.heldout is not None:
        names = inputs.heldout.class_names
        templates = templates_of(names, clip, bundle)
        classifier = class_embeddings(names, clip, bundle, templates)
        metrics["fidelity"] = {"command": command, "templates": templates} | fidelity(
            bundle, clip, inputs.heldout, classifier,
            pursuits=pursuits, batch=settings.batch, workers=inputs.workers,
        )  # fmt: skip
    card = render_card(bundle, metrics, command, local_name(out), model_card(settings.model))
    skipped, notes = MeanPass.from_state(merged).skipped, inputs.source.notes
    bundle = with_results(bundle, metrics, card)
    bundle = with_weaker_images(bundle, inputs.lens)
    bundle = replace(bundle, opening=opening(bundle, inputs.lens))
    work.finishing(settings, bundle)
    extra = {**weights, "skipped.csv": skipped_csv(skipped, notes)}
    save_bundle(bundle, out, extra, scratch=work.folder)
    work.remove()
    summary(bundle, out, skipped, notes, say)


def _check_weights(inputs: Inputs) -> None:
    """Refuse to put statistics beside weights that were replaced while they were taken."""
    settings = inputs.settings
    if Path(settings.model).is_dir():
        now = open_clip_model(settings.model, settings.pretrained, "cpu", settings.precision)
        if now.sha256() != inputs.clip.sha256():
            raise UserError(f"the weights in {settings.model} changed meanwhile: add --restart")


def skipped_csv(skipped: list, notes: list[tuple[str, str]]) -> bytes:
    """`skipped.csv`: what was not used, and why; the index is empty for what is no image."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["index", "name", "reason"])
    writer.writerows([*skipped, *(("", name, reason) for name, reason in notes)])
    return buffer.getvalue().encode(errors="surrogateescape")


def summary(bundle: Bundle, out: Path, skipped: list, notes: list, say: Say) -> None:
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
