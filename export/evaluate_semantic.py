"""Semantic segmentation with a CLIP-ResNet: mean IoU over classes, ours against the baselines.

    python -m export.evaluate_semantic --bundle artifacts/mini-rn

Every method gives each position the class with the highest score, or the background where all
scores stay below a bound. The bound, the number of pairs, and whether texts are held against the
mean of all class texts are chosen on scenes of the validation style, for every method alike.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clipneurons.masks import upsample
from clipneurons.segmentation_names import PAIRS
from clipneurons.segmentation_resnet import resnet_segmenters
from clipneurons.text import embed_texts
from export.rewrite import open_resnet
from export.settings import UserError

IGNORED = 255
BACKGROUND = -1
QUANTILES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PAIR_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
_STYLES = {"heldout": "openmoji", "validation": "fxemoji"}


@dataclass(frozen=True)
class Labelled:
    """Images with an index mask each: class number, BACKGROUND, or IGNORED."""

    name: str
    class_names: tuple[str, ...]
    count: int
    load: Callable[[int], tuple[Image.Image, np.ndarray]]

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]:
        return (self.load(index) for index in range(self.count))


def scenes(names: Sequence[str], count: int, styles: str, size: int, seed: int) -> Labelled:
    """Composed scenes of the named concepts, two or three a scene."""
    from clipneurons.pictograms import load_pictograms
    from clipneurons.scenes import SceneConfig, Scenes

    pack = load_pictograms(heldout=styles == "heldout")
    config = SceneConfig(
        size=size, objects=(2, 3), styles=(_STYLES[styles],), concepts=tuple(names)
    )
    made = Scenes(pack, config, count, seed)

    def load(index: int) -> tuple[Image.Image, np.ndarray]:
        scene = made[index]
        labels = np.full(scene.image.shape[:2], BACKGROUND)
        for thing in scene.objects:
            labels[thing.mask] = names.index(thing.name)
        return Image.fromarray(scene.image), labels

    return Labelled(f"scenes, {styles}", tuple(names), count, load)


def folder(root: Path, count: int | None = None) -> Labelled:
    """PASCAL-Context or COCO-stuff style: ``names.txt``, ``images/*.jpg``, ``masks/*.png``.

    Masks hold the line of the class in ``names.txt`` counted from 1; 0 is background, 255 is
    left out.

    Raises:
        UserError: a missing part, or a mask of another size or with numbers beyond the names.
    """
    if not (root / "names.txt").is_file():
        raise UserError(f"{root} has no names.txt: expected names.txt, images/ and masks/")
    names = tuple(line for line in (root / "names.txt").read_text().splitlines() if line.strip())
    pictures = sorted(p for p in (root / "images").glob("*") if p.is_file())[:count]
    if not pictures:
        raise UserError(f"{root}/images holds no image")

    def load(index: int) -> tuple[Image.Image, np.ndarray]:
        picture = pictures[index]
        path = root / "masks" / f"{picture.stem}.png"
        if not path.is_file():
            raise UserError(f"{picture.name} has no mask {path}")
        image = Image.open(picture).convert("RGB")
        labels = np.asarray(Image.open(path)).astype(int)
        if labels.shape != image.size[::-1] or labels[labels != IGNORED].max(initial=0) > len(
            names
        ):
            raise UserError(
                f"{path}: expected an index mask of {image.size[0]} x {image.size[1]} pixels with "
                f"numbers up to {len(names)}, it is {labels.shape} with {labels.max()}"
            )
        return image, np.where(labels == IGNORED, IGNORED, labels - 1)

    return Labelled(root.name, names, len(pictures), load)


def confusion(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Counts [true, predicted]; the last row and column are the background."""
    valid = truth != IGNORED
    true, guess = (np.where(x[valid] == BACKGROUND, classes, x[valid]) for x in (truth, predicted))
    counts = np.bincount(true * (classes + 1) + guess, minlength=(classes + 1) ** 2)
    return counts.reshape(classes + 1, classes + 1)


def mean_iou(counts: np.ndarray) -> float:
    """Mean over all classes that occur, background included, in percent."""
    hit = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hit
    present = counts.sum(1) > 0
    return float(100 * (hit[present] / union[present]).mean())


def score_maps(tower, data: Labelled, make, texts: Tensor) -> list[tuple[Tensor, np.ndarray]]:
    """Class scores [class, row, column] and the true labels of every image."""
    found = []
    for image, labels in tqdm(data, total=data.count, leave=False, desc=data.name):
        found.append((make(tower.preprocess(image)[None], texts)[0].float().cpu(), labels))
    return found


def evaluate(maps: list[tuple[Tensor, np.ndarray]], bound: float, classes: int) -> float:
    """Mean IoU of the argmax, with the background where the best score is below the bound."""
    total = 0
    for scores, labels in maps:
        best, guess = upsample(scores, labels.shape).max(0)
        total = total + confusion(
            torch.where(best > bound, guess, BACKGROUND).numpy(), labels, classes
        )
    return mean_iou(total)


def measure(tower, validation: Labelled, data: Labelled, templates: str = "photo") -> dict:
    """For every method: what was chosen on the validation data, and the mean IoU on the data."""
    units = tower.neurons * tower.heads
    texts = {d.name: embed_texts(tower, d.class_names, templates) for d in (validation, data)}
    result = {}
    for name, make in resnet_segmenters(tower).items():
        options = [{}]
        if name == PAIRS:
            options = [{"count": max(1, int(share * units))} for share in PAIR_SHARES]
        best = (-1.0, None, None, None)
        for option, contrast in itertools.product(options, (False, True)):
            maps = score_maps(
                tower, validation, partial(make, **option),
                _texts(texts[validation.name], contrast),
            )  # fmt: skip
            peaks = torch.cat([scores.amax(0).flatten() for scores, _ in maps])
            for quantile in QUANTILES:
                bound = peaks.quantile(quantile).item()
                found = evaluate(maps, bound, len(validation.class_names))
                best = max(best, (found, bound, contrast, option), key=lambda x: x[0])
        found, bound, contrast, option = best
        maps = score_maps(tower, data, partial(make, **option), _texts(texts[data.name], contrast))
        result[name] = {
            "mIoU": round(evaluate(maps, bound, len(data.class_names)), 2),
            "validation mIoU": round(found, 2),
            "contrast": contrast,
            **option,
        }
    return result


def _texts(texts: Tensor, contrast: bool) -> Tensor:
    return texts - texts.mean(0) if contrast else texts


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--bundle", default="artifacts/mini-rn", help="folder of a ResNet's bundle")
    add("--dataset", help="folder with names.txt, images/ and masks/ (default: scenes)")
    add("--count", type=int, default=200, help="images to measure on")
    add("--choose", type=int, default=100, help="validation images to choose settings on")
    add("--classes", type=int, default=20, help="classes of the scenes, chosen by chance")
    add("--seed", type=int, default=0)
    add("--out", type=Path, help="also write the figures here, as JSON")
    args = parser.parse_args()
    _, tower = open_resnet(args.bundle)
    size = max(tower.image_size)
    from clipneurons.pictograms import load_pictograms

    packs = load_pictograms(), load_pictograms(heldout=True)
    drawn = (
        c for c in packs[0].concepts
        if "fxemoji" in packs[0].styles_of(c) and "openmoji" in packs[1].styles_of(c)
    )  # fmt: skip
    known = sorted(drawn)
    names = [known[i] for i in np.random.default_rng(args.seed).permutation(len(known))]
    names = names[: args.classes]
    validation = scenes(names, args.choose, "validation", size, args.seed + 1)
    data = (
        folder(Path(args.dataset), args.count)
        if args.dataset
        else scenes(names, args.count, "heldout", size, args.seed)
    )
    figures = measure(tower, validation, data)
    print(json.dumps(figures, indent=1))
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
