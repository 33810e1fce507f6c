"""Cost of streaming statistics of all neuron-head pairs, against the bare forward pass.

    python -m benchmarks.resnet

Random weights. A data set is passed twice: the first pass costs the lens and the running mean,
the second the lens and the top effects of every pair. The second has seen `--warm` images before
it is timed, as the selection costs most at the start. Rounds alternate, so that a machine that
slows down slows all alike.
"""

import argparse
from dataclasses import replace

import torch

from benchmarks.timing import measure, peak_memory
from clipneurons.analysis.effect_statistics import EffectStatistics
from clipneurons.analysis.streaming.running_mean import RunningMean
from clipneurons.lens.neuron_head import LAYER, NeuronHeadLens
from clipneurons.models.clip import load_clip
from clipneurons.models.hooks import record_activations


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="RN50", help="open_clip ResNet")
    parser.add_argument("--batch", type=int, default=16, help="images at once")
    parser.add_argument("--images", type=int, default=5000, help="size of the data set")
    parser.add_argument("--warm", type=int, default=320, help="images seen before timing")
    parser.add_argument("--top-k", type=int, default=100, help="effects kept of each pair")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    clip = load_clip(args.model, "random")
    lens = NeuronHeadLens(clip)
    batch = torch.randn(args.batch, 3, *clip.image_size)
    with record_activations(clip.visual, lens.recorded) as tensors:
        representation = clip.encode_image(batch)
    contributions = lens.read(tensors, representation)[LAYER]
    running = RunningMean()
    running.update(contributions)
    statistics = EffectStatistics(running.mean(), lens.directions[LAYER], args.images, args.top_k)

    def update(contributions):
        ids = torch.arange(statistics.count, statistics.count + args.batch)
        statistics.update(contributions, ids)

    # Noise is made outside the clock.
    def noisy():
        scores = contributions.scores
        return replace(contributions, scores=scores * (1 + 0.2 * torch.randn_like(scores)))

    for _ in range(args.warm // args.batch):
        update(noisy())
    pool = [noisy() for _ in range(args.rounds + 1)]
    # A selection happens once in several batches: time as many as it takes.
    lot = max(1, -(-args.top_k // (2 * args.batch)))
    times = measure(
        {
            "forward": lambda: clip.encode_image(batch),
            "forward + lens": lambda: lens(batch),
            "first pass": lambda: running.update(lens(batch)[1][LAYER]),
            f"{lot} updates": lambda: [update(pool[-1 - i % 2]) for i in range(lot)],
        },
        args.rounds,
    )
    for seconds in (times.wall, times.cpu):
        updates = seconds.pop(f"{lot} updates")
        seconds["second pass"] = [
            whole + part / lot
            for whole, part in zip(seconds["forward + lens"], updates, strict=True)
        ]
    units = lens.directions[LAYER].units
    print(f"{args.model}: {units} pairs, {args.batch} images a batch, {args.threads} threads")
    for name in times.wall:
        print(f"{name:15} an image: {times.row(name, 'forward', args.batch)}")
    print(f"peak memory {peak_memory():.2f} GB")


if __name__ == "__main__":
    main()
