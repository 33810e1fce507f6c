"""From images to a bundle: in one process, as ranks of one run, or as shards of a job array.

All three go on from the checkpoints in the work folder beside the bundle and end in the same
bundle:

    one process   pass 1, pass 2, bundle
    ranks         pass 1 on each, their means merged and shared, pass 2 on each, bundle by rank 0
    shards        pass 1 by `run`, means by `merge`, pass 2 by `run`, bundle by `merge`
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from clipneurons.bundle.bundle import Bundle, save_bundle
from clipneurons.bundle.config import CONFIG, METRICS, BundleConfig, parse_json
from clipneurons.bundle.sparse_features import SparseFeatures
from clipneurons.models.clip import ClipModel
from clipneurons.progress import Progress
from clipneurons.statistics.effect_statistics import UnitStatistics
from export.common.errors import UserError
from export.common.pursuit import Pursuit, rounded
from export.common.settings import RunOptions, Settings, Shard
from export.common.state import State
from export.data.dataset import stamps
from export.data.loader import fingerprint
from export.evaluation.fidelity import fidelity, left_out
from export.evaluation.zero_shot import class_embeddings, templates_of
from export.pipeline import distributed
from export.pipeline.assemble import assemble
from export.pipeline.card import local_name, render_card
from export.pipeline.decomposition import embed_pool, pursue_layers
from export.pipeline.feature_figures import FeatureFigures
from export.pipeline.inputs import (
    Inputs,
    check_out,
    default_out,
    model_files,
    open_inputs,
    open_model_of,
    weights_sha256,
)
from export.pipeline.opening import with_opening
from export.pipeline.passes import (
    PASS_1,
    PASS_2,
    EffectPass,
    MeanPass,
    Passes,
    merge_effects,
    merge_means,
)
from export.pipeline.plan import make_plan
from export.pipeline.unit_map import with_map
from export.pipeline.update_bundle import model_card
from export.pipeline.work_folder import Work, plan_of

Say = Callable[[str], None]
# Share of the variance that a dictionary explains of what it was trained on.
WELL = 0.5


def run(
    settings: Settings, options: RunOptions, clip: ClipModel | None = None,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Make a bundle, or do one shard's part of it, from where a stopped run was.

    `clip` is the model that the settings name, where it is open already; `progress` is told how
    far the passes are, in place of a bar.

    Raises `UserError` for a mistake in the settings, before any work.
    """
    rank = distributed.start()
    if options.shard and rank.count > 1:
        raise UserError("--shard is for separate processes, torchrun shards by itself")
    say = print if rank.index == 0 and not options.quiet else _silent
    inputs = replace(open_inputs(settings, options.workers, clip=clip), progress=progress)
    work = Work(Path(options.out or default_out(settings.model)))
    if distributed.agree(rank.index == 0 and _finished(inputs, work, options.overwrite)):
        say(f"{work.out} was finished before: --overwrite makes it again")
    else:
        _go_on(inputs, work, options, rank, say)
    distributed.stop()


def merge_shards(out: Path, device: str | None = None, workers: int = 1) -> None:
    """Put together what the shards of a job array have done so far, and say what comes next."""
    work = Work(out)
    settings = work.settings()
    if work.finished(settings):
        work.remove()
        print(f"{out} was finished before")
        return
    shards = work.shards()
    inputs = open_inputs(settings, workers, device)
    total = -(-len(inputs.source) // settings.batch)
    device = inputs.clip.device
    with work.lock(Shard(0, len(shards))):
        state = State.load(work.means, device)
        if state is None:
            states = [_shard_state(work, shard, PASS_1, total, device) for shard in shards]
            means = merge_means([MeanPass.from_state(state) for state in states], total)
            means.state().save(work.means)
            print(f"the mean over {means.count:,} images is ready: run every shard again, then"
                  " merge")  # fmt: skip
            return
        means = MeanPass.from_state(state)
        states = [_shard_state(work, shard, PASS_2, total, device) for shard in shards]
        parts = [EffectPass(inputs.lens, means, settings, state) for state in states]
        _write_bundle(inputs, work, means, merge_effects(parts), print)


def is_bundle_of(inputs: Inputs, folder: Path) -> bool:
    """Whether a folder holds the bundle that a run of these inputs gives.

    Read off `config.json` and `metrics.json`; the arrays are not loaded.
    """
    try:
        config = BundleConfig.from_json((folder / CONFIG).read_text())
        command = parse_json((folder / METRICS).read_text(), METRICS).get("command")
    except (OSError, ValueError):
        return False
    settings, pool = inputs.settings, inputs.pool
    return (
        str(command).rpartition(" --out ")[0] == settings.command("").rpartition(" --out ")[0]
        and config.data.count + config.data.skipped == len(inputs.source)
        and config.pool.sha256 == pool.sha256
        and config.components == min(settings.components, len(pool))
        and config.centred_pool == settings.centred_pool
        and config.weights_sha256 == weights_sha256(inputs.clip, settings)
        and (config.features.sha256 if config.features else "") == inputs.features_sha256
        and _same_images(inputs, config.data.fingerprint)
    )


def _same_images(inputs: Inputs, digest: str) -> bool:
    """Whether files hold the images that a bundle was made from; what is in none stays the same."""
    if not stamps(inputs.source):
        return True
    return fingerprint(inputs.source, inputs.settings.batch) == digest


def _finished(inputs: Inputs, work: Work, overwrite: bool) -> bool:
    """Whether a scheduler starts this run once more; clears up where it was killed at the end."""
    finished = work.finished(inputs.settings)
    if not finished and (overwrite or not is_bundle_of(inputs, work.out)):
        return False
    if finished or not work.began:
        work.remove()
    return True


def _go_on(inputs: Inputs, work: Work, options: RunOptions, rank: Shard, say: Say) -> None:
    """From the plan to the bundle, or to the end of this shard's pass."""
    settings, source, shard = inputs.settings, inputs.source, options.shard or rank
    check_out(work.out, options.overwrite)
    model_files(settings.model, work.out)  # refused now if it cannot travel with its bundle
    jobs = options.shard.count if options.shard else None
    unchanged = plan_of(settings, inputs.weights, source, jobs)
    if work.goes_on(unchanged, options.restart):
        say(f"goes on  with the unfinished run in {work.folder}")
    plan = make_plan(inputs, work.out, shard, options.cache)
    say("\n".join(plan.lines(inputs, work.out)))
    if inputs.features:
        say("\n".join(feature_lines(inputs.features, inputs.feature_figures)))
    if options.dry_run:
        return
    with work.lock(shard):
        work.begin(unchanged, options.restart)
        passes = Passes(
            inputs.lens,
            source,
            settings,
            work.shard(shard),
            shard,
            plan.cache,
            inputs.workers,
            progress=inputs.progress,
        )
        if options.shard:
            _run_shard(passes, work, say)
        elif rank.count > 1:
            _run_rank(passes, inputs, work, say)
        else:
            _run_alone(passes, inputs, work, say)


def feature_lines(features: SparseFeatures, figures: FeatureFigures) -> list[str]:
    """What a dictionary explains, and a warning where that is too little."""
    lines = [
        f"features {features.latents:,} of {features.source}, {features.site} of block"
        f" {features.block}, {features.tokens} tokens: {figures.explained_variance:.1%} of the"
        f" variance explained, {figures.active:.1f} active a token, {figures.dense:,} dense"
    ]
    if figures.explained_variance < WELL:
        lines.append(
            "warning  less than half of the variance is explained: most likely the dictionary is of"
            " another layer, or was trained with another preprocessing or normalisation"
        )
    return lines


def _run_alone(passes: Passes, inputs: Inputs, work: Work, say: Say) -> None:
    """Both passes in one process, and the bundle."""
    means = merge_means([passes.means()], passes.total)
    statistics = merge_effects([passes.effects(means)])
    _write_bundle(inputs, work, means, statistics, say)


def _run_rank(passes: Passes, inputs: Inputs, work: Work, say: Say) -> None:
    """Both passes of one rank; rank 0 merges each, and writes the bundle."""
    device, merged = inputs.clip.device, None
    if parts := distributed.gather(passes.means().state(), device):
        merged = merge_means([MeanPass.from_state(part) for part in parts], passes.total).state()
    means = MeanPass.from_state(distributed.share(merged, device))
    if states := distributed.gather(passes.effects(means).state(), device):
        parts = [EffectPass(inputs.lens, means, inputs.settings, state) for state in states]
        _write_bundle(inputs, work, means, merge_effects(parts), say)


def _run_shard(passes: Passes, work: Work, say: Say) -> None:
    """One job of an array: pass 1, or pass 2 once `merge` has put the means together."""
    state = State.load(work.means, passes.lens.clip.device)
    if state is None:
        passes.means()
    else:
        passes.effects(MeanPass.from_state(state))
    say(
        f"pass {1 if state is None else 2} of {passes.shard.name} is done."
        f" When every shard is: export merge --out {work.out}"
    )


def _shard_state(work: Work, shard: Shard, file: str, total: int, device) -> State:
    """What a shard has done of a pass; raises `UserError` unless that is all of it."""
    state = State.load(work.shard(shard) / file, device)
    if state is None and file == PASS_1:
        raise UserError(f"shard {shard.index} of {shard.count} has not been run")
    done, expected = (state.note["done"] if state else 0), len(shard.numbers(total))
    if done < expected:
        name = Path(file).stem
        raise UserError(f"{shard.name}: {done} of {expected} batches of {name}: run it again")
    return state


def _write_bundle(
    inputs: Inputs,
    work: Work,
    means: MeanPass,
    statistics: Mapping[int, UnitStatistics],
    say: Say,
) -> None:
    """From the results of both passes to the bundle in its folder; the work folder is removed."""
    settings, out = inputs.settings, work.out
    _check_weights(inputs)
    work.check_images(inputs.source)
    embeddings = embed_pool(inputs.clip, inputs.pool, work.folder)
    embeddings = rounded(embeddings, settings.storage == "float16")
    pursuits = pursue_layers(inputs, statistics, embeddings, work.folder)
    model, weights = model_files(settings.model, out)
    bundle = assemble(inputs, model, means, statistics, embeddings, pursuits)
    command = settings.command(str(out))
    metrics = {"command": command} | _fidelity(bundle, inputs, pursuits, command)
    card = render_card(bundle, metrics, command, local_name(out), model_card(settings.model))
    bundle = with_opening(replace(with_map(bundle), metrics=metrics, card=card), inputs.lens)
    work.finishing(settings, bundle)
    notes = inputs.source.notes
    extra = {**weights, "skipped.csv": skipped_csv(means.skipped, notes)}
    save_bundle(bundle, out, extra, scratch=work.folder)
    work.remove()
    summary(bundle, out, means.skipped, notes, say)
    if means.scaled:
        say(f"scaled   {means.scaled:,} images of more than 8 bits, by the range of their values")


def _fidelity(
    bundle: Bundle, inputs: Inputs, pursuits: Mapping[int, Pursuit], command: str
) -> dict[str, dict]:
    """The fidelity figures under their name; nothing where no images are held out for them."""
    if inputs.heldout is None:
        return {}
    names, clip = inputs.heldout.class_names, inputs.clip
    templates = templates_of(names, clip, bundle)
    figures = fidelity(
        bundle, clip, inputs.heldout, class_embeddings(names, clip, bundle, templates),
        pursuits=pursuits, batch=inputs.settings.batch, workers=inputs.workers,
    )  # fmt: skip
    return {"fidelity": {"command": command, "templates": templates} | figures}


def _check_weights(inputs: Inputs) -> None:
    """Refuse to put statistics beside weights that were replaced while they were taken."""
    settings = inputs.settings
    if Path(settings.model).is_dir():
        now = open_model_of(settings, "cpu", settings.precision)
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


def _silent(text: str) -> None:
    """What `--quiet`, and every rank but the first, prints with."""
