"""What a visitor waits for: `python -m benchmarks.app concepts|search|start`.

concepts  concept discovery against one `encode_image`, ViT-B/32 with random weights
search    a search over 9,216 neurons described with 30,000 texts
start     phases of `python app.py` until the page answers
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import normalize

from benchmarks.timing import alternate, ratio
from clipneurons.bundle.bundle import Bundle, LayerArrays
from clipneurons.bundle.config import BundleConfig, DataSet, Pool
from clipneurons.bundle.thumbnails import Examples

ROOT = Path(__file__).parent.parent
TEXTS, COMPONENTS = 30_000, 64


def random_bundle(
    layers: tuple[int, ...], units: int, embed: int, percentile: dict[int, torch.Tensor]
) -> Bundle:
    """A bundle of random numbers of the sizes that CLIP ViT-B has."""
    generator = torch.Generator().manual_seed(0)

    def layer(index: int) -> LayerArrays:
        return LayerArrays(
            directions=normalize(torch.randn(units, embed, generator=generator), dim=1),
            means=torch.zeros(units, embed),
            percentile=percentile.get(index, torch.ones(units)),
            threshold=torch.ones(units),
            explained_variance=torch.rand(units, generator=generator),
            top_norms=torch.ones(units, 1),
            top_activating_images=torch.zeros(units, 1, dtype=torch.int32),
            norm_histogram=torch.zeros(units, 1, dtype=torch.int32),
            participation_ratio=torch.rand(units, generator=generator),
            indices=torch.randint(TEXTS, (units, COMPONENTS), generator=generator).int(),
            coefficients=torch.randn(units, COMPONENTS, generator=generator),
        )

    config = BundleConfig(
        kind="vit", model="ViT-B-32", pretrained="random", weights_sha256="0" * 64,
        activation="gelu", image_size=(224, 224), image_mean=(0.5,) * 3, image_std=(0.5,) * 3,
        embed_dim=embed, heads=12, layers=layers, units_per_neuron=1, top_k=1, percentile=98.0,
        shared_bias=False, components=COMPONENTS, centred_pool=False, norm_edges=(0.0, 1.0),
        pool=Pool("random", "", "", TEXTS, ""), data=DataSet("random", 1, 0, ""),
    )  # fmt: skip
    texts = [f"text {i}" for i in range(TEXTS)]
    vectors = normalize(torch.randn(TEXTS, embed, generator=generator), dim=1)
    examples = Examples.build({}, {})
    return Bundle(config, {i: layer(i) for i in layers}, texts, vectors, examples, {})


def concepts(args: argparse.Namespace) -> None:
    """Time discovery (effects, concepts, activated neurons) against the forward pass alone."""
    from clipneurons.explore.concepts import ConceptReader, top_concepts
    from clipneurons.lens.make import make_lens
    from clipneurons.models.clip import load_clip

    clip = load_clip("ViT-B-32", "random", device="cpu")
    layers = tuple(args.layers)
    lens = make_lens(clip, layers)
    generator = torch.Generator().manual_seed(1)
    calibration = torch.randn(16, 3, 224, 224, generator=generator)
    _, effects = lens(calibration)
    high = {la: mine.norms().quantile(0.98, dim=0) for la, mine in effects.items()}
    bundle = random_bundle(layers, clip.neurons, clip.embed_dim, high)
    reader = ConceptReader(lens, bundle)
    image = torch.randn(1, 3, 224, 224, generator=generator)

    def discover() -> None:
        _, effects = reader(image)
        top_concepts(reader.weights(effects, "dense")[0], bundle.texts)
        reader.activated(effects)

    seconds = alternate(
        {"encode_image": lambda: clip.encode_image(image), "discovery": discover}, args.rounds
    )
    times, least, most = ratio(seconds, "discovery", "encode_image")
    count = int(sum(mine.activated.sum() for mine in reader(image)[1].values()))
    print(
        f"layers {layers}: encode_image {1e3 * median(seconds['encode_image']):.1f} ms, discovery "
        f"{1e3 * median(seconds['discovery']):.1f} ms: {times:.3f} x (median of {args.rounds} "
        f"rounds, {least:.3f} to {most:.3f}); {count} activated neurons, {TEXTS} texts"
    )


def search(args: argparse.Namespace) -> None:
    """Time the three kinds of look-up."""
    from clipneurons.explore.dictionary import Dictionary, parse_query

    dictionary = Dictionary(random_bundle((8, 9, 10), 3072, 512, {}))
    phrases = parse_query("text 17, -text 12345")
    jobs = {
        "by direction": lambda: dictionary.strongest(dictionary.cosines(dictionary.embed(phrases))),
        "by phrases": lambda: dictionary.strongest(dictionary.coefficient_scores(phrases)),
        "neighbours": lambda: dictionary.neighbours(9, 100),
    }
    for name, seconds in alternate(jobs, args.rounds).items():
        worst = sorted(seconds)[int(0.95 * len(seconds))]
        print(
            f"{name}: {1e3 * median(seconds):.1f} ms median, {1e3 * worst:.1f} ms 95th percentile"
        )


def start(args: argparse.Namespace) -> None:
    """Start the app as a visitor would, until the page answers."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(args.port)]
    for folder in args.bundle:
        command += ["--bundle", folder]
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        for line in process.stdout:
            print(line, end="")
            if line.rstrip().endswith("  page"):
                with urllib.request.urlopen(f"http://127.0.0.1:{args.port}/") as answer:
                    answer.read()
                print(f"{time.perf_counter() - begun:6.2f} s  first page answered")
            if line.rstrip().endswith("  model"):
                break
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for function in (concepts, search, start):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(run=function)
        command.add_argument("--rounds", type=int, default=15)
        if function is concepts:
            command.add_argument("--layers", type=int, nargs="+", default=[9])
        if function is start:
            command.add_argument("--port", type=int, default=7871)
            command.add_argument("--bundle", action="append", default=[])
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
