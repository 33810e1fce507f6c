"""`python -m research segmentation semantic`: a class or the background for every pixel.

Every method gives each position the class with the highest score, or the background where all
scores stay below a bound. All methods are compared twice: as they are, and with the same edge
refinement (`follow_edges`). Each has 168 tries on validation images (`methods.tries`): its own
settings, the class alone or held against all names, the scale of the image, and the bound.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clipneurons.bundle.bundle import Bundle
from clipneurons.models.clip import ClipModel
from clipneurons.models.larger_images import enlarge
from clipneurons.models.preprocess import whole
from clipneurons.segmentation.edges import follow_edges
from clipneurons.segmentation.masks import upsample
from clipneurons.text.embedding import embed_texts
from export.common.errors import UserError
from export.data.open_source import PHOTOGRAPHS
from export.data.packed_sources import shipped_photographs
from research.segmentation.mask_datasets import COMPOSED, STYLES, MaskSet, collages_of, scenes_of
from research.segmentation.methods import BLOCKS, OURS, Method, Variant, methods, pick
from research.segmentation.metrics import resamples

IGNORED = 255
BACKGROUND = -1
SCALES = (1.0, 1.5)
BASELINE = "MaskCLIP"
# Bounds of a method with six settings of its own.
_BOUNDS = 7
# Every so many pixels count when bounds are chosen.
SPARSE = 7


# An image with an index mask: class number, BACKGROUND, or IGNORED.
Labelled = tuple[Image.Image, np.ndarray]


def scenes(
    names: Sequence[str], count: int, styles: str, size: int, seed: int
) -> MaskSet[Labelled]:
    """Composed scenes of the named concepts, two or three a scene."""
    made = scenes_of(styles, count, seed, size=size, objects=(2, 3), concepts=tuple(names))

    def load(index: int) -> Labelled:
        scene = made[index]
        return labelled(scene.image, {thing.name: thing.mask for thing in scene.objects}, names)

    return MaskSet(f"scenes, {styles}", count, tuple(names), load)


def photographs(
    names: Sequence[str], count: int, styles: str, size: int, seed: int
) -> MaskSet[Labelled]:
    """Photographs of the names cut onto one another; every pixel belongs to one of the two."""
    made = collages_of(styles, count, seed, size, names)

    def load(index: int) -> Labelled:
        collage = made[index]
        return labelled(collage.image, collage.masks, names)

    return MaskSet(f"cut photographs, {styles}", count, tuple(names), load)


def labelled(pixels: np.ndarray, masks: Mapping[str, np.ndarray], names: Sequence[str]) -> Labelled:
    """The image with the masks of its names as one."""
    labels = np.full(pixels.shape[:2], BACKGROUND)
    for name, mask in masks.items():
        labels[mask] = names.index(name)
    return Image.fromarray(pixels), labels


def folder(root: Path, count: int | None = None) -> MaskSet[Labelled]:
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

    def load(index: int) -> Labelled:
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

    return MaskSet(root.name, len(pictures), names, load)


def confusion(
    predicted: np.ndarray, truth: np.ndarray, classes: int
) -> Int[np.ndarray, "class+1 class+1"]:
    """Counts [true, predicted]; the last row and column are the background."""
    valid = truth != IGNORED
    true, guess = (np.where(x[valid] == BACKGROUND, classes, x[valid]) for x in (truth, predicted))
    counts = np.bincount(true * (classes + 1) + guess, minlength=(classes + 1) ** 2)
    return counts.reshape(classes + 1, classes + 1)


def mean_iou(
    counts: Int[np.ndarray, "*sample row row"], classes: Bool[np.ndarray, " row"] | None = None
) -> Float[np.ndarray, "*sample"]:
    """Mean over the classes, background included, in percent; by default those that occur.

    Of a bootstrap sample, name the `classes` of the whole data: one that was not drawn counts 0
    where it is predicted, else dropping the rare ones would raise the mean. One neither drawn nor
    predicted has no IoU and is left out.
    """
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    truth = counts.sum(-1)
    union = counts.sum(-2) + truth - hit
    present = truth > 0 if classes is None else classes & (union > 0)
    shares = np.where(present, hit / np.maximum(union, 1), 0.0)
    return 100 * shares.sum(-1) / present.sum(-1)


@dataclass(frozen=True)
class Setting:
    """What is chosen on the validation data."""

    variant: Variant
    scale: float
    bound: float = 0.0

    def figures(self) -> dict:
        """What was chosen, for a report."""
        return {"scale": self.scale, "bound": self.bound, **self.variant.figures()}


@dataclass(frozen=True)
class Guess:
    """The best class of each pixel of one image, its score, and the truth."""

    score: Tensor
    label: Tensor
    truth: np.ndarray

    @classmethod
    def of(cls, maps: Float[Tensor, "class row column"], truth: np.ndarray) -> Guess:
        """The guess that maps make."""
        score, label = upsample(maps, truth.shape).max(0)
        return cls(score, label.short(), truth)

    def counts(self, bound: float, classes: int) -> np.ndarray:
        """Confusion with the background where the score is not above the bound."""
        predicted = torch.where(self.score > bound, self.label, BACKGROUND)
        return confusion(predicted.numpy(), self.truth, classes)


class ScaledMethods:
    """The methods that read the text, at every scale; scores of a data set under settings."""

    def __init__(self, clip: ClipModel, bundle: Bundle | None, names: str | None, templates: str):
        self.templates = templates
        self.clips = {scale: enlarge(clip, scale) for scale in SCALES}
        self.methods: dict[float, dict[str, Method]] = {}
        for scale, larger in self.clips.items():
            known = methods(larger, bundle.directions if bundle else None)
            known = {name: method for name, method in known.items() if method.reads_text}
            self.methods[scale] = {method.name: method for method in pick(larger, known, names)}
        self.names = tuple(self.methods[SCALES[0]])

    def guesses(
        self, settings: Sequence[Setting], edges: Sequence[bool], data: MaskSet[Labelled]
    ) -> Iterator[list[list[Guess]]]:
        """Of every image, what each setting makes of it, without and with edges as asked."""
        texts = embed_texts(self.clips[SCALES[0]], data.class_names, self.templates)
        shown = f"{settings[0].variant.method.name}, {data.name}"
        for image, truth in tqdm(data, shown, data.count, leave=False, disable=None):
            images = {scale: whole(clip, image) for scale, clip in self.clips.items()}
            guesses = []
            for setting in settings:
                clip, batch = self.clips[setting.scale], images[setting.scale]
                plain = setting.variant.maps(batch, texts, texts)
                maps = [follow_edges(clip, batch, plain) if refined else plain for refined in edges]
                guesses.append([Guess.of(one[0].float().cpu(), truth) for one in maps])
            yield guesses

    def choose(self, name: str, data: MaskSet[Labelled]) -> dict[str, tuple[float, Setting]]:
        """By block the setting with the largest mean IoU, and that."""
        bounds = self.methods[SCALES[0]][name].tries(_BOUNDS)
        settings = [
            Setting(variant, scale)
            for scale in SCALES
            for variant in self.methods[scale][name].variants()
        ]
        by_image = list(self.guesses(settings, tuple(BLOCKS.values()), data))
        best: dict[str, tuple[float, Setting]] = {}
        for number, setting in enumerate(settings):
            for place, block in enumerate(BLOCKS):
                guesses = [image[number][place] for image in by_image]
                scores = torch.cat([guess.score.flatten()[::SPARSE] for guess in guesses])
                shares = np.linspace(0.3, 0.9, bounds)
                for bound in np.quantile(scores.numpy(), shares).tolist():
                    counts = sum(guess.counts(bound, len(data.class_names)) for guess in guesses)
                    reached = float(mean_iou(counts))
                    if block not in best or reached > best[block][0]:
                        best[block] = (reached, replace(setting, bound=bound))
        return best


def measure(bundle: Bundle, clip: ClipModel, args: argparse.Namespace) -> dict:
    """Mean IoU of every method on the data set of the arguments, for `metrics.json`."""
    size, seed = max(clip.image_size), args.seed
    cut = args.dataset == PHOTOGRAPHS
    make = photographs if cut else scenes
    names = (photographed if cut else drawn_classes)(args.classes, seed)
    validation = make(names, args.choose, "validation", size, seed + 1)
    if args.dataset in COMPOSED:
        data = make(names, args.images, "heldout", size, seed)
    else:
        data = folder(Path(args.dataset), args.images)
    templates = args.templates or "photo"
    return compare(clip, validation, data, bundle, args.methods, templates)


def compare(
    clip: ClipModel,
    validation: MaskSet[Labelled],
    data: MaskSet[Labelled],
    bundle: Bundle | None = None,
    names: str | None = None,
    templates: str = "photo",
) -> dict:
    """Both blocks: what was chosen on the validation data, and the mean IoU on the data.

    With 95 % bootstrap intervals over images, of the ratio to MaskCLIP's mean IoU too.
    """
    scaled = ScaledMethods(clip, bundle, names, templates)
    weights = resamples(data.count)
    blocks: dict[str, dict] = {block: {} for block in BLOCKS}
    samples: dict[str, dict] = {block: {} for block in BLOCKS}
    for name in scaled.names:
        for block, (reached, setting) in scaled.choose(name, validation).items():
            guesses = scaled.guesses([setting], [BLOCKS[block]], data)
            counts = np.stack(
                [image[0][0].counts(setting.bound, len(data.class_names)) for image in guesses]
            )
            samples[block][name] = mean_iou(
                np.tensordot(weights, counts, 1), counts.sum((0, 2)) > 0
            )
            blocks[block][name] = {
                "mIoU": round(float(mean_iou(counts.sum(0))), 2),
                "interval": _interval(samples[block][name]),
                "validation mIoU": round(reached, 2),
                **setting.figures(),
            }
    for block, entries in blocks.items():
        for name, entry in entries.items():
            if name != BASELINE and BASELINE in entries:
                entry[f"times {BASELINE}"] = {
                    "value": round(entry["mIoU"] / entries[BASELINE]["mIoU"], 3),
                    "interval": _interval(samples[block][name] / samples[block][BASELINE]),
                }
    return {
        "data": data.name,
        "images": data.count,
        "validation images": validation.count,
        "classes": len(data.class_names),
        "blocks": blocks,
    }


def in_words(figures: dict) -> str:
    """The figures in Markdown, a table a block."""
    head = (
        f"{figures['data']}: {figures['images']} images, {figures['classes']} classes, settings "
        f"chosen on {figures['validation images']}; per cent"
    )
    return "\n\n".join([head, *(_table(*block) for block in figures["blocks"].items())])


def _table(block: str, entries: dict) -> str:
    lines = [
        f"| {block} | mIoU (95 % interval) | times {BASELINE} | scale | contrast |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, entry in sorted(entries.items(), key=lambda item: -item[1]["mIoU"]):
        low, high = entry["interval"]
        ratio = ""
        if times := entry.get(f"times {BASELINE}"):
            ratio = "{:.2f} ({:.2f} to {:.2f})".format(times["value"], *times["interval"])
        lines.append(
            f"| {name}{' (ours)' if name == OURS else ''} | {entry['mIoU']:.1f} ({low:.1f} to "
            f"{high:.1f}) | {ratio} | {entry['scale']:g} | {'yes' if entry['contrast'] else 'no'} |"
        )
    return "\n".join(lines)


def _interval(samples: np.ndarray) -> list[float]:
    return np.percentile(samples, [2.5, 97.5]).round(3).tolist()


def drawn_classes(count: int, seed: int = 0) -> list[str]:
    """Concepts that both the validation and the held-out style draw, chosen by chance."""
    from clipneurons.synthetic.pictograms import load_pictograms

    trained, heldout = load_pictograms(), load_pictograms(heldout=True)
    known = sorted(
        c
        for c in trained.concepts
        if STYLES["validation"] in trained.styles_of(c)
        and STYLES["heldout"] in heldout.styles_of(c)
    )
    return [known[i] for i in np.random.default_rng(seed).permutation(len(known))][:count]


def photographed(count: int, seed: int = 0) -> list[str]:
    """Names that both the photographs to choose by and those to report on have, by chance."""
    own, heldout = (shipped_photographs(which).class_names for which in (False, True))
    known = sorted(set(own) & set(heldout))
    return [known[i] for i in np.random.default_rng(seed).permutation(len(known))][:count]
