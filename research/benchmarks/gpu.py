"""`python -m research benchmark gpu`: whether CUDA gives what the CPU gives, and how fast it is.

Every lens, statistic, pursuit and map of models with random weights is computed on both, in
float32 and in bfloat16; what each differs by, relative to its size, is held to a limit. Then
images a second of the forward pass, the lens and the export, and pursued directions a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clipneurons.lens.first_order import FirstOrderLens
from clipneurons.lens.indirect import indirect_effects, mean_activations
from clipneurons.lens.lens import Lens
from clipneurons.lens.token_contributions import PatchAttribution
from clipneurons.models.clip import ClipModel, load_clip
from clipneurons.statistics.effect_statistics import EffectStatistics, collect_statistics
from clipneurons.statistics.omp import omp, reconstruct
from clipneurons.statistics.streaming.running_mean import RunningMean
from research.benchmarks.timing import measure
from research.segmentation.methods import methods

MODELS = ("ViT-B-32", "ViT-L-14", "RN50x16", "ViT-B-16-SigLIP")
LIMITS = {"fp32": 1e-4, "bf16": 1e-2}
TEXTS, COMPONENTS, TARGETS = 30_000, 32, 256


def seeded(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same on every machine."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def last_layers(clip: ClipModel) -> list[int]:
    """The last three blocks that something reads; a ResNet's last stage."""
    return [4] if clip.kind == "resnet" else clip.anatomy.readable_blocks[-3:]


def readings(
    clip: ClipModel, images: Float[Tensor, "image 3 height width"]
) -> Iterator[tuple[str, Tensor]]:
    """Everything that is read off the images, by name."""
    lens = Lens(clip, last_layers(clip))
    embeddings, contributions = lens(images)
    yield "embeddings", embeddings
    for layer, mine in contributions.items():
        few = torch.arange(0, mine.directions.units, 97, device=clip.device)
        yield f"effects of layer {layer}", mine.dense(few)
    found = collect_statistics(
        lens, lambda: [(torch.arange(len(images)), images)], len(images), top_k=len(images) // 2
    )
    for layer, mine in found.items():
        for name in ("means", "top_norms", "percentile", "explained_variance"):
            yield f"{name} of layer {layer}", getattr(mine, name)
    texts = normalize(seeded(2000, clip.embed_dim), dim=1).to(clip.device)
    targets = seeded(64, clip.embed_dim, seed=1).to(clip.device)
    yield "pursuit", reconstruct(*omp(targets, texts, COMPONENTS), texts)
    if clip.kind == "vit":
        yield from _of_a_vit(clip, images)
    directions = {
        layer: normalize(seeded(*mine.directions.shape, seed=2), dim=1)
        for layer, mine in found.items()
    }
    for name, method in methods(clip, directions).items():
        yield f"map of {name}", method.maps(images, texts[:2])


def _of_a_vit(clip: ClipModel, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    first = FirstOrderLens(clip)(images)[1]
    yield "first-order effects of heads", first.heads
    yield "first-order effects of MLPs", first.mlps
    yield "patch attribution", PatchAttribution(clip)(images)
    layer = last_layers(clip)[0]
    if layer < clip.layers - 1:
        means = mean_activations(clip, [images], layer)
        neurons = torch.arange(4, device=clip.device)
        yield "indirect effects", indirect_effects(clip, images[:2], layer, neurons, means)


def differences(clip: ClipModel, other: ClipModel, images: Tensor) -> dict[str, float]:
    """By reading, ‖one − other‖ / ‖other‖."""
    found = {}
    pairs = zip(readings(clip, images), readings(other, images), strict=True)
    for (name, one), (_, reference) in pairs:
        one, reference = one.double().cpu(), reference.double().cpu()
        size = reference.norm().clamp_min(torch.finfo(torch.float64).tiny)
        found[name] = float((one - reference).norm() / size)
    return found


def check(name: str, precision: str, images: int, device: str) -> list[str]:
    """The readings of a model that differ by more than the limit; prints the largest."""
    clips = [
        load_clip(name, "random", device=where, precision=precision) for where in (device, "cpu")
    ]
    found = differences(*clips, seeded(images, 3, *clips[0].image_size))
    worst = max(found, key=found.get)
    print(f"{name} {precision}: {len(found)} readings, at most {found[worst]:.1e} ({worst})")
    limit = LIMITS[precision]
    return [f"{name} {precision} {k}: {v:.1e}" for k, v in found.items() if not v <= limit]


def rates(name: str, precision: str, batch: int, rounds: int, device: str) -> str:
    """Images and directions a second on one device, medians of the rounds."""
    clip = load_clip(name, "random", device=device, precision=precision)
    lens = Lens(clip, last_layers(clip))
    images = seeded(batch, 3, *clip.image_size).to(device)
    texts = normalize(seeded(TEXTS, clip.embed_dim), dim=1).to(device)
    targets = seeded(TARGETS, clip.embed_dim, seed=1).to(device)
    tasks = {
        "forward": lambda: clip.encode_image(images),
        "lens": lambda: [mine.scores for mine in lens(images)[1].values()],
        "export": exporting(lens, images),
        "pursuit": lambda: omp(targets, texts, COMPONENTS),
    }
    waiting = {task: _finished(run, device) for task, run in tasks.items()}
    seconds = {task: sorted(s)[rounds // 2] for task, s in measure(waiting, rounds).wall.items()}
    each = ", ".join(
        f"{task} {batch / seconds[task]:,.3g}" for task in ("forward", "lens", "export")
    )
    return (
        f"{name} {precision}, images/s of batches of {batch}: {each}; pursuit of {COMPONENTS} in"
        f" {TEXTS:,} texts: {TARGETS / seconds['pursuit']:,.0f} directions/s"
    )


def exporting(lens: Lens, images: Tensor):
    """The second pass: the lens, and the statistics of all its layers."""
    states, count = {}, 10**6
    for layer, mine in lens(images)[1].items():
        mean = RunningMean()
        mean.update(mine)
        states[layer] = EffectStatistics(mean.mean(), mine.directions, count)

    def run() -> None:
        contributions = lens(images)[1]
        for layer, state in states.items():
            state.update(contributions[layer], torch.arange(state.count, state.count + len(images)))

    return run


def _finished(run, device: str):
    def whole() -> None:
        run()
        if device != "cpu":
            torch.cuda.synchronize()

    return whole


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark gpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--models", nargs="+", default=MODELS, help="open_clip names (%(default)s)")
    parser.add_argument("--images", type=int, default=4, help="compared (%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="timed (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was checked, nothing was timed")
        return
    # Both reduce float32 to 10 bits where they are on.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    wrong = []
    for name in args.models:
        for precision in LIMITS:
            wrong += check(name, precision, args.images, "cuda")
            torch.cuda.reset_peak_memory_stats()
            print(rates(name, precision, args.batch, args.rounds, "cuda"))
            print(f"peak memory on the device {torch.cuda.max_memory_allocated() / 2**30:.2f} GB")
    if wrong:
        raise SystemExit("\n".join(["beyond the limit:", *wrong]))
