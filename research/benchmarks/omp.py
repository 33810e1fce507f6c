"""Seconds per neuron of batched matching pursuit, against scikit-learn and the arithmetic.

    python -m research benchmark omp

Every round times all of them in turn on the same data, so that a machine that slows down slows
all; the figures are medians over rounds. scikit-learn is timed in float32, the data's precision,
where it may stop early or choose other texts, and in float64, which is what ours is held to.
The limit is what the selection alone costs: one multiply-add per text, dimension and component
at the best measured float32 matrix-product rate.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import orthogonal_mp
from threadpoolctl import threadpool_info, threadpool_limits
from torch.nn.functional import normalize

from clipneurons.statistics.omp import omp


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark omp",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--texts", type=int, default=30_000, help="texts in the pool")
    parser.add_argument("--embed", type=int, default=512, help="dimensions of the joint space")
    parser.add_argument("--components", type=int, default=128, help="texts chosen per neuron")
    parser.add_argument("--neurons", type=int, default=256, help="neurons a round of ours")
    parser.add_argument("--batch", type=int, default=256, help="neurons pursued together")
    parser.add_argument("--sklearn-neurons", type=int, default=2, help="neurons a round of theirs")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    args = parser.parse_args(arguments)

    torch.set_num_threads(args.threads)
    texts, targets = make_data(args.texts, args.embed, args.neurons)
    texts_double = texts.double()
    theirs_on = targets[: args.sklearn_neurons]
    print(
        f"{args.texts} texts x {args.embed} dimensions x {args.components} components, float32, "
        f"{args.threads} threads; {args.neurons} neurons of ours in batches of {args.batch}, "
        f"the first {len(theirs_on)} of them with scikit-learn, {args.rounds} rounds"
    )

    rates: dict[str, list[float]] = {"4096 cubed": [], "pool x batch": []}
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"float32": [], "float64": []}
    with threadpool_limits(args.threads):
        libraries = {f"{p['internal_api']} {p['num_threads']}" for p in threadpool_info()}
        print("thread pools:", ", ".join(sorted(libraries)))
        for timed in range(args.rounds + 1):
            square = torch.randn(4096, 4096)
            cubed = rate(square, square)
            shaped = rate(texts, targets[: args.batch].T)
            seconds, found = clock(lambda: omp(targets, texts, args.components, batch=args.batch))
            single, _ = clock(lambda: sklearn_omp(theirs_on, texts, args.components))
            double, expected = clock(
                lambda: sklearn_omp(theirs_on.double(), texts_double, args.components)
            )
            if timed:  # the first round warms up
                rates["4096 cubed"].append(cubed)
                rates["pool x batch"].append(shaped)
                ours.append(seconds / args.neurons)
                theirs["float32"].append(single / len(theirs_on))
                theirs["float64"].append(double / len(theirs_on))

    per_second = {name: statistics.median(values) for name, values in rates.items()}
    operations = 2 * args.components * args.texts * args.embed
    limit = operations / max(per_second.values())
    mine = statistics.median(ours)
    for name, value in per_second.items():
        print(f"matrix product {name:13} {value / 1e9:8.1f} Gflop/s")
    print(f"arithmetic limit             {limit * 1e3:8.2f} ms a neuron (the faster product)")
    print(f"clipneurons.omp              {mine * 1e3:8.2f} ms a neuron {spread(ours)}")
    for precision, seconds in theirs.items():
        median = statistics.median(seconds)
        print(f"scikit-learn in {precision}      {median * 1e3:8.2f} ms a neuron {spread(seconds)}")
    print(f"times the limit              {mine / limit:8.2f} (goal: at most 2)")
    for precision, seconds in theirs.items():
        faster = statistics.median(seconds) / mine
        print(f"times faster than {precision}    {faster:8.1f} (goal: at least 10)")
    same, difference = compare(found, expected)
    print(f"same texts as in float64     {same}, coefficients differ by at most {difference:.1e}")


def make_data(texts: int, embed: int, neurons: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows; the texts share a mean and clusters as CLIP's do, so that choosing is not easy."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(500, embed, generator=generator)
    pool = torch.randn(texts, embed, generator=generator)
    pool += centres[torch.arange(texts) % len(centres)] + 2 * centres[0]
    targets = torch.randn(neurons, embed, generator=generator)
    return normalize(pool, dim=1), normalize(targets, dim=1)


def clock(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def rate(left: torch.Tensor, right: torch.Tensor) -> float:
    """Operations per second of a matrix product, the best of five."""
    out = left.new_empty(left.shape[0], right.shape[1])
    seconds = min(clock(lambda: torch.mm(left, right, out=out))[0] for _ in range(5))
    return 2 * left.shape[0] * left.shape[1] * right.shape[1] / seconds


def sklearn_omp(targets: torch.Tensor, texts: torch.Tensor, components: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        solved = orthogonal_mp(texts.numpy().T, targets.numpy().T, n_nonzero_coefs=components)
    return solved.reshape(len(texts), len(targets))


def compare(found, expected: np.ndarray) -> tuple[str, float]:
    """How many neurons got the same texts, and the largest difference among those."""
    same, largest = 0, 0.0
    for indices, coefficients, theirs in zip(*found, expected.T, strict=False):
        ours = np.zeros_like(theirs)
        ours[indices.numpy()] = coefficients.numpy()
        if np.array_equal(ours != 0, theirs != 0):
            same += 1
            largest = max(largest, float(np.abs(ours - theirs).max()))
    return f"{same} of {expected.shape[1]} neurons", largest


def spread(seconds: list[float]) -> str:
    return f"({min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f})"
