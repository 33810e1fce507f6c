"""`python -m export info`: what a bundle holds, and the texts of a unit."""

from __future__ import annotations

import argparse

from export.common.errors import UserError, printable
from export.common.flags import natural
from export.common.settings import DEFAULT_MODEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `info`."""
    add = parser.add_argument
    add("bundle", nargs="?", default=DEFAULT_MODEL,
        help="folder, or user/name[@revision] on the Hub (default: %(default)s)")  # fmt: skip
    add("--layer", type=int, help="the layer of --unit (default: the last)")
    add("--unit", type=natural, help="show this unit's texts and norms")


def run(args: argparse.Namespace) -> int:
    """Print a bundle's contents, or one unit's."""
    if args.layer is not None and args.unit is None:
        raise UserError(f"--layer {args.layer} shows one unit of it: add --unit NUMBER")
    from clipneurons.bundle.bundle import load_bundle

    bundle = load_bundle(args.bundle)
    lines = _unit(bundle, args) if args.unit is not None else _whole(bundle)
    print("\n".join(map(printable, lines)))
    return 0


def _whole(bundle) -> list[str]:
    from export.evaluation.fidelity import in_words
    from export.evaluation.self_check import in_words as self_check_in_words

    config = bundle.config
    named = f"{config.model} {config.pretrained or ''}".rstrip()
    model = "in the bundle's folder" if config.carries_model else named
    lines = [
        f"model    {model}, weights {config.weights_sha256[:12]}",
        f"input    {config.image_size[0]} x {config.image_size[1]} pixels, {config.activation}",
        f"check    {self_check_in_words(config.self_check) if config.self_check else 'not tried'}",
        f"images   {config.data.count:,} of {config.data.name}, {config.data.skipped} skipped",
        f"texts    {config.pool.count:,} of {config.pool.name}, {config.components} a unit",
        f"gallery  {len(bundle.examples):,} thumbnails",
    ]
    if note := config.features:
        lines.append(
            f"features {note.latents:,} of {note.source}, {note.site} of block {note.block},"
            f" {note.tokens} tokens: {note.explained_variance:.1%} of the variance explained,"
            f" {note.active:.1f} active a token, {note.dense:,} dense, {note.dead:,} dead"
        )
    for layer, arrays in bundle.layers.items():
        alive = int((arrays.directions.norm(dim=1) > 0).sum())
        median = float(arrays.explained_variance.median())
        lines.append(
            f"layer {layer}  {len(arrays.directions):,} units, {alive:,} alive,"
            f" median explained variance {median:.0%}"
        )
    labels = bundle.labels.values()
    sure = sum(int(mine.reliable.sum()) for mine in labels)
    weak = sum(int((mine.significant & ~mine.reliable).sum()) for mine in labels)
    lines.append(f"labels   {sure:,} reliable, {weak:,} weak" if labels else "labels   not tested")
    try:
        return lines + in_words(bundle.metrics.get("fidelity", {})).splitlines()
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError("metrics.json holds no fidelity figures of this export's form") from None


def _unit(bundle, args) -> list[str]:
    layer = bundle.config.layers[-1] if args.layer is None else args.layer
    if layer not in bundle.layers:
        raise UserError(f"--layer {layer}: the bundle has {list(bundle.layers)}")
    arrays = bundle.layers[layer]
    if args.unit >= len(arrays.directions):
        raise UserError(f"--unit {args.unit}: layer {layer} has {len(arrays.directions)} units")
    images = arrays.top_activating_images[args.unit, :5].tolist()
    return [
        f"explained variance {float(arrays.explained_variance[args.unit]):.1%}",
        f"active from norm {float(arrays.percentile[args.unit]):.4g}",
        "largest in images " + ", ".join(_name(bundle, image) for image in images),
        *_tested(bundle, layer, args.unit),
        *(f"{value:+8.3f}  {text}" for text, value in bundle.phrases(layer, args.unit, 10)),
    ]


def _tested(bundle, layer: int, unit: int) -> list[str]:
    """A unit's label and its scores."""
    label = bundle.label(layer, unit)
    if label is None:
        return ["label not tested"]
    pairs = zip(label.texts, label.weights, strict=True)
    return [
        f"label {label.level}: {', '.join(f'{text} {weight:+.2f}' for text, weight in pairs)}",
        f"simulation score {label.simulation_score:.3f} ({label.low:.3f} to {label.high:.3f}),"
        f" other units' labels up to {label.shuffled_line:.3f}, specificity"
        f" {label.specificity:.0%}, the decomposition {label.decomposition_score:.3f}",
    ]


def _name(bundle, image: int) -> str:
    caption = bundle.examples.caption(image) if image in bundle.examples else ""
    return f"{image} ({caption})" if caption else str(image)
