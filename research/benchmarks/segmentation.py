"""`python -m research benchmark segmentation`: each way to segment against `encode_image`.

Medians of the ratio, round by round, of one class in one batch; the text is embedded before.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch

from clipneurons.models.clip import load_clip
from clipneurons.segmentation.patch_attribution import patch_attribution
from research.benchmarks.timing import alternate, ratio
from research.segmentation.methods import methods, pick

_LIMIT = 1.2
# What `segment` does: our maps along the edges.
_PRODUCT = "segment"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of ratios; fail when the library's method costs more than 1.2 passes."""
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark segmentation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", default="ViT-B-32", help="named models get random weights")
    parser.add_argument("--layers", type=int, nargs="+", default=[9])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--methods", help="names, separated by commas (default: all)")
    args = parser.parse_args(arguments)
    named = "/" not in args.model
    clip = load_clip(args.model, "random" if named else None)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(args.batch, 3, *clip.image_size, generator=generator)
    text = torch.nn.functional.normalize(torch.randn(1, clip.embed_dim), dim=-1)
    units = clip.neurons * (clip.heads if clip.kind == "resnet" else 1)
    directions = {layer: torch.randn(units, clip.embed_dim) for layer in args.layers}
    tasks = {
        "encode_image": lambda: clip.encode_image(images),
        _PRODUCT: partial(patch_attribution(clip), images, text),
    }
    for method in pick(clip, methods(clip, directions), args.methods):
        # A copy each time: methods remember what they made of the last images.
        tasks[method.name] = lambda maps=method.maps: maps(images.clone(), text)
    seconds = alternate(tasks, args.rounds)
    print(f"{clip.name}, batch of {args.batch}, {torch.get_num_threads()} threads")
    print("| method | passes of encode_image | smallest | largest |\n| --- | --- | --- | --- |")
    for name in list(tasks)[1:]:
        middle, low, high = ratio(seconds, name, "encode_image")
        print(f"| {name} | {middle:.2f} | {low:.2f} | {high:.2f} |")
    cost = ratio(seconds, _PRODUCT, "encode_image")[0]
    if cost > _LIMIT:
        raise SystemExit(f"{_PRODUCT} costs {cost:.2f} passes, more than {_LIMIT}")
