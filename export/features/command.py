"""From the flags of `train-features` to a dictionary in a file."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import torch

from clipneurons.bundle.config import FEATURES
from clipneurons.bundle.sparse_features import FeatureError, save_features
from clipneurons.lens.features import FeatureSite
from clipneurons.models.hooks import record_activations
from export.common.errors import UserError
from export.common.lock import exclusive
from export.common.models import open_clip_model
from export.common.state import State
from export.data.dataset import Source
from export.data.open_source import open_source
from export.features.train import HELD_OUT, Trainer, Training, finished, train
from export.pipeline.feature_figures import all_batches, measure, read_tokens
from export.pipeline.plan import duration, size


def train_features(args: argparse.Namespace) -> int:
    """Plan, activations, training, figures, file."""
    clip = open_clip_model(args.model, args.pretrained, args.device)
    resnet = clip.kind == "resnet"
    name = "last_stage" if resnet else "mlp_in" if args.kind == "transcoder" else args.site
    if resnet and args.kind == "transcoder":
        raise UserError(f"{clip.name} is a ResNet without MLPs: expected --kind topk")
    try:
        site = FeatureSite(clip, args.layer, name, args.tokens)
    except FeatureError as error:
        raise UserError(str(error)) from None
    source = open_source(
        args.images, limit=args.limit, seed=args.seed, image_size=max(clip.image_size)
    )
    model = Path(clip.name).name if Path(clip.name).exists() else clip.name
    training = Training(
        model=f"{model} {clip.pretrained or ''}".strip(), images=source.name, block=args.layer,
        site=name, tokens=args.tokens, latents=args.latents or 8 * site.width, k=args.k,
        steps=args.steps, batch=args.batch, rate=args.rate, seed=args.seed,
    )  # fmt: skip
    if args.k > training.latents:
        raise UserError(f"--k {args.k}: expected at most --latents {training.latents}")
    out = args.out or Path("features", f"{model.replace('/', '--')}-{args.layer}-{args.kind}")
    checkpoint = out / ".training.safetensors"
    state = None if args.restart else State.load(checkpoint, clip.device)
    if (out / FEATURES).is_file() and not args.restart and state is None:
        raise UserError(f"{out} holds a dictionary already: add --restart, or choose another --out")
    if state and state.note["training"] != asdict(training):
        old, new = state.note["training"], asdict(training)
        changed = ", ".join(f"{k} {old[k]} and {new[k]}" for k in new if old[k] != new[k])
        raise UserError(f"{out} holds an unfinished training with {changed}: add --restart")
    trainer = Trainer.begin(training, site.width, clip.device)
    print("\n".join(_plan(trainer, site, source, args.workers)))
    if args.dry_run:
        return 0
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out / ".lock", out):
        if state:
            print(f"goes on  from step {state.note['step']:,}")
            trainer.restore(state)
        tokens = read_tokens(site, source, all_batches(source), args.workers)
        count = max(1, int(len(tokens) * (1 - HELD_OUT)))
        fitted, heldout = tokens.part(slice(count)), tokens.part(slice(count, None))
        train(trainer, fitted, checkpoint)
        features = finished(trainer, fitted, training.model, f"trained on {source.name}")
        figures = measure(features, heldout)
        save_features(features, out)
        checkpoint.unlink()
    print(
        f"{features.latents:,} latents of {name} in block {args.layer} explain"
        f" {figures.explained_variance:.1%} of held-out tokens, {figures.active:.1f} active a"
        f" token, {figures.silent:,} never: {out / FEATURES}\nread them with: python -m export run"
        f" --model {args.model} --features {out}"
    )
    return 0


def _plan(trainer: Trainer, site: FeatureSite, source: Source, workers: int) -> list[str]:
    """Sizes, and times from a step and a forward pass of noise."""
    training, clip = trainer.training, site.clip
    noise = torch.randn(8, 3, *clip.image_size)
    began = time.monotonic()
    with record_activations(clip.visual, site.recorded) as tensors:
        clip.encode_image(noise)
    reading = (time.monotonic() - began) / len(noise) * len(source)
    inputs = site.inputs(tensors)
    tokens = int(site.described(inputs).sum()) * len(source)
    rows = inputs.flatten(0, 1)[torch.randint(inputs[..., 0].numel(), (training.batch,))]
    probe = Trainer.begin(training, site.width, clip.device)
    began = time.monotonic()
    probe.update(rows, rows)
    fitting = (time.monotonic() - began) * training.steps
    both = 2 if site.name == "mlp_in" else 1
    return [
        f"model    {training.model}, {site.name} of block {training.block}, {training.tokens}"
        " tokens",
        f"images   {len(source):,} of {source.name}, {tokens:,} tokens",
        f"features {training.latents:,} of width {site.width}, {training.k} active a token",
        f"time     about {duration(reading + fitting)}: activations {duration(reading)} and"
        f" decoding, {training.steps:,} steps of {training.batch:,} tokens {duration(fitting)}",
        f"memory   about {size(2 * both * tokens * site.width)} for activations",
    ]
