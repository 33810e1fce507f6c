"""`python -m research benchmark presence`: how often "Is it in the picture?" is right.

Every name that is in a scene is asked for together with the name nearest to it by text that is
not. The line is chosen on scenes of the validation style; beside it stands the whole image alone,
at the line that is best for it on the same scenes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from clipneurons.bundle.bundle import load_bundle
from clipneurons.models.clip import ClipModel, load_clip
from clipneurons.segmentation.presence import PRESENT, presences
from research.segmentation.mask_datasets import open_mask_set

LINES = torch.tensor([0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995])


def ask(
    clip: ClipModel, classes: list[str], texts: Tensor, styles: str, count: int, seed: int
) -> Iterator[tuple[bool, float, float]]:
    """Of every name whether it is there, the share it beats in the whole image, and `presences`'.

    The last is 0 where another name fits better.
    """
    embedded = clip.encode_text(classes).cpu()
    likeness = (embedded @ embedded.T).fill_diagonal_(-1)
    for sample in open_mask_set("scenes", count=count, styles=styles, seed=seed):
        there = [name for name in sample.masks if name in classes]
        gone: list[str] = []
        for name in there:
            order = likeness[classes.index(name)].argsort(descending=True).tolist()
            gone.append(next(classes[i] for i in order if classes[i] not in (*there, *gone)))
        if not there:
            continue
        for name, one in zip(
            (*there, *gone), presences(clip, sample.image, [*there, *gone], texts), strict=True
        ):
            yield name in there, 1 - one.above, 0.0 if one.rival else one.fit


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research benchmark presence", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--bundle", default="artifacts/mini-vit")
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args(arguments)
    bundle, clip = load_bundle(args.bundle), load_clip(args.bundle)
    classes = list(bundle.config.data.class_names)
    chosen: dict[str, float] = {}
    for styles, seed in (("validation", 1), ("heldout", 0)):
        rows = ask(clip, classes, bundle.text_embeddings, styles, args.count, seed)
        there, *values = (torch.tensor(column) for column in zip(*rows, strict=True))
        for name, value in zip(("whole image", "windows, rivals"), values, strict=True):
            hits = (value[there, None] >= LINES).float().mean(0)
            false = (value[~there, None] >= LINES).float().mean(0)
            best = LINES[(hits - false).argmax()].item()
            line = chosen.setdefault(name, best)
            at = int((LINES - line).abs().argmin())
            print(
                f"{styles:10} {name:16} line {line:.3f}: found {hits[at]:.1%} of "
                f"{int(there.sum())} names that are there, {false[at]:.1%} of as many that are not"
            )
    print(f"the page's line: {PRESENT}")
