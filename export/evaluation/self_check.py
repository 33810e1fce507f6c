"""Is the model read as it was trained? Zero-shot on a few photographs, before a run.

A wrong activation or preprocessing costs accuracy and raises no error. A weights file under a name
does not say them, so there the other readings are tried as well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import QuickGELU
from PIL import Image
from torch import Tensor, nn

from clipneurons.bundle.config import SelfCheck
from clipneurons.models.clip import ClipModel
from clipneurons.models.preprocessing import KNOWN
from clipneurons.synthetic.photographs import load_photographs
from clipneurons.text.embedding import embed_texts

# Everyday things, two photographs each; chosen among all classes that photographs ship of.
_SHOWN = (
    "accordion", "airplane", "automobile", "butterfly", "camera", "chair", "crab", "cup",
    "dolphin", "elephant", "flamingo", "grand piano", "headphones", "helicopter", "kangaroo",
    "laptop", "motorcycle", "octopus", "panda", "pizza", "rooster", "scissors", "strawberry",
    "umbrella",
)  # fmt: skip
_EACH, _BATCH = 2, 16
_NEAR_CHANCE = 5
# Standard deviations by which another reading has to be better before it is asked about.
_CLEAR = 1.64


@dataclass(frozen=True)
class Checked:
    """The figure that a bundle keeps, the readings that were clearly better, and seconds."""

    figure: SelfCheck
    better: tuple[str, ...]
    seconds: float

    def line(self) -> str:
        """For the plan of a run."""
        doubt = f": are you sure? {' and '.join(self.better)} fits better" if self.better else ""
        chance = self.figure.photographs / self.figure.classes
        if self.figure.right <= _NEAR_CHANCE * chance and not doubt:
            doubt = ". That is near chance: is it read as it was trained, and on such things?"
        return f"check    {in_words(self.figure)} ({math.ceil(self.seconds)} s){doubt}"


def in_words(figure: SelfCheck) -> str:
    """One line for plan, `info` and card."""
    count = figure.photographs
    others = "".join(
        f"; with {name} on {right / count:.0%}" for name, right in figure.others.items()
    )
    return (
        f"ranks the right class of {figure.classes} first on {figure.right / count:.0%} of {count}"
        f" shipped photographs{others}"
    )


def self_check(clip: ClipModel, other_readings: bool = False) -> Checked | None:
    """Zero-shot accuracy on photographs that ship; None where they do not (outside a checkout).

    `other_readings`: also with the other activation and the other preprocessing.
    """
    try:
        pack = load_photographs()
    except FileNotFoundError:
        return None
    started = time.perf_counter()
    by_name = pack.by_name
    classes = sorted(by_name)
    rows = [row for name in _SHOWN for row in by_name[name][:_EACH]]
    images = [Image.fromarray(pack.image(row)) for row in rows]
    labels = torch.tensor([classes.index(pack.name(row)) for row in rows])

    def right_with(preprocess: Callable) -> Bool[Tensor, " image"]:
        texts = embed_texts(clip, classes, "photo")
        parts = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        pixels = (torch.stack([preprocess(image) for image in part]) for part in parts)
        embedded = torch.cat([clip.encode_image(batch) for batch in pixels])
        return (embedded @ texts.T).argmax(1).cpu() == labels

    right = right_with(clip.preprocess)
    others: dict[str, Bool[Tensor, " image"]] = {}
    if other_readings:
        for name, preprocess in _other_preprocessing(clip).items():
            others[name] = right_with(preprocess)
        other = "gelu" if clip.quick_gelu else "quick_gelu"
        with _swapped(clip) as swapped:
            if swapped:
                others[f"--activation {other}"] = right_with(clip.preprocess)
    figure = SelfCheck(
        photographs=len(labels),
        classes=len(classes),
        right=int(right.sum()),
        others={name: int(hits.sum()) for name, hits in others.items()},
    )
    better = tuple(name for name, hits in others.items() if _clearly_better(hits, right))
    return Checked(figure, better, time.perf_counter() - started)


def _other_preprocessing(clip: ClipModel) -> dict[str, Callable]:
    """Transforms of the known kinds of preprocessing whose colours the model does not have."""
    kinds = {}
    for name, (mean, std, interpolation, resize_mode) in KNOWN.items():
        if tuple(mean) != tuple(clip.image_mean):
            cfg = PreprocessCfg(
                size=clip.image_size, mean=mean, std=std, interpolation=interpolation,
                resize_mode=resize_mode,
            )  # fmt: skip
            kinds[f"--preprocess {name}"] = image_transform_v2(cfg, is_train=False)
    return kinds


@contextmanager
def _swapped(clip: ClipModel) -> Iterator[bool]:
    """The model with GELU for QuickGELU in its blocks, or the reverse; whether it has either."""
    places = [
        (parent, name, child)
        for parent in clip.model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.GELU | QuickGELU)
    ]
    try:
        for parent, name, child in places:
            setattr(parent, name, QuickGELU() if isinstance(child, nn.GELU) else nn.GELU())
        yield bool(places)
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)


def _clearly_better(hits: Bool[Tensor, " image"], right: Bool[Tensor, " image"]) -> bool:
    """Whether another reading is right more often than by chance, image by image (McNemar)."""
    gained, lost = int((hits & ~right).sum()), int((right & ~hits).sum())
    return gained - lost > _CLEAR * math.sqrt(gained + lost)
