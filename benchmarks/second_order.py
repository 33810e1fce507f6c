"""Price of the second-order lens: `python -m benchmarks.second_order --random-weights`.

Alternates, in one process, the bare `encode_image` with `encode_image` + statistics (the pass
over centred effects, which is the dearer of the two) for the last three layers that have
second-order effects but one, and for all of them.
"""

import argparse
import statistics

import torch

from benchmarks.timing import alternate, peak_memory, ratio
from clipneurons.analysis.effect_statistics import EffectStatistics
from clipneurons.analysis.streaming.running_mean import RunningMean
from clipneurons.lens.second_order import SecondOrderLens
from clipneurons.models.clip import load_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", help="open_clip tag; or give --random-weights")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--batch", type=int, default=32, help="images a batch (%(default)s)")
    parser.add_argument("--batches", type=int, default=2, help="batches a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (%(default)s)")
    parser.add_argument("--threads", type=int, help="threads (PyTorch's default)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    clip = load_clip(args.model, "random" if args.random_weights else args.pretrained)
    every = tuple(clip.anatomy.readable_blocks)
    chosen = tuple(layer for layer in (8, 9, 10) if layer in every) or every[-3:]
    count = args.batch * args.batches
    images = torch.randn(count, 3, *clip.image_size, device=clip.device)

    def bare():
        for part in images.split(args.batch):
            clip.encode_image(part)

    def with_statistics(layers):
        lens = SecondOrderLens(clip, layers)
        running = {layer: RunningMean() for layer in layers}
        for layer, mine in lens(images[: args.batch])[1].items():
            running[layer].update(mine)
        states = {
            layer: EffectStatistics(mean.mean(), lens.directions[layer], images=5000)
            for layer, mean in running.items()
        }
        offset = 0

        def run():
            nonlocal offset
            for part in images.split(args.batch):
                _, contributions = lens(part)
                ids = torch.arange(offset, offset + len(part))
                offset += len(part)
                for layer, mine in contributions.items():
                    states[layer].update(mine, ids)

        return run

    seconds = alternate(
        {
            "encode_image": bare,
            f"+ statistics, layers {', '.join(map(str, chosen))}": with_statistics(chosen),
            f"+ statistics, all {len(every)} layers": with_statistics(every),
        },
        args.rounds,
    )
    print(
        f"{args.model}, {clip.device}, {torch.get_num_threads()} threads, batch {args.batch}, "
        f"{args.rounds} rounds of {count} images"
    )
    for name, values in seconds.items():
        middle, low, high = ratio(seconds, name, "encode_image")
        print(
            f"{name:36} {statistics.median(values) / count:8.4f} s/image   "
            f"ratio {middle:.3f} ({low:.3f} to {high:.3f})"
        )
    print(f"peak memory {peak_memory():.2f} GB")


if __name__ == "__main__":
    main()
