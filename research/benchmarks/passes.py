"""Price of the statistics over a data set: `python -m research benchmark passes`.

Alternates, in one process, the bare `encode_image` with the first pass over a data set (the lens
and the mean effects) and the second (the lens and the statistics of effects around the mean), of a
ViT's neurons or a ResNet's neuron-head pairs, with random weights. Every round has images of its
own. The second pass has seen some images before it is timed: at the start every effect is among
a unit's largest, after n images top-k in n are. Unless told otherwise it has seen so many that this
is as frequent as it is on average over the data set.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from math import log

import torch

from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from clipneurons.statistics.effect_statistics import EffectStatistics
from clipneurons.statistics.streaming.running_mean import RunningMean
from research.benchmarks.timing import measure, peak_memory


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark passes",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="ViT-B-32", help="open_clip name")
    parser.add_argument("--layers", type=int, nargs="+", help="of a ViT; without it, all")
    parser.add_argument("--batch", type=int, default=32, help="images a batch")
    parser.add_argument("--images", type=int, default=5000, help="size of the data set")
    parser.add_argument("--warm", type=int, help="images seen before; without it, see above")
    parser.add_argument("--top-k", type=int, default=100, help="effects kept of each unit")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    args = parser.parse_args(arguments)
    warm = args.warm or round(args.images / (1 + log(max(1.0, args.images / args.top_k))))

    torch.set_num_threads(args.threads)
    clip = load_clip(args.model, "random", device="cpu")
    every = clip.anatomy.readable_blocks if clip.kind == "vit" else ()
    lens = Lens(clip, args.layers or every)
    images = torch.empty(args.batch, 3, *clip.image_size)
    fresh = partial(images.normal_, generator=torch.Generator().manual_seed(0))
    first, second = passes(lens, images, args.images, args.top_k)
    for _ in range(warm // args.batch):
        fresh()
        second()
    tasks = {
        "encode_image": lambda: clip.encode_image(images),
        "first pass": first,
        "second pass": second,
    }
    times = measure(tasks, args.rounds, fresh)
    print(
        f"{args.model}, layers {list(lens.layers)}, {args.threads} threads, {args.rounds} rounds "
        f"of {args.batch} images, {warm} seen before"
    )
    for name in times.wall:
        print(f"{name:12} an image: {times.row(name, 'encode_image', args.batch)}")
    print(f"peak memory {peak_memory():.2f} GB")


def passes(
    lens: Lens, images: torch.Tensor, total: int, top_k: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Each pass over a data set, as a task of one batch: what ``images`` hold when called."""
    means = {layer: RunningMean() for layer in lens.layers}

    def first() -> None:
        for layer, mine in lens(images)[1].items():
            means[layer].update(mine)

    images.normal_()
    first()
    states = {
        layer: EffectStatistics(mean.mean(), lens.directions[layer], total, top_k)
        for layer, mean in means.items()
    }

    def second() -> None:
        for layer, mine in lens(images)[1].items():
            seen = states[layer].count
            states[layer].update(mine, torch.arange(seen, seen + len(images)))

    return first, second
