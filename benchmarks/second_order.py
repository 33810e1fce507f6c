"""Price of the second-order lens: `python -m benchmarks.second_order --random-weights`.

Alternates, in one process, the bare `encode_image` with the lens and with the statistics of the
pass over centred effects (the dearer of the two), for three layers and for all that have
second-order effects.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.timing import measure, peak_memory
from clipneurons.analysis.effect_statistics import EffectStatistics
from clipneurons.analysis.streaming.running_mean import RunningMean
from clipneurons.lens.contributions import Contributions
from clipneurons.lens.second_order import SecondOrderLens
from clipneurons.models.clip import load_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", help="open_clip tag; or give --random-weights")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--batch", type=int, default=32, help="images a batch (%(default)s)")
    parser.add_argument("--warm", type=int, default=640, help="images seen before (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (%(default)s)")
    parser.add_argument("--threads", type=int, help="threads (PyTorch's default)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    clip = load_clip(args.model, "random" if args.random_weights else args.pretrained)
    images = torch.randn(args.batch, 3, *clip.image_size, device=clip.device)
    every = tuple(clip.anatomy.readable_blocks)
    chosen = tuple(layer for layer in (8, 9, 10) if layer in every) or every[-3:]
    tasks, sums = {"encode_image": lambda: clip.encode_image(images)}, {}
    for name, layers in (("layers " + ", ".join(map(str, chosen)), chosen), ("all layers", every)):
        lens = SecondOrderLens(clip, layers)
        sums[f"with statistics, {name}"] = (f"with the lens, {name}", f"statistics, {name}")
        tasks[f"with the lens, {name}"] = partial(lens, images)
        tasks[f"statistics, {name}"] = statistics_of(lens, images, args.warm)
    times = measure(tasks, args.rounds)
    for seconds in (times.wall, times.cpu):
        for name, (first, second) in sums.items():
            pairs = zip(seconds[first], seconds.pop(second), strict=True)
            seconds[name] = [one + other for one, other in pairs]
    print(
        f"{args.model}, {clip.device}, {torch.get_num_threads()} threads, {args.rounds} rounds of "
        f"{args.batch} images, {args.warm} seen before"
    )
    for name in times.wall:
        print(f"{name:34} an image: {times.row(name, 'encode_image', args.batch)}")
    print(f"peak memory {peak_memory():.2f} GB")


def statistics_of(lens: SecondOrderLens, images: torch.Tensor, warm: int) -> Callable[[], None]:
    """A pass over centred effects, as a task of one batch: those of the images, varied."""
    _, contributions = lens(images)
    means = {layer: RunningMean() for layer in lens.layers}
    for layer, mine in contributions.items():
        means[layer].update(mine)
    states = {
        layer: EffectStatistics(mean.mean(), lens.directions[layer], images=5000)
        for layer, mean in means.items()
    }

    def varied(mine: Contributions) -> Contributions:
        return Contributions(
            mine.scores * (1 + 0.2 * torch.randn_like(mine.scores)), mine.directions
        )

    def update(layer: int, mine: Contributions) -> None:
        first = states[layer].count
        states[layer].update(mine, torch.arange(first, first + len(images)))

    # A selection costs most at the start, which is no measure of a whole data set.
    for _ in range(warm // len(images)):
        for layer, mine in contributions.items():
            update(layer, varied(mine))
    last = {layer: varied(mine) for layer, mine in contributions.items()}

    def run() -> None:
        for layer, mine in last.items():
            update(layer, mine)

    return run


if __name__ == "__main__":
    main()
