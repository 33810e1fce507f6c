"""Price of reading features: `python -m research benchmark features`.

Alternates, in one process, the bare `encode_image`, the arithmetic of the dictionaries' encoders
alone, and the lens with one TopK dictionary a layer. Model and dictionaries have random weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from clipneurons.bundle.sparse_features import SparseFeatures
from clipneurons.lens.lens import Lens
from clipneurons.models.clip import load_clip
from clipneurons.models.hooks import record_activations
from research.benchmarks.timing import measure, peak_memory


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark features",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", default="ViT-B-32", help="open_clip name of a ViT")
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 9, 10], help="blocks")
    parser.add_argument("--expansion", type=int, default=8, help="latents a number of a token")
    parser.add_argument("--k", type=int, default=32, help="latents a token")
    parser.add_argument("--batch", type=int, default=16, help="images a batch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    args = parser.parse_args(arguments)

    torch.set_num_threads(args.threads)
    clip = load_clip(args.model, "random", device="cpu")
    width = clip.anatomy.blocks[0].mlp.output.weight.shape[0]
    several = tuple(dictionary(width, block, args.expansion, args.k) for block in args.layers)
    images = torch.randn(args.batch, 3, *clip.image_size)
    before, neurons = peak_memory(), Lens(clip, args.layers)
    lens = Lens(clip, features=several)
    with record_activations(clip.visual, lens.method.recorded) as tensors:
        clip.encode_image(images)
    inputs = {layer: lens.method.site(layer).inputs(tensors) for layer in lens.layers}
    features = dict(zip(lens.layers, lens.method.features, strict=True))

    def encoders() -> None:
        for layer, tokens in inputs.items():
            features[layer].encode(tokens)

    tasks = {
        "encode_image": lambda: clip.encode_image(images),
        "encoders": encoders,
        "neurons": lambda: [effects.scores for effects in neurons(images).effects.values()],
        "features": lambda: [effects.scores for effects in lens(images).effects.values()],
    }
    with torch.no_grad():
        times = measure(tasks, args.rounds)
    print(
        f"{args.model}, layers {list(lens.layers)}, {args.expansion}x features, {args.threads}"
        f" threads, {args.rounds} rounds of {args.batch} images"
    )
    for name in tasks:
        print(f"{name:12} an image: {times.row(name, 'encode_image', args.batch)}")
    print(f"peak memory {peak_memory():.2f} GB, of it model and dictionaries {before:.2f} GB")


def dictionary(width: int, block: int, expansion: int, k: int) -> SparseFeatures:
    """Random unit rows; the encoder reads what the decoder writes."""
    rows = torch.randn(expansion * width, width, generator=torch.Generator().manual_seed(block))
    rows = rows / rows.norm(dim=1, keepdim=True)
    return SparseFeatures(
        rows.T.contiguous(), torch.zeros(len(rows)), rows, torch.zeros(width), block=block,
        site="resid_post", activation="topk", k=k,
    )  # fmt: skip
